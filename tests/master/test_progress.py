"""How far and how long: from what such builds took before, and never more than is known."""

from __future__ import annotations

import pytest

from master.requests.progress import in_line, share


@pytest.mark.parametrize(
    ("step_state", "elapsed", "usual", "percent", "left"),
    [
        ("building packages", 0, 200.0, 0, 200.0),
        ("building packages 57 %", 50, 200.0, 25, 150.0),
        ("building packages", 199, 200.0, 99, 1.0),
        ("building packages", 200, 200.0, 99, 0.0),
        ("building packages", 5000, 200.0, 99, None),
        ("building packages", 5, 0.0, 99, None),
        ("building packages", -30, 200.0, 0, 200.0),
        ("building packages", 50, None, None, None),
        ("building packages 57 %", 50, None, 57, None),
        ("building packages 100 %", 50, None, 99, None),
    ],
)
def test_share(step_state: str, elapsed: float, usual: float | None, percent: int, left: float) -> None:
    """The last builds say how far one is; without them its own step does; what takes longer is never done."""
    assert share(step_state, elapsed, usual) == (percent, left)


@pytest.mark.parametrize(
    ("before", "slots", "usual", "reason", "left"),
    [
        (0, 2, None, "waits for a free worker", None),
        (0, 2, 60.0, "waits for a free worker", 60.0),
        (1, 2, 60.0, "waits in line; 1 is before it", 60.0),
        (5, 2, 60.0, "waits in line; 5 are before it", 180.0),
        (5, 0, 60.0, "waits in line; 5 are before it", 360.0),
        (5, 2, None, "waits in line; 5 are before it", None),
    ],
)
def test_in_line(before: int, slots: int, usual: float | None, reason: str, left: float | None) -> None:
    """Who waits in line is told how many are before it, and what that comes to with so many slots."""
    assert in_line(before, slots, usual) == (reason, left)
