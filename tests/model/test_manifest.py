"""The manifest: the worker wrote it, so all of it is looked at before any of it is used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.manifest import File, Manifest, check_path

SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def a_manifest(**changes: Any) -> str:
    """Give a good manifest, changed."""
    row = {"path": "pool/a_1_all.deb", "size": 5, "sha256": SHA256}
    return json.dumps({"version": "19.2.0-1", "packages": ["b", "a"], "files": [row], **changes})


def test_a_good_manifest_is_read() -> None:
    """Version, packages and files come back as they were written, sorted."""
    rows = [
        {"path": "z", "size": 0, "sha256": SHA256},
        {"path": "dists/x/Release", "size": 7, "sha256": "a" * 64},
    ]
    assert Manifest.from_json(a_manifest(files=rows).encode()) == Manifest(
        "19.2.0-1", ("a", "b"), (File("dists/x/Release", 7, "a" * 64), File("z", 0, SHA256))
    )


@pytest.mark.parametrize(
    "path",
    ["a", "pool/main/c/ceph/libstdc++_1~2_all.deb", "x86_64/ceph-19.2.0-3.g73e2fc59.el9.x86_64.rpm", "pool/a_1:2-3_all.deb", "noarch/a-1-2^dbg.el9.noarch.rpm", "repodata/0f-primary.xml.gz"],
)  # fmt: skip
def test_paths_of_packages_are_taken(path: str) -> None:
    """Names that dpkg and rpm give to files are accepted, epochs and plus signs included."""
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".hidden", "a/.hidden", "-a", "a\x00b", "a\nb", "a\n", "a b", "a\\b", "é", "%2e%2e/a", "a?b", "~a", "C:\\x"],
)  # fmt: skip
def test_paths_that_leave_or_hide_are_refused(path: str) -> None:
    """A path is relative, plain and stays below: anything else is refused with the rule."""
    with pytest.raises(ValueError) as caught:
        check_path(path)
    assert str(caught.value) == (
        f"path {path!r} must be names of letters, digits and . + ~ ^ _ : -, each starting with a letter or digit, joined by /"
    )


def test_a_path_has_an_end() -> None:
    """A path of more than 500 characters is refused without being repeated in the sentence."""
    assert check_path("a" * 250 + "/" + "a" * 249)
    with pytest.raises(ValueError, match=r"^path has 501 characters; at most 500 are taken$"):
        check_path("a" * 501)


def test_d11_a_name_has_an_end() -> None:
    """A name that no file system takes is refused before the disk refuses it."""
    assert check_path("pool/" + "a" * 255)
    with pytest.raises(ValueError, match=r"^path has a name of 256 characters; at most 255 are taken$"):
        check_path("pool/" + "a" * 256)


@given(st.text(max_size=30))
def test_a_path_that_passes_stays_below(path: str) -> None:
    """Whatever path passes has no empty, hidden or upward part."""
    try:
        check_path(path)
    except ValueError:
        return
    assert all(part and part[0].isalnum() for part in path.split("/"))
    assert path.isascii()


A_FILE = {"path": "a", "size": 1, "sha256": SHA256}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (a_manifest(version=""), "the manifest's version '' is not a version"),
        (a_manifest(version="1 2"), "the manifest's version '1 2' is not a version"),
        (a_manifest(version="1\n"), "the manifest's version '1\\n' is not a version"),
        (a_manifest(version="../1"), "the manifest's version '../1' is not a version"),
        (a_manifest(version=19), "the manifest's version 19 is not a version"),
        (a_manifest(packages="ab"), "the manifest's packages are not a list of package names"),
        (a_manifest(packages=["a", 1]), "the manifest's packages are not a list of package names"),
        (a_manifest(packages=["a/b"]), "the manifest's packages are not a list of package names"),
        (a_manifest(packages=[""]), "the manifest's packages are not a list of package names"),
        (a_manifest(packages=[]), "the manifest expects no package at all"),
        (a_manifest(files=[{**A_FILE, "path": 7}]), "the manifest's path 7 is not a string"),
        (a_manifest(files=[{**A_FILE, "path": ["a"]}]), "the manifest's path ['a'] is not a string"),
        (a_manifest(files=[{**A_FILE, "size": -1}]), "the manifest's size of a is not a number of bytes"),
        (a_manifest(files=[{**A_FILE, "size": 1.0}]), "the manifest's size of a is not a number of bytes"),
        (a_manifest(files=[{**A_FILE, "size": True}]), "the manifest's size of a is not a number of bytes"),
        (a_manifest(files=[{**A_FILE, "size": "1"}]), "the manifest's size of a is not a number of bytes"),
        (a_manifest(files=[{**A_FILE, "sha256": SHA256[:-1]}]), "the manifest's sha256 of a is not 64 hex digits"),
        (a_manifest(files=[{**A_FILE, "sha256": SHA256.upper()}]), "the manifest's sha256 of a is not 64 hex digits"),
        (a_manifest(files=[{**A_FILE, "sha256": None}]), "the manifest's sha256 of a is not 64 hex digits"),
        (a_manifest(files=[A_FILE, A_FILE]), "the manifest lists a path twice"),
        ("{}", "the manifest cannot be read: KeyError('version')"),
        ("[]", "the manifest cannot be read: TypeError('list indices must be integers or slices, not str')"),
        (a_manifest(files=[{"path": "a"}]), "the manifest cannot be read: KeyError('size')"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_gets_a_sentence(text: str, sentence: str) -> None:
    """A manifest that is not what ours are is refused, and the sentence names the part."""
    with pytest.raises(ValueError) as caught:
        Manifest.from_json(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b'{"version": ' + b"9" * 5000 + b"}"),
        *(
            b'{"version": ' + b"9" * 4_000_000 + b"}",
            b'{"a":' * 200_000,
            "[".encode("utf-16") * 100_000,
            b"\xef\xbb\xbf{}",
        ),
    ],
)
def test_what_is_no_json_is_refused_as_such(text: bytes) -> None:
    """Bytes that no JSON reader takes, deep nesting and endless numbers included, are refused like any other mistake."""
    with pytest.raises(ValueError, match=r"^the manifest cannot be read: "):
        Manifest.from_json(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([SHA256, "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["path", "size", "sha256"]) | st.text(max_size=3), inner, max_size=4),
)  # fmt: skip


@given(version=_JSON, packages=_JSON, files=_JSON)
def test_any_json_is_read_or_refused(version: Any, packages: Any, files: Any) -> None:
    """Whatever JSON stands in a manifest, it is read or refused with ValueError: nothing else escapes."""
    try:
        manifest = Manifest.from_json(a_manifest(version=version, packages=packages, files=files))
    except ValueError:
        return
    assert manifest.packages
