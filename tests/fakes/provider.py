"""The `openstack` provider on fake clouds and a clock of the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from tests.fakes.boot import FakeBoot
from tests.fakes.cloud import FakeCloud
from workers import openstack, placement
from workers.openstack import Dock, Login, OpenStackProvider
from workers.openstack_settings import CloudSettings, OpenStackSettings

if TYPE_CHECKING:
    import pytest

    from workers.provider import Boot

NOON = 1_700_000_000.0
"""A Tuesday, 22:13:20 UTC."""


class Provided:
    """A provider that has begun, and its clouds by their titles."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *clouds: dict[str, Any],
        attempts: int = 3,
        start_timeout: float = 1200,
        at: float = NOON,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.rightNow = at
        self.clouds: dict[str, FakeCloud] = {}
        self._started: list[Deferred[Any]] = []
        self.rendered: list[tuple[Boot, Login]] = []
        self.freed = 0
        monkeypatch.setattr(openstack, "Cloud", self._cloud)
        monkeypatch.setattr(openstack, "time", SimpleNamespace(time=self.clock.seconds))
        monkeypatch.setattr(placement, "random", SimpleNamespace(uniform=lambda *_: 1.0))
        dock = Dock(self._render, "tests", start_timeout, attempts)
        self.provider = OpenStackProvider(self.settings(*clouds, **settings), dock, self.clock)
        self.dock = dock

    @staticmethod
    def settings(*clouds: dict[str, Any], **settings: Any) -> OpenStackSettings:
        """Give settings with these clouds, each over the usual one."""
        usual = {"cloud": "sepia", "images": {"*": "builder"}, "nova_flavor": "small", "max_instances": 4}
        made = tuple(CloudSettings(**{**usual, **one}) for one in clouds or ({},))
        return OpenStackSettings(clouds=made, **{"waiting": 4, **settings})

    def started(self) -> Provided:
        """Begin."""
        done(ensureDeferred(self.provider.recover(self._more_can_start)))
        self.clock.advance(0)
        return self

    @property
    def cloud(self) -> FakeCloud:
        """The only cloud, or the first."""
        return next(iter(self.clouds.values()))

    def start(self, boot: FakeBoot) -> Deferred[Any]:
        """Ask for a machine."""
        self._started.append(ensureDeferred(self.provider.start(boot)))
        return self._started[-1]

    def stop(self) -> None:
        """Stop every build that still waits for a machine, as the master does."""
        for starting in self._started:
            starting.addErrback(lambda _: None)
            starting.cancel()

    def running(self, boot: FakeBoot | None = None) -> tuple[FakeBoot, Any]:
        """Give a boot whose worker has attached, and its machine."""
        boot = boot or FakeBoot()
        starting = self.start(boot)
        boot.attach()
        return boot, done(starting)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, a tenth of a second at a time; what turns in circles fails."""
        for _ in range(round(seconds * 10)):
            before = sum(one.calls for one in self.clouds.values())
            self.clock.advance(0.1)
            made = sum(one.calls for one in self.clouds.values()) - before
            assert made < 100, f"{made} calls within a moment"

    def _cloud(self, settings: CloudSettings, clouds_yaml: Any, tag: str, clock: Any) -> FakeCloud:
        made = FakeCloud(settings, clouds_yaml, tag, clock)
        self.clouds[made.title] = made
        return made

    def _render(self, boot: Boot, login: Login) -> str:
        self.rendered.append((boot, login))
        return f"#!/bin/bash\n# {boot.worker} {login.password}\n"

    def _more_can_start(self) -> None:
        self.freed += 1


def done(deferred: Deferred[Any]) -> Any:
    """Give what it has come to; raise it, if it has failed."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure))
    assert results, "it has not come to anything"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]
