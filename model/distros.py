"""Distributions and architectures that packages can be built for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PkgType = Literal["deb", "rpm"]


@dataclass(frozen=True)
class Dist:
    """One release of one distribution, as the layout and its package manager spell it."""

    dist: str
    """The URL segment: a codename for debs, name and major version for rpms."""
    pkg_type: PkgType
    distro: str
    version: str
    dist_release: str = ""
    """What `%{dist}` gives without its dot, for rpms; empty for debs."""

    @property
    def title(self) -> str:
        """The release as people name it: `Debian 12 (bookworm)`, `CentOS 9`."""
        distro = {"centos": "CentOS"}.get(self.distro, self.distro.capitalize())
        codename = f" ({self.codename})" if self.codename else ""
        return f"{distro} {self.version}{codename}"

    @property
    def codename(self) -> str:
        """The archive's codename; empty where the distribution has none."""
        return self.dist if self.pkg_type == "deb" else ""


DISTS: dict[str, Dist] = {
    row.dist: row
    for row in (
        Dist("focal", "deb", "ubuntu", "20.04"),
        Dist("jammy", "deb", "ubuntu", "22.04"),
        Dist("noble", "deb", "ubuntu", "24.04"),
        Dist("bookworm", "deb", "debian", "12"),
        Dist("trixie", "deb", "debian", "13"),
        Dist("centos9", "rpm", "centos", "9", "el9"),
        Dist("centos10", "rpm", "centos", "10", "el10"),
        Dist("rocky9", "rpm", "rocky", "9", "el9"),
        Dist("rocky10", "rpm", "rocky", "10", "el10"),
    )
}

DEB_ARCHES: dict[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""Architecture as `uname -m` says it, and as dpkg does."""

FLAVORS: tuple[str, ...] = ("default", "debug")
"""Ceph's build flavors; a flavor is a segment of the URL."""
