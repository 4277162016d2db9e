"""A checkout, beside a full clone: bytes and seconds, on a repository with history."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.report import Report, Row, at_most, spread
from demo import ceph_shaped, servers
from steps import commands
from tests.integration.harness import CHECKOUT
from tests.patience import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNS = 5
BAR = 0.2

_METHOD = """\
A generated repository of 6,000 commits with merges, HEAD 1,500 commits after its tag, and a submodule, packed as a server packs it.
`steps/scripts/checkout.sh` of HEAD, and `git clone --recurse-submodules` of it, by turns, from a
git daemon on loopback through a proxy that counts the bytes to the client. Both then ask `git describe` for the version, which must be the
same and right."""

_MEANING = """\
A checkout leaves out the trees and files of all commits but the one that is built; it keeps all
commits, since `git describe` counts them. On loopback bytes cost nothing, so the seconds differ less than the bytes; from GitHub to a
machine elsewhere they would not."""


class Clone(NamedTuple):
    """One way to get at the sources."""

    bytes: int
    seconds: float
    version: str


class CountingProxy:
    """Passes connections on to a port, and counts the bytes that come back."""

    def __init__(self, port: int) -> None:
        """Listen, on a port of its own."""
        self._upstream = port
        self._lock = threading.Lock()
        self._bytes = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> int:
        """Give the bytes since this was last called."""
        with self._lock:
            count, self._bytes = self._bytes, 0
        return count

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            for source, sink, counts in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(source, sink, counts), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(1 << 18):
                if counts:
                    with self._lock:
                        self._bytes += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[Clone] = []
    full: list[Clone] = []
    source = directory / "input"
    made = ceph_shaped.generate_with_history(source)
    with _served(source) as proxy:
        url = f"git://127.0.0.1:{proxy.port}/ceph.git"
        for _ in range(runs):
            ours.append(_ours(directory / "ours", proxy, url, made.head_sha1))
            full.append(_full(directory / "full", proxy, url, made.head_sha1))
    return report(ours, full)


def report(ours: list[Clone], full: list[Clone]) -> Report:
    """Give the report of both; RuntimeError if one has another version than the other."""
    versions = {one.version for one in [*ours, *full]}
    version = min(versions)
    if len(versions) != 1:
        raise RuntimeError(f"the versions differ: {', '.join(sorted(versions))}")
    mine, theirs = (median(one.bytes for one in side) for side in (ours, full))
    took, took_full = ([one.seconds for one in side] for side in (ours, full))
    return Report(
        "Checkout",
        _METHOD,
        _MEANING,
        [
            Row("bytes received", f"{mine / 1e6:.2f} MB", f"{theirs / 1e6:.2f} MB", f"{mine / theirs:.3f}",
                *at_most(BAR, mine / theirs, f"{BAR:.1f}")),
            Row("seconds", spread(took), spread(took_full), f"{median(took) / median(took_full):.2f}"),
            Row("version", version, version, "", "the same", met=True),
        ],
    )  # fmt: skip


@contextmanager
def _served(source: Path) -> Iterator[CountingProxy]:
    [port] = free_ports(1)
    servers.serve_repositories(source, port)
    proxy = CountingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
        servers.stop(source)


def _ours(directory: Path, proxy: CountingProxy, url: str, sha1: str) -> Clone:
    directory.mkdir()
    (directory / "scripts").symlink_to(CHECKOUT / "steps/scripts")
    return _measure(directory, proxy, [commands.checkout(url, sha1, url, "v*")])


def _full(directory: Path, proxy: CountingProxy, url: str, sha1: str) -> Clone:
    directory.mkdir()
    return _measure(
        directory, proxy,
        [
            ["git", "clone", "--quiet", "--recurse-submodules", url, "src"],
            ["git", "-C", "src", "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", sha1],
        ],
    )  # fmt: skip


def _measure(directory: Path, proxy: CountingProxy, lines: list[list[str]]) -> Clone:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
    }  # fmt: skip
    proxy.take()
    began = time.monotonic()
    for line in lines:
        subprocess.run(
            line, cwd=directory, env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True
        )
    took = time.monotonic() - began
    describe = ["git", "-C", "src", "describe", "--abbrev=8", "--match", "v*", "HEAD"]
    version = subprocess.run(
        describe, cwd=directory, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()
    count = proxy.take()
    shutil.rmtree(directory)
    return Clone(count, took, version)
