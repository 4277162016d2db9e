"""The way of one goal: look, ask, follow its buildrequest, and look again once the master says published.

It sleeps nowhere: `due` says when it wants to be advanced, so that one loop serves any number of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from teuthology_bridge import errors, wire
from teuthology_bridge.aside import Aside
from teuthology_bridge.heartbeat import Heartbeat, doing
from teuthology_bridge.look import look
from teuthology_bridge.master_api import Away, RepositoryAway, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from teuthology_bridge.master_api import Answer, Status
    from teuthology_bridge.patience import Patience
    from teuthology_bridge.surroundings import Surroundings
    from teuthology_bridge.timed_socket import Waits

How = Literal["found", "built", "waited for"]

SOONEST, LATEST = 1.0, 15.0
"""Seconds between the first two looks at a buildrequest, and the most that this grows to."""

RENEW = 120.0
"""Seconds between two words to the master that this job still waits."""

FORGOTTEN = 600.0
"""Seconds of silence after which the master forgets that a job waits."""

ASKS = 4
"""So often at most the same packages are asked for, when masters forget what they were asked."""

_MOMENT, _LONGEST_MOMENT = 0.01, 0.1
"""Seconds of waiting for an answer to an ask before the others have their turn: at first, and the most that this grows to."""

HIDDEN = 30.0
"""Seconds in which what the master calls published may still be missing on the package server."""


@dataclass(frozen=True)
class Goal:
    """Packages that are wanted: a target, and a commit or what names one in a repository."""

    target: str
    kind: Literal["sha1", "tag", "branch", "ref"]
    """A ref is a branch or a tag, whichever there is."""
    value: str
    git_url: str
    version_url: Callable[[str], str] = field(compare=False)
    """Gives, for a sha1, where the package server has the file `version`."""
    good_machine: Mapping[str, int] | None = field(default=None, compare=False)
    min_machine: Mapping[str, int] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Give the package_key, or what is known of it."""
        return f"{self.target}/{self.value}"

    @property
    def sizes(self) -> dict[str, Mapping[str, int]]:
        """Give the machine's sizes as an ask tells them."""
        told = {"good_machine": self.good_machine, "min_machine": self.min_machine}
        return {name: size for name, size in told.items() if size is not None}


@dataclass(frozen=True)
class Outcome:
    """Packages that are there."""

    goal: Goal
    package_key: str
    sha1: str
    url: str
    seconds: float
    how: How
    build_url: str | None

    @property
    def built(self) -> bool:
        """Whether they are there because this job asked."""
        return self.how == "built"


