"""Bodies between disk and network: nothing waits for a disk in the reactor's thread for long."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from master.publishing.uploads import Incoming
    from master.web.answers import Part
    from model.manifest import File

_RECEIVE = 256 * 1024
"""Bytes received at a time. Measured: 64 KiB, Twisted's own, costs 15 % more CPU, 1 MiB 30 %."""

_BATCH = 512 * 1024
"""Bytes that are worth a trip to a thread. Measured: in the reactor's thread, without any, uploads
take as much CPU and are half as fast on a busy machine."""

_WINDOW = 4 * 1024 * 1024
"""Bytes that may wait for the disk before the sender has to."""

_CHUNK = 128 * 1024
"""Bytes read from the disk and sent at a time."""


class LostError(Exception):
    """The connection went away before the whole body was here."""


class Sender:
    """Sends parts of a file, a chunk whenever the connection can take one: an IPullProducer."""

    def __init__(self, request: Any, file: BinaryIO, parts: tuple[Part, ...]) -> None:
        """Take an open file, which is closed in the end, and what of it to send."""
        self._request = request
        self._file = file
        self._chunks = self._read(parts)

    def _read(self, parts: tuple[Part, ...]) -> Iterator[bytes]:
        for head, offset, size in parts:
            if head:
                yield head
            self._file.seek(offset)
            left = size
            while left:
                data = self._file.read(min(left, _CHUNK))
                if not data:
                    raise EOFError
                left -= len(data)
                yield data

    def resumeProducing(self) -> None:
        """Send the next chunk; if the file became shorter, break off instead of lying."""
        self._request.channel.resetTimeout()
        try:
            chunk = next(self._chunks, None)
        except (OSError, EOFError):
            self._request.transport.abortConnection()
            return
        if chunk is None:
            self._file.close()
            self._request.unregisterProducer()
            self._request.finish()
        else:
            self._request.write(chunk)

    def stopProducing(self) -> None:
        """Close the file: nobody listens any more."""
        self._file.close()


class Receiver:
    """Takes a body to the disk, in a thread, at most a window ahead of it."""

    def __init__(self, incoming: Incoming, transport: Any, in_thread: Callable[..., Any]) -> None:
        """Take where the body goes, and the transport to pause when it comes too fast."""
        transport.bufferSize = _RECEIVE
        self._incoming = incoming
        self._transport = transport
        self._in_thread = in_thread
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._whole = False
        self._lost = False
        self._paused = False
        self._enough: Deferred[None] | None = None

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting >= _WINDOW and not self._paused:
            self._paused = True
            self._transport.pauseProducing()
        if self._waiting >= _BATCH:
            self._wake()

    def end(self) -> None:
        """Learn that this was the whole body."""
        self._whole = True
        self._wake()

    def lose(self) -> None:
        """Learn that no more will come."""
        self._lost = True
        self._wake()

    async def store(self, expected: bytes | None) -> File:
        """Give the file once it is received; whatever else happens, nothing of it stays."""
        try:
            while not self._whole:
                if self._waiting < _BATCH and not self._lost:
                    self._enough = Deferred()
                    await self._enough
                if self._lost:
                    raise LostError
                if not self._whole:
                    await self._in_thread(self._incoming.write, self._take())
            file: File = await self._in_thread(self._incoming.commit, self._take(), expected)
        except BaseException:
            await self._in_thread(self._incoming.abandon)
            raise
        finally:
            self._incoming.upload.settle(self._incoming.path)
        return file

    def _take(self) -> list[bytes]:
        chunks = list(self._chunks)
        self._chunks.clear()
        self._waiting = 0
        if self._paused:
            self._paused = False
            self._transport.resumeProducing()
        return chunks

    def _wake(self) -> None:
        if self._enough is not None:
            enough, self._enough = self._enough, None
            enough.callback(None)
