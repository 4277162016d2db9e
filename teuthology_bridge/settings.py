"""What an operator or a job may set: where the master is, and how long to wait.

What the environment says (`BUILDPACKAGES_URL`) goes before the job (its task's configuration), and that
before the site (`buildpackages:` in teuthology's own YAML). Anybody may write a job: it gets the operator's
token sent to no server but the operator's, and no file of the machine read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from teuthology_bridge.errors import WrongJob, WrongSettings, together

TASK_KEYS = ("good_machine", "min_machine", "canonical_tags")
"""What a job's configuration holds besides settings, and a site's for all jobs."""

_OTHERS = ("SETTINGS", "SCRATCH", "MIRROR", "LAB", "STAND_IN")
"""Variables with our prefix that the master and its tests read."""

_PREFIX = "BUILDPACKAGES_"
_JOBS = "the job's `buildpackages`"
_SIZE = ("disk", "ram", "cpus")


@dataclass(frozen=True)
class Settings:
    """Durations are in seconds; URLs end with a slash."""

    url: str = "http://127.0.0.1:8010/"
    """The master's web UI and REST API."""
    packages_url: str = "http://127.0.0.1:8011/"
    """The package server, as the machines under test reach it."""
    token: str = field(default="", repr=False)
    look_timeout: float = 10.0
    """For one exchange by HTTP, but for an ask."""
    ask_timeout: float = 60.0
    """For one ask, in whose time the master resolves a ref in git."""
    limit: float = 43200.0
    """For a job's packages, from the first look to the end."""
    unreachable_limit: float = 1800.0
    """How long a server may be away in one stretch."""
    machines: Mapping[str, Mapping[str, int]] = field(default_factory=dict, hash=False)
    """The site's `good_machine` and `min_machine`, below the job's: see `sizes`."""
    job: str = ""
    """What the master calls this run of a program; it is no setting, but what the program puts here."""
    warnings: tuple[str, ...] = ()
    """Sentences to log: nothing that stops the work."""

    @property
    def authorization(self) -> str:
        """Give the header's value that tells the master who asks; empty without a token."""
        return f"Bearer {self.token}" if self.token else ""

    @classmethod
    def load(cls, environment: Mapping[str, str], site: object = None, job: object = None) -> Settings:
        """Read all three places; WrongSettings names everything that is wrong at once."""
        reader = _Reader()
        of_site = reader.read(site, "`buildpackages` in teuthology's configuration")
        of_job = reader.read(job, _JOBS, files=False)
        variables = _of_environment(environment, reader.warnings)
        of_environment = reader.read(variables, "the environment", texts=True)
        values = {**of_site, **of_job, **of_environment}
        values["machines"] = _sizes(site, "`buildpackages` in teuthology's configuration", reader.problems)
        if "token" in of_job:
            reader.warnings.append(
                f"`token` in {_JOBS} is shown with the job: have a token_file in teuthology's configuration instead"
            )
        operators = {**of_site, **of_environment}.get("url", cls.url)
        if "url" in of_job and _origin(values.get("url", operators)) != _origin(operators):
            known = values.pop("token", "")
            if "token" in of_job:
                values["token"] = of_job["token"]
            elif known:
                reader.warnings.append(
                    f"`url` in {_JOBS} is another server than {operators}: it is not sent the token for that one"
                )
        # Only now: what a place that comes later sets anew is not looked at.
        if isinstance(values.get("token"), _TokenFile):
            values["token"] = reader.token(values["token"])
        if reader.problems:
            raise WrongSettings(together(reader.problems))
        return cls(**values, warnings=tuple(reader.warnings))


KEYS = (
    *(one.name for one in fields(Settings) if one.name not in ("machines", "job", "warnings")),
    "token_file",
)


class _TokenFile(NamedTuple):
    """A file with a token, and which place names it."""

    path: Path
    where: str


