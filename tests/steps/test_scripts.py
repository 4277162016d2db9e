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
    BASE_URL,
    DEB_NAMES,
    DEB_VERSION,
    KEY_URL,
    SCRIPTS,
    build_deb,
    prepare_debs,
    prepare_rpms,
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


def test_a_commit_without_a_release_has_no_version(tmp_path: Path) -> None:
    """Without a tag v* among its ancestors a commit has no version, and the sentence says whose tags were looked at."""
    repository = new_repository(tmp_path / "src")
    commit(repository, "first")
    git(repository, "tag", "-a", "-m", "x", "nightly")
    assert sentence(run_script(tmp_path, "version", "https://h/ceph.git")) == (
        "no tag v* of https://h/ceph.git is an ancestor of the commit, so it has no version"
    )


@pytest.mark.parametrize("tag", ["vanilla", "v19.2.0-rc1", "v19_2"])
def test_a_tag_that_is_no_version_has_its_sentence(tag: str, tmp_path: Path) -> None:
    """A tag v* that is no version is refused, as dpkg and rpm would choke on it later."""
    repository = new_repository(tmp_path / "src")
    commit(repository, "first")
    git(repository, "tag", "-a", "-m", "x", tag)
    assert sentence(run_script(tmp_path, "version", "u")) == f"git describe says {tag}, which is no version"


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


# packages-deb.sh

CONTROL = """\
Source: ceph
Maintainer: Packages on demand <packages@localhost>
Section: misc
Priority: optional
Standards-Version: 4.6.2

""" + "\n".join(
    f"Package: {name}\nArchitecture: {'all' if name.startswith('python3') else 'any'}\nDescription: a package\n x\n"
    for name in DEB_NAMES
)
RULES = """\
#!/usr/bin/make -f
# No debhelper: the least that makes debs.
build clean binary-arch binary-indep:
binary:
\techo "jobs $(DEB_BUILD_OPTIONS)"
\tfor name in $$(dh_listpackages); do \\
\t  mkdir -p debian/$$name/DEBIAN debian/$$name/usr/share/$$name && \\
\t  echo x >debian/$$name/usr/share/$$name/file && \\
\t  dpkg-gencontrol -p$$name -Pdebian/$$name && \\
\t  dpkg-deb --root-owner-group -b debian/$$name .. || exit 1; \\
\tdone
"""


def sources(directory: Path, source_format: str = "3.0 (quilt)") -> str:
    """Lay out sources with debian/, as the steps before leave them, and give the tarball's name."""
    src = directory / "src"
    (src / "debian/source").mkdir(parents=True)
    (src / "debian/control").write_text(CONTROL)
    (src / "debian/rules").write_text(RULES)
    (src / "debian/rules").chmod(0o755)
    (src / "debian/source/format").write_text(source_format + "\n")
    (src / "debian/changelog").write_text(
        "ceph (1.0-1) unstable; urgency=low\n\n  * First.\n\n -- A <a@localhost>  Tue, 14 Nov 2023 22:13:20 +0000\n"
    )
    top = directory / f"ceph-{VERSION}"
    top.mkdir()
    (top / "README").write_text("x\n")
    tarball = f"ceph-{VERSION}.tar.gz"
    subprocess.run(["tar", "-czf", src / tarball, "-C", directory, top.name], check=True)
    return tarball


@pytest.mark.parametrize("source_format", ["3.0 (quilt)", "1.0"])
def test_debs_are_built_and_become_a_repository(source_format: str, tmp_path: Path) -> None:
    """The real dpkg-buildpackage makes debs of the version asked for; the repository holds them and their whole source package."""
    tarball = sources(tmp_path, source_format)
    finished = run_script(tmp_path, "packages-deb", tarball, VERSION, "jammy", "3")
    assert values(finished)["packages"] == "ceph,ceph-common,python3-ceph-argparse"
    assert "parallel=3" in finished.stdout
    changelog = (tmp_path / f"out/deb/ceph-{VERSION}/debian/changelog").read_text()
    assert changelog.startswith(f"ceph ({DEB_VERSION}) jammy; ")
    finished = run_script(tmp_path, "repository-deb", "jammy", "amd64")
    assert finished.returncode == 0, finished.stderr
    repo = tmp_path / "out/repo"
    pool = {path.name for path in (repo / "pool/main/c/ceph").iterdir()}
    packages = (repo / "dists/jammy/main/binary-amd64/Packages").read_text()
    assert sorted(re.findall(r"^Package: (.*)$", packages, re.MULTILINE)) == DEB_NAMES
    assert set(re.findall(r"^Version: (.*)$", packages, re.MULTILINE)) == {DEB_VERSION}
    table = (repo / "dists/jammy/main/source/Sources").read_text()
    named = set(re.findall(r"^ [0-9a-f]{64} \d+ (.*)$", table, re.MULTILINE))
    assert len(named) == 3
    assert named <= pool


