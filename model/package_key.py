"""The package_key: a target and a sha1, which name one published directory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.targets import Target

_SHA1 = re.compile(r"[0-9a-f]{40}\Z")


def check_sha1(text: str) -> str:
    """Give `text` back if it is a commit's full name; ValueError says what is wrong with it."""
    if _SHA1.match(text):
        return text
    if _SHA1.match(text.lower()):
        raise ValueError(f"sha1 {text!r} must be lower case")
    if re.match(r"[0-9a-f]+\Z", text):
        raise ValueError(f"sha1 {text[:64]!r} has {len(text)} hex digits; a full one has 40")
    raise ValueError(f"sha1 {text[:64]!r} must be 40 lower-case hex digits")


@dataclass(frozen=True, order=True)
class PackageKey:
    """Names one directory of packages, one builder request at a time, and one answer."""

    target: Target
    sha1: str

    def __post_init__(self) -> None:
        """Refuse, with ValueError, a sha1 that is not whole."""
        check_sha1(self.sha1)

    @classmethod
    def from_string(cls, text: str) -> PackageKey:
        """Read `<target>/<sha1>` back; ValueError where it is neither."""
        name, _, sha1 = text.partition("/")
        return cls(Target.from_name(name), sha1)

    def __str__(self) -> str:
        """Give `<target>/<sha1>`, at most 91 characters."""
        return f"{self.target.name}/{self.sha1}"
