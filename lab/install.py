"""Makes the lab's own virtual environment, with OpenStack in it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.layout import REQUIREMENTS, VENV

if TYPE_CHECKING:
    from collections.abc import Callable


def install(say: Callable[[str], None]) -> None:
    """Make it, or make it anew when what it is made from has changed; LabError says what failed."""
    done = VENV / "installed"
    wanted = REQUIREMENTS.read_text()
    if done.is_file() and done.read_text() == wanted:
        return
    say(f"installing OpenStack into {VENV}: two to three minutes, once")
    if not (VENV / "bin/python").exists():
        _run([sys.executable, "-m", "venv", str(VENV)])
    _run(
        [str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--require-hashes", "-r", str(REQUIREMENTS)]
    )  # fmt: skip
    done.write_text(wanted)


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if finished.returncode != 0:
        said = (finished.stderr.strip() or finished.stdout.strip() or "no message").splitlines()[-1]
        raise LabError(f"{' '.join(command[:4])} ended with status {finished.returncode}: {said}")
