"""The small interface between a latent worker and whatever makes machines for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.targets import Target
    from workers.sizes import Size


class NoMachine(Exception):
    """A machine could not be made; another build of the same request may get one."""


class NoMachineEver(Exception):
    """No machine can be had: as things are configured, or after as many tries as settings allow."""


class Boot(Protocol):
    """What a machine is made for: one worker, one target, one build. The worker's side of the interface."""

    worker: str
    target: Target
    build_url: str
    asker: str
    request_id: int
    good: Size | None
    least: Size | None
    """Sizes that the request itself asks for."""

    async def login(self, password: str = "") -> str:
        """Take the password of the next machine, a fresh one if none is given; any before is worth nothing."""

    async def tell(self, text: str) -> None:
        """Show the asker, on the build's page and in its log, what is being waited for."""

    async def keep(self, name: str, text: str) -> None:
        """Keep a text as a log of the build, such as a console's."""

    def note(self, **values: str) -> None:
        """Keep values as properties of the build."""

    def asked(self, name: str) -> str:
        """Give a property of the build; empty if it has none."""

    async def attached(self) -> None:
        """Wait until the worker has attached."""

    def lost(self, reason: str) -> None:
        """Say that the machine is gone while the build runs."""


class Machine(Protocol):
    """One machine, from its making to its end."""

    description: str

    async def check(self) -> str:
        """Give nothing while it lives, or a sentence about its end."""

    def begin_to_stop(self) -> None:
        """Have its end begin, where that takes long: `stop` follows soon, after the build's own end."""

    async def stop(self) -> None:
        """End it and all that it held: when this returns, the end is certain. May be called twice."""


class Provider(Protocol):
    """Makes machines."""

    async def start(self, boot: Boot) -> Machine:
        """Make a machine whose worker will attach, or has; raise NoMachine or NoMachineEver, leaving nothing.

        It may take as long as it likes, tells why, and can be cancelled at any time.
        """

    def next_request(self, target: Target, requests: Sequence[Any]) -> Any:
        """Return which of the buildrequests that wait gets a slot now, or None; they come in the order of turns."""

    async def recover(self, changed: Callable[[], None]) -> None:
        """Begin, by removing what a killed master left; takes whom to tell when more can be started."""

    async def close(self, seconds: float) -> None:
        """End every machine, waiting at most so long for what can be waited for."""
