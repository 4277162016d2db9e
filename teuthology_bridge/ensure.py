"""Packages are there, or it is said in one line why not: several goals at once, in one loop."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from teuthology_bridge.errors import TimeLimit
from teuthology_bridge.pursuit import Goal, Outcome, Pursuit
from teuthology_bridge.surroundings import Surroundings
from teuthology_bridge.timed_socket import Waits

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from teuthology_bridge.settings import Settings

__all__ = ["Ensure", "Goal", "Outcome"]

WITHDRAW = 5.0
"""Seconds for one word to the master when all is over, and twice that for all of them."""


class Ensure:
    """For one job; used once."""

    def __init__(
        self,
        settings: Settings,
        log: logging.Logger,
        *,
        reason: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take what to say why it asks; clock, sleep and chance are the machine's unless a test has its own."""
        self._settings = settings
        self._clock = clock
        # Not as a default: gevent may have patched it since this module was imported.
        self._sleep = sleep or time.sleep
        self._shared = Surroundings.of(settings, log, reason, clock, chance)
        self._pursuits: dict[Goal, Pursuit] = {}

    def run(self, goals: Sequence[Goal]) -> list[Outcome]:
        """Give one outcome for each goal, in their order; the first that can't be reached ends all.

        However it ends, the master is told that this job waits for nothing any more.
        """
        began = self._clock()
        self._pursuits = {goal: Pursuit(goal, self._shared) for goal in goals}
        try:
            self._pursue(began + self._settings.limit)
        finally:
            self.withdraw()
        outcomes = [self._pursuits[goal].outcome for goal in goals]
        return [outcome for outcome in outcomes if outcome is not None]

    def outcomes(self) -> list[Outcome]:
        """Give those that have been reached, also when others can't be."""
        reached = [one.outcome for one in self._pursuits.values()]
        return [outcome for outcome in reached if outcome is not None]

    def withdraw(self, *, in_signal_handler: bool = False) -> None:
        """Withdraw from whatever is on its way; over within a few seconds, and nothing is raised."""
        until = self._clock() + 2 * WITHDRAW
        waits = Waits.of_signal_handler() if in_signal_handler else None
        for pursuit in self._pursuits.values():
            pursuit.withdraw(until, WITHDRAW, waits)

    def _pursue(self, deadline: float) -> None:
        while True:
            left = [one for one in self._pursuits.values() if one.outcome is None]
            if not left:
                return
            now = self._clock()
            if now >= deadline:
                late = left[0]
                raise TimeLimit(late.name, self._settings.limit, late.doing, late.build_url)
            due = min(left, key=lambda one: one.due)
            if due.due <= now:
                due.advance(deadline)
            else:
                self._sleep(min(due.due, deadline) - now)
