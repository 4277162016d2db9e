"""Servers on loopback that behave as networks and strangers do: each connection is treated by one function."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Self

Behave = Callable[[socket.socket, Event], None]

_OK = b"HTTP/1.1 200 OK\r\n"
DRIP = 0.01
"""Seconds between two bytes: far less than any time-out, as it is with those that hold a client for ever."""


class Peer:
    """A server that does the same to everybody who connects, until it is left."""

    def __init__(self, behave: Behave) -> None:
        self._behave = behave
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.over = Event()
        self.connections = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listening.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(one)
            Thread(target=self._treat, args=[one], daemon=True).start()

    def _treat(self, one: socket.socket) -> None:
        with suppress(OSError):
            self._behave(one, self.over)
            one.close()


def request_of(one: socket.socket) -> bytes:
    """Give what was asked, head and body."""
    read = b""
    while True:
        head, end, body = read.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            return read
        more = one.recv(65536)
        if not more:
            return read
        read += more


def answers(data: bytes) -> Behave:
    """Give a server that answers this, whatever is asked."""

    def behave(one: socket.socket, over: Event) -> None:
        request_of(one)
        one.sendall(data)

    return behave


def says(status: str, body: bytes = b"", *headers: str) -> Behave:
    """Give a server with one proper answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return answers("\r\n".join(head).encode() + body)


def _drips(beginning: bytes) -> Behave:
    def behave(one: socket.socket, over: Event) -> None:
        request_of(one)
        one.sendall(beginning)
        while not over.wait(DRIP):
            one.sendall(b"x")

    return behave


def _floods(beginning: bytes, more: bytes) -> Behave:
    def behave(one: socket.socket, over: Event) -> None:
        request_of(one)
        one.sendall(beginning)
        while not over.is_set():
            one.sendall(more)

    return behave


def _stalls(one: socket.socket, over: Event) -> None:
    request_of(one)
    over.wait()


def _never_reads(one: socket.socket, over: Event) -> None:
    over.wait()


def _resets(one: socket.socket, over: Event) -> None:
    request_of(one)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _closes(one: socket.socket, over: Event) -> None:
    request_of(one)


MUTE: dict[str, Behave] = {
    "stalls": _stalls,
    "never reads": _never_reads,
    "drips its status": _drips(b"HTTP/1.1 200 O"),
    "drips a header": _drips(_OK + b"X-Slow: "),
    "drips its body": _drips(_OK + b"Content-Length: 100000\r\n\r\n"),
    "drips a body without length": _drips(_OK + b"\r\n"),
    "drips chunks": _drips(_OK + b"Transfer-Encoding: chunked\r\n\r\n10000\r\n"),
    "floods with continues": _floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "floods with trailers": _floods(
        _OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X: y\r\n" * 500
    ),
}
"""Those whose answer never ends, so that only the clock ends it."""

STRANGE: dict[str, tuple[Behave, str]] = {
    "cuts its body": (
        answers(_OK + b"Content-Length: 100\r\n\r\nbegin"),
        "its answer ended in the middle",
    ),
    "cuts its chunks": (
        answers(_OK + b"Transfer-Encoding: chunked\r\n\r\n100\r\nbegin"),
        "its answer ended in the middle",
    ),
    "resets": (_resets, "Connection reset by peer"),
    "closes": (_closes, "it closed the connection without an answer"),
    "sends a gigabyte": (
        _floods(_OK + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65536),
        "its answer is 1000000000 bytes long",
    ),
    "sends a gigabyte without saying so": (
        _floods(_OK + b"\r\n", b"x" * 65536),
        "its answer is more than 1048576 bytes long",
    ),
    "sends a gigabyte in chunks": (
        _floods(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b"x" * 0x8000 + b"\r\n"),
        "its answer is more than 1048576 bytes long",
    ),
    "sends a bomb": (
        answers(_OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"),
        "its answer is packed as 'gzip', which nobody asked for",
    ),
    "sends headers without end": (
        _floods(_OK, b"X-Many: x\r\n" * 500),
        "it answered with something else than HTTP: HTTPException got more than 100 headers",
    ),
    "sends one header without end": (
        _floods(_OK + b"X-Long: ", b"x" * 65536),
        "it answered with something else than HTTP: LineTooLong got more than 65536 bytes when reading header line",
    ),
    "speaks another protocol": (
        answers(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "it answered with something else than HTTP: BadStatusLine SSH-2.0-OpenSSH_9.2",
    ),
    "sends noise": (
        answers(bytes(range(256)) * 40),
        "it answered with something else than HTTP: BadStatusLine",
    ),
}
"""Those whose answer can't be read, and what is said of it."""


@contextmanager
def nobody() -> Iterator[str]:
    """Give the URL of a port on which nobody listens, kept from others meanwhile."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{one.getsockname()[1]}/"


@contextmanager
def swallowing() -> Iterator[str]:
    """Give the URL of a port that takes no connection and refuses none, as behind a firewall."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(0)
        address = one.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            yield f"http://127.0.0.1:{address[1]}/"
        finally:
            for filler in fillers:
                filler.close()
