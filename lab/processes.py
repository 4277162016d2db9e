"""The processes of a lab: started, waited for, and ended, by pid.

They are known by a mark in their environment, so a lab that was killed in the middle of anything
is found as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.layout import CHECKOUT, MARK, VENV
from lab.priority import NICE, VARIABLE, nice_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PATIENCE = 20.0


class Processes:
    """What runs for one lab."""

    def __init__(self, directory: Path, *, attached: bool = False, yields: bool = False) -> None:
        """Take the lab's directory; what is attached is killed by the kernel when we end, what yields has less of the processors."""
        self._directory = directory
        self.yields = yields
        self._tied = ["setpriv", "--pdeathsig", "KILL", "--"] if attached else []
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self) -> dict[str, str]:
        """Give the environment of everything that runs for the lab."""
        etc = self._directory / "etc"
        services = {
            f"OS_{name.upper()}_CONFIG_DIR": str(etc / name)
            for name in ("keystone", "glance", "placement", "nova", "neutron")
        }
        return {
            "PATH": f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": f"{CHECKOUT}:{self._directory / 'lib'}",
            "PYTHONWARNINGS": "ignore",
            "HOME": str(self._directory),
            "LANG": "C.UTF-8",
            "OS_NOVA_DISABLE_EVENTLET_PATCHING": "1",
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
            **services,
            **({VARIABLE: "1"} if self.yields else {}),
            MARK: str(self._directory),
        }

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process in the background; what it prints goes to its log."""
        with self._log(name).open("ab") as log:
            self._started[name] = subprocess.Popen(
                [*(NICE if self.yields else []), *self._tied, *command], cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**self.environment(), **(more or {})}, pass_fds=pass_fds,
                start_new_session=True,
            )  # fmt: skip
        if self.yields:
            nice_session(self._started[name].pid)
        with (self._directory / "pids").open("a") as pids:
            pids.write(f"{name} {self._started[name].pid}\n")

    def finish(self, name: str) -> None:
        """Wait for a process that ends by itself; LabError says what it said if it failed."""
        process = self._started.pop(name)
        if process.wait() != 0:
            raise LabError(f"{name} failed: {self.last_words(name)}")

    def check(self) -> None:
        """LabError says which process has ended, and what it said."""
        for name, process in self._started.items():
            if process.poll() is not None:
                raise LabError(f"{name} ended with status {process.returncode}: {self.last_words(name)}")

    def pids(self) -> dict[str, int]:
        """Give what runs, by name."""
        running = set(self.running())
        try:
            lines = (self._directory / "pids").read_text().splitlines()
        except OSError:
            return {}
        named = {name: int(pid) for name, _, pid in (line.partition(" ") for line in lines)}
        return {name: pid for name, pid in named.items() if pid in running}

    def running(self) -> list[int]:
        """Give every process that bears the lab's mark."""
        mark = f"{MARK}={self._directory}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with suppress(OSError):
                    if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def kill(self, name: str) -> None:
        """Kill one process, and wait until it is gone."""
        pid = self.pids().get(name)
        if pid is None:
            raise LabError(f"{name} does not run in {self._directory}")
        os.kill(pid, signal.SIGKILL)
        self._until_gone(lambda: pid in self.running())

    def stop(self, name: str) -> None:
        """Have a process of ours end in its own way, and wait for that."""
        process = self._started.pop(name)
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise LabError(f"{name} does not end: see {self._log(name)}") from None

    def end(self) -> None:
        """Kill everything that bears the mark, until nothing does."""

        def some() -> bool:
            running = self.running()
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return bool(running)

        self._until_gone(some)
        (self._directory / "pids").unlink(missing_ok=True)

    def last_words(self, name: str) -> str:
        """Give the last line of a process's log."""
        with suppress(OSError):
            lines = self._log(name).read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1].strip()[:300]} (all of it: {self._log(name)})"
        return "it said nothing"

    def _log(self, name: str) -> Path:
        return self._directory / "log" / f"{name}.out"

    def _until_gone(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while there():
            for process in self._started.values():
                process.poll()
            if time.monotonic() > deadline:
                raise LabError(f"still running for {self._directory}: {self.running()}")
            time.sleep(0.02)
