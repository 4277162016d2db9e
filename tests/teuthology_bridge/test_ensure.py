"""Several goals at once: looked for, asked for once, followed through whatever happens, and one line if they don't come."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.teuthology_bridge.fake_master import KEY, MOVED, OTHER, SHA1, TARGET, TOKEN, FakeMaster
from tests.teuthology_bridge.peers import MUTE, STRANGE, Behave, Peer, says
from tests.teuthology_bridge.test_wire import secure
from teuthology_bridge import ensure
from teuthology_bridge.ensure import Ensure, Goal, Outcome
from teuthology_bridge.errors import (
    BuildpackagesError,
    Cancelled,
    PackagesFailed,
    TimeLimit,
    Trouble,
    Unreachable,
    WrongJob,
    WrongSettings,
)
from teuthology_bridge.settings import Settings

GIT = "https://example.org/ceph.git"
LOG = logging.getLogger("bridge")
BUILDING = {"state": "building", "build": 1, "step": "compile"}


@pytest.fixture
def fake() -> Iterator[FakeMaster]:
    with FakeMaster(refs={"main": SHA1}) as fake:
        yield fake


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


class Job:
    """A job's ensure, with a clock that only its own sleep moves: what happens at which second may be said."""

    def __init__(self, fake: FakeMaster, **settings: Any) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.at: dict[float, Callable[[], None]] = {}
        given = {
            "url": fake.url,
            "packages_url": fake.packages_url,
            "token": TOKEN,
            "job": "run/1",
            **settings,
        }
        self.ensure = Ensure(
            Settings(**given), LOG, reason="why", clock=lambda: self.now, sleep=self.sleep, chance=lambda: 1.0
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        for moment in sorted(self.at):
            if moment <= self.now:
                self.at.pop(moment)()

    def run(self, *goals: Goal) -> list[Outcome]:
        return self.ensure.run(goals)


def goal(fake: FakeMaster, kind: str = "sha1", value: str = SHA1, target: str = TARGET, **more: Any) -> Goal:
    return Goal(target, kind, value, GIT, fake.version_url(target), **more)  # type: ignore[arg-type]


# Published already


def test_what_is_published_costs_one_look(fake: FakeMaster) -> None:
    """A commit whose packages are there needs one small GET, and nobody asks the master."""
    fake.published.add(KEY)
    [outcome] = Job(fake).run(goal(fake))
    assert (len(fake.looks), fake.requests) == (1, [])
    url = f"{fake.packages_url}{TARGET}/sha1/{SHA1}/"
    assert (outcome.package_key, outcome.sha1, outcome.url) == (KEY, SHA1, url)
    assert (outcome.how, outcome.built, outcome.build_url) == ("found", False, None)


def test_a_published_ref_costs_an_ask_and_a_look(fake: FakeMaster) -> None:
    """A branch whose commit is published needs two requests: the master resolves it, and the packages are there."""
    fake.published.add(KEY)
    [outcome] = Job(fake).run(goal(fake, "branch", "main"))
    assert (len(fake.looks), fake.order) == (1, ["ask"])
    assert (outcome.package_key, outcome.sha1, outcome.how) == (KEY, SHA1, "found")


# Built


def test_what_is_not_there_is_asked_for_once_and_followed(
    fake: FakeMaster, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for once, followed to the end, looked at where install will look, and the log tells the way."""
    fake.script = [
        {"reason": "waits for a free worker"},
        {"build": 1, "reason": "the machine starts"},
        {**BUILDING, "step": "checkout"},
        {**BUILDING, "percent": 35, "time_left": 120.0},
        {"state": "published"},
    ]
    [outcome] = Job(fake).run(goal(fake, good_machine={"cpus": 4}))
    assert fake.order == ["ask", *["status 1"] * 5]
    assert fake.asked() == [
        {
            "builderNames": [TARGET],
            "sha1": SHA1,
            "git_url": GIT,
            "reason": "why",
            "job": "run/1",
            "good_machine": {"cpus": 4},
        }
    ]
    assert (outcome.how, outcome.build_url) == ("built", f"{fake.url}#/builders/3/builds/1")
    assert outcome.seconds == pytest.approx(1 + 1.5 + 2.25 + 3.375)
    assert caplog.messages == [
        f"{KEY}: asked the master at {fake.url} for it, buildrequest 1",
        f"{KEY}: waits for a free worker, {fake.url}#/buildrequests/1",
        f"{KEY}: is built at {fake.url}#/builders/3/builds/1",
        f"{KEY}: step checkout (for 2 s now)",
        f"{KEY}: step compile (for 5 s now, 35 %, about 2 min left)",
        f"{KEY}: published, version 17.2.6-1, after 8 s",
    ]


def test_looks_become_rare(fake: FakeMaster) -> None:
    """The first look comes after a second, and later ones up to a quarter of a minute apart."""
    fake.script = [BUILDING] * 12 + [{"state": "published"}]
    job = Job(fake)
    job.run(goal(fake))
    assert job.slept == pytest.approx([1, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625, 15, 15, 15, 15, 15])


def test_who_joins_does_not_build(fake: FakeMaster) -> None:
    """Packages that somebody else's ask has on their way are waited for."""
    fake.waiting = [{"asker": "kim", "job": "", "since": 1.0}]
    [outcome] = Job(fake).run(goal(fake))
    assert (outcome.how, outcome.built) == ("waited for", False)


def test_a_retry_is_followed(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """The buildrequest is followed, not the build: one that is lost and tried again is news and no failure."""
    lost = "the machine was lost; it is tried again, and waits for a free worker"
    fake.script = [
        BUILDING,
        {"state": "waiting", "step": "", "reason": lost},
        {**BUILDING, "build": 2},
        {"state": "published"},
    ]
    [outcome] = Job(fake).run(goal(fake))
    assert outcome.build_url == f"{fake.url}#/builders/3/builds/2"
    assert caplog.messages[3:6] == [
        f"{KEY}: {lost} (for 1 s now)",
        f"{KEY}: is tried again (build 2) at {fake.url}#/builders/3/builds/2",
        f"{KEY}: step compile (for 2 s now)",
    ]


def test_three_goals_at_once(fake: FakeMaster) -> None:
    """All goals are asked for before any is waited for, each once, and the outcomes come in their order."""
    fake.refs["wip"] = MOVED
    fake.published.add(f"{OTHER}/{SHA1}")
    fake.script = [BUILDING] * 5 + [{"state": "published"}]
    goals = [goal(fake), goal(fake, target=OTHER), goal(fake, "branch", "wip")]
    outcomes = Job(fake).run(*goals, goals[0])
    assert [one.package_key for one in outcomes] == [KEY, f"{OTHER}/{SHA1}", f"{TARGET}/{MOVED}", KEY]
    assert [one.how for one in outcomes] == ["built", "found", "built", "built"]
    assert [kind for kind in fake.order if kind == "ask"] == ["ask", "ask"]
    assert set(fake.order[:4]) == {"ask", "status 1", "status 2"}


def test_it_is_said_that_the_job_still_waits(fake: FakeMaster) -> None:
    """Every two minutes the master is told that this job waits, lest it is taken for dead; a refusal stops nothing."""
    fake.script = [BUILDING] * 45 + [{"state": "published"}]
    fake.instead = lambda method, path: (
        (403, {"error": "x"}) if method == "POST" and path.endswith("packages/1") and job.now > 350 else None
    )
    job = Job(fake)
    job.run(goal(fake))
    assert fake.order.count("renew 1") == 2
    assert fake.asked("renew")[0] == {"job": "run/1"}


def test_a_person_is_not_forgotten(fake: FakeMaster) -> None:
    """Who asks without a run of a program waits until the end, and need not say so."""
    fake.script = [BUILDING] * 30 + [{"state": "published"}]
    Job(fake, job="").run(goal(fake))
    assert "renew 1" not in fake.order


# Failed


def test_a_commit_that_does_not_build(fake: FakeMaster) -> None:
    """A failed build ends in one line with the key, the sentence, the error and the page; nothing is left to withdraw."""
    fake.script = [
        BUILDING,
        {"state": "failed", "reason": "make failed (2)", "error": "a.cc:3: error: expected ';'"},
    ]
    with pytest.raises(PackagesFailed) as caught:
        Job(fake).run(goal(fake))
    page = f"{fake.url}#/builders/3/builds/1"
    assert (
        str(caught.value)
        == f"{KEY}: the build failed: make failed (2): a.cc:3: error: expected ';'; see {page}"
    )
    assert "withdraw 1" not in fake.order


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("infrastructure", Trouble, "could not be built, and not because of the commit: why"),
        ("cancelled", Cancelled, "the build was cancelled: why; run the job again to ask anew"),
    ],
)
def test_other_ends(fake: FakeMaster, state: str, error: type[BuildpackagesError], told: str) -> None:
    """A build that could not be made, or was ended, is told as that, with the request's page if there was no build."""
    fake.script = [{"state": state, "reason": "why"}]
    with pytest.raises(error) as caught:
        Job(fake).run(goal(fake))
    assert str(caught.value) == f"{KEY}: {told}; see {fake.url}#/buildrequests/1"


def test_one_that_fails_ends_all(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """When one can't be had, the others are of no use to the job: it withdraws, and tells what came of that."""
    fake.refs["wip"] = MOVED
    fake.script = [BUILDING, BUILDING, {"state": "failed"}]
    with pytest.raises(PackagesFailed):
        Job(fake).run(goal(fake), goal(fake, "branch", "wip"))
    assert fake.order[-1] == "withdraw 2"
    assert fake.requests[-1][1] == {"job": "run/1"}
    assert caplog.messages[-1] == f"{TARGET}/{MOVED}: withdrawn; the build is cancelled"


def test_a_wrong_ask_fails_at_once(fake: FakeMaster) -> None:
    """What the master refuses is not tried again, and nothing is withdrawn that was never taken."""
    with pytest.raises(WrongJob, match="has no tag 'nosuch'"):
        Job(fake).run(goal(fake, "tag", "nosuch"))
    assert fake.order == ["ask"]


# The master is away


@pytest.mark.parametrize(
    "instead",
    [
        (502, "<html>Bad Gateway</html>"),
        (200, "<html>We'll be back</html>"),
        (404, "<html>"),
        (302, "http://x/"),
        (200, {"packages": 5}),
    ],
    ids=repr,
)
def test_somebody_answers_in_its_place(fake: FakeMaster, instead: tuple[int, str]) -> None:
    """Pages of a proxy while the master is away are waited out, before the ask and after."""
    settled = instead[0] in (404, 302)
    # To who never met the master these would be wrong settings.
    fake.instead = lambda *_: None if settled else instead
    fake.script = [BUILDING] * 4 + [{"state": "published"}]
    job = Job(fake)
    job.at = {
        2: lambda: setattr(fake, "instead", lambda *_: None),
        7: lambda: setattr(fake, "instead", lambda *_: instead),
        200: lambda: setattr(fake, "instead", lambda *_: None),
    }
    [outcome] = job.run(goal(fake))
    assert outcome.seconds >= 200
    assert fake.order.count("ask") == 1


def test_a_master_that_is_killed_and_started_again(
    fake: FakeMaster, caplog: pytest.LogCaptureFixture
) -> None:
    """A master that is gone for a while is waited for, told of once a minute at most, and asked no second time."""
    fake.script = [BUILDING, BUILDING, {"state": "published"}]
    job = Job(fake)
    job.at = {2: fake.kill, 300: fake.start_again}
    [outcome] = job.run(goal(fake))
    assert outcome.how == "built"
    assert fake.order.count("ask") == 1
    away = [message for message in caplog.messages if "gives no answer" in message]
    assert 4 <= len(away) <= 6
    assert (
        away[0]
        == f"the master at {fake.url} gives no answer (Connection refused); it is tried again, for 30 min more at most"
    )
    assert any(
        message.startswith(f"the master at {fake.url} answers again, after") for message in caplog.messages
    )


def test_a_master_that_stays_away(fake: FakeMaster) -> None:
    """A master that is gone for longer than the job bears with it makes the job dead, with for how long and why."""
    fake.script = [BUILDING]
    job = Job(fake, unreachable_limit=600)
    job.at = {50: fake.kill}
    with pytest.raises(Unreachable) as caught:
        job.run(goal(fake))
    assert str(caught.value) == (
        f"{KEY}: the master at {fake.url} gave no answer for 10 min, at last because: Connection refused;"
        f" see {fake.url}#/builders/3/builds/1"
    )
    assert job.now < 700
    fake.start_again()


def test_a_master_that_lost_its_database(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """A request that the master does not know any more is asked for anew, by the commit that the branch was at first."""
    fake.script = [BUILDING, BUILDING, {"state": "published"}]
    job = Job(fake)

    def lose() -> None:
        fake.forget()
        fake.refs["main"] = MOVED

    job.at = {2: lose}
    [outcome] = job.run(goal(fake, "branch", "main"))
    assert outcome.package_key == KEY
    assert [(params.get("ref"), params.get("sha1")) for params in fake.asked()] == [
        ("refs/heads/main", None),
        (None, SHA1),
    ]
    assert (
        f"{KEY}: the master at {fake.url} does not know buildrequest 1 any more; it is asked for again"
        in caplog.messages
    )


def test_a_master_that_forgets_again_and_again(fake: FakeMaster) -> None:
    """Asking anew has an end."""
    job = Job(fake)
    real = fake._of_status
    fake._of_status = lambda request: (fake.forget(), real(request))[1]
    with pytest.raises(Trouble, match="asked for 4 times, and the master at .* does not know buildrequest"):
        job.run(goal(fake))
    assert fake.order.count("ask") == 4


def test_a_build_that_was_cancelled_while_nobody_could_say_that_he_waits(fake: FakeMaster) -> None:
    """A job that was cut off for long, and so forgotten, asks anew when its build was cancelled meanwhile."""
    fake.script = [BUILDING, BUILDING, {"state": "cancelled"}, {"state": "published"}]
    job = Job(fake)

    def forget() -> None:
        fake.start_again()
        real = fake._of_ask
        fake._of_ask = lambda params: (fake._keys.clear(), real(params))[1]

    job.at = {2: fake.kill, 900: forget}
    [outcome] = job.run(goal(fake))
    assert fake.order.count("ask") == 2
    assert outcome.package_key == KEY


def test_packages_that_were_purged_as_soon_as_they_were_there(
    fake: FakeMaster, caplog: pytest.LogCaptureFixture
) -> None:
    """Packages that were published and removed before this job saw them are requested again, with the reason."""
    fake.script = [BUILDING, {"state": "purged"}, {"state": "published"}]
    job = Job(fake)

    def purge() -> None:
        real = fake._of_ask
        fake._of_ask = lambda params: (fake._keys.clear(), real(params))[1]

    job.at = {1: purge}
    [outcome] = job.run(goal(fake))
    assert outcome.package_key == KEY
    assert fake.order.count("ask") == 2
    assert (
        f"{KEY}: the packages were removed right after they had been published; it is asked for again"
        in caplog.messages
    )


def test_a_master_that_does_not_know_any_more_who_waits(
    fake: FakeMaster, caplog: pytest.LogCaptureFixture
) -> None:
    """A master that refuses a job's word that it still waits is asked again, so that the job counts as waiting."""
    fake.script = [BUILDING] * 45 + [{"state": "published"}]
    real = fake._of_word
    words: list[str] = []

    def refuse_once(method: str, request: int, params: dict[str, Any]) -> tuple[int, Any]:
        words.append(method)
        if len(words) == 1:
            return 400, {"error": {"code": 1, "message": "run/1 does not wait for buildrequest 1"}}
        return real(method, request, params)

    fake._of_word = refuse_once
    [outcome] = Job(fake).run(goal(fake))
    assert outcome.package_key == KEY
    assert fake.order.count("ask") == 2
    told = (
        f"{KEY}: the master at {fake.url} does not know any more that this job waits; it is asked for again"
    )
    assert told in caplog.messages


# A release's tag

CI = "https://example.org/ceph-ci.git"


def with_tags(fake: FakeMaster, **tags: tuple[str, str]) -> None:
    """Have each tag be in one repository only."""
    real = fake._of_ask

    def ask(params: dict[str, Any]) -> tuple[int, Any]:
        name = params.get("ref", "").removeprefix("refs/tags/")
        where, sha1 = tags.get(name, ("", ""))
        fake.refs = {name: sha1} if params["git_url"] == where else {}
        return real(params)

    fake._of_ask = ask


def test_a_release_is_looked_for_in_the_other_repository(
    fake: FakeMaster, caplog: pytest.LogCaptureFixture
) -> None:
    """A tag that ceph-ci.git lacks is asked for in ceph.git, as teuthology does, and built from there; that is said."""
    with_tags(fake, release=(GIT, SHA1))
    fake.script = [BUILDING, {"state": "published"}]
    [outcome] = Job(fake).run(replace(goal(fake, "tag", "release"), git_url=CI))
    assert outcome.package_key == KEY
    assert [ask["git_url"] for ask in fake.asked()] == [CI, GIT]
    assert caplog.messages[0] == f"{TARGET}/release: {CI} has no tag release; a tag is looked for in {GIT}"


def test_a_tag_that_neither_repository_has(fake: FakeMaster) -> None:
    """Both repositories are named."""
    with pytest.raises(WrongJob) as caught:
        Job(fake).run(replace(goal(fake, "tag", "nosuch"), git_url=CI))
    refused = f"{TARGET}/nosuch can't be asked for: ref: {{}} has no tag 'nosuch'"
    assert str(caught.value) == f"{refused.format(CI)}; {refused.format(GIT)}"


def test_another_repository_has_its_own_tags(fake: FakeMaster) -> None:
    """What is no ceph-ci.git has no ceph.git beside it."""
    with pytest.raises(WrongJob, match="has no tag 'nosuch'$"):
        Job(fake).run(goal(fake, "tag", "nosuch"))
    assert fake.order == ["ask"]


def test_what_a_job_calls_a_branch_may_be_a_tag(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """A gitbuilder has both in one place; a branch goes first, and only the job's own repository is asked."""
    fake.refs = {"refs/tags/v1": SHA1, "refs/tags/both": OTHER, "refs/heads/both": SHA1}
    fake.script = [{"state": "published"}]
    job = Job(fake)
    assert [outcome.sha1 for outcome in job.run(goal(fake, "branch", "v1"))] == [SHA1]
    assert caplog.messages[0] == f"{TARGET}/v1: {GIT} has no branch v1; a tag is looked for in {GIT}"
    assert [outcome.sha1 for outcome in Job(fake).run(goal(fake, "branch", "both"))] == [SHA1]
    with pytest.raises(WrongJob) as caught:
        Job(fake).run(replace(goal(fake, "branch", "nosuch"), git_url=CI))
    refused = f"{TARGET}/nosuch can't be asked for: ref: {CI} has no {{}} 'nosuch'"
    assert str(caught.value) == f"{refused.format('branch')}; {refused.format('tag')}"


# A repository is away

NO_GIT = (400, {"error": {"code": -32000, "message": {"git_url": f"{GIT} did not answer within 30 s"}}})


def without_git(fake: FakeMaster, *urls: str) -> None:
    """Have the master find these repositories away."""
    real = fake._of_ask

    def ask(params: dict[str, Any]) -> tuple[int, Any]:
        if "ref" not in params or params["git_url"] not in urls:
            return real(params)
        fake.requests.append(("in vain", params))
        return NO_GIT

    fake._of_ask = ask


def test_a_repository_that_stays_away(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """It is borne with as a server is, however well the master answers meanwhile, and named in the end."""
    without_git(fake, GIT)
    fake.script = [BUILDING]
    job = Job(fake, unreachable_limit=600)
    with pytest.raises(Unreachable) as caught:
        job.run(goal(fake), goal(fake, "branch", "main"))
    why = f"the master at {fake.url} says git_url: {GIT} did not answer within 30 s"
    assert str(caught.value) == (
        f"{TARGET}/main: the repository {GIT} gave no answer for 10 min, at last because: {why}"
    )
    assert 600 <= job.now < 615
    assert len(fake.asked("in")) < 30
    told = [message for message in caplog.messages if "answer" in message]
    assert (
        told[0] == f"the repository {GIT} gives no answer ({why}); it is tried again, for 10 min more at most"
    )
    assert len(told) <= 11


def test_a_repository_that_comes_back(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """All whose refs are there wait for it together, others are not held up, and it is asked again when it is back."""
    fake.refs["wip"] = MOVED
    real = fake._of_ask
    without_git(fake, GIT)
    fake.script = [BUILDING] * 40 + [{"state": "published"}]
    job = Job(fake)
    job.at = {80: lambda: setattr(fake, "_of_ask", real)}
    elsewhere = replace(goal(fake, "branch", "main", OTHER), git_url="https://else.example/ceph.git")
    job.run(goal(fake, "branch", "main"), goal(fake, "branch", "wip"), elsewhere)
    assert [(ask["ref"], ask["git_url"] == GIT) for ask in fake.asked()] == [
        ("refs/heads/main", False),
        ("refs/heads/main", True),
        ("refs/heads/wip", True),
    ]
    assert len(fake.asked("in")) < 20
    assert any(one.startswith(f"the repository {GIT} answers again, after 1 min") for one in caplog.messages)
    assert not any(
        "the master" in one.split(" gives no answer")[0]
        for one in caplog.messages
        if " gives no answer" in one
    )


def test_the_limit_while_a_repository_is_away(fake: FakeMaster) -> None:
    """A limit that passes meanwhile tells which repository it is."""
    without_git(fake, GIT)
    with pytest.raises(
        TimeLimit,
        match=f"the master has not taken the ask yet; the repository {GIT} gives no answer \\(the master at ",
    ):
        Job(fake, limit=100).run(goal(fake, "branch", "main"))


# The package server


def test_a_package_server_that_is_away_at_first(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """When the package server can't be looked at, the master knows; in the end it must be there, as install needs it."""
    fake.kill_package_server()
    fake.published.add(KEY)
    job = Job(fake, unreachable_limit=100)
    with pytest.raises(Unreachable) as caught:
        job.run(goal(fake))
    assert str(caught.value).startswith(
        f"{KEY}: the package server at {fake.packages_url} gave no answer for 1 min 40 s"
    )
    assert caplog.messages[0] == f"{KEY}: {fake.packages_url} can't be looked at: Connection refused"
    fake._packages = fake._start(0, fake._of_packages)


def test_packages_that_are_somewhere_else(fake: FakeMaster) -> None:
    """What the master calls published and the package server does not have is a wrong setting, after a little patience."""
    fake.published.add(KEY)
    fake.served = False
    job = Job(fake)
    with pytest.raises(WrongSettings) as caught:
        job.run(goal(fake))
    assert str(caught.value) == (
        f"{KEY}: the master at {fake.url} has published it, but {fake.version_url()(SHA1)} is not there:"
        " set `packages_url` of `buildpackages` to its package server"
    )
    assert 30 <= job.now < 60


def test_packages_that_come_a_little_late(fake: FakeMaster) -> None:
    """A cache in front of the package server may be behind for a moment."""
    fake.published.add(KEY)
    fake.served = False
    job = Job(fake)
    job.at = {10: lambda: setattr(fake, "served", True)}
    [outcome] = job.run(goal(fake))
    assert outcome.how == "found"


def test_a_package_server_that_is_not_trusted(
    fake: FakeMaster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that is not trusted is told once before, and what is published then fails at once: waiting helps nobody."""
    fake.published |= {KEY, f"{OTHER}/{SHA1}"}
    with secure(tmp_path, says("200 OK", b"1.0\n")) as (peer, _):
        job = Job(fake, packages_url=peer.url)
        goals = [
            Goal(one, "sha1", SHA1, GIT, lambda sha1: f"{peer.url}{sha1}/version") for one in (TARGET, OTHER)
        ]
        with pytest.raises(WrongSettings) as caught:
            job.run(*goals)
    why = f"the package server at {peer.url}"
    untrusted = "its certificate is not trusted here: self-signed certificate"
    assert str(caught.value) == (
        f"{KEY}: the master at {fake.url} has published it, and {why} can't be looked at: {untrusted}"
    )
    assert job.now == 0
    assert [one for one in caplog.messages if why in one] == [
        f"{why}: {untrusted}; what is built can't be seen there before that changes"
    ]


def test_a_login_page_is_no_version(fake: FakeMaster) -> None:
    """A page that answers everything with 200 does not pass for packages."""
    with Peer(says("200 OK", b"<html>Login</html>")) as peer:
        job = Job(fake, packages_url=peer.url, unreachable_limit=60)
        fake.published.add(KEY)
        with pytest.raises(
            Unreachable, match="at last because: it answered with status 200 and '<html>Login</html>'"
        ):
            job.run(Goal(TARGET, "sha1", SHA1, GIT, lambda sha1: f"{peer.url}{sha1}/version"))


# The limit


def test_the_limit(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """At its limit a job gives up exactly then, tells how far it was, and withdraws."""
    fake.script = [{**BUILDING, "step_state": "35 of 100"}]
    job = Job(fake, limit=1000)
    with pytest.raises(TimeLimit) as caught:
        job.run(goal(fake))
    assert job.now == 1000
    assert str(caught.value) == (
        f"{KEY}: not there within 16 min, which is its `limit`: step compile, 35 of 100;"
        f" see {fake.url}#/builders/3/builds/1"
    )
    assert fake.order[-1] == "withdraw 1"
    assert caplog.messages[-1] == f"{KEY}: withdrawn; the build is cancelled"


def test_the_limit_while_the_master_is_away(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """A limit that passes while the master is away tells that, too, and who never heard of the job need not forget it."""
    job = Job(fake, limit=100)
    fake.kill()
    with pytest.raises(TimeLimit) as caught:
        job.run(goal(fake))
    assert str(caught.value) == (
        f"{KEY}: not there within 1 min 40 s, which is its `limit`: the master has not taken the ask yet;"
        f" the master at {fake.url} gives no answer (Connection refused)"
    )
    assert not any("withdraw" in message for message in caplog.messages)
    fake.start_again()


# Withdrawing


def test_others_go_on_waiting(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever else waits is named: for him it goes on."""
    fake.waiting = [{"asker": "kim", "job": "", "since": 1.0}]
    fake.script = [BUILDING]
    with pytest.raises(TimeLimit):
        Job(fake, limit=10).run(goal(fake))
    assert caplog.messages[-1] == f"{KEY}: withdrawn; it goes on for kim"


def test_a_withdrawal_in_vain(fake: FakeMaster, caplog: pytest.LogCaptureFixture) -> None:
    """Who can't withdraw says that what is built may go on, and ends as he would have."""
    fake.script = [BUILDING]
    job = Job(fake, limit=10)
    job.at = {5: fake.kill}
    with pytest.raises(TimeLimit):
        job.run(goal(fake))
    assert caplog.messages[-1] == (
        f"{KEY}: could not withdraw; its build may go on though nobody waits for it: Connection refused"
    )
    fake.start_again()


def test_a_signal_withdraws_once(fake: FakeMaster) -> None:
    """What a signal's handler withdrew is not withdrawn again when the job ends."""
    fake.script = [BUILDING]
    job = Job(fake, limit=100)
    job.at = {10: lambda: job.ensure.withdraw(in_signal_handler=True)}
    with pytest.raises(TimeLimit):
        job.run(goal(fake))
    assert fake.order.count("withdraw 1") == 1


def test_an_interrupt_withdraws(fake: FakeMaster) -> None:
    """Also an exception that is none of ours ends the waiting at the master."""
    fake.script = [BUILDING]
    job = Job(fake)

    def interrupt() -> None:
        raise KeyboardInterrupt

    job.at = {10: interrupt}
    with pytest.raises(KeyboardInterrupt):
        job.run(goal(fake))
    assert fake.order[-1] == "withdraw 1"


def test_an_ask_without_an_answer_is_withdrawn_as_well(fake: FakeMaster) -> None:
    """When an ask may have been taken, it is asked again what came of it, and that is withdrawn."""
    real, taken = fake._of_ask, []

    def take(params: dict[str, Any]) -> tuple[int, Any]:
        taken.append(real(params))
        return (502, "<html>") if len(taken) == 1 else taken[-1]

    fake._of_ask = take
    job = Job(fake, limit=0.5)
    with pytest.raises(TimeLimit):
        job.run(goal(fake))
    assert fake.order == ["ask", "ask", "withdraw 1"]


def test_an_ask_that_is_refused_at_last_is_withdrawn_as_well(fake: FakeMaster) -> None:
    """An ask that may have been taken is not forgotten when a later one is refused."""
    real = fake._of_ask
    answers = [(502, "<html>"), (403, {"error": {"message": "asking needs a user: log in"}})]

    def take(params: dict[str, Any]) -> tuple[int, Any]:
        taken = real(params)
        return answers.pop(0) if answers else taken

    fake._of_ask = take
    with pytest.raises(WrongSettings):
        Job(fake).run(goal(fake))
    assert fake.order == ["ask", "ask", "ask", "withdraw 1"]


# Whatever the network does


def after_a_good_ask(behave: Behave) -> Behave:
    """Treat everybody but those who ask."""
    answer = {"package_key": KEY, "state": "on its way", "url": "u", "buildrequest_ids": {"3": 1}}
    asked = says("200 OK", json.dumps({"result": [1, {"3": 1}, [answer]]}).encode())

    def treat(one: socket.socket, over: Event) -> None:
        head = one.recv(4096, socket.MSG_PEEK)
        (asked if b"forceschedulers" in head.split(b"\r\n")[0] else behave)(one, over)

    return treat


BAD: dict[str, Behave] = {
    **MUTE,
    **{name: behave for name, (behave, _) in STRANGE.items()},
    "redirects": says("302 Found", b"", "Location: http://127.0.0.1:9/"),
    "redirects the ask": says("307 Temporary Redirect", b"", "Location: http://127.0.0.1:9/"),
    "answers HTML": says("200 OK", b"<html>Welcome</html>"),
    "is a bad gateway": says("502 Bad Gateway", b"<html>502</html>"),
    "answers something else": says("200 OK", b'{"packages": 5}'),
    "answers too deep": says("200 OK", b"[" * 500_000),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("where", ["everywhere", "after the ask", "at the packages"])
def test_a_job_ends_whatever_the_network_does(
    where: str, fake: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the clock of the machine: the job ends soon after its limit, in one of our exceptions and one line."""
    monkeypatch.setattr(ensure, "WITHDRAW", 0.2)
    fake.published.add(KEY)

    def end_of(name: str) -> str:
        with Peer(after_a_good_ask(BAD[name]) if where == "after the ask" else BAD[name]) as peer:
            settings = Settings(
                url=fake.url if where == "at the packages" else peer.url,
                packages_url=peer.url,
                token=TOKEN,
                job="run/1",
                limit=1,
                look_timeout=0.3,
                ask_timeout=0.3,
            )
            with pytest.raises(BuildpackagesError) as caught:
                Ensure(settings, LOG).run(
                    [Goal(TARGET, "sha1", SHA1, GIT, lambda sha1: f"{peer.url}{sha1}/version")]
                )
        return str(caught.value)

    with ThreadPoolExecutor(len(BAD)) as pool:
        for name, told in zip(BAD, pool.map(end_of, BAD), strict=True):
            assert told.isprintable(), name
            assert re.search(r"which is its `limit`|set `url` of", told), name


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "behave", [MUTE["stalls"], after_a_good_ask(MUTE["stalls"])], ids=["at once", "later"]
)
def test_no_exchange_outlives_the_limit(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long an exchange may last by itself, the job's limit ends it."""
    monkeypatch.setattr(ensure, "WITHDRAW", 0.2)
    with Peer(behave) as peer:
        settings = Settings(url=peer.url, packages_url=peer.url, limit=0.5, look_timeout=600, ask_timeout=600)
        with pytest.raises(TimeLimit):
            Ensure(settings, LOG).run([Goal(TARGET, "branch", "main", GIT, lambda sha1: peer.url)])


def test_time_goes_on_by_itself(fake: FakeMaster) -> None:
    """Without a clock given, it is the machine's, and so are sleep and chance."""
    fake.script = [BUILDING, {"state": "published"}]
    settings = Settings(url=fake.url, packages_url=fake.packages_url, token=TOKEN)
    [outcome] = Ensure(settings, LOG).run([goal(fake)])
    assert outcome.seconds >= 0.7
