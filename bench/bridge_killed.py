"""200 teuthology jobs that want 5 commits at once, and a master that is killed meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.bridge_lab import AtOnce, job
from bench.masters import measured
from bench.report import Report, Row, seconds
from tests.integration import tiny

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUNS = 1
TASKS = 200
KEYS = 5
PROCESSES = 4
BUILD = 12.0
"""Seconds that each build sleeps."""
KILL_AFTER = 8.0
"""Seconds from the asks to the kill: two builds are under way then."""

_METHOD = """\
200 tasks `buildpackages` in the Python of teuthology 1.3.0, 4 processes of 50 greenlets, begin at the same moment; each wants one of 5
commits, none of which is published. The master has two local machines, and a build sleeps 12 s besides what it does. 8 s
after the asks the master gets SIGKILL, and is started again at once. A build counts as built when it ended well; what was interrupted
is tried again by the same buildrequest. There is no other side: whoever asks teuthology 1.3.0 for packages that
are not there gets an error."""

_MEANING = """\
Each task asked once and followed its buildrequest; while the master was away it tried again and again. Who waits is kept in the
master's database, so that a task which gives up after the restart ends nobody else's build."""


def run(directory: Path, runs: int = RUNS) -> Report:  # noqa: ARG001  (it either holds or not)
    """Measure."""
    with measured(directory / "ours", workers={"local": {"count": 2}}) as (here, _):
        repository = here.serve_tiny()
        here.start()
        sha1s = [repository.commit(tiny.sleeping(BUILD), ref=f"wip/{number}") for number in range(KEYS)]
        tasks = AtOnce(here, [job(sha1s[number % KEYS], number) for number in range(TASKS)], PROCESSES)
        time.sleep(max(0.0, tasks.at + KILL_AFTER - time.time()))
        waiting = sum(len(one["waiting"]) for one in here.get("packages")["packages"])
        here.kill()
        down = time.monotonic()
        here.start()
        away = time.monotonic() - down
        outcomes = tasks.outcomes()
        builds = here.get("builds?property=package_key")["builds"]
        return report(outcomes, builds, len(here.get("buildsets")["buildsets"]), waiting, away)


def report(
    outcomes: Sequence[dict[str, Any]],
    builds: Sequence[dict[str, Any]],
    buildsets: int,
    waiting: int,
    away: float,
) -> Report:
    """Give the report of the tasks' outcomes and the master's builds."""
    good = [one for one in outcomes if not one["failure"]]
    failures = sorted({one["failure"] for one in outcomes if one["failure"]})
    built = Counter(one["properties"]["package_key"][0] for one in builds if one["results"] == 0)
    hows = Counter(one["summary"][0]["how"] for one in good)
    rows = [
        Row("tasks that ended right", f"{len(good)} of {len(outcomes)}", failures[0][:80] if failures else "", "",
            "all", len(good) == len(outcomes) == TASKS),
        Row("buildsets", str(buildsets), "", "", f"exactly {KEYS}", buildsets == KEYS),
        Row("builds that ended well", f"{sum(built.values())} of {len(built)} keys", "", "", "each key once",
            len(built) == KEYS and set(built.values()) == {1}),
        Row("builds that ended with the master", str(sum(one["results"] != 0 for one in builds))),
        Row("jobs that the master knew to wait, before it was killed", str(waiting)),
        Row("how the packages came to be there, as the jobs were told", ", ".join(f"{how}: {n}" for how, n in sorted(hows.items()))),
        Row("from SIGKILL until the master answered again", seconds(away)),
        Row("the last task's end", seconds(max(one["took"] for one in outcomes))),
    ]  # fmt: skip
    return Report("200 teuthology jobs for 5 commits, and a killed master", _METHOD, _MEANING, rows)
