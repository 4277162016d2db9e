"""Running teuthology-suite for its jobs: here a program that says what the real one said; the real one is in tests/integration."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from tests.teuthology_bridge import dry_run_output as said
from teuthology_bridge import dry_run
from teuthology_bridge.errors import WrongSettings
from teuthology_bridge.jobs import NoJobs

USAGE = """\
usage: teuthology-suite --help
       teuthology-suite [-v | -vv ] --suite <suite> [options] [<config_yaml>...]
"""
CRASH = """\
Traceback (most recent call last):
  File "run.py", line 1, in main
    raise ScheduleFailError(message, name)
teuthology.exceptions.ScheduleFailError: Branch 'nosuch' not found in repo: ceph.git!
"""


def program(directory: Path, script: str, *, output: str = "", log: str = "") -> str:
    """Write a teuthology-suite that says this on its two streams, and then does as the script says."""
    (directory / "output").write_text(output)
    (directory / "log").write_text(log)
    path = directory / "teuthology-suite"
    path.write_text(f'#!/bin/sh\ncd {directory}\necho "$@" >words\ncat output\ncat log >&2\n{script}\n')
    path.chmod(0o755)
    return str(path)


def environment(**more: str) -> dict[str, str]:
    """Give a shell's, without a site."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}


def test_jobs_come_from_the_program(tmp_path: Path) -> None:
    """It is run with -vv first and --dry-run, whatever of these was given, and each job is counted as it comes."""
    path = program(tmp_path, "exit 0", output=said.OUTPUT, log=said.LOG)
    counted: list[int] = []
    found = dry_run.run([path, "-v", "--suite", "x", "--dry", "--verb"], environment(), counted.append)
    assert len(found.jobs) == 2
    assert (tmp_path / "words").read_text().split() == ["-vv", "--dry-run", "--suite", "x"]
    assert counted == [0, 1, 2, 3]


def test_what_is_not_built_yet_may_be_scheduled(tmp_path: Path) -> None:
    """The site's configuration is the program's, but that packages need not be there; nobody else can read it, and it goes."""
    site = tmp_path / "site.yaml"
    site.write_text("lock_server: http://lock/\nsuite_verify_ceph_hash: true\n")
    path = program(
        tmp_path,
        "cp $TEUTHOLOGY_CONFIG seen.yaml; stat -c %A $(dirname $TEUTHOLOGY_CONFIG) >mode",
        output=said.OUTPUT,
    )
    dry_run.run([path, "--suite", "x"], environment(TEUTHOLOGY_CONFIG=str(site)), lambda _: None)
    assert yaml.safe_load((tmp_path / "seen.yaml").read_text()) == {
        "lock_server": "http://lock/", "suite_verify_ceph_hash": False, "suite_allow_missing_packages": True,
    }  # fmt: skip
    assert (tmp_path / "mode").read_text() == "drwx------\n"
    assert "suite_verify_ceph_hash: true" in site.read_text()


@pytest.mark.parametrize(
    ("log", "script", "sentences"),
    [
        (
            said.BEFORE + CRASH,
            "exit 1",
            ["status 1: teuthology.exceptions.ScheduleFailError: Branch 'nosuch'", "ceph sha1"],
        ),
        (USAGE, "exit 1", ["takes no such arguments: --suite x;"]),
        ("", "kill -9 $$", ["status -9: it says nothing"]),
        ("", "exit 0", ["would schedule no job", "-vv --dry-run --suite x"]),
        (said.LOG, "exit 0", ["holds the commands"]),
    ],
    ids=["fails", "usage", "killed", "none", "log only"],
)
def test_why_there_are_no_jobs(tmp_path: Path, log: str, script: str, sentences: list[str]) -> None:
    """What the program says at its end is what is told, without the lines of its traceback."""
    with pytest.raises(NoJobs) as caught:
        dry_run.run([program(tmp_path, script, log=log), "--suite", "x"], environment(), lambda _: None)
    for sentence in sentences:
        assert sentence in str(caught.value)
    assert 'File "run.py"' not in str(caught.value)


def test_what_ends_us_ends_the_program(tmp_path: Path) -> None:
    """An exception in between, as a signal's, leaves no program behind."""
    path = program(tmp_path, "echo $$ >pid; echo ---; exec sleep 300")

    def stop(_: int) -> None:
        raise SystemExit(130)

    with pytest.raises(SystemExit):
        dry_run.run([path, "--suite", "x"], environment(), stop)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_program_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one beside this Python, or on PATH, or the one that is named; else it is said what to do."""
    path = program(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", "/nonexistent/bin/python")
    assert dry_run.command(["--suite", "x"])[0] == path
    assert dry_run.command(["teuthology-suite", "--suite", "x"])[0] == path
    monkeypatch.setenv("PATH", "/nonexistent")
    assert dry_run.command([path, "--suite", "x"]) == [path, "-vv", "--dry-run", "--suite", "x"]
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert dry_run.command(["--suite", "x"])[0] == path
    monkeypatch.setattr("sys.executable", "/nonexistent/bin/python")
    with pytest.raises(NoJobs, match="name it"):
        dry_run.command(["--suite", "x"])
    with pytest.raises(NoJobs, match="can't be run: No such file"):
        dry_run.run(["/nonexistent/teuthology-suite"], environment(), lambda _: None)


def test_without_teuthology_the_right_python_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where teuthology can't be imported, the Python of the teuthology-suite on PATH is named."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(stat.S_IRWXU)
    script = tmp_path / "teuthology-suite"
    script.write_text(f"#!{python}\n")
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongSettings, match=f"{python} -m teuthology_bridge prefetch"):
        dry_run.look_for_teuthology()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(WrongSettings, match="has no teuthology.*install the bridge there"):
        dry_run.look_for_teuthology()
