"""The OpenStack benchmarks' own arithmetic: waits, lags, and what counts as within a bar."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench import (
    openstack_burst,
    openstack_cycles,
    openstack_killed,
    openstack_outage,
    openstack_probe,
    openstack_single,
    openstack_stop,
    stock_openstack,
)
from bench.openstack_probe import Stalls

if TYPE_CHECKING:
    from bench.report import Report

ROOT = Path(__file__).parents[2]
QUIET = Stalls(0.0002, 0.004, 0.03, 0.01)


def missed(report: Report, *what: str) -> None:
    """Look that exactly these figures are beyond their bars, and that the page says so."""
    assert report.missed == list(what)
    assert report.markdown().count("**missed**") == len(what)


def test_a_wait_counts_for_everybody_who_would_have_waited() -> None:
    """By hand: who came 0, 100 and 200 ms into a wait of 0.25 s waited 0.25, 0.15 and 0.05 s."""
    assert openstack_probe.with_missed([0.25, 0.02, 0.0], 0.1) == pytest.approx([0.25, 0.15, 0.05, 0.02, 0.0])


def test_a_long_stall_is_not_one_tick_among_many() -> None:
    """A second's stall in a hundred seconds is one late tick of nine thousand, and the p99 shows it."""
    found = Stalls.of([0.0001] * 9900 + [1.02], 100.0)
    assert found.p50 == 0.0001
    assert found.p99 > 0.005
    assert found.most == 1.02
    assert found.share == pytest.approx(0.0102)


def test_ticks_that_are_hardly_late_are_no_stall() -> None:
    """The share is of late ticks only, but percentiles are of all; and no ticks at all are no good news."""
    assert Stalls.of([0.009] * 1000, 10.0) == Stalls(0.009, 0.009, 0.009, 0.0)
    with pytest.raises(LookupError, match="was the master patched"):
        Stalls.of([], 10.0)


def test_lags_are_of_ticks_that_were_due_in_the_time() -> None:
    """A tick belongs to when it was due: one that came late may be of before, one that is late at the end counts."""
    text = "100.500 0.600000\n101.000 0.000100\n104.900 2.900000\n105.000 0.0\n"
    assert openstack_probe.lags(text, 100.0, 104.0) == [0.0001, 2.9]


def test_the_patches_are_python() -> None:
    """They run in the master's process, where a mistake would be seen as a master that does not start."""
    for patch in (
        openstack_probe._PATCH.format(lags="'lags'", tick=0.01),
        openstack_probe.ECHO,
        openstack_killed._PATCH.format(directory="d"),
        stock_openstack._CONFIG,
    ):
        ast.parse(patch)


def test_one_step_takes_the_place_of_a_builds_steps(tmp_path: Path) -> None:
    """With the patch, the product's own builders are made, and each has the one step."""
    path = tmp_path / "settings.yaml"
    git = "git: {allowed: [git://127.0.0.1/]}\nprojects: {ceph: {git_url: git://127.0.0.1/a, canonical_url: git://127.0.0.1/a}}\n"
    path.write_text(f"{git}targets: [ceph-deb-bookworm-x86_64-default]\n")
    program = f"""{openstack_probe.ECHO}
from pathlib import Path
from master.builders import builders
from master.settings import Settings
print([[step.step_class.__name__ for step in one.factory.steps] for one in builders(Settings.from_file(Path({str(path)!r})))])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert ran.stdout == "[['ShellCommand']]\n"


def test_every_moment_has_its_hook() -> None:
    """A moment that nothing in the patch names would be waited for in vain."""
    for moment in openstack_killed.MOMENTS:
        step = moment.partition("step ")[2].removesuffix(" begins") or moment.partition("into ")[2]
        said = moment.replace(step, "%s") if step else moment
        assert f'"{said}"' in openstack_killed._PATCH, moment
    assert len(set(openstack_killed.MOMENTS)) == 10


def burst(**other: object) -> openstack_burst.Burst:
    made = {
        "waits": [0.01] * 20, "failures": 0, "stalls": QUIET, "calls": 5.0, "wall": 40.0, "first": 3.0, "ended": 20,
    }  # fmt: skip
    return openstack_burst.Burst(**{**made, **other})  # type: ignore[arg-type]


def bursts(ours: openstack_burst.Burst, whole: openstack_burst.Burst) -> Report:
    stock = burst(waits=[2.0] * 20, stalls=Stalls(0.1, 2.0, 3.0, 0.4), calls=8.0, wall=41.0)
    return openstack_burst.report(
        {("stock", 25.0): [stock], ("ours", 25.0): [ours], ("whole", 25.0): [whole]}
    )


def test_the_bars_of_the_burst() -> None:
    """REST, lag, calls and ends have bars on both of ours; the time until all are done only where the builds are alike."""
    missed(bursts(burst(), burst(wall=90.0)))
    slow = [0.01] * 18 + [0.2] * 2
    where = "boots of 25 s"
    missed(bursts(burst(waits=slow), burst()), f"{where}: REST p95")
    missed(bursts(burst(), burst(waits=slow)), f"{where}, whole builds: REST p95")
    missed(bursts(burst(stalls=QUIET._replace(p99=0.06)), burst()), f"{where}: reactor lag p99")
    missed(bursts(burst(calls=6.05), burst()), f"{where}: cloud calls a build")
    missed(bursts(burst(wall=41.5), burst()), f"{where}: until all builds are done")
    missed(bursts(burst(), burst(ended=19)), f"{where}, whole builds: builds that ended well")
    assert "41.0 s" in bursts(burst(), burst()).markdown()


def test_what_is_by_hand_is_taken_off() -> None:
    """3.9 s against 3.0 s by hand are within a second, 4.1 s are not; the stock one is told, and has no bar."""
    hand = [openstack_single.Turn(3.0, 0.5, 1.0)] * 3
    stock = [openstack_single.Turn(9.0, 9.0)] * 3
    missed(openstack_single.report([openstack_single.Turn(3.9, 1.4)] * 3, stock, hand))
    late = openstack_single.report([openstack_single.Turn(4.1, 1.6)] * 3, stock, hand)
    missed(
        late,
        "request to worker attached, less that by hand",
        "end of the build to server gone, less that by hand",
    )


def outcome(**other: object) -> openstack_outage.Outcome:
    made = {"left": 0, "stuck": 0, "well": 16, "asked": 16, "clean": 20.0, "stalls": QUIET}
    return openstack_outage.Outcome(**{**made, **other})  # type: ignore[arg-type]


def test_an_outage_may_leave_nothing_and_nobody() -> None:
    """Each case has its own bars; the stock master's leaks are told beside."""
    stock = outcome(left=4, stuck=1, clean=-1.0, stalls=Stalls(0.0, 59.0, 59.0, 0.9))

    def cases(ours: openstack_outage.Outcome) -> Report:
        return openstack_outage.report({"refuse": [(ours, stock)]})

    where = "nova refuses connections"
    missed(cases(outcome()))
    assert "not in time" in cases(outcome()).markdown()
    missed(cases(outcome(left=1)), f"{where}: servers left")
    missed(cases(outcome(stuck=1)), f"{where}: requests stuck")
    missed(cases(outcome(stalls=QUIET._replace(most=0.051))), f"{where}: reactor lag, max")


