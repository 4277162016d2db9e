"""The registry of uploads: who may send what, and what is left of it."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred

from master.publishing import publisher as publisher_module
from master.publishing.publisher import PublishedTree, Publisher
from master.publishing.uploads import Incoming, Limits, RefusedError, Upload, Uploads
from model.manifest import File
from model.package_key import PackageKey

KEY = PackageKey.from_string("ceph-deb-jammy-x86_64-default/0123456789abcdef0123456789abcdef01234567")
OTHER = PackageKey.from_string("ceph-rpm-centos9-x86_64-default/" + "f" * 40)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "staging", Limits(most_bytes=1000, most_files=3))


@pytest.fixture
def upload(uploads: Uploads) -> Upload:
    return uploads.open(KEY)


def send(upload: Upload, path: str, content: bytes = b"content") -> Incoming:
    """Let a whole file arrive."""
    incoming = upload.begin(path, len(content))
    incoming.commit([content])
    upload.settle(path)
    return incoming


def refusal(upload: Upload, path: str, size: int = 1) -> tuple[int, str]:
    """Give status and sentence of a file that is refused."""
    with pytest.raises(RefusedError) as caught:
        upload.begin(path, size)
    return caught.value.status, caught.value.sentence


def everything(directory: Path) -> list[str]:
    """Give all that is below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_token_finds_its_upload_until_it_is_closed(uploads: Uploads) -> None:
    """A token is good for one upload, and for no longer than that is open."""
    upload, other = uploads.open(KEY), uploads.open(KEY)
    assert uploads.find(upload.token) is upload
    assert uploads.find(other.token) is other
    assert upload.token != other.token
    assert len(upload.token) >= 43
    assert upload.directory != other.directory
    assert upload.directory.parent == uploads.staging / KEY.target.name
    uploads.close(upload)
    assert uploads.find(upload.token) is None
    assert uploads.find(other.token) is other
    assert uploads.find("") is None
    assert uploads.find("\udcff") is None


def test_an_upload_does_not_show_its_token(upload: Upload) -> None:
    """A token that is logged with its upload would be a leak."""
    assert upload.token not in repr(upload)


def test_a_new_registry_knows_no_old_token(uploads: Uploads, upload: Upload) -> None:
    """A master that starts again refuses what it gave out before."""
    assert Uploads(uploads.staging).find(upload.token) is None


def test_the_uploads_of_a_key_are_those_that_are_open(uploads: Uploads, upload: Upload) -> None:
    """Whoever opens an upload can end an earlier one of the same key."""
    uploads.open(OTHER)
    assert uploads.of_key(KEY) == [upload]
    uploads.close(upload)
    assert uploads.of_key(KEY) == []


def test_a_file_is_recorded_as_it_arrived(upload: Upload) -> None:
    """Size and SHA-256 are those of the bytes on the disk."""
    incoming = upload.begin("pool/a.deb", 6)
    incoming.write([b"ab", b"cd"])
    assert everything(upload.directory) == []
    file = incoming.commit([b"ef"], hashlib.sha256(b"abcdef").digest())
    upload.settle("pool/a.deb")
    assert file == File("pool/a.deb", 6, hashlib.sha256(b"abcdef").hexdigest())
    assert upload.files == {"pool/a.deb": file}
    assert (upload.directory / "pool/a.deb").read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "../a", "a/../b", "a/.b", "a b", "a\0", "a\\b", "a" * 501]
)
def test_a_bad_path_is_refused(upload: Upload, path: str) -> None:
    """What the manifest could not say, an upload may not hold."""
    status, sentence = refusal(upload, path)
    assert status == HTTPStatus.BAD_REQUEST
    assert sentence.startswith("path ")


def test_a_path_is_taken_once(upload: Upload) -> None:
    """Nothing that was received is replaced, also not while it is on its way."""
    coming = upload.begin("a", 1)
    assert refusal(upload, "a") == (409, "a is being uploaded.")
    coming.abandon()
    upload.settle("a")
    send(upload, "a")
    assert refusal(upload, "a") == (409, "a is already uploaded.")


def test_a_path_is_a_file_or_a_directory(upload: Upload) -> None:
    """One name cannot be both, whichever comes first."""
    send(upload, "a/b")
    assert refusal(upload, "a") == (409, "a is a directory.")
    assert refusal(upload, "a/b/c") == (409, "a/b is a file, not a directory.")
    coming = upload.begin("x/y", 1)
    assert refusal(upload, "x") == (409, "x is a directory.")
    coming.abandon()
    upload.settle("x/y")
    send(upload, "x")
    assert sorted(upload.files) == ["a/b", "x"]


