"""Waiting, and ports: what tests of processes share."""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def free_ports(number: int, host: str = "127.0.0.1") -> list[int]:
    """Give ports that nobody listens on, of those that Linux gives to no outgoing connection in between."""
    found: set[int] = set()
    while len(found) < number:
        port = 16384 + secrets.randbelow(16384)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            found.add(port)
    return list(found)
