"""The published tree: all of a package_key or nothing of it, killed wherever it may be."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from master.publishing.publisher import PublishedTree
from model import layout
from model.package_key import PackageKey
from tests.package_repositories import files_of

ROOT = Path(__file__).parents[2]
NAME = "ceph-deb-jammy-x86_64-default"
KEY = PackageKey.from_string(f"{NAME}/{'a' * 40}")
NEWER = PackageKey.from_string(f"{NAME}/{'b' * 40}")
CONTENT = {
    "pool/a_1_all.deb": b"a" * 1000,
    "dists/jammy/Release": b"Codename: jammy\n",
    "dists/jammy/InRelease": b"signed",
}


@pytest.fixture
def tree(tmp_path: Path) -> PublishedTree:
    """Give an empty tree."""
    tree = PublishedTree(tmp_path / "packages", tmp_path / "staging")
    tree.prepare()
    return tree


def upload(directory: Path, content: dict[str, bytes] = CONTENT) -> Path:
    """Lay an upload's files into a fresh directory, readable by nobody else, as uploads are."""
    for path, data in content.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
        (directory / path).chmod(0o600)
    directory.chmod(0o700)
    return directory


def record_of(directory: Path) -> dict[str, Any]:
    """Give the record of a directory."""
    rows = [
        {"path": file.path, "size": file.size, "sha256": file.sha256} for file in files_of(directory).values()
    ]
    return {"version": "19.2.0-1", "files": rows, "buildset_id": 7}


def publish(tree: PublishedTree, key: PackageKey = KEY) -> Path:
    """Publish a key, and give its directory."""
    directory = upload(tree.staging / f"upload-{key.sha1[:4]}")
    tree.write_metadata(key, directory, record_of(directory))
    tree.place(key, directory)
    return tree.tree / layout.sha1_path(key)


