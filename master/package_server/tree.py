"""What the package server answers for a path of the published tree: file, part, listing, nothing.

Nothing here knows of Twisted. Nothing is followed out of the tree, and no name that begins with a
dot is there. Nothing of a package_key's directory is there unless all of it is. All calls block: call
them in threads.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from html import escape
from http import HTTPStatus
from secrets import token_hex
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from master.package_server.wanted_packages import section
from master.publishing.completeness import CompleteDirectories
from master.web.answers import Answer, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TEXT = "text/plain; charset=utf-8"
_TYPES = {
    _TEXT: "dsc changes buildinfo log txt repo list sources spec sha1 sha256 md5 html htm svg",
    "application/vnd.debian.binary-package": "deb udeb ddeb",
    "application/x-rpm": "rpm",
    "application/pgp-signature": "asc gpg sig",
    "application/xml": "xml",
    "application/json": "json",
    "application/gzip": "gz tgz",
    "application/x-xz": "xz",
    "application/x-bzip2": "bz2",
    "application/zstd": "zst",
    "application/x-tar": "tar",
}
"""Type to suffixes. A package's own HTML is text: whoever made it is not who serves it."""

_TYPE_OF = {suffix: kind for kind, suffixes in _TYPES.items() for suffix in suffixes.split()}
_TYPE_OF_NAME = {
    "key.asc": "application/pgp-keys",
    **dict.fromkeys(("version", "sha1", "Release", "InRelease", "Packages", "Sources"), _TEXT),
}
_KEY = re.compile(r"[^/]+/sha1/[0-9a-f]{40}(?=/|\Z)")
"""The directory of a package_key. Targets that are no longer built are still served."""

_REVALIDATE = "no-cache"
"""A cache may store a file, and must revalidate it before each use: after a purge and a new build, the same URL can
have other bytes."""

_MOST_RANGES = 256
_NAME_MAX = 255
_RANGE = re.compile(r"(\d{0,18})-(\d{0,18})\Z", re.ASCII)

_FILE_POLICY = "sandbox"
_LISTING_POLICY = "sandbox allow-downloads; default-src 'none'; style-src 'unsafe-inline'"
"""Our own page runs nothing either, but a click on a package must be able to download it."""

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .2rem .75rem .2rem 0; text-align: left; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid; }
td:first-child { overflow-wrap: anywhere; }
.size { text-align: right; white-space: nowrap; }
.date { white-space: nowrap; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


class MissingError(Exception):
    """There is nothing to be had at a path."""


class Found(NamedTuple):
    """A regular file or a directory of the tree, its links followed."""

    path: str
    stat: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return S_ISDIR(self.stat.st_mode)


def names_of(path: bytes) -> list[str]:
    """Split a request's path, the last name empty for a directory; MissingError if it is bad."""
    if not path.startswith(b"/"):
        raise MissingError
    names = [os.fsdecode(unquote_to_bytes(part)) for part in path[1:].split(b"/")]
    for position, name in enumerate(names):
        if not name and position < len(names) - 1:
            raise MissingError
        if name.startswith(".") or len(os.fsencode(name)) > _NAME_MAX:
            raise MissingError
        if any(char in name for char in "/\\\0"):
            raise MissingError
    return names


class PackageTree:
    """The published tree, as anybody may read it."""

    def __init__(
        self,
        root: str,
        title: str,
        beside: Mapping[str, str] | None = None,
        patterns: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Serve `root`, and the directories `beside` below their names; each page has the `title`.

        `patterns` are those of the names of each project's packages, for the pages of published directories.
        """
        self._patterns = patterns or {}
        self._root = os.path.realpath(root)
        self._title = title
        self._beside = {name: os.path.realpath(path) for name, path in (beside or {}).items()}
        self._complete = CompleteDirectories()

    def find(self, names: Sequence[str]) -> Found:
        """Follow names and links inside the tree to a file or directory; MissingError otherwise."""
        root, below, is_published = self._root, names, True
        if names and names[0] in self._beside:
            root, below, is_published = self._beside[names[0]], names[1:], False
        try:
            path = os.path.realpath(os.path.join(root, *below), strict=True)
            inside = os.path.relpath(path, root)  # "../..." where a link leads out
            if inside != "." and any(part.startswith(".") for part in inside.split("/")):
                raise MissingError
            key = _KEY.match(inside) if is_published else None
            if key is not None and not self._complete.has(f"{root}/{key[0]}"):
                raise MissingError
            found = Found(path, os.stat(path))
        except (OSError, ValueError):
            raise MissingError from None
        if not found.is_directory and (names[-1] == "" or not S_ISREG(found.stat.st_mode)):
            raise MissingError
        return found

    def file(self, names: Sequence[str], found: Found, asked: Mapping[str, str]) -> Answer:
        """Answer for a file; `asked` are the request's headers, their names in lower case."""
        stat = found.stat
        etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"'
        modified = formatdate(int(stat.st_mtime), usegmt=True)
        kept = {
            "ETag": etag,
            "Last-Modified": modified,
            "Cache-Control": _REVALIDATE,
            "Content-Security-Policy": _FILE_POLICY,
        }
        if _unchanged(asked, etag, int(stat.st_mtime)):
            return Answer(HTTPStatus.NOT_MODIFIED, kept)
        kind = _type_of(names[-1])
        headers = {**kept, "Accept-Ranges": "bytes", "Content-Type": kind}
        size = stat.st_size
        ranges = None
        if asked.get("if-range", etag) in (etag, modified):
            ranges = parse_range(asked.get("range", ""), size)
        if ranges is None:
            return Answer(HTTPStatus.OK, headers, path=found.path, parts=(Part(b"", 0, size),))
        if not ranges:
            sentence = f"The file has {size} bytes, none of them in the range asked for.\n"
            headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes */{size}", "Content-Type": _TEXT}
            return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, sentence.encode())
        if len(ranges) == 1:
            [(offset, length)] = ranges
            headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{size}"
            parts: tuple[Part, ...] = (Part(b"", offset, length),)
        else:
            boundary = token_hex(16)
            headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
            parts = tuple(_multipart(ranges, size, kind, boundary))
        return Answer(HTTPStatus.PARTIAL_CONTENT, headers, path=found.path, parts=parts)

    def listing(self, names: Sequence[str], found: Found) -> Answer:
        """Answer for a directory with a page that a person can read."""
        here = [name for name in names if name]
        rows = [_row("../", "../", "", "")] if here else []
        directories, files = [], []
        for name in sorted(os.listdir(found.path)):
            try:
                entry = self.find([*here, name])
            except MissingError:
                continue
            if name.startswith("."):
                continue
            date = datetime.fromtimestamp(entry.stat.st_mtime, UTC).strftime("%Y-%m-%d %H:%M")
            if entry.is_directory:
                directories.append(_row(f"./{_quoted(name)}/", f"{name}/", "", date))
            else:
                size = human_size(entry.stat.st_size)
                files.append(_row(f"./{_quoted(name)}", name, size, date))
        crumbs = [f'<a href="{"../" * len(here) or "./"}">{escape(self._title)}</a>']
        crumbs += [
            f'<a href="{"../" * (len(here) - depth) or "./"}">{escape(name)}</a>'
            for depth, name in enumerate(here, 1)
        ]
        page = (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{escape('/'.join(['', *here]) or self._title)}</title>"
            f"<style>{_STYLE}</style></head>\n"
            f"<body><h1>{' / '.join(crumbs)}</h1>\n<table>\n"
            '<tr><th>Name</th><th class="size">Size</th><th class="date">Modified (UTC)</th></tr>\n'
            f"{''.join(rows + directories + files)}</table>\n{self._section(found)}</body></html>\n"
        )
        return Answer(
            HTTPStatus.OK,
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": _LISTING_POLICY,
                "Cache-Control": _REVALIDATE,
            },
            page.encode("utf-8", "replace"),
        )

    def _section(self, found: Found) -> str:
        """Return what the page of a package_key has below its table, whether it was found by its sha1 or by a ref."""
        inside = os.path.relpath(found.path, self._root)
        return section(inside.partition("/")[0], self._patterns) if _KEY.fullmatch(inside) else ""


