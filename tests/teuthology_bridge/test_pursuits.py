"""Many needs at once, each to its own end; the clock is moved by their own sleep only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from threading import Barrier
from typing import Any

import pytest

from tests.teuthology_bridge.fake_master import MOVED, OTHER, SHA1, TARGET, TOKEN, FakeMaster
from teuthology_bridge.errors import BuildpackagesError, WrongSettings
from teuthology_bridge.needs import Need
from teuthology_bridge.pursuits import Pursuits
from teuthology_bridge.settings import Settings
from teuthology_bridge.surroundings import AT_ONCE
from teuthology_bridge.table import Row

GIT = "https://example.org/ceph.git"
CI = "https://example.org/ceph-ci.git"
LOG = logging.getLogger("bridge")
BUILDING = {"state": "building", "build": 1, "step": "compile", "percent": 10, "time_left": 100.0}
DONE = {"state": "published", "step": "", "percent": 100, "time_left": None}
NOWHERE = "ceph-deb-nowhere-x86_64-default"


@pytest.fixture
def fake() -> Iterator[FakeMaster]:
    with FakeMaster(refs={"main": SHA1, "same": SHA1, "next": MOVED}) as fake:
        yield fake


class Run:
    """A run's pursuits, and what whoever watches has seen at which second."""

    def __init__(
        self, fake: FakeMaster, *needs: tuple[str, str, str], git_url: str = GIT, **settings: Any
    ) -> None:
        self.now = 0.0
        self.at: dict[float, Callable[[], None]] = {}
        self.seen: list[tuple[float, list[Row]]] = []
        given = {
            "url": fake.url,
            "packages_url": fake.packages_url,
            "token": TOKEN,
            "job": "prefetch/1",
            **settings,
        }
        self.pursuits = Pursuits(
            [self._need(fake, git_url, *need) for need in needs], Settings(**given), LOG,
            reason="why", clock=lambda: self.now, sleep=self._sleep, chance=lambda: 1.0,
        )  # fmt: skip

    @staticmethod
    def _need(fake: FakeMaster, git_url: str, target: str, kind: str, value: str) -> Need:
        return Need(
            target, kind, value, git_url, lambda sha1: f"{fake.packages_url}{target}/sha1/{sha1}/",
            jobs=[f"{kind} {value}"], refs=[] if kind == "sha1" else [value],
        )  # fmt: skip

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in sorted(self.at):
            if moment <= self.now:
                self.at.pop(moment)()

    def run(self) -> Run:
        self.pursuits.run(lambda: self.seen.append((self.now, self.pursuits.rows())))
        return self

    @property
    def states(self) -> dict[str, str]:
        return {row.key: row.state for row in self.pursuits.rows()}

    @property
    def errors(self) -> list[str]:
        return [str(one.error) for one in self.pursuits.entries if one.error]


def test_all_are_asked_for_before_any_is_done(fake: FakeMaster) -> None:
    """What is published is found, all else is on its way at once, and it ends when the last is published."""
    fake.published.add(f"{OTHER}/{SHA1}")
    fake.script = [BUILDING, BUILDING, BUILDING, DONE]
    run = Run(fake, (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1), (TARGET, "sha1", MOVED)).run()
    assert set(run.states.values()) == {"published"}
    assert fake.order[:2] == ["ask", "ask"]
    assert [one.pursuit.outcome.how for one in run.pursuits.entries if one.pursuit and one.pursuit.outcome] == [
        "built", "found", "built",
    ]  # fmt: skip
    assert "withdraw" not in " ".join(fake.order)


def test_all_are_asked_for_side_by_side(fake: FakeMaster) -> None:
    """The answers are waited for at the same time: as many asks as may be are there before the first is answered."""
    many = {f"wip-{n}": f"{n:040x}" for n in range(AT_ONCE + 2)}
    fake.refs |= many
    together = Barrier(AT_ONCE)
    fake.hold = lambda number: together.wait(60) if number < AT_ONCE else None
    run = Run(fake, *((TARGET, "branch", name) for name in many)).run()
    assert run.states == {f"{TARGET}/{sha1}": "published" for sha1 in many.values()}
    assert len(fake.asked()) == len(many)
    assert fake.most_held == AT_ONCE


