"""A teuthology lab for a test: what its operator configures once, and the jobs that run in it.

Nothing of it is this machine's: home, site YAML, keys and archives lie in the test's own directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import yaml

from tests.git_repositories import commit, new_repository
from tests.patience import SLOW, free_ports, listens, until
from tests.teuthology_venv import CHECKOUT, venv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.harness import Installation
    from tests.ssh_target import Node

QA = CHECKOUT / "qa"
ACTIVATED = {"PYTHONPATH": str(CHECKOUT / "teuthology_bridge/site")}
"""What a dispatcher's environment says so that `buildpackages` is ours."""

_MERGE = """\
import json, sys
from teuthology.suite.build_matrix import build_matrix
from teuthology.suite.merge import config_merge
name, path = sys.argv[1:]
print(json.dumps({each[0]: each[2] for each in config_merge(build_matrix(path), suite_name=name)}))
"""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: int
    archive: Path

    @property
    def summary(self) -> dict[str, Any]:
        """What teuthology tells of the job."""
        return dict(yaml.safe_load((self.archive / "summary.yaml").read_text()))

    @property
    def log(self) -> str:
        """What a user sees while it runs, and afterwards."""
        return (self.archive / "teuthology.log").read_text()

    @property
    def config(self) -> dict[str, Any]:
        """The job as teuthology has saved it, once its first tasks had been run."""
        return dict(yaml.safe_load((self.archive / "config.yaml").read_text()))

    @property
    def tasks(self) -> list[str]:
        """The tasks that were run, in order."""
        mark = "INFO:teuthology.run_tasks:Running task "
        return [line.split(mark)[1].removesuffix("...") for line in self.log.splitlines() if mark in line]

    @property
    def seconds(self) -> float:
        """How long the task `buildpackages` took."""
        marks = yaml.safe_load((self.archive / "timing.yaml").read_text())["marks"]
        [here] = [n for n, mark in enumerate(marks) if mark["message"] == "buildpackages enter"]
        return float(marks[here + 1]["interval"] - marks[here]["interval"])

    @property
    def told(self) -> str:
        """What the test says if it does not like how the job ended."""
        lines = self.log.splitlines()
        return "\n".join([f"status {self.status}", *lines[-60:]])


