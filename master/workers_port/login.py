"""Limits of the workers' port: for connections before they log in, and for what a worker may leave unfinished after it.

The port faces every build machine, and a build knows its address. Buildbot and Twisted have no limit there: 200 MB that nobody
had logged in for were kept for as long as the connection lasted.
"""

# mypy: allow-subclassing-any, allow-untyped-calls
# Buildbot and Twisted's perspective broker are annotated in part only.

from __future__ import annotations

import secrets
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from buildbot.util.twisted import async_to_deferred
from buildbot.worker.protocols.manager.pb import Dispatcher
from twisted.internet.protocol import connectionDone
from twisted.python import log
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BEFORE_LOGIN = 64 * 1024
"""Bytes that a connection may send before it has logged in. A worker's login has some hundred bytes."""

SECONDS_TO_LOGIN = 30.0
"""Seconds that a connection may take to log in, its TLS handshake included."""

MOST_WAITING = 64
"""Connections of one address that have not logged in. For one more, another of them is dropped at random.

A build may share its address with the workers of other builds. If the newest were refused, 64 silent connections would keep these
workers out. If the oldest were dropped, a flood would drop every worker that is slower than the flood. At random, each
attempt has a chance, and workers connect again.
"""

MOST_WAITING_IN_ALL = 1024
"""Connections of all addresses that have not logged in. For one more, the address that has most of them loses one."""

SECONDS_TO_ATTACH = 300.0
"""Seconds that attaching a worker may take after its login; many may attach at once."""

MOST_NESTED = 1000
"""Lists within lists of one message. Each costs some hundred bytes of memory for the two that it takes to send."""

_MOST_SHOWN = 100
"""Characters of a client's own text in a line of the log."""

MOST_UNFINISHED = 2 * 1024 * 1024
"""Bytes that a worker may send without completing a message. It sends its output in pieces of 64 KiB."""


_NONSENSE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error,
    banana.BananaError, jelly.InsecureJelly, pb.Error, pb.ProtocolError,
)  # fmt: skip
"""Exceptions of Twisted at what a client sends that is no worker. Before the login, none of them is a mistake of ours."""


class LimitedBroker(pb.Broker):
    """A connection to the workers' port."""

    factory: Any
    transport: Any
    _logged_in = False
    _timer: Any = None
    _host = ""
    _received = 0
    _unfinished = 0

    def connectionMade(self) -> None:
        """Start the time limit for the login."""
        super().connectionMade()
        self._host = getattr(self.transport.getPeer(), "host", "")
        self._timer = _reactor().callLater(
            SECONDS_TO_LOGIN, self.drop, f"it did not log in within {SECONDS_TO_LOGIN:.0f} s"
        )
        self.factory.make_room(self._host)
        self.factory.waiting[self._host].add(self)

    def logged_in(self) -> None:
        """Lift the limits of the time before the login; attaching has a limit of its own."""
        self._logged_in = True
        self._stop_waiting()
        self._timer = _reactor().callLater(
            SECONDS_TO_ATTACH, self.drop, f"it was not attached within {SECONDS_TO_ATTACH:.0f} s"
        )

    def attached(self) -> None:
        """Let an attached worker be silent for as long as it likes."""
        self._stop_waiting()

    def refused(self) -> None:
        """Drop a worker that was not attached, once it has read why: Buildbot leaves its connection open."""
        self._stop_waiting()
        self._timer = _reactor().callLater(1, self.drop, "it was not attached")

    def dataReceived(self, chunk: bytes) -> None:
        """Read what the client sends, and drop the client when that exceeds a limit."""
        self._received += len(chunk)
        if not self._logged_in and self._received > MOST_BEFORE_LOGIN:
            self.drop(f"it sent more than {MOST_BEFORE_LOGIN >> 10} KiB before it logged in")
            return
        self._unfinished += len(chunk)
        try:
            super().dataReceived(chunk)
        except _NONSENSE as error:
            if self._logged_in:
                raise
            self.drop(f"it sent no message of a worker: {_shown(error)}")
            return
        if self._unfinished > MOST_UNFINISHED:
            self.drop(f"it sent {MOST_UNFINISHED >> 20} MiB without completing a message")
        elif len(self.listStack) > MOST_NESTED:
            self.drop(f"it sent a message with more than {MOST_NESTED} lists within lists")

    def callExpressionReceived(self, obj: Any) -> None:
        """Reset the count of unfinished bytes, since a message is complete."""
        self._unfinished = 0
        super().callExpressionReceived(obj)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self.buffer = b""
        self.listStack = []
        super().connectionLost(reason)

    def _recvMessage(self, findObjMethod: Any, *message: Any) -> None:
        """Answer a call. Twisted logs a traceback for each wrong argument, and before the login anybody can send some."""
        if self._logged_in:
            super()._recvMessage(findObjMethod, *message)
            return
        super()._recvMessage(lambda name: _BeforeLogin(findObjMethod, name, self._host), *message)

    def _sendFailure(self, failure: Failure, request: Any) -> None:
        """Send an error. Twisted logs a traceback for each wrong password."""
        if self._logged_in:
            super()._sendFailure(failure, request)
            return
        log.msg(f"workers' port: refused a login from {self._host}: {type(failure.value).__name__}")
        self._sendError(failure, request)

    def drop(self, reason: str) -> None:
        """Log why, and end the connection."""
        log.msg(f"workers' port: dropped a connection from {self._host}: {reason}")
        self._stop_waiting()
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        waiting = self.factory.waiting[self._host]
        waiting.discard(self)
        if not waiting:
            del self.factory.waiting[self._host]