def test_a_name_is_resolved_once(fake: FakeMaster) -> None:
    """The first target asks by name; the others ask for the commit that came of it, even if the branch moves meanwhile."""
    original = fake.refs["main"]

    def moved(method: str, path: str) -> None:
        if len(fake.asked()) == 1:
            fake.refs["main"] = MOVED

    fake.instead = moved  # type: ignore[assignment]
    run = Run(fake, (TARGET, "branch", "main"), (OTHER, "branch", "main")).run()
    assert [(one.get("ref"), one.get("sha1")) for one in fake.asked()] == [
        ("refs/heads/main", None),
        (None, original),
    ]
    assert run.states == {f"{TARGET}/{original}": "published", f"{OTHER}/{original}": "published"}
    assert [one.need.refs for one in run.pursuits.entries] == [["main"], ["main"]]


def test_a_branch_and_its_sha1_are_one(fake: FakeMaster) -> None:
    """Names that turn out to be a commit that is needed anyhow, or to be the same one, are one row with all their jobs."""
    run = Run(
        fake,
        (TARGET, "branch", "main"),
        (TARGET, "sha1", SHA1),
        (TARGET, "tag", "same"),
        (TARGET, "branch", "next"),
    ).run()
    assert run.states == {f"{TARGET}/{SHA1}": "published", f"{TARGET}/{MOVED}": "published"}
    one, other = (entry.need for entry in run.pursuits.entries)
    assert sorted(one.jobs) == ["branch main", f"sha1 {SHA1}", "tag same"]
    assert sorted(one.refs) == ["main", "same"]
    assert other.refs == ["next"]


def test_an_unknown_target_is_not_the_names_fault(fake: FakeMaster) -> None:
    """Where the first target of a name is unknown, the next one has it resolved; only the unknown one ends."""
    run = Run(fake, (NOWHERE, "branch", "main"), (TARGET, "branch", "main"), (OTHER, "branch", "main")).run()
    assert run.states == {
        f"{NOWHERE}/main": "refused",
        f"{TARGET}/{SHA1}": "published",
        f"{OTHER}/{SHA1}": "published",
    }
    [error] = run.errors
    assert f"{NOWHERE}/main" in error
    assert f"there are {TARGET}, {OTHER}" in error


def test_an_unknown_name_ends_what_needs_it(fake: FakeMaster) -> None:
    """Each target that wants an unknown branch says so, and everything else is published."""
    run = Run(fake, (TARGET, "branch", "no"), (OTHER, "branch", "no"), (TARGET, "sha1", SHA1)).run()
    assert list(run.states.values()) == ["refused", "refused", "published"]
    assert all(f"{GIT} has no branch 'no'" in error for error in run.errors)


@pytest.mark.parametrize(
    ("state", "shown", "sentence"),
    [
        ("failed", "failed", "the build failed: foo.c:1: error"),
        ("infrastructure", "infrastructure", "not because of the commit: foo.c:1: error"),
        ("cancelled", "cancelled", "was cancelled"),
    ],
)
def test_who_fails_ends_alone(fake: FakeMaster, state: str, shown: str, sentence: str) -> None:
    """One build's failure is one row, with its sentence and where to look; the other is followed to its end."""
    fake.script = [
        BUILDING,
        BUILDING,
        {"state": state, "error": "foo.c:1: error"},
        BUILDING,
        {**DONE, "error": ""},
    ]
    run = Run(fake, (TARGET, "sha1", SHA1), (TARGET, "sha1", MOVED)).run()
    assert sorted(run.states.values()) == sorted([shown, "published"])
    [error] = run.errors
    assert sentence in error
    [row] = [row for row in run.pursuits.rows() if row.state == shown]
    assert row.url.endswith("/builds/1")


