"""Stanzas of an index: read so that no client can read them otherwise, or refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.publishing.control_file import MOST_INDEX, stanzas

INDEX = b"""\
Package: a
Filename: pool/a_1_all.deb
Description: one
 two
\t.
Depends:
 b

Package: b
Filename: pool/b_1_all.deb
"""


def test_stanzas_are_fields_and_their_texts() -> None:
    """Names are in lower case; the lines of a value are kept as they are."""
    assert list(stanzas(INDEX)) == [
        {"package": "a", "filename": "pool/a_1_all.deb", "description": "one\n two\n\t.", "depends": "\n b"},
        {"package": "b", "filename": "pool/b_1_all.deb"},
    ]
    assert list(stanzas(b"")) == list(stanzas(b"\n\n\n")) == []


def test_a_missing_field_is_named() -> None:
    """The sentence has the field and the file of the package."""
    [_, stanza] = stanzas(INDEX)
    with pytest.raises(ValueError, match=r"^the control file of pool/b_1_all\.deb has no field Version$"):
        stanza["version"]


@pytest.mark.parametrize(
    "line",
    [
        b"no field", b" ", b"\t", b"# comment", b"-X: a", b":", b"X Y: a", b"X\x00: a", b"X: a\rY: b", b"X: a\x0bY: b",
        b"X: a\x1cY: b", b"X: \x7f", b"\xe2\x80\xa8Package: c", b"X:a",
    ],
)  # fmt: skip
def test_an_ambiguous_line_is_refused(line: bytes) -> None:
    """A line that one parser takes for a field, and another for text or for the end, is refused with its file."""
    with pytest.raises(ValueError) as caught:
        list(stanzas(INDEX + line + b"\n"))
    assert str(caught.value) == (
        f"the control file of pool/b_1_all.deb has a line that is no field, nor the text of one: {line!r}"
    )


@given(
    st.lists(
        st.sampled_from([b"\n", b"A: x", b"a: y", b" z", b"\r", b"\xe2\x80\xa8", b"\x85", b":", b" "])
    ).map(b"".join)
)
def test_what_is_accepted_has_each_field_once(index: bytes) -> None:
    """Whatever the bytes, either a sentence says what is wrong, or each line is of just one field."""
    try:
        found = list(stanzas(index))
    except ValueError as error:
        assert str(error)
        return
    lines = [line for line in index.split(b"\n") if line]
    assert sum(1 + value.count("\n") for stanza in found for value in stanza.values()) == len(lines)


def test_a_long_field_is_read_line_by_line() -> None:
    """The time to read a control file grows with its length, not with the square of it, also for a hostile one."""
    before = time.thread_time()
    [stanza] = stanzas(
        b"Package: a\nDescription: one\n" + b" two two two two two two two two two two\n" * 60_000
    )
    assert time.thread_time() - before < 2
    assert stanza["description"].count("\n") == 60_000


def test_a14_control_files_have_an_end() -> None:
    """Text that a control file may have for megabytes is refused before it is read."""
    index = b"Package: ceph\nDescription: x\n" + b" a\n" * (MOST_INDEX // 3)
    with pytest.raises(ValueError, match=rf"have {len(index)} bytes in all; at most {MOST_INDEX} are taken"):
        list(stanzas(index))
