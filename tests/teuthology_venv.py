"""teuthology as it was last released, in a virtual environment of its own that the tests share.

It is a cache of the checkout, made from requirements-teuthology.txt and made anew when that changes.
`python -m tests.teuthology_venv` makes it ahead of the tests, and says where it is. With TEUTHOLOGY_VENV
in the environment the tests take that one instead, as with teuthology from source in it.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
HOME = CHECKOUT / ".teuthology"
VENV = HOME / "venv"
REQUIREMENTS = CHECKOUT / "requirements-teuthology.txt"


def venv() -> Path:
    """Give the virtual environment, made first unless it is there; two that make it wait for one another."""
    if other := os.environ.get("TEUTHOLOGY_VENV"):
        return Path(other)
    HOME.mkdir(exist_ok=True)
    done = VENV / "installed"
    made_from = f"{platform.python_version()}\n{REQUIREMENTS.read_text()}"
    with (HOME / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file() or done.read_text() != made_from:
            # Made anew and not added to: what is no longer named must not stay.
            _run(sys.executable, "-m", "venv", "--clear", str(VENV))
            _run(
                str(VENV / "bin/python"), "-m", "pip", "install", "--quiet",
                "--disable-pip-version-check", "--require-hashes", "--requirement", str(REQUIREMENTS),
            )  # fmt: skip
            done.write_text(made_from)
    return VENV


def _run(*command: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if finished.returncode != 0:
        said = (finished.stderr.strip() or finished.stdout.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{' '.join(command[:4])} ended with status {finished.returncode}: {said}")


if __name__ == "__main__":
    print(venv())
