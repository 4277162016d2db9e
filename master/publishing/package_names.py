"""Names that a project's packages may have and claim, so that none of them can stand in for a system's own package.

apt and dnf prefer the newest version of a name, whichever repository it comes from. A commit that builds a
package `bash`, or one that obsoletes `bash`, would otherwise replace the shell of each system that uses its
repository. docs/adr/0021 says which fields count.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from model.recipes import CEPH

if TYPE_CHECKING:
    from collections.abc import Iterable

CEPH_PACKAGES = (
    "ceph", "ceph-*", "cephadm*", "cephfs-*", "crimson-*", "libceph*", "librados*", "librbd*", "librgw*",
    "libsqlite3-mod-ceph*", "python*-ceph*", "python*-rados*", "python*-rbd*", "python*-rgw*", "rados-*",
    "radosgw*", "rbd-*",
)  # fmt: skip
"""Names of the packages in Ceph's debian/control and ceph.spec.in, and those that they replace, since 2015."""


def default_packages(project: str) -> tuple[str, ...]:
    """Return the patterns of a project whose settings have none."""
    if project == CEPH:
        return CEPH_PACKAGES
    return (project, f"{project}-*", f"lib{project}*", f"python3-{project}*")


@dataclass(frozen=True)
class PackageNames:
    """The shell patterns of one project, as `projects.<name>.packages` has them."""

    project: str
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, project: str, patterns: tuple[str, ...] = ()) -> PackageNames:
        """Return the patterns of the settings, or those of the project's default if there are none."""
        return cls(project, patterns or default_packages(project))

    def has(self, name: str) -> bool:
        """Whether a package may have this name."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def check(self, path: str, name: str) -> None:
        """Raise ValueError unless the package in the file `path` may have this name."""
        if not self.has(name):
            raise ValueError(
                f"{path} is the package {name!r}, which project {self.project} may not publish:"
                f" if it is right, add the name to {self._setting}"
            )

    def check_claims(self, path: str, field: str, names: Iterable[str]) -> None:
        """Raise ValueError if a package's field, such as Provides, names a package of somebody else."""
        for name in names:
            if not self.has(name):
                raise ValueError(
                    f"{path} has {name[:80]!r} in its field {field}, which project {self.project} may not claim:"
                    f" if it is right, add the name to {self._setting}"
                )

    @property
    def _setting(self) -> str:
        return f"projects.{self.project}.packages"
