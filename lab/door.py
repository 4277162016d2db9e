"""One door of the fault proxy: a port before a port, HTTP on both sides."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Literal

from lab.layout import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "proxy-connection",
}
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: a close is a reset."""


ALWAYS = -1
Action = Literal["answer", "lose", "reset", "ignore", "hang", "delay"]
"""What happens to a call:

answer: the proxy answers, and the service hears nothing. lose: the service does it, and the answer is
lost (the connection is reset). reset: the service hears nothing, the connection is reset. ignore: the
proxy says 204 or 202, and the service hears nothing. hang: no answer, and the connection is closed
after some seconds. delay: the call goes on after some seconds.
"""


@dataclass
class Rule:
    """What happens to some calls."""

    action: Action
    service: str = ""
    method: str = ""
    path: str = ""
    times: int = ALWAYS
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "the lab was told to fail"
    seconds: float = 0.0

    def fits(self, service: str, method: str, path: str) -> bool:
        """Whether it is about a call; an empty word fits all."""
        return (
            self.times != 0
            and self.service in ("", service)
            and self.method in ("", method)
            and re.search(self.path, path.partition("?")[0]) is not None
        )


@dataclass(frozen=True)
class Call:
    """A call that was made, as the client made it, and what became of it."""

    at: float
    """Of time.monotonic()."""
    service: str
    method: str
    path: str
    status: int
    """What the client was told; 0 if nothing."""
    seconds: float
    fault: str
    """The action of the rule that decided it; empty if it went through untouched."""


class Door:
    """A port that stands for a service's."""

    def __init__(
        self,
        service: str,
        target: int,
        decide: Callable[[str, str, str], Rule | None],
        note: Callable[[Call], None],
        rewrite: Callable[[bytes], bytes],
    ) -> None:
        """Take a free port; nobody is answered before `open`."""
        self.service = service
        self.target = target
        self.decide = decide
        self.note = note
        self.rewrite = rewrite
        self._listener, self.port = _bound()
        self._open = False
        self._closed = False
        self._guard = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name=f"{service} door", daemon=True)

    def open(self) -> None:
        """Let clients in."""
        self._thread.start()
        self.accept()

    def accept(self) -> None:
        """Let clients in again."""
        with self._guard:
            if not self._open:
                self._listener.listen(512)
                self._open = True
                self._guard.notify_all()

    def refuse(self) -> None:
        """Refuse whoever comes, and reset whoever is there; the port stays ours."""
        with self._guard:
            if self._open:
                # On Linux this ends the listening, and keeps the port: connecting is refused.
                self._listener.shutdown(socket.SHUT_RDWR)
                self._open = False
            for connection in self._connections:
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        with self._guard:
            self._closed = True
            self._guard.notify_all()
        self.refuse()
        self._thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            with self._guard:
                self._guard.wait_for(lambda: self._open or self._closed)
            try:
                connection, address = self._listener.accept()
            except OSError:  # refused from now on, or closed
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        with self._guard:
            self._connections.add(connection)
        try:
            with suppress(OSError):
                _Handler(connection, address, self)
        finally:
            with self._guard:
                self._connections.discard(connection)
            connection.close()


def _bound() -> tuple[socket.socket, int]:
    """Give a socket on a free port, asked for by its number: only such a port stays ours while nobody listens."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((HOST, port))
        except OSError:
            made.close()
            continue
        return made, port


class _Handler(BaseHTTPRequestHandler):
    """One client's connection, call after call."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: socket.socket, address: Any, door: Door) -> None:
        self._door = door
        self._service: http.client.HTTPConnection | None = None
        super().__init__(connection, address, door)  # type: ignore[arg-type]

    def log_message(self, *_: Any) -> None:
        """Print nothing: the proxy keeps the calls."""

    def _call(self) -> None:
        began = time.monotonic()
        body = self._body()
        rule = self._door.decide(self._door.service, self.command, self.path)
        action = rule.action if rule else ""
        status = 0
        with suppress(OSError):  # the client has gone
            if rule is None or action in ("delay", "lose"):
                status = self._forward(body, answer=action != "lose")
            elif action in ("answer", "ignore"):
                status = self._answer(rule)
        if status == 0:
            self._reset()
        seconds = time.monotonic() - began
        self._door.note(Call(began, self._door.service, self.command, self.path, status, seconds, action))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _call

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes, *, answer: bool) -> int:
        """Have the service do it; pass its answer on, or lose it. Gives what the client was told."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["Content-Length"] = str(len(body))
        if self._service is None:
            self._service = http.client.HTTPConnection(HOST, self._door.target)
        try:
            self._service.request(self.command, self.path, body, headers)
            found = self._service.getresponse()
            content = found.read()
        except (OSError, http.client.HTTPException):
            self._service.close()
            self._service = None
            return 0
        if not answer:
            return 0
        if "json" in found.headers.get("Content-Type", ""):
            content = self._door.rewrite(content)
        self.send_response_only(found.status)
        for name, value in found.getheaders():
            if name.lower() == "location":
                value = self._door.rewrite(value.encode()).decode()  # noqa: PLW2901
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self._end(content, found.status)
        return found.status

    def _answer(self, rule: Rule) -> int:
        content = (
            b""
            if rule.status == 204
            else json.dumps({"error": {"code": rule.status, "message": rule.message}}).encode()
        )
        self.send_response_only(rule.status)
        if content:
            self.send_header("Content-Type", "application/json")
        for name, value in rule.headers.items():
            self.send_header(name, value)
        self._end(content, rule.status)
        return rule.status

    def _end(self, content: bytes, status: int) -> None:
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        """Have the other side see a reset as soon as we close."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def finish(self) -> None:
        """Let the service's connection go, too."""
        if self._service is not None:
            self._service.close()
        super().finish()
