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
        """Accept a provider, which stays the same until the master stops; `configure` passes it the settings in force."""
        super().checkConfig()
        self._provider = provider

    @async_to_deferred
    async def reconfigService(self, *, provider: Provider, configure: Callable[[], None]) -> None:  # type: ignore[override]
        """Pass the settings to the provider: only now the whole configuration is known to be valid."""
        await super().reconfigService()
        configure()
        # There may be room for more now, and slots may have been configured before this.
        self._more_can_start()

    @async_to_deferred
    async def startService(self) -> None:
        """Remove what is left; the master does not start with a machine that nobody owns."""
        await super().startService()
        await self._provider.recover(self._more_can_start)

    @async_to_deferred
    async def stopService(self) -> None:
        """End every machine."""
        await super().stopService()
        await self._provider.close(STOP_SECONDS)

    def getConfigDict(self) -> dict[str, Any]:
        """Show nothing to anybody."""
        return {"name": self.name}

    def _more_can_start(self) -> None:
        if self.running and self.master is not None:
            self.master.botmaster.maybeStartBuildsForAllBuilders()
