"""The port that workers connect to: it stays open as long as the master runs."""

from __future__ import annotations

import secrets
from typing import Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred

_NOBODY = "-"
"""A name that no worker has."""


class WorkersPort(BuildbotService):
    """Keeps a registration on the workers' port that nobody can use.

    Buildbot closes the port when its last registration goes, and each new password of a worker is a new registration. With one
    worker, the port closed and opened again between two builds, and a process of the first build could take it.
    """

    name = "workers_port"
    _endpoint = ""
    _registration: Any = None

    @async_to_deferred
    async def reconfigService(self, *, endpoint: str) -> None:  # type: ignore[override]
        """Hold `endpoint` open, in Twisted's notation for servers, and let go of another one."""
        await super().reconfigService()
        if endpoint == self._endpoint:
            return
        await self._let_go()
        assert self.master is not None
        self._registration = await self.master.pbmanager.register(
            endpoint, _NOBODY, secrets.token_hex(32), None
        )
        self._endpoint = endpoint

    @async_to_deferred
    async def stopService(self) -> None:
        """Let the port close after the last worker."""
        await super().stopService()
        await self._let_go()

    async def _let_go(self) -> None:
        registration, self._registration, self._endpoint = self._registration, None, ""
        if registration is not None:
            await registration.unregister()
