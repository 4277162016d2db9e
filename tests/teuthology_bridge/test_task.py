"""The task, in teuthology's own process and started by it: what is asked, what the job is left with, and how it ends."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import teuthology_venv
from tests.teuthology_bridge.fake_master import KEY, MOVED, OTHER, SHA1, TARGET, TOKEN, FakeMaster
from teuthology_bridge.errors import WrongJob
from teuthology_bridge.task import configuration, run_name

SCRIPT = Path(__file__).with_name("task_in_teuthology.py")
CEPH = "https://github.com/ceph/ceph-ci.git"
BUILDING = {"state": "building", "build": 1, "step": "compile"}
JOB = {"name": "kim-2026", "job_id": "17", "os_type": "ubuntu", "os_version": "22.04"}

pytestmark = pytest.mark.timeout(120)


@dataclass
class Left:
    """What a job is left with."""

    summary: dict[str, Any]
    config: dict[str, Any]
    pointed: dict[str, Any]
    reported: list[str]
    """What a report to Sentry would show: the variables of all frames."""
    log: str

    @property
    def lines(self) -> list[str]:
        """Give what the task logged."""
        name = "teuthology.task.buildpackages INFO "
        return [line.removeprefix(name) for line in self.log.splitlines() if line.startswith(name)]


@pytest.fixture
def fake() -> Iterator[FakeMaster]:
    with FakeMaster(refs={"main": SHA1}) as fake:
        yield fake


def start(
    fake: FakeMaster, tmp_path: Path, given: dict[str, Any], site: dict[str, Any] | None = None, **more: str
) -> subprocess.Popen[str]:
    """Start a job, with a site that knows where the master is."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    bridge = {"url": fake.url, "packages_url": fake.packages_url, "token_file": str(tmp_path / "token")}
    (tmp_path / "teuthology.yaml").write_text(yaml.safe_dump({"buildpackages": bridge, **(site or {})}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BUILDPACKAGES_")}
    process = subprocess.Popen(
        [teuthology_venv.venv() / "bin/python", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **clean,
            "PYTHONPATH": str(SCRIPT.parents[2]),
            "TEUTHOLOGY_CONFIG": str(tmp_path / "teuthology.yaml"),
            **more,
        },
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    process.stdin = None
    return process


def run(
    fake: FakeMaster,
    tmp_path: Path,
    *tasks: Any,
    site: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    **given: Any,
) -> Left:
    """Run a job of these tasks to its end."""
    config = {**JOB, "tasks": list(tasks), **given.pop("job", {})}
    process = start(fake, tmp_path, {"config": config, **given}, site, **(environment or {}))
    told, log = process.communicate()
    assert process.returncode == 0, log
    return Left(**json.loads(told), log=log)


def at(fake: FakeMaster) -> dict[str, Any]:
    """Give what a site's own `buildpackages` says at least."""
    return {"url": fake.url, "packages_url": fake.packages_url, "token": TOKEN}


# What is asked, and what the job is left with


def test_a_job_gets_its_packages(fake: FakeMaster, tmp_path: Path) -> None:
    """A branch is asked for by the site's repository and this job's name, waited for, and pinned; install is sent to it."""
    fake.script = [BUILDING, {"state": "published"}]
    left = run(fake, tmp_path, {"install": {"branch": "main"}})
    [ask] = fake.asked()
    assert re.fullmatch(rf"kim-2026/17@{re.escape(socket.gethostname())}:\d+", ask["job"])
    assert ask == {
        "builderNames": [TARGET],
        "ref": "refs/heads/main",
        "git_url": CEPH,
        "reason": "teuthology job kim-2026/17",
        "job": ask["job"],
    }
    assert left.summary["success"] is True
    [row] = left.summary["buildpackages"]
    assert row.pop("waited") > 0
    assert row == {
        "package_key": KEY,
        "url": f"{fake.packages_url}{TARGET}/sha1/{SHA1}/",
        "how": "built",
        "build_url": f"{fake.url}#/builders/3/builds/1",
    }
    assert left.config["tasks"] == [{"install": {"sha1": SHA1}}]
    assert left.pointed == {
        "gitbuilder_host": fake.packages_url.removeprefix("http://").rstrip("/"),
        "package_source": "gitbuilder",
        "use_shaman": False,
    }
    assert f"{KEY}: is built at {fake.url}#/builders/3/builds/1" in left.lines


def test_what_is_published_is_found(fake: FakeMaster, tmp_path: Path) -> None:
    """Where the packages of a commit are published, the master is not asked."""
    fake.published.add(KEY)
    left = run(fake, tmp_path, {"install": None}, job={"overrides": {"install": {"ceph": {"sha1": SHA1}}}})
    assert [row["how"] for row in left.summary["buildpackages"]] == ["found"]
    assert (len(fake.looks), fake.requests) == (1, [])


def test_a_job_of_several_packages(fake: FakeMaster, tmp_path: Path) -> None:
    """Each kind of package is asked for once, however often it stands in the job, and all of them are pinned."""
    fake.refs["wip"] = MOVED
    upgrade = {"install.upgrade": {"mon.a": {"branch": "wip"}, "osd.0": {"branch": "wip"}}}
    left = run(
        fake,
        tmp_path,
        {"install": {"branch": "main"}},
        {"sequential": [upgrade, {"install": {"branch": "main"}}]},
        job={"roles": [["mon.a"], ["osd.0"]]},
    )
    assert [ask["ref"] for ask in fake.asked()] == ["refs/heads/main", "refs/heads/wip"]
    assert [row["package_key"] for row in left.summary["buildpackages"]] == [KEY, f"{TARGET}/{MOVED}"]
    pinned, moved = {"sha1": SHA1}, {"sha1": MOVED}
    assert left.config["tasks"] == [
        {"install": pinned},
        {"sequential": [{"install.upgrade": {"mon.a": moved, "osd.0": moved}}, {"install": pinned}]},
    ]


def test_where_commits_are(fake: FakeMaster, tmp_path: Path) -> None:
    """The job's repo goes before the site's repository; other projects are beside Ceph at the site's."""
    fake.targets = (TARGET, OTHER, "samba-deb-jammy-x86_64-default")
    run(fake, tmp_path, {"install": {"branch": "main"}}, job={"repo": "https://x/fork.git"})
    site = {"ceph_git_url": "https://x/ours.git", "ceph_git_base_url": "https://x/"}
    run(
        fake,
        tmp_path,
        {"install": {"sha1": MOVED}},
        {"install": {"project": "samba", "branch": "main"}},
        site=site,
    )
    assert [ask["git_url"] for ask in fake.asked()] == [
        "https://x/fork.git",
        "https://x/ours.git",
        "https://x/samba.git",
    ]


def test_os_of_the_command_line(fake: FakeMaster, tmp_path: Path) -> None:
    """The distribution of teuthology's command line wins over the job's."""
    run(fake, tmp_path, {"install": {"branch": "main"}}, os_type="centos", os_version="9.stream")
    assert fake.asked()[0]["builderNames"] == [OTHER]


def test_nothing_to_install(fake: FakeMaster, tmp_path: Path) -> None:
    """A job that installs nothing is told so, and nobody is asked."""
    left = run(fake, tmp_path, {"nop": None})
    assert left.lines == ["the job installs no packages of ours: there is nothing to ask for"]
    assert (fake.looks, fake.requests, left.summary["success"]) == ([], [], True)


def test_a_kernel_that_nobody_serves(fake: FakeMaster, tmp_path: Path) -> None:
    """That the job's kernel will be looked for on a server that has none is said before anything is asked."""
    fake.published.add(KEY)
    kernel = {"roles": [["mon.a"]], "tasks": [{"install": {"sha1": SHA1}}, {"kernel": {"branch": "testing"}}]}
    left = run(fake, tmp_path, job=kernel)
    [told] = [line for line in left.log.splitlines() if "WARNING" in line]
    assert told == (
        "teuthology.task.buildpackages WARNING the kernel of mon.a is neither the distribution's, nor a file, nor"
        f" koji's: teuthology will look for it at {fake.packages_url}, where there is none, and fail unless it"
        " runs already; run the job with `-k distro`"
    )
    assert left.log.index(told) < left.log.index(f"{KEY}: published already")


def test_sizes_and_tags(fake: FakeMaster, tmp_path: Path) -> None:
    """Machines' sizes are passed on, overrides win piece by piece, and canonical_tags: false is told to change nothing."""
    left = run(
        fake,
        tmp_path,
        {"install": {"branch": "main"}},
        site={"buildpackages": {**at(fake), "good_machine": {"disk": 100}, "min_machine": {"disk": 30}}},
        task={"good_machine": {"disk": 40, "ram": 48000, "cpus": 16}, "canonical_tags": False},
        job={"overrides": {"buildpackages": {"good_machine": {"cpus": 4}, "min_machine": {"ram": 8000}}}},
    )
    [ask] = fake.asked()
    assert ask["good_machine"] == {"disk": 40, "ram": 48000, "cpus": 4}
    assert ask["min_machine"] == {"disk": 30, "ram": 8000}
    assert left.lines[0].startswith("canonical_tags: false changes nothing")


def test_a_site_without_canonical_tags(fake: FakeMaster, tmp_path: Path) -> None:
    """What the 2015 task took from the site's configuration is told to change nothing, too; by default nothing is said."""
    for site in ({"canonical_tags": False}, {"buildpackages": {"canonical_tags": False}}):
        left = run(fake, tmp_path, {"nop": None}, site=site)
        assert left.lines[0].startswith("canonical_tags: false changes nothing")


def test_the_environment_wins(fake: FakeMaster, tmp_path: Path) -> None:
    """What the environment says goes before the task's configuration, and that before the site's."""
    left = run(
        fake,
        tmp_path,
        {"install": {"branch": "main"}},
        task={"url": "http://127.0.0.1:9/", "packages_url": fake.packages_url},
        site={"buildpackages": {"packages_url": "http://127.0.0.1:9/"}},
        environment={"BUILDPACKAGES_URL": fake.url, "BUILDPACKAGES_TOKEN": TOKEN},
    )
    assert left.summary["success"] is True
    assert len(fake.asked()) == 1


# How it ends


def test_a_commit_that_does_not_build(fake: FakeMaster, tmp_path: Path) -> None:
    """A failed build fails the job with one line, which the summary has with a row; nothing is pinned or pointed at."""
    fake.script = [{**BUILDING, "state": "failed", "reason": "make failed", "error": "a.cc:3: error: no"}]
    left = run(fake, tmp_path, {"install": {"branch": "main"}})
    page = f"{fake.url}#/builders/3/builds/1"
    assert (
        left.summary["failure_reason"]
        == f"{KEY}: the build failed: make failed: a.cc:3: error: no; see {page}"
    )
    assert (left.summary["status"], left.summary["success"]) == ("fail", False)
    assert left.summary["buildpackages"] == [
        {"package_key": KEY, "url": None, "how": "PackagesFailed", "build_url": page}
    ]
    assert left.config["tasks"] == [{"install": {"branch": "main"}}]
    assert left.pointed["gitbuilder_host"] != fake.packages_url


def test_infrastructure_that_fails(fake: FakeMaster, tmp_path: Path) -> None:
    """A master that can't build makes the job dead, as it is no failure of what the job tests."""
    fake.script = [{"state": "infrastructure", "reason": "no machine, 3 times"}]
    left = run(fake, tmp_path, {"install": {"branch": "main"}})
    assert (left.summary["status"], left.summary["success"]) == ("dead", False)
    assert (
        "could not be built, and not because of the commit: no machine, 3 times"
        in left.summary["failure_reason"]
    )


def test_a_master_that_is_not_there(fake: FakeMaster, tmp_path: Path) -> None:
    """A master that does not answer makes the job dead when the time for it is over."""
    left = run(
        fake,
        tmp_path,
        {"install": {"branch": "main"}},
        task={"url": "http://127.0.0.1:9/", "unreachable_limit": 0.5},
    )
    assert left.summary["status"] == "dead"
    told = rf"{TARGET}/main: the master at http://127.0.0.1:9/ gave no answer for \d s, at last because: Connection refused"
    assert re.fullmatch(told, left.summary["failure_reason"])


@pytest.mark.parametrize(
    ("what", "status", "told"),
    [
        ({"task": {"urll": 1}}, "dead", "`urll` in the job's `buildpackages` is unknown; there are"),
        ({"task": ["url"]}, "fail", "the job's `buildpackages` must be a mapping, not ['url']"),
        (
            {"task": {"min_machine": 4}},
            "fail",
            "`min_machine` in the job's `buildpackages` must be a mapping of disk, ram, cpus, not 4",
        ),
        ({"task": {"token": "wrong"}}, "dead", "refuses this user: asking needs a user: log in"),
        (
            {"os_type": "centos", "os_version": "8"},
            "fail",
            f"is not a target that is on; there are {TARGET}, {OTHER}",
        ),
    ],
    ids=lambda what: str(what)[:30],
)
def test_what_is_wrong(
    fake: FakeMaster, tmp_path: Path, what: dict[str, Any], status: str, told: str
) -> None:
    """Wrong settings make a job dead and what its author got wrong fails it, each with a sentence."""
    left = run(fake, tmp_path, {"install": {"branch": "main"}}, **what)
    assert told in left.summary["failure_reason"]
    assert left.summary["status"] == status


@pytest.mark.parametrize(
    "environment",
    [
        {"BUILDPACKAGES_URL": "http://127.0.0.1:9/", "BUILDPACKAGES_UNREACHABLE_LIMIT": "0.5"},
        {"BUILDPACKAGES_LIMIT": "0.3"},
        {"BUILDPACKAGES_LIMIT": "soon"},
        {"BUILDPACKAGES_TOKEN": f"not-{TOKEN}"},
    ],
    ids=["away", "late", "wrong settings", "refused"],
)
def test_a_report_to_sentry_does_not_show_the_token(
    fake: FakeMaster, tmp_path: Path, environment: dict[str, str]
) -> None:
    """teuthology sends the variables of all frames of what ended a job: the token is in none of them."""
    fake.script = [BUILDING]
    site = {"buildpackages": at(fake)}
    left = run(fake, tmp_path, {"install": {"branch": "main"}}, site=site, environment=environment)
    assert left.summary["success"] is False
    assert any(line.startswith("task: ctx = ") for line in left.reported)
    assert [line for line in left.reported if TOKEN in line] == []


# Killed


def until_followed(fake: FakeMaster, process: subprocess.Popen[str]) -> None:
    """Wait until the job waits."""
    while "status 1" not in fake.order:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_teuthology_kill_withdraws(fake: FakeMaster, tmp_path: Path) -> None:
    """SIGTERM, which unwinds nothing, has the master know that this job does not wait any more; then the process ends."""
    fake.script = [BUILDING]
    process = start(fake, tmp_path, {"config": {**JOB, "tasks": [{"install": {"branch": "main"}}]}})
    until_followed(fake, process)
    process.terminate()
    _, log = process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert fake.requests[-1] == ("withdraw 1", {"job": f"kim-2026/17@{socket.gethostname()}:{process.pid}"})
    assert f"{KEY}: withdrawn; the build is cancelled" in log


def test_the_keyboard_withdraws(fake: FakeMaster, tmp_path: Path) -> None:
    """An interrupt unwinds the job as ever, and withdraws on its way; teuthology reports it, and the token is not shown."""
    site = {"buildpackages": at(fake)}
    fake.script = [BUILDING]
    process = start(fake, tmp_path, {"config": {**JOB, "tasks": [{"install": {"branch": "main"}}]}}, site)
    until_followed(fake, process)
    process.send_signal(signal.SIGINT)
    told, log = process.communicate()
    assert process.returncode == 0, log
    left = Left(**json.loads(told), log=log)
    assert left.summary["success"] is False
    assert any(line.startswith("_ensure: goals = ") for line in left.reported)
    assert [line for line in left.reported if TOKEN in line] == []
    assert fake.requests[-1] == ("withdraw 1", {"job": f"kim-2026/17@{socket.gethostname()}:{process.pid}"})


def test_the_same_job_twice_is_two_that_wait(fake: FakeMaster, tmp_path: Path) -> None:
    """When one of two processes that run the same job is killed, the build goes on for the other."""
    fake.script = [BUILDING]
    given = {"config": {**JOB, "tasks": [{"install": {"branch": "main"}}]}}
    processes = [start(fake, tmp_path, given) for _ in range(2)]
    for process in processes:
        while not any(ask["job"].endswith(f":{process.pid}") for ask in fake.asked()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    until_followed(fake, processes[0])
    processes[0].terminate()
    _, log = processes[0].communicate()
    assert f"{KEY}: withdrawn; it goes on for lab (kim-2026/17@" in log
    processes[1].terminate()
    _, log = processes[1].communicate()
    assert f"{KEY}: withdrawn; the build is cancelled" in log


# Pure parts


def test_configurations_are_merged() -> None:
    """Overrides go over the task's configuration, deeply, and neither is changed."""
    mine = {"limit": 1, "good_machine": {"cpus": 1, "ram": 2}}
    job = {"overrides": {"buildpackages": {"good_machine": {"cpus": 8}, "url": "http://x/"}}}
    before = json.dumps([mine, job])
    assert configuration(job, mine) == {"limit": 1, "good_machine": {"cpus": 8, "ram": 2}, "url": "http://x/"}
    assert json.dumps([mine, job]) == before
    assert configuration({}, None) == configuration({"overrides": None}, {}) == {}
    with pytest.raises(WrongJob, match="`buildpackages` in the job's `overrides` must be a mapping, not 3"):
        configuration({"overrides": {"buildpackages": 3}}, None)


def test_what_a_run_is_called() -> None:
    """A scheduled job is called by run and id, another by who runs it, and its archive."""
    who = getpass.getuser()
    assert run_name({"name": "kim-2026", "job_id": 17}, "/a/17") == "kim-2026/17"
    assert run_name({"name": "kim-2026"}, "/home/kim/first/") == f"{who}/first"
    assert run_name({}, None) == who
    assert re.fullmatch(r"[^\n]{1,200}", run_name({"name": "a\n" * 500, "job_id": 1}, None))
