"""What is measured of a master whose machines are servers: its reactor, its REST API, and ends of servers.

The lag is measured inside the master by a patch that its process runs before anything else; the
product needs no hook and knows of none. Whoever must wait counts: a moment at which a tick was due, or a
question was to be asked, and nobody was served, is a figure of its own.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

from bench.report import percentile, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TICK = 0.01
"""Seconds from one tick of the reactor to the next."""
POLL = 0.1
"""Seconds from one question of the REST API to the next."""

_PATCH = """
import time as _time

from buildbot.master import BuildMaster
from buildbot.process.build import Build

_lags = []

def _tick(due):
    from twisted.internet import reactor
    now = _time.monotonic()
    _lags.append("%.3f %.6f" % (_time.time(), now - due))
    if len(_lags) >= 100:
        with open({lags!r}, "a") as file:
            file.write("\\n".join(_lags) + "\\n")
        _lags.clear()
    reactor.callLater({tick!r}, _tick, _time.monotonic() + {tick!r})

_start = BuildMaster.startService

def _started(self, *args, **kwargs):
    from twisted.internet import reactor
    reactor.callLater(0, _tick, _time.monotonic())
    return _start(self, *args, **kwargs)

BuildMaster.startService = _started

before(Build, "buildFinished", "finished", lambda self, *_, **__: "%s" % self.buildid)
"""
"""Comes after the patch of bench.moments, whose functions it uses."""

ECHO = """
from buildbot.plugins import steps as _steps
from buildbot.process.factory import BuildFactory
from master import factories
from workers.latent import OneBuild

def _one_step(settings, target):
    made = BuildFactory([_steps.ShellCommand(command=["echo", "hello"])])
    made.buildClass = OneBuild
    return made

factories.factory = _one_step
"""
"""In place of the steps of a package's build: the one of the stock master's builds."""


class Lags:
    """How late the ticks of one master's reactor came."""

    def __init__(self, file: Path) -> None:
        """Take the file that they go to."""
        self._file = file
        self._file.touch()
        self.patch = _PATCH.format(lags=str(file), tick=TICK)

    def between(self, began: float, ended: float) -> list[float]:
        """Give those that were due between two times."""
        return lags(self._file.read_text(), began, ended)


def lags(text: str, began: float, ended: float) -> list[float]:
    """Give the lags that lines tell of, of ticks that were due between two times."""
    found = []
    for line in text.splitlines():
        at, _, lag = line.partition(" ")
        if began <= float(at) - float(lag) < ended:
            found.append(float(lag))
    return found


def with_missed(values: Sequence[float], period: float) -> list[float]:
    """Give waits, with those of the moments that passed meanwhile, a period apart: each waited for less."""
    found = []
    for value in values:
        left = value
        while left > 0:
            found.append(left)
            left -= period
        if value <= 0:
            found.append(value)
    return found


class Stalls(NamedTuple):
    """A reactor's lag: percentiles over time, the worst, and the share of the time in which it stood."""

    p50: float
    p99: float
    most: float
    share: float

    @classmethod
    def of(cls, late: Sequence[float], took: float) -> Stalls:
        """Sum up; a tick that is no later than the next one was due is no stall."""
        if not late:
            raise LookupError("no tick of the reactor is told of: was the master patched?")
        every = with_missed(late, TICK)
        stood = sum(one for one in late if one >= TICK)
        return cls(percentile(every, 50), percentile(every, 99), max(late), stood / took)

    @property
    def text(self) -> str:
        """Give it in one line."""
        return f"{seconds(self.p50)} / {seconds(self.p99)} / {seconds(self.most)}"


class Poller:
    """A client that reads a path of the REST API at fixed times; those that pass while it waits are left out."""

    def __init__(self, url: str) -> None:
        """Take what to read; begin."""
        self.waits: list[float] = []
        """Seconds to each answer."""
        self.failures = 0
        """Questions without an answer of 200; their time counts all the same."""
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, once the last question is answered."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with requests.Session() as session:
            due = time.monotonic()
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                began = time.monotonic()
                try:
                    good = session.get(self._url, timeout=120).status_code == 200
                except requests.RequestException:
                    good = False
                self.failures += not good
                self.waits.append(time.monotonic() - began)
                due = max(due + POLL, time.monotonic())


def until(condition: Callable[[], Any], what: str, patience: float, pause: float = 0.2) -> Any:
    """Wait for a condition, and give it; RuntimeError if it does not come about."""
    found = soon(condition, patience, pause)
    if not found:
        raise RuntimeError(f"not within {patience:g} s: {what}")
    return found


def soon(condition: Callable[[], Any], patience: float, pause: float = 0.2) -> Any:
    """Wait for a condition at most so long; give it, or what it is worth in the end."""
    deadline = time.monotonic() + patience
    found = None
    while not found and time.monotonic() < deadline:
        try:
            found = condition()
        except requests.RequestException:
            found = None
        if not found:
            time.sleep(pause)
    return found
