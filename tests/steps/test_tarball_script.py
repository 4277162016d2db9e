"""The script that makes the source tarball, with a make-dist as Ceph's own ends: status 0 though it failed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from steps.output import Output
from tests.git_repositories import commit, new_repository
from tests.listening import listening
from tests.package_repositories import SCRIPTS, run_script
from tests.steps.test_checkout_script import silent
from tests.steps.test_scripts import sentence, values

VERSION = "19.2.0-3-g73e2fc59"
KEY = "0123456789abcdef0123456789abcdef"
NO_TARBALL = f"make-dist ended well, but left 0 files ceph-{VERSION}.tar.* instead of one"


def make_dist(directory: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a commit with a make-dist of this text."""
    commit(new_repository(directory / "src"), "first", {"make-dist": f"#!/bin/bash\n{text}"})
    return run_script(directory, "tarball", "ceph", VERSION, **environment)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no-such-wget -O boost.tar.bz2 http://h/boost.tar.bz2 || { echo 'Error: failed to download boost.tar.bz2.'; exit; }",
         "./make-dist: line 2: no-such-wget: command not found"),
        ("echo 'sha256sum: WARNING: 1 computed checksum did NOT match'; echo 'Error: failed to download boost.tar.bz2.' >&2; exit 0",
         "Error: failed to download boost.tar.bz2."),
    ],
    ids=["not-found", "download"],
)  # fmt: skip
def test_a_make_dist_that_fails_with_status_0_says_why(text: str, said: str, tmp_path: Path) -> None:
    """If make-dist ends well without a tarball, the step's reason has its missing command or its error."""
    finished = make_dist(tmp_path, text)
    assert sentence(finished) == NO_TARBALL
    output = Output(KEY)
    for line in (*finished.stderr.splitlines(), *finished.stdout.splitlines(), f"{KEY} FAILED: {NO_TARBALL}"):
        output.feed(line)
    assert output.reason() == f"{NO_TARBALL}: {said}"


def test_what_make_dist_leaves_behind_does_not_hold_it_up(tmp_path: Path) -> None:
    """A background process of make-dist that keeps the output open does not keep the script from its end."""
    text = 'sleep 1000 & echo $! >../pid; mkdir "ceph-$1"; tar -czf "ceph-$1.tar.gz" "ceph-$1"'
    commit(new_repository(tmp_path / "src"), "first", {"make-dist": f"#!/bin/bash\n{text}\n"})
    script = f'bash "{SCRIPTS}/tarball.sh" ceph {VERSION} >out 2>&1; echo $?'
    finished = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert finished.stdout == "0\n", (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    "command", ["wget -O x {url}", "git ls-remote {url}", "curl -o x {url}"], ids=["wget", "git", "curl"]
)
def test_what_make_dist_downloads_from_a_silent_server_fails(command: str, tmp_path: Path) -> None:
    """The project's own downloads end within the limit of silence, whichever tool it uses."""
    with listening(silent) as port:
        text = (
            command.format(url=f"http://127.0.0.1:{port}/x")
            + " || { echo 'Error: failed to download x.'; exit; }"
        )
        finished = make_dist(tmp_path, text, BUILDPACKAGES_NETWORK_SILENCE="1")
    assert "Error: failed to download x." in finished.stdout
    assert sentence(finished) == NO_TARBALL


def test_make_dist_knows_the_time_of_the_commit(tmp_path: Path) -> None:
    """make-dist finds the commit's time in SOURCE_DATE_EPOCH."""
    text = 'mkdir "ceph-$1"; echo "epoch $SOURCE_DATE_EPOCH"; tar -czf "ceph-$1.tar.gz" "ceph-$1"'
    finished = make_dist(tmp_path, text)
    assert values(finished) == {"tarball": f"ceph-{VERSION}.tar.gz"}
    assert "epoch 1700000000\n" in finished.stdout
