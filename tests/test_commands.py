"""The commands of the Makefile: each explains itself, and does nothing else, with --help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
COMMANDS = sorted(
    set(re.findall(r"\$\(PYTHON\) -m ([a-z_.]+)", (CHECKOUT / "Makefile").read_text())) - {"pip"}
)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_all_that_it_does(module: str) -> None:
    """--help ends with status 0 after the usage: nothing is downloaded, tested or started."""
    finished = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert finished.stdout.startswith("usage: "), finished.stdout[:300]
    assert len(finished.stdout.splitlines()) < 60
    assert finished.stderr == ""
