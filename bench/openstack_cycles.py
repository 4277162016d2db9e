"""Three hundred create, build and destroy cycles while every fifth call of the cloud goes wrong."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

from bench.openstack_lab import ground, our_master, stock_master
from bench.openstack_probe import Stalls
from bench.report import Report, Row, Table
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.openstack_lab import Ground, Ours, Stock

RUNS = 1
CYCLES = 300
AT_ONCE = 16
STOCK_CYCLES = 40
STOCK_AT_ONCE = 4
RATE = 0.2
SEED = 20261124
HANG = 25.0
"""Seconds after which a call that gets no answer is closed; ours gives up before, after `timeout`, which is 20."""
BROKEN = 20
"""One server in so many goes to ERROR."""
LONGEST = 3600.0
PATIENCE = 180.0

_METHOD = """\
{cycles} requests for {cycles} commits of a tiny repository, whole builds, at most {at_once} servers at once. The proxy between the SDK and the real services has every call (keystone's, nova's, glance's
and neutron's) go wrong with a chance of {rate:g}: 500, 502, 503 and 429 with Retry-After, answers that are lost after the service did it, connections that are reset before, no answer for {hang:g} s, and of the DELETEs that
are hit one in five is answered with 204 and ignored. Besides, one server in {broken} goes to ERROR. All settings are as they are. A request ends
right if its package is published, or if it ends with a sentence that says that the infrastructure failed. Servers are counted when all requests have ended and {patience:g} s more have
passed, or as soon as none is left. Beside it a stock Buildbot with {stock_at_once} OpenStackLatentWorkers has {stock} requests of one `echo` at the same time, in the same lab, with the same chances; it is given the time that ours takes
and those {patience:g} s; what has not ended then is told."""

_MEANING = """\
The stock master's requests are tried again for ever; a server whose create call lost its answer, or whose delete failed, is nobody's."""


class Outcome(NamedTuple):
    """What one side came to."""

    ends: Counter[str]
    """Of requests: `published`, `infrastructure`, `wrong`, `not ended`."""
    left: int
    servers: int
    """Servers that were made."""
    calls: int
    faults: Counter[str]
    minutes: float
    lag: str
    wrong: Sequence[str]
    """What the requests that ended wrong said."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    found: list[tuple[Outcome, Outcome]] = []
    with ground(directory) as lab:
        for number in range(runs):
            cloud = {"max_instances": AT_ONCE}
            with (
                our_master(directory / f"ours-{number}", lab, cloud=cloud) as ours,
                stock_master(directory / f"stock-{number}", lab, workers=STOCK_AT_ONCE) as stock,
            ):
                found.append(_cycles(lab, ours, stock, SEED + number))
    return report(found)


def report(found: Sequence[tuple[Outcome, Outcome]]) -> Report:
    """Give the report of all runs, ours and the stock one's."""
    ours, stock = [pair[0] for pair in found], [pair[1] for pair in found]
    ends, theirs = _all(ours), _all(stock)
    wrong, left = ends["wrong"] + ends["not ended"], sum(one.left for one in ours)
    faults = _faults(ours)
    rows = [
        Row("requests", str(ends.total()), str(theirs.total())),
        Row("published", str(ends["published"]), str(theirs["published"])),
        Row("ended as infrastructure", str(ends["infrastructure"]), str(theirs["infrastructure"])),
        Row("ended otherwise, or not at all", str(wrong), str(theirs["wrong"] + theirs["not ended"]), "", "0",
            wrong == 0),
        Row("servers left", str(left), str(sum(one.left for one in stock)), "", "0", left == 0),
        Row("servers made for a request", _rate(ours), _rate(stock)),
        Row("calls, and how many of them went wrong", _calls(ours), _calls(stock)),
        Row("minutes until all had ended", _minutes(ours), _minutes(stock)),
        Row("reactor lag p50 / p99 / max", "; ".join(one.lag for one in ours),
            "; ".join(one.lag for one in stock)),
    ]  # fmt: skip
    tables = [
        Table("What went wrong with calls of ours", ["fault", "calls"],
              [[name, str(count)] for name, count in sorted(faults.items())]),
    ]  # fmt: skip
    said = [[text] for one in ours for text in one.wrong[:10]]
    if said:
        tables.append(Table("What requests that ended wrong said", ["state"], said))
    method = _METHOD.format(
        cycles=CYCLES, at_once=AT_ONCE, rate=RATE, hang=HANG, broken=BROKEN, patience=PATIENCE,
        stock=STOCK_CYCLES, stock_at_once=STOCK_AT_ONCE,
    )  # fmt: skip
    return Report(f"{CYCLES} cycles, with one fault in five calls", method, _MEANING, rows, tables)


def _all(outcomes: Sequence[Outcome]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in outcomes:
        found += one.ends
    return found


def _faults(outcomes: Sequence[Outcome]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in outcomes:
        found += one.faults
    return found


def _rate(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(one.servers for one in outcomes) / max(1, _all(outcomes).total()):.2f}"


def _calls(outcomes: Sequence[Outcome]) -> str:
    calls, faults = sum(one.calls for one in outcomes), _faults(outcomes).total()
    return f"{calls}, {faults} ({faults / max(1, calls):.0%})"


def _minutes(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{one.minutes:.1f}" for one in outcomes)


def _cycles(lab: Ground, ours: Ours, stock: Stock, seed: int) -> tuple[Outcome, Outcome]:
    sha1s = [ours.here.repository.commit() for _ in range(CYCLES)]
    began = time.time()
    for _ in range(STOCK_CYCLES):
        stock.force("echo hello")
    for side in (ours, stock):
        side.proxy("random", RATE, seed, hang_seconds=HANG)
    for sha1 in sha1s:
        ours.here.ask(DEB, sha1=sha1)
    broken = 0
    while time.time() - began < LONGEST and _waiting(ours):
        made = _creates(ours)
        if made // BROKEN > broken:
            broken = made // BROKEN
            lab.lab.set(fail_spawn=1)
        time.sleep(1)
    over = time.time()
    minutes = {"ours": (over - began) / 60, "stock": 0.0}
    while time.time() - over < PATIENCE and (ours.servers() or stock.servers() or not minutes["stock"]):
        if not minutes["stock"] and not _waiting(stock):
            minutes["stock"] = (time.time() - began) / 60
        time.sleep(2)
    left = len(ours.servers()), len(stock.servers())
    late = {side: side.lags.between(began, time.time()) for side in (ours, stock)}
    for side in (ours, stock):
        side.proxy("clear")  # a master that hangs in a call could not be asked
    took = time.time() - began
    return (
        _outcome(ours, minutes["ours"], left[0], Stalls.of(late[ours], took)),
        _outcome(stock, minutes["stock"] or took / 60, left[1], Stalls.of(late[stock], took)),
    )


def _waiting(side: Ours | Stock) -> bool:
    """Whether a request waits, as far as can be told: a master may not answer."""
    url = f"{side.url}api/v2/buildrequests?complete=false&limit=1"
    try:
        return bool(requests.get(url, timeout=5).json()["buildrequests"])
    except requests.RequestException:
        return True


def _creates(side: Ours | Stock) -> int:
    return sum(
        call.method == "POST" and call.path.endswith("/servers") and call.status == 202
        for call in side.proxy("calls")
    )


def _outcome(side: Ours | Stock, minutes: float, left: int, stalls: Stalls) -> Outcome:
    ends: Counter[str] = Counter()
    wrong = []
    for one in side.get("buildrequests")["buildrequests"]:
        if not one["complete"]:
            ends["not ended"] += 1
        elif one["results"] == 0:
            ends["published"] += 1
        else:
            builds = side.get(f"buildrequests/{one['buildrequestid']}/builds")["builds"]
            said = (
                max(builds, key=lambda build: int(build["buildid"]))["state_string"] if builds else "no build"
            )
            right = "infrastructure" in said
            ends["infrastructure" if right else "wrong"] += 1
            wrong += [] if right else [said]
    calls = side.proxy("calls")
    return Outcome(
        ends=ends,
        left=left,
        servers=_creates(side),
        calls=len(calls),
        faults=Counter(_fault(call) for call in calls if call.fault),
        minutes=minutes,
        lag=stalls.text,
        wrong=wrong,
    )


def _fault(call: Any) -> str:
    return f"{call.fault} {call.status}" if call.fault == "answer" else str(call.fault)
