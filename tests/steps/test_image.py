"""The steps that prepare an image, with Buildbot's own kit: what they ask for, and the sentence that people read."""

from __future__ import annotations

import secrets
import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.process.buildstep import BuildStep
    from buildbot.process.results import CANCELLED, FAILURE, SUCCESS
    from buildbot.test.reactor import TestReactorMixin
    from buildbot.test.steps import ExpectShell, TestBuildStepMixin
import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial import unittest

from steps.image import (
    AddMirror,
    AskForTest,
    CleanMachine,
    CommitUnderTest,
    NewestCommit,
    Snapshot,
    SwitchImage,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files

TARGET = "ceph-deb-jammy-x86_64-default"
SHA1 = "73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
KEY = f"{TARGET}/{SHA1}"
CEPH = "https://github.com/ceph/ceph.git"
DIGEST = "60f30dcc9cd2f882d61dabc93e8a07ba12e4e9615dec4e106a87cb1b670e9bb1"
IMAGE_ID = "572c5cd7-3f21-47cd-b36a-2afae2c16a23"
REPORT_KEY = "0123456789abcdef0123456789abcdef"
NAME = f"buildpackages-{TARGET}-20261124-0300-60f30dcc"


class FakeImages:
    """The service that steps know as `images`, without a cloud: it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.refusal: Exception | None = None
        self.waits: Deferred[None] | None = None
        self.removed: list[str] = []

    def _note(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.refusal:
            raise self.refusal

    async def newest(self, target: Any, request_id: int) -> tuple[str, str, str, str]:
        self._note("newest", str(target), request_id)
        return CEPH, "main", SHA1, DIGEST

    async def snapshot(self, cloud: str, server_id: str, key: Any, **about: Any) -> tuple[str, str]:
        self._note("snapshot", cloud, server_id, str(key), about)
        if self.waits is not None:
            await self.waits
        return IMAGE_ID, NAME

    async def ask_for_test(self, cloud: str, image_id: str, name: str, key: Any, ref: str) -> int:
        self._note("ask_for_test", cloud, image_id, name, str(key), ref)
        return 77

    async def switch(self, cloud: str, image_id: str, target: Any) -> list[str]:
        self._note("switch", cloud, image_id, str(target))
        return self.removed


class StepCase(TestBuildStepMixin, TestReactorMixin, unittest.TestCase):
    """A step, run as a build would, with the properties that the builds of images have."""

    def setUp(self) -> Any:
        self.setup_test_reactor()
        self.images = FakeImages()
        self.patch(secrets, "token_hex", lambda size: REPORT_KEY if size == 16 else "")
        return self.setup_test_build_step()

    def given(self, step: BuildStep, **properties: Any) -> Any:
        """Put a step into a build of an image builder."""
        step = self.setup_step(step)
        self.worker.lastMessageReceived = 0
        for name, value in {"target": TARGET, **properties}.items():
            self.build.setProperty(name, value, "test")
        self.build.requests = [SimpleNamespace(bsid=7, id=8)]
        self.master.service_manager = SimpleNamespace(namedServices={"images": self.images})
        return step

    async def finds(self, result: int, state: str) -> None:
        """Run the step: its result, its state string, and what it says of the whole build."""
        self.expect_outcome(result, state)
        summary = {"step": state} if result == SUCCESS else {"step": state, "build": state}
        self.expect_result_summary(summary)
        await self.run_step()


class TestNewestCommit(StepCase):
    """The step that takes the commit to prepare for."""

    async def test_it_takes_what_a_build_goes_by(self) -> None:
        """The newest commit is kept as the properties that the steps of a build of packages read."""
        self.given(NewestCommit())
        for name, value in (
            ("git_url", CEPH),
            ("ref", "main"),
            ("package_key", KEY),
            ("dependency_digest", DIGEST),
        ):
            self.expect_property(name, value, "newest")
        await self.finds(SUCCESS, f"main is at {SHA1}, its dependencies have the digest 60f30dcc")
        assert self.images.asked == [("newest", TARGET, 8)]

    async def test_a_repository_that_does_not_answer_is_a_sentence(self) -> None:
        """Where there is no newest commit, the sentence ends the build."""
        self.given(NewestCommit())
        self.images.refusal = ValueError(f"{CEPH} did not answer within 20 s; ask again")
        await self.finds(
            FAILURE, f"Finding the newest commit failed: {CEPH} did not answer within 20 s; ask again"
        )


class TestScripts(StepCase):
    """The steps that run a script on the machine."""

    async def shell(self, step: BuildStep, script: str, report: str, state: str, status: int = 0) -> None:
        self.given(step)
        output = f"{REPORT_KEY} {report}\n{REPORT_KEY} exit {status}\n"
        self.expect_commands(
            ExpectShell(
                "wkdir", ["bash", f"scripts/{script}.sh"], timeout=3600, max_time=43200, log_environ=False,
                initial_stdin=f"{REPORT_KEY}\n",
            )
            .stdout(output).exit(status)
        )  # fmt: skip
        await self.finds(SUCCESS if status == 0 else FAILURE, state)

    async def test_the_mirror(self) -> None:
        """The mirror is made of the checkout, and its size told."""
        await self.shell(AddMirror(), "image-mirror", "mirror=1.2G", "git mirror of 1.2G")

    async def test_cleaning(self) -> None:
        """The machine is cleaned, and what is left in use told."""
        await self.shell(CleanMachine(), "image-clean", "used=7.9G", "cleaned; 7.9G are in use")

    async def test_cleaning_that_fails_ends_the_build(self) -> None:
        """A machine that could not be cleaned becomes no image."""
        assert CleanMachine().haltOnFailure
        await self.shell(
            CleanMachine(), "image-clean", "FAILED: no", "Cleaning the machine failed: no", status=1
        )


class TestSnapshot(StepCase):
    """The step that waits for the image."""

    PROPERTIES: ClassVar[dict[str, str]] = {
        "cloud": "sepia", "instance": "server-1", "base_image": "base-1", "package_key": KEY,
        "dependency_digest": DIGEST,
    }  # fmt: skip

    async def test_it_says_what_the_image_is_of(self) -> None:
        """The machine, the base image, the commit, the digest and the owner are given, and the image is kept."""
        self.given(Snapshot(), **self.PROPERTIES)
        self.expect_property("image_id", IMAGE_ID, "snapshot")
        self.expect_property("image_name", NAME, "snapshot")
        await self.finds(SUCCESS, f"{NAME} ({IMAGE_ID}) in cloud sepia")
        about = {"base_id": "base-1", "digest": DIGEST, "request_id": 8}
        assert self.images.asked == [("snapshot", "sepia", "server-1", KEY, about)]

    async def test_what_the_cloud_says_is_the_sentence(self) -> None:
        """A snapshot that cannot be had ends the build with the reason."""
        self.given(Snapshot(), **self.PROPERTIES)
        self.images.refusal = ValueError("cloud sepia: no quota for images")
        await self.finds(FAILURE, "Making the snapshot failed: cloud sepia: no quota for images")

    async def test_a_stop_reaches_what_waits(self) -> None:
        """A build that is stopped while it waits stops the waiting, so that nothing half made is kept."""
        step = self.given(Snapshot(), **self.PROPERTIES)
        self.images.waits = Deferred()
        stopped: list[Any] = []
        self.images.waits.addErrback(lambda failure: stopped.append(failure.value) or failure)
        self.expect_outcome(CANCELLED, "Making the snapshot was cancelled")
        self.reactor.callLater(1, step.interrupt, "enough")
        running = ensureDeferred(self.run_step())
        self.reactor.advance(1)
        await running
        assert [type(one) for one in stopped] == [CancelledError]


class TestTheRest(StepCase):
    """The steps around the test of an image."""

    async def test_the_test_is_asked_for(self) -> None:
        """The test is of the image, in its cloud, with the commit that it was prepared for; who follows finds it."""
        self.given(
            AskForTest(), cloud="sepia", image_id=IMAGE_ID, image_name=NAME, package_key=KEY, ref="main"
        )
        self.expect_property("test_request", 77, "test")
        await self.finds(SUCCESS, f"buildrequest 77 tests {NAME}")
        assert self.images.asked == [("ask_for_test", "sepia", IMAGE_ID, NAME, KEY, "main")]

    async def test_the_commit_under_test(self) -> None:
        """The test's build learns which commit it builds from the request."""
        self.given(CommitUnderTest(), sha1=SHA1, image_name=NAME)
        self.expect_property("package_key", KEY, "commit")
        await self.finds(SUCCESS, f"testing {NAME} with {SHA1}")

    async def test_the_switch(self) -> None:
        """The image that the build ran on is switched to, in the cloud where it is."""
        self.given(SwitchImage(), only_cloud="sepia", only_image=IMAGE_ID, image_name=NAME)
        await self.finds(SUCCESS, f"builds of {TARGET} use {NAME} in cloud sepia")
        assert self.images.asked == [("switch", "sepia", IMAGE_ID, TARGET)]

    async def test_the_switch_names_what_went(self) -> None:
        """Images that are removed are named, so that nobody looks for them."""
        self.given(SwitchImage(), only_cloud="sepia", only_image=IMAGE_ID, image_name=NAME)
        self.images.removed = ["old-1", "old-2"]
        await self.finds(SUCCESS, f"builds of {TARGET} use {NAME} in cloud sepia; removed old-1, old-2")
