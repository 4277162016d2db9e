"""The git daemon of the demonstration: serves the input repositories on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

_SECONDS = 60


def serve(directory: Path, port: int) -> None:
    """Serve every repository below a directory, in the background, unless it is served already."""
    if _running(directory):
        return
    log = (directory / "git-daemon.log").open("w")
    process = subprocess.Popen(
        ["git", "daemon", f"--base-path={directory}", "--export-all", "--reuseaddr",
         "--listen=127.0.0.1", f"--port={port}", str(directory)],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    (directory / "git-daemon.pid").write_text(f"{process.pid}\n")
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"git daemon does not listen on port {port}; its log: {log.name}")


def stop(directory: Path) -> None:
    """End the daemon, if it runs."""
    pid = _running(directory)
    if pid:
        os.kill(pid, signal.SIGTERM)


def _running(directory: Path) -> int:
    try:
        pid = int((directory / "git-daemon.pid").read_text())
        command = Path("/proc", str(pid), "cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if b"git" in command and os.fsencode(directory) in command else 0
