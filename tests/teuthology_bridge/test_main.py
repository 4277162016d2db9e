"""The command for people, against a master on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.teuthology_bridge.environments import CHECKOUT
from tests.teuthology_bridge.fake_master import KEY, MOVED, OTHER, SHA1, TARGET, TOKEN, FakeMaster
from teuthology_bridge import __version__
from teuthology_bridge.__main__ import main


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMaster]:
    """A master that teuthology's configuration names."""
    with FakeMaster(refs={"reef": SHA1}) as running:
        site(tmp_path, running, monkeypatch)
        yield running


def site(tmp_path: Path, running: FakeMaster, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    """Write teuthology's configuration."""
    file = tmp_path / "teuthology.yaml"
    named = {"url": running.url, "packages_url": running.packages_url, "token": TOKEN}
    file.write_text(json.dumps({"buildpackages": named, **others}))
    monkeypatch.setenv("TEUTHOLOGY_CONFIG", str(file))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Give what was printed, which was nothing to complain of."""
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def complained(capsys: pytest.CaptureFixture[str]) -> str:
    """Give what was complained of."""
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def status_of(which: str, **told: object) -> dict[str, object]:
    """Give the status of a buildrequest, as the master tells it."""
    return {"buildrequest_id": 1, "package_key": which, "state": "building", **told}


def on_their_way(master: FakeMaster, *rows: dict[str, object]) -> None:
    """Have these be all that is on its way."""
    told = {"packages": list(rows), "meta": {}}
    master.instead = lambda method, path: (200, told) if path == "/api/v2/packages" else None


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names each command, and where the settings are; each command has its own."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = said(capsys)
    for word in ("check", "activate", "deactivate", "ask", "status", "prefetch"):
        assert f"\n    {word}" in told
        with pytest.raises(SystemExit):
            main([word, "--help"])
        assert "BUILDPACKAGES_URL" in said(capsys)
    assert "TEUTHOLOGY_CONFIG" in told


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The command tells its version."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert said(capsys) == f"buildpackages {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ask", TARGET],
        ["ask", TARGET, "--sha1", "abc"],
        ["ask", TARGET, "--sha1", SHA1, "--ref", "main"],
        ["ask", "--ref", "main"],
        ["build"],
    ],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Words that it does not take end it with status 2 and a usage."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: buildpackages" in complained(capsys)


def test_ask(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """An ask says what came of it, where the packages will be, and how to follow them; nobody's job waits."""
    assert main(["ask", TARGET, "--ref", "reef"]) == 0
    assert said(capsys) == (
        f"{KEY}: on its way as buildrequest 1 (buildpackages status 1);"
        f" it will be {master.packages_url}{TARGET}/sha1/{SHA1}/\n"
    )
    [params] = master.asked()
    assert (params["builderNames"], params["ref"], params["git_url"]) == ([TARGET], "reef", "")
    assert "job" not in params
    assert "withdraw 1" not in master.order


def test_ask_for_what_is_published(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """What is published is said to be, with its URL; digits may be in upper case."""
    master.published.add(KEY)
    assert main(["ask", TARGET, "--sha1", SHA1.upper()]) == 0
    assert said(capsys) == f"{KEY}: published, {master.packages_url}{TARGET}/sha1/{SHA1}/\n"


def test_whose_repository(
    master: FakeMaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The repository is the one that is named, or else the one that the site's jobs install from."""
    words = ["ask", TARGET, "--sha1", SHA1]
    main([*words, "--git-url", "https://a.example/ceph.git"])
    site(tmp_path, master, monkeypatch, ceph_git_base_url="https://b.example/")
    main(words)
    site(
        tmp_path, master, monkeypatch,
        ceph_git_base_url="https://b.example/", ceph_git_url="https://c.example/ceph.git",
    )  # fmt: skip
    main(words)
    assert [params["git_url"] for params in master.asked()] == [
        "https://a.example/ceph.git",
        "https://b.example/ceph-ci.git",
        "https://c.example/ceph.git",
    ]


def test_ask_for_nonsense(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """What the master refuses is passed on with all of its sentences."""
    assert main(["ask", "ceph-deb-x", "--ref", "reef"]) == 1
    assert f"'ceph-deb-x' is not a target that is on; there are {TARGET}, {OTHER}" in complained(capsys)
    assert main(["ask", TARGET, "--ref", "nosuch"]) == 1
    assert "has no branch or tag 'nosuch'" in complained(capsys)


def test_ask_without_a_good_token(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that is not good is told to be so; the environment's goes before the site's."""
    monkeypatch.setenv("BUILDPACKAGES_TOKEN", "wrong")
    assert main(["ask", TARGET, "--ref", "reef"]) == 1
    assert "`token` of `buildpackages` is not good" in complained(capsys)


def test_the_master_is_away(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """A person is told at once that the master is away, and need not wait for it."""
    master.kill()
    for words in (["ask", TARGET, "--ref", "reef"], ["status"], ["status", "1"]):
        assert main(words) == 1
        assert f"the master at {master.url} gives no answer: Connection refused" in complained(capsys)
    master.start_again()


def test_the_repository_is_away(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """That the repository does not answer the master is told as that: the master does."""
    master.instead = lambda *_: (400, {"error": {"code": -32000, "message": {"git_url": "G did not answer"}}})
    assert main(["ask", TARGET, "--ref", "reef"]) == 1
    assert complained(capsys) == f"buildpackages: the master at {master.url} says git_url: G did not answer\n"


def test_ask_and_wait(master: FakeMaster, tmp_path: Path) -> None:
    """With --wait the log goes to stderr, and stdout has the URL alone, for the next command."""
    master.script = [{"state": "building", "build": 1, "step": "make"}, {"state": "published", "build": 1}]
    finished = in_process(tmp_path, "ask", TARGET, "--ref", "reef", "--wait").communicate(timeout=60)
    assert finished[0] == f"{master.packages_url}{TARGET}/sha1/{SHA1}/\n"
    assert f"{KEY}: is built at " in finished[1]


def test_wait_in_vain(master: FakeMaster, tmp_path: Path) -> None:
    """With --wait, packages that can't be built end it with status 1 and the reason."""
    master.script = [{"state": "failed", "build": 1, "error": "x.cc:1: error: no"}]
    process = in_process(tmp_path, "ask", TARGET, "--sha1", SHA1, "--wait")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"buildpackages: {KEY}: the build failed: x.cc:1: error: no" in errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_who_is_ended_waits_no_more(master: FakeMaster, tmp_path: Path, number: int, status: int) -> None:
    """Ended while it waits, it withdraws; it had waited under a name of its own."""
    master.script = [{"state": "building", "build": 1, "step": "make"}]
    process = in_process(tmp_path, "ask", TARGET, "--sha1", SHA1, "--wait")
    assert process.stderr is not None
    for line in process.stderr:
        if "is built at" in line:
            process.send_signal(number)
            break
    process.communicate(timeout=60)
    assert process.returncode == status
    [ask] = master.asked()
    [word] = master.asked("withdraw")
    assert word["job"] == ask["job"]
    assert str(process.pid) in ask["job"]


def in_process(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "teuthology_bridge", *words],
        cwd=CHECKOUT,
        env={**os.environ, "TEUTHOLOGY_CONFIG": str(tmp_path / "teuthology.yaml")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_status_of_a_buildrequest(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """A number is a buildrequest: its step, percentage and build are told, and who waits."""
    main(["ask", TARGET, "--ref", "reef"])
    capsys.readouterr()
    master.script = [
        {"state": "building", "build": 1, "step": "make", "step_state": "compiling", "percent": 40}
    ]
    assert main(["status", "1"]) == 0
    assert said(capsys) == (
        f"{KEY}: step make, compiling, 40 %, {master.url}#/builders/3/builds/1\n    lab waits\n"
    )


@pytest.mark.parametrize(
    ("told", "line", "status"),
    [
        ({"state": "waiting", "reason": "no machine is free"}, "no machine is free", 0),
        ({"state": "published", "url": "http://p/"}, "published, http://p/", 0),
        ({"state": "failed", "error": "x.cc:1"}, "failed: x.cc:1", 1),
        ({"state": "failed", "reason": "verification"}, "failed: verification", 1),
        (
            {"state": "infrastructure", "error": "no machine"},
            "could not be built, and not because of the commit: no machine",
            1,
        ),
        ({"state": "cancelled", "reason": "by alice"}, "cancelled: by alice", 1),
    ],
)
def test_every_state(
    master: FakeMaster, capsys: pytest.CaptureFixture[str], told: dict[str, object], line: str, status: int
) -> None:
    """Each state is said, and the exit status is 0 only if packages are there or may come."""
    row = {"packages": [status_of(KEY, **told)], "meta": {}}
    master.instead = lambda method, path: (200, row)
    assert main(["status", "7"]) == status
    assert said(capsys) == f"{KEY}: {line}\n"


def test_status_of_a_key(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """A key is published, or on its way, or neither."""
    on_their_way(master, status_of(f"{OTHER}/{SHA1}", step="other"), status_of(KEY, step="make"))
    assert main(["status", KEY]) == 0
    assert said(capsys) == f"{KEY}: step make\n"
    assert main(["status", f"{TARGET}/{MOVED}"]) == 1
    assert said(capsys) == f"{TARGET}/{MOVED}: neither published nor on its way\n"
    master.published.add(KEY)
    assert main(["status", KEY]) == 0
    assert said(capsys) == f"{KEY}: published, version 17.2.6-1, {master.packages_url}{TARGET}/sha1/{SHA1}/\n"


def test_status_of_everything(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a word it is all that is on its way, which may be nothing."""
    on_their_way(master, status_of(KEY, step="make"), status_of(f"{OTHER}/{SHA1}", step="other"))
    assert main(["status"]) == 0
    assert said(capsys).splitlines() == [f"{KEY}: step make", f"{OTHER}/{SHA1}: step other"]
    on_their_way(master)
    assert main(["status"]) == 0
    assert said(capsys) == "nothing is on its way\n"


def test_status_of_nonsense(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """What is neither, and a buildrequest that the master does not know, are said to be so."""
    assert main(["status", "4711"]) == 1
    assert "knows no buildrequest 4711" in complained(capsys)
    for word in ("reef", f"{TARGET}/abc", f"{TARGET}/{SHA1}/x"):
        assert main(["status", word]) == 1
        assert f"{word!r} is neither a buildrequest's number nor TARGET/SHA1" in complained(capsys)


def test_the_package_server_is_away(master: FakeMaster, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the package server nobody can say whether a key is published."""
    master.kill_package_server()
    assert main(["status", KEY]) == 1
    assert f"the package server at {master.packages_url} gives no answer" in complained(capsys)


def test_check_ends_with_its_findings(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` fails where something is to be done, and prints JSON when asked to."""
    on_their_way(master)
    assert main(["check"]) == 1
    assert "wrong   name" in said(capsys)
    assert main(["check", "--json"]) == 1
    told = json.loads(said(capsys))
    assert [one["what"] for one in told["findings"]] == ["name", "master", "token", "packages", "key"]


def test_warnings_are_told_beside(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the settings warn of goes to stderr, and the command does its work."""
    monkeypatch.setenv("BUILDPACKAGES_URLL", "x")
    on_their_way(master)
    assert main(["status"]) == 0
    printed = capsys.readouterr()
    assert "BUILDPACKAGES_URLL means nothing" in printed.err
    assert printed.out == "nothing is on its way\n"


def test_wrong_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration that can't be read is named, with what is wrong in it."""
    file = tmp_path / "teuthology.yaml"
    monkeypatch.setenv("TEUTHOLOGY_CONFIG", str(file))
    for text, told in (("[1]", "must hold a mapping, not list"), ("{a: [}", "can't be read")):
        file.write_text(text)
        assert main(["status"]) == 1
        assert f"{file}, teuthology's configuration, {told}" in complained(capsys)
