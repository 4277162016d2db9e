"""Waiting, and ports: what tests of processes share."""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

SLOW = 4
"""How many times slower than where a test was written a machine may be, and the test still pass.

What a test gives is how long it may take there. It bounds a wait for what never comes; it measures nothing.
"""


def until(
    condition: Callable[[], Any],
    what: str | Callable[[], str],
    seconds: float,
    *,
    longest_pause: float = 0.1,
    away: tuple[type[Exception], ...] = (),
) -> Any:
    """Wait until a condition gives something, and give that; AssertionError says what did not come about.

    `longest_pause`: it asks less and less often up to that, where each question slows down what it waits for.
    `away`: what asking may raise while it is not yet so.
    """
    pause = 0.1
    seconds *= SLOW
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = condition()
        except away:
            found = None
        if found:
            return found
        time.sleep(pause)
        pause = min(1.5 * pause, longest_pause)
    raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")


def listens(process: subprocess.Popen[bytes], address: tuple[str, int], why: Callable[[], str]) -> None:
    """Wait until a process that has just begun accepts connections; AssertionError, with `why`, if it ends before."""

    def accepts() -> bool:
        assert process.poll() is None, f"it ended at once: {why()}"
        with socket.socket() as probe:
            return probe.connect_ex(address) == 0

    until(accepts, lambda: f"it listens on {address}: {why()}", 30)


_SESSIONS = 8
_PORTS = 16384 // _SESSIONS
_given: set[int] = set()


def free_ports(number: int, host: str = "127.0.0.1") -> list[int]:
    """Give ports that nobody listens on, of those that Linux gives to no outgoing connection in between."""
    # What one has been given, and has not begun to listen on yet, must not be given to another.
    session = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SESSIONS
    found: list[int] = []
    while len(found) < number:
        port = 16384 + session * _PORTS + secrets.randbelow(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            if port not in _given:
                found.append(port)
                _given.add(port)
    return found