def packages_deb(directory: Path, dpkg_buildpackage: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a dpkg-buildpackage of this text, which finds real debs beside it."""
    tarball = sources(directory)
    debs = directory / "debs"
    debs.mkdir()
    for name in DEB_NAMES:
        build_deb(debs, name, DEB_VERSION, "all" if name.startswith("python3") else "amd64")
    path = tool(directory / "bin", "dpkg-buildpackage", dpkg_buildpackage.replace("DEBS", str(debs)))
    return run_script(directory, "packages-deb", tarball, VERSION, "jammy", "2", path=path)


CEPH_DEB = f"ceph_{DEB_VERSION}_amd64.deb"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 2", "dpkg-buildpackage ended with status 2"),
        ("exit 0", "debian/control names ceph ceph-common python3-ceph-argparse, but the build made no such deb"),
        ("cp DEBS/*.deb ..; rm ../ceph-common_*", "debian/control names ceph-common, but the build made no such deb"),
        (f"cp DEBS/*.deb ..; rm ../ceph_*; cp ../ceph-common_*.deb ../ceph-mon_{DEB_VERSION}_amd64.deb", "debian/control names ceph, but the build made no such deb"),
        (f"cp DEBS/*.deb ..; truncate -s -100 ../{CEPH_DEB}", f"{CEPH_DEB} is corrupt or truncated"),
        (f"cp DEBS/*.deb ..; printf xxxx | dd of=../{CEPH_DEB} bs=1 seek=700 conv=notrunc 2>/dev/null", f"{CEPH_DEB} is corrupt or truncated"),
        (f"cp DEBS/*.deb ..; : >../{CEPH_DEB}", f"{CEPH_DEB} is corrupt or truncated"),
        (f"cp DEBS/*.deb ..; dpkg-deb -R ../{CEPH_DEB} x; sed -i 's/^Version: .*/Version: 1.0-1/' x/DEBIAN/control; dpkg-deb -b x ../{CEPH_DEB}", f"{CEPH_DEB} is not of version {DEB_VERSION}"),
    ],
    ids=["fails", "nothing", "one-missing", "another-instead", "truncated", "corrupt", "empty", "version"],
)  # fmt: skip
def test_dpkg_buildpackage_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    """Whatever its status says, every package of debian/control must be there, whole and of the version."""
    assert sentence(packages_deb(tmp_path, text)).removeprefix("./") == said


def test_the_stand_in_of_these_tests_can_pass(tmp_path: Path) -> None:
    """With all debs left whole, the script is content: what the tests above refuse is only what they say."""
    assert values(packages_deb(tmp_path, "cp DEBS/*.deb ..")) == {
        "packages": "ceph,ceph-common,python3-ceph-argparse"
    }


def test_a_commit_without_debian_has_no_debs(tmp_path: Path) -> None:
    """Without debian/control there is a sentence, and no tool's words."""
    (tmp_path / "src").mkdir()
    assert sentence(run_script(tmp_path, "packages-deb", "x.tar.gz", VERSION, "jammy", "1")) == (
        "the commit has no debian/control, so it has no debs"
    )


# repository-deb.sh


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[ " $* " == *" packages "* ]] && exit 100; exec /usr/bin/apt-ftparchive "$@"',
            "apt-ftparchive packages ended with status 100",
        ),
        (
            '[[ " $* " == *" sources "* ]] && exit 9; exec /usr/bin/apt-ftparchive "$@"',
            "apt-ftparchive sources ended with status 9",
        ),
        (
            '[[ " $* " == *" release "* ]] && exit 1; exec /usr/bin/apt-ftparchive "$@"',
            "apt-ftparchive release ended with status 1",
        ),
        ("exit 0", "apt-ftparchive indexed 0 of 3 debs"),
        (
            '/usr/bin/apt-ftparchive "$@" | sed "/^Package: ceph-common/,/^$/d"',
            "apt-ftparchive indexed 2 of 3 debs",
        ),
    ],
    ids=["packages", "sources", "release", "nothing", "one-less"],
)
def test_apt_ftparchive_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    """An apt-ftparchive that fails, or that leaves a deb out, fails the step with a sentence."""
    prepare_debs(tmp_path)
    path = tool(tmp_path / "bin", "apt-ftparchive", text)
    assert sentence(run_script(tmp_path, "repository-deb", "jammy", "amd64", path=path)) == said


