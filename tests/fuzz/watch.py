"""Watches a master during the attack: its log, its answers to well-formed clients, and what its process holds."""

# mypy: allow-untyped-calls
# Twisted's Banana is not annotated.

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests
from twisted.spread import banana

from tests.fuzz.connections import HANG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.integration.harness import Installation


class Usage(NamedTuple):
    """What a process holds."""

    memory_mib: int
    descriptors: int
    threads: int
    children: int
    files: int


ALLOWED = Usage(memory_mib=40, descriptors=10, threads=20, children=0, files=0)
"""Growth between the end of the warm-up and the end of the run that is no defect. CONTRIBUTING.md says why so much."""

_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|Unhandled Error|Unhandled error in Deferred")
_MOST_LINES = 60
_STAMP = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"


def usage(pid: int, directories: Iterable[Path] = ()) -> Usage:
    """Return what a process holds now; `files` are those below the directories."""
    process = Path(f"/proc/{pid}")
    status = (process / "statm").read_text().split()
    tasks = list((process / "task").iterdir())
    return Usage(
        int(status[1]) * os.sysconf("SC_PAGE_SIZE") >> 20,
        len(list((process / "fd").iterdir())),
        len(tasks),
        sum(len((task / "children").read_text().split()) for task in tasks),
        sum(len(names) for directory in directories for _, _, names in os.walk(directory)),
    )


def growth(before: Usage, after: Usage) -> list[str]:
    """Return a sentence for everything that grew by more than is allowed."""
    return [
        f"{name} grew from {old} to {new}"
        for name, old, new, allowed in zip(Usage._fields, before, after, ALLOWED, strict=True)
        if new - old > allowed
    ]


class Log:
    """The master's log, from where it ends now; it may be rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)

    def tracebacks(self) -> list[str]:
        """Return the tracebacks that are new since the last call, each with the lines around it."""
        text = self._file.read().decode(errors="replace")
        try:
            is_rotated = os.stat(self._path).st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:  # It is being rotated.
            is_rotated = False
        if is_rotated:
            self.close()
            self._file = self._path.open("rb")
            text += self._file.read().decode(errors="replace")
        if not _TRACEBACK.search(text):
            return []
        # Each message begins with its time; the other lines of a traceback are indented by a tab.
        messages = re.split(rf"(?m)^(?={_STAMP})", text)
        found = []
        for at, message in enumerate(messages):
            if _TRACEBACK.search(message):
                whole = message if message.count("\n") > 1 else "".join(_printed(messages[at:]))
                found.append("\n".join(whole.split("\n")[:_MOST_LINES]))
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _printed(messages: list[str]) -> Iterator[str]:
    """Yield the lines of the first traceback without their times: what is printed to the standard error is one message a line."""
    for number, message in enumerate(messages[:_MOST_LINES]):
        line = re.sub(rf"^{_STAMP}\S* \[[^]]*\] ", "", message)
        yield line
        if number and not line.startswith(" "):
            break


def last_line(traceback: str) -> str:
    """Return the line of a traceback that names the exception, which tells it from others."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    frames = [line for line in lines if line.startswith("File ")]
    return f"{lines[-1][:200]} ({re.sub('.*/site-packages/', '', frames[-1])})" if frames else lines[-1][:200]


class Probes:
    """Well-formed requests of other clients, which must be answered whatever the fuzzer sends."""

    def __init__(self, made: Installation, logid: int) -> None:
        """`logid` is the number of a log of some build."""
        self.slowest = 0.0
        self._workers = made.settings.workers.port
        api = f"{made.url}api/v2"
        self._probes: dict[str, Callable[[], None]] = {
            f"{made.url}": lambda: _get(made.url),
            # The database's threads read logs.
            f"{api}/logs/{logid}/contents": lambda: _get(f"{api}/logs/{logid}/contents?limit=1"),
            f"{api}/packages": lambda: _get(f"{api}/packages"),
            made.packages_url: lambda: _get(made.packages_url),
            f"{made.packages_url}api/search": lambda: _get(f"{made.packages_url}api/search?project=ceph"),
            f"port {self._workers} (workers)": lambda: log_in(self._workers),
        }

    def silent(self) -> list[str]:
        """Return a sentence for everything that did not answer in time."""
        found = []
        for name, probe in self._probes.items():
            began = time.monotonic()
            try:
                probe()
            except (requests.RequestException, OSError, ValueError) as error:
                found.append(f"{name} gave no answer within {HANG} s, or a wrong one: {error}")
            self.slowest = max(self.slowest, time.monotonic() - began)
        return found


def _get(url: str) -> None:
    answer = requests.get(url, timeout=HANG)
    if answer.status_code != 200:
        raise ValueError(f"status {answer.status_code}")


def log_in(port: int) -> None:
    """Begin a login as a worker does; ValueError unless the master answers with a challenge."""
    hello = banana.encode(b"none") + banana.encode([b"version", 6])
    call = [b"message", 1, b"root", b"login", 1, [b"tuple", b"fuzz"], [b"dictionary"]]
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=HANG) as client:
        client.sendall(hello + banana.encode(call))
        deadline = time.monotonic() + HANG
        while b"answer" not in received:
            client.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = client.recv(4096)
            if not chunk:
                raise ValueError(f"closed after {received!r}")
            received += chunk
