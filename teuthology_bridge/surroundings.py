"""What all pursuits of one job or one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from teuthology_bridge.master_api import Master
from teuthology_bridge.patience import Patience

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from teuthology_bridge.settings import Settings

AT_ONCE = 8
"""So many asks wait for the master's answer side by side: each may have to be resolved in a slow repository."""


@dataclass(frozen=True)
class Surroundings:
    """A master, the patience with each server, and the machine's clock and chance, which are told from outside."""

    settings: Settings
    master: Master
    asking: Patience
    """With the master."""
    serving: Patience
    """With the package server."""
    log: logging.Logger
    clock: Callable[[], float]
    chance: Callable[[], float]
    reason: str
    room: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(AT_ONCE))
    """For asks that wait for their answer."""
    repositories: dict[str, Patience] = field(default_factory=dict)
    """With each repository that the master is to resolve a ref in, by its URL."""
    _warned: set[str] = field(default_factory=set)

    @property
    def patiences(self) -> list[Patience]:
        """Give those with whoever was asked for something."""
        return [self.asking, self.serving, *self.repositories.values()]

    def warn_once(self, sentence: str) -> None:
        """Log what is the same for all pursuits."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            self.log.warning("%s", sentence)

    def repository(self, git_url: str) -> Patience:
        """Give the patience with a repository, which is the same for all whose refs are there."""
        if git_url not in self.repositories:
            name = f"the repository {git_url}" if git_url else "the master's repository"
            self.repositories[git_url] = Patience(name, self.settings, self.log, self.clock, self.chance)
        return self.repositories[git_url]

    @classmethod
    def of(
        cls,
        settings: Settings,
        log: logging.Logger,
        reason: str,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> Surroundings:
        """Give those of one job or one run: one master, and one patience with each server."""
        master = Master(settings)
        return cls(
            settings=settings,
            master=master,
            asking=Patience(master.name, settings, log, clock, chance),
            serving=Patience(f"the package server at {settings.packages_url}", settings, log, clock, chance),
            log=log,
            clock=clock,
            chance=chance,
            reason=reason,
        )