def test_a_source_package_that_lacks_a_file_is_missed(tmp_path: Path) -> None:
    """A source package that apt-ftparchive left out, as a file of it is gone, fails the step with a sentence."""
    tarball = sources(tmp_path)
    values(run_script(tmp_path, "packages-deb", tarball, VERSION, "jammy", "3"))
    [gone] = (tmp_path / "out/deb").glob("*.debian.tar.*")
    gone.unlink()
    assert sentence(run_script(tmp_path, "repository-deb", "jammy", "amd64")) in (
        "apt-ftparchive indexed 0 of 1 source packages",
        "apt-ftparchive sources ended with status 100",
    )


def test_an_apt_repository_is_for_its_codename(tmp_path: Path) -> None:
    """Release is of the codename and architecture asked for, and nothing in the repository is signed yet."""
    prepare_debs(tmp_path)
    finished = run_script(tmp_path, "repository-deb", "trixie", "amd64")
    assert finished.returncode == 0, finished.stderr
    release = (tmp_path / "out/repo/dists/trixie/Release").read_text().splitlines()
    assert {
        "Codename: trixie",
        "Suite: trixie",
        "Architectures: amd64",
        "Components: main",
        "Origin: Ceph",
    } <= set(release)
    assert not list(tmp_path.rglob("InRelease"))


# packages-rpm.sh

SPEC = """\
Name: ceph
Version: 19.2.0
Release: 3.g73e2fc59.el9
Summary: A package
License: LGPL-2.1-only
Source0: ceph-19.2.0-3-g73e2fc59.tar.gz
%define debug_package %{nil}
%description
A package.
%package common
Summary: Another package
%description common
Another package.
%prep
echo "jobs %{_smp_mflags}"
%install
mkdir -p %{buildroot}/usr/share/ceph
head -c 100000 /dev/urandom >%{buildroot}/usr/share/ceph/main
echo 2 >%{buildroot}/usr/share/ceph/common
%files
/usr/share/ceph/main
%files common
/usr/share/ceph/common
"""


def packages_rpm(
    directory: Path, spec: str = SPEC, rpmbuild: str = "", rpm_version: str = "19.2.0-3.g73e2fc59"
) -> subprocess.CompletedProcess[str]:
    """Run the script on a spec, with an rpmbuild of this text if there is one."""
    (directory / "src").mkdir()
    (directory / "src/ceph.spec").write_text(spec)
    (directory / f"src/ceph-{VERSION}.tar.gz").write_bytes(b"")
    path = tool(directory / "bin", "rpmbuild", rpmbuild) if rpmbuild else ""
    return run_script(
        directory, "packages-rpm", f"ceph-{VERSION}.tar.gz", rpm_version, "ceph", "3", path=path
    )


def test_rpms_are_built(tmp_path: Path) -> None:
    """The real rpmbuild makes the rpms that the spec names, and the source rpm, with as many jobs as asked for."""
    finished = packages_rpm(tmp_path)
    assert values(finished)["packages"] == "ceph,ceph-common"
    assert "jobs -j3" in finished.stdout
    assert [path.name for path in (tmp_path / "out/rpmbuild/SRPMS").iterdir()] == [
        "ceph-19.2.0-3.g73e2fc59.el9.src.rpm"
    ]


REALLY = '/usr/bin/rpmbuild "$@"; cd out/rpmbuild/RPMS/*/ || exit 9; '


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 5", "rpmbuild ended with status 5"),
        (REALLY + "rm ceph-common-*", "the spec names ceph-common, but the build made no such rpm"),
        (REALLY + "rm ceph-19*", "the spec names ceph, but the build made no such rpm"),
        (REALLY + "truncate -s -100 ceph-19*", "an rpm is corrupt or truncated; the log names it"),
        (REALLY + "printf xxxx | dd of=$(echo ceph-19*) bs=1 seek=20000 conv=notrunc 2>/dev/null", "an rpm is corrupt or truncated; the log names it"),
        ("mkdir -p out/rpmbuild/RPMS", "rpmbuild ended well, but made no rpm"),
        ('/usr/bin/rpmbuild "${@/-ba/-bb}"', "rpmbuild ended well, but made 0 source rpms instead of one"),
        ('/usr/bin/rpmbuild "${@/-ba/-bs}"', "rpmbuild ended well, but made no rpm"),
    ],
    ids=["fails", "one-missing", "main-missing", "truncated", "corrupt", "nothing", "no-source", "only-source"],
)  # fmt: skip
def test_rpmbuild_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    """Whatever its status says, every package of the spec must be there and whole; the source rpm is no stand-in."""
    assert sentence(packages_rpm(tmp_path, rpmbuild=text)) == said


