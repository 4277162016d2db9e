"""The trial: one server in one cloud, made as builds' are, asked what it reaches, and ended for certain.

It is made by the provider itself, under a tag that no master's servers have.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildbot.util import Notifier
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from workers.cloud_errors import Kind, Trouble
from workers.doctor.verdicts import Finding, fail, ok, warning
from workers.openstack import Dock, OpenStackProvider
from workers.provider import NoMachineEver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from model.targets import Target
    from workers.cloud import Cloud
    from workers.doctor.settings import Address, InForce
    from workers.openstack_settings import CloudSettings
    from workers.sizes import Size

FORGOTTEN_SECONDS = 1800
"""After which the server ends itself, should the doctor be killed."""
_SPEAKS_SECONDS = 300.0
"""How long a server that is ACTIVE may take until its user data has said all, within `start_timeout`."""
_GONE_SECONDS = 120.0
_LAST_LINES = 15


class Trial:
    """A server of one cloud."""

    def __init__(self, in_force: InForce, cloud: CloudSettings, target: Target, reactor: Any) -> None:
        """Take what it is made of."""
        self._in_force = in_force
        self._reactor = reactor
        # One try of everything, and no waiting: what goes wrong is to be shown.
        openstack = replace(
            in_force.openstack, clouds=(cloud,), prewarm=(), api_tries=1, wait_for_quota=1e-6,
            max_instances_per_target=0, max_instances_per_asker=0, lifetime=FORGOTTEN_SECONDS / 3600,
        )  # fmt: skip
        # No master's id can have a dot.
        dock = Dock(
            render=lambda _, __: user_data(in_force.reached),
            master_id=f"doctor.{in_force.master_id}"[:46],
            start_timeout=in_force.start_timeout,
            attempts=1,
        )
        self._provider = OpenStackProvider(openstack, dock, reactor)
        self._cloud = self._provider.fleets[0].cloud
        self._target = target
        self._ports: list[Any] = []
        self._boot: _Boot | None = None
        self._running = True
        self._over: Notifier[None] = Notifier()

    async def run(self, say: Callable[[str], None]) -> list[Finding]:
        """Make the server, look at it, and end it; `say` takes what happens meanwhile."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._interrupt)
        try:
            self._listen()
            await self._provider.recover(lambda: None)
            patience = 0.8 * self._in_force.start_timeout
            self._boot = _Boot(self._target, self._cloud, self._reactor, say, patience)
            return await self._made(self._boot)
        finally:
            await self._close()
            self._running = False
            self._over.notify(None)

    def _interrupt(self) -> Deferred[None] | None:
        """Have the process wait until all that is being made is known, and ended."""
        if not self._running:
            return None
        if self._boot is not None:
            self._boot.interrupted = True
        waiting: Deferred[None] = self._over.wait()
        return waiting.addTimeout(_GONE_SECONDS, self._reactor, lambda _, __: None)

    async def _made(self, boot: _Boot) -> list[Finding]:
        try:
            machine = await self._provider.start(boot)
        except NoMachineEver as error:
            return [fail("server", not_made(str(error), self._cloud.title))]
        try:
            findings = boot.findings(self._in_force.reached)
            findings += await self._tagged(boot.server_id)
        finally:
            await machine.stop()
        return [*findings, await self._gone(boot.server_id, machine.instance.boot)]

    async def _tagged(self, server_id: str) -> list[Finding]:
        def look(sdk: Any) -> list[str]:
            return [one.id for one in sdk.compute.servers(details=False, tags=[f"{self._cloud.tag}.none"])]

        shown = [one.id for one in await self._cloud.servers()]
        if server_id not in shown or server_id in await self._cloud.run(look):
            said = "nova does not list servers by their tag: setting `cloud`: servers would leak, or be"
            return [fail("tag", f"{said} deleted though they are somebody else's")]
        return [ok("tag", "the server is listed by its tag, and not by another")]

    async def _gone(self, server_id: str, boot: str) -> Finding:
        began = self._reactor.seconds()
        left = [f"server {server_id}"]
        while self._reactor.seconds() < began + _GONE_SECONDS:
            await deferLater(self._reactor, 0.3)
            try:
                if left[0].startswith("server") and await self._cloud.exists(server_id):
                    continue
                took = self._reactor.seconds() - began
                left = [f"{one.kind} {one.id}" for one in await self._cloud.leftovers() if one.boot == boot]
            except Trouble:
                continue
            if not left:
                return ok("gone", f"{took:.1f} s after it was to go; nothing of it is left")
        said = f"{', '.join(left)} is still there after {_GONE_SECONDS:g} s: delete it by hand"
        return fail("gone", f"{said}, and ask the cloud's operators; the master would go on trying")

    async def _close(self) -> None:
        for port in self._ports:
            await port.stopListening()
        self._ports = []
        await self._provider.close(_GONE_SECONDS)

    def _listen(self) -> None:
        """Stand in for the master where it does not run: what is to be seen is whether machines get through."""
        for address in self._in_force.listens:
            try:
                self._ports.append(
                    self._reactor.listenTCP(
                        address.port, Factory.forProtocol(Protocol), interface=address.host
                    )
                )
            except CannotListenError:
                continue


