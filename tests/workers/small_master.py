"""A small real Buildbot master: one worker, one builder, one build that asks the machine who it is."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tests import patience
from tests.patience import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER, PASSWORD = "machine-1", "a-password of this boot's 'own' \"$(true)\" \\n"

_CONFIG = """
import json, os
from buildbot.plugins import schedulers, steps, util, worker
settings = json.loads(os.environ["SMALL_MASTER"])
c = BuildmasterConfig = {
    "workers": [worker.Worker(settings["worker"], settings["password"], max_builds=1)],
    "builders": [util.BuilderConfig("who", workernames=[settings["worker"]], factory=util.BuildFactory([
        steps.ShellCommand(name="who", command=["sh", "-c", settings["command"]], logEnviron=True)]))],
    "schedulers": [schedulers.Periodic("once", builderNames=["who"], periodicBuildTimer=86400)],
    "protocols": {"pb": {"port": settings["pb"]}},
    "www": {"port": f"tcp:{settings['www']}:interface=127.0.0.1"},
    "buildbotURL": f"http://127.0.0.1:{settings['www']}/",
    "db": {"db_url": "sqlite:///state.sqlite"},
    "buildbotNetUsageData": None,
}
"""


class SmallMaster:
    """A running master."""

    def __init__(self, directory: Path, www: int, port: int) -> None:
        self.directory = directory
        self.port = port
        self._url = f"http://127.0.0.1:{www}/api/v2/"

    def get(self, path: str) -> Any:
        """Read the REST API."""
        answer = requests.get(self._url + path, timeout=30)
        answer.raise_for_status()
        return answer.json()

    @property
    def attached(self) -> bool:
        """Whether the worker is there."""
        [worker] = self.get("workers")["workers"]
        return bool(worker["connected_to"])

    def said(self) -> str:
        """Give what the build's only step printed, once the build is complete."""
        builds = self.get("builds")["builds"]
        if not builds or not builds[0]["complete"]:
            return ""
        [step] = [one for one in self.get("builds/1/steps")["steps"] if one["name"] == "who"]
        [log] = self.get(f"steps/{step['stepid']}/logs")["logs"]
        return requests.get(f"{self._url}logs/{log['logid']}/raw", timeout=30).text

    def log(self) -> str:
        """Give the master's own log."""
        return (self.directory / "output").read_text()


def until(condition: Any, what: str, seconds: float = 60) -> Any:
    """Wait for a condition; the sentence says what did not come about."""
    return patience.until(condition, what, seconds, away=(requests.RequestException,))


@contextmanager
def small_master(
    directory: Path, *, pb: str = "", command: str = "id -un; sudo -n id -un", name: str = WORKER
) -> Iterator[SmallMaster]:
    """Give a running master; `pb` is its endpoint for workers with `{port}` for the port."""
    import json

    www, port = free_ports(2)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "master.cfg").write_text(_CONFIG)
    settings = {"worker": name, "password": PASSWORD, "www": www, "command": command}
    settings["pb"] = (pb or "tcp:{port}:interface=127.0.0.1").format(port=port)
    environment = {**os.environ, "SMALL_MASTER": json.dumps(settings), "PYTHONSAFEPATH": "1"}
    buildbot = [str(Path(sys.executable).with_name("buildbot"))]
    subprocess.run(
        [*buildbot, "create-master", "--quiet", str(directory)],
        env=environment, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with (directory / "output").open("w") as output:
        process = subprocess.Popen(
            [*buildbot, "start", "--nodaemon", str(directory)],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    made = SmallMaster(directory, www, port)
    try:
        until(lambda: made.get("workers")["workers"], made.log)
        yield made
    finally:
        process.kill()
        process.wait()
