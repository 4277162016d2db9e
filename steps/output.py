"""What a step reads from the output of its command: progress, values, and why it failed."""

from __future__ import annotations

import re

_PROGRESS = re.compile(r"\[ *(\d{1,3})%\]|\[ *(\d{1,7})/(\d{1,7})\]")
_VALUE = re.compile(r"([a-z_]+)=(.*)\Z")
_SENTENCE = "FAILED: "
_ERROR = re.compile(
    r"\b(?:fatal )?error\b ?:|^(?:E|fatal|make(?:\[\d+\])?): (?!\*\*\* \[|Entering|Leaving)"
    r"|^CMake Error|^error: |\bundefined reference\b|^Traceback |No rule to make target",
    re.IGNORECASE,
)
_LONGEST = 300


class Output:
    """Reads a command's output line by line, and remembers what matters."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.percentage: int | None = None
        self.values: dict[str, str] = {}
        self._sentence = ""
        self._first_error = ""
        self.last_line = ""

    def feed(self, line: str) -> bool:
        """Take one line; True if the percentage changed."""
        line = line.strip()[:2000]
        if not line:
            return False
        self.last_line = line
        if line.startswith(_SENTENCE):
            self._sentence = self._sentence or line.removeprefix(_SENTENCE)
        elif not self._first_error and _ERROR.search(line):
            self._first_error = line
        value = _VALUE.match(line)
        if value:
            self.values[value[1]] = value[2]
        progress = _PROGRESS.search(line)
        if progress is None:
            return False
        percent, done, total = progress.groups()
        if percent is None:
            percent = int(done) * 100 // int(total) if int(total) else 0
        before, self.percentage = self.percentage, min(100, int(percent))
        return self.percentage != before

    def reason(self) -> str:
        """Say why the command failed: its own sentence, and the first error line before it."""
        parts = [part for part in (self._sentence, self._first_error) if part]
        text = ": ".join(dict.fromkeys(parts)) or self.last_line or "no output at all"
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
