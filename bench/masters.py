"""Masters to measure: ours, and a stock Buildbot with one LocalWorker beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests

from bench.moments import Moments
from tests.integration.harness import CHECKOUT, Installation
from tests.patience import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HAND = ("by-hand", "a password for one run on loopback")
"""Name and password of the stock master's second worker, which the benchmark starts itself."""

_CONFIG = """
from buildbot.plugins import schedulers, steps, util, worker

c = BuildmasterConfig = {{
    "workers": [worker.LocalWorker("local"), worker.Worker(*{hand!r})],
    "builders": [
        util.BuilderConfig(
            name="echo", workernames=["local"],
            factory=util.BuildFactory([steps.ShellCommand(command=["echo", "hello"])]),
        )
    ],
    "schedulers": [schedulers.ForceScheduler(name="force", builderNames=["echo"])],
    "protocols": {{"pb": {{"port": "tcp:{pb}:interface=127.0.0.1"}}}},
    "www": {{"port": "tcp:{www}:interface=127.0.0.1"}},
    "buildbotURL": "http://127.0.0.1:{www}/",
    "buildbotNetUsageData": None,
}}
"""


@contextmanager
def measured(directory: Path, **overrides: Any) -> Iterator[tuple[Installation, Moments]]:
    """Give an installation that is not started yet, with the moments of its master; end it after."""
    directory.mkdir()
    moments = Moments(directory / "moments", CHECKOUT)
    installation = Installation(directory, **overrides)
    try:
        yield installation, moments
    finally:
        installation.stop()


class StockMaster:
    """A running master as Buildbot ships it."""

    def __init__(self, directory: Path) -> None:
        """Make it and start it; returns once it answers."""
        directory.mkdir()
        self.directory = directory
        self.www, self.pb = free_ports(2)
        self.moments = Moments(directory / "moments", CHECKOUT)
        _buildbot("create-master", "--quiet", str(directory))
        (directory / "master.cfg").write_text(_CONFIG.format(hand=HAND, pb=self.pb, www=self.www))
        site = directory / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(self.moments.patch)
        _buildbot("start", "--start_timeout=180", str(directory), PYTHONPATH=str(site))
        self.until(lambda: self.get("forceschedulers/force"), "the stock master answers")

    def force(self) -> int:
        """Have one build; give its buildrequest's id."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"builderNames": ["echo"]}}
        answer = requests.post(f"{self._url}forceschedulers/force", json=body, timeout=60)
        answer.raise_for_status()
        [number] = answer.json()["result"][1].values()
        return int(number)

    def complete(self, number: int) -> bool:
        """Whether a buildrequest is."""
        [request] = self.get(f"buildrequests/{number}")["buildrequests"]
        return bool(request["complete"])

    def get(self, path: str) -> Any:
        """Read the REST API."""
        answer = requests.get(f"{self._url}{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition; RuntimeError if it does not come about."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except requests.RequestException:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not within 180 s: {what}; see {self.directory}/twistd.log")

    def stop(self) -> None:
        """End it."""
        pid = self.directory / "twistd.pid"
        os.kill(int(pid.read_text()), signal.SIGTERM)
        self.until(lambda: not pid.exists(), "the stock master is gone")

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.www}/api/v2/"


@contextmanager
def stock(directory: Path) -> Iterator[StockMaster]:
    """Give a stock master, and end it after."""
    master = StockMaster(directory)
    try:
        yield master
    finally:
        master.stop()


def _buildbot(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-c", "from buildbot.scripts.runner import run; run()", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
