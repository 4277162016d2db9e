"""The script that finds the version: real git, and tags of all kinds."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.git_repositories import ENVIRONMENT, commit, git, new_repository
from tests.package_repositories import run_script
from tests.steps.test_scripts import sentence, values

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://h/ceph.git"


def tagged(directory: Path, *tags: str) -> str:
    """Make a repository of one tagged commit for each word, whose last commit has no tag; return that one's sha1.

    A word of several tags, joined by `,`, is a commit with all of them, made in this order. A `~` before a tag makes
    it one without a tagger.
    """
    repository = new_repository(directory / "src")
    when = 1_700_000_000
    for word in tags:
        commit(repository, word)
        for name in word.split(","):
            when += 100
            kind = [name[1:]] if name.startswith("~") else ["-a", "-m", name, name]
            subprocess.run(
                ["git", "-C", repository, "tag", *kind],
                env={**ENVIRONMENT, "GIT_COMMITTER_DATE": f"{when} +0000"}, check=True,
            )  # fmt: skip
    return commit(repository, "last")


def version(directory: Path, *arguments: str) -> str:
    """Run the script and return the version."""
    return values(run_script(directory, "version", URL, *arguments))["version"]


@pytest.mark.parametrize(
    "odd",
    ["vstart-demo", "v19.2.1-rc1", "v19_2", "vanilla", "v", "v.19", "v20.1.0-3-g0123abcd", "v20/x"],
)  # fmt: skip
def test_a_tag_that_is_no_version_is_passed_over(odd: str, tmp_path: Path) -> None:
    """A tag of the pattern that is no version, on an ancestor, decides nothing and is named in the log."""
    sha1 = tagged(tmp_path, "v19.2.0", odd)
    finished = run_script(tmp_path, "version", URL)
    assert values(finished)["version"] == f"19.2.0-2-g{sha1[:8]}"
    assert f"1 tags are no versions and were passed over: {odd}\n" in finished.stdout


@pytest.mark.parametrize("both", ["v19.2.0,vstart-demo", "vstart-demo,v19.2.0"])
def test_of_two_tags_on_one_commit_the_version_decides(both: str, tmp_path: Path) -> None:
    """If a commit has two tags, the one that is a version decides, even if it is older."""
    sha1 = tagged(tmp_path, "v18.2.0", both)
    assert version(tmp_path) == f"19.2.0-1-g{sha1[:8]}"
    git(tmp_path / "src", "checkout", "--quiet", "HEAD~1")
    assert version(tmp_path) == "19.2.0"


def test_the_newest_version_decides(tmp_path: Path) -> None:
    """The nearest version among the ancestors decides; tags on other branches do not count."""
    sha1 = tagged(tmp_path, "v18.2.0", "v19.1.0+x", "v19.2.0", "v19.9.9-odd")
    git(tmp_path / "src", "checkout", "--quiet", "-b", "other", "HEAD~1")
    commit(tmp_path / "src", "other")
    git(tmp_path / "src", "tag", "-a", "-m", "x", "v99.0.0")
    git(tmp_path / "src", "checkout", "--quiet", sha1)
    assert version(tmp_path) == f"19.2.0-2-g{sha1[:8]}"


def test_tags_without_a_tagger_count_if_there_is_no_other(tmp_path: Path) -> None:
    """Like git describe for Ceph: annotated tags precede nearer plain tags, which count only if there are no others."""
    sha1 = tagged(tmp_path, "v19.2.0", "~v19.2.1", "~vstart")
    assert version(tmp_path) == f"19.2.0-3-g{sha1[:8]}"
    other = tmp_path / "other"
    sha1 = tagged(other, "~v1.5.4", "~vstart", "release")
    assert version(other) == f"1.5.4-3-g{sha1[:8]}"


@pytest.mark.parametrize(
    ("pattern", "commits", "expected"),
    [("*", 1, "3.9"), ("3.*", 1, "3.9"), ("v*", 2, "3.8")],
)
def test_the_projects_pattern_chooses_the_tags(
    pattern: str, commits: int, expected: str, tmp_path: Path
) -> None:
    """A project's tags may go without a v: only tags of its pattern count, and a leading v is not the version's."""
    sha1 = tagged(tmp_path, "v3.8", "3.9,nightly")
    assert version(tmp_path, pattern) == f"{expected}-{commits}-g{sha1[:8]}"


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["nightly"], f"no tag v* of {URL} is an ancestor of the commit, so it has no version"),
        (["vanilla", "v19.2.0-rc1"], f"no tag v* of {URL} that is a version is an ancestor of the commit, so it has no version; v19.2.0-rc1 vanilla are none"),
    ],
    ids=["none", "odd"],
)  # fmt: skip
def test_a_commit_without_a_release_has_no_version(tags: list[str], said: str, tmp_path: Path) -> None:
    """Without a tag that is a version among its ancestors a commit has none, and the sentence says whose tags were looked at."""
    tagged(tmp_path, *tags)
    assert sentence(run_script(tmp_path, "version", URL)) == said


def test_b12_git_does_not_choose_the_length_of_the_abbreviation(tmp_path: Path) -> None:
    """The version has eight digits, though git prints more where another object begins with the same ones."""
    sha1 = tagged(tmp_path, "v19.2.0")
    longer = tmp_path / "bin"
    longer.mkdir()
    real = shutil.which("git")
    (longer / "git").write_text(f'#!/bin/bash\nexec {real} "${{@/--abbrev=8/--abbrev=9}}"\n')
    (longer / "git").chmod(0o755)
    finished = run_script(tmp_path, "version", URL, PATH=f"{longer}:{os.environ['PATH']}")
    assert values(finished)["version"] == f"19.2.0-1-g{sha1[:8]}"
