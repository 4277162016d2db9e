"""The master killed with SIGKILL at ten moments of a build's life, and started again, beside a stock one killed once."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

from bench.openstack_lab import ground, our_master, stock_master
from bench.openstack_probe import soon, until
from bench.report import Report, Row, Table, seconds
from tests.integration import tiny
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.openstack_lab import Ours, Stock

RUNS = 1
MOMENTS = (
    "the build starts",
    "nova has answered the create call",
    "the server boots",
    "the worker knocks",
    "the step checkout begins",
    "a second into packages",
    "a file is uploaded",
    "the step publish begins",
    "the build has ended",
    "nova has answered the delete call",
)
PATIENCE = 180.0
BOOT = 2.0
STOCK_BUILDS, STOCK_WORKERS, STOCK_WORK = 5, 20, 40

_WHERE = "cat /var/lib/cloud/instance/meta_data.json"
"""What a build prints: cloud-init's own file says on which server it runs."""

_METHOD = """\
A patch kills our master's process with SIGKILL right at a moment, and it is started again at once; one request for each of {count} moments, a whole build of a tiny repository, servers that boot for
{boot:g} s. Then its request must end published, with exactly one build that went all the way, and within {patience:g} s nova must have none of its servers. Each build
prints the id of the server that it runs on, from what cloud-init keeps; it must be the one that the master made for this very build, so that a worker of an old server, attached in
place of a new one's, would be seen. Beside it a stock Buildbot with {workers} OpenStackLatentWorkers is killed once, with {builds} builds running on servers whose user data starts a worker as Buildbot's manual says, and started again in the
same lab; it is looked at {patience:g} s later or afterwards."""

_MEANING = """\
A server's password is good for one boot, and its worker ends with the connection; a stock worker knocks for ever, and its password stays the same. The stock
master looks for an old server only when the worker of the same name is next asked for one."""

_PATCH = """
import os as _os
import signal as _signal

from buildbot.process.buildstep import BuildStep as _BuildStep
from workers.cloud import Cloud as _Cloud
from workers.latent import OneBuildWorker as _OneBuildWorker

def _moment(name):
    order = _os.path.join({directory!r}, "kill at " + name)
    if _os.path.exists(order):
        _os.rename(order, _os.path.join({directory!r}, "killed"))
        _os.kill(_os.getpid(), _signal.SIGKILL)

def _a_second_later(name):
    from twisted.internet import reactor
    reactor.callLater(1, _moment, name)

def _hook(owner, method, at):
    original = getattr(owner, method)
    def wrapped(self, *args, **kwargs):
        at(self)
        return original(self, *args, **kwargs)
    setattr(owner, method, wrapped)

def _answered(method, at):
    original = getattr(_Cloud, method)
    async def wrapped(self, *args, **kwargs):
        found = await original(self, *args, **kwargs)
        at()
        return found
    setattr(_Cloud, method, wrapped)

def _created():
    _moment("nova has answered the create call")
    _a_second_later("the server boots")

def _step(self):
    _moment("the step %s begins" % self.name)
    _a_second_later("a second into %s" % self.name)

_hook(Build, "startBuild", lambda _: _moment("the build starts"))
_hook(AbstractWorker, "attached", lambda _: _moment("the worker knocks"))
_hook(_BuildStep, "startStep", _step)
_hook(Upload, "receive", lambda _: _moment("a file is uploaded"))
_hook(_OneBuildWorker, "stop_instance", lambda _: _moment("the build has ended"))
_answered("create", _created)
_answered("delete", lambda: _moment("nova has answered the delete call"))
"""
"""Comes after the patch of bench.moments, which imports some of what it hooks."""


class Ended(NamedTuple):
    """What became of one request whose master was killed; `gone` is negative if servers were left."""

    moment: str
    published: bool
    builds: int
    whole: int
    """Builds that went all the way: that made packages, and published them."""
    elsewhere: int
    """Builds that ran on another server than the one that was made for them."""
    again: float
    """Seconds from the start of the master until the request was complete."""
    gone: float
    """Seconds from the start of the master until nova had none of its servers."""


