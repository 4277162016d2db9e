"""Targets: the whole matrix, each one's names, and how settings choose of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model.targets import Target, matrix, select

ROOT = Path(__file__).parents[2]

PRINTED = """\
target                              distribution    arch      flavor
ceph-deb-focal-x86_64-default       ubuntu 20.04    x86_64    default
ceph-deb-focal-x86_64-debug         ubuntu 20.04    x86_64    debug
ceph-deb-focal-aarch64-default      ubuntu 20.04    aarch64   default
ceph-deb-focal-aarch64-debug        ubuntu 20.04    aarch64   debug
ceph-deb-jammy-x86_64-default       ubuntu 22.04    x86_64    default
ceph-deb-jammy-x86_64-debug         ubuntu 22.04    x86_64    debug
ceph-deb-jammy-aarch64-default      ubuntu 22.04    aarch64   default
ceph-deb-jammy-aarch64-debug        ubuntu 22.04    aarch64   debug
ceph-deb-noble-x86_64-default       ubuntu 24.04    x86_64    default
ceph-deb-noble-x86_64-debug         ubuntu 24.04    x86_64    debug
ceph-deb-noble-aarch64-default      ubuntu 24.04    aarch64   default
ceph-deb-noble-aarch64-debug        ubuntu 24.04    aarch64   debug
ceph-deb-bookworm-x86_64-default    debian 12       x86_64    default
ceph-deb-bookworm-x86_64-debug      debian 12       x86_64    debug
ceph-deb-bookworm-aarch64-default   debian 12       aarch64   default
ceph-deb-bookworm-aarch64-debug     debian 12       aarch64   debug
ceph-deb-trixie-x86_64-default      debian 13       x86_64    default
ceph-deb-trixie-x86_64-debug        debian 13       x86_64    debug
ceph-deb-trixie-aarch64-default     debian 13       aarch64   default
ceph-deb-trixie-aarch64-debug       debian 13       aarch64   debug
ceph-rpm-centos9-x86_64-default     centos 9        x86_64    default
ceph-rpm-centos9-x86_64-debug       centos 9        x86_64    debug
ceph-rpm-centos9-aarch64-default    centos 9        aarch64   default
ceph-rpm-centos9-aarch64-debug      centos 9        aarch64   debug
ceph-rpm-centos10-x86_64-default    centos 10       x86_64    default
ceph-rpm-centos10-x86_64-debug      centos 10       x86_64    debug
ceph-rpm-centos10-aarch64-default   centos 10       aarch64   default
ceph-rpm-centos10-aarch64-debug     centos 10       aarch64   debug
ceph-rpm-rocky9-x86_64-default      rocky 9         x86_64    default
ceph-rpm-rocky9-x86_64-debug        rocky 9         x86_64    debug
ceph-rpm-rocky9-aarch64-default     rocky 9         aarch64   default
ceph-rpm-rocky9-aarch64-debug       rocky 9         aarch64   debug
ceph-rpm-rocky10-x86_64-default     rocky 10        x86_64    default
ceph-rpm-rocky10-x86_64-debug       rocky 10        x86_64    debug
ceph-rpm-rocky10-aarch64-default    rocky 10        aarch64   default
ceph-rpm-rocky10-aarch64-debug      rocky 10        aarch64   debug
"""


def command(*patterns: str) -> subprocess.CompletedProcess[str]:
    """Run the module as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "model.targets", *patterns],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_the_matrix_is_printed() -> None:
    """The command prints every target there can be, one line each, in the order of the tables."""
    finished = command()
    assert (finished.stdout, finished.stderr, finished.returncode) == (PRINTED, "", 0)


def test_the_matrix_marks_what_patterns_turn_on() -> None:
    """With patterns as in the settings, the printed matrix says `on` beside what they choose, and only there."""
    lines = command("ceph-deb-*-aarch64-debug", "ceph-rpm-rocky9-x86_64-default").stdout.splitlines()
    assert lines[0] == "target                              distribution    arch      flavor    on"
    assert [line.split()[0] for line in lines[1:] if line.endswith(" on")] == [
        "ceph-deb-focal-aarch64-debug",
        "ceph-deb-jammy-aarch64-debug",
        "ceph-deb-noble-aarch64-debug",
        "ceph-deb-bookworm-aarch64-debug",
        "ceph-deb-trixie-aarch64-debug",
        "ceph-rpm-rocky9-x86_64-default",
    ]


