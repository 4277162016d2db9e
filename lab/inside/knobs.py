"""What a lab is told to do wrong: one JSON file, read at every use, so that a change works at once."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFAULTS: dict[str, Any] = {
    "boot_seconds": 0.0,
    "fail_spawn": 0,
    "fail_spawn_reason": "the lab was told to fail",
    "hang_spawn": False,
    "never_attach": 0,
    "fail_destroy": 0,
    "destroy_seconds": 0.0,
}
"""boot_seconds: from ACTIVE to the start of the user data. destroy_seconds: what destroying takes.

hang_spawn: a new server stays in BUILD until the knob is turned back or the server is deleted.
The others count servers: the next n do it; -1 is every server until the knob is turned back.
never_attach: a server prints something to its console and runs nothing.
fail_destroy: the server goes to ERROR, and lives on.
"""


class Knobs:
    """The knobs of one lab."""

    def __init__(self, path: Path) -> None:
        """Take the file; it need not be there."""
        self._path = path

    def get(self, name: str) -> Any:
        """Give a knob's value."""
        with self._locked() as values:
            return values[name]

    def set(self, **values: Any) -> None:
        """Turn knobs."""
        unknown = values.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"no such knob: {', '.join(sorted(unknown))}; there are {', '.join(DEFAULTS)}")
        with self._locked() as current:
            current.update(values)

    def take(self, name: str) -> bool:
        """Say whether a counted knob is on, and count."""
        with self._locked() as values:
            left = values[name]
            if left > 0:
                values[name] = left - 1
            return bool(left)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            values = {**DEFAULTS, **(json.loads(text) if text else {})}
            before = dict(values)
            yield values
            if values != before:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(values))
                file.flush()
