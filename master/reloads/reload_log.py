"""The outcome of a reload, as Buildbot writes it to the master's log."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LINE = re.compile(r"\S+ \S+ \[(?P<system>[^]]*)\] (?P<text>.*)")
_END = re.compile(r"(?:WARNING: )?configuration update (complete|aborted|partially applied)\b")


@dataclass
class Reload:
    """One reload, read line by line from the moment of the SIGHUP on."""

    end: str = ""
    """`complete`, `aborted` or `partially applied` once it is over."""
    lines: list[str] = field(default_factory=list)
    """The master's own lines during the reload, with its errors."""
    _began: bool = False
    _again: bool = False

    def take(self, line: str) -> None:
        """Read the next line.

        If another reload was running when the signal came, its lines are skipped: they began before the signal, or a line
        says that another reload follows.
        """
        if self.end:
            return
        parts = _LINE.match(line)
        system, text = (parts["system"], parts["text"]) if parts else ("", line.strip())
        if text == "beginning configuration update":
            self._began, self.lines = True, []
        elif text.startswith("reconfig already active"):
            self._again = self._began
        elif self._began and (ended := _END.match(text)):
            self.end = "" if self._again else ended[1]
            self._began = self._again = False
        elif self._began and system in ("-", "") and not text.startswith("Loading configuration from"):
            self.lines.append(text)


class LogTail:
    """Reads the lines that are appended to a file from now on, also if the file is rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def new_lines(self) -> Iterator[str]:
        """Yield the new lines since the last call, without line ends."""
        yield from self._read()
        if os.fstat(self._file.fileno()).st_ino != self._path.stat().st_ino:
            self._file.close()
            self._file = self._path.open("rb")
            yield from self._read()

    def _read(self) -> Iterator[str]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
