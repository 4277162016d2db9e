"""Refs: what they resolve to in git, and what they were last resolved to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from master import git_process
from model.package_key import PackageKey, check_sha1
from workers.processes import run

if TYPE_CHECKING:
    from pathlib import Path

    from model.targets import Target


class RefUnknown(ValueError):
    """The repository answered, and has no such ref."""


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
    """Ask a repository for the commit that a branch or tag is at; tags are peeled, and go first.

    The kind, `branch` or `tag`, has only that be looked for.
    Raises RefUnknown or RepositoryUnreachable with a sentence for the user.
    """
    tags, branches = (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"), (f"refs/heads/{ref}",)
    candidates = {"tag": tags, "branch": branches}.get(kind, tags + branches)
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
    finished = await run(reactor, command, git_process.environment(), seconds)
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
    raise RefUnknown(f"{git_url} has no {kind or 'branch or tag'} {ref!r}")


class LastResolved:
    """Remembers, for each target, which commit a ref was last resolved to; survives the master.

    A ref's link follows it: a commit that gets published late never takes the link from a newer one.
    The repository that a ref was first resolved in keeps it; only the default one may take it over.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there."""
        self._path = path
        self._targets: dict[str, dict[str, dict[str, str]]] = {}
        if path.exists():
            self._targets = json.loads(path.read_text())

    def record(self, key: PackageKey, ref: str, git_url: str, *, default: bool) -> None:
        """Write down that a ref is at this commit now, unless it is another repository's."""
        refs = self._targets.setdefault(key.target.name, {})
        before, now = refs.get(ref), {"sha1": key.sha1, "git_url": git_url}
        if before and before["git_url"] != git_url and not default:
            return
        if before != now:
            refs[ref] = now
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
