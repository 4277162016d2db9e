"""Starting a master while another program has one of its ports."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import Installation

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["www", "packages", "workers"])
def test_a_port_of_another_program_is_named(name: str, tmp_path: Path) -> None:
    """`make start` names the setting, the address and what to do, and starts nothing."""
    made = Installation(tmp_path)
    port = getattr(made.settings, name).port
    with socket.create_server(("127.0.0.1", port)):
        finished = subprocess.run(
            [sys.executable, "-m", "master.control", "start", "--settings", str(made.settings_file)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    assert finished.returncode == 1
    assert finished.stderr == (
        f"{name}.port: 127.0.0.1:{port} cannot be used: Address already in use."
        f" End what uses it, or set another {name}.port.\n"
    )
    assert not made.settings.state.exists()