def test_an_rpm_of_another_version_is_refused(tmp_path: Path) -> None:
    """The VERSION-RELEASE of every rpm must hold the version that git gave."""
    assert sentence(packages_rpm(tmp_path, rpm_version="19.2.0-4")) == (
        "an rpm is of version 19.2.0-3.g73e2fc59.el9, which does not hold 19.2.0-4"
    )


def test_a_commit_without_a_spec_has_no_rpms(tmp_path: Path) -> None:
    """Without a spec there is a sentence, which says where one could have come from."""
    (tmp_path / "src").mkdir()
    assert sentence(run_script(tmp_path, "packages-rpm", "x.tar.gz", "1-0", "ceph", "1")) == (
        "the commit has no ceph.spec, nor did make-dist make one, so it has no rpms"
    )


def test_a_spec_that_fails_has_its_sentence(tmp_path: Path) -> None:
    """A spec that rpmbuild refuses fails with rpmbuild's status, and its error is in the output before."""
    finished = packages_rpm(tmp_path, spec=SPEC.replace("%prep\n", "%prep\nexit 4\n"))
    assert sentence(finished) == "rpmbuild ended with status 1"
    assert re.search(r"^error: Bad exit status from .* \(%prep\)$", finished.stdout, re.MULTILINE)


# repository-rpm.sh


def test_yum_repositories_point_at_themselves(tmp_path: Path) -> None:
    """Three repositories with metadata, and the rpm whose .repo file has our host in it, as teuthology wants it."""
    prepare_rpms(tmp_path)
    finished = run_script(tmp_path, "repository-rpm", "ceph", "el9", "x86_64", BASE_URL, KEY_URL)
    assert finished.returncode == 0, finished.stderr
    repo = tmp_path / "out/repo"
    release = repo / "noarch/ceph-release-1-0.el9.noarch.rpm"
    listed = subprocess.run(
        ["rpm", "-qpl", "--nosignature", release], check=True, capture_output=True, text=True
    ).stdout
    assert listed == "/etc/yum.repos.d/ceph.repo\n"
    text = subprocess.run(
        f"rpm2archive - <'{release}' | tar -xzO ./etc/yum.repos.d/ceph.repo",
        shell=True, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    base = (
        "http://127.0.0.1:8011/ceph-rpm-centos9-x86_64-default/sha1/73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
    )
    assert text == (
        f"[Ceph]\nname=Ceph packages on demand\nbaseurl={base}/$basearch\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\n"
        "gpgkey=http://127.0.0.1:8011/key.asc\ntype=rpm-md\n\n"
        f"[Ceph-noarch]\nname=Ceph-noarch packages on demand\nbaseurl={base}/noarch\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\n"
        "gpgkey=http://127.0.0.1:8011/key.asc\ntype=rpm-md\n\n"
        f"[ceph-source]\nname=ceph-source packages on demand\nbaseurl={base}/SRPMS\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\n"
        "gpgkey=http://127.0.0.1:8011/key.asc\ntype=rpm-md\n\n"
    )
    for part in ("SRPMS", "noarch", "x86_64"):
        names = sorted(path.name for path in (repo / part / "repodata").iterdir())
        assert names == ["filelists.xml.gz", "other.xml.gz", "primary.xml.gz", "repomd.xml"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("createrepo_c", "exit 1", "createrepo_c ended with status 1 in SRPMS"),
        ("createrepo_c", 'last=${!#}; [ "$last" = noarch ] && rm noarch/python3*; /usr/bin/createrepo_c "$@"; touch "$last/late.rpm"', "createrepo_c indexed 1 of 2 rpms in SRPMS"),
        ("rpmbuild", "exit 1", "the rpm of the repository cannot be built"),
        ("rpmbuild", "exit 0", "the rpm of the repository is not where it must be"),
    ],
    ids=["fails", "one-less", "release-fails", "release-missing"],
)  # fmt: skip
def test_the_tools_of_yum_repositories_are_not_believed(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    """A createrepo_c that fails or leaves an rpm out, or an rpmbuild that makes nothing, fails the step with a sentence."""
    prepare_rpms(tmp_path)
    path = tool(tmp_path / "bin", name, text)
    finished = run_script(tmp_path, "repository-rpm", "ceph", "el9", "x86_64", BASE_URL, KEY_URL, path=path)
    assert sentence(finished) == said
