"""Names of packages: those of the project are published, and no package stands in for one of a system."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from master.publishing.package_names import CEPH_PACKAGES, PackageNames
from tests.package_repositories import (
    DEB_NAMES,
    DEB_VERSION,
    RPM_VERSION,
    SPEC,
    build_deb,
    build_rpm,
    deb_upload,
    make_metadata,
    write_manifest,
)
from tests.real_ceph import debian_tree

POOL = "pool/main/c/ceph"
SETTING = "if it is right, add the name to projects.ceph.packages"

OF_SYSTEMS = (
    "bash", "libc6", "glibc", "sudo", "systemd", "openssh-server", "python3", "python3-requests", "librdkafka1",
    "libboost-dev", "radare2", "linux-image-amd64", "kernel", "epel-release", "centos-release", "Ceph", "ceph2",
)  # fmt: skip
"""Names of other projects' packages, some of them close to Ceph's."""

OF_CEPH = (
    "ceph", "ceph-common", "ceph-mgr-modules-core", "ceph-osd-crimson", "ceph-debugsource", "ceph-selinux",
    "cephadm", "cephfs-java", "cephfs-mirror", "crimson-osd", "libcephfs-jni", "libcephfs_jni-devel", "libcephfs2",
    "libcephsqlite-dev", "librados2-debuginfo", "libradosstriper1", "libradospp-devel", "librbd-devel", "librgw2",
    "libsqlite3-mod-ceph", "python3-ceph-argparse", "python3-cephfs", "python3.9-rados", "python-rgw",
    "rados-objclass-devel", "radosgw", "rbd-nbd", "ceph-libs", "ceph-test:/usr/bin/ceph-monstore-tool",
)  # fmt: skip
"""Names that Ceph's own debian/control and ceph.spec.in give or claim."""


def test_ceph_has_its_own_names() -> None:
    """The default of project ceph has each name of its packages, and none of a system's."""
    names = PackageNames.of("ceph")
    assert names.patterns == CEPH_PACKAGES
    assert [name for name in (*OF_CEPH, *debian_tree.names()) if not names.has(name)] == []
    assert [name for name in OF_SYSTEMS if names.has(name)] == []


def test_a_project_has_the_names_that_begin_with_its_own() -> None:
    """Without a setting, a project's packages are named after it; a setting replaces the default."""
    names = PackageNames.of("tcmu")
    assert [
        name
        for name in ("tcmu", "tcmu-runner", "libtcmu2", "python3-tcmu", "ceph", "bash")
        if names.has(name)
    ] == ["tcmu", "tcmu-runner", "libtcmu2", "python3-tcmu"]
    names = PackageNames.of("tcmu", ("targetcli",))
    assert names.has("targetcli")
    assert not names.has("tcmu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an upload of debs; no test changes it."""
    return deb_upload(tmp_path_factory.mktemp("deb"))


def refusal(directory: Path, version: str, names: list[str]) -> str:
    """Return the sentence about an upload."""
    write_manifest(directory, version, names)
    with pytest.raises(ValueError) as caught:
        make_metadata(directory)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("bash", "", f"is the package 'bash', which project ceph may not publish: {SETTING}"),
        ("libc6", "", f"is the package 'libc6', which project ceph may not publish: {SETTING}"),
        ("ceph-mon", "Provides: ceph-x (= 1), libc6 (= 99)\n", f"has 'libc6' in its field Provides, which project ceph may not claim: {SETTING}"),
        ("ceph-mon", "Provides: mail-transport-agent\n", f"has 'mail-transport-agent' in its field Provides, which project ceph may not claim: {SETTING}"),
        ("ceph-mon", "Provides: bash:amd64\n", f"has 'bash' in its field Provides, which project ceph may not claim: {SETTING}"),
        ("ceph-mon", "Essential: yes\n", "is marked Essential: apt would install it unasked"),
        ("ceph-mon", "Priority: required\n", "has the priority required, which is for packages of a distribution"),
        ("ceph-mon", "Priority: important\n", "has the priority important, which is for packages of a distribution"),
        ("ceph-hidden", "", "is a package that the sources do not name"),
    ],
)  # fmt: skip
def test_c5_a_deb_that_stands_in_for_a_systems_is_refused(
    made: Path, name: str, more: str, sentence: str, tmp_path: Path
) -> None:
    """A deb with a name or a claim that is not the project's, or that a system installs unasked, is refused."""
    directory = Path(shutil.copytree(made, tmp_path / "upload"))
    path = build_deb(directory / POOL, name, DEB_VERSION, more=f"Source: ceph\n{more}")
    assert refusal(directory, DEB_VERSION, DEB_NAMES) == f"{POOL}/{path.name} {sentence}"


