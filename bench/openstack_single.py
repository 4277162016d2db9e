"""One request at a time: what the master adds to what nova and the boot take by themselves, before and after."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.moments import first
from bench.openstack_lab import ground, our_master, stock_master, until_gone
from bench.openstack_probe import ECHO, soon, until
from bench.report import Report, Row, Table, at_most, seconds, spread
from bench.stock_openstack import HAND
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.openstack_lab import Ground, Ours, Stock

RUNS = 7
BOOT = 0.5
ABOVE = 1.0
"""Seconds that the master may add."""

_METHOD = """\
By turns in one lab, one request at a time, each after the last server is gone: ours, a stock Buildbot with OpenStackLatentWorkers, and by hand. All
have the same image, nova_flavor, network and user data, boots of {boot:g} s, and a build of one step, `echo`.
From just before the POST of the request until the worker has attached; and from the moment at which Buildbot calls a build finished until
nova answers 404 for its server, asked every 50 ms and not through the masters' proxies. By hand there is no request: from just before the one call
that makes the server (openstacksdk, everything looked up before) until its worker has attached to the stock master, as a plain worker; then from just before the one
call that deletes it until nova answers 404. So that is what nova and the boot need, the start of a worker in it, and what
is left when it is taken off is the master's. The first of each warms up and is not counted."""

_MEANING = """\
The stock master sees a server at the end of a five-second poll at the earliest, but its worker may attach before. After a build it deletes from the reactor."""


class Turn(NamedTuple):
    """Seconds of one turn of one side."""

    attached: float
    gone: float
    active: float = 0.0
    """By hand only: until nova says ACTIVE."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[Turn] = []
    theirs: list[Turn] = []
    by_hand: list[Turn] = []
    with (
        ground(directory) as lab,
        our_master(directory / "ours", lab, patch=ECHO) as here,
        stock_master(directory / "stock", lab, workers=2) as other,
    ):
        lab.lab.set(boot_seconds=BOOT)
        for _ in range(runs + 1):
            ours.append(_ours(here, lab))
            theirs.append(_stock(other, lab))
            by_hand.append(_by_hand(other, lab))
    return report(ours[1:], theirs[1:], by_hand[1:])


def report(ours: Sequence[Turn], theirs: Sequence[Turn], by_hand: Sequence[Turn]) -> Report:
    """Give the report of what was measured."""
    rows = []
    for what, part in (
        ("request to worker attached", "attached"),
        ("end of the build to server gone", "gone"),
    ):
        one, other, hand = ([getattr(turn, part) for turn in side] for side in (ours, theirs, by_hand))
        above, their = median(one) - median(hand), median(other) - median(hand)
        rows += [
            Row(what, spread(one), spread(other), f"{median(one) / median(other):.2f}"),
            Row(f"{what}: by hand", spread(hand)),
            Row(f"{what}, less that by hand", seconds(above), seconds(their), "",
                *at_most(ABOVE, above, f"{ABOVE:g} s")),
        ]  # fmt: skip
    details = [
        [str(number), *(seconds(value) for value in (a.attached, b.attached, c.attached, c.active, a.gone, b.gone, c.gone))]
        for number, (a, b, c) in enumerate(zip(ours, theirs, by_hand, strict=True), 1)
    ]  # fmt: skip
    header = [
        "turn",
        "attached: ours",
        "stock",
        "by hand",
        "ACTIVE by hand",
        "gone: ours",
        "stock",
        "by hand",
    ]
    return Report(
        "One request: what the master adds to nova's own times",
        _METHOD.format(boot=BOOT), _MEANING, rows, [Table("Turn by turn", header, details)],
    )  # fmt: skip


def _ours(side: Ours, lab: Ground) -> Turn:
    sha1 = side.here.repository.commit()
    began = time.time()
    answer = side.here.ask(DEB, sha1=sha1)
    build = until(lambda: side.here.builds(answer), "a build of ours begins", 60, 0.05)[0]
    server_id = until(lambda: side.instance(build), "our build has a server", 60, 0.05)
    return _seen(side, lab, began, server_id)


def _stock(side: Stock, lab: Ground) -> Turn:
    began = time.time()
    side.force()
    [server_id] = until(side.servers, "the stock build has a server", 60, 0.05)
    return _seen(side, lab, began, server_id)


def _seen(side: Ours | Stock, lab: Ground, began: float, server_id: str) -> Turn:
    gone = until_gone(lab, server_id)
    time.sleep(0.5)
    seen = side.moments.since(began)
    return Turn(first(seen, "attached") - began, gone - first(seen, "finished"))


def _by_hand(other: Stock, lab: Ground) -> Turn:
    began = time.time()
    server_id = lab.create(HAND, other.hand.user_data)
    until(lambda: lab.status(server_id) == "ACTIVE", "the server made by hand is ACTIVE", 60, 0.05)
    active = time.time() - began

    def attached() -> list[float]:
        return [one.at for one in other.moments.since(began) if (one.what, one.name) == ("attached", HAND)]

    at = until(attached, "the worker of the server made by hand attaches", 60, 0.05)[0]
    asked = time.time()
    lab.delete(server_id)
    gone = until_gone(lab, server_id)
    soon(lambda: not _connected(other), 10)
    return Turn(at - began, gone - asked, active)


def _connected(other: Stock) -> bool:
    workers = other.get("workers")["workers"]
    return any(one["connected_to"] for one in workers if one["name"] == HAND)
