"""The configuration in force, and the parts of it that the next one must not change or remove.

A build holds a builder, a slot, a directory and addresses for hours. A reload that removed one of them would cut the
build off, or leave it and its request hanging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.config import ConfigErrors
from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from buildbot.config import BuilderConfig

    from master.settings import Settings


_FIXED: Mapping[str, Callable[[Settings], object]] = {
    "state": lambda settings: settings.state,
    "database": lambda settings: settings.database,
    "www.host": lambda settings: settings.www.host,
    "www.port": lambda settings: settings.www.port,
    "packages.host": lambda settings: settings.packages.host,
    "packages.port": lambda settings: settings.packages.port,
    "packages.directory": lambda settings: settings.packages.directory,
    "packages.staging": lambda settings: settings.packages.staging,
    "workers.host": lambda settings: settings.workers.host,
    "workers.port": lambda settings: settings.workers.port,
    "workers.tls": lambda settings: settings.workers.tls,
    "workers.certificate": lambda settings: settings.workers.certificate,
    "workers.key": lambda settings: settings.workers.key,
    "workers.openstack": lambda settings: "set" if settings.workers.openstack else "not set",
}
"""Settings that running builds and booting machines rely on, each with a function that returns the part that must stay."""


class InForce(BuildbotService):
    """Remembers the settings in force: those of the last configuration that was accepted as a whole."""

    name = "in_force"
    current: InForce | None = None
    """The one of this process, which runs at most one master."""

    def checkConfig(self, *, settings: Settings) -> None:  # type: ignore[override]
        """Accept all settings: `refuse_changes` has checked them."""
        super().checkConfig()
        self.settings = settings

    @async_to_deferred
    async def reconfigService(self, *, settings: Settings) -> None:  # type: ignore[override]
        """Remember the settings of a configuration that is being applied."""
        await super().reconfigService()
        self.settings = settings

    @async_to_deferred
    async def startService(self) -> None:
        """Become the one of this process."""
        await super().startService()
        InForce.current = self

    @async_to_deferred
    async def stopService(self) -> None:
        """Leave nothing in force."""
        InForce.current = None
        await super().stopService()

    def getConfigDict(self) -> dict[str, Any]:
        """Hide the settings from the REST API."""
        return {"name": self.name}


def refuse_changes(settings: Settings) -> None:
    """Raise ConfigErrors for each setting that differs from the one in force and that only a restart can change."""
    if InForce.current is None:
        return
    before = InForce.current.settings
    problems = [
        f"setting `{name}`: it is {_shown(name, value(before))} in the running master, and cannot change to"
        f" {_shown(name, value(settings))} while the master runs. Undo the change, or run `make stop`, then `make start`"
        for name, value in _FIXED.items()
        if value(before) != value(settings)
    ]
    if problems:
        raise ConfigErrors(problems)


def builders_in_force() -> Sequence[BuilderConfig]:
    """Return the builders of the configuration in force; none before the first."""
    return list(_config("builders"))


def workers_in_force() -> Sequence[str]:
    """Return the names of its workers."""
    return [worker.name for worker in _config("workers")]


def schedulers_in_force() -> Sequence[str]:
    """Return the names of its schedulers."""
    return list(_config("schedulers", {}))


def _shown(name: str, value: object) -> str:
    """Return a value as text, without the database's password, because many people read the log."""
    return make_url(str(value)).render_as_string() if name == "database" else str(value)


def _config(name: str, nothing: Any = ()) -> Any:
    running = InForce.current
    return nothing if running is None or running.master is None else getattr(running.master.config, name)