def test_debs_with_claims_of_the_project_are_published(made: Path, tmp_path: Path) -> None:
    """What Ceph's debs do is allowed: they replace each other, and provide names of the project."""
    directory = Path(shutil.copytree(made, tmp_path / "upload"))
    more = "Source: ceph\nProvides: python3.11-rados, ceph-client (= 19)\nConflicts: libc6-old\nReplaces: ceph-client-tools\nPriority: extra\n"
    build_deb(directory / POOL, "ceph-mon", DEB_VERSION, more=more)
    write_manifest(directory, DEB_VERSION, [*DEB_NAMES, "ceph-mon"])
    assert make_metadata(directory)


def _rpm(directory: Path, tags: str, name: str = "python3-ceph-argparse") -> list[str]:
    """Build the small spec with these tags in its subpackage; return the names that are expected."""
    spec = SPEC.replace("Summary: Another package\n", f"Summary: Another package\n{tags}")
    build_rpm(directory, spec.replace("python3-ceph-argparse", name))
    return ["ceph", name]


@pytest.mark.parametrize(
    ("name", "tags", "sentence"),
    [
        ("bash", "", f"is the package 'bash', which project ceph may not publish: {SETTING}"),
        ("python3-ceph-argparse", "Provides: bash = 99\n", f"has 'bash' in its field Provides, which project ceph may not claim: {SETTING}"),
        ("python3-ceph-argparse", "Provides: /bin/sh\n", f"has '/bin/sh' in its field Provides, which project ceph may not claim: {SETTING}"),
        ("python3-ceph-argparse", "Obsoletes: glibc < 99\n", f"has 'glibc' in its field Obsoletes, which project ceph may not claim: {SETTING}"),
        ("python3-ceph-argparse", "Supplements: (bash or coreutils)\n", f"has '(bash or coreutils)' in its field Supplements, which project ceph may not claim: {SETTING}"),
        ("python3-ceph-argparse", "Supplements: bash\n", f"has 'bash' in its field Supplements, which project ceph may not claim: {SETTING}"),
    ],
)  # fmt: skip
def test_c5_an_rpm_that_stands_in_for_a_systems_is_refused(
    name: str, tags: str, sentence: str, tmp_path: Path
) -> None:
    """An rpm with a name that is not the project's, or by which dnf replaces a system's package, is refused."""
    expected = _rpm(tmp_path / "upload", tags, name)
    assert refusal(tmp_path / "upload", RPM_VERSION, expected) == (
        f"noarch/{name}-19.2.0-3.g73e2fc59.el9.noarch.rpm {sentence}"
    )


def test_rpms_with_claims_of_the_project_are_published(tmp_path: Path) -> None:
    """What Ceph's rpms do is allowed: they obsolete each other, and provide libraries and bundled sources."""
    tags = "Provides: python-ceph-argparse = 19\nObsoletes: ceph-libs < 19\nProvides: bundled(librdkafka) = 2\nProvides: libx.so.1()(64bit)\n"
    expected = _rpm(tmp_path / "upload", tags)
    write_manifest(tmp_path / "upload", RPM_VERSION, expected)
    assert make_metadata(tmp_path / "upload")


def test_c7_a_name_is_published_once(made: Path, tmp_path: Path) -> None:
    """Two debs of one name and two versions are refused: the index would leave the choice to each client."""
    directory = Path(shutil.copytree(made, tmp_path / "upload"))
    build_deb(directory / POOL, "ceph", "1-1", more=f"Source: ceph ({DEB_VERSION})\n")
    assert refusal(directory, DEB_VERSION, DEB_NAMES).endswith(" is a second package of the name 'ceph'")


def test_a_source_that_names_no_package_is_refused(made: Path, tmp_path: Path) -> None:
    """The field Binary of the .dsc says which names the sources have; without it nothing can be compared."""
    directory = Path(shutil.copytree(made, tmp_path / "upload"))
    [dsc] = (directory / POOL).glob("*.dsc")
    dsc.write_text(
        "".join(line for line in dsc.read_text().splitlines(True) if not line.startswith("Binary:"))
    )
    assert refusal(directory, DEB_VERSION, DEB_NAMES) == "the .dsc has no field Binary"
