"""What teuthology.log says while packages are on their way: news at once, and else a line now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teuthology_bridge.errors import duration, one_line

if TYPE_CHECKING:
    from teuthology_bridge.master_api import Status

OFTENEST, RAREST = 60.0, 600.0
"""Seconds between two lines without news: a tenth of what has gone by, within these bounds."""


class Heartbeat:
    """Of one package_key."""

    def __init__(self, name: str, now: float) -> None:
        """Take what each line begins with, and when the waiting began."""
        self._name = name
        self._began = now
        self._spoke = now
        self._shown: tuple[int, str] | None = None
        self._step = ""
        self._waited = False

    def lines(self, status: Status, now: float) -> list[str]:
        """Give what is to be logged of a status, which may be nothing."""
        told = []
        if status.build_url and self._shown != (status.build, status.build_url):
            self._shown = (status.build, status.build_url)
            self._step = ""
            what = "is built" if status.build <= 1 else f"is tried again (build {status.build})"
            told.append(f"{what} at {status.build_url}")
        waits = status.state == "waiting"
        begun = status.state == "building" and status.step not in ("", self._step)
        stopped = waits and not self._waited
        if begun or stopped or (not told and now - self._spoke >= self._interval(now)):
            told.append(self._how_far(status, now))
        if begun:
            self._step = status.step
        self._waited = waits
        if told:
            self._spoke = now
        return [f"{self._name}: {one_line(line)}" for line in told]

    def _interval(self, now: float) -> float:
        return min(RAREST, max(OFTENEST, (now - self._began) / 10))

    def _how_far(self, status: Status, now: float) -> str:
        details = [f"for {duration(now - self._began)} now"] if now - self._began >= 1 else []
        if status.percent is not None:
            details.append(f"{status.percent} %")
        if status.time_left is not None:
            details.append(f"about {duration(status.time_left)} left")
        aside = f" ({', '.join(details)})" if details else ""
        return f"{doing(status)}{aside}"


def doing(status: Status) -> str:
    """Say what goes on, without figures."""
    if status.state == "waiting":
        # The request's page is all there is to look at while there is no build.
        where = f", {status.request_url}" if not status.build_url and status.request_url else ""
        return f"{status.reason or 'waits'}{where}"
    if status.step:
        said = status.step_state
        return f"step {status.step}" + (f", {said}" if said and said != status.step else "")
    return status.state
