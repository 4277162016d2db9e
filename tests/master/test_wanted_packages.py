"""What docs/operating.md and the pages have nodes write so that they take only the project's packages, with the real apt and dnf."""

from __future__ import annotations

import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from master.package_server.tree import PackageTree
from master.package_server.wanted_packages import apt_preferences, dnf_command
from master.publishing.package_names import PackageNames
from master.publishing.release_rpm import repo_text
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
from tests.published import Publications

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
    """The pin and the line for dnf are those for Ceph's default, which the pages show as well."""
    assert apt_preferences(PackageNames.of("ceph")) == PREFERENCES
    assert dnf_command(PackageNames.of("ceph")) == SED


@pytest.mark.parametrize("by", ["sha1/" + "a" * 40, "ref/wip/x"])
@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("ceph-deb-jammy-x86_64-default", PREFERENCES),
        ("ceph-rpm-centos9-x86_64-default", SED),
        ("tool-deb-jammy-x86_64-default", "Package: tool lib<tool>*\nPin: release l=Ceph on demand\nPin-Priority: 500\n"),
        ("other-rpm-centos9-x86_64-default", "includepkgs=other,other-*,libother*,python3-other*' /etc/yum.repos.d/other.repo\n"),
    ],
)  # fmt: skip
def test_c5_the_page_of_a_package_key_has_the_lines(target: str, shown: str, by: str, tmp_path: Path) -> None:
    """Whoever opens a published directory, by sha1 or by ref, reads the lines for its project's names."""
    Publications(tmp_path).publish(f"{target}/{'a' * 40}", "19.2.0", "wip/x")
    tree = PackageTree(str(tmp_path / "packages"), "T", patterns={"ceph": (), "tool": ("tool", "lib<tool>*")})
    names = [target, *by.split("/"), ""]
    page = tree.listing(names, tree.find(names)).body.decode()
    [text] = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert unescape(text).endswith(shown)
    assert "lib<tool>" not in page


@pytest.mark.parametrize(
    "names",
    [[""], ["ceph-deb-jammy-x86_64-default", ""], ["old-deb-hardy-x86_64-default", "sha1", "a" * 40, ""]],
)
def test_other_pages_have_no_lines(names: list[str], tmp_path: Path) -> None:
    """The pages above a published directory, and those of a target that is no more, show the table alone."""
    for target in ("ceph-deb-jammy-x86_64-default", "old-deb-hardy-x86_64-default"):
        (tmp_path / target / "sha1").mkdir(parents=True)
    published = Publications(tmp_path / "made").publish(f"ceph-deb-jammy-x86_64-default/{'a' * 40}", "19.2.0")
    published.rename(tmp_path / "old-deb-hardy-x86_64-default/sha1" / ("a" * 40))
    tree = PackageTree(str(tmp_path), "T")
    page = tree.listing(names, tree.find(names)).body.decode()
    assert "<pre>" not in page


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
