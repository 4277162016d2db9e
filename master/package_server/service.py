"""The package server: the published tree over HTTP, and the door that uploads come in by.

It has a port of its own, since the layout's URLs begin at the root, and since what contributors
built shall share no origin with the web UI.
"""

# mypy: allow-untyped-calls
# Buildbot's and Twisted's services are annotated in part only.

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildbot.config.errors import error
from buildbot.util.service import BuildbotService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.web import http

from master.package_server.http_requests import Channel
from master.package_server.tree import PackageTree
from master.publishing.publisher import PublishedTree
from master.shaman.index import PublishedIndex
from master.shaman.view import Shaman
from model.recipes import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from master.publishing.uploads import Uploads
    from master.shaman.forms import BuildState
    from master.web.answers import Answer
    from model.recipes import Recipes

    Meet = Callable[[str], Coroutine[Any, Any, str | None]]
    Builds = Callable[[Any, Sequence[str]], Coroutine[Any, Any, Sequence[BuildState]]]

_IDLE_SECONDS = 120
_UPLOAD_THREADS = 4
_LOOK_UP_THREADS = 2


class _Site(http.HTTPFactory):
    """What every connection shares."""

    protocol: Any = Channel

    def __init__(self, reactor: Any, uploads: Uploads) -> None:
        """Start with an empty tree's place, no connection, and threads that start on demand."""
        super().__init__(timeout=_IDLE_SECONDS, reactor=reactor)
        self.tree = PackageTree("", "")
        self.uploads = uploads
        self.meet: Meet = _nobody
        self.shaman: Shaman
        self.builds: Callable[[Sequence[str]], Coroutine[Any, Any, Sequence[BuildState]]] = _none
        self.channels: set[Channel] = set()
        self._pool = ThreadPool(0, _UPLOAD_THREADS, "packages")
        self._pool.start()
        self._look_up_pool = ThreadPool(0, _LOOK_UP_THREADS, "tree")
        self._look_up_pool.start()
        self._shaman_pool = ThreadPool(0, 1, "shaman")
        self._shaman_pool.start()

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call what blocks, in a thread that nothing else of the master waits for."""
        return deferToThreadPool(self.reactor, self._pool, function, *args)

    def look_up(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call a function that reads the tree, in a thread that uploads do not use."""
        return deferToThreadPool(self.reactor, self._look_up_pool, function, *args)

    async def ask_shaman(self, uri: bytes) -> Answer:
        """Answer as shaman, in its one thread; builds first, as what was built is published by then."""
        keys = self.shaman.keys(uri)
        builds = await self.builds(keys) if keys else ()
        answer: Answer = await deferToThreadPool(
            self.reactor, self._shaman_pool, self.shaman.answer, uri, builds
        )
        return answer

    def log(self, request: http.Request) -> None:
        """Keep no log of accesses: nginx, in front, has a better one."""

    def stop(self) -> None:
        """End every connection and the threads."""
        for channel in tuple(self.channels):
            channel.transport.abortConnection()
        self._pool.stop()
        self._look_up_pool.stop()
        self._shaman_pool.stop()


class PackageServer(BuildbotService):
    """The service that serves the tree and takes uploads, on a port of its own."""

    name = "packages"
    port = 0
    """The TCP port that it listens on, once it does."""

    _site: _Site | None = None
    _endpoint = ""
    _listening: Any = None

    def checkConfig(self, *, port: str, **kwargs: Any) -> None:
        """Refuse what could only fail when listening."""
        super().checkConfig()
        if not port.startswith(("tcp:", "tcp6:", "unix:")):
            error(f"packages: port {port!r} must begin with tcp:, tcp6: or unix:")

    async def reconfigService(
        self,
        *,
        port: str,
        tree: str,
        uploads: Uploads,
        title: str = "Packages",
        meet: Meet | None = None,
        wheels: str = "",
        url: str = "",
        builds: Builds | None = None,
        recipes: Recipes = BUILT_IN,
        apt_trusted: bool = False,
        names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Serve `tree`; listen anew only if the port is another. The first `uploads` stay.

        `meet` tells a machine that was made ahead, by its token, which worker it is. `wheels` is the
        directory that machines find below `/wheels/`. `url` is where everybody else finds all this, and
        `builds` asks the master given how builds of package_keys are doing. These two, `recipes`, what
        can be built, and `apt_trusted` are for shaman's view. `names` are the patterns of the names of each
        project's packages, which the pages of published directories show.
        """
        await super().reconfigService()
        assert self.master is not None
        if self._site is None:
            self._site = _Site(self.master.reactor, uploads)
        self._site.tree = PackageTree(tree, title, {"wheels": wheels} if wheels else None, names)
        self._site.meet = meet or _nobody
        self._site.shaman = _shaman(tree, url, recipes, apt_trusted=apt_trusted)
        self._site.builds = partial(builds, self.master) if builds else _none
        if port != self._endpoint:
            listening = await serverFromString(self.master.reactor, port).listen(self._site)
            await self._stop_listening()
            self._endpoint, self._listening = port, listening
            self.port = getattr(listening.getHost(), "port", 0)

    def stopService(self) -> Deferred[None]:
        """Stop listening and end every connection."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await super().stopService()
        await self._stop_listening()
        self._endpoint = ""
        if self._site is not None:
            self._site.stop()
            self._site = None

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await listening.stopListening()


def _shaman(tree: str, url: str, recipes: Recipes, *, apt_trusted: bool) -> Shaman:
    # What is published and complete is said in one place only, which looks but does not write here.
    published = PublishedTree(Path(tree), Path(tree))
    return Shaman(PublishedIndex(tree, published.record), url, recipes, apt_trusted=apt_trusted)


async def _nobody(_: str) -> str | None:
    """Expect no machine."""
    return None


async def _none(_: Sequence[str]) -> Sequence[BuildState]:
    """Know of no build."""
    return ()
