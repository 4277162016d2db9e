"""Many requests at once for few packages: one build for each package, and an answer for each request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import requests

from bench.masters import measured
from bench.report import Report, Row, percentile, seconds
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.integration.harness import Installation

RUNS = 1
REQUESTS = 200
KEYS = 10
CLIENTS = 20

_METHOD = """\
20 client threads send 200 POSTs, ten each and all from the same moment on, for 10 commits that nobody has asked for before, on an installation with
two workers. The builds begin while the questions still come. Then all is waited for, and the builds are counted: those of
the master's database, tries that failed among them."""

_MEANING = """\
All that ask for one package_key get the ids of one buildrequest. A lock has the questions for it, and their queries
of the database, come one after another: the times are those of a queue of 20, while the first builds start."""


class Answered(NamedTuple):
    """What one request got: 0 if no answer at all."""

    status: int
    seconds: float
    package_key: str
    buildrequest: int


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure; more runs are more answers, of other commits."""
    answered: list[Answered] = []
    builds: list[int] = []
    with measured(directory / "ours", targets=[DEB], workers={"local": {"count": 2}}) as (here, _):
        repository = here.serve_tiny()
        here.start()
        seen = 0
        took = []
        for _ in range(runs):
            sha1s = [repository.commit() for _ in range(KEYS)]
            began = time.monotonic()
            got = _burst(here, sha1s)
            took.append(time.monotonic() - began)
            answered += got
            for number in {one.buildrequest for one in got if one.buildrequest}:
                request = here.wait({"buildrequest_ids": {"": number}}, 600)
                assert request["results"] == 0, request
            total = len(here.get("builds?field=buildid")["builds"])
            builds.append(total - seen)
            seen = total
    return report(answered, builds, max(took))


def report(answered: Sequence[Answered], builds: Sequence[int], took: float) -> Report:
    """Give the report of all answers, and of how many builds each burst had."""
    statuses = Counter(one.status for one in answered)
    times = [one.seconds for one in answered]
    requests_of: dict[str, set[int]] = {}
    for one in answered:
        requests_of.setdefault(one.package_key, set()).add(one.buildrequest)
    same = all(len(numbers) == 1 for key, numbers in requests_of.items() if key)
    told = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
    return Report(
        "200 requests at once for 10 packages",
        _METHOD,
        _MEANING,
        [
            Row("builds", ", ".join(map(str, builds)), bar=f"exactly {KEYS}",
                met=all(count == KEYS for count in builds)),
            Row("answers", told, bar="200 times 200 OK",
                met=statuses == {200: REQUESTS * len(builds)}),
            Row("buildrequests of one package_key", "one" if same else "more than one", bar="one", met=same),
            Row("POST, median", seconds(percentile(times, 50))),
            Row("POST, 95th percentile", seconds(percentile(times, 95))),
            Row("all 200 answered", f"{seconds(took)}, {REQUESTS / took:.0f} a second"),
        ],
    )  # fmt: skip


def _burst(here: Installation, sha1s: Sequence[str]) -> list[Answered]:
    barrier = threading.Barrier(CLIENTS)
    answered: list[Answered] = []
    token = here.token

    def client(number: int) -> None:
        barrier.wait()
        for turn in range(REQUESTS // CLIENTS):
            sha1 = sha1s[(number + turn) % len(sha1s)]
            began = time.monotonic()
            try:
                answer = here.force(token, builderNames=[DEB], sha1=sha1)
            except requests.RequestException:
                answered.append(Answered(0, time.monotonic() - began, "", 0))
                continue
            took = time.monotonic() - began
            if answer.status_code != 200:
                answered.append(Answered(answer.status_code, took, "", 0))
                continue
            found = answer.json()["result"][2][0]
            [request] = found["buildrequest_ids"].values()
            answered.append(Answered(200, took, found["package_key"], request))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered
