"""Small real repositories of debs and rpms, made by the real tools and by the scripts of the steps."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from model.manifest import File

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "steps" / "scripts"

DEB_KEY = "ceph-deb-jammy-x86_64-default/73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
DEB_VERSION = "19.2.0-3-g73e2fc59-1"
DEB_NAMES = ["ceph", "ceph-common", "python3-ceph-argparse"]

RPM_KEY = "ceph-rpm-centos9-x86_64-default/73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
RPM_VERSION = "19.2.0-3.g73e2fc59"
RPM_NAMES = ["ceph", "python3-ceph-argparse"]

BASE_URL = "http://127.0.0.1:8011/" + RPM_KEY.replace("/", "/sha1/")
KEY_URL = "http://127.0.0.1:8011/key.asc"

SPEC = """\
Name: ceph
Version: 19.2.0
Release: 3.g73e2fc59.el9
Summary: A package
License: LGPL-2.1-only
Source0: ceph-19.2.0-3-g73e2fc59.tar.gz
%define debug_package %{nil}
%description
A package.
%package -n python3-ceph-argparse
Summary: Another package
BuildArch: noarch
%description -n python3-ceph-argparse
Another package.
%install
mkdir -p %{buildroot}/usr/share/ceph
echo 1 >%{buildroot}/usr/share/ceph/main
echo 2 >%{buildroot}/usr/share/ceph/argparse
%files
/usr/share/ceph/main
%files -n python3-ceph-argparse
/usr/share/ceph/argparse
"""

CHANGELOG = """\
ceph ({version}) jammy; urgency=medium

  * Built on demand.

 -- Packages on demand <packages@localhost>  Tue, 14 Nov 2023 22:13:20 +0000
"""


def run_script(
    directory: Path, name: str, *arguments: str, path: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of the steps in a directory as a worker does; `path` goes before PATH."""
    return subprocess.run(
        ["bash", str(SCRIPTS / f"{name}.sh"), *arguments],
        cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"], **environment},
    )  # fmt: skip


def build_deb(directory: Path, name: str, version: str, arch: str = "amd64") -> Path:
    """Make a real deb with one file in it."""
    root = directory / f"{name}.root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/share" / name).mkdir(parents=True)
    (root / "usr/share" / name / "content").write_text(name * 1000)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
        "Maintainer: Packages on demand <packages@localhost>\nDescription: a package\n"
    )
    path = directory / f"{name}_{version}_{arch}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, path], check=True, capture_output=True)
    subprocess.run(["rm", "-r", root], check=True)
    return path


def prepare_debs(directory: Path) -> None:
    """Leave in a directory what the step that builds debs leaves."""
    (directory / "out/deb").mkdir(parents=True)
    (directory / "src/debian").mkdir(parents=True)
    (directory / "src/debian/changelog").write_text(CHANGELOG.format(version=DEB_VERSION))
    for name in DEB_NAMES:
        build_deb(directory / "out/deb", name, DEB_VERSION, "all" if name.startswith("python3") else "amd64")


def prepare_rpms(directory: Path) -> None:
    """Leave in a directory what the step that builds rpms leaves."""
    top = directory / "out/rpmbuild"
    for name in ("SOURCES", "SPECS"):
        (top / name).mkdir(parents=True)
    (top / "SPECS/ceph.spec").write_text(SPEC)
    (top / "SOURCES/ceph-19.2.0-3-g73e2fc59.tar.gz").write_bytes(b"")
    subprocess.run(
        ["rpmbuild", "-ba", "-D", f"_topdir {top}", "--target", "x86_64", top / "SPECS/ceph.spec"],
        check=True, capture_output=True,
    )  # fmt: skip


def deb_repository(directory: Path) -> Path:
    """Make an apt repository with its manifest, as it is uploaded."""
    prepare_debs(directory)
    finished = run_script(directory, "repository-deb", "jammy", "amd64")
    assert finished.returncode == 0, finished.stderr
    write_manifest(directory / "out/repo", DEB_VERSION, DEB_NAMES)
    return directory / "out/repo"


def rpm_repository(directory: Path) -> Path:
    """Make yum repositories with their manifest, as they are uploaded."""
    prepare_rpms(directory)
    finished = run_script(directory, "repository-rpm", "ceph", "el9", "x86_64", BASE_URL, KEY_URL)
    assert finished.returncode == 0, finished.stderr
    write_manifest(directory / "out/repo", RPM_VERSION, RPM_NAMES)
    return directory / "out/repo"


def files_of(directory: Path) -> dict[str, File]:
    """Give every file below a directory with the size and SHA-256 that the package server would have seen."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            data, name = path.read_bytes(), str(path.relative_to(directory))
            found[name] = File(name, len(data), hashlib.sha256(data).hexdigest())
    return found


def write_manifest(directory: Path, version: str, packages: list[str]) -> None:
    """Write the manifest of all that is in a directory now."""
    (directory / "manifest.json").unlink(missing_ok=True)
    rows = [
        {"path": file.path, "size": file.size, "sha256": file.sha256} for file in files_of(directory).values()
    ]
    (directory / "manifest.json").write_text(
        json.dumps({"version": version, "packages": packages, "files": rows})
    )
