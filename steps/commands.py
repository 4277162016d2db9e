"""Command lines of the steps, as values: pure, so they are tested without a worker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from model import layout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.package_key import PackageKey
    from model.targets import Target

Command = list[str]

_DESCRIBED = re.compile(
    r"(?P<tag>[0-9]+(?:\.[0-9A-Za-z~+]+)*)(?:-(?P<commits>[0-9]+)-g(?P<abbrev>[0-9a-f]{8,40}))?\Z"
)


def script(name: str, *arguments: str) -> Command:
    """One of our scripts, as it lies on the worker."""
    return ["bash", f"scripts/{name}.sh", *arguments]


def checkout(git_url: str, sha1: str, canonical_url: str, tags: str) -> Command:
    """Put `src/` at exactly this commit, with the canonical tags that the pattern `tags` matches."""
    return script("checkout", git_url, sha1, canonical_url, tags)


def version(canonical_url: str, tags: str) -> Command:
    """Print the version that `git describe` gives by the tags that the pattern `tags` matches."""
    return script("version", canonical_url, tags)


def dependencies(target: Target, macros: Iterable[str]) -> Command:
    """Install what the build needs; the macros, each `NAME BODY`, decide which BuildRequires of a spec count."""
    return script("dependencies", target.pkg_type, *macros)


def tarball(target: Target, described: str) -> Command:
    """Make the source tarball."""
    return script("tarball", target.project, described)


def debs(target: Target, tarball: str, described: str, jobs: int) -> Command:
    """Build the debs."""
    return script("packages-deb", tarball, described, target.dist, str(jobs))


def rpms(tarball: str, described: str, spec: str, jobs: int, options: Iterable[str]) -> Command:
    """Build the rpms of a spec, or of the only one if none is named; rpmbuild and rpmspec get the options."""
    return script("packages-rpm", tarball, rpm_version(described), spec, str(jobs), *options)


def upload(key: PackageKey, upload_url: str, published_version: str, names: list[str]) -> Command:
    """Upload packages and sources; the token comes in the environment, as UPLOAD_TOKEN."""
    if key.target.pkg_type == "deb":
        places = [f"out/deb={layout.pool(key.target)}"]
    else:
        places = ["out/rpmbuild/SRPMS=SRPMS", "out/rpmbuild/RPMS=."]
    return [
        "python3", "scripts/upload.py", upload_url, str(key), *places,
        "--version", published_version, "--packages", ",".join(names),
    ]  # fmt: skip


def rpm_version(described: str) -> str:
    """Give VERSION-RELEASE as make-dist writes it into the spec: `19.2.0-3.gabcdef12`."""
    match = _DESCRIBED.match(described)
    if match is None:
        raise ValueError(f"{described!r} is not what git describe gives")
    if match["commits"] is None:
        return f"{match['tag']}-0"
    return f"{match['tag']}-{match['commits']}.g{match['abbrev']}"


def published_version(target: Target, described: str) -> str:
    """Give what the `version` file says: dpkg's exact version, or a part of rpm's VERSION-RELEASE."""
    return f"{described}-1{target.dist}" if target.pkg_type == "deb" else rpm_version(described)


def parallel_jobs(cores: int, memory: int, memory_per_job: int) -> int:
    """How many compiler jobs a machine bears; memory in MiB."""
    return max(1, min(cores, memory // memory_per_job))
