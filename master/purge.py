"""Removes published package_keys: `python -m master.purge KEY... | --older-than DAYS [--dry-run]`.

The master may be running, and may be building, uploading or publishing the same key. The command first renames
the key out of the tree, so that it is absent for everybody at once, and then removes the files.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from master.package_server.tree import human_size
from master.settings import Settings, SettingsError, default_path
from model import command_line, layout

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY = re.compile(r"([a-z0-9][a-z0-9._-]*)/([0-9a-f]{40})\Z")
"""A package_key; its target need not be in the matrix."""

_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_DAY = 24 * 60 * 60


class PurgeError(ValueError):
    """Nothing was purged; the message has the reason."""


@dataclass(frozen=True)
class Key:
    """Names a published directory; the target need not be in the matrix."""

    target: str
    sha1: str

    @classmethod
    def from_string(cls, text: str) -> Key:
        """Read `<target>/<sha1>`; PurgeError if it is neither."""
        match = _KEY.match(text)
        if match is None:
            example = f"ceph-deb-jammy-x86_64-default/{'0123456789' * 4}"
            raise PurgeError(
                f"{text[:200]!r} is not a package_key: it must be TARGET/SHA1, such as {example}"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        """Return `<target>/<sha1>`."""
        return f"{self.target}/{self.sha1}"


@dataclass(frozen=True)
class Purged:
    """The files and links of a key that was purged, or would be."""

    files: int
    size: int
    links: tuple[str, ...]

    def __str__(self) -> str:
        """Name it all in one line."""
        links = f"; links: {', '.join(self.links)}" if self.links else ""
        return f"{self.files} {'file' if self.files == 1 else 'files'}, {human_size(self.size)}{links}"


class Purge:
    """Removes keys from a published tree; `staging` lies on the same file system."""

    def __init__(self, tree: Path, staging: Path) -> None:
        self._tree = tree
        self._staging = staging

    def directory(self, key: Key) -> Path:
        """Return a key's directory, which need not exist."""
        return self._tree / key.target / "sha1" / key.sha1

    def look(self, key: Key) -> Purged | None:
        """Return the files and links of a key; None if it has no directory."""
        directory = self.directory(key)
        if not directory.is_dir() or directory.is_symlink():
            return None
        return self._contents(key, directory)

    def purge(self, key: Key) -> Purged | None:
        """Remove a key with the `ref/` links to it; return what was removed, None if it has no directory."""
        directory = self.directory(key)
        if directory.is_symlink():
            return None
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix="purged-", dir=self._staging))
        try:
            directory.rename(aside / "old")
        except (FileNotFoundError, NotADirectoryError):
            aside.rmdir()
            return None
        purged = self._contents(key, aside / "old")
        for ref in purged.links:
            self._unlink(key, ref, aside)
        # A master that starts now wipes staging as well, so files may already be gone.
        shutil.rmtree(aside, ignore_errors=True)
        return purged

    def older_than(self, days: float, now: float) -> list[Key]:
        """Return the keys that were published more than so many days ago, oldest first."""
        found = []
        for directory in self._tree.glob("*/sha1/*"):
            if directory.is_symlink() or not _SHA1.match(directory.name) or not directory.is_dir():
                continue
            published = directory / layout.VERSION_FILE
            age = now - (published if published.exists() else directory).stat().st_mtime
            if age > days * _DAY:
                found.append((-age, Key(directory.parents[1].name, directory.name)))
        return [key for _, key in sorted(found, key=lambda row: (row[0], str(row[1])))]

    def _contents(self, key: Key, directory: Path) -> Purged:
        sizes = [
            os.lstat(os.path.join(parent, name)).st_size
            for parent, _, names in os.walk(directory)
            for name in names
        ]
        return Purged(len(sizes), sum(sizes), tuple(self._links(key)))

    def _links(self, key: Key) -> Iterator[str]:
        """Return the refs whose links lead to a key."""
        top = self._tree / key.target / "ref"
        for parent, directories, names in os.walk(top):
            for name in sorted([*directories, *names]):
                link = Path(parent, name)
                ref = str(link.relative_to(top))
                with suppress(OSError):  # It is no link, or is gone.
                    if os.readlink(link) == layout.ref_link(key.sha1, ref):
                        yield ref

    def _unlink(self, key: Key, ref: str, aside: Path) -> None:
        """Remove a ref's link, unless the master has just changed it or published the key again."""
        link = self._tree / key.target / "ref" / ref
        if self.directory(key).exists():
            return
        try:
            # Move it out of the tree before reading it: the master may replace the link at any moment.
            link.rename(aside / "link")
        except FileNotFoundError:
            return
        if os.readlink(aside / "link") != layout.ref_link(key.sha1, ref) and not os.path.lexists(link):
            (aside / "link").rename(link)
            return
        for parent in link.relative_to(self._tree / key.target / "ref").parents:
            try:
                (self._tree / key.target / "ref" / parent).rmdir()
            except OSError:
                return  # It holds other links.


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 < days < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of days above 0, not {text!r}")
    return days


def run(purge: Purge, keys: list[Key], *, dry_run: bool) -> int:
    """Purge keys, or only print what would be purged; return how many are not published."""
    missing = size = 0
    for key in dict.fromkeys(keys):
        found = purge.look(key) if dry_run else purge.purge(key)
        if found is None:
            missing += 1
            print(f"{key}: nothing is published", file=sys.stderr)
        else:
            size += found.size
            print(f"{'would purge' if dry_run else 'purged'} {key}: {found}", flush=True)
    count = len(dict.fromkeys(keys)) - missing
    if count:
        verb = "would be freed by purging" if dry_run else "freed by purging"
        print(f"{human_size(size)} {verb} {count} package {'key' if count == 1 else 'keys'}")
    return missing


def main() -> int:
    """Remove published packages and the ref/ links to them. The master may be running."""
    parser = argparse.ArgumentParser(
        prog="python -m master.purge",
        description=main.__doc__,
        epilog="A purged package is built again when somebody requests it. Exit status: 0 if everything named"
        " was purged, 1 if something was not, 2 if the arguments are wrong.",
    )
    parser.add_argument("keys", nargs="*", metavar="KEY", help="what to purge: TARGET/SHA1")
    parser.add_argument(
        "--older-than", type=_days, metavar="DAYS", help="purge everything published more than DAYS days ago"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be purged")
    parser.add_argument(
        "--settings",
        type=Path,
        default=default_path(),
        help="default: $BUILDPACKAGES_SETTINGS, else settings.yaml beside master.cfg",
    )
    arguments = parser.parse_args()
    if bool(arguments.keys) == (arguments.older_than is not None):
        parser.error("name either one or more KEYs, or --older-than DAYS")
    try:
        keys = [Key.from_string(text) for text in arguments.keys]
    except PurgeError as error:
        parser.error(str(error))
    try:
        packages = Settings.from_file(arguments.settings).packages
        if not packages.directory.is_dir():
            raise PurgeError(f"{packages.directory} does not exist: nothing is published")
        purge = Purge(packages.directory, packages.staging)
        if arguments.older_than is not None:
            keys = purge.older_than(arguments.older_than, time.time())
            if not keys:
                print(f"nothing was published more than {arguments.older_than:g} days ago")
        return 1 if run(purge, keys, dry_run=arguments.dry_run) else 0
    except (SettingsError, PurgeError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(
            f"{error.filename}: {error.strerror}; purge as the user that the master runs as", file=sys.stderr
        )
    return 1


if __name__ == "__main__":
    command_line.run(main)
