"""Each exception is one line for teuthology's failure_reason, with what, for which packages, why and where to look."""

from __future__ import annotations

import pytest

from teuthology_bridge.errors import (
    BuildpackagesError,
    Cancelled,
    PackagesFailed,
    TimeLimit,
    Trouble,
    Unreachable,
    WrongJob,
    WrongSettings,
    duration,
    one_line,
)

KEY = "ceph-deb-jammy-x86_64-default/0123456789abcdef0123456789abcdef01234567"
PAGE = "http://master:8010/#/builders/3/builds/4"


def test_a_failed_build() -> None:
    """A failed build fails the job, with its sentence, the cause in its log, and the URL of its page."""
    error = PackagesFailed(KEY, "make failed (2)", "a.cc:3: error: expected ';'", PAGE)
    assert str(error) == f"{KEY}: the build failed: make failed (2): a.cc:3: error: expected ';'; see {PAGE}"
    assert error.status == "fail"
    assert error.fingerprint() == ["buildpackages", "PackagesFailed", KEY, "a.cc:3: error: expected ';'"]


@pytest.mark.parametrize(
    ("reason", "error", "told"),
    [
        ("make failed: no rule", "no rule", "make failed: no rule"),
        ("no rule", "make failed: no rule", "make failed: no rule"),
        ("", "no rule", "no rule"),
        ("no rule", "", "no rule"),
        ("", "", "the master does not say why"),
    ],
)
def test_nothing_is_said_twice(reason: str, error: str, told: str) -> None:
    """Where the sentence holds the error line already, or there is only one, it is told once."""
    assert str(PackagesFailed(KEY, reason, error, None)) == f"{KEY}: the build failed: {told}"


def test_a_build_that_could_not_be_made() -> None:
    """Infrastructure that failed is told to be no fault of the commit, and makes the job dead."""
    error = Trouble(KEY, "no machine could be had, 3 times", "", PAGE)
    assert str(error) == (
        f"{KEY}: could not be built, and not because of the commit: no machine could be had, 3 times; see {PAGE}"
    )
    assert error.status == "dead"


def test_a_build_that_somebody_ended() -> None:
    """A cancelled build is told with what to do."""
    error = Cancelled(KEY, "by kim", PAGE)
    assert str(error) == f"{KEY}: the build was cancelled: by kim; run the job again to ask anew; see {PAGE}"
    assert error.status == "fail"


def test_a_server_that_is_away() -> None:
    """A server that was away is told with for how long and why; all jobs that miss it are one trouble."""
    error = Unreachable("the master at http://m/", 1800, "Connection refused", KEY, None)
    assert str(error) == (
        f"{KEY}: the master at http://m/ gave no answer for 30 min, at last because: Connection refused"
    )
    assert error.status == "dead"
    assert error.fingerprint() == ["buildpackages", "Unreachable", "the master at http://m/"]


def test_a_limit_that_is_reached() -> None:
    """A limit is told with how far it was."""
    error = TimeLimit(KEY, 43200, "step compile", PAGE)
    assert str(error) == f"{KEY}: not there within 12 h, which is its `limit`: step compile; see {PAGE}"
    assert error.status == "dead"


def test_what_people_have_to_set_right() -> None:
    """Wrong settings are the operator's and make the job dead; a wrong job is its author's and fails."""
    assert (WrongSettings("url is wrong").status, WrongJob("no such target").status) == ("dead", "fail")
    assert WrongJob("no such target").fingerprint() == ["buildpackages", "WrongJob", "no such target"]


def test_it_is_always_one_line() -> None:
    """Whatever a log or a server says, the line stays one, printable, and short enough for a table."""
    error = PackagesFailed(KEY, "", "\x1b[31merror:\x1b[0m two\nlines\r\n\tand " + "x" * 5000, PAGE)
    text = str(error)
    assert text.isprintable()
    assert len(text) < 1000
    assert "error:" in text
    assert text.endswith(f"see {PAGE}")
    assert one_line("a\x00 b\n\nc") == "a b c"


def test_a_page_is_named_once() -> None:
    """The page is not repeated where the sentence has it."""
    assert str(BuildpackagesError(f"look at {PAGE}", build_url=PAGE)) == f"look at {PAGE}"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (100, "1 min 40 s"),
        (599, "9 min 59 s"),
        (601, "10 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, told: str) -> None:
    """A duration is told no more exactly than matters."""
    assert duration(seconds) == told
