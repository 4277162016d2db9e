"""Reads the output of a step's command: progress, the script's own report, and the cause of a failure."""

from __future__ import annotations

import re
from urllib.parse import unquote

from steps.cause import Cause

_PROGRESS = re.compile(r"\[ *(\d{1,3})%\]|\[ *(\d{1,7})/(\d{1,7})\]")
_VALUE = re.compile(r"([a-z_]+)(\+?)=(.*)\Z")
_SENTENCE = "FAILED: "
_EXIT = re.compile(r"exit (\d{1,3})\Z")
_STATUS_ONLY = re.compile(r"\S+(?: \S+)? ended with status \d+\Z")
"""A sentence of our scripts that says less than the cause, which replaces it."""
_LONGEST_SENTENCE = 1000
"""Characters. `fail` in common.sh cuts there as well, so a sentence of ours keeps its end, which says what to do."""
_LONGEST_CAUSE = 300
"""Characters of a line of the build's log, which may be a compiler's command of many KiB."""


class Output:
    """Reads a command's output line by line.

    Only lines with the key are the script's report (`steps/scripts/common.sh`). The rest is the build's:
    it is used for the progress and for the cause of a failure, never for values.
    """

    def __init__(self, key: str) -> None:
        self.percentage: int | None = None
        self.status: int | None = None
        """The exit status that the script reported; None before its end."""
        self._mark = f"{key} "
        self._values: dict[str, str] = {}
        self._sentence = ""
        self._cause = Cause()

    @property
    def values(self) -> dict[str, str]:
        """The values of the report; empty before the script's end."""
        return {} if self.status is None else {name: unquote(text) for name, text in self._values.items()}

    def feed(self, line: str) -> bool:
        """Read one line; return True if the percentage changed.

        Output of the other stream may come after the report's end.
        """
        line = line.strip("\r\n")
        # A child's output without an end of line may precede the key.
        _, marked, report = line.partition(self._mark)
        if marked:
            if self.status is None:
                self._read_report(report.rstrip())
            return False
        self._cause.feed(line)
        progress = _PROGRESS.search(line[:2000]) if "[" in line else None
        if progress is None:
            return False
        percent, done, total = progress.groups()
        if percent is None:
            percent = int(done) * 100 // int(total) if int(total) else 0
        before, self.percentage = self.percentage, min(100, int(percent))
        return self.percentage != before

    def reason(self, status: int | None = None) -> str:
        """Return why the command failed: the script's sentence and the cause in the log, or the best substitute."""
        cause = _cut(self._cause.line, _LONGEST_CAUSE)
        sentence = _cut(self._sentence, _LONGEST_SENTENCE)
        if sentence and not (cause and _STATUS_ONLY.match(sentence)):
            # A sentence with a colon gives its own reason.
            return f"{sentence}: {cause}" if cause and ": " not in sentence else sentence
        if cause:
            return cause
        shown = self.status if self.status is not None else status
        ended = "its end was not reported" if shown in (None, 0, -1) else f"exit status {shown}"
        last = _cut(self._cause.last, _LONGEST_CAUSE)
        return f"{ended}; last line: {last}" if last else f"{ended}, and no output"

    def _read_report(self, report: str) -> None:
        if report.startswith(_SENTENCE):
            self._sentence = self._sentence or report.removeprefix(_SENTENCE)
        elif ended := _EXIT.match(report):
            self.status = int(ended[1])
        elif value := _VALUE.match(report):
            name, appended, text = value.groups()
            self._values[name] = self._values.get(name, "") + text if appended else text


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
