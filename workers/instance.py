"""An instance: one boot of one server of ours, from before the call that makes it until nothing is left of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from buildbot.util import Notifier
from twisted.internet.defer import fail
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from model.targets import Target
    from workers.cloud_data import Leftover
    from workers.cloud_errors import Trouble
    from workers.sizes import NovaFlavor


class State(Enum):
    """Where an instance of ours is in its life."""

    NEW = "counted, not asked for"
    ASKED = "asked for"
    BOOTING = "booting"
    ATTACHED = "attached"
    GOING = "going"
    GONE = "gone"


@dataclass(eq=False)
class Instance:
    """One boot: known, and counted, from before the call that makes its server until nothing of it is left."""

    boot: str
    name: str
    target: Target
    asker: str
    flavor: NovaFlavor
    expires: float
    asked_at: float
    state: State = State.NEW
    server_id: str = ""
    known_at: float = 0.0
    status: str = ""
    addresses: dict[str, Any] = field(default_factory=dict)
    extras: list[Leftover] = field(default_factory=list)
    """Its volume, port and floating ip, in the order in which they are to go."""
    lost: Trouble | None = None
    """Why it ended by itself: it went to ERROR, or somebody else deleted it."""
    _ended: Notifier[None] = field(default_factory=Notifier)
    looks: int = 0
    due: float = 0.0

    def lose(self, trouble: Trouble) -> None:
        """Say why it has ended by itself; the first reason counts."""
        if self.lost is None:
            self.lost = trouble
            self._ended.notify(Failure(trouble))

    def ended(self) -> Deferred[None]:
        """Fail with the Trouble once it has ended by itself, now if it has already."""
        return fail(self.lost) if self.lost is not None else self._ended.wait()
