"""Changes of bytes and of structures. Each depends on its random generator alone, so a seed repeats it."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Mutation = Callable[[random.Random, bytes], bytes]

PARTS = (
    b"\0", b"\xff\xfe", b"\r\n", b"\n", b"\n\n", b"\r\n\r\n", b"%00", b"%2e%2e/", b"../", b"-1", b"9" * 30, b"[" * 3000,
    b'"', b"{}", b"null", b"A" * 5000, b"&", b"?", b":", b"\xed\xa0\x80", b"\\ud800", b"1e999", b"\x84\x80",
    b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
    b'<!DOCTYPE a [<!ENTITY b "c">]>', b"&b;", b"\xe2\x80\xa8",
)  # fmt: skip

WORDS = (
    "", "0", "-1", "1", "99999999999999999999", "1e999", "nan", "٣", "\x00", "\x0b", "\n", "\u2028", "é", "\udc80", "A" * 5000,
    "../../etc/passwd", "%00", "*", "[", "(" * 300, "'", '"', "<b>", "ceph", "ceph-common", "x86_64", "no", "yes", "a b", "/", "//",
    "refs/heads/main", "0" * 40, "0" * 64,
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 2**64, -(2**63), 10**400, float("inf"), float("nan"), [], {}, [[]], {"": None},
    [1, "a"], *WORDS,
)  # fmt: skip
_DEEP = 2000


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with one to six insertions, deletions, changed bytes or repetitions."""
    result = bytearray(data)
    for _ in range(rng.randrange(1, 7)):
        at = rng.randrange(len(result) + 1)
        end = min(len(result), at + rng.randrange(1, 20))
        match rng.randrange(5):
            case 0:
                result[at:at] = rng.choice(PARTS)
            case 1:
                del result[at:end]
            case 2:
                result[at:end] = rng.randbytes(end - at)
            case 3:
                del result[at:]
            case _:
                result[at:at] = result[at:end] * rng.randrange(1, 50)
    return bytes(result)


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """Return the document with one to three values or names replaced, removed, repeated or nested deeply."""
    document = json.loads(data)
    for _ in range(rng.randrange(1, 4)):
        document = _changed(rng, document)
    text = json.dumps(document, ensure_ascii=bool(rng.randrange(2)))
    if not rng.randrange(20):
        return b'{"a":' * _DEEP + text.encode(errors="surrogatepass")
    return text.encode(errors="surrogatepass")


def _changed(rng: random.Random, node: Any) -> Any:
    if isinstance(node, dict) and node and rng.randrange(6):
        name = rng.choice(list(node))
        match rng.randrange(5):
            case 0:
                return {key: value for key, value in node.items() if key != name}
            case 1:
                return {**node, rng.choice(WORDS): rng.choice(VALUES)}
            case _:
                return {**node, name: _changed(rng, node[name])}
    if isinstance(node, list) and node and rng.randrange(6):
        at = rng.randrange(len(node))
        match rng.randrange(5):
            case 0:
                return node[:at] + node[at + 1 :]
            case 1:
                return node[:at] + [node[at]] * rng.randrange(2, 40) + node[at:]
            case _:
                return [*node[:at], _changed(rng, node[at]), *node[at + 1 :]]
    return rng.choice(VALUES)


def mutate_stanzas(rng: random.Random, data: bytes) -> bytes:
    """Return the index with one to three lines removed, repeated, moved, or with another field or value."""
    lines = data.split(b"\n")
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(lines))
        field, colon, value = lines[at].partition(b":")
        word = rng.choice(WORDS).encode(errors="surrogateescape")
        match rng.randrange(7):
            case 0:
                del lines[at : at + 1]
                lines = lines or [b""]
            case 1:
                lines[at:at] = [lines[at]] * rng.randrange(1, 40)
            case 2:
                lines.insert(rng.randrange(len(lines)), lines.pop(at))
            case 3:
                lines[at] = word + colon + value
            case 4:
                lines[at:at] = [rng.choice((b" ", b"\t", b" .", b"#", b" \x0b")) + word]
            case _:
                lines[at] = field + colon + b" " + word
    return b"\n".join(lines)


def mutate_xml(rng: random.Random, data: bytes) -> bytes:
    """Return the document with one to three elements, attributes or texts changed, removed, repeated or nested deeply."""
    root = ET.fromstring(data)
    for _ in range(rng.randrange(1, 4)):
        elements = list(root.iter())
        element = rng.choice(elements)
        parent = next((one for one in elements if element in list(one)), None)
        word = "".join(character for character in rng.choice(WORDS) if character.isprintable())
        match rng.randrange(6):
            case 0 if parent is not None:
                parent.remove(element)
            case 1 if parent is not None:
                parent.extend([element] * rng.randrange(1, 40))
            case 2:
                element.text = word
            case 3 if element.attrib:
                del element.attrib[rng.choice(list(element.attrib))]
            case 4:
                element.tag = rng.choice(elements).tag
            case _:
                name = rng.choice(
                    [*element.attrib, "epoch", "href", "{http://www.w3.org/XML/1998/namespace}base"]
                )
                element.set(name, word)
    text = ET.tostring(root)
    if not rng.randrange(20):
        return b"<a>" * _DEEP + text + b"</a>" * _DEEP
    return text


def mutate_gzip(rng: random.Random, data: bytes) -> bytes:
    """Return a gzip file whose content, or which itself, is changed; some are bombs or have several members."""
    match rng.randrange(8):
        case 0:
            return gzip.compress(bytes(rng.choice((5 << 20, 64 << 20))), 9, mtime=0)
        case 1:
            return data + data
        case 2:
            return gzip.compress(mutate_xml(rng, gzip.decompress(data)), mtime=0)
        case _:
            return mutate_bytes(rng, data)


def mutate_deb(rng: random.Random, data: bytes) -> bytes:
    """Return a deb whose control file, or the header of its control.tar, is changed."""
    members = _members(data)
    name = next(name for name in members if name.startswith("control.tar"))
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(members[name]))) as archive:
        files = [
            (member, file.read() if (file := archive.extractfile(member)) else b"")
            for member in archive.getmembers()
        ]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in files:
            text = mutate_stanzas(rng, content) if content and rng.randrange(4) else content
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    tar = written.getvalue()
    members[name] = lzma.compress(mutate_bytes(rng, tar) if not rng.randrange(3) else tar)
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
        for name, content in members.items()
    )


def _members(data: bytes) -> dict[str, bytes]:
    """Return the members of an ar archive."""
    members, at = {}, 8
    while at < len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        members[name] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return members


def mutate_rpm(rng: random.Random, data: bytes) -> bytes:
    """Return an rpm with numbers in its lead or headers changed, or cut there."""
    result = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.choice((96, 104, 108, rng.randrange(96, min(len(data), 1500))))
        number = rng.choice((0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.randrange(1 << 32)))
        result[at : at + 4] = number.to_bytes(4, "big")
    return bytes(result[: rng.randrange(len(result))] if not rng.randrange(6) else result)
