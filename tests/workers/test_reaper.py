"""The reaper's own life: its provider begins once, whatever is reloaded."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

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
    """The service with a provider."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self)
        self.told: list[str] = []
        self.provider = _Provider("one", self.told)
        self.reaper = self.as_configured()
        await self.reaper.setServiceParent(self.master)
        await self.master.startService()

    def as_configured(self) -> Reaper:
        """Return the service as each configuration has it."""
        return Reaper(provider=self.provider, configure=partial(self.provider.configure))  # type: ignore[arg-type]

    async def test_a_provider_begins_once(self) -> None:
        """At the start, after it has got its settings; a reload gives it new ones, and that is all."""
        assert self.told == ["one takes settings", "one begins"]
        self.told.clear()
        await self.reaper.reconfigServiceWithSibling(self.as_configured())
        assert self.told == ["one takes settings"]
        await self.master.stopService()
        assert self.told[-1] == "one ends"
