"""Requests to the package server: what each is answered, and which bodies are taken at all.

A PUT is refused on its headers alone; a body that is accepted goes to the disk and through SHA-256
in a thread. Every answer, an error too, says `nosniff` and `sandbox`, and `no-store` unless it is a file
or a page: no cache may go on saying 404 about what has been published meanwhile.
"""

# mypy: allow-untyped-calls
# Twisted's HTTP server is annotated in part only.

from __future__ import annotations

import base64
import json
import re
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import connectionDone
from twisted.python import log
from twisted.web import http

from master.package_server.transfers import LostError, Receiver, Sender
from master.package_server.tree import MissingError, directory_url, names_of
from master.publishing.uploads import RefusedError
from master.shaman import view as shaman
from master.web.answers import Answer

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from master.package_server.tree import PackageTree
    from master.publishing.uploads import Upload, Uploads

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 1024 * 1024
"""A refused sender may go on for so long, unheard, that it gets to read its answer."""

_DIGEST = re.compile(r"(?:\A|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):", re.ASCII)
_PLAIN = "text/plain; charset=utf-8"


class Request(http.Request):
    """One request: an answer from the tree, or a file for an upload."""

    _receiver: Receiver | None = None
    _refusal: RefusedError | None = None
    _gone = False

    # The annotations of what Twisted leaves without any.
    channel: Any
    transport: Any
    content: Any

    def gotLength(self, length: int | None) -> None:
        """Refuse, on the headers alone, any body but that of an accepted upload."""
        self.content = BytesIO()
        self.method, self.uri, self.clientproto = self.channel.request_line()
        self.path = self.uri.partition(b"?")[0]
        expects_body = length != 0
        try:
            if self.method == b"PUT" and self.path.startswith(b"/upload/"):
                self._begin(length)
            elif expects_body:
                self._check_method()
                raise RefusedError(HTTPStatus.BAD_REQUEST, "A GET takes no body.")
        except RefusedError as refusal:
            self.requestHeaders.removeHeader(b"Expect")  # or Twisted says "100 Continue", too
            if expects_body:
                self._refuse(refusal)
            else:
                self._refusal = refusal

    def handleContentChunk(self, data: bytes) -> None:
        """Hand on a piece of an upload's body."""
        assert self._receiver is not None
        self._receiver.feed(data)

    def process(self) -> None:
        """Answer, now that the whole request is here."""
        if self._receiver is not None:
            self._receiver.end()
            return
        ensureDeferred(self._process()).addErrback(self._fail)

    async def _process(self) -> None:
        try:
            if self._refusal is not None:
                raise self._refusal
            self._check_method()
            answer = await self._answer()
        except RefusedError as refusal:
            self._refuse(refusal)
        else:
            self._send(answer)

    async def _answer(self) -> Answer:
        if self.path.startswith(b"/boot/"):
            return await self._meet()
        if shaman.is_asked(self.path):
            answer: Answer = await self.channel.factory.ask_shaman(self.uri)
            return answer
        return await self._find()

    async def _meet(self) -> Answer:
        """Tell a machine that was made ahead which worker it is; its question stays open until that is known."""
        token = self.path.removeprefix(b"/boot/").decode("latin-1")
        worker = await self.channel.factory.meet(token)
        if worker is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "No machine is expected by that name.")
        if not worker:
            return Answer(HTTPStatus.NO_CONTENT, {}, b"")
        body = json.dumps({"worker": worker}).encode() + b"\n"
        return Answer(HTTPStatus.OK, {"Content-Type": "application/json"}, body)

    async def _find(self) -> Answer:
        asked = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in self.requestHeaders.getAllRawHeaders()
            if name != b"Range" or self.method == b"GET"
        }
        # Taken here: when the thread begins, a client that hung up has no channel any more.
        site = self.channel.factory
        try:
            answer: Answer = await site.look_up(_look, site.tree, self.path, asked)
        except (MissingError, OSError):
            shown = self.path[:200].decode("ascii", "replace")
            raise RefusedError(HTTPStatus.NOT_FOUND, f"There is nothing at {shown}.") from None
        return answer

    def _check_method(self) -> None:
        if self.path.startswith(b"/upload/"):
            allowed = "PUT"
        elif self.method in (b"GET", b"HEAD"):
            return
        else:
            allowed = "GET, HEAD"
        self.setHeader(b"Allow", allowed.encode())
        sentence = f"{self.method.decode('ascii')} is not for this path; {allowed} may be."
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, sentence)

    def _begin(self, length: int | None) -> None:
        """Check an upload's request, and make ready for its body."""
        upload = self._authorized()
        name, _, rest = self.path.removeprefix(b"/upload/").decode("latin-1").partition("/")
        sha1, _, path = rest.partition("/")
        if f"{unquote(name)}/{unquote(sha1)}" != str(upload.key):
            sentence = f"This token is for {upload.key} only."
            raise RefusedError(HTTPStatus.FORBIDDEN, sentence)
        if length is None or not self.requestHeaders.hasHeader(b"Content-Length"):
            sentence = "An upload needs a Content-Length."
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, sentence)
        if self.requestHeaders.hasHeader(b"Content-Range"):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "An upload is of a whole file.")
        digest = _content_digest(self._header(b"Content-Digest"))
        incoming = upload.begin(unquote(path), length)
        self._receiver = Receiver(incoming, self.transport, self.channel.factory.in_thread)
        ensureDeferred(self._receive(self._receiver, digest)).addErrback(self._fail)

    def _authorized(self) -> Upload:
        scheme, _, token = self._header(b"Authorization").partition(" ")
        uploads: Uploads = self.channel.factory.uploads
        upload = uploads.find(token.strip()) if scheme.lower() == "bearer" else None
        if upload is None:
            sentence = "An upload needs the token of a build that is uploading now."
            raise RefusedError(HTTPStatus.UNAUTHORIZED, sentence)
        return upload

    async def _receive(self, receiver: Receiver, digest: bytes | None) -> None:
        try:
            file = await receiver.store(digest)
        except LostError:
            return
        except RefusedError as refusal:
            self._refuse(refusal)
        except OSError as error:
            log.err(error, "an upload cannot be stored")
            sentence = f"The package server cannot store the file: {error.strerror}."
            self._refuse(RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, sentence))
        else:
            body = {"path": file.path, "size": file.size, "sha256": file.sha256}
            headers = {"Content-Type": "application/json"}
            self._send(Answer(HTTPStatus.CREATED, headers, json.dumps(body).encode() + b"\n"))

    def _header(self, name: bytes) -> str:
        return (self.requestHeaders.getRawHeaders(name) or [b""])[0].decode("latin-1")

    def _refuse(self, refusal: RefusedError) -> None:
        """Answer with a sentence; before the end of the body, hear no more of it."""
        if self._gone:
            return
        headers = {"Content-Type": _PLAIN}
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="upload"'
        if refusal.sha256:
            encoded = base64.b64encode(bytes.fromhex(refusal.sha256)).decode()
            headers["Repr-Digest"] = f"sha-256=:{encoded}:"
        self.channel.turn_away(self)
        self._send(Answer(refusal.status, headers, f"{refusal.sentence}\n".encode()))

    def _fail(self, failure: Failure) -> None:
        """End a request that a mistake of ours broke: here, and not in the connection's code."""
        log.err(failure, "a request to the package server failed")
        if self.startedWriting and not self._gone:
            self.transport.abortConnection()
            return
        sentence = "The package server made a mistake; its log says which."
        self._refuse(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, sentence))

    def _send(self, answer: Answer) -> None:
        if self._gone:
            return
        sends_file = bool(answer.parts) and self.method != b"HEAD"
        file = open(answer.path, "rb") if sends_file else None
        self.setResponseCode(answer.status, answer.status.phrase.encode())
        self.setHeader(b"Date", http.datetimeToString())
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        self.setHeader(b"Content-Security-Policy", b"sandbox")
        self.setHeader(b"Cache-Control", b"no-store")
        if answer.status != HTTPStatus.NOT_MODIFIED:
            self.setHeader(b"Content-Length", str(answer.length).encode())
        for name, value in answer.headers.items():
            self.setHeader(name.encode(), value.encode("latin-1"))
        if file is not None:
            # Twisted has no time limit while it answers, so a client that reads nothing would keep the file open for ever.
            self.channel.setTimeout(self.channel.factory.timeOut)
            self.registerProducer(Sender(self, file, answer.parts), False)
            return
        self.write(answer.body)
        self.finish()

    def connectionLost(self, reason: Failure) -> None:
        """Forget whoever asked."""
        self._gone = True
        super().connectionLost(reason)
        if self._receiver is not None:
            self._receiver.lose()


