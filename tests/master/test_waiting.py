"""Who waits: asker and job, in the order of asking; a silent job is forgotten, a person is not."""

from __future__ import annotations

import json

from master.requests.waiting import MOST_JOBS, MOST_JOBS_OF_ALL, SILENCE, Waiters, told, told_json


def names(waiters: Waiters, request: int, now: float) -> list[str]:
    """Give those who wait, as the page names them."""
    return [str(one) for one in waiters.of(request, now)]


def test_everybody_is_known_once_in_the_order_of_asking() -> None:
    """Asking again, from the same job, adds nobody and keeps the place in the line and the time."""
    waiters = Waiters()
    assert waiters.add(7, "alice", "run/1", 100)
    assert waiters.add(7, "bob", "", 110)
    assert not waiters.add(7, "alice", "run/1", 120)
    assert waiters.add(7, "alice", "run/2", 130)
    assert names(waiters, 7, 130) == ["alice (job run/1)", "bob", "alice (job run/2)"]
    assert [one.since for one in waiters.of(7, 130)] == [100, 110, 130]
    assert names(waiters, 8, 130) == []


def test_a_silent_job_is_forgotten_and_a_person_is_not() -> None:
    """Only who said within the last ten minutes that he waits, waits; a form is filled in once."""
    waiters = Waiters()
    waiters.add(7, "alice", "run/1", 0)
    waiters.add(7, "bob", "", 0)
    waiters.add(7, "carol", "run/2", 0)
    waiters.add(7, "carol", "run/2", 60)
    assert names(waiters, 7, SILENCE) == ["alice (job run/1)", "bob", "carol (job run/2)"]
    assert names(waiters, 7, SILENCE + 1) == ["bob", "carol (job run/2)"]
    assert names(waiters, 7, 10 * SILENCE) == ["bob"]
    assert waiters.add(7, "alice", "run/1", 10 * SILENCE), "back again, he is a new one"


def test_who_asked_may_come_back_and_nobody_else() -> None:
    """A silent job is still known until the request ends; one that withdrew or never requested is not."""
    waiters = Waiters()
    waiters.add(7, "alice", "run/1", 0)
    waiters.add(7, "bob", "", 0)
    assert names(waiters, 7, 2 * SILENCE) == ["bob"]
    assert waiters.knows(7, "alice", "run/1")
    assert not waiters.knows(7, "alice", "run/2")
    assert not waiters.knows(8, "alice", "run/1")
    assert [row["asker"] for row in waiters.rows(7, 2 * SILENCE)] == ["bob"]
    waiters.add(7, "alice", "run/1", 2 * SILENCE)
    assert [one.since for one in waiters.of(7, 2 * SILENCE)] == [0, 2 * SILENCE]
    waiters.remove(7, "alice", "run/1")
    assert not waiters.knows(7, "alice", "run/1")


def test_who_withdraws_is_gone_and_nobody_else() -> None:
    """Withdrawing takes the asker's job, not his other jobs, nor another's job of that name."""
    waiters = Waiters()
    for asker, job in (("alice", "run/1"), ("alice", "run/2"), ("bob", "run/1")):
        waiters.add(7, asker, job, 0)
    assert waiters.remove(7, "alice", "run/1")
    assert not waiters.remove(7, "alice", "run/1")
    assert not waiters.remove(8, "alice", "run/2")
    assert names(waiters, 7, 0) == ["alice (job run/2)", "bob (job run/1)"]


def test_what_is_kept_comes_back() -> None:
    """After a restart all are there as before, with a fresh delay."""
    waiters = Waiters()
    waiters.add(7, "alice", "run/1", 50)
    again = Waiters()
    again.load(7, waiters.rows(7, 60), 5000)
    assert [(str(one), one.since) for one in again.of(7, 5000 + SILENCE)] == [("alice (job run/1)", 50)]
    assert names(again, 7, 5001 + SILENCE) == []


