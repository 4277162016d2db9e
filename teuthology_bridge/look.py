"""Whether packages are published, as teuthology's install finds out itself: by the file `version`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from teuthology_bridge import wire

if TYPE_CHECKING:
    from teuthology_bridge.timed_socket import Waits

_VERSION = re.compile(r"\s*([0-9A-Za-z.+~:_-]{1,200})\s*")


def look(version_url: str, timeout: float, waits: Waits | None = None) -> str | None:
    """Give the version that is published there, None if nothing is; wire.NoAnswer if that can't be told."""
    reply = wire.exchange("GET", version_url, timeout=timeout, waits=waits)
    if reply.status == 404:
        return None
    version = _VERSION.fullmatch(reply.text)
    # Some proxies answer everything with a page of their own and status 200.
    if reply.status != 200 or version is None:
        raise wire.NoAnswer(f"it answered {reply.told()}")
    return version[1]
