"""Settings of the `local` provider; part of the settings file, under workers.local."""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from model.http_urls import http_url
from workers import network
from workers.engine import Limits, crun_problems, no_disks, not_enforceable

_STRICT = ConfigDict(extra="forbid")


def _reach(entry: str) -> str:
    network.destinations(entry)
    return entry


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LocalLimits:
    """Limits of each build; 0 is no limit."""

    memory: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """GiB; unless set, seven eighths of the machine's memory, divided by `count`."""
    processes: Annotated[int, Field(ge=0, le=2**22)] = 8192
    processors: Annotated[float, Field(ge=0, le=10_000)] = 0
    disk: Annotated[float, Field(ge=0, le=100_000)] = 0
    """GiB."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Local:
    """The embedded provider: builds on the master's own machine."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    isolation: Literal["auto", "namespaces", "none"] = "auto"
    engine: Literal["script", "crun"] = "script"
    roots: Path = Path("roots")
    scratch: Path = Path("scratch")
    mirrors: dict[
        Annotated[str, Field(pattern="^(debian|ubuntu)$")], Annotated[str, AfterValidator(http_url)]
    ] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    limits: LocalLimits | None = None
    reach: Annotated[tuple[Annotated[str, AfterValidator(_reach)], ...], Field(max_length=200)] | None = None
    """HOST or HOST:PORT; None: the usual hosts of network.py."""

    @property
    def isolated(self) -> bool:
        """Whether each build has namespaces of its own."""
        return self.isolation == "namespaces" or (self.isolation == "auto" and os.geteuid() == 0)

    @property
    def limits_in_force(self) -> Limits:
        """Each build's limits in the kernel's units; none without crun."""
        if self.engine != "crun":
            return Limits()
        limits = self.limits or LocalLimits()
        if limits.memory is None:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 7 // 8 // self.count
        else:
            memory = int(limits.memory * 2**30)
        return Limits(memory, limits.processes, limits.processors, int(limits.disk * 2**30))

    def contradictions(self) -> list[str]:
        """Return a sentence for each setting that does not fit the engine, or that this machine cannot do."""
        if self.engine != "crun":
            wrong = "only the engine crun enforces"
            cure = "set workers.local.engine: crun, or remove"
            return [
                *([f"workers.local.limits: {wrong} limits; {cure} them"] if self.limits is not None else []),
                *([f"workers.local.reach: {wrong} it; {cure} it"] if self.reach is not None else []),
            ]
        if self.isolation == "none":
            return ["workers.local.engine: crun isolates builds, and workers.local.isolation is none"]
        if problems := crun_problems():
            return [f"workers.local.engine: crun cannot be used: {problem}" for problem in problems]
        limits = self.limits_in_force
        disk = no_disks() if limits.disk else ""
        return [
            *([f"workers.local.limits.disk: {disk}; set it to 0 for no limit"] if disk else []),
            *(
                f"workers.local.limits.{name}: this machine has no writable cgroup that enforces it; set it to 0 for no limit"
                for name in not_enforceable(limits)
            ),
        ]