def test_bytes_are_limited(upload: Upload) -> None:
    """What is on its way counts, and what did not arrive counts no more."""
    upload.begin("a", 600)
    status, sentence = refusal(upload, "b", 401)
    assert status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert (
        sentence
        == "An upload may have at most 1000 bytes (packages.upload_gib); with b it would have 1001 bytes."
    )
    upload.settle("a")
    upload.begin("b", 1000)


def test_files_are_limited(upload: Upload) -> None:
    """Many small files are no way around the limit of bytes."""
    for path in "abc":
        send(upload, path)
    assert refusal(upload, "d") == (413, "An upload may have at most 3 files.")


def test_another_digest_is_refused(upload: Upload) -> None:
    """Bytes that were changed on the way are noticed, and not kept."""
    incoming = upload.begin("a", 1)
    with pytest.raises(RefusedError, match=r"^a arrived with SHA-256 [0-9a-f]{64}, but its Content-Digest"):
        incoming.commit([b"x"], hashlib.sha256(b"y").digest())
    incoming.abandon()
    upload.settle("a")
    assert upload.files == {}
    assert everything(upload.directory) == []


def test_another_size_is_refused(upload: Upload) -> None:
    """A file is whole or it is not there."""
    incoming = upload.begin("a", 3)
    with pytest.raises(RefusedError, match=r"^a has 2 bytes, not 3\.$"):
        incoming.commit([b"xy"])


def test_an_abandoned_file_leaves_nothing(uploads: Uploads, upload: Upload) -> None:
    """A connection that is lost costs no disk."""
    incoming = upload.begin("a/b", 10)
    incoming.write([b"half"])
    assert len(everything(uploads.staging / "incoming")) == 1
    incoming.abandon()
    upload.settle("a/b")
    assert everything(uploads.staging / "incoming") == []
    assert everything(upload.directory) == []


def test_a_closed_upload_changes_no_more(uploads: Uploads, upload: Upload) -> None:
    """Once it is closed it can be verified: neither a new file nor one on its way gets in."""
    coming = upload.begin("a", 4)
    coming.write([b"ab"])
    uploads.close(upload)
    with pytest.raises(RefusedError) as caught:
        coming.commit([b"cd"])
    assert caught.value.status == HTTPStatus.UNAUTHORIZED
    assert caught.value.sentence == f"The upload of {KEY} is closed."
    assert refusal(upload, "b")[0] == HTTPStatus.UNAUTHORIZED
    assert upload.files == {}
    assert everything(upload.directory) == []


def test_close_and_receive_never_disagree(tmp_path: Path) -> None:
    """Whatever thread wins, the directory holds exactly the files that are recorded."""
    uploads = Uploads(tmp_path / "staging")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            upload = uploads.open(KEY)
            coming = [upload.begin(f"pool/{number}", 1) for number in range(8)]
            done = [pool.submit(incoming.commit, [b"x"]) for incoming in coming]
            uploads.close(upload)
            seen = set(upload.files)
            assert {path.name for path in upload.directory.rglob("*") if path.is_file()} == {
                path.removeprefix("pool/") for path in seen
            }
            for future in done:
                assert isinstance(future.exception(), RefusedError | None)
            assert set(upload.files) == seen
            uploads.remove(upload)


def test_nothing_is_received_once_closed(uploads: Uploads, upload: Upload, tmp_path: Path) -> None:
    """Also not a file that was whole before, and only not in its place yet."""
    whole = tmp_path / "whole"
    whole.write_text("x")
    upload.begin("a", 1)
    uploads.close(upload)
    with pytest.raises(RefusedError, match=r"is closed\.$"):
        upload.receive(whole, File("a", 1, "0" * 64))
    assert upload.files == {}
    assert everything(upload.directory) == []


def test_close_waits_for_a_file_that_is_being_received(uploads: Uploads, upload: Upload) -> None:
    """Between the place on the disk and the record of it no close can come."""
    renaming, go_on = threading.Event(), threading.Event()

    class Slow:
        def rename(self, destination: Path) -> None:
            renaming.set()
            assert go_on.wait(30)
            destination.write_text("x")

    slow: Any = Slow()
    with ThreadPoolExecutor(2) as pool:
        received = pool.submit(upload.receive, slow, File("a", 1, "0" * 64))
        assert renaming.wait(30)
        closed = pool.submit(uploads.close, upload)
        with pytest.raises(TimeoutError):
            closed.result(0.2)
        go_on.set()
        closed.result(30)
        received.result(30)
    assert list(upload.files) == everything(upload.directory) == ["a"]


def test_remove_leaves_nothing_and_may_come_twice(uploads: Uploads, upload: Upload) -> None:
    """An upload that was published has no directory any more, and is removed all the same."""
    send(upload, "a/b")
    uploads.remove(upload)
    assert not upload.directory.exists()
    assert uploads.find(upload.token) is None
    uploads.remove(upload)


