"""The sandbox of a build: a throw-away overlay of a root, in namespaces of its own."""

from __future__ import annotations

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
