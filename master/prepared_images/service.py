"""The service behind the steps that make prepared images; while it runs, builds run on them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from buildbot.process.properties import Properties
from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.python import log

from master.prepared_images.dependency_digest import DependencyDigests
from master.prepared_images.names import NIGHTLY, image_test_builder, is_image_builder
from master.requests.refs import resolve
from workers.image_plan import ONLY_CLOUD, ONLY_IMAGE
from workers.images import Images, ImageSource

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from twisted.python.failure import Failure

    from master.project_settings import Project
    from model.package_key import PackageKey
    from model.recipes import Recipes
    from model.targets import Target
    from workers.openstack import OpenStackProvider
    from workers.openstack_settings import PreparedImages


class ImageService(BuildbotService):
    """The service that steps know as `images`; while it runs, builds run on prepared images."""

    name = "images"

    def checkConfig(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Take anything that reconfigService takes."""
        super().checkConfig()

    @async_to_deferred
    async def reconfigService(  # type: ignore[override]
        self,
        *,
        provider: OpenStackProvider,
        projects: Mapping[str, Project],
        recipes: Recipes,
        git_timeout: float,
        prepared: PreparedImages,
        state: Path,
    ) -> None:
        """Take the provider and the settings."""
        await super().reconfigService()
        assert self.master is not None
        # A target that is off may be of a project that is gone from the settings.
        self._projects = {**getattr(self, "_projects", {}), **projects}
        self._recipes, self._git_timeout, self._prepared = recipes, git_timeout, prepared
        if not hasattr(self, "_images"):
            self._provider = provider
            self._digests = DependencyDigests(self.master.reactor, state / "digests", git_timeout)
            self._images = Images(provider, self._digest, self.master.reactor)
            self._base_image = provider.choose_image

    @async_to_deferred
    async def startService(self) -> None:
        """Have builds run on prepared images, and remove those that a killed master half made."""
        assert self.master is not None
        await super().startService()
        await deferToThread(self._digests.wipe)
        self._provider.choose_image = self._images.choose
        self._consumer = await self.master.mq.startConsuming(
            self._completed, ("buildrequests", None, "complete")
        )
        self._tidy()

    @async_to_deferred
    async def stopService(self) -> None:
        """Leave builds to the images that the settings name."""
        await super().stopService()
        self._provider.choose_image = self._base_image
        self._consumer.stopConsuming()

    def getConfigDict(self) -> dict[str, Any]:
        """Show nothing to anybody."""
        return {"name": self.name}

    # -- what the steps ask for; a ValueError is a sentence for the build

    async def newest(self, target: Target, request_id: int) -> tuple[str, str, str, str]:
        """Give git URL, ref and sha1 to prepare for, and their digest; an earlier try leaves nothing behind."""
        assert self.master is not None
        url, branch = self._projects[target.project].git_url, self._prepared.branch
        sha1 = await resolve(self.master.reactor, url, branch, self._git_timeout)
        digest = await self._digest(target, url, sha1)
        await self._images.tidy(self._is_open, request_id)
        return url, branch, sha1, digest

    async def snapshot(
        self, cloud: str, server_id: str, key: PackageKey, *, base_id: str, digest: str, request_id: int
    ) -> tuple[str, str]:
        """Make an image of a server; give its id and name."""
        source = ImageSource(key.target, key.sha1, digest, base_id, request_id)
        return await self._images.make(cloud, server_id, source)

    async def ask_for_test(self, cloud: str, image_id: str, name: str, key: PackageKey, ref: str) -> int:
        """Have an image tested by one build; give the buildrequest."""
        assert self.master is not None
        properties, git_url = Properties(), self._projects[key.target.project].git_url
        for field, value in (
            ("target", key.target.name), ("sha1", key.sha1), ("git_url", git_url), ("ref", ref),
            ("owner", NIGHTLY), (ONLY_CLOUD, cloud), (ONLY_IMAGE, image_id), ("image_name", name),
            ("reason", f"{name} was made"),
        ):  # fmt: skip
            properties.setProperty(field, value, self.name)
        scheduler = self.master.scheduler_manager.namedServices[image_test_builder(key.target)]
        source = {
            "codebase": "", "repository": git_url, "branch": ref, "revision": key.sha1,
            "project": key.target.project,
        }  # fmt: skip
        ids, done = scheduler.trigger(False, sourcestamps=[source], set_props=properties)
        done.addErrback(lambda _: None)  # nobody waits for it here
        _, requests = await ids
        [request_id] = requests.values()
        await self._images.hand_over(cloud, image_id, request_id)
        return int(request_id)

    async def switch(self, cloud: str, image_id: str, target: Target) -> list[str]:
        """Have builds use an image from now on; give the names of those that are removed for it."""
        return await self._images.switch(cloud, image_id, target, self._prepared.keep)

    # -- what nobody goes on with

    @async_to_deferred
    async def _completed(self, _: Any, message: dict[str, Any]) -> None:
        """Look after what a build that made or tested an image has left."""
        assert self.master is not None
        builder = await self.master.data.get(("builders", message["builderid"]))
        if builder is not None and is_image_builder(builder["name"]):
            self._tidy()

    async def _digest(self, target: Target, git_url: str, sha1: str) -> str:
        """Return the digest of what is installed for a commit: its dependency lists, and the target's recipe."""
        lists = await self._digests.of(git_url, sha1)
        record = self._recipes.of(target).record(target.pkg_type)
        return hashlib.sha256(json.dumps([lists, record], sort_keys=True).encode()).hexdigest()

    def _tidy(self) -> None:
        ensureDeferred(self._images.tidy(self._is_open)).addErrback(_told)

    async def _is_open(self, request_id: int) -> bool:
        assert self.master is not None
        request = await self.master.data.get(("buildrequests", str(request_id)))
        return request is not None and not request["complete"]


def _told(failure: Failure) -> None:
    log.msg(f"images that nobody goes on making cannot be removed yet: {failure.value}")
