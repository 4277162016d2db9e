"""The script that makes the source tarball, with a make-dist as Ceph's own ends: status 0 though it failed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.git_repositories import commit, new_repository
from tests.listening import listening
from tests.package_repositories import run_script
from tests.steps.test_checkout_script import silent
from tests.steps.test_scripts import sentence, values

VERSION = "19.2.0-3-g73e2fc59"


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
        ("echo 'npm ERR! code ETIMEDOUT'; echo 'building the dashboard failed'; echo bye; exit",
         "building the dashboard failed"),
    ],
    ids=["not-found", "download", "last"],
)  # fmt: skip
def test_a_make_dist_that_fails_with_status_0_says_why(text: str, said: str, tmp_path: Path) -> None:
    """If make-dist ends well without a tarball, the sentence has its missing command or its last error."""
    assert sentence(make_dist(tmp_path, text)) == f"make-dist failed, though with status 0: {said}"


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
    assert sentence(finished).startswith("make-dist failed, though with status 0: ")


def test_make_dist_knows_the_time_of_the_commit(tmp_path: Path) -> None:
    """make-dist finds the commit's time in SOURCE_DATE_EPOCH."""
    text = 'mkdir "ceph-$1"; echo "epoch $SOURCE_DATE_EPOCH"; tar -czf "ceph-$1.tar.gz" "ceph-$1"'
    finished = make_dist(tmp_path, text)
    assert values(finished) == {"tarball": f"ceph-{VERSION}.tar.gz"}
    assert "epoch 1700000000\n" in finished.stdout
