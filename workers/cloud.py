"""One OpenStack cloud: openstacksdk in a few threads of its own, and what our calls of it mean.

Each public coroutine is one request, or the few that its docstring names, and raises Trouble. Nothing here
waits for anything but an answer: what takes time on the cloud's side is seen by listing.
"""

from __future__ import annotations

import base64
import re
import threading
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from openstack.config import OpenStackConfig
from openstack.connection import Connection
from openstack.exceptions import NotFoundException, raise_from_response
from twisted.python.failure import Failure

from workers import cloud_errors, sizes
from workers.cloud_data import PREPARED, Image, Kept, Leftover, Limits, Seen
from workers.cloud_errors import Kind, Trouble
from workers.sdk_calls import SdkThreads, patient
from workers.sizes import NovaFlavor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from workers.cloud_data import Wanted
    from workers.openstack_settings import CloudSettings, NewestImage

T = TypeVar("T")

MICROVERSION = "2.60"
"""Of compute, of Queens: tags in the create call need 2.52."""
_LOOKED_UP_SECONDS = 300.0
_LIMITS_SECONDS, _LIMITS_AT_MOST = 5.0, 60.0
_CONSOLE_LINES = 200
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class Cloud:
    """A cloud as the settings name it. No thread and no connection is made before the first call."""

    def __init__(self, settings: CloudSettings, clouds_yaml: Path | None, tag: str, clock: Any) -> None:
        """Take the settings, where clouds.yaml is unless where the SDK looks, and our servers' tag."""
        self.settings = settings
        self.title = settings.title
        self.tag = tag
        self.calls = 0
        """Requests that were made through the methods, look-ups included."""
        self._clouds_yaml = clouds_yaml
        self._clock = clock
        self._made = threading.Lock()
        self._connection: Connection | None = None
        self._flavors = Kept(clock, _LOOKED_UP_SECONDS, lambda: self.run(self._list_flavors))
        self._networks = Kept(clock, _LOOKED_UP_SECONDS, lambda: self.run(self._list_networks))
        self._limits = Kept(clock, _LIMITS_SECONDS, lambda: self.run(self._get_limits))
        self._images: dict[str, Kept] = {}
        self._threads = SdkThreads(f"cloud {self.title}")

    def configure(self, settings: CloudSettings, clouds_yaml: Path | None) -> None:
        """Take new settings of the same cloud; what they and clouds.yaml name is looked up anew."""
        self.settings, self._clouds_yaml = settings, clouds_yaml
        self._images.clear()
        self._flavors.forget()
        self._networks.forget()
        self.forget("credentials")

    def close(self) -> None:
        """End the threads; calls that hang are left to their time limit."""
        self._threads.close()

    # -- servers

    async def servers(self) -> list[Seen]:
        """List the servers with our tag."""
        found: list[Seen] = await self.run(self._list_servers)
        return found

    async def create(self, wanted: Wanted) -> str:
        """Ask for a server; give its id. Tag and metadata are in the call itself."""
        server_id: str = await self.run_change(self._create, wanted, await self._network_ids())
        return server_id

    async def delete(self, server_id: str) -> None:
        """Ask for a server's end; one that is gone already is as good."""
        await self.run_change(lambda sdk: sdk.compute.delete_server(server_id, ignore_missing=True))

    async def exists(self, server_id: str) -> bool:
        """Whether a server is there, of whatever status but DELETED."""

        def look(sdk: Connection) -> bool:
            try:
                return bool(sdk.compute.get_server(server_id).status != "DELETED")
            except NotFoundException:
                return False

        return bool(await self.run(look))

    async def console(self, server_id: str) -> str:
        """Give the end of a server's console log."""

        def fetch(sdk: Connection) -> str:
            told = sdk.compute.get_server_console_output(server_id, length=_CONSOLE_LINES)
            return str((told or {}).get("output") or "")

        return str(await self.run(fetch))

    # -- what the settings name

    async def limits(self) -> Limits:
        """Read the compute quota; an answer is good for a few seconds, and for a minute if none is to be had."""
        found: Limits = await self._limits.get(_LIMITS_AT_MOST)
        return found

    @property
    def limits_read_at(self) -> float:
        """When the quota was asked for last: what was asked for later is not in it."""
        return self._limits.asked_at

    def forget_limits(self) -> None:
        """Read the quota anew next time: something was given back, or was refused."""
        self._limits.forget()

    async def flavor(self, good: sizes.Size | None = None, least: sizes.Size | None = None) -> NovaFlavor:
        """Choose the nova_flavor: the one the settings name, else by size; sizes given here come first."""
        settings = self.settings
        flavors = await self._flavors.get()
        try:
            if settings.nova_flavor and good is None and least is None:
                return sizes.by_name(flavors, settings.nova_flavor)
            good = good or (settings.good_machine.size if settings.good_machine else None)
            least = least or (settings.min_machine.size if settings.min_machine else None)
            return sizes.smallest(flavors, good, least, disk_elsewhere=settings.volume is not None)
        except sizes.NoSuchFlavor as error:
            self._flavors.forget()
            trouble = Trouble(Kind.PERMANENT, str(error), stale="nova_flavor")
            raise trouble.in_cloud(self.title) from None

    async def image(self, wanted: str | NewestImage) -> Image:
        """Look an image up by id, by name, or the newest with given properties."""
        key = repr(wanted)
        if key not in self._images:
            self._images[key] = Kept(
                self._clock, _LOOKED_UP_SECONDS, lambda: self.run(self._find_image, wanted)
            )
        found: Image = await self._images[key].get()
        return found

    def forget(self, setting: str) -> None:
        """Look up anew what a setting names."""
        if setting == "images":
            self._images.clear()
        elif setting == "nova_flavor":
            self._flavors.forget()
        elif setting == "networks":
            self._networks.forget()
        elif setting == "credentials":
            with self._made:
                self._connection = None

    # -- volumes, ports, floating ips

    async def create_volume(self, name: str, image: Image, boot: str) -> str:
        """Ask cinder for a boot volume made from an image; give its id."""
        volume = self.settings.volume
        assert volume is not None

        def make(sdk: Connection) -> str:
            attributes: dict[str, Any] = {"volume_type": volume.type} if volume.type else {}
            made = sdk.block_storage.create_volume(
                size=volume.size, name=name, image_id=image.id, metadata=self._mark(boot), **attributes
            )
            return _id(made)

        return str(await self.run_change(make))

    async def volume_status(self, volume_id: str) -> str:
        """Give a volume's status: `creating`, `downloading`, `available`, `error` and others."""
        return str(await self.run(lambda sdk: sdk.block_storage.get_volume(volume_id).status))

    async def create_port(self, name: str, boot: str) -> str:
        """Make a port on the first network, for a floating ip to point at; give its id."""
        network_ids = await self._network_ids()

        def make(sdk: Connection) -> str:
            attributes: dict[str, Any] = {}
            if self.settings.security_groups:
                groups = {one.name: one.id for one in sdk.network.security_groups()}
                attributes["security_groups"] = [
                    groups.get(one, one) for one in self.settings.security_groups
                ]
            made = sdk.network.create_port(
                network_id=network_ids[0], name=name, description=self._description(boot), **attributes
            )
            return _id(made)

        if not network_ids:
            raise Trouble(Kind.PERMANENT, "setting `floating_ip` needs `networks`").in_cloud(self.title)
        return str(await self.run_change(make))

    async def create_floating_ip(self, port_id: str, boot: str) -> str:
        """Take a floating ip from the network that the settings name, for a port; give its id."""

        def make(sdk: Connection) -> str:
            name = self.settings.floating_ip
            network = sdk.network.find_network(name, ignore_missing=True)
            if network is None:
                raise Trouble(Kind.PERMANENT, f"setting `floating_ip`: no network {name!r}")
            made = sdk.network.create_ip(
                floating_network_id=network.id, port_id=port_id, description=self._description(boot)
            )
            return _id(made)

        return str(await self.run_change(make))

    async def leftovers(self) -> list[Leftover]:
        """List ports, floating ips and volumes of ours, where the cloud has such services."""
        found: list[Leftover] = await self.run(self._list_leftovers)
        return found

    async def remove(self, leftover: Leftover) -> None:
        """Delete a volume, port or floating ip; one that is gone already is as good."""

        def delete(sdk: Connection) -> None:
            if leftover.kind == "volume":
                sdk.block_storage.delete_volume(leftover.id, ignore_missing=True)
            elif leftover.kind == "port":
                sdk.network.delete_port(leftover.id, ignore_missing=True)
            else:
                sdk.network.delete_ip(leftover.id, ignore_missing=True)

        await self.run_change(delete)

    # -- in threads

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread with the SDK's connection before its arguments; it raises Trouble."""
        return await self._call(self._threads.run, function, *arguments)

    async def run_change(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that makes or removes something, as `run` does."""
        return await self._call(self._threads.change, function, *arguments)

    async def _call(self, how: Callable[..., Any], function: Callable[..., T], *arguments: Any) -> T:
        self.calls += 1
        asked = how(_reactor(), lambda: function(self._sdk(), *arguments))
        asked.addErrback(self._translate)
        result: T = await asked
        return result

    def _translate(self, failure: Failure) -> Failure:
        trouble = cloud_errors.of(failure.value) if failure.value else None
        if trouble is None:
            return failure
        if trouble.stale:
            self.forget(trouble.stale)
        return Failure(trouble.in_cloud(self.title))

    def _sdk(self) -> Connection:
        with self._made:
            if self._connection is None:
                files = [str(self._clouds_yaml)] if self._clouds_yaml else None
                # Retries would sleep in the thread; ours are the caller's.
                region = OpenStackConfig(config_files=files, load_envvars=files is None).get_one(
                    cloud=self.settings.cloud,
                    region_name=self.settings.region or None,
                    api_timeout=self.settings.timeout,
                    connect_retries=0,
                    status_code_retries=0,
                    # Sent always: after a discovery that failed, the SDK would send none, and nova would
                    # take no tags, and show everybody's servers.
                    compute_default_microversion=MICROVERSION,
                )
                self._connection = Connection(config=region, app_name="buildpackages")
            return self._connection

    def _list_servers(self, sdk: Connection) -> list[Seen]:
        """List ours without the SDK's objects, each of which takes 3 ms under the interpreter's lock."""
        listed: list[dict[str, Any]] = []
        query = urlencode({"tags": self.tag})
        while True:
            answer = sdk.compute.get(f"/servers/detail?{query}")
            raise_from_response(answer)
            body = answer.json()
            listed += body["servers"]
            if not body["servers"] or not body.get("servers_links"):
                break
            query = urlencode({"tags": self.tag, "marker": listed[-1]["id"]})
        if not all(self.tag in (one.get("tags") or []) for one in listed):
            raise Trouble(Kind.PASSING, "its listing shows servers without our tag, and is not believed")
        return [Seen.of(one) for one in listed]

    def _create(self, sdk: Connection, wanted: Wanted, network_ids: list[str]) -> str:
        settings = self.settings
        attributes: dict[str, Any] = {
            "name": wanted.name,
            "flavor_id": wanted.flavor.id,
            "user_data": base64.b64encode(wanted.user_data.encode()).decode(),
            "metadata": {name: value[:255] for name, value in wanted.metadata.items()},
            "tags": [self.tag],
            "config_drive": settings.config_drive,
            "networks": [{"uuid": one} for one in network_ids] or "auto",
        }
        if wanted.port_id:
            attributes["networks"] = [
                {"port": wanted.port_id}, *({"uuid": one} for one in network_ids[1:])
            ]  # fmt: skip
        elif settings.security_groups:
            attributes["security_groups"] = [{"name": one} for one in settings.security_groups]
        if wanted.volume_id:
            attributes["block_device_mapping"] = [
                {
                    "boot_index": 0, "uuid": wanted.volume_id, "source_type": "volume",
                    "destination_type": "volume", "delete_on_termination": True,
                }
            ]  # fmt: skip
        else:
            attributes["image_id"] = wanted.image.id
        for name in ("key_name", "availability_zone", "scheduler_hints"):
            if getattr(settings, name):
                attributes[name] = getattr(settings, name)
        return _id(patient(sdk.compute, settings.timeout).create_server(**attributes))

    def _get_limits(self, sdk: Connection) -> Limits:
        found = sdk.compute.get_limits().absolute
        return Limits(
            *(
                int(-1 if value is None else value)
                for value in (
                    found.instances, found.instances_used or 0, found.total_cores,
                    found.total_cores_used or 0, found.total_ram, found.total_ram_used or 0,
                )
            )
        )  # fmt: skip

    def _list_flavors(self, sdk: Connection) -> list[NovaFlavor]:
        return [
            NovaFlavor(str(one.id), str(one.name), int(one.disk or 0), int(one.ram or 0), int(one.vcpus or 0))
            for one in sdk.compute.flavors(details=True)
        ]

    async def _network_ids(self) -> list[str]:
        wanted = self.settings.networks
        if all(_UUID.match(one) for one in wanted):
            return list(wanted)
        networks = await self._networks.get()
        if not all(name in networks or _UUID.match(name) for name in wanted):
            self._networks.forget()  # It may be new.
            networks = await self._networks.get()
        found = {name: [name] if _UUID.match(name) else networks.get(name, []) for name in wanted}
        for name, ids in found.items():
            if len(ids) != 1:
                several = f"is the name of {len(ids)} networks; name one by its id"
                said = several if ids else f"is not there; there are {', '.join(sorted(networks))}"
                said = f"setting `networks`: {name!r} {said}"
                raise Trouble(Kind.PERMANENT, said, stale="networks").in_cloud(self.title)
        return [found[name][0] for name in wanted]

    def _list_networks(self, sdk: Connection) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in sdk.network.networks():
            found.setdefault(str(one.name), []).append(str(one.id))
        if not found:  # seen for seconds of a neutron that has just started
            raise Trouble(Kind.PASSING, "neutron lists no network at all")
        return found

    def _find_image(self, sdk: Connection, wanted: str | NewestImage) -> Image:
        if isinstance(wanted, str):
            if _UUID.match(wanted):
                found = [
                    Image.of(one) for one in sdk.image.images(id=f"in:{wanted}") if one.status == "active"
                ]
            else:
                found = [Image.of(one) for one in sdk.image.images(name=wanted, status="active")]
            if len(found) == 1:
                return found[0]
            said = f"{wanted!r} is not there, or not active"
            if found:
                said = f"{wanted!r} is the name of {len(found)} images; name one by its id, or `newest` properties"
        else:
            found = self._list_images(sdk, wanted.name, wanted.properties)
            # A prepared image has the properties of its base, and is newer.
            found = [one for one in found if PREPARED not in one.properties]
            if found:
                return found[0]
            properties = ", ".join(f"{name}={value}" for name, value in wanted.properties.items())
            said = f"no active image {wanted.name!r} has {properties or 'any properties'}"
        raise Trouble(Kind.PERMANENT, f"setting `images`: {said}", stale="images")

    def _list_images(self, sdk: Connection, name: str, properties: Mapping[str, str]) -> list[Image]:
        query: dict[str, Any] = {} if re.search(r"[*?\[]", name) else {"name": name}
        found = [Image.of(one) for one in sdk.image.images(status="active", **query)]
        chosen = [
            one
            for one in found
            if fnmatchcase(one.name, name)
            and all(one.properties.get(key) == value for key, value in properties.items())
        ]
        return sorted(chosen, key=lambda one: (one.created_at, one.id), reverse=True)

    def _list_leftovers(self, sdk: Connection) -> list[Leftover]:
        mark = self._description("")
        found = []
        if sdk.has_service("network"):
            for kind, listed in (("floating ip", sdk.network.ips), ("port", sdk.network.ports)):
                try:
                    found += [
                        Leftover(kind, str(one.id), str(one.description).removeprefix(mark))
                        for one in listed()
                        if str(one.description or "").startswith(mark)
                    ]
                except NotFoundException:
                    continue  # a network service without routers has no floating ips
        if sdk.has_service("block-storage"):
            for one in sdk.block_storage.volumes(details=True):
                metadata = one.metadata or {}
                if metadata.get("buildpackages") == self.tag:
                    found.append(Leftover("volume", str(one.id), str(metadata.get("boot", ""))))
        return found

    def _mark(self, boot: str) -> dict[str, str]:
        return {"buildpackages": self.tag, "boot": boot}

    def _description(self, boot: str) -> str:
        return f"{self.tag} boot {boot}"


def _id(made: Any) -> str:
    if not made.id:
        raise Trouble(Kind.PASSING, "its answer to a create call has no id", done_perhaps=True)
    return str(made.id)


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor
