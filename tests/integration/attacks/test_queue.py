"""Attacks on the queue: one user's requests and jobs, of which there are many, beside another's only one."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBUG = DEB.replace("default", "debug")
SECRETS = {"alice": "alice's long random secret", "mallory": "mallory's long random secret"}
USERS = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in SECRETS.items()}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with one slot for two targets, where a user may have four requests on their way."""
    with tiny_installation(
        tmp_path_factory.mktemp("queue"),
        targets=[DEB, DEBUG],
        users=USERS,
        workers={"local": {"count": 1}},
        requests={"per_user": 4},
    ) as made:
        yield made


def ask(here: Installation, user: str, target: str, sha1: str) -> dict[str, Any]:
    """Return the answer to a request of a user's."""
    response = here.force(SECRETS[user], builderNames=[target], sha1=sha1)
    assert response.status_code == HTTPStatus.OK, response.text
    result: dict[str, Any] = response.json()["result"][2][0]
    return result


def status(here: Installation, request: int) -> dict[str, Any]:
    """Return how far a request is."""
    [told] = here.get(f"packages/{request}")["packages"]
    found: dict[str, Any] = told
    return found


def withdraw(here: Installation, user: str, request: int, **params: str) -> dict[str, Any]:
    """Return the answer to a user who does not wait any more."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "withdraw", "params": params}
    headers = {"Authorization": f"Bearer {SECRETS[user]}"}
    response = requests.post(f"{here.url}api/v2/packages/{request}", json=body, headers=headers, timeout=60)
    result: dict[str, Any] = response.json()["result"]
    return result


def request_of(answer: dict[str, Any]) -> int:
    [request] = answer["buildrequest_ids"].values()
    return int(request)


def test_a8_one_user_s_requests_do_not_hold_back_another_s(here: Installation) -> None:
    """Users take turns, also across targets: whoever has no build is next, and the line says so."""
    first = here.repository.commit(tiny.sleeping(1000))
    running = ask(here, "mallory", DEBUG, first)
    here.until(lambda: status(here, request_of(running))["state"] == "building", "a build")
    many = [ask(here, "mallory", DEBUG, here.repository.commit()) for _ in range(3)]
    alices = ask(here, "alice", DEB, here.repository.commit())
    assert "; 1 is before it" in status(here, request_of(alices))["reason"]
    assert "; 4 are before it" in status(here, request_of(many[-1]))["reason"]
    refused = here.force(SECRETS["mallory"], builderNames=[DEBUG], sha1=here.repository.commit())
    assert refused.status_code == HTTPStatus.BAD_REQUEST
    assert "mallory waits for 4 requests already" in refused.text
    assert "requests.per_user" in refused.text
    assert withdraw(here, "mallory", request_of(running))["cancelled"]
    ended = {request_of(one): here.wait(one)["complete_at"] for one in (alices, *many)}
    builds = [build for one in (alices, *many) for build in here.builds(one)]
    order = [build["buildrequestid"] for build in sorted(builds, key=lambda build: build["buildid"])]
    assert order[0] == request_of(alices)
    assert order[1:] == [request_of(one) for one in many]
    assert len(ended) == len(order)


def test_a7_many_jobs_are_told_in_few_words(here: Installation) -> None:
    """Anybody may look at who waits: a few are named and the others counted; a job's name is short."""
    asked = ask(here, "mallory", DEBUG, here.repository.commit(tiny.sleeping(1000)))
    request = request_of(asked)
    for number in range(30):
        here.force(
            SECRETS["mallory"], builderNames=[DEBUG], sha1=asked["package_key"][-40:], job=f"run/{number}"
        )
    told = status(here, request)
    assert len(told["waiting"]) == 20
    assert told["waiting_more"] == 11
    long = here.force(
        SECRETS["mallory"], builderNames=[DEBUG], sha1=asked["package_key"][-40:], job="語" * 301
    )
    assert "has 301 characters; at most 300 are taken" in long.text
    for job in ("", *(f"run/{number}" for number in range(30))):
        withdraw(here, "mallory", request, job=job)
    here.wait(asked)
