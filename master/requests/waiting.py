"""Who waits for what is on its way: asker, job, and since when; and when nobody does any more.

An asker with a job is a program: it says every few minutes that it still waits, and is forgotten once it
went silent. One without a job is a person, who waits until the end, or withdraws.
"""

# mypy: allow-untyped-calls
# Buildbot's services are annotated in part only.

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from buildbot.util.service import BuildbotService
from buildbot.util.state import StateMixin
from buildbot.util.twisted import async_to_deferred
from twisted.internet.defer import DeferredLock, ensureDeferred
from twisted.python import log

from master.requests.waiter_rows import WaiterRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SILENCE = 600
"""Seconds after which a job that did not say that it still waits is forgotten."""

MOST_GIT_URLS = 10
"""Repositories that those who wait for one buildrequest may name: the build tries one after the other, and each may be silent."""

MOST_JOBS = 1000
"""Most jobs of one asker for one buildrequest: a whole suite of teuthology waits for the same packages."""

MOST_JOBS_OF_ALL = 5000
"""Most jobs of one asker for all buildrequests together."""

MOST_TOLD = 20
"""Waiters that are named to whoever looks; of the others, the number is told."""
_MOST_ORPHANS = 1000
"""Requests that lost their builder; the oldest are forgotten."""
_MOST_REASON = 500

_ALL_IN_ONE = "waiters"
"""The one row in which earlier versions kept all waiters. It is read once, and emptied."""
_ENDING = "ending"
_ORPHANS = "orphans"
_CONTROL = ("control", "buildrequests")


@dataclass(frozen=True)
class Waiter:
    """One who waits: times in seconds since the epoch."""

    asker: str
    job: str
    since: float
    heard: float
    git_urls: tuple[str, ...] = ()
    """The repositories that its requests named."""

    def as_json(self) -> dict[str, Any]:
        """Return it as the REST API tells it."""
        return {"asker": self.asker, "job": self.job, "since": self.since}

    def __str__(self) -> str:
        """Name the asker, and the job if there is one."""
        return f"{self.asker} (job {self.job})" if self.job else self.asker


def told(waiters: Sequence[Waiter]) -> str:
    """Name those who wait; of very many, the first and how many more."""
    names = [str(waiter) for waiter in waiters[:MOST_TOLD]]
    more = len(waiters) - len(names)
    return ", ".join([*names, f"{more} more"] if more else names)


def told_json(waiters: Sequence[Waiter]) -> dict[str, Any]:
    """Return those who wait as the REST API tells them; of very many, the first and how many more."""
    named = waiters[:MOST_TOLD]
    return {"waiting": [one.as_json() for one in named], "waiting_more": len(waiters) - len(named)}


