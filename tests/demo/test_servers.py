"""The demonstration's servers: the real git daemon and Python's http.server, and ports that are another's."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from demo import servers
from demo.servers import PortTaken, serve_downloads, serve_repositories
from tests.git_repositories import commit, git_daemon, new_repository
from tests.patience import free_ports, until


def test_downloads_are_served_until_stopped(tmp_path: Path) -> None:
    """The URL gives the files of the directory `downloads`; a second call starts no second server."""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/archive.tar").write_bytes(b"bytes")
    [port] = free_ports(1)
    url = serve_downloads(tmp_path, port)
    assert url == f"http://127.0.0.1:{port}"
    pid = (tmp_path / "http-server.pid").read_text()
    assert serve_downloads(tmp_path, port) == url
    assert (tmp_path / "http-server.pid").read_text() == pid
    with urllib.request.urlopen(f"{url}/archive.tar", timeout=30) as answer:
        assert answer.read() == b"bytes"
    servers.stop(tmp_path)
    until(
        lambda: not Path("/proc", pid.strip()).exists() or _is_zombie(pid.strip()), "the server has ended", 30
    )


def test_repositories_are_served(tmp_path: Path) -> None:
    """A client finds the repository's commit over git://."""
    sha1 = commit(new_repository(tmp_path / "ceph.git"), "first")
    [port] = free_ports(1)
    serve_repositories(tmp_path, port)
    try:
        listed = subprocess.run(
            ["git", "ls-remote", f"git://127.0.0.1:{port}/ceph.git", "HEAD"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    finally:
        servers.stop(tmp_path)
    assert listed == f"{sha1}\tHEAD\n"


def test_another_git_daemon_on_the_port_is_noticed(tmp_path: Path) -> None:
    """Where another program serves git already, the sentence says so and how to find it; nothing is started."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    with git_daemon(tmp_path / "theirs") as base:
        port = int(base.rstrip("/").rpartition(":")[2])
        with pytest.raises(PortTaken) as raised:
            serve_repositories(tmp_path / "ours", port)
    assert str(raised.value) == (
        f"another program uses port {port} of 127.0.0.1, which the demonstration's git-daemon needs (Address already in use)."
        f" `ss -ltnp 'sport = :{port}'` shows which: stop it, then run this again"
    )
    assert list((tmp_path / "ours").iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_another_listener_on_the_downloads_port_is_noticed(tmp_path: Path, host: str) -> None:
    """Whatever listens there, on this address or on all, is not taken for ours."""
    with socket.socket() as other:
        [port] = free_ports(1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, port))
        other.listen()
        with pytest.raises(
            PortTaken, match=rf"^another program uses port {port} of 127\.0\.0\.1, which .* http-server"
        ):
            serve_downloads(tmp_path, port)


def _is_zombie(pid: str) -> bool:
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
