"""What fails ends with a sentence, shows nothing, and can be asked again; a lost machine is another matter."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from model.targets import Target
from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation
from workers.roots import Root, host_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILURE, EXCEPTION, CANCELLED = 2, 4, 6


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with two machines, and a fork that shares no history with the repository."""
    with tiny_installation(tmp_path_factory.mktemp("failures")) as made:
        tiny.Repository(made.input / "stranger/ceph.git", tag="")
        yield made


def published(here: Installation, sha1: str) -> list[Path]:
    """Give every published path that speaks of a commit."""
    return [
        path
        for path in here.packages.rglob("*")
        if sha1 in (path.name, path.is_symlink() and os.readlink(path))
    ]


@pytest.mark.parametrize(
    ("knobs", "step", "sentence"),
    [
        (tiny.COMPILE_ERROR, "packages", "Building the packages failed: foo.c:1:1: error: expected ';' before 'bar'"),
        (tiny.FORGED_FAILURE, "packages", "Building the packages failed: foo.c:1:1: error: expected ';' before 'bar'"),
        (tiny.MISSING_PACKAGE, "packages",
         "Building the packages failed: debian/control names tiny-tools, but the build made no such deb"),
        (tiny.TRUNCATED, "packages", "_all.deb is corrupt or truncated"),
        (tiny.Knobs(debian=False), "dependencies",
         "Installing the build dependencies failed: the commit has neither install-deps.sh nor debian/control"),
        (tiny.Knobs(install_deps="echo E: Unable to locate package libfoo; exit 100"), "dependencies",
         "Installing the build dependencies failed: install-deps.sh cannot install libfoo"),
        (tiny.Knobs(make_dist="echo tarball=elsewhere.tar.gz; echo './make-dist: line 3: wget: command not found'; exit"),
         "tarball", "instead of one: ./make-dist: line 3: wget: command not found"),
    ],
    ids=["compile error", "forged", "missing package", "truncated deb", "no debian", "no dependency", "no wget"],
)  # fmt: skip
def test_failing_commit(here: Installation, knobs: tiny.Knobs, step: str, sentence: str) -> None:
    """The build's sentence says what stopped it, and nothing of the build is visible."""
    sha1 = here.repository.commit(knobs, ref="failing")
    answer = here.ask(DEB, ref="failing")
    assert here.wait(answer)["results"] == FAILURE
    [build] = here.builds(answer)
    assert build["results"] == FAILURE
    assert sentence in build["state_string"]
    assert not build["state_string"].startswith("failed")
    assert "forged" not in build["state_string"]
    steps = here.steps(build)
    assert [name for name, one in steps.items() if one["results"] == FAILURE] == [step]
    assert sentence in steps[step]["state_string"]
    assert published(here, sha1) == []
    again = here.ask(DEB, sha1=sha1)
    assert again["state"] == "on its way"
    assert again["buildset_id"] > answer["buildset_id"]
    assert here.wait(again)["results"] == FAILURE


def test_what_a_build_prints_is_not_believed(here: Installation) -> None:
    """Values and sentences in the output of make-dist and debian/rules are no values of ours: the build publishes what it made."""
    answer = here.ask(DEB, sha1=here.repository.commit(tiny.FORGING))
    request = here.wait(answer)
    assert request["results"] == 0, here.said(answer)
    [build] = here.builds(answer)
    properties = here.get(f"builds/{build['buildid']}/properties")["properties"][0]
    assert properties["packages"][0] == ["tiny"]
    assert properties["tarball"][0].startswith("ceph-1.0-")
    assert "packages=ceph-common\n" in here.log(build, "packages")
    assert here.steps(build)["packages"]["state_string"] == "1 packages built"


def test_what_a_build_leaves_behind_does_not_hold_it_up(here: Installation) -> None:
    """A background process that keeps the output open ends with the step, which succeeds."""
    answer = here.ask(DEB, sha1=here.repository.commit(tiny.LEFT_BEHIND))
    assert here.wait(answer)["results"] == 0, here.said(answer)
    [build] = here.builds(answer)
    assert "the script has ended" in here.log(build, "packages")
    assert here.steps(build)["packages"]["state_string"] == "1 packages built"


def test_commit_that_nobody_has(here: Installation) -> None:
    """A sha1 that the repository does not have is refused at the request, beside its field, before there is a build."""
    sha1 = "0123456789abcdef0123456789abcdef01234567"
    before = len(here.get("buildsets")["buildsets"])
    answer = here.force(builderNames=[DEB], sha1=sha1)
    assert answer.status_code == 400
    sentence = f"{here.git_url} has no commit {sha1}: push it there, or name the repository that has it"
    assert answer.json()["error"] == {"code": -32602, "message": {"sha1": sentence}}
    assert len(here.get("buildsets")["buildsets"]) == before
    assert published(here, sha1) == []


