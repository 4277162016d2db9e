"""How far a buildrequest is: waiting for what, building which step, how long it will take, or how it ended."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from math import inf
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from buildbot.data.resultspec import Filter
from buildbot.process.results import CANCELLED, FAILURE, RETRY, SUCCESS, WARNINGS
from buildbot.reporters.utils import getURLForBuild, getURLForBuildrequest
from twisted.internet.defer import DeferredLock

from master.requests.waiting import told_json
from model.package_key import PackageKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from master.publishing.publisher import Publisher
    from master.requests.turns import Turns
    from master.requests.waiting import Waiting

State = Literal["waiting", "building", "published", "failed", "infrastructure", "cancelled", "purged"]

PREPARATION = "worker_preparation"
"""Buildbot's name of the step in whose time the machine is made."""

_PAST_BUILDS = 10
_FRESH = 1.0
"""Seconds for which it does not matter who has come to the line, or which build was the last."""
_PERCENT = re.compile(r"(\d{1,3}) %")
_NOT_THERE_YET = 99
"""Percent. What has taken longer than usual is not done for that."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """All that is to be told of a buildrequest: times in seconds since the epoch, durations in seconds."""

    buildrequest_id: int
    package_key: str
    state: State
    url: str
    git_url: str
    ref: str
    unverified: bool
    """Whether no ref of the project's own repository is known to have been at the commit."""
    build_url: str | None
    request_url: str
    build: int
    """Which try it is; 0 while none has begun."""
    step: str
    step_state: str
    asked: float
    started: float | None
    elapsed: float
    percent: int | None
    time_left: float | None
    reason: str
    """Why it waits, or why it failed."""
    error: str
    waiting: Sequence[dict[str, Any]]
    waiting_more: int
    """Those who wait besides those that `waiting` names."""

    def as_json(self) -> dict[str, Any]:
        """Give it as the REST API does."""
        return asdict(self)


def share(step_state: str, elapsed: float, usual: float | None) -> tuple[int | None, float | None]:
    """Give percent and seconds left of a build that has run so long, from what such builds took before.

    Without any such build, there is only what the step itself tells of its own progress.
    """
    if usual is None:
        told = _PERCENT.search(step_state)
        return (min(_NOT_THERE_YET, int(told[1])) if told else None), None
    elapsed = max(0.0, elapsed)  # The clock may have been set back, and a build's start is of whole seconds.
    percent = int(100 * elapsed / usual) if usual else _NOT_THERE_YET
    return min(_NOT_THERE_YET, percent), max(0.0, usual - elapsed) if elapsed <= usual else None


