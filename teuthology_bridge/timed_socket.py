"""A connection whose every operation ends at one deadline, with gevent's patches and without.

`requests` and `http.client` bound each single read, so a peer that sends a byte now and then holds them for
ever; and names are looked up outside every time-out. Under gevent, a peer that always has bytes ready even
keeps timers from running, and teuthology leaves the look-up unpatched, which stops the whole process.
So here a plain non-blocking socket is waited for with poll, and names are looked up in a native thread.
"""

from __future__ import annotations

import importlib
import io
import ipaddress
import os
import select
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from errno import EINPROGRESS
from functools import partial
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536
_SOONEST, _LATEST = 0.001, 0.05
"""Seconds between two looks whether a name has been found."""


@dataclass(frozen=True)
class Waits:
    """What to wait with."""

    poll: Callable[[], Any]
    sleep: Callable[[float], None]

    @classmethod
    def usual(cls) -> Waits:
        """Let other greenlets run meanwhile, if there are any."""
        return cls(select.poll, time.sleep)

    @classmethod
    def of_signal_handler(cls) -> Waits:
        """Wait with the whole process: what a handler interrupted may be gevent's hub, which must not switch."""
        return cls(unpatched("select", "poll"), unpatched("time", "sleep"))


def unpatched(module: str, name: str) -> Any:
    """Give what the standard library has under a name, were it patched by gevent; gevent is not imported."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


class TimedSocket:
    """As much of a socket as http.client needs; TimeoutError once the deadline has passed."""

    def __init__(self, host: str, port: int, deadline: float, waits: Waits) -> None:
        """Connect to the first address that answers; OSError if there is none."""
        self._deadline = deadline
        self._waits = waits
        self._tls: _Tls | None = None
        self._socket = self._connected(look_up(host, port, deadline, waits))

    def _connected(self, addresses: list[Any]) -> socket.socket:
        refused: OSError = OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            now = time.monotonic()
            # Each address has its share: one that swallows packets must not use up the others' time.
            until = now + (self._deadline - now) / (len(addresses) - number)
            one = unpatched("socket", "socket")(family, kind, protocol)
            try:
                one.settimeout(0)
                error = one.connect_ex(address)
                if error == EINPROGRESS:
                    self._wait(one, select.POLLOUT, until)
                    error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as failure:
                one.close()
                refused = failure
            else:
                return one  # type: ignore[no-any-return]
        raise refused

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Speak TLS from here on; ssl.SSLError if the peer can't be trusted."""
        tls = _Tls(context, name)
        while tls.handshaking():
            self._feed(tls)
        self._drain(tls)
        self._tls = tls

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        if self._tls is None:
            self._send(data)
        else:
            self._tls.object.write(data)
            self._drain(self._tls)

    def recv_into(self, buffer: memoryview) -> int:
        """Give the number of bytes read into a buffer; 0 at the end."""
        if self._tls is None:
            return int(self._until(lambda: self._socket.recv_into(buffer), select.POLLIN))
        while True:
            try:
                return self._tls.read_into(buffer)
            except ssl.SSLWantReadError:
                self._feed(self._tls)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0

    def makefile(self, mode: str, *_: object) -> io.BufferedReader:
        """Give what http.client reads from."""
        return io.BufferedReader(_Raw(self), _CHUNK)

    def close(self) -> None:
        """Do nothing: http.client closes what it goes on to read from, as a socket's file outlives the socket."""

    def hang_up(self) -> None:
        """Let go of the connection, without a word to the peer."""
        self._socket.close()

    def _feed(self, tls: _Tls) -> None:
        self._drain(tls)
        data = self._until(lambda: self._socket.recv(_CHUNK), select.POLLIN)
        if data:
            tls.incoming.write(data)
        else:
            tls.incoming.write_eof()

    def _drain(self, tls: _Tls) -> None:
        self._send(tls.outgoing.read())

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._until(partial(self._socket.send, left), select.POLLOUT) :]

    def _until(self, operation: Callable[[], Any], ready: int) -> Any:
        while True:
            # Looked at each time: a peer that never lets us wait must not escape it.
            if time.monotonic() >= self._deadline:
                raise TimeoutError
            try:
                return operation()
            except BlockingIOError:
                self._wait(self._socket, ready, self._deadline)

    def _wait(self, one: socket.socket, ready: int, until: float) -> None:
        poll = self._waits.poll()
        poll.register(one.fileno(), ready)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError


class _Tls:
    """TLS over bytes in memory, as the ssl module's own sockets wait in ways of their own."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def handshaking(self) -> bool:
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return True
        return False

    def read_into(self, buffer: memoryview) -> int:
        return int(cast("Any", self.object).read(len(buffer), buffer))


class _Raw(io.RawIOBase):
    def __init__(self, timed: TimedSocket) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed.recv_into(memoryview(buffer))


def look_up(host: str, port: int, deadline: float, waits: Waits) -> list[Any]:
    """Give a host's addresses as getaddrinfo does; TimeoutError if that does not end in time."""
    getaddrinfo = unpatched("socket", "getaddrinfo")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return list(getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    # Abandoned if it hangs: nothing can end a look-up, and the resolver gives up by itself.
    unpatched("_thread", "start_new_thread")(ask, ())
    pause = _SOONEST
    while not answers:
        if time.monotonic() >= deadline:
            raise TimeoutError
        waits.sleep(pause)
        pause = min(_LATEST, pause * 1.5)
    if isinstance(answers[0], UnicodeError):
        raise OSError(f"{host[:50]!r} is no host's name")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return list(answers[0])
