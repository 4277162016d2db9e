"""How the real files are fetched: a real server on loopback, and a tarball with none of Ceph's text."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.patience import free_ports
from tests.real_ceph.upstream_files import FILES, Release, UpstreamError, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Archive:
    """A served archive, the release in it, and the paths that were requested."""

    def __init__(self, directory: Path) -> None:
        tree = directory / "ceph-1.2.3+ds"
        for name in (*FILES, "src/osd/OSD.cc"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(f"{name}\n")
        self.pool = directory / "served/pool/main/c/ceph"
        self.pool.mkdir(parents=True)
        self.tarball = self.pool / "ceph_1.2.3+ds.orig.tar.xz"
        subprocess.run(["tar", "-cJf", self.tarball, "-C", directory, tree.name], check=True)
        data = self.tarball.read_bytes()
        self.release = Release("small", "1.2.3", len(data), hashlib.sha256(data).hexdigest(), "none")
        self.requested: list[str] = []
        archive = self

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, code: object = "-", size: object = "-") -> None:
                archive.requested.append(self.path)

            def log_error(self, *_: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(directory / "served"))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Serve a small archive."""
    made = Archive(tmp_path)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def quiet(line: str) -> None:
    """Print nothing."""


def test_only_the_files_that_the_tests_use_are_kept(archive: Archive, tmp_path: Path) -> None:
    """A fetched release is a directory of these files with the tarball's name and digest, and the tarball is gone."""
    cache = tmp_path / "cache"
    made = fetch(archive.release, cache, archive.url, quiet)
    kept = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert kept == {*FILES, "source"}
    assert (made / "make-dist").read_text() == "make-dist\n"
    assert (made / "source").read_text() == f"{archive.tarball.name} {archive.release.sha256}\n"
    assert sorted(path.name for path in cache.iterdir()) == ["small", "small.lock"]


def test_a_kept_release_is_not_fetched_again(archive: Archive, tmp_path: Path) -> None:
    """The second call asks the archive for nothing."""
    for _ in range(2):
        fetch(archive.release, tmp_path / "cache", archive.url, quiet)
    assert archive.requested == ["/pool/main/c/ceph/ceph_1.2.3+ds.orig.tar.xz"]


def test_another_tarball_by_the_same_name_is_refused(archive: Archive, tmp_path: Path) -> None:
    """The size and SHA-256 typed here decide, and the message has both pairs."""
    expected = dataclasses.replace(archive.release, sha256="0" * 64)
    with pytest.raises(UpstreamError) as raised:
        fetch(expected, tmp_path / "cache", archive.url, quiet)
    size, sha256 = archive.release.size, archive.release.sha256
    assert str(raised.value) == (
        f"{archive.url}/pool/main/c/ceph/ceph_1.2.3+ds.orig.tar.xz has {size} bytes and SHA-256 {sha256}, "
        f"expected {size} and {'0' * 64}"
    )


def test_a_tarball_without_a_file_is_refused(archive: Archive, tmp_path: Path) -> None:
    """A release that has moved a file names it."""
    tree = tmp_path / "ceph-1.2.3+ds"
    (tree / "make-dist").unlink()
    subprocess.run(["tar", "-cJf", archive.tarball, "-C", tmp_path, tree.name], check=True)
    data = archive.tarball.read_bytes()
    moved = dataclasses.replace(archive.release, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(UpstreamError, match=r"ceph_1\.2\.3\+ds\.orig\.tar\.xz holds no make-dist: "):
        fetch(moved, tmp_path / "cache", archive.url, quiet)


def test_a_tarball_that_is_no_longer_served_says_what_was_looked_for(
    archive: Archive, tmp_path: Path
) -> None:
    """Without the tarball and without a signed index, the message has the file, its digest, the archive and the suite."""
    archive.tarball.unlink()
    with pytest.raises(UpstreamError) as raised:
        fetch(archive.release, tmp_path / "cache", archive.url, quiet)
    assert str(raised.value).startswith(
        f"Looked for ceph_1.2.3+ds.orig.tar.xz (SHA-256 {archive.release.sha256}) at {archive.url}, "
        "then ceph 1.2 in none: "
    )
    assert not (tmp_path / "cache/small").exists()


def test_an_archive_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    """The message has the whole address."""
    [port] = free_ports(1)
    release = Release("small", "1.2.3", 1, "0" * 64, "none")
    address = rf"http://127\.0\.0\.1:{port}/pool/main/c/ceph/ceph_1\.2\.3\+ds\.orig\.tar\.xz"
    with pytest.raises(UpstreamError, match=rf"^{address} cannot be downloaded: .*Connection refused"):
        fetch(release, tmp_path / "cache", f"http://127.0.0.1:{port}", quiet)
