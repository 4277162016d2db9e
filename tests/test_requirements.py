"""Attack D12: whoever gets into one of the packages that we install is in the master; so each is locked by its hashes."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def renew(checkout: Path = CHECKOUT) -> Any:
    """Return the module that makes and checks the locks, of a checkout or of a copy of its requirements."""
    spec = importlib.util.spec_from_file_location("renew", checkout / "requirements/renew.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a copy of the inputs and locks."""
    shutil.copytree(CHECKOUT / "requirements", tmp_path / "requirements")
    (tmp_path / "workers").mkdir()
    for path in [*CHECKOUT.glob("requirements*.txt"), CHECKOUT / "workers/worker-requirements.txt"]:
        shutil.copy(path, tmp_path / path.relative_to(CHECKOUT))
    return tmp_path


def test_every_requirement_is_locked() -> None:
    """Each lock has all of its input, and a hash of each release."""
    assert renew().problems() == []


def test_a_missing_hash_is_named(copied: Path) -> None:
    """A line without a hash, as somebody may add by hand, is a problem."""
    with (copied / "requirements-dev.txt").open("a") as file:
        file.write("left-pad==1.0\n")
    assert renew(copied).problems() == ["requirements-dev.txt: left-pad==1.0 has no hash"]


def test_an_input_that_is_newer_is_named(copied: Path) -> None:
    """An input whose lock was not renewed is a problem that says what to do."""
    path = copied / "requirements/master.in"
    path.write_text(path.read_text().replace("defusedxml==0.7.1", "defusedxml==0.7.2"))
    [sentence] = renew(copied).problems()
    assert sentence == (
        "requirements.txt: defusedxml==0.7.2 of requirements/master.in is missing; run make lock"
    )


def test_workers_have_the_masters_version_of_buildbot() -> None:
    """buildbot-worker is locked in one version, for the master's tests and for the machines."""
    module = renew()
    versions = {
        pin
        for lock in ("requirements.txt", module.WORKER_LOCK)
        for pin in module.pins((CHECKOUT / lock).read_text())
        if pin.startswith("buildbot-worker==")
    }
    assert len(versions) == 1


@pytest.mark.parametrize(
    "path", ["Makefile", "lab/install.py", "tests/teuthology_venv.py", "workers/wheels.py"]
)
def test_pip_demands_hashes(path: str) -> None:
    """Whatever installs or downloads requirements does so with --require-hashes."""
    text = (CHECKOUT / path).read_text()
    assert text.count("--require-hashes") == text.count("--disable-pip-version-check") > 0


def test_a_release_that_was_replaced_is_refused(tmp_path: Path) -> None:
    """pip refuses a file whose digest is not locked."""
    locked = (CHECKOUT / "requirements.txt").read_text()
    [*_, line] = [line for line in locked.splitlines() if line.startswith("defusedxml==")]
    forged = tmp_path / "forged.txt"
    forged.write_text(f"{line.removesuffix(chr(92)).strip()} --hash=sha256:{'0' * 64}\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", forged, "-d", tmp_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "DO NOT MATCH THE HASHES" in ran.stderr