def test_it_is_shown_every_second(fake: FakeMaster) -> None:
    """Whoever watches sees each second, and the time left goes down between two words from the master."""
    fake.script = [BUILDING] * 12 + [DONE]
    run = Run(fake, (TARGET, "sha1", SHA1)).run()
    times = [now for now, _ in run.seen]
    assert all(later - sooner <= 1.0 for sooner, later in pairwise(times))
    lefts = [
        (now, rows[0].left)
        for now, rows in run.seen
        if rows[0].state == "building" and rows[0].left is not None
    ]
    first = min(left for _, left in lefts)
    assert 80 < first < 95, "15 seconds at most go by between two looks"
    assert all(rows[0].percent == 10 for _, rows in run.seen if rows[0].step == "compile")


def test_why_it_waits_is_shown(fake: FakeMaster) -> None:
    """A request in line shows the master's reason in place of a step."""
    fake.script = [{"state": "waiting", "reason": "waits in line; 2 are before it"}, DONE]
    run = Run(fake, (TARGET, "sha1", SHA1)).run()
    assert "waits in line; 2 are before it" in {
        rows[0].step for _, rows in run.seen if rows[0].state == "waiting"
    }


def test_too_late_ends_all_that_is_left(fake: FakeMaster) -> None:
    """At the limit, what is not published is too late, each with how far it was, and the master is told."""
    fake.published.add(f"{OTHER}/{SHA1}")
    fake.script = [BUILDING]
    run = Run(fake, (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1), (TARGET, "sha1", MOVED), limit=60.0).run()
    assert list(run.states.values()) == ["too late", "published", "too late"]
    assert run.now <= 61
    assert all("not there within 1 min" in error and "step compile" in error for error in run.errors)
    assert [one for one in fake.order if "withdraw" in one] == ["withdraw 1", "withdraw 2"]


def test_who_is_stopped_withdraws(fake: FakeMaster) -> None:
    """Whatever unwinds it, the master is told of each that is not there yet, and of those that turned out the same."""
    fake.script = [BUILDING]
    run = Run(fake, (TARGET, "branch", "main"), (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1))

    def stop() -> None:
        raise SystemExit(130)

    run.at[5.0] = stop
    with pytest.raises(SystemExit):
        run.run()
    assert run.states == {f"{TARGET}/{SHA1}": "withdrawn", f"{OTHER}/{SHA1}": "withdrawn"}
    assert {one for one in fake.order if "withdraw" in one} == {"withdraw 1", "withdraw 2"}


def test_who_asked_by_another_name_withdraws_as_well(fake: FakeMaster) -> None:
    """A branch that was asked for before it turned out to be a commit that was not: that ask is withdrawn, too."""
    fake.script = [BUILDING]
    asks = count()

    def busy(method: str, path: str) -> Any:
        # Each in a thread of its own: one of them is the first, whoever it is.
        return (503, "busy") if path.endswith("/forceschedulers/packages") and next(asks) else None

    fake.instead = busy
    run = Run(fake, (TARGET, "sha1", SHA1), (TARGET, "branch", "main"))

    def stop() -> None:
        raise SystemExit(130)

    run.at[5.0] = stop
    with pytest.raises(SystemExit):
        run.run()
    assert fake.order == ["ask", "withdraw 1"]


def test_a_master_that_starts_again_is_waited_for(fake: FakeMaster) -> None:
    """While nobody listens all wait, and it is said who is away and why; then they go on where they were."""
    fake.script = [BUILDING] * 8 + [DONE]
    run = Run(fake, (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1))
    troubles: list[str] = []
    run.at[3.0] = fake.kill
    run.at[20.0] = lambda: troubles.append(run.pursuits.trouble)
    run.at[40.0] = fake.start_again
    run.run()
    assert set(run.states.values()) == {"published"}
    assert troubles == [f"the master at {fake.url} gives no answer (Connection refused)"]
    assert run.pursuits.trouble == ""
    assert len(fake.asked()) == 2


