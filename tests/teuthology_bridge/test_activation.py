"""Activating in a virtual environment whose package was not put there by the wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.teuthology_bridge.environments import (
    CHECKOUT,
    FOREIGN,
    HOOKED,
    ORIGIN,
    Environment,
    fake_teuthology,
)

PTH = "zzz_teuthology_bridge.pth"
TASK = str(CHECKOUT / "teuthology_bridge/task.py")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment in which the checkout is importable, and something that has teuthology's name."""
    made = Environment(tmp_path / "venv")
    made.add_path("checkout", CHECKOUT)
    made.add_path("teuthology", fake_teuthology(tmp_path / "teuthology"))
    made.add_yaml()
    return made


def test_activate_and_deactivate(environment: Environment) -> None:
    """The name becomes the bridge's in every new Python of the environment, and its own again."""
    file = environment.packages / PTH
    assert environment.says(ORIGIN).endswith("teuthology/teuthology/task/buildpackages.py")
    said = environment.run("-m", "teuthology_bridge", "activate").stdout
    assert f"{file} is written" in said
    assert f"is {TASK}" in said
    assert file.read_text() == (CHECKOUT / "teuthology_bridge" / PTH).read_text()
    assert environment.says(ORIGIN) == TASK
    assert environment.says(HOOKED) == "['Finder']"
    assert environment.says(FOREIGN) == "[]"
    assert f"{file} is removed" in environment.run("-m", "teuthology_bridge", "deactivate").stdout
    assert not file.exists()
    assert environment.says(ORIGIN).endswith("teuthology/teuthology/task/buildpackages.py")


def test_twice_is_once(environment: Environment) -> None:
    """Doing either twice does it once, and says so; a file of another version is replaced."""
    file = environment.packages / PTH
    environment.run("-m", "teuthology_bridge", "activate")
    assert f"{file} is there already" in environment.run("-m", "teuthology_bridge", "activate").stdout
    file.write_text("# älter\n")
    assert f"{file} is written" in environment.run("-m", "teuthology_bridge", "activate").stdout
    environment.run("-m", "teuthology_bridge", "deactivate")
    assert f"{file} was not there" in environment.run("-m", "teuthology_bridge", "deactivate").stdout


def test_what_is_left_behind_is_silent(environment: Environment, tmp_path: Path) -> None:
    """A file whose package has gone does nothing: every Python of the environment would complain otherwise."""
    environment.run("-m", "teuthology_bridge", "activate")
    (environment.packages / "checkout.pth").unlink()
    assert environment.says(HOOKED) == "[]"


@pytest.mark.parametrize("command", ["activate", "deactivate"])
def test_what_can_not_be_written(environment: Environment, command: str) -> None:
    """Where the file can't be written or removed, the sentence names it, and what to do instead."""
    (environment.packages / PTH).mkdir()
    finished = environment.run("-m", "teuthology_bridge", command, status=1)
    assert finished.stderr.startswith(
        f"buildpackages: {environment.packages / PTH}: Is a directory: run this as"
    )
    assert "PYTHONPATH" in finished.stderr


def test_activating_without_teuthology(environment: Environment) -> None:
    """Where teuthology is not, activating says that this is the wrong environment, and fails."""
    (environment.packages / "teuthology.pth").unlink()
    finished = environment.run("-m", "teuthology_bridge", "activate", status=1)
    assert "has no teuthology" in finished.stdout
