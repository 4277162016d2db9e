"""Calls the SDK of one cloud in its own threads, with time limits; one thread is reserved for reading."""

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
"""Most simultaneous calls of one cloud that make or remove something. A nova without enough processor time may take each
of them to its time limit.
"""
THREADS = CHANGES + 1
"""Threads of one cloud. One is for reading, because every build waits for listings, and for the quota before it requests a
server. Behind a burst of other calls, a listing took as long as all their time limits together. More threads would
slow down the reactor, because the threads decode answers under the interpreter's lock.
"""

_CREATE_TIMES = 3
"""Factor for the time limit of the call for a server: nova itself waits up to 60 s for its own parts."""


def patient(compute: Any, timeout: float) -> Any:
    """Return the SDK's proxy of nova with more time for the call for a server.

    If we give up a call, nova goes on with it. An already slow nova then has to delete that server and make another one. With 20
    calls at the same time on a busy machine, each was given up after 20 s, and no worker attached for two minutes.
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
        """Call a function in a thread as soon as one is free."""
        if self._pool is None:
            self._pool = ThreadPool(0, THREADS, self._name)
            # Daemon threads, so that the process can end while a call hangs.
            self._pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
            self._pool.start()
        return deferToThreadPool(reactor, self._pool, function)

    def change(self, reactor: Any, function: Callable[[], T]) -> Deferred[T]:
        """Call a function that makes or removes something, as soon as a thread stays free for reading."""
        return self._changes.run(self.run, reactor, function)

    def close(self) -> None:
        """End the threads. Hanging calls end at their time limit."""
        pool, self._pool = self._pool, None
        if pool is not None:
            # stop() waits for the threads, and one may hang for as long as a request's time limit.
            threading.Thread(target=pool.stop, daemon=True).start()
