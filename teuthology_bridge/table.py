"""The state of a whole run's packages, on a terminal and elsewhere.

The rendering is pure: rows and a width in, lines out, none of them wider than that. On a terminal one
table is redrawn in place; elsewhere there is a line for each change, and a summary now and then.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from teuthology_bridge.errors import duration, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ORDER = (
    "failed", "refused", "infrastructure", "cancelled", "unreachable", "too late", "wrong settings",
    "withdrawn", "building", "waiting", "asking", "unknown", "not published", "published",
)  # fmt: skip
"""States, the most interesting first: they are seen even where not all rows have a place."""

GOING_ON = ("building", "waiting", "asking")

_KEY, _STATE, _STEP, _PERCENT, _LEFT, _URL = range(6)
_NEWS = ("waiting", "building", "published")
_GAP = 2
_SHORTEST_STEP = 8
_SHORTEST_KEY = 8
_MANY, _FEW = 12, 8
"""Digits of a sha1: where there is room, and else."""
_INDENT = "    "
_REFRESH = 0.1
_SUMMARY = 60.0
_USUAL = os.terminal_size((80, 24))


@dataclass(frozen=True)
class Row:
    """One package_key as it stands now."""

    key: str
    state: str
    step: str = ""
    percent: int | None = None
    left: float | None = None
    """Seconds."""
    url: str = ""

    def cells(self, digits: int) -> list[str]:
        """Give what stands in its columns, with so many digits of a sha1."""
        target, _, value = self.key.partition("/")
        is_sha1 = len(value) == 40 and not value.strip("0123456789abcdef")
        going_on = self.state in GOING_ON
        return [
            one_line(f"{target}/{value[:digits] if is_sha1 else value}"),
            self.state,
            one_line(self.step),
            f"{self.percent}" if going_on and self.percent is not None else "",
            duration(self.left) if going_on and self.left is not None else "",
            one_line(self.url),
        ]


def counts(rows: Sequence[Row]) -> str:
    """Say how many are in which state."""
    found = Counter(row.state for row in rows)
    return ", ".join(f"{found[state]} {state}" for state in reversed(ORDER) if found[state])


def time_left(rows: Sequence[Row]) -> str:
    """Say how long until the last is done, if that is known of all; else nothing."""
    lefts = [row.left for row in rows if row.state in GOING_ON]
    known = [left for left in lefts if left is not None]
    return f"about {duration(max(known))} left" if known and len(known) == len(lefts) else ""


def columns(text: str) -> int:
    """Give how many columns of a terminal a text takes."""
    return sum(_columns(one) for one in text)


def _columns(one: str) -> int:
    if unicodedata.combining(one) or unicodedata.category(one) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Give a text in no more columns than that, with a mark where something is left out."""
    if columns(text) <= width:
        return text
    kept, used = "", 0
    for one in text:
        used += _columns(one)
        if used > width - 1:
            break
        kept += one
    return f"{kept}…" if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """Give a key in no more columns than that, with its end: what it begins with and the sha1 tell keys apart."""
    if columns(text) <= width:
        return text
    end = text[-min(_FEW + 1, width // 2) :] if width > 1 else ""
    while columns(end) > width // 2:
        end = end[1:]
    return cut(text, width - columns(end)) + end


def _pad(text: str, width: int, *, right: bool = False) -> str:
    blanks = " " * (width - columns(text))
    return blanks + text if right else text + blanks


def render(rows: Sequence[Row], width: int, height: int | None = None, *, step: str = "STEP") -> list[str]:
    """Give the table's lines. With a height it has no more lines than that, and URLs are cut, too.

    A URL that has no place beside its row stands below it, as long as there is height enough: for
    all, or at least for those that are being built.
    """
    if not rows:
        return []
    headings = ("KEY", "STATE", step, "%", "LEFT", "URL")
    for digits in (_MANY, _FEW):
        table = [row.cells(digits) for row in rows]
        widths = [max(columns(one[n]) for one in (headings, *table)) for n in range(len(headings))]
        shown = [n for n in range(len(headings)) if n <= _STATE or any(cells[n] for cells in table)]
        below = _URL in shown and _total(widths, shown) > width
        if below:
            shown.remove(_URL)
        if _total(widths, shown) <= width:
            break
    _narrow(widths, shown, width)
    lines = [_line(headings, widths, shown, width)]
    urls = [f"{_INDENT}{cells[_URL]}" if below and cells[_URL] else "" for cells in table]
    if height is None:
        for cells, url in zip(table, urls, strict=True):
            lines += [_line(cells, widths, shown, width), *([url] if url else [])]
        return lines
    room = max(0, height - 1)
    chosen, rest = _chosen(rows, room)
    spare = room - len(chosen) - bool(rest)
    with_url = {n for n in chosen if urls[n]}
    if len(with_url) > spare:
        with_url = {n for n in chosen if urls[n] and rows[n].state == "building"}
    for n in chosen:
        lines.append(_line(table[n], widths, shown, width))
        if n in with_url and len(with_url) <= spare:
            lines.append(cut(urls[n], width))
    if rest:
        lines.append(cut(f"… and {counts([rows[n] for n in rest])}", width))
    return lines[:height]


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[n] for n in shown) + _GAP * (len(shown) - 1)


def _narrow(widths: list[int], shown: list[int], width: int) -> None:
    """Take away what is needed least, until the rest fits."""
    natural = widths[_KEY]
    for column, least in ((_STEP, _SHORTEST_STEP), (_KEY, 27)):
        if column in shown:
            over = max(0, _total(widths, shown) - width)
            widths[column] = max(min(least, widths[column]), widths[column] - over)
    for column in (_STEP, _LEFT, _PERCENT):
        if column in shown and _total(widths, shown) > width:
            shown.remove(column)
    spare = width - _total(widths, shown)
    widths[_KEY] = max(_SHORTEST_KEY, min(natural, widths[_KEY] + spare))


def _line(cells: Sequence[str], widths: Sequence[int], shown: Sequence[int], width: int) -> str:
    parts = []
    for n in shown:
        fitted = (cut_middle if n == _KEY else cut)(cells[n], widths[n])
        parts.append(_pad(fitted, widths[n], right=n in (_PERCENT, _LEFT)))
    return cut((" " * _GAP).join(parts).rstrip(), width)


def _chosen(rows: Sequence[Row], room: int) -> tuple[list[int], list[int]]:
    """Give those rows, by number, that have a place, and the others."""
    if len(rows) <= room:
        return list(range(len(rows))), []
    ranked = sorted(range(len(rows)), key=lambda n: (ORDER.index(rows[n].state), n))
    # One line is for what is left out.
    keep = set(ranked[: max(0, room - 1)])
    return sorted(keep), [n for n in range(len(rows)) if n not in keep]


class Display(Protocol):
    """Where the state is shown."""

    def show(self, head: str, rows: Sequence[Row]) -> None:
        """Show how it stands."""

    def say(self, line: str) -> None:
        """Say something besides, which stays."""

    def end(self) -> None:
        """Leave nothing that moves."""


def display(
    stream: TextIO, environment_terminal: str, clock: Callable[[], float] = time.monotonic
) -> Display:
    """Give what fits the stream; a terminal that calls itself dumb can't redraw."""
    if stream.isatty() and environment_terminal not in ("", "dumb"):
        return Live(stream, lambda: _size(stream), clock)
    return Lines(stream, clock)


def _size(stream: TextIO) -> os.terminal_size:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _USUAL
    # A terminal that has not been told its size says 0.
    return os.terminal_size((size.columns or _USUAL.columns, size.lines or _USUAL.lines))


def write(stream: TextIO, text: str) -> None:
    """Write a text at once; what the stream's encoding lacks becomes a question mark."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


class Live:
    """One table that is redrawn in place: over the old lines, each frame in one go, so that nothing flickers."""

    def __init__(
        self, stream: TextIO, size: Callable[[], os.terminal_size], clock: Callable[[], float]
    ) -> None:
        """Take the terminal, and how to learn its size, which may change."""
        self._stream = stream
        self._size = size
        self._clock = clock
        self._drawn: list[str] = []
        self._at = -_REFRESH

    def show(self, head: str, rows: Sequence[Row]) -> None:
        """Redraw it if it has changed, but not more often than an eye can follow."""
        if self._clock() - self._at < _REFRESH:
            return
        size = self._size()
        # The last column stays free: some terminals wrap as soon as it is written to.
        width, height = max(1, size.columns - 1), max(1, size.lines - 1)
        lines = [cut(one, width) for one in head.splitlines()][: max(1, height // 2)]
        lines += render(rows, width, max(0, height - len(lines)))
        if lines != self._drawn:
            self._at = self._clock()
            write(self._stream, self._back(size) + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
            self._drawn = lines

    def say(self, line: str) -> None:
        """Say it above the table."""
        drawn = "".join(f"{one}\x1b[K\n" for one in self._drawn)
        write(self._stream, f"{self._back(self._size())}{one_line(line)}\x1b[K\n{drawn}\x1b[J")

    def end(self) -> None:
        """Take the table away."""
        if self._drawn:
            write(self._stream, f"{self._back(self._size())}\x1b[J")
            self._drawn = []

    def _back(self, size: os.terminal_size) -> str:
        """Give what moves to where the table begins: a narrower terminal has wrapped its lines meanwhile."""
        wide = max(1, size.columns)
        taken = sum(max(1, -(-columns(line) // wide)) for line in self._drawn)
        # What has been scrolled out of sight can't be reached.
        taken = min(taken, size.lines - 1)
        return f"\x1b[{taken}F" if taken > 0 else "\r"


class Lines:
    """A line for each change, and a summary now and then."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float],
        stamp: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        """Take where to write, and what each line begins with."""
        self._stream = stream
        self._clock = clock
        self._stamp = stamp
        self._told: dict[str, str] = {}
        self._summed = clock()

    def show(self, head: str, rows: Sequence[Row]) -> None:
        """Say what is new; why something failed is said by who knows."""
        for row in rows:
            line = ", ".join(one for one in (row.state, row.step, row.url) if one)
            if row.state in _NEWS and self._told.get(row.key) != line:
                self._told[row.key] = line
                self.say(f"{row.key}: {line}")
        if self._clock() - self._summed >= _SUMMARY:
            self._summed = self._clock()
            self.say(head.replace("\n", "; "))

    def say(self, line: str) -> None:
        """Say it, with the time."""
        write(self._stream, f"{self._stamp()} {one_line(line)}\n")

    def end(self) -> None:
        """Do nothing: all lines stay."""
