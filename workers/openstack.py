"""The `openstack` provider: a server of its own for every build, from the first cloud that has room."""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, FirstError, ensureDeferred, maybeDeferred
from twisted.internet.task import deferLater

from workers.cloud import Cloud
from workers.cloud_data import Wanted
from workers.cloud_errors import Kind, Trouble
from workers.fleet import Fleet
from workers.instance import Instance
from workers.placement import Placement, Tries
from workers.prewarm import ASKER, Rendezvous, Stock
from workers.provider import NoMachineEver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from model.targets import Target
    from workers.cloud_data import Image
    from workers.openstack_settings import NewestImage, OpenStackSettings
    from workers.prewarm import Warm
    from workers.provider import Boot
    from workers.sizes import NovaFlavor, Size


_FAILED = "buildpackages: FAILED"
"""What the user data says on the console when it gives up."""

_FIRST_LISTEN = 45.0
"""Seconds after which a machine whose worker has not attached is listened to; then three times as many, and so on."""

_MOST_UNHEARD = 240.0
"""Seconds between two times at most: less than the user data lingers after a failure."""

_SWITCH_SECONDS = 0.001
"""How long a thread may go on while another waits; Python's own is 5 ms, for each thread that runs."""


@dataclass(frozen=True)
class Login:
    """What a machine needs to know of its own boot, besides the worker and the target."""

    password: str
    expires: int
    """Seconds of the epoch."""
    environment: dict[str, str]
    token: str = ""
    """By which a machine that is made ahead learns, at the rendezvous, which worker it is."""


@dataclass(frozen=True)
class Dock:
    """What the machines need to know of the master, and the master of them."""

    render: Callable[[Boot, Login], str | Deferred[str]]
    """Gives the user data of a boot."""
    master_id: str
    start_timeout: float
    """Seconds from the create call until the worker has attached."""
    attempts: int
    """How many machines may fail for one build."""


class OpenStackMachine:
    """One server whose worker has attached."""

    def __init__(self, fleet: Fleet, instance: Instance) -> None:
        """Take the instance and where it is."""
        self.description = f"{instance.name} ({instance.server_id}) in cloud {fleet.cloud.title}"
        self.fleet = fleet
        self.instance = instance

    async def check(self) -> str:
        """Give nothing: what ends by itself is told through the boot."""
        return ""

    def begin_to_stop(self) -> None:
        """Ask for the server's end; the fleet goes on until nothing is left of it."""
        self.fleet.end(self.instance)

    async def stop(self) -> None:
        """Ask for it, unless that was done already."""
        self.begin_to_stop()


