"""Refs: what they resolve to in git, and what they were last resolved to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from master import git_process
from model.git_names import OTHER
from model.package_key import PackageKey, check_sha1
from workers.processes import run

if TYPE_CHECKING:
    from pathlib import Path

    from model.targets import Target


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


class LastResolved:
    """Remembers, for each target, which commit a ref was last resolved to; survives the master.

    A ref's link follows it: a commit that gets published late never takes the link from a newer one.
    `links.py` decides which repository may record a ref.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there."""
        self._path = path
        self._targets: dict[str, dict[str, dict[str, str]]] = {}
        if path.exists():
            self._targets = json.loads(path.read_text())

    def owner(self, target: str, ref: str) -> str:
        """Return the URL of the repository that a target's ref was last resolved in; empty if it never was."""
        found = self._targets.get(target, {}).get(ref)
        return found["git_url"] if found else ""

    def record(self, key: PackageKey, ref: str, git_url: str) -> None:
        """Record the repository and the commit that a ref was resolved to."""
        refs = self._targets.setdefault(key.target.name, {})
        before, now = refs.get(ref), {"sha1": key.sha1, "git_url": git_url}
        if before != now:
            refs[ref] = now
            self._write()

    def forget(self, target: str, ref: str) -> None:
        """Forget a ref, so that it gets no link until it is requested again."""
        if self._targets.get(target, {}).pop(ref, None) is not None:
            self._write()

    def refs(self, target: str) -> list[str]:
        """Return the refs of a target that are recorded."""
        return sorted(self._targets.get(target, {}))

    def _write(self) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        temporary.write_text(json.dumps(self._targets, indent=1, sort_keys=True))
        temporary.replace(self._path)

    def refs_at(self, key: PackageKey) -> list[str]:
        """Give the refs that were last at this commit."""
        refs = self._targets.get(key.target.name, {})
        return sorted(ref for ref, found in refs.items() if found["sha1"] == key.sha1)

    def all(self, targets: dict[str, Target]) -> list[tuple[PackageKey, str]]:
        """Give everything remembered of the targets that are on."""
        return [
            (PackageKey(targets[name], found["sha1"]), ref)
            for name, refs in self._targets.items()
            if name in targets
            for ref, found in refs.items()
        ]
