"""A server of the lab: a directory, and processes that cannot outlive it.

With a root, the user data runs as root in a throw-away overlay of it, in the same sandbox as builds
on the master's own machine. Without one, it is a plain process of this machine in a PID namespace.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.priority import VARIABLE, nice_session
from workers.sandbox import enter, kill_all, mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_GUEST = Path(__file__).parent / "guest"
_USER_DATA = "var/lib/cloud/instance/scripts/part-001"
_META_DATA = "var/lib/cloud/instance/meta_data.json"
_MARK = "LAB_SERVER"
"""In the environment of what runs in a server; names its directory."""

_PATIENCE = 20.0
"""Seconds that a killed machine may take until nothing of it runs."""


class Machine:
    """One server, from its spawning to its destruction."""

    def __init__(self, directory: Path, root: str, ended: Callable[[], None]) -> None:
        """Take its directory, its root or nothing, and whom to tell when it ends by itself."""
        self.root = root
        self.on = False
        self._directory = directory
        self._ended = ended
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    def create(self, user_data: bytes, meta_data: Mapping[str, Any]) -> None:
        """Lay out its directory, as cloud-init would find it."""
        upper = self.upper if self.root else self._directory
        (upper / _USER_DATA).parent.mkdir(parents=True, mode=0o755)
        (upper / _META_DATA).write_text(json.dumps(meta_data))
        if user_data:
            script = upper / _USER_DATA
            script.write_bytes(user_data)
            script.chmod(0o700)
        if self.root:
            for tool in ("poweroff", "shutdown"):
                if not any((Path(layer) / "usr/sbin" / tool).exists() for layer in self.root.split(":")):
                    (upper / "usr/sbin").mkdir(parents=True, exist_ok=True)
                    shutil.copy(_GUEST / "poweroff.sh", upper / "usr/sbin" / tool)
        self.console_path.touch()

    @property
    def upper(self) -> Path:
        """What the server has changed of its root."""
        return self._directory / "upper"

    @property
    def console_path(self) -> Path:
        """What it has printed."""
        return self._directory / "console.log"

    def console(self) -> bytes:
        """Give what it has printed."""
        return self.console_path.read_bytes()

    def say(self, line: str) -> None:
        """Print a line on its console."""
        with self.console_path.open("a") as console:
            console.write(f"{line}\n")

    def start(self, delay: float, *, again: bool = False) -> None:
        """Switch it on: after a delay its user data runs, unless it has run before."""
        self.on = True
        # What an overlay has left there would keep the next one from being mounted.
        shutil.rmtree(self._directory / "work", ignore_errors=True)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(delay, again, self._stopping), daemon=True)
        self._thread.start()

    def switch_on_silent(self) -> None:
        """Switch it on, and run nothing."""
        self.on = True

    def stop(self) -> None:
        """Kill all that runs in it; its directory stays."""
        self.on = False
        self._stopping.set()
        with self._starting:
            process = self._process
        if process is not None:
            self._kill(process)
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        self._process = self._thread = None

    def destroy(self) -> None:
        """End it, and remove its directory."""
        self.stop()
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(self._directory)], check=True)

    def _run(self, delay: float, again: bool, stopping: threading.Event) -> None:
        """Start it and see to its end. The kernel kills it when this thread ends, and so when nova does."""
        if stopping.wait(delay):
            return
        with self._starting:
            if stopping.is_set():
                return
            with self.console_path.open("ab") as console:
                self._process = subprocess.Popen(
                    self._command(again), cwd="/", stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                    env=self._environment(), start_new_session=True,
                )  # fmt: skip
            if VARIABLE in os.environ:
                nice_session(self._process.pid)
            process = self._process
        process.wait()
        if not stopping.is_set():
            self.on = False
            self._ended()

    def _command(self, again: bool) -> list[str]:
        init = (_GUEST / "init.sh").read_text()
        run = "" if again else f"/{_USER_DATA}"
        if self.root:
            # A root is one directory, or some separated by colons: a snapshot lies upon what it is of.
            return enter(
                Path(self.root),
                self._directory,
                "root",
                "sh",
                "-c",
                init,
                "lab-init",
                run,
                "/run/lab-init.pid",
            )
        run = "" if again else str(self._directory / _USER_DATA)
        return [
            "setpriv", "--pdeathsig", "KILL", "--",
            "unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child=KILL", "--",
            "sh", "-c", 'mount --bind "$2" "$2" && cd "$2" && exec sh -c "$0" lab-init "$1" lab-init.pid',
            init, run, str(self._directory),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root" if self.root else str(self._directory),
            "LANG": "C.UTF-8",
            _MARK: str(self._directory),
        }

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what runs in it until nothing does."""
        mounts = mounted(self._directory) if self.root else b" " + os.fsencode(self._directory) + b" "
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            running = kill_all(f"{_MARK}={self._directory}", mounts)
            if not running and process.poll() is not None:
                return
            time.sleep(0.02)
        raise TimeoutError(f"{self._directory.name}: still running after {_PATIENCE} s: {running}")
