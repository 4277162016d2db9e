"""Who has the processors when a lab's work and the tests' compete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.inside.machine import Machine
from lab.priority import LEVEL, VARIABLE
from lab.processes import Processes
from tests.cloud import processes, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEPER = b"sleep\x001004\x00"


def sessions_level(pid: int) -> int | None:
    """Give the level of a process's session, nothing where Linux does not share by sessions."""
    session = Path("/proc", str(pid), "autogroup")
    return int(session.read_text().split()[-1]) if session.exists() else None


@pytest.mark.parametrize("yields", [True, False])
def test_services(tmp_path: Path, yields: bool) -> None:
    """The processes of a lab that yields are nice, and so are their sessions; otherwise neither is."""
    (tmp_path / "log").mkdir()
    started = Processes(tmp_path, yields=yields)
    try:
        started.start("sleeper", ["sleep", "1004"])
        level = LEVEL if yields else 0

        def is_nice() -> bool:
            # On its way from one program to the next it is nobody's for a moment.
            pid = started.pids().get("sleeper")
            return pid is not None and os.getpriority(os.PRIO_PROCESS, pid) == level

        until(is_nice, "it is nice")
        assert sessions_level(started.pids()["sleeper"]) in (level, None)
    finally:
        started.end()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Give a server that is not on."""
    made = Machine(tmp_path / "server", "", lambda: None)
    made.create(b"#!/bin/sh\nexec sleep 1004\n", {})
    try:
        yield made
    finally:
        made.destroy()


@pytest.mark.parametrize("yields", [True, False])
def test_servers(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, yields: bool) -> None:
    """A server is a session of its own: it yields if the lab does, whose nova starts it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if yields:
        monkeypatch.setenv(VARIABLE, "1")
    machine.start(0)
    [pid] = until(
        lambda: [pid for pid, command in processes(tmp_path / "server").items() if command == SLEEPER],
        "it sleeps",
    )
    assert sessions_level(pid) in (LEVEL if yields else 0, None)
