"""Whose request is built next: rows typed by hand, properties of any queue, and the service on a real database."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from types import SimpleNamespace
from typing import Any

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.test import fakedb
    from buildbot.test.fake import fakemaster
    from buildbot.test.reactor import TestReactorMixin
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial import unittest

from master.requests.turns import Queued, Turns, in_turns, prioritize_builders

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files


def order(queue: str, building: str = "", served: str = "") -> str:
    """Return a queue of one letter for each asker's request, in turns; of a capital the priority is 1."""
    queued = [Queued(number, one.lower(), int(one.isupper())) for number, one in enumerate(queue)]
    told = in_turns(queued, Counter(building), {one: turn for turn, one in enumerate(served)})
    return "".join(queue[one.number] for one in told)


@pytest.mark.parametrize(
    ("queue", "building", "served", "expected"),
    [
        ("", "", "", ""),
        ("mmmm", "", "", "mmmm"),
        ("mmmma", "", "", "mammm"),
        ("mmmma", "m", "m", "ammmm"),
        ("mmmma", "", "m", "ammmm"),
        ("mmaabb", "", "", "mabmab"),
        ("mmaabb", "mma", "mma", "babmam"),
        ("ab", "", "ab", "ab"),
        ("ab", "", "ba", "ba"),
        ("mmmA", "aaaa", "a", "Ammm"),
        ("mAAm", "", "", "AAmm"),
    ],
)
def test_users_take_turns(queue: str, building: str, served: str, expected: str) -> None:
    """Whoever has fewest builds comes first, then whoever waited longest for a turn; priority is before all."""
    assert order(queue, building, served) == expected


@given(st.text("abcm", max_size=40), st.text("abcm", max_size=10))
def test_nobody_is_left_behind(queue: str, building: str) -> None:
    """All requests are in the order once, each asker's oldest first, and nobody gets two more turns than who waits."""
    queued = [Queued(number, one) for number, one in enumerate(queue)]
    told = in_turns(queued, Counter(building), {})
    assert sorted(one.number for one in told) == list(range(len(queue)))
    loads, left = Counter(building), Counter(queue)
    for one in told:
        assert all(loads[one.asker] <= loads[other] for other, number in left.items() if number)
        loads[one.asker] += 1
        left[one.asker] -= 1
    for asker in set(queue):
        his = [one.number for one in told if one.asker == asker]
        assert his == sorted(his)


class TestTurns(TestReactorMixin, unittest.TestCase):
    """Two builders: mallory has a build and three more requests, alice one request, the last of all."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self, wantDb=True, wantData=True)
        rows = [
            fakedb.Master(id=1), fakedb.Builder(id=7, name="one"), fakedb.Builder(id=8, name="two"),
            fakedb.Builder(id=9, name="idle"), fakedb.SourceStamp(id=3),
        ]  # fmt: skip
        for number, asker, builder in (
            (1, "mallory", 7),
            (2, "mallory", 7),
            (3, "", 7),
            (4, "mallory", 7),
            (5, "alice", 8),
        ):
            rows += [
                fakedb.Buildset(id=number),
                fakedb.BuildsetSourceStamp(buildsetid=number, sourcestampid=3),
                fakedb.BuildRequest(id=number, buildsetid=number, builderid=builder),
            ]
            if asker:
                value = json.dumps([asker, "packages"])
                rows.append(
                    fakedb.BuildsetProperty(buildsetid=number, property_name="owner", property_value=value)
                )
        rows.append(fakedb.BuildRequestClaim(brid=1, masterid=1, claimed_at=1))
        await self.master.db.insert_test_data(rows)
        self.turns = Turns()
        await self.turns.setServiceParent(self.master)
        await self.turns.startService()

    async def test_the_line_is_of_all_builders(self) -> None:
        """A running build counts for its asker and is not in the line; the master's own requests are nobody's."""
        assert await self.turns.line() == [3, 5, 2, 4]
        self.turns.serve(3)
        assert await self.turns.line() == [5, 3, 2, 4]

    async def test_builders_and_their_requests_are_in_the_order_of_turns(self) -> None:
        """The builder of the first in the line may start first; one that has nothing to do comes last."""
        await self.turns.line()
        self.turns.serve(3)
        builders = {name: SimpleNamespace(name=name) for name in ("one", "two")}
        self.master.botmaster.builders = builders
        idle = SimpleNamespace(name="idle")
        for asked in ([builders["one"], idle], [idle]):
            assert [one.name for one in await self.turns.sorted_builders(asked)] == ["two", "one", "idle"]
        requests = [SimpleNamespace(id=number) for number in (2, 3, 4)]
        assert [one.id for one in await self.turns.sorted(requests)] == [3, 2, 4]

    async def test_builders_that_are_made_before_the_services_have_no_turns(self) -> None:
        """A start logs no error: Buildbot asks for the order of the builders before it has our services."""
        services: Any = SimpleNamespace(namedServices={})
        master = SimpleNamespace(service_manager=services, botmaster=self.master.botmaster)
        self.master.botmaster.builders = {}
        builders = [SimpleNamespace(name=name) for name in ("two", "one")]
        assert await prioritize_builders(master, builders) == builders
        services.namedServices[Turns.name] = self.turns
        assert [one.name for one in await prioritize_builders(master, builders)] == ["one", "two"]
