"""Many connections at a time, each kept until it is answered, closed, or over its time limit.

An answer that comes late is read as well. The master must close a connection by itself within the limit of its port.
"""

from __future__ import annotations

import random
import re
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.messages import PORT_OF
from tests.patience import SLOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fuzz.messages import Exchange

HANG = 5 * SLOW
"""Seconds within which a well-formed request must be answered, and which a limit of time may be exceeded by."""

CLOSED_WITHIN = {"rest": 60, "websocket": 10 + 30 + 30, "packages": 120, "pb": 30}
"""Seconds of silence after which the master closes a connection: Twisted's limit for HTTP; the handshake, the ping and its answer;
`_IDLE_SECONDS` of the package server; SECONDS_TO_LOGIN."""

OPEN = {"rest": 80, "websocket": 40, "packages": 80, "pb": 40}
"""Connections of a kind that are open at most. Beyond that some are broken off. MOST_WAITING limits those of the workers' port."""

FRESH = 0.3
"""Seconds after which a connection does not count as busy any more; it is still read."""

_KEPT = 64 * 1024
_CLOSE_WAIT = "08"
_SERVER_ERROR = re.compile(rb"HTTP/1\.[01] (5\d\d) [A-Za-z ]+\r\n")
_AS_SHAMAN = b"504"
"""The one 5xx that is no mistake: shaman's answer if no repository is ready (docs/shaman.md)."""


@dataclass(eq=False)
class Connection:
    """One exchange on its way."""

    exchange: Exchange
    socket: socket.socket
    unsent: deque[bytes]
    since: float = field(default_factory=time.monotonic)
    heard: float = 0.0
    """When something was sent or received last."""
    received: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Ended:
    """An exchange that is over."""

    exchange: Exchange
    outcome: str
    """A status, `answered`, `empty` or `broken off`."""
    defect: str = ""


class Connections:
    """The connections to the ports of one master."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        """`ports` has the port of each setting that PORT_OF names."""
        self._ports = ports
        self._selector = selectors.DefaultSelector()
        self._open: dict[str, list[Connection]] = {kind: [] for kind in PORT_OF}
        self._chance = random.Random(0)
        self._sent: dict[int, Exchange] = {}

    def busy(self) -> int:
        """Return how many connections have begun just now and have no answer yet."""
        now = time.monotonic()
        return sum(
            1 for rows in self._open.values() for one in rows if now - one.since < FRESH and not one.received
        )

    def patient(self, kind: str) -> int:
        """Return how many connections of a kind wait for the master to close them."""
        return sum(one.exchange.is_patient for one in self._open[kind])

    def send(self, exchange: Exchange) -> list[Ended]:
        """Begin an exchange; return those that are broken off for it, or itself if the port takes no connection."""
        ended = []
        rows = self._open[exchange.kind]
        idle = [one for one in rows if not one.exchange.is_patient and not self._owes(one) and not one.unsent]
        if len(rows) >= OPEN[exchange.kind] and idle:
            ended.append(self._end(self._chance.choice(idle), "broken off"))
        try:
            port = self._ports[PORT_OF[exchange.kind]]
            client = socket.create_connection(("127.0.0.1", port), timeout=HANG)
        except OSError as error:
            return [*ended, Ended(exchange, "empty", f"the port takes no connection: {error}")]
        client.setblocking(False)
        self._sent[client.getsockname()[1]] = exchange
        edges = [0, *exchange.pieces, len(exchange.data)]
        pieces = deque(exchange.data[start:end] for start, end in pairwise(edges))
        connection = Connection(exchange, client, pieces)
        connection.heard = connection.since
        rows.append(connection)
        self._selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        return ended

    def poll(self, seconds: float) -> list[Ended]:
        """Send and receive for some time at most; return what ended."""
        ended = []
        for key, events in self._selector.select(seconds):
            connection: Connection = key.data
            if events & selectors.EVENT_WRITE:
                self._write(connection)
            if events & selectors.EVENT_READ and self._is_closed_after_reading(connection):
                ended.append(self._closed(connection))
        now = time.monotonic()
        for rows in self._open.values():
            for connection in tuple(rows):
                if sentence := self._overdue(connection, now):
                    ended.append(self._end(connection, "empty", sentence))
        return ended

    def drain(self) -> list[Ended]:
        """Wait for the answers that are owed, then close everything; return what ended."""
        ended = []
        deadline = time.monotonic() + 2 * HANG
        while time.monotonic() < deadline and any(
            self._owes(one) for rows in self._open.values() for one in rows
        ):
            ended += self.poll(0.1)
        for rows in self._open.values():
            ended += [self._end(connection, "broken off") for connection in tuple(rows)]
        return ended

    def not_closed(self) -> list[Exchange]:
        """Return the exchanges whose connections we have closed and the master has not."""
        ports = {f"{port:04X}" for port in self._ports.values()}
        found = []
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = row.split()
            if local.partition(":")[2] in ports and state == _CLOSE_WAIT:
                found.append(self._sent.get(int(remote.partition(":")[2], 16)))
        return [exchange for exchange in found if exchange is not None]

    def close(self) -> None:
        """Close everything at once."""
        for rows in self._open.values():
            for connection in tuple(rows):
                self._end(connection, "broken off")
        self._selector.close()

    def _owes(self, connection: Connection) -> bool:
        return connection.exchange.needs_answer and not connection.received

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.unsent[0])
        except BlockingIOError:
            return
        except OSError:
            # The master has closed it; what it sent before that is still to be read.
            connection.unsent.clear()
            sent = 0
        if connection.unsent:
            connection.unsent[0] = connection.unsent[0][sent:]
            if not connection.unsent[0]:
                connection.unsent.popleft()
        connection.heard = time.monotonic()
        if not connection.unsent:
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _is_closed_after_reading(self, connection: Connection) -> bool:
        try:
            chunk = connection.socket.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        connection.received += chunk[: _KEPT - len(connection.received)]
        connection.heard = time.monotonic()
        return not chunk

    def _closed(self, connection: Connection) -> Ended:
        if self._owes(connection):
            return self._end(connection, "empty", "closed without an answer to a well-formed request")
        return self._end(connection, "answered" if connection.received else "empty")

    def _overdue(self, connection: Connection, now: float) -> str:
        if connection.unsent:
            return ""
        if self._owes(connection) and now - connection.heard > HANG:
            return f"no answer within {HANG} s to a well-formed request"
        limit = CLOSED_WITHIN[connection.exchange.kind] + HANG
        if connection.exchange.is_patient and now - connection.heard > limit:
            return f"still open after {limit} s of silence"
        return ""

    def _end(self, connection: Connection, outcome: str, defect: str = "") -> Ended:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open[connection.exchange.kind].remove(connection)
        status = re.match(rb"HTTP/1\.[01] (\d)\d\d ", connection.received)
        if outcome == "answered" and status:
            outcome = f"{status[1].decode()}xx"
        kind = connection.exchange.kind
        if PORT_OF[kind] != "workers" and not defect:
            errors = set(_SERVER_ERROR.findall(connection.received)) - (
                {_AS_SHAMAN} if kind == "packages" else set()
            )
            defect = f"status {min(errors).decode()}" if errors else ""
        return Ended(connection.exchange, outcome, defect)
