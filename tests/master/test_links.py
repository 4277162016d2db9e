"""Whose ref a link is: the default repository's first, then the fork's that has had it longest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from master.requests.refs import RefUnknown, RepositoryUnreachable
from master.requests.resolved import Resolved

if TYPE_CHECKING:
    from collections.abc import Mapping

CEPH = "https://github.com/ceph/ceph.git"
MINE = "https://github.com/me/ceph.git"
YOURS = "https://github.com/you/ceph.git"
A, B = "a" * 40, "b" * 40
NONE = RefUnknown("no such ref")
AWAY = RepositoryUnreachable("away", passing=True)
GONE = RepositoryUnreachable("not found", passing=False)


def resolved(git_url: str, said: Mapping[str, str | BaseException], kind: str = "") -> Resolved:
    return Resolved("wip/x", kind, git_url, said)


@pytest.mark.parametrize(
    ("git_url", "said", "owner", "linked_as"),
    [
        (CEPH, {CEPH: A}, "", CEPH),
        (CEPH, {CEPH: A}, MINE, CEPH),
        (MINE, {MINE: A, CEPH: NONE}, "", MINE),
        (MINE, {MINE: A, CEPH: NONE}, MINE, MINE),
        (MINE, {MINE: A, CEPH: NONE}, CEPH, MINE),
        (MINE, {MINE: A, CEPH: A}, "", CEPH),
        (MINE, {MINE: A, CEPH: A}, YOURS, CEPH),
        (MINE, {MINE: A, CEPH: NONE, YOURS: NONE}, YOURS, MINE),
        (MINE, {MINE: A, CEPH: NONE, YOURS: GONE}, YOURS, MINE),
        (MINE, {MINE: A, CEPH: NONE}, YOURS, MINE),
    ],
)
def test_who_gets_the_link(
    git_url: str, said: Mapping[str, str | BaseException], owner: str, linked_as: str
) -> None:
    """The default repository gets any link; a fork gets a free one, or one whose owner no longer has the ref."""
    found = resolved(git_url, said)
    assert (found.sha1, found.why_not(CEPH, owner), found.linked_as(CEPH)) == (A, "", linked_as)


@pytest.mark.parametrize(
    ("said", "owner", "sentence"),
    [
        ({MINE: A, CEPH: B}, "", f"{CEPH} has another branch or tag 'wip/x'"),
        ({MINE: A, CEPH: AWAY}, "", f"{CEPH} could not be asked whether it has 'wip/x' as well"),
        ({MINE: A, CEPH: GONE}, MINE, f"{CEPH} could not be asked whether it has 'wip/x' as well"),
        ({MINE: A, CEPH: NONE, YOURS: B}, YOURS, f"it is that of 'wip/x' in {YOURS}"),
        ({MINE: A, CEPH: NONE, YOURS: A}, YOURS, f"it is that of 'wip/x' in {YOURS}"),
        ({MINE: A, CEPH: NONE, YOURS: AWAY}, YOURS, f"it is that of 'wip/x' in {YOURS}"),
    ],
)
def test_why_there_is_no_link(said: Mapping[str, str | BaseException], owner: str, sentence: str) -> None:
    """A fork's ref takes no link from the default repository, nor from another fork that has the ref, or may have it."""
    assert resolved(MINE, said).why_not(CEPH, owner) == sentence


def test_a_pull_request_of_a_fork_has_no_link() -> None:
    """A ref that is neither branch nor tag has a link for the default repository only, even if only a fork has the ref."""
    sentence = f"only {CEPH} has links for refs that are no branches and no tags"
    assert resolved(MINE, {MINE: A, CEPH: NONE}, "ref").why_not(CEPH, "") == sentence
    assert resolved(MINE, {MINE: A, CEPH: B}, "ref").why_not(CEPH, "") == sentence
    assert resolved(CEPH, {CEPH: A}, "ref").why_not(CEPH, "") == ""
