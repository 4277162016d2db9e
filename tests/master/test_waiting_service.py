"""What was told to end, by whichever way, and who came too late: asked of a real database and queue."""

from __future__ import annotations

import json
import warnings
from typing import Any

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.config import BuilderConfig
    from buildbot.mq.simple import SimpleMQ
    from buildbot.process.factory import BuildFactory
    from buildbot.process.results import CANCELLED
    from buildbot.test import fakedb
    from buildbot.test.fake import fakemaster
    from buildbot.test.reactor import TestReactorMixin
import pytest
from twisted.trial import unittest

from master.requests.waiting import MOST_GIT_URLS, Waiting

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files


class TestWaiting(TestReactorMixin, unittest.TestCase):
    """The service, with a request that waits, one whose build runs, and one that is done."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self, wantDb=True, wantData=True)
        self.mq = self.master.mq = SimpleMQ()
        self.master.config.builders = [BuilderConfig("b", workername="w", factory=BuildFactory())]
        rows = [
            fakedb.Master(id=1), fakedb.Worker(id=1, name="w"), fakedb.Builder(id=7, name="b"),
            fakedb.SourceStamp(id=3),
        ]  # fmt: skip
        for number, complete in ((21, 0), (22, 0), (23, 1)):
            rows += [
                fakedb.Buildset(id=number),
                fakedb.BuildsetSourceStamp(buildsetid=number, sourcestampid=3),
                fakedb.BuildRequest(id=number, buildsetid=number, builderid=7, complete=complete),
            ]
        for build, request, results in ((1, 22, 5), (2, 22, None), (3, 21, 5)):
            rows.append(
                fakedb.Build(
                    id=build, number=build, buildrequestid=request, builderid=7, masterid=1, workerid=1,
                    results=results, complete_at=None if results is None else 50,
                )
            )  # fmt: skip
        await self.master.db.insert_test_data(rows)
        self.waiting = Waiting()
        await self.waiting.setServiceParent(self.master)
        await self.waiting.startService()
        self.addCleanup(lambda: self.waiting.stopService())
        self.cancelled: list[tuple[str, str]] = []
        await self.mq.startConsuming(
            lambda key, message: self.cancelled.append((key[2], message.get("reason", ""))),
            ("control", "buildrequests", None, "cancel"),
        )

    def ending(self) -> list[int]:
        return [request for request in (21, 22, 23) if self.waiting.is_ending(request)]

    async def start_again(self) -> None:
        """Start the service as the next master does, with the same database."""
        await self.waiting.stopService()
        await self.waiting.disownServiceParent()
        self.cancelled.clear()
        self.waiting = Waiting()
        await self.waiting.setServiceParent(self.master)
        await self.waiting.startService()

    async def test_a_request_without_a_builder_ends(self) -> None:
        """A target that was taken out of the settings of a stopped master leaves no request waiting, and each says why."""
        self.master.config.builders = []
        await self.start_again()
        assert self.ending() == [21, 22]
        sentence = "the master was started with b off; the request had waited in its queue"
        assert sorted(self.cancelled) == [("21", sentence), ("22", sentence)]
        for request in (21, 22):
            self.mq.produce(
                ("buildrequests", str(request), "complete"),
                {"buildrequestid": request, "results": CANCELLED},
            )
        await self.start_again()
        assert [self.waiting.orphaned(request) for request in (21, 22, 23)] == [sentence, sentence, ""]

    async def test_a_cancelled_request_is_ending_until_it_is_complete(self) -> None:
        """Whoever cancels it; and nothing is remembered of one that is over, or that there never was."""
        self.mq.produce(("control", "buildrequests", "21", "cancel"), {"reason": "enough"})
        assert self.ending() == [21]
        self.mq.produce(("control", "buildrequests", "23", "cancel"), {})
        assert self.ending() == [21]
        self.mq.produce(("buildrequests", "21", "complete"), {"buildrequestid": 21, "results": CANCELLED})
        assert self.ending() == []

    async def test_a_stopped_build_ends_its_request(self) -> None:
        """A build that runs does; one that is over, while its request waits for another, does not."""
        self.mq.produce(("control", "builds", "3", "stop"), {"reason": "too late"})
        self.mq.produce(("control", "builds", "99", "stop"), {"reason": "there is none"})
        assert self.ending() == []
        self.mq.produce(("control", "builds", "2", "stop"), {"reason": "enough"})
        assert self.ending() == [22]

    async def test_what_is_ending_is_not_tried_again(self) -> None:
        """A machine that failed just when its build was told to stop does not bring the request back."""
        self.waiting.cancel(22, "enough")
        for request in (21, 22):
            self.mq.produce(("buildrequests", str(request), "unclaimed"), {"buildrequestid": request})
        assert self.cancelled == [("22", "enough"), ("22", "enough")]

    async def test_who_comes_when_it_is_over_waits_for_nothing(self) -> None:
        """A request may end while somebody is told that it is on its way; nobody is kept in memory for that."""
        assert not await self.waiting.add(23, "alice", "run/1")
        await self.waiting.add(21, "alice", "run/1")
        assert self.waiting.of(23) == []
        assert [str(one) for one in self.waiting.of(21)] == ["alice (job run/1)"]

    async def test_b3_who_comes_after_a_failed_checkout_does_not_join(self) -> None:
        """A build hands out each named repository once. When none is left, it fails, which is no answer to those who come later."""
        await self.waiting.add(21, "mallory", "", "hers")
        assert await self.waiting.join(21, "alice", "", "ours")
        assert self.waiting.next_git_url([21], ["hers"]) == "ours"
        assert await self.waiting.join(21, "bob", "", "his"), "the build goes on"
        assert self.waiting.next_git_url([21], ["hers", "ours"]) == "his"
        assert self.waiting.next_git_url([21], ["hers", "ours", "his"]) == ""
        assert not await self.waiting.join(21, "carol", "", "another")
        assert [str(one) for one in self.waiting.of(21)] == ["mallory", "alice", "bob"]
        self.mq.produce(("buildrequests", "21", "complete"), {"buildrequestid": 21, "results": 2})
        assert await self.waiting.join(22, "carol", "", "another")

    async def test_a_build_tries_a_limited_number_of_repositories(self) -> None:
        """Whoever names one repository too many gets a build of their own, because each may be silent for minutes."""
        for number in range(MOST_GIT_URLS):
            assert await self.waiting.join(21, "mallory", "", str(number))
        assert not await self.waiting.join(21, "alice", "", "ours")
        assert await self.waiting.join(21, "alice", "", "3")

    async def test_a_master_that_was_killed_has_forgotten_no_end(self) -> None:
        """What was told to end and is not complete is told so again by the next master, and nothing else is."""
        await self.waiting.add(22, "alice", "run/1")
        assert self.waiting.remove(22, "alice", "run/1")
        await self.waiting.withdrawn(22, "enough")
        self.mq.produce(("control", "buildrequests", "21", "cancel"), {"reason": "too much"})
        self.mq.produce(("control", "buildrequests", "23", "cancel"), {})
        await self.waiting.add(21, "alice", "run/1")  # which is kept after it
        await self.start_again()
        assert self.ending() == [21, 22]
        assert sorted(self.cancelled) == [("21", "too much"), ("22", "enough")]

    async def kept(self) -> dict[str, Any]:
        """Return all that the database has of the service."""
        assert self.master is not None
        table = self.master.db.model.object_state
        found = await self.master.db.pool.do(lambda connection: connection.execute(table.select()).fetchall())
        return {row.name: json.loads(row.value_json) for row in found}

    async def test_who_comes_rewrites_only_what_he_waits_for(self) -> None:
        """A7: thousands of jobs of one request cost the waiters of another nothing; what has ended leaves no row."""
        for number in range(30):
            await self.waiting.add(21, "mallory", f"run/{number}")
        written: list[str] = []
        set_state = self.master.db.state.setState

        def see(object_id: int, name: str, value: Any) -> Any:
            written.append(name)
            return set_state(object_id, name, value)

        self.master.db.state.setState = see
        await self.waiting.add(22, "alice", "")
        assert written == ["waiters of 22"]
        assert {name: len(rows) for name, rows in (await self.kept()).items()} == {
            "waiters of 21": 30, "waiters of 22": 1,
        }  # fmt: skip
        self.mq.produce(("buildrequests", "21", "complete"), {"buildrequestid": 21})
        await self.waiting.add(22, "bob", "")  # which is written after it
        assert (await self.kept()).keys() == {"waiters of 22"}

    async def test_all_come_back_after_a_restart(self) -> None:
        """Also from the one row of earlier versions; the rows of what has ended meanwhile are removed."""
        await self.waiting.add(22, "alice", "run/1")
        row = {"asker": "carol", "job": "", "since": 1.0, "heard": 1.0}
        await self.waiting.setState("waiters", {"21": [row], "23": [row]})
        await self.start_again()
        assert [str(one) for one in self.waiting.of(22)] == ["alice (job run/1)"]
        assert [str(one) for one in self.waiting.of(21)] == ["carol"]
        assert self.waiting.of(23) == []
        assert (await self.kept()).keys() == {"waiters", "waiters of 21", "waiters of 22"}
        assert (await self.kept())["waiters"] == {}
