"""A proxy that stands between a client and the real services, and makes happen what happens in real clouds.

    with FaultProxy(lab) as proxy:
        proxy.fail(method="POST", path="/servers$", status=503, times=2)
        ...  # the clouds of proxy.clouds_yaml

The first rule that fits a call decides it; a rule is used up after so many times. What the services
say of their own addresses is changed on the way, so a client never gets past the proxy.
"""

from __future__ import annotations

import random
import re
import threading
from typing import TYPE_CHECKING, Self

from lab import configuration
from lab.door import ALWAYS, Action, Call, Door, Rule
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lab.cloud import Lab

RANDOM_FAULTS: tuple[tuple[Action, int], ...] = (
    ("answer", 500), ("answer", 502), ("answer", 503), ("answer", 429), ("lose", 0), ("reset", 0), ("hang", 0),
)  # fmt: skip
"""What `random` chooses from; a DELETE may be ignored as well."""


class FaultProxy:
    """One proxy for all services of a lab; every fault is off until asked for."""

    def __init__(self, lab: Lab, services: Sequence[str] = ("keystone", "nova", "glance", "neutron")) -> None:
        """Take the lab, and the services to stand before."""
        self._lab = lab
        self._services = services
        self._doors: dict[str, Door] = {}
        self._rules: list[Rule] = []
        self._random: Callable[[str, str, str], Rule | None] = lambda *_: None
        self._hanging: dict[str, bool] = dict.fromkeys(services, False)
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._closing = False

    def __enter__(self) -> Self:
        """Open a door for each service, and write the clouds that go through them."""
        for service in self._services:
            target = self._lab.ports[service]
            self._doors[service] = Door(service, target, self.decide, self._note, self._rewrite)
        auth_url = self._rewritten(self._lab.endpoints["keystone"])
        configuration.write_clouds(self.clouds_yaml, auth_url, self._lab.credential)
        for door in self._doors.values():
            door.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close them; what hangs is let go."""
        self._closing = True
        with self._changed:
            self._changed.notify_all()
        for door in self._doors.values():
            door.close()

    @property
    def clouds_yaml(self) -> Path:
        """The lab's clouds, by the same names, through this proxy."""
        return self._lab.directory / "clouds-proxied.yaml"

    @property
    def endpoints(self) -> dict[str, str]:
        """The URL of each service as clients see it."""
        return {service: self._rewritten(url) for service, url in self._lab.endpoints.items()}

    @property
    def calls(self) -> list[Call]:
        """Every call that is over, in the order of their ends."""
        with self._changed:
            return list(self._calls)

    def count(self, *services: str) -> int:
        """Count the calls to some services, or to all beyond keystone."""
        wanted = services or tuple(one for one in self._services if one != "keystone")
        return sum(call.service in wanted for call in self.calls)

    def forget_calls(self) -> None:
        """Begin to count anew."""
        with self._changed:
            self._calls.clear()

    def fail(
        self, *, service: str = "", method: str = "", path: str = "", status: int = 503, times: int = 1,
        retry_after: int | None = None, message: str = "the lab was told to fail",
    ) -> None:  # fmt: skip
        """Answer so many calls with an error status, and let the service hear nothing."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.add(Rule("answer", service, method, path, times, status, headers, message))

    def lose(self, *, service: str = "", method: str = "", path: str = "", times: int = 1) -> None:
        """Let the service do it, and lose its answer."""
        self.add(Rule("lose", service, method, path, times))

    def reset(self, *, service: str = "", method: str = "", path: str = "", times: int = 1) -> None:
        """Reset the connection before the service hears anything."""
        self.add(Rule("reset", service, method, path, times))

    def ignore_deletes(self, *, path: str = "/servers/", times: int = 1) -> None:
        """Say 204 to a DELETE, and do nothing."""
        self.add(Rule("ignore", "", "DELETE", path, times, status=204))

    def delay(
        self, seconds: float, *, service: str = "", method: str = "", path: str = "", times: int = ALWAYS
    ) -> None:
        """Make calls slow."""
        self.add(Rule("delay", service, method, path, times, seconds=seconds))

    def stall(
        self, seconds: float, *, service: str = "", method: str = "", path: str = "", times: int = 1
    ) -> None:
        """Give no answer, and close the connection after so many seconds; the service hears nothing."""
        self.add(Rule("hang", service, method, path, times, seconds=seconds))

    def random(
        self, rate: float, seed: int, *, services: Sequence[str] = (), faults: Sequence[tuple[Action, int]] = RANDOM_FAULTS,
        hang_seconds: float = 5.0,
    ) -> None:  # fmt: skip
        """Have a share of all calls end in one of some faults; rate 0 ends it."""
        chance = random.Random(seed)  # noqa: S311  a fault that can be had again

        def choose(service: str, method: str, _path: str) -> Rule | None:
            hit, which, ignored = chance.random() < rate, chance.choice(list(faults)), chance.random() < 0.2
            if not hit or (services and service not in services):
                return None
            if method == "DELETE" and ignored:
                return Rule("ignore", status=204)
            action, status = which
            headers = {"Retry-After": "1"} if status in (413, 429, 503) else {}
            # What every other fault does, it does at once: a wait would make a time-out of each of them.
            seconds = hang_seconds if action == "hang" else 0.0
            return Rule(action, status=status, headers=headers, seconds=seconds)

        self._random = choose

    def refuse(self, service: str, on: bool = True) -> None:
        """Have a service refuse connections, and cut those that it has."""
        if on:
            self._door(service).refuse()
        else:
            self._door(service).accept()

    def hang(self, service: str, on: bool = True) -> None:
        """Have a service accept connections and answer nothing; when that ends, they are closed."""
        self._door(service)
        with self._changed:
            self._hanging[service] = on
            self._changed.notify_all()

    def add(self, rule: Rule) -> None:
        """Add a rule; it is asked after those that are there."""
        with self._changed:
            self._rules.append(rule)

    def clear(self) -> None:
        """Forget all rules and all chance, and let through what hangs or is refused."""
        self.random(0.0, 0)
        with self._changed:
            self._rules.clear()
            self._hanging = dict.fromkeys(self._services, False)
            self._changed.notify_all()
        for door in self._doors.values():
            door.accept()

    def decide(self, service: str, method: str, path: str) -> Rule | None:
        """Give the rule of a call, when the call may go on; blocks while that is what shall happen."""
        with self._changed:
            if self._hanging[service]:
                self._changed.wait_for(lambda: self._closing or not self._hanging[service])
                return Rule("hang")
            rule = next((one for one in self._rules if one.fits(service, method, path)), None)
            if rule is not None and rule.times > 0:
                rule.times -= 1
            if rule is None:
                rule = self._random(service, method, path)
            if rule is not None and rule.seconds:
                self._changed.wait_for(lambda: self._closing, rule.seconds)
            return rule

    def _door(self, service: str) -> Door:
        if service not in self._doors:
            raise LabError(f"no door before {service}: there are {', '.join(self._doors)}")
        return self._doors[service]

    def _note(self, call: Call) -> None:
        with self._changed:
            self._calls.append(call)

    def _rewrite(self, body: bytes) -> bytes:
        return self._rewritten(body.decode()).encode()

    def _rewritten(self, text: str) -> str:
        for service, door in self._doors.items():
            text = re.sub(rf"(127\.0\.0\.1:){self._lab.ports[service]}\b", rf"\g<1>{door.port}", text)
        return text
