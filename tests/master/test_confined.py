"""Confined programs: what they may use, what they cannot reach, and the sentence when they fail."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from master.publishing import confined
from master.publishing.confined import Confined, give
from tests.patience import until
from tests.reactor import finish
from workers.processes import Finished


def run(directory: Path, *command: str, **environment: str) -> str:
    """Run a program confined, and return its output."""
    output: bytes = finish(lambda reactor: Confined(reactor).run(directory, command, **environment))
    return output.decode()


def refusal(directory: Path, *command: str) -> str:
    """Return the sentence about a program that fails."""
    with pytest.raises(ValueError) as caught:
        run(directory, *command)
    return str(caught.value)


def test_it_is_nobody_without_capabilities(tmp_path: Path) -> None:
    """A program of a master that runs as root is nobody, has no capability, and can't win one."""
    status = dict(
        line.split(":\t", 1)
        for line in run(tmp_path, "cat", "/proc/self/status").splitlines()
        if ":\t" in line
    )
    nobody = pwd.getpwnam("nobody")
    assert os.geteuid() == 0, "the tests run as root, as the embedded provider does"
    assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
    assert status["Groups"].strip() == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_it_has_no_network(tmp_path: Path) -> None:
    """A program sees no network interface but a loopback that is down."""
    interfaces = run(tmp_path, "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert run(tmp_path, "readlink", "/proc/self/ns/net").strip() != os.readlink("/proc/self/ns/net")


def test_it_cannot_read_what_is_the_masters_own(tmp_path: Path) -> None:
    """A program reads the directory it was given, below one that nobody may search, and nothing else there."""
    private = tmp_path / "state"
    private.mkdir(mode=0o700)
    (private / "key").write_text("secret")
    given = private / "given"
    given.mkdir(mode=0o755)
    (given / "package").write_text("bytes")
    assert run(given, "cat", "package") == "bytes"
    assert refusal(given, "cat", str(private / "key")).endswith("Permission denied")
    assert refusal(given, "touch", "package").endswith("Permission denied")


def test_it_writes_to_what_it_was_given(tmp_path: Path) -> None:
    """Below the upload, a program can write only to a directory that was given to its user."""
    tmp_path.chmod(0o755)
    (tmp_path / "output").mkdir()
    give(tmp_path / "output")
    run(tmp_path, "touch", "output/made")
    assert (tmp_path / "output/made").exists()
    assert "Permission denied" in refusal(tmp_path, "touch", "elsewhere")


def test_its_environment_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the master's environment, where an operator may keep secrets, is passed on."""
    monkeypatch.setenv("OS_PASSWORD", "secret")
    lines = run(tmp_path, "env", SOURCE_DATE_EPOCH="7").splitlines()
    assert {line.partition("=")[0] for line in lines} <= {
        "PATH", "LC_ALL", "HOME", "SOURCE_DATE_EPOCH", "PWD", "OLDPWD", "SHLVL", "_",
    }  # fmt: skip
    assert "SOURCE_DATE_EPOCH=7" in lines


@pytest.mark.parametrize(
    ("limit", "command", "sentence"),
    [
        ("_MEMORY", ("python3", "-c", "bytearray(2**30)"), "python3 ended with status 1: MemoryError"),
        ("_FILE", ("dd", "if=/dev/zero", "of=big", "bs=1M", "count=4", "status=none"), "dd ended with status 1: dd: error writing 'big': File too large"),
        ("_SECONDS", ("sleep", "60"), "sleep was stopped after 1 s, or 64 MiB of output"),
        ("_SECONDS", ("sh", "-c", "while :; do :; done"), "sh was "),
    ],
    ids=["memory", "file", "wall", "processor"],
)  # fmt: skip
def test_it_has_limits(
    limit: str, command: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that wants too much memory, disk or time ends, and the sentence names it."""
    small = {"_MEMORY": 512 * 1024**2, "_FILE": 1024**2, "_SECONDS": 1}
    monkeypatch.setattr(confined, limit, small[limit])
    give(tmp_path)
    assert refusal(tmp_path, *command).startswith(sentence)


def test_nothing_outlives_it(tmp_path: Path) -> None:
    """A background process in its own session is gone once its program has ended."""
    run(tmp_path, "sh", "-c", "setsid sleep 98765 >/dev/null 2>&1 & sleep 0.1")
    assert not running("sleep 98765")


STARTS = """\
import sys
from pathlib import Path
from master.publishing.confined import Confined
from tests.reactor import finish
finish(lambda reactor: Confined(reactor).run(Path(sys.argv[1]), ["sh", "-c", "echo >started; exec sleep 98764"]))
"""


def test_it_dies_with_the_master(tmp_path: Path) -> None:
    """A master that is killed leaves no program behind that would go on writing to staging."""
    give(tmp_path)
    master = subprocess.Popen([sys.executable, "-c", STARTS, str(tmp_path)], cwd=Path(__file__).parents[2])
    until((tmp_path / "started").exists, "the program runs", 60)
    master.kill()
    master.wait()
    until(lambda: not running("sleep 98764"), "the program is gone", 20)


def running(command: str) -> bool:
    """Whether a program with these arguments runs on this machine."""
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    return command in listed.splitlines()


def test_a_failure_names_the_program_and_its_last_line(tmp_path: Path) -> None:
    """The sentence has the program, its status, and what it said last."""
    assert refusal(tmp_path, "sh", "-c", "echo first >&2; echo 'last one' >&2; exit 7") == (
        "sh ended with status 7: last one"
    )
    assert refusal(tmp_path, "sh", "-c", "exit 7") == "sh ended with status 7"


def test_another_user_than_root_has_no_network_either() -> None:
    """With a master that is not root, a program is the master's user, without capabilities, privileges to win, or network."""
    directory = Path(tempfile.mkdtemp(prefix="confined-"))  # where that user may go
    directory.chmod(0o755)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(1234)
            os.setuid(1234)
            text = run(directory, "cat", "/proc/self/status", "/proc/net/dev")
            os.write(writing, text.encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    directory.rmdir()
    assert "Uid:\t1234\t1234\t1234" in text
    assert f"CapEff:\t{'0' * 16}" in text
    assert "NoNewPrivs:\t1" in text
    assert re.findall(r"^ *(\w+): ", text, re.MULTILINE) == ["lo"]


@pytest.mark.parametrize(
    "busy",
    [Finished(None, b"", ""), Finished(1, b"", "unshare: fork failed: Resource temporarily unavailable\n")],
)
def test_a_machine_that_is_busy_for_once_confines_all_the_same(
    busy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a refusal means that there are no namespaces; otherwise nothing runs, and the next publication looks again."""
    real = confined.run
    answers = [busy]

    async def look(*arguments: Any) -> Finished:
        return answers.pop() if answers else await real(*arguments)

    monkeypatch.setattr(confined, "run", look)

    async def twice(reactor: Any) -> tuple[str, bytes]:
        mine = Confined(reactor)
        try:
            await mine.run(tmp_path, ["true"])
        except ValueError as error:
            return str(error), await mine.run(tmp_path, ["readlink", "/proc/self/ns/net"])
        return "", b""

    said, network = finish(twice)
    assert said.startswith("whether this machine allows namespaces could not be found out")
    assert network.decode().strip() not in ("", os.readlink("/proc/self/ns/net"))


def test_without_namespaces_the_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine allows no namespace, a program runs as the master's user, without new privileges and with limits."""

    async def start(reactor: object) -> bytes:
        mine = Confined(reactor)
        mine._namespaces = []  # as on a machine that allows none
        return await mine.run(tmp_path, ["cat", "/proc/self/status", "/proc/self/limits"])

    text = finish(start).decode()
    assert "NoNewPrivs:\t1" in text
    assert f"Uid:\t{os.geteuid()}\t" in text
    assert "Max address space         4294967296" in text