def test_a_branch_and_a_tag_of_one_name_are_two(fake: FakeMaster) -> None:
    """What a branch is at is not taken for what a tag of its name is at."""
    real = fake._of_ask

    def ask(params: dict[str, Any]) -> tuple[int, Any]:
        fake.refs = {"v1": MOVED if params.get("ref") == "refs/tags/v1" else SHA1}
        return real(params)

    fake._of_ask = ask
    run = Run(fake, (TARGET, "branch", "v1"), (TARGET, "tag", "v1")).run()
    assert run.states == {f"{TARGET}/{SHA1}": "published", f"{TARGET}/{MOVED}": "published"}


def test_a_release_is_built_from_where_it_is_for_all(fake: FakeMaster) -> None:
    """A tag that is found in another repository than the needs name is built from there for every target."""
    real = fake._of_ask
    fake.refs["release"] = SHA1
    missing = (400, {"error": {"code": 1, "message": {"ref": "no tag"}}})
    fake._of_ask = lambda params: real(params) if params["git_url"] == GIT else missing
    run = Run(fake, (TARGET, "tag", "release"), (OTHER, "tag", "release"), git_url=CI)
    run.run()
    assert set(run.states.values()) == {"published"}
    assert [ask["git_url"] for ask in fake.asked()] == [GIT, GIT]


def test_a_repository_that_is_away_is_named(fake: FakeMaster) -> None:
    """Whoever waits for a ref waits for its repository, and it is said which; commits are built meanwhile."""
    fake.script = [BUILDING] * 8 + [DONE]
    real, troubles = fake._of_ask, []
    away = (400, {"error": {"code": -32000, "message": {"git_url": "no answer"}}})
    fake._of_ask = lambda params: away if "ref" in params else real(params)
    run = Run(fake, (TARGET, "branch", "next"), (TARGET, "sha1", SHA1))
    run.at[20.0] = lambda: troubles.append(run.pursuits.trouble)
    run.at[200.0] = lambda: setattr(fake, "_of_ask", real)
    run.run()
    assert set(run.states.values()) == {"published"}
    why = f"the master at {fake.url} says git_url: no answer"
    assert troubles == [f"the repository {GIT} gives no answer ({why})"]


def test_a_master_that_stays_away_is_given_up(fake: FakeMaster) -> None:
    """After the limit for it all end, each with who was away for how long."""
    fake.script = [BUILDING]
    run = Run(fake, (TARGET, "sha1", SHA1), (OTHER, "branch", "main"), unreachable_limit=100.0)
    run.at[3.0] = fake.kill
    run.run()
    assert set(run.states.values()) == {"unreachable"}
    assert all(
        "gave no answer for 1 min" in error or "gave no answer for 2 min" in error for error in run.errors
    )


def test_it_says_that_it_still_waits(fake: FakeMaster) -> None:
    """Each request on its way is renewed every two minutes, in the name of this run."""
    fake.script = [BUILDING] * 60 + [DONE]
    Run(fake, (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1)).run()
    assert {one for one in fake.order if "renew" in one} == {"renew 1", "renew 2"}
    assert {one["job"] for one in fake.asked("renew") + fake.asked()} == {"prefetch/1"}


def test_a_refused_token_ends_it_at_once(fake: FakeMaster) -> None:
    """What holds for all needs is raised, not tried for each of them."""
    with pytest.raises(WrongSettings, match="refuses this user"):
        Run(fake, (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1), token="wrong").run()
    assert len([one for one in fake.tokens if one]) == 1


def test_a_wrong_package_server_ends_no_other_build(fake: FakeMaster) -> None:
    """Packages that are published, but not where they are looked for, are one row's trouble: others are still built."""
    fake.served = False
    run = Run(fake, (TARGET, "sha1", SHA1), (OTHER, "sha1", SHA1)).run()
    assert set(run.states.values()) == {"wrong settings"}
    assert all("set `packages_url`" in error for error in run.errors)
    assert all(isinstance(one.error, BuildpackagesError) for one in run.pursuits.entries)


def test_nothing_to_do_ends_at_once(fake: FakeMaster) -> None:
    """Without needs nobody is asked anything."""
    assert Run(fake).run().states == {}
    assert fake.order == []
