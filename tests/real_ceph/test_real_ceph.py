"""Real files of Ceph through the whole product: the half that takes minutes. `make real-ceph-test` runs the rest as well."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import requests

from demo import install
from model.package_key import PackageKey
from tests.integration.harness import DEB, ROOTS, RPM
from tests.real_ceph import debian_tree
from tests.real_ceph.harness import Build, RealCeph, installed, real_ceph
from workers.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOWNLOADS = [
    "https://download.ceph.com/qa/boost_1_87_0.tar.bz2",
    "https://github.com/axboe/liburing/archive/liburing-2.5.tar.gz",
    "https://github.com/pmem/pmdk/releases/download/1.10/pmdk-1.10.tar.gz",
]

NOARCH = """\
ceph-grafana-dashboards ceph-mgr-cephadm ceph-mgr-dashboard ceph-mgr-diskprediction-local ceph-mgr-k8sevents
ceph-mgr-modules-core ceph-mgr-rook ceph-mib ceph-node-proxy ceph-prometheus-alerts ceph-release ceph-resource-agents
ceph-volume cephadm cephfs-top
"""
X86_64 = """\
ceph ceph-base ceph-common ceph-exporter ceph-fuse ceph-immutable-object-cache ceph-mds ceph-mgr ceph-mon
ceph-mon-client-nvmeof ceph-osd ceph-radosgw ceph-selinux ceph-test cephfs-mirror cephfs-shell libcephfs-daemon
libcephfs-devel libcephfs-proxy2 libcephfs2 libcephsqlite libcephsqlite-devel librados-devel librados2 libradospp-devel
libradosstriper-devel libradosstriper1 librbd-devel librbd1 librgw-devel librgw2 python3-ceph-argparse
python3-ceph-common python3-cephfs python3-rados python3-rbd python3-rgw rados-objclass-devel rbd-fuse rbd-mirror
rbd-nbd
"""
"""The packages of the spec of 20.2.4 on EL9, with the repository's own rpm, without debugging symbols."""

CMAKE_ARGUMENTS = "-DALLOCATOR=tcmalloc -DWITH_SYSTEM_BOOST=OFF -DWITH_BOOST_VALGRIND=ON"
"""The cmake arguments of Ceph's own pipeline for the flavor `default`."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCeph]:
    """A master that builds trees of the real files."""
    with real_ceph(tmp_path_factory.mktemp("real")) as made:
        made.begin((DEB, "tentacle"), (RPM, "tentacle"), (DEB, "reef-some"), (DEB, "tentacle-untouched"))
        yield made


@pytest.fixture(scope="module")
def debs(here: RealCeph) -> Build:
    """The build of every deb that upstream's control names."""
    return here.build(DEB, "tentacle")


@pytest.fixture(scope="module")
def rpms(here: RealCeph) -> Build:
    """The build of the real spec of 20.2.4."""
    return here.build(RPM, "tentacle")


def test_make_dist_that_gets_another_archive_says_so(here: RealCeph) -> None:
    """The real make-dist exits with 0 after a download with the wrong checksum; the build's sentence names the archive."""
    build = here.build(DEB, "tentacle-untouched")
    assert build.results == 2
    assert "failed to download boost_1_87_0.tar.bz2" in build.sentence
    assert "https://archives.boost.io/release/1.87.0/source/boost_1_87_0.tar.bz2" in here.mirror.requested
    assert "SHA256 mismatch" in build.log("tarball")


def test_make_dist_runs_to_its_end(here: RealCeph, debs: Build) -> None:
    """The real make-dist downloads its three archives with the root's own wget, and leaves the tarball."""
    assert set(DOWNLOADS) <= set(here.mirror.requested)
    assert "\ndone.\n" in debs.log("tarball")


def test_all_debs_of_upstream_are_published(debs: Build) -> None:
    """The index has the 106 packages of upstream's control, in the published version, the 29 of debugging symbols included."""
    assert debs.results == 0, debs.sentence
    published = debs.debs("bookworm")
    assert sorted(published) == debian_tree.names()
    assert len(published) == 106
    assert sum(name.endswith("-dbg") for name in published) == 29
    assert set(published.values()) == {debs.text("version").strip()}
    assert re.match(r"20\.2\.4-1-g[0-9a-f]{8}-1", debs.text("version"))


