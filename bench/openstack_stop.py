"""The end of the master with twenty servers up: how long it takes, and what it leaves."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from bench.openstack_lab import ground, our_master, stock_master
from bench.openstack_probe import soon, until
from bench.report import Report, Row, at_most, seconds
from master import control
from tests.integration import tiny
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.openstack_lab import Ground, Ours, Stock

RUNS = 1
SERVERS = 20
WITHIN = 10.0
STOCK_PATIENCE = 60.0
"""Seconds after which the stock master is killed."""
LATER = 30.0
CLIENTS = 4

_METHOD = """\
{servers} builds run, each on its server; then the master is stopped: ours as `make stop` does (`python -m master.control stop`),
the stock Buildbot with OpenStackLatentWorkers as `buildbot stop` does (SIGTERM), by turns in the same lab. The time is until its process is gone; servers are counted in
nova at that moment, and {later:g} s later. After {patience:g} s the stock master is killed. `By hand` is what nova itself takes: as many servers that run nothing, deleted
by {clients} clients at once, until nova has none."""

_MEANING = """\
To end {servers} servers is work of the lab's own, on the same two processors; ours waits for it, at most five and a half seconds, and what is still going then has been asked to go: no master
can have it done sooner than nova by hand."""


class Stop(NamedTuple):
    """How one master stopped."""

    took: float
    left: int
    later: int


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[Stop] = []
    theirs: list[Stop] = []
    by_hand: list[float] = []
    with ground(directory) as lab:
        lab.lab.set(boot_seconds=0.5)
        for number in range(runs):
            with our_master(directory / f"ours-{number}", lab) as one:
                ours.append(_ours(one))
            with stock_master(directory / f"stock-{number}", lab, workers=SERVERS) as other:
                theirs.append(_stock(other))
            by_hand.append(_by_hand(lab))
    return report(ours, theirs, by_hand)


def report(ours: Sequence[Stop], theirs: Sequence[Stop], by_hand: Sequence[float]) -> Report:
    """Give the report of what was measured: of several stops, the worst; by hand, the best."""
    took, left = max(one.took for one in ours), max(one.left for one in ours)
    later = max(one.later for one in ours)
    return Report(
        f"Stopping with {SERVERS} servers up",
        _METHOD.format(servers=SERVERS, later=LATER, patience=STOCK_PATIENCE, clients=CLIENTS),
        _MEANING.format(servers=SERVERS),
        [
            Row("until the master is gone", seconds(took), seconds(max(one.took for one in theirs)), "",
                *at_most(WITHIN, took, f"{WITHIN:g} s")),
            Row("servers left then", str(left), str(max(one.left for one in theirs)), "", "0", left == 0),
            Row(f"servers left {LATER:g} s later", str(later), str(max(one.later for one in theirs)), "", "0",
                later == 0),
            Row("until nova has none: by hand", seconds(min(by_hand))),
        ],
    )  # fmt: skip


def _attached(side: Ours | Stock) -> bool:
    return sum(one.what == "attached" for one in side.moments.since(0)) >= SERVERS


def _ours(side: Ours) -> Stop:
    for _ in range(SERVERS):
        side.here.ask(DEB, sha1=side.here.repository.commit(tiny.sleeping(900)))
    until(lambda: _attached(side), "all builds of ours run", 300)
    time.sleep(3)
    assert len(side.servers()) == SERVERS
    began = time.monotonic()
    control.stop(side.here.settings)
    took = time.monotonic() - began
    left = len(side.servers())
    soon(lambda: not side.servers(), LATER)
    return Stop(took, left, len(side.servers()))


def _stock(side: Stock) -> Stop:
    for _ in range(SERVERS):
        side.force("sleep 900")
    until(lambda: _attached(side), "all builds of the stock master run", 300)
    time.sleep(3)
    took = side.stop(STOCK_PATIENCE)
    left = len(side.servers())
    soon(lambda: not side.servers(), LATER)
    return Stop(took, left, len(side.servers()))


def _by_hand(lab: Ground) -> float:
    """Give the seconds that nova takes to end as many servers."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        made = list(clients.map(lambda number: lab.create(f"by-hand-{number}", ""), range(SERVERS)))
        until(lambda: all(lab.status(one) == "ACTIVE" for one in made), "the servers by hand run", 300, 1)
        began = time.monotonic()
        list(clients.map(lab.delete, made))
        until(lambda: not lab.servers(), "the servers by hand are gone", 120, 0.2)
    return time.monotonic() - began
