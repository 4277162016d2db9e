"""Attacks by which a repository could choose another content or version for a commit, or run code, while it is checked out."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.git_repositories import commit, git, git_daemon, new_repository
from tests.package_repositories import run_script
from tests.steps.test_checkout_script import checkout, link
from tests.steps.test_scripts import sentence, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a directory of repositories; return it and its URL."""
    directory = tmp_path / "git"
    directory.mkdir()
    with git_daemon(directory) as base:
        yield directory, base


def forked(directory: Path) -> tuple[Path, str]:
    """Make a canonical repository with a release, and Mallory's fork; return the fork and a commit that only it has."""
    canonical = new_repository(directory / "ceph.git")
    commit(canonical, "first", {"README": "first\n"})
    git(canonical, "tag", "-a", "-m", "v19.2.0", "v19.2.0")
    commit(canonical, "second")
    fork = new_repository(directory / "mallory.git")
    git(fork, "pull", "--quiet", "--no-tags", str(canonical), "main")
    return fork, commit(fork, "asked for", {"README": "asked for\n"})


def test_b10_the_names_of_a_fork_change_neither_content_nor_version(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    """A fork's tags, replacements of objects, and branches and tags that look like the sha1 have no effect."""
    directory, base = served
    fork, sha1 = forked(directory)
    evil = commit(fork, "evil", {"README": "evil\n"})
    git(fork, "tag", "-a", "-m", "v99.0", "v99.0", sha1)
    git(fork, "update-ref", f"refs/replace/{sha1}", evil)
    git(fork, "update-ref", f"refs/heads/{sha1}", evil)
    git(fork, "update-ref", f"refs/tags/{sha1}", evil)
    finished = checkout(tmp_path / "a", f"{base}mallory.git", sha1, f"{base}ceph.git")
    assert finished.returncode == 0, finished.stderr
    src = tmp_path / "a/src"
    assert git(src, "rev-parse", "HEAD") == sha1
    assert (src / "README").read_text() == "asked for\n"
    assert git(src, "for-each-ref", "--format=%(refname)").split() == ["refs/tags/v19.2.0"]
    told = values(run_script(tmp_path / "a", "version", f"{base}ceph.git"))
    assert told == {"version": f"19.2.0-2-g{sha1[:8]}"}


@pytest.mark.parametrize("own", [1, 3], ids=["one commit", "three commits"])
def test_b10_a_shallow_fork_cuts_no_history(served: tuple[Path, str], tmp_path: Path, own: int) -> None:
    """A commit of a fork without history gets the version that git describe counts in the whole history, or none."""
    directory, base = served
    fork, sha1 = forked(directory)
    for number in range(own - 1):
        sha1 = commit(fork, f"{number}", {"README": f"{number}\n"})
    git(directory, "clone", "--quiet", "--depth=1", f"file://{fork}", str(directory / "shallow.git"))
    for name in ("allowAnySHA1InWant", "allowFilter"):
        git(directory / "shallow.git", "config", f"uploadpack.{name}", "true")
    checkout(tmp_path / "a", f"{base}shallow.git", sha1, f"{base}ceph.git")
    version = run_script(tmp_path / "a", "version", f"{base}ceph.git")
    assert not (tmp_path / "a/src/.git/shallow").exists()
    if version.returncode == 0:
        assert values(version) == {"version": f"19.2.0-{own + 1}-g{sha1[:8]}"}
    else:
        assert "so it has no version" in sentence(version)


@pytest.mark.parametrize("kind", ["an annotated tag", "a tree", "a blob"])
def test_b11_what_is_no_commit_is_not_checked_out(
    served: tuple[Path, str], tmp_path: Path, kind: str
) -> None:
    """The sha1 of another object ends the checkout, so no key names something else than a commit."""
    directory, base = served
    forked(directory)
    canonical = directory / "ceph.git"
    name = {"an annotated tag": "refs/tags/v19.2.0", "a tree": "HEAD^{tree}", "a blob": "HEAD:README"}[kind]
    sha1 = git(canonical, "rev-parse", name)
    finished = checkout(tmp_path / "a", f"{base}ceph.git", sha1, f"{base}ceph.git")
    assert sentence(finished)


def hooked(repository: Path, mark: Path) -> str:
    """Commit programs by the names of git's hooks, which leave a mark; return the sha1."""
    program = f"#!/bin/sh\ntouch {mark}\n"
    names = ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman")
    return commit(repository, "hooks", dict.fromkeys(names, program))


def cve_2025_48384(repository: Path, base: str, hooks: str, mark: Path) -> None:
    """Have git read a path without the CR that it wrote at its end, so that the submodule is checked out into its own hooks."""
    (repository / ".gitmodules").write_text(
        f'[submodule "sub"]\n\tpath = "sub\r"\n\turl = {base}hooks.git\n', newline=""
    )
    (repository / "sub").symlink_to(".git/modules/sub/hooks")
    git(repository, "add", ".gitmodules", "sub")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{hooks},sub\r")


def update_command(repository: Path, base: str, hooks: str, mark: Path) -> None:
    """Name a command as the way to update a submodule."""
    link(repository, "sub", f"{base}hooks.git", hooks, more=f"\tupdate = !touch {mark}\n")


def outside(repository: Path, base: str, hooks: str, mark: Path) -> None:
    """Name submodules so that their repositories lie at the hooks, above the modules, or below another's."""
    for name in (
        "../hooks",
        "../../hooks",
        "x/../../hooks",
        "-q",
        "--upload-pack=touch x",
        "sub",
        "sub/hooks",
    ):
        path = f"path{len(name)}"
        with (repository / ".gitmodules").open("a") as file:
            file.write(f'[submodule "{name}"]\n\tpath = {path}\n\turl = {base}hooks.git\n')
        git(repository, "update-index", "--add", "--cacheinfo", f"160000,{hooks},{path}")
    git(repository, "add", ".gitmodules")


def programs_in_urls(repository: Path, base: str, hooks: str, mark: Path) -> None:
    """Name a program as the place that a submodule is fetched from."""
    urls = (
        f"ext::touch {mark}",
        f"--upload-pack=touch {mark}",
        f"-u{mark}",
        f"ssh://-oProxyCommand=touch\t{mark}/x",
    )
    for number, url in enumerate(urls):
        link(repository, f"sub{number}", url, hooks)


def filters(repository: Path, base: str, hooks: str, mark: Path) -> None:
    """Bring attributes and a configuration that would filter each file through a program, and a .git directory."""
    settings = f'[filter "evil"]\n\tsmudge = touch {mark}\n\trequired\n[core]\n\tfsmonitor = touch {mark}\n\thooksPath = .\n'
    commit(
        repository,
        "filters",
        {
            ".gitattributes": "* filter=evil diff=evil merge=evil\n",
            ".gitconfig": settings,
            "config": settings,
        },
    )
    hooked(repository, mark)


@pytest.mark.parametrize("prepare", [cve_2025_48384, update_command, outside, programs_in_urls, filters])
def test_b13_a_checkout_runs_nothing_of_the_repository(
    served: tuple[Path, str], tmp_path: Path, prepare: object
) -> None:
    """Neither hooks, nor commands, URLs, names or filters in a commit or its submodules run a program."""
    directory, base = served
    mark = tmp_path / "ran"
    hooks = hooked(new_repository(directory / "hooks.git"), mark)
    repository = new_repository(directory / "ceph.git")
    commit(repository, "first")
    assert callable(prepare)
    prepare(repository, base, hooks, mark)
    # Not `git commit`, which refuses some of these itself.
    sha1 = git(repository, "commit-tree", "-m", "evil", "-p", "HEAD", git(repository, "write-tree"))
    git(repository, "update-ref", "refs/heads/main", sha1)
    finished = checkout(tmp_path / "a", f"{base}ceph.git", sha1, f"{base}ceph.git")
    assert git(tmp_path / "a/src", "rev-parse", "HEAD") == sha1, finished.stderr
    assert not mark.exists()
    assert not (tmp_path / "x").exists()
    installed = subprocess.run(
        ["find", str(tmp_path / "a"), "-path", "*/hooks/*", "-type", "f", "-perm", "/111", "!", "-name", "*.sample"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert installed == ""
