"""From the request to the first step: crun beside the script, in which builds run unless set otherwise."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.first_step import one_build
from bench.masters import measured
from bench.report import Report, Row, Table, at_most, seconds, spread
from model.targets import Target
from tests.integration.harness import DEB, ROOTS
from workers.network import USUAL
from workers.roots import Root, Roots, host_suite

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 15
BAR = 0.3

_METHOD = """\
Two masters of ours on the same machine, by turns: one with `workers.local.engine: script`, the other with `crun`, its limits and its
network with a relay to the usual hosts. From just before the POST to the start of the first step, and to the start of the
first command on the worker."""

_MEANING = f"""\
crun's side makes, in addition, the idmapped mount, a network, {2 * len(USUAL)} listening sockets or more and their relay, the cgroups and the system call filter.
The relay starts while crun does."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    script: list[dict[str, float]] = []
    crun: list[dict[str, float]] = []
    list(Roots(ROOTS, {}).prepare(Root.of(Target.from_name(DEB), host_suite())))
    limits = {"memory": 4, "processes": 4096, "processors": 0}
    with (
        measured(directory / "script", targets=[DEB], workers={"local": {"engine": "script"}}) as (one, its),
        measured(
            directory / "crun", targets=[DEB], workers={"local": {"engine": "crun", "limits": limits}}
        ) as (other, others),
    ):
        sides = [(one, its, script), (other, others, crun)]
        repositories = [here.serve_tiny() for here, _, _ in sides]
        for here, moments, _ in sides:
            here.start(patch=moments.patch)
        for _ in range(runs + 1):  # the first of each warms up, and is not counted
            for (here, moments, found), repository in zip(sides, repositories, strict=True):
                found.append(one_build(here, moments, repository.commit()))
    return report(crun[1:], script[1:])


def report(crun: list[dict[str, float]], script: list[dict[str, float]]) -> Report:
    """Return the report of what was measured."""
    rows = []
    for name in ("first step", "first command"):
        here, there = ([found[name] for found in side] for side in (crun, script))
        later = median(here) - median(there)
        bar = at_most(BAR, later, f"{BAR} s later") if name == "first step" else ("", None)
        rows.append(Row(f"POST to {name}", spread(here), spread(there), f"{seconds(later)} later", *bar))
    moments = [
        [name, seconds(median(one[name] for one in crun)), seconds(median(one[name] for one in script))]
        for name in crun[0]
    ]
    title = f"Since the POST (medians of {len(crun)})"
    return Report(
        "The local provider's engines",
        _METHOD,
        _MEANING,
        rows,
        [Table(title, ["moment", "crun", "script"], moments)],
    )
