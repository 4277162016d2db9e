"""The index of what is published: seen at once, kept only while nothing has changed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from master.shaman.index import Directories, PublishedIndex
from model.package_key import PackageKey
from model.targets import Target
from tests.published import DAY, Publications

NAME = "ceph-deb-jammy-x86_64-default"
TARGET = Target.from_name(NAME)
A, B = "a" * 40, "b" * 40
LATER = 3600 * 10**9


@pytest.fixture
def publications(tmp_path: Path) -> Publications:
    return Publications(tmp_path)


def settled(publications: Publications) -> PublishedIndex:
    """Give an index for which everything that happens has happened long ago, so that it keeps all it can."""
    return PublishedIndex(str(publications.tree), publications.record, lambda: time.time_ns() + LATER)


def sha1s(index: PublishedIndex) -> list[str]:
    return [sha1 for _, sha1 in index.keys(TARGET).newest_first]


def test_what_is_published_is_found(publications: Publications) -> None:
    """A package_key has its version from the file `version`, its time too, and the rest from the manifest."""
    publications.publish(f"{NAME}/{A}", "19.2.0-1", at=5, ref="wip", build_url="http://builds/1")
    index = settled(publications)
    assert index.targets() == [TARGET]
    one = index.published(PackageKey(TARGET, A))
    assert one is not None
    assert (one.key, one.version, one.modified) == (PackageKey(TARGET, A), "19.2.0-1", DAY + 5)
    assert (one.ref, one.build_url) == ("wip", "http://builds/1")
    assert index.published(PackageKey(TARGET, B)) is None


def test_an_empty_place_is_an_empty_index(tmp_path: Path) -> None:
    """No tree, no target: nothing is published, and nothing fails."""
    index = PublishedIndex(str(tmp_path / "no"), lambda _: None)
    assert index.targets() == []
    assert index.keys(TARGET).newest_first == ()
    assert index.refs(TARGET).sha1_of == {}


def test_only_targets_and_commits_are_seen(publications: Publications) -> None:
    """Whatever else lies in the tree is neither a target nor a commit."""
    key = publications.publish(f"{NAME}/{A}", "1")
    (publications.tree / "key.asc").write_text("key")
    (publications.tree / "ceph-deb-nowhere-x86_64-default").mkdir()
    (publications.tree / "ceph-deb-noble-x86_64-default").symlink_to(NAME)
    (key.parent / "notes").mkdir()
    (key.parent / "notes/version").write_text("1")
    (key.parent / B).symlink_to(A)
    (key.parent / ("c" * 40)).mkdir()
    index = settled(publications)
    assert index.targets() == [TARGET]
    assert sha1s(index) == [A]


def test_the_newest_comes_first(publications: Publications) -> None:
    """Commits are in the order in which they were published, whatever their names."""
    for sha1, at in ((A, 2), (B, 3), ("c" * 40, 1)):
        publications.publish(f"{NAME}/{sha1}", "1", at=at)
    assert sha1s(settled(publications)) == [B, A, "c" * 40]


def test_a_publication_is_seen_at_once(publications: Publications) -> None:
    """An index that has kept everything sees the next commit, the next target and the next link."""
    index = settled(publications)
    assert (index.targets(), sha1s(index)) == ([], [])
    publications.publish(f"{NAME}/{A}", "1", "main", at=1)
    assert (index.targets(), sha1s(index), index.refs(TARGET).sha1_of) == ([TARGET], [A], {"main": A})
    publications.publish(f"{NAME}/{B}", "1", "main", "wip/foo", at=2)
    assert (sha1s(index), index.refs(TARGET).sha1_of) == ([B, A], {"main": B, "wip/foo": B})
    assert index.refs(TARGET).refs_at == {B: ["main", "wip/foo"]}
    publications.link(f"{NAME}/{A}", "wip/foo")
    assert index.refs(TARGET).refs_at == {A: ["wip/foo"], B: ["main"]}
    shutil.rmtree(publications.tree / NAME / "sha1" / B)
    assert sha1s(index) == [A]


def test_what_has_not_changed_is_not_read_again(publications: Publications) -> None:
    """As long as no directory has changed, an answer is the very one of before."""
    publications.publish(f"{NAME}/{A}", "1", "main", "wip/foo")
    index = settled(publications)
    keys, refs, one = index.keys(TARGET), index.refs(TARGET), index.listed(PackageKey(TARGET, A))
    assert index.keys(TARGET) is keys
    assert index.refs(TARGET) is refs
    assert one is not None
    assert index.listed(PackageKey(TARGET, A)) is one


def test_what_has_just_changed_is_not_kept(tmp_path: Path) -> None:
    """A change in the same tick of the file system's clock leaves no trace in the time, and is seen all the same."""
    clock = [0]
    directories = Directories(lambda: clock[0])
    (tmp_path / "one").mkdir()
    before = tmp_path.stat()
    clock[0] = before.st_mtime_ns + 1_000_000
    assert {entry.name for entry in directories.entries(str(tmp_path))} == {"one"}
    (tmp_path / "two").mkdir()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {entry.name for entry in directories.entries(str(tmp_path))} == {"one", "two"}
    clock[0] = before.st_mtime_ns + 10_000_000_000
    assert directories.entries(str(tmp_path)) == directories.entries(str(tmp_path))
    assert directories.entries(str(tmp_path)) is directories.entries(str(tmp_path))


