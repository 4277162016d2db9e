"""What one server goes through, seen from outside: nova's answers, the console, the build's steps."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from openstack.exceptions import NotFoundException, SDKException

if TYPE_CHECKING:
    from openstack.connection import Connection

_CONSOLE = re.compile(
    r"^\[ *(?P<kernel>[\d.]+)\] Run /init as init process"
    r"|^\[ *(?P<systemd>[\d.]+)\] systemd\[1\]: systemd \S+ running"
    r"|Cloud-init v\. \S+ (?:running '(?P<stage>[\w:-]+)'|finished) at .* Up (?P<up>[\d.]+) seconds"
    r"|buildpackages: (?P<after>\d+) s: (?P<said>.+?)\r?$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Event:
    """What was reached, and when, in seconds: of the epoch, or since something that is said elsewhere."""

    name: str
    at: float


@dataclass
class Watched:
    """What was seen of one server."""

    server_id: str = ""
    seen: dict[str, float] = field(default_factory=dict)
    """Status -> when it was first seen; `gone` when nova knows the server no more."""
    console: str = ""


class Watch:
    """Looks at all servers, in a thread of its own, from the beginning of each to its end."""

    def __init__(self, admin: Connection, interval: float = 0.5) -> None:
        """Take a connection of its own, the administrator's."""
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
        now = time.time()
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


def console_events(console: str) -> list[Event]:
    """Give what a console tells of a boot, in seconds since the guest's kernel began."""
    events = []
    user_data = 0.0
    for found in _CONSOLE.finditer(console):
        if found["kernel"]:
            events.append(Event("kernel up", float(found["kernel"])))
        elif found["systemd"]:
            events.append(Event("root disk mounted, systemd begins", float(found["systemd"])))
        elif found["stage"]:
            user_data = float(found["up"])  # it begins in the last stage
            events.append(Event(f"cloud-init begins `{found['stage']}`", user_data))
        elif found["up"]:
            events.append(Event("cloud-init finished", float(found["up"])))
        else:
            events.append(Event(f"user data: {found['said']}", user_data + float(found["after"])))
    return events


def step_events(steps: dict[str, dict[str, Any]]) -> list[Event]:
    """Give when each step of a build ended, and what it said."""
    return [
        Event(f"step `{step['name']}`: {step['state_string']}", step["complete_at"])
        for step in sorted(steps.values(), key=lambda one: int(one["number"]))
        if not step["hidden"]
    ]


def table(events: list[Event], begin: float) -> list[str]:
    """Give events as a table: seconds since the beginning, and since the event before."""
    ordered = sorted(events, key=lambda event: event.at)
    rows = [(Event("", begin), ordered[0]), *pairwise(ordered)] if ordered else []
    return [
        "| at, s | took, s | |",
        "|---:|---:|---|",
        *(
            f"| {event.at - begin:.1f} | {event.at - before.at:.1f} | {event.name.replace('|', '/')} |"
            for before, event in rows
        ),
    ]
