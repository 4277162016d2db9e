"""The database: Buildbot's own, with SQLite told not to wait for the disk at every commit, and one index more."""

# mypy: allow-untyped-calls
# Buildbot's services are annotated in part only.

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import SingletonThreadPool

if TYPE_CHECKING:
    from master.settings import Settings


def database(settings: Settings) -> dict[str, Any]:
    """Give `c["db"]`."""
    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)
    kept = {"poolclass": SingletonThreadPool} if _is_sqlite(settings.database) else {}
    return {"db_url": settings.database, "engine_kwargs": kept}


def problem_of(url: str) -> str:
    """Return why a database URL cannot be used, or an empty string. It never quotes the URL, which may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return "this is not a database URL such as postgresql://buildpackages@/buildpackages"
    try:
        parsed.get_dialect().import_dbapi()
    except NoSuchModuleError:
        return (
            f"SQLAlchemy knows no database {parsed.drivername!r}; use postgresql, or leave it out for SQLite"
        )
    except ImportError as error:
        return (
            f"{parsed.drivername} needs the Python module {error.name or error}, which is not installed:"
            " install it into .venv, use postgresql, or leave the setting out for SQLite"
        )
    return ""


def connection_problem(url: str) -> str:
    """Return the server's own reason for refusing us, or an empty string. Blocks until the time limit."""
    if _is_sqlite(url):
        return ""
    engine = create_engine(url)
    try:
        engine.connect().close()
    except DBAPIError as error:
        return " ".join(str(error.orig).split())
    finally:
        engine.dispose()
    return ""


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


def _is_sqlite(url: str) -> bool:
    """Whether a connection is to be kept: Buildbot, with one thread for SQLite, makes one for each query.

    Measured: 0.9 ms for a query and 2.1 ms for a commit, 0.1 and 0.2 ms with one that is kept. The
    last connection that closes also writes the whole log back, whatever PRAGMA synchronous says.
    """
    return make_url(url).get_backend_name() == "sqlite"


def _relax(connection: Any, _: Any) -> None:
    """With the write-ahead log, NORMAL keeps the database whole and loses nothing to a killed master.

    Only a power cut can lose the last commits. With FULL every commit waits for the disk, and a build
    makes some 150, one after another.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")
