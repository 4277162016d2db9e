"""What a benchmark gives: figures of both sides beside their bar, and tables of detail; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from textwrap import fill
from typing import NamedTuple


class Row(NamedTuple):
    """One figure of ours beside the other side's; `met` is None where there is no bar."""

    what: str
    ours: str
    other: str = ""
    ratio: str = ""
    bar: str = ""
    met: bool | None = None


class Table(NamedTuple):
    """Details: a title, a header, and rows of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """One benchmark's outcome; `method` says how it was measured and `meaning` what to make of it."""

    title: str
    method: str
    meaning: str
    rows: Sequence[Row]
    tables: Sequence[Table] = field(default_factory=tuple)

    @property
    def missed(self) -> list[str]:
        """What of the figures is beyond its bar."""
        return [row.what for row in self.rows if row.met is False]

    def markdown(self) -> str:
        """Give the report as a section of a page."""
        header = ("what", "ours", "the other side", "ratio", "bar")
        rows = [(row.what, row.ours, row.other, row.ratio, _verdict(row)) for row in self.rows]
        parts = [f"## {self.title}", _filled(self.method), table(header, rows)]
        for one in self.tables:
            parts += [f"{one.title}:", table(one.header, one.rows)]
        return "\n\n".join([*parts, _filled(self.meaning)]) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a markdown table; the first column is text, the others are aligned as figures."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def at_most(limit: float, value: float, text: str) -> tuple[str, bool]:
    """Give a bar as text, and whether the value is within it."""
    return f"at most {text}", value <= limit


def at_least(limit: float, value: float, text: str) -> tuple[str, bool]:
    """Give a bar as text, and whether the value reaches it."""
    return f"at least {text}", value >= limit


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def seconds(value: float) -> str:
    """Give a time as people read it: `12.3 s`, `1.23 s`, or `45.6 ms` below a tenth of a second."""
    if abs(value) < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 10 else f"{value:.1f} s"


def spread(values: Sequence[float]) -> str:
    """Give the median of times, and in brackets the least and the most."""
    return f"{seconds(median(values))} ({seconds(min(values))} to {seconds(max(values))})"


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Give the median of each name, in the order of the first run; a name that is missing counts as 0."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: median(run.get(name, 0.0) for run in runs) for name in names}


def _filled(text: str) -> str:
    return fill(text, 110, break_long_words=False, break_on_hyphens=False)


def _verdict(row: Row) -> str:
    if row.met is None:
        return row.bar
    return f"{row.bar}: {'met' if row.met else '**missed**'}"
