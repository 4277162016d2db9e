"""Attacks on the workers' port by a client that never logs in."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from twisted.spread import banana

from master.workers_port.login import MOST_WAITING, SECONDS_TO_LOGIN
from tests.integration import tiny
from tests.integration.attacks.test_denial import MEBIBYTE, read_to_end, resident
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST, STRING = b"\x80", b"\x82"


def announced(number: int) -> bytes:
    """Return a length as Banana writes it."""
    written: list[bytes] = []
    banana.int2b128(number, written.append)
    return b"".join(written)


STRINGS = announced(600_000) + LIST + (announced(600_000) + STRING + b"x" * 600_000) * 60
"""36 MB of a list that is never complete."""
NESTED = announced(1) + LIST + (announced(600_000) + LIST) * 600_000
"""2.4 MB of lists in lists, which take a multiple of that in memory."""
PIECE = announced(600_000) + STRING + b"x" * 100_000
"""More than may be sent before a login, and less than a worker may leave unfinished."""
FEW_NESTED = (announced(1) + LIST) * 20_000
"""40 KB of lists in lists: less than may be sent before a login."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master."""
    with tiny_installation(tmp_path_factory.mktemp("port")) as made:
        yield made


def connected(here: Installation) -> socket.socket:
    """Return a connection to the workers' port."""
    client = socket.create_connection(("127.0.0.1", here.settings.workers.port))
    client.settimeout(90)
    return client


@pytest.mark.parametrize(
    "text",
    [STRINGS, NESTED, PIECE, FEW_NESTED],
    ids=["strings", "nested lists", "a piece of a string", "few nested lists"],
)
def test_a6_little_is_read_before_the_login(here: Installation, text: bytes) -> None:
    """Whoever sends more than 64 KiB, or many lists within lists, without a login is dropped, and little of it is kept."""
    before = resident(here.pid)
    with connected(here) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(text)
        client.settimeout(SECONDS_TO_LOGIN * 2 / 3)  # Sooner than the time limit would end it.
        read_to_end(client)
    assert resident(here.pid) - before < 15 * MEBIBYTE


def test_a6_who_says_nothing_is_dropped_and_keeps_no_worker_out(here: Installation) -> None:
    """Of 200 silent connections 136 go at once, a build's worker still gets in, and all end by the time limit."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(here)) for _ in range(200)]
        closed = select.poll()
        for client in clients:
            closed.register(client, select.POLLRDHUP)
        here.until(
            lambda: len(closed.poll(0)) == len(clients) - MOST_WAITING,
            "no more connections of one address wait than may",
            seconds=SECONDS_TO_LOGIN / 2,
        )
        answer = here.ask(DEB, sha1=here.repository.commit(tiny.WHOLE))
        assert here.wait(answer)["results"] == 0, here.said(answer)
        readers = [threading.Thread(target=read_to_end, args=[client], daemon=True) for client in clients]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(90)
            assert not reader.is_alive()
