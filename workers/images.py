"""Prepared images: a target's base image with its build dependencies in it, and which image a build runs on.

A prepared image belongs to the master whose tag it has, and is in one state: it is `making`, `testing`,
then `current`; `old` ones are kept in case. The first two have an owner, a buildrequest; without one they go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.python import log

from model.package_key import PackageKey
from workers.cloud_data import PREPARED, Kept
from workers.cloud_errors import Kind, Trouble
from workers.image_plan import ONLY_IMAGE, is_prepared
from workers.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from model.targets import Target
    from workers.cloud import Cloud
    from workers.cloud_data import Image
    from workers.fleet import Fleet
    from workers.instance import Instance
    from workers.openstack import OpenStackProvider
    from workers.openstack_settings import NewestImage, PreparedImages
    from workers.provider import Boot

STATE = "buildpackages_state"
DIGEST = "buildpackages_digest"
BASE = "buildpackages_base"
SETTING = "buildpackages_setting"
"""What the settings name as the base, shortened: another setting, another base."""
DISK = "buildpackages_disk"
"""GB of the disk that it was made on: a smaller one does not hold it."""
SHA1 = "buildpackages_sha1"
REQUEST = "buildpackages_request"
"""The buildrequest that owns it while it is made or tested."""
MAKING, TESTING, CURRENT, OLD = "making", "testing", "current", "old"

SNAPSHOT_SECONDS = 3600.0
_LOOKS = (1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0)
"""Seconds from one look at an image that is being made to the next; the last is kept."""
_KNOWN_SECONDS = 60.0
_TAKE_TRIES = 5


class ImageError(ValueError):
    """An image cannot be made or used, and why."""


@dataclass(frozen=True)
class ImageSource:
    """What an image is made from."""

    target: Target
    sha1: str
    digest: str
    base_id: str
    request_id: int


class Images:
    """The prepared images of every cloud of one provider."""

    def __init__(
        self, provider: OpenStackProvider, digest: Callable[[Target, str, str], Awaitable[str]], clock: Any
    ) -> None:
        self._provider = provider
        self._digest = digest
        self._clock = clock
        self._current: WeakKeyDictionary[Cloud, Kept] = WeakKeyDictionary()

    # -- which image a build runs on

    async def choose(self, fleet: Fleet, boot: Boot, wanted: str | NewestImage) -> tuple[Image, str]:
        """Give the image for a boot and a sentence that says why; what goes wrong with prepared ones costs nothing."""
        cloud = fleet.cloud
        only_image = boot.asked(ONLY_IMAGE)
        if only_image and only_image != "base":
            return await _forced(cloud, only_image)
        base = await cloud.image(wanted)
        if only_image:
            boot.note(base_image=base.id)
            return base, f"image {base}: the base, to prepare an image from"
        if not is_prepared(self._settings, boot.target):
            return base, f"image {base}"
        try:
            image, why = await self._usable(cloud, boot, wanted)
        except Trouble as trouble:
            image, why = None, f"prepared images cannot be looked at: {trouble}"
        if image is None:
            return base, f"image {base}: {why}"
        return image, f"image {image}: {why}"

    async def _usable(self, cloud: Cloud, boot: Boot, wanted: str | NewestImage) -> tuple[Image | None, str]:
        """Give the newest current image if it does for a boot; a sentence says why, or why not."""
        if cloud not in self._current:
            self._current[cloud] = Kept(self._clock, _KNOWN_SECONDS, Snapshots(cloud).listed)
        ours = await self._current[cloud].get()
        image = next((one for one in ours if _is(one, boot.target, CURRENT)), None)
        if image is None:
            return None, "there is no prepared image yet"
        if image.properties.get(SETTING) != _setting(wanted):
            return None, f"the prepared image {image.name} is of another base than the settings name now"
        flavor = await cloud.flavor(boot.good, boot.least)
        if 0 < flavor.disk < int(image.properties.get(DISK, 0)):
            return None, f"the prepared image {image.name} needs a disk of {image.properties[DISK]} GB"
        try:
            sha1 = PackageKey.from_string(boot.asked("package_key")).sha1
            digest = await self._digest(boot.target, boot.asked("git_url"), sha1)
        except ValueError as error:
            return None, f"not the prepared image {image.name}: {error}"
        if image.properties.get(DIGEST) != digest:
            return None, f"the prepared image {image.name} is for other dependencies"
        # Asked for last, and for every boot: an image that has vanished would end the build.
        if await Snapshots(cloud).status(image.id) != "active":
            self._current[cloud].forget()
            return None, f"the prepared image {image.name} is gone"
        return image, f"prepared {image.created_at[:10]} for these dependencies"

    # -- the life of an image

    async def make(self, cloud_title: str, server_id: str, source: ImageSource) -> tuple[str, str]:
        """Make an image of a server and wait for it; give its id and name. ImageError leaves none."""
        fleet, instance = self._find(cloud_title, server_id)
        wanted = fleet.cloud.settings.image(source.target)
        if wanted is None:
            raise ImageError(f"cloud {cloud_title} has no setting `images` for {source.target} any more")
        now = datetime.fromtimestamp(self._clock.seconds(), UTC)
        name = f"buildpackages-{source.target}-{now:%Y%m%d-%H%M}-{source.digest[:8]}"
        properties = {
            PREPARED: source.target.name, STATE: MAKING, DIGEST: source.digest, BASE: source.base_id,
            SETTING: _setting(wanted), DISK: str(instance.flavor.disk), SHA1: source.sha1,
            REQUEST: str(source.request_id),
        }  # fmt: skip
        snapshots = Snapshots(fleet.cloud)
        image_id = ""
        try:
            image_id = await self._take(snapshots, server_id, name, properties)
            await self._until_active(snapshots, image_id, name)
        except (Trouble, ImageError, CancelledError) as error:
            if image_id:
                await _remove(snapshots, image_id, name)
            if isinstance(error, Trouble):
                raise ImageError(error.sentence) from None
            raise
        return image_id, name

    async def _take(self, snapshots: Snapshots, server_id: str, name: str, properties: dict[str, str]) -> str:
        for tries in range(_TAKE_TRIES):
            try:
                return await snapshots.take(server_id, name, properties)
            except Trouble as trouble:
                # What was done perhaps, and nobody heard of, is not to be done twice.
                if trouble.kind is not Kind.PASSING or trouble.done_perhaps:
                    raise
                last = trouble
            await deferLater(self._clock, max(_LOOKS[tries + 2], last.retry_after))
        raise last

    async def _until_active(self, snapshots: Snapshots, image_id: str, name: str) -> None:
        deadline = self._clock.seconds() + SNAPSHOT_SECONDS
        looks, status = 0, "queued"
        while self._clock.seconds() < deadline:
            await deferLater(self._clock, _LOOKS[min(looks, len(_LOOKS) - 1)])
            looks += 1
            try:
                status = await snapshots.status(image_id)
            except Trouble as trouble:
                if trouble.kind is not Kind.PASSING:
                    raise
                continue
            if status == "active":
                return
            if status not in ("queued", "saving", "uploading", "importing"):
                raise ImageError(f"the cloud gave up making {name}: it is {status or 'gone'}")
        raise ImageError(f"{name} is still {status} after {SNAPSHOT_SECONDS:g} s")

    async def hand_over(self, cloud_title: str, image_id: str, request_id: int) -> None:
        """Make the buildrequest that tests an image its owner."""
        await self._mark(cloud_title, image_id, {STATE: TESTING, REQUEST: str(request_id)})

    async def switch(self, cloud_title: str, image_id: str, target: Target, keep: int) -> list[str]:
        """Have builds use an image, and remove what is older than the `keep` last before it; give their names."""
        cloud = self._fleet(cloud_title).cloud
        snapshots = Snapshots(cloud)
        await self._mark(cloud_title, image_id, {STATE: CURRENT})
        try:
            ours = await snapshots.listed()
            former = [one for one in ours if one.id != image_id and _is(one, target, CURRENT, OLD)]
            for image in former:
                if image.properties[STATE] == CURRENT:
                    await snapshots.mark(image.id, {STATE: OLD})
        except Trouble as trouble:
            # The newest of the current ones counts; the next switch looks after what is old.
            log.msg(f"former images of {target} cannot be looked after: {trouble}")
            return []
        finally:
            if cloud in self._current:
                self._current[cloud].forget()
        return [image.name for image in former[keep:] if await _remove(snapshots, image.id, image.name)]

    async def tidy(self, is_open: Callable[[int], Awaitable[bool]], half_made: int = 0) -> list[str]:
        """Remove images that nobody goes on making or testing, and what one buildrequest half made; name them."""
        removed = []
        for fleet in self._provider.all_fleets:
            snapshots = Snapshots(fleet.cloud)
            for image in await snapshots.listed(active=False):
                if PREPARED not in image.properties or image.properties.get(STATE) not in (MAKING, TESTING):
                    continue
                owner = image.properties.get(REQUEST, "")
                request_id = int(owner) if owner.isdigit() else 0
                if request_id and request_id != half_made and await is_open(request_id):
                    continue
                if await _remove(snapshots, image.id, image.name):
                    removed.append(image.name)
        return removed

    # -- where things are

    @property
    def _settings(self) -> PreparedImages:
        return self._provider.settings.prepared_images

    def _fleet(self, cloud_title: str) -> Fleet:
        for fleet in self._provider.all_fleets:
            if fleet.cloud.title == cloud_title:
                return fleet
        raise ImageError(f"cloud {cloud_title} is not in the settings any more")

    def _find(self, cloud_title: str, server_id: str) -> tuple[Fleet, Instance]:
        fleet = self._fleet(cloud_title)
        for instance in fleet.instances.values():
            if instance.server_id == server_id:
                return fleet, instance
        raise ImageError(f"instance {server_id} in cloud {cloud_title} is gone")

    async def _mark(self, cloud_title: str, image_id: str, properties: dict[str, str]) -> None:
        try:
            await Snapshots(self._fleet(cloud_title).cloud).mark(image_id, properties)
        except Trouble as trouble:
            raise ImageError(f"image {image_id} cannot be marked {properties[STATE]}: {trouble}") from None


async def _forced(cloud: Cloud, image_id: str) -> tuple[Image, str]:
    try:
        image = await cloud.image(image_id)
    except Trouble as trouble:
        if trouble.kind is Kind.PERMANENT:
            trouble = replace(
                trouble, sentence=f"the prepared image to be tested is not to be had: {trouble}"
            )
        raise trouble from None
    return image, f"image {image}: a prepared one, to be tested"


async def _remove(snapshots: Snapshots, image_id: str, name: str) -> bool:
    """Remove an image; one that is in use may stay until it is tried again."""
    try:
        await snapshots.remove(image_id)
    except Trouble as trouble:
        log.msg(f"image {name} ({image_id}) cannot be removed yet: {trouble}")
        return False
    log.msg(f"image {name} ({image_id}) is removed")
    return True


def _is(image: Image, target: Target, *states: str) -> bool:
    return image.properties.get(PREPARED) == target.name and image.properties.get(STATE) in states


def _setting(wanted: str | NewestImage) -> str:
    """Give what names a base image, short enough for a property."""
    if isinstance(wanted, str):
        return wanted[:255]
    properties = " ".join(f"{name}={value}" for name, value in sorted(wanted.properties.items()))
    return f"newest {wanted.name} {properties}".strip()[:255]
