"""A master killed with SIGKILL, anywhere: a package_key is absent or whole, and the next start makes it good."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILL = """
import os
import signal
import sys
from pathlib import Path

here = Path(__file__).resolve().parents[1]
tree, staging, scratch = (f"{here / name}/" for name in ("packages", "staging", "scratch"))
uploaded = []

def sha1_of(path):
    return path.removeprefix(staging).split("/")[1]

def at(event, arguments):
    "Name the moment that comes right after this; the interpreter tells what it is about to do."
    paths = [str(one) for one in arguments if isinstance(one, (str, os.PathLike))]
    last = paths[-1] if paths else ""
    if event == "os.mkdir" and last.startswith(scratch):
        return "the machine is made"
    if event == "os.rename" and paths[0].startswith(f"{staging}incoming/"):
        uploaded.append(last)
        return "the second file arrives" if sum(sha1_of(one) == sha1_of(last) for one in uploaded) == 2 else ""
    if event == "open" and paths and paths[0].startswith(staging) and "w" in (arguments[1] or ""):
        written = {"manifest.json": "the metadata is written", "version": "the version is written"}
        return written.get(Path(paths[0]).name, "")
    if event == "os.rename" and last.startswith(tree):
        return "the directory is renamed" if "/sha1/" in last else "the link is renamed" if "/ref/" in last else ""
    if event == "os.symlink":
        return "the link is made"
    if event in ("shutil.rmtree", "os.remove") and last.startswith(f"{staging}ceph"):
        return "the build ends"
    return ""

def hook(event, arguments):
    if event in ("os.mkdir", "os.rename", "open", "os.symlink", "shutil.rmtree", "os.remove"):
        moment = at(event, arguments)
        order = here / f"kill before {moment}"
        if moment and order.exists():
            order.rename(here / "killed")
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
"""
"""Kills the master's process right before a moment, if a file named after it says so."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master that can be told when to die."""
    with tiny_installation(tmp_path_factory.mktemp("killed"), patch=KILL) as made:
        yield made


def kill_before(here: Installation, moment: str) -> None:
    """Have the master killed right before a moment."""
    (here.directory / f"kill before {moment}").touch()


def until_killed(here: Installation, moment: str) -> None:
    """Wait until it is, at that moment."""
    here.until(lambda: not here.pid, f"the master is killed before {moment}")
    (here.directory / "killed").unlink()


def until_log_says(here: Installation, answer: dict, step: str, text: str) -> None:
    """Wait until a step of the request's build has said something."""

    def said() -> bool:
        builds = here.builds(answer)
        return bool(builds) and step in here.steps(builds[-1]) and text in here.log(builds[-1], step)

    here.until(said, f"the log of {step} says {text!r}")


def is_whole(directory: Path, sha1: str) -> bool:
    """Whether a package_key is there; if it is, it must be whole."""
    if not directory.exists():
        return False
    assert (directory / "version").read_text().endswith(f"-g{sha1[:8]}-1bookworm\n")
    assert (directory / "sha1").read_text() == f"{sha1}\n"
    manifest = json.loads((directory / "manifest.json").read_text())
    assert len(manifest["files"]) >= 8
    for file in manifest["files"]:
        assert (directory / file["path"]).stat().st_size == file["size"], file
    assert (directory / "dists/bookworm/InRelease").exists()
    return True


def made_good(here: Installation, answer: dict, sha1: str, ref: str) -> None:
    """Start again: the same buildrequest completes by itself, and nothing of the old boot is left."""
    old = {line.partition(":")[0] for line in here.leftovers()}
    directory = here.packages / DEB / "sha1" / sha1
    is_whole(directory, sha1)
    here.start(patch=KILL)
    left = here.leftovers()
    assert not old & {line.partition(":")[0] for line in left}, left
    assert here.wait(answer)["results"] == 0, here.said(answer)
    assert is_whole(directory, sha1)
    link = here.packages / DEB / "ref" / ref
    here.until(lambda: link.is_symlink() and link.resolve() == directory.resolve(), "the ref is linked")
    again = here.ask(DEB, sha1=sha1)
    assert again["state"] == "published"
    assert (again["buildset_id"], again["buildrequest_ids"]) == (
        answer["buildset_id"],
        answer["buildrequest_ids"],
    )
    served = requests.get(f"{here.packages_url}{DEB}/ref/{ref}/sha1", timeout=30)
    assert served.text == f"{sha1}\n"
    here.until(lambda: not here.leftovers(), "nothing is left of the builds")
    assert [path for path in here.settings.packages.staging.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "moment",
    [
        "the machine is made",
        "the second file arrives",
        "the metadata is written",
        "the version is written",
        "the directory is renamed",
        "the link is made",
        "the link is renamed",
        "the build ends",
    ],
)
def test_killed_right_before(here: Installation, moment: str) -> None:
    """Whatever the master is about to do, being killed instead costs time, and nothing else."""
    ref = f"wip/{moment.replace(' ', '-')}"
    sha1 = here.repository.commit(ref=ref)
    kill_before(here, moment)
    answer = here.ask(DEB, ref=ref)
    assert answer["state"] == "on its way"
    until_killed(here, moment)
    visible = moment in ("the link is made", "the link is renamed", "the build ends")
    assert is_whole(here.packages / DEB / "sha1" / sha1, sha1) == visible
    made_good(here, answer, sha1, ref)


def test_killed_during_checkout(here: Installation) -> None:
    """A worker that waits for git dies with its master, and the commit is checked out again."""
    sha1 = here.repository.commit(ref="checkout")
    assert here.ask(DEB, ref="checkout")["state"] == "on its way"
    answer = here.ask(DEB, sha1=sha1)
    daemon = int((here.input / "git-daemon.pid").read_text())
    os.killpg(daemon, signal.SIGSTOP)
    try:
        until_log_says(here, answer, "checkout", "scripts/checkout.sh")
        here.kill()
    finally:
        os.killpg(daemon, signal.SIGCONT)
    assert not is_whole(here.packages / DEB / "sha1" / sha1, sha1)
    made_good(here, answer, sha1, "checkout")


def test_killed_during_packages(here: Installation) -> None:
    """A build that runs dies with its master at once, and is built again."""
    sha1 = here.repository.commit(tiny.sleeping(10), ref="packages")
    answer = here.ask(DEB, ref="packages")
    until_log_says(here, answer, "packages", "asleep")
    here.kill()
    here.until(lambda: not [line for line in here.leftovers() if "sleep" in line], "the build is dead", 5)
    assert not is_whole(here.packages / DEB / "sha1" / sha1, sha1)
    made_good(here, answer, sha1, "packages")


def test_killed_while_resolving(here: Installation) -> None:
    """A question that nobody answered any more has queued nothing, and can be asked again."""
    sha1 = here.repository.commit(ref="resolving")
    before = len(here.get("buildsets")["buildsets"])
    daemon = int((here.input / "git-daemon.pid").read_text())
    os.killpg(daemon, signal.SIGSTOP)
    try:
        with pytest.raises(requests.ConnectionError):
            os.system(f"(sleep 1; kill -9 {here.pid}) &")
            here.force(builderNames=[DEB], ref="resolving")
    finally:
        os.killpg(daemon, signal.SIGCONT)
    here.start(patch=KILL)
    assert len(here.get("buildsets")["buildsets"]) == before
    answer = here.ask(DEB, ref="resolving")
    assert answer["package_key"] == f"{DEB}/{sha1}"
    assert here.wait(answer)["results"] == 0
    here.until(lambda: not here.leftovers(), "nothing is left of the builds")
