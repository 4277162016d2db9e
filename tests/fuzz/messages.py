"""What is sent to the three ports: changed bytes of the corpus, and well-formed messages with odd values."""

# mypy: allow-untyped-calls
# Twisted's Banana is not annotated.

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

from twisted.spread import banana

from tests.fuzz.mutations import VALUES, WORDS, mutate_bytes, mutate_json
from tests.integration.harness import DEB

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

PORT_OF = {"rest": "www", "websocket": "www", "packages": "packages", "pb": "workers"}
"""Kinds of messages, and the setting with the port that each is for."""


@dataclass(frozen=True)
class Exchange:
    """Bytes for one connection."""

    number: int
    kind: str
    data: bytes
    needs_answer: bool = False
    """It is one well-formed HTTP request, which must be answered."""
    pieces: tuple[int, ...] = ()
    """Where `data` is cut; the pieces are sent one after the other."""
    is_patient: bool = False
    """The connection is kept until the master closes it."""


@dataclass(frozen=True)
class Known:
    """What the messages may refer to."""

    rest_paths: Sequence[str]
    """The paths of Buildbot's specification, such as `/builds/:buildid`."""
    fields: Sequence[str]
    """The names of all fields in the specification."""
    package_paths: Sequence[str]
    """Published paths."""
    authorization: str
    """A header's value that is a user's, not the operator's."""


def exchange(
    number: int, rng: random.Random, kind: str, corpus: Sequence[bytes], known: Known, *, may_wait: bool
) -> Exchange:
    """Return the message of a kind that the generator makes."""
    if rng.randrange(2):
        data, needs_answer = mutate_bytes(rng, rng.choice(corpus)), False
    else:
        data, needs_answer = _MAKERS[kind](rng, known)
    cuts = (
        sorted(rng.randrange(1, len(data)) for _ in range(3))
        if len(data) > 1 and not rng.randrange(10)
        else ()
    )
    is_patient = not rng.randrange(10) and may_wait
    return Exchange(number, kind, data, needs_answer, tuple(cuts), is_patient)


def _word(rng: random.Random) -> bytes:
    return rng.choice(WORDS).encode(errors="surrogateescape")


def _quoted(rng: random.Random) -> str:
    return quote_from_bytes(_word(rng), safe="")


def _request(
    rng: random.Random, method: str, path: str, headers: dict[str, bytes], body: bytes | None = None
) -> bytes:
    """Return a well-formed HTTP request: whatever its values are, they are no separators of HTTP."""
    if body is not None:
        headers["Content-Length"] = str(len(body)).encode()
    lines = [
        name.encode() + b": " + bytes(byte for byte in value if byte >= 32 and byte != 127)[:6000]
        for name, value in headers.items()
    ]
    start = f"{method} {path} HTTP/1.{'1' if rng.randrange(10) else '0'}"
    return b"\r\n".join([start.encode(), b"Host: x", b"Connection: close", *lines, b"", body or b""])


_PLACES = (
    "/", "/auth/login", "/auth/logout", "/auth/other", "/avatar", "/config", "/change_hook/base", "/ws", "/img/x", "/api", "/api/v1",
    "/api/v2", "/api/v2/", "/login", "/console", "/index.html",
    "/sse/listen/builds/*/new", "/sse/add/x",
)  # fmt: skip
_OPERATORS = ("", "__eq", "__ne", "__lt", "__le", "__gt", "__ge", "__contains", "__in", "__notin", "__x")
_CALL = {
    "jsonrpc": "2.0", "id": 1, "method": "force",
    "params": {"builderNames": [DEB], "ref": "main", "sha1": "no sha1", "job": "a", "size": "x", "git_url": "git://127.0.0.1:1/x.git"},
}  # fmt: skip
_METHODS = ("force", "renew", "withdraw", "cancel", "stop", "set_priority", "enable", "kill", "pause", "x")


