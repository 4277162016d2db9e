"""Resolves refs in git repositories."""

from __future__ import annotations

import re
from typing import Any

from master.requests import git_process
from model.git_names import OTHER
from model.package_key import check_sha1
from workers.processes import run


class RefUnknown(ValueError):
    """The repository answered, and has no such ref."""


_SHORT_SHA1 = re.compile(r"[0-9a-fA-F]{7,39}\Z")

NEVER = re.compile(
    r"not found|does not exist|not exported|denied|could not read Username|Authentication failed|not a git rep|not allowed",
    re.IGNORECASE,
)
"""What git says of a repository that will not be there the next time either, or not for us."""


class RepositoryUnreachable(ValueError):
    """The repository did not answer, or not in time; `passing` if asking again may help."""

    def __init__(self, sentence: str, *, passing: bool) -> None:
        """Take the sentence for the user."""
        super().__init__(sentence)
        self.passing = passing


async def resolve(reactor: Any, git_url: str, ref: str, seconds: float, kind: str = "") -> str:
    """Return the commit that a ref of a repository is at. Tags are peeled, and precede branches of the same name.

    `kind` is one that split_ref returns: with `branch` or `tag` only such a ref is found; `ref` means a full name.
    Raises RefUnknown or RepositoryUnreachable with a sentence for the user.
    """
    tags, branches = (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"), (f"refs/heads/{ref}",)
    full = (f"{ref}^{{}}", ref)
    candidates = {"tag": tags, "branch": branches, OTHER: full}.get(kind, tags + branches)
    command = [
        *git_process.LIMITS,
        "git",
        *git_process.OPTIONS,
        "ls-remote",
        "--quiet",
        "--",
        git_url,
        *candidates,
    ]
    finished = await git_process.contact(run(reactor, command, git_process.environment(), seconds))
    if finished.status is None:
        raise RepositoryUnreachable(f"{git_url} did not answer within {seconds:g} s; ask again", passing=True)
    if finished.status != 0:
        said = git_process.last_line(finished.errors)
        passing = not NEVER.search(finished.errors)
        raise RepositoryUnreachable(f"{git_url} cannot be asked for its refs: {said}", passing=passing)
    found = {}
    for line in finished.output.decode(errors="replace").splitlines():
        sha1, _, name = line.partition("\t")
        found[name] = sha1
    for name in candidates:
        if name in found:
            try:
                return check_sha1(found[name])
            except ValueError as error:
                sentence = f"{git_url} cannot be asked for its refs: {error}"
                raise RepositoryUnreachable(sentence, passing=False) from None
    hint = ": a commit is named by all 40 digits of its sha1" if _SHORT_SHA1.match(ref) else ""
    raise RefUnknown(f"{git_url} has no {kind or 'branch or tag'} {ref!r}{hint}")
