"""apt behind a caching proxy: what was purged and built again is never mixed with what was there before."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from master.purge import Key, Purge
from tests.package_server_process import KEY, PackageServerProcess
from tests.patience import free_ports, listens
from tests.published import Publications

TARGET, SHA1 = KEY.split("/")
DEB = "pool/main/c/ceph/ceph_1_all.deb"
CACHE = """
daemon off;
{user}pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_cache_path {directory}/cache keys_zone=packages:10m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_cache packages;
            proxy_cache_revalidate on;
            proxy_cache_valid any 1h;  # of whatever says nothing itself
        }}
    }}
}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PackageServerProcess]:
    with PackageServerProcess(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, server: PackageServerProcess) -> Iterator[str]:
    """Start nginx as a cache that keeps all that it may; return its URL."""
    directory, [port] = tmp_path / "nginx", free_ports(1)
    directory.mkdir()
    user = "user root;\n" if os.geteuid() == 0 else ""
    text = CACHE.format(directory=directory, user=user, port=port, upstream=server.port)
    (directory / "nginx.conf").write_text(text)
    nginx = subprocess.Popen(
        ["nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "error.log"]
    )
    try:
        listens(nginx, ("127.0.0.1", port), (directory / "error.log").read_text)
        yield f"http://127.0.0.1:{port}/"
    finally:
        nginx.terminate()
        nginx.wait(30)


def repository(directory: Path, filling: str) -> dict[str, bytes]:
    """Return the files of a real apt repository with one package, whose size does not depend on its filling."""
    root = directory / filling
    (root / "deb/DEBIAN").mkdir(parents=True)
    (root / "deb/DEBIAN/control").write_text(
        "Package: ceph\nVersion: 1\nArchitecture: all\nMaintainer: x <x@localhost>\nDescription: x\n"
    )
    (root / "deb/filling").write_text(filling)
    (root / DEB).parent.mkdir(parents=True)
    (root / "dists/jammy/main/binary-amd64").mkdir(parents=True)
    build = ["dpkg-deb", "-Znone", "--root-owner-group", "-b", "deb", DEB]
    subprocess.run(
        build, cwd=root, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}
    )
    packages = root / "dists/jammy/main/binary-amd64/Packages"
    packages.write_bytes(
        subprocess.run(
            ["apt-ftparchive", "packages", "pool"], cwd=root, check=True, capture_output=True
        ).stdout
    )
    release = subprocess.run(
        ["apt-ftparchive", "-o", "APT::FTPArchive::Release::Codename=jammy", "-o", "APT::FTPArchive::Release::Components=main",
         "-o", "APT::FTPArchive::Release::Architectures=amd64", "release", "dists/jammy"],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip
    (root / "dists/jammy/Release").write_bytes(release.stdout)
    paths = (DEB, "dists/jammy/Release", "dists/jammy/main/binary-amd64/Packages")
    return {path: (root / path).read_bytes() for path in paths}


class Apt:
    """A machine's apt, with directories of its own and one source of packages."""

    def __init__(self, directory: Path, url: str) -> None:
        for name in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "got"):
            (directory / name).mkdir(parents=True)
        (directory / "state/status").write_text("")
        (directory / "etc/sources.list").write_text(f"deb [trusted=yes arch=amd64] {url} jammy main\n")
        (directory / "apt.conf").write_text(
            f'Dir::State "{directory}/state";\nDir::State::status "{directory}/state/status";\nDir::Cache "{directory}/cache";\n'
            f'Dir::Etc "{directory}/etc";\nAPT::Sandbox::User "root";\nAcquire::http::Proxy "false";\n'
            'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\n'
        )
        self._directory = directory

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run apt-get; return its status and all that it says."""
        ran = subprocess.run(
            ["apt-get", *arguments], cwd=self._directory / "got", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "APT_CONFIG": str(self._directory / "apt.conf"), "LC_ALL": "C"},
        )  # fmt: skip
        return ran.returncode, ran.stdout

    def download(self) -> str:
        """Update, download the package, and return its SHA-256."""
        for arguments in (("update",), ("download", "ceph")):
            status, said = self.run(*arguments)
            assert status == 0, said
        [deb] = (self._directory / "got").iterdir()
        return hashlib.sha256(deb.read_bytes()).hexdigest()


def test_a_purged_and_rebuilt_commit_installs(
    tmp_path: Path, server: PackageServerProcess, proxy: str
) -> None:
    """Other bytes by the same names, of the same size, come through a cache to machines that knew the old ones and to new ones."""
    publications, url = Publications(tmp_path), f"{proxy}{TARGET}/sha1/{SHA1}/"
    old, new = repository(tmp_path / "made", "old"), repository(tmp_path / "made", "new")
    assert {path: len(content) for path, content in old.items()} == {
        path: len(content) for path, content in new.items()
    }
    assert requests.get(f"{url}version", timeout=30).status_code == 404
    publications.publish(KEY, "1", contents=old)
    known = Apt(tmp_path / "known", url)
    assert known.download() == hashlib.sha256(old[DEB]).hexdigest()
    assert Purge(server.tree, server.staging).purge(Key.from_string(KEY)) is not None
    assert [requests.get(url + path, timeout=30).status_code for path in (*old, "version", "")] == [404] * 5
    assert known.run("update")[0] != 0
    publications.publish(KEY, "1", contents=new)
    (tmp_path / "known/got/ceph_1_all.deb").unlink()
    digest = hashlib.sha256(new[DEB]).hexdigest()
    assert [known.download(), Apt(tmp_path / "fresh", url).download()] == [digest, digest]