def everything(directory: Path) -> dict[str, str]:
    """Give all that is below a directory: files with their content, links with where they lead."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes().decode()
    return found


def test_what_is_published_is_recorded(tree: PublishedTree) -> None:
    """After publishing, the record says what was built, and the directory has version, sha1 and manifest."""
    assert tree.record(KEY) is None
    directory = publish(tree)
    record = tree.record(KEY)
    assert record is not None
    assert (record["version"], record["buildset_id"], len(record["files"])) == ("19.2.0-1", 7, 3)
    assert (directory / "version").read_text() == "19.2.0-1\n"
    assert (directory / "sha1").read_text() == "a" * 40 + "\n"
    assert json.loads((directory / "manifest.json").read_text()) == record
    assert {path: (directory / path).read_bytes() for path in CONTENT} == CONTENT
    assert list(tree.staging.iterdir()) == []


def test_what_is_published_is_for_everybody(tree: PublishedTree) -> None:
    """Every directory and file that is published can be read by any server, and written by the master only."""
    directory = publish(tree)
    for path in [directory, *directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize("path", ["version", "manifest.json", "pool/a_1_all.deb", "dists/jammy/InRelease"])
def test_a_directory_that_lost_a_file_is_not_published(tree: PublishedTree, path: str) -> None:
    """Purged in part since, a key is not published any more."""
    directory = publish(tree)
    (directory / path).unlink()
    assert tree.record(KEY) is None


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("version", b""), ("manifest.json", b""), ("manifest.json", b"{}"), ("manifest.json", b"[]"), ("manifest.json", b"\xff"),
        ("manifest.json", b'{"files": [7]}'), ("manifest.json", b'{"files": [{"path": "version"}]}'), ("manifest.json", b'{"files": 7}'),
        ("pool/a_1_all.deb", b"a" * 999), ("pool/a_1_all.deb", b"a" * 1001),
    ],
)  # fmt: skip
def test_a_directory_with_a_spoilt_file_is_not_published(
    tree: PublishedTree, path: str, content: bytes
) -> None:
    """With a file of another size, an empty version or a manifest that is none, a key is not published, and no error is raised."""
    directory = publish(tree)
    (directory / path).write_bytes(content)
    assert tree.record(KEY) is None


def test_an_incomplete_directory_gives_way(tree: PublishedTree) -> None:
    """A key whose directory lost something is published anew, all of it."""
    directory = publish(tree)
    (directory / "pool/a_1_all.deb").unlink()
    (directory / "leftover").write_text("x")
    publish(tree)
    assert tree.record(KEY) is not None
    assert not (directory / "leftover").exists()
    assert list(tree.staging.iterdir()) == []


def test_nothing_is_visible_before_the_rename(tree: PublishedTree) -> None:
    """Metadata is written beside the tree, so that nobody is served a half."""
    directory = upload(tree.staging / "upload")
    tree.write_metadata(KEY, directory, record_of(directory))
    assert list(tree.tree.rglob("*")) == []
    assert tree.record(KEY) is None


def test_staging_elsewhere_is_refused(tmp_path: Path) -> None:
    """Staging on another file system is refused, as no rename from there could be atomic."""
    other = Path("/dev/shm") / f"staging-{os.getpid()}"
    tree = PublishedTree(tmp_path / "packages", other)
    try:
        assert Path("/dev/shm").stat().st_dev != tmp_path.stat().st_dev
        with pytest.raises(ValueError) as caught:
            tree.prepare()
    finally:
        other.rmdir()
    assert str(caught.value) == f"{other} is not on the same file system as {tmp_path / 'packages'}"


def test_staging_is_the_masters_only(tree: PublishedTree) -> None:
    """What is not published yet is not for other users of the machine."""
    assert stat.S_IMODE(tree.staging.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("ref", "link"),
    [
        ("main", f"../sha1/{'a' * 40}"),
        ("wip/x", f"../../sha1/{'a' * 40}"),
        ("a/b/c", f"../../../sha1/{'a' * 40}"),
    ],
)
def test_a_ref_leads_to_its_commit(tree: PublishedTree, ref: str, link: str) -> None:
    """A ref with or without slashes is a relative link, through which the files are reached."""
    publish(tree)
    tree.link(KEY, [ref])
    path = tree.tree / NAME / "ref" / ref
    assert os.readlink(path) == link
    assert (path / "version").read_text() == "19.2.0-1\n"
    assert list(tree.staging.iterdir()) == []


def test_a_ref_that_moved_is_followed(tree: PublishedTree) -> None:
    """A ref's link that led to an older commit leads to the newer one, and the older one stays published."""
    publish(tree)
    tree.link(KEY, ["main"])
    publish(tree, NEWER)
    tree.link(NEWER, ["main"])
    assert os.readlink(tree.tree / NAME / "ref/main") == "../sha1/" + "b" * 40
    assert tree.record(KEY) is not None


def test_a_link_is_replaced_in_one_step(tree: PublishedTree) -> None:
    """While a link is replaced again and again, whoever reads it finds the one commit or the other, never nothing."""
    publish(tree)
    publish(tree, NEWER)
    tree.link(KEY, ["main"])
    path = tree.tree / NAME / "ref/main"
    reader = subprocess.Popen(
        [sys.executable, "-c", "import os, sys\nfor _ in range(20000): os.stat(sys.argv[1])\n", str(path / "version")],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while reader.poll() is None:
        tree.link(NEWER, ["main"])
        tree.link(KEY, ["main"])
    assert (reader.returncode, reader.communicate()[1]) == (0, "")


def test_a_right_link_is_left_alone(tree: PublishedTree) -> None:
    """Linking what is linked already writes nothing."""
    publish(tree)
    tree.link(KEY, ["main"])
    path = tree.tree / NAME / "ref/main"
    before = path.lstat()
    tree.link(KEY, ["main"])
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "refs",
    [
        ["wip", "wip/foo"],
        ["wip/foo", "wip"],
        ["wip", "wip/version"],
        ["wip", "wip/a/b"],
        ["wip", "wip/pool/x"],
    ],
)
def test_refs_that_cannot_both_be_links_do_no_harm(tree: PublishedTree, refs: list[str]) -> None:
    """Where one ref's name is the beginning of another's, the first stays, and no published directory is touched."""
    directory = publish(tree)
    before = everything(directory)
    publish(tree, NEWER)
    tree.link(KEY, refs[:1])
    tree.link(NEWER, refs[1:])
    assert everything(directory) == before
    assert tree.record(KEY) is not None
    assert tree.record(NEWER) is not None
    assert (tree.tree / NAME / "ref" / refs[0] / "version").exists()


