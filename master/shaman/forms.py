"""shaman's forms: how it is asked, and the rows and texts that it answers with; nothing here looks at the tree."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote

from master.publishing.release_rpm import repo_text
from master.publishing.uploads import RefusedError
from master.web.answers import Answer
from model.package_key import PackageKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from master.shaman.index import Published
    from model.targets import Target

LATEST = "latest"
READY = "ready"

_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_PARAMETERS = ("project", "distros", "ref", "sha1", "flavor", "status")
_MOST_PARAMETERS = 20

_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Words that questions use for ours; an answer says it as `uname -m` does, as teuthology compares."""

_TEXT = "text/plain; charset=utf-8"
_RPM_VERSION = re.compile(r"(.+)-(\d+)\.g([0-9a-f]+)\Z")


@dataclass(frozen=True)
class BuildState:
    """How far the newest build of a package_key is: times in seconds since the epoch."""

    package_key: str
    status: Literal["queued", "started", "completed", "failed"]
    url: str
    """The page of the build, or of the request as long as there is no build."""
    started: float | None
    completed: float | None
    modified: float
    unverified: bool | None = None
    """Whether no ref of the project's own repository is known to have been at the commit; None before it is published."""


@dataclass(frozen=True)
class Distro:
    """One distribution that was asked for; what is empty means all of them."""

    name: str = ""
    release: str = ""
    """A version or a codename."""
    arch: str = ""

    def has(self, target: Target) -> bool:
        """Whether a target builds for it."""
        distribution = target.distribution
        return (
            self.name in ("", distribution.distro)
            and self.release in ("", distribution.version, distribution.codename)
            and (self.arch in ("", target.arch) or (self.arch == "noarch" and target.pkg_type == "rpm"))
        )


# Questions


def split(uri: bytes) -> tuple[list[str], str]:
    """Give a request's names, without an empty one at the end, and its query."""
    path, _, query = uri.partition(b"?")
    names = [unquote(name) for name in path.decode("latin-1").removesuffix("/").split("/")[1:]]
    return names, query.decode("latin-1")


def is_sha1(name: str) -> bool:
    """Whether a name is a commit's full one."""
    return _SHA1.match(name) is not None


def place_of_sha1(names: Sequence[str]) -> int | None:
    """Find the sha1 (or `latest`) behind a ref, which may have slashes of its own; None if there is none."""
    places = range(1, len(names))
    sha1s = [place for place in places if is_sha1(names[place])]
    latest = [place for place in places if names[place] == LATEST]
    return sha1s[0] if sha1s else latest[-1] if latest else None


