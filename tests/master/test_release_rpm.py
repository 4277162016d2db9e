"""The rpm that tells dnf where the packages are: its bytes, its text, and what the real dnf does with it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from master.publishing.confined import Confined
from master.publishing.release_rpm import build, repo_text
from model.targets import Target
from tests.package_clients import dnf, served
from tests.package_repositories import (
    BASE_URL,
    KEY_URL,
    make_metadata,
    rpm_upload,
    sign_metadata,
    signing_home,
)
from tests.reactor import finish

CENTOS = Target("ceph", "centos9")
TEXT = f"""\
[Ceph]
name=Ceph packages on demand
baseurl={BASE_URL}/$basearch
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=http://127.0.0.1:8011/key.asc
skip_if_unavailable=0
type=rpm-md

[Ceph-noarch]
name=Ceph-noarch packages on demand
baseurl={BASE_URL}/noarch
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=http://127.0.0.1:8011/key.asc
skip_if_unavailable=0
type=rpm-md

[ceph-source]
name=ceph-source packages on demand
baseurl={BASE_URL}/SRPMS
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=http://127.0.0.1:8011/key.asc
skip_if_unavailable=0
type=rpm-md

"""


def rpm(target: Target, text: str) -> bytes:
    """Build the rpm of a text."""
    data: bytes = finish(lambda reactor: build(Confined(reactor), target, text))
    return data


def test_the_rpm_installs_the_text_that_teuthology_edits(tmp_path: Path) -> None:
    """The `.repo` file has our host in it, `enabled=1` and `gpgcheck` side by side, and nothing else is installed."""
    assert repo_text(CENTOS, BASE_URL, KEY_URL) == TEXT
    path = tmp_path / "release.rpm"
    path.write_bytes(rpm(CENTOS, TEXT))
    query = ["rpm", "-qp", "--nosignature", "--qf", "%{NVRA} %{BUILDHOST}\n[%{FILENAMES}\n]", path]
    asked = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    assert asked == "ceph-release-1-0.el9.noarch localhost\n/etc/yum.repos.d/ceph.repo\n"
    archive = subprocess.run(
        ["rpm2archive", "-n", "-"], stdin=path.open("rb"), check=True, capture_output=True
    )
    command = ["tar", "-xO", "./etc/yum.repos.d/ceph.repo"]
    assert (
        subprocess.run(command, input=archive.stdout, check=True, capture_output=True).stdout == TEXT.encode()
    )


def test_a_rebuild_has_the_same_bytes() -> None:
    """Made again in another second, for the same place, the rpm is the same to the byte."""
    before = rpm(CENTOS, TEXT)
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.05)
    assert rpm(CENTOS, TEXT) == before
    assert rpm(CENTOS, TEXT.replace("8011", "8012")) != before


def test_a_project_has_names_of_its_own() -> None:
    """Two projects on one node have neither a `.repo` file nor a section in common."""
    text = repo_text(Target("tcmu", "rocky10"), "http://h/x", "http://h/key.asc")
    assert [line for line in text.splitlines() if line.startswith("[")] == [
        "[Tcmu]",
        "[Tcmu-noarch]",
        "[tcmu-source]",
    ]


@pytest.mark.parametrize("purged", [False, True], ids=["there", "purged"])
def test_dnf_fails_once_the_repository_is_purged(purged: bool, tmp_path: Path) -> None:
    """Where dnf.conf says skip_if_unavailable, dnf still fails without our repository, and installs no other ceph."""
    make_metadata(rpm_upload(tmp_path / "ours"))
    sign_metadata(tmp_path / "ours/upload")
    make_metadata(rpm_upload(tmp_path / "other"))
    shutil.copy(signing_home().with_name("key.asc"), tmp_path)
    with served(tmp_path) as url:
        text = repo_text(CENTOS, f"{url}/{'gone' if purged else 'ours/upload'}", f"{url}/key.asc")
        other = f"[other]\nname=other\nbaseurl={url}/other/upload/x86_64\ngpgcheck=0\n"
        files = {
            "/etc/dnf/dnf.conf": "[main]\nskip_if_unavailable=True\n",
            "/tmp/repos/ceph.repo": text,
            "/tmp/repos/other.repo": other,
        }
        ran = dnf(
            "-y", "--installroot=/installed", "--releasever=9", "--forcearch=x86_64", "--setopt=reposdir=/tmp/repos",
            "--config=/etc/dnf/dnf.conf", "--downloadonly", "install", "ceph", files=files,
        )  # fmt: skip
    said = ran.stdout + ran.stderr
    assert (ran.returncode == 0) is not purged, said
    assert ("Failed to download metadata for repo 'Ceph'" in said) is purged, said
