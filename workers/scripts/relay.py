"""relay.py NAMESPACE LISTENERS: connects the listening sockets of a build's network to hosts outside.

NAMESPACE is a descriptor of the machine's network namespace. LISTENERS is JSON: a list of [descriptor, host, port]. The sockets were
opened in the build's network by run-container.py, so nothing of the build can listen in their place.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - used to resolve names, as is the next; `nobody` may be unable to read them later
import ctypes
import encodings.idna  # noqa: F401
import json
import os
import resource
import socket
import sys
from contextlib import suppress
from functools import partial

_CLONE_NEWNET, _PR_SET_NO_NEW_PRIVS = 0x40000000, 38
_NOBODY = 65534
_MOST = 256
"""Connections at a time; others are closed at once. It bounds the memory at 64 MiB."""
_PIECE = 32768
_CONNECT_SECONDS = 30


def _drop_privileges() -> None:
    """Become nobody: a build sends whatever it likes through this process."""
    socket.getaddrinfo("localhost", 80)  # loads what resolves names while everything can be read
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    if ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError("the relay cannot give up new privileges")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


class _Relay:
    def __init__(self) -> None:
        self._connections = 0

    async def connected(
        self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._connections += 1
        try:
            if self._connections <= _MOST:
                await self._relay(host, port, reader, writer)
        except (TimeoutError, OSError):
            writer.transport.abort()  # a broken connection arrives as one, and not as a whole answer
        finally:
            self._connections -= 1
            writer.close()

    @staticmethod
    async def _relay(
        host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connecting = asyncio.open_connection(host, port, limit=_PIECE)
        there, to_there = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
        copies = [asyncio.create_task(_copy(reader, to_there)), asyncio.create_task(_copy(there, writer))]
        try:
            await asyncio.gather(*copies)
        except BaseException:
            to_there.transport.abort()
            raise
        finally:
            for copy in copies:
                copy.cancel()
            to_there.close()


async def _serve(listeners: list[tuple[int, str, int]]) -> None:
    relay = _Relay()
    servers = [
        await asyncio.start_server(
            partial(relay.connected, host, port), sock=socket.socket(fileno=number), limit=_PIECE
        )
        for number, host, port in listeners
    ]
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Enter the machine's network, and relay until killed."""
    namespace, listeners = int(sys.argv[1]), json.loads(sys.argv[2])
    if ctypes.CDLL(None).setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError("the relay cannot enter the machine's network")
    os.close(namespace)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(listeners) + 3 * _MOST
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most), min(wanted, most)))
    _drop_privileges()
    asyncio.run(_serve(listeners))


main()
