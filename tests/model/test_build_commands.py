"""The list of commands that builds call: what each family installs, and that no script calls one that is not in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model.build_commands import COMMON, FOR_DEBS, FOR_RPMS, Family, commands, needs, packages, table
from model.distros import PkgType

ROOT = Path(__file__).parents[2]

# Commands that a minimal system lacks. A script that has one of these words calls it, or will one day.
WATCHED = frozenset({
    "apt-ftparchive", "aria2c", "bc", "bzip2", "ccache", "cmake", "cpio", "createrepo_c", "curl", "dch", "debuild",
    "debugedit", "dh_listpackages", "dnf", "dpkg-buildpackage", "dpkg-checkbuilddeps", "dpkg-parsechangelog",
    "dpkg-scanpackages", "dwz", "ensurepip", "equivs-build", "eu-strip", "fakeroot", "g++", "gcc", "git", "go",
    "gpg", "java", "jq", "lintian", "lsb_release", "lz4", "make", "mk-build-deps", "mock", "nasm", "ninja", "node", "npm",
    "pbuilder", "perl", "pigz", "pip", "pip3", "pixz", "podman", "ps", "python3", "reprepro", "rpmbuild", "rpmspec", "rsync",
    "sudo", "systemctl", "tar", "unzip", "virtualenv", "wget", "xmlstarlet", "xz", "zgrep", "zstd",
})  # fmt: skip
BROUGHT = {
    "dh_listpackages": "dh",
    "dpkg-checkbuilddeps": "dpkg-buildpackage",
    "dpkg-parsechangelog": "dpkg-buildpackage",
    "ensurepip": "python3:ensurepip",
}
"""Commands that come with the package of another one."""


def watched(script: str) -> set[str]:
    """Return the watched words of a script, those of comments and quoted texts left out."""
    text = re.sub(r"(?m)^\s*#.*$|\s#\s.*$", "", script)
    text = re.sub(r"""(?m)^\s*(?:echo|fail|say) .*$|\bfail (?:"[^"]*"|'[^']*')""", "", text)
    return set(re.findall(r"(?<![\w./$%*{-])[a-z][\w+-]*(?![\w./=-])", text)) & WATCHED


def scripts() -> list[Path]:
    """Return our scripts that run on a build machine, and those of the Ceph-shaped input that its builds run."""
    shaped = ROOT / "demo/ceph_shaped_tree/ceph"
    return [*sorted((ROOT / "steps/scripts").glob("*.sh")), shaped / "make-dist", shaped / "install-deps.sh"]


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_what_a_script_calls_is_in_the_list(path: Path) -> None:
    """Each command that a minimal system lacks is in the list, or comes with the package of one in it."""
    listed = {command.name for command in (*COMMON, *FOR_DEBS, *FOR_RPMS)}
    called = {BROUGHT.get(word, word) for word in watched(path.read_text())}
    assert called <= listed


def test_the_reader_of_scripts_sees_commands() -> None:
    """Commands are seen wherever they stand; paths, assignments, comments and messages are not."""
    text = "x=$(git log)\nif ! wget -O a; then\n  $sudo LC_ALL=C dch\nfi # curl\ntar=1 ./make-dist\necho npm run\na | xz\n"
    assert watched(text) == {"git", "wget", "dch", "xz"}


def test_what_ceph_s_own_scripts_call_is_in_the_list() -> None:
    """make-dist of 20.2.4 calls wget and makes a virtual environment; install-deps.sh of 18.2.7 calls curl; both call these."""
    pkg_types: tuple[PkgType, ...] = ("deb", "rpm")
    for pkg_type in pkg_types:
        listed = {command.name for command in commands(pkg_type)}
        assert {
            "bzip2", "curl", "git", "make", "patch", "python3", "python3:ensurepip", "python3:pip", "sudo", "tar", "wget", "xz",
        } <= listed  # fmt: skip
    assert {"dch", "dpkg-buildpackage", "equivs-build", "lsb_release", "mk-build-deps"} <= set(
        needs("apt", "deb")
    )
    assert {"cpio", "dnf", "eu-strip", "rpmbuild", "rpmspec"} <= set(needs("dnf", "rpm"))


@pytest.mark.parametrize(
    ("family", "pkg_type", "names"),
    [
        ("apt", "deb", (
            "build-essential bzip2 ca-certificates cmake curl debhelper devscripts dh-python equivs fakeroot git gpg gzip"
            " libdistro-info-perl lsb-release patch pkg-config procps python3 python3-all python3-pip python3-setuptools python3-venv"
            " sudo tar wget xz-utils"
        )),
        ("apt", "rpm", (
            "build-essential bzip2 ca-certificates cmake cpio curl debugedit dnf dwz elfutils git gpg gzip patch procps"
            " python3 python3-pip python3-venv rpm sudo tar wget xz-utils"
        )),
        ("dnf", "rpm", (
            "/usr/bin/curl bzip2 ca-certificates cmake cpio debugedit dnf dnf-plugins-core dwz elfutils gcc-c++ git-core"
            " gnupg2 gzip make patch procps-ng python3 python3-pip redhat-rpm-config rpm-build sudo tar util-linux wget which xz"
        )),
        ("zypper", "rpm", (
            "bzip2 ca-certificates cmake cpio curl debugedit dwz elfutils gcc-c++ git-core gpg2 gzip make patch procps"
            " python3 python3-pip python311 rpm-build sudo tar util-linux wget which xz"
        )),
    ],
)  # fmt: skip
def test_packages_of_each_family(family: Family, pkg_type: PkgType, names: str) -> None:
    """Each family installs exactly these packages, sorted, each once."""
    assert packages(family, pkg_type) == tuple(names.split())


def test_a_family_lacks_what_it_does_not_need() -> None:
    """openSUSE alone needs a second Python, and no dnf."""
    assert "python3.11" in needs("zypper", "rpm")
    assert "dnf" not in needs("zypper", "rpm")
    assert "python3.11" not in needs("dnf", "rpm") + needs("apt", "rpm")


def test_the_table_that_the_machine_reads() -> None:
    """A line has the command and three packages; a dash says that the family does not need the command."""
    lines = table("rpm").splitlines()
    assert "wget wget wget wget" in lines
    assert "python3:ensurepip python3-venv python3 python3" in lines
    assert "python3.11 - - python311" in lines
    assert {len(line.split()) for line in lines} == {4}
    assert len(lines) == len(COMMON) + len(FOR_RPMS)