def test_wipe_leaves_an_empty_staging(uploads: Uploads, upload: Upload, tmp_path: Path) -> None:
    """What a killed master left goes, links not followed, and no token stays good."""
    send(upload, "a/b")
    upload.begin("c", 5).write([b"half"])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    (uploads.staging / "link").symlink_to(outside)
    (uploads.staging / "file").write_text("")
    uploads.wipe()
    assert everything(uploads.staging) == []
    assert uploads.find(upload.token) is None
    assert (outside / "kept").exists()
    assert uploads.open(KEY).directory.is_dir()


def test_wipe_of_no_staging_is_no_error(tmp_path: Path) -> None:
    """The first start finds nothing."""
    Uploads(tmp_path / "staging").wipe()


def test_c4_the_disk_keeps_a_reserve(tmp_path: Path) -> None:
    """A file that would leave less than the reserve is refused before it is on the disk; others on their way count."""
    free = shutil.disk_usage(tmp_path).free
    uploads = Uploads(tmp_path / "staging", Limits(most_bytes=2**60, reserve=free // 2))
    first, second = (uploads.open(key) for key in (KEY, OTHER))
    began = [first.begin("a", free // 4), second.begin("b", 1000), second.begin("c", free // 2)]
    began[1].write([b"x"])
    with pytest.raises(RefusedError) as caught:
        began[2].write([b"x"])
    assert caught.value.status == 507
    assert re.fullmatch(
        r"The master's disk has \S+ [GM]iB free, of which \S+ [GM]iB are kept \(packages\.reserve_gib\); c and other"
        r" files on their way need \S+ [GM]iB\. An operator can run `make purge`, or make room otherwise\.",
        caught.value.sentence,
    )
    for one in began:
        one.abandon()
        one.upload.settle(one.path)
    second.begin("c", 1000).write([b"x"])


def test_c4_bytes_on_the_disk_are_not_reserved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that has arrived in part, only the rest is reserved; the part is missing from the free space already."""

    def usage(_: Path) -> SimpleNamespace:
        sizes = (path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        return SimpleNamespace(free=1000 - sum(sizes))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    uploads = Uploads(tmp_path / "staging", Limits(most_bytes=2**60, reserve=100))
    first, second = (uploads.open(key) for key in (KEY, OTHER))
    large = first.begin("a", 600)
    large.write([b"x" * 500])
    second.begin("b", 300).write([b"x"])
    with pytest.raises(RefusedError, match=r"c and other files on their way need 400 bytes"):
        second.begin("c", 1).write([b"x"])
    uploads.close(first)
    second.begin("d", 99).write([b"x"])


def test_c4_all_packages_together_have_a_limit(tmp_path: Path) -> None:
    """What is published counts with the upload; the sentence says what an operator can do."""
    uploads = Uploads(tmp_path / "staging", Limits(most_in_all=5000))
    uploads.published = 4000
    upload = uploads.open(KEY)
    upload.begin("a", 1000)
    with pytest.raises(RefusedError) as caught:
        upload.begin("b", 1)
    assert (caught.value.status, caught.value.sentence) == (
        413,
        (
            "All packages may have 5000 bytes (packages.total_gib); with b, those that are published or being uploaded"
            " would have 5001 bytes. An operator can run `make purge`, or raise the setting."
        ),
    )
    uploads.limits = Limits()
    uploads.open(OTHER).begin("b", 10_000)


def test_c4_simultaneous_uploads_share_the_limit_of_all_packages(tmp_path: Path) -> None:
    """A file of one upload counts in every other until its upload is removed, and so does what is published meanwhile."""
    uploads = Uploads(tmp_path / "staging", Limits(most_in_all=5000))
    first, second = (uploads.open(key) for key in (KEY, OTHER))
    send(first, "a", b"x" * 3000)
    assert refusal(second, "b", 2001)[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    uploads.close(first)
    assert refusal(second, "b", 2001)[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    uploads.remove(first)
    uploads.published = 4000
    assert refusal(second, "b", 1001)[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    second.begin("b", 1000)


def test_the_last_count_of_published_bytes_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count that began before a key was published does not replace a later one."""
    counts: list[Deferred[int]] = []

    def count(_: object) -> Deferred[int]:
        counts.append(Deferred())
        return counts[-1]

    monkeypatch.setattr(publisher_module, "deferToThread", count)
    publisher: Any = Publisher.__new__(Publisher)
    publisher._tree = PublishedTree(tmp_path / "packages", tmp_path / "staging")
    publisher._uploads = Uploads(tmp_path / "staging", Limits(most_in_all=1))
    publisher._measuring = DeferredLock()
    ended = [ensureDeferred(publisher._measure()) for _ in range(2)]
    assert len(counts) == 1
    counts[0].callback(10)
    assert [one.called for one in ended] == [True, False]
    counts[1].callback(20)
    assert publisher._uploads.published == 20
