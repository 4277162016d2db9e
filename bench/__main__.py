"""Runs benchmarks, prints a table for each, and with `--write` keeps them in docs/performance.md."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from bench import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Report

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"

NAMES = {
    "price": "bench.price",
    "first-step": "bench.first_step",
    "installable": "bench.installable",
    "checkout": "bench.checkout",
    "published": "bench.published",
    "burst": "bench.burst",
    "upload": "bench.uploads",
}
"""Benchmarks in the order in which they run and are told; the module of each has `run`."""

_HEAD = """\
# Performance

Made by `python -m bench --write` (`make bench` prints the same and writes nothing); everything on this page was measured in one run, each figure beside what
it is compared with, by turns, so that what else the machine did hit both sides. A time is a median, with the least and
the most in brackets, unless its table says otherwise.

{machine}

Load averages (1, 5 and 15 minutes) at the start: {before}; at the end: {after}. The run took {minutes:.0f} minutes.
"""


def page(reports: Sequence[Report], before: str, after: str, minutes: float) -> str:
    """Give the text of docs/performance.md."""
    head = _HEAD.format(machine=machine.describe(), before=before, after=after, minutes=minutes)
    missed = [f"{report.title}: {what}" for report in reports for what in report.missed]
    verdict = "Every figure that has a bar is within it."
    if missed:
        verdict = "\n".join(["Beyond its bar is:", "", *(f"- {one}" for one in missed)])
    return "\n".join([head, f"{verdict}\n", *(report.markdown() for report in reports)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all; give 1 if one could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__,
        epilog=f"names: {', '.join(NAMES)}; as root, since builds run in roots of their own",
    )  # fmt: skip
    parser.add_argument("name", nargs="*", choices=[[], *NAMES], metavar="NAME", help="default: all")
    parser.add_argument("--runs", type=int, help="runs of each side, instead of the benchmark's own number")
    parser.add_argument(
        "--directory", type=Path, help="where 15 GB are free (default: the temporary directory)"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the outcome in docs/performance.md; all only"
    )
    given = parser.parse_args(arguments)
    if given.write and (given.name or given.runs):
        parser.error("--write is for a run of everything")
    began, before = time.monotonic(), machine.load()
    reports = []
    failed = False
    for name in given.name or NAMES:
        print(f"{name}: load averages {machine.load()}", file=sys.stderr, flush=True)
        try:
            report = measure(name, given.directory, given.runs)
        except Exception:
            traceback.print_exc()
            print(f"{name} could not be measured", file=sys.stderr, flush=True)
            failed = True
            continue
        reports.append(report)
        print(report.markdown(), flush=True)
    if given.write and not failed:
        PAGE.write_text(page(reports, before, machine.load(), (time.monotonic() - began) / 60))
    return int(failed)


def measure(name: str, parent: Path | None, runs: int | None) -> Report:
    """Run one benchmark in a directory of its own, which is gone after."""
    module: Any = import_module(NAMES[name])
    directory = Path(mkdtemp(prefix=f"bench-{name}-", dir=parent))
    try:
        report: Report = module.run(directory, **({"runs": runs} if runs else {}))
        return report
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
