"""The boot of a machine for one build, without a build: it keeps what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from model.targets import Target

if TYPE_CHECKING:
    from workers.sizes import Size

DEB = Target.from_name("ceph-deb-bookworm-x86_64-default")


class FakeBoot:
    """One boot, with the attributes of workers.provider.Boot; its worker attaches when a test says so."""

    _numbers = iter(range(1, 1_000_000))

    def __init__(self, target: Target = DEB, *, asker: str = "alice", **asked: str) -> None:
        self.request_id = next(self._numbers)
        self.worker = f"openstack-{self.request_id}"
        self.target = target
        self.build_url = f"http://127.0.0.1:8010/#/builds/{self.request_id}"
        self.asker = asker
        self.good: Size | None = None
        self.least: Size | None = None
        self.told: list[str] = []
        self.kept: dict[str, str] = {}
        self.noted: dict[str, str] = {}
        self.passwords: list[str] = []
        self.lost_because: list[str] = []
        self.attached_now: Deferred[None] = Deferred()
        self._asked = asked

    async def login(self, password: str = "") -> str:
        self.passwords.append(password or f"fresh-{len(self.passwords)}")
        return self.passwords[-1]

    async def tell(self, text: str) -> None:
        self.told.append(text)

    async def keep(self, name: str, text: str) -> None:
        self.kept[name] = text

    def note(self, **values: str) -> None:
        self.noted.update(values)

    def asked(self, name: str) -> str:
        return self._asked.get(name, "")

    async def attached(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.attached_now.addCallback(lambda _: waiting.callback(None))
        await waiting

    def lost(self, reason: str) -> None:
        self.lost_because.append(reason)

    def attach(self) -> None:
        """Have the worker attach."""
        self.attached_now.callback(None)