def test_a_time_in_the_future_is_not_trusted(tmp_path: Path) -> None:
    """A directory of a machine whose clock is ahead is read each time."""
    before = tmp_path.stat()
    directories = Directories(lambda: before.st_mtime_ns - LATER)
    assert directories.entries(str(tmp_path)) == ()
    (tmp_path / "one").mkdir()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(directories.entries(str(tmp_path))) == 1


@pytest.mark.parametrize("look", ["published", "listed"])
@pytest.mark.parametrize("gone", ["version", "manifest.json", "pool/main/c/ceph/ceph.deb", "dists", ""])
def test_a_purge_is_seen_at_once(publications: Publications, look: str, gone: str) -> None:
    """A package_key that lacks one file, or all, is not published, however well it was known before."""
    directory = publications.publish(f"{NAME}/{A}", "1")
    index = settled(publications)
    assert getattr(index, look)(PackageKey(TARGET, A)) is not None
    path = directory / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert getattr(index, look)(PackageKey(TARGET, A)) is None


def test_a_file_cut_short_is_seen(publications: Publications) -> None:
    """Who asks for one commit has its files looked at, not only their directories."""
    directory = publications.publish(f"{NAME}/{A}", "1")
    index = settled(publications)
    assert index.published(PackageKey(TARGET, A)) is not None
    (directory / "pool/main/c/ceph/ceph.deb").write_text("")
    assert index.published(PackageKey(TARGET, A)) is None


def test_a_commit_published_anew_is_the_new_one(publications: Publications) -> None:
    """What replaced an incomplete package_key is what is told from then on, its time included."""
    index = settled(publications)
    publications.publish(f"{NAME}/{A}", "1", at=1)
    publications.publish(f"{NAME}/{B}", "1", at=2)
    assert sha1s(index) == [B, A]
    one = index.listed(PackageKey(TARGET, A))
    publications.publish(f"{NAME}/{A}", "2", at=3)
    two = index.listed(PackageKey(TARGET, A))
    assert (one and one.version, two and two.version, sha1s(index)) == ("1", "2", [A, B])


def test_only_links_of_ours_are_refs(publications: Publications) -> None:
    """A link that leads elsewhere, a file and an empty directory are no refs; depth must fit the name."""
    publications.publish(f"{NAME}/{A}", "1", "main", "wip/a/b")
    ref = publications.tree / NAME / "ref"
    for name, link in {
        "up": f"../../sha1/{A}",
        "wip/short": f"../sha1/{A}",
        "absolute": f"/sha1/{A}",
        "branch": "main",
        "outside": "../../../etc",
        "more": f"../sha1/{A}/",
    }.items():
        (ref / name).symlink_to(link)
    (ref / "file").write_text(A)
    (ref / "empty").mkdir()
    assert settled(publications).refs(TARGET).sha1_of == {"main": A, "wip/a/b": A}


def test_a_tree_that_cannot_be_read_is_an_error(
    publications: Publications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said to be missing only because it cannot be looked at."""
    publications.publish(f"{NAME}/{A}", "1")
    index = settled(publications)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        index.targets()
