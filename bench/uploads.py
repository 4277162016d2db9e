"""Uploads, beside nginx's: the table of `bench.upload`, with its bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import upload
from bench.report import Report, Row, Table, at_most

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RUNS = 5

_METHOD = """\
The package server in a process of its own, and nginx's DAV module, take the same files from the same `curl -T`, one curl
for all files of a set, by turns; a third way is our own uploader, which also hashes what it sends. CPU is the server's. Lag is
how late a call that is due every 5 ms comes in our server's reactor, at worst in a run: the median of the runs, and the
worst of all in brackets. In nginx's rows that reactor is idle, so they show what the machine itself adds; "own" lag leaves out the time that
the reactor was ready and the kernel gave it no processor. Growth is of our server's resident set, at its peak."""

_MEANING = """\
nginx only writes; our server hashes each byte as well, in a thread, since what is published is checked against these
digests. Client and server share the machine, so a speed is of both together."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    return report(upload.measure(directory, runs))


def report(lines: Iterable[str]) -> Report:
    """Give the report of the table that `bench.upload` makes."""
    header, _, *measured = (cells(line) for line in lines)
    rows: list[Row] = []
    nginx: dict[str, str] = {}
    for line in measured:
        found = dict(zip(header, line, strict=True))
        if "nginx" in found["way"]:
            nginx = found
        elif "curl" in found["way"]:
            rows += _bars(found, nginx)
    return Report("Uploads", _METHOD, _MEANING, rows, [Table("All ways", header, measured)])


def cells(line: str) -> list[str]:
    """Give the cells of a line of a markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _bars(ours: dict[str, str], nginx: dict[str, str]) -> list[Row]:
    files = ours["files"]
    speed, ratio = float(ours["MiB/s"]), float(ours["of nginx"])
    cpu, growth = float(ours["server CPU s/GiB"]), float(ours["growth MiB"])
    lag = float(ours["lag ms (worst)"].split()[0])
    return [
        Row(f"speed, {files}", f"{speed:.0f} MiB/s", f"{nginx['MiB/s']} MiB/s", f"{ratio:.2f}",
            "at least 300 MiB/s, or 0.7", speed >= 300 or ratio >= 0.7),
        Row(f"server CPU for a GiB, {files}", f"{cpu:.2f} s", f"{nginx['server CPU s/GiB']} s", "",
            *at_most(2, cpu, "2 s")),
        Row(f"reactor lag, {files}", f"{ours['lag ms (worst)']} ms", f"{nginx['lag ms (worst)']} ms, idle", "",
            *at_most(50, lag, "50 ms")),
        Row(f"growth of memory, {files}", f"{growth:.0f} MiB", "", "", *at_most(50, growth, "50 MiB")),
    ]  # fmt: skip
