"""What one server goes through, seen from outside: nova's answers, the console, the build's steps."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from openstack.exceptions import NotFoundException, SDKException

if TYPE_CHECKING:
    from openstack.connection import Connection

_KERNEL = re.compile(
    r"^\[\s*([\d.]+)\] (?:Run /init as init process|systemd\[1\]: systemd \S+ running)", re.MULTILINE
)
_CLOUD_INIT = re.compile(r"Cloud-init v\. \S+ (running '[\w:-]+'|finished) at .* Up ([\d.]+) seconds")
_USER_DATA = re.compile(r"buildpackages: (\d+) s: (.+?)\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Phase:
    """A row of the log: what was reached, and the seconds since the beginning of its part."""

    name: str
    seconds: float


@dataclass
class Watched:
    """What was seen of one server."""

    server_id: str = ""
    seen: dict[str, float] = field(default_factory=dict)
    """Status -> when it was first seen; `gone` when nova knows the server no more."""
    console: str = ""


class Watch:
    """Looks at a project's servers in a thread of its own, as the administrator, from the beginning to the end."""

    def __init__(self, admin: Connection, interval: float = 0.5) -> None:
        """Take a connection of its own."""
        self._admin = admin
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.servers: dict[str, Watched] = {}

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        looks = 0
        while not self._stop.wait(self._interval):
            looks += 1
            try:
                self._look(console=looks % 6 == 0)
            except SDKException as error:
                print(f"  nova: {error}", flush=True)

    def _look(self, *, console: bool) -> None:
        now = time.monotonic()
        there = {server.id: server for server in self._admin.compute.servers(all_projects=True)}
        for server in there.values():
            watched = self.servers.setdefault(server.id, Watched(server.id))
            watched.seen.setdefault(server.status, now)
            if console and server.status == "ACTIVE":
                with suppress(NotFoundException):  # off or gone meanwhile
                    said = self._admin.compute.get_server_console_output(server.id)["output"]
                    watched.console = said or watched.console
        for watched in self.servers.values():
            if watched.server_id not in there:
                watched.seen.setdefault("gone", now)


def console_phases(console: str) -> list[Phase]:
    """Give what a console tells of a boot, with the guest's own seconds; user data counts from its own start."""
    phases = []
    names = iter(("kernel", "initial RAM disk"))
    for found in _KERNEL.finditer(console):
        phases.append(Phase(f"{next(names, 'again')} done", float(found[1])))
    for found in _CLOUD_INIT.finditer(console):
        phases.append(Phase(f"cloud-init {found[1]}", float(found[2])))
    for found in _USER_DATA.finditer(console):
        phases.append(Phase(f"user data: {found[2]}", float(found[1])))
    return phases


def step_phases(steps: dict[str, dict[str, Any]]) -> list[Phase]:
    """Give the seconds that each step of a build took, and what it said."""
    return [
        Phase(f"step {step['name']}: {step['state_string']}", step["complete_at"] - step["started_at"])
        for step in sorted(steps.values(), key=lambda one: int(one["number"]))
        if not step["hidden"]
    ]
