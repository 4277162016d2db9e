"""Turns: whose request is built next, so that one user's many requests do not hold back another user's only one."""

# mypy: allow-untyped-calls
# Buildbot's services are annotated in part only.

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NOBODY = "nobody"
"""Whose requests the images of the master itself are."""


@dataclass(frozen=True)
class Queued:
    """A request that no build has begun for."""

    number: int
    """Its buildrequest id: requests that came earlier have lower ones."""
    asker: str
    priority: int = 0


def in_turns(
    queued: Iterable[Queued], building: Mapping[str, int], served: Mapping[str, int]
) -> list[Queued]:
    """Return requests in the order in which they get workers, if none comes and no build ends meanwhile.

    The highest priority comes first. Among equals it is the turn of the asker with the fewest builds, `building`, and
    among these of the one whose last turn, `served`, was the earliest. Each asker's own requests go oldest first.
    """
    groups: defaultdict[int, defaultdict[str, list[Queued]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(queued, key=lambda one: one.number, reverse=True):
        groups[one.priority][one.asker].append(one)  # the oldest at the end, where pop() takes it
    loads, last = Counter(building), dict(served)
    turn = max(last.values(), default=0)
    order: list[Queued] = []
    for priority in sorted(groups, reverse=True):
        of_asker = groups[priority]

        def entry(asker: str, of_asker: Mapping[str, list[Queued]] = of_asker) -> tuple[int, int, int, str]:
            return loads[asker], last.get(asker, -1), of_asker[asker][-1].number, asker

        heap = [entry(asker) for asker in of_asker]
        heapq.heapify(heap)
        while heap:
            asker = heapq.heappop(heap)[-1]
            order.append(of_asker[asker].pop())
            turn += 1
            loads[asker] += 1
            last[asker] = turn
            if of_asker[asker]:
                heapq.heappush(heap, entry(asker))
    return order


class Turns(BuildbotService):
    """Puts the queue of all builders in the order of turns. Who had the last turns is forgotten with the process."""

    name = "turns"

    @async_to_deferred
    async def startService(self) -> None:
        """Start with nobody served."""
        await super().startService()
        self._served: dict[str, int] = {}
        self._turn = 0
        self._askers: dict[int, str] = {}

    async def line(self, pending: Sequence[Any] | None = None) -> list[int]:
        """Return the ids of the buildrequests that no build has begun for, in the order of turns.

        `pending` is all that is not complete, as the database has it; it is read unless it is given.
        """
        assert self.master is not None
        db = self.master.db
        if pending is None:
            pending = await db.buildrequests.getBuildRequests(complete=False)
        askers: dict[int, str] = {}
        for request in pending:
            number = request.buildrequestid
            asker = self._askers.get(number)
            if asker is None:
                stored = await db.buildsets.getBuildsetProperties(request.buildsetid)
                asker = str(stored.get("owner", (_NOBODY, ""))[0])
            askers[number] = asker
        self._askers = askers
        building = Counter(askers[request.buildrequestid] for request in pending if request.claimed)
        queued = (
            Queued(request.buildrequestid, askers[request.buildrequestid], request.priority)
            for request in pending
            if not request.claimed
        )
        return [one.number for one in in_turns(queued, building, self._served)]

    async def sorted(self, requests: Iterable[Any]) -> list[Any]:
        """Return one builder's requests, as Buildbot's `nextBuild` gets them, in the order of turns."""
        order = {number: place for place, number in enumerate(await self.line())}
        return sorted(requests, key=lambda one: (order.get(one.id, inf), one.id))

    def serve(self, request: int) -> None:
        """Note that a buildrequest of the line gets a worker: its asker has had a turn."""
        self._turn += 1
        # One that was cancelled a moment ago is in no line any more.
        self._served[self._askers.get(request, _NOBODY)] = self._turn

    async def sorted_builders(self, builders: Sequence[Any]) -> list[Any]:
        """Return these builders and all others that have requests, in the order of their first requests' turns.

        When a build ends, Buildbot asks about its builder before all others. That one would take the free worker, if
        it was not preceded by the builder whose turn it is.
        """
        assert self.master is not None
        pending = await self.master.db.buildrequests.getBuildRequests(complete=False)
        builder_of = {request.buildrequestid: request.buildername for request in pending}
        first: dict[str, int] = {}
        for place, number in enumerate(await self.line(pending)):
            first.setdefault(builder_of[number], place)
        known = self.master.botmaster.builders
        found = {name: known[name] for name in first if name in known}
        found |= {one.name: one for one in builders}
        return sorted(found.values(), key=lambda one: (first.get(one.name, inf), one.name))


@async_to_deferred
async def prioritize_builders(master: Any, builders: Sequence[Any]) -> list[Any]:
    """Return `c["prioritizeBuilders"]`'s answer: which builder may start a build first."""
    turns: Turns | None = master.service_manager.namedServices.get(Turns.name)
    if turns is None:  # At a start, Buildbot makes the builders before the services. No worker is there yet.
        return list(builders)
    return await turns.sorted_builders(builders)
