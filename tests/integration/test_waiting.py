"""Who waits for a build: shown, kept over a restart, and the last one to withdraw ends it."""

from __future__ import annotations

import hashlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS = {"alice": "alice's long secret", "bob": "bob's long secret"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with two users and two machines."""
    users = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in SECRETS.items()}
    with tiny_installation(tmp_path_factory.mktemp("waiting"), users=users) as made:
        yield made


def asked(here: Installation, name: str, sha1: str, job: str = "") -> int:
    """Ask as a user; give the buildrequest."""
    answer = here.force(SECRETS[name], builderNames=[DEB], sha1=sha1, **({"job": job} if job else {}))
    assert answer.status_code == 200, answer.text
    [number] = answer.json()["result"][2][0]["buildrequest_ids"].values()
    return int(number)


def say(here: Installation, name: str, path: str, method: str, **params: Any) -> requests.Response:
    """Send a method to the REST API, as a user or as nobody."""
    headers = {"Authorization": f"Bearer {SECRETS[name]}"} if name else {}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return requests.post(f"{here.url}api/v2/{path}", json=body, headers=headers, timeout=60)


def status(here: Installation, number: int) -> dict[str, Any]:
    """Give what is told of a buildrequest."""
    [found] = here.get(f"packages/{number}")["packages"]
    assert isinstance(found, dict)
    return found


def waiting(here: Installation, number: int) -> list[tuple[str, str]]:
    """Give asker and job of all who wait."""
    return [(one["asker"], one["job"]) for one in status(here, number)["waiting"]]


def in_state(here: Installation, number: int, state: str) -> dict[str, Any]:
    """Wait until a request is in a state; give what is told of it then."""

    def reached() -> Any:
        found = status(here, number)
        return found if found["state"] == state else None

    found: dict[str, Any] = here.until(reached, f"request {number} is {state}")
    return found


def test_the_build_ends_when_the_last_has_withdrawn(here: Installation) -> None:
    """Two users and three jobs wait for one build: it goes on until none of them does, and is asked for anew then."""
    sha1 = here.repository.commit(tiny.sleeping(300))
    number = asked(here, "alice", sha1, "run/1")
    assert asked(here, "alice", sha1, "run/2") == number
    assert asked(here, "bob", sha1) == number
    assert waiting(here, number) == [("alice", "run/1"), ("alice", "run/2"), ("bob", "")]
    in_state(here, number, "building")
    assert say(here, "bob", f"packages/{number}", "withdraw", job="run/2").status_code == 400, "no such job"
    for name, job in (("alice", "run/1"), ("alice", "run/2")):
        answer = say(here, name, f"packages/{number}", "withdraw", job=job)
        assert answer.json()["result"]["cancelled"] is False
    assert waiting(here, number) == [("bob", "")]
    assert status(here, number)["state"] == "building"
    assert say(here, "bob", f"packages/{number}", "withdraw").json()["result"] == {
        "cancelled": True, "waiting": [], "waiting_more": 0,
    }  # fmt: skip
    assert asked(here, "alice", sha1, "run/3") != number, "what is being cancelled is no answer"
    ended = in_state(here, number, "cancelled")
    assert "bob has withdrawn, and nobody else waits" in ended["error"]
    [again] = [one for one in here.get("packages")["packages"] if one["package_key"] == f"{DEB}/{sha1}"]
    assert say(here, "alice", f"packages/{again['buildrequest_id']}", "withdraw", job="run/3").json()[
        "result"
    ]["cancelled"]
    in_state(here, again["buildrequest_id"], "cancelled")


def test_who_asked_first_cannot_end_what_others_wait_for(here: Installation) -> None:
    """The buttons of the web UI refuse, and name who waits; alone, who asked may press them."""
    sha1 = here.repository.commit(tiny.sleeping(300))
    number = asked(here, "alice", sha1)
    asked(here, "bob", sha1, "run/7")
    refused = say(here, "alice", f"buildrequests/{number}", "cancel")
    assert refused.status_code == 403
    assert refused.json()["error"]["message"] == "bob (job run/7) waits for it, too"
    building = in_state(here, number, "building")
    page = building["build_url"].partition("#/")[2]
    assert say(here, "alice", page, "stop").json()["error"]["message"] == "bob (job run/7) waits for it, too"
    [build] = here.builds({"buildrequest_ids": {"": number}})
    shown = here.get(f"builds/{build['buildid']}/properties")["properties"][0]["waiting"][0]
    assert shown == "alice, bob (job run/7)"
    say(here, "bob", f"packages/{number}", "withdraw", job="run/7")
    assert say(here, "alice", page, "stop").status_code == 200
    in_state(here, number, "cancelled")


def test_who_waits_survives_the_master(here: Installation) -> None:
    """Killed and started again, the master knows who waits; the request goes on, and one withdrawal ends nothing."""
    sha1 = here.repository.commit(tiny.sleeping(3))
    number = asked(here, "alice", sha1, "run/1")
    asked(here, "bob", sha1, "run/2")
    in_state(here, number, "building")
    here.kill()
    here.start()
    assert waiting(here, number) == [("alice", "run/1"), ("bob", "run/2")]
    assert not say(here, "alice", f"packages/{number}", "withdraw", job="run/1").json()["result"]["cancelled"]
    renewed = say(here, "bob", f"packages/{number}", "renew", job="run/2").json()["result"]["waiting"]
    assert [(one["asker"], one["job"]) for one in renewed] == [("bob", "run/2")]
    done = in_state(here, number, "published")
    assert done["build"] == 2, "the first ended with the master"
    assert done["percent"] == 100
    assert done["waiting"] == []
    assert requests.get(f"{done['url']}version", timeout=30).status_code == 200


def test_what_nobody_waits_for_is_not_built_again_for_a_killed_master(here: Installation) -> None:
    """Withdrawn while its machine hangs, and the master killed before it has ended: started again, the master ends it."""
    number = asked(here, "alice", here.repository.commit(tiny.sleeping(300)), "run/9")
    in_state(here, number, "building")
    here.until(lambda: any("sleep" in line for line in here.leftovers()), "the build sleeps")
    for line in here.leftovers():
        if line[0].isdigit():
            os.kill(int(line.partition(":")[0]), signal.SIGSTOP)
    assert say(here, "alice", f"packages/{number}", "withdraw", job="run/9").json()["result"]["cancelled"]
    here.kill()
    here.start()
    assert in_state(here, number, "cancelled")["error"] == "cancelled before another build of it began"
    assert len(here.builds({"buildrequest_ids": {"": number}})) == 1


def test_a_failure_says_why(here: Installation) -> None:
    """A commit that does not compile is `failed`, with the cause and the URL of the build."""
    number = asked(here, "alice", here.repository.commit(tiny.COMPILE_ERROR))
    failed = in_state(here, number, "failed")
    assert "error: expected ';' before 'bar'" in failed["error"]
    assert failed["build_url"].startswith(f"{here.url}#/builders/")


def test_what_is_wrong_gets_a_sentence(here: Installation) -> None:
    """Nobody, an unknown request, an unknown method and a job that is no text are each refused, and cost nothing."""
    number = asked(here, "alice", here.repository.commit(tiny.sleeping(2)))
    for name, path, method, params, code, sentence in (
        ("", f"packages/{number}", "withdraw", {}, 403, "asking needs a user"),
        ("", "packages", "withdraw", {}, 403, "asking needs a user"),
        ("alice", "packages", "stop", {}, 400, "packages has no method 'stop': it can only be read"),
        ("alice", "packages/99999", "renew", {}, 400, "buildrequest 99999 is unknown here"),
        ("alice", f"packages/{10**30}", "renew", {}, 404, f"there is no packages/{10**30}"),
        (
            "alice",
            f"packages/{number}",
            "explode",
            {},
            400,
            "has no method 'explode'; there are renew, withdraw",
        ),
        (
            "alice",
            f"packages/{number}",
            "withdraw",
            {"job": "run/1"},
            400,
            f"alice (job run/1) does not wait for buildrequest {number}; waiting: alice",
        ),
        (
            "bob",
            f"packages/{number}",
            "withdraw",
            {},
            400,
            f"bob (without a job) does not wait for buildrequest {number}; waiting: alice",
        ),
        (
            "bob",
            f"packages/{number}",
            "renew",
            {"job": "run/1"},
            400,
            f"bob (job run/1) does not wait for buildrequest {number}; waiting: alice",
        ),
        ("alice", f"packages/{number}", "renew", {"job": 7}, 400, "job: must be a string"),
        ("alice", f"packages/{number}", "renew", {"job": "x" * 301}, 400, "job: has 301 characters"),
        ("alice", f"packages/{number}", "renew", {"job": "a\nb"}, 400, "job: may not contain control"),
    ):
        answer = say(here, name, path, method, **params)
        assert answer.status_code == code, answer.text
        assert sentence in answer.json()["error"]["message"]
    assert waiting(here, number) == [("alice", "")]
    done = in_state(here, number, "published")
    assert done["waiting"] == []
    for method in ("renew", "withdraw"):
        assert say(here, "bob", f"packages/{number}", method).json()["result"]["waiting"] == [], "it is over"
    for unknown in (99999, -1, 10**30):
        assert requests.get(f"{here.url}api/v2/packages/{unknown}", timeout=30).status_code == 404


def test_a_job_has_one_name_however_it_is_written(here: Installation) -> None:
    """Blanks around a job are dropped wherever it is named, so that who asked can withdraw."""
    number = asked(here, "alice", here.repository.commit(tiny.sleeping(300)), " run/1 ")
    say(here, "alice", f"packages/{number}", "renew", job=" run/1 ")
    assert waiting(here, number) == [("alice", "run/1")]
    in_state(here, number, "building")
    assert say(here, "alice", f"packages/{number}", "withdraw", job=" run/1 ").json()["result"]["cancelled"]
    in_state(here, number, "cancelled")


def test_what_is_stopped_by_a_button_is_no_answer_either(here: Installation) -> None:
    """Who asks for what its only asker is stopping gets a request of his own."""
    sha1 = here.repository.commit(tiny.sleeping(300))
    number = asked(here, "alice", sha1)
    page = in_state(here, number, "building")["build_url"].partition("#/")[2]
    assert say(here, "alice", page, "stop").status_code == 200
    other = asked(here, "bob", sha1)
    assert other != number
    in_state(here, number, "cancelled")
    in_state(here, other, "building")
    assert say(here, "bob", f"packages/{other}", "withdraw").json()["result"]["cancelled"]
    in_state(here, other, "cancelled")


def test_in_line_the_reason_and_the_time_left_are_told(here: Installation) -> None:
    """With both machines taken, who waits is told how many are before, and how long builds have taken so far."""
    shas = [here.repository.commit(tiny.sleeping(4)) for _ in range(3)]
    *_, last = [asked(here, "alice", sha1) for sha1 in shas]
    told = status(here, last)
    assert (told["state"], told["build"], told["build_url"]) == ("waiting", 0, None)
    assert "in line" in told["reason"]
    assert told["time_left"] > 0, "builds have succeeded before, in this module"
    in_state(here, last, "published")


def test_what_is_withdrawn_in_line_says_so(here: Installation) -> None:
    """A request that is cancelled before it had a machine has no build to give a reason, and gives one all the same."""
    shas = [here.repository.commit(tiny.sleeping(300)) for _ in range(3)]
    numbers = [asked(here, "alice", sha1) for sha1 in shas]
    for number in numbers[:2]:
        in_state(here, number, "building")
    for number in reversed(numbers):
        say(here, "alice", f"packages/{number}", "withdraw")
    told = in_state(here, numbers[2], "cancelled")
    assert (told["build"], told["error"]) == (0, "cancelled before a build of it began")
    for number in numbers[:2]:
        in_state(here, number, "cancelled")


def test_sizes_are_taken_with_the_request(here: Installation) -> None:
    """good_machine and min_machine reach the build, where the provider reads them."""
    sha1 = here.repository.commit()
    good, least = {"disk": 40, "ram": 48000, "cpus": 16}, {"disk": 40, "ram": 8000, "cpus": 1}
    answer = here.force(builderNames=[DEB], sha1=sha1, good_machine=good, min_machine=least)
    [number] = answer.json()["result"][1].values()
    in_state(here, number, "published")
    *_, build = here.builds({"buildrequest_ids": {"": number}})
    properties = here.get(f"builds/{build['buildid']}/properties")["properties"][0]
    assert (properties["good_machine"][0], properties["min_machine"][0]) == (good, least)


def test_a_rebuild_is_of_who_asks_for_it_and_of_the_same_sizes(here: Installation) -> None:
    """Who presses the button waits, and nobody else for that; the machine is of the size that the first was."""
    least = {"disk": 40, "ram": 8000, "cpus": 1}
    sha1 = here.repository.commit(tiny.COMPILE_ERROR)
    answer = here.force(SECRETS["alice"], builderNames=[DEB], sha1=sha1, min_machine=least)
    [number] = answer.json()["result"][1].values()
    page = in_state(here, number, "failed")["build_url"].partition("#/")[2]
    buildset, requested = say(here, "bob", page, "rebuild").json()["result"]
    properties = here.get(f"buildsets/{buildset}/properties")["properties"][0]
    assert (properties["min_machine"][0], properties["owner"][0]) == (least, "bob")
    [again] = requested.values()
    assert waiting(here, again) in ([("bob", "")], [])
    in_state(here, again, "failed")
    answer = say(here, "bob", f"{page}000", "rebuild")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, f"there is no {page}000")


def test_a_build_that_is_cancelled_as_it_begins_gives_its_slot_back(here: Installation) -> None:
    """Whenever the last one withdraws, the request ends: Buildbot itself forgets a build that has just begun."""
    for sha1 in [here.repository.commit(tiny.sleeping(300)) for _ in range(16)]:
        number = asked(here, "alice", sha1, "run/1")
        here.until(
            lambda number=number: here.get(f"buildrequests/{number}")["buildrequests"][0]["claimed"],
            "it begins",
        )
        say(here, "alice", f"packages/{number}", "withdraw", job="run/1")
        in_state(here, number, "cancelled")
