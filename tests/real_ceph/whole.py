"""The half that installs hundreds of packages and builds every variant: `make real-ceph-test` runs it, not the gate."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import DEB, RPM
from tests.real_ceph import debian_tree
from tests.real_ceph.harness import TRIXIE, RealCeph, installed, real_ceph
from tests.real_ceph.upstream_files import RELEASES, mirror, successor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEBUG_DEB = "ceph-deb-bookworm-x86_64-debug"
DEBUG_RPM = "ceph-rpm-centos9-x86_64-debug"
DWZ_RPM = "ceph-rpm-centos9-x86_64-dwz"

SETTINGS = {
    "targets": [DEB, TRIXIE, RPM, DEBUG_DEB, DEBUG_RPM, DWZ_RPM],
    "flavors": {"dwz": {"rpm": {"dwz": True}}},
}

SOME_OF_ALL = {
    "cython3",
    "libaio-dev",
    "libgrpc++-dev",
    "libjerasure-dev",
    "nasm",
    "python3-sphinx",
    "xfslibs-dev",
}
"""Build dependencies that only the whole list brings."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCeph]:
    """A master that builds trees of the real files for every target of these tests."""
    with real_ceph(tmp_path_factory.mktemp("real"), **SETTINGS) as made:
        yield made


@pytest.mark.parametrize("target", [DEB, TRIXIE])
@pytest.mark.parametrize("release", ["tentacle", "reef"])
def test_every_build_dependency_and_nothing_for_make_check(here: RealCeph, target: str, release: str) -> None:
    """The real install-deps.sh installs all that upstream's control names, on both distributions, and nothing more."""
    build = here.build(target, f"{release}-whole-deps", 1800)
    assert build.results == 0, build.sentence
    packages = installed(build.log("dependencies"))
    assert packages >= SOME_OF_ALL
    # Some of them come as dependencies of others: what only `make check` wants does not.
    assert (
        packages & {"jsonnet", "prometheus", "tox", "python3-scipy", "python3-onelogin-saml2", "socat"}
        == set()
    )
    print(f"{len(packages)} packages installed")


def test_make_dist_without_pypi_says_what_it_lacks(here: RealCeph) -> None:
    """The real setup-virtualenv.sh makes a virtual environment; the sentence names what PyPI did not give."""
    build = here.build(DEB, "tentacle-pypi", 900)
    assert build.results == 2
    assert "nodeenv" in build.sentence


def test_all_debs_of_upstream_on_trixie(here: RealCeph) -> None:
    """The 106 debs of upstream's control are published on trixie as well."""
    build = here.build(TRIXIE, "tentacle", 900)
    assert build.results == 0, build.sentence
    assert sorted(build.debs("trixie")) == debian_tree.names()


def test_the_spec_of_reef(here: RealCeph) -> None:
    """The real spec of 18.2.7, which knows no dwz, is published with its debuginfo; its make-dist and install-deps.sh run, too."""
    build = here.build(RPM, "reef", 900)
    assert build.results == 0, build.sentence
    published = set(build.rpms("x86_64"))
    assert {"ceph", "ceph-osd", "ceph-osd-debuginfo", "librados2", "libradosstriper1"} <= published
    assert published.isdisjoint({"libcephfs-proxy2", "ceph-mon-client-nvmeof"})
    assert installed(build.log("dependencies")) & set(debian_tree.FOR_MAKE_CHECK.split()) == set()


def test_the_spec_with_dwz(here: RealCeph) -> None:
    """A flavor with dwz is published, whether or not rpmbuild then makes `ceph-debuginfo` for the shared file."""
    build = here.build(RPM.replace("default", "dwz"), "tentacle", 900)
    assert build.results == 0, build.sentence
    assert "ceph-osd-debuginfo" in build.rpms("x86_64")


@pytest.mark.parametrize("target", [DEBUG_DEB, DEBUG_RPM])
def test_the_debug_flavor_is_not_the_default_one(here: RealCeph, target: str) -> None:
    """Packages of the flavor `debug` are built with cmake's build type Debug and nothing else, as in Ceph's own pipeline."""
    build = here.build(target, "tentacle-some", 900)
    assert build.results == 0, build.sentence
    found = re.findall(r"^CEPH_EXTRA_CMAKE_ARGS=(.*)$", build.log("packages"), re.MULTILINE)
    assert found == ["-DCMAKE_BUILD_TYPE=Debug"]


@pytest.mark.parametrize("name", RELEASES)
def test_a_tarball_that_the_archive_has_dropped_has_a_successor(name: str, tmp_path: Path) -> None:
    """Where the archive no longer has a release, its signed index names the newest one of the same series."""
    dropped = dataclasses.replace(RELEASES[name], version=f"{RELEASES[name].series}.0")
    found = successor(dropped, tmp_path, mirror())
    assert found.name.startswith(f"ceph_{dropped.series}.")
    assert re.fullmatch(r"[0-9a-f]{64}", found.sha256)
