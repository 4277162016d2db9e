"""shaman's view on a running master: from unknown over queued and started to what is published."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with tiny_installation(tmp_path_factory.mktemp("master")) as made:
        yield made


def ask(here: Installation, path: str) -> Any:
    """Ask the package server as one would ask shaman."""
    answer = requests.get(f"{here.packages_url}api/{path}", timeout=60)
    answer.raise_for_status()
    return answer.json()


def test_a_build_is_followed_until_it_can_be_installed(here: Installation) -> None:
    """Each state is told in its time, none twice, and completed is told no sooner than the packages are there."""
    sha1 = here.repository.commit(replace(tiny.WHOLE, work="sleep 1"))
    builds, search = f"builds/ceph/main/{sha1}", f"search?status=ready&distros=debian/12/x86_64&sha1={sha1}"
    assert (ask(here, builds), ask(here, search)) == ([], [])
    here.ask(DEB, ref="main")
    states = [""]

    def is_completed() -> bool:
        [build] = ask(here, builds)
        if build["status"] != states[-1]:
            states.append(build["status"])
        return bool(build["status"] == "completed")

    here.until(is_completed, "the build is completed")
    assert states[1:] in (["queued", "started", "completed"], ["started", "completed"])
    [found], [build] = ask(here, search), ask(here, builds)
    assert found["ref"] == "main"
    assert found["url"] == f"{here.packages_url}{DEB}/sha1/{sha1}/"
    assert found["extra"]["build_url"] == build["url"]
    assert build["url"].startswith(f"{here.url}#/builders/")
    assert build["started"] < build["completed"] == found["modified"]
    version = requests.get(f"{found['url']}version", timeout=60).text.strip()
    assert found["extra"]["package_manager_version"] == version
    assert requests.get(f"{found['chacra_url']}repo", timeout=60).text == f"deb [trusted=yes] {found['url']} bookworm main\n"  # fmt: skip


def test_a_failed_build_is_told(here: Installation) -> None:
    """A build that failed is `failed` with its page, and nothing is found to install."""
    sha1 = here.repository.commit(replace(tiny.WHOLE, work="exit 1"))
    here.wait(here.ask(DEB, sha1=sha1))
    [build] = ask(here, f"builds/ceph/{sha1}/{sha1}/")
    assert (build["status"], build["distro_version"]) == ("failed", "12")
    assert build["url"].startswith(f"{here.url}#/builders/")
    assert ask(here, f"search?sha1={sha1}") == []
