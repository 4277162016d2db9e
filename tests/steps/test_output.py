"""What is read from a command's output: golden lines of the tools, typed from their real output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.output import Output


def read(text: str) -> Output:
    """Read a whole output."""
    output = Output()
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
    output = Output()
    assert output.feed(line)
    assert output.percentage == percentage


@pytest.mark.parametrize(
    "line", ["", "   ", "45%", "[45]", "[a/b]", "[ -1%]", "progress: 45 %", "[1234%]", "[ 12 / 57 ]"]
)
def test_other_lines_tell_no_progress(line: str) -> None:
    """What only looks like progress changes nothing."""
    output = Output()
    assert not output.feed(line)
    assert output.percentage is None


def test_only_a_change_is_told() -> None:
    """The same percentage again is no news, another one is, also a smaller one of a second run."""
    output = Output()
    assert [output.feed(line) for line in ("[ 45%] a", "[ 45%] b", "text", "[ 46%] c", "[  1%] d")] == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_values_are_read() -> None:
    """Lines `name=value` are values, the last one counts, and a value may hold anything."""
    output = read(
        "version=19.2.0\nversion=19.2.1\ntarball=a=b c.tar\nempty=\nNot=one\n x=1 \nmake x=2\ncores2=4\n"
    )
    assert output.values == {"version": "19.2.1", "tarball": "a=b c.tar", "empty": "", "x": "1"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # our own scripts
        ("fatal: remote error: upload-pack: not our ref 0123\nFAILED: https://h/x has no commit 0123, or cannot be reached\n",
         "https://h/x has no commit 0123, or cannot be reached: fatal: remote error: upload-pack: not our ref 0123"),
        ("FAILED: first\nFAILED: second\n", "first"),
        ("something\nFAILED: make-dist ended with status 1\nmore\n", "make-dist ended with status 1"),
        # g++
        ("g++ -Werror -c a.cc\na.cc: In function 'int main()':\na.cc:3:5: error: 'x' was not declared in this scope\n    3 |     x = 1;\nmake: *** [Makefile:2: a.o] Error 1\nFAILED: dpkg-buildpackage ended with status 2\n",
         "dpkg-buildpackage ended with status 2: a.cc:3:5: error: 'x' was not declared in this scope"),
        ("a.cc:1:10: fatal error: boost/version.hpp: No such file or directory\na.cc:2:1: error: second\n",
         "a.cc:1:10: fatal error: boost/version.hpp: No such file or directory"),
        ("/usr/bin/ld: a.o: in function `main':\na.cc:(.text+0x5): undefined reference to `f()'\ncollect2: error: ld returned 1 exit status\n",
         "a.cc:(.text+0x5): undefined reference to `f()'"),
        ("g++: internal compiler error: Killed (program cc1plus)\n", "g++: internal compiler error: Killed (program cc1plus)"),
        # cmake
        ('-- The CXX compiler identification is GNU 12.2.0\nCMake Error at CMakeLists.txt:5 (find_package):\n  By not providing "FindX.cmake"\n-- Configuring incomplete, errors occurred!\n',
         "CMake Error at CMakeLists.txt:5 (find_package):"),
        # apt
        ("Reading package lists...\nE: Unable to locate package libfoo-dev\n", "E: Unable to locate package libfoo-dev"),
        # make
        ("make[1]: Entering directory '/x'\nmake[1]: *** No rule to make target 'a.c', needed by 'a.o'.  Stop.\nmake[1]: Leaving directory '/x'\nmake: *** [Makefile:5: all] Error 2\n",
         "make[1]: *** No rule to make target 'a.c', needed by 'a.o'.  Stop."),
        # git
        ("fatal: unable to access 'https://h/': Could not resolve host: h\n", "fatal: unable to access 'https://h/': Could not resolve host: h"),
        ("error: pathspec 'x' did not match any file(s) known to git\n", "error: pathspec 'x' did not match any file(s) known to git"),
        # rpmbuild, python
        ("error: Failed build dependencies:\n\tlibfoo-devel is needed by ceph-1\n", "error: Failed build dependencies:"),
        ("Traceback (most recent call last):\n  File \"x\"\nKeyError: 'a'\n", "Traceback (most recent call last):"),
        # nothing that helps
        ("configure\nlast words\n\n", "last words"),
        ("", "no output at all"),
    ],
)  # fmt: skip
def test_a_failure_is_its_sentence_and_the_first_error(text: str, reason: str) -> None:
    """The reason is the script's sentence and the first line that tells an error, whichever tool printed it, else the last line."""
    assert read(text).reason() == reason


@pytest.mark.parametrize(
    "line",
    [
        "make[1]: Entering directory '/build'",
        "make[2]: Leaving directory '/build'",
        "make: *** [Makefile:5: all] Error 2",
        "g++ -Werror=format-security -c a.cc",
        "Setting up libgpg-error0:amd64 (1.46-1) ...",
        "-- Looking for error.h",
        "checking for error_at_line... yes",
        "Get:1 http://mirror.example.org bookworm InRelease",
        "[ 45%] Building CXX object error.cc.o",
        "errors: none",
    ],
)
def test_harmless_lines_are_no_error(line: str) -> None:
    """Lines that every good build prints are not taken for the first error."""
    assert read(f"{line}\na.cc:3:5: error: real\n").reason() == "a.cc:3:5: error: real"


def test_a_reason_is_not_endless() -> None:
    """A reason has at most 300 characters, as it stands in lists, and ends with a mark where it was cut."""
    reason = read("FAILED: " + "x" * 1000).reason()
    assert reason == "x" * 299 + "…"
    assert read("FAILED: " + "x" * 300).reason() == "x" * 300


@given(st.lists(st.text(max_size=60), max_size=10))
def test_any_output_is_read(lines: list[str]) -> None:
    """Whatever a build prints, it is read, the percentage is one, and there is a reason."""
    output = Output()
    for line in lines:
        output.feed(line)
    assert output.percentage is None or 0 <= output.percentage <= 100
    assert 0 < len(output.reason()) <= 300
