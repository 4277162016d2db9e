"""Runs coroutines of Twisted's to their end, each on a reactor of its own that starts real programs.

Each reactor's files are closed after it. Left open, they exceeded the 1024 that select() takes in a process with a few hundred
tests: from there on a reactor lost its own waker, and never saw the end of what a thread did.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def finish(use: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Return what `use(reactor)` returns, or raise what it raises; signal handlers and open files are as before."""
    reactor = SelectReactor()
    results: list[Any] = []

    def start() -> None:
        deferred: Deferred[Any] = Deferred.fromCoroutine(use(reactor))
        deferred.addBoth(results.append)
        deferred.addBoth(lambda _: reactor.stop())

    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    reactor.callWhenRunning(start)
    try:
        reactor.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _close(reactor)
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _close(reactor: SelectReactor) -> None:
    """Close what a stopped reactor holds open: its selectables, and the waker that threads write to."""
    why = Failure(ConnectionLost("the reactor of this test has stopped"))  # type: ignore[no-untyped-call]
    for selectable in reactor.removeAll():  # type: ignore[no-untyped-call]
        selectable.connectionLost(why)
    waker, reactor.waker = reactor.waker, _Unheard()
    reactor._internalReaders.discard(waker)
    waker.connectionLost(None)


class _Unheard:
    """In place of a closed waker, for a thread that ends after the reactor."""

    def wakeUp(self) -> None:
        """Do nothing: nobody sleeps."""
