"""The page for operators of a teuthology lab names every setting with its default, and explains every failure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from teuthology_bridge import errors
from teuthology_bridge.errors import BuildpackagesError
from teuthology_bridge.settings import KEYS, TASK_KEYS, Settings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "teuthology.md").read_text()

SENTENCES = [
    errors.PackagesFailed("K", "R", "E", None),
    errors.Cancelled("K", "", None),
    errors.Trouble("K", "R", "E", None),
    errors.Unreachable("the master", 60, "R", "K", None),
    errors.TimeLimit("K", 60, "D", None),
]


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_there(key: str) -> None:
    """Each has a row of the table, and its default in it."""
    [row] = [line for line in PAGE.splitlines() if re.match(rf"\| .*`{key}`", line) and line.count("|") == 4]
    if key not in ("token", "token_file"):
        default = Settings.__dataclass_fields__[key].default
        told = row.split("|")[2].strip().strip("`")
        assert told == (f"{default:g}" if isinstance(default, float) else default)


@pytest.mark.parametrize("key", TASK_KEYS)
def test_what_only_a_job_says_is_there(key: str) -> None:
    """What is no setting, but belongs to a job, is explained as well."""
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize("error", SENTENCES, ids=lambda error: type(error).__name__)
def test_every_failure_is_explained(error: BuildpackagesError) -> None:
    """What does not depend on the case of a failure's sentence stands in the table, with the job's status."""
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    said = {row[0].strip("| `"): row[1].strip() for row in rows if len(row) == 4}
    found = [
        status
        for words, status in said.items()
        if re.search(".*".join(re.escape(part) for part in words.split("…")), str(error).replace("`", ""))
    ]
    assert found == [error.status]


@pytest.mark.parametrize("page", ["teuthology.md", "from-2015.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    """A page that is named is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text()):
        assert (DOCS / target).is_file(), target
