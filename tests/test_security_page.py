"""SECURITY.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def test_each_named_test_exists() -> None:
    """A renamed or removed test no longer holds the boundary that the page says it holds."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (CHECKOUT / "SECURITY.md").read_text())
    assert len(named) > 10
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (CHECKOUT / file).read_text(), re.MULTILINE), test
