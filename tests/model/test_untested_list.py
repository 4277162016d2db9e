"""docs/untested.md lists each untested target with what was never run, as the model says."""

from __future__ import annotations

from pathlib import Path

from model.targets import matrix

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/untested.md"


def test_the_page_has_each_untested_target_and_no_other() -> None:
    """A target that tests begin to build, or a new one that none builds, changes the page."""
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ceph")
    ]
    assert rows == [[target.name, target.untested] for target in matrix() if target.untested]
    assert len(rows) > 10
