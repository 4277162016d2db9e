"""Checks whether a published directory is complete: each file of its manifest is there with its size.

The package server, shaman's view, the REST API and the publisher all use this check. When a purge has removed one
file, the package_key is therefore absent for all of them at the same moment.

All calls block. Several threads may call.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from model import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Identity = tuple[int, int, int]

_SETTLED = 2_000_000_000
"""Nanoseconds. Times of files advance in steps of some milliseconds, and two changes in one step leave the same
time. A directory that has just changed is therefore read again instead of remembered."""

_MOST_KEPT = 20_000

GONE = (FileNotFoundError, NotADirectoryError)
"""Errors that mean absence. After any other error it is unknown whether the key is published."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def recorded(directory: str) -> dict[str, Any] | None:
    """Return the manifest of a published directory; None unless every file of it is there with its size."""
    try:
        if not os.stat(f"{directory}/{layout.VERSION_FILE}").st_size:
            return None
        with open(f"{directory}/{layout.MANIFEST_FILE}", encoding="utf-8") as file:
            record: dict[str, Any] = json.load(file)
        for row in record["files"]:
            if os.stat(f"{directory}/{row['path']}").st_size != row["size"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def directories_of(directory: str, record: dict[str, Any]) -> set[str]:
    """Return a published directory and those below it that hold files of its manifest."""
    inside = {os.path.dirname(row["path"]) for row in record["files"]}
    return {directory, *(f"{directory}/{path}" for path in inside if path)}


def identity_of(path: str) -> Identity | None:
    """Return what changes when a directory is replaced, or when a name in it comes or goes; None if there is none."""
    try:
        stat = os.stat(path, follow_symlinks=False)
    except GONE:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


def is_settled(identity: Identity, now: int) -> bool:
    """Whether every later change is sure to show in the directory's time."""
    return now - identity[2] > _SETTLED


class Kept(Generic[_Key, _Value]):
    """Values that were read from directories, kept until one of those directories changes.

    A few calls of stat(2) then stand for one of each file.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns the file system's time, in nanoseconds since the epoch."""
        self._clock = clock
        self._kept: dict[_Key, tuple[dict[str, Identity | None], _Value]] = {}

    def get(self, key: _Key, look: Callable[[], tuple[_Value, Iterable[str]] | None]) -> _Value | None:
        """Return the kept value, or what `look` returns: a value and its directories, or None, which is not kept."""
        kept = self._kept.get(key)
        if kept is not None and all(identity_of(path) == one for path, one in kept[0].items()):
            return kept[1]
        self._kept.pop(key, None)
        now = self._clock()
        found = look()
        if found is None:
            return None
        value, directories = found
        identities = {path: identity_of(path) for path in directories}
        if all(one is not None and is_settled(one, now) for one in identities.values()):
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (identities, value)
        return value


class CompleteDirectories:
    """Tells complete published directories from all others, cheaply while they do not change."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns the file system's time, in nanoseconds since the epoch."""
        self._kept: Kept[str, bool] = Kept(clock)

    def has(self, directory: str) -> bool:
        """Whether a directory is published and complete."""

        def look() -> tuple[bool, Iterable[str]] | None:
            record = recorded(directory)
            return None if record is None else (True, directories_of(directory, record))

        return self._kept.get(directory, look) is not None
