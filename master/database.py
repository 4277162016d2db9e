"""The database: Buildbot's own, with SQLite told not to wait for the disk at every commit."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

if TYPE_CHECKING:
    from master.settings import Settings


def database(settings: Settings) -> dict[str, Any]:
    """Give `c["db"]`."""
    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)
    return {"db_url": settings.database}


def _relax(connection: Any, _: Any) -> None:
    """With the write-ahead log, NORMAL keeps the database whole and loses nothing to a killed master.

    Only a power cut can lose the last commits. With FULL, every commit waits for the disk, and a
    disk that is busy with somebody's build kept all of REST waiting for minutes.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")
