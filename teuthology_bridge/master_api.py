"""What can be asked of the master, on top of one exchange by HTTP: ask, follow, renew, withdraw."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from teuthology_bridge import wire
from teuthology_bridge.errors import RefUnknown, WrongJob, WrongSettings, one_line, together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from teuthology_bridge.settings import Settings
    from teuthology_bridge.timed_socket import Waits

State = Literal["waiting", "building", "published", "failed", "infrastructure", "cancelled", "purged"]

_SHA1 = re.compile(r"[0-9a-f]{40}")
_PASSING = (408, 425, 429)
"""Besides all of 500 and above: what a later try may not meet."""


class Away(Exception):
    """The master can't answer now; trying again may help. The text says why."""

    taken = True
    """Whether it may have done what it was asked for all the same."""


class RepositoryAway(Away):
    """The master answers, and the repository does not answer the master: nothing was taken."""

    taken = False


class Unknown(Exception):
    """The master does not know the buildrequest, or does not know that this job waits for it."""


@dataclass(frozen=True)
class Answer:
    """What came of an ask."""

    package_key: str
    sha1: str
    published: bool
    url: str
    buildrequest_id: int | None
    """What to follow; None if nothing is on its way."""


@dataclass(frozen=True)
class Waiter:
    """One who waits: a user of the master, and the run of a program if it is one that waits."""

    asker: str
    job: str
    since: float

    def __str__(self) -> str:
        """Name the run if there is one, as several may be of one user."""
        return f"{self.asker} ({self.job})" if self.job else self.asker


@dataclass(frozen=True)
class Status:
    """How far a buildrequest is: times in seconds since the epoch, durations in seconds."""

    buildrequest_id: int
    package_key: str
    state: State
    url: str = ""
    git_url: str = ""
    ref: str = ""
    build_url: str | None = None
    request_url: str = ""
    build: int = 0
    step: str = ""
    step_state: str = ""
    asked: float | None = None
    started: float | None = None
    elapsed: float | None = None
    percent: int | None = None
    time_left: float | None = None
    reason: str = ""
    error: str = ""
    waiting: tuple[Waiter, ...] = ()
    waiting_more: int = 0
    """Those who wait besides those that `waiting` names."""


