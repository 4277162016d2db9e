"""The command `buildpackages prefetch`, beside teuthology, with a master and a teuthology-suite that say what was written before."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import teuthology_venv
from tests.teuthology_bridge import dry_run_output as said
from tests.teuthology_bridge.environments import SITE
from tests.teuthology_bridge.fake_master import MOVED, SHA1, TARGET, TOKEN, FakeMaster
from tests.teuthology_bridge.peers import Peer, says
from teuthology_bridge import prefetch as prefetch_module
from teuthology_bridge.__main__ import main, parser
from teuthology_bridge.errors import BuildpackagesError, PackagesFailed, WrongSettings
from teuthology_bridge.jobs import Problem
from teuthology_bridge.needs import Need
from teuthology_bridge.pursuits import Entry

FOCAL = "ceph-deb-focal-x86_64-default"
BUILDING = {"state": "building", "build": 1, "step": "compile", "percent": 10, "time_left": 100.0}
DONE = {"state": "published", "step": ""}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fake() -> Iterator[FakeMaster]:
    with FakeMaster(refs={"quincy": MOVED}, targets=(TARGET, FOCAL)) as fake:
        yield fake


def start(fake: FakeMaster, home: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """Start the command as a person does, with no terminal."""
    site = {"buildpackages": {"url": fake.url, "packages_url": fake.packages_url, "token": TOKEN}}
    (home / "teuthology.yaml").write_text(yaml.safe_dump(site))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(SITE),
        "TEUTHOLOGY_CONFIG": str(home / "teuthology.yaml"), **more,
    }  # fmt: skip
    return subprocess.Popen(
        [str(teuthology_venv.venv() / "bin/python"), "-m", "teuthology_bridge", "prefetch", *words],
        env=environment, cwd=home, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def prefetch(fake: FakeMaster, home: Path, *words: str, **more: str) -> tuple[int, str, str]:
    """Run the command; give its status and what it says on its two streams."""
    process = start(fake, home, *words, **more)
    output, errors = process.communicate(timeout=100)
    return process.returncode, output, errors


def jobs(home: Path, **jobs: dict[str, Any]) -> str:
    """Write jobs that install one thing each; give their directory."""
    directory = home / "jobs"
    directory.mkdir()
    for name, install in jobs.items():
        job = {"os_type": "ubuntu", "os_version": "22.04", "tasks": [{"install": install}]}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(job))
    return str(directory)


def suite(home: Path) -> str:
    """Give a teuthology-suite that says what the real one said."""
    (home / "said").write_text(said.OUTPUT)
    (home / "log").write_text(said.LOG)
    path = home / "teuthology-suite"
    path.write_text(f"#!/bin/sh\ncat {home}/said\ncat {home}/log >&2\n")
    path.chmod(0o755)
    return str(path)


def test_a_dry_run_becomes_packages(fake: FakeMaster, tmp_path: Path) -> None:
    """Two jobs of the dry run need three packages; programs read what came of each, and how to schedule just that."""
    status, output, errors = prefetch(
        fake, tmp_path, "--json", "--", suite(tmp_path), "--suite", "small", "-c", "main"
    )
    assert status == 0, errors
    told = json.loads(output)
    assert {key: told[key] for key in ("ok", "run", "jobs", "problems")} == {
        "ok": True, "run": "lab-2026-11-24_17:46:45-small-main-distro-default-smithi", "jobs": 2, "problems": [],
    }  # fmt: skip
    upgrade = "small/{distros/u22.04 tasks/upgrade}"
    packages = {one["key"]: one for one in told["packages"]}
    assert set(packages) == {f"{FOCAL}/{said.SHA1}", f"{TARGET}/{said.SHA1}", f"{TARGET}/{MOVED}"}
    assert packages[f"{TARGET}/{MOVED}"]["refs"] == ["quincy"]
    one = packages[f"{TARGET}/{said.SHA1}"]
    assert one | {"seconds": 0, "build_url": ""} == {
        "key": f"{TARGET}/{said.SHA1}", "target": TARGET, "sha1": said.SHA1, "refs": [],
        "git_url": "https://git.example.org/ceph.git", "jobs": [upgrade], "state": "published", "how": "built",
        "url": f"{fake.packages_url}{TARGET}/sha1/{said.SHA1}/", "build_url": "", "seconds": 0, "error": None,
    }  # fmt: skip
    assert told["schedule"] == [
        str(tmp_path / "teuthology-suite"), "--suite", "small", "-c", "main",
        "--seed", "6039", "--sha1", said.SHA1, "--validate-sha1", "false",
    ]  # fmt: skip
    assert {one["job"].partition("@")[0] for one in fake.asked()} == {f"prefetch/{told['run']}"}
    assert f"runs {tmp_path}/teuthology-suite -vv --dry-run --suite small -c main" in errors


def test_without_a_terminal_there_are_lines(fake: FakeMaster, tmp_path: Path) -> None:
    """Each change is a line with the whole key, failures with their sentence; then come the sentences, the table and the sum."""
    fake.script = [
        {**BUILDING, "build": 1},
        {"state": "failed", "error": "foo.c:1:1: error: no", "reason": "compile failed"},
    ]
    directory = jobs(tmp_path, bad={"sha1": SHA1}, wrong={"sha1": 123})
    status, output, errors = prefetch(fake, tmp_path, directory)
    assert (status, errors) == (1, "")
    build = f"{fake.url}#/builders/3/builds/1"
    sentence = f"{TARGET}/{SHA1}: the build failed: compile failed: foo.c:1:1: error: no; see {build}"
    lines = output.splitlines()
    stamped = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert stamped[1:] == [
        f"{TARGET}/{SHA1}: building, compile, {build}",
        sentence,
    ]
    assert stamped[0].startswith("wrong.yaml: sha1 123 of tasks[0]: install")
    ended = lines[
        lines.index(next(line for line in lines if line.startswith(f"{TARGET}/{SHA1}: the build"))) :
    ]
    assert ended[0] == sentence
    assert ended[1].startswith("wrong.yaml: ")
    assert ended[2:] == [
        f"KEY{'':40} STATE   URL",
        f"{TARGET}/{SHA1[:12]}  failed  {build}",
        "1 package for 2 jobs: 1 failed; 1 mistake in the jobs.",
    ]


def test_a_list_asks_for_nothing(fake: FakeMaster, tmp_path: Path) -> None:
    """--dry-run tells what is published and what is not; a branch by what is published in its name."""
    fake.published.add(f"{TARGET}/{SHA1}")
    directory = jobs(tmp_path, a={"sha1": SHA1}, b={"sha1": MOVED}, c={"branch": "quincy"}, d={"sha1": SHA1})
    status, output, errors = prefetch(fake, tmp_path, "--dry-run", directory)
    assert (status, errors) == (0, "")
    assert output.splitlines() == [
        f"KEY{'':40} STATE          JOBS  URL",
        f"{TARGET}/{SHA1[:12]}  published      2     {fake.packages_url}{TARGET}/sha1/{SHA1}/",
        f"{TARGET}/{MOVED[:12]}  not published  1",
        f"{TARGET}/quincy        not published  1",
        "What a branch or a tag is at now is found out when it is asked for: what is published by its name may be older.",
        "3 packages for 4 jobs: 1 published, 2 not published.",
    ]
    assert fake.order == []
    assert f"/{TARGET}/ref/quincy/version" in fake.looks


def test_a_list_needs_the_package_server(fake: FakeMaster, tmp_path: Path) -> None:
    """With nobody to say what is published, the list says so, asks no more, and ends with 1."""
    directory = jobs(tmp_path, a={"sha1": SHA1}, b={"sha1": MOVED})
    with Peer(says("502 Bad Gateway", b"no")) as peer:
        status, output, _ = prefetch(
            fake, tmp_path, "--dry-run", "--json", directory, BUILDPACKAGES_PACKAGES_URL=peer.url
        )
        assert peer.connections == 1
    told = json.loads(output)
    assert (status, told["ok"]) == (1, False)
    assert told["error"].startswith(f"the package server at {peer.url} gives no answer: ")
    assert [one["state"] for one in told["packages"]] == ["unknown", "unknown"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_withdraws(fake: FakeMaster, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Whatever ends it, the master is told, the end is shown, and the status is the signal's."""
    fake.script = [BUILDING]
    process = start(fake, tmp_path, "--json", jobs(tmp_path, a={"sha1": SHA1}))
    assert process.stderr is not None
    assert "building" in process.stderr.readline()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert [one["state"] for one in json.loads(output)["packages"]] == ["withdrawn"]
    assert fake.order[-1] == "withdraw 1"