class StockEnded(NamedTuple):
    """What became of the stock master's requests."""

    left: int
    """Servers from before the kill that are still there."""
    incomplete: int
    twice: int
    """Requests with more than one build that ended well."""
    elsewhere: int
    """Builds of after the kill that ran on a server of before."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[Ended] = []
    theirs: list[StockEnded] = []
    with ground(directory) as lab:
        lab.lab.set(boot_seconds=BOOT)
        for number in range(runs):
            place = directory / f"ours-{number}"
            patch = _PATCH.format(directory=str(place))
            with (
                stock_master(directory / f"stock-{number}", lab, workers=STOCK_WORKERS, plain=True) as stock,
                our_master(place, lab, patch=patch) as side,
            ):
                old = _kill_stock(stock)
                killed = time.monotonic()
                ours += [_killed(side, moment) for moment in MOMENTS]
                time.sleep(max(0.0, killed + PATIENCE - time.monotonic()))
                theirs.append(_stock_ended(stock, old))
    return report(ours, theirs)


def report(ours: Sequence[Ended], theirs: Sequence[StockEnded]) -> Report:
    """Give the report of what became of all requests."""
    published = sum(one.published for one in ours)
    once = sum(one.whole == 1 for one in ours)
    left = sum(one.gone < 0 for one in ours)
    elsewhere = sum(one.elsewhere for one in ours)
    asked = STOCK_BUILDS * len(theirs)
    ended = asked - sum(one.incomplete for one in theirs)
    twice = sum(one.twice for one in theirs)
    details = [
        [
            one.moment, "published" if one.published else "not published", str(one.builds), seconds(one.again),
            seconds(one.gone) if one.gone >= 0 else "not in time",
        ]
        for one in ours
    ]  # fmt: skip
    method = _METHOD.format(
        count=len(MOMENTS), boot=BOOT, patience=PATIENCE, workers=STOCK_WORKERS, builds=STOCK_BUILDS
    )
    return Report(
        "The master killed, and started again",
        method,
        _MEANING,
        [
            Row("requests that ended published", f"{published} of {len(ours)}", f"{ended} of {asked} ended", "",
                "all", published == len(ours)),
            Row("keys built to the end exactly once", f"{once} of {len(ours)}",
                f"{ended - twice} of {asked}", "", "all", once == len(ours)),
            Row("moments after which servers were left", str(left),
                f"{sum(one.left for one in theirs)} of {asked} old servers left", "", "0", left == 0),
            Row("builds on another server than their own", str(elsewhere), str(sum(one.elsewhere for one in theirs)),
                "", "0", elsewhere == 0),
        ],
        [
            Table("Ours, moment by moment; times since the new start",
                  ["killed when", "request", "builds", "complete", "no server"], details),
        ],
    )  # fmt: skip


def _killed(side: Ours, moment: str) -> Ended:
    here = side.here
    order, done = here.directory / f"kill at {moment}", here.directory / "killed"
    sha1 = here.repository.commit(tiny.Knobs(work=f"{_WHERE}\nsleep 2"))
    order.touch()
    with suppress(requests.ConnectionError):  # it may be killed before it answers
        here.ask(DEB, sha1=sha1)
    until(lambda: done.exists() and not here.pid, f"the master is killed when {moment}", 120, 0.02)
    done.unlink()
    here.start(patch=side.patch)
    began = time.monotonic()
    answer = here.ask(DEB, sha1=sha1)
    result = soon(lambda: _complete(side, answer), PATIENCE)
    again = time.monotonic() - began
    soon(lambda: not side.servers(), began + PATIENCE - time.monotonic(), 0.5)
    gone = -1.0 if side.servers() else time.monotonic() - began
    builds = here.builds(answer)
    return Ended(
        moment=moment,
        published=result == "0" and here.ask(DEB, sha1=sha1)["state"] == "published",
        builds=len(builds),
        whole=sum(_done(side, one) >= {"packages", "publish"} for one in builds),
        elsewhere=sum(_elsewhere(side, one) for one in builds),
        again=again,
        gone=gone,
    )


def _complete(side: Ours, answer: dict[str, Any]) -> str:
    result, _ = side.built(answer)
    return "" if result < 0 else str(result)


def _done(side: Ours, build: dict[str, Any]) -> set[str]:
    """Name the steps of a build that ended well."""
    steps = side.get(f"builds/{build['buildid']}/steps")["steps"]
    return {str(one["name"]) for one in steps if one["results"] == 0}


def _elsewhere(side: Ours, build: dict[str, Any]) -> bool:
    """Whether a build ran on another server than its own; one that made packages must say where."""
    own, ran_on = {side.instance(build)}, _ran_on(side, build, "packages")
    return ran_on != own if "packages" in _done(side, build) else bool(ran_on - own)


def _kill_stock(side: Stock) -> list[str]:
    """Kill it when all builds run, and start it again; give the servers of before."""
    for _ in range(STOCK_BUILDS):
        side.force(f"{_WHERE}; sleep {STOCK_WORK}")

    def running() -> bool:
        return sum(one.what == "attached" for one in side.moments.since(0)) >= STOCK_BUILDS

    until(running, "all builds of the stock master run", 120)
    time.sleep(2)
    old = side.servers()
    side.kill()
    side.start()
    return old


def _stock_ended(side: Stock, old: Sequence[str]) -> StockEnded:
    requests_ = side.requests()
    builds = [side.builds(int(one["buildrequestid"])) for one in requests_]
    after = [build for one in builds for build in one[1:]]
    return StockEnded(
        left=len(set(old) & set(side.servers())),
        incomplete=sum(not one["complete"] for one in requests_),
        twice=sum(sum(build["results"] == 0 for build in one) > 1 for one in builds),
        elsewhere=sum(bool(_ran_on(side, build, "shell") & set(old)) for build in after),
    )


def _ran_on(side: Ours | Stock, build: dict[str, Any], step: str) -> set[str]:
    """Give the ids of servers that a step of a build has printed: one, or none if it did not come so far."""
    found = set()
    for one in side.get(f"builds/{build['buildid']}/steps")["steps"]:
        if one["name"] == step:
            for log in side.get(f"steps/{one['stepid']}/logs")["logs"]:
                text = requests.get(f"{side.url}api/v2/logs/{log['logid']}/raw", timeout=60).text
                found |= set(re.findall(r'"uuid": "([0-9a-f-]{36})"', text))
    return found
