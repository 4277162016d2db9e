"""The gate: lint, types, shellcheck, the roots, the lab, the teuthology and the files of Ceph that tests need, then all tests. `make test` calls it, and CI calls that.

Stops at the first that fails. `--lint` leaves out the tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

TARGETS = (
    "ceph-deb-bookworm-x86_64-default",
    "ceph-deb-trixie-x86_64-default",
    "ceph-rpm-centos9-x86_64-default",
)
"""What the tests build."""


def shell_scripts() -> list[str]:
    """Every shell script of the repository that git knows, or would."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout.split("\n")  # fmt: skip
    return [
        name
        for name in listed
        if name and (CHECKOUT / name).is_file()
        and (name.endswith(".sh") or (CHECKOUT / name).read_bytes()[:20].startswith((b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env ba")))
    ]  # fmt: skip


def main() -> int:
    """Run the checks in order; give the status of the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.gate", description=__doc__)
    parser.add_argument("--lint", action="store_true", help="only lint, types and shellcheck")
    lint_only = parser.parse_args().lint
    python = sys.executable
    checks = [
        ("ruff", [python, "-m", "ruff", "check", "."]),
        ("format", [python, "-m", "ruff", "format", "--check", "."]),
        ("mypy", [python, "-m", "mypy"]),
        ("shellcheck", ["shellcheck", "-x", "-P", "steps/scripts", *shell_scripts()]),
    ]
    if not lint_only:
        # Made on demand they would count against the time that a test waits for its build.
        roots = [python, "-m", "workers.roots", "--directory", "roots", "prepare", *TARGETS]
        checks.append(("roots", roots))
        # The lab's virtual environment, and the template that the tests' lab starts from.
        checks.append(("lab", [python, "-m", "lab", "up", ".lab/gate"]))
        checks.append(("lab down", [python, "-m", "lab", "down", ".lab/gate"]))
        # teuthology's virtual environment, and what its test node has besides a prepared root.
        checks.append(("teuthology", [python, "-m", "tests.teuthology_venv"]))
        checks.append(("test node", [python, "-m", "tests.ssh_target"]))
        # The files of the real Ceph, out of two tarballs of 394 MB in all.
        checks.append(("real Ceph", [python, "-m", "tests.real_ceph.upstream_files"]))
        checks.append(("tests", [python, "-m", "tests.second_try"]))
    for name, command in checks:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        status = subprocess.run(command, cwd=CHECKOUT).returncode
        print(f"== {name}: {'ok' if status == 0 else 'failed'}, {time.monotonic() - began:.0f} s", flush=True)
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