def test_the_source_package_of_a_tree_without_source_format_is_whole(debs: Build) -> None:
    """Without `debian/source/format` the source package has one tarball; each file that the index lists is served."""
    sources = debs.text("dists/bookworm/main/source/Sources.gz")
    [directory] = re.findall(r"^Directory: (\S+)$", sources, re.MULTILINE)
    [block] = re.findall(r"^Files:.*\n((?: .+\n)+)", sources, re.MULTILINE)
    listed = {name: int(size) for _, size, name in (line.split() for line in block.splitlines())}
    assert {name.rpartition("-1")[2].partition(".")[2] or name for name in listed} == {"dsc", "tar.gz"}
    for name, size in listed.items():
        answer = requests.head(f"{debs.url}{directory}/{name}", timeout=30)
        assert (answer.status_code, int(answer.headers["Content-Length"])) == (200, size), name


def test_a_dbg_deb_holds_debugging_symbols(debs: Build, tmp_path: Path) -> None:
    """The rules' own dh_strip lines fill the -dbg packages, and the published one holds the symbols."""
    index = debs.text("dists/bookworm/main/binary-amd64/Packages.gz")
    [path] = re.findall(r"^Filename: (\S+/ceph-osd-classic-dbg_\S+)$", index, re.MULTILINE)
    deb = tmp_path / "dbg.deb"
    deb.write_bytes(requests.get(debs.url + path, timeout=30).content)
    listed = subprocess.run(
        ["dpkg-deb", "--contents", deb], check=True, capture_output=True, text=True
    ).stdout
    assert "./usr/lib/debug/" in listed
    assert ".debug" in listed


def test_apt_installs_ceph(debs: Build, here: RealCeph) -> None:
    """apt installs `ceph` and what it depends on from the published repository alone."""
    said = install.with_apt(
        PackageKey.from_string(debs.key), here.packages_url, Roots(ROOTS, {}),
        ["ceph"], "dpkg-query --show && ceph-osd-classic",
    )  # fmt: skip
    assert "\nceph-osd-classic " in said
    assert {"ceph", "ceph-mgr-modules-core", "libsqlite3-mod-ceph", "python3-rgw"} <= set(
        re.findall(r"^([a-z0-9-]+)(?::amd64)?\t20\.2\.4", said, re.MULTILINE)
    )


@pytest.mark.parametrize("branch", ["tentacle", "reef-some"])
def test_nothing_for_make_check_is_installed(here: RealCeph, branch: str) -> None:
    """The real install-deps.sh of both releases installs the build dependencies, and none of `<pkg.ceph.check>`."""
    log = here.build(DEB, branch).log("dependencies")
    assert "nasm" in installed(log)
    assert installed(log) & set(debian_tree.FOR_MAKE_CHECK.split()) == set()


@pytest.mark.parametrize("target", [DEB, RPM])
def test_the_default_flavor_is_the_field_s(here: RealCeph, target: str) -> None:
    """Packages of the flavor `default` are built with the cmake arguments of Ceph's own pipeline."""
    log = here.build(target, "tentacle").log("packages")
    assert re.search(rf"^CEPH_EXTRA_CMAKE_ARGS={re.escape(CMAKE_ARGUMENTS)}$", log, re.MULTILINE)


def test_all_rpms_of_the_spec_are_published(rpms: Build) -> None:
    """The indexes have the packages that the real spec names on EL9, with its epoch, and debugging symbols besides."""
    assert rpms.results == 0, rpms.sentence
    x86_64, noarch = rpms.rpms("x86_64"), rpms.rpms("noarch")
    assert sorted(noarch) == NOARCH.split()
    assert sorted(name for name in x86_64 if not re.search(r"-debug(info|source)$", name)) == X86_64.split()
    assert list(rpms.rpms("SRPMS")) == ["ceph"]
    versions = set(x86_64.values())
    assert len(versions) == 1
    assert re.fullmatch(r"2:20\.2\.4-1\.g[0-9a-f]{8}\.el9", versions.pop())


def test_debuginfo_of_the_spec_is_published_without_dwz(rpms: Build) -> None:
    """Without dwz rpmbuild makes no `ceph-debuginfo`, whose main package is empty, but one for each package with programs."""
    published = set(rpms.rpms("x86_64"))
    assert {"ceph-debugsource", "ceph-osd-debuginfo", "librados2-debuginfo"} <= published
    assert "ceph-debuginfo" not in published


def test_dnf_installs_a_library_with_its_debuginfo(rpms: Build, here: RealCeph) -> None:
    """dnf resolves and installs packages of the real spec from the published repositories."""
    said = install.with_dnf(
        PackageKey.from_string(rpms.key), here.packages_url, Roots(ROOTS, {}),
        ["librados-devel", "librados2-debuginfo"], "rpm --root /installed --query --all",
    )  # fmt: skip
    assert re.search(r"^librados2-20\.2\.4-1\.g[0-9a-f]{8}\.el9\.x86_64$", said, re.MULTILINE)
    assert re.search(r"^librados2-debuginfo-20\.2\.4-", said, re.MULTILINE)
