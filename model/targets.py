"""Targets: what one builder builds. `python -m model.targets` prints the matrix."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING

from model.distros import DEB_ARCHES, DISTS, FLAVORS, Dist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PROJECT = re.compile(r"[a-z][a-z0-9]{0,15}\Z")


@dataclass(frozen=True, order=True)
class Target:
    """One project on one dist, architecture and flavor: one builder, one directory of the layout."""

    project: str
    dist: str
    arch: str = "x86_64"
    flavor: str = "default"

    def __post_init__(self) -> None:
        """Refuse, with ValueError, whatever is not in the matrix."""
        if not _PROJECT.match(self.project):
            raise ValueError(f"project {self.project!r} must be 1 to 16 lower-case letters and digits")
        for value, known, what in (
            (self.dist, DISTS, "dist"),
            (self.arch, DEB_ARCHES, "arch"),
            (self.flavor, FLAVORS, "flavor"),
        ):
            if value not in known:
                raise ValueError(f"{what} {value!r} is not one of {', '.join(known)}")

    @classmethod
    def from_name(cls, name: str) -> Target:
        """Read a target's name back; ValueError where it is not one of the matrix."""
        parts = name.split("-")
        if len(parts) != 5:
            raise ValueError(
                f"{name!r} is not <project>-<pkg_type>-<dist>-<arch>-<flavor>,"
                " such as ceph-deb-jammy-x86_64-default"
            )
        project, pkg_type, dist, arch, flavor = parts
        target = cls(project, dist, arch, flavor)
        if target.pkg_type != pkg_type:
            raise ValueError(f"{dist} has {target.pkg_type} packages, not {pkg_type!r}")
        return target

    @property
    def distribution(self) -> Dist:
        """The row of the table of distributions."""
        return DISTS[self.dist]

    @property
    def pkg_type(self) -> str:
        """`deb` or `rpm`."""
        return self.distribution.pkg_type

    @property
    def deb_arch(self) -> str:
        """The architecture as dpkg spells it."""
        return DEB_ARCHES[self.arch]

    @property
    def name(self) -> str:
        """The builder's name and the layout's directory."""
        return f"{self.project}-{self.pkg_type}-{self.dist}-{self.arch}-{self.flavor}"

    def __str__(self) -> str:
        """Give the name."""
        return self.name


def matrix(projects: Sequence[str] = ("ceph",)) -> tuple[Target, ...]:
    """Every target there can be, in the order of the tables."""
    return tuple(
        Target(project, dist, arch, flavor)
        for project, dist, arch, flavor in product(projects, DISTS, DEB_ARCHES, FLAVORS)
    )


def select(patterns: Iterable[str], projects: Sequence[str] = ("ceph",)) -> tuple[Target, ...]:
    """Targets that match any of the shell patterns; ValueError names a pattern that matches none."""
    everything = matrix(projects)
    chosen: set[Target] = set()
    for pattern in patterns:
        found = {target for target in everything if fnmatchcase(target.name, pattern)}
        if not found:
            raise ValueError(f"{pattern!r} matches no target; the matrix: python -m model.targets")
        chosen |= found
    return tuple(target for target in everything if target in chosen)


def main() -> None:
    """Print the matrix; with patterns, as in the setting `targets`, say which they turn on."""
    parser = argparse.ArgumentParser(prog="python -m model.targets", description=main.__doc__)
    parser.add_argument("patterns", nargs="*", help="shell patterns, as in the setting `targets`")
    patterns = parser.parse_args().patterns
    try:
        chosen = set(select(patterns))
    except ValueError as error:
        parser.error(str(error))
    head = ("target", "distribution", "arch", "flavor", "on" if patterns else "")
    print("{:<36}{:<16}{:<10}{:<10}{}".format(*head).rstrip())
    for target in matrix():
        row = target.distribution
        print(
            f"{target.name:<36}{row.distro + ' ' + row.version:<16}{target.arch:<10}"
            f"{target.flavor:<10}{'on' if target in chosen else ''}".rstrip()
        )


if __name__ == "__main__":
    main()
