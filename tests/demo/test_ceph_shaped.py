"""The Ceph-shaped repository is the same everywhere, and has what a build of Ceph meets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import ceph_shaped, servers
from demo.ceph_shaped import CephShapedError, GeneratedRepository, generate, generate_with_history
from demo.ceph_shaped_history import Commit, Edit
from tests.patience import free_ports

ROOT = Path(__file__).parents[2]
HEAD = "249a5e70f3ca4bd8169fadb3f6027a577591b5b6"
TAGGED = "0d21f33651e743014e5aa3ec796c2e2752cd24e8"
OLD = "ab2ec21bab576f1124f1e9191260ae82a485b6c5"
ON_WIP = "b4688bc645427c69ad9b5fc869fedb6d93413135"
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


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve what make-dist downloads, and return the URL."""
    directory = tmp_path_factory.mktemp("downloads")
    ceph_shaped.write_downloads(directory)
    [port] = free_ports(1)
    yield servers.serve_downloads(directory, port)
    servers.stop(directory)


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
    assert made == GeneratedRepository(made.directory, HEAD, TAGGED, OLD, ON_WIP)
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
    edit = Edit("src/ceph_release", "no such line", "")
    monkeypatch.setattr(ceph_shaped, "ON_WIP", (Commit("subject", edits=(edit,)),))
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
        "old_tag_sha1": OLD,
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
    assert set(listed) | {"crush-types/crush_types.h"} == files
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
    assert git(repository, "describe", "--abbrev=8", "--match", "v*", OLD) == "v18.2.7"


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


def make_dist(checkout: Path, downloads: str, *arguments: str) -> str:
    """Run make-dist, with submodules allowed over file paths; return what it printed, errors as well."""
    environment = {
        **os.environ,
        "BUILDPACKAGES_DEMO_DOWNLOADS": downloads,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "always",
    }
    ran = subprocess.run(
        [str(checkout / "make-dist"), *arguments],
        cwd="/", env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return ran.stdout


def text_in(tarball: Path, member: str) -> str:
    """Return the text of one file of a tarball."""
    with tarfile.open(tarball) as archive:
        content = archive.extractfile(member)
        assert content is not None, f"{member} is not a file"
        return content.read().decode()


def test_make_dist_makes_the_tarball_of_a_build(checkout: Path, downloads: str) -> None:
    """It holds the commit, the submodule, the download, the version and a spec that rpm takes; the checkout stays clean."""
    make_dist(checkout, downloads, VERSION)
    tarball = checkout / f"ceph-{VERSION}.tar.bz2"
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    assert all(name.split("/")[0] == f"ceph-{VERSION}" for name in names)
    for path in (
        "debian/rules",
        "src/tools/ceph.cc",
        "src/ceph-erasure-code/gf256.cc",
        "src/crush-types/crush_types.h",
    ):
        assert f"ceph-{VERSION}/{path}" in names
    assert not [name for name in names if name.endswith("/.git")]
    assert text_in(tarball, f"ceph-{VERSION}/src/.git_version") == f"{HEAD}\n{VERSION}\n"
    release = text_in(tarball, f"ceph-{VERSION}/src/pybind/ceph_argparse/release.py")
    assert release == "NUMBER = 19\nNAME = 'squid'\nKIND = 'dev'\n"
    spec = text_in(tarball, f"ceph-{VERSION}/ceph.spec")
    assert spec == (checkout / "ceph.spec").read_text()
    assert "\nVersion: 19.2.0\n" in spec
    assert f"\nRelease: 3.g{HEAD[:8]}%{{?dist}}\n" in spec
    assert f"\nSource0: ceph-{VERSION}.tar.bz2\n" in spec
    assert "@" not in spec.split("%changelog")[0]
    assert git(checkout, "status", "--porcelain") == ""


def test_make_dist_gives_the_same_bytes_again(checkout: Path, downloads: str) -> None:
    """Another time, another umask: the same tarball."""
    tarball = checkout / f"ceph-{VERSION}.tar.bz2"
    make_dist(checkout, downloads, VERSION)
    first = tarball.read_bytes()
    tarball.unlink()
    before = os.umask(0o077)
    try:
        make_dist(checkout, downloads, VERSION)
    finally:
        os.umask(before)
    assert tarball.read_bytes() == first


def test_make_dist_of_a_release_is_release_0(checkout: Path, downloads: str) -> None:
    """An exactly tagged commit, given its own version, has no commits since the tag to count."""
    git(checkout, "checkout", "--quiet", "v19.2.0")
    make_dist(checkout, downloads, "19.2.0")
    spec = text_in(checkout / "ceph-19.2.0.tar.bz2", "ceph-19.2.0/ceph.spec")
    assert "\nVersion: 19.2.0\nRelease: 0%{?dist}\n" in spec


def test_make_dist_ends_well_without_its_download(checkout: Path) -> None:
    """Like Ceph's make-dist, it exits with status 0 and makes no tarball if no server has the archive; its output says so."""
    [nobody] = free_ports(1)
    said = make_dist(checkout, f"http://127.0.0.1:{nobody}", VERSION)
    assert said.endswith("Error: failed to download crush_types_1_0.tar.bz2.\n")
    assert not list(checkout.glob("ceph-*.tar.bz2"))


def test_make_dist_refuses_other_bytes(checkout: Path, tmp_path: Path) -> None:
    """An archive that is not the one that the commit names gets into no tarball."""
    (tmp_path / "served/downloads").mkdir(parents=True)
    (tmp_path / "served/downloads/crush_types_1_0.tar.bz2").write_bytes(b"something else")
    [port] = free_ports(1)
    url = servers.serve_downloads(tmp_path / "served", port)
    try:
        said = make_dist(checkout, url, VERSION)
    finally:
        servers.stop(tmp_path / "served")
    assert "failed to download crush_types_1_0.tar.bz2: SHA256 mismatch." in said
    assert not list(checkout.glob("ceph-*.tar.bz2"))


def test_make_dist_without_a_version_asks_git_for_the_long_one(
    made: GeneratedRepository, downloads: str, tmp_path: Path
) -> None:
    """As Ceph's does: even on the tag the version has the zero and the sha1; and a submodule that isn't there is fetched."""
    git(tmp_path, "clone", "--quiet", "--branch", "v19.2.0", str(made.directory / "ceph.git"), "ceph")
    make_dist(tmp_path / "ceph", downloads)
    name = f"ceph-19.2.0-0-g{TAGGED[:8]}"
    with tarfile.open(tmp_path / "ceph" / f"{name}.tar.bz2") as archive:
        assert f"{name}/src/ceph-erasure-code/gf256.cc" in archive.getnames()


def install_deps(checkout: Path, tmp_path: Path, *, unmet: bool = False, **environment: str) -> list[str]:
    """Run install-deps.sh elsewhere with programs that only write down how they are called; return their calls."""
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
        cwd=tmp_path / "elsewhere", stdin=subprocess.DEVNULL, check=True, capture_output=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **environment},
    )  # fmt: skip
    assert list((tmp_path / "elsewhere").iterdir()) == []
    return log.read_text().splitlines()


