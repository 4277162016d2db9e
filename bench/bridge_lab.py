"""Tasks of teuthology jobs, run by teuthology's own Python, against a master of the benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests import teuthology_venv
from tests.integration.harness import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.harness import Installation

_SCRIPT = CHECKOUT / "bench/bridge_tasks.py"
_LEAD = 8.0
"""Seconds in which all processes have imported teuthology and made their greenlets."""


def job(sha1: str, number: int) -> dict[str, Any]:
    """Give the configuration of one job that installs a commit."""
    return {
        "name": "bench",
        "job_id": str(number),
        "os_type": "debian",
        "os_version": "12",
        "tasks": [{"install": None}],
        "overrides": {"install": {"ceph": {"sha1": sha1}}},
    }


def in_turn(here: Installation, jobs: Sequence[dict[str, Any]], bare: str) -> list[dict[str, Any]]:
    """Run tasks one after the other, each beside one bare GET; give what came of each."""
    return _ended(_begun(here, jobs, bare=bare))


class AtOnce:
    """Tasks that begin at the same moment, in some processes."""

    def __init__(self, here: Installation, jobs: Sequence[dict[str, Any]], processes: int) -> None:
        """Start the processes; `at` is when their tasks begin."""
        self.at = time.time() + _LEAD
        self._processes = [_begun(here, jobs[number::processes], at=self.at) for number in range(processes)]

    def outcomes(self) -> list[dict[str, Any]]:
        """Wait for all; give what came of each."""
        return [outcome for process in self._processes for outcome in _ended(process)]


def _begun(here: Installation, jobs: Sequence[dict[str, Any]], **more: Any) -> subprocess.Popen[str]:
    site = {
        "buildpackages": {"url": here.url, "packages_url": here.packages_url, "token": here.token},
        "ceph_git_url": here.git_url,
        "lab_domain": "",
    }
    process = subprocess.Popen(
        [teuthology_venv.venv() / "bin/python", _SCRIPT],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "no_proxy": "*", "HOME": str(here.directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jobs": list(jobs), "site": site, **more}))
    process.stdin.close()
    process.stdin = None
    return process


def _ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    text, _ = process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f"the tasks' process ended with status {process.returncode}")
    found: list[dict[str, Any]] = json.loads(text)
    return found
