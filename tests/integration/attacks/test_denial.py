"""Attacks by which an anonymous client of the web port could stop the master for everybody."""

from __future__ import annotations

import base64
import os
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from master.schedulers import AT_ONCE
from master.users import digest
from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = replace(
    tiny.WHOLE,
    work="seq 1 300000 | sed 's/$/ is a line as long as a line of a compiler may be, with flags and paths/'",
)
"""A log of 23 MB: more than sockets take."""
MEBIBYTE = 1024 * 1024
MALLORY = "a long random secret of mallory"


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """A git server of Mallory's that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.settimeout(60)
        yield listening


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, silent: socket.socket) -> Iterator[Installation]:
    """A running master that has built one commit with a long log."""
    with tiny_installation(
        tmp_path_factory.mktemp("denial"), users={"mallory": digest(MALLORY)},
        also_allowed=[git_url(silent)], git={"timeout": 300},
    ) as made:  # fmt: skip
        made.long_log = _long_log(made)  # type: ignore[attr-defined]
        yield made


def _long_log(made: Installation) -> int:
    answer = made.ask(DEB, sha1=made.repository.commit(LONG))
    assert made.wait(answer)["results"] == 0, made.said(answer)
    [build] = made.builds(answer)
    logs = made.get(f"steps/{made.steps(build)['packages']['stepid']}/logs")["logs"]
    return next(int(log["logid"]) for log in logs if log["name"] == "stdio")


def git_url(server: socket.socket) -> str:
    """Return the URL of a server."""
    return f"git://127.0.0.1:{server.getsockname()[1]}/"


def connected(made: Installation, *, window: int = 0) -> socket.socket:
    """Return a connection to the web port, with a receive buffer of so many bytes if any are given."""
    client = socket.socket()
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.connect(("127.0.0.1", made.settings.www.port))
    client.settimeout(60)
    return client


def get_log(made: Installation, client: socket.socket) -> None:
    """Request the long log."""
    number = made.long_log  # type: ignore[attr-defined]
    client.sendall(b"GET /api/v2/logs/%d/raw HTTP/1.1\r\nHost: x\r\n\r\n" % number)


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read_to_end(client: socket.socket) -> bytes:
    """Return all that is sent until the connection ends, a reset included."""
    received = b""
    try:
        while chunk := client.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_a1_a_log_download_that_is_broken_off_holds_nothing(here: Installation) -> None:
    """After a dozen downloads that were broken off, logs are served and a build stores its own."""
    for _ in range(12):
        with connected(here) as client:
            get_log(here, client)
            client.recv(1000)
    number = here.long_log  # type: ignore[attr-defined]
    last = requests.get(f"{here.url}api/v2/logs/{number}/contents?offset=10&limit=1", timeout=30).json()
    assert last["logchunks"][0]["firstline"] == 10
    answer = here.ask(DEB, sha1=here.repository.commit(tiny.WHOLE))
    assert here.wait(answer)["results"] == 0, here.said(answer)


def test_a3_a_client_that_does_not_read_takes_no_memory(here: Installation) -> None:
    """Four clients that ask for 23 MB each and read nothing make the master grow by less than 40 MB."""
    before = resident(here.pid)
    clients = [connected(here, window=4096) for _ in range(4)]
    for client in clients:
        get_log(here, client)
    for client in clients:
        client.recv(1000)
    answer = here.ask(
        DEB, sha1=here.repository.commit(tiny.WHOLE)
    )  # as good as a pause, and served meanwhile
    assert here.wait(answer)["results"] == 0, here.said(answer)
    grown = resident(here.pid) - before
    for client in clients:
        client.close()
    assert grown < 40 * MEBIBYTE


def test_a_log_arrives_whole(here: Installation) -> None:
    """A slow reader gets every line, also after a pause."""
    number = here.long_log  # type: ignore[attr-defined]
    with requests.get(f"{here.url}api/v2/logs/{number}/raw", stream=True, timeout=60) as answer:
        lines = sum(chunk.count(b"is a line as long as") for chunk in answer.iter_content(None))
    assert lines >= 299_000  # one that lies across two chunks is not counted
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a2_a_websocket_message_without_end_is_refused(here: Installation) -> None:
    """A message that is announced as 200 MB ends the connection, and little of it is kept."""
    before = resident(here.pid)
    with connected(here) as client:
        key = base64.b64encode(os.urandom(16))
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n\r\n" % key
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 101")
        client.sendall(b"\x81\xff" + (200 * MEBIBYTE).to_bytes(8) + b"\0\0\0\0" + b"[" * MEBIBYTE)
        answer = read_to_end(client)
    assert b"" == answer or answer[0] == 0x88, "it must end, with a close frame or without"  # noqa: SIM300
    assert resident(here.pid) - before < 20 * MEBIBYTE


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 20971520\r\nContent-Type: application/json\r\n\r\n", b"[]," * 300_000),
        (b"Content-Length: 999999999999\r\n\r\n", b"x" * MEBIBYTE),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n%b\r\n" % (b"x" * 65536) * 16),
    ],
    ids=["a4 a JSON bomb", "a5 a terabyte", "a5 a body of unknown length"],
)
def test_a_large_body_is_refused_before_it_is_read(here: Installation, headers: bytes, body: bytes) -> None:
    """A body of more than 64 KiB is answered with 413 and a sentence, for users and for anonymous clients."""
    with connected(here) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b"POST /api/v2/forceschedulers/packages HTTP/1.1\r\nHost: x\r\n" + headers + body)
        answer = read_to_end(client)
    assert answer.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n")
    assert answer.endswith(b"The body of a request may have at most 65536 bytes.\n")


def test_a_request_of_usual_size_is_read(here: Installation) -> None:
    """A body of 60 KiB reaches Buildbot, which answers what is wrong with it."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"reason": "x" * 60_000}}
    answer = requests.post(f"{here.url}api/v2/forceschedulers/packages", json=body, timeout=30)
    assert answer.status_code == 403


def test_a9_a_user_holds_only_so_many_processes_of_git(here: Installation, silent: socket.socket) -> None:
    """Of a user's twelve requests for a silent server four ask it at a time; another user is answered meanwhile."""
    url = f"{git_url(silent)}x.git"
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(here.force, MALLORY, builderNames=[DEB], ref=f"x{number}", git_url=url)
            for number in range(12)
        ]
        for _ in range(12 // AT_ONCE):
            held = [silent.accept()[0] for _ in range(AT_ONCE)]
            assert here.ask(DEB, ref="main")["package_key"]
            assert select.select([silent], [], [], 1)[0] == []
            for client in held:
                client.close()
        for answer in asked:
            assert list(answer.result().json()["error"]["message"]) == ["git_url"]
