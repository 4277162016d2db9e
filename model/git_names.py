"""What a request may say of git: refs, and the URLs that may be fetched from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_REF_MAX = 200
_URL_MAX = 500
_REF_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|[^\x00-\x7f]")
_URL_GOOD = re.compile(r"[A-Za-z0-9:/._~+-]+\Z")
_SCHEMES = ("https", "http", "git")


def check_ref(text: str) -> str:
    """Return a branch's or tag's short name; ValueError if git or this project refuses it."""
    _check_form(text)
    if text.startswith("refs/"):
        raise ValueError(f"ref {text!r} must be the short name, without refs/heads/ or refs/tags/")
    return text


def check_full_ref(text: str) -> str:
    """Return the full name of a ref that is neither a branch nor a tag, such as `refs/pull/12/head`; else ValueError."""
    _check_form(text)
    if not text.startswith("refs/"):
        raise ValueError(f"ref {text!r} must begin with refs/")
    return text


def _check_form(text: str) -> None:
    """Raise ValueError if a text cannot be a ref's name.

    The rules are those of git-check-ref-format(1); besides, a ref is ASCII, at most 200
    characters, and never looks like an option.
    """
    if not text:
        raise ValueError("ref is empty")
    if len(text) > _REF_MAX:
        raise ValueError(f"ref has {len(text)} characters; at most {_REF_MAX} are taken")
    bad = _REF_BAD.search(text)
    if bad:
        raise ValueError(f"ref {text!r} may not contain {bad.group()!r}")
    if text.startswith(("-", "/")) or text.endswith(("/", ".")) or text == "@":
        raise ValueError(f"ref {text!r} may not start with - or /, nor end with / or .")
    if any(part.startswith(".") or part.endswith(".lock") for part in text.split("/")):
        raise ValueError(f"ref {text!r} has a part that starts with . or ends with .lock")


FULL_NAMES = {"refs/heads/": "branch", "refs/tags/": "tag"}
"""What git puts before a name that can be no other's, and what has such names."""


OTHER = "ref"
"""The kind of a ref that is neither a branch nor a tag; it has a full name only."""


def split_ref(text: str) -> tuple[str, str]:
    """Return the kind and the unchecked name: `branch`, `tag`, `ref` (OTHER), or an empty string for a short name."""
    for prefix, kind in FULL_NAMES.items():
        if text.startswith(prefix) and text != prefix:
            return kind, text.removeprefix(prefix)
    return OTHER if text.startswith("refs/") else "", text


@dataclass(frozen=True)
class GitUrlPolicy:
    """Which git URLs a request may name: those below one of the allowed prefixes."""

    allowed: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse, with ValueError, a prefix that would allow more than it seems to."""
        for prefix in self.allowed:
            if not prefix.endswith("/"):
                raise ValueError(f"allowed git URL {prefix!r} must end with /")
            check_url_form(prefix, "allowed git URL")

    def check(self, text: str) -> str:
        """Give `text` back if it may be fetched from; ValueError says why not."""
        check_url_form(text, "git_url")
        if not text.startswith(self.allowed):
            raise ValueError(f"git_url {text!r} is not below an allowed URL: {', '.join(self.allowed)}")
        return text


def check_url_form(text: str, what: str) -> None:
    """Refuse, with ValueError, what no git URL of ours may look like."""
    if not text:
        raise ValueError(f"{what} is empty")
    if len(text) > _URL_MAX:
        raise ValueError(f"{what} has {len(text)} characters; at most {_URL_MAX} are taken")
    if text.startswith("-"):
        raise ValueError(f"{what} {text!r} may not start with -")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{what} {text!r} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None or "@" in text:
        raise ValueError(f"{what} may not carry credentials; packages are readable by anyone")
    if parts.scheme not in _SCHEMES or "::" in text:
        raise ValueError(f"{what} {text!r} must begin with one of {', '.join(s + '://' for s in _SCHEMES)}")
    if not _URL_GOOD.match(text):
        raise ValueError(f"{what} {text!r} may hold letters, digits and : / . _ ~ + - only")
    if not host or host.startswith("-"):
        raise ValueError(f"{what} {text!r} names no host")
    if port == 0:
        raise ValueError(f"{what} {text!r} names no port that can be connected to")
    if any(part in (".", "..") or part.startswith("-") for part in parts.path.split("/")):
        raise ValueError(f"{what} {text!r} has a path with ., .. or a part that starts with -")
