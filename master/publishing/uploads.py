"""Uploads: what a build sends, until it is published or thrown away; nothing here is served.

The registry is in memory on purpose: a master that starts again refuses every token it gave out
before, and wipes what those builds left.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import PurePosixPath
from secrets import compare_digest, token_hex, token_urlsafe
from threading import Lock
from typing import TYPE_CHECKING

from model.manifest import File, check_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from model.package_key import PackageKey

MOST_BYTES = 20 * 1024**3
MOST_FILES = 20_000

_INCOMING = "incoming"
"""Where files grow, beside all uploads: no name of a target, so never an upload's directory."""


class RefusedError(Exception):
    """A file that is not taken: the status, and one sentence for who sends it."""

    def __init__(self, status: HTTPStatus, sentence: str, sha256: str = "") -> None:
        """Take the answer; `sha256` is that of a file that is already there."""
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.sha256 = sha256


@dataclass(frozen=True)
class Limits:
    """What uploads may take, in bytes. The defaults fit Ceph, whose packages and debug symbols have 4 to 10 GB."""

    most_bytes: int = MOST_BYTES
    """Of one upload."""
    most_files: int = MOST_FILES
    reserve: int = 0
    """Of the disk, which uploads leave free."""
    most_in_all: int = 0
    """Of everything published and all uploads together; 0 is no limit."""


@dataclass(eq=False)
class Upload:
    """One build's files on their way to one package_key; what is received is never replaced."""

    key: PackageKey
    token: str = field(repr=False)
    directory: Path
    limits: Limits
    registry: Uploads = field(repr=False)
    files: dict[str, File] = field(default_factory=dict)
    """Path to size and SHA-256 as received, of every file that is whole in the directory."""
    closed: bool = False
    announced: int = 0
    """Bytes of the files that were received or may still be."""
    _coming: dict[str, Incoming] = field(default_factory=dict, repr=False)
    _directories: Counter[str] = field(default_factory=Counter, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def begin(self, path: str, size: int) -> Incoming:
        """Reserve a path and its bytes; RefusedError says why not. Touches no disk."""
        try:
            check_path(path)
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{error}.") from None
        if self.closed:
            raise _closed(self.key)
        if len(self.files) + len(self._coming) >= self.limits.most_files:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"An upload may have at most {self.limits.most_files} files.",
            )
        limits, total = self.limits, self.announced + size
        if total > limits.most_bytes:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"An upload may have at most {_in_words(limits.most_bytes)} (packages.upload_gib);"
                f" with {path} it would have {_in_words(total)}.",
            )
        if limits.most_in_all and (in_all := self.registry.in_all() + size) > limits.most_in_all:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"All packages may have {_in_words(limits.most_in_all)} (packages.total_gib); with {path}, those that are"
                f" published or being uploaded would have {_in_words(in_all)}. An operator can run `make purge`, or raise"
                " the setting.",
            )
        self._check_free(path)
        temporary = self.registry.staging / _INCOMING / token_hex(16)
        incoming = Incoming(self, path, size, temporary, next(self.registry.numbers))
        self._coming[path] = incoming
        self.announced += size
        self._directories.update(_parents(path))
        return incoming

    def coming(self, last: int) -> int:
        """Return the bytes that will still be written of the files up to number `last`.

        Those of a file that has arrived in part are on the disk already.
        """
        if self.closed:
            return 0
        return sum(file.size - file.written for file in tuple(self._coming.values()) if file.number <= last)

    def _check_free(self, path: str) -> None:
        if path in self.files:
            raise RefusedError(HTTPStatus.CONFLICT, f"{path} is already uploaded.", self.files[path].sha256)
        if path in self._coming:
            raise RefusedError(HTTPStatus.CONFLICT, f"{path} is being uploaded.")
        if path in self._directories:
            raise RefusedError(HTTPStatus.CONFLICT, f"{path} is a directory.")
        for parent in _parents(path):
            if parent in self.files or parent in self._coming:
                raise RefusedError(HTTPStatus.CONFLICT, f"{parent} is a file, not a directory.")

    def settle(self, path: str) -> None:
        """End a reservation; of a path that did not arrive nothing is remembered."""
        incoming = self._coming.pop(path)
        if path not in self.files:
            self.announced -= incoming.size
            self._directories.subtract(_parents(path))
            self._directories = +self._directories

    def receive(self, temporary: Path, file: File) -> None:
        """Have a whole file in the directory and in `files`; once closed, in neither."""
        with self._lock:
            if self.closed:
                raise _closed(self.key)
            destination = self.directory / file.path
            destination.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(destination)
            self.files[file.path] = file

    def close(self) -> None:
        """Take nothing more: once this returns, neither the directory nor `files` change."""
        with self._lock:
            self.closed = True


