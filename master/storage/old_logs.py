"""Removes the logs of old builds from the database, which would otherwise only grow."""

# mypy: allow-untyped-calls
# Buildbot's services are annotated in part only.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from twisted.internet.task import LoopingCall
from twisted.python import log

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

DAY = 24 * 3600


class OldLogs(BuildbotService):
    """Removes old logs when the master starts, when the setting changes, and once a day.

    Buildbot's own JanitorConfigurator would add a builder, a worker and two schedulers that users see.
    """

    name = "old_logs"
    _loop: LoopingCall | None = None
    _ended: Deferred[LoopingCall]

    def checkConfig(self, *, days: int, longest_build: float) -> None:  # type: ignore[override]
        """Accept all settings, which have been checked."""
        super().checkConfig()

    @async_to_deferred
    async def reconfigService(self, *, days: int, longest_build: float) -> None:  # type: ignore[override]
        """Remove logs `days` days after their step, which may take `longest_build` seconds; never if `days` is 0."""
        assert self.master is not None
        await super().reconfigService()
        await self._stop()
        self._seconds = days * DAY + longest_build
        if days:
            self._loop = LoopingCall(self._remove)
            self._loop.clock = self.master.reactor
            self._ended = self._loop.start(DAY)

    @async_to_deferred
    async def stopService(self) -> None:
        """Wait for a removal that has begun: it uses the database."""
        await self._stop()
        await super().stopService()

    async def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
            await self._ended

    def _remove(self) -> Deferred[None]:
        """Remove the text of old logs in a thread of the database's pool. Builds and the names of their logs stay.

        An error is logged, and the next day's removal tries again.
        """
        assert self.master is not None
        before = int(self.master.reactor.seconds() - self._seconds)
        removal: Deferred[None] = self.master.db.logs.deleteOldLogChunks(before).addCallback(_report)
        return removal.addErrback(lambda failure: log.err(failure, "while removing old logs"))

    def getConfigDict(self) -> dict[str, Any]:
        """Hide the service's arguments from the REST API."""
        return {"name": self.name}


def _report(pieces: int) -> None:
    if pieces:
        log.msg(f"removed {pieces} pieces of old logs (build.keep_logs)")
