"""The Ceph-shaped repository is the same everywhere, and has what a build of Ceph meets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from demo import ceph_shaped
from demo.ceph_shaped import CephShapedError, GeneratedRepository, generate, generate_with_history

ROOT = Path(__file__).parents[2]
HEAD = "73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
TAGGED = "e6c7c375d43701f1b237b0d7d7d324e0ec88e28f"
ON_WIP = "8d7183552a308b28e0cc72116e7046c05b977157"
SUBMODULE_HEAD = "a296d0c8e88f9e86d3bb604148abf2d6e51010d5"
VERSION = "19.2.0-3-g" + HEAD[:8]


def git(directory: Path, *arguments: str) -> str:
    """Run git as a user would, with submodules allowed over file paths, and return what it prints."""
    command = [
        "git",
        "-C",
        str(directory),
        "-c",
        "protocol.file.allow=always",
        "-c",
        "advice.detachedHead=false",
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> GeneratedRepository:
    """Return the repositories, which no test of this module changes."""
    return generate(tmp_path_factory.mktemp("input"))


@pytest.fixture
def checkout(made: GeneratedRepository, tmp_path: Path) -> Path:
    """Return a clone with the submodule, fetched by its relative URL."""
    git(tmp_path, "clone", "--quiet", "--recurse-submodules", str(made.directory / "ceph.git"), "ceph")
    return tmp_path / "ceph"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> GeneratedRepository:
    """Return a repository whose history is long enough to have merges on both sides of the tag."""
    return generate_with_history(tmp_path_factory.mktemp("long"), commits=60, commits_after_tag=23)


def test_the_sha1s_are_the_same_on_every_machine(made: GeneratedRepository) -> None:
    """The commits are these, whoever makes them: a change here changes what every user of the demo sees."""
    assert made == GeneratedRepository(made.directory, HEAD, TAGGED, ON_WIP)
    assert git(made.directory / "ceph-erasure-code.git", "rev-parse", "HEAD") == SUBMODULE_HEAD


def test_a_users_git_configuration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a configuration nor a GIT_ variable of the user reaches the repositories."""
    config = tmp_path / "gitconfig"
    config.write_text(
        "[init]\n\tdefaultBranch = trunk\n[commit]\n\tgpgsign = true\n[core]\n\tautocrlf = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere.git"))
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    assert generate(tmp_path / "input").head_sha1 == HEAD
    assert not (tmp_path / "elsewhere.git").exists()


def test_making_it_again_leaves_it_alone(tmp_path: Path) -> None:
    """What is there is neither rewritten nor reset, and the answer is of what is there now."""
    first = generate(tmp_path)
    config = tmp_path / "ceph.git" / "config"
    before = config.stat()
    assert generate(tmp_path) == first
    assert config.stat().st_mtime_ns == before.st_mtime_ns
    git(tmp_path / "ceph.git", "update-ref", "refs/heads/main", first.wip_sha1)
    assert generate(tmp_path).head_sha1 == ON_WIP
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ceph-erasure-code.git", "ceph.git"]


def test_killed_between_the_two_renames_it_is_made_again(tmp_path: Path) -> None:
    """A submodule without its ceph.git is a leftover, and is replaced."""
    (tmp_path / "ceph-erasure-code.git").mkdir()
    (tmp_path / "ceph-erasure-code.git" / "half").touch()
    assert generate(tmp_path).head_sha1 == HEAD
    assert git(tmp_path / "ceph-erasure-code.git", "rev-parse", "HEAD") == SUBMODULE_HEAD


def test_what_is_not_whole_is_refused_and_kept(tmp_path: Path) -> None:
    """A repository that lost something is the user's to move away: the message names it, and nothing is deleted."""
    generate(tmp_path)
    git(tmp_path / "ceph.git", "branch", "-D", "wip/demo")
    with pytest.raises(CephShapedError) as raised:
        generate(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}/ceph.git is there but not whole (git rev-parse --verify --quiet refs/heads/wip/demo^{{commit}} failed "
        f"in {tmp_path}/ceph.git: exit status 1): move it away, then run this again"
    )
    assert git(tmp_path / "ceph.git", "rev-parse", "main") == HEAD