def in_line(before: int, slots: int, usual: float | None) -> tuple[str, float | None]:
    """Say why a request waits in line, and the seconds until it would be done, if builds take what they did."""
    if before == 0:
        return "waits for a free worker", usual
    told = f"waits in line; {before} {'is' if before == 1 else 'are'} before it"
    return told, None if usual is None else usual * (before // max(1, slots) + 1)


class Progress:
    """Reads the database; what it remembers is what builds of a builder took, and for a moment the line.

    Everybody may ask, and hundreds do at once: the list of all is read once for all who asked meanwhile,
    and nobody has the whole line read for himself.
    """

    def __init__(self, master: Any, publisher: Publisher, waiting: Waiting, turns: Turns) -> None:
        """Start with nothing read."""
        self._master = master
        self._publisher = publisher
        self._waiting = waiting
        self._turns = turns
        self._usual: dict[int, tuple[float, float | None]] = {}
        self._before: tuple[float, dict[int, int]] = (-inf, {})
        """When the line was read, and for each request without a build how many builds come before its own."""
        self._reading, self._looking = DeferredLock(), DeferredLock()
        self._all: list[Status] = []
        self._asked = self._read = 0

    async def of(self, request_id: int) -> Status | None:
        """Tell of one buildrequest; None if there is none, or it is of no package_key."""
        request = await self._master.db.buildrequests.getBuildRequest(request_id)
        return None if request is None else await self._status(request)

    async def _status(self, request: Any) -> Status | None:
        db, request_id = self._master.db, request.buildrequestid
        stored = await db.buildsets.getBuildsetProperties(request.buildsetid)
        values = {name: str(value) for name, (value, _) in stored.items()}
        if "package_key" not in values:
            return None
        key = _key(values["package_key"])
        builds = sorted(await db.builds.getBuilds(buildrequestid=request_id), key=lambda one: one.id)
        newest: Any = builds[-1] if builds else None
        running = newest is not None and newest.complete_at is None
        step, step_state = await self._step(newest.id) if running else ("", "")
        now = self._master.reactor.seconds()
        asked, started = _seconds(request.submitted_at), newest and _seconds(newest.started_at)
        state, reason, percent, left = _ended(request.results), "", None, None
        if request.complete:
            now = _seconds(request.complete_at)
            if state == "published" and key and not await self._publisher.published_url(str(key)):
                state = "purged"
            reason = self._waiting.orphaned(request_id) or _why(state, newest)
        elif running and step:
            state = "building"
            percent, left = share(step_state, now - started, await self._takes(request.builderid))
        else:
            state = "waiting"
            if running:
                reason, left = newest.state_string, await self._takes(request.builderid)
            else:
                reason, left = await self._line(request, newest)
        return Status(
            buildrequest_id=request_id,
            package_key=values["package_key"],
            state=state,
            url=self._publisher.url(key) if key else "",
            git_url=values.get("git_url", ""),
            ref=values.get("ref", ""),
            unverified=not values.get("reachable_from"),
            build_url=newest and getURLForBuild(self._master, newest.builderid, newest.number),
            request_url=getURLForBuildrequest(self._master, request_id),
            build=len(builds),
            step=step,
            step_state=step_state,
            asked=asked,
            started=started,
            elapsed=max(0.0, now - asked),
            percent=100 if state == "published" else percent,
            time_left=left,
            reason=reason,
            error=reason if request.complete else "",
            **told_json(self._waiting.of(request_id)),
        )

    async def on_their_way(self) -> list[Status]:
        """Tell of all buildrequests for package_keys that are not done, oldest first."""
        self._asked += 1
        mine = self._asked
        await self._reading.acquire()
        try:
            if self._read < mine:
                upto = self._asked
                self._all = await self._read_all()
                self._read = upto
            return self._all
        finally:
            self._reading.release()

    async def _read_all(self) -> list[Status]:
        pending = await self._pending()
        found = [await self._status(request) for request in pending]
        return sorted((one for one in found if one is not None), key=lambda one: one.buildrequest_id)

    async def _pending(self) -> Sequence[Any]:
        pending: Sequence[Any] = await self._master.db.buildrequests.getBuildRequests(complete=False)
        line = await self._turns.line(pending)
        building = len(pending) - len(line)
        before = {number: building + place for place, number in enumerate(line)}
        self._before = (self._master.reactor.seconds(), before)
        return pending

    async def _step(self, build_id: int) -> tuple[str, str]:
        """Give name and state string of the step that runs, or ran last; of none before the machine is there."""
        steps = await self._master.db.steps.getSteps(buildid=build_id)
        for step in reversed(steps):
            if step.started_at is not None and step.name != PREPARATION:
                return step.name, step.state_string
        return "", ""

    async def _line(self, request: Any, newest: Any) -> tuple[str, float | None]:
        """Say why nothing builds: a machine failed and another is to come, or others are before it."""
        await self._look()
        before = self._before[1].get(request.buildrequestid, 0)
        slots = sum(one.takes_builds for one in self._master.workers.workers.values())
        reason, left = in_line(before, slots, await self._takes(request.builderid))
        if newest is not None and newest.complete_at is not None and newest.results != RETRY:
            return newest.state_string, None  # The request is done in a moment.
        if newest is not None:
            reason = f"{newest.state_string}; it is tried again, and {reason}"
        return reason, left

    async def _look(self) -> None:
        """Read the line, once for all who need it in the same moment."""
        if self._is_fresh(self._before[0]):
            return
        await self._looking.acquire()
        try:
            if not self._is_fresh(self._before[0]):
                await self._pending()
        finally:
            self._looking.release()

    async def _takes(self, builder_id: int) -> float | None:
        """Give the median seconds of a builder's last builds that succeeded; None if there are none."""
        read, usual = self._usual.get(builder_id, (-inf, None))
        if not self._is_fresh(read):
            past = await self._past(builder_id)
            took = [(one["complete_at"] - one["started_at"]).total_seconds() for one in past]
            usual = median(took) if took else None
            self._usual[builder_id] = (self._master.reactor.seconds(), usual)
        return usual

    def _is_fresh(self, read: float) -> bool:
        return bool(0 <= self._master.reactor.seconds() - read < _FRESH)

    async def _past(self, builder_id: int) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = await self._master.data.get(
            ("builders", str(builder_id), "builds"),
            filters=[Filter("results", "eq", [SUCCESS]), Filter("complete", "eq", [True])],
            order=("-buildid",),
            limit=_PAST_BUILDS,
        )
        return found


def _key(text: str) -> PackageKey | None:
    """Return a request's package_key; None if its distribution has left the matrix since."""
    try:
        return PackageKey.from_string(text)
    except ValueError:
        return None


def _ended(results: int | None) -> State:
    if results in (SUCCESS, WARNINGS):
        return "published"
    return {FAILURE: "failed", CANCELLED: "cancelled"}.get(results or 0, "infrastructure")  # type: ignore[return-value]


def _why(state: State, newest: Any) -> str:
    """Say why a request that is complete has no packages; empty if it has."""
    if state == "published":
        return ""
    if state == "purged":
        return "the packages were published, and have been removed since: request them again"
    if newest is None:
        return f"{state} before a build of it began"
    if state == "cancelled" and newest.results == RETRY:
        return f"{state} before another build of it began"
    return str(newest.state_string)


def _seconds(moment: Any) -> float:
    return float(moment.timestamp())
