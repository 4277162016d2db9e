"""Targets: the whole matrix, each one's names, and how settings choose of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model.recipes import BUILT_IN, PLAIN_FLAVORS, Recipe, Recipes
from model.targets import Target, matrix, select

ROOT = Path(__file__).parents[2]

PRINTED = """\
target                              distribution    arch      flavor        untested
ceph-deb-jammy-x86_64-default       ubuntu 22.04    x86_64    default       never built on Ubuntu 22.04
ceph-deb-jammy-x86_64-debug         ubuntu 22.04    x86_64    debug         never built on Ubuntu 22.04
ceph-deb-jammy-aarch64-default      ubuntu 22.04    aarch64   default       never built on Ubuntu 22.04; never built on aarch64
ceph-deb-jammy-aarch64-debug        ubuntu 22.04    aarch64   debug         never built on Ubuntu 22.04; never built on aarch64
ceph-deb-noble-x86_64-default       ubuntu 24.04    x86_64    default       never built on Ubuntu 24.04
ceph-deb-noble-x86_64-debug         ubuntu 24.04    x86_64    debug         never built on Ubuntu 24.04
ceph-deb-noble-aarch64-default      ubuntu 24.04    aarch64   default       never built on Ubuntu 24.04; never built on aarch64
ceph-deb-noble-aarch64-debug        ubuntu 24.04    aarch64   debug         never built on Ubuntu 24.04; never built on aarch64
ceph-deb-resolute-x86_64-default    ubuntu 26.04    x86_64    default       never built on Ubuntu 26.04
ceph-deb-resolute-x86_64-debug      ubuntu 26.04    x86_64    debug         never built on Ubuntu 26.04
ceph-deb-resolute-aarch64-default   ubuntu 26.04    aarch64   default       never built on Ubuntu 26.04; never built on aarch64
ceph-deb-resolute-aarch64-debug     ubuntu 26.04    aarch64   debug         never built on Ubuntu 26.04; never built on aarch64
ceph-deb-bookworm-x86_64-default    debian 12       x86_64    default
ceph-deb-bookworm-x86_64-debug      debian 12       x86_64    debug
ceph-deb-bookworm-aarch64-default   debian 12       aarch64   default       never built on aarch64
ceph-deb-bookworm-aarch64-debug     debian 12       aarch64   debug         never built on aarch64
ceph-deb-trixie-x86_64-default      debian 13       x86_64    default
ceph-deb-trixie-x86_64-debug        debian 13       x86_64    debug         never built with flavor debug
ceph-deb-trixie-aarch64-default     debian 13       aarch64   default       never built on aarch64
ceph-deb-trixie-aarch64-debug       debian 13       aarch64   debug         never built on aarch64; never built with flavor debug
ceph-rpm-centos9-x86_64-default     centos 9        x86_64    default       never built on CentOS Stream 9 itself, only with Debian's rpmbuild and el9 macros
ceph-rpm-centos9-x86_64-debug       centos 9        x86_64    debug         never built on CentOS Stream 9 itself, only with Debian's rpmbuild and el9 macros
ceph-rpm-centos9-aarch64-default    centos 9        aarch64   default       never built on CentOS Stream 9 itself, only with Debian's rpmbuild and el9 macros; never built on aarch64
ceph-rpm-centos9-aarch64-debug      centos 9        aarch64   debug         never built on CentOS Stream 9 itself, only with Debian's rpmbuild and el9 macros; never built on aarch64
ceph-rpm-centos10-x86_64-default    centos 10       x86_64    default       never built on CentOS Stream 10
ceph-rpm-centos10-x86_64-debug      centos 10       x86_64    debug         never built on CentOS Stream 10
ceph-rpm-centos10-aarch64-default   centos 10       aarch64   default       never built on CentOS Stream 10; never built on aarch64
ceph-rpm-centos10-aarch64-debug     centos 10       aarch64   debug         never built on CentOS Stream 10; never built on aarch64
ceph-rpm-rocky9-x86_64-default      rocky 9         x86_64    default       never built on Rocky Linux 9
ceph-rpm-rocky9-x86_64-debug        rocky 9         x86_64    debug         never built on Rocky Linux 9
ceph-rpm-rocky9-aarch64-default     rocky 9         aarch64   default       never built on Rocky Linux 9; never built on aarch64
ceph-rpm-rocky9-aarch64-debug       rocky 9         aarch64   debug         never built on Rocky Linux 9; never built on aarch64
ceph-rpm-rocky10-x86_64-default     rocky 10        x86_64    default       never built on Rocky Linux 10
ceph-rpm-rocky10-x86_64-debug       rocky 10        x86_64    debug         never built on Rocky Linux 10
ceph-rpm-rocky10-aarch64-default    rocky 10        aarch64   default       never built on Rocky Linux 10; never built on aarch64
ceph-rpm-rocky10-aarch64-debug      rocky 10        aarch64   debug         never built on Rocky Linux 10; never built on aarch64
"""


PROJECT = (
    "must be 1 to 16 lower-case letters and digits, with single dashes between, and not begin with image"
)


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
    assert lines[0] == (
        "target                              distribution    arch      flavor    on  untested"
    )
    assert [line.split()[0] for line in lines[1:] if line[72:74] == "on"] == [
        "ceph-deb-jammy-aarch64-debug",
        "ceph-deb-noble-aarch64-debug",
        "ceph-deb-resolute-aarch64-debug",
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
            "ceph-deb-resolute-aarch64-debug",
            ("ceph", "deb", "resolute", "ubuntu", "26.04", "resolute", "", "arm64", "debug"),
        ),
        (
            "tcmu-runner-rpm-rocky9-x86_64-default",
            ("tcmu-runner", "rpm", "rocky9", "rocky", "9", "", "el9", "amd64", "default"),
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
        ("ceph-deb-jessie-x86_64-default", "dist 'jessie' is not one of jammy, noble, resolute, bookworm, trixie, centos9, centos10, rocky9, rocky10"),
        ("ceph-deb-jammy-amd64-default", "arch 'amd64' is not one of x86_64, aarch64"),
        ("ceph-deb-jammy-x86_64-Crimson", "flavor 'Crimson' must be 1 to 12 lower-case letters and digits"),
        ("ceph-deb-jammy-x86_64-crimsonx86_64", "flavor 'crimsonx86_64' must be 1 to 12 lower-case letters and digits"),
        ("Ceph-deb-jammy-x86_64-default", f"project 'Ceph' {PROJECT}"),
        ("ceph\n-deb-jammy-x86_64-default", f"project 'ceph\\n' {PROJECT}"),
        ("-deb-jammy-x86_64-default", f"project '' {PROJECT}"),
        ("ceph--iscsi-deb-jammy-x86_64-default", f"project 'ceph--iscsi' {PROJECT}"),
        ("image-ceph-deb-jammy-x86_64-default", f"project 'image-ceph' {PROJECT}"),
        ("abcdefghijklmnopq-deb-jammy-x86_64-default", f"project 'abcdefghijklmnopq' {PROJECT}"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_matrix_is_refused(name: str, sentence: str) -> None:
    """A name that is not of the matrix is refused with a sentence that says which part, and what there is."""
    with pytest.raises(ValueError) as caught:
        Target.from_name(name)
    assert str(caught.value) == sentence


def test_the_matrix_is_whole_and_each_name_once() -> None:
    """Ceph's matrix is five deb and four rpm dists, two architectures and two flavors, and no name is there twice."""
    names = [target.name for target in matrix()]
    assert len(names) == len(set(names)) == 36
    assert sum("-deb-" in name for name in names) == 20


