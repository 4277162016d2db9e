"""The checks of one cloud: what is looked at, in which order, and with which calls of the SDK."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from openstack.exceptions import ForbiddenException, NotFoundException
from twisted.internet.defer import ensureDeferred

from workers.cloud_errors import Trouble
from workers.doctor import verdicts
from workers.doctor.verdicts import Finding, ImageFacts, Login, Named, fail, ok, warning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from openstack.connection import Connection
    from twisted.python.failure import Failure

    from workers.cloud import Cloud
    from workers.doctor.settings import InForce
    from workers.sizes import NovaFlavor


class Checks:
    """All that can be seen of one cloud without making anything in it."""

    def __init__(self, cloud: Cloud, in_force: InForce, reactor: Any) -> None:
        """Take the cloud as the settings configure it."""
        self._cloud = cloud
        self._settings = cloud.settings
        self._in_force = in_force
        self._reactor = reactor
        self._chosen: NovaFlavor | None = None
        self._project = ""
        self._near = False
        self._blind = True

    async def run(self) -> AsyncIterator[Finding]:
        """Give the findings as they are made; what is in the way of all others comes first."""
        for what, check in (("credentials", self._credentials), ("catalogue", self._services)):
            for finding in await self._ask(what, check):
                yield finding
            if self._blind:
                yield warning("the rest", "not looked at: nothing can be seen before that is mended")
                return
        for what, check in (
            ("nova", self._nova),
            ("clock", self._clock),
            ("nova_flavor", self._flavor),
            ("images", self._images),
            ("networks", self._networks),
            ("security_groups", self._groups),
            ("key_name", self._key),
            ("availability_zone", self._zone),
            ("scheduler_hints", self._hints),
            ("floating_ip", self._floating_ip),
            ("volume", self._volume),
            ("quota", self._quota),
            ("tag", self._tag),
            ("leftovers", self._leftovers),
            ("master", self._ways),
        ):
            for finding in await self._ask(what, check):
                yield finding

    async def _ask(self, what: str, check: Callable[[], Coroutine[Any, Any, list[Finding]]]) -> list[Finding]:
        def odd(failure: Failure) -> list[Finding]:
            if isinstance(failure.value, Trouble):
                return [fail(what, self._said(failure.value))]
            # Whatever else comes of an answer is shown as it is, and the other checks go on.
            return [
                fail(what, f"setting `cloud`: {type(failure.value).__name__}: {failure.getErrorMessage()}")
            ]

        return await ensureDeferred(check()).addErrback(odd)

    def _said(self, trouble: Trouble) -> str:
        return trouble.sentence.removeprefix(f"cloud {self._cloud.title}: ")

    # -- who we are, and what there is

    async def _credentials(self) -> list[Finding]:
        login, self._project = await self._cloud.run(_login)
        self._near = verdicts.is_near(login.auth_url)
        self._blind = False
        return verdicts.credentials(login, datetime.now(UTC))

    async def _services(self) -> list[Finding]:
        settings = self._settings
        needed = ["compute", "image"]
        if settings.networks or settings.security_groups or settings.floating_ip:
            needed.append("network")
        if settings.volume is not None:
            needed.append("block-storage")

        def look(sdk: Connection) -> tuple[dict[str, str], str, list[str]]:
            there = {kind: str(sdk.endpoint_for(kind) or "") for kind in needed}
            listed = _access(sdk).service_catalog.get_endpoints()
            regions = {str(one.get("region_id") or one["region"]) for many in listed.values() for one in many}
            return there, str(sdk.config.get_region_name("compute") or ""), sorted(regions)

        self._blind = True
        there, region, regions = await self._cloud.run(look)
        self._blind = not (there["compute"] and there["image"])
        return verdicts.services(there, needed, region, regions)

    async def _nova(self) -> list[Finding]:
        def look(sdk: Connection) -> tuple[int, int] | None:
            told = sdk.compute.get_endpoint_data()
            newest = told.max_microversion if told else None
            return (int(newest[0]), int(newest[1])) if newest else None

        return verdicts.nova(await self._cloud.run(look))

    async def _clock(self) -> list[Finding]:
        def look(sdk: Connection) -> float | None:
            began = time.time()
            answer = sdk.session.get(str(sdk.endpoint_for("compute")), raise_exc=False)
            date = answer.headers.get("Date")
            if not date:
                return None
            # The header has whole seconds, and was written somewhere between the question and the answer.
            return parsedate_to_datetime(date).timestamp() + 0.5 - (began + time.time()) / 2

        skew = await self._cloud.run(look)
        return [] if skew is None else verdicts.clock(skew)

    # -- what machines are made of

    async def _flavor(self) -> list[Finding]:
        self._chosen = await self._cloud.flavor()
        return verdicts.flavor(self._chosen, self._settings)

    async def _images(self) -> list[Finding]:
        found = []
        for target in self._in_force.targets:
            wanted = self._settings.image(target)
            if wanted is None:
                continue
            try:
                image = await self._cloud.image(wanted)
                facts = await self._cloud.run(_image_facts, image.id)
            except Trouble as trouble:
                found.append(fail(f"image for {target}", self._said(trouble)))
            else:
                found.extend(verdicts.image(target, facts, self._chosen, self._settings))
        if not found:
            found.append(warning("images", "setting `images`: no target that is on is built in this cloud"))
        return [*found, *verdicts.patterns(self._settings, self._in_force.targets)]

    async def _networks(self) -> list[Finding]:
        if self._settings.networks:
            known = await self._cloud.run(_networks)
            return verdicts.named("networks", self._settings.networks, known)
        usable, automatic = await self._cloud.run(_networks_for_nova, self._project)
        return verdicts.networks_left_to_nova(usable, automatic)

    async def _groups(self) -> list[Finding]:
        wanted = self._settings.security_groups
        if not wanted:
            return [ok("security_groups", "none is set: the project's `default` counts")]

        def look(sdk: Connection) -> list[Named]:
            # An administrator sees those of every project.
            groups = list(sdk.network.security_groups())
            ours = [one for one in groups if one.project_id == self._project or one.is_shared]
            return [Named(str(one.id), str(one.name)) for one in ours]

        return verdicts.named("security_groups", wanted, await self._cloud.run(look))

    async def _key(self) -> list[Finding]:
        wanted = self._settings.key_name
        if not wanted:
            return []

        def look(sdk: Connection) -> list[Named]:
            return [Named(str(one.name), str(one.name)) for one in sdk.compute.keypairs()]

        return verdicts.named("key_name", [wanted], await self._cloud.run(look))

    async def _zone(self) -> list[Finding]:
        wanted = self._settings.availability_zone
        if not wanted:
            return []

        def look(sdk: Connection) -> dict[str, bool]:
            zones = sdk.compute.availability_zones()
            return {str(one.name): bool((one.state or {}).get("available")) for one in zones}

        return verdicts.zone(wanted, await self._cloud.run(look))

    async def _hints(self) -> list[Finding]:
        group = self._settings.scheduler_hints.get("group")
        if not isinstance(group, str):
            return []

        def look(sdk: Connection) -> list[Named]:
            return [Named(str(one.id), str(one.id)) for one in sdk.compute.server_groups()]

        return verdicts.named("scheduler_hints", [group], await self._cloud.run(look))

    async def _floating_ip(self) -> list[Finding]:
        wanted = self._settings.floating_ip
        if not wanted:
            return []

        def look(sdk: Connection) -> list[Named]:
            return [
                Named(
                    str(one.id), str(one.name), "" if one.is_router_external else "is not an external network"
                )
                for one in sdk.network.networks()
            ]

        return verdicts.named("floating_ip", [wanted], await self._cloud.run(look))

    async def _volume(self) -> list[Finding]:
        volume = self._settings.volume
        if volume is None:
            return []
        types = await self._cloud.run(
            lambda sdk: [Named(str(one.id), str(one.name)) for one in sdk.block_storage.types()]
        )
        found = verdicts.named("volume.type", [volume.type], types) if volume.type else []
        limits = await self._cloud.run(lambda sdk: sdk.block_storage.get_limits().absolute)
        for what, unit, limit, used, each in (
            ("volumes", "", limits.max_total_volumes, limits.total_volumes_used, 1),
            (
                "volumes' space",
                " GB",
                limits.max_total_volume_gigabytes,
                limits.total_gigabytes_used,
                volume.size,
            ),
        ):
            found += verdicts.count(
                what, "volume", -1 if limit is None else int(limit), int(used or 0),
                each=each, most=self._settings.max_instances, unit=unit,
            )  # fmt: skip
        return found or [ok("volume", f"{volume.size} GB of {volume.type or 'the default type'}")]

    # -- how many, and whose

    async def _quota(self) -> list[Finding]:
        settings = self._settings
        found = []
        if self._chosen is not None:
            limits = await self._cloud.limits()
            found += verdicts.compute_quota(limits, self._chosen, settings.max_instances)
        quota = await self._cloud.run(_network_quota, self._project)
        for name, what, setting, each in (
            ("port", "ports", "networks", len(settings.networks) or 1),
            ("floatingip", "floating ips", "floating_ip", int(bool(settings.floating_ip))),
        ):
            if name in quota:
                most = settings.max_instances
                found += verdicts.count(what, setting, *quota[name], each=each, most=most)
        return found

    async def _tag(self) -> list[Finding]:
        if not self._in_force.master_id:
            return [ok("tag", "the master makes its id at its first start")]

        def look(sdk: Connection) -> tuple[list[tuple[str, list[str] | None]], int]:
            shown = [
                (str(one.name), None if one.tags is None else list(one.tags))
                for one in sdk.compute.servers(details=True, tags=[self._cloud.tag])
            ]
            return shown, sum(1 for _ in sdk.compute.servers(details=False))

        shown, visible = await self._cloud.run(look)
        return verdicts.listing(self._cloud.tag, shown, visible)

    async def _leftovers(self) -> list[Finding]:
        if not self._in_force.master_id:
            return []
        servers, others = await self._cloud.servers(), await self._cloud.leftovers()
        return verdicts.leftovers(servers, others, self._reactor.seconds())

    async def _ways(self) -> list[Finding]:
        return verdicts.ways(self._in_force.listens, self._in_force.reached, clouds_are_near=self._near)


def _login(sdk: Connection) -> tuple[Login, str]:
    access = _access(sdk)
    auth = sdk.config.config.get("auth", {})
    wanted = auth.get("application_credential_id") or auth.get("application_credential_name")
    login = Login(
        user=str(access.username),
        project=str(access.project_name or ""),
        roles=tuple(str(one) for one in access.role_names),
        by="application credential" if wanted else "not an application credential",
        auth_url=str(auth.get("auth_url", "")),
        verified=bool(sdk.config.get_requests_verify_args()[0]),
        expires=_expiry(sdk, access.user_id, wanted) if wanted else None,
    )
    return login, str(access.project_id or "")


def _access(sdk: Connection) -> Any:
    """Give what keystone says with the token, which is asked for once."""
    plugin: Any = sdk.session.auth
    return plugin.get_access(sdk.session)


def _expiry(sdk: Any, user_id: str, wanted: str) -> datetime | None:
    try:
        for one in sdk.identity.application_credentials(user_id):
            if wanted in (one.id, one.name) and one.expires_at:
                return datetime.fromisoformat(str(one.expires_at)).replace(tzinfo=UTC)
    except (ForbiddenException, NotFoundException):
        pass  # some clouds don't show a user its own
    return None


def _image_facts(sdk: Connection, image_id: str) -> ImageFacts:
    image = sdk.image.get_image(image_id)
    return ImageFacts(
        title=f"{image.name} ({image.id})",
        min_disk=int(image.min_disk or 0),
        min_ram=int(image.min_ram or 0),
        bytes=int(image.virtual_size or image.size or 0),
        architecture=str(image.architecture or ""),
        os_distro=str(image.os_distro or ""),
        os_version=str(image.os_version or ""),
    )


def _networks(sdk: Connection) -> list[Named]:
    found = []
    for one in sdk.network.networks():
        trouble = ""
        if not one.subnet_ids:
            trouble = "has no subnet"
        elif not one.is_admin_state_up:
            trouble = "is switched off (admin_state_up)"
        found.append(Named(str(one.id), str(one.name), trouble))
    return found


def _networks_for_nova(sdk: Connection, project: str) -> tuple[list[str], str]:
    """Give the names of those among which nova would choose, and what speaks against one of its making."""
    if not sdk.has_service("network"):
        return [], "there is no network service"
    usable = [str(one.name) for one in sdk.network.networks() if one.project_id == project or one.is_shared]
    if usable:
        return usable, ""
    answer = sdk.network.get(f"/auto-allocated-topology/{project}", params={"fields": "dry-run"})
    return [], "" if answer.ok else str(answer.json()["NeutronError"]["message"])


def _network_quota(sdk: Connection, project: str) -> dict[str, tuple[int, int]]:
    """Give limit and use by name; nothing where the cloud does not show them."""
    if not sdk.has_service("network"):
        return {}
    answer = sdk.network.get(f"/quotas/{project}/details.json")
    if not answer.ok:
        return {}
    told = answer.json()["quota"]
    return {
        name: (int(one["limit"]), int(one["used"])) for name, one in told.items() if isinstance(one, dict)
    }
