"""A server that is away is tried again, ever more rarely and out of step, told of now and then, and given up in the end."""

from __future__ import annotations

import logging

import pytest

from teuthology_bridge.errors import Unreachable
from teuthology_bridge.patience import Patience
from teuthology_bridge.settings import Settings


class Bearing:
    """A patience with a clock and a chance of its own."""

    def __init__(self, limit: float = 1800, chance: float = 1.0) -> None:
        self.now = 0.0
        self.patience = Patience(
            "the master",
            Settings(unreachable_limit=limit),
            logging.getLogger("bridge"),
            lambda: self.now,
            lambda: chance,
        )

    def fail(self) -> float:
        """Fail as soon as there may be a try; give the seconds until the next one."""
        self.now = max(self.now, self.patience.next_try)
        self.patience.failed("Connection refused", "t/s", None)
        return self.patience.next_try - self.now


def test_tries_become_rare() -> None:
    """The wait doubles with each try in vain, up to half a minute, and begins anew after an answer."""
    bearing = Bearing()
    assert [bearing.fail() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    bearing.patience.answered()
    assert bearing.patience.next_try == 0
    assert bearing.fail() == 1


def test_those_who_fail_together_fail_once() -> None:
    """What several meet that were on their way at the same time is one try in vain."""
    bearing = Bearing()
    bearing.fail()
    for _ in range(8):
        bearing.patience.failed("Connection refused", "t/s", None)
    assert bearing.patience.next_try == 1
    assert bearing.fail() == 2


def test_tries_are_out_of_step() -> None:
    """Half of each wait is chance, so that those who lost the server together do not return together."""
    assert [Bearing(chance=chance).fail() for chance in (0, 0.5, 1)] == [0.5, 0.75, 1]


def test_it_ends() -> None:
    """A server that is away for longer than the limit in one stretch is given up, and the last try is at the limit."""
    bearing = Bearing(limit=100)
    tries = 0
    with pytest.raises(
        Unreachable,
        match="^t/s: the master gave no answer for 1 min 40 s, at last because: Connection refused$",
    ):
        while True:
            tries += 1
            bearing.fail()
    assert bearing.now == 100
    assert tries == 9


def test_only_one_stretch_counts() -> None:
    """A server that answers now and then is never given up."""
    bearing = Bearing(limit=10)
    for _ in range(5):
        bearing.fail()
        bearing.now += 9
        bearing.fail()
        bearing.patience.answered()


def test_what_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The first try in vain is told, then one a minute, and that it is back; others are not."""
    caplog.set_level(logging.INFO)
    bearing = Bearing()
    bearing.patience.answered()
    for now in (0, 1, 60, 70, 120):
        bearing.now = now
        bearing.fail()
    bearing.now = 130
    bearing.patience.answered()
    bearing.patience.answered()
    assert caplog.messages == [
        "the master gives no answer (Connection refused); it is tried again, for 30 min more at most",
        "the master gives no answer (Connection refused); it is tried again, for 29 min more at most",
        "the master gives no answer (Connection refused); it is tried again, for 28 min more at most",
        "the master answers again, after 2 min 10 s",
    ]
