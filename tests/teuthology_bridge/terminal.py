"""A terminal, as far as a table needs one: what is written to it becomes what somebody sees."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(r"\x1b\[(\d*)([FKJ])|(\r)|(\n)|(.)", re.DOTALL)

_BEGUN = re.compile(r"(\x1b(\[\d*)?)?\Z")


class Terminal:
    """Lines of characters and a cursor, `columns` wide; what scrolls out at the top is kept, and out of reach."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns = columns
        self.lines = lines
        self._rows: list[list[str]] = [[]]
        self._row = self._column = 0
        self._begun = ""
        self.wrapped = 0
        """How often a line was longer than the terminal is wide."""

    @property
    def screen(self) -> list[str]:
        """What is on it, with what has scrolled away."""
        rows = ["".join(row).rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def write(self, text: str) -> None:
        """Take what a program writes; a newline goes to the beginning of the next line."""
        text = self._begun + text
        # What comes in pieces may be cut anywhere.
        self._begun = _BEGUN.search(text)[0]  # type: ignore[index]
        text = text.removesuffix(self._begun)
        for found in _CONTROL.finditer(text):
            number, what, back, newline, one = found.groups()
            if what == "F":
                top = max(0, len(self._rows) - self.lines)
                self._row, self._column = max(top, self._row - int(number or 1)), 0
            elif what == "K":
                del self._rows[self._row][self._column :]
            elif what == "J":
                del self._rows[self._row][self._column :]
                del self._rows[self._row + 1 :]
            elif back:
                self._column = 0
            elif newline:
                self._down()
            else:
                assert one != "\x1b", f"what is {text[found.start() : found.start() + 10]!r}?"
                self._put(one)

    def _down(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._rows):
            self._rows.append([])

    def _put(self, one: str) -> None:
        wide = 2 if unicodedata.east_asian_width(one) in "WF" else 1
        if unicodedata.combining(one):
            self._rows[self._row][-1] += one
            return
        if self._column + wide > self.columns:
            self.wrapped += 1
            self._down()
        row = self._rows[self._row]
        row += [" "] * (self._column + wide - len(row))
        row[self._column : self._column + wide] = [one, *[""] * (wide - 1)]
        self._column += wide
