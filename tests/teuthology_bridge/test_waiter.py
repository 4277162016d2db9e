"""What the master calls one who waits."""

from __future__ import annotations

import os
import socket

from teuthology_bridge.waiter import waiter


def test_one_process_is_one_that_waits() -> None:
    """However long a run's name is, host and process are told, as they tell two of one name apart."""
    this = f"@{socket.gethostname()}:{os.getpid()}"
    assert waiter("kim/17") == f"kim/17{this}"
    name = waiter("a\n" * 5000)
    assert name.endswith(this)
    assert name.isprintable()
    assert len(name) <= 200 + len(this)
