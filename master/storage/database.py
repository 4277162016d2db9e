"""The database: Buildbot's own, with SQLite told not to wait for the disk at every commit, and one index more."""

# mypy: allow-untyped-calls
# Buildbot's services are annotated in part only.

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import SingletonThreadPool

from master.database_url import is_sqlite

if TYPE_CHECKING:
    from master.settings import Settings


def database(settings: Settings) -> dict[str, Any]:
    """Return `c["db"]`."""
    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)
    kept = {"poolclass": SingletonThreadPool} if is_sqlite(settings.database) else {}
    return {"db_url": settings.database, "engine_kwargs": kept}


class Index(BuildbotService):
    """Finds the buildsets of a package_key, for each who asks as of shaman; else all there ever were are read."""

    name = "index"

    @async_to_deferred
    async def startService(self) -> None:
        """Make it, once."""
        await super().startService()
        await self.master.db.pool.do_with_transaction(_index)


def _index(connection: Any) -> None:
    # Others than these two can't be told to make only what is not there.
    if connection.dialect.name in ("sqlite", "postgresql"):
        connection.exec_driver_sql(
            "CREATE INDEX IF NOT EXISTS buildpackages_keys ON buildsets (external_idstring)"
        )


def _relax(connection: Any, _: Any) -> None:
    """With the write-ahead log, NORMAL keeps the database whole and loses nothing to a killed master.

    Only a power cut can lose the last commits. With FULL every commit waits for the disk, and a build
    makes some 150, one after another.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")
