"""Attacks by which a published package could stand in for a package of the system, or a repository for another's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master."""
    with tiny_installation(tmp_path_factory.mktemp("identity")) as made:
        yield made


def test_c5_a_commit_that_builds_a_bash_is_not_published(here: Installation) -> None:
    """The request fails with a sentence that names the package and the setting, and nothing of the key is served."""
    sha1 = here.repository.commit(replace(tiny.WHOLE, packages=("tiny", "bash")))
    answer = here.ask(DEB, sha1=sha1)
    assert here.wait(answer)["results"] == 2
    assert (
        "is the package 'bash', which project ceph may not publish: if it is right, add the name to"
        " projects.ceph.packages"
    ) in str(here.said(answer))
    assert not (here.packages / DEB / "sha1" / sha1).exists()