def test_the_worst_stop_counts() -> None:
    """One of two that took 11 s, or left a server, is a miss."""
    good, stock = openstack_stop.Stop(8.0, 0, 0), openstack_stop.Stop(60.0, 20, 20)
    missed(openstack_stop.report([good, good], [stock], [5.0]))
    missed(
        openstack_stop.report([good, good._replace(took=11.0)], [stock], [5.0]), "until the master is gone"
    )
    missed(openstack_stop.report([good._replace(left=1), good], [stock], [5.0]), "servers left then")


def test_a_request_that_ends_without_a_reason_is_wrong() -> None:
    """Published or infrastructure are right; what ended otherwise, or waits, is not, nor is a server left."""
    stock = openstack_cycles.Outcome(Counter({"not ended": 40}), 7, 90, 900, Counter(lose=9), 9.0, "", [])
    right = Counter({"published": 297, "infrastructure": 3})

    def cycles(ends: Counter[str], left: int = 0) -> Report:
        faults = Counter({"answer 503": 300, "lose": 60})
        ours = openstack_cycles.Outcome(ends, left, 320, 1800, faults, 7.5, "", ["compile error"])
        return openstack_cycles.report([(ours, stock)])

    missed(cycles(right))
    assert "1800, 360 (20%)" in cycles(right).markdown()
    for end in ("wrong", "not ended"):
        missed(cycles(right + Counter({end: 1})), "ended otherwise, or not at all")
    missed(cycles(right, left=1), "servers left")


def test_a_killed_master_builds_each_key_once() -> None:
    """A key that is not published, was built twice, left a server or ran on an old one: each is a miss."""
    good = openstack_killed.Ended("the server boots", True, 2, 1, 0, 9.0, 12.0)
    stock = openstack_killed.StockEnded(3, 1, 0, 1)

    def killed(other: openstack_killed.Ended) -> Report:
        return openstack_killed.report([good, other], [stock])

    missed(killed(good))
    missed(killed(good._replace(published=False)), "requests that ended published")
    missed(killed(good._replace(whole=2)), "keys built to the end exactly once")
    missed(killed(good._replace(gone=-1.0)), "moments after which servers were left")
    missed(killed(good._replace(elsewhere=1)), "builds on another server than their own")
    assert "4 of 5 ended" in killed(good).markdown()


def test_every_benchmark_of_the_cloud_says_what_it_did() -> None:
    """A module of the group has `run`, and a default of runs."""
    for path in sorted((Path(openstack_burst.__file__).parent).glob("openstack_*.py")):
        text = path.read_text()
        if path.stem not in ("openstack_lab", "openstack_probe"):
            assert "\ndef run(directory: Path, runs: int = RUNS) -> Report:\n" in text, path