class Pursuit:
    """One goal on its way; `outcome` is set when it is reached, and an exception of `errors` ends it."""

    def __init__(self, goal: Goal, shared: Surroundings) -> None:
        """Begin now."""
        self.goal = goal
        self.due = self._began = shared.clock()
        self.outcome: Outcome | None = None
        self.status: Status | None = None
        self.name = str(goal)
        self._shared = shared
        self.git_url = goal.git_url
        """Where the commit is: not where the goal says, if that lacks a tag."""
        self._kind = goal.kind
        self._refused: errors.RefUnknown | None = None
        """What was said of the goal's own repository then."""
        self._sha1 = goal.value if goal.kind == "sha1" else ""
        self._heartbeat = Heartbeat(self.name, self._began)
        self._step: Callable[[], None] = self._look if self._sha1 else self._ask
        self._asks = 0
        self._maybe_asked = False
        """Whether an ask was sent whose answer is not known."""
        self._request: int | None = None
        """What is on its way, and so may be withdrawn from."""
        self._withdrawn: int | None = None
        self._heard = 0.0
        """When the master last took note that this job waits."""
        self._interval = SOONEST
        self._how: How = "found"
        self._published: float | None = None
        self._deadline = 0.0

    @property
    def _repository(self) -> Patience:
        return self._shared.repository(self.git_url)

    @property
    def build_url(self) -> str | None:
        """Give where the newest build can be seen, or else its request."""
        return (self.status.build_url or self.status.request_url or None) if self.status else None

    @property
    def doing(self) -> str:
        """Say how far it is, for whoever can't wait any longer."""
        told = doing(self.status) if self.status else "the master has not taken the ask yet"
        if self._published is not None:
            told = "published, but not to be had from the package server"
        for patience in self._shared.patiences:
            if patience.why:
                told += f"; {patience.server} gives no answer ({patience.why})"
        return told

    def advance(self, deadline: float) -> None:
        """Do what is due, with at most one request and a word that it still waits; be back by the deadline.

        An ask is the one request that is not waited for: it may take the master a minute.
        """
        self._deadline = deadline
        self._step()

    def withdraw(self, until: float, timeout: float, waits: Waits | None = None) -> None:
        """Have the master know that this job does not wait any more, if it may think so.

        Nothing is raised: who withdraws has another trouble already. The master forgets the silent, but it
        cancels no build for that.
        """
        shared = self._shared

        def left() -> float:
            return max(0.01, min(timeout, until - shared.clock()))

        try:
            if self._maybe_asked:
                # The only way to learn what to withdraw from; asking twice builds nothing twice.
                self._took(self._do_ask(left(), waits))
            request = self._request
            if request is None or request == self._withdrawn:
                return
            self._withdrawn = request
            cancelled, waiting = shared.master.withdraw(request, timeout=left(), waits=waits)
        except (Away, errors.BuildpackagesError) as error:
            shared.log.warning(
                "%s: could not withdraw; its build may go on though nobody waits for it: %s", self.name, error
            )
            return
        others = ", ".join(str(one) for one in waiting)
        rest = (
            "the build is cancelled" if cancelled else f"it goes on for {others}" if others else "it goes on"
        )
        shared.log.info("%s: withdrawn; %s", self.name, rest)

    def _timeout(self, most: float) -> float:
        return max(0.01, min(most, self._deadline - self._shared.clock()))

    def _look(self) -> None:
        """Ask the package server, which knows it best and fastest; if it does not answer, the master does."""
        shared = self._shared
        try:
            version = look(self.goal.version_url(self._sha1), self._timeout(shared.settings.look_timeout))
        except wire.Untrusted as error:
            shared.warn_once(
                f"{shared.serving.server}: {error}; what is built can't be seen there before that changes"
            )
            version = None
        except wire.NoAnswer as error:
            shared.log.warning(
                "%s: %s can't be looked at: %s", self.name, shared.settings.packages_url, error
            )
            version = None
        if version is None:
            self._step = self._ask
        else:
            shared.log.info("%s: published already, version %s", self.name, version)
            self._arrive()

    def _ask(self) -> None:
        shared = self._shared
        if self._held_up(shared.asking) or (not self._sha1 and self._held_up(self._repository)):
            return
        if not shared.room.acquire(blocking=False):
            self.due = shared.clock()
            return
        before = self._maybe_asked
        # Before the ask, as a signal may come while it lasts.
        self._maybe_asked = True
        answer = Aside(
            partial(self._do_ask, self._timeout(shared.settings.ask_timeout), None),
            (Away, errors.BuildpackagesError),
        )
        self._hear(answer, before, _MOMENT)

    def _hear(self, asked: Aside[Answer], before: bool, moment: float) -> None:
        """Take the answer to an ask, once it is there; the others have their turn meanwhile."""
        shared = self._shared
        if not asked.is_over(moment):
            self.due = shared.clock()
            self._step = partial(self._hear, asked, before, min(_LONGEST_MOMENT, moment * 1.5))
            return
        shared.room.release()
        self._step = self._ask
        try:
            answer = asked.result()
        except RepositoryAway as away:
            shared.asking.answered()
            self._maybe_asked = before
            self._in_vain(self._repository, str(away))
            return
        except Away as away:
            self._maybe_asked = before or away.taken
            self._in_vain(shared.asking, str(away))
            return
        except errors.BuildpackagesError as error:
            # This one was not taken; one before, whose answer was lost, may have been.
            self._maybe_asked = before
            self._ask_elsewhere(error)
            return
        shared.asking.answered()
        if not self._sha1:
            self._repository.answered()
        self._took(answer)
        if answer.published:
            self._step = self._confirm
        else:
            shared.log.info(
                "%s: asked %s for it, buildrequest %s", self.name, shared.master.name, self._request
            )
            self._step = self._follow

    def _ask_elsewhere(self, error: errors.BuildpackagesError) -> None:
        """Have what is not there looked for where teuthology finds it, too; else raise the error.

        ceph-ci.git has no release's tags; and what a job calls a branch may be a tag, since a gitbuilder has both in one place.
        """
        goal, shared = self.goal, self._shared
        if self._refused is not None and isinstance(error, errors.WrongJob):
            raise errors.WrongJob(errors.together([self._refused.sentence, error.sentence]))
        if not isinstance(error, errors.RefUnknown):
            raise error
        git_url = goal.git_url.replace("ceph-ci", "ceph") if goal.kind == "tag" else goal.git_url
        if goal.kind != "branch" and git_url == goal.git_url:
            raise error
        shared.asking.answered()
        shared.log.info(
            "%s: %s has no %s %s; a tag is looked for in %s",
            self.name, goal.git_url, goal.kind, goal.value, git_url,
        )  # fmt: skip
        self._refused, self.git_url, self._kind = error, git_url, "tag"
        self.due = shared.clock()

    def _do_ask(self, timeout: float, waits: Waits | None) -> Answer:
        goal, shared = self.goal, self._shared
        # Once a ref has been resolved it stays so, were it to move meanwhile.
        kind, value = ("sha1", self._sha1) if self._sha1 else (self._kind, goal.value)
        return shared.master.ask(
            goal.target,
            kind,
            value,
            self.git_url,
            reason=shared.reason,
            sizes=goal.sizes,
            timeout=timeout,
            waits=waits,
        )

    def _took(self, answer: Answer) -> None:
        self._maybe_asked = False
        if answer.package_key != self.name:
            self._shared.log.info("%s is %s", self.name, answer.package_key)
            self.name = answer.package_key
        self._sha1 = answer.sha1
        self._request = answer.buildrequest_id
        self.status = None
        self._asks += 1
        self._heard = self._shared.clock()
        self._heartbeat = Heartbeat(self.name, self._began)
        self._interval = SOONEST

    def _follow(self) -> None:
        shared = self._shared
        if self._held_up(shared.asking):
            return
        assert self._request is not None
        try:
            status = shared.master.status(self._request, timeout=self._timeout(shared.settings.look_timeout))
        except Away as away:
            self._in_vain(shared.asking, str(away))
            return
        except Unknown:
            shared.asking.answered()
            self._ask_anew(f"{shared.master.name} does not know buildrequest {self._request} any more")
            return
        shared.asking.answered()
        now = shared.clock()
        if self.status is None:
            self._how = self._whose(status)
        self.status = status
        for line in self._heartbeat.lines(status, now):
            shared.log.info("%s", line)
        if status.state in ("waiting", "building"):
            self._renew(now)
            self.due = now + self._interval * (0.7 + 0.3 * shared.chance())
            self._interval = min(LATEST, self._interval * 1.5)
        elif status.state == "cancelled" and now - self._heard > FORGOTTEN:
            self._ask_anew("the build was cancelled while the master had not heard of this job")
        elif status.state == "purged":
            self._ask_anew("the packages were removed right after they had been published")
        else:
            self._request = None
            self._end(status)

    def _end(self, status: Status) -> None:
        where = self.build_url
        if status.state == "failed":
            raise errors.PackagesFailed(self.name, status.reason, status.error, where)
        if status.state == "cancelled":
            raise errors.Cancelled(self.name, status.reason or status.error, where)
        if status.state == "infrastructure":
            raise errors.Trouble(self.name, status.reason, status.error, where)
        self._step = self._confirm

    def _ask_anew(self, why: str) -> None:
        self._request = None
        if self._asks >= ASKS:
            raise errors.Trouble(self.name, f"asked for {self._asks} times, and {why}", "", self.build_url)
        self._shared.log.warning("%s: %s; it is asked for again", self.name, why)
        self._step = self._ask
        # Not at once: a master that forgets again and again must not be hurried into it.
        self.due = self._shared.clock() + self._interval

    def _whose(self, status: Status) -> How:
        """Tell whether this job's ask began it: then it is the first of those who wait."""
        first = status.waiting[0].job if status.waiting else self._shared.settings.job
        return "built" if first == self._shared.settings.job else "waited for"

    def _renew(self, now: float) -> None:
        shared = self._shared
        if not shared.settings.job or now - self._heard < RENEW or self._request is None:
            return
        try:
            shared.master.renew(self._request, timeout=self._timeout(shared.settings.look_timeout))
        except Unknown:
            self._ask_anew(f"{shared.master.name} does not know any more that this job waits")
        except (Away, errors.BuildpackagesError) as error:
            # It is said again with the next look; the build goes on meanwhile, whoever waits for it.
            shared.log.debug("%s: could not say that this job still waits: %s", self.name, error)
        else:
            self._heard = now

    def _confirm(self) -> None:
        """Look where install will: that the master has it does not help who can't fetch it."""
        shared = self._shared
        if self._held_up(shared.serving):
            return
        now = shared.clock()
        if self._published is None:
            self._published = now
        url = self.goal.version_url(self._sha1)
        try:
            version = look(url, self._timeout(shared.settings.look_timeout))
        except wire.Untrusted as error:
            raise errors.WrongSettings(
                f"{shared.master.name} has published it, and {shared.serving.server} can't be looked at: {error}",
                package_key=self.name,
                build_url=self.build_url,
            ) from None
        except wire.NoAnswer as error:
            self._in_vain(shared.serving, str(error))
            return
        shared.serving.answered()
        if version is not None:
            shared.log.info(
                "%s: published, version %s, after %s", self.name, version, errors.duration(now - self._began)
            )
            self._arrive()
        elif now - self._published >= HIDDEN:
            raise errors.WrongSettings(
                f"{shared.master.name} has published it, but {url} is not there: set `packages_url` of"
                " `buildpackages` to its package server",
                package_key=self.name,
                build_url=self.build_url,
            )
        else:
            self.due = now + self._interval
            self._interval = min(LATEST, self._interval * 1.5)

    def _arrive(self) -> None:
        seconds = self._shared.clock() - self._began
        url = self.goal.version_url(self._sha1).removesuffix("version")
        build_url = self.status.build_url if self.status else None
        key = f"{self.goal.target}/{self._sha1}"
        self.outcome = Outcome(self.goal, key, self._sha1, url, seconds, self._how, build_url)

    def _held_up(self, patience: Patience) -> bool:
        """Wait with the others until a server that is away is tried again."""
        if patience.next_try <= self._shared.clock():
            return False
        self.due = patience.next_try
        return True

    def _in_vain(self, patience: Patience, why: str) -> None:
        patience.failed(why, self.name, self.build_url)
        self.due = patience.next_try
