"""A lab that yields: for a benchmark, as in reality what runs for it is on other machines."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LEVEL = 10

VARIABLE = "LAB_YIELDS"
"""In the environment of every process of a lab that yields."""

NICE = ["nice", "-n", str(LEVEL)]
"""Comes before a command; enough where Linux shares its processors between processes."""


def nice_session(pid: int) -> None:
    """Have a session, given by its first process, yield as well.

    With autogroups (sched(7)) Linux shares its processors between sessions, and nice counts only within one.
    """
    with suppress(OSError):  # ended meanwhile, or a kernel without
        Path("/proc", str(pid), "autogroup").write_text(f"{LEVEL}\n")