def test_commit_without_a_version(here: Installation) -> None:
    """Where no canonical tag is an ancestor there is no version, and no guess at one."""
    stranger = here.git_url.replace("/ceph.git", "/stranger/ceph.git")
    answer = here.ask(DEB, ref="main", git_url=stranger)
    assert here.wait(answer)["results"] == FAILURE
    [build] = here.builds(answer)
    assert (
        f"no tag v* of {here.git_url} is an ancestor of the commit, so it has no version"
        in build["state_string"]
    )
    assert published(here, answer["package_key"].split("/")[1]) == []


def machine_of(here: Installation, what: bytes) -> int:
    """Give the outermost process of the machine in which something runs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents[int(entry.name)] = (parent, command)
    [pid] = [number for number, (_, command) in parents.items() if command == what]
    while parents[pid][0] != here.pid:
        pid = parents[pid][0]
    return pid


def test_lost_machine_is_replaced(here: Installation) -> None:
    """A machine that dies in mid-build costs a try: another one builds the same request."""
    sha1 = here.repository.commit(tiny.sleeping(7.25))
    answer = here.ask(DEB, sha1=sha1)
    pid = here.until(lambda: _found(here, b"sleep\x007.25\x00"), "the build sleeps")
    os.kill(pid, signal.SIGKILL)
    assert here.wait(answer)["results"] == 0
    lost, *_, good = here.builds(answer)
    assert lost["results"] == 5, "a retry"
    assert "machine_failed" in here.get(f"builds/{lost['buildid']}/properties")["properties"][0]
    assert good["results"] == 0
    assert (here.packages / DEB / "sha1" / sha1 / "version").exists()
    assert here.ask(DEB, sha1=sha1)["state"] == "published"
    here.until(lambda: not here.leftovers(), "nothing is left of either machine")


def test_a_cancelled_build_ends_though_its_machine_hangs(here: Installation) -> None:
    """Who cancels need not wait for an answer of a machine that gives none; what was cancelled is not tried again."""
    answer = here.ask(DEB, sha1=here.repository.commit(tiny.sleeping(8.25)))
    here.until(lambda: _found(here, b"sleep\x008.25\x00"), "the build sleeps")
    running = [int(line.partition(":")[0]) for line in here.leftovers() if line[0].isdigit()]
    assert len(running) > 3
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    [build] = here.builds(answer)
    told = requests.post(
        f"{here.url}api/v2/builds/{build['buildid']}",
        json={"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {"reason": "it hangs"}},
        headers={"Authorization": f"Bearer {here.token}"}, timeout=60,
    )  # fmt: skip
    assert told.ok, told.text
    assert here.wait(answer)["results"] == CANCELLED
    assert here.said(answer) == [(CANCELLED, "cancelled (it hangs)")]
    here.until(lambda: not here.leftovers(), "nothing is left of the machine")


def _found(here: Installation, command: bytes) -> int:
    try:
        return machine_of(here, command)
    except (ValueError, KeyError):
        return 0


def test_machine_whose_worker_never_attaches(
    here: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A machine that cannot start is tried so often and no more, and every try says what it said last."""
    roots = tmp_path_factory.mktemp("roots")
    (
        roots / Root.of(Target.from_name(DEB), host_suite()).name
    ).mkdir()  # taken for a prepared root, and not even a shell is in it
    with tiny_installation(
        tmp_path_factory.mktemp("never"), workers={"attempts": 2, "local": {"roots": str(roots)}}
    ) as made:
        sha1 = made.repository.commit()
        answer = made.ask(DEB, sha1=sha1)
        assert made.wait(answer, 120)["results"] == EXCEPTION
        builds = made.builds(answer)
        assert [build["results"] for build in builds] == [5, 5, EXCEPTION]
        for build in builds[:2]:
            assert "the machine ended before its worker attached: " in build["state_string"]
            assert "its process ended (with status " in build["state_string"]
        assert "infrastructure failed 2 times, at last: " in builds[-1]["state_string"]
        assert "its last words: " in builds[-1]["state_string"]
        assert published(made, sha1) == []
        made.until(lambda: not made.leftovers(), "nothing is left of the tries")
        assert made.ask(DEB, sha1=sha1)["buildset_id"] > answer["buildset_id"]