def test_a_timeout_is_a_limit(fake: FakeMaster, tmp_path: Path) -> None:
    """--timeout is how long all of it may take; what is late says how far it was."""
    fake.script = [BUILDING]
    status, output, _ = prefetch(fake, tmp_path, "--timeout", "2s", jobs(tmp_path, a={"sha1": SHA1}))
    assert status == 1
    assert f"{TARGET}/{SHA1}: not there within 2 s, which is its `limit`: step compile" in output
    assert "1 package for 1 job: 1 too late." in output
    assert fake.order[-1] == "withdraw 1"


@pytest.mark.parametrize(
    ("words", "more", "sentence"),
    [
        (["jobs"], {"BUILDPACKAGES_URL": "nonsense"}, "BUILDPACKAGES_URL must be a URL"),
        (["jobs"], {"BUILDPACKAGES_TOKEN": "wrong"}, "refuses this user"),
        (["nosuch"], {}, "nosuch is not there"),
        (["teuthology.yaml"], {}, "there is no job in teuthology.yaml; none of its 1 documents has `tasks`"),
        ([], {}, "what is to be scheduled?"),
        (["--", "/nonexistent/teuthology-suite", "-s", "x"], {}, "can't be run"),
    ],
    ids=["settings", "token", "path", "no jobs", "nothing", "program"],
)
def test_what_can_not_begin_ends_with_2(
    fake: FakeMaster, tmp_path: Path, words: list[str], more: dict[str, str], sentence: str
) -> None:
    """Wrong settings and wrong words are one sentence on standard error, for programs on standard output as well."""
    jobs(tmp_path, a={"sha1": SHA1})
    status, output, errors = prefetch(fake, tmp_path, "--json", *words, **more)
    assert status == 2
    assert sentence in next(line for line in errors.splitlines() if line.startswith("buildpackages: "))
    told = json.loads(output)
    assert told["ok"] is False
    assert sentence in told["error"]


