"""The end of the master with twenty servers up: how long it takes, and what it leaves."""

from __future__ import annotations

import time
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

    from bench.openstack_lab import Ours, Stock

RUNS = 1
SERVERS = 20
WITHIN = 10.0
STOCK_PATIENCE = 60.0
"""Seconds after which the stock master is killed."""
LATER = 30.0

_METHOD = """\
{servers} builds run, each on its server; then the master is stopped: ours as `make stop` does (`python -m master.control stop`),
the stock Buildbot with OpenStackLatentWorkers as `buildbot stop` does (SIGTERM), by turns in the same lab. The time is until its process is gone; servers are counted in
nova at that moment, and {later:g} s later. After {patience:g} s the stock master is killed."""

_MEANING = """\
To end {servers} servers is work of the lab's own, on the same two processors; ours waits for it, at most seven seconds, and what is still going then has been asked to go."""


class Stop(NamedTuple):
    """How one master stopped."""

    took: float
    left: int
    later: int


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[Stop] = []
    theirs: list[Stop] = []
    with ground(directory) as lab:
        lab.lab.set(boot_seconds=0.5)
        for number in range(runs):
            with our_master(directory / f"ours-{number}", lab) as one:
                ours.append(_ours(one))
            with stock_master(directory / f"stock-{number}", lab, workers=SERVERS) as other:
                theirs.append(_stock(other))
    return report(ours, theirs)


def report(ours: Sequence[Stop], theirs: Sequence[Stop]) -> Report:
    """Give the report of what was measured: of several stops, the worst."""
    took, left = max(one.took for one in ours), max(one.left for one in ours)
    later = max(one.later for one in ours)
    return Report(
        f"Stopping with {SERVERS} servers up",
        _METHOD.format(servers=SERVERS, later=LATER, patience=STOCK_PATIENCE),
        _MEANING.format(servers=SERVERS),
        [
            Row("until the master is gone", seconds(took), seconds(max(one.took for one in theirs)), "",
                *at_most(WITHIN, took, f"{WITHIN:g} s")),
            Row("servers left then", str(left), str(max(one.left for one in theirs)), "", "0", left == 0),
            Row(f"servers left {LATER:g} s later", str(later), str(max(one.later for one in theirs)), "", "0",
                later == 0),
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
