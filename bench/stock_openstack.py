"""A stock Buildbot whose builds run on servers of its own OpenStackLatentWorker; what ours is measured beside."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

from bench.moments import Moments
from bench.openstack_probe import Lags, soon, until
from lab.layout import PASSWORD
from model.targets import Target
from tests.integration.harness import CHECKOUT, DEB
from tests.patience import free_ports
from workers.user_data import BootConfig, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.openstack_lab import Ground

HAND = "by-hand"
"""The worker whose server the benchmark makes itself."""

START_TIMEOUT = 120
"""Seconds that a worker has to attach; the same as ours."""

_CONFIG = """
import json
from pathlib import Path

from buildbot.plugins import schedulers, steps, util, worker

given = json.loads((Path(__file__).parent / "given.json").read_text())
names = [one["name"] for one in given["workers"]]

c = BuildmasterConfig = {
    "title": "stock",
    "workers": [
        worker.OpenStackLatentWorker(
            one["name"], one["password"], flavor=given["flavor"], image=given["image"],
            os_auth_args=dict(given["auth"]), build_wait_timeout=0, max_builds=1,
            missing_timeout=given["start_timeout"],
            nova_args={
                "userdata": one["user_data"], "nics": [{"net-id": given["network"]}], "config_drive": True,
            },
        )
        for one in given["workers"]
    ] + [worker.Worker(*given["hand"])],
    "builders": [
        util.BuilderConfig(
            name="machine", workernames=names, collapseRequests=False,
            factory=util.BuildFactory([steps.ShellCommand(command=["sh", "-c", util.Property("work")])]),
        )
    ],
    "schedulers": [
        schedulers.ForceScheduler(
            name="force", builderNames=["machine"], properties=[util.StringParameter("work")]
        )
    ],
    "protocols": {"pb": {"port": "tcp:%d:interface=127.0.0.1" % given["pb"]}},
    "www": {"port": "tcp:%d:interface=127.0.0.1" % given["www"]},
    "buildbotURL": "http://127.0.0.1:%d/" % given["www"],
    "buildbotNetUsageData": None,
}
"""

_PLAIN = """\
#!/bin/sh
# What Buildbot's manual has a worker's machine do: such a worker tries to connect for ever.
export PYTHONPATH=/opt/buildbot-worker LANG=C.UTF-8
worker="import sys; from buildbot_worker.scripts.runner import run; sys.argv[0] = 'buildbot-worker'; run()"
python3 -c "$worker" create-worker --quiet /var/lib/worker 127.0.0.1:{port} {name} {password}
exec python3 -c "$worker" start --nodaemon /var/lib/worker
"""

Build = dict[str, Any]


class Login(NamedTuple):
    """A worker's name, its password, and what its server runs."""

    name: str
    password: str
    user_data: str


