"""What docs/operating.md has nodes write so that they take only the project's packages, with the real apt and dnf."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from master.package_names import CEPH_PACKAGES, PackageNames
from master.release_rpm import repo_text
from model.targets import Target
from tests.package_clients import Apt, dnf, served
from tests.package_repositories import (
    DEB_NAMES,
    DEB_VERSION,
    ROOT,
    RPM_VERSION,
    SPEC,
    build_deb,
    build_rpm,
    deb_upload,
    make_metadata,
    write_manifest,
)

_SECTION = (
    (ROOT / "docs/operating.md").read_text().partition("## Test nodes take only the project's packages\n")[2]
)
PREFERENCES, SED = re.findall(r"^```\n(.*?)^```$", _SECTION, re.MULTILINE | re.DOTALL)[:2]
EVERYTHING = PackageNames("ceph", ("*",))

STATUS = """\
Package: bash
Status: install ok installed
Version: 5.2.15-2+b7
Architecture: amd64
Maintainer: a <a@example.invalid>
Description: x
"""


def test_the_documentation_has_the_names_of_the_default() -> None:
    """The pin and the line for dnf name each pattern of Ceph's default."""
    assert f"\nPackage: {' '.join(CEPH_PACKAGES)}\n" in PREFERENCES
    assert f"includepkgs={','.join(CEPH_PACKAGES)}'" in SED


@pytest.mark.parametrize("pinned", [True, False])
def test_c5_a_pinned_apt_keeps_its_bash(pinned: bool, tmp_path: Path) -> None:
    """With the pin, apt upgrades no bash of ours and installs ceph; without it, bash is upgraded."""
    upload = deb_upload(tmp_path)
    build_deb(upload / "pool/main/c/ceph", "bash", "99:1", more=f"Source: ceph ({DEB_VERSION})\n")
    write_manifest(upload, DEB_VERSION, DEB_NAMES)
    make_metadata(upload, names=EVERYTHING)
    with served(upload) as url:
        apt = Apt(
            tmp_path / "apt", f"[trusted=yes] {url} jammy main",
            preferences=PREFERENCES if pinned else "", status=STATUS,
        )  # fmt: skip
        upgraded = apt.run("apt-get", "-s", "upgrade")
        installed = apt.run("apt-get", "-s", "install", *DEB_NAMES)
    assert ("Inst bash " in upgraded) is not pinned
    assert all(f"Inst {name} ({DEB_VERSION} " in installed for name in DEB_NAMES)


@pytest.mark.parametrize("included", [True, False])
def test_c5_a_dnf_that_includes_names_sees_no_others(included: bool, tmp_path: Path) -> None:
    """With the line, dnf knows ceph of our repository and no bash; without it, it knows both."""
    build_rpm(tmp_path / "upload", SPEC.replace("python3-ceph-argparse", "bash"))
    write_manifest(tmp_path / "upload", RPM_VERSION, ["ceph", "bash"])
    make_metadata(tmp_path / "upload", names=EVERYTHING)
    with served(tmp_path) as url:
        text = repo_text(Target("ceph", "centos9"), f"{url}/upload", f"{url}/key.asc")
        text = text.replace("repo_gpgcheck=1", "repo_gpgcheck=0")
        (tmp_path / "ceph.repo").write_text(text)
        if included:
            command = SED.strip().replace("/etc/yum.repos.d/ceph.repo", str(tmp_path / "ceph.repo"))
            subprocess.run(["bash", "-c", command], check=True)
        ran = dnf(
            "-q", "--setopt=reposdir=/tmp/repos", "--forcearch=x86_64", "repoquery", "--qf", "%{name}",
            files={"/tmp/repos/ceph.repo": (tmp_path / "ceph.repo").read_text()},
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == {"ceph", "ceph-release", *(() if included else ("bash",))}
