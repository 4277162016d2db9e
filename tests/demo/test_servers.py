"""The demonstration's servers: the real git daemon, and ports that are another's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from demo import servers
from demo.servers import PortTaken, serve_repositories
from tests.git_repositories import commit, git_daemon, new_repository
from tests.patience import free_ports


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