class Master:
    """One master; Away if it gives no proper answer, and WrongSettings if it never will."""

    def __init__(self, settings: Settings) -> None:
        """Take where it is, and who asks."""
        self._settings = settings
        self._met = False
        """Whether it has answered properly: then strange answers are a proxy's, while it is away."""

    @property
    def name(self) -> str:
        """Give what it is called in sentences."""
        return f"the master at {self._settings.url}"

    def ask(
        self,
        target: str,
        kind: str,
        value: str,
        git_url: str,
        *,
        reason: str = "",
        sizes: Mapping[str, Mapping[str, int]] | None = None,
        timeout: float | None = None,
        waits: Waits | None = None,
    ) -> Answer:
        """Ask for packages; nothing is built twice for it. WrongJob if there can't be such packages.

        RefUnknown, which is one, if nothing but the ref is wrong; RepositoryAway if the repository can't be asked at the moment what the ref is at.
        """
        params: dict[str, Any] = {
            "builderNames": [target],
            "sha1" if kind == "sha1" else "ref": f"{_FULL_NAMES.get(kind, '')}{value}",
            "git_url": git_url,
            "reason": reason,
            **(sizes or {}),
        }
        if self._settings.job:
            params["job"] = self._settings.job
        timeout = self._settings.ask_timeout if timeout is None else timeout
        reply = self._post("forceschedulers/packages", "force", params, timeout, waits)
        if reply.status == 400 and _passes(reply):
            self._met = True
            raise RepositoryAway(f"{self.name} says {_refusal(reply)}")
        if reply.status == 400:
            wrong = RefUnknown if _is_about_the_ref(reply) else WrongJob
            raise wrong(f"{target}/{value} can't be asked for: {_refusal(reply)}")
        if reply.status != 200:
            self._strange(reply)
        answer = self._answer(reply, target, kind, value)
        self._met = True
        return answer

    def status(self, request: int, *, timeout: float | None = None) -> Status:
        """Give how far a buildrequest is, also when it is done; Unknown if there is no such."""
        reply = self._get(f"packages/{request}", timeout)
        if reply.status == 404 and _says_not_found(reply):
            raise Unknown
        found = _statuses(reply)
        if len(found) != 1:
            raise Away(f"it answered {reply.told()}")
        return found[0]

    def statuses(self, *, timeout: float | None = None) -> list[Status]:
        """Give all that is on its way."""
        return _statuses(self._get("packages", timeout))

    def renew(self, request: int, *, timeout: float | None = None) -> None:
        """Renew this job's waiting; Unknown if the master does not know that it waits."""
        self._say(request, "renew", timeout, None)

    def withdraw(
        self, request: int, *, timeout: float | None = None, waits: Waits | None = None
    ) -> tuple[bool, tuple[Waiter, ...]]:
        """Say that this job does not wait any more; give whether the build is cancelled, and who still waits."""
        result = self._say(request, "withdraw", timeout, waits)
        return result.get("cancelled") is True, _waiters(result.get("waiting"))

    def _say(self, request: int, method: str, timeout: float | None, waits: Waits | None) -> dict[str, Any]:
        timeout = self._settings.look_timeout if timeout is None else timeout
        params = {"job": self._settings.job}
        reply = self._post(f"packages/{request}", method, params, timeout, waits)
        if reply.status == 400 and method == "renew":
            raise Unknown
        result = _json(reply).get("result") if reply.status == 200 else None
        if not isinstance(result, dict):
            raise Away(f"it answered {reply.told()}")
        return result

    def _get(self, path: str, timeout: float | None) -> wire.Reply:
        timeout = self._settings.look_timeout if timeout is None else timeout
        return self._exchange("GET", path, timeout=timeout)

    def _post(
        self, path: str, method: str, params: Mapping[str, Any], timeout: float, waits: Waits | None
    ) -> wire.Reply:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        reply = self._exchange("POST", path, timeout=timeout, body=body, waits=waits)
        if reply.status in (401, 403):
            raise WrongSettings(f"{self.name} refuses this user: {_refusal(reply)} ({self._whose()})")
        return reply

    def _whose(self) -> str:
        if self._settings.token:
            return "the `token` of `buildpackages` is not good there"
        return "no `token` is set for `buildpackages`"

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        body: bytes | None = None,
        waits: Waits | None = None,
    ) -> wire.Reply:
        url = f"{self._settings.url}api/v2/{path}"
        posts = body is not None
        try:
            return wire.exchange(
                method,
                url,
                timeout=timeout,
                headers={"Content-Type": "application/json"} if posts else None,
                authorization=self._settings.authorization if posts else "",
                body=body,
                waits=waits,
            )
        except wire.Untrusted as error:
            raise WrongSettings(f"{self.name}: {error}") from None
        except wire.NoAnswer as error:
            away = Away(str(error))
            away.taken = error.sent
            raise away from None

    def _strange(self, reply: wire.Reply) -> None:
        """Tell what passes from what does not."""
        passing = reply.status >= 500 or reply.status in _PASSING or reply.status < 300
        if passing or self._met:
            raise Away(f"it answered {reply.told()}")
        if reply.status < 400:
            raise WrongSettings(
                f"{self.name} answered {reply.told()}, which is not followed:"
                " set `url` of `buildpackages` to where the master is"
            )
        raise WrongSettings(
            f"{self.name} answered {reply.told()}: set `url` of `buildpackages` to where the master is"
        )

    def _answer(self, reply: wire.Reply, target: str, kind: str, value: str) -> Answer:
        result = _json(reply).get("result")
        answers = result[2] if isinstance(result, list) and len(result) == 3 else None
        one = answers[0] if isinstance(answers, list) and len(answers) == 1 else None
        if isinstance(one, dict):
            key, requests, state = one.get("package_key"), one.get("buildrequest_ids"), one.get("state")
            sha1 = key.removeprefix(f"{target}/") if isinstance(key, str) else ""
            ids = list(requests.values()) if isinstance(requests, dict) else []
            request = _whole(ids[0]) if len(ids) == 1 and state == "on its way" else None
            fits = _SHA1.fullmatch(sha1) and (kind != "sha1" or sha1 == value)
            if fits and (state == "published" or request is not None):
                return Answer(f"{target}/{sha1}", sha1, state == "published", _text(one.get("url")), request)
        raise Away(f"it answered {reply.told()}")


