"""Replacements for parts of Buildbot 4.3: of its web server, where one client could stop or exhaust the master, and of reloads.

docs/adr/0006-what-we-change-in-buildbot.md says why each is here and when it can go. The tests check that Buildbot still
has every name that is replaced.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from autobahn.websocket.types import ConnectionDeny
from buildbot.data import masters, properties
from buildbot.data.base import EndpointKind
from buildbot.data.exceptions import InvalidQueryParameter
from buildbot.data.resultspec import ResultSpec
from buildbot.db import logs
from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from buildbot.worker.protocols.manager.pb import PBManager
from buildbot.www import config as wwwconfig
from buildbot.www import service, ws
from buildbot.www.rest import V2RootResource
from twisted.internet import threads
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.spread import pb
from twisted.web import pages, server
from zope.interface import implementer

from master.workers_port.login import LimitedDispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

MOST_BODY = 64 * 1024
"""Bytes of a request's body. The largest legitimate one, a request for packages, has some hundred bytes."""

MOST_MESSAGE = 64 * 1024
"""Bytes of a message that a browser sends over a websocket; it only subscribes to events."""

PATIENCE = 60.0
"""Seconds that a client may take to read what was written to it before more is written; then it is dropped."""

MOST_NUMBER = 2**31
"""Limits, offsets and ids in queries are smaller: some databases raise on larger ones."""

_PRIVATE = ("port", "logfileName", "allowed_origins")
"""Names of the web server's configuration that the UI does not get."""

_WITHOUT_FIELDS = {b"limit", b"offset", b"property"}
"""Arguments of a query that say nothing about a field."""

_NOT_FOR_BOOLEANS = ("lt", "le", "gt", "ge", "contains")
"""Operators of filters that a database does not take for true and false."""

_apply_spec = ResultSpec.apply
_decode_result_spec = V2RootResource.decodeResultSpec
_db2data = masters._db2data  # noqa: SLF001
_frontend_config = wwwconfig.get_www_frontend_config_dict
_properties = properties.PropertiesListEndpoint.get
_on_connect = ws.WsProtocol.onConnect
_from_pool = logs._async_iter_on_pool  # noqa: SLF001
_reconfigure = BuildbotService.reconfigServiceWithSibling


def apply() -> None:
    """Put the replacements in place. Applying them again changes nothing."""
    V2RootResource._write_json_data = staticmethod(write_json_data)  # type: ignore[method-assign]  # noqa: SLF001
    V2RootResource._render_raw = _render_raw  # type: ignore[method-assign]  # noqa: SLF001
    logs._async_iter_on_pool = lines_from_pool  # noqa: SLF001
    V2RootResource.decodeResultSpec = _checked_result_spec  # type: ignore[method-assign]
    ResultSpec.apply = _apply_result_spec
    masters._db2data = _nameless_master  # noqa: SLF001
    masters.Master.produceEvent = _nameless_event
    wwwconfig.get_www_frontend_config_dict = _few_facts
    # Until it is initialized, a reference has no such attribute. The end of one that a wrong message named was logged with a traceback.
    pb.RemoteReference.doRefCount = 0
    service.sse.EventResource = lambda _: pages.notFound()
    properties.PropertiesListEndpoint.get = _properties_of_a_change
    ws.WsProtocol.onConnect = _only_own_pages
    ws.WsProtocolFactory.__init__ = _limited_websockets  # type: ignore[method-assign]
    PBManager.dispatcher_class = LimitedDispatcher
    BuildbotService.reconfigServiceWithSibling = _reconfigure_and_remember  # type: ignore[method-assign]


def write_json_data(request: Any, encoder: Any, data: Any) -> None:
    """Encode JSON in this thread, as Buildbot does, but write it in the reactor's.

    Buildbot writes from here. Twisted does not allow that: under load, answers were garbled, and after a client
    hung up at the wrong moment the port answered nobody.
    """
    body = encoder.encode(data).encode()
    threads.blockingCallFromThread(_reactor(), _write_json, request, body)


def _write_json(request: Any, body: bytes) -> None:
    if _is_gone(request):
        return
    request.setHeader(b"content-length", str(len(body)).encode())
    if request.method != b"HEAD":
        request.write(body)