def _rest(rng: random.Random, known: Known) -> tuple[bytes, bool]:
    path = _rest_path(rng, known) if rng.randrange(5) else rng.choice(_PLACES)
    if rng.randrange(3):
        path += "?" + "&".join(_argument(rng, known) for _ in range(rng.randrange(1, 4)))
    headers = {"Accept": b"*/*"}
    if rng.randrange(2):
        headers["Authorization"] = (
            known.authorization.encode() if rng.randrange(3) else b"Basic " + _word(rng)
        )
    if not rng.randrange(4):
        headers["Cookie"] = b"TWISTED_SESSION=" + _word(rng)
    if not rng.randrange(8):
        headers[
            rng.choice(
                ("Accept", "Origin", "Range", "If-None-Match", "X-Real-IP", "Accept-Encoding", "User-Agent")
            )
        ] = _word(rng)
    if rng.randrange(3):
        return _request(rng, rng.choice(("GET", "GET", "GET", "HEAD", "OPTIONS")), path, headers), True
    headers["Content-Type"] = b"application/json" if rng.randrange(6) else _word(rng)
    call = json.dumps({**_CALL, "method": rng.choice(_METHODS)}).encode()
    body = mutate_json(rng, call) if rng.randrange(4) else mutate_bytes(rng, call)
    if rng.randrange(3):
        path = rng.choice(
            (
                "/api/v2/forceschedulers/packages",
                "/api/v2/packages/1",
                "/api/v2/builds/1",
                "/api/v2/buildrequests/1",
            )
        )
    return _request(rng, rng.choice(("POST", "POST", "POST", "PUT", "DELETE")), path, headers, body), True


def _rest_path(rng: random.Random, known: Known) -> str:
    parts = []
    for part in rng.choice(known.rest_paths).strip("/").split("/"):
        is_variable = ":" in part[:2]
        if is_variable and rng.randrange(4):
            parts.append(rng.choice(("1", "2", "0", "packages", DEB, "stdio")))
        else:
            parts.append(_quoted(rng) if is_variable or not rng.randrange(20) else part)
    return "/api/v2/" + "/".join(parts)


def _argument(rng: random.Random, known: Known) -> str:
    value = _quoted(rng)
    match rng.randrange(4):
        case 0:
            return f"{rng.choice(('limit', 'offset', 'order', 'field', 'property', 'callback', 'autologin'))}={value}"
        case 1:
            return f"{rng.choice(('order', 'field'))}={rng.choice(('', '-'))}{rng.choice(known.fields)}"
        case 2:
            return f"{_quoted(rng)}={value}"
        case _:
            value = rng.choice((value, "1", "true", "x"))
            return f"{rng.choice(known.fields)}{rng.choice(_OPERATORS)}={value}"


_SHAMAN = {
    "project": "ceph", "distros": "debian/bookworm/x86_64", "flavor": "default", "ref": "main", "sha1": "latest", "status": "ready",
}  # fmt: skip


def _packages(rng: random.Random, known: Known) -> tuple[bytes, bool]:
    headers: dict[str, bytes] = {}
    match rng.randrange(4):
        case 0:
            asked = {**_SHAMAN, rng.choice(list(_SHAMAN)): rng.choice(WORDS)}
            path = "/api/search?" + "&".join(
                f"{name}={quote_from_bytes(value.encode(errors='surrogateescape'), safe='')}"
                for name, value in asked.items()
                if rng.randrange(8)
            )
        case 1:
            parts = [
                "api",
                "repos",
                "ceph",
                "main",
                "latest",
                "debian",
                "bookworm",
                "flavors",
                "default",
                "repo",
            ]
            parts[rng.randrange(len(parts))] = _quoted(rng)
            path = "/" + "/".join(parts[: rng.randrange(1, 11)])
        case 2:
            path = rng.choice(
                ("/boot/", "/wheels/", "/upload/", f"/upload/{DEB}/{'0' * 40}/", "/", "/key.asc/")
            ) + _quoted(rng)
        case _:
            path = rng.choice(known.package_paths)
            path += _quoted(rng) if not rng.randrange(3) else ""
    names = (
        "Range",
        "If-Range",
        "If-None-Match",
        "If-Modified-Since",
        "Accept",
        "Expect",
        "Content-Digest",
        "Authorization",
        "TE",
    )
    for _ in range(rng.randrange(3)):
        name = rng.choice(names)
        headers[name] = _ranges(rng) if name == "Range" and rng.randrange(2) else _word(rng)
    if not rng.randrange(5):
        return _request(
            rng, rng.choice(("PUT", "POST", "DELETE")), path, headers, rng.randbytes(rng.randrange(9000))
        ), True
    return _request(rng, rng.choice(("GET", "GET", "HEAD", "OPTIONS")), path, headers), True