def parameters(query: str) -> dict[str, str]:
    """Read the query of a search; RefusedError says what of it cannot be taken."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise _bad(f"A search has at most {_MOST_PARAMETERS} parameters.") from None
    for name, _ in pairs:
        if name not in _PARAMETERS:
            raise _bad(f"{name[:50]!r} is not a parameter of a search; there are {', '.join(_PARAMETERS)}.")
    asked = dict(pairs)
    if len(asked) < len(pairs):
        raise _bad("Each parameter of a search may be there once.")
    return asked


def distros(asked: Mapping[str, str]) -> list[Distro]:
    """Read `distros`, each one once; none if they are not asked for, RefusedError if one says no release."""
    found = []
    for part in asked["distros"].split(",") if "distros" in asked else ():
        words = [word.strip() for word in part.split("/")]
        if not 2 <= len(words) <= 3 or not words[0] or not words[1]:
            raise _bad(f"Invalid version or codename for distro: {part[:50]}")
        found.append(Distro(words[0], words[1], arch_named("".join(words[2:]))))
    return list(dict.fromkeys(found))


def arch_of(query: str) -> str:
    """Give the architecture that a query for `repo` names; nothing if it names none."""
    return arch_named(dict(parse_qsl(query)).get("arch", ""))


def arch_named(word: str) -> str:
    """Give our word for an architecture."""
    return _ARCHES.get(word, word)


# Answers


def described(target: Target, version: str) -> str:
    """Return what `git describe` said, without its `v`, of the version that packages have."""
    if target.pkg_type == "deb":
        # Debs of an older master have no codename.
        return version.removesuffix(target.dist).removesuffix("-1")
    match = _RPM_VERSION.match(version)
    return f"{match[1]}-{match[2]}-g{match[3]}" if match else version.removesuffix("-0")


def repository_row(one: Published, ref: str, url: str) -> dict[str, Any]:
    """Give what shaman says of a repository; `url` is that of its directory."""
    target, distribution = one.key.target, one.key.target.distribution
    rpm = target.pkg_type == "rpm"
    return {
        "status": READY,
        "sha1": one.key.sha1,
        "url": url,
        "chacra_url": url,
        "ref": ref,
        "distro": distribution.distro,
        "distro_version": distribution.version,
        "distro_codename": distribution.codename or None,
        "flavor": target.flavor,
        "project": target.project,
        "archs": [target.arch, *(("noarch", "source") if rpm else ())],
        "modified": _time(one.modified),
        "extra": {
            "version": described(target, one.version),
            "package_manager_version": one.version,
            "build_url": one.build_url,
            "root_build_cause": "MANUALTRIGGER",
            "node_name": "",
            "job_name": target.name,
            "reachable_from": one.reachable_from or None,
            "unverified": not one.reachable_from,
        },
    }


def build_row(state: BuildState, ref: str) -> dict[str, Any]:
    """Give what shaman says of a build."""
    key = PackageKey.from_string(state.package_key)
    distribution = key.target.distribution
    unverified = {} if state.unverified is None else {"unverified": state.unverified}
    return {
        "url": state.url,
        "log_url": state.url,
        "ref": ref,
        "sha1": key.sha1,
        "flavor": key.target.flavor,
        "status": state.status,
        "extra": {"job_name": key.target.name, **unverified},
        "modified": _time(state.modified),
        "started": None if state.started is None else _time(state.started),
        "completed": None if state.completed is None else _time(state.completed),
        "project": key.target.project,
        "distro": distribution.distro,
        "distro_version": distribution.version,
        "distro_codename": distribution.codename or None,
        "distro_arch": key.target.arch,
    }


def repository_text(target: Target, url: str, key_url: str, *, trusted: bool) -> Answer:
    """Return the text for apt or yum of a repository at `url`, whose signing key is at `key_url`.

    If `trusted`, apt does not check the signature, so that nodes without the key can install.
    """
    if target.pkg_type == "deb":
        # A line of apt's cannot name the URL of a key.
        line = f"deb {'[trusted=yes] ' if trusted else ''}{url} {target.dist} main\n"
        needs = f"# This node must have the key {key_url} in /etc/apt/trusted.gpg.d, as a file that ends in .asc.\n"
        text = line if trusted else needs + line
    else:
        text = repo_text(target, url.removesuffix("/"), key_url)
    return _answer(HTTPStatus.OK, _TEXT, text)


def json_answer(data: Any) -> Answer:
    """Give data as JSON."""
    return _answer(HTTPStatus.OK, "application/json", json.dumps(data) + "\n")


def redirect(url: str) -> Answer:
    """Send elsewhere for this once: `latest` leads to another place tomorrow."""
    headers = {"Content-Type": _TEXT, "Location": url}
    return Answer(HTTPStatus.FOUND, headers, f"{url}\n".encode())


def release(target: Target) -> str:
    """Give a distribution's release as a path has it: by codename, where there is one."""
    return target.distribution.codename or target.distribution.version


def nothing() -> RefusedError:
    """Say that there is nothing at a path."""
    return RefusedError(HTTPStatus.NOT_FOUND, "This view of the packages has nothing there.")


def not_ready(what: Iterable[str]) -> RefusedError:
    """Say, as shaman does, that there is no such repository."""
    sentence = f"no repository is ready for: {'/'.join(what)}"
    return RefusedError(HTTPStatus.GATEWAY_TIMEOUT, sentence[:300])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _answer(status: HTTPStatus, kind: str, text: str) -> Answer:
    return Answer(status, {"Content-Type": kind, "Cache-Control": "no-cache"}, text.encode())


def _bad(sentence: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, sentence)
