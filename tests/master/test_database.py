"""The database settings that Buildbot is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.db.enginestrategy import create_engine

from master.database_url import problem_of
from master.settings import Settings, SettingsError
from master.storage.database import database

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://buildpackages@/buildpackages", ""),
        ("postgresql+psycopg://buildpackages:secret@db/buildpackages", ""),
        ("sqlite:////var/lib/state.sqlite", ""),
        ("buildpackages", "this is not a database URL such as postgresql://buildpackages@/buildpackages"),
        ("postgresql://u:secret@h:port/", "this is not a database URL such as postgresql://buildpackages@/buildpackages"),
        ("postgres://u:secret@h/d", "SQLAlchemy knows no database 'postgres'; use postgresql, or leave it out for SQLite"),
        (
            "mysql://u:secret@h/d",
            (
                "mysql needs the Python module MySQLdb, which is not installed: install it into .venv, use postgresql,"
                " or leave the setting out for SQLite"
            ),
        ),
    ],
)  # fmt: skip
def test_a_database_that_cannot_be_used_is_a_sentence_without_its_password(url: str, problem: str) -> None:
    """An unknown database, a missing driver and a malformed URL have different errors, none with the password."""
    assert problem_of(url) == problem


def test_the_settings_file_names_the_database_as_the_problem(tmp_path: Path) -> None:
    """An operator reads which setting is wrong before anything is started."""
    file = tmp_path / "settings.yaml"
    file.write_text((ROOT / "settings.example.yaml").read_text() + "database: mysql://u:secret@h/d\n")
    with pytest.raises(SettingsError, match="database: mysql needs the Python module MySQLdb") as caught:
        Settings.from_file(file)
    assert "secret" not in str(caught.value)
