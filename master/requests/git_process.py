"""git as the master runs it: deaf to the machine's configuration, asking nobody, and within limits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredSemaphore

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from workers.processes import Finished

_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:http:git",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ASKPASS": "true",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
}
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")

OPTIONS = ("-c", "http.followRedirects=false", "-c", "credential.helper=", "-c", "http.emptyAuth=false")
"""Options of every git command that contacts a server. Without the last one, git sends an NTLM message to a server that
asks for it."""

LIMITS = ("prlimit", f"--fsize={64 * 1024**2}", f"--as={2 * 1024**3}", "--core=0", "--")
"""Goes in front of every git command that contacts a server. The server may be a contributor's, and must not be able
to fill the disk or the memory."""

AT_ONCE = 16
"""Processes of git that contact servers for requests at the same time. With LIMITS, this bounds the memory that servers
can use up."""

_at_once = DeferredSemaphore(AT_ONCE)


async def contact(process: Coroutine[Any, Any, Finished]) -> Finished:
    """Run a process that contacts a server when fewer than AT_ONCE others do; its time limit begins then."""
    await _at_once.acquire()
    try:
        return await process
    finally:
        _at_once.release()


def environment() -> dict[str, str]:
    """Give git's environment: of the master's own, the way out only."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **_ENVIRONMENT, **passed_on}


def last_line(errors: str) -> str:
    """Give the last line that git complained with, short enough for a sentence."""
    return (errors.strip().splitlines() or ["no message"])[-1][:200]
