"""The defects of a run, each kind once, and the bytes that may have caused it in a folder of the developer's."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.fuzz.watch import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Case = tuple[str, int, bytes]
"""Kind, number and bytes of what was sent, or given to a parser."""

_NOTHING = Usage(0, 0, 0, 0, 0)


class Report:
    """Counts of cases, and the defects found."""

    def __init__(self, seed: int, folder: Path) -> None:
        """`folder` is made when there is something to write."""
        self.seed = seed
        self.cases: dict[str, Counter[str]] = {}
        self.defects: list[str] = []
        self.before = self.after = _NOTHING
        self.parsers_before = self.parsers_after = _NOTHING
        self.slowest = 0.0
        self.folder = folder
        self._seen: Counter[str] = Counter()

    def count(self, kind: str, outcome: str) -> None:
        """Count a case."""
        self.cases.setdefault(kind, Counter())[outcome] += 1

    def has(self, name: str) -> bool:
        """Return whether a defect was reported."""
        return name in self._seen

    def add(self, name: str, sentence: str, cases: Iterable[Case] = ()) -> None:
        """Report a defect, unless `name` was reported before, and write the bytes of the cases that may have caused it."""
        self._seen[name] += 1
        if self._seen[name] > 1:
            return
        written = []
        for kind, number, data in cases:
            path = self.folder / kind / hashlib.sha256(data).hexdigest()[:12]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written.append(f"    {path} (number {number})")
        self.defects.append("\n".join([f"{name}: {sentence}", *written]))
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "report.txt").open("a") as file:
            file.write(f"seed {self.seed}, {time.strftime('%Y-%m-%d %H:%M:%S')}: {self.defects[-1]}\n\n")
        print(f"DEFECT {self.defects[-1]}", flush=True)

    def table(self) -> str:
        """Return the report for people."""
        rows = [f"seed {self.seed}"]
        for kind, outcomes in sorted(self.cases.items()):
            shares = ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items()))
            rows.append(f"{kind:14} {sum(outcomes.values()):8}  {shares}")
        for whose, before, after in (
            ("master", self.before, self.after),
            ("parsers", self.parsers_before, self.parsers_after),
        ):
            grown = ", ".join(
                f"{name} {old} -> {new}" for name, old, new in zip(Usage._fields, before, after, strict=True)
            )
            rows.append(f"{whose}: {grown}")
        rows.append(f"slowest answer to another client: {self.slowest:.2f} s")
        again = [f"{name}: {count} times" for name, count in self._seen.items() if count > 1]
        return "\n".join([*rows, *again, f"defects: {len(self.defects)}", *self.defects])
