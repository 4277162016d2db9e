"""The sections `projects` and `flavors` of the settings file."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from model.distros import DISTS
from model.git_names import check_url_form
from model.targets import check_flavor, check_project

_STRICT = ConfigDict(extra="forbid")
_PKG_TYPES = ("deb", "rpm")
_OURS = ("CEPH_EXTRA_CMAKE_ARGS", "DEB_BUILD_PROFILES", "DWZ")
"""Variables that have their own keys in a recipe."""


def _git_url(text: str) -> str:
    check_url_form(text, "it")
    return text


def _line(text: str) -> str:
    if not text.isprintable() or "${" in text:
        # buildbot-worker replaces ${NAME} in values by its own variables.
        raise ValueError("must be one line of printable characters, without ${")
    return text


def _word(text: str) -> str:
    if not text or " " in _line(text):
        raise ValueError("must be one word, not empty and without blanks")
    return text


def _option(text: str) -> str:
    if not _line(text):
        raise ValueError("must not be empty")
    return text


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be the name of an environment variable")
    if name in _OURS:
        raise ValueError("is set by the keys cmake, profiles and dwz")
    return name


def _row(name: str) -> str:
    if name not in _PKG_TYPES and name not in DISTS:
        raise ValueError(f"must be one of {', '.join((*_PKG_TYPES, *DISTS))}")
    return name


def _pattern(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9*?][A-Za-z0-9+._*?-]{0,99}", text):
        raise ValueError("must be the name of a package, or a pattern of such names with * or ?")
    return text


GitUrl = Annotated[str, AfterValidator(_git_url)]
_Line = Annotated[str, AfterValidator(_line)]
_Word = Annotated[str, AfterValidator(_word)]
_Option = Annotated[str, AfterValidator(_option)]
_Variable = Annotated[str, AfterValidator(_variable)]
_Pattern = Annotated[str, AfterValidator(_pattern)]
_Row = Annotated[str, AfterValidator(_row)]
ProjectName = Annotated[str, AfterValidator(check_project)]
FlavorName = Annotated[str, AfterValidator(check_flavor)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RecipeSettings:
    """The recipe of a flavor for a pkg_type or a dist; model/recipes.py says what each key does."""

    cmake: tuple[_Word, ...] = ()
    environment: dict[_Variable, _Line] = field(default_factory=dict)
    profiles: tuple[_Word, ...] = ()
    rpmbuild: tuple[_Option, ...] = ()
    dwz: bool | None = None


FlavorSettings = dict[FlavorName, dict[_Row, RecipeSettings]]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Project:
    """One project: where its commits and its versions come from."""

    git_url: GitUrl
    """The repository of requests that name no git_url."""
    canonical_url: GitUrl
    """The repository whose tags give a commit its version, whichever fork it comes from."""
    tags: Annotated[str, Field(pattern=r"^[A-Za-z0-9._]*\*?[A-Za-z0-9._]*$", min_length=1, max_length=40)] = (
        "v*"
    )
    """The tags that are versions: a git glob with at most one star, as in a refspec."""
    spec: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]*)?$", max_length=80)] = ""
    """Name of the spec file without `.spec`; empty: the tree has only one."""
    packages: tuple[_Pattern, ...] = ()
    """Patterns of the names that its packages may have and provide; empty: master.publishing.package_names has the default."""
    flavors: FlavorSettings = field(default_factory=dict)


def ceph() -> dict[str, Project]:
    """Return the projects of a settings file that names none."""
    url = "https://github.com/ceph/ceph.git"
    return {"ceph": Project(git_url=url, canonical_url=url, spec="ceph")}
