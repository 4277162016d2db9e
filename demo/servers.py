"""The servers of the demonstration, on loopback: git for its repositories, HTTP for what its make-dist downloads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
DOWNLOADS = "downloads"
"""The directory beside the repositories that is served over HTTP."""

_SECONDS = 60


class PortTaken(RuntimeError):
    """Another program listens on the port; the message says how to find it."""


@dataclass(frozen=True)
class _Server:
    """A program that serves a directory in the background; its pid and log lie in that directory."""

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def _pid_file(self) -> Path:
        return self.directory / f"{self.name}.pid"

    def running(self) -> int:
        """Return the pid of the running server, or 0."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path("/proc", str(pid), "cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if os.fsencode(self.directory) in command else 0

    def start(self, port: int, *command: str) -> None:
        """Start it unless it runs, and wait until it accepts connections."""
        if self.running():
            return
        _check_free(port, self.name)
        with self.log.open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._pid_file.write_text(f"{process.pid}\n")
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not listen on port {port}; its log: {self.log}")

    def stop(self) -> None:
        """End it, if it runs."""
        pid = self.running()
        if pid:
            os.kill(pid, signal.SIGTERM)


def serve_repositories(directory: Path, port: int) -> None:
    """Serve every repository below a directory, in the background, unless it is served already."""
    _git_daemon(directory).start(
        port,
        "git", "daemon", f"--base-path={directory}", "--export-all", "--reuseaddr",
        f"--listen={HOST}", f"--port={port}", str(directory),
    )  # fmt: skip


def serve_downloads(directory: Path, port: int) -> str:
    """Serve the downloads beside the repositories, in the background, unless they are served already; return the URL."""
    downloads = directory / DOWNLOADS
    command = [sys.executable, "-m", "http.server", "--bind", HOST, "--directory", str(downloads), str(port)]
    _http_server(directory).start(port, *command)
    return f"http://{HOST}:{port}"


def stop(directory: Path) -> None:
    """End the servers of a directory, if they run."""
    _git_daemon(directory).stop()
    _http_server(directory).stop()


def _git_daemon(directory: Path) -> _Server:
    return _Server("git-daemon", directory)


def _http_server(directory: Path) -> _Server:
    return _Server("http-server", directory)


def _check_free(port: int, name: str) -> None:
    """Raise PortTaken if another program listens on the port: our clients would take its answers for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(
                f"another program uses port {port} of {HOST}, which the demonstration's {name} needs ({error.strerror})."
                f" `ss -ltnp 'sport = :{port}'` shows which: stop it, then run this again"
            ) from None
