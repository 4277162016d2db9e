"""A command whose output is cut off by `| head` ends without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("model", "master", "workers")
COMMANDS = sorted(
    ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__main__")
    for folder in FOLDERS
    for path in (CHECKOUT / folder).rglob("*.py")
    if "scripts" not in path.parts and 'if __name__ == "__main__":' in path.read_text()
)


@pytest.mark.parametrize(
    "arguments", [["-m", name, "--help"] for name in COMMANDS] + [["-m", "model.targets"]]
)
def test_a_closed_pipe_is_no_traceback(arguments: list[str]) -> None:
    """The reader has gone before the first line: the status is SIGPIPE's, and nothing is on standard error."""
    read, write = os.pipe()
    os.close(read)
    finished = subprocess.run(
        [sys.executable, *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    os.close(write)
    assert finished.stderr == ""
    # argparse itself ignores the error when Python does not buffer standard output.
    assert finished.returncode in ((0, 141) if "--help" in arguments else (141,))


def test_there_are_commands() -> None:
    """The list above is made by a search, which must find them."""
    assert {"model.targets", "master.purge", "workers.wheels"} <= set(COMMANDS)
