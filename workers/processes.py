"""Other programs, run off the reactor's thread of thought: with a time limit, and no shell."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.python.failure import Failure

_MOST_OUTPUT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Finished:
    """How a program ended: status is negative for a signal, and None if it was stopped late."""

    status: int | None
    output: bytes
    errors: str


class _Collect(protocol.ProcessProtocol):
    transport: Any

    def __init__(self) -> None:
        self.done: defer.Deferred[int | None] = defer.Deferred()
        self.output = bytearray()
        self.errors = bytearray()
        self.late = False

    def outReceived(self, data: bytes) -> None:
        self.output += data
        if len(self.output) > _MOST_OUTPUT:
            self.stop()

    def errReceived(self, data: bytes) -> None:
        self.errors = (self.errors + data)[-65536:]

    def stop(self) -> None:
        """Kill it and its children: git's helpers hold the pipes as long as they live."""
        self.late = True
        if self.transport is not None and self.transport.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.transport.pid, signal.SIGKILL)

    def processEnded(self, reason: Failure) -> None:
        value = reason.value
        code = getattr(value, "exitCode", None)
        signal = getattr(value, "signal", None)
        self.done.callback(None if self.late else -signal if signal else code or 0)


async def run(
    reactor: Any,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
) -> Finished:
    """Run a program to its end, or kill it after so many seconds, or 64 MiB of output."""
    collect = _Collect()
    command = ["setsid", *arguments]
    reactor.spawnProcess(collect, command[0], command, dict(environment))
    timer = reactor.callLater(seconds, collect.stop)
    status = await collect.done
    if timer.active():
        timer.cancel()
    return Finished(status, bytes(collect.output), collect.errors.decode(errors="replace"))
