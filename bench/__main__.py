"""Runs benchmarks, prints a table for each, and with `--write` keeps them in docs/performance.md."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Report

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"

NAMES = {
    "price": "bench.price",
    "first-step": "bench.first_step",
    "engines": "bench.engines",
    "installable": "bench.installable",
    "checkout": "bench.checkout",
    "published": "bench.published",
    "burst": "bench.burst",
    "upload": "bench.uploads",
}
"""Benchmarks in the order in which they run and are told; the module of each has `run`."""

OPENSTACK = {
    f"openstack-{name}": f"bench.openstack_{name}"
    for name in ("burst", "single", "outage", "stop", "cycles", "killed")
}
"""Those of the provider `openstack`, in a lab, beside Buildbot's own; `openstack` names them all."""

BRIDGE = {f"bridge-{name}": f"bench.bridge_{name}" for name in ("published", "killed")}
"""Those of the teuthology bridge; `bridge` names them all."""

SIZE = {"publish": "bench.publish"}
"""Those with packages of Ceph's size, which write 20 GB; `size` names them all."""

_GROUPS = {"openstack": OPENSTACK, "bridge": BRIDGE, "size": SIZE}

_HEAD = """\
# {title}

Made by `{command}` (`make bench` prints the same and writes nothing); everything in this part was measured in one run, each figure beside what
it is compared with, by turns, so that what else the machine did hit both sides. A time is a median, with the least and
the most in brackets, unless its table says otherwise.

{machine}

Load averages (1, 5 and 15 minutes) at the start: {before}; at the end: {after}. The run took {minutes:.0f} minutes.
"""


class Part(NamedTuple):
    """One part of the page, which is of one run: its title, the command, and its benchmarks."""

    title: str
    command: str
    benchmarks: dict[str, str]


def parts() -> list[Part]:
    """Give the parts of the page, in their order."""
    return [
        Part("Performance", "python -m bench --write", NAMES),
        Part("Performance: the provider `openstack`", "python -m bench openstack --write", OPENSTACK),
        Part("Performance: the teuthology bridge", "python -m bench bridge --write", BRIDGE),
        Part("Performance: packages of Ceph's size", "python -m bench size --write", SIZE),
    ]


def with_part(text: str, title: str, part: str) -> str:
    """Give a page with one part put in, in place of the one of the same title, or after all others."""
    kept = [one for one in re.split(r"^(?=# )", text, flags=re.MULTILINE) if one.strip()]
    titles = [one.partition("\n")[0].removeprefix("# ") for one in kept]
    if title in titles:
        kept[titles.index(title)] = part
    else:
        kept.append(part)
    return "\n".join(f"{one.rstrip()}\n" for one in kept)


def page(
    reports: Sequence[Report],
    before: str,
    after: str,
    minutes: float,
    part: Part | None = None,
) -> str:
    """Give the text of one part of docs/performance.md, of the first one unless another is given."""
    part = part or parts()[0]
    top = _HEAD.format(
        title=part.title, command=part.command, machine=machine.describe(), before=before, after=after,
        minutes=minutes,
    )  # fmt: skip
    missed = [f"{report.title}: {what}" for report in reports for what in report.missed]
    verdict = "Every figure that has a bar is within it."
    if missed:
        verdict = "\n".join(["Beyond its bar is:", "", *(f"- {one}" for one in missed)])
    return "\n".join([top, f"{verdict}\n", *(report.markdown() for report in reports)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all; give 1 if one could not be measured."""
    every = {**NAMES, **OPENSTACK, **BRIDGE, **SIZE}
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__,
        epilog=f"names: {', '.join(every)}; `openstack`, `bridge` and `size` are all of those; as root, since builds run in roots of their own",
    )  # fmt: skip
    parser.add_argument(
        "name", nargs="*", choices=[[], *every, *_GROUPS], metavar="NAME", help="default: all"
    )
    parser.add_argument("--runs", type=int, help="runs of each side, instead of the benchmark's own number")
    parser.add_argument(
        "--directory", type=Path, help="where 25 GB are free (default: the temporary directory)"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the outcome in docs/performance.md; all, or a group"
    )
    given = parser.parse_args(arguments)
    if given.write and (given.name not in ([], *([group] for group in _GROUPS)) or given.runs):
        parser.error("--write is for a run of everything, or of a whole group")
    good = [_measured(part, given) for part in parts()]
    return int(not all(good))


def _measured(part: Part, given: argparse.Namespace) -> bool:
    """Run what was asked for of one part, and write it if that was; whether all could be measured."""
    benchmarks = part.benchmarks
    whole = not given.name or any(_GROUPS.get(name) is benchmarks for name in given.name)
    wanted = [name for name in benchmarks if whole or name in given.name]
    began, before = time.monotonic(), machine.load()
    reports = []
    for name in wanted:
        print(f"{name}: load averages {machine.load()}", file=sys.stderr, flush=True)
        try:
            report = measure(benchmarks[name], name, given.directory, given.runs)
        except Exception:
            traceback.print_exc()
            print(f"{name} could not be measured", file=sys.stderr, flush=True)
            continue
        reports.append(report)
        print(report.markdown(), flush=True)
    if given.write and reports and len(reports) == len(benchmarks):
        text = page(reports, before, machine.load(), (time.monotonic() - began) / 60, part)
        PAGE.write_text(with_part(PAGE.read_text() if PAGE.exists() else "", part.title, text))
    return len(reports) == len(wanted)


def measure(module_name: str, name: str, parent: Path | None, runs: int | None) -> Report:
    """Run one benchmark in a directory of its own, which is gone after."""
    module: Any = import_module(module_name)
    directory = Path(mkdtemp(prefix=f"bench-{name}-", dir=parent))
    try:
        report: Report = module.run(directory, **({"runs": runs} if runs else {}))
        return report
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
