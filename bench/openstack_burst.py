"""Twenty requests at once for twenty keys on twenty servers, beside the stock OpenStackLatentWorker."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.openstack_lab import ground, our_master, stock_master
from bench.openstack_probe import ECHO, POLL, Poller, Stalls, soon, until, with_missed
from bench.report import Report, Row, at_most, percentile, seconds
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.openstack_lab import Ground, Ours, Stock

RUNS = 1
BUILDS = 20
BOOTS = (0.5, 25.0)
"""Seconds from ACTIVE until a server begins to run its user data."""
REST = 0.1
LAG = 0.05
CALLS = 6.0
PATIENCE = 420.0
"""Seconds for all to end."""

_METHOD = """\
One lab (keystone, glance, placement, neutron, nova, from PyPI; a server is a process that runs its user data in a throw-away root),
and on it by turns, each freshly started: a stock Buildbot with 20 OpenStackLatentWorkers, ours, and ours again with
whole builds. Image, nova_flavor, network and user data are the same for all, so the machines are. With the stock master and with `ours`
a build is one step, `echo`, so that what is compared is the life of the machines; `ours` has that step put in place of the product's by a patch.
A whole build checks out a tiny repository, makes a deb, uploads, signs and publishes it, and is compared with nothing, but has the same bars.
20 clients send one POST each at the same moment. From a second before until nova has none of the
servers any more, a client reads `GET /api/v2/builds` at fixed times, every 100 ms; `all that came due` counts also the questions that it could not ask while it waited, each with what was left of the wait.
Inside the master a patch has the reactor call it every 10 ms and notes how late that is; a tick that passed while the
reactor stood counts as well. Calls are those that a proxy between this master and the lab saw, keystone's left out, all look-ups and sweeps in them. Lab, proxies and
servers run at nice 10, and so do the sessions of lab and servers (`lab/priority.py`): in production these are other machines."""

_MEANING = """\
Wall time is from the POSTs to the end of the last build; most of it is the lab's own work, on the same two
processors. The stock master lists flavors and looks its image up in the reactor, again and again while its builder looks for a worker that
is compatible, and parks a thread of the reactor's pool, which REST answers need, in each boot."""


