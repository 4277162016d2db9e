"""What of the published tree is to be had, and in which parts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.package_server.tree import Found, MissingError, PackageTree, human_size, names_of, parse_range


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (b"/", [""]),
        (b"/a", ["a"]),
        (b"/a/", ["a", ""]),
        (b"/a%2Bb/c~1", ["a+b", "c~1"]),
        (b"/%C3%A4", ["ä"]),
    ],
)
def test_a_path_is_split_into_names(path: bytes, names: list[str]) -> None:
    """Names are unquoted once; an empty last one asks for a directory."""
    assert names_of(path) == names


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"",
            b"a",
            b"*",
            b"/..",
            b"//..",
            b"/a//../b",
            b"//%2e%2e",
            b"/a/%2f/b",
            b"//a%2fb",
            b"/a/../b",
            b"/%2e%2e/b",
            b"/.",
            b"/a/./b",
        ),
        *(b"/.git", b"/a/.hidden", b"/%2egit", b"/a%2fb", b"/..%2fb", b"/a%5cb", b"/a\\b", b"/a%00"),
        *(b"/" + b"a" * 256, b"/" + b"%61" * 256, b"http://host/a"),
    ],
)
def test_a_bad_path_has_nothing(path: bytes) -> None:
    """No spelling of a way up, of an absolute path or of a dot file gets to the disk."""
    with pytest.raises(MissingError):
        names_of(path)


@given(st.binary(max_size=60))
def test_no_path_at_all_gets_out(path: bytes) -> None:
    """Whatever the bytes are, names are plain or there are none."""
    try:
        names = names_of(b"/" + path)
    except MissingError:
        return
    assert not any("/" in name or "\0" in name or name.startswith(".") for name in names)


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-", [(2, 8)]),
        ("bytes=-3", [(7, 3)]),
        ("bytes=-30", [(0, 10)]),
        ("bytes=5-99", [(5, 5)]),
        ("bytes=0-1,4-5, -1", [(0, 2), (4, 2), (9, 1)]),
        ("Bytes = 0-1", [(0, 2)]),
        ("bytes=10-", []),
        ("bytes=-0", []),
        ("bytes=0-1,50-60", [(0, 2)]),
        ("", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1_0-", None),
        ("bytes=5-2", None),
        ("bytes=--1", None),
        ("bytes=0-" + "9" * 30, None),
        ("lines=0-1", None),
        ("bytes=0-5,3-9", None),
        ("bytes=" + ",".join(["0-0"] * 257), None),
    ],
)
def test_ranges_are_read_as_rfc_9110_says(header: str, ranges: list[tuple[int, int]] | None) -> None:
    """None is a header to ignore, an empty list one that nothing satisfies."""
    assert parse_range(header, 10) == ranges


@given(st.text("0123456789-,= bytes"), st.integers(0, 50))
def test_no_range_leaves_the_file(value: str, size: int) -> None:
    """A range is inside, and together they are not more than the file."""
    ranges = parse_range("bytes=" + value, size) or []
    assert all(0 <= offset < offset + length <= size for offset, length in ranges)
    assert sum(length for _, length in ranges) <= size


@pytest.fixture
def tree(tmp_path: Path) -> PackageTree:
    root = tmp_path / "packages"
    (root / "t/sha1/s").mkdir(parents=True)
    (root / "t/sha1/s/version").write_text("1")
    (root / "t/ref/wip").mkdir(parents=True)
    (root / "t/ref/wip/foo").symlink_to("../../sha1/s")
    (root / ".secret").mkdir()
    (root / ".secret/file").write_text("secret")
    (tmp_path / "outside").write_text("secret")
    (root / "out").symlink_to(tmp_path)
    (root / "outfile").symlink_to("../outside")
    (root / "dot").symlink_to(".secret")
    (root / "loop").symlink_to("loop")
    (root / "nowhere").symlink_to("gone")
    os.mkfifo(root / "fifo")
    return PackageTree(str(root), "T")


def test_links_inside_are_followed(tree: PackageTree) -> None:
    """A ref is a link to its sha1."""
    by_ref = tree.find(["t", "ref", "wip", "foo", "version"])
    assert by_ref.path == tree.find(["t", "sha1", "s", "version"]).path


@pytest.mark.parametrize(
    "names",
    [
        *(["out"], ["out", "outside"], ["out", ""], ["outfile"], ["dot"], ["dot", "file"], ["loop"]),
        *(["nowhere"], ["fifo"], ["gone"], ["t", "sha1", "s", "version", ""], ["version", "x"]),
        *([".secret", "file"], ["..", "outside"], ["\udcff"], ["a\0b"]),
    ],
)
def test_nothing_else_is_found(tree: PackageTree, names: list[str]) -> None:
    """Links out of the tree, dot files behind a link and what is no file are not there."""
    with pytest.raises(MissingError):
        tree.find(names)


def test_a_listing_shows_only_what_can_be_had(tree: PackageTree) -> None:
    """No entry of a listing leads to a 404."""
    page = tree.listing([""], tree.find([""])).body.decode()
    assert page.count("<a ") == 2  # the title and t/
    assert '<a href="./t/">t/</a>' in page


def test_a_listing_escapes_every_name(tmp_path: Path) -> None:
    """A name is text, whatever is in it, and its link leads to it."""
    name = "<img src=x>&\"'?#%41 ä"
    (tmp_path / name).write_text("")
    tree = PackageTree(str(tmp_path), "<b>")
    page = tree.listing([""], tree.find([""])).body.decode()
    assert "<img" not in page
    assert "<b>" not in page
    href = page.split('<td><a href="./')[1].split('"')[0]
    assert names_of(b"/" + href.encode()) == [name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ceph_1_amd64.deb", "application/vnd.debian.binary-package"),
        ("ceph-1.rpm", "application/x-rpm"),
        ("ceph_1.dsc", "text/plain; charset=utf-8"),
        ("Release", "text/plain; charset=utf-8"),
        ("InRelease", "text/plain; charset=utf-8"),
        ("Release.gpg", "application/pgp-signature"),
        ("repomd.xml", "application/xml"),
        ("repomd.xml.asc", "application/pgp-signature"),
        ("key.asc", "application/pgp-keys"),
        ("Packages", "text/plain; charset=utf-8"),
        ("Packages.gz", "application/gzip"),
        ("x.tar.xz", "application/x-xz"),
        ("x.tar.bz2", "application/x-bzip2"),
        ("primary.xml.zst", "application/zstd"),
        ("ceph.repo", "text/plain; charset=utf-8"),
        ("build.log", "text/plain; charset=utf-8"),
        ("version", "text/plain; charset=utf-8"),
        ("sha1", "text/plain; charset=utf-8"),
        ("manifest.json", "application/json"),
        ("page.html", "text/plain; charset=utf-8"),
        ("gz", "application/octet-stream"),
        ("core", "application/octet-stream"),
    ],
)
def test_each_file_has_its_type(tmp_path: Path, name: str, kind: str) -> None:
    """Compressed files are files: no Content-Encoding lets a client unpack them."""
    (tmp_path / name).write_text("x")
    tree = PackageTree(str(tmp_path), "T")
    headers = tree.file([name], tree.find([name]), {}).headers
    assert headers["Content-Type"] == kind
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(
    "names",
    [
        ["t", "sha1", "s", "pool", "a.deb"],
        ["t", "sha1", "s", "noarch", "a.rpm"],
        ["t", "sha1", "s", "version"],
        ["t", "ref", "main", "pool", "a.deb"],
        ["key.asc"],
    ],
)
def test_nothing_is_immutable(tmp_path: Path, names: list[str]) -> None:
    """A ref moves, and a commit that is purged and built again has other bytes by the same names."""
    path = tmp_path / "file"
    path.write_text("x")
    answer = PackageTree(str(tmp_path), "T").file(names, Found(str(path), path.stat()), {})
    assert answer.headers["Cache-Control"] == "no-cache"


def test_other_bytes_have_another_tag(tmp_path: Path) -> None:
    """Other bytes of the same size in the same second get another ETag, and so does a restored older file."""
    path, tree = tmp_path / "a.deb", PackageTree(str(tmp_path), "T")
    path.write_text("one")
    before = tree.file(["a.deb"], tree.find(["a.deb"]), {}).headers
    stat = path.stat()
    (tmp_path / "b.deb").write_text("two")
    (tmp_path / "b.deb").rename(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns // 10**9 * 10**9 + 1))
    after = tree.find(["a.deb"])
    assert tree.file(["a.deb"], after, {}).headers["ETag"] != before["ETag"]
    assert tree.file(["a.deb"], after, {"if-none-match": before["ETag"]}).status == 200
    os.utime(path, (1_000_000_000, 1_000_000_000))
    older = {"if-modified-since": before["Last-Modified"]}
    assert tree.file(["a.deb"], tree.find(["a.deb"]), older).status == 200


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (12_900_000, "12.3 MiB"), (3 << 40, "3072.0 GiB")],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    """Binary units, one digit."""
    assert human_size(size) == text