class _Reader:
    """Reads one place after another, and gathers what is wrong in them."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def read(self, told: object, where: str, *, texts: bool = False, files: bool = True) -> dict[str, Any]:
        """Give what one place sets, fit for Settings; some hold texts only, and some may name no files."""
        if told is None:
            return {}
        if not isinstance(told, Mapping):
            self.problems.append(f"{where} must be a mapping, not {type(told).__name__}")
            return {}
        values: dict[str, Any] = {}
        for key, value in told.items():
            name = f"{_PREFIX}{key.upper()}" if texts else f"`{key}` in {where}"
            if key in TASK_KEYS and not texts:
                continue
            if key not in KEYS:
                self.problems.append(f"{name} is unknown; there are {', '.join(sorted(KEYS))}")
                continue
            if key == "token_file" and not files:
                self.problems.append(
                    f"{name} is not read: a job may name no file of the machine that runs it"
                )
                continue
            try:
                values[key] = _value(key, value, texts=texts)
            except ValueError as error:
                self.problems.append(f"{name} {error}")
        if "token" in values and "token_file" in values:
            self.problems.append(f"token and token_file are both given by {where}: give one")
        elif "token_file" in values:
            values["token"] = _TokenFile(values["token_file"], where)
        values.pop("token_file", None)
        return values

    def token(self, file: _TokenFile) -> str:
        """Read a token's file."""
        path, where = file
        told = f"the token_file {path} of {where}"
        try:
            text = path.read_text(encoding="ascii").strip()
            if path.stat().st_mode & 0o007:
                self.warnings.append(f"{told} can be read by everybody on this machine: chmod o-rwx it")
        except OSError as error:
            self.problems.append(f"{told} can't be read: {error.strerror}")
            return ""
        except ValueError as error:
            self.problems.append(f"{told} can't be read: {error}")
            return ""
        try:
            return _token(text)
        except ValueError as error:
            self.problems.append(f"{told} {error}")
            return ""


def _of_environment(environment: Mapping[str, str], warnings: list[str]) -> dict[str, str]:
    """Give our own variables; an empty one is as good as none."""
    found = {}
    for name, value in environment.items():
        key = name.removeprefix(_PREFIX).lower()
        if not name.startswith(_PREFIX) or not value.strip():
            continue
        if name.removeprefix(_PREFIX) in _OTHERS:
            continue
        if key in KEYS:
            found[key] = value.strip()
        else:
            known = ", ".join(sorted(_PREFIX + one.upper() for one in KEYS))
            warnings.append(f"the variable {name} means nothing; there are {known}")
    return found


def _value(key: str, value: object, *, texts: bool) -> object:
    if key == "token_file":
        return Path(_text(value)).expanduser()
    if key == "token":
        return _token(_text(value).strip())
    if key in ("url", "packages_url"):
        return check_url(_text(value).strip())
    default = Settings.__dataclass_fields__[key].default
    assert default is not MISSING
    return _seconds(value, texts=texts)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a text, not {value!r}")
    return value


def _token(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        # The value itself is not for a log.
        raise ValueError("holds no token: that is one word of ASCII characters")
    return text


def _seconds(value: object, *, texts: bool) -> float:
    if texts:
        try:
            value = float(str(value))
        except ValueError:
            raise ValueError(f"must be a number of seconds, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number of seconds, not {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"must be a number of seconds above 0, not {value!r}")
    return float(value)


def check_url(text: str) -> str:
    """Return the URL of a server or of a directory on it, with single slashes and one at its end; ValueError has the problem."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"must be a URL in ASCII without blanks, not {text!r}")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"must be a URL, not {text!r}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or a password")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"must be a URL as http://HOST:PORT/, not {text!r}")
    if parts.query or parts.fragment:
        raise ValueError(f"must be a URL without a query or a fragment, not {text!r}")
    return f"{parts.scheme}://{parts.netloc}{re.sub('/+', '/', f'{parts.path}/')}"


def _origin(url: str) -> tuple[str, str, int]:
    """Give what makes two URLs the same server's."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]


def sizes(
    config: Mapping[str, Any], machines: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, dict[str, int]]:
    """Give the job's `good_machine` and `min_machine` over the site's, part by part; WrongJob names all that is wrong."""
    problems: list[str] = []
    found = {name: dict(size) for name, size in (machines or {}).items()}
    for name, size in _sizes(config, _JOBS, problems).items():
        found[name] = found.get(name, {}) | size
    if problems:
        raise WrongJob(together(problems))
    return found


def _sizes(config: object, where: str, problems: list[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name in ("good_machine", "min_machine"):
        value = config.get(name) if isinstance(config, Mapping) else None
        if value is None:
            continue
        if not isinstance(value, Mapping):
            problems.append(f"`{name}` in {where} must be a mapping of {', '.join(_SIZE)}, not {value!r}")
            continue
        found[name] = {}
        for part, number in value.items():
            if part not in _SIZE:
                problems.append(
                    f"`{name}` in {where} has no `{part}`; there are disk (GB), ram (MB) and cpus"
                )
            elif isinstance(number, bool) or not isinstance(number, int | float) or not _whole(number):
                problems.append(f"`{part}` of `{name}` in {where} must be a whole number, not {number!r}")
            else:
                found[name][str(part)] = int(number)
    return found


def _whole(number: float) -> bool:
    return math.isfinite(number) and number >= 0 and number == int(number)