async def lines_from_pool(
    generator_sync: Callable[[], Generator[Any, None, None]], *, max_backlog: int = 1, **others: Any
) -> AsyncGenerator[Any, None]:
    """Run a generator in the thread pool and yield its items, without a thread that waits for them to be taken.

    Buildbot reads a log in pieces of 64 KiB, each in a thread that ends when the client has read all lines
    of the piece. A client that hangs up reads no more, so its thread never ended. The pool has half as many threads as
    processors and also stores logs, so every build stopped.
    """
    if max_backlog > 0:  # Storing a log: its reader is Buildbot itself and takes every piece.
        async for item in _from_pool(generator_sync, max_backlog=max_backlog, **others):
            yield item
        return
    pool = others["provider_threadpool"]
    for item in await threads.deferToThreadPool(others["reactor"], pool, lambda: list(generator_sync())):
        yield item


async def _render_raw(self: Any, request: Any, ep: Any, rspec: Any, kwargs: dict[str, Any]) -> None:
    """Answer with a log's text, at the client's own pace.

    Buildbot writes as fast as it reads the database, and keeps in memory whatever a slow client has not read yet.
    """
    try:
        data = await ep.stream(rspec, kwargs)
    except NotImplementedError:
        data = await ep.get(rspec, kwargs)
    if data is None:
        self._write_not_found_rest_error(request, ep, rspec=rspec, kwargs=kwargs)
        return
    request.setHeader(b"content-type", data["mime-type"].encode() + b"; charset=utf-8")
    if ep.kind != EndpointKind.RAW_INLINE:
        request.setHeader(b"content-disposition", b"attachment; filename=" + data["filename"].encode())
    if isinstance(data["raw"], str):
        request.write(data["raw"].encode())
        return
    pace = _Pace(request)
    try:
        async for text in data["raw"]:
            await pace.ready()
            if _is_gone(request):
                return
            request.write(text.encode())
    finally:
        pace.end()


@implementer(IPushProducer)
class _Pace:
    """Waits until a client can take more; drops a client that reads nothing for too long."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._resumed: Deferred[None] | None = None
        self._patience: Any = None
        request.registerProducer(self, True)

    async def ready(self) -> None:
        """Return when the client can take more, or is gone."""
        if self._resumed is not None:
            await self._resumed

    def end(self) -> None:
        """Stop watching the client."""
        self.resumeProducing()
        if not _is_gone(self._request):
            self._request.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop writing until the transport's buffer is empty, and drop the client after the time limit."""
        if self._resumed is None:
            self._resumed = Deferred()
            self._patience = _reactor().callLater(PATIENCE, self._drop)

    def resumeProducing(self) -> None:
        """Resume writing: the transport's buffer is empty."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            if self._patience.active():
                self._patience.cancel()
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Resume the writer, which then finds that the client is gone."""
        self.resumeProducing()

    def _drop(self) -> None:
        self._request.transport.abortConnection()


