"""What is published, by time and by ref: the tree itself, read anew wherever it has changed.

There is no second truth: all that is kept here is what a directory held, and only for as long as the
directory's own time says that it still does. Thus a publication is seen by the next question. Nothing
here knows of Twisted; all calls block, and only one thread at a time may call.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from master.publishing.completeness import GONE, Kept, directories_of, identity_of, is_settled
from model import layout
from model.package_key import PackageKey
from model.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from master.publishing.completeness import Identity

    Record = Callable[[PackageKey], dict[str, Any] | None]

_LINK = re.compile(r"((?:\.\./)+)sha1/([0-9a-f]{40})\Z")
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")


class Entry(NamedTuple):
    """One name in a directory; `link` is what a symbolic link holds, empty for anything else."""

    name: str
    is_directory: bool
    link: str


@dataclass(frozen=True)
class Published:
    """One package_key that is published and whole."""

    key: PackageKey
    version: str
    """What the `version` file says: dpkg's exact version, or rpm's VERSION-RELEASE without the dist."""
    modified: float
    """When it was published, in seconds since the epoch."""
    ref: str
    """The ref that it was asked for by; empty where the manifest names none."""
    build_url: str
    reachable_from: str
    """The ref of the project's own repository that was at the commit; empty if none is known: the commit is unverified."""


@dataclass(frozen=True)
class Keys:
    """The commits of one target, not looked into: newest first with their times, and as a set."""

    newest_first: tuple[tuple[float, str], ...]
    sha1s: frozenset[str]


@dataclass(frozen=True)
class Refs:
    """The links of one target, both ways."""

    sha1_of: dict[str, str]
    refs_at: dict[str, list[str]]


class Directories:
    """What directories hold, from memory while they have not changed."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """Take the clock of the file system, in nanoseconds since the epoch."""
        self._clock = clock
        self._kept: dict[str, tuple[Identity, tuple[Entry, ...]]] = {}

    def entries(self, path: str) -> tuple[Entry, ...]:
        """Give a directory's entries, the very same tuple as long as it is unchanged; none if there is none."""
        now = self._clock()
        identity = identity_of(path)
        kept = self._kept.get(path)
        if kept is not None and kept[0] == identity:
            return kept[1]
        self._kept.pop(path, None)
        try:
            entries = tuple(_read(path))
        except GONE:
            return ()
        if identity is not None and is_settled(identity, now):
            self._kept[path] = (identity, entries)
        return entries


class PublishedIndex:
    """Finds package_keys of the published tree; what it gives was there, and whole, when it was asked."""

    def __init__(self, root: str, record: Record, clock: Callable[[], int] = time.time_ns) -> None:
        """Take the tree's directory, and what says whether a package_key is published and complete."""
        self._root = root
        self._record = record
        self._directories = Directories(clock)
        self._keys: dict[str, tuple[tuple[Entry, ...], Keys]] = {}
        self._refs: dict[str, tuple[list[tuple[Entry, ...]], Refs]] = {}
        self._whole: Kept[PackageKey, Published] = Kept(clock)

    def targets(self) -> list[Target]:
        """Give the targets that anything was ever published for, by name."""
        found = []
        for entry in self._directories.entries(self._root):
            if entry.is_directory:
                try:
                    found.append(Target.from_name(entry.name))
                except ValueError:
                    continue  # key.asc, and whatever an operator put beside the targets
        return sorted(found, key=lambda target: target.name)

    def keys(self, target: Target) -> Keys:
        """Give a target's commits, by the time when each was published."""
        directory = os.path.join(self._root, target.name, "sha1")
        entries = self._directories.entries(directory)
        kept = self._keys.get(target.name)
        if kept is not None and kept[0] is entries:
            return kept[1]
        rows = []
        for entry in entries:
            if entry.is_directory and _SHA1.match(entry.name):
                version = os.path.join(directory, entry.name, layout.VERSION_FILE)
                try:
                    rows.append((os.stat(version).st_mtime, entry.name))
                except GONE:
                    continue
        rows.sort(key=lambda row: (-row[0], row[1]))
        keys = Keys(tuple(rows), frozenset(sha1 for _, sha1 in rows))
        self._keys[target.name] = (entries, keys)
        return keys

    def refs(self, target: Target) -> Refs:
        """Give a target's links; what is no link of ours is none."""
        read: list[tuple[Entry, ...]] = []
        sha1_of: dict[str, str] = {}
        below = [""]
        links = []
        while below:
            prefix = below.pop()
            entries = self._directories.entries(os.path.join(self._root, target.name, "ref", prefix))
            read.append(entries)
            below += [f"{prefix}{entry.name}/" for entry in entries if entry.is_directory]
            links.append((prefix, entries))
        kept = self._refs.get(target.name)
        if kept is not None and len(kept[0]) == len(read) and all(map(_is, kept[0], read)):
            return kept[1]
        for prefix, entries in links:
            depth = prefix.count("/") + 1
            for entry in entries:
                match = _LINK.match(entry.link)
                if match and len(match[1]) == depth * len("../"):
                    sha1_of[prefix + entry.name] = match[2]
        refs_at: dict[str, list[str]] = {}
        for ref in sorted(sha1_of):
            refs_at.setdefault(sha1_of[ref], []).append(ref)
        refs = Refs(sha1_of, refs_at)
        self._refs[target.name] = (read, refs)
        return refs

    def published(self, key: PackageKey) -> Published | None:
        """Give a package_key if it is published and whole, every file of it looked at; else None."""
        found = self._look(key)
        return found and found[0]

    def listed(self, key: PackageKey) -> Published | None:
        """Do as `published`, but look at the files again only if one of their directories has changed."""
        return self._whole.get(key, lambda: self._look(key))

    def _look(self, key: PackageKey) -> tuple[Published, set[str]] | None:
        record = self._record(key)
        if record is None:
            return None
        directory = os.path.join(self._root, layout.sha1_path(key))
        try:
            with open(os.path.join(directory, layout.VERSION_FILE), encoding="utf-8") as file:
                modified = os.fstat(file.fileno()).st_mtime
                version = file.read().strip()
        except GONE:
            return None
        published = Published(
            key,
            version,
            modified,
            *(str(record.get(name) or "") for name in ("ref", "build_url", "reachable_from")),
        )
        return published, directories_of(directory, record)


def _is(one: object, other: object) -> bool:
    return one is other


def _read(path: str) -> Iterator[Entry]:
    with os.scandir(path) as found:
        for entry in found:
            if entry.is_symlink():
                try:
                    yield Entry(entry.name, is_directory=False, link=os.readlink(entry.path))
                except GONE:
                    continue
            else:
                yield Entry(entry.name, is_directory=entry.is_dir(follow_symlinks=False), link="")
