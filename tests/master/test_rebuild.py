"""A rebuild is a request: what may not be requested any more is not rebuilt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.www.rest import BadJsonRpc2

from master.schedulers import PackagesScheduler
from model.git_names import GitUrlPolicy
from model.targets import Target
from tests.reactor import finish

TARGET = "ceph-deb-jammy-x86_64-default"
PROPERTIES = {
    "package_key": (f"{TARGET}/{'a' * 40}", "packages"),
    "git_url": ("https://git.example.org/me/ceph.git", "packages"),
    "ref": ("", "packages"),
}


class _Data:
    async def get(self, path: tuple[Any, ...], _: object = None) -> Any:
        if path[-1] == "properties":
            return PROPERTIES
        return {"buildrequestid": 1, "buildsetid": 1}


def test_a_rebuild_from_a_repository_that_is_allowed_no_more_is_refused() -> None:
    """A build's repository may have been taken out of `git.allowed` since; no git of ours asks it again."""
    scheduler: Any = SimpleNamespace(
        master=SimpleNamespace(data=_Data()),
        _targets={TARGET: Target.from_name(TARGET)},
        _policy=GitUrlPolicy(("https://github.com/",)),
    )
    endpoint: Any = SimpleNamespace(get=lambda _, kwargs: _Data().get(("builds", kwargs["buildid"])))

    async def rebuild(_: object) -> Any:
        return await PackagesScheduler._rebuild(scheduler, endpoint, {"owner": "me"}, {"buildid": 1})

    with pytest.raises(BadJsonRpc2) as caught:
        finish(rebuild)
    sentence = (
        "git_url 'https://git.example.org/me/ceph.git' is not below an allowed URL: https://github.com/"
    )
    assert caught.value.message == {"git_url": sentence}