class _Boot:
    """The boot of the server; its worker is the user data, which says on the console what it sees."""

    worker = asker = "doctor"
    build_url = ""
    request_id = 0
    good: Size | None = None
    least: Size | None = None

    def __init__(
        self, target: Target, cloud: Cloud, reactor: Any, say: Callable[[str], None], patience: float
    ) -> None:
        self.target = target
        self._patience = patience
        self.server_id = ""
        self.interrupted = False
        self._cloud = cloud
        self._reactor = reactor
        self._say = say
        self._began = reactor.seconds()
        self._about: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._console = ""

    async def login(self, password: str = "") -> str:
        return password

    async def tell(self, text: str) -> None:
        if text.startswith("asking"):
            self._began = self._reactor.seconds()
        if "its worker" not in text:
            self._say(text)

    async def keep(self, name: str, text: str) -> None:
        self._console = text
        self._say(f"{name}:\n{last_lines(text)}")

    def note(self, **values: str) -> None:
        self._about.update(values)
        self.server_id = values.get("instance", self.server_id)
        self._seconds["accepted"] = self._reactor.seconds() - self._began

    def asked(self, name: str) -> str:
        return ""

    def lost(self, reason: str) -> None:
        pass

    async def attached(self) -> None:
        """Wait until the server is ACTIVE, and then until it has spoken; who ends by itself is no matter here."""
        await self._until(lambda: self._cloud.run(self._is_active))
        self._seconds["active"] = self._reactor.seconds() - self._began
        deadline = min(self._began + self._patience, self._reactor.seconds() + _SPEAKS_SECONDS)
        await self._until(self._has_spoken, deadline)
        self._seconds["spoken"] = self._reactor.seconds() - self._began

    def findings(self, addresses: Sequence[Address]) -> list[Finding]:
        about, seconds = self._about, self._seconds
        made = ok(
            "server",
            f"{self.server_id}: {about['nova_flavor']}, {about['image']}; accepted after"
            f" {seconds['accepted']:.1f} s, ACTIVE after {seconds['active']:.1f} s",
        )
        return [made, *heard(self._console, addresses, seconds["spoken"])]

    def _is_active(self, sdk: Any) -> bool:
        return bool(sdk.compute.get_server(self.server_id).status == "ACTIVE")

    async def _has_spoken(self) -> bool:
        self._console = await self._cloud.console(self.server_id)
        return "doctor: done" in self._console

    async def _until(self, there: Callable[[], Any], deadline: float = float("inf")) -> None:
        while self._reactor.seconds() < deadline:
            if self.interrupted:
                raise Trouble(Kind.PERMANENT, "interrupted")
            try:
                if await there():
                    return
            except Trouble as trouble:
                self._say(str(trouble))
            await deferLater(self._reactor, 0.5)


def not_made(sentence: str, cloud: str) -> str:
    """Give the provider's sentence as it is true here: one try, one cloud, and no worker."""
    for one in ("infrastructure failed once, at last: ", f"cloud {cloud}: "):
        sentence = sentence.removeprefix(one)
    return sentence.replace("no worker attached within", "setting `start_timeout`: it was not ACTIVE within")


def user_data(addresses: Sequence[Address]) -> str:
    """Give the script that the server runs."""
    values = [str(FORGOTTEN_SECONDS)]
    for address in addresses:
        values += [address.host, str(address.port)]
    first, rest = Path(__file__).with_name("trial.sh").read_text().split("\n", 1)
    return f"{first}\nset -- {shlex.join(values)}\n{rest}"


def heard(console: str, addresses: Sequence[Address], seconds: float) -> list[Finding]:
    """Judge what the server said on its console."""
    if "doctor: the user data runs" not in console:
        said = f"the user data has not spoken on the console {seconds:.0f} s after the create call: has the image"
        said += (
            " (setting `images`) cloud-init and a serial console? Setting `config_drive`, where there is no"
        )
        return [fail("console", f"{said} metadata service; its last lines:\n{last_lines(console)}")]
    found = [ok("console", f"the user data had said all after {seconds:.1f} s")]
    for address in addresses:
        where = f"{address.host} {address.port}"
        if f"doctor: reaches {where}" in console:
            found.append(ok("master", f"the server reaches {address}"))
        elif f"doctor: does not reach {where}" in console:
            why = console.split(f"doctor: does not reach {where}", 1)[1].partition("\n")[0].strip()
            said = f"the server does not reach {address} {why}: settings `{address.setting}`, `networks`"
            found.append(fail("master", f"{said} and `security_groups`, and the firewall of the master"))
        else:
            found.append(warning("master", f"the server did not say whether it reaches {address}"))
    return found


def last_lines(text: str) -> str:
    """Give the end of a console, set in."""
    lines = text.splitlines()[-_LAST_LINES:] or ["empty"]
    return "\n".join(f"             | {line[:160]}" for line in lines)
