"""A step reads progress, the report, and the reason of a failure from a command's output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.build import BuildDependencies, BuildPackages, SourceTarball
from steps.output import Output
from steps.prepare import Checkout
from steps.script import Script
from tests.package_repositories import SCRIPTS
from tests.steps.test_cause import CAUSES, LOGS

KEY = "0123456789abcdef0123456789abcdef"


def read(text: str) -> Output:
    """Read a whole output."""
    output = Output(KEY)
    for line in text.splitlines():
        output.feed(line)
    return output


@pytest.mark.parametrize(
    ("line", "percentage"),
    [
        ("[ 45%] Building CXX object src/CMakeFiles/common.dir/x.cc.o", 45),
        ("[  3%] Built target arch", 3),
        ("[100%] Linking CXX executable ceph", 100),
        ("[12/57] Building CXX object x.o", 21),
        ("[57/57] Linking x", 100),
        ("[  1/2000] x", 0),
        ("make[2]: [ 45%] Building", 45),
        ("[5/0] x", 0),
        ("[9/5] x", 100),
        ("[999%] x", 100),
    ],
)
def test_progress_is_the_builds_own(line: str, percentage: int) -> None:
    """make's percentages and ninja's counts are the step's percentage, never more than a hundred."""
    output = Output(KEY)
    assert output.feed(line)
    assert output.percentage == percentage


@pytest.mark.parametrize(
    "line", ["", "   ", "45%", "[45]", "[a/b]", "[ -1%]", "progress: 45 %", "[1234%]", "[ 12 / 57 ]"]
)
def test_other_lines_tell_no_progress(line: str) -> None:
    """What only looks like progress changes nothing."""
    output = Output(KEY)
    assert not output.feed(line)
    assert output.percentage is None


def test_only_a_change_is_told() -> None:
    """The same percentage again is no news, another one is, also a smaller one of a second run."""
    output = Output(KEY)
    assert [output.feed(line) for line in ("[ 45%] a", "[ 45%] b", "text", "[ 46%] c", "[  1%] d")] == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_values_are_those_of_the_report() -> None:
    """Values are read from lines with the key, the last one counts, and there are none before the exit status."""
    text = f"version=1\n{KEY} version=2\n{KEY} version=3\n{KEY} tarball=a=b%20c\n{KEY} Not=one\nKEY x=1\n"
    assert read(text).values == {}
    assert read(f"{text}{KEY} exit 0\nversion=4\n{KEY} version=5\n").values == {
        "version": "3",
        "tarball": "a=b c",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # A sentence and the cause.
        (f"fatal: remote error: upload-pack: not our ref 0123\n{KEY} FAILED: https://h/x has no commit 0123\n{KEY} exit 1\n",
         "https://h/x has no commit 0123: fatal: remote error: upload-pack: not our ref 0123"),
        # A sentence that gives its reason.
        (f"fatal: could not read Username\n{KEY} FAILED: src/spdk cannot be fetched: it wants a password\n{KEY} exit 1\n",
         "src/spdk cannot be fetched: it wants a password"),
        # A status says less than the cause.
        (f"E: Unable to locate package x\n{KEY} FAILED: install-deps.sh ended with status 100\n{KEY} exit 1\n",
         "E: Unable to locate package x"),
        (f"E: Failed to fetch http://x/y  404  Not Found\n{KEY} FAILED: apt-get update ended with status 100\n{KEY} exit 1\n",
         "E: Failed to fetch http://x/y  404  Not Found"),
        (f"something\n{KEY} FAILED: make-dist ended with status 1\n{KEY} exit 1\nmore\n", "make-dist ended with status 1"),
        (f"{KEY} FAILED: first\n{KEY} FAILED: second\n{KEY} exit 1\n{KEY} FAILED: third\n", "first"),
        (f"FAILED: forged\n{KEY} FAILED: ours\n{KEY} exit 1\n", "ours"),
        # No sentence.
        (f"E: Unable to locate package x\n{KEY} exit 100\n", "E: Unable to locate package x"),
        (f"configure\nlast words\n\n{KEY} exit 3\n", "exit status 3; last line: last words"),
        (f"{KEY} exit 3\n", "exit status 3, and no output"),
        ("last words\n", "its end was not reported; last line: last words"),
        ("", "its end was not reported, and no output"),
    ],
)  # fmt: skip
def test_the_reason_is_the_sentence_and_the_cause(text: str, reason: str) -> None:
    """The reason is the script's own sentence and the cause in the log, or what is known instead of them."""
    assert read(text).reason() == reason


@pytest.mark.parametrize(("name", "line", "begin"), CAUSES, ids=[row[0] for row in CAUSES])
def test_the_sentence_says_what_failed_and_why(name: str, line: str, begin: str) -> None:
    """For each log, users read what failed, the script's sentence if it says more than a status, and the cause."""
    steps: list[Script] = [Checkout("", ""), BuildDependencies(), SourceTarball(), BuildPackages()]
    [step] = [step for step in steps if begin.startswith(f"{step.what} failed: ")]
    for text in (LOGS / f"{name}.log").read_text().split("\n"):
        step.output.feed(text.replace(KEY, step.report_key))
    assert step.output.status == 1
    assert step.failure() == begin + line


def test_a_sentence_keeps_its_end() -> None:
    """A sentence of ours is shown whole, because its end says what to do; common.sh lets none be longer."""
    sentence = f"Debian lacks what builds call: {', '.join(['command'] * 90)}. Install them in the image"
    assert len(sentence) > 800
    assert read(f"{KEY} FAILED: {sentence}").reason() == sentence
    assert "${sentence:0:1000}" in (SCRIPTS / "common.sh").read_text()
    assert read(f"{KEY} FAILED: " + "x" * 1000).reason() == "x" * 1000
    assert read(f"{KEY} FAILED: " + "x" * 1001).reason() == "x" * 999 + "…"


def test_a_line_of_the_log_is_cut() -> None:
    """A cause, or a last line, has at most 300 characters of the log, and ends with a mark if it was cut."""
    cause = "E: " + "x" * 1000
    cut = cause[:299] + "…"
    assert read(f"{cause}\n{KEY} exit 1\n").reason() == cut
    assert read(f"{cause}\n{KEY} FAILED: no packages\n{KEY} exit 1\n").reason() == f"no packages: {cut}"
    assert read("y" * 400).reason() == f"its end was not reported; last line: {'y' * 299}…"


@given(st.lists(st.text(max_size=60), max_size=10))
def test_any_output_is_read(lines: list[str]) -> None:
    """Whatever a build prints, it is read, the percentage is one, and there is a reason."""
    output = Output(KEY)
    for line in lines:
        output.feed(line)
    assert output.percentage is None or 0 <= output.percentage <= 100
    assert 0 < len(output.reason()) <= 300 + len("its end was not reported; last line: ")