class StockOpenStack:
    """A running stock master; its builds do what the request's `work` says, in a shell."""

    def __init__(
        self, directory: Path, ground: Ground, auth_url: str, workers: int, *, plain: bool = False
    ) -> None:
        """Make it, and start it; returns once it answers.

        Its servers run the very user data that ours run, so that the machines are the same, or the plain one
        that Buildbot's manual leads to.
        """
        directory.mkdir()
        self._plain = plain
        self.directory = directory
        self.www, self._pb = free_ports(2)
        self.url = f"http://127.0.0.1:{self.www}/"
        self.moments = Moments(directory / "moments", CHECKOUT)
        self.lags = Lags(directory / "lags")
        self.prefix = f"stock-{secrets.token_hex(3)}"
        self.hand = self._login(HAND)
        self._ground = ground
        logins = [self._login(f"{self.prefix}-{number}") for number in range(1, workers + 1)]
        (directory / "given.json").write_text(
            json.dumps(
                {
                    "workers": [one._asdict() for one in logins],
                    "hand": self.hand[:2],
                    "flavor": ground.flavor,
                    "image": ground.image,
                    "network": ground.network,
                    "auth": {
                        "auth_url": auth_url, "username": "packages", "password": PASSWORD,
                        "project_name": "packages", "user_domain_id": "default",
                        "project_domain_id": "default",
                    },
                    "start_timeout": START_TIMEOUT,
                    "pb": self._pb,
                    "www": self.www,
                }
            )
        )  # fmt: skip
        self._buildbot("create-master", "--quiet", str(directory))
        (directory / "master.cfg").write_text(_CONFIG)
        site = directory / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(self.moments.patch + self.lags.patch)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._pid_file.unlink(missing_ok=True)
        self._buildbot("start", "--start_timeout=180", str(self.directory))
        until(lambda: self.get("forceschedulers/force"), f"{self.directory}/twistd.log: it answers", 180)

    def force(self, work: str = "echo hello") -> int:
        """Have one build; give its buildrequest's id."""
        params = {"builderNames": ["machine"], "work": work}
        body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": params}
        answer = requests.post(f"{self.url}api/v2/forceschedulers/force", json=body, timeout=120)
        answer.raise_for_status()
        [number] = answer.json()["result"][1].values()
        return int(number)

    def get(self, path: str) -> Any:
        """Read the REST API."""
        answer = requests.get(f"{self.url}api/v2/{path}", timeout=120)
        answer.raise_for_status()
        return answer.json()

    def requests(self) -> list[dict[str, Any]]:
        """Give every buildrequest."""
        found: list[dict[str, Any]] = self.get("buildrequests")["buildrequests"]
        return found

    def builds(self, request: int) -> list[Build]:
        """Give the builds of a buildrequest, oldest first."""
        found: list[Build] = self.get(f"buildrequests/{request}/builds")["builds"]
        return sorted(found, key=lambda build: int(build["buildid"]))

    def servers(self) -> list[str]:
        """Give the ids of its servers, as nova has them."""
        return [one.id for one in self._ground.servers() if str(one.name).startswith(f"{self.prefix}-")]

    @property
    def pid(self) -> int:
        """Its process, or 0."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0
        return pid if _alive(pid) else 0

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.pid, "the stock master is gone", 30, 0.02)

    def stop(self, patience: float) -> float:
        """Stop it as `buildbot stop` does; give the seconds. It is killed if it takes longer than allowed."""
        began, pid = time.monotonic(), self.pid
        if not pid:
            return 0.0
        os.kill(pid, signal.SIGTERM)
        if not soon(lambda: not _alive(pid), patience, 0.02):
            os.kill(pid, signal.SIGKILL)
            until(lambda: not _alive(pid), "the stock master is gone", 30, 0.02)
        return time.monotonic() - began

    @property
    def _pid_file(self) -> Path:
        return self.directory / "twistd.pid"

    def _login(self, name: str) -> Login:
        password = secrets.token_urlsafe(24)
        if self._plain:
            return Login(name, password, _PLAIN.format(port=self._pb, name=name, password=password))
        config = BootConfig(
            target=Target.from_name(DEB), worker=name, password=password, master_host="127.0.0.1",
            master_port=self._pb, packages_url="http://127.0.0.1:1/", expires=int(time.time()) + 6 * 3600,
        )  # fmt: skip
        return Login(name, password, render(config))

    def _buildbot(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(self.directory / "site")}
        command = [sys.executable, "-c", "from buildbot.scripts.runner import run; run()", *arguments]
        subprocess.run(
            command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def close(self) -> None:
        """End it, whatever it does."""
        self.stop(0.0)
        shutil.rmtree(self.directory / "site", ignore_errors=True)


def still_there(ids: Sequence[str], servers: Sequence[str]) -> int:
    """Count which of some servers are still there."""
    return len(set(ids) & set(servers))


def _alive(pid: int) -> bool:
    """Whether a process runs: one that nobody has waited for yet does not."""
    try:
        state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
