"""The task of a teuthology job whose packages are published already: one at a time, and 500 at once."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.bridge_lab import AtOnce, in_turn, job
from bench.masters import measured
from bench.openstack_probe import Poller
from bench.report import Report, Row, at_most, percentile, seconds
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUNS = 200
TASKS = 500
PROCESSES = 4
ALONE = 0.05
CROWD = 2.0

_METHOD = """\
The task `buildpackages` itself, in the Python of teuthology 1.3.0 with its patches of gevent, against one master, from the call of the
task to its return: the job's configuration is searched, teuthology's own classes give the address, the package server is asked, the
sha1 is pinned. One after the other in one process, each followed by one bare `GET` of the same file `version` with `requests`, which
is the least that any answer costs. Then 500 tasks that begin at the same moment in 4 processes of 125 greenlets each, on the two
processors that the master has as well; meanwhile a client reads the master's web page every 100 ms."""

_MEANING = """\
A published commit costs the job one GET: the master is not asked at all, and may be away. At once, most of the time is the
Python of the 500 tasks themselves."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    with measured(directory / "ours", workers={"local": {"count": 1}}) as (here, _):
        repository = here.serve_tiny()
        here.start()
        sha1 = repository.sha1("main")
        assert here.wait(here.ask(DEB, sha1=sha1))["results"] == 0
        bare = f"{here.packages_url}{DEB}/sha1/{sha1}/version"
        alone = in_turn(here, [job(sha1, number) for number in range(runs + 5)], bare)[5:]
        crowd = AtOnce(here, [job(sha1, number) for number in range(TASKS)], PROCESSES)
        ui = Poller(here.url)
        found = crowd.outcomes()
        ui.stop()
        return report(alone, found, ui.waits, ui.failures)


def report(
    alone: Sequence[dict[str, Any]],
    crowd: Sequence[dict[str, Any]],
    ui: Sequence[float],
    ui_failures: int,
) -> Report:
    """Give the report of the outcomes, and of the waits for the web page."""
    took, bare = [one["took"] for one in alone], [one["bare"] for one in alone]
    times = [one["took"] for one in crowd]
    failures = sorted({one["failure"] for one in (*alone, *crowd) if one["failure"]})
    found = sum(bool(one["summary"]) and one["summary"][0]["how"] == "found" for one in (*alone, *crowd))
    number = len(alone) + len(crowd)
    rows = [
        Row("one task, median (p95)", _told(took), _told(bare), f"{median(took) / median(bare):.2f}",
            *at_most(ALONE, median(took), "50 ms")),
        Row(f"{len(times)} tasks at once: p50 / max", f"{seconds(median(times))} / {seconds(max(times))}"),
        Row(f"{len(times)} tasks at once: p99", seconds(percentile(times, 99)), "", "",
            *at_most(CROWD, percentile(times, 99), "2 s")),
        Row("tasks that found the packages", f"{found} of {number}", failures[0][:80] if failures else "", "",
            "all", found == number),
        Row("the master's web page meanwhile: p95 / max", f"{seconds(percentile(ui, 95))} / {seconds(max(ui))}",
            "", "", "answers always", ui_failures == 0),
    ]  # fmt: skip
    return Report("A teuthology job whose packages are published", _METHOD, _MEANING, rows)


def _told(times: Sequence[float]) -> str:
    return f"{seconds(median(times))} ({seconds(percentile(times, 95))})"
