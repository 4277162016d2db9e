"""Checks, when packages are requested, that the repository has the commit: before a machine is made.

git fetches the commit without its trees, some hundred bytes, into a temporary repository. This does not work with a
server that refuses to serve commits by sha1, or that is unreachable. Then the build itself finds out.
"""

from __future__ import annotations

import re
import shutil
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from master.requests import git_process
from master.requests.refs import NEVER, RepositoryUnreachable
from workers.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT_SECONDS = 3600
"""A commit seldom leaves a repository, so requests within an hour need no second check."""

_MOST_KEPT = 10_000

_FEW_BYTES = ("prlimit", f"--fsize={8 * 1024**2}", "--")
"""A server that ignores the filter sends the whole tree. A small tree is accepted; a large one is cut off here."""

_ABSENT = re.compile(r"not our ref [0-9a-f]{40}")
_FETCH = (
    "-c", "protocol.version=2", "-c", "fetch.unpackLimit=1", "-c", "pack.threads=1",
    "fetch", "--quiet", "--depth=1", "--filter=tree:0", "--no-tags", "--no-auto-maintenance",
)  # fmt: skip


class CommitUnknown(ValueError):
    """The repository answered that it has no such commit."""


class Commits:
    """Checks commits, and remembers those that exist. Simultaneous requests for one commit share one check."""

    def __init__(self, reactor: Any, seconds: Callable[[], float]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._settled: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], list[Deferred[None]]] = {}

    def is_settled(self, git_url: str, sha1: str) -> bool:
        """Return whether a commit is known to exist, or its server is known not to answer such questions."""
        until = self._settled.get((git_url, sha1))
        return until is not None and self._reactor.seconds() < until

    def settle(self, git_url: str, sha1: str) -> None:
        """Remember that a commit needs no check for a while."""
        self._settled.pop((git_url, sha1), None)
        while len(self._settled) >= _MOST_KEPT:
            del self._settled[next(iter(self._settled))]
        self._settled[git_url, sha1] = self._reactor.seconds() + _KEPT_SECONDS

    async def check(self, git_url: str, sha1: str) -> None:
        """Raise CommitUnknown if a repository has no such commit, RepositoryUnreachable if it will never be reachable."""
        commit = (git_url, sha1)
        if self.is_settled(*commit):
            return
        if commit in self._waiting:
            answer: Deferred[None] = Deferred()
            self._waiting[commit].append(answer)
            await answer
            return
        self._waiting[commit] = []
        refusal: ValueError | None = None
        try:
            await self._ask(git_url, sha1)
        except (CommitUnknown, RepositoryUnreachable) as error:
            refusal = error
            raise
        finally:
            for answer in self._waiting.pop(commit):
                if refusal is None:
                    answer.callback(None)
                else:
                    answer.errback(refusal)

    async def _ask(self, git_url: str, sha1: str) -> None:
        directory = await self._in_thread(mkdtemp, prefix="commit-")
        try:
            finished = await self._git(directory, "init", "--quiet", "--bare", "--template=")
            if finished.status == 0:
                finished = await git_process.contact(self._git(directory, *_FETCH, "--", git_url, sha1))
            if finished.status is None:
                return
            if finished.status != 0:
                self._judge(git_url, sha1, finished.errors)
                return
            kind = await self._git(directory, "cat-file", "-t", sha1)
        finally:
            await self._in_thread(shutil.rmtree, directory, ignore_errors=True)
        name = kind.output.decode(errors="replace").strip()
        if name != "commit":
            what = (
                "an annotated tag: name the tag instead" if name == "tag" else f"a {name or 'broken object'}"
            )
            raise CommitUnknown(f"{sha1} in {git_url} is not a commit but {what}")
        self.settle(git_url, sha1)

    def _in_thread(self, function: Callable[..., Any], *args: Any, **options: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args, **options)

    async def _git(self, directory: str, *arguments: str) -> Any:
        command = [*git_process.LIMITS, *_FEW_BYTES, "git", *git_process.OPTIONS, "-C", directory, *arguments]
        return await run(self._reactor, command, git_process.environment(), self._seconds())

    def _judge(self, git_url: str, sha1: str, errors: str) -> None:
        if _ABSENT.search(errors):
            raise CommitUnknown(
                f"{git_url} has no commit {sha1}: push it there, or name the repository that has it"
            )
        if "unadvertised object" in errors:
            self.settle(git_url, sha1)
        elif NEVER.search(errors):
            said = git_process.last_line(errors)
            raise RepositoryUnreachable(f"{git_url} cannot be asked for {sha1}: {said}", passing=False)
