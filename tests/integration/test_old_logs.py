"""Logs of old builds are removed from the database, and the builds' pages stay (attack A10)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sqlalchemy import create_engine, text

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation
from tests.integration.test_postgresql import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 24 * 3600


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master that keeps logs for ever, with either database."""
    with ExitStack() as stack:
        database = stack.enter_context(postgresql()) if request.param == "postgresql" else ""
        directory = tmp_path_factory.mktemp("logs")
        yield stack.enter_context(
            tiny_installation(directory, database=database, build={"hours": 1, "keep_logs": 0})
        )


def pieces(here: Installation, build: dict[str, Any]) -> int:
    """Return how many pieces of text the database has of a build's logs."""
    steps = ",".join(str(step["stepid"]) for step in here.steps(build).values())
    query = f"SELECT count(*) FROM logchunks JOIN logs ON logs.id = logid WHERE stepid IN ({steps})"
    engine = create_engine(here.settings.database)
    with engine.connect() as connection:
        found = int(connection.execute(text(query)).scalar_one())
    engine.dispose()
    return found


def made_old(here: Installation, build: dict[str, Any], seconds: int) -> None:
    """Let a build's steps have begun so long ago."""
    engine = create_engine(here.settings.database)
    with engine.begin() as connection:
        for step in here.steps(build).values():
            change = text("UPDATE steps SET started_at = started_at - :seconds WHERE id = :step")
            connection.execute(change, {"seconds": seconds, "step": step["stepid"]})
    engine.dispose()


def test_a10_old_logs_are_removed_and_old_pages_stay(here: Installation) -> None:
    """Of three builds, the one whose logs are too old loses their text, once the settings say that this is to be done."""
    builds = []
    for _ in range(3):
        answer = here.ask(DEB, sha1=here.repository.commit(tiny.WHOLE))
        assert here.wait(answer)["results"] == 0, here.said(answer)
        builds += here.builds(answer)
    old, younger, new = builds
    made_old(here, old, 90 * DAY + 3700)
    made_old(here, younger, 90 * DAY - 3600)
    kept = [pieces(here, build) for build in builds]
    assert all(kept)
    here.reload(title="Reloaded")
    assert [pieces(here, build) for build in builds] == kept
    here.reload(build={"keep_logs": 90})
    here.until(lambda: not pieces(here, old), "the old build's logs are removed")
    assert [pieces(here, build) for build in (younger, new)] == kept[1:]
    assert "pieces of old logs" in (here.settings.state / "twistd.log").read_text()
    page_works(here, old)
    assert "dpkg-deb" in here.log(younger, "packages")


def page_works(here: Installation, build: dict[str, Any]) -> None:
    """Read everything that the page of a build reads, and download its logs."""
    [shown] = here.get(f"builds/{build['buildid']}")["builds"]
    assert shown["results"] == 0
    names = set()
    for step in here.steps(build).values():
        for log in here.get(f"steps/{step['stepid']}/logs")["logs"]:
            names.add(log["name"])
            assert log["type"] == "d"
            chunks = here.get(f"logs/{log['logid']}/contents?offset=0&limit=1000")["logchunks"]
            assert not "".join(chunk["content"] for chunk in chunks)
            for form in ("raw", "raw_inline"):
                answer = requests.get(f"{here.url}api/v2/logs/{log['logid']}/{form}", timeout=60)
                assert answer.status_code == 200, answer.text
    assert "stdio" in names
    assert "Traceback" not in (here.settings.state / "twistd.log").read_text()
