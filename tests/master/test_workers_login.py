"""Limits of the workers' port, on connections in memory."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.python import log
from twisted.spread import banana

from master import buildbot_patches
from master.workers_port import login as workers_login
from master.workers_port.login import (
    MOST_BEFORE_LOGIN,
    MOST_NESTED,
    MOST_UNFINISHED,
    MOST_WAITING,
    LimitedBroker,
    LimitedFactory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 65536


class _Transport(StringTransport):
    """Notes that the connection was dropped."""

    dropped = False

    def abortConnection(self) -> None:
        """Take note."""
        self.dropped = True


@pytest.fixture
def factory() -> LimitedFactory:
    """The factory of a portal that nobody passes."""
    return LimitedFactory(Portal(None))  # type: ignore[arg-type]


def connected(factory: LimitedFactory, host: str = "192.0.2.1") -> tuple[LimitedBroker, _Transport]:
    """Return a connection that has chosen its dialect, as any client does first."""
    broker: Any = factory.buildProtocol(None)
    transport = _Transport(peerAddress=IPv4Address("TCP", host, 1))
    broker.makeConnection(transport)
    broker.dataReceived(banana.encode(b"none"))
    return broker, transport


def end(broker: LimitedBroker) -> None:
    """End a connection, and with it its timer."""
    broker.connectionLost()


def test_lists_within_lists_have_an_end(factory: LimitedFactory) -> None:
    """A worker that has logged in cannot use up the memory with lists that it never ends."""
    broker, transport = connected(factory)
    broker.logged_in()
    broker.dataReceived(b"\x01\x80" * (MOST_NESTED - 1))
    assert not transport.dropped
    broker.dataReceived(b"\x01\x80" * 2)
    assert transport.dropped
    end(broker)


def test_a_worker_that_is_refused_is_dropped(factory: LimitedFactory) -> None:
    """Buildbot leaves the connection of a second worker of the same name open; it gets a second to read why."""
    broker, transport = connected(factory)
    broker.logged_in()
    broker.refused()
    assert broker._timer.getTime() - workers_login._reactor().seconds() < 2
    broker._timer.reset(0)
    broker._timer.func(*broker._timer.args)
    assert transport.dropped
    end(broker)


def test_an_attached_worker_may_be_silent(factory: LimitedFactory) -> None:
    """No timer is left of a worker that is attached."""
    broker, transport = connected(factory)
    broker.logged_in()
    broker.attached()
    assert not broker._timer.active()
    assert not transport.dropped
    end(broker)


def test_no_traceback_is_sent(factory: LimitedFactory) -> None:
    """Failures reach the client without paths of the master."""
    assert factory.unsafeTracebacks is False


NONSENSE = (
    b"\xff",
    b"\x01\xe0",
    banana.encode(b"text"),
    banana.encode([]),
    banana.encode([1]),
    banana.encode([b"answer", 1, 2, 3]),
    banana.encode([b"decref", [b"x"]]),
)
LOGIN = [b"message", 1, b"root", b"login", 1, [b"tuple", b"eve"], [b"dictionary"]]
WRONG_CALLS = (
    [b"message", 1, [b"root"], b"login", 1, [b"tuple", b"eve"], [b"dictionary"]],
    [b"message", 1, b"root", b"login", 1, [b"message"], [b"dictionary"]],
    [b"message", 1, b"root", b"login", 1, [b"tuple"], [b"None"]],
    [b"message", 1, b"root", b"login", 1, [b"tuple"], [b"dictionary"]],
    [b"message", 1, b"root", b"x", 1, [b"tuple"], [b"dictionary"]],
    [b"message", 1, b"nothing", b"login", 1, [b"tuple", b"eve"], [b"dictionary"]],
)


@pytest.fixture
def logged() -> Iterator[list[tuple[str, bool]]]:
    """What Twisted logs from now on: texts, and whether each is an error."""
    events: list[tuple[str, bool]] = []

    def observe(event: dict[str, Any]) -> None:
        events.append((log.textFromEventDict(event) or "", bool(event["isError"])))

    log.addObserver(observe)
    yield events
    log.removeObserver(observe)


@pytest.mark.parametrize("data", NONSENSE)
def test_nonsense_before_the_login_is_one_line(
    factory: LimitedFactory, logged: list[tuple[str, bool]], data: bytes
) -> None:
    """Bytes that are no message end the connection; the log gets one line and no traceback, which anybody could fill it with."""
    broker, transport = connected(factory)
    broker.dataReceived(data)
    assert transport.dropped
    [text] = [text for text, _ in logged if "dropped" in text]
    assert "it sent no message of a worker: " in text
    assert not any(is_error for _, is_error in logged)
    assert len(text.splitlines()) == 1
    end(broker)


def test_what_a_worker_sends_after_its_login_is_logged_whole(factory: LimitedFactory) -> None:
    """After the login, an exception is Twisted's to log: it may be a mistake of Buildbot's or ours."""
    broker, _ = connected(factory)
    broker.logged_in()
    with pytest.raises(NotImplementedError):
        broker.dataReceived(b"\x01\xe0")
    end(broker)


def test_the_end_of_a_reference_to_nothing_is_silent(
    factory: LimitedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference that a wrong message names, and that is never initialized, is destroyed without an exception."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    buildbot_patches.apply()
    broker, transport = connected(factory)
    transport.clear()
    broker.dataReceived(banana.encode([b"message", 1, b"root", b"login", 1, [b"remote"], [b"dictionary"]]))
    assert b"error" in transport.value()
    end(broker)
    gc.collect()
    assert unraisable == []


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_a_wrong_call_before_the_login_is_answered(
    factory: LimitedFactory, logged: list[tuple[str, bool]], call: list[Any]
) -> None:
    """A call that the login does not have is answered with an error, without a traceback in the log; the login still works."""
    broker, transport = connected(factory)
    transport.clear()
    broker.dataReceived(banana.encode(call))
    assert b"error" in transport.value()
    assert "workers' port: refused a call before the login of 192.0.2.1: " in logged[-1][0]
    assert not any(is_error for _, is_error in logged)
    transport.clear()
    broker.dataReceived(banana.encode(LOGIN))
    assert b"answer" in transport.value()
    end(broker)


def test_a_wrong_password_is_one_line(factory: LimitedFactory, logged: list[tuple[str, bool]]) -> None:
    """A login with a wrong password is answered with an error, and logged without a traceback."""
    factory.root.portal.realm = SimpleNamespace(requestAvatar=None)
    factory.root.portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(eve=b"secret"))
    broker, transport = connected(factory)
    broker.dataReceived(banana.encode(LOGIN))
    transport.clear()
    call = [b"message", 2, 1, b"respond", 1, [b"tuple", b"wrong", [b"remote", 1]], [b"dictionary"]]
    broker.dataReceived(banana.encode(call))
    assert b"UnauthorizedLogin" in transport.value()
    assert [text for text, _ in logged] == [
        "workers' port: refused a login from 192.0.2.1: UnauthorizedLogin"
    ]
    assert not any(is_error for _, is_error in logged)
    end(broker)


def test_a_worker_may_send_any_number_of_messages(factory: LimitedFactory) -> None:
    """100 MB in complete messages pass, though no piece ends where a message does."""
    broker, transport = connected(factory)
    broker.logged_in()
    received = 0

    def count(expression: Any) -> None:
        nonlocal received
        received += len(expression[1])

    broker.expressionReceived = count  # type: ignore[method-assign]
    stream = banana.encode([b"log", b"x" * 60_000]) * 17
    for _ in range(100):
        for start in range(0, len(stream), PIECE):
            broker.dataReceived(stream[start : start + PIECE])
    end(broker)
    assert received == 100 * 17 * 60_000
    assert not transport.dropped


def test_a6_a_worker_may_not_leave_a_long_message_unfinished(factory: LimitedFactory) -> None:
    """A logged-in worker is dropped when the message that it does not complete is too long."""
    broker, transport = connected(factory)
    broker.logged_in()
    broker.dataReceived(b"\x00\x40\x80")
    piece = banana.encode(b"x" * PIECE)
    sent = 0
    while not transport.dropped:
        assert sent <= MOST_UNFINISHED
        broker.dataReceived(piece)
        sent += len(piece)
    end(broker)
    assert broker.listStack == []


def test_a6_before_the_login_less_is_read(factory: LimitedFactory) -> None:
    """The limit before the login counts all messages together, complete ones too."""
    broker, transport = connected(factory)
    broker.expressionReceived = lambda _: None  # type: ignore[method-assign]
    for _ in range(MOST_BEFORE_LOGIN // 1024 + 1):
        broker.dataReceived(banana.encode(b"x" * 1024))
    end(broker)
    assert transport.dropped


def test_an_ended_connection_is_forgotten(factory: LimitedFactory) -> None:
    """Nothing is kept for an address without connections that wait for a login."""
    broker, _ = connected(factory)
    assert factory.waiting
    end(broker)
    assert not factory.waiting


def test_a6_a_flood_does_not_drop_every_worker_of_its_address(factory: LimitedFactory) -> None:
    """A worker that is slower than a flood has a chance at each attempt, of (63/64)^64; the newest connection is never refused."""
    survived = 0
    for _ in range(40):
        worker, of_worker = connected(factory)
        flood = []
        for _ in range(2 * MOST_WAITING - 1):
            flood.append(connected(factory))
            assert not flood[-1][1].dropped
        assert sum(len(waiting) for waiting in factory.waiting.values()) == MOST_WAITING
        survived += not of_worker.dropped
        for broker in (worker, *(broker for broker, _ in flood)):
            end(broker)
    assert 0 < survived < 40


def test_a6_the_address_with_most_waiting_connections_pays(
    factory: LimitedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit of all addresses together, an address with few keeps its connections."""
    monkeypatch.setattr(workers_login, "MOST_WAITING_IN_ALL", 10)
    workers = [connected(factory, f"192.0.2.{number}") for number in range(2, 6)]
    flood = [connected(factory) for _ in range(20)]
    workers += [connected(factory, f"192.0.2.{number}") for number in range(6, 8)]
    assert not any(transport.dropped for _, transport in workers)
    assert sum(not transport.dropped for _, transport in flood) == 4
    for broker, _ in (*workers, *flood):
        end(broker)
    assert not factory.waiting
