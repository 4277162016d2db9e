"""Steps that prepare an image: which commit, a git mirror, cleaning, a snapshot, and then its test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from buildbot.process.buildstep import BuildStep
from buildbot.process.results import CANCELLED, FAILURE, SUCCESS
from twisted.internet.defer import CancelledError, Deferred

from model.package_key import PackageKey
from steps import commands
from steps.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.python.failure import Failure

    from model.targets import Target
    from steps.commands import Command


class Images(Protocol):
    """What the steps need of the master's service named `images`; all raise ValueError with a sentence."""

    async def newest(self, target: Target, request_id: int) -> tuple[str, str, str, str]:
        """Give git URL, ref and sha1 to prepare for, and their digest; an earlier try leaves nothing behind."""

    async def snapshot(
        self, cloud: str, server_id: str, key: PackageKey, *, base_id: str, digest: str, request_id: int
    ) -> tuple[str, str]:
        """Make an image of a server; give its id and name. What fails leaves none."""

    async def ask_for_test(self, cloud: str, image_id: str, name: str, key: PackageKey, ref: str) -> int:
        """Have an image tested by one build; give the buildrequest."""

    async def switch(self, cloud: str, image_id: str, target: Target) -> Sequence[str]:
        """Have builds use an image from now on; give the names of those that are removed for it."""


class _ImageStep(BuildStep):
    """Asks the service `images` for something; a refusal is a sentence, and ends the build."""

    haltOnFailure = True
    flunkOnFailure = True
    doing = ""

    def __init__(self, **kwargs: Any) -> None:
        """Have nothing under way yet."""
        super().__init__(**kwargs)
        self._work: Deferred[str] | None = None
        self._sentence = ""

    async def ask(self, images: Images) -> str:
        """Do it; give the step's summary."""
        raise NotImplementedError

    async def run(self) -> int:
        """Ask, and tell what came of it."""
        assert self.master is not None
        self.updateSummary()
        self._work = Deferred.fromCoroutine(self.ask(self.master.service_manager.namedServices["images"]))
        try:
            self._sentence = await self._work
        except CancelledError:
            self._sentence = f"{self._what} was cancelled"
            return int(CANCELLED)
        except ValueError as error:
            self._sentence = f"{self._what} failed: {error}"
            return int(FAILURE)
        finally:
            self._work = None
        return int(SUCCESS)

    @property
    def _what(self) -> str:
        return f"{self.doing[:1].upper()}{self.doing[1:]}"

    def interrupt(self, reason: str | Failure) -> Deferred[None]:
        """Stop, also in the middle of waiting."""
        if self._work is not None:
            self._work.cancel()
        stopped: Deferred[None] = super().interrupt(reason)
        return stopped

    def getCurrentSummary(self) -> dict[str, str]:
        """Say what is being done."""
        return {"step": self.doing}

    def getResultSummary(self) -> dict[str, str]:
        """Give the sentence; on failure it is the build's, too."""
        sentence = self._sentence or self.doing
        return {"step": sentence} if self.results == SUCCESS else {"step": sentence, "build": sentence}

    @property
    def key(self) -> PackageKey:
        """The commit that is prepared for, with the target."""
        return PackageKey.from_string(self.value("package_key"))

    @property
    def target(self) -> Target:
        """The target whose image it is."""
        return PackageKey.from_string(f"{self.value('target')}/{'0' * 40}").target

    @property
    def request_id(self) -> int:
        """The buildrequest of this build."""
        assert self.build is not None
        return int(self.build.requests[0].id)

    def value(self, name: str) -> str:
        """Give a property of the build; empty if it has none."""
        found = self.getProperty(name)
        return "" if found is None else str(found)


class NewestCommit(_ImageStep):
    """Takes the newest commit of the branch that images are prepared for, and the digest of its dependencies."""

    name = "newest"
    doing = "finding the newest commit"

    async def ask(self, images: Images) -> str:
        """Keep them as properties, as a build of packages has them."""
        git_url, ref, sha1, digest = await images.newest(self.target, self.request_id)
        for name, value in (
            ("git_url", git_url),
            ("ref", ref),
            ("package_key", str(PackageKey(self.target, sha1))),
            ("dependency_digest", digest),
        ):
            self.setProperty(name, value, self.name)
        return f"{ref} is at {sha1}, its dependencies have the digest {digest[:8]}"


class CommitUnderTest(_ImageStep):
    """Takes the commit that the image was prepared for."""

    name = "commit"
    doing = "taking the commit"

    async def ask(self, images: Images) -> str:
        """Keep it as the property that the steps of a build of packages go by.

        A rebuild goes by the properties of the request, where it is not: it could not be told from an
        ask for packages.
        """
        del images
        key = PackageKey(self.target, self.value("sha1"))
        self.setProperty("package_key", str(key), self.name)
        return f"testing {self.value('image_name')} with {key.sha1}"


class AddMirror(Script):
    """Leaves on the machine what git has fetched, for the checkouts of later builds."""

    name = "mirror"
    doing = "making the git mirror"

    def compose(self) -> Command:
        """Make it of the checkout."""
        return commands.script("image-mirror")

    def finish(self) -> str:
        """Say how large it is."""
        return f"git mirror of {self.output.values['mirror']}"


class CleanMachine(Script):
    """Removes from the machine what no other may inherit: secrets, identity, logs, caches."""

    name = "clean"
    doing = "cleaning the machine"

    def compose(self) -> Command:
        """Clean all there is."""
        return commands.script("image-clean")

    def finish(self) -> str:
        """Say how much is left."""
        return f"cleaned; {self.output.values['used']} are in use"


class Snapshot(_ImageStep):
    """Makes the image."""

    name = "snapshot"
    doing = "making the snapshot"

    async def ask(self, images: Images) -> str:
        """Keep its id and name as properties."""
        image_id, name = await images.snapshot(
            self.value("cloud"), self.value("instance"), self.key, base_id=self.value("base_image"),
            digest=self.value("dependency_digest"), request_id=self.request_id,
        )  # fmt: skip
        self.setProperty("image_id", image_id, self.name)
        self.setProperty("image_name", name, self.name)
        return f"{name} ({image_id}) in cloud {self.value('cloud')}"


class AskForTest(_ImageStep):
    """Has the image tested, by a build on a machine of its own once this one is gone."""

    name = "test"
    doing = "requesting a test of the image"

    async def ask(self, images: Images) -> str:
        """Keep the buildrequest as a property, for who follows it."""
        request_id = await images.ask_for_test(
            self.value("cloud"), self.value("image_id"), self.value("image_name"), self.key, self.value("ref")
        )
        self.setProperty("test_request", request_id, self.name)
        return f"buildrequest {request_id} tests {self.value('image_name')}"


class SwitchImage(_ImageStep):
    """Switches the target's builds over to the image that has stood its test."""

    name = "switch"
    doing = "switching to the image"

    async def ask(self, images: Images) -> str:
        """Name it, and what went for it."""
        removed = await images.switch(self.value("only_cloud"), self.value("only_image"), self.target)
        told = f"builds of {self.target} use {self.value('image_name')} in cloud {self.value('only_cloud')}"
        return f"{told}; removed {', '.join(removed)}" if removed else told
