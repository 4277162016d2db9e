"""A whole installation for a test: a real master with its own ports and directories, and its input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import requests
import yaml

from demo import ceph_shaped, servers
from master import control
from master.publishing.package_names import CEPH_PACKAGES
from master.settings import Settings
from master.users import operator_token
from tests import patience
from tests.integration import tiny
from tests.patience import SLOW, free_ports
from workers.network import USUAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
ROOTS = CHECKOUT / "roots"
"""Prepared roots are a cache: the tests share them with everything else in this checkout."""

ENGINE = os.environ.get("BUILDPACKAGES_TEST_ENGINE", "script")
"""What makes the namespaces of builds where a test does not say it: `crun` runs the tests on the other engine."""

DEB = "ceph-deb-bookworm-x86_64-default"
RPM = "ceph-rpm-centos9-x86_64-default"


class Installation:
    """One master that can be started, stopped and killed, and what it serves."""

    def __init__(self, directory: Path, *, also_allowed: Sequence[str] = (), **overrides: Any) -> None:
        """Write the settings; `overrides` are merged into them, `also_allowed` are more git URLs."""
        self.directory = directory
        self.input = directory / "input"
        www, packages, workers, git, downloads, self.gate_port = free_ports(6)
        self.git_port, self.downloads_port = git, downloads
        self.downloads = {"BUILDPACKAGES_DEMO_DOWNLOADS": f"http://127.0.0.1:{downloads}"}
        """The environment in which the Ceph-shaped input's make-dist finds its downloads."""
        self.git_url = f"git://127.0.0.1:{git}/ceph.git"
        data: dict[str, Any] = {
            "git": {"allowed": [f"git://127.0.0.1:{git}/", *also_allowed], "timeout": 5 * SLOW},
            "projects": {"ceph": {"packages": [*CEPH_PACKAGES, "tiny", "tiny-*"]}},
            "targets": [DEB, RPM],
            "www": {"port": www, "url": f"http://127.0.0.1:{www}/"},
            "packages": {"port": packages, "url": f"http://127.0.0.1:{packages}/"},
            "workers": {
                "port": workers,
                "start_timeout": 120,
                "local": {"count": 2, "roots": str(ROOTS), "environment": self.downloads},
            },
        }
        _merge(data, overrides)
        local = data["workers"]["local"]
        if ENGINE == "crun" and "engine" not in local and local.get("isolation") != "none":
            local |= {
                "engine": ENGINE,
                "reach": [*(f"127.0.0.1:{port}" for port in (downloads, self.gate_port)), *USUAL],
            }
        for name, project in data["projects"].items():
            url = f"git://127.0.0.1:{git}/{name}.git"
            data["projects"][name] = {"git_url": url, "canonical_url": url, **project}
        self.settings_file = directory / "settings.yaml"
        self.settings_file.write_text(yaml.safe_dump(data))
        self.settings = Settings.from_file(self.settings_file)
        self.url = self.settings.www.url
        self.packages_url = self.settings.packages.url
        self.packages = self.settings.packages.directory
        self.repository: tiny.Repository

    def serve_shaped(self) -> ceph_shaped.GeneratedRepository:
        """Serve the Ceph-shaped repository as the default one."""
        self.input.mkdir(exist_ok=True)
        made = ceph_shaped.generate(self.input)
        self.serve()
        self.serve_downloads()
        return made

    def serve_tiny(self) -> tiny.Repository:
        """Serve a tiny repository as the default one, and make it the installation's `repository`."""
        self.repository = tiny.Repository(self.input / "ceph.git")
        self.serve()
        return self.repository

    def serve(self) -> None:
        """Serve every repository below `input`."""
        servers.serve_repositories(self.input, self.git_port)

    def serve_downloads(self) -> None:
        """Serve what the Ceph-shaped input's make-dist downloads."""
        ceph_shaped.write_downloads(self.input)
        servers.serve_downloads(self.input, self.downloads_port)

    def start(self, *, patch: str = "") -> None:
        """Start the master and wait until it answers.

        `patch` is Python that its process runs before anything else: a test's own hook, so that
        the product needs none.
        """
        environment = {**os.environ}
        if patch:
            site = self.directory / "site"
            site.mkdir(exist_ok=True)
            (site / "sitecustomize.py").write_text(patch)
            environment["PYTHONPATH"] = str(site)
        status = subprocess.run(
            [sys.executable, "-m", "master.control", "start", "--settings", str(self.settings_file)],
            cwd=CHECKOUT, env=environment, check=False, stdin=subprocess.DEVNULL,
        ).returncode  # fmt: skip
        log = self.settings.state / "twistd.log"
        assert status == 0, log.read_text()[-3000:] if log.exists() else "it has no log"

    @property
    def pid(self) -> int:
        """The running master's pid, or 0."""
        return control.running(self.settings)

    def change(self, **overrides: Any) -> None:
        """Merge values into the settings file; the running master is not told."""
        data = yaml.safe_load(self.settings_file.read_text())
        _merge(data, overrides)
        self.settings_file.write_text(yaml.safe_dump(data))

    def reload(self, **overrides: Any) -> str:
        """Change the settings file, and have the master read it as an operator does; ControlError if it is refused."""
        self.change(**overrides)
        return control.reload(self.settings)

    def kill(self) -> None:
        """Kill the master with SIGKILL, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.until(lambda: not self.pid, "the master is gone")

    def stop(self) -> None:
        """Stop the master as an operator does, which it obeys, and the servers of its input."""
        with mock.patch.object(control, "_STOP_SECONDS", 30 * SLOW):
            told = control.stop(self.settings)
        servers.stop(self.input)
        assert "killed" not in told, told

    @property
    def token(self) -> str:
        """The operator's token."""
        return operator_token(self.settings.state)

    def force(self, _token: str | None = None, /, **params: Any) -> requests.Response:
        """Send a request to the forcescheduler, as anybody may."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": params}
        token = self.token if _token is None else _token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.url}api/v2/forceschedulers/packages"
        return requests.post(url, json=body, headers=headers, timeout=120)

    def ask(self, target: str, **params: str) -> dict[str, Any]:
        """Ask for one target, and give the answer."""
        answer = self.force(builderNames=[target], **params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["result"][2][0]
        return found

    def get(self, path: str) -> Any:
        """Read the REST API without a user."""
        answer = requests.get(f"{self.url}api/v2/{path}", timeout=120)
        answer.raise_for_status()
        return answer.json()

    def wait(self, answer: dict[str, Any], seconds: float = 300) -> dict[str, Any]:
        """Wait until the buildrequest of an answer is complete; give it."""
        [number] = answer["buildrequest_ids"].values()

        def complete() -> Any:
            [request] = self.get(f"buildrequests/{number}")["buildrequests"]
            return request if request["complete"] else None

        found: dict[str, Any] = self.until(complete, f"buildrequest {number} is complete", seconds)
        return found

    def builds(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the builds that a buildrequest took, oldest first."""
        [number] = answer["buildrequest_ids"].values()
        return sorted(
            self.get(f"buildrequests/{number}/builds")["builds"], key=lambda build: build["buildid"]
        )

    def said(self, answer: dict[str, Any]) -> list[tuple[int, str]]:
        """Give how each build of a buildrequest ended, and what its page said."""
        return [(build["results"], build["state_string"]) for build in self.builds(answer)]

    def steps(self, build: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Give the steps of a build, by name."""
        steps = self.get(f"builds/{build['buildid']}/steps")["steps"]
        return {step["name"]: step for step in steps}

    def log(self, build: dict[str, Any], step: str, name: str = "stdio") -> str:
        """Return the text of a step's log; empty while the step, which has begun, has no such log yet."""
        logs = self.get(f"steps/{self.steps(build)[step]['stepid']}/logs")["logs"]
        number = next((log["logid"] for log in logs if log["name"] == name), None)
        return "" if number is None else self.text(number)

    def text(self, log: int) -> str:
        """Give the text of a log."""
        return requests.get(f"{self.url}api/v2/logs/{log}/raw", timeout=120).text

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        """Wait for a condition, at most so long; the sentence says what did not come about. A master may be away meanwhile."""
        return patience.until(condition, what, seconds, away=(requests.ConnectionError, requests.HTTPError))

    def leftovers(self) -> list[str]:
        """Give what of a build is still on the machine: directories, mounts, processes."""
        scratch = self.settings.workers.local.scratch
        left = [str(path) for path in scratch.iterdir()] if scratch.is_dir() else []
        mark = f"BUILDPACKAGES_SCRATCH={scratch}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    environment = Path("/proc", entry, "environ").read_bytes()
                    mounts = Path("/proc", entry, "mountinfo").read_bytes()
                    command = Path("/proc", entry, "cmdline").read_bytes()
                except OSError:
                    continue
                # A process can wipe its environment, but not what its root is mounted from.
                if mark in environment or bytes(scratch) in mounts:
                    left.append(f"{entry}: {command!r}")
        return left


@contextmanager
def installation(directory: Path, *, patch: str = "", **overrides: Any) -> Iterator[Installation]:
    """Give an installation whose master runs on the Ceph-shaped input, and end it after."""
    made = Installation(directory, **overrides)
    try:
        made.serve_shaped()
        made.start(patch=patch)
        yield made
    finally:
        made.stop()


@contextmanager
def tiny_installation(directory: Path, *, patch: str = "", **overrides: Any) -> Iterator[Installation]:
    """Give an installation whose master runs on a tiny repository, debs only, and end it after."""
    made = Installation(directory, **{"targets": [DEB], **overrides})
    try:
        made.serve_tiny()
        made.start(patch=patch)
        yield made
    finally:
        made.stop()


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
