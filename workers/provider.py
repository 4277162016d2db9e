"""The small interface between a latent worker and whatever makes machines for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from master.model.targets import Target


class NoMachine(Exception):
    """A machine could not be made; another try may succeed."""


class NoMachineEver(Exception):
    """No machine can be made for this target as things are configured: there is no use in trying."""


@dataclass(frozen=True)
class Boot:
    """What a machine is made for: one worker, one target, one password, one build."""

    worker: str
    target: Target
    password: str
    build_url: str
    tell: Callable[[str], Awaitable[None]]
    """Shows the asker, on the build's page, what is being waited for."""


class Machine(Protocol):
    """One machine, from its making to its end."""

    description: str

    async def check(self) -> str:
        """Give nothing while it lives, or a sentence about its end."""

    async def stop(self) -> None:
        """End it and all that it held; may be called twice, and raises if something is left."""


class Provider(Protocol):
    """Makes machines."""

    async def start(self, boot: Boot) -> Machine:
        """Make a machine whose worker will attach; raise NoMachine or NoMachineEver, leaving nothing."""

    async def recover(self) -> None:
        """Remove what a killed master left; called once, before the first start."""
