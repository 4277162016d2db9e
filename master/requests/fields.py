"""What a request may say, field by field: every mistake gets a sentence beside its field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import TYPE_CHECKING, Any

from model.git_names import OTHER, GitUrlPolicy, check_full_ref, check_ref, split_ref
from model.package_key import check_sha1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model.targets import Target

_TEXT_MAX = 500
_JOB_MAX = 300
"""Characters. The bridge says `<run>/<job id>`, of which it takes 200, and `@<host>:<process>`."""
_SHA1 = re.compile(r"[0-9a-fA-F]{40}\Z")
_DIGITS_MAX = 18
_FORM_FIELDS = ("sha1", "ref", "git_url", "reason")
JOB = "job"
"""The parameter in which a program says which of its runs waits."""

SIZES = ("good_machine", "min_machine")
"""Parameters, and properties of the buildset, that say how large a machine is to be."""
_SIZE = {"disk": 100_000, "ram": 100_000_000, "cpus": 10_000}
"""What a size may say, and the most: disk in GB, ram in MB."""
FIELDS = ("builderNames", "builderid", *_FORM_FIELDS, JOB, *SIZES)
CLAIMED_OWNER = "owner, as the request says"
"""What the parameter `owner` is called on its way to us, where Buildbot puts the user into its place."""


@dataclass(frozen=True)
class Wanted:
    """A request whose fields are right: the targets, and a sha1 or a ref of a git URL."""

    targets: tuple[Target, ...]
    sha1: str
    ref: str
    git_url: str
    reason: str
    job: str = ""
    sizes: Mapping[str, Mapping[str, int]] = attribute(default_factory=dict)
    ref_kind: str = ""
    """`branch` or `tag` if the request names that kind, `ref` for a full name of another kind, else empty."""
    commit_field: str = "sha1"
    """The field that names the commit; refusals of the commit stand beside it. A full sha1 may be in `ref`."""


class Refused(ValueError):
    """All that is wrong with a request: a sentence for each field; `passing` if asking again may help."""

    def __init__(self, sentences: Mapping[str, str], *, passing: bool = False) -> None:
        """Take field to sentence."""
        super().__init__("; ".join(f"{field}: {text}" for field, text in sentences.items()))
        self.sentences = dict(sentences)
        self.passing = passing


def parse(
    params: Mapping[str, Any],
    targets: Mapping[str, Target],
    builder_name: Callable[[int], str | None],
    policy: GitUrlPolicy,
    git_urls: Mapping[str, str],
) -> Wanted:
    """Read a request's parameters; Refused names every field that is wrong.

    `git_urls` has each project's URL, for requests that name none; such a request must be for one project.
    """
    sentences: dict[str, str] = {}
    texts: dict[str, str] = {}
    for field, value in params.items():
        if field not in FIELDS:
            sentences[str(field)[:100]] = f"unknown parameter; there are {', '.join(FIELDS)}"
        elif field in (*_FORM_FIELDS, JOB):
            if not isinstance(value, str):
                sentences[field] = f"must be a string, not {_type(value)}"
            else:
                texts[field] = value.strip() if value.isprintable() else value
    chosen = _targets(params, targets, builder_name, sentences)

    def check(field: str, checker: Callable[[str], str], default: str = "") -> str:
        text = texts.get(field, "")
        if not text or field in sentences:
            return default
        try:
            return checker(text)
        except ValueError as error:
            sentences[field] = str(error)
            return ""

    sha1 = check("sha1", check_sha1)
    if _SHA1.match(texts.get("ref", "")) and not texts.get("sha1"):
        # Users paste a sha1 into the first field of the form. git itself warns of branches with such names.
        sha1, ref_kind, ref = check("ref", check_sha1), "", ""
    else:
        ref_kind, texts["ref"] = split_ref(texts.get("ref", ""))
        ref = check("ref", check_full_ref if ref_kind == OTHER else check_ref)
    git_url = check("git_url", policy.check) or _git_url(chosen, git_urls, sentences)
    reason = check("reason", check_text)
    job = check(JOB, check_job)
    sizes = {name: _size(params[name], name, sentences) for name in SIZES if params.get(name) is not None}
    if texts.get("sha1") and texts.get("ref"):
        sentences.setdefault("ref", "give sha1 or ref, not both")
    if not any(texts.get(field) or field in sentences for field in ("sha1", "ref")):
        sentences["sha1"] = "give a sha1, or a ref to be resolved to one"
    if sentences:
        raise Refused(sentences)
    commit_field = "ref" if texts.get("ref") else "sha1"
    return Wanted(chosen, sha1, ref, git_url, reason, job, sizes, ref_kind, commit_field)


def _git_url(chosen: Sequence[Target], git_urls: Mapping[str, str], sentences: dict[str, str]) -> str:
    """Return the URL of the targets' project, where the request names none."""
    projects = dict.fromkeys(target.project for target in chosen)
    if len(projects) > 1:
        sentences.setdefault(
            "git_url", f"name one, or ask for one project at a time, not for {', '.join(projects)}"
        )
        return ""
    return "".join(git_urls[project] for project in projects)


def _targets(
    params: Mapping[str, Any],
    targets: Mapping[str, Target],
    builder_name: Callable[[int], str | None],
    sentences: dict[str, str],
) -> tuple[Target, ...]:
    on = ", ".join(targets)
    names = params.get("builderNames")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            sentences["builderNames"] = f"must be a list of strings, not {_type(names)}"
            return ()
        unknown = [name for name in names if name not in targets]
        if unknown:
            sentences["builderNames"] = f"{unknown[0][:100]!r} is not a target that is on; there are {on}"
            return ()
        if names:
            return tuple(targets[name] for name in dict.fromkeys(names))
    builder_id = params.get("builderid")
    if builder_id is None:
        sentences.setdefault("builderNames", f"name at least one target of {on}")
        return ()
    text = builder_id if isinstance(builder_id, str) else ""
    if type(builder_id) is int and 0 <= builder_id < 10**_DIGITS_MAX:
        text = str(builder_id)
    if not (text.isascii() and text.isdigit()):
        sentences["builderid"] = "must be a builder's number"
        return ()
    name = builder_name(int(text)) if len(text) <= _DIGITS_MAX else None
    if name is None or name not in targets:
        sentences["builderid"] = f"{text[:_DIGITS_MAX]} is not the number of a target that is on"
        return ()
    return (targets[name],)


def _size(value: object, name: str, sentences: dict[str, str]) -> dict[str, int]:
    """Read a machine's size, an object of whole numbers."""
    known = ", ".join(_SIZE)
    if not isinstance(value, dict):
        sentences[name] = f"must be an object with {known}, not {_type(value)}"
        return {}
    for part, number in value.items():
        if part not in _SIZE:
            sentences[name] = f"has no {str(part)[:50]!r}; there are {known}"
        elif type(number) is not int or not 0 <= number <= _SIZE[part]:
            sentences[name] = f"{part} must be a whole number from 0 to {_SIZE[part]}"
    return dict(value)


def check_text(text: str, most: int = _TEXT_MAX) -> str:
    """Return a line of text; ValueError if it has too many characters, or is no line."""
    if len(text) > most:
        raise ValueError(f"has {len(text)} characters; at most {most} are taken")
    if not text.isprintable():
        raise ValueError("may not contain control characters")
    return text


def check_job(text: str) -> str:
    """Return the name of a job, or raise a ValueError as check_text does."""
    return check_text(text, _JOB_MAX)


def _type(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
