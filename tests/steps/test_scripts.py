"""The scripts that run on a worker: the real bash and the real tools, and tools that lie."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.git_repositories import commit, new_repository
from tests.package_repositories import (
    SCRIPTS,
    run_script,
)

VERSION = "19.2.0-3-g73e2fc59"


def sentence(finished: subprocess.CompletedProcess[str]) -> str:
    """Give the sentence that a script failed with, as the step finds it."""
    assert finished.returncode != 0, finished.stdout
    sentences = re.findall(r"^FAILED: (.*)$", finished.stderr, re.MULTILINE)
    assert sentences, finished.stderr
    return str(sentences[0])


def values(finished: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the values that a script without a key printed; it ended with status 0."""
    assert finished.returncode == 0, finished.stderr
    return dict(re.findall(r"^([a-z_]+)=(.*)$", finished.stdout, re.MULTILINE))


def tool(directory: Path, name: str, text: str) -> str:
    """Put a tool that lies into a directory for PATH, and give that."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/bash\n{text}")
    (directory / name).chmod(0o755)
    return str(directory)


def test_every_script_is_bash_and_sources_the_common_part() -> None:
    """Every script stops at the first command that fails, reports as the common part does, and keeps its EXIT trap."""
    for path in SCRIPTS.glob("*.sh"):
        if path.name not in ("common.sh", "network.sh"):
            text = path.read_text()
            assert text.startswith(f"#!/usr/bin/env bash\n# {path.name}"), path
            assert '\n. "$(dirname "$0")/common.sh"\n' in text, path
            assert not re.search(r"^\s*trap\b|FAILED", text, re.MULTILINE), path


# machine.sh


def test_the_machine_tells_its_size(tmp_path: Path) -> None:
    """System, cores and memory are values that the step reads, and so is what stands in for the distribution."""
    told = values(run_script(tmp_path, "machine", BUILDPACKAGES_STAND_IN=""))
    assert told["system"]
    assert int(told["cores"]) >= 1
    assert int(told["memory"]) >= 1
    assert told["stand_in"] == ""
    assert (
        values(run_script(tmp_path, "machine", BUILDPACKAGES_STAND_IN="Debian for centos9"))["stand_in"]
        == "Debian for centos9"
    )


# tarball.sh


def make_dist(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a commit with a make-dist of this text."""
    commit(new_repository(directory / "src"), "first", {"make-dist": f"#!/bin/bash\n{text}"})
    return run_script(directory, "tarball", "ceph", VERSION)


def test_make_dist_is_told_the_version(tmp_path: Path) -> None:
    """make-dist gets the version, and the tarball that it leaves is looked into and named."""
    finished = make_dist(
        tmp_path, 'mkdir "ceph-$1"; echo x >"ceph-$1/a"; tar -cjf "ceph-$1.tar.bz2" "ceph-$1"'
    )
    assert values(finished) == {"tarball": f"ceph-{VERSION}.tar.bz2"}
    assert f"ceph-{VERSION}.tar.bz2: 2 files, " in finished.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "make-dist ended with status 3"),
        ("exit 0", f"make-dist ended well, but left 0 files ceph-{VERSION}.tar.* instead of one"),
        ("touch ceph-1.0.tar.gz", f"make-dist ended well, but left 0 files ceph-{VERSION}.tar.* instead of one"),
        ('touch "ceph-$1.tar.gz" "ceph-$1.tar.bz2"', f"make-dist ended well, but left 2 files ceph-{VERSION}.tar.* instead of one"),
        ('touch "ceph-$1.tar.gz"', f"ceph-{VERSION}.tar.gz is not a whole tarball"),
        ('head -c 300000 /dev/urandom >a; mkdir "ceph-$1"; mv a "ceph-$1/"; tar -cz "ceph-$1" | head -c 200000 >"ceph-$1.tar.gz"', f"ceph-{VERSION}.tar.gz is not a whole tarball"),
        ('mkdir other; tar -czf "ceph-$1.tar.gz" other', f"ceph-{VERSION}.tar.gz holds other/, outside ceph-{VERSION}/"),
    ],
    ids=["fails", "nothing", "another", "two", "empty", "truncated", "stray"],
)  # fmt: skip
def test_make_dist_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    """Whatever make-dist's status says, there must be one whole tarball of this version."""
    assert sentence(make_dist(tmp_path, text)) == said


def test_a_project_without_make_dist_is_archived(tmp_path: Path) -> None:
    """A plain project's tarball is what git has at HEAD."""
    repository = new_repository(tmp_path / "src")
    commit(repository, "first", {"a": "1\n", "b/c": "2\n"})
    (repository / "untracked").write_text("x")
    assert values(run_script(tmp_path, "tarball", "ceph", VERSION)) == {"tarball": f"ceph-{VERSION}.tar.gz"}
    listed = subprocess.run(
        ["tar", "-tf", repository / f"ceph-{VERSION}.tar.gz"], check=True, capture_output=True, text=True
    ).stdout
    assert listed.split() == [
        f"ceph-{VERSION}/",
        f"ceph-{VERSION}/a",
        f"ceph-{VERSION}/b/",
        f"ceph-{VERSION}/b/c",
    ]