class Waiters:
    """For each buildrequest, in the order of asking, who waits for it; knows no clock of its own."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._of: dict[int, dict[tuple[str, str], Waiter]] = {}
        self._jobs: Counter[str] = Counter()
        """Number of jobs of each asker, for all buildrequests."""

    def add(self, request: int, asker: str, job: str, now: float, git_url: str = "") -> bool:
        """Take note of one who waits, or still waits; True if he was not known, or did not name this repository before.

        Of an asker with too many jobs, the one that was heard of longest ago gives way.
        """
        known = self._of.setdefault(request, {})
        waiter = known.get((asker, job))
        before = waiter.git_urls if waiter else ()
        git_urls = before if git_url in ("", *before) else (*before, git_url)
        if waiter is not None and _is_silent(waiter, now):
            self.remove(request, asker, job)
            waiter = None
        if waiter is None and job:
            self._make_room(request, asker)
            self._jobs[asker] += 1
        known[asker, job] = Waiter(asker, job, waiter.since if waiter else now, now, git_urls)
        return waiter is None or git_urls != before

    def _make_room(self, request: int, asker: str) -> None:
        """Forget the most silent job of an asker who has too many, of this buildrequest or of all."""
        known = self._of[request]
        if (
            len(known) >= MOST_JOBS
            and sum(one.asker == asker and one.job != "" for one in known.values()) >= MOST_JOBS
        ):
            among = [request]
        elif self._jobs[asker] >= MOST_JOBS_OF_ALL:
            among = list(self._of)
        else:
            return
        jobs = [
            (one.heard, number, one.job)
            for number in among
            for one in self._of[number].values()
            if one.asker == asker and one.job
        ]
        _, number, job = min(jobs)
        self.remove(number, asker, job)

    def remove(self, request: int, asker: str, job: str) -> bool:
        """Forget one; True if he was known."""
        known = self._of.get(request, {}).pop((asker, job), None) is not None
        if known and job:
            self._jobs[asker] -= 1
        return known

    def knows(self, request: int, asker: str, job: str) -> bool:
        """Return whether a job has requested and not withdrawn. A job that was forgotten may come back and wait again."""
        return (asker, job) in self._of.get(request, {})

    def of(self, request: int, now: float) -> list[Waiter]:
        """Give those who wait, without those that went silent."""
        return [waiter for waiter in self._of.get(request, {}).values() if not _is_silent(waiter, now)]

    def git_urls(self, request: int, now: float) -> list[str]:
        """Return the repositories that those who wait have named, each once, in the order of the requests."""
        return list(dict.fromkeys(url for waiter in self.of(request, now) for url in waiter.git_urls))

    def end(self, request: int) -> bool:
        """Forget all who waited for a request; True if there were any."""
        gone = self._of.pop(request, {})
        self._jobs -= Counter(one.asker for one in gone.values() if one.job)
        return bool(gone)

    def requests_of(self, asker: str) -> int:
        """Return for how many buildrequests somebody waits."""
        return sum(any(one == asker for one, _ in known) for known in self._of.values())

    def rows(self, request: int, now: float) -> list[dict[str, Any]]:
        """Return those who wait for a request, for the database."""
        return [asdict(waiter) for waiter in self.of(request, now)]

    def load(self, request: int, rows: Iterable[dict[str, Any]], now: float) -> None:
        """Add the rows that were kept of a request; all count as heard of now, since nobody could renew before."""
        for row in rows:
            asker, job = row["asker"], row["job"]
            self.add(request, asker, job, now)
            self._of[request][asker, job] = Waiter(
                asker, job, row["since"], now, tuple(row.get("git_urls", ()))
            )


def _is_silent(waiter: Waiter, now: float) -> bool:
    return bool(waiter.job) and now - waiter.heard > SILENCE


class Waiting(StateMixin, BuildbotService):
    """The service that knows who waits; it survives the master, and shows it on the build's page.

    It also knows what was told to end, by whichever way: that is no answer to anybody any more, nor to be tried again,
    though the master should be killed before it has ended.
    """

    name = "waiting"

    async def startService(self) -> None:
        """Remember who waited for what is still on its way, and follow what ends."""
        assert self.master is not None
        await super().startService()
        self._waiters = Waiters()
        self._closed: set[int] = set()
        self._writing = DeferredLock()
        self._unwritten: set[int] = set()
        found = await self.master.db.buildrequests.getBuildRequests(complete=False)
        pending = {request.buildrequestid for request in found}
        await self._load(pending)
        self._kept = await self.getState(_ENDING, {})
        self._ending = {int(number): said for number, said in self._kept.items() if int(number) in pending}
        self._consumers = [
            await self.master.mq.startConsuming(self._ended, ("buildrequests", None, "complete")),
            await self.master.mq.startConsuming(self._begun, ("builds", None, "new")),
            await self.master.mq.startConsuming(self._cancelled, (*_CONTROL, None, "cancel")),
            await self.master.mq.startConsuming(self._stopped, ("control", "builds", None, "stop")),
            await self.master.mq.startConsuming(self._unclaimed, ("buildrequests", None, "unclaimed")),
        ]
        self._orphans = {
            int(number): reason for number, reason in (await self.getState(_ORPHANS, {})).items()
        }
        await self._end_orphans(found)
        for number, reason in tuple(self._ending.items()):
            self.cancel(number, reason)

    async def _load(self, pending: set[int]) -> None:
        """Remember who waited for what is pending still, and remove the rows of what is not."""
        assert self.master is not None
        objects = await self.master.db.state.getObjectId(self.name, type(self).__qualname__)
        self._rows = WaiterRows(self.master.db, objects)
        kept = await self._rows.load()
        in_one: dict[str, Any] = await self.getState(_ALL_IN_ONE, {})
        for number, rows in in_one.items():
            kept[int(number)] = rows
            await self._rows.write(int(number), rows)
        if in_one:
            await self.setState(_ALL_IN_ONE, {})
        for request in pending & set(kept):
            self._waiters.load(request, kept[request], self._now())
        await self._rows.remove(set(kept) - pending)

    async def _end_orphans(self, requests: Iterable[Any]) -> None:
        """Mark requests without a configured builder as ending, because nothing would ever build them.

        A reload keeps all builders, so this happens only if a target was taken out of the settings of a stopped master.
        """
        assert self.master is not None
        configured = {builder.name for builder in self.master.config.builders}
        before = len(self._orphans)
        for request in requests:
            if request.buildername not in configured:
                self._orphans[request.buildrequestid] = self._ending[request.buildrequestid] = (
                    f"the master was started with {request.buildername} off; the request had waited in its queue"
                )
        if len(self._orphans) > before:
            for number in sorted(self._orphans)[:-_MOST_ORPHANS]:
                del self._orphans[number]
            await self.setState(_ORPHANS, {str(number): reason for number, reason in self._orphans.items()})

    @async_to_deferred
    async def stopService(self) -> None:
        """Follow nothing any more."""
        for consumer in self._consumers:
            consumer.stopConsuming()
        self._consumers = []
        await super().stopService()

    def of(self, request: int) -> list[Waiter]:
        """Give those who wait for a buildrequest."""
        return self._waiters.of(request, self._now())

    def requests_of(self, asker: str) -> int:
        """Return for how many buildrequests somebody waits."""
        return self._waiters.requests_of(asker)

    def knows(self, request: int, asker: str, job: str) -> bool:
        """Return whether an asker with this job has requested a buildrequest and not withdrawn."""
        return self._waiters.knows(request, asker, job)

    def orphaned(self, request: int) -> str:
        """Return why a buildrequest was cancelled if it lost its builder while the master was stopped, else an empty string."""
        return str(self._orphans.get(request, ""))

    def is_ending(self, request: int) -> bool:
        """Whether a buildrequest that is not complete yet was told to end."""
        return request in self._ending

    def cancel(self, request: int, reason: str) -> None:
        """Tell a buildrequest to end; from now on it is ending."""
        assert self.master is not None
        self.master.mq.produce((*_CONTROL, str(request), "cancel"), {"reason": reason})

    async def add(self, request: int, asker: str, job: str, git_url: str = "") -> bool:
        """Take note of one who waits, and return when it is kept; who is known already costs nothing.

        Returns False if the buildrequest has ended meanwhile.
        """
        if self._waiters.add(request, asker, job, self._now(), git_url):
            await self._changed(request)
            assert self.master is not None
            found = await self.master.db.buildrequests.getBuildRequest(request)
            if found is None or found.complete:
                # It ended while he came: nobody will say so again.
                self._waiters.end(request)
                return False
        return True

    async def join(self, request: int, asker: str, job: str, git_url: str) -> bool:
        """Add one who waits for a buildrequest of others. Return False if its failure would be no answer for this repository."""
        known = self._waiters.git_urls(request, self._now())
        if request in self._closed or (git_url not in known and len(known) >= MOST_GIT_URLS):
            return False
        return await self.add(request, asker, job, git_url)

    def next_git_url(self, requests: Sequence[int], tried: Iterable[str]) -> str:
        """Return a repository that somebody who waits has named, and that is not among the tried ones.

        If there is none, return an empty string. The build then fails, so nobody can join the buildrequests from now on.
        """
        known = [url for request in requests for url in self._waiters.git_urls(request, self._now())]
        untried = [url for url in known if url not in tried]
        if not untried:
            self._closed.update(requests)
        return untried[0] if untried else ""

    def remove(self, request: int, asker: str, job: str) -> bool:
        """Forget one, which `withdrawn` keeps; True if he was known."""
        return self._waiters.remove(request, asker, job)

    async def withdrawn(self, request: int, reason: str) -> None:
        """Keep who was removed; with a reason, tell the buildrequest to end, which from now on it does."""
        if reason:
            self._ending[request] = reason
        await self._changed(request)
        if reason:
            self.cancel(request, reason)

    def _now(self) -> float:
        assert self.master is not None
        return float(self.master.reactor.seconds())

    async def _changed(self, request: int) -> None:
        await self._keep(request)
        assert self.master is not None
        for build in await self.master.db.builds.getBuilds(buildrequestid=request, complete=False):
            await self._show(request, build.id)

    async def _keep(self, request: int) -> None:
        """Write what is known of a buildrequest; many who come for the same one at once are served by one or two writings."""
        self._unwritten.add(request)
        await self._writing.acquire()
        try:
            if request in self._unwritten:
                self._unwritten.remove(request)
                await self._rows.write(request, self._waiters.rows(request, self._now()))
            ending = {str(number): reason for number, reason in self._ending.items()}
            if ending != self._kept:
                await self.setState(_ENDING, ending)
                self._kept = ending
        finally:
            self._writing.release()

    async def _show(self, request: int, build: int) -> None:
        assert self.master is not None
        names = told(self.of(request)) or "nobody"
        await self.master.data.updates.setBuildProperty(build, "waiting", names, "packages")

    def _begun(self, _: Any, build: dict[str, Any]) -> None:
        request = build["buildrequestid"]
        if self.of(request):
            showing = ensureDeferred(self._show(request, build["buildid"]))
            showing.addErrback(lambda failure: log.err(failure, "while showing who waits"))

    @async_to_deferred
    async def _cancelled(self, key: tuple[str, ...], message: dict[str, Any]) -> None:
        """Take note at once; of what is over already, nobody will say that it ended."""
        assert self.master is not None
        request = int(key[2])
        self._ending[request] = _reason(message)
        found = await self.master.db.buildrequests.getBuildRequest(request)
        if found is None or found.complete:
            self._ending.pop(request, None)
        await self._keep(request)

    @async_to_deferred
    async def _stopped(self, key: tuple[str, ...], message: dict[str, Any]) -> None:
        """Take note that the request of a build that is told to stop ends with it, unless the build is over."""
        assert self.master is not None
        build = await self.master.db.builds.getBuild(int(key[2]))
        if build is not None and build.complete_at is None:
            self._ending[build.buildrequestid] = _reason(message)
            await self._keep(build.buildrequestid)

    def _unclaimed(self, _: Any, request: dict[str, Any]) -> None:
        """Cancel again what was told to end while its build ended by itself, to be tried again."""
        number = request["buildrequestid"]
        if number in self._ending:
            self.cancel(number, self._ending[number])

    def _ended(self, _: Any, request: dict[str, Any]) -> None:
        self._closed.discard(request["buildrequestid"])
        ending = self._ending.pop(request["buildrequestid"], None)
        if self._waiters.end(request["buildrequestid"]) or ending is not None:
            keeping = ensureDeferred(self._keep(request["buildrequestid"]))
            keeping.addErrback(lambda failure: log.err(failure, "while forgetting who waited"))


def _reason(message: dict[str, Any]) -> str:
    return str(message.get("reason", "no reason"))[:_MOST_REASON]
