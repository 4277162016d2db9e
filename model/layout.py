"""The gitbuilder layout: where each thing of a package_key is, below the tree's root."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from model.package_key import PackageKey
    from model.targets import Target

KEY_FILE = "key.asc"
"""The public signing key, at the root of the tree."""

VERSION_FILE = "version"
"""Written last: where it is, the directory is whole."""

SHA1_FILE = "sha1"
MANIFEST_FILE = "manifest.json"
"""Every file with its size and SHA-256, and who built it."""


def sha1_path(key: PackageKey) -> str:
    """Directory of a package_key."""
    return f"{key.target.name}/sha1/{key.sha1}"


def ref_path(target: Target, ref: str) -> str:
    """Link of a ref, its slashes kept."""
    return f"{target.name}/ref/{ref}"


def ref_link(sha1: str, ref: str) -> str:
    """Return what the link of a ref holds: the way from it to the directory of the same target's sha1."""
    return "../" * (ref.count("/") + 1) + f"sha1/{sha1}"


def url(base: str, path: str) -> str:
    """URL of a path of the tree, with a slash at its end for a directory that the caller gave one."""
    return base.rstrip("/") + "/" + quote(path)


def pool(target: Target) -> str:
    """Directory, inside a package_key's directory, of debs and their sources."""
    return f"pool/main/{target.project[0]}/{target.project}"


def release_package(project: str) -> str:
    """Name of the package that installs our .repo file; no build may have a package of this name."""
    return f"{project}-release"


def release_rpm(target: Target) -> str:
    """Path, inside a package_key's directory, of the rpm that drops our .repo file."""
    name = release_package(target.project)
    return f"noarch/{name}-1-0.{target.distribution.dist_release}.noarch.rpm"


def repositories(target: Target) -> tuple[str, ...]:
    """Directories of a package_key that are yum repositories, each of packages of one kind."""
    return ("SRPMS", "noarch", target.arch)


def signed_files(target: Target) -> tuple[str, ...]:
    """Metadata files that the master signs, inside a package_key's directory."""
    if target.pkg_type == "deb":
        return (f"dists/{target.dist}/Release",)
    return tuple(f"{part}/repodata/repomd.xml" for part in repositories(target))
