"""Recipes: the variables and options that each flavor of a project sets for the build scripts, as data.

`python -m model.targets --recipe TARGET` prints one. Ceph's recipes are those of its own pipeline,
ceph-build's ceph-dev-pipeline. Where that pipeline sets nothing, they set nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

CEPH = "ceph"

_DEFINES = re.compile(r"(?:--(?P<kind>with|without)|--define|-D)(?:=|$)|-D")
"""An option that defines a macro. What it defines follows in the same word, or is the next one."""


class HasRecipe(Protocol):
    """The part of a target by which its recipe is found; model/targets.py imports this module."""

    @property
    def project(self) -> str:
        """The name of its project."""

    @property
    def flavor(self) -> str:
        """The name of its flavor."""

    @property
    def dist(self) -> str:
        """The name of its distribution in URLs."""

    @property
    def pkg_type(self) -> str:
        """`deb` or `rpm`."""


@dataclass(frozen=True)
class Recipe:
    """The variables and options of one flavor for the steps `dependencies`, `tarball` and `packages`."""

    cmake: tuple[str, ...] = ()
    """Arguments of cmake, which Ceph's debian/rules and ceph.spec take from CEPH_EXTRA_CMAKE_ARGS."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Other variables."""
    profiles: tuple[str, ...] = ()
    """Debian build profiles, such as pkg.ceph.crimson; for debs only."""
    rpmbuild: tuple[str, ...] = ()
    """Options of rpmbuild, and of rpmspec, which must see the same packages; for rpms only."""
    dwz: bool | None = None
    """Whether dwz compresses the debug information; None leaves it to the commit."""

    def variables(self, pkg_type: str) -> dict[str, str]:
        """Return the environment variables for one kind of package."""
        variables = dict(self.environment)
        if self.cmake:
            variables["CEPH_EXTRA_CMAKE_ARGS"] = " ".join(self.cmake)
        if pkg_type == "deb" and self.profiles:
            variables["DEB_BUILD_PROFILES"] = " ".join(self.profiles)
        if pkg_type == "deb" and self.dwz is not None:
            variables["DWZ"] = str(self.dwz).lower()
        return dict(sorted(variables.items()))

    def options(self, pkg_type: str) -> tuple[str, ...]:
        """Return the options of rpmbuild and rpmspec; none for debs."""
        if pkg_type == "deb":
            return ()
        dwz = () if self.dwz is None else ("--with=dwz" if self.dwz else "--without=dwz",)
        return (*self.rpmbuild, *dwz)

    def macros(self, pkg_type: str) -> tuple[str, ...]:
        """Return the macros that the options of rpmbuild define, as `NAME BODY`: dnf has no other option for them."""
        found = []
        words = iter(self.options(pkg_type))
        for word in words:
            match = _DEFINES.match(word)
            if match is None:
                continue
            value = word[match.end() :] or next(words, "")
            kind = match["kind"]
            found.append(f"_{kind}_{value} --{kind}-{value}" if kind else value)
        return tuple(found)

    def record(self, pkg_type: str) -> dict[str, Any]:
        """Return the recipe for manifest.json: `environment` and `rpmbuild`."""
        return {"environment": self.variables(pkg_type), "rpmbuild": list(self.options(pkg_type))}

    def lines(self, pkg_type: str) -> list[str]:
        """Return the recipe as lines that a shell can read."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables(pkg_type).items()]
        options = self.options(pkg_type)
        if options:
            lines.append(f"# rpmbuild and rpmspec get: {shlex.join(options)}")
        return lines or ["# nothing is given: the commit's own defaults"]


Flavors = Mapping[str, Mapping[str, Recipe]]
"""Recipes by flavor, then by pkg_type or dist; a dist's recipe replaces that of its pkg_type."""

_OWN_BOOST = ("-DALLOCATOR=tcmalloc", "-DWITH_SYSTEM_BOOST=OFF", "-DWITH_BOOST_VALGRIND=ON")
_DEFAULT_DEB = Recipe(cmake=_OWN_BOOST, dwz=False)
_DEBUG = Recipe(cmake=("-DCMAKE_BUILD_TYPE=Debug",), dwz=False)
_NO_BOOST_PKGS = {"NO_BOOST_PKGS": "1"}
"""install-deps.sh fetches Boost packages from shaman on jammy, and the build takes the tarball's Boost anyway."""

CEPH_FLAVORS: Flavors = {
    "default": {
        "deb": _DEFAULT_DEB,
        "jammy": replace(_DEFAULT_DEB, environment=_NO_BOOST_PKGS),
        "rpm": Recipe(cmake=_OWN_BOOST, rpmbuild=("--with=tcmalloc",), dwz=False),
    },
    "debug": {
        "deb": _DEBUG,
        "jammy": replace(_DEBUG, environment=_NO_BOOST_PKGS),
        "rpm": _DEBUG,
    },
}
"""From ceph-dev-pipeline/build/Jenkinsfile, as of 2026-08-20."""

PLAIN_FLAVORS: Flavors = {"default": {"deb": Recipe(), "rpm": Recipe()}}
"""Flavors of every other project. Such projects read none of Ceph's variables, so `debug` would equal `default`."""


@dataclass(frozen=True)
class Recipes:
    """The flavors of each project that can be built."""

    projects: Mapping[str, Flavors]

    @classmethod
    def from_settings(cls, projects: Mapping[str, Any], flavors: Mapping[str, Any]) -> Recipes:
        """Read the settings `projects` and `flavors`, as plain data.

        A flavor of the settings replaces the built-in one as a whole; an empty one removes it.
        """
        made: dict[str, Flavors] = {}
        for name, project in projects.items():
            own = CEPH_FLAVORS if name == CEPH else PLAIN_FLAVORS
            given = {**(flavors if name == CEPH else {}), **(project.get("flavors") or {})}
            read = {**own, **{flavor: _read(rows) for flavor, rows in given.items()}}
            made[name] = {flavor: rows for flavor, rows in read.items() if rows}
        return cls(made)

    def flavors(self, project: str) -> Flavors:
        """Return the flavors of a project; an unknown project has the plain ones."""
        return self.projects.get(project, CEPH_FLAVORS if project == CEPH else PLAIN_FLAVORS)

    def of(self, target: HasRecipe) -> Recipe:
        """Return a target's recipe; ValueError if its flavor has none for it."""
        flavors = self.flavors(target.project)
        rows = flavors.get(target.flavor)
        if not rows:
            raise ValueError(
                f"flavor {target.flavor!r} of {target.project} has no recipe; there are {', '.join(flavors)}"
            )
        recipe = rows.get(target.dist) or rows.get(target.pkg_type)
        if recipe is None:
            raise ValueError(
                f"flavor {target.flavor!r} of {target.project} has no recipe for {target.dist},"
                f" only for {', '.join(rows)}"
            )
        return recipe

    def has(self, target: HasRecipe) -> bool:
        """Return whether a target can be built."""
        try:
            self.of(target)
        except ValueError:
            return False
        return True


BUILT_IN = Recipes({CEPH: CEPH_FLAVORS})
"""The recipes if the settings name neither projects nor flavors."""


def _read(rows: Mapping[str, Any]) -> dict[str, Recipe]:
    return {
        key: Recipe(
            cmake=tuple(row["cmake"]),
            environment=dict(row["environment"]),
            profiles=tuple(row["profiles"]),
            rpmbuild=tuple(row["rpmbuild"]),
            dwz=row["dwz"],
        )
        for key, row in rows.items()
    }