def _look(tree: PackageTree, path: bytes, asked: dict[str, str]) -> Answer:
    """Answer for a path of the tree; blocks."""
    names = names_of(path)
    found = tree.find(names)
    if not found.is_directory:
        return tree.file(names, found, asked)
    if names[-1]:
        to = {"Location": directory_url(names), "Content-Type": _PLAIN}
        return Answer(HTTPStatus.MOVED_PERMANENTLY, to, b"A directory ends with a slash.\n")
    return tree.listing(names, found)


class Channel(http.HTTPChannel):
    """A connection that can turn its sender away in mid-request, and still be understood."""

    requestFactory = Request
    factory: Any
    transport: Any
    _path: Any
    _turned_away = False
    _unheard = 0
    _linger: Any = None

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Give method, URI and version, which Twisted tells a request only after its body."""
        return self._command, self._path, self._version

    def turn_away(self, request: Request) -> None:
        """Make the next answer the last one if more of its request may come, which goes nowhere."""
        if self._handlingRequest and request.method in (b"GET", b"HEAD"):
            return
        self._turned_away = True
        self.persistent = 0
        request.setHeader(b"Connection", b"close")

    def rawDataReceived(self, data: bytes) -> None:
        """Throw away what a refused sender goes on sending; beyond a limit, let it wait."""
        if not self._turned_away:
            super().rawDataReceived(data)
            return
        self._unheard += len(data)
        if self._unheard > _LINGER_BYTES:
            self.transport.pauseProducing()

    def loseConnection(self) -> None:
        """Close; after a refusal our half first, since a reset could overtake the answer."""
        if not self._turned_away:
            super().loseConnection()
        elif self._linger is None:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()
            self._linger = self.callLater(_LINGER_SECONDS, self.transport.abortConnection)

    def timeoutConnection(self) -> None:
        """End an idle connection; drop a client that takes nothing of its answer."""
        if self._handlingRequest:
            self.transport.abortConnection()
        else:
            super().timeoutConnection()

    def connectionMade(self) -> None:
        """Be among those that a stop of the server ends."""
        super().connectionMade()
        self.factory.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave nothing behind."""
        self.factory.channels.discard(self)
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        super().connectionLost(reason)

    def headerReceived(self, line: bytes) -> bool:
        """Take a header; a Content-Length of thousands of digits is bad, too."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False

    def lineLengthExceeded(self, line: bytes) -> None:
        """Say why a request this long is not taken."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        body = b"This is not a request that the package server understands.\n"
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
            b"Content-Security-Policy: sandbox\r\nCache-Control: no-store\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.loseConnection()


def _content_digest(header: str) -> bytes | None:
    """Give the SHA-256 that a Content-Digest holds (RFC 9530); None where it holds none."""
    match = _DIGEST.search(header)
    if match is None:
        return None
    try:
        digest = base64.b64decode(match[1], validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The Content-Digest's sha-256 is no SHA-256.")
    return digest