@dataclass(frozen=True)
class Burst:
    """What one burst was like."""

    waits: Sequence[float]
    """Of the client that reads the REST API."""
    failures: int
    stalls: Stalls
    calls: float
    """A build."""
    wall: float
    first: float
    """Median from the POST to the attached worker."""
    ended: int
    """Builds that ended well."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    found: dict[tuple[str, float], list[Burst]] = {}
    with ground(directory) as lab:
        for number in range(runs):
            for boot in BOOTS:
                lab.lab.set(boot_seconds=boot)
                for side in ("stock", "ours", "whole"):
                    place = directory / f"{side}-{boot:g}-{number}"
                    found.setdefault((side, boot), []).append(_side(side, place, lab))
    return report(found)


def report(found: dict[tuple[str, float], list[Burst]]) -> Report:
    """Give the report of all bursts, by side (stock, ours, whole) and seconds of boot."""
    rows = []
    for boot in dict.fromkeys(boot for _, boot in found):
        stock, ours, whole = (_sum(found[side, boot]) for side in ("stock", "ours", "whole"))
        for name, one, other in (("", ours, stock), (", whole builds", whole, None)):
            where = f"boots of {boot:g} s{name}"
            rows += [
                Row(f"{where}: REST p95", seconds(one.p95), other.of(other.p95) if other else "",
                    _ratio(one.p95, other and other.p95), *at_most(REST, one.p95, "100 ms")),
                Row(f"{where}: REST p50 / max", one.rest, other.rest if other else ""),
                Row(f"{where}: REST p95, all that came due", seconds(one.due), seconds(other.due) if other else ""),
                Row(f"{where}: reactor lag p99", seconds(one.stalls.p99), seconds(other.stalls.p99) if other else "",
                    _ratio(one.stalls.p99, other and other.stalls.p99), *at_most(LAG, one.stalls.p99, "50 ms")),
                Row(f"{where}: reactor lag p50 / p99 / max", one.stalls.text, other.stalls.text if other else ""),
                Row(f"{where}: reactor stood", f"{one.stalls.share:.1%}", f"{other.stalls.share:.1%}" if other else ""),
                Row(f"{where}: cloud calls a build", f"{one.calls:.1f}", f"{other.calls:.1f}" if other else "",
                    _ratio(one.calls, other and other.calls), *at_most(CALLS, one.calls, f"{CALLS:g}")),
                Row(f"{where}: POST to worker attached, median", seconds(one.first), seconds(other.first) if other else ""),
                Row(f"{where}: builds that ended well", f"{one.ended} of {one.wanted}",
                    f"{other.ended} of {other.wanted}" if other else "", bar="all", met=one.ended == one.wanted),
            ]  # fmt: skip
            wall = at_most(other.wall, one.wall, "the other side's") if other else ("", None)
            rows.append(
                Row(f"{where}: until all builds are done", seconds(one.wall), seconds(other.wall) if other else "",
                    _ratio(one.wall, other and other.wall), *wall)
            )  # fmt: skip
    return Report("20 requests at once on 20 servers", _METHOD, _MEANING, rows)


@dataclass(frozen=True)
class _Sum:
    """All bursts of one side as one: every wait counts, the rest are medians."""

    p50: float
    p95: float
    due: float
    most: float
    failures: int
    stalls: Stalls
    calls: float
    wall: float
    first: float
    ended: int
    wanted: int

    @property
    def rest(self) -> str:
        return f"{seconds(self.p50)} / {seconds(self.most)}"

    def of(self, value: float) -> str:
        """Give a time, and how many questions got no answer."""
        return seconds(value) + (f" ({self.failures} without an answer)" if self.failures else "")


def _sum(bursts: Sequence[Burst]) -> _Sum:
    waits = [wait for one in bursts for wait in one.waits]
    stalls = Stalls(
        median(one.stalls.p50 for one in bursts), median(one.stalls.p99 for one in bursts),
        max(one.stalls.most for one in bursts), median(one.stalls.share for one in bursts),
    )  # fmt: skip
    return _Sum(
        percentile(waits, 50), percentile(waits, 95), percentile(with_missed(waits, POLL), 95), max(waits), sum(one.failures for one in bursts), stalls,
        median(one.calls for one in bursts), median(one.wall for one in bursts),
        median(one.first for one in bursts), sum(one.ended for one in bursts), BUILDS * len(bursts),
    )  # fmt: skip


def _ratio(ours: float, other: object) -> str:
    """Give one time or count by the other; nothing where there is no other."""
    return f"{ours / other:.2f}" if isinstance(other, float) and other else ""


def _side(side: str, place: Path, lab: Ground) -> Burst:
    if side == "stock":
        with stock_master(place, lab, workers=BUILDS) as stock:
            return _burst(stock, lambda _: stock.force())
    with our_master(place, lab, patch=ECHO if side == "ours" else "") as ours:
        here = ours.here
        sha1s = [here.repository.commit() for _ in range(BUILDS)]
        token = here.token
        asked = {"builderNames": [DEB]}
        return _burst(ours, lambda number: here.force(token, **asked, sha1=sha1s[number]).raise_for_status())


def _burst(side: Ours | Stock, ask: Callable[[int], Any]) -> Burst:
    # What a master does right after its start is no part of it, nor are its look-ups left out.
    soon(lambda: not side.servers(), 10)
    time.sleep(2)
    poller = Poller(f"{side.url}api/v2/builds")
    time.sleep(1)
    began = time.time()
    with ThreadPoolExecutor(BUILDS) as clients:
        list(clients.map(ask, range(BUILDS)))
    until(lambda: not _waiting(side), "all requests are complete", PATIENCE, 0.5)
    soon(lambda: not side.servers(), 60, 0.5)
    took = time.time() - began
    poller.stop()
    time.sleep(1.5)  # the last lags are written
    seen = side.moments.since(began)
    builds = side.get("builds")["builds"]
    attached = sorted(one.at - began for one in seen if one.what == "attached")
    return Burst(
        waits=poller.waits,
        failures=poller.failures,
        stalls=Stalls.of(side.lags.between(began, began + took), took),
        calls=side.proxy.calls() / BUILDS,
        wall=max(one.at for one in seen if one.what == "finished") - began,
        first=median(attached),
        ended=sum(one["results"] == 0 for one in builds),
    )


def _waiting(side: Ours | Stock) -> list[Any]:
    found: list[Any] = side.get("buildrequests?complete=false&field=buildrequestid&field=complete")[
        "buildrequests"
    ]
    return found