_FULL_NAMES = {"branch": "refs/heads/", "tag": "refs/tags/"}
"""git's own names: a bare one may be either's."""

_PASSES = -32000
"""The code of a refusal by the master that is of the moment: the repository with the ref is away."""


def _passes(reply: wire.Reply) -> bool:
    try:
        error = _json(reply).get("error")
    except Away:
        return False
    return isinstance(error, dict) and error.get("code") == _PASSES


def _is_about_the_ref(reply: wire.Reply) -> bool:
    """Whether nothing else of an ask is refused."""
    try:
        error = _json(reply).get("error")
    except Away:
        return False
    message = error.get("message") if isinstance(error, dict) else None
    return isinstance(message, dict) and list(message) == ["ref"]


def _json(reply: wire.Reply) -> dict[str, Any]:
    try:
        told = reply.json()
    except wire.NoAnswer as error:
        raise Away(str(error)) from None
    if not isinstance(told, dict):
        raise Away(f"it answered {reply.told()}")
    return told


def _refusal(reply: wire.Reply) -> str:
    """Give every sentence of a refusal."""
    try:
        error = _json(reply).get("error")
    except Away:
        return f"it answered {reply.told()}"
    message = error.get("message") if isinstance(error, dict) else error
    if isinstance(message, dict) and message:
        return one_line(together([f"{field}: {_said(told)}" for field, told in message.items()]))
    return _said(message) if message else f"it answered {reply.told()}"


def _said(told: object) -> str:
    if isinstance(told, list):
        return together([_said(one) for one in told])
    return one_line(str(told))


def _says_not_found(reply: wire.Reply) -> bool:
    """Whether it is the master that knows no such request: not a proxy, and not a master that only starts."""
    try:
        error = _json(reply).get("error")
    except Away:
        return False
    return isinstance(error, str) and not error.lower().startswith("invalid path")


def _statuses(reply: wire.Reply) -> list[Status]:
    told = _json(reply).get("packages") if reply.status == 200 else None
    if isinstance(told, list):
        found = [_status(one) for one in told]
        if None not in found:
            return [one for one in found if one is not None]
    raise Away(f"it answered {reply.told()}")


def _status(told: object) -> Status | None:
    """Read one status; what is missing or strange is left out, unless nothing can be done without it."""
    if not isinstance(told, dict):
        return None
    request, key, state = (
        _whole(told.get("buildrequest_id")),
        _text(told.get("package_key")),
        told.get("state"),
    )
    if request is None or not key or not isinstance(state, str) or state not in get_args(State):
        return None
    percent = _number(told.get("percent"))
    read: dict[str, Any] = {name: _text(told.get(name)) for name in _TEXTS}
    read |= {name: _number(told.get(name)) for name in _NUMBERS}
    return Status(
        **read,
        buildrequest_id=request,
        package_key=key,
        state=cast("State", state),
        build_url=_text(told.get("build_url")) or None,
        build=_whole(told.get("build")) or 0,
        percent=None if percent is None else int(max(0, min(100, percent))),
        waiting=_waiters(told.get("waiting")),
        waiting_more=_whole(told.get("waiting_more")) or 0,
    )


_TEXTS = ("url", "git_url", "ref", "request_url", "step", "step_state", "reason", "error")
_NUMBERS = ("asked", "started", "elapsed", "time_left")


def _waiters(told: object) -> tuple[Waiter, ...]:
    rows = told if isinstance(told, list) else []
    return tuple(
        Waiter(_text(one.get("asker")), _text(one.get("job")), _number(one.get("since")) or 0.0)
        for one in rows
        if isinstance(one, dict)
    )


def _text(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
