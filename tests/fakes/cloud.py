"""One cloud in memory, fresh for each test, with the methods of workers.cloud.Cloud; test_cloud.py holds the two together.

It fails, hangs, loses answers and ignores what it is told as often as a test says. Time is the test's clock.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from workers import sizes
from workers.cloud_data import Image, Leftover, Limits, Seen, Wanted
from workers.cloud_errors import Kind, Trouble
from workers.sizes import NovaFlavor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workers.openstack_settings import CloudSettings, NewestImage

SMALL = NovaFlavor("f1", "small", disk=10, ram=1024, cpus=1)
BIG = NovaFlavor("f2", "big", disk=100, ram=49152, cpus=16)
NO_LIMITS = Limits(-1, 0, -1, 0, -1, 0)


@dataclass
class _Fault:
    trouble: Exception
    times: int
    done: bool
    """Whether the cloud does it all the same."""


@dataclass
class Server:
    """A server, as this cloud keeps it."""

    seen: Seen
    tags: tuple[str, ...]
    wanted: Wanted | None = None


@dataclass
class Asked:
    """One call that was made."""

    at: float
    method: str
    about: Any = None


@dataclass
class FakeCloud:
    """A cloud whose servers are ACTIVE at once, and gone at once."""

    settings: CloudSettings
    clouds_yaml: Path | None
    tag: str
    clock: Any
    there: dict[str, Server] = field(default_factory=dict)
    extras: dict[str, Leftover] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    quota: Limits = NO_LIMITS
    flavors: tuple[NovaFlavor, ...] = (SMALL, BIG)
    born_as: str = "ACTIVE"
    fault: str = ""
    """What a server that is born in ERROR says of itself."""
    ignored_deletes: int = 0
    """So many DELETEs more are accepted, and nothing happens."""
    consoles: dict[str, str] = field(default_factory=dict)
    """What consoles say, other than their servers' ids."""
    deleting: bool = False
    """A deleted server says that it is being deleted, until `vanish` is called."""
    volume: str = "available"
    closed: bool = False
    calls: int = 0
    takes: float = 0.0
    """Seconds from each call to its answer."""

    def __post_init__(self) -> None:
        """Begin with nothing wrong."""
        self.title = self.settings.title
        self.limits_read_at = float("-inf")
        self.stale: list[str] = []
        self._limits_known = False
        self._faults: dict[str, list[_Fault]] = defaultdict(list)
        self._hung: dict[str, tuple[list[Deferred[None]], bool]] = {}
        self._number = 0

    # -- what a test does

    def fail(self, method: str, trouble: Exception, times: int = 1, *, done: bool = False) -> None:
        """Have the next calls of a method fail; `done`: the answer is what is lost."""
        self._faults[method].append(_Fault(trouble, times, done))

    def hang(self, method: str, *, done: bool = False) -> None:
        """Have calls of a method wait: before they do anything, or when it is done, before they answer."""
        self._hung[method] = ([], done)

    def release(self, method: str) -> None:
        """Let the calls that wait go on, and none wait any more."""
        for waiting in self._hung.pop(method)[0]:
            waiting.callback(None)

    def count(self, method: str) -> int:
        """How often a method was called."""
        return len(self.times(method))

    def times(self, method: str) -> list[float]:
        """When a method was called."""
        return [one.at for one in self.asked if one.method == method]

    def about(self, method: str) -> list[Any]:
        """What the calls of a method were about."""
        return [one.about for one in self.asked if one.method == method]

    def put(self, name: str, *, tags: tuple[str, ...] | None = None, **metadata: str) -> str:
        """Put a server there that nobody here has made; give its id."""
        server_id = self._new_id("server")
        seen = Seen(server_id, name, "ACTIVE", "", metadata, "", {})
        self.there[server_id] = Server(seen, (self.tag,) if tags is None else tags)
        return server_id

    def change(self, server_id: str, **changes: Any) -> None:
        """Have a server show something else: status, task_state, fault."""
        server = self.there[server_id]
        server.seen = replace(server.seen, **changes)

    def vanish(self, server_id: str) -> None:
        """Have a server go, as if somebody else had deleted it."""
        del self.there[server_id]

    @property
    def ours(self) -> list[str]:
        """The ids of the servers with our tag."""
        return [server_id for server_id, one in self.there.items() if self.tag in one.tags]

    # -- what Cloud does

    def configure(self, settings: CloudSettings, clouds_yaml: Any) -> None:
        self.settings, self.clouds_yaml = settings, clouds_yaml

    def close(self) -> None:
        self.closed = True

    async def servers(self) -> list[Seen]:
        return await self._call(
            "servers", None, lambda: [one.seen for one in self.there.values() if self.tag in one.tags]
        )

    async def create(self, wanted: Wanted) -> str:
        def make() -> str:
            server_id = self._new_id("server")
            seen = Seen(server_id, wanted.name, self.born_as, "", dict(wanted.metadata), self.fault, {})
            self.there[server_id] = Server(seen, (self.tag,), wanted)
            return server_id

        return await self._call("create", wanted, make)

    async def delete(self, server_id: str) -> None:
        def end() -> None:
            if self.ignored_deletes:
                self.ignored_deletes -= 1
            elif self.deleting:
                if server_id in self.there:
                    self.change(server_id, task_state="deleting")
            else:
                self.there.pop(server_id, None)

        await self._call("delete", server_id, end)

    async def exists(self, server_id: str) -> bool:
        return await self._call("exists", server_id, lambda: server_id in self.there)

    async def console(self, server_id: str) -> str:
        return await self._call(
            "console", server_id, lambda: self.consoles.get(server_id, f"console of {server_id}")
        )

    async def limits(self) -> Limits:
        if not self._limits_known:
            self.limits_read_at = self.clock.seconds()
            await self._call("limits", None, lambda: None)
            self._limits_known = True
        return replace(self.quota, instances_used=self.quota.instances_used + len(self.ours))

    def forget_limits(self) -> None:
        self._limits_known = False

    async def flavor(self, good: sizes.Size | None = None, least: sizes.Size | None = None) -> NovaFlavor:
        wanted = self.settings.nova_flavor

        def choose() -> NovaFlavor:
            try:
                if good or least:
                    return sizes.smallest(self.flavors, good, least)
                return sizes.by_name(self.flavors, wanted)
            except sizes.NoSuchFlavor as error:
                raise Trouble(Kind.PERMANENT, str(error), stale="nova_flavor").in_cloud(self.title) from None

        return await self._call("flavor", (good, least), choose)

    async def image(self, wanted: str | NewestImage) -> Image:
        return await self._call("image", wanted, lambda: Image("i1", str(wanted), "2026-01-01"))

    def forget(self, setting: str) -> None:
        self.stale.append(setting)

    async def create_volume(self, name: str, image: Image, boot: str) -> str:
        return await self._call("create_volume", (name, image.id), lambda: self._extra("volume", boot))

    async def volume_status(self, volume_id: str) -> str:
        return await self._call("volume_status", volume_id, lambda: self.volume)

    async def create_port(self, name: str, boot: str) -> str:
        return await self._call("create_port", name, lambda: self._extra("port", boot))

    async def create_floating_ip(self, port_id: str, boot: str) -> str:
        return await self._call("create_floating_ip", port_id, lambda: self._extra("floating ip", boot))

    async def leftovers(self) -> list[Leftover]:
        return await self._call("leftovers", None, lambda: list(self.extras.values()))

    async def remove(self, leftover: Leftover) -> None:
        await self._call("remove", leftover, lambda: self.extras.pop(leftover.id, None))

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        raise NotImplementedError("what goes to the SDK directly is tested on the lab")

    run_change = run

    # -- how

    def _new_id(self, kind: str) -> str:
        self._number += 1
        return f"{self.title}-{kind}-{self._number}"

    def _extra(self, kind: str, boot: str) -> str:
        made = Leftover(kind, self._new_id(kind), boot)
        self.extras[made.id] = made
        return made.id

    async def _call(self, method: str, about: Any, do: Callable[[], Any]) -> Any:
        self.calls += 1
        self.asked.append(Asked(self.clock.seconds(), method, about))
        if self.takes:
            await deferLater(self.clock, self.takes)
        hung, done = self._hung.get(method, ([], False))
        if method in self._hung and not done:
            await self._wait(hung)
        faults = self._faults[method]
        if faults:
            fault = faults[0]
            fault.times -= 1
            if not fault.times:
                faults.pop(0)
            if fault.done:
                do()
            raise fault.trouble
        answer = do()
        if method in self._hung and done:
            await self._wait(hung)
        return answer

    @staticmethod
    async def _wait(hung: list[Deferred[None]]) -> None:
        waiting: Deferred[None] = Deferred()
        hung.append(waiting)
        await waiting
