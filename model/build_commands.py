"""The commands that a build calls before it installs its build dependencies, and the packages that contain them.

Ceph's make-dist, install-deps.sh, make-debs.sh and make-srpm.sh call them, and so do the scripts in `steps/scripts`.
Prepared roots, the user data of build machines and the step `machine` all read this one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.distros import PkgType

Family = Literal["apt", "dnf", "zypper"]


@dataclass(frozen=True)
class Command:
    """One command, or `python3:MODULE`, and its package for apt, dnf and zypper.

    If a package is empty, that family does not need the command.
    """

    name: str
    apt: str
    dnf: str
    zypper: str

    def package(self, family: Family) -> str:
        """Return the package of one family, or an empty string."""
        return {"apt": self.apt, "dnf": self.dnf, "zypper": self.zypper}[family]


COMMON = (
    Command("bzip2", "bzip2", "bzip2", "bzip2"),
    Command("cmake", "cmake", "cmake", "cmake"),
    # EL's images have curl-minimal, which conflicts with `curl`; both have the file.
    Command("curl", "curl", "/usr/bin/curl", "curl"),
    Command("g++", "build-essential", "gcc-c++", "gcc-c++"),
    Command("git", "git", "git-core", "git-core"),
    Command("gpg", "gpg", "gnupg2", "gpg2"),
    Command("gzip", "gzip", "gzip", "gzip"),
    Command("make", "build-essential", "make", "make"),
    Command("patch", "patch", "patch", "patch"),
    Command("ps", "procps", "procps-ng", "procps"),
    Command("python3", "python3", "python3", "python3"),
    # make-dist makes a venv. Debian's python3 has the module venv, but not the pip to put into it.
    Command("python3:ensurepip", "python3-venv", "python3", "python3"),
    Command("python3:pip", "python3-pip", "python3-pip", "python3-pip"),
    Command("sudo", "sudo", "sudo", "sudo"),
    Command("tar", "tar", "tar", "tar"),
    Command("wget", "wget", "wget", "wget"),
    Command("xz", "xz-utils", "xz", "xz"),
)
FOR_DEBS = (
    Command("dch", "devscripts", "", ""),
    Command("dh", "debhelper", "", ""),
    Command("dh_python3", "dh-python", "", ""),
    Command("dpkg-buildpackage", "build-essential", "", ""),
    Command("equivs-build", "equivs", "", ""),
    Command("fakeroot", "fakeroot", "", ""),
    Command("lsb_release", "lsb-release", "", ""),
    Command("mk-build-deps", "devscripts", "", ""),
    Command("pkg-config", "pkg-config", "", ""),
)
FOR_RPMS = (
    Command("cpio", "cpio", "cpio", "cpio"),
    Command("debugedit", "debugedit", "debugedit", "debugedit"),
    Command("dnf", "dnf", "dnf", ""),
    Command("dwz", "dwz", "dwz", "dwz"),
    Command("eu-strip", "elfutils", "elfutils", "elfutils"),
    # The python3 of openSUSE Leap 15 is 3.6, which buildbot-worker does not run on.
    Command("python3.11", "", "", "python311"),
    Command("rpmbuild", "rpm", "rpm-build", "rpm-build"),
    Command("rpmspec", "rpm", "rpm-build", "rpm-build"),
)

WITHOUT_COMMAND: Mapping[tuple[Family, PkgType], tuple[str, ...]] = {
    ("apt", "deb"): ("ca-certificates", "libdistro-info-perl", "python3-all", "python3-setuptools"),
    # Ceph's install-deps.sh reads /etc/os-release, so it treats a stand-in for an rpm distribution as Debian.
    ("apt", "rpm"): ("ca-certificates",),
    # dnf-plugins-core has `dnf builddep`.
    ("dnf", "rpm"): ("ca-certificates", "dnf-plugins-core", "redhat-rpm-config", "util-linux", "which"),
    ("zypper", "rpm"): ("ca-certificates", "util-linux", "which"),
}
"""Packages that builds need, and that contain no command to check for."""


def commands(pkg_type: PkgType) -> tuple[Command, ...]:
    """Return the commands that a build of this type of packages calls."""
    return COMMON + (FOR_DEBS if pkg_type == "deb" else FOR_RPMS)


def needs(family: Family, pkg_type: PkgType) -> tuple[str, ...]:
    """Return the names of the commands that a machine of one family must have."""
    return tuple(command.name for command in commands(pkg_type) if command.package(family))


def packages(family: Family, pkg_type: PkgType) -> tuple[str, ...]:
    """Return the packages that contain the commands, sorted, each once. KeyError if the family builds no such packages."""
    found = {command.package(family) for command in commands(pkg_type)} - {""}
    return tuple(sorted(found.union(WITHOUT_COMMAND[family, pkg_type])))


def table(pkg_type: PkgType) -> str:
    """Return one line for each command, which the step `machine` reads: its name, then apt's, dnf's and zypper's package or `-`."""
    rows = ((row.name, row.apt, row.dnf, row.zypper) for row in commands(pkg_type))
    return "".join(" ".join(word or "-" for word in row) + "\n" for row in rows)