class LimitedRequest(server.Request):
    """A request to the web port. If its body is too large, it is refused before the body is read.

    Twisted keeps a body of any size, in memory or in a file, and Buildbot decodes JSON before it checks the user.
    """

    channel: Any
    content: Any
    most_body = MOST_BODY
    _received = 0

    def __init__(self, *arguments: Any) -> None:
        # Buildbot has no forms. At a Content-Type of 300 parentheses, Twisted's parser of forms raised RecursionError.
        super().__init__(*arguments, parsePOSTFormSubmission=False)

    def gotLength(self, length: int | None) -> None:
        """Refuse on the headers alone."""
        super().gotLength(min(length or 0, MOST_BODY))
        if length is not None and length > MOST_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Add a piece of the body. A body without Content-Length is refused as soon as it is too large."""
        self._received += len(data)
        if self._received <= MOST_BODY:
            super().handleContentChunk(data)
        elif self._received - len(data) <= MOST_BODY:
            self._refuse()

    def _refuse(self) -> None:
        body = b"The body of a request may have at most %d bytes.\n" % MOST_BODY
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        transport = self.channel.transport
        transport.write(
            b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (status, status.phrase.encode(), len(body), body)
        )
        self._received = MOST_BODY + 1
        # Lingering close: drain the rest for a short time, because a reset could overtake the answer.
        transport.loseWriteConnection()
        _reactor().callLater(2.0, transport.abortConnection)

    def process(self) -> None:
        """Answer, unless the request has been refused."""
        if self._received <= MOST_BODY:
            super().process()


def _checked_result_spec(self: Any, request: Any, endpoint: Any) -> Any:
    """Refuse a query that no database takes. Buildbot answers 500, and logs a traceback for anybody who sends one."""
    if b"" in (name for argument in (b"order", b"field") for name in request.args.get(argument, ())):
        raise InvalidQueryParameter("order and field need the name of a field")
    if not hasattr(endpoint.rtype.entityType, "fieldNames") and set(request.args) - _WITHOUT_FIELDS:
        raise InvalidQueryParameter("properties have no fields to filter or order by")
    spec = _decode_result_spec(self, request, endpoint)
    if any(
        one.op in _NOT_FOR_BOOLEANS and any(isinstance(value, bool) for value in one.values)
        for one in spec.filters
    ):
        raise InvalidQueryParameter("true and false can only be compared with eq and ne")
    numbers = [number for number in (spec.limit, spec.offset) if number is not None]
    numbers += [value for one in spec.filters for value in one.values if isinstance(value, int)]
    if any(abs(number) >= MOST_NUMBER for number in numbers):
        raise InvalidQueryParameter(f"numbers must be smaller than {MOST_NUMBER}")
    if any(number < 0 for number in (spec.limit, spec.offset) if number is not None):
        raise InvalidQueryParameter("limit and offset must not be negative")
    return spec


def _apply_result_spec(self: Any, data: Any) -> Any:
    """Filter and order rows. Values that cannot be compared, such as lists with numbers, are a mistake of the client."""
    try:
        return _apply_spec(self, data)
    except TypeError as error:
        raise InvalidQueryParameter(f"the rows cannot be filtered or ordered so: {error}") from None


def _nameless_master(model: Any) -> dict[str, Any]:
    """Return what everybody may know of a master. Its name has the host's name and the path of the state directory."""
    return {**_db2data(model), "name": "master"}


def _nameless_event(self: Any, message: dict[str, Any], event: str) -> None:
    super(masters.Master, self).produceEvent({**message, "name": "master"}, event)


@async_to_deferred
async def _properties_of_a_change(self: Any, resultSpec: Any, kwargs: Any) -> list[dict[str, Any]]:
    """Return the properties of a change. Buildbot calls a function that its database does not have, and answers 500."""
    if kwargs.get("changeid") is None:
        rows: list[dict[str, Any]] = await _properties(self, resultSpec, kwargs)
        return rows
    change = await self.master.db.changes.getChange(kwargs["changeid"])
    found = change.properties if change is not None else {}
    return [
        {"name": name, "source": source, "value": json.dumps(value)}
        for name, (value, source) in found.items()
    ]


def _few_facts(master: Any, www_config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration that the UI gets, without versions of programs and the port's own address."""
    found = _frontend_config(master, www_config)
    return {name: value for name, value in found.items() if name not in _PRIVATE} | {"versions": []}


def _only_own_pages(self: Any, request: Any) -> Any:
    """Refuse a websocket to a page of another site, which could read an internal master through its visitor's browser."""
    own = self.master.config.www["allowed_origins"]
    if request.origin and not any(fnmatchcase(request.origin.lower(), pattern) for pattern in own):
        raise ConnectionDeny(403, "Forbidden")
    return _on_connect(self, request)


def _limited_websockets(self: Any, master: Any) -> None:
    """Bound what a browser sends over a websocket, and drop one that does not answer.

    Autobahn has no limit by default: one anonymous message used up all memory.
    """
    super(ws.WsProtocolFactory, self).__init__()
    self.master = master
    self.setProtocolOptions(
        webStatus=False,
        maxFramePayloadSize=MOST_MESSAGE,
        maxMessagePayloadSize=MOST_MESSAGE,
        openHandshakeTimeout=10,
        autoPingInterval=master.config.www.get("ws_ping_interval", 0) or 30,
        autoPingTimeout=30,
    )


@async_to_deferred
async def _reconfigure_and_remember(self: Any, sibling: Any) -> Any:
    """Remember the configuration that a service got last.

    Buildbot compares a new configuration with that of the service's start. A setting that one reload changes and the
    next one sets back would stay changed, such as `workers.attempts` from 3 to 1 and back to 3.
    """
    result = await _reconfigure(self, sibling)
    self._config_args, self._config_kwargs = sibling._config_args, sibling._config_kwargs  # noqa: SLF001
    return result


def _is_gone(request: Any) -> bool:
    return bool(request.finished) or request.channel is None


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor
