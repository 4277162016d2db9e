"""The reaper: at start-up it removes what an earlier master left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred

if TYPE_CHECKING:
    from workers.provider import Provider


class Reaper(BuildbotService):
    """Has the provider recover once, before any worker is asked for a machine."""

    name = "reaper"

    def checkConfig(self, *, provider: Provider) -> None:  # type: ignore[override]
        """Take the provider."""
        super().checkConfig()
        self._provider = provider

    @async_to_deferred
    async def reconfigService(self, *, provider: Provider) -> None:  # type: ignore[override]
        """Take nothing more: what runs by now has an owner."""
        await super().reconfigService()

    @async_to_deferred
    async def startService(self) -> None:
        """Remove what is left; the master does not start with a machine that nobody owns."""
        await super().startService()
        await self._provider.recover()

    def getConfigDict(self) -> dict[str, Any]:
        """Show nothing to anybody."""
        return {"name": self.name}
