"""Digests of what a commit says that its build needs, from its trees alone: no file is fetched.

Two commits with the same digest have the same files that name build dependencies, bit for bit.
"""

from __future__ import annotations

import hashlib
import shutil
from fnmatch import fnmatchcase
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.threads import deferToThreadPool

from master.requests import git_process
from master.requests.git_process import LIMITS
from model.package_key import check_sha1
from workers.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workers.processes import Finished

FILES = ("install-deps.sh", "debian/control", "src/script/lib-build.sh")
TOP_LEVEL = ("*.spec", "*.spec.in")
"""Files that name dependencies: these paths, and these patterns in the top directory."""

_AT_ONCE = 4
_REMEMBERED = 4096


class NoDigestError(ValueError):
    """The digest of a commit cannot be had, and why."""


class DependencyDigests:
    """Gives the digest of a commit that somebody's server has, asking each commit's once."""

    def __init__(self, reactor: Any, directory: Path, seconds: float) -> None:
        """Take the reactor, a directory for what is fetched and thrown away, and a time limit."""
        self._reactor = reactor
        self._directory = directory
        self._seconds = seconds
        self._known: dict[str, str] = {}
        self._at_once = DeferredSemaphore(_AT_ONCE)

    def wipe(self) -> None:
        """Remove what a killed master left; blocks."""
        shutil.rmtree(self._directory, ignore_errors=True)

    async def of(self, git_url: str, sha1: str) -> str:
        """Give the digest, 64 hex digits, or raise NoDigestError with a sentence."""
        check_sha1(sha1)
        if sha1 not in self._known:
            await self._at_once.acquire()
            try:
                found = await self._fetched(git_url, sha1)
            finally:
                self._at_once.release()
            # A commit names its trees: whichever server gave them, they are the same.
            self._known[sha1] = found
            while len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        return self._known[sha1]

    async def _fetched(self, git_url: str, sha1: str) -> str:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        repository = mkdtemp(prefix=f"{sha1[:8]}-", dir=self._directory)
        try:
            await self._git(sha1, "init", "--quiet", "--bare", repository)
            await self._git(
                sha1, "-C", repository, *git_process.OPTIONS,
                "-c", "protocol.version=2", "-c", "transfer.fsckObjects=true", "-c", "fetch.unpackLimit=1",
                "-c", "pack.threads=1", "-c", f"remote.asked.url={git_url}", "-c", "remote.asked.promisor=true",
                "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                "--no-recurse-submodules", "--filter=blob:none", "asked", sha1,
            )  # fmt: skip
            # Without a remote nothing that is missing gets fetched: trees are all that is looked at.
            top = await self._git(sha1, "-C", repository, "ls-tree", "-z", "--full-tree", sha1)
            rest = await self._git(sha1, "-C", repository, "ls-tree", "-z", "--full-tree", sha1, "--", *FILES)
        finally:
            await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), shutil.rmtree, repository, ignore_errors=True
            )
        return digest([*top.output.split(b"\0"), *rest.output.split(b"\0")])

    async def _git(self, sha1: str, *arguments: str) -> Finished:
        command = [*LIMITS, "git", *arguments]
        finished = await run(self._reactor, command, git_process.environment(), self._seconds)
        if finished.status == 0:
            return finished
        why = git_process.last_line(finished.errors)
        if finished.status is None:
            why = f"not within {self._seconds:g} s"
        raise NoDigestError(f"the dependency lists of {sha1[:8]} cannot be looked at: {why}")


def digest(entries: Iterable[bytes]) -> str:
    """Give the digest of a tree's entries, as `git ls-tree -z` has them: those that name dependencies."""
    lines = set()
    for entry in entries:
        about, _, path = entry.partition(b"\t")
        name = path.decode(errors="surrogateescape")
        if name in FILES or any("/" not in name and fnmatchcase(name, pattern) for pattern in TOP_LEVEL):
            lines.add((path, b" ".join(about.split())))
    text = b"".join(about + b" " + path + b"\n" for path, about in sorted(lines))
    return hashlib.sha256(text).hexdigest()
