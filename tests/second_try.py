"""All tests, side by side; those whose modules failed get one more try, alone: `python -m tests.second_try`, as the gate calls it.

Why, and what it must not hide: docs/adr/0010-a-second-try.md. Arguments are pytest's.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

MOST = 3
"""Modules that may fail by chance: what breaks more than that is broken."""

LONGEST = float(os.environ.get("TESTS_LONGEST", "4200"))
"""Seconds after which pytest is interrupted, so that it still reports what failed before CI ends everything unreported."""

SIDE_BY_SIDE = (
    "--numprocesses", str(min(4, len(os.sched_getaffinity(0)))), "--dist", "loadfile", "--no-loadscope-reorder",
)  # fmt: skip
"""Most tests wait for one process at a time, so one file for each processor runs at once."""


def run(arguments: list[str]) -> int:
    """Run pytest with `arguments`; give its status, or 0 if all that failed passed the second time."""
    with tempfile.NamedTemporaryFile() as report:
        reported = ["--junitxml", report.name, "-o", "junit_family=xunit1"]
        status = _pytest([*SIDE_BY_SIDE, "--durations=20", *reported, *arguments])
        if status != 1:  # 1: tests failed; anything else is no matter of luck
            return status
        failed = _failed(Path(report.name))
    modules = sorted({module for module, _ in failed})
    if not 0 < len(modules) <= MOST:
        print(f"== {len(modules)} modules failed: that is no chance, none is tried again", flush=True)
        return status
    print(f"== a second try, alone: {', '.join(modules)}", flush=True)
    status = _pytest(modules)
    if status == 0:
        print("== PASSED ONLY THE SECOND TIME, which is a defect of the test or of what it tests:")
        for module, test in failed:
            print(f"==   {module}::{test}")
        sys.stdout.flush()
    return status


def _failed(report: Path) -> list[tuple[str, str]]:
    """Give the module and the name of each test that failed, or whose setting up or tearing down did."""
    failed = [
        (case.get("file") or f"{case.get('name', '').replace('.', '/')}.py", case.get("name", ""))
        for case in ET.parse(report).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return list(dict.fromkeys(failed))  # one whose tearing down failed, too, is there twice


def _pytest(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    print(f"== {shlex.join(command[1:])}", flush=True)
    with subprocess.Popen(command) as process:
        try:
            return process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            print(f"== not done after {LONGEST:.0f} s: interrupted", flush=True)
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait() or 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