def test_refs_go_on_after_one_that_cannot_be_linked(tree: PublishedTree) -> None:
    """One ref that cannot be a link does not keep the others from theirs."""
    publish(tree)
    tree.link(KEY, ["wip/foo", "wip", "main"])
    assert os.readlink(tree.tree / NAME / "ref/main") == "../sha1/" + "a" * 40


def a_directory(directory: Path) -> PublishedTree:
    """Give an empty tree with an upload that waits to be published."""
    tree = PublishedTree(directory / "packages", directory / "staging")
    tree.prepare()
    upload(tree.staging / "upload")
    return tree


def publish_and_die(rows: list[tuple[Path, int]]) -> list[tuple[bool, list[str]]]:
    """Publish each directory in a process that kills itself at its n-th call: whether it was, and its calls."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.publish_and_die", str(KEY), "wip/x"],
        input=json.dumps([(str(directory), last) for directory, last in rows]),
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert all(status in (0, -signal.SIGKILL) for _, status, _ in results), finished.stderr
    return [(killed, calls) for killed, _, calls in results]


def test_killed_anywhere_a_key_is_absent_or_whole(tmp_path: Path) -> None:
    """Killed with SIGKILL at any call that touches the disk, a key is not there or is whole, and publishing again succeeds."""
    a_directory(tmp_path / "count")
    [(killed, calls)] = publish_and_die([(tmp_path / "count", 1_000_000)])
    assert not killed
    assert calls.count("fsync") >= 8
    assert {"rename", "symlink", "chmod", "mkdir", "write", "write the rest"} <= set(calls)
    rows = [(tmp_path / str(last), last) for last in range(1, len(calls) + 1)]
    trees = [a_directory(directory) for directory, _ in rows]
    for killed, made in publish_and_die(rows):
        assert killed, made
    outcomes = []
    for tree in trees:
        destination = tree.tree / layout.sha1_path(KEY)
        whole = destination.exists()
        outcomes.append(whole)
        assert (tree.record(KEY) is not None) == whole
        if whole:
            assert set(everything(destination)) == {*CONTENT, "version", "sha1", "manifest.json"}
            assert {path: (destination / path).read_bytes() for path in CONTENT} == CONTENT
            assert all(stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 for path in destination.rglob("*"))
        else:
            assert everything(tree.tree) == {}
        publish(tree)
        tree.link(KEY, ["wip/x"])
        assert tree.record(KEY) is not None
        assert (tree.tree / NAME / "ref/wip/x/version").read_text() == "19.2.0-1\n"
    assert outcomes == [False] * outcomes.count(False) + [True] * outcomes.count(True)
    assert calls[outcomes.count(False) - 1] == "rename"


def test_killed_while_replacing_an_incomplete_directory_nothing_is_mixed(tmp_path: Path) -> None:
    """Killed while an incomplete directory gives way, nothing of the two is mixed, and publishing again succeeds."""
    rows = [(tmp_path / str(last), last) for last in range(1, 60)]
    trees = []
    for directory, _ in rows:
        tree = PublishedTree(directory / "packages", directory / "staging")
        tree.prepare()
        destination = publish(tree)
        (destination / "pool/a_1_all.deb").unlink()
        (destination / "leftover").write_text("x")
        upload(tree.staging / "upload")
        trees.append(tree)
    results = publish_and_die(rows)
    assert [killed for killed, _ in results].count(False) > 1
    seen = set()
    for tree in trees:
        destination = tree.tree / layout.sha1_path(KEY)
        old, new = (destination / "leftover").exists(), tree.record(KEY) is not None
        seen.add((old, new))
        assert not (old and new)
        assert destination.exists() == (old or new)
        publish(tree)
        assert tree.record(KEY) is not None
        assert not (destination / "leftover").exists()
    assert seen == {(True, False), (False, False), (False, True)}