def test_a_missing_submodule_is_not_whole(tmp_path: Path) -> None:
    """Without the submodule's repository a checkout would fail, so the answer is no answer."""
    generate(tmp_path)
    (tmp_path / "ceph-erasure-code.git").rename(tmp_path / "moved.git")
    with pytest.raises(
        CephShapedError,
        match=r"ceph\.git is there but not whole \(git rev-list .* failed in .*ceph-erasure-code",
    ):
        generate(tmp_path)


def test_an_edit_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that moved away under an edit fails with the commit, the text and the file."""
    edit = ceph_shaped.Edit("src/ceph_release", "no such line", "")
    monkeypatch.setattr(ceph_shaped, "ON_WIP", (ceph_shaped.Commit("subject", edits=(edit,)),))
    with pytest.raises(CephShapedError) as raised:
        generate(tmp_path)
    assert (
        str(raised.value) == "'subject' wants 'no such line' once in src/ceph_release, which has it 0 times"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_one_line_of_json(tmp_path: Path) -> None:
    """`python -m demo.ceph_shaped` says what the function returns."""
    command = [sys.executable, "-m", "demo.ceph_shaped", "input"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(run.stdout) == {
        "directory": str(tmp_path / "input"),
        "head_sha1": HEAD,
        "tag_sha1": TAGGED,
        "wip_sha1": ON_WIP,
    }
    assert run.stdout.count("\n") == 1


def test_every_file_of_the_template_is_committed(made: GeneratedRepository) -> None:
    """No template is forgotten in the tables of commits, and scripts alone are executable."""
    listed = {}
    for name in ("ceph", "ceph-erasure-code"):
        for line in git(made.directory / f"{name}.git", "ls-tree", "-r", "HEAD").splitlines():
            mode, kind, _, path = line.split()
            if kind == "blob":
                listed[f"{name}/{path}"] = mode
    files = {
        str(path.relative_to(ceph_shaped.TREE))
        for path in ceph_shaped.TREE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert set(listed) == files
    assert {path for path, mode in listed.items() if mode == "100755"} == {
        "ceph/make-dist",
        "ceph/install-deps.sh",
        "ceph/debian/rules",
    }


def test_the_tag_is_annotated_and_describes_main(made: GeneratedRepository) -> None:
    """The tag is an object of its own that peels to its commit; main is three commits after it, wip/demo four."""
    repository = made.directory / "ceph.git"
    assert git(repository, "cat-file", "-t", "v19.2.0") == "tag"
    assert git(repository, "rev-parse", "v19.2.0^{}") == TAGGED
    assert git(repository, "describe", "--abbrev=8", "--match", "v*", "main") == f"v19.2.0-3-g{HEAD[:8]}"
    assert (
        git(repository, "describe", "--abbrev=8", "--match", "v*", "wip/demo") == f"v19.2.0-4-g{ON_WIP[:8]}"
    )
    assert git(repository, "describe", "--abbrev=8", "--match", "v*", TAGGED) == "v19.2.0"


def test_a_sha1_and_a_filtered_history_can_be_fetched(made: GeneratedRepository, tmp_path: Path) -> None:
    """The server side allows what the checkout asks of it: any commit by its sha1, without the old trees."""
    url = (made.directory / "ceph.git").as_uri()
    git(tmp_path, "clone", "--quiet", "--no-checkout", "--filter=tree:0", url, "ceph")
    missing = git(tmp_path / "ceph", "rev-list", "--objects", "--all", "--missing=print")
    assert "\n?" in missing
    git(tmp_path, "init", "--quiet", "one")
    between = git(made.directory / "ceph.git", "rev-parse", "main~1")
    git(tmp_path / "one", "-c", "protocol.version=0", "fetch", "--quiet", "--depth=1", url, between)
    assert git(tmp_path / "one", "rev-parse", "FETCH_HEAD") == between


def test_the_submodule_comes_from_beside_the_repository(checkout: Path) -> None:
    """Its URL is relative, so it is reached over whatever transport the clone used."""
    assert (
        git(checkout, "config", "-f", ".gitmodules", "submodule.ceph-erasure-code.url")
        == "../ceph-erasure-code.git"
    )
    assert git(checkout / "src" / "ceph-erasure-code", "rev-parse", "HEAD") == SUBMODULE_HEAD
    assert (checkout / "src" / "ceph-erasure-code" / "reed_solomon.cc").exists()


def make_dist(checkout: Path, *arguments: str) -> None:
    """Run make-dist, with submodules allowed over file paths."""
    environment = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "always",
    }
    subprocess.run(
        [str(checkout / "make-dist"), *arguments], cwd="/", env=environment, check=True, capture_output=True
    )


def text_in(tarball: Path, member: str) -> str:
    """Return the text of one file of a tarball."""
    with tarfile.open(tarball) as archive:
        content = archive.extractfile(member)
        assert content is not None, f"{member} is not a file"
        return content.read().decode()


def test_make_dist_makes_the_tarball_of_a_build(checkout: Path) -> None:
    """It holds the commit, the submodule, the version and a spec with a version that rpm takes; the checkout stays clean."""
    make_dist(checkout, VERSION)
    tarball = checkout / f"ceph-{VERSION}.tar.bz2"
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    assert all(name.split("/")[0] == f"ceph-{VERSION}" for name in names)
    for path in ("debian/rules", "src/tools/ceph.cc", "src/ceph-erasure-code/gf256.cc"):
        assert f"ceph-{VERSION}/{path}" in names
    assert not [name for name in names if name.endswith("/.git")]
    assert text_in(tarball, f"ceph-{VERSION}/src/.git_version") == f"{HEAD}\n{VERSION}\n"
    spec = text_in(tarball, f"ceph-{VERSION}/ceph.spec")
    assert spec == (checkout / "ceph.spec").read_text()
    assert "\nVersion: 19.2.0\n" in spec
    assert f"\nRelease: 3.g{HEAD[:8]}%{{?dist}}\n" in spec
    assert f"\nSource0: ceph-{VERSION}.tar.bz2\n" in spec
    assert "@" not in spec.split("%changelog")[0]
    assert git(checkout, "status", "--porcelain") == ""


def test_make_dist_gives_the_same_bytes_again(checkout: Path) -> None:
    """Another time, another umask: the same tarball."""
    tarball = checkout / f"ceph-{VERSION}.tar.bz2"
    make_dist(checkout, VERSION)
    first = tarball.read_bytes()
    tarball.unlink()
    before = os.umask(0o077)
    try:
        make_dist(checkout, VERSION)
    finally:
        os.umask(before)
    assert tarball.read_bytes() == first


def test_make_dist_of_a_release_is_release_0(checkout: Path) -> None:
    """An exactly tagged commit, given its own version, has no commits since the tag to count."""
    git(checkout, "checkout", "--quiet", "v19.2.0")
    make_dist(checkout, "19.2.0")
    spec = text_in(checkout / "ceph-19.2.0.tar.bz2", "ceph-19.2.0/ceph.spec")
    assert "\nVersion: 19.2.0\nRelease: 0%{?dist}\n" in spec


def test_make_dist_without_a_version_asks_git_for_the_long_one(
    made: GeneratedRepository, tmp_path: Path
) -> None:
    """As Ceph's does: even on the tag the version has the zero and the sha1; and a submodule that isn't there is fetched."""
    git(tmp_path, "clone", "--quiet", "--branch", "v19.2.0", str(made.directory / "ceph.git"), "ceph")
    make_dist(tmp_path / "ceph")
    name = f"ceph-19.2.0-0-g{TAGGED[:8]}"
    with tarfile.open(tmp_path / "ceph" / f"{name}.tar.bz2") as archive:
        assert f"{name}/src/ceph-erasure-code/gf256.cc" in archive.getnames()


@pytest.mark.parametrize(("unmet", "updates"), [(False, 0), (True, 1)])
def test_install_deps_updates_only_for_what_is_missing(
    checkout: Path, tmp_path: Path, *, unmet: bool, updates: int
) -> None:
    """With all there apt is never sent to the network; mk-build-deps runs either way, where its leavings are thrown away."""
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    for name, status in {
        "apt-get": 0,
        "mk-build-deps": 0,
        "equivs-build": 0,
        "dpkg-checkbuilddeps": int(unmet),
    }.items():
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$*" >> {log}\ntouch leavings\nexit {status}\n')
        (programs / name).chmod(0o755)
    (programs / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (programs / "sudo").chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(
        [str(checkout / "install-deps.sh")],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
    )
    ran = log.read_text().splitlines()
    assert ran.count("apt-get update") == updates
    assert (
        ran[-1]
        == f"mk-build-deps --install --remove --tool apt-get -y --no-install-recommends {checkout}/debian/control"
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_long_history_counts_exactly_after_the_tag(long: GeneratedRepository) -> None:
    """Commits are counted over both sides of the merges, and as many as were asked for come on top of the small tree's."""
    repository = long.directory / "ceph.git"
    assert (
        git(repository, "describe", "--abbrev=8", "--match", "v*", "main")
        == f"v19.2.0-23-g{long.head_sha1[:8]}"
    )
    assert git(repository, "cat-file", "-t", "v19.2.0") == "tag"
    assert git(repository, "rev-parse", "v19.2.0^{}") == long.tag_sha1
    assert git(repository, "rev-list", "--count", "main") == "67"
    assert git(repository, "rev-list", "--count", "--merges", "main") == "5"
    assert git(repository, "rev-parse", "wip/demo~1") == long.head_sha1
    assert (
        git(repository, "for-each-ref", "--format=%(refname)")
        == "refs/heads/main\nrefs/heads/wip/demo\nrefs/tags/v19.2.0"
    )