class Incoming:
    """One arriving file; `write`, `commit` and `abandon` block, so call them in a thread."""

    def __init__(self, upload: Upload, path: str, size: int, temporary: Path, number: int) -> None:
        """`temporary` is where it grows; files that begin later have higher numbers."""
        self.number = number
        self.written = 0
        self.upload = upload
        self.path = path
        self.size = size
        self._temporary = temporary
        self._hash = hashlib.sha256()
        self._descriptor = -1

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append to the file and to its digest; RefusedError once the upload is closed."""
        if self.upload.closed:
            raise _closed(self.upload.key)
        if self._descriptor < 0:
            self._temporary.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_disk()
            self._descriptor = os.open(
                self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
            )
        for chunk in chunks:
            self._hash.update(chunk)
            written = os.write(self._descriptor, chunk)
            while written < len(chunk):
                written += os.write(self._descriptor, chunk[written:])
            self.written += written

    def _check_disk(self) -> None:
        # In this order: bytes that others write in between then count twice. In the other order they would not count.
        coming = self.upload.registry.coming(self.number)
        reserve, free = self.upload.limits.reserve, shutil.disk_usage(self._temporary.parent).free
        if reserve and free - coming < reserve:
            raise RefusedError(
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"The master's disk has {_in_words(free)} free, of which {_in_words(reserve)} are kept (packages.reserve_gib);"
                f" {self.path} and other files on their way need {_in_words(coming)}. An operator can run"
                " `make purge`, or make room otherwise.",
            )

    def commit(self, chunks: Sequence[bytes], expected: bytes | None = None) -> File:
        """Write the rest and have the file received; RefusedError if its digest is another."""
        self.write(chunks)
        if self.written != self.size:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"{self.path} has {self.written} bytes, not {self.size}."
            )
        if expected is not None and not compare_digest(self._hash.digest(), expected):
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                f"{self.path} arrived with SHA-256 {self._hash.hexdigest()},"
                f" but its Content-Digest says {expected.hex()}.",
            )
        os.close(self._descriptor)
        self._descriptor = -1
        file = File(self.path, self.size, self._hash.hexdigest())
        self.upload.receive(self._temporary, file)
        return file

    def abandon(self) -> None:
        """Leave nothing of a file that did not arrive."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._temporary.unlink(missing_ok=True)


class Uploads:
    """Every upload, each found by its token while it is open. Their bytes count until their files are removed or published."""

    def __init__(self, staging: Path, limits: Limits | None = None) -> None:
        """`limits` may be replaced at any time, and count for uploads that are opened later."""
        self.staging = staging
        self.limits = limits or Limits()
        self.published = 0
        """Bytes of everything published. It is kept up to date only if there is a limit for them."""
        self.numbers = itertools.count()
        self._open: dict[bytes, Upload] = {}
        self._present: dict[Path, Upload] = {}
        """By directory: the uploads that may still have files. Threads change it, so iterate over a copy."""

    def open(self, key: PackageKey) -> Upload:
        """Make a fresh directory, and a token that is good for this key until it is closed."""
        directory = self.staging / key.target.name / f"{key.sha1}-{token_hex(8)}"
        directory.mkdir(parents=True)
        upload = Upload(key, token_urlsafe(32), directory, self.limits, self)
        self._open[_digest(upload.token)] = upload
        self._present[directory] = upload
        return upload

    def coming(self, last: int) -> int:
        """Return the bytes that all uploads will still write of the files up to number `last`.

        A later file does not count: it is refused itself if there is no room for both.
        """
        return sum(upload.coming(last) for upload in tuple(self._present.values()))

    def in_all(self) -> int:
        """Return the bytes of everything published and of all uploads."""
        return self.published + sum(upload.announced for upload in tuple(self._present.values()))

    def find(self, token: str) -> Upload | None:
        """Give the open upload of a token; the time it takes says nothing of other tokens."""
        return self._open.get(_digest(token))

    def of_key(self, key: PackageKey) -> list[Upload]:
        """Every open upload of a package_key."""
        return [upload for upload in self._open.values() if upload.key == key]

    def close(self, upload: Upload) -> None:
        """Forget the token; what was received stays until `remove`, and changes no more."""
        self._open.pop(_digest(upload.token), None)
        upload.close()

    def remove(self, upload: Upload) -> None:
        """Close an upload and remove its directory, if it is still there; blocks: use a thread."""
        self.close(upload)
        _remove(upload.directory)
        self._present.pop(upload.directory, None)

    def wipe(self) -> None:
        """Close every upload and remove all that is in staging; blocks: use a thread."""
        for upload in tuple(self._open.values()):
            self.close(upload)
        if self.staging.is_dir():
            for entry in tuple(self.staging.iterdir()):
                _remove(entry)
        self._present.clear()


def _in_words(size: int) -> str:
    if size < 1024**2:
        return f"{size} bytes"
    return f"{size / 1024**2:.1f} MiB" if size < 1024**3 else f"{size / 1024**3:.2f} GiB"


def _closed(key: PackageKey) -> RefusedError:
    return RefusedError(HTTPStatus.UNAUTHORIZED, f"The upload of {key} is closed.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _parents(path: str) -> Iterable[str]:
    return [str(parent) for parent in PurePosixPath(path).parents][:-1]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _unless_gone(_: object, __: str, raised: tuple[object, BaseException, object]) -> None:
    """Ignore files that a simultaneous purge has removed first."""
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]
