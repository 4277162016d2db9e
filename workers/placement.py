"""Placement: which cloud a build's machine is asked of, who waits for one, why, and until when."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from buildbot.util import Notifier
from twisted.python import log

from workers.cloud_data import nth
from workers.cloud_errors import Kind, Trouble
from workers.instance import State
from workers.prewarm import ASKER
from workers.provider import NoMachineEver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.targets import Target
    from workers.fleet import Fleet
    from workers.instance import Instance
    from workers.openstack_settings import OpenStackSettings
    from workers.provider import Boot
    from workers.sizes import NovaFlavor

_QUOTA_WAITS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds until quota is looked at again; something of ours that goes wakes who waits before that."""
_BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_ENTERING_SECONDS = 60.0


@dataclass
class Tries:
    """What went wrong so far for one build."""

    machines: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Clouds that will never do, and why."""
    avoid: set[str] = field(default_factory=set)
    """Clouds to try after the others."""
    again: set[tuple[str, str]] = field(default_factory=set)
    """Clouds, and the settings that were looked up a second time."""
    quota_waits: int = 0
    waiting_since: float = 0.0
    makes_room: Instance | None = None
    """One that was only kept ready, and goes so that this build gets its place."""


@dataclass(eq=False)
class Waiter:
    """A build that waits for room."""

    since: float
    request_id: int
    asker: str
    woken: Notifier[None] = field(default_factory=Notifier)


class Room(NamedTuple):
    """Whether there is room in a cloud: why not and for how long, or the nova_flavor."""

    reason: str
    seconds: float
    flavor: NovaFlavor | None = None
    full: bool = False
    """Whether ending a machine that is only kept ready would help."""


class Placement:
    """Finds room for machines in the clouds, in the order of the settings."""

    def __init__(self, settings: OpenStackSettings, clock: Any) -> None:
        """Take the settings; the fleets come with the provider's configuration."""
        self.settings = settings
        self.fleets: list[Fleet] = []
        self.retired: list[Fleet] = []
        """Fleets of clouds that left the settings. They get no new machine; the machines that they have count."""
        self.attempts = 1
        """How many machines may fail for one build."""
        self.make_room: Callable[[Target, Sequence[Fleet]], Instance | None] = lambda *_: None
        """Ends a machine in one of these clouds that is only kept ready, for another target; None if there is none."""
        self.more_can_start: Callable[[], None] = lambda: None
        self._clock = clock
        self._waiters: list[Waiter] = []
        self._entering: dict[int, tuple[Target, str, float]] = {}
        self._refused_a_slot = False

    # -- who gets a slot

    def next_request(self, target: Target, requests: Sequence[Any]) -> Any:
        """Choose the first that can have an instance now; else the first, while few wait with a slot."""
        now = self._clock.seconds()
        self._entering = {key: one for key, one in self._entering.items() if now - one[2] < _ENTERING_SECONDS}
        chosen = next((one for one in requests if self._has_room(target, _asker(one))), None)
        if chosen is None and requests and len(self._waiters) + len(self._entering) < self.settings.waiting:
            chosen = requests[0]
        if chosen is None:
            self._refused_a_slot = bool(requests) or self._refused_a_slot
            return None
        self._entering[chosen.id] = (target, _asker(chosen), now)
        return chosen

    def _has_room(self, target: Target, asker: str) -> bool:
        held = len(self._entering)
        return not self._limit_of(target, asker, entering=True) and any(
            fleet.cloud.settings.max_instances - fleet.count > held
            and fleet.cloud.settings.image(target) is not None
            and self._held(fleet) <= 0
            for fleet in self.fleets
        )

    def _limit_of(self, target: Target, asker: str, *, entering: bool = False) -> str:
        """Say which of our own limits is reached; empty if none is."""
        held = [(one.target, one.asker) for one in self._instances]
        if entering:
            held += [(one[0], one[1]) for one in self._entering.values()]
        settings = self.settings
        of_target = sum(one[0] == target for one in held)
        of_asker = sum(one[1] == asker for one in held)
        if 0 < settings.max_instances_per_target <= of_target:
            return f"{of_target} of {settings.max_instances_per_target} instances that a target may have"
        # What is kept ready is nobody's until it is taken.
        if asker != ASKER and 0 < settings.max_instances_per_asker <= of_asker:
            return f"{of_asker} of {settings.max_instances_per_asker} instances that {asker} may have"
        return ""

    @property
    def _instances(self) -> list[Instance]:
        """Every machine that the master has, in whichever cloud."""
        return [one for fleet in (*self.fleets, *self.retired) for one in fleet.instances.values()]

    def asker_is_full(self, asker: str) -> bool:
        """Whether somebody has as many instances as they may have, and so may take none that is kept ready."""
        held = sum(one.asker == asker for one in self._instances)
        return 0 < self.settings.max_instances_per_asker <= held

    def entered(self, request_id: int) -> None:
        """Take note that a build which was given a slot has begun to look for a machine."""
        self._entering.pop(request_id, None)
        if self._refused_a_slot:
            self._refused_a_slot = False
            self.more_can_start()

    @property
    def anybody_waits(self) -> bool:
        """Whether a build waits for a machine."""
        return bool(self._waiters)

    async def place(self, boot: Boot, tries: Tries) -> tuple[Fleet, NovaFlavor] | None:
        """Give a cloud with room; else say why there is none, wait a while, and give None.

        NoMachineEver where no cloud will ever do.
        """
        usable = [fleet for fleet in self.fleets if fleet.cloud.title not in tries.refused]
        usable = [fleet for fleet in usable if fleet.cloud.settings.image(boot.target) is not None]
        only = boot.asked("only_cloud")
        if only and only not in [fleet.cloud.title for fleet in self.fleets]:
            raise NoMachineEver(f"cloud {only} is not in the settings any more")
        usable = [fleet for fleet in usable if only in ("", fleet.cloud.title)]
        if not usable:
            raise NoMachineEver("; ".join(tries.refused.values()) or "no cloud has an image for it")
        rooms: list[tuple[Fleet, Room]] = []
        for fleet in sorted(usable, key=lambda one: one.cloud.title in tries.avoid):
            try:
                room = await self.room(fleet, boot, tries)
            except Trouble as trouble:
                await self.consider(boot, fleet, trouble, tries, pause=False)
                room = Room(trouble.sentence, self._held(fleet))
            if room.flavor is not None:
                return fleet, room.flavor
            rooms.append((fleet, room))
        if all(fleet.cloud.title in tries.refused for fleet in usable):
            return None
        wait = min(max(room.seconds, 0.5) for _, room in rooms)
        full = [fleet for fleet, room in rooms if room.full]
        if full and (tries.makes_room is None or tries.makes_room.state is State.GONE):
            tries.makes_room = self.make_room(boot.target, full)
        if full and tries.makes_room is not None:
            wait = min(wait, 2.0)
        await self._wait(boot, tries, "; ".join(dict.fromkeys(room.reason for _, room in rooms)), wait)
        return None

    async def room(self, fleet: Fleet, boot: Boot, tries: Tries) -> Room:
        """Say whether there is room for one more in a cloud. After the last look at it nothing waits."""
        cloud = fleet.cloud
        if self._held(fleet) > 0:
            return Room(fleet.hold_reason, self._held(fleet))
        flavor = await cloud.flavor(boot.good, boot.least)
        limits = await cloud.limits()
        # Again: somebody else may have been refused meanwhile.
        if self._held(fleet) > 0:
            return Room(fleet.hold_reason, self._held(fleet))
        never = limits.never(flavor)
        if never:
            said = f"setting `nova_flavor` or sizes: {never}"
            raise Trouble(Kind.PERMANENT, said, stale="nova_flavor").in_cloud(cloud.title)
        seconds = nth(_QUOTA_WAITS, tries.quota_waits)
        limit = self._limit_of(boot.target, boot.asker)
        if limit:
            return Room(limit, seconds)
        if fleet.count >= cloud.settings.max_instances:
            used = f"{fleet.count} of {cloud.settings.max_instances} instances"
            return Room(f"{used} that cloud {cloud.title} may have", seconds, full=True)
        # What was asked for since the limits were read is not in them yet.
        lacks = limits.lacks(flavor, **fleet.unread())
        if lacks:
            what, _, rest = lacks.partition(",")
            return Room(f"{what} in cloud {cloud.title},{rest}", seconds, full=True)
        return Room("the master is stopping", seconds) if fleet.closing else Room("", 0.0, flavor)

    def _held(self, fleet: Fleet) -> float:
        """Give the seconds for which nothing new may be asked of a cloud; 0 or less if it may."""
        return float(fleet.hold_until - self._clock.seconds())

    async def consider(
        self, boot: Boot, fleet: Fleet, trouble: Trouble, tries: Tries, *, pause: bool = True
    ) -> None:
        """Decide what a failure means for this build: another try, another cloud, or its end."""
        cloud = fleet.cloud
        log.msg(f"{boot.worker}, for {boot.build_url}: {trouble.kind.value}: {trouble.sentence}")
        if (
            trouble.kind is Kind.PERMANENT
            and trouble.stale
            and (cloud.title, trouble.stale) not in tries.again
        ):
            # What was looked up has been forgotten: it may have been replaced by another of its name.
            tries.again.add((cloud.title, trouble.stale))
            return
        if trouble.kind is Kind.PERMANENT:
            tries.refused[cloud.title] = trouble.sentence
            return
        tries.avoid.add(cloud.title)
        # Where no other cloud is left, the wait for this one tells the reason.
        others = self._others(boot, fleet, tries)
        quota_wait = nth(_QUOTA_WAITS, tries.quota_waits)
        if trouble.kind is Kind.QUOTA:
            cloud.forget_limits()
            fleet.hold(trouble.sentence, max(quota_wait, trouble.retry_after), until_given_back=True)
            if others:
                await boot.tell(trouble.sentence)
            return
        failed = tries.machines if trouble.machine else tries.calls
        failed.append(trouble.sentence)
        allowed = self.attempts if trouble.machine else self.settings.api_tries
        if len(failed) >= allowed:
            times = "once" if allowed == 1 else f"{allowed} times"
            raise NoMachineEver(f"infrastructure failed {times}, at last: {trouble.sentence}")
        if trouble.kind is Kind.NO_HOST:
            fleet.hold(trouble.sentence, quota_wait, until_given_back=True)
        elif not trouble.machine:
            fleet.in_trouble(trouble)
        if others or (trouble.machine and not pause):
            await boot.tell(trouble.sentence)
        elif trouble.machine:
            await self._wait(boot, tries, trouble.sentence, nth(_BACK_OFF, len(failed) - 1))

    def _others(self, boot: Boot, fleet: Fleet, tries: Tries) -> bool:
        """Whether there is a cloud that has not failed this build yet."""
        return any(
            one is not fleet
            and one.cloud.title not in tries.avoid
            and one.cloud.title not in tries.refused
            and one.cloud.settings.image(boot.target) is not None
            for one in self.fleets
        )

    async def _wait(self, boot: Boot, tries: Tries, reason: str, seconds: float) -> None:
        """Tell why and until when, and wait; something that was given back ends the wait at once."""
        waited = self._clock.seconds() - tries.waiting_since
        if waited > self.settings.wait_for_quota * 3600:
            raise NoMachineEver(
                f"infrastructure: waited {waited / 3600:.1f} h for a machine, at last: {reason}"
            )
        # Not all of them at the same moment.
        seconds *= random.uniform(0.9, 1.1)  # noqa: S311
        await boot.tell(f"{reason}; next try in {seconds:.0f} s")
        tries.quota_waits += 1
        waiter = Waiter(tries.waiting_since, boot.request_id, boot.asker)
        self._waiters.append(waiter)
        timer = self._clock.callLater(seconds, waiter.woken.notify, None)
        try:
            await waiter.woken.wait()
        finally:
            self._waiters.remove(waiter)
            if timer.active():
                timer.cancel()

    def changed(self) -> None:
        """Wake who waits, because something was given back: those of askers with the fewest instances first."""
        held = Counter(one.asker for one in self._instances)
        for waiter in sorted(self._waiters, key=lambda one: (held[one.asker], one.since, one.request_id)):
            waiter.woken.notify(None)
        self.more_can_start()


def _asker(request: Any) -> str:
    return str(request.properties.getProperty("owner") or "nobody")
