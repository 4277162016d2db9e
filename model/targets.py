"""Targets: what one builder builds. `python -m model.targets` prints the matrix, and `--recipe` one target's recipe."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING

from model import command_line
from model.distros import DEB_ARCHES, DISTS, UNTESTED_ARCHES, Dist
from model.recipes import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.recipes import Recipes

_PROJECT = re.compile(r"(?=.{1,16}\Z)(?!image(-|\Z))[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
"""Builders of images have names that begin with `image-`."""

_FLAVOR = re.compile(r"[a-z][a-z0-9]{0,11}\Z")


@dataclass(frozen=True, order=True)
class Target:
    """One project on one dist, architecture and flavor: one builder, one directory of the layout."""

    project: str
    dist: str
    arch: str = "x86_64"
    flavor: str = "default"

    def __post_init__(self) -> None:
        """Raise ValueError if this cannot be a target's name. Whether its flavor has a recipe is not checked."""
        check_project(self.project)
        for value, known, what in ((self.dist, DISTS, "dist"), (self.arch, DEB_ARCHES, "arch")):
            if value not in known:
                raise ValueError(f"{what} {value!r} is not one of {', '.join(known)}")
        check_flavor(self.flavor)

    @classmethod
    def from_name(cls, name: str) -> Target:
        """Return the target of a name; ValueError if no target can have it."""
        # From the right, because the name of a project may contain dashes.
        parts = name.rsplit("-", 4)
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

    @property
    def untested(self) -> str:
        """The part of this target that no test builds, in words; empty if the tests build it."""
        row = self.distribution
        parts = [row.untested, UNTESTED_ARCHES.get(self.arch, "")]
        if row.flavors_built and self.flavor not in row.flavors_built:
            parts.append(f"never built with flavor {self.flavor}")
        return "; ".join(part for part in parts if part)

    def __str__(self) -> str:
        """Return the name."""
        return self.name


def check_project(name: str) -> str:
    """Return a project's name; ValueError if no target may have it."""
    if not _PROJECT.match(name):
        raise ValueError(
            f"project {name!r} must be 1 to 16 lower-case letters and digits, with single dashes between,"
            " and not begin with image"
        )
    return name


def check_flavor(name: str) -> str:
    """Return a flavor's name; ValueError if no target may have it."""
    if not _FLAVOR.match(name):
        raise ValueError(f"flavor {name!r} must be 1 to 12 lower-case letters and digits")
    return name


def matrix(recipes: Recipes = BUILT_IN) -> tuple[Target, ...]:
    """Return every target that has a recipe, in the order of the tables."""
    return tuple(
        target
        for project, flavors in recipes.projects.items()
        for dist, arch, flavor in product(DISTS, DEB_ARCHES, flavors)
        if recipes.has(target := Target(project, dist, arch, flavor))
    )


def select(patterns: Iterable[str], recipes: Recipes = BUILT_IN) -> tuple[Target, ...]:
    """Return the targets that match any of the shell patterns; ValueError names a pattern that matches none."""
    everything = matrix(recipes)
    chosen: set[Target] = set()
    for pattern in patterns:
        found = {target for target in everything if fnmatchcase(target.name, pattern)}
        if not found:
            raise ValueError(f"{pattern!r} matches no target{_reason(pattern, recipes)}")
        chosen |= found
    return tuple(target for target in everything if target in chosen)


def _reason(pattern: str, recipes: Recipes) -> str:
    """Return why a name is no target's. For a pattern, or a name of another form, that is only a hint at the matrix."""
    try:
        target = Target.from_name(pattern)
        if target.project not in recipes.projects:
            return f": project {target.project!r} is not one of {', '.join(recipes.projects)}"
        recipes.of(target)
    except ValueError as error:
        if not re.search(r"[*?\[]", pattern) and pattern.count("-") >= 4:
            return f": {error}"
    return "; the matrix: python -m model.targets"


def main() -> None:
    """Print the matrix; with patterns, as in the setting `targets`, say which they turn on."""
    parser = argparse.ArgumentParser(prog="python -m model.targets", description=main.__doc__)
    parser.add_argument("patterns", nargs="*", help="shell patterns, as in the setting `targets`")
    parser.add_argument(
        "--recipe",
        metavar="TARGET",
        help="print what the builds of a target are given instead; flavors and projects of the settings are"
        " printed by python -m master.settings",
    )
    arguments = parser.parse_args()
    try:
        if arguments.recipe is not None:
            target = Target.from_name(arguments.recipe)
            print(*recipe_lines(target, BUILT_IN), sep="\n")
            return
        chosen = select(arguments.patterns)
    except ValueError as error:
        parser.error(str(error))
    line = "{:<36}{:<16}{:<10}{:<10}{:<4}{}"
    on = "on" if arguments.patterns else ""
    print(line.format("target", "distribution", "arch", "flavor", on, "untested").rstrip())
    for target in matrix():
        row = target.distribution
        mark = "on" if target in chosen else ""
        system = f"{row.distro} {row.version}"
        print(line.format(target.name, system, target.arch, target.flavor, mark, target.untested).rstrip())


def recipe_lines(target: Target, recipes: Recipes) -> list[str]:
    """Return a target's recipe as lines that a shell can read; ValueError if it has none."""
    lines = recipes.of(target).lines(target.pkg_type)
    return [f"# {target}: what the steps dependencies, tarball and packages get", *lines]


if __name__ == "__main__":
    command_line.run(main)
