"""One answer for everybody who asks for the same package: published, on its way, or asked for now."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from buildbot.data.resultspec import Filter
from buildbot.process.properties import Properties
from twisted.internet.defer import DeferredLock

from model.package_key import PackageKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from master.publishing.publisher import Publisher
    from master.requests.commits import Commits
    from master.requests.waiting import Waiter, Waiting


_UNVERIFIED = "no branch or tag of the project's own repository is known to have been at this commit when it was requested"


@dataclass(frozen=True)
class Ask:
    """One request for one package_key, validated and resolved."""

    key: PackageKey
    git_url: str
    ref: str
    owner: str
    reason: str
    job: str = ""
    """The program's run that waits, if a program asks."""
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """`good_machine` and `min_machine`, as far as they were given; the first to ask decides."""
    link: str = ""
    """The URL of the link that the ref gets, or why it gets none; shown with the build."""
    commit_field: str = "sha1"
    """The field of the request that names the commit."""
    linked_ref: str = ""
    """The ref, if it gets a link; recorded in the manifest."""
    reachable_from: str = ""
    """The ref, if the project's own repository has it at this commit; recorded in the manifest."""


@dataclass(frozen=True)
class Answer:
    """What an asker is told: the state, where the packages are or will be, and what to follow."""

    package_key: str
    state: Literal["published", "on its way"]
    url: str
    buildset_id: int | None
    buildrequest_ids: dict[int, int]
    """Builder id to buildrequest id, as Buildbot gives them."""
    link: str = ""
    """The URL of the `ref/` link that leads to the packages once they are published; empty if there is none."""
    no_link: str = ""
    """Why there is none."""

    def as_json(self) -> dict[str, Any]:
        """Give the answer as the REST API does."""
        return asdict(self)


class TooMany(RuntimeError):
    """Somebody has as many requests on their way as one user may have."""


class AddBuildset(Protocol):
    """Puts a new buildset for a package_key into the queue."""

    def __call__(self, ask: Ask, properties: Properties) -> Awaitable[tuple[int, dict[int, int]]]:
        """Give the ids of the buildset and, for each builder, of the buildrequest."""


class Ensure:
    """Answers for package_keys, and has at most one build of each in the queue.

    The lock is of this process: there is one master with this scheduler.
    """

    def __init__(
        self,
        master: Any,
        publisher: Publisher,
        waiting: Waiting,
        commits: Commits,
        add_buildset: AddBuildset,
        *,
        most: Callable[[], int],
    ) -> None:
        """Start without requests. `most` returns how many of them one user may have open; 0 is no limit."""
        self._most = most
        self._master = master
        self._publisher = publisher
        self._waiting = waiting
        self._commits = commits
        self._add_buildset = add_buildset
        self._lock = DeferredLock()

    async def ensure(self, ask: Ask) -> Answer:
        """Return the answer for a request; add a buildset if the key is neither published and complete nor requested.

        Raises CommitUnknown or RepositoryUnreachable if the commit cannot be built, TooMany if the asker has enough of them.
        """
        published = await self._published(ask.key)
        if published:
            return published
        # Before the lock: a repository may be slow, and must not delay requests for other keys.
        is_settled = self._commits.is_settled(ask.git_url, ask.key.sha1)
        if not is_settled and not await self._on_its_way(ask.key):
            await self._commits.check(ask.git_url, ask.key.sha1)
        await self._lock.acquire()
        try:
            # In this order: what has left the queue meanwhile is on the disk by then.
            answer = await self._joined(ask) or await self._published(ask.key)
            if answer is None:
                self._check_number(ask.owner)
                answer = self._queued(ask.key, *await self._add_buildset(ask, _properties(ask)))
                for request in answer.buildrequest_ids.values():
                    await self._waiting.add(request, ask.owner, ask.job, ask.git_url)
            return answer
        finally:
            self._lock.release()

    def _check_number(self, asker: str) -> None:
        most, number = self._most(), self._waiting.requests_of(asker)
        if 0 < most <= number:
            raise TooMany(
                f"{asker} waits for {number} requests already, and one user may have {most} on their way"
                " (setting requests.per_user): wait for some of them to end, or withdraw them"
            )

    async def withdraw(self, request: int, asker: str, job: str) -> tuple[bool, list[Waiter]]:
        """Forget one who waited; cancel the buildrequest if he was the last. Give whether, and who is left.

        Under the lock: nobody is told that it is on its way between the look and the cancellation.
        """
        await self._lock.acquire()
        try:
            found = await self._master.db.buildrequests.getBuildRequest(request)
            # Nothing is awaited from here until it is told to end.
            known = self._waiting.remove(request, asker, job)
            left = self._waiting.of(request)
            cancelled = known and not left and found is not None and not found.complete
            who = f"{asker} (job {job})" if job else asker
            if known:
                reason = f"{who} has withdrawn, and nobody else waits" if cancelled else ""
                await self._waiting.withdrawn(request, reason)
            return cancelled, left
        finally:
            self._lock.release()

    async def _published(self, key: PackageKey) -> Answer | None:
        record = await self._publisher.published(key)
        if record is None:
            return None
        buildset_id, requests = record.get("buildset_id"), {}
        buildset = None
        if isinstance(buildset_id, int):
            buildset = await self._master.db.buildsets.getBuildset(buildset_id)
        # The database may be another than the one that the record speaks of.
        if buildset is None or buildset.external_idstring != str(key):
            buildset_id = None
        else:
            requests = await self._buildrequests(buildset_id)
        url = self._publisher.url(key)
        return Answer(str(key), "published", url, buildset_id, requests)

    async def _joined(self, ask: Ask) -> Answer | None:
        """Have a request wait for a build that others requested, if one takes it."""
        for answer in await self._on_its_way(ask.key):
            joins = [
                await self._waiting.join(request, ask.owner, ask.job, ask.git_url)
                for request in answer.buildrequest_ids.values()
            ]
            if all(joins):
                return answer
        return None

    async def _on_its_way(self, key: PackageKey) -> list[Answer]:
        answers = []
        found = await self._master.data.get(
            ("buildsets",),
            filters=[
                Filter("external_idstring", "eq", [str(key)]),
                Filter("complete", "eq", [False]),
            ],
        )
        for buildset in found:
            # A buildset is completed after its buildrequests: whoever saw his end may ask meanwhile.
            unfinished = await self._master.db.buildrequests.getBuildRequests(
                bsid=buildset["bsid"], complete=False
            )
            if any(not self._waiting.is_ending(request.buildrequestid) for request in unfinished):
                requests = await self._buildrequests(buildset["bsid"])
                answers.append(self._queued(key, buildset["bsid"], requests))
        return answers

    def _queued(self, key: PackageKey, buildset_id: int, requests: dict[int, int]) -> Answer:
        return Answer(str(key), "on its way", self._publisher.url(key), buildset_id, requests)

    async def _buildrequests(self, buildset_id: int | None) -> dict[int, int]:
        found = await self._master.db.buildrequests.getBuildRequests(bsid=buildset_id)
        return {request.builderid: request.buildrequestid for request in found}


def _properties(ask: Ask) -> Properties:
    properties = Properties()
    for name, value in (
        ("package_key", str(ask.key)),
        ("git_url", ask.git_url),
        ("ref", ask.ref),
        ("owner", ask.owner),
        ("reason", ask.reason),
        ("ref_link", ask.link),
        ("linked_ref", ask.linked_ref),
        ("reachable_from", ask.reachable_from),
        ("unverified", "" if ask.reachable_from else _UNVERIFIED),
        *ask.sizes.items(),
    ):
        properties.setProperty(name, value, "packages")
    return properties