class OpenStackProvider:
    """Makes servers; one object for the life of the master, which takes new settings."""

    def __init__(self, settings: OpenStackSettings, dock: Dock, clock: Any) -> None:
        """Take the settings; nothing is asked of any cloud before `recover`."""
        self.tag = f"buildpackages-{dock.master_id}"
        self.choose_image: Callable[[Fleet, Boot, str | NewestImage], Awaitable[tuple[Image, str]]]
        self.choose_image = base_image
        """Gives an image and a sentence about it; prepared images come in here."""
        self._clock = clock
        self._running = False
        self._placement = Placement(settings, clock)
        self.rendezvous = Rendezvous(clock, self._placement.changed)
        self._stock = Stock(clock, self.rendezvous, self._make_ahead)
        self._placement.make_room = self._stock.give_up_one
        self.configure(settings, dock)

    @property
    def fleets(self) -> list[Fleet]:
        """What this master has, by cloud, in the order of preference."""
        return self._placement.fleets

    @property
    def all_fleets(self) -> list[Fleet]:
        """Return the fleets of all clouds, also of clouds that left the settings: builds may go on there."""
        return [*self.fleets, *self._placement.retired]

    def configure(self, settings: OpenStackSettings, dock: Dock) -> None:
        """Take new settings. A cloud that is no longer named gets nothing new, and what it has ends in time."""
        self.settings, self.dock = settings, dock
        known = {fleet.cloud.title: fleet for fleet in self.all_fleets}
        fleets = []
        for one in settings.clouds:
            fleet = known.pop(one.title, None)
            if fleet is None:
                cloud = Cloud(one, settings.clouds_yaml, self.tag, self._clock)
                fleet = Fleet(cloud, self._clock, self._placement.changed, self._owned)
                if self._running:
                    fleet.start()
            else:
                # Always: what clouds.yaml and the cloud say of a name may have changed as well.
                fleet.cloud.configure(one, settings.clouds_yaml)
            fleets.append(fleet)
        self._placement.settings = settings
        self._placement.attempts = dock.attempts
        self._placement.fleets, self._placement.retired = fleets, list(known.values())
        self._stock.settings = settings.prewarm
        self._stock.start_timeout = dock.start_timeout

    def _owned(self, boot: str) -> bool:
        return any(boot in fleet.instances for fleet in self.all_fleets)

    # -- life

    async def recover(self, changed: Callable[[], None]) -> None:
        """Begin; every server with our tag is an orphan now. The clouds may be away: that is retried."""
        self._placement.more_can_start = changed
        self._running = True
        # The threads decode answers under the interpreter's lock: the reactor shall wait for it less.
        sys.setswitchinterval(_SWITCH_SECONDS)
        for fleet in self.fleets:
            fleet.start()
        self._stock.start()

    async def close(self, seconds: float) -> None:
        """Ask for the end of every server at once, and see it where it comes soon."""
        self._stock.stop()
        closing = [ensureDeferred(fleet.close(seconds)) for fleet in self.all_fleets]
        await DeferredList(closing, consumeErrors=True)

    def next_request(self, target: Target, requests: Sequence[Any]) -> Any:
        """Choose which of the buildrequests that wait gets a slot now; None for none."""
        return self._placement.next_request(target, requests)

    # -- a machine for a build

    async def start(self, boot: Boot) -> OpenStackMachine:
        """Give a machine whose worker has attached, from whichever cloud it could be had."""
        self._placement.entered(boot.request_id)
        tries = Tries(waiting_since=self._clock.seconds())
        special = boot.good or boot.least or boot.asked("only_image") or boot.asked("only_cloud")
        while True:
            full = special or self._placement.asker_is_full(boot.asker)
            warm = None if full else self._stock.take(boot.target)
            placed = None if warm else await self._placement.place(boot, tries)
            try:
                if warm is not None:
                    fleet = warm.fleet
                    return await self._use(boot, warm)
                if placed is not None:
                    fleet, flavor = placed
                    return await self._make(boot, fleet, flavor)
            except Trouble as trouble:
                # A server that was made though the call failed must not attach in place of the next one, and then be ended.
                await boot.login()
                await self._placement.consider(boot, fleet, trouble, tries)

    async def _make(self, boot: Boot, fleet: Fleet, flavor: NovaFlavor) -> OpenStackMachine:
        """Make one server and wait for its worker; whatever else happens, the server is ended."""
        instance = self._new(boot, fleet, flavor)
        try:
            password = await boot.login()
            began = self._clock.seconds()
            await self._launch(boot, fleet, instance, self._login(fleet, instance, password))
            await self._until_attached(boot, fleet, instance, began + self.dock.start_timeout)
        except BaseException:
            fleet.end(instance)
            raise
        return await self._attached(boot, fleet, instance, began)

    async def _use(self, boot: Boot, warm: Warm) -> OpenStackMachine:
        """Take a machine that was kept ready."""
        fleet, instance, began = warm.fleet, warm.instance, self._clock.seconds()
        instance.asker = boot.asker
        try:
            await boot.login(warm.password)
            await boot.tell(f"taking instance {instance.server_id} in cloud {fleet.cloud.title}, kept ready")
            self.rendezvous.assign(warm.token, boot.worker)
            await self._until_attached(boot, fleet, instance, began + min(60.0, self.dock.start_timeout))
        except BaseException:
            fleet.end(instance)
            raise
        finally:
            self.rendezvous.forget(warm.token)
        boot.note(**warm.about)
        return await self._attached(boot, fleet, instance, began)

    async def _make_ahead(
        self, target: Target, password: str, token: str
    ) -> tuple[Fleet, Instance, dict[str, str]]:
        """Make a machine that waits at the rendezvous, if no build waits for its place."""
        boot, why = _Ahead(target), "builds wait for machines"
        for fleet in self.fleets if not self._placement.anybody_waits else ():
            if fleet.cloud.settings.image(target) is None:
                continue
            room = await self._placement.room(fleet, boot, Tries())
            if room.flavor is None:
                why = room.reason
                continue
            instance = self._new(boot, fleet, room.flavor)
            try:
                await self._launch(boot, fleet, instance, self._login(fleet, instance, password, token))
            except BaseException:
                fleet.end(instance)
                raise
            return fleet, instance, boot.noted
        raise NoMachineEver(why)

    def _new(self, boot: Boot, fleet: Fleet, flavor: NovaFlavor) -> Instance:
        """Count one more; nothing has waited since there was room for it."""
        identity = secrets.token_hex(8)
        instance = Instance(
            identity, f"{boot.target}-{identity[:8]}", boot.target, boot.asker, flavor,
            expires=int(time.time() + self.settings.lifetime * 3600), asked_at=self._clock.seconds(),
        )  # fmt: skip
        fleet.instances[identity] = instance
        return instance

    @staticmethod
    def _login(fleet: Fleet, instance: Instance, password: str, token: str = "") -> Login:
        return Login(password, int(instance.expires), dict(fleet.cloud.settings.environment), token)

    async def _launch(self, boot: Boot, fleet: Fleet, instance: Instance, login: Login) -> None:
        """Make the server and what belongs to it, all of it marked as ours in the very call."""
        cloud, settings = fleet.cloud, fleet.cloud.settings
        wanted_image = settings.image(boot.target)
        if wanted_image is None:
            # A reload removed it after the cloud was chosen.
            raise Trouble(Kind.PERMANENT, "setting `images`: there is none for it any more").in_cloud(
                cloud.title
            )
        image, about = await self.choose_image(fleet, boot, wanted_image)
        await boot.tell(f"asking cloud {cloud.title} for an instance: {instance.flavor.name}, {about}")
        volume_id = port_id = ""
        name, mark = instance.name, instance.boot
        if settings.volume is not None:
            volume_id = await fleet.add(instance, "volume", lambda: cloud.create_volume(name, image, mark))
            await boot.tell(f"waiting for the boot volume {volume_id}")
            await self._until_volume(cloud, volume_id)
        if settings.floating_ip:
            port_id = await fleet.add(instance, "port", lambda: cloud.create_port(name, mark))
            await fleet.add(instance, "floating ip", lambda: cloud.create_floating_ip(port_id, mark))
        user_data: str = await maybeDeferred(self.dock.render, boot, login)  # type: ignore[call-overload]
        wanted = Wanted(
            instance.name, instance.flavor, image, user_data,
            {
                "master": self.dock.master_id, "boot": instance.boot, "worker": boot.worker,
                "target": str(boot.target), "build_url": boot.build_url, "asker": boot.asker,
                "expires": str(int(instance.expires)),
            },
            volume_id, port_id,
        )  # fmt: skip
        await fleet.launch(instance, lambda: cloud.create(wanted))
        boot.note(
            cloud=cloud.title,
            instance=instance.server_id,
            image=str(image),
            nova_flavor=instance.flavor.name,
        )
        await boot.tell(f"instance {instance.server_id} in cloud {cloud.title}: waiting for its worker")

    async def _until_volume(self, cloud: Cloud, volume_id: str) -> None:
        deadline = self._clock.seconds() + self.dock.start_timeout
        look = 0
        while True:
            try:
                status = await cloud.volume_status(volume_id)
            except Trouble as trouble:
                if trouble.kind is not Kind.PASSING:
                    raise
                status = f"not to be seen ({trouble.sentence})"
            if status == "available":
                return
            if status.startswith("error") or self._clock.seconds() > deadline:
                said = f"the boot volume {volume_id} is {status}, not available"
                raise Trouble(Kind.PASSING, said, machine=True).in_cloud(cloud.title)
            look += 1
            await deferLater(self._clock, min(float(look), 15.0))

    async def _until_attached(self, boot: Boot, fleet: Fleet, instance: Instance, deadline: float) -> None:
        """Wait for the worker, but no longer than settings say, and not for a server that has ended."""
        attached, ended = ensureDeferred(boot.attached()), instance.ended()
        failed = ensureDeferred(self._says_that_it_failed(fleet, instance))
        late: Deferred[None] = Deferred()
        timer = self._clock.callLater(max(0.0, deadline - self._clock.seconds()), late.callback, None)
        try:
            _, index = await DeferredList(
                [attached, ended, late, failed],
                fireOnOneCallback=True,
                fireOnOneErrback=True,
                consumeErrors=True,
            )
        except FirstError as error:
            reason = error.subFailure.value
            assert isinstance(reason, Exception)
            # Not for a build that was stopped: nothing may keep its server from being ended.
            if isinstance(reason, Trouble) and instance.status not in ("", "ERROR"):
                reason = reason.and_said(await self._keep_console(boot, fleet, instance))
            raise reason from None
        finally:
            if timer.active():
                timer.cancel()
            for one in (attached, ended, failed):
                one.addErrback(lambda _: None)
                one.cancel()
        if index == 2:
            console = await self._keep_console(boot, fleet, instance)
            said = f"no worker attached within {self.dock.start_timeout:g} s (instance {instance.server_id}"
            said += f", {instance.status or 'not listed yet'}; the log `console` has its last words)"
            raise Trouble(Kind.PASSING, said, machine=True).in_cloud(fleet.cloud.title).and_said(console)

    async def _says_that_it_failed(self, fleet: Fleet, instance: Instance) -> None:
        """Raise once the console says so: a machine that fails waits with going off until this was heard.

        Each time costs a call, of which a usual boot makes none.
        """
        pause = _FIRST_LISTEN
        while True:
            await deferLater(self._clock, pause)
            pause = min(pause * 3, _MOST_UNHEARD)
            try:
                console = await fleet.cloud.console(instance.server_id)
            except Trouble:
                continue
            if _FAILED in console:
                said = f"instance {instance.server_id} failed before its worker attached"
                raise Trouble(Kind.PASSING, said, machine=True).in_cloud(fleet.cloud.title)

    async def _attached(self, boot: Boot, fleet: Fleet, instance: Instance, began: float) -> OpenStackMachine:
        fleet.attached(instance)
        instance.ended().addErrback(lambda failure: boot.lost(str(failure.value)))
        took = self._clock.seconds() - began
        await boot.tell(f"instance {instance.server_id}: its worker attached after {took:.1f} s")
        return OpenStackMachine(fleet, instance)

    async def _keep_console(self, boot: Boot, fleet: Fleet, instance: Instance) -> str:
        """Keep the end of the console's log as a log of the build, and give it."""
        try:
            console = await fleet.cloud.console(instance.server_id)
        except Trouble as trouble:
            console = f"cannot be had: {trouble}"
        await boot.keep("console", console or "empty")
        return console


class _Ahead:
    """The boot of a machine that is made ahead: there is no build to tell anything yet."""

    worker = ASKER
    build_url = ""
    asker = ASKER
    request_id = 0
    good: Size | None = None
    least: Size | None = None

    def __init__(self, target: Target) -> None:
        self.target = target
        self.noted: dict[str, str] = {}

    async def login(self, password: str = "") -> str:
        return password

    async def tell(self, text: str) -> None:
        pass

    async def keep(self, name: str, text: str) -> None:
        pass

    def note(self, **values: str) -> None:
        self.noted.update(values)

    def asked(self, name: str) -> str:
        return ""

    async def attached(self) -> None:
        pass

    def lost(self, reason: str) -> None:
        pass


async def base_image(fleet: Fleet, _: Boot, wanted: str | NewestImage) -> tuple[Image, str]:
    """Give the image that the settings name."""
    image = await fleet.cloud.image(wanted)
    return image, f"image {image}"
