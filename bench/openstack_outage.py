"""nova away for a minute, while servers boot and while they go: what is left of it, and who still waits."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench.openstack_lab import ground, our_master, stock_master
from bench.openstack_probe import Stalls, soon, until
from bench.report import Report, Row, at_most, seconds
from tests.integration import tiny
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.openstack_lab import Ground, Ours, Stock

RUNS = 1
OUTAGE = 60.0
PATIENCE = 180.0
"""Seconds after the outage, at the end of which is looked at what is left."""
RUNNING = 8
"""Builds that run when the outage begins, and whose servers are to go in it."""
EARLY, LATE = 5, 3
"""Requests whose servers boot in it: those asked some seconds before it, and those asked right before."""
BOOT = 20.0
"""The early ones have their servers, and wait for their workers, when it begins."""
WORK = 35.0
"""Seconds of a build that runs when it begins: all end in it."""
LAG = 0.05

How = Literal["refuse", "hang"]
HOW: tuple[How, ...] = ("refuse", "hang")
TITLES: dict[str, str] = {"refuse": "refuses connections", "hang": "accepts and does not answer"}

_METHOD = """\
nova is away for {outage:g} s: the fault proxies before it refuse connections and cut those that are there, or accept and do not answer until it is over. It
is away for both masters at the same time, in the same lab: ours and a stock Buildbot with OpenStackLatentWorkers, freshly started for each case. Then servers boot and servers go: {running} builds run when it begins, and end
in it; {early} requests were made four seconds before, their servers boot for {boot:g} s; and {late} requests half a second before. Ours are whole builds of a tiny repository, the stock ones one step, `sleep`. Looked at {patience:g} s after
nova is back, or as soon as both sides have neither a server nor a request that waits: a server is left if nova still has it and
no running build can be its own; a request is stuck if it is not complete. The lag of both reactors is measured inside them, from the beginning of the outage until then."""

_MEANING = """\
The stock master deletes from its reactor, without a time limit, so a nova that does not answer freezes it; a delete that fails is logged and
forgotten. Ours asks from threads with a time limit, again until a listing does not show the server any more."""


class Outcome(NamedTuple):
    """What one side was like in one case."""

    left: int
    stuck: int
    well: int
    """Requests that ended with a build that did."""
    asked: int
    clean: float
    """Seconds from nova's return until no request waited and no server was left; negative if not in time."""
    stalls: Stalls


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    found: dict[str, list[tuple[Outcome, Outcome]]] = {}
    with ground(directory) as lab:
        for number in range(runs):
            for how in HOW:
                found.setdefault(how, []).append(_case(directory / f"{how}-{number}", lab, how))
    return report(found)


def report(found: dict[str, list[tuple[Outcome, Outcome]]]) -> Report:
    """Give the report of all cases: of each, ours and the stock one's outcomes."""
    rows = []
    for how, pairs in found.items():
        where = f"nova {TITLES[how]}"
        ours, stock = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        left, stuck = sum(one.left for one in ours), sum(one.stuck for one in ours)
        most = max(one.stalls.most for one in ours)
        rows += [
            Row(f"{where}: servers left", str(left), str(sum(one.left for one in stock)), "", "0", left == 0),
            Row(f"{where}: requests stuck", str(stuck), str(sum(one.stuck for one in stock)), "", "0", stuck == 0),
            Row(f"{where}: reactor lag, max", seconds(most), seconds(max(one.stalls.most for one in stock)), "",
                *at_most(LAG, most, "50 ms")),
            Row(f"{where}: reactor lag, p99", _worst(ours), _worst(stock)),
            Row(f"{where}: requests that ended well", _well(ours), _well(stock)),
            Row(f"{where}: all settled after its return", _clean(ours), _clean(stock)),
        ]  # fmt: skip
    method = _METHOD.format(
        outage=OUTAGE, running=RUNNING, early=EARLY, late=LATE, boot=BOOT, patience=PATIENCE
    )
    return Report("nova away for a minute", method, _MEANING, rows)


def _worst(outcomes: Sequence[Outcome]) -> str:
    return seconds(max(one.stalls.p99 for one in outcomes))


def _well(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(one.well for one in outcomes)} of {sum(one.asked for one in outcomes)}"


def _clean(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{one.clean:.0f} s" if one.clean >= 0 else "not in time" for one in outcomes)


class _Watch:
    """One side in one case."""

    def __init__(self, side: Ours | Stock) -> None:
        self.side = side
        self.asked = 0
        self.clean = -1.0

    def ask(self, count: int, work: float) -> None:
        for _ in range(count):
            self.asked += 1
            if hasattr(self.side, "here"):
                knobs = tiny.sleeping(work) if work else tiny.WHOLE
                self.side.here.ask(DEB, sha1=self.side.here.repository.commit(knobs))
            else:
                self.side.force(f"sleep {work:g}")

    def building(self) -> bool:
        """Whether every build is at its work."""
        return sum(one.what == "attached" for one in self.side.moments.since(0)) >= self.asked

    def requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.side.get("buildrequests")["buildrequests"]
        return found

    def settled(self, since: float) -> bool:
        """Whether nothing is left and nobody waits, and since when that is so."""
        if self.clean < 0 and all(one["complete"] for one in self.requests()) and not self.side.servers():
            self.clean = time.time() - since
        return self.clean >= 0

    def outcome(self, began: float) -> Outcome:
        requests = self.requests()
        running = self.side.get("builds?complete=false&field=buildid&field=complete")["builds"]
        late = self.side.lags.between(began, time.time())
        return Outcome(
            left=max(0, len(self.side.servers()) - len(running)),
            stuck=sum(not one["complete"] for one in requests),
            well=sum(one["results"] == 0 for one in requests),
            asked=self.asked,
            clean=self.clean,
            stalls=Stalls.of(late, time.time() - began),
        )


def _case(directory: Path, lab: Ground, how: How) -> tuple[Outcome, Outcome]:
    directory.mkdir()
    workers = RUNNING + EARLY + LATE + 4
    with (
        our_master(directory / "ours", lab) as ours,
        stock_master(directory / "stock", lab, workers=workers) as stock,
    ):
        sides = [_Watch(ours), _Watch(stock)]
        lab.lab.set(boot_seconds=0.5)
        time.sleep(3)
        for one in sides:
            one.ask(RUNNING, WORK)
        until(lambda: all(one.building() for one in sides), "all builds run", 120)
        lab.lab.set(boot_seconds=BOOT)
        for one in sides:
            one.ask(EARLY, 0.0)
        time.sleep(4)
        for one in sides:
            one.ask(LATE, 0.0)
        time.sleep(0.5)
        began = time.time()
        for side in (ours, stock):
            side.proxy(how, "nova", True)
        time.sleep(OUTAGE)
        for side in (ours, stock):
            side.proxy(how, "nova", False)
        back = time.time()
        settled = [False, False]
        while time.time() - back < PATIENCE and not all(settled):
            settled = [bool(soon(partial(one.settled, back), 1, 1)) for one in sides]
        time.sleep(1.5)  # the last lags are written
        return sides[0].outcome(began), sides[1].outcome(began)
