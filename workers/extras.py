"""Volumes, ports and floating ips of ours: removed with the instance they belong to, or without an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred
from twisted.python import log
from twisted.python.failure import Failure

from workers.cloud_data import nth
from workers.cloud_errors import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.cloud import Cloud
    from workers.cloud_data import Leftover

_RETRY = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds until a call that failed is made again; a volume is in use until its server is gone."""
_SELDOM = 60
"""Sweeps from one look to the next, where the settings make none of these."""


class Extras:
    """What must go in one cloud besides servers."""

    def __init__(self, cloud: Cloud, clock: Any, done: Callable[[], None]) -> None:
        """Take the cloud, the clock, and whom to tell when one is gone."""
        self.going: dict[str, Leftover] = {}
        """By id."""
        self.reaped = 0
        """How many without an owner were removed."""
        self._cloud = cloud
        self._clock = clock
        self._done = done
        self._sweeps = 0

    def remove(self, leftover: Leftover) -> None:
        """Delete one, as often as it takes."""
        if leftover.id not in self.going:
            self.going[leftover.id] = leftover
            self._ask(leftover, 0)

    def look_again(self) -> None:
        """Look at the next sweep: one may have been made that nobody knows of."""
        self._sweeps = 0

    def look(self, owned: Callable[[str], bool]) -> None:
        """Remove what has no owner; at start-up, then as often as settings that make such things ask for it."""
        settings = self._cloud.settings
        every = 1 if settings.floating_ip or settings.volume else _SELDOM
        self._sweeps += 1
        if (self._sweeps - 1) % every == 0:
            looking = ensureDeferred(self._cloud.leftovers())
            looking.addCallback(self._compare, owned).addErrback(self._not_listed)

    def _compare(self, leftovers: Sequence[Leftover], owned: Callable[[str], bool]) -> None:
        for leftover in leftovers:
            if not owned(leftover.boot) and leftover.id not in self.going:
                self.reaped += 1
                log.msg(
                    f"removing {leftover.kind} {leftover.id} in cloud {self._cloud.title}: it has no owner"
                )
                self.remove(leftover)

    def _not_listed(self, failure: Failure) -> None:
        self._sweeps = 0
        if failure.check(Trouble):
            log.msg(f"cannot list volumes, ports and floating ips: {failure.value}")
        else:
            log.err(failure, "while listing volumes, ports and floating ips")

    def _ask(self, leftover: Leftover, tries: int) -> None:
        def answered(result: Any) -> None:
            if isinstance(result, Failure):
                wait = nth(_RETRY, tries)
                log.msg(
                    f"cannot remove {leftover.kind} {leftover.id} yet, again in {wait:g} s: {result.value}"
                )
                self._clock.callLater(wait, self._ask, leftover, tries + 1)
            else:
                del self.going[leftover.id]
                self._done()

        ensureDeferred(self._cloud.remove(leftover)).addBoth(answered)
