"""Puts the master's signature into rpms, without a parser of rpm's in reach of the key.

An rpm is a lead, a signature header, the main header and the payload. A signature of the main header covers all
that rpm installs, because that header holds the digest of the payload. gpg signs the header as opaque bytes; this
module only finds where it begins and ends, and writes a new signature header. docs/adr/0021 says why rpmsign
does not do it.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from model.manifest import File

if TYPE_CHECKING:
    from pathlib import Path

_LEAD_BYTES = 96
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_HEADER_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
_INTRO = struct.Struct(">8sII")
_ENTRY = struct.Struct(">IIiI")
"""Tag, type, offset in the store, count."""

_MOST_SIGNATURE = 1024 * 1024
_MOST_ENTRIES = 0xFFFF
"""rpm's own limit, HEADER_TAGS_MAX. 16 million entries would take 3 GB in the master."""
_MOST_HEADER = 256 * 1024 * 1024
"""Bytes. rpm itself reads no longer header."""

_INT32, _INT64, _STRING, _BIN = 4, 5, 6, 7
_REGION, _RSA, _RESERVED = 62, 268, 1008
_PAYLOAD_DIGEST = 5092

_KEPT = {269: (_STRING, 41), 270: (_INT64, 8), 271: (_INT64, 8), 273: (_STRING, 65), 1000: (_INT32, 4), 1004: (_BIN, 16), 1007: (_INT32, 4)}  # fmt: skip
"""Digests and sizes that rpmbuild wrote: tag to type and bytes. All other entries, other signatures too, are dropped."""

_ALIGNED = {_INT32: 4, _INT64: 8}
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Headers:
    """The beginning of an rpm."""

    lead: bytes
    signature: bytes
    """With its padding."""
    size: int
    """Bytes of the signature header without its padding."""
    main: bytes


def read(path: Path, name: str) -> Headers:
    """Return the headers of an rpm; ValueError if it is none, or if a signature could not cover its payload.

    `name` is what the sentences call it.
    """
    with path.open("rb") as file:
        lead = file.read(_LEAD_BYTES)
        if len(lead) != _LEAD_BYTES or not lead.startswith(_LEAD_MAGIC):
            raise _no_rpm(name, "it does not begin as one")
        signature = _header(file, name, _MOST_SIGNATURE)
        padding = file.read(-len(signature) % 8)
        main = _header(file, name, _MOST_HEADER)
    if _PAYLOAD_DIGEST not in {entry[0] for entry in _entries(main)}:
        raise ValueError(
            f"{name} has no digest of its payload, so it cannot be signed: build it with rpm 4.14 or later"
        )
    return Headers(lead, signature + padding, len(signature), main)


@dataclass(frozen=True)
class Written:
    """What the beginning of an rpm was, and is since it was signed."""

    path: Path
    received: File
    old: bytes
    new: bytes


def write(path: Path, headers: Headers, signature: bytes, received: File) -> Written:
    """Write a signature of `headers.main` into an rpm, in place if there is room, which rpmbuild leaves."""
    old = headers.lead + headers.signature
    new = headers.lead + _signature_header(headers, signature, headers.size)
    if len(new) == len(old):
        with path.open("r+b") as file:
            file.write(new)
    else:
        anew = path.with_name(f".{path.name}")
        with path.open("rb") as rest, anew.open("wb") as file:
            rest.seek(len(old))
            file.write(new)
            shutil.copyfileobj(rest, file, _CHUNK)
        shutil.copymode(path, anew)  # the confined tools read it, whatever the master's umask
        anew.replace(path)
    return Written(path, received, old, new)


def digest(written: Written) -> File:
    """Return the signed file; ValueError if the rest of it is not what was received."""
    before, after = hashlib.sha256(written.old), hashlib.sha256(written.new)
    size = len(written.new)
    with written.path.open("rb") as file:
        file.seek(size)
        while chunk := file.read(_CHUNK):
            before.update(chunk)
            after.update(chunk)
            size += len(chunk)
    if before.hexdigest() != written.received.sha256:
        raise ValueError(f"{written.received.path} changed on the disk after it had arrived")
    return File(written.received.path, size, after.hexdigest())


def _signature_header(headers: Headers, signature: bytes, size: int) -> bytes:
    """Return a signature header with the digests of the old one and this signature, of `size` bytes if possible."""
    values = {_RSA: (_BIN, signature)}
    store = headers.signature[_INTRO.size + _ENTRY.size * len(_entries(headers.signature)) : headers.size]
    for tag, kind, offset, count in _entries(headers.signature):
        wanted = _KEPT.get(tag)
        if wanted and wanted[0] == kind and 0 <= offset <= len(store) - wanted[1] and count <= wanted[1]:
            values[tag] = (kind, store[offset : offset + wanted[1]])
    made = _written(values)
    spare = size - len(made) - _ENTRY.size
    if spare > 0:
        made = _written({**values, _RESERVED: (_BIN, bytes(spare))})
    return made + bytes(-len(made) % 8)


def _written(values: dict[int, tuple[int, bytes]]) -> bytes:
    store, entries = b"", []
    for tag, (kind, value) in sorted(values.items()):
        store += bytes(-len(store) % _ALIGNED.get(kind, 1))
        count = len(value) if kind == _BIN else 1
        entries.append(_ENTRY.pack(tag, kind, len(store), count))
        store += value
    # The region, by which rpm knows that the entries are of one piece: its first entry points to its last bytes.
    number = len(entries) + 1
    region = _ENTRY.pack(_REGION, _BIN, len(store), _ENTRY.size)
    store += _ENTRY.pack(_REGION, _BIN, -number * _ENTRY.size, _ENTRY.size)
    return _INTRO.pack(_HEADER_MAGIC, number, len(store)) + region + b"".join(entries) + store


def _header(file: BinaryIO, name: str, most: int) -> bytes:
    intro = file.read(_INTRO.size)
    if len(intro) != _INTRO.size:
        raise _no_rpm(name, "it ends before its headers do")
    magic, entries, size = _INTRO.unpack(intro)
    length = entries * _ENTRY.size + size
    if magic != _HEADER_MAGIC or length > most or entries > _MOST_ENTRIES:
        raise _no_rpm(name, "it has no header where one should be")
    rest = file.read(length)
    if len(rest) != length:
        raise _no_rpm(name, "it ends before its headers do")
    return intro + rest


def _entries(header: bytes) -> list[tuple[int, int, int, int]]:
    number = _INTRO.unpack_from(header)[1]
    return list(_ENTRY.iter_unpack(header[_INTRO.size : _INTRO.size + number * _ENTRY.size]))


def _no_rpm(name: str, why: str) -> ValueError:
    return ValueError(f"{name} is no rpm: {why}")