def test_every_name_can_be_a_builders_and_read_back() -> None:
    """A name has at most 50 characters and no dots, for the longest project and flavor as well, and reads back."""
    longest = Recipes({"abcdefghij-klmno": {"abcdefghijkl": {"deb": Recipe(), "rpm": Recipe()}}})
    for target in (*matrix(), *matrix(longest)):
        assert len(target.name) <= 50
        assert "." not in target.name
        assert Target.from_name(target.name) == target


def test_a_flavor_without_a_recipe_is_no_target() -> None:
    """The matrix has what a recipe is there for: of another project `default`, of a flavor for one dist that dist."""
    recipes = Recipes({"ceph": {"asan": {"noble": Recipe()}}, "ceph-iscsi": PLAIN_FLAVORS})
    names = [target.name for target in matrix(recipes)]
    assert names[:2] == ["ceph-deb-noble-x86_64-asan", "ceph-deb-noble-aarch64-asan"]
    assert len(names) == 2 + 18
    assert {name.rpartition("-")[2] for name in names[2:]} == {"default"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ceph-deb-noble-x86_64-crimson", ": flavor 'crimson' of ceph has no recipe; there are default, debug"),
        ("ceph-deb-focal-x86_64-default", ": dist 'focal' is not one of jammy, noble, resolute, bookworm, trixie, centos9, centos10, rocky9, rocky10"),
        ("ceph-iscsi-rpm-centos9-x86_64-default", ": project 'ceph-iscsi' is not one of ceph"),
        ("ceph-deb-jamy-*", "; the matrix: python -m model.targets"),
        ("ceph-deb-noble-x86_64-cri*", "; the matrix: python -m model.targets"),
        ("nonesuch", "; the matrix: python -m model.targets"),
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused_with_the_reason(name: str, sentence: str) -> None:
    """A name of the right form that is no target is refused with what is wrong with it; a pattern is sent to the matrix."""
    with pytest.raises(ValueError) as caught:
        select(["ceph-deb-noble-*", name])
    assert str(caught.value) == f"{name!r} matches no target{sentence}"


def test_nothing_untested_is_called_tested() -> None:
    """The tests build bookworm and trixie on x86_64; every other target says which part of it was never run."""
    tested = [target.name for target in matrix(BUILT_IN) if not target.untested]
    assert tested == [
        "ceph-deb-bookworm-x86_64-default",
        "ceph-deb-bookworm-x86_64-debug",
        "ceph-deb-trixie-x86_64-default",
    ]


@pytest.mark.parametrize(
    ("dist", "title"),
    [
        ("jammy", "Ubuntu 22.04 (jammy)"),
        ("resolute", "Ubuntu 26.04 (resolute)"),
        ("bookworm", "Debian 12 (bookworm)"),
        ("centos9", "CentOS Stream 9"),
        ("rocky10", "Rocky Linux 10"),
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
