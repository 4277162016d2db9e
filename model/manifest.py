"""The manifest: what an upload says that it holds, checked against what arrived."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~^_:-]*\Z")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~^:_-]{0,127}\Z")
_PATH_MAX = 500
_NAME_MAX = 255
"""Bytes of one name: what ext4, xfs and btrfs take. All characters of a path are ASCII."""


def check_path(path: str) -> str:
    """Give a file's path back if it is relative, plain and stays below; ValueError otherwise."""
    if len(path) > _PATH_MAX:
        raise ValueError(f"path has {len(path)} characters; at most {_PATH_MAX} are taken")
    longest = max(map(len, path.split("/")))
    if longest > _NAME_MAX:
        raise ValueError(f"path has a name of {longest} characters; at most {_NAME_MAX} are taken")
    if not all(_PART.match(part) for part in path.split("/")):
        raise ValueError(
            f"path {path!r} must be names of letters, digits and . + ~ ^ _ : -,"
            " each starting with a letter or digit, joined by /"
        )
    return path


@dataclass(frozen=True, order=True)
class File:
    """One file: path below the package_key's directory, bytes, and SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Version, expected packages and files of one upload."""

    version: str
    packages: tuple[str, ...]
    """Names of the binary packages that the sources say there must be."""
    files: tuple[File, ...]

    @classmethod
    def from_json(cls, text: bytes | str) -> Manifest:
        """Read a manifest; ValueError says what is wrong with it."""
        try:
            data: Any = json.loads(text)
            version, packages = data["version"], data["packages"]
            files = tuple(File(row["path"], row["size"], row["sha256"]) for row in data["files"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"the manifest cannot be read: {error!r}") from None
        if not isinstance(version, str) or not _VERSION.match(version):
            raise ValueError(f"the manifest's version {version!r} is not a version")
        if not isinstance(packages, list) or not all(
            isinstance(name, str) and _PART.match(name) for name in packages
        ):
            raise ValueError("the manifest's packages are not a list of package names")
        if not packages:
            raise ValueError("the manifest expects no package at all")
        for file in files:
            if not isinstance(file.path, str):
                raise ValueError(f"the manifest's path {file.path!r} is not a string")
            check_path(file.path)
            if type(file.size) is not int or file.size < 0:
                raise ValueError(f"the manifest's size of {file.path} is not a number of bytes")
            if not isinstance(file.sha256, str) or not _SHA256.match(file.sha256):
                raise ValueError(f"the manifest's sha256 of {file.path} is not 64 hex digits")
        if len({file.path for file in files}) != len(files):
            raise ValueError("the manifest lists a path twice")
        return cls(version, tuple(sorted(packages)), tuple(sorted(files)))
