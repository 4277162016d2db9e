"""Machines kept ready: made ahead, they wait at the rendezvous until a build takes one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from buildbot.util import Notifier
from twisted.internet.defer import ensureDeferred
from twisted.python import log

from model.targets import Target
from workers.cloud_errors import Trouble
from workers.provider import NoMachineEver

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from workers.fleet import Fleet
    from workers.instance import Instance
    from workers.openstack_settings import Prewarm

TEND_SECONDS = 15.0
ASKER = "prewarm"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
POLL_SECONDS = 50.0
"""How long a question at the rendezvous is kept open."""


class Rendezvous:
    """Where a machine that was made ahead asks, by an address that nobody can guess, which worker it is.

    What it is told is no secret: the password has been in the machine since its boot.
    """

    def __init__(self, clock: Any, ready: Callable[[], None]) -> None:
        """Start with nobody; take whom to tell when a machine is ready."""
        self._clock = clock
        self._ready = ready
        self._workers: dict[str, str] = {}
        self._questions: dict[str, Notifier[None]] = {}

    def expect(self) -> str:
        """Give a token for a machine that will ask."""
        token = secrets.token_urlsafe(24)
        self._workers[token] = ""
        return token

    def is_ready(self, token: str) -> bool:
        """Whether the machine has asked: all that it has to do before it attaches is done."""
        return token in self._questions

    def assign(self, token: str, worker: str) -> None:
        """Tell the machine which worker it is."""
        self._workers[token] = worker
        self._answer(token)

    def forget(self, token: str) -> None:
        """Have the machine go away, should it ask again."""
        self._workers.pop(token, None)
        self._answer(token)

    async def ask(self, token: str) -> str | None:
        """Give the worker's name; empty if there is none yet, None for a token that is not expected."""
        if self._workers.get(token) == "":
            first = token not in self._questions
            question = self._questions.setdefault(token, Notifier()).wait()
            if first:
                log.msg("a machine that was made ahead is ready")
                self._ready()
            await question.addTimeout(POLL_SECONDS, self._clock, lambda _, __: None)
        return self._workers.get(token)

    def _answer(self, token: str) -> None:
        question = self._questions.pop(token, None)
        if question is not None:
            question.notify(None)


@dataclass(eq=False)
class Warm:
    """One machine that is kept ready."""

    fleet: Fleet
    instance: Instance
    password: str
    token: str
    born: float
    about: dict[str, str]
    """What the build that takes it keeps as properties."""


class Make(Protocol):
    """Makes a machine that waits at the rendezvous."""

    def __call__(
        self, target: Target, password: str, token: str
    ) -> Coroutine[Any, Any, tuple[Fleet, Instance, dict[str, str]]]:
        """Make it if there is room to spare; Trouble or NoMachineEver if not."""


class Stock:
    """The machines that are kept ready, as the settings want them."""

    def __init__(self, clock: Any, rendezvous: Rendezvous, make: Make) -> None:
        """Take a clock, and what makes one for a target, a password and a token, if there is room to spare."""
        self.settings: Sequence[Prewarm] = ()
        self.machines: list[Warm] = []
        self.start_timeout = 1200.0
        """Seconds that one may take until it asks at the rendezvous."""
        self._clock = clock
        self._rendezvous = rendezvous
        self._make = make
        self._making: dict[str, int] = {}
        self._timer: Any = None

    def start(self) -> None:
        """Begin to look after them."""
        self._tend()

    def stop(self) -> None:
        """Make no more; the fleets end what there is."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self.settings = ()

    def take(self, target: Target) -> Warm | None:
        """Give the oldest that is ready for a target, which is the taker's from now on."""
        for machine in self.machines:
            if machine.instance.target == target and self._rendezvous.is_ready(machine.token):
                self.machines.remove(machine)
                return machine
        return None

    def give_up_one(self, target: Target, fleets: Sequence[Fleet]) -> Instance | None:
        """End the youngest in these clouds that is not for a target, for which a build waits; None if there is none."""
        for machine in reversed(self.machines):
            if machine.instance.target != target and machine.fleet in fleets:
                self._end(machine, f"a build of {target} needs its place")
                return machine.instance
        return None

    def wanted(self, target: str) -> int:
        """How many there should be for a target at this hour."""
        now = datetime.fromtimestamp(self._clock.seconds(), UTC)
        return sum(
            one.count
            for one in self.settings
            if one.target == target
            and _DAYS[now.weekday()] in one.days
            and one.hours[0] <= now.hour < one.hours[1]
        )

    def _tend(self) -> None:
        now = self._clock.seconds()
        for machine in list(self.machines):
            target = machine.instance.target.name
            there = [one for one in self.machines if one.instance.target.name == target]
            ages = [one.max_age * 3600 for one in self.settings if one.target == target]
            if machine.instance.state.name in ("GOING", "GONE"):
                self._end(machine, "it has ended")
            elif not self._rendezvous.is_ready(machine.token) and now - machine.born > self.start_timeout:
                self._end(machine, f"it was not ready after {self.start_timeout:g} s")
            elif len(there) > self.wanted(target):
                self._end(machine, "it is not the hour for it")
            elif now - machine.born > max(ages, default=0):
                self._end(machine, "it is too old")
        for target in dict.fromkeys(one.target for one in self.settings):
            there = [one for one in self.machines if one.instance.target.name == target]
            if len(there) + self._making.get(target, 0) < self.wanted(target):
                self._begin(target)
        self._timer = self._clock.callLater(TEND_SECONDS, self._tend)

    def _begin(self, target: str) -> None:
        """Make one more; what stands in the way is tried again next time."""
        self._making[target] = self._making.get(target, 0) + 1
        password, token = secrets.token_urlsafe(24), self._rendezvous.expect()

        def made(result: Any) -> None:
            self._making[target] -= 1
            fleet, instance, about = result
            machine = Warm(fleet, instance, password, token, self._clock.seconds(), about)
            self.machines.append(machine)
            instance.ended().addErrback(lambda _: self._end(machine, "it ended by itself"))

        def not_made(failure: Any) -> None:
            self._making[target] -= 1
            self._rendezvous.forget(token)
            failure.trap(Trouble, NoMachineEver)
            log.msg(f"no machine is kept ready for {target}: {failure.value}")

        making = ensureDeferred(self._make(Target.from_name(target), password, token))
        making.addCallbacks(made, not_made)
        making.addErrback(lambda failure: log.err(failure, f"while keeping a machine ready for {target}"))

    def _end(self, machine: Warm, why: str) -> None:
        if machine in self.machines:
            self.machines.remove(machine)
            log.msg(f"{machine.instance.name}, kept ready, is ended: {why}")
        self._rendezvous.forget(machine.token)
        machine.fleet.end(machine.instance)
