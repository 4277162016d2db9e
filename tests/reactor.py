"""Runs coroutines of Twisted's to their end, each on a reactor of its own that starts real programs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def finish(use: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Give what `use(reactor)` returns, or raise what it raises; signal handlers are as before."""
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
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
