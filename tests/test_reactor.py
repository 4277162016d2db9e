"""The tests' reactors leave no file open: a process runs hundreds of them, and select() takes 1024 files."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.internet.utils import getProcessOutput
from twisted.python.threadpool import ThreadPool

from tests.reactor import finish


async def _use_everything(reactor: Any) -> bytes:
    reactor.listenTCP(0, Factory(), interface="127.0.0.1")  # and leave it so
    pool = ThreadPool(0, 1)
    pool.start()
    code = await deferToThreadPool(reactor, pool, lambda: "print('said')")
    pool.stop()
    said: Deferred[bytes] = getProcessOutput(sys.executable, ["-c", code], reactor=reactor)  # type: ignore[no-untyped-call]
    return await said


def test_no_file_is_left_open() -> None:
    """A thread's waker, a program's pipes and a port that listens still are closed when the coroutine is done."""
    assert finish(_use_everything) == b"said\n"
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert finish(_use_everything) == b"said\n"
    assert sorted(os.listdir("/proc/self/fd")) == before