class Lab:
    """One lab, with one node and the installation that its site YAML names."""

    def __init__(self, directory: Path, node: Node, made: Installation, lock_server: str) -> None:
        """Write what an operator writes; teuthology is told nothing of where packages are."""
        self.directory = directory
        self.node = node
        self.made = made
        (directory / "home").mkdir()
        self.site: dict[str, Any] = {
            "lab_domain": "",
            "lock_server": lock_server,
            "results_server": "",
            "ssh_key": str(node.client_key),
            "buildpackages": {
                "url": made.url,
                "packages_url": made.packages_url,
                "token_file": str(made.settings.state / "token"),
            },
        }

    def job(self, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Give a job with these tasks for the node."""
        return {
            "name": "bridge",
            "owner": "tester",
            "os_type": "debian",
            "os_version": "12",
            "repo": self.made.git_url,
            "check-locks": False,
            "ceph_cm_ansible": False,
            "sshkeys": "ignore",
            "suite_path": str(QA),
            "targets": {self.node.name: self.node.host_key},
            "tasks": list(tasks),
            **more,
        }

    def run(self, job: dict[str, Any], **environment: str) -> Outcome:
        """Run a job to its end."""
        return self.start(job, **environment).end()

    def start(self, job: dict[str, Any], **environment: str) -> Running:
        """Start a job as a person does; without `environment`, `buildpackages` is ours."""
        archive = self._archive()
        config = archive.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(job))
        return self._start(archive, "teuthology", "-v", "-a", str(archive), str(config), **environment)

    def supervise(self, job: dict[str, Any]) -> Running:
        """Start a job as a dispatcher does."""
        archive = self._archive()
        archive.mkdir()
        scheduled = {
            **job,
            "job_id": "1",
            "archive_path": str(archive),
            "description": "one job",
            "machine_type": "container",
            "verbose": True,
        }
        config = archive.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(scheduled))
        return self._start(
            archive, "teuthology-supervisor", "-v", "--bin-path", str(venv() / "bin"),
            "--archive-dir", str(archive.parent), "--job-config", str(config),
        )  # fmt: skip

    def schedule(self, job: dict[str, Any]) -> Outcome:
        """Queue a job with teuthology-schedule, and have a teuthology-dispatcher run it to its end."""
        tube = f"tube-{os.getpid()}"  # teuthology refuses a second dispatcher of a tube
        archive, clone, config = (
            self.directory / name for name in ("archive", "teuthology", "scheduled.yaml")
        )
        archive.mkdir()
        clone.mkdir()
        (clone / ".venv").symlink_to(venv())
        suites = new_repository(self.directory / "suites")
        shutil.copytree(QA, suites, dirs_exist_ok=True)
        commit(suites, "The suites of this checkout")
        machines = {"machine_type": "container", "roles": [["client.0"]]}
        config.write_text(
            yaml.safe_dump({**job, **machines, "suite_branch": "main", "teuthology_sha1": "0" * 40})
        )
        with _queue() as port, lock_server(self.node) as server:
            self.site |= {
                "archive_base": str(archive), "ceph_qa_suite_git_url": suites.as_uri(), "lock_server": server,
                "queue_host": "127.0.0.1", "queue_port": port, "src_base_path": str(self.directory / "src"),
                "teuthology_path": str(clone),
            }  # fmt: skip
            queued = self._start(
                self.directory / "schedule",
                "teuthology-schedule", "--name", "bridge", "--owner", "tester", "--worker", tube, str(config),
            )  # fmt: skip
            assert queued.process.wait(60 * SLOW) == 0, queued.output()
            dispatcher = self._start(
                self.directory / "dispatcher",
                "teuthology-dispatcher", "-v", "-a", str(archive), "-t", tube, "-l", str(self.directory),
            )  # fmt: skip
            with dispatcher.process as process:
                try:
                    job_archive = archive / "bridge/1"
                    until((job_archive / "summary.yaml").is_file, dispatcher.output, 180)
                    until(lambda: all(map(_ended, _children(process.pid))), "the supervisor has ended", 30)
                finally:
                    for child in _children(process.pid):
                        with suppress(ProcessLookupError):
                            os.killpg(child, signal.SIGKILL)
                    process.kill()
        return Outcome(0, job_archive)

    def _archive(self) -> Path:
        number = len(list(self.directory.glob("archive-*.yaml"))) + 1
        return self.directory / f"archive-{number}"

    def _start(self, archive: Path, program: str, *arguments: str, **environment: str) -> Running:
        site = self.directory / "teuthology.yaml"
        site.write_text(yaml.safe_dump(self.site))
        variables = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory / "home"), "TEUTHOLOGY_CONFIG": str(site),
            "PYTHONFAULTHANDLER": "1", **(environment or ACTIVATED),
        }  # fmt: skip
        with archive.with_suffix(".output").open("wb") as output:
            process = subprocess.Popen(
                [str(venv() / "bin" / program), *arguments],
                cwd=self.directory, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        return Running(process, archive)


@dataclass(frozen=True)
class Running:
    """A job that runs."""

    process: subprocess.Popen[bytes]
    archive: Path

    def end(self, seconds: float = 180 * SLOW) -> Outcome:
        """Wait for its end; if that does not come, say where it hangs."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            connections = _connections(self.process.pid)
            # Python's fault handler writes the stack.
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError(f"not within {seconds:g} s: {self.output()}{connections}") from None
        assert (self.archive / "teuthology.log").is_file(), self.output()
        return Outcome(status, self.archive)

    def output(self) -> str:
        """Give the end of what it printed."""
        return self.archive.with_suffix(".output").read_text()[-6000:]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ended(pid: int) -> bool:
    """Whether a child of somebody else has ended, also if its parent has not yet looked."""
    try:
        return ") Z " in Path("/proc", str(pid), "stat").read_text()
    except FileNotFoundError:
        return True


def _connections(pid: int) -> str:
    """Give the kernel's lines of a process's connections: who, state, and what waits to be sent and read."""
    descriptors = Path("/proc", str(pid), "fd")
    inodes = {os.readlink(each).removeprefix("socket:[").rstrip("]") for each in descriptors.iterdir()}
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return "\n".join(line for line in lines[1:] if line.split()[9] in inodes)


class _LockServer(BaseHTTPRequestHandler):
    """Tells nothing of a node, so none can be reimaged; takes what it is told of one; gives the one it has to whoever asks."""

    protocol_version = "HTTP/1.1"
    nodes: ClassVar[tuple[Node, ...]] = ()

    def do_GET(self) -> None:
        """List what is free; know nothing of one of them."""
        if urlsplit(self.path).query:
            self._free()
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(200)

    def do_POST(self) -> None:
        """Lock it for whoever asks."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._free()

    def _free(self) -> None:
        self._answer(200, [{"name": node.name, "ssh_pub_key": node.host_key} for node in self.nodes])

    def _answer(self, status: int, told: object = None) -> None:
        body = json.dumps(told or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _queue() -> Iterator[int]:
    """Give the port of a beanstalkd."""
    [port] = free_ports(1)
    with subprocess.Popen(["beanstalkd", "-l", "127.0.0.1", "-p", str(port)]) as process:
        try:
            listens(process, ("127.0.0.1", port), lambda: "beanstalkd")
            yield port
        finally:
            process.kill()


@contextmanager
def lock_server(*nodes: Node) -> Iterator[str]:
    """Give the URL of a lock server: without one no job ends well, even if it locks nothing."""
    handler = type("_LockServerOf", (_LockServer,), {"nodes": nodes})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def suite(name: str) -> dict[str, dict[str, Any]]:
    """Give the jobs of a suite of ours by description, merged as teuthology-suite does."""
    command = [str(venv() / "bin/python"), "-c", _MERGE, name, str(QA / "suites" / name)]
    environment = {"PATH": os.environ["PATH"], "HOME": os.devnull}
    made = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return dict(json.loads(made.stdout))
