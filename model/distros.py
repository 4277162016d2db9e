"""Distributions and architectures that packages can be built for, and which parts were never tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PkgType = Literal["deb", "rpm"]

_NAMES = {"centos": "CentOS Stream", "rocky": "Rocky Linux"}


@dataclass(frozen=True)
class Dist:
    """One release of one distribution, as the layout and its package manager spell it."""

    dist: str
    """The URL segment: a codename for debs, name and major version for rpms."""
    pkg_type: PkgType
    distro: str
    version: str
    dist_release: str = ""
    """The value of `%{dist}` without its dot, for rpms; empty for debs."""
    untested: str = ""
    """The part that was never run, in words; empty if the tests build packages on the distribution."""
    flavors_built: tuple[str, ...] = ()
    """Ceph's flavors that the tests build for it."""

    @property
    def title(self) -> str:
        """The release as people name it: `Debian 12 (bookworm)`, `CentOS Stream 9`."""
        distro = _NAMES.get(self.distro, self.distro.capitalize())
        codename = f" ({self.codename})" if self.codename else ""
        return f"{distro} {self.version}{codename}"

    @property
    def codename(self) -> str:
        """The archive's codename; empty where the distribution has none."""
        return self.dist if self.pkg_type == "deb" else ""


_STAND_IN = "never built on CentOS Stream 9 itself, only with Debian's rpmbuild and el9 macros"
_BOTH = ("default", "debug")

DISTS: dict[str, Dist] = {
    row.dist: row
    for row in (
        Dist("jammy", "deb", "ubuntu", "22.04", untested="never built on Ubuntu 22.04"),
        Dist("noble", "deb", "ubuntu", "24.04", untested="never built on Ubuntu 24.04"),
        Dist("resolute", "deb", "ubuntu", "26.04", untested="never built on Ubuntu 26.04"),
        Dist("bookworm", "deb", "debian", "12", flavors_built=_BOTH),
        Dist("trixie", "deb", "debian", "13", flavors_built=("default",)),
        Dist("centos9", "rpm", "centos", "9", "el9", untested=_STAND_IN, flavors_built=_BOTH),
        Dist("centos10", "rpm", "centos", "10", "el10", untested="never built on CentOS Stream 10"),
        Dist("rocky9", "rpm", "rocky", "9", "el9", untested="never built on Rocky Linux 9"),
        Dist("rocky10", "rpm", "rocky", "10", "el10", untested="never built on Rocky Linux 10"),
    )
}
"""Those of Ceph's own pipeline and Ubuntu 26.04; docs/adr/0011-the-recipe-as-data.md has the reasons."""

DEB_ARCHES: dict[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""Architecture as `uname -m` says it, and as dpkg does."""

UNTESTED_ARCHES: dict[str, str] = {"aarch64": "never built on aarch64"}
"""Architectures that no test builds for, with the words for it."""
