"""Which commit each target's refs were last resolved to, in a file that survives the master."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from model.package_key import PackageKey

if TYPE_CHECKING:
    from pathlib import Path

    from model.targets import Target


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
        """Return the refs that were last at this commit."""
        refs = self._targets.get(key.target.name, {})
        return sorted(ref for ref, found in refs.items() if found["sha1"] == key.sha1)

    def all(self, targets: dict[str, Target]) -> list[tuple[PackageKey, str]]:
        """Return everything remembered of the targets that are on."""
        return [
            (PackageKey(targets[name], found["sha1"]), ref)
            for name, refs in self._targets.items()
            if name in targets
            for ref, found in refs.items()
        ]