def test_the_long_history_has_the_same_shape(long: GeneratedRepository, tmp_path: Path) -> None:
    """It can be checked out with its submodule, and holds all files of the small one."""
    git(tmp_path, "clone", "--quiet", "--recurse-submodules", str(long.directory / "ceph.git"), "ceph")
    make_dist(tmp_path / "ceph", "19.2.0-23-g01234567")
    assert (tmp_path / "ceph" / "src" / "ceph-erasure-code" / "gf256.cc").exists()
    assert len(git(tmp_path / "ceph", "ls-files", "*.cc").splitlines()) == 408


def test_a_merge_in_the_long_history_has_both_sides(long: GeneratedRepository) -> None:
    """A merge is its first parent with the side branch's files, as git itself would merge them."""
    repository = long.directory / "ceph.git"
    merge = git(repository, "rev-list", "--merges", "--max-count=1", "main")
    base = git(repository, "merge-base", f"{merge}^1", f"{merge}^2")
    sides = [
        set(git(repository, "diff", "--name-only", base, f"{merge}^{side}").splitlines()) for side in (1, 2)
    ]
    assert not sides[0] & sides[1]
    assert set(git(repository, "diff", "--name-only", base, merge).splitlines()) == sides[0] | sides[1]
    assert git(repository, "diff", "--name-only", f"{merge}^2", merge).splitlines() == sorted(sides[0])


def test_the_long_history_is_the_same_every_time(long: GeneratedRepository, tmp_path: Path) -> None:
    """A benchmark's figures can be compared from one machine to another."""
    again = generate_with_history(tmp_path, commits=60, commits_after_tag=23)
    assert again.head_sha1 == long.head_sha1 == "27f571d9ae94c66aff28c24cbffbfeba25799d44"


def test_a_tag_after_the_last_commit_is_refused() -> None:
    """The message says which two numbers don't go together."""
    with pytest.raises(ValueError, match=r"^commits_after_tag must be between 0 and commits \(10\), not 10$"):
        generate_with_history(Path("/nonexistent"), commits=10, commits_after_tag=10)