def directory_url(names: Iterable[str]) -> str:
    """Path of a directory, with the slash at its end that its listing's links need."""
    return "/" + "".join(f"{_quoted(name)}/" for name in names if name)


def parse_range(header: str, size: int) -> list[tuple[int, int]] | None:
    """Give (offset, length) of each range that there is; None where the header is to be ignored.

    Ignored are other units, malformed ranges, and more ranges or bytes than anyone can need: the
    whole file answers those.
    """
    unit, equals, value = header.partition("=")
    specs = [spec.strip() for spec in value.split(",") if spec.strip()]
    if unit.strip().lower() != "bytes" or not equals or not 0 < len(specs) <= _MOST_RANGES:
        return None
    ranges = []
    for spec in specs:
        match = _RANGE.match(spec)
        if match is None or spec == "-":
            return None
        first, last = match.groups()
        if not first:
            start, stop = max(0, size - int(last)), size
        else:
            start, stop = int(first), min(size, int(last) + 1) if last else size
            if last and int(last) < start:
                return None
        if start < stop:
            ranges.append((start, stop - start))
    return None if sum(length for _, length in ranges) > size else ranges


def human_size(size: int) -> str:
    """Give a number of bytes as people read it: `12.3 MiB`."""
    if size < 1024:
        return f"{size} B"
    amount, units = size / 1024, ["KiB", "MiB", "GiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.1f} {units[0]}"


def _multipart(ranges: Sequence[tuple[int, int]], size: int, kind: str, boundary: str) -> Iterator[Part]:
    for offset, length in ranges:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
            f"Content-Range: bytes {offset}-{offset + length - 1}/{size}\r\n\r\n"
        )
        yield Part(head.encode(), offset, length)
    yield Part(f"\r\n--{boundary}--\r\n".encode(), 0, 0)


def _unchanged(asked: Mapping[str, str], etag: str, modified: int) -> bool:
    if "if-none-match" in asked:
        tags = [tag.strip().removeprefix("W/") for tag in asked["if-none-match"].split(",")]
        return etag in tags or tags == ["*"]
    try:
        since = parsedate_to_datetime(asked["if-modified-since"])
        # Not "<=": a file that was restored from a backup is older than the one that it replaces.
        return modified == since.replace(tzinfo=since.tzinfo or UTC).timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return False


def _type_of(name: str) -> str:
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return _TYPE_OF_NAME.get(name) or _TYPE_OF.get(suffix, "application/octet-stream")


def _quoted(name: str) -> str:
    return quote(os.fsencode(name))


def _row(href: str, name: str, size: str, date: str) -> str:
    return (
        f'<tr><td><a href="{escape(href)}">{escape(name)}</a></td>'
        f'<td class="size">{size}</td><td class="date">{date}</td></tr>\n'
    )
