"""Prepared images: of which targets, who asks for them, and when.

Two builds make an image. `image-<target>` installs the dependencies of the newest commit and takes a snapshot;
`image-test-<target>` builds that commit's packages on it, publishes nothing, and switches over. They are two,
as the machine of the first is gone before the second needs one: an image can be made with room for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.process.properties import Properties
from buildbot.schedulers.forcesched import CollectedValidationError, ForceScheduler, StringParameter
from buildbot.schedulers.timed import Nightly
from buildbot.schedulers.triggerable import Triggerable
from buildbot.util.twisted import async_to_deferred
from twisted.internet.defer import Deferred

from master.prepared_images.names import (
    NIGHTLY,
    TEST_PREFIX,
    image_builder,
    image_targets,
    image_test_builder,
)
from master.reloads.in_force import schedulers_in_force
from master.requests.fields import CLAIMED_OWNER
from master.users import OPERATOR
from master.workers import provider
from workers.image_plan import ONLY_CLOUD

if TYPE_CHECKING:
    from buildbot.util.service import BuildbotService

    from master.settings import Settings


class ImagesScheduler(ForceScheduler):
    """Makes an image of a target now, for the operator."""

    compare_attrs = ("clouds",)

    def checkConfig(self, *, clouds: dict[str, list[str]], **kwargs: Any) -> None:  # type: ignore[override]
        """Take the clouds that each builder can make images in, besides what a ForceScheduler takes."""
        super().checkConfig(**kwargs)
        self.clouds = clouds

    @async_to_deferred
    async def reconfigService(self, *, clouds: dict[str, list[str]], **kwargs: Any) -> None:  # type: ignore[override]
        """Take the settings, and show only fields that mean something here."""
        await super().reconfigService(**kwargs)
        self.clouds = clouds
        self.all_fields = [StringParameter("cloud", label="Cloud (the first that can, if empty)", size=30)]
        self.forcedProperties: list[Any] = []

    def force(self, /, **params: Any) -> Deferred[Any]:  # type: ignore[override]
        """Give `[buildset id, {builder id: buildrequest id}]`, or say what is wrong."""
        return Deferred.fromCoroutine(self._force(params))

    async def _force(self, params: dict[str, Any]) -> Any:
        owner = str(params.pop("owner", None) or "nobody")
        name = await self._builder_name(params.pop("builderNames", None), params.pop("builderid", None))
        wanted = params.pop("cloud", "")
        problems = {
            field: "is not a field of this form" for field in params if field not in (CLAIMED_OWNER, "reason")
        }
        can = self.clouds.get(name, [])
        if not can:
            problems["builderNames"] = f"must be one of {', '.join(self.clouds)}"
        elif wanted and wanted not in can:
            problems["cloud"] = f"must be one of {', '.join(can)}"
        if owner != OPERATOR:
            problems["owner"] = "images are the operator's to ask for"
        if problems:
            raise CollectedValidationError(problems)
        properties = Properties()
        properties.setProperty(ONLY_CLOUD, wanted or can[0], self.name)
        properties.setProperty("owner", owner, self.name)
        return await self.addBuildsetForSourceStampsWithDefaults(
            reason=f"{owner} asked for it", sourcestamps=[], properties=properties, builderNames=[name]
        )

    async def _builder_name(self, names: Any, builder_id: Any) -> str:
        assert self.master is not None
        if isinstance(names, list) and len(names) == 1:
            return str(names[0])
        text = str(builder_id)
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            return ""
        builder = await self.master.data.get(("builders", text))
        return str(builder["name"]) if builder else ""


class UtcNightly(Nightly):
    """Goes by UTC, whatever the machine's time zone."""

    def current_utc_offset(self, tm: float) -> float:
        """Give the seconds from UTC to the clock that is gone by."""
        del tm
        return 0.0


def image_schedulers(settings: Settings) -> list[Any]:
    """Give the schedulers of images: the door `images`, and one for each cloud at night; none where images are off."""
    targets = image_targets(settings)
    openstack = settings.workers.openstack
    tests = dict.fromkeys([*(image_test_builder(target) for target in targets), *_tests_in_force()])
    triggerables = [Triggerable(name=name, builderNames=[name]) for name in tests]
    if not targets or openstack is None:
        return triggerables
    names = {image_builder(target): clouds for target, clouds in targets.items()}
    titles = dict.fromkeys(title for clouds in targets.values() for title in clouds)
    nightly = [
        UtcNightly(
            name=f"images-nightly-{number}",
            builderNames=[name for name, clouds in names.items() if title in clouds],
            hour=openstack.prepared_images.hour,
            minute=0,
            properties={ONLY_CLOUD: title, "owner": NIGHTLY},
            reason="every night",
        )
        for number, title in enumerate(titles, 1)
    ]
    return [
        ImagesScheduler(
            name="images",
            builderNames=list(names),
            buttonName="Prepare an image",
            label="Prepare an image",
            clouds=names,
        ),
        *nightly,
        *triggerables,
    ]


def _tests_in_force() -> list[str]:
    """Return the tests of images in force. An image may still be in the making after its target left the settings."""
    return [name for name in schedulers_in_force() if name.startswith(TEST_PREFIX)]


def image_services(settings: Settings) -> list[BuildbotService]:
    """Return the service of images; none where images have been off since the master's start."""
    targets = image_targets(settings)
    openstack = settings.workers.openstack
    if openstack is None or not (targets or _tests_in_force()):
        return []
    # Only those who use the SDK should pay for its import.
    from master.prepared_images.service import ImageService

    return [
        ImageService(
            provider=provider(settings),
            projects=settings.projects,
            recipes=settings.recipes,
            git_timeout=settings.git.timeout,
            prepared=openstack.prepared_images,
            state=settings.state,
        )
    ]
