"""Small real uploads of debs and rpms, made by the real tools, and their metadata, made by the master's own code."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from master.publishing.confined import Confined
from master.publishing.package_names import PackageNames
from master.publishing.repository_metadata import RepositoryMetadata
from master.publishing.signing import SigningKey
from master.publishing.verification import check_upload
from model import layout
from model.manifest import File
from model.package_key import PackageKey
from tests.reactor import finish

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "steps" / "scripts"

DEB_KEY = "ceph-deb-jammy-x86_64-default/73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
DEB_VERSION = "19.2.0-3-g73e2fc59-1"
DEB_NAMES = ["ceph", "ceph-common", "python3-ceph-argparse"]

DEBS_NAMED = (*DEB_NAMES, "ceph-mgr", "ceph-mon", "ceph-odd", "ceph-release", "libceph2", "bash")
"""The packages of debian/control; most tests build those of DEB_NAMES only."""

RPM_KEY = "ceph-rpm-centos9-x86_64-default/73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
RPM_VERSION = "19.2.0-3.g73e2fc59"
RPM_NAMES = ["ceph", "python3-ceph-argparse"]

PACKAGES_URL = "http://127.0.0.1:8011/"
BASE_URL = PACKAGES_URL + RPM_KEY.replace("/", "/sha1/")
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


def build_deb(
    directory: Path, name: str, version: str, arch: str = "amd64", more: str = "Source: ceph\n"
) -> Path:
    """Make a real deb with one file in it; `more` are lines of its control file."""
    root = directory / f"{name}.root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/share" / name).mkdir(parents=True)
    (root / "usr/share" / name / "content").write_text(name * 1000)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n{more}"
        "Maintainer: Packages on demand <packages@localhost>\nDescription: a package\n"
    )
    path = directory / f"{name}_{version.rpartition(':')[2]}_{arch}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, path], check=True, capture_output=True)
    subprocess.run(["rm", "-r", root], check=True)
    return path


def build_source(directory: Path, version: str = DEB_VERSION) -> None:
    """Make a real source package: the .dsc, the tarball and the debian directory, which it lists."""
    root = directory / "ceph.root"
    (root / "debian/source").mkdir(parents=True)
    (root / "debian/source/format").write_text("3.0 (quilt)\n")
    (root / "debian/changelog").write_text(CHANGELOG.format(version=version))
    (root / "debian/control").write_text(
        "Source: ceph\nMaintainer: Packages on demand <packages@localhost>\n"
        + "".join(f"\nPackage: {name}\nArchitecture: any\nDescription: a package\n" for name in DEBS_NAMED)
    )
    upstream = directory / f"ceph_{version.rpartition('-')[0]}.orig.tar.gz"
    subprocess.run(["tar", "-czf", upstream, "-C", directory, "--exclude=debian", "ceph.root"], check=True)
    subprocess.run(["dpkg-source", "-b", "ceph.root"], cwd=directory, check=True, capture_output=True)
    subprocess.run(["rm", "-r", root], check=True)


def build_rpm(directory: Path, spec: str, *options: str) -> list[Path]:
    """Make the source rpm and the rpms of a spec, below SRPMS, noarch and x86_64 of a directory; return them."""
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        (top / "SOURCES").mkdir()
        (top / "ceph.spec").write_text(spec)
        (top / "SOURCES/ceph-19.2.0-3-g73e2fc59.tar.gz").write_bytes(b"")
        subprocess.run(
            ["rpmbuild", "-ba", "-D", f"_topdir {top}", "--target", "x86_64", *options, top / "ceph.spec"],
            check=True, capture_output=True,
        )  # fmt: skip
        made = []
        for path in sorted(top.rglob("*.rpm")):
            (directory / path.parent.name).mkdir(parents=True, exist_ok=True)
            made.append(Path(shutil.move(path, directory / path.parent.name / path.name)))
        return made


def deb_upload(directory: Path) -> Path:
    """Make what is uploaded of a build of debs: packages, a source package and the manifest."""
    pool = directory / "upload/pool/main/c/ceph"
    pool.mkdir(parents=True)
    for name in DEB_NAMES:
        build_deb(pool, name, DEB_VERSION, "all" if name.startswith("python3") else "amd64")
    build_source(pool)
    write_manifest(directory / "upload", DEB_VERSION, DEB_NAMES)
    return directory / "upload"


def rpm_upload(directory: Path) -> Path:
    """Make what is uploaded of a build of rpms: packages, a source rpm and the manifest."""
    build_rpm(directory / "upload", SPEC)
    write_manifest(directory / "upload", RPM_VERSION, RPM_NAMES)
    return directory / "upload"


def sign_metadata(directory: Path, home: Path | None = None) -> None:
    """Sign the metadata of an upload with the keys of a home, or with the key that has signed its rpms."""
    used = home or signing_home()

    async def sign(reactor: Any) -> None:
        for path in layout.signed_files(key_of(directory).target):
            await SigningKey(reactor, used).sign(directory / path)

    finish(sign)


@cache
def signing_home() -> Path:
    """Make a signing key once for a process, in a directory whose path is short enough for gpg's sockets."""
    directory = Path(tempfile.mkdtemp(prefix="key-", dir="/tmp"))
    home = directory / "gnupg"

    async def make(reactor: Any) -> None:
        key = SigningKey(reactor, home)
        await key.prepare()
        (directory / "key.asc").write_bytes(await key.public_key())

    def remove() -> None:
        finish(lambda reactor: SigningKey(reactor, home).stop())
        shutil.rmtree(directory, ignore_errors=True)

    finish(make)
    atexit.register(remove)
    return home


def key_of(directory: Path) -> PackageKey:
    """Return the package_key that an upload of this module is for."""
    return PackageKey.from_string(DEB_KEY if (directory / "pool").exists() else RPM_KEY)


def make_metadata(directory: Path, home: Path | None = None, names: PackageNames | None = None) -> list[File]:
    """Check an upload, sign its rpms and make its metadata as the publisher does; return the files made."""

    used = home or signing_home()  # its reactor must have ended before another begins

    async def make(reactor: Any) -> list[File]:
        key, received = key_of(directory), files_of(directory)
        manifest = check_upload(key, directory, received)
        metadata = RepositoryMetadata(
            Confined(reactor), PACKAGES_URL, names or PackageNames.of("ceph"), SigningKey(reactor, used)
        )
        return await metadata.make(key, directory, manifest, received)

    made: list[File] = finish(make)
    return made


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
