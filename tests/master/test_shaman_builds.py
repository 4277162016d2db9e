"""What Buildbot's database knows of builds, asked of a real database."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SUCCESS, WARNINGS
    from buildbot.test import fakedb
    from buildbot.test.fake import fakemaster
    from buildbot.test.reactor import TestReactorMixin
import pytest
from sqlalchemy import event
from twisted.trial import unittest

from master.shaman.builds import builds
from master.shaman.forms import BuildState
from master.storage.database import Index

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files

KEY = "ceph-deb-jammy-x86_64-default/" + "a" * 40
OTHER = "ceph-deb-noble-x86_64-default/" + "a" * 40
UI = "http://localhost:8080/"


class TestBuilds(TestReactorMixin, unittest.TestCase):
    """The states of builds of package_keys."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self, wantDb=True)
        self.master.config.buildbotURL = UI
        await self.master.db.insert_test_data(
            [
                fakedb.Master(id=1), fakedb.Worker(id=1, name="w"), fakedb.Builder(id=7, name="b"),
                fakedb.SourceStamp(id=3),
            ]
        )  # fmt: skip
        self.number = 0

    async def request(self, key: str, results: int = -1, *tries: Any) -> None:
        """Put a buildset into the database with one request, complete if it has a result, and its builds."""
        self.number += 1
        number, complete = self.number, int(results != -1)
        at = 1000 * number
        done = {"complete": complete, "results": results, "complete_at": at + 900 if complete else None}
        rows = [
            fakedb.Buildset(id=number, external_idstring=key, submitted_at=at, **done),
            fakedb.BuildsetSourceStamp(buildsetid=number, sourcestampid=3),
            fakedb.BuildRequest(id=number + 20, buildsetid=number, builderid=7, submitted_at=at, **done),
        ]
        for count, result in enumerate(tries, 1):
            rows.append(
                fakedb.Build(
                    id=100 * number + count, number=50 * number + count, buildrequestid=number + 20, builderid=7,
                    masterid=1, workerid=1, started_at=at + 100 * count, results=result,
                    complete_at=None if result is None else at + 100 * count + 50,
                )
            )  # fmt: skip
        await self.master.db.insert_test_data(rows)

    async def told(self, *keys: str) -> list[BuildState]:
        return await builds(self.master, keys or [KEY, OTHER])

    async def test_a_key_is_found_by_its_index(self) -> None:
        """Our index is made once, and the very queries that find buildsets of keys use it."""
        asked: list[tuple[str, Any]] = []
        engine = self.master.db.pool.engine

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            asked.append((statement, parameters))

        event.listen(engine, "before_cursor_execute", note)
        await self.told()
        event.remove(engine, "before_cursor_execute", note)
        asked = [one for one in asked if KEY in one[1]]
        assert asked

        def indexed(connection: Any) -> list[bool]:
            plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {one}", given) for one, given in asked]
            return ["buildpackages_keys" in str(plan.fetchall()) for plan in plans]

        assert not any(await self.master.db.pool.do(indexed))
        for _ in range(2):
            index = Index()
            await index.setServiceParent(self.master)
            await index.startService()
            await index.disownServiceParent()
        assert all(await self.master.db.pool.do(indexed))

    async def test_nothing_is_known(self) -> None:
        """A package_key that nobody asked for has no build, whatever else was built."""
        await self.request("ceph-deb-jammy-x86_64-default/" + "b" * 40)
        await self.request("")
        assert await self.told() == []

    async def test_queued(self) -> None:
        """A request without a build is queued since it was asked, and shown by its own page."""
        await self.request(KEY)
        assert await self.told() == [BuildState(KEY, "queued", f"{UI}#/buildrequests/21", None, None, 1000)]

    async def test_started(self) -> None:
        """A build that runs has begun, and is shown by its page."""
        await self.request(KEY, -1, None)
        page = f"{UI}#/builders/7/builds/51"
        assert await self.told() == [BuildState(KEY, "started", page, 1100, None, 1100)]

    async def test_between_two_tries(self) -> None:
        """A request whose build ended without its own end is in the queue again."""
        await self.request(KEY, -1, RETRY)
        assert [state.status for state in await self.told()] == ["queued"]

    async def test_the_newest_try_counts(self) -> None:
        """Of several builds of a request, the last one is told."""
        await self.request(KEY, -1, RETRY, RETRY, None)
        page = f"{UI}#/builders/7/builds/53"
        assert await self.told() == [BuildState(KEY, "started", page, 1300, None, 1300)]

    async def test_how_requests_end(self) -> None:
        """Success is completed, and all that ended in another way has failed."""
        for results, status in (
            (SUCCESS, "completed"), (WARNINGS, "completed"),
            (FAILURE, "failed"), (EXCEPTION, "failed"), (CANCELLED, "failed"),
        ):  # fmt: skip
            await self.request(KEY, results, results)
            at = 1000 * self.number
            page = f"{UI}#/builders/7/builds/{50 * self.number + 1}"
            assert await self.told() == [BuildState(KEY, status, page, at + 100, at + 900, at + 900)]

    async def test_cancelled_before_it_began(self) -> None:
        """A request that was withdrawn in the queue has failed, without ever having begun."""
        await self.request(KEY, CANCELLED)
        assert await self.told() == [BuildState(KEY, "failed", f"{UI}#/buildrequests/21", None, 1900, 1900)]

    async def test_the_newest_request_of_each_key_counts(self) -> None:
        """What was asked for anew after a failure is as the new request is; each key by itself."""
        await self.request(KEY, FAILURE, FAILURE)
        await self.request(OTHER, FAILURE, FAILURE)
        await self.request(KEY)
        states = {state.package_key: state.status for state in await self.told()}
        assert states == {KEY: "queued", OTHER: "failed"}
        assert [state.package_key for state in await self.told(OTHER)] == [OTHER]
