"""A whole run ahead of time: a real dry run of teuthology-suite, a real master, and one table."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from tests import git_repositories
from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation
from tests.integration.teuthology_lab import ACTIVATED
from tests.patience import SLOW
from tests.teuthology_bridge.terminal import Terminal
from tests.teuthology_venv import venv

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 120 * SLOW
DEBIAN = {"os_type": "debian", "os_version": "12"}


class _LockServer(BaseHTTPRequestHandler):
    """Knows one kind of machine, of which teuthology-suite asks the architecture."""

    def do_GET(self) -> None:
        """Give one machine."""
        body = json.dumps([{"arch": "x86_64"}]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Lab:
    """Who schedules: a home, a site's YAML, a suite in a git repository; and the master that it names."""

    directory: Path
    made: Installation
    suite: list[str]
    commits: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What a person's shell has."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory / "home"),
            "TEUTHOLOGY_CONFIG": str(self.directory / "teuthology.yaml"),
            **ACTIVATED,
        }

    def words(self, *words: str) -> list[str]:
        """Give the command."""
        return [str(venv() / "bin/python"), "-m", "teuthology_bridge", "prefetch", *words]

    def prefetch(self, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, with no terminal."""
        return subprocess.run(
            self.words(*words), env={**self.environment, **more}, cwd=self.directory,
            input=stdin, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it, with no terminal."""
        return subprocess.Popen(
            self.words(*words), env=self.environment, cwd=self.directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def jobs(self, **jobs: dict[str, Any]) -> str:
        """Write jobs that install something each; give their directory."""
        number = len(list(self.directory.glob("jobs-*")))
        directory = self.directory / f"jobs-{number}"
        directory.mkdir()
        for name, install in jobs.items():
            job = {"repo": self.made.git_url, **DEBIAN, **install.pop("job", {})}
            (directory / f"{name}.yaml").write_text(yaml.safe_dump({**job, "tasks": [{"install": install}]}))
        return str(directory)

    def builds(self) -> int:
        """How many builds there have been."""
        return len(self.made.get("builds")["builds"])

    def building(self, sha1: str) -> dict[str, Any]:
        """Wait until a commit is being built; give what the master tells of it."""

        def one() -> Any:
            found = [
                each for each in self.made.get("packages")["packages"] if each["package_key"].endswith(sha1)
            ]
            return found[0] if found and found[0]["state"] == "building" else None

        return dict(self.made.until(one, f"{sha1} is built"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A master with three commits to build, and a suite whose eight jobs want them."""
    directory = tmp_path_factory.mktemp("prefetch")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _LockServer)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        (directory / "master").mkdir()
        with tiny_installation(directory / "master") as made:
            yield _lab(directory, made, server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _lab(directory: Path, made: Installation, lock_server: int) -> Lab:
    commits = {"main": made.repository.commit()}
    commits["v1"] = made.repository.commit(ref="stable")
    made.repository.tag("v1", commits["v1"])
    commits["stable"] = made.repository.commit(ref="stable")
    git = directory / "git"
    suite = git_repositories.new_repository(git / "suite.git")
    below = "qa/suites/small"
    git_repositories.commit(
        suite,
        "a suite",
        {
            f"{below}/%": "",
            f"{below}/distro.yaml": yaml.safe_dump(DEBIAN),
            f"{below}/size/small.yaml": "roles: [[mon.a, osd.0]]\n",
            f"{below}/size/large.yaml": "roles: [[mon.a], [osd.0]]\n",
            f"{below}/tasks/default.yaml": "tasks:\n- install:\n- buildpackages:\n",
            f"{below}/tasks/upgrade.yaml": "tasks:\n- install: {branch: stable}\n- install.upgrade: {all: }\n",
            f"{below}/tasks/nested.yaml": "tasks:\n- sequential:\n  - install: {tag: v1}\n",
            # In quotes, as digits alone would be a number.
            f"{below}/tasks/sha1.yaml": f"tasks:\n- install.upgrade:\n    mon.a: {{sha1: '{commits['stable']}'}}\n",
            "qa/tasks/__init__.py": "",
        },
    )
    git_repositories.commit(
        git_repositories.new_repository(git / "teuthology"), "of which only the commit is asked"
    )
    (directory / "home").mkdir()
    site = {
        "lab_domain": "",
        "lock_server": f"http://127.0.0.1:{lock_server}/",
        "results_server": "",
        "ceph_git_base_url": f"file://{git}/",
        "buildpackages": {
            "url": made.url,
            "packages_url": made.packages_url,
            "token_file": str(made.settings.state / "token"),
        },
    }
    (directory / "teuthology.yaml").write_text(yaml.safe_dump(site))
    words = [
        "--suite", "small", "--ceph", "main", "--ceph-repo", made.git_url,
        "--suite-repo", f"file://{suite}", "--machine-type", "smithi",
    ]  # fmt: skip
    return Lab(directory, made, words, commits)


def test_a_run_is_published_before_it_is_scheduled(lab: Lab) -> None:
    """Eight jobs that want three commits, by branch, tag, sha1 and default, are three builds; then there is no more to do."""
    first = lab.prefetch("--json", "--", *lab.suite)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["ok"], told["jobs"], told["problems"]) == (True, 8, [])
    assert {one["sha1"] for one in told["packages"]} == set(lab.commits.values())
    assert len(told["packages"]) == 3
    for one in told["packages"]:
        assert one["state"] == "published"
        assert one["how"] == "built"
        assert requests.get(f"{one['url']}version", timeout=30).status_code == 200
    assert lab.builds() == 3
    by_sha1 = {one["sha1"]: one for one in told["packages"]}
    assert by_sha1[lab.commits["stable"]]["refs"] == ["stable"], (
        "the same commit by its branch and by its sha1"
    )
    assert len(by_sha1[lab.commits["stable"]]["jobs"]) == 4
    assert told["schedule"][:3] == ["teuthology-suite", *lab.suite[:2]]
    # The words it gives schedule the same: also once the branch has moved.
    lab.made.repository.commit()
    again = lab.prefetch("--", *told["schedule"], "--filter-out", "size/large")
    assert again.returncode == 0, again.stdout + again.stderr
    assert lab.builds() == 3
    assert "3 packages for 4 jobs: 3 published." in again.stdout.splitlines()
    for one in told["packages"]:
        assert re.search(rf"{DEB}/{one['sha1'][:12]} +published +{one['url']}", again.stdout)


def test_the_output_of_a_dry_run_will_do(lab: Lab) -> None:
    """What teuthology-suite prints with --dry-run -vv is read, its log in between or not; --dry-run here asks for nothing."""
    sha1 = lab.made.repository.commit(ref="wip")
    words = [word if word != "main" else "wip" for word in lab.suite]
    made = subprocess.run(
        [str(venv() / "bin/teuthology-suite"), "--dry-run", "-vv", *words, "--filter", "tasks/default"],
        env={**lab.environment, "TEUTHOLOGY_CONFIG": _permissive(lab)}, cwd=lab.directory,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout
    before = lab.builds()
    listed = lab.prefetch("--dry-run", "-", stdin=made.stdout)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert re.search(rf"^{DEB}/{sha1[:12]} +not published +2$", listed.stdout, re.MULTILINE)
    assert lab.builds() == before
    assert lab.made.get("packages")["packages"] == []


def _permissive(lab: Lab) -> str:
    """Give a site that schedules what has no packages: prefetch itself needs no such thing."""
    path = lab.directory / "permissive.yaml"
    site = yaml.safe_load((lab.directory / "teuthology.yaml").read_text())
    path.write_text(yaml.safe_dump({**site, "suite_verify_ceph_hash": False}))
    return str(path)


def test_one_failure_ends_nothing_else(lab: Lab) -> None:
    """A commit that does not compile, an unknown branch and an unknown target end with a sentence each; the rest is published."""
    bad = lab.made.repository.commit(tiny.COMPILE_ERROR, ref="bad")
    good = lab.made.repository.commit(ref="good")
    jobs = lab.jobs(
        bad={"sha1": bad},
        branchless={"branch": "nosuch"},
        elsewhere={"sha1": good, "job": {"os_type": "ubuntu", "os_version": "22.04"}},
        good={"branch": "good"},
        number={"sha1": 12345678},
    )
    ended = lab.prefetch(jobs)
    assert ended.returncode == 1, ended.stderr
    lines = ended.stdout.splitlines()
    [failed] = [line for line in lines if line.startswith(f"{DEB}/{bad}: the build failed")]
    assert "error: expected ';' before 'bar'" in failed
    assert f"see {lab.made.url}#/builders/" in failed
    assert any(f"{DEB}/nosuch" in line and "has no branch 'nosuch'" in line for line in lines)
    assert any(
        f"jammy-x86_64-default/{good}" in line and "is not a target that is on" in line for line in lines
    )
    assert any(line.startswith("number.yaml: ") and "put the sha1 into quotes" in line for line in lines)
    assert lines[-1] == "4 packages for 5 jobs: 1 published, 2 refused, 1 failed; 1 mistake in the jobs."
    assert requests.get(f"{lab.made.packages_url}{DEB}/sha1/{good}/version", timeout=30).status_code == 200


def test_who_is_interrupted_withdraws(lab: Lab) -> None:
    """SIGINT ends it with 130, and the build that nobody else waits for is cancelled."""
    sha1 = lab.made.repository.commit(tiny.sleeping(300), ref="slow")
    process = lab.start(lab.jobs(slow={"sha1": sha1}))
    one = lab.building(sha1)
    [waiter] = one["waiting"]
    assert re.fullmatch(rf"prefetch/jobs-\d+@\S+:{process.pid}", waiter["job"])
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, said
    assert "1 package for 1 job: 1 withdrawn." in said.splitlines()
    assert lab.made.wait({"buildrequest_ids": {"": one["buildrequest_id"]}})["results"] == 6


def test_a_wrong_token_ends_it_at_once(lab: Lab) -> None:
    """A token that the master does not know is said once, and the status is 2."""
    jobs = lab.jobs(one={"sha1": lab.made.repository.commit()}, two={"sha1": lab.made.repository.commit()})
    ended = lab.prefetch("--json", jobs, BUILDPACKAGES_TOKEN="wrong")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["ok"] is False
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("buildpackages: ")]
    assert "refuses this user" in line


@contextmanager
def _pty(columns: int, lines: int) -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        yield master, slave
    finally:
        os.close(master)


def test_the_table_lives_on_a_terminal(lab: Lab) -> None:
    """On a terminal one table is redrawn in place, no wider than that, and its last state is what stays."""
    columns = 70
    sha1 = lab.made.repository.commit(tiny.sleeping(2), ref="slow")
    there = lab.commits["main"]
    seen = []
    with _pty(columns, 24) as (master, slave):
        process = subprocess.Popen(
            lab.words(lab.jobs(slow={"branch": "slow"}, there={"sha1": there})),
            env={**lab.environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"}, cwd=lab.directory,
            stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(slave)
        terminal = Terminal(columns, 24)
        for piece in _pieces(master):
            terminal.write(piece)
            seen.append(terminal.screen)
            # What stays at the end has every URL whole; who reads slowly gets both in one piece.
            if "building" in piece and "published." not in piece:
                assert terminal.wrapped == 0
    assert process.wait(SECONDS) == 0, process.stderr
    assert process.stderr is not None
    process.stderr.close()
    building = [screen for screen in seen if any("building" in line for line in screen)]
    assert building
    assert any(re.match(rf"ceph-deb-\S*/{sha1[:8]}\S* +building", line) for line in building[-1])
    # One table at a time: its heading is never there twice.
    assert max(sum(line.startswith("KEY ") for line in screen) for screen in seen) == 1
    until_the_end = terminal.screen
    assert until_the_end[-1] == "2 packages for 2 jobs: 2 published."
    assert sum("published" in line and "packages" not in line for line in until_the_end) == 2
    assert not [line for line in until_the_end if "building" in line or "asking" in line]


def _pieces(descriptor: int) -> Iterator[str]:
    """Give what comes from a terminal, as it comes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # nobody has the other end open any more
            return
        if not data:
            return
        yield decoder.decode(data)