class _BeforeLogin:
    """An object that a client calls before its login. A call that fails is answered with an error, and logged on one line."""

    def __init__(self, find: Callable[[Any], Any], name: Any, host: str) -> None:
        self._find = find
        self._name = name
        self._host = host

    def remoteMessageReceived(self, *call: Any) -> Any:
        """Pass on a call."""
        try:
            return self._find(self._name).remoteMessageReceived(*call)
        except _NONSENSE as error:
            reason = f"{type(error).__name__}: {_shown(error)}"
            log.msg(f"workers' port: refused a call before the login of {self._host}: {reason}")
            raise pb.Error(type(error).__name__) from None


class LimitedFactory(pb.PBServerFactory):
    """Makes the connections. A failure is sent to the client without its traceback, which has paths in it."""

    protocol = LimitedBroker

    def __init__(self, root: Any) -> None:
        """Serve `root`, which is a portal for Buildbot."""
        super().__init__(root, unsafeTracebacks=False)
        self.waiting: defaultdict[str, set[LimitedBroker]] = defaultdict(set)
        """By address: the connections that have not logged in."""

    def make_room(self, host: str) -> None:
        """Drop a waiting connection if one more of this address would be too many."""
        if len(self.waiting.get(host, ())) >= MOST_WAITING:
            self._drop_one(host)
        elif sum(map(len, self.waiting.values())) >= MOST_WAITING_IN_ALL:
            self._drop_one(max(self.waiting, key=lambda address: len(self.waiting[address])))

    def _drop_one(self, host: str) -> None:
        waiting = self.waiting[host]
        chosen = secrets.choice(tuple(waiting))
        chosen.drop(f"it is one of {len(waiting)} of its address that have not logged in")


class LimitedDispatcher(Dispatcher):
    """Listens on the workers' port, and checks logins."""

    def __init__(self, config_portstr: str, portstr: str) -> None:
        """Listen with a factory of ours; Buildbot's own sends tracebacks."""
        super().__init__(config_portstr, portstr)
        self.serverFactory = LimitedFactory(self.portal)

    @async_to_deferred
    async def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        """Attach a worker. Its password has been checked by now, and attaching takes several messages."""
        broker = mind.broker
        broker.logged_in()
        is_attached = False
        try:
            avatar = await super().requestAvatar(avatarId, mind, *interfaces)
            is_attached = True
        finally:
            if is_attached:
                broker.attached()
            else:
                broker.refused()
        return avatar


def _shown(error: Exception) -> str:
    """Return an exception's text, which may be a client's, for a line of the log."""
    return ascii(str(error))[:_MOST_SHOWN]


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor
