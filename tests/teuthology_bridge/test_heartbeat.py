"""The log gets news at once, and otherwise a line now and then, ever more rarely."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from teuthology_bridge.heartbeat import Heartbeat, doing
from teuthology_bridge.master_api import Status

PAGE = "http://m/#/builders/3/builds/4"


def status(**what: Any) -> Status:
    return Status(
        **{
            "buildrequest_id": 1,
            "package_key": "t/s",
            "state": "building",
            "request_url": "http://m/r1",
            **what,
        }
    )


class Log:
    """Gives the lines for a status at a second."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat("t/s", 0)

    def at(self, now: float, **what: Any) -> list[str]:
        return self.heartbeat.lines(status(**what), now)


def test_the_page_is_told_at_once() -> None:
    """The build's page comes with the first status that has one, and once."""
    log = Log()
    assert log.at(1, build=1, build_url=PAGE) == [f"t/s: is built at {PAGE}"]
    assert log.at(2, build=1, build_url=PAGE) == []


def test_each_step_is_told_once() -> None:
    """Each new step is told at once, with the time so far and what the build tells of the rest."""
    log = Log()
    assert log.at(0, step="checkout") == ["t/s: step checkout"]
    assert log.at(5, step="checkout") == []
    assert log.at(65, step="compile", step_state="12 of 40", percent=30, time_left=600) == [
        "t/s: step compile, 12 of 40 (for 1 min 05 s now, 30 %, about 10 min left)"
    ]
    assert log.at(70, step="compile", step_state="13 of 40", percent=32) == []


def test_it_waits_and_says_why() -> None:
    """That it waits is told at once, with the reason and the request's page as there is no build yet."""
    log = Log()
    assert log.at(0, state="waiting", reason="waits for a free worker") == [
        "t/s: waits for a free worker, http://m/r1"
    ]
    assert log.at(30, state="waiting", reason="waits in line; 2 are before it") == []
    assert log.at(60, state="waiting", reason="waits in line; 1 is before it") == [
        "t/s: waits in line; 1 is before it, http://m/r1 (for 1 min now)"
    ]


def test_a_new_try_is_news() -> None:
    """A build that is tried again is told, with why it waits, with its new page, and with its steps anew."""
    log = Log()
    log.at(1, build=1, build_url=PAGE, step="compile")
    assert log.at(
        5, build=1, build_url=PAGE, state="waiting", reason="the machine was lost; it is tried again"
    ) == ["t/s: the machine was lost; it is tried again (for 5 s now)"]
    assert log.at(9, build=2, build_url=f"{PAGE}5", step="compile") == [
        f"t/s: is tried again (build 2) at {PAGE}5",
        "t/s: step compile (for 9 s now)",
    ]


def test_without_news_a_minute_passes_between_lines() -> None:
    """In the first ten minutes there is a line a minute, and never more."""
    log = Log()
    log.at(0, step="compile")
    spoken = [now for now in range(1, 601) if log.at(now, step="compile", step_state=f"{now} of 900")]
    assert spoken == [60, 120, 180, 240, 300, 360, 420, 480, 540, 600]


def test_the_longer_it_takes_the_rarer_it_is_told() -> None:
    """A tenth of the time that has gone by passes between two lines, and ten minutes at most."""
    log = Log()
    log.at(0, step="compile")
    spoken = [now for now in range(60, 43200, 15) if log.at(now, step="compile")]
    gaps = [after - before for before, after in pairwise(spoken)]
    assert len(spoken) < 110
    assert gaps[0] == 60
    assert set(gaps[-20:]) == {600}


def test_a_line_is_one_line() -> None:
    """Whatever a step says of itself, the log's line stays one."""
    assert Log().at(0, step="compile", step_state="a\nb\x1b[0m") == ["t/s: step compile, a b [0m"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"step": "compile", "step_state": "compile"}, "step compile"),
        ({"step": ""}, "building"),
        ({"state": "waiting", "request_url": ""}, "waits"),
        ({"state": "waiting", "reason": "no machine", "build_url": PAGE}, "no machine"),
    ],
)
def test_what_goes_on(what: dict[str, Any], told: str) -> None:
    """What goes on is said with what there is."""
    assert doing(status(**what)) == told
