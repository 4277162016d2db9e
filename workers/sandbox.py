"""The sandbox of a build: a throw-away overlay of a root, in namespaces of its own."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

_ENTER = Path(__file__).parent / "scripts/enter-root.sh"


def enter(
    root: Path, scratch: Path, user: str, *command: str, capabilities: tuple[str, ...] = ()
) -> list[str]:
    """Give the command line that runs `command` as a user of `root`, in `scratch`.

    `capabilities` come on top of those that package managers need. It needs root. Nothing that runs inside outlives it, nor the thread that started it; what is
    left afterwards is the directory `scratch`.
    """
    return [
        "setpriv", "--pdeathsig", "KILL", "--",
        "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL", "--",
        "sh", str(_ENTER), str(root), str(scratch), user,
        "".join(f",+{name}" for name in capabilities), *command,
    ]  # fmt: skip


def mounted(scratch: Path) -> bytes:
    """Give what the mounts of everything inside have in them, as /proc/PID/mountinfo writes it."""
    upper = re.sub(rb"[ \t\n\\,]", lambda found: b"\\%03o" % found[0][0], os.fsencode(scratch / "upper"))
    return b",upperdir=" + upper + b","


def kill_all(mark: str, mounts: bytes) -> list[int]:
    """Kill the processes that have `mark` in their environment or `mounts` among their mounts; give those found.

    A process can rid itself of the mark, but what is in a sandbox can change no mount. Its PID namespace would not do: the
    kernel gives the number of one that has ended to another one soon, so that another build would be taken for it.
    """
    ours = os.readlink("/proc/self/ns/mnt")
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            process = os.pidfd_open(int(entry))
        except ProcessLookupError:
            continue
        try:
            if _is_of(Path("/proc", entry), mark, mounts, ours):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                found.append(int(entry))
        except OSError:  # it has ended, or is none of ours to look at
            continue
        finally:
            os.close(process)
    return found


def _is_of(process: Path, mark: str, mounts: bytes, ours: str) -> bool:
    if os.fsencode(mark) in (process / "environ").read_bytes().split(b"\0"):
        return True
    return os.readlink(process / "ns/mnt") != ours and mounts in (process / "mountinfo").read_bytes()