def _ranges(rng: random.Random) -> bytes:
    ends = ("", "0", "1", "5", "99999999999999999999")
    ranges = (f"{rng.choice(ends)}-{rng.choice(ends)}" for _ in range(rng.choice((1, 2, 500))))
    return f"bytes={','.join(ranges)}".encode()


_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_COMMAND = b'{"cmd":"startConsuming","path":"builds/*/*","_id":1}'


def _websocket(rng: random.Random, _: Known) -> tuple[bytes, bool]:
    return _UPGRADE + b"".join(_frame(rng) for _ in range(rng.randrange(1, 5))), False


def _frame(rng: random.Random) -> bytes:
    data = mutate_json(rng, _COMMAND) if rng.randrange(3) else mutate_bytes(rng, _COMMAND)
    first = 0x81 if rng.randrange(4) else rng.randrange(256)
    length = len(data) if rng.randrange(8) else rng.randrange(65536)
    # The mask of zeros leaves the text as it is.
    return bytes((first, 0xFE)) + min(length, 65535).to_bytes(2, "big") + bytes(4) + data


_PB_WORDS = (
    b"root",
    b"login",
    b"message",
    b"version",
    b"tuple",
    b"dictionary",
    b"remote",
    b"unpersistable",
    b"copy",
    b"None",
    b"",
)


def _pb(rng: random.Random, known: Known) -> tuple[bytes, bool]:
    """Return a choice of dialect and some messages of the perspective broker."""
    data = banana.encode(rng.choice((b"none", b"none", b"none", b"pb", b"x")))
    if not rng.randrange(4):
        # A whole login; the challenge is the first object that the master names.
        name, secret = _node(rng, 3), _node(rng, 3)
        data += banana.encode([b"message", 1, b"root", b"login", 1, [b"tuple", name], [b"dictionary"]])
        call = [b"message", 2, 1, b"respond", 1, [b"tuple", secret, [b"remote", 1]], [b"dictionary"]]
        data += banana.encode(call)
    for _ in range(rng.randrange(1, 5)):
        match rng.randrange(4):
            case 0:
                message = [b"message", 1, b"root", b"login", 1, [b"tuple", _node(rng, 0)], [b"dictionary"]]
            case 1:
                message = [
                    b"message",
                    _node(rng, 2),
                    _node(rng, 2),
                    _node(rng, 2),
                    1,
                    _node(rng, 0),
                    _node(rng, 0),
                ]
            case 2:
                name = rng.choice(
                    (b"answer", b"error", b"decref", b"decache", b"didNotUnderstand", b"version", b"cache")
                )
                message = [name, *(_node(rng, 1) for _ in range(rng.randrange(4)))]
            case _:
                message = [_node(rng, 0) for _ in range(rng.randrange(5))]
        data += banana.encode(message)
    return data, False


def _node(rng: random.Random, depth: int) -> Any:
    if depth < 4 and not rng.randrange(2):
        return [rng.choice(_PB_WORDS), *(_node(rng, depth + 1) for _ in range(rng.randrange(4)))]
    value = rng.choice((*_PB_WORDS, *VALUES))
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    if isinstance(value, bool) or not isinstance(value, int | float | bytes):
        return int(bool(value))
    return value if isinstance(value, bytes | float) or abs(value) < 2**300 else 7


_MAKERS: dict[str, Callable[[random.Random, Known], tuple[bytes, bool]]] = {
    "rest": _rest, "packages": _packages, "websocket": _websocket, "pb": _pb,
}  # fmt: skip
