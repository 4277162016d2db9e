"""From the request to the first step, beside stock Buildbot's LocalWorker."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING

from bench.masters import HAND, measured, stock
from bench.moments import first
from bench.report import Report, Row, Table, at_most, seconds, spread
from model.targets import Target
from tests.integration.harness import DEB, ROOTS
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from pathlib import Path

    from bench.masters import StockMaster
    from bench.moments import Moments
    from tests.integration.harness import Installation

RUNS = 10

_METHOD = """\
Two masters on the same machine, by turns: ours with the `local` provider, and a stock Buildbot with one
`LocalWorker`, one builder with one `echo` step, and a `ForceScheduler`. From just before the POST to the start of
the first step, and to the start of the first command on the worker. A `LocalWorker` lives inside its master and
is there before it is asked for; ours is a process in a throw-away root, made for this build. So that set-up is
measured apart, without our master: the same command line, started by hand, until a worker in it has attached to the
stock master."""

_MEANING = """\
Of the set-up, overlay and namespaces are the small part; a Python that imports buildbot-worker, Twisted and Autobahn, which a machine of its
own for each build cannot do without, is the large one. What is left when it is taken off is the master's work. Most of that is
commits to the database, one after another: Buildbot makes a new connection to SQLite for each, ours keeps one
(`master/storage/database.py`), which makes up for what a latent worker and five properties more cost. A tenth of a second of both
sides is Buildbot waiting whether more requests come."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    by_hand: list[dict[str, float]] = []
    root = Roots(ROOTS, {}).path(Root.of(Target.from_name(DEB), host_suite()))
    with measured(directory / "ours", targets=[DEB]) as (here, moments), stock(directory / "stock") as other:
        repository = here.serve_tiny()
        here.start(patch=moments.patch)
        list(Roots(ROOTS, {}).prepare(Root.of(Target.from_name(DEB), host_suite())))
        for number in range(runs + 1):  # the first of each warms up, and is not counted
            theirs.append(_stock(other))
            ours.append(one_build(here, moments, repository.commit()))
            by_hand.append(_by_hand(root, directory / f"by-hand-{number}", other))
    return report(ours[1:], theirs[1:], by_hand[1:])


def report(
    ours: list[dict[str, float]], theirs: list[dict[str, float]], by_hand: list[dict[str, float]]
) -> Report:
    """Give the report of what was measured."""
    step = [one["first step"] for one in ours]
    command = [one["first command"] for one in ours]
    stock_step = [one["first step"] for one in theirs]
    setup = [one["attached"] for one in by_hand]
    allowed = 1.1 * median(stock_step) + median(setup)
    ratio = (median(step) - median(setup)) / median(stock_step)
    details = [
        [name, seconds(median(one[name] for one in ours))]
        for name in (
            "POST answered",
            "machine asked for",
            "connected",
            "attached",
            "first step",
            "first command",
        )
    ]
    entered = [
        [name, seconds(median(one[name] for one in by_hand))]
        for name in ("inside the root", "connected", "attached")
    ]
    return Report(
        "From the request to the first step",
        _METHOD,
        _MEANING,
        [
            Row("POST to first step", spread(step), spread(stock_step),
                f"{median(step) / median(stock_step):.2f}"),
            Row("the root's own set-up, by hand", spread(setup)),
            Row("POST to first step, less the set-up", seconds(median(step) - median(setup)),
                seconds(median(stock_step)), f"{ratio:.2f}",
                *at_most(allowed, median(step), "1.10, plus the set-up")),
            Row("POST to first command on the worker", spread(command),
                spread([one["first command"] for one in theirs])),
        ],
        [
            Table(f"Ours, since the POST (medians of {len(ours)})", ["moment", "after"], details),
            Table("The set-up by hand, since its start", ["moment", "after"], entered),
        ],
    )  # fmt: skip


def one_build(here: Installation, moments: Moments, sha1: str) -> dict[str, float]:
    """Return the moments of one build of a tiny commit, in seconds since just before its POST."""
    began = time.time()
    answer = here.ask(DEB, sha1=sha1)
    answered = time.time()
    assert here.wait(answer)["results"] == 0
    here.until(lambda: not here.leftovers(), "the machine is gone")
    seen = moments.since(began)
    found = {
        "machine asked for": first(seen, "ask"),
        "connected": first(seen, "connected"),
        "attached": first(seen, "attached"),
        "first step": first(seen, "start", "look"),
        "first command": first(seen, "start", "machine"),
    }
    return {"POST answered": answered - began, **{name: at - began for name, at in found.items()}}


def _stock(other: StockMaster) -> dict[str, float]:
    began = time.time()
    number = other.force()
    other.until(lambda: other.complete(number), "a build of the stock master ends")
    at = first(other.moments.since(began), "start", "shell") - began
    return {"first step": at, "first command": at}


def _by_hand(root: Path, scratch: Path, other: StockMaster) -> dict[str, float]:
    """Start a worker as the provider does, and see it attach to a master that is not ours."""
    scratch.mkdir()
    library = "/opt/buildbot-worker"
    script = 'touch "$HOME/entered" && mkdir -p "$HOME/worker" && cd "$HOME/worker" && exec "$@"'
    command = enter(root, scratch, "build", "sh", "-c", script, "sh",
                    "python3", "-I", f"{library}/run-worker.py", library)  # fmt: skip
    name, password = HAND
    config = {"host": "127.0.0.1", "port": other.pb, "name": name, "password": password}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/build", "LANG": "C.UTF-8"}
    began = time.time()
    process = subprocess.Popen(
        command, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(config) + "\n")
        process.stdin.close()

        def attached() -> bool:
            return any(one.what == "attached" and one.name == name for one in other.moments.since(began))

        other.until(attached, "the worker that was started by hand attaches")
        seen = other.moments.since(began)
        return {
            "inside the root": (scratch / "upper/home/build/entered").stat().st_mtime - began,
            "connected": first(seen, "connected", name) - began,
            "attached": first(seen, "attached", name) - began,
        }
    finally:
        process.kill()
        process.wait()
        other.until(lambda: not _connected(other), "the worker that was started by hand is gone")
        shutil.rmtree(scratch)


def _connected(other: StockMaster) -> bool:
    workers = other.get("workers")["workers"]
    return any(one["connected_to"] for one in workers if one["name"] == HAND[0])
