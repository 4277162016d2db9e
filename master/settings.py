"""Settings: one typed, frozen object, read from settings.yaml.

`python -m master.settings` checks the file and prints what is in force.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from master.project_settings import FlavorSettings, Project, ProjectName, ceph
from model import command_line
from model.git_names import GitUrlPolicy
from model.http_urls import http_url
from model.recipes import CEPH, Recipes
from model.targets import Target, recipe_lines, select
from workers.local_settings import Local
from workers.openstack_settings import OpenStackSettings

ENVIRONMENT_VARIABLE = "BUILDPACKAGES_SETTINGS"
"""Names a settings file other than settings.yaml beside master.cfg."""

_STRICT = ConfigDict(extra="forbid")


class SettingsError(ValueError):
    """All that is wrong with a settings file, one line each."""


def _patterns(patterns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if "projects" in info.data and "flavors" in info.data:  # else they are wrong, and their sentences say it
        select(patterns, _recipes(info.data["projects"], info.data["flavors"]))
    return patterns


def _recipes(projects: dict[str, Project], flavors: FlavorSettings) -> Recipes:
    plain = {name: asdict(project) for name, project in projects.items()}
    return Recipes.from_settings(
        plain,
        {flavor: {row: asdict(recipe) for row, recipe in rows.items()} for flavor, rows in flavors.items()},
    )


def _allowed(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    return GitUrlPolicy(allowed=prefixes).allowed


HttpUrl = Annotated[str, AfterValidator(http_url)]
Port = Annotated[int, Field(ge=1, le=65535)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Www:
    """The web UI and the REST API."""

    host: str = "127.0.0.1"
    port: Port = 8010
    url: HttpUrl = "http://127.0.0.1:8010/"
    proxies: tuple[IPv4Address | IPv6Address, ...] = ()
    """Addresses of proxies, whose header X-Real-IP is believed."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Packages:
    """The package server, and the directories it serves and takes uploads into."""

    host: str = "127.0.0.1"
    port: Port = 8011
    url: HttpUrl = "http://127.0.0.1:8011/"
    worker_url: HttpUrl | None = None
    directory: Path = Path("packages")
    staging: Path = Path("staging")
    wheels: Path = Path("wheels")
    upload_gib: Annotated[float, Field(gt=0, le=1024)] = 20
    reserve_gib: Annotated[float, Field(ge=0, le=100_000)] = 5
    total_gib: Annotated[float, Field(ge=0, le=10_000_000)] = 0
    signing_key_days: Annotated[int, Field(ge=1, le=3650)] = 730
    """Days after which a signing key that is made ends."""
    apt_trusted: bool | None = None
    """Whether shaman's text for apt says trusted=yes; None: if nobody can change packages on their way."""

    @property
    def internal_url(self) -> str:
        """Where build machines reach the package server, to upload and for wheels: its own port unless set."""
        return self.worker_url or f"http://{self.host}:{self.port}/"

    @property
    def trusts_unsigned(self) -> bool:
        """Whether apt is told not to check signatures: by default with https, or on this machine only."""
        if self.apt_trusted is not None:
            return self.apt_trusted
        parts = urlsplit(self.url)
        return parts.scheme == "https" or _is_loopback(parts.hostname or "")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Workers:
    """Where workers connect to, how often a build is tried, and the provider of machines."""

    host: str = "127.0.0.1"
    port: Port = 9989
    tls: Literal["auto", "on", "off"] = "auto"
    certificate: Path | None = None
    key: Path | None = None
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    start_timeout: Annotated[int, Field(ge=10)] = 1200
    local: Local = field(default_factory=Local)
    openstack: OpenStackSettings | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether workers connect with TLS: those on other machines do unless told otherwise."""
        return self.tls == "on" or (self.tls == "auto" and self.openstack is not None)

    @property
    def reached_at(self) -> str:
        """The host, as build machines reach it."""
        return (self.openstack.master_host if self.openstack else "") or self.host


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Git:
    """Which repositories may be asked for, and how long asking one may take."""

    allowed: Annotated[tuple[str, ...], AfterValidator(_allowed)]
    timeout: Annotated[float, Field(gt=0, le=300)] = 20


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Requests:
    """Limits of what may wait to be built."""

    per_user: Annotated[int, Field(ge=0)] = 100
    """Requests that one user may have on their way; 0 is no limit."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Build:
    """Limits of a build."""

    memory_per_job: Annotated[int, Field(ge=256, le=65536)] = 3072
    """MiB that one parallel compiler job is given."""
    silence: Annotated[int, Field(ge=60)] = 3600
    """Seconds without a line of output after which a step is stopped."""
    hours: Annotated[float, Field(gt=0, le=72)] = 12
    keep_logs: Annotated[int, Field(ge=0, le=36500)] = 90
    """Days after which the text of a build's logs is removed; 0 keeps it for ever."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Settings:
    """Everything an operator can set; every path is absolute once read."""

    git: Git
    projects: Annotated[dict[ProjectName, Project], Field(min_length=1)] = field(default_factory=ceph)
    flavors: FlavorSettings = field(default_factory=dict)
    """Flavors of the project ceph; other projects have theirs below `projects`."""
    targets: Annotated[tuple[str, ...], AfterValidator(_patterns), Field(min_length=1)]
    title: Annotated[str, Field(min_length=1, max_length=18)] = "Ceph packages"
    www: Www = field(default_factory=Www)
    packages: Packages = field(default_factory=Packages)
    workers: Workers = field(default_factory=Workers)
    requests: Requests = field(default_factory=Requests)
    build: Build = field(default_factory=Build)
    state: Path = Path("state")
    database: str = ""
    """SQLAlchemy URL; empty means SQLite inside `state`."""
    users: dict[UserName, Sha256] = field(default_factory=dict)
    """User name to the SHA-256 of a long random secret; `make user` makes one."""
    contributors_trusted: bool = False

    @property
    def selected_targets(self) -> tuple[Target, ...]:
        """The targets that are on, in the order of the matrix."""
        return select(self.targets, self.recipes)

    @property
    def recipes(self) -> Recipes:
        """The recipes of all flavors of all projects."""
        return _recipes(self.projects, self.flavors)

    @classmethod
    def from_file(cls, path: Path) -> Settings:
        """Read and check a file; SettingsError holds all its problems at once."""
        try:
            data = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise SettingsError(f"{path} is missing: copy settings.example.yaml there and edit it") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"{path} cannot be read: {error}") from None
        try:
            settings = TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            problems = [_sentence(problem) for problem in error.errors()]
        else:
            settings = _with_absolute_paths(settings, path.resolve().parent)
            problems = settings.contradictions()
            if not problems:
                return settings
        raise SettingsError("\n".join([f"{path}:", *(f"  {problem}" for problem in problems)]))

    def contradictions(self) -> list[str]:
        """Say, a sentence each, which settings don't go together."""
        problems = []
        for name, project in self.projects.items():
            try:
                GitUrlPolicy(self.git.allowed).check(project.git_url)
            except ValueError as error:
                problems.append(f"projects.{name}.git_url: {error}")
            if name == CEPH and project.flavors:
                problems.append(f"projects.{name}.flavors: Ceph's flavors are set by `flavors` at the top")
        if self.flavors and CEPH not in self.projects:
            problems.append("flavors: these are of the project ceph, which `projects` does not name")
        problems += self._doubly_set()
        if self.workers.openstack is not None:
            problems += self.workers.openstack.contradictions(self.selected_targets)
        else:
            problems += self.workers.local.contradictions()
        if self.workers.openstack is None and not self.contributors_trusted:
            for name, host in (
                ("www.host", self.www.host),
                ("packages.host", self.packages.host),
                ("workers.host", self.workers.host),
            ):
                if not _is_loopback(host):
                    problems.append(
                        f"{name}: {host!r} is not loopback: the `local` provider builds on this very"
                        " machine; set contributors_trusted: true only if you trust everyone who"
                        " may ask for a build"
                    )
        if (self.workers.certificate is None) != (self.workers.key is None):
            problems.append("workers.certificate, workers.key: set both, or none to have one made")
        if self.workers.tls == "on" and self.workers.openstack is None:
            problems.append("workers.tls: the `local` provider's workers connect over loopback, without TLS")
        tree, staging = self.packages.directory, self.packages.staging
        if staging == tree or tree in staging.parents or staging in tree.parents:
            problems.append("packages.staging: must lie beside packages.directory, not inside it")
        if not self.database.startswith("sqlite:"):
            # SQLAlchemy takes most of a second to import, and nearly everybody uses SQLite.
            from master.database_url import problem_of

            if problem := problem_of(self.database):
                problems.append(f"database: {problem}")
        ports = [self.www.port, self.packages.port, self.workers.port]
        if len(set(ports)) != len(ports):
            problems.append(f"www.port, packages.port, workers.port: {ports} must differ")
        return problems

    def _doubly_set(self) -> list[str]:
        """Return a sentence for each machine's variable that a recipe sets as well: the recipe would win unnoticed."""
        openstack = self.workers.openstack
        environments = (
            {"workers.local.environment": self.workers.local.environment}
            if openstack is None
            else {
                f"workers.openstack.clouds.{number}.environment": cloud.environment
                for number, cloud in enumerate(openstack.clouds)
            }
        )
        problems, recipes = [], self.recipes
        for where, environment in environments.items():
            for name in environment:
                targets = [
                    target.name
                    for target in self.selected_targets
                    if name in recipes.of(target).variables(target.pkg_type)
                ]
                if targets:
                    problems.append(
                        f"{where}: {name} is part of the recipe of {targets[0]}, which wins; set it in `flavors`"
                    )
        return problems


