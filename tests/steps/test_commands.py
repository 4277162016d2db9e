"""Command lines, word by word: nothing of a request is ever interpolated into a shell's text."""

from __future__ import annotations

import pytest

from model.package_key import PackageKey
from model.targets import Target
from steps import commands

SHA1 = "73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
DEB = Target("ceph", "jammy")
RPM = Target("ceph", "centos9")
CEPH = "https://github.com/ceph/ceph.git"


def test_checkout() -> None:
    """The checkout gets the fork, the commit, the canonical repository and the pattern of its tags."""
    assert commands.checkout("https://github.com/me/ceph", SHA1, CEPH, "v*") == [
        "bash", "scripts/checkout.sh", "https://github.com/me/ceph", SHA1, CEPH, "v*",
    ]  # fmt: skip


def test_version() -> None:
    """The version comes from tags of a pattern; the canonical repository's URL is for the sentence."""
    assert commands.version(CEPH, "*") == ["bash", "scripts/version.sh", CEPH, "*"]


@pytest.mark.parametrize(("target", "pkg_type"), [(DEB, "deb"), (RPM, "rpm")])
def test_dependencies(target: Target, pkg_type: str) -> None:
    """Build dependencies are those of the target's packages; macros follow, each as one word."""
    assert commands.dependencies(target, []) == ["bash", "scripts/dependencies.sh", pkg_type]
    assert commands.dependencies(target, ["a 1", "b 2"]) == [
        "bash", "scripts/dependencies.sh", pkg_type, "a 1", "b 2",
    ]  # fmt: skip


def test_tarball() -> None:
    """The tarball is of the project and the version, the same for debs and rpms."""
    for target in (DEB, RPM):
        assert commands.tarball(target, "19.2.0-3-g73e2fc59") == [
            "bash", "scripts/tarball.sh", "ceph", "19.2.0-3-g73e2fc59",
        ]  # fmt: skip


def test_deb_packages() -> None:
    """Debs are built for the codename with git's version."""
    assert commands.debs(DEB, "ceph-19.2.0-3-g73e2fc59.tar.bz2", "19.2.0-3-g73e2fc59", 4) == [
        "bash", "scripts/packages-deb.sh", "ceph-19.2.0-3-g73e2fc59.tar.bz2", "19.2.0-3-g73e2fc59", "jammy", "4",
    ]  # fmt: skip


def test_rpm_packages() -> None:
    """Rpms are built with rpm's version from a spec, which need not be named; options follow, word by word."""
    words = ["bash", "scripts/packages-rpm.sh", "ceph-19.2.0-3-g73e2fc59.tar.bz2", "19.2.0-3.g73e2fc59"]
    assert commands.rpms(words[2], "19.2.0-3-g73e2fc59", "ceph", 4, []) == [*words, "ceph", "4"]
    assert commands.rpms(words[2], "19.2.0-3-g73e2fc59", "", 4, ["--nodeps", "--with=a"]) == [
        *words, "", "4", "--nodeps", "--with=a",
    ]  # fmt: skip


def test_uploads_of_debs() -> None:
    """Debs and their sources go into the pool; the token is not among the command's words."""
    assert commands.upload(PackageKey(DEB, SHA1), "http://p:8011/", "19.2.0-1", ["ceph", "ceph-common"]) == [
        "python3", "scripts/upload.py", "http://p:8011/", f"ceph-deb-jammy-x86_64-default/{SHA1}",
        "out/deb=pool/main/c/ceph", "--version", "19.2.0-1", "--packages", "ceph,ceph-common",
    ]  # fmt: skip


def test_uploads_of_rpms() -> None:
    """rpms go where rpmbuild sorted them: SRPMS, noarch and the architecture."""
    assert commands.upload(PackageKey(RPM, SHA1), "http://p:8011/", "19.2.0-0", ["ceph"]) == [
        "python3", "scripts/upload.py", "http://p:8011/", f"ceph-rpm-centos9-x86_64-default/{SHA1}",
        "out/rpmbuild/SRPMS=SRPMS", "out/rpmbuild/RPMS=.", "--version", "19.2.0-0", "--packages", "ceph",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("described", "rpm", "deb"),
    [
        ("19.2.0", "19.2.0-0", "19.2.0-1jammy"),
        ("19.2.0-3-g73e2fc59", "19.2.0-3.g73e2fc59", "19.2.0-3-g73e2fc59-1jammy"),
        ("18.2.7-1234-g0123456789", "18.2.7-1234.g0123456789", "18.2.7-1234-g0123456789-1jammy"),
        ("20.3.0-3599-gabcdef12", "20.3.0-3599.gabcdef12", "20.3.0-3599-gabcdef12-1jammy"),
        ("19.1.0~rc1-2-gabcdef12", "19.1.0~rc1-2.gabcdef12", "19.1.0~rc1-2-gabcdef12-1jammy"),
        ("19", "19-0", "19-1jammy"),
    ],
)
def test_versions_are_those_of_cephs_tools(described: str, rpm: str, deb: str) -> None:
    """What git describes becomes rpm's VERSION-RELEASE and dpkg's version as Ceph's own make-dist and make-debs.sh have it."""
    assert commands.rpm_version(described) == rpm
    assert commands.published_version(RPM, described) == rpm
    assert commands.published_version(DEB, described) == deb


@pytest.mark.parametrize(
    "described",
    [
        "",
        "v19.2.0",
        "main",
        "19.2.0-3",
        "19.2.0-3-73e2fc59",
        "19.2.0-3-g73e",
        "19.2.0\n",
        "19.2.0-rc1",
        "19..2",
        "19.2.0 x",
    ],
)
def test_what_is_no_version_is_refused(described: str) -> None:
    """What git describe cannot have said is refused."""
    with pytest.raises(ValueError) as caught:
        commands.rpm_version(described)
    assert str(caught.value) == f"{described!r} is not what git describe gives"


@pytest.mark.parametrize(
    ("cores", "memory", "per_job", "jobs"),
    [(2, 8192, 3072, 2), (64, 8192, 3072, 2), (16, 65536, 3072, 16), (16, 9215, 3072, 2), (16, 9216, 3072, 3), (4, 1000, 3072, 1), (4, 0, 3072, 1), (0, 8192, 3072, 1)],
)  # fmt: skip
def test_jobs_fit_cores_and_memory(cores: int, memory: int, per_job: int, jobs: int) -> None:
    """There are as many jobs as cores, and as memory bears, and always one."""
    assert commands.parallel_jobs(cores, memory, per_job) == jobs
