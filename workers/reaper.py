"""The reaper: the life of the provider, which removes what has no owner, from start-up to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.provider import Provider

STOP_SECONDS = 5.5
"""How long the end of the master may take for what its machines need to be gone."""


class Reaper(BuildbotService):
    """Has the provider recover before any worker is asked for a machine, and end everything at the end."""

    name = "reaper"

    def checkConfig(self, *, provider: Provider, configure: Callable[[], None]) -> None:  # type: ignore[override]
        """Take the provider, and how it gets the settings in force."""
        super().checkConfig()
        self._provider = provider
        self._begun: Provider | None = None

    @async_to_deferred
    async def reconfigService(self, *, provider: Provider, configure: Callable[[], None]) -> None:  # type: ignore[override]
        """Give the provider its settings: only now are they known to be good as a whole.

        Where they want another one than has begun, that one ends, and all that it has.
        """
        await super().reconfigService()
        self._provider = provider
        configure()
        before = self._begun
        if before is not None and before is not provider:
            await self._begin()
            await before.close(STOP_SECONDS)

    @async_to_deferred
    async def startService(self) -> None:
        """Remove what is left; the master does not start with a machine that nobody owns."""
        await super().startService()
        await self._begin()

    @async_to_deferred
    async def stopService(self) -> None:
        """End every machine."""
        await super().stopService()
        await self._provider.close(STOP_SECONDS)

    async def _begin(self) -> None:
        self._begun = self._provider
        await self._provider.recover(self._more_can_start)

    def getConfigDict(self) -> dict[str, Any]:
        """Show nothing to anybody."""
        return {"name": self.name}

    def _more_can_start(self) -> None:
        if self.running and self.master is not None:
            self.master.botmaster.maybeStartBuildsForAllBuilders()
