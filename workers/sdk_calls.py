"""How calls of one cloud are made: in threads of its own, one of which is left for reading, and with which time limit."""

from __future__ import annotations

import threading
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CHANGES = 4
"""Calls at once, of each cloud, that make or remove something. A nova that is short of a processor may take each of them
to its time limit.
"""
THREADS = CHANGES + 1
"""Of each cloud. Everybody waits for what is read, as for the quota before a server is asked for and for listings: with a
burst of requests before it, that took as long as all their time limits together. More threads would hold up the reactor,
since answers are decoded under the interpreter's lock.
"""

_CREATE_TIMES = 3
"""How many times as long as any other call may the one for a server take: nova waits 60 s for its own parts."""


def patient(compute: Any, timeout: float) -> Any:
    """Return the SDK's proxy of nova with more time for the call for a server.

    nova goes on with a call that we give up: the server has to be ended, and another one made, by a nova that is slow
    already. Seen with 20 at once on a busy machine: each was given up after 20 s, none was attached for two minutes.
    """
    with_more_time = copy(compute)
    with_more_time.session = copy(compute.session)
    with_more_time.session.timeout = timeout * _CREATE_TIMES
    return with_more_time


class SdkThreads:
    """Threads of one cloud; none is made before the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPool | None = None
        self._changes = DeferredSemaphore(CHANGES)

    def run(self, reactor: Any, function: Callable[[], T]) -> Deferred[T]:
        """Call a function in a thread, as soon as one is free."""
        if self._pool is None:
            self._pool = ThreadPool(0, THREADS, self._name)
            # The end of the process waits for no call that hangs.
            self._pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
            self._pool.start()
        return deferToThreadPool(reactor, self._pool, function)

    def change(self, reactor: Any, function: Callable[[], T]) -> Deferred[T]:
        """Do the same for a function that makes or removes something, as soon as it leaves a thread for reading."""
        return self._changes.run(self.run, reactor, function)

    def close(self) -> None:
        """End the threads; calls that hang are left to their time limit."""
        pool, self._pool = self._pool, None
        if pool is not None:
            # stop() waits for the threads, and one may hang for as long as a request's time limit.
            threading.Thread(target=pool.stop, daemon=True).start()