def default_path() -> Path:
    """Give the settings file in force: the environment's, else the one beside master.cfg."""
    beside = Path(__file__).resolve().parent.parent / "settings.yaml"
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or beside)


_MOVED = {
    "git.url": "is now projects.ceph.git_url",
    "git.canonical_url": "is now projects.ceph.canonical_url",
}
"""Keys of older settings files, with their new names."""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)
    where = ".".join(str(part) for part in problem["loc"]) or "the file"
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if where in _MOVED:
        return f"{where}: {_MOVED[where]}"
    if kind == "unexpected_keyword_argument":
        return f"{where}: unknown key"
    if kind in ("missing", "missing_argument"):
        return f"{where}: is missing"
    if kind == "dataclass_type":
        return f"{where}: must be a mapping of keys to values"
    return f"{where}: {message[0].lower()}{message[1:]} (it is {problem['input']!r})"


def _with_absolute_paths(settings: Settings, base: Path) -> Settings:
    """Give the same settings with relative paths taken from the settings file's directory."""
    local = replace(
        settings.workers.local,
        roots=base / settings.workers.local.roots,
        scratch=base / settings.workers.local.scratch,
    )
    state = base / settings.state
    openstack = settings.workers.openstack
    if openstack is not None and openstack.clouds_yaml is not None:
        openstack = replace(openstack, clouds_yaml=base / openstack.clouds_yaml)
    return replace(
        settings,
        workers=replace(
            settings.workers,
            local=local,
            openstack=openstack,
            certificate=settings.workers.certificate and base / settings.workers.certificate,
            key=settings.workers.key and base / settings.workers.key,
        ),
        packages=replace(
            settings.packages,
            directory=base / settings.packages.directory,
            staging=base / settings.packages.staging,
            wheels=base / settings.packages.wheels,
        ),
        state=state,
        database=settings.database or f"sqlite:///{state}/state.sqlite",
    )


def main() -> int:
    """Check the settings file; print the settings in force and, as comments, the recipe of each target that is on."""
    parser = argparse.ArgumentParser(prog="python -m master.settings", description=main.__doc__)
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=default_path(),
        help="default: $BUILDPACKAGES_SETTINGS, else settings.yaml beside master.cfg",
    )
    try:
        settings = Settings.from_file(parser.parse_args().file)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    dumped = TypeAdapter(Settings).dump_python(settings, mode="json")
    print(yaml.safe_dump(dumped, sort_keys=False), end="")
    for target in settings.selected_targets:
        head, *lines = recipe_lines(target, settings.recipes)
        print("", head, *(f"#   {line.removeprefix('# ')}" for line in lines), sep="\n")
    return 0


if __name__ == "__main__":
    command_line.run(main)