@pytest.mark.parametrize(("unmet", "updates"), [(False, 0), (True, 1)])
def test_install_deps_updates_only_for_what_is_missing(
    checkout: Path, tmp_path: Path, *, unmet: bool, updates: int
) -> None:
    """apt uses the network only if something is missing; mk-build-deps runs either way, and its leavings are removed."""
    ran = install_deps(checkout, tmp_path, unmet=unmet)
    assert ran.count("apt-get update") == updates
    assert (
        ran[-1] == "mk-build-deps --build-profiles  --install --remove"
        f" --tool apt-get -y --no-install-recommends {checkout}/debian/control"
    )


@pytest.mark.parametrize(
    ("commit", "environment", "profiles"),
    [
        ("v18.2.7", {}, ""),
        ("v18.2.7", {"FOR_MAKE_CHECK": "0"}, "pkg.ceph.check"),
        ("v18.2.7", {"FOR_MAKE_CHECK": "1"}, "pkg.ceph.check"),
        ("v19.2.0", {}, ""),
        ("v19.2.0", {"FOR_MAKE_CHECK": "0"}, ""),
        ("v19.2.0", {"FOR_MAKE_CHECK": "1"}, "pkg.ceph.check"),
        ("v19.2.0", {"WITH_CRIMSON": "true"}, "pkg.ceph.crimson"),
    ],
)
def test_install_deps_reads_for_make_check_as_ceph_s_of_that_time(
    checkout: Path, tmp_path: Path, commit: str, environment: dict[str, str], profiles: str
) -> None:
    """Until reef any value of FOR_MAKE_CHECK asks for the dependencies of `make check`, 0 as well; later 0 is no."""
    git(checkout, "checkout", "--quiet", commit)
    ran = install_deps(checkout, tmp_path, **environment)
    assert ran[-1].startswith(f"mk-build-deps --build-profiles {profiles} --install")