def test_a_pattern_that_matches_nothing_is_a_mistake_of_the_command() -> None:
    """The command ends with status 2 and a sentence for a pattern that chooses nothing."""
    finished = command("ceph-deb-jessie-*")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert (
        "error: 'ceph-deb-jessie-*' matches no target; the matrix: python -m model.targets" in finished.stderr
    )


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (
            "ceph-deb-jammy-x86_64-default",
            ("ceph", "deb", "jammy", "ubuntu", "22.04", "jammy", "", "amd64", "default"),
        ),
        (
            "ceph-deb-focal-aarch64-debug",
            ("ceph", "deb", "focal", "ubuntu", "20.04", "focal", "", "arm64", "debug"),
        ),
        (
            "ceph-deb-trixie-x86_64-default",
            ("ceph", "deb", "trixie", "debian", "13", "trixie", "", "amd64", "default"),
        ),
        (
            "ceph-rpm-centos9-x86_64-default",
            ("ceph", "rpm", "centos9", "centos", "9", "", "el9", "amd64", "default"),
        ),
        (
            "ceph-rpm-rocky10-aarch64-debug",
            ("ceph", "rpm", "rocky10", "rocky", "10", "", "el10", "arm64", "debug"),
        ),
    ],
)
def test_a_name_says_everything(name: str, row: tuple[str, ...]) -> None:
    """A target read from its name has the name again, and the words that dpkg, rpm and the layout use."""
    target = Target.from_name(name)
    dist = target.distribution
    assert (
        target.project, target.pkg_type, target.dist, dist.distro, dist.version,
        dist.codename, dist.dist_release, target.deb_arch, target.flavor,
    ) == row  # fmt: skip
    assert (target.name, str(target)) == (name, name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ceph-deb-jammy-x86_64", "'ceph-deb-jammy-x86_64' is not <project>-<pkg_type>-<dist>-<arch>-<flavor>, such as ceph-deb-jammy-x86_64-default"),
        ("", "'' is not <project>-<pkg_type>-<dist>-<arch>-<flavor>, such as ceph-deb-jammy-x86_64-default"),
        ("ceph-rpm-jammy-x86_64-default", "jammy has deb packages, not 'rpm'"),
        ("ceph-deb-centos9-x86_64-default", "centos9 has rpm packages, not 'deb'"),
        ("ceph-deb-jessie-x86_64-default", "dist 'jessie' is not one of focal, jammy, noble, bookworm, trixie, centos9, centos10, rocky9, rocky10"),
        ("ceph-deb-jammy-amd64-default", "arch 'amd64' is not one of x86_64, aarch64"),
        ("ceph-deb-jammy-x86_64-crimson", "flavor 'crimson' is not one of default, debug"),
        ("Ceph-deb-jammy-x86_64-default", "project 'Ceph' must be 1 to 16 lower-case letters and digits"),
        ("ceph\n-deb-jammy-x86_64-default", "project 'ceph\\n' must be 1 to 16 lower-case letters and digits"),
        ("-deb-jammy-x86_64-default", "project '' must be 1 to 16 lower-case letters and digits"),
        ("abcdefghijklmnopq-deb-jammy-x86_64-default", "project 'abcdefghijklmnopq' must be 1 to 16 lower-case letters and digits"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_matrix_is_refused(name: str, sentence: str) -> None:
    """A name that is not of the matrix is refused with a sentence that says which part, and what there is."""
    with pytest.raises(ValueError) as caught:
        Target.from_name(name)
    assert str(caught.value) == sentence


def test_the_matrix_is_whole_and_each_name_once() -> None:
    """The matrix is five deb and four rpm dists, two architectures and two flavors, and no name is there twice."""
    names = [target.name for target in matrix()]
    assert len(names) == len(set(names)) == 36
    assert sum("-deb-" in name for name in names) == 20


def test_every_name_can_be_a_builders_and_read_back() -> None:
    """A name of the matrix fits Buildbot's identifiers: at most 50 characters and no dots, for the longest project as well."""
    for target in matrix(("ceph", "abcdefghijklmnop")):
        assert len(target.name) <= 50
        assert "." not in target.name
        assert Target.from_name(target.name) == target


@pytest.mark.parametrize(
    ("dist", "title"),
    [
        ("jammy", "Ubuntu 22.04 (jammy)"),
        ("bookworm", "Debian 12 (bookworm)"),
        ("centos9", "CentOS 9"),
        ("rocky10", "Rocky 10"),
    ],
)
def test_people_read_a_release_as_they_name_it(dist: str, title: str) -> None:
    """A release's title is its distribution as it writes itself, its version, and the codename if it has one."""
    assert Target("ceph", dist).distribution.title == title


def test_patterns_choose_each_target_once_and_in_the_matrix_order() -> None:
    """Whatever the order of the patterns and however they overlap, a target is on once, where the matrix has it."""
    chosen = select(
        [
            "ceph-rpm-centos9-x86_64-*",
            "ceph-deb-jammy-x86_64-default",
            "ceph-*-x86_64-default",
            "ceph-deb-jammy-*-default",
        ]
    )
    assert [target.name for target in chosen if target.dist in ("jammy", "centos9")] == [
        "ceph-deb-jammy-x86_64-default",
        "ceph-deb-jammy-aarch64-default",
        "ceph-rpm-centos9-x86_64-default",
        "ceph-rpm-centos9-x86_64-debug",
    ]
    assert len(chosen) == len(set(chosen)) == 11


def test_a_pattern_that_chooses_nothing_is_refused() -> None:
    """A mistyped pattern is an error that names it, though another pattern chooses something."""
    with pytest.raises(ValueError) as caught:
        select(["ceph-deb-jammy-*", "ceph-deb-jamy-*"])
    assert str(caught.value) == ("'ceph-deb-jamy-*' matches no target; the matrix: python -m model.targets")
