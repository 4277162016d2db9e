"""The wheels of a worker for bookworm's Python, which is this project's own as well: fetched once for all tests."""

from __future__ import annotations

import atexit
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


@cache
def fetched_wheels() -> Path:
    """Give the directory that the command has fetched them into; it goes when the tests end."""
    directory = Path(tempfile.mkdtemp(prefix="wheels-"))
    atexit.register(shutil.rmtree, directory)
    command = ["-m", "workers.wheels", "fetch", "--dist", "bookworm", "--directory", str(directory)]
    done = subprocess.run([sys.executable, *command], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"cp311-{platform.machine()}: 21 wheels\n"), done.stderr
    return directory
