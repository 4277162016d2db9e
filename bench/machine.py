"""The machine that was measured on: what makes figures of two machines differ; no names of it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PROGRAMS = {
    "git": ["git", "--version"],
    "apt": ["apt-get", "--version"],
    "rsync": ["rsync", "--version"],
    "curl": ["curl", "--version"],
    "nginx": ["nginx", "-v"],
}


def describe() -> str:
    """Give date, size, load and versions, in a few lines."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown",
    )
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("buildbot", "Twisted", "SQLAlchemy"))
    programs = ", ".join(f"{name} {_version(command)}" for name, command in _PROGRAMS.items())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores ({model}),"
        f" {memory / 1024 / 1024:.0f} GiB of memory; {system}, Linux {platform.release()};"
        f" Python {platform.python_version()}, {libraries}; {programs}."
    )


def load() -> str:
    """Give the load averages of 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


def _version(command: list[str]) -> str:
    try:
        told = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "is not there"
    words = (told.stdout + told.stderr).replace("/", " ").split()
    return next((word for word in words if word[0].isdigit()), "of unknown version")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
