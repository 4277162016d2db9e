"""The database that settings.example.yaml shows: a real PostgreSQL, which the test starts and ends."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.harness import DEB, Installation, tiny_installation
from tests.patience import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server on a socket of its own, without TCP; yield the URL of an empty database."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        directory = Path(name)
        user = pwd.getpwnam("postgres")
        os.chown(directory, user.pw_uid, user.pw_gid)

        def run(program: str, *arguments: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [str(PROGRAMS / program), *arguments], user=user.pw_uid, group=user.pw_gid, extra_groups=[],
                cwd=directory, stdout=subprocess.DEVNULL,
            )  # fmt: skip

        data = directory / "data"
        assert run("initdb", "--pgdata", str(data), "--no-sync", "--auth=trust").wait() == 0
        server = run("postgres", "-D", str(data), "-k", name, "-c", "listen_addresses=", "-c", "fsync=off")
        try:
            createdb = ("createdb", "--host", name, "--owner=buildpackages", "buildpackages")
            createuser = ("createuser", "--host", name, "buildpackages")
            until(lambda: run("pg_isready", "--quiet", "--host", name).wait() == 0, "PostgreSQL is ready", 30)
            assert run(*createuser).wait() == 0
            assert run(*createdb).wait() == 0
            yield f"postgresql://buildpackages@/buildpackages?host={name}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master whose database is a PostgreSQL."""
    with (
        postgresql() as url,
        tiny_installation(tmp_path_factory.mktemp("postgresql"), database=url) as made,
    ):
        yield made


def test_a_request_is_served_and_the_answer_outlives_a_restart(here: Installation) -> None:
    """Packages are built and published; after a restart the builds of before are still known."""
    answer = here.ask(DEB, ref="main")
    assert here.wait(answer)["results"] == 0, here.said(answer)
    assert not list(here.settings.state.glob("*.sqlite*"))
    for verb in ("stop", "start"):
        command = [sys.executable, "-m", "master.control", verb, "--settings", str(here.settings_file)]
        assert subprocess.run(command, check=False).returncode == 0
    assert here.ask(DEB, ref="main")["state"] == "published"
    assert [results for results, _ in here.said(answer)] == [0]


def test_a_server_that_does_not_let_us_in_is_a_sentence(tmp_path: Path) -> None:
    """`make start` ends with the server's own words, without a traceback and without the password."""
    made = Installation(tmp_path, database="postgresql://buildpackages:secret@/buildpackages?host=/nowhere")
    command = [sys.executable, "-m", "master.control", "start", "--settings", str(made.settings_file)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.startswith(
        "The setting `database` names a database that cannot be opened: "
        'connection is bad: connection to server on socket "/nowhere/.s.PGSQL.5432" failed: No such file or directory'
    )
    assert "Traceback" not in finished.stderr
    assert "secret" not in finished.stderr
