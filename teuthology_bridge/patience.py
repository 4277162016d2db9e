"""How long to bear with a server that is away, when to try again, and what to say of it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teuthology_bridge.errors import Unreachable, duration

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from teuthology_bridge.settings import Settings

FIRST, LONGEST = 1.0, 30.0
"""Seconds before the first and before each later try, without jitter."""

QUIET = 60.0
"""Seconds between two lines about the same absence."""


class Patience:
    """Of one server, for all that is wanted from it; clocks and chance are told from outside."""

    def __init__(
        self,
        server: str,
        settings: Settings,
        log: logging.Logger,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """Take what the server is called in sentences."""
        self.server = server
        self._limit = settings.unreachable_limit
        self._log = log
        self._clock = clock
        self._chance = chance
        self._since: float | None = None
        self._failures = 0
        self._said: float | None = None
        self.next_try = 0.0
        """No sooner should it be asked again."""
        self.why = ""
        """Why it counts as away; empty while it does not."""

    def failed(self, why: str, package_key: str, build_url: str | None) -> None:
        """Take note of one try in vain; Unreachable once it has been away for too long."""
        now = self._clock()
        self.why = why
        if self._since is None:
            self._since, self._failures, self._said = now, 0, None
        away = now - self._since
        if away >= self._limit:
            raise Unreachable(self.server, away, why, package_key, build_url)
        if now < self.next_try:
            # Somebody else met the same while this one was on its way.
            return
        wait = min(LONGEST, FIRST * 2.0 ** min(self._failures, 10))
        # Half is fixed and half is chance: hundreds of tasks must not come back in step.
        wait *= 0.5 + 0.5 * self._chance()
        self._failures += 1
        self.next_try = min(now + wait, self._since + self._limit)
        if self._said is None or now - self._said >= QUIET:
            self._said = now
            self._log.warning(
                "%s gives no answer (%s); it is tried again, for %s more at most",
                self.server,
                why,
                duration(self._limit - away),
            )

    def answered(self) -> None:
        """Take note that it is there."""
        if self._since is not None:
            self._log.info("%s answers again, after %s", self.server, duration(self._clock() - self._since))
        self._since, self.next_try, self.why = None, 0.0, ""
