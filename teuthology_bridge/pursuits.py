"""A whole run's needs at once: each goes its own way to its own end, and one that fails ends no other.

What a branch or a tag is at, the master is asked once, for the first target that needs it: the others of
the run take the commit that came of it, so that a branch that moves meanwhile is one commit all the same.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from teuthology_bridge import errors
from teuthology_bridge.ensure import WITHDRAW
from teuthology_bridge.pursuit import Goal, Pursuit
from teuthology_bridge.surroundings import Surroundings
from teuthology_bridge.table import Row

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from teuthology_bridge.master_api import Status
    from teuthology_bridge.needs import Need
    from teuthology_bridge.settings import Settings

_TICK = 1.0
"""Seconds between two looks of whoever watches."""

_ENDED = {
    errors.PackagesFailed: "failed",
    errors.Cancelled: "cancelled",
    errors.Trouble: "infrastructure",
    errors.Unreachable: "unreachable",
    errors.TimeLimit: "too late",
    errors.WrongSettings: "wrong settings",
    errors.WrongJob: "refused",
    errors.RefUnknown: "refused",
}


@dataclass(eq=False)
class Entry:
    """One need, and how far it is."""

    need: Need
    pursuit: Pursuit | None = None
    """None while it is still to be found out what commit it is."""
    error: errors.BuildpackagesError | None = None
    withdrawn: bool = False
    turn: int = 0
    """When it was its turn last: the others that are due come first, so that all are asked for early."""
    same: list[Pursuit] = field(default_factory=list)
    """Others that turned out to be after the same packages."""
    _status: Status | None = None
    _seen: float = 0.0

    @property
    def published(self) -> bool:
        """Whether it has come to a good end."""
        return self.pursuit is not None and self.pursuit.outcome is not None

    @property
    def going_on(self) -> bool:
        """Whether it has come to no end yet."""
        return not self.published and self.error is None

    @property
    def due(self) -> float:
        """When it wants to be advanced."""
        assert self.pursuit is not None
        return self.pursuit.due

    def watch(self, now: float) -> None:
        """Take note of when news came, as what is told of the time left is right then only."""
        status = self.pursuit.status if self.pursuit else None
        if status is not self._status:
            self._status, self._seen = status, now

    def row(self, now: float) -> Row:
        """Give how it stands."""
        key, pursuit, status = self.need.key, self.pursuit, self._status
        where = (pursuit.build_url if pursuit else None) or ""
        if self.error is not None:
            return Row(key, _ENDED.get(type(self.error), "failed"), url=self.error.build_url or where)
        if pursuit is not None and pursuit.outcome is not None:
            return Row(key, "published", url=pursuit.outcome.url)
        if self.withdrawn:
            return Row(key, "withdrawn", url=where)
        if status is None:
            return Row(key, "asking")
        left = None if status.time_left is None else max(0.0, status.time_left - (now - self._seen))
        if status.state == "waiting":
            return Row(key, "waiting", status.reason, status.percent, left, where)
        step = status.step if status.state == "building" else f"{status.state}; to be looked for"
        return Row(key, "building", step, status.percent, left, where)


class Pursuits:
    """Of one run; used once."""

    def __init__(
        self,
        needs: Sequence[Need],
        settings: Settings,
        log: logging.Logger,
        *,
        reason: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take what is needed, and what to say why it asks."""
        self.entries = [Entry(need) for need in needs]
        self._settings = settings
        self._clock = clock
        # Not as a default: gevent may have patched it since this module was imported.
        self._sleep = sleep or time.sleep
        self._shared = Surroundings.of(settings, log, reason, clock, chance)
        self._turns = 0
        self._groups: dict[tuple[str, str, str], list[Entry]] = {}
        """By repository, kind and name of a commit: who waits for it to be resolved, and first who asks."""
        for entry in self.entries:
            if entry.need.kind == "sha1":
                self._begin(entry)
            else:
                self._groups.setdefault(_name(entry.need), []).append(entry)
        for group in self._groups.values():
            self._begin(group[0])

    @property
    def trouble(self) -> str:
        """Say which server gives no answer at present, and why; nothing if all do."""
        return "; ".join(
            f"{one.server} gives no answer ({one.why})" for one in self._shared.patiences if one.why
        )

    def rows(self) -> list[Row]:
        """Give how all stand."""
        now = self._clock()
        return [entry.row(now) for entry in self.entries]

    def run(self, watch: Callable[[], None]) -> None:
        """Bring each to its end, and call `watch` every second at least; WrongSettings where nothing can be done.

        However it ends, the master is told what nobody waits for any more.
        """
        deadline = self._clock() + self._settings.limit
        try:
            watch()
            while left := [entry for entry in self.entries if entry.going_on]:
                now = self._clock()
                if now >= deadline:
                    for entry in left:
                        entry.error = self._too_late(entry)
                        self._withdraw_from(entry, self._clock() + WITHDRAW)
                    break
                entry = min((one for one in left if one.pursuit), key=lambda one: (one.due, one.turn))
                if entry.due <= now:
                    self._turns += 1
                    entry.turn = self._turns
                    self._advance(entry, deadline)
                else:
                    self._sleep(min(entry.due, deadline, now + _TICK) - now)
                watch()
        finally:
            self._withdraw()

    def _begin(self, entry: Entry) -> None:
        need = entry.need
        goal = Goal(
            need.target,
            need.kind,
            need.value,
            need.git_url,
            lambda sha1: f"{need.url(sha1)}version",
            need.sizes.get("good_machine"),
            need.sizes.get("min_machine"),
        )
        entry.pursuit = Pursuit(goal, self._shared)

    def _advance(self, entry: Entry, deadline: float) -> None:
        pursuit = entry.pursuit
        assert pursuit is not None
        try:
            pursuit.advance(deadline)
        except errors.BuildpackagesError as error:
            if isinstance(error, errors.WrongSettings) and not error.package_key:
                # The same for all of them.
                raise
            entry.error = error
        entry.watch(self._clock())
        group = self._groups.get(_name(entry.need), [])
        if entry not in group:
            return
        if pursuit.name != str(pursuit.goal):
            self._resolved(group, pursuit.name.rpartition("/")[2], pursuit.git_url)
        elif entry.error is not None:
            # It may have been its target: the next one asks.
            group.remove(entry)
            if group:
                self._begin(group[0])

    def _resolved(self, group: list[Entry], sha1: str, git_url: str) -> None:
        del self._groups[_name(group[0].need)]
        for entry in group:
            key = f"{entry.need.target}/{sha1}"
            twin = next((one for one in self.entries if one is not entry and one.need.key == key), None)
            if twin is not None:
                twin.need.take(entry.need)
                twin.same += [entry.pursuit] if entry.pursuit else []
                self.entries.remove(entry)
                continue
            entry.need = replace(entry.need, kind="sha1", value=sha1, git_url=git_url)
            if entry.pursuit is None:
                self._begin(entry)

    def _too_late(self, entry: Entry) -> errors.TimeLimit:
        doing = entry.pursuit.doing if entry.pursuit else "what commit it is was not found out"
        where = entry.pursuit.build_url if entry.pursuit else None
        return errors.TimeLimit(entry.need.key, self._settings.limit, doing, where)

    def _withdraw(self) -> None:
        until = self._clock() + 2 * WITHDRAW
        for entry in self.entries:
            if entry.going_on:
                entry.withdrawn = True
                self._withdraw_from(entry, until)

    def _withdraw_from(self, entry: Entry, until: float) -> None:
        for pursuit in ([entry.pursuit] if entry.pursuit else []) + entry.same:
            pursuit.withdraw(until, WITHDRAW)


def _name(need: Need) -> tuple[str, str, str]:
    return need.git_url, need.kind, need.value
