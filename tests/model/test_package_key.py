"""The package_key: which strings are one, and which are not."""

from __future__ import annotations

import pytest

from model.package_key import PackageKey, check_sha1
from model.targets import Target

SHA1 = "0123456789abcdef0123456789abcdef01234567"


def test_a_key_is_read_back_from_its_string() -> None:
    """A package_key's string is `<target>/<sha1>`, and gives the same key back."""
    key = PackageKey(Target("ceph", "jammy"), SHA1)
    assert str(key) == "ceph-deb-jammy-x86_64-default/0123456789abcdef0123456789abcdef01234567"
    assert PackageKey.from_string(str(key)) == key


def test_the_longest_key_fits_the_database() -> None:
    """A key has at most 91 characters, as the longest target has 50."""
    key = PackageKey(Target("abcdefghijklmnop", "bookworm", "aarch64", "default"), SHA1)
    assert len(str(key)) <= 91


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SHA1[:39], "sha1 '0123456789abcdef0123456789abcdef0123456' has 39 hex digits; a full one has 40"),
        (SHA1 + "0", "sha1 '0123456789abcdef0123456789abcdef012345670' has 41 hex digits; a full one has 40"),
        ("abcdef0", "sha1 'abcdef0' has 7 hex digits; a full one has 40"),
        (SHA1.upper(), "sha1 '0123456789ABCDEF0123456789ABCDEF01234567' must be lower case"),
        (SHA1 + "\n", "sha1 '0123456789abcdef0123456789abcdef01234567\\n' must be 40 lower-case hex digits"),
        (SHA1[:39] + "g", "sha1 '0123456789abcdef0123456789abcdef0123456g' must be 40 lower-case hex digits"),
        ("", "sha1 '' must be 40 lower-case hex digits"),
        ("HEAD", "sha1 'HEAD' must be 40 lower-case hex digits"),
        ("\u0661" * 40, "sha1 '" + "\u0661" * 40 + "' must be 40 lower-case hex digits"),
        ("x" * 1000, "sha1 '" + "x" * 64 + "' must be 40 lower-case hex digits"),
        ("a" * 1000, "sha1 '" + "a" * 64 + "' has 1000 hex digits; a full one has 40"),
    ],
)  # fmt: skip
def test_a_sha1_is_whole_and_lower_case(text: str, sentence: str) -> None:
    """Only 40 lower-case hex digits are a sha1; anything else gets a sentence that says what is wrong, never longer than a line."""
    with pytest.raises(ValueError) as caught:
        check_sha1(text)
    assert str(caught.value) == sentence
    with pytest.raises(ValueError):
        PackageKey(Target("ceph", "jammy"), text)


@pytest.mark.parametrize(
    "text",
    ["", "/", SHA1, "ceph-deb-jammy-x86_64-default", "ceph-deb-jammy-x86_64-default/", "ceph-deb-jammy-x86_64-default/sha1/" + SHA1, "ceph-deb-jammy-x86_64-default//" + SHA1, f"ceph-deb-jammy-x86_64-default/{SHA1}/"],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    """Half a key, or a path that only looks like one, is no key."""
    with pytest.raises(ValueError):
        PackageKey.from_string(text)
