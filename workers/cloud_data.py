"""What is known of a cloud: servers as listed, images, quota, and look-ups that many share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from buildbot.util import Notifier
from twisted.internet.defer import ensureDeferred
from twisted.python.failure import Failure

from workers.cloud_errors import Kind, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workers.sizes import NovaFlavor


@dataclass(frozen=True)
class Seen:
    """A server of ours as the last listing showed it."""

    id: str
    name: str
    status: str
    task_state: str
    metadata: Mapping[str, str]
    fault: str
    addresses: Mapping[str, Any]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Seen:
        """Take what nova gives."""
        return cls(
            found["id"],
            found["name"],
            found["status"],
            found.get("OS-EXT-STS:task_state") or "",
            found.get("metadata") or {},
            (found.get("fault") or {}).get("message") or "",
            found.get("addresses") or {},
        )

    @property
    def boot(self) -> str:
        """The id of the boot it was made for."""
        return self.metadata.get("boot", "")

    @property
    def expires(self) -> float:
        """When it ends, in seconds of the epoch; never, if it does not say."""
        text = self.metadata.get("expires", "")
        return float(text) if text.isdigit() else float("inf")


PREPARED = "buildpackages_target"
"""The property that every prepared image has, of whichever master; the rest is in images.py."""


@dataclass(frozen=True)
class Image:
    """An image of glance."""

    id: str
    name: str
    created_at: str
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Any) -> Image:
        """Take what the SDK gives."""
        properties = {str(name): str(value) for name, value in (found.properties or {}).items()}
        for name in ("os_distro", "os_version", "architecture"):
            value = getattr(found, name, None)
            if value is not None:
                properties[name] = str(value)
        return cls(str(found.id), str(found.name), str(found.created_at or ""), properties)

    def __str__(self) -> str:
        """Give name and id."""
        return f"{self.name} ({self.id})"


@dataclass(frozen=True)
class Limits:
    """The compute quota and what of it is used; a limit of -1 is none."""

    instances: int
    instances_used: int
    cores: int
    cores_used: int
    ram: int
    ram_used: int

    def never(self, flavor: NovaFlavor) -> str:
        """Say what the quota is too small for, were all of it free; empty if it is not."""
        for what, limit, wanted in (("cores", self.cores, flavor.cpus), ("MB of ram", self.ram, flavor.ram)):
            if 0 <= limit < wanted:
                return f"nova_flavor {flavor.name} has {wanted} {what}, and the whole quota is {limit}"
        return "" if self.instances else "the quota is 0 instances"

    def lacks(self, flavor: NovaFlavor, *, instances: int = 0, cores: int = 0, ram: int = 0) -> str:
        """Say what there is no quota for; empty if one more fits besides what was asked for meanwhile."""
        for what, limit, used, wanted in (
            ("instances", self.instances, self.instances_used + instances, 1),
            ("cores", self.cores, self.cores_used + cores, flavor.cpus),
            ("ram", self.ram, self.ram_used + ram, flavor.ram),
        ):
            if 0 <= limit < used + wanted:
                needed = f", {wanted} needed" if wanted > 1 else ""
                return f"no quota for {what}, {used} of {limit} used{needed}"
        return ""


@dataclass(frozen=True)
class Wanted:
    """All that goes into the call that makes a server."""

    name: str
    flavor: NovaFlavor
    image: Image
    user_data: str
    metadata: Mapping[str, str]
    volume_id: str = ""
    port_id: str = ""


@dataclass(frozen=True)
class Leftover:
    """Something of ours besides a server: a volume, a port or a floating ip."""

    kind: str
    id: str
    boot: str


class Kept:
    """A look-up that many ask for and one makes; kept for some seconds."""

    def __init__(self, clock: Any, seconds: float, look_up: Callable[[], Any]) -> None:
        """Take the clock, how long an answer is good, and the coroutine function that gets one."""
        self._clock = clock
        self._seconds = seconds
        self._look_up = look_up
        self._until = float("-inf")
        self.asked_at = float("-inf")
        """When the look-up began that gave the last answer."""
        self._answer: Any = None
        self._waiting: Notifier[Any] = Notifier()
        self._asking = False
        self._forgotten = False
        """Whether it was to be asked again while it was being asked."""

    async def get(self, or_last: float = 0.0) -> Any:
        """Give the answer; while none is to be had, the last one if it was asked for so many seconds ago."""
        if self._clock.seconds() < self._until:
            return self._answer
        answer = self._waiting.wait()
        if not self._asking:
            # Nobody's own call: who asked first may be stopped while others wait.
            self._asking, self._forgotten = True, False
            ensureDeferred(self._look_up()).addBoth(self._answered, self._clock.seconds())
        try:
            return await answer
        except Trouble as trouble:
            old = self._clock.seconds() - self.asked_at > or_last
            if old or trouble.kind is not Kind.PASSING:
                raise
            return self._answer

    def forget(self) -> None:
        """Ask again next time; what is under way already may not know yet."""
        self._until = float("-inf")
        self._forgotten = self._asking

    def _answered(self, answer: Any, asked_at: float) -> None:
        self._asking = False
        if not isinstance(answer, Failure):
            self._answer, self.asked_at = answer, asked_at
            if not self._forgotten:
                self._until = self._clock.seconds() + self._seconds
        self._waiting.notify(answer)


def nth(values: Sequence[float], number: int) -> float:
    """Give a value of a series that ends with one that is kept."""
    return values[min(max(number, 0), len(values) - 1)]
