"""The gate's second try: what it gives one to, and what not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

PASSES = """
def test_passes():
    pass
"""
FAILS = """
def test_fails():
    raise AssertionError("as ever")
"""
HANGS = """
import time

def test_fails_before():
    raise AssertionError("before the one that hangs")

def test_hangs():
    while True:
        try:
            time.sleep(600)
        except Exception:
            pass
"""
FAILS_ONCE = """
from pathlib import Path

def test_comes_first():
    Path("MODULE-first").touch()

def test_fails_once():
    was_there = Path("MODULE-tried").exists()
    Path("MODULE-tried").touch()
    Path("MODULE-first").unlink()  # a test may need what those before it in its module do
    assert was_there
"""


def tried(directory: Path, longest: int = 300, **modules: str) -> subprocess.CompletedProcess[str]:
    """Run modules of tests in a directory as the gate does."""
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(text.replace("MODULE", name))
    return subprocess.run(
        [sys.executable, "-m", "tests.second_try"],
        cwd=directory, env={**os.environ, "PYTHONPATH": str(CHECKOUT), "TESTS_LONGEST": str(longest)}, capture_output=True, text=True,
    )  # fmt: skip


def test_what_passes_is_run_once(tmp_path: Path) -> None:
    """Nothing is said of a second try where none was needed."""
    said = tried(tmp_path, test_good=PASSES)
    assert said.returncode == 0, said.stdout
    assert "second" not in said.stdout.replace("tests.second_try", "")


def test_what_fails_once_passes_and_is_named(tmp_path: Path) -> None:
    """Its whole module is run again, and nothing but that; the end says which test it was."""
    said = tried(tmp_path, test_shaky=FAILS_ONCE, test_good=PASSES)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "== a second try, alone: test_shaky.py\n" in said.stdout
    assert said.stdout.endswith(
        "== PASSED ONLY THE SECOND TIME, which is a defect of the test or of what it tests:\n"
        "==   test_shaky.py::test_fails_once\n"
    )
    assert "2 passed" in said.stdout.split("a second try")[1]


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    """One that fails again ends the gate, also where another one passed the second time."""
    said = tried(tmp_path, test_bad=FAILS, test_shaky=FAILS_ONCE)
    assert said.returncode == 1
    assert "== a second try, alone: test_bad.py, test_shaky.py\n" in said.stdout
    assert "PASSED ONLY" not in said.stdout


def test_many_failures_are_no_chance(tmp_path: Path) -> None:
    """Four modules that failed are not tried again."""
    said = tried(tmp_path, **{f"test_shaky{number}": FAILS_ONCE for number in range(4)})
    assert said.returncode == 1
    assert said.stdout.endswith("== 4 modules failed: that is no chance, none is tried again\n")


def test_a_module_that_cannot_be_imported_fails(tmp_path: Path) -> None:
    """It fails the second time, too, and what is tried with it is no success."""
    said = tried(tmp_path, test_broken="import nothing_of_that_name", test_shaky=FAILS_ONCE)
    assert said.returncode != 0
    assert "PASSED ONLY" not in said.stdout


def test_an_interrupted_run_is_not_tried_again(tmp_path: Path) -> None:
    """Who ends the gate by hand wants it to end."""
    said = tried(
        tmp_path,
        test_shaky=FAILS_ONCE,
        test_stop="import pytest\ndef test_stops():\n    pytest.exit('enough')",
    )
    assert said.returncode not in {0, 1}, said.stdout
    assert "a second try" not in said.stdout


def test_a_hanging_run_ends_with_a_report(tmp_path: Path) -> None:
    """Failures before the hang are printed, and the status is not 0."""
    result = tried(tmp_path, longest=15, test_hanging=HANGS)
    assert result.returncode != 0
    assert "== not done after 15 s: interrupted" in result.stdout
    assert "FAILED test_hanging.py::test_fails_before" in result.stdout
