"""The table of attacks has every row, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "tests/integration/attacks/README.md"
ROWS = dict(re.findall(r"^\| ([A-D]\d+) \| [^|]+ \| (.+) \|$", PAGE.read_text(), re.MULTILINE))


def test_every_row_is_there_once() -> None:
    """The rows are A1 to A14, B1 to B13, C1 to C17 and D1 to D15, in this order."""
    last = {"A": 14, "B": 13, "C": 17, "D": 15}
    expected = [f"{part}{number}" for part, most in last.items() for number in range(1, most + 1)]
    assert re.findall(r"^\| ([A-D]\d+) \|", PAGE.read_text(), re.MULTILINE) == expected
    assert list(ROWS) == expected


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_tests_that_exist(row: str) -> None:
    """A row names tests by file and name, or says why there is none; a renamed test no longer repeats the attack."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ROWS[row])
    assert named or re.match(r"no test: \w", ROWS[row])
    for file, test in named:
        assert re.search(rf"^ *(async )?def {test}\(", (CHECKOUT / file).read_text(), re.MULTILINE), test


def test_the_row_of_a_test_names_its_file() -> None:
    """A test that is named after a row is in a file that the row names, so that the table leads to it."""
    for path in CHECKOUT.glob("tests/**/test_*.py"):
        for names in re.findall(r"def test_((?:[a-d]\d+_)+)", path.read_text()):
            for row in names.upper().rstrip("_").split("_"):
                assert f"`{path.relative_to(CHECKOUT)}::" in ROWS[row], (row, path)
