"""What the master calls one who waits."""

from __future__ import annotations

import os
import socket

from teuthology_bridge.errors import one_line


def waiter(name: str) -> str:
    """Give the name of this process: the same job run again must not withdraw for the one that still waits."""
    # Only the name is cut, as the rest tells one from the other.
    return f"{one_line(name, 200)}@{socket.gethostname()}:{os.getpid()}"