def test_the_repositories_of_those_who_wait_are_known() -> None:
    """Each named repository is known once, in the order of the requests, for as long as one who named it waits, and after a restart."""
    waiters = Waiters()
    waiters.add(7, "alice", "", 0, "a")
    waiters.add(7, "bob", "run/1", 0, "b")
    assert waiters.add(7, "alice", "", 1, "c"), "another repository is to be kept"
    assert not waiters.add(7, "alice", "", 2, "a")
    waiters.add(7, "carol", "", 2, "b")
    assert waiters.git_urls(7, 2) == ["a", "c", "b"]
    assert waiters.git_urls(8, 2) == []
    again = Waiters()
    again.load(7, json.loads(json.dumps(waiters.rows(7, 2))), 5)
    assert again.git_urls(7, 5) == ["a", "c", "b"]
    waiters.remove(7, "alice", "")
    waiters.remove(7, "carol", "")
    assert waiters.git_urls(7, SILENCE + 1) == []
    waiters.add(7, "bob", "run/1", 2 * SILENCE)
    assert waiters.git_urls(7, 2 * SILENCE) == ["b"], "a job that comes back"


def test_the_waiters_of_an_older_master_are_loaded() -> None:
    """A row that an older version kept has no repositories."""
    waiters = Waiters()
    waiters.load(7, [{"asker": "alice", "job": "", "since": 1, "heard": 1}], 5)
    assert (names(waiters, 7, 5), waiters.git_urls(7, 5)) == (["alice"], [])


def test_the_end_of_a_request_ends_the_waiting() -> None:
    """Who waited for what is done waits no more, and nothing of it is kept."""
    waiters = Waiters()
    waiters.add(7, "alice", "", 0)
    assert waiters.end(7)
    assert not waiters.end(7)
    assert waiters.rows(7, 0) == []
    assert waiters.requests_of("alice") == 0


def test_of_too_many_jobs_of_one_asker_the_most_silent_gives_way() -> None:
    """One asker cannot fill the memory, nor push anybody else out, nor himself where he asked as a person."""
    waiters = Waiters()
    waiters.add(7, "bob", "run/1", 0)
    waiters.add(7, "alice", "", 1)
    for number in range(MOST_JOBS):
        waiters.add(7, "alice", f"run/{number}", 2)
    waiters.add(7, "alice", "run/0", 3)
    assert waiters.add(7, "alice", "one too many", 4)
    known = names(waiters, 7, 4)
    assert len(known) == MOST_JOBS + 2
    assert known[:3] == ["bob (job run/1)", "alice", "alice (job run/0)"]
    assert "alice (job run/1)" not in known
    assert waiters.add(7, "bob", "run/2", 5)
    assert len(names(waiters, 7, 5)) == MOST_JOBS + 3


def test_of_all_jobs_of_one_asker_the_most_silent_gives_way() -> None:
    """One asker cannot fill the memory with jobs for many buildrequests either; jobs that ended do not count."""
    waiters = Waiters()
    waiters.add(0, "bob", "run/0", 0)
    for number in range(MOST_JOBS_OF_ALL):
        waiters.add(number // 500, "alice", f"run/{number}", number)
    waiters.add(0, "alice", "run/0", MOST_JOBS_OF_ALL)
    assert waiters.add(99, "alice", "one too many", MOST_JOBS_OF_ALL)
    assert not waiters.knows(0, "alice", "run/1")
    assert waiters.knows(0, "bob", "run/0")
    assert waiters.end(1)
    for number in range(500):
        waiters.add(98, "alice", f"run/{number}", MOST_JOBS_OF_ALL)
    assert waiters.knows(0, "alice", "run/2")
    assert waiters.requests_of("alice") == 11


def test_of_very_many_the_first_are_named() -> None:
    """A sentence stays one that can be read."""
    waiters = Waiters()
    for number in range(23):
        waiters.add(7, "alice", str(number), 0)
    assert told(waiters.of(7, 0)[:2]) == "alice (job 0), alice (job 1)"
    assert told(waiters.of(7, 0)).endswith("alice (job 18), alice (job 19), 3 more")
    assert len(told_json(waiters.of(7, 0))["waiting"]) == 20
    assert told_json(waiters.of(7, 0))["waiting_more"] == 3
