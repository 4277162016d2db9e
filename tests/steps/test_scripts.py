"""The scripts that run on a worker: the real bash and the real tools, and tools that lie."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from steps.output import Output
from tests.git_repositories import commit, git, git_daemon, new_repository
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
    """Give the values that a script that went well printed, as the step finds them."""
    assert finished.returncode == 0, finished.stderr
    output = Output()
    for line in finished.stdout.splitlines():
        output.feed(line)
    return output.values


def tool(directory: Path, name: str, text: str) -> str:
    """Put a tool that lies into a directory for PATH, and give that."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/bash\n{text}")
    (directory / name).chmod(0o755)
    return str(directory)


def test_every_script_is_bash_and_sources_the_common_part() -> None:
    """Every script stops at its first error and fails with a sentence, as the common part has it."""
    for path in SCRIPTS.glob("*.sh"):
        if path.name != "common.sh":
            text = path.read_text()
            assert text.startswith(f"#!/usr/bin/env bash\n# {path.name}"), path
            assert '\n. "$(dirname "$0")/common.sh"\n' in text, path


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


# checkout.sh and version.sh


@dataclass
class Forked:
    """A canonical repository with tags, a fork without, and their commits."""

    fork: str
    canonical: str
    submodule: str
    tagged: str
    ours: str
    base: str


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Serve a canonical repository, and a fork that got its branch but not its tags, with commits of its own."""
    directory = tmp_path_factory.mktemp("git")
    with git_daemon(directory) as base:
        module = new_repository(directory / "module.git")
        submodule = commit(module, "module", {"module.txt": "of the submodule\n"})
        canonical = new_repository(directory / "canonical.git")
        for number in range(5):
            commit(canonical, f"commit {number}", {f"file{number}": f"{number}\n"})
        tagged = commit(canonical, "release", {"README": "19.2.0\n"})
        git(canonical, "tag", "-a", "-m", "v19.2.0", "v19.2.0")
        git(canonical, "tag", "-a", "-m", "no version", "nightly")
        fork = new_repository(directory / "fork.git")
        git(fork, "pull", "--quiet", "--no-tags", str(canonical), "main")
        git(
            fork,
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "add",
            "--quiet",
            f"{base}module.git",
            "sub",
        )
        commit(fork, "with a submodule")
        git(fork, "tag", "-a", "-m", "a fork's own", "v99.0.0")
        ours = commit(fork, "ours", {"README": "ours\n"})
        commit(fork, "newer", {"README": "newer\n"})
        unnamed = new_repository(directory / "unnamed.git")
        commit(unnamed, "no tag at all")
        yield Forked(f"{base}fork.git", f"{base}canonical.git", submodule, tagged, ours, base)


def test_a_fork_without_tags_gets_the_canonical_version(forked: Forked, tmp_path: Path) -> None:
    """The forced commit of a fork is checked out with its submodule, and the canonical tags, not the fork's own, give the version."""
    finished = run_script(tmp_path, "checkout", forked.fork, forked.ours, forked.canonical)
    assert finished.returncode == 0, finished.stderr
    assert git(tmp_path / "src", "rev-parse", "HEAD") == forked.ours
    assert (tmp_path / "src/README").read_text() == "ours\n"
    assert (tmp_path / "src/sub/module.txt").read_text() == "of the submodule\n"
    assert git(tmp_path / "src/sub", "rev-parse", "HEAD") == forked.submodule
    told = values(run_script(tmp_path, "version", forked.canonical))
    assert told == {"version": f"19.2.0-2-g{forked.ours[:8]}"}


def test_history_is_filtered_and_not_cut(forked: Forked, tmp_path: Path) -> None:
    """All commits are there, so that describing counts right, but old files are not."""
    run_script(tmp_path, "checkout", forked.fork, forked.ours, forked.canonical)
    src = tmp_path / "src"
    assert git(src, "rev-list", "--count", "HEAD") == "8"
    assert not (src / ".git/shallow").exists()
    missing = git(src, "rev-list", "--objects", "--missing=print", "HEAD")
    assert any(line.startswith("?") for line in missing.splitlines())


def test_a_tagged_commit_is_that_version(forked: Forked, tmp_path: Path) -> None:
    """The commit of a tag is checked out from the canonical repository itself, and its version is the tag's."""
    finished = run_script(tmp_path, "checkout", forked.canonical, forked.tagged, forked.canonical)
    assert finished.returncode == 0, finished.stderr
    assert values(run_script(tmp_path, "version", forked.canonical)) == {"version": "19.2.0"}


def test_a_commit_that_is_not_there_has_its_sentence(forked: Forked, tmp_path: Path) -> None:
    """A sha1 that the repository has not is a sentence with both, from a fork and from the canonical repository."""
    for url in (forked.fork, forked.canonical):
        directory = tmp_path / url.rpartition("/")[2]
        directory.mkdir()
        finished = run_script(directory, "checkout", url, "0" * 39 + "1", forked.canonical)
        assert sentence(finished) == f"{url} has no commit {'0' * 39}1, or cannot be reached"


def test_a_repository_that_is_not_there_has_its_sentence(forked: Forked, tmp_path: Path) -> None:
    """A fork or a canonical repository that is gone is named."""
    gone = f"{forked.base}gone.git"
    assert sentence(run_script(tmp_path, "checkout", gone, forked.ours, forked.canonical)) == (
        f"{gone} has no commit {forked.ours}, or cannot be reached"
    )
    other = tmp_path / "other"
    other.mkdir()
    assert (
        sentence(run_script(other, "checkout", forked.fork, forked.ours, gone))
        == f"the tags of {gone} cannot be fetched"
    )


def test_a_submodule_that_is_not_there_has_its_sentence(forked: Forked, tmp_path: Path) -> None:
    """A submodule that cannot be fetched, or is a path of the machine, fails the checkout with a sentence."""
    directory = tmp_path / "git"
    directory.mkdir()
    local = new_repository(tmp_path / "local.git")
    commit(local, "secret", {"secret": "x"})
    repository = new_repository(directory / "bad.git")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(local), "sub")
    sha1 = commit(repository, "with a submodule of this machine")
    with git_daemon(directory) as base:
        finished = run_script(tmp_path, "checkout", f"{base}bad.git", sha1, f"{base}bad.git")
    assert sentence(finished) == f"the submodules of {sha1} cannot be fetched"
    assert not (tmp_path / "src/sub/secret").exists()


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_only_network_protocols_are_spoken(scheme: str, tmp_path: Path) -> None:
    """A URL of the worker's own disk is not fetched from."""
    repository = new_repository(tmp_path / "local.git")
    sha1 = commit(repository, "first")
    url = f"{scheme}{repository}"
    assert (
        sentence(run_script(tmp_path, "checkout", url, sha1, url))
        == f"{url} has no commit {sha1}, or cannot be reached"
    )


# dependencies.sh


def test_the_projects_own_script_installs(tmp_path: Path) -> None:
    """A project's install-deps.sh is run in the sources, without questions, and its failure has a sentence."""
    (tmp_path / "src").mkdir()
    tool(tmp_path / "src", "install-deps.sh", 'echo "$DEBIAN_FRONTEND $(basename "$PWD")"; read -r x; exit 0')
    assert "noninteractive src" in run_script(tmp_path, "dependencies", "deb").stdout
    tool(tmp_path / "src", "install-deps.sh", "exit 7")
    assert sentence(run_script(tmp_path, "dependencies", "rpm")) == "install-deps.sh ended with status 7"


# tarball.sh


def make_dist(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a make-dist of this text."""
    (directory / "src").mkdir()
    tool(directory / "src", "make-dist", text)
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
