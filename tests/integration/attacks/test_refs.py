"""Attacks by which a fork could take, forge or block a name of the default repository, or hold back its commits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master, with a fork of the default repository by Mallory."""
    with tiny_installation(tmp_path_factory.mktemp("refs")) as made:
        made.repository.tag("v1.0-alias", made.repository.first)
        made.fork = made.repository.fork(made.input / "mallory/ceph.git")  # type: ignore[attr-defined]
        yield made


def fork(here: Installation) -> tiny.Repository:
    """Return Mallory's fork."""
    return here.fork  # type: ignore[attr-defined,no-any-return]


def fork_url(here: Installation) -> str:
    """Return the URL of Mallory's fork."""
    return f"git://127.0.0.1:{here.git_port}/mallory/ceph.git"


def link(here: Installation, ref: str) -> str:
    """Return the sha1 that a ref's link leads to, or an empty string."""
    path = here.packages / DEB / "ref" / ref
    return os.readlink(path).rpartition("/")[2] if path.is_symlink() else ""


def published(here: Installation, **params: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Request packages and wait for them; return the answer and the manifest."""
    answer = here.ask(DEB, **params)
    if answer["state"] != "published":
        assert here.wait(answer)["results"] == 0, here.said(answer)
    return answer, requests.get(f"{answer['url']}manifest.json", timeout=30).json()


def test_b1_a_name_of_another_kind_takes_no_link(here: Installation) -> None:
    """A fork's tag with the name of a branch, or the reverse, gets no link: the answer says why, and the manifest names no ref."""
    forged = fork(here).commit(ref="side")
    fork(here).tag("main", forged)
    fork(here).git("update-ref", "refs/heads/v1.0", forged)
    for ref, name in (("refs/tags/main", "main"), ("refs/heads/v1.0", "v1.0")):
        answer, manifest = published(here, ref=ref, git_url=fork_url(here))
        assert answer["package_key"] == f"{DEB}/{forged}"
        assert answer["no_link"] == f"{here.git_url} has another branch or tag {name!r}"
        assert link(here, name) == ""
        assert (manifest["ref"], manifest["reachable_from"]) == ("", None)
    found = requests.get(
        f"{here.packages_url}api/search",
        params={"project": "ceph", "ref": "main", "sha1": "latest"},
        timeout=30,
    ).json()
    assert found == []


def test_b3_a_fork_cannot_hold_back_a_commit_of_the_default_repository(here: Installation) -> None:
    """A commit that the default repository has is fetched from there, though the fork that the request names is gone."""
    sha1 = here.repository.commit(ref="b3")
    gone = here.repository.fork(here.input / "gone/ceph.git")
    answer = here.ask(DEB, sha1=sha1, git_url=fork_url(here).replace("/mallory/", "/gone/"))
    gone.path.rename(here.input / "moved.git")
    assert here.wait(answer)["results"] == 0, here.said(answer)


def test_b6_a_fork_blocks_no_name(here: Installation) -> None:
    """The link of a fork's `wip` gives way to the default repository's `wip/x`, and `reef/x` to `reef`."""
    squatted = fork(here).commit(ref="wip")
    answer, manifest = published(here, ref="wip", git_url=fork_url(here))
    assert (link(here, "wip"), manifest["ref"]) == (squatted, "wip")
    ours = here.repository.commit(ref="wip/x")
    answer, manifest = published(here, ref="wip/x")
    assert answer["no_link"] == ""
    assert link(here, "wip/x") == ours
    assert (manifest["ref"], manifest["reachable_from"]) == ("wip/x", "wip/x")
    fork(here).commit(ref="reef/x")
    published(here, ref="reef/x", git_url=fork_url(here))
    ours = here.repository.commit(ref="reef")
    assert published(here, ref="reef")[0]["no_link"] == ""
    assert link(here, "reef") == ours


def test_b7_a_commit_of_no_ref_is_not_called_reachable(here: Installation) -> None:
    """A commit of no ref is called unverified by the manifest, REST, shaman's view and the build's page; one of a ref is not."""
    sha1 = here.repository.commit(ref="gone")
    here.repository.git("update-ref", "-d", "refs/heads/gone")
    answer, manifest = published(here, sha1=sha1)
    assert (manifest["ref"], manifest["reachable_from"]) == ("", None)
    assert said_of(here, answer, sha1) == (True, True, True, "published; the commit is unverified")
    tip = here.repository.commit(ref="kept")
    answer, _ = published(here, ref="kept")
    assert said_of(here, answer, tip) == (False, False, False, "published")


def said_of(here: Installation, answer: dict[str, Any], sha1: str) -> tuple[bool, bool, bool, str]:
    """Return whether REST, shaman's view and a property of the build call a commit unverified, and what the build's last step says."""
    [number] = answer["buildrequest_ids"].values()
    [status] = here.get(f"packages/{number}")["packages"]
    search = {"project": "ceph", "sha1": sha1}
    [row] = requests.get(f"{here.packages_url}api/search", params=search, timeout=30).json()
    [build] = here.builds(answer)
    [properties] = here.get(f"builds/{build['buildid']}/properties")["properties"]
    step = here.steps(build)["publish"]["state_string"]
    return status["unverified"], row["extra"]["unverified"], bool(properties["unverified"][0]), step


def test_b8_the_manifest_names_no_ref_of_a_fork_that_has_no_link(here: Installation) -> None:
    """A commit that is `main` of a fork only is not listed as `main`."""
    published(here, ref="main")
    theirs = fork(here).commit(ref="main")
    manifest = published(here, ref="main", git_url=fork_url(here))[1]
    assert (manifest["ref"], manifest["reachable_from"]) == ("", None)
    assert link(here, "main") not in ("", theirs)