def test_the_status_says_whose_it_is() -> None:
    """0 is for all published and no mistake; wrong settings are 2, however late they show, and all else is 1."""

    def entry(error: BuildpackagesError) -> Entry:
        return Entry(Need(TARGET, "sha1", SHA1, "", str), error=error)

    failed, wrong = entry(PackagesFailed(TARGET, "", "", None)), entry(WrongSettings("set `packages_url`"))
    assert prefetch_module.status_of([], []) == 0
    assert prefetch_module.status_of([], [Problem("job", "is wrong")]) == 1
    assert prefetch_module.status_of([failed], []) == 1
    assert prefetch_module.status_of([failed, wrong], []) == 2


def test_jobs_that_install_nothing_are_done(fake: FakeMaster, tmp_path: Path) -> None:
    """Without packages there is nothing to wait for: that is a success."""
    (tmp_path / "job.yaml").write_text("tasks:\n- exec: {mon.a: [ls]}\n")
    status, output, _ = prefetch(fake, tmp_path, "job.yaml")
    assert (status, output) == (0, "0 packages for 1 job: nothing to publish.\n")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("4h", 14400), ("1d", 86400), ("2H", 7200)]
)
def test_times_are_told_as_people_do(text: str, seconds: float) -> None:
    """A number is seconds, and s, m, h and d are units."""
    assert parser().parse_args(["prefetch", "--timeout", text, "x"]).timeout == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "1w", "nan", "1h30m"])
def test_no_other_times(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no time is a wrong word."""
    with pytest.raises(SystemExit) as ended:
        main(["prefetch", f"--timeout={text}", "x"])
    assert ended.value.code == 2
    assert "is no time such as 90s" in capsys.readouterr().err


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    """--help has examples, all of which the parser takes, and says what the statuses mean."""
    with pytest.raises(SystemExit) as ended:
        main(["prefetch", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    examples = [line for line in told.splitlines() if line.startswith("  buildpackages prefetch ")]
    assert len(examples) >= 4
    for example in examples:
        assert parser().parse_args(shlex.split(example.partition(" > ")[0])[1:]).what
    assert "ends with 0 if all packages are published, 1 if" in told
    assert "BUILDPACKAGES_TOKEN" in told
    assert max(map(len, told.splitlines())) <= 110
