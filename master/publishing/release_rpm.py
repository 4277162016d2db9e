"""The rpm `<project>-release`, which tells dnf and yum where the packages of one commit are."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from master.publishing.confined import give
from model import layout

if TYPE_CHECKING:
    from master.publishing.confined import Confined
    from model.targets import Target

_EPOCH = "946684800"
"""1 January 2000, UTC: the rpm of a package_key has the same bytes whenever it is made."""

_SPEC = """\
Name: {name}
Version: 1
Release: 0.{dist_release}
Summary: Repository of {project} packages built on demand
License: LGPL-2.1-only
BuildArch: noarch
%description
Points dnf and yum at packages that were built on demand for one commit.
%install
install -D -m 644 %{{_sourcedir}}/{project}.repo %{{buildroot}}/etc/yum.repos.d/{project}.repo
%files
%config /etc/yum.repos.d/{project}.repo
"""

_MACROS = {
    "_sourcedir": "%{_topdir}",
    "_tmppath": "%{_topdir}",
    "_buildhost": "localhost",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    # Every rpm reads gzip. Newer rpmbuilds write zstd by default, which EL8 does not read.
    "_binary_payload": "w9.gzdio",
}


def repo_text(target: Target, base_url: str, key_url: str) -> str:
    """Return the `.repo` file for the directory at `base_url`, signed by the key at `key_url`."""
    title = target.project.capitalize()
    sections = {title: "$basearch", f"{title}-noarch": "noarch", f"{target.project}-source": "SRPMS"}
    # teuthology puts priority=1 between enabled=1 and gpgcheck. Without skip_if_unavailable=0, a system
    # whose dnf.conf turns it on installs another ceph, with status 0, once this repository is purged.
    return "".join(
        f"[{section}]\nname={section} packages on demand\nbaseurl={base_url}/{directory}\nenabled=1\n"
        f"gpgcheck=1\nrepo_gpgcheck=1\ngpgkey={key_url}\nskip_if_unavailable=0\ntype=rpm-md\n\n"
        for section, directory in sections.items()
    )


async def build(confined: Confined, target: Target, text: str) -> bytes:
    """Return the rpm that installs `text` as the `.repo` file of the target's project."""
    # Not in staging: rpmbuild needs absolute paths, and nobody may search staging.
    directory = await confined.in_thread(_prepare, target, text)
    try:
        macros = {"_topdir": str(directory), **_MACROS}
        defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
        command = ["rpmbuild", "-bb", *defines, str(directory / "release.spec")]
        await confined.run(directory, command, SOURCE_DATE_EPOCH=_EPOCH)
        path = layout.release_rpm(target)
        try:
            return await confined.in_thread((directory / "RPMS" / path).read_bytes)
        except FileNotFoundError:
            raise ValueError(f"rpmbuild ended well, but made no {path}") from None
    finally:
        await confined.in_thread(shutil.rmtree, directory)


def _prepare(target: Target, text: str) -> Path:
    directory = Path(mkdtemp(prefix="release-rpm-"))
    (directory / f"{target.project}.repo").write_text(text)
    spec = _SPEC.format(
        name=layout.release_package(target.project),
        project=target.project,
        dist_release=target.distribution.dist_release,
    )
    (directory / "release.spec").write_text(spec)
    for path in (directory, *directory.iterdir()):
        give(path)
    return directory