@pytest.mark.parametrize(
    ("commit", "version"), [("v18.2.7", "18.2.7-1"), ("v19.2.0", "19.2.0-1"), ("main", "19.2.0-1")]
)
def test_the_changelog_begins_with_the_tag_s_own_version(checkout: Path, commit: str, version: str) -> None:
    """A released commit's debian/changelog names that release already."""
    git(checkout, "checkout", "--quiet", commit)
    assert (checkout / "debian/changelog").read_text().split("\n", 1)[0].split()[1] == f"({version})"


def test_the_packaging_has_the_traits_of_ceph_s(checkout: Path) -> None:
    """The debs have no source format, old compat and build profiles; the spec has an epoch and leaves debuginfo on."""
    assert not (checkout / "debian/source").exists()
    assert (checkout / "debian/compat").read_text() == "12\n"
    control = (checkout / "debian/control").read_text()
    stanzas = [stanza.splitlines() for stanza in control.split("\n\n")]
    for line in (" debhelper (>= 10),", " jq <pkg.ceph.check>,", " make [amd64],"):
        assert line in stanzas[0]
    of = {stanza[0].removeprefix("Package: "): stanza for stanza in stanzas[1:]}
    assert "Build-Profiles: <pkg.ceph.crimson>" in of["ceph-osd-crimson"]
    assert "Build-Profiles: <pkg.ceph.crimson>" in of["ceph-osd-crimson-dbg"]
    assert " ceph-osd-crimson (= ${binary:Version}) <pkg.ceph.crimson>," in of["ceph-osd"]
    assert of["ceph-osd-dbg"][-1] == "Description: debugging symbols for ceph-osd"
    assert not (checkout / "debian/ceph.install").exists()
    rules = (checkout / "debian/rules").read_text()
    assert "--dbg-package=ceph-common-dbg" in rules
    assert "--dbg-package=ceph-osd-dbg" not in rules
    spec = (checkout / "ceph.spec.in").read_text()
    for line in (
        "%bcond_with crimson", "%bcond_without dwz", "%bcond_without tcmalloc", "Epoch: 2", "%clean", "%files\n",
        "%global _binary_payload w7T%{_smp_build_ncpus}.xzdio", "    $CEPH_EXTRA_CMAKE_ARGS \\",
    ):  # fmt: skip
        assert f"\n{line}\n" in f"\n{spec}", line
    assert "debug_package" not in spec


def test_the_long_history_counts_exactly_after_the_tag(long: GeneratedRepository) -> None:
    """Commits are counted over both sides of the merges, and as many as were asked for come on top of the small tree's."""
    repository = long.directory / "ceph.git"
    assert (
        git(repository, "describe", "--abbrev=8", "--match", "v*", "main")
        == f"v19.2.0-23-g{long.head_sha1[:8]}"
    )
    assert git(repository, "cat-file", "-t", "v19.2.0") == "tag"
    assert git(repository, "rev-parse", "v19.2.0^{}") == long.tag_sha1
    assert git(repository, "rev-list", "--count", "main") == "69"
    assert git(repository, "rev-list", "--count", "--merges", "main") == "5"
    assert git(repository, "rev-parse", "wip/demo~1") == long.head_sha1
    assert (
        git(repository, "for-each-ref", "--format=%(refname)")
        == "refs/heads/main\nrefs/heads/wip/demo\nrefs/tags/v18.2.7\nrefs/tags/v19.2.0"
    )


def test_the_long_history_has_the_same_shape(
    long: GeneratedRepository, downloads: str, tmp_path: Path
) -> None:
    """It can be checked out with its submodule, and holds all files of the small one."""
    git(tmp_path, "clone", "--quiet", "--recurse-submodules", str(long.directory / "ceph.git"), "ceph")
    make_dist(tmp_path / "ceph", downloads, "19.2.0-23-g01234567")
    assert (tmp_path / "ceph" / "src" / "ceph-erasure-code" / "gf256.cc").exists()
    assert len(git(tmp_path / "ceph", "ls-files", "*.cc").splitlines()) == 409


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
    assert again.head_sha1 == long.head_sha1 == "b0173a7d9abd4574f88777749516a288cd434963"


def test_a_tag_after_the_last_commit_is_refused() -> None:
    """The message says which two numbers don't go together."""
    with pytest.raises(ValueError, match=r"^commits_after_tag must be between 0 and commits \(10\), not 10$"):
        generate_with_history(Path("/nonexistent"), commits=10, commits_after_tag=10)
