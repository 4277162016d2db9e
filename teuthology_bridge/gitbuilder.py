"""Names and URLs of packages, from teuthology's own class for them: no other module asks it.

It is asked the way install asks it, with a machine that has the job's distribution, so that "already
published?" can't look anywhere else than install will. teuthology is imported when it is needed only.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from teuthology_bridge.errors import WrongJob, WrongSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teuthology_bridge.wants import Want

_SOME_SHA1 = "0" * 40
_SOME_HOST = "http://packages.invalid/"


@dataclass(eq=False)
class _Machine:
    """What the class reads of a machine under test."""

    arch: str
    os: Any
    system_type: str


@dataclass
class _Cluster:
    remotes: dict[_Machine, list[str]]


@dataclass
class _Context:
    cluster: _Cluster


def default_versions() -> dict[str, str]:
    """Give teuthology's version of each distribution for jobs that name none."""
    return dict(_teuthology("teuthology.orchestra.opsys").DEFAULT_OS_VERSION)


def target_of(want: Want) -> str:
    """Give the layout's directory, which is the builder's name: `ceph-deb-jammy-x86_64-default`."""
    path = urlsplit(url_of(want, _SOME_HOST, _SOME_SHA1)).path
    return path.removeprefix("/").split("/", 1)[0]


def url_of(want: Want, packages_url: str, sha1: str = "") -> str:
    """Give where install looks for the commit's packages or, without a sha1, for what the job names."""
    machine = _machine(want)
    kind, value = ("sha1", sha1) if sha1 else (want.kind, want.value)
    project = _teuthology("teuthology.packaging").GitbuilderProject(
        want.project,
        {"flavor": want.flavor, kind: value},
        ctx=_Context(_Cluster({machine: []})),
        remote=machine,
    )
    with _pointed_at(packages_url):
        return str(project.base_url)


def point_teuthology_at(packages_url: str) -> None:
    """Have whatever runs in this process from now on look for packages on our server, and in its layout."""
    config = _config()
    for name, value in _settings(packages_url).items():
        setattr(config, name, value)


@contextmanager
def _pointed_at(packages_url: str) -> Iterator[None]:
    """Have it so for a moment; nothing within does I/O, so that no other greenlet sees it."""
    config = _config()
    settings = _settings(packages_url)
    before = {name: config[name] for name in settings if name in config}
    point_teuthology_at(packages_url)
    try:
        yield
    finally:
        for name in settings:
            if name in before:
                setattr(config, name, before[name])
            else:
                delattr(config, name)


def _settings(packages_url: str) -> dict[str, Any]:
    scheme, _, host = packages_url.partition("://")
    # The layout is ours, which is teuthology's default: a site's own template is for its own server.
    template: str = type(_config())._defaults["baseurl_template"]  # noqa: SLF001 - the only place it is in
    return {
        "gitbuilder_host": host.rstrip("/"),
        "baseurl_template": f"{scheme}://{template.partition('://')[2]}",
        "package_source": "gitbuilder",  # since 2026
        "use_shaman": False,  # until then
    }


def _machine(want: Want) -> _Machine:
    """Give a machine as teuthology finds it when it has been installed with the job's distribution."""
    opsys = _teuthology("teuthology.orchestra.opsys")
    distro, version = want.os_type, want.os_version
    codename = None
    try:
        version, codename = opsys.OS.version_codename(distro, version)
    except KeyError:
        known = opsys.DISTRO_CODENAME_MAP.get(distro)
        if known is None:
            raise WrongJob(
                f"os_type {distro!r} is unknown to teuthology; it knows"
                f" {', '.join(sorted(opsys.DISTRO_CODENAME_MAP))}"
            ) from None
        if distro in opsys.OS._deb_distros:  # noqa: SLF001 - has no other name
            raise WrongJob(
                f"os_version {version} of {distro} is unknown to teuthology{_lost_zero(version, known)};"
                f" it knows {', '.join(known)}"
            ) from None
        # Of the others only the version matters, and a machine may well have one that is not in the table.
    system = opsys.OS(name=distro, version=version, codename=codename)
    return _Machine(want.arch, system, system.package_type)


def _lost_zero(version: str, known: dict[str, str]) -> str:
    """Say what may have happened to 22.10, which YAML reads as the number 22.1."""
    return f", but {version}0 is: put it into quotes" if f"{version}0" in known else ""


def _config() -> Any:
    return _teuthology("teuthology.config").config


def _teuthology(name: str) -> Any:
    # By name, and late: the import patches the whole process for gevent.
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise WrongSettings(
            f"teuthology can't be imported ({error}): run this with the Python of the virtual environment"
            " that teuthology is in"
        ) from error
