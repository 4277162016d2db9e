"""Hundreds that wait, and hundreds that ask how far they are: what it costs the database."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.mq.simple import SimpleMQ
    from buildbot.process.results import RETRY, SUCCESS
    from buildbot.test import fakedb
    from buildbot.test.fake import fakemaster
    from buildbot.test.reactor import TestReactorMixin
import pytest
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.trial import unittest

from master.requests.progress import Progress
from master.requests.turns import Turns
from master.requests.waiting import Waiting

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files

KEY = "ceph-deb-jammy-x86_64-default/" + "a" * 40
MANY = 40


class TestMany(TestReactorMixin, unittest.TestCase):
    """Many requests in line, and the queries that are made for them."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self, wantDb=True, wantData=True)
        self.master.mq = SimpleMQ()
        self.master.config.buildbotURL = "http://localhost:8080/"
        self.master.workers = SimpleNamespace(workers={"w": SimpleNamespace(takes_builds=True)})
        rows = [
            fakedb.Master(id=1), fakedb.Worker(id=1, name="w"), fakedb.Builder(id=7, name="b"),
            fakedb.SourceStamp(id=3),
        ]  # fmt: skip
        for number in range(1, MANY + 1):
            rows += [
                fakedb.Buildset(id=number),
                fakedb.BuildsetSourceStamp(buildsetid=number, sourcestampid=3),
                fakedb.BuildsetProperty(
                    buildsetid=number, property_name="package_key", property_value=f'["{KEY}", "packages"]'
                ),
                fakedb.BuildRequest(id=number, buildsetid=number, builderid=7),
            ]
        await self.master.db.insert_test_data(rows)
        waiting = Waiting()
        await waiting.setServiceParent(self.master)
        await waiting.startService()
        self.addCleanup(waiting.stopService)
        turns = Turns()
        await turns.setServiceParent(self.master)
        await turns.startService()
        publisher: Any = SimpleNamespace(url=lambda key: f"http://localhost:8081/{key}/")
        self.progress = Progress(self.master, publisher, waiting, turns)
        self.queries = 0
        self.let_go: list[Deferred[None]] = []
        buildrequests = self.master.db.buildrequests
        self.get = buildrequests.getBuildRequests
        buildrequests.getBuildRequests = self.counted

    async def counted(self, **which: Any) -> Any:
        """Count readings of the whole line, each of which ends when the test says so."""
        self.queries += 1
        gone: Deferred[None] = Deferred()
        self.let_go.append(gone)
        await gone
        return await self.get(**which)

    def go_on(self) -> None:
        while self.let_go:
            self.let_go.pop().callback(None)

    async def test_the_line_is_read_once_for_all_in_it(self) -> None:
        """What is told of everybody costs one reading of the line, not one for each."""
        asked = ensureDeferred(self.progress.on_their_way())
        self.go_on()
        found = await asked
        assert [one.buildrequest_id for one in found] == list(range(1, MANY + 1))
        assert found[-1].reason == f"waits in line; {MANY - 1} are before it"
        assert self.queries == 1

    async def test_all_who_ask_meanwhile_share_the_next_reading(self) -> None:
        """Hundreds who ask at once cost two readings; none is told of a time before he asked."""
        first = ensureDeferred(self.progress.on_their_way())
        others = gatherResults([ensureDeferred(self.progress.on_their_way()) for _ in range(MANY)])
        await self.master.db.buildrequests.completeBuildRequests([1], SUCCESS)
        self.go_on()
        assert len(await first) == MANY - 1
        self.go_on()
        assert [len(found) for found in await others] == [MANY - 1] * MANY
        assert self.queries == 2

    async def test_all_who_ask_for_one_share_the_line(self) -> None:
        """Hundreds who follow a request each do not have the line read for each of them."""
        asked = gatherResults([ensureDeferred(self.progress.of(number)) for number in range(1, MANY + 1)])
        self.go_on()
        assert all(found is not None and found.time_left is None for found in await asked)
        assert self.queries == 1
        self.reactor.advance(1.5)
        again = ensureDeferred(self.progress.of(2))
        self.go_on()
        found = await again
        assert found is not None
        assert found.reason == "waits in line; 1 is before it"
        assert self.queries == 2

    async def build(self, results: int) -> str:
        """Give the reason that a request is told to wait for, whose only build has ended."""
        await self.master.db.insert_test_data(
            [
                fakedb.Build(
                    id=1, number=1, buildrequestid=1, builderid=7, masterid=1, workerid=1, started_at=5,
                    complete_at=50, results=results, state_string="it ended",
                )
            ]
        )  # fmt: skip
        asked = ensureDeferred(self.progress.of(1))
        self.go_on()
        found = await asked
        assert found is not None
        return found.reason

    async def test_a_try_that_failed_is_followed_by_another(self) -> None:
        """A build that ended for its machine is told of, and that the request waits again."""
        assert await self.build(RETRY) == "it ended; it is tried again, and waits for a free worker"

    async def test_what_has_ended_is_not_tried_again(self) -> None:
        """Between the end of a build and that of its request nobody is told that another build follows."""
        assert await self.build(SUCCESS) == "it ended"

    async def test_a_target_that_is_in_the_matrix_no_more_is_told_of(self) -> None:
        """A request of before an update may be for a distribution that is gone; it fails neither itself nor the list."""
        gone, number = "ceph-deb-focal-x86_64-default/" + "a" * 40, MANY + 1
        await self.master.db.insert_test_data(
            [
                fakedb.Buildset(id=number),
                fakedb.BuildsetSourceStamp(buildsetid=number, sourcestampid=3),
                fakedb.BuildsetProperty(
                    buildsetid=number, property_name="package_key", property_value=f'["{gone}", "packages"]'
                ),
                fakedb.BuildRequest(id=number, buildsetid=number, builderid=7),
            ]
        )
        asked = ensureDeferred(self.progress.on_their_way())
        self.go_on()
        assert [(one.package_key, one.url, one.state) for one in await asked][MANY:] == [
            (gone, "", "waiting")
        ]
        await self.master.db.buildrequests.completeBuildRequests([number], SUCCESS)
        found = await self.progress.of(number)
        assert found is not None
        assert (found.package_key, found.url, found.state) == (gone, "", "published")
