"""The database settings that Buildbot is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from buildbot.db.enginestrategy import create_engine

from master.database import database

if TYPE_CHECKING:
    from pathlib import Path


def given(url: str) -> dict[str, Any]:
    settings: Any = SimpleNamespace(database=url)
    return database(settings)


def test_a_thread_keeps_its_sqlite_connection_and_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """Buildbot's own engine, made with our arguments, opens the file once, in WAL mode, with NORMAL."""
    asked = given(f"sqlite:///{tmp_path}/state.sqlite")
    engine = create_engine(asked["db_url"], basedir=str(tmp_path), **asked["engine_kwargs"])
    seen = set()
    for _ in range(2):
        with engine.connect() as connection:
            seen.add(id(connection.connection.dbapi_connection))
            assert connection.exec_driver_sql("pragma synchronous").scalar() == 1
            assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
    engine.dispose()
    assert len(seen) == 1


def test_another_database_gets_its_own_pool() -> None:
    """PostgreSQL is shared by the threads of Buildbot's pool, so it takes SQLAlchemy's own."""
    assert given("postgresql://localhost/buildbot") == {
        "db_url": "postgresql://localhost/buildbot",
        "engine_kwargs": {},
    }
