"""The reaper's own life: which provider has begun, also when a reload wants another one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.test.fake import fakemaster
    from buildbot.test.reactor import TestReactorMixin
from twisted.trial import unittest

from workers.reaper import STOP_SECONDS, Reaper

if TYPE_CHECKING:
    from collections.abc import Callable


class _Provider:
    """Tells what is asked of it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told = name, told

    async def recover(self, changed: Callable[[], None]) -> None:
        """Begin."""
        self._told.append(f"{self._name} begins")

    async def close(self, seconds: float) -> None:
        """End."""
        assert seconds == STOP_SECONDS
        self._told.append(f"{self._name} ends")

    def configure(self) -> None:
        """Take settings."""
        self._told.append(f"{self._name} takes settings")


class TestReaper(TestReactorMixin, unittest.TestCase):
    """The service with two providers."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self)
        self.told: list[str] = []
        self.one, self.other = _Provider("one", self.told), _Provider("other", self.told)
        self.reaper = self.of(self.one)
        await self.reaper.setServiceParent(self.master)
        await self.master.startService()

    def of(self, provider: Any) -> Reaper:
        """Give the service as a configuration has it."""
        return Reaper(provider=provider, configure=partial(provider.configure))

    async def reload(self, provider: Any) -> list[str]:
        """Give what another configuration brings about."""
        self.told.clear()
        await self.reaper.reconfigServiceWithSibling(self.of(provider))
        return list(self.told)

    async def test_a_provider_begins_once(self) -> None:
        """At the start, after it has got its settings; a reload gives it new ones, and that is all."""
        assert self.told == ["one takes settings", "one begins"]
        assert await self.reload(self.one) == ["one takes settings"]
        await self.master.stopService()
        assert self.told[-1] == "one ends"

    async def test_a_reload_that_wants_another_provider_begins_it(self) -> None:
        """It would look at nothing otherwise, and what the one before has would run on."""
        assert await self.reload(self.other) == ["other takes settings", "other begins", "one ends"]
        assert await self.reload(self.other) == ["other takes settings"]
        self.told.clear()
        await self.master.stopService()
        assert self.told == ["other ends"]
