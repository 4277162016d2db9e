"""The steps, with Buildbot's own kit: the exact command that the worker gets, and the sentence that people read."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.data.types import Identifier
    from buildbot.process.buildstep import BuildStep
    from buildbot.process.results import FAILURE, RETRY, SUCCESS, WARNINGS
    from buildbot.test.reactor import TestReactorMixin
    from buildbot.test.steps import ExpectShell, TestBuildStepMixin
import pytest
from twisted.internet.error import ConnectionLost
from twisted.trial import unittest

from model import build_commands
from model.package_key import PackageKey
from model.recipes import Recipe
from steps import script
from steps.build import BuildDependencies, BuildPackages, SourceTarball
from steps.prepare import AlreadyPublished, Checkout, Machine, Version
from steps.publish import Publish, UploadPackages
from steps.script import GRACE_SECONDS
from tests.package_repositories import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files

SHA1 = "73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
DEB = f"ceph-deb-jammy-x86_64-default/{SHA1}"
RPM = f"ceph-rpm-centos9-x86_64-default/{SHA1}"
CEPH = "https://github.com/ceph/ceph.git"
FORK = "https://github.com/me/ceph.git"
OTHER = "https://github.com/you/ceph.git"
SERVED = f"http://127.0.0.1:8011/ceph-deb-jammy-x86_64-default/sha1/{SHA1}/"
RECIPE = Recipe(
    cmake=("-DA=1", "-DB=2"),
    environment={"X": "y z"},
    profiles=("pkg.a", "pkg.b"),
    rpmbuild=("--with=a",),
    dwz=False,
)
TOKEN = "the-token-of-this-build"
KEY = "0123456789abcdef0123456789abcdef"
NEEDS = {"needs-deb": build_commands.table("deb"), "needs-rpm": build_commands.table("rpm")}


class FakePublisher:
    """The service that steps know as `publisher`, without a disk: it remembers what it was asked."""

    def __init__(self, published: str = "", refusal: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self._published = published
        self._refusal = refusal
        self.open: SimpleNamespace | None = None

    async def published_url(self, key: str) -> str:
        self.asked.append(("published_url", key))
        return self._published

    async def open_upload(self, key: PackageKey, build_id: int) -> SimpleNamespace:
        self.asked.append(("open_upload", str(key)))
        self.open = SimpleNamespace(token=TOKEN, build_id=build_id)
        return self.open

    def upload_of(self, build_id: int) -> SimpleNamespace | None:
        return self.open if self.open is not None and self.open.build_id == build_id else None

    async def close_upload(self, upload: SimpleNamespace) -> None:
        self.asked.append(("close_upload", upload.token))

    async def publish(self, upload: SimpleNamespace, record: dict[str, Any]) -> str:
        self.asked.append(("publish", upload.token, record))
        if self._refusal:
            raise self._refusal
        return SERVED


def shell(*command: str, initial_stdin: str = f"{KEY}\n", **options: Any) -> ExpectShell:
    """Expect a command with what all of ours have: limits, an environment that no log shows, and a key on standard input."""
    return ExpectShell(
        "wkdir", list(command), timeout=3600, max_time=43200, log_environ=False, initial_stdin=initial_stdin, **options
    )  # fmt: skip


def report(*lines: str, status: int = 0) -> str:
    """Return the report of a script that ends with a status."""
    return "".join(f"\n{KEY} {line}\n" for line in (*lines, f"exit {status}"))


class FakeWaiting:
    """The repositories that those who wait have named, and what the step has tried when it asks for them."""

    def __init__(self, *git_urls: str) -> None:
        self.git_urls = git_urls
        self.asked: list[tuple[list[int], list[str]]] = []

    def next_git_url(self, requests: Sequence[int], tried: Iterable[str]) -> str:
        self.asked.append((list(requests), list(tried)))
        return next((url for url in self.git_urls if url not in tried), "")


class StepCase(TestBuildStepMixin, TestReactorMixin, unittest.TestCase):
    """A step, run as a build would, with the properties that the steps before it have set."""

    def setUp(self) -> Any:
        self.setup_test_reactor()
        self.publisher = FakePublisher()
        self.waiting = FakeWaiting()
        self.patch(secrets, "token_hex", lambda size: KEY if size == 16 else "")
        return self.setup_test_build_step()

    def given(self, step: BuildStep, key: str = DEB, results: int = SUCCESS, **properties: Any) -> Any:
        """Put a step into a build of a package_key."""
        step = self.setup_step(step)
        self.worker.lastMessageReceived = 0
        values = {"package_key": key, "git_url": FORK, **properties}
        for name, value in values.items():
            self.build.setProperty(name, value, "test")
        self.build.results = results
        self.build.requests = [SimpleNamespace(bsid=7, id=8)]

        async def url() -> str:
            return "http://127.0.0.1:8010/#/builders/1/builds/2"

        self.build.getUrl = url
        self.master.service_manager = SimpleNamespace(
            namedServices={"publisher": self.publisher, "waiting": self.waiting}
        )
        return step

    async def finds(self, result: int, state: str, build: str | None = None) -> None:
        """Run the step: its result, its state string, and what it says of the whole build."""
        self.expect_outcome(result, state)
        summary = {"step": state} if build is None else {"step": state, "build": build}
        self.expect_result_summary(summary)
        await self.run_step()


class TestMachine(StepCase):
    """The step that puts our scripts onto the machine and learns its size."""

    VALUES = ("system=Ubuntu%2022.04.4%20LTS", "cores=16", "memory=20000")

    def machine(self, stand_in: str = "") -> Any:
        step = self.given(Machine(memory_per_job=3072))
        scripts = {path.name: path.read_text() for path in SCRIPTS.iterdir() if path.is_file()}
        first, second, rest = step.initialStdin.split("\n")
        assert json.loads(first) == {**scripts, **NEEDS}
        assert (second, rest) == (KEY, "")
        assert {"common.sh", "checkout.sh", "upload.py"} <= set(scripts)
        self.expect_commands(
            shell("python3", "-c", step.compose()[2], "scripts/needs-deb", initial_stdin=step.initialStdin)
            .stdout("Linux x 6.1\n" + report(*self.VALUES, f"stand_in={stand_in.replace(' ', '%20')}")).exit(0)
        )  # fmt: skip
        return step

    async def test_it_tells_the_machines_size(self) -> None:
        """System, cores, memory and the jobs that these bear are the state string, and jobs is a property."""
        self.machine()
        self.expect_property("jobs", 6, "machine")
        self.expect_property("stand_in", "", "machine")
        await self.finds(SUCCESS, "Ubuntu 22.04.4 LTS, 16 cores, 20000 MiB, 6 jobs")

    async def test_it_says_what_stands_in(self) -> None:
        """Where a machine only stands in for the distribution, the first step says so."""
        self.machine("Debian's rpmbuild stands in for centos9")
        self.expect_property("stand_in", "Debian's rpmbuild stands in for centos9", "machine")
        await self.finds(
            SUCCESS,
            "Ubuntu 22.04.4 LTS, 16 cores, 20000 MiB, 6 jobs; Debian's rpmbuild stands in for centos9",
        )

    async def test_the_command_unpacks_the_scripts(self) -> None:
        """The worker finds every script as it is here, and the lists of commands; then it looks at the machine."""
        step = self.given(Machine())
        with tempfile.TemporaryDirectory() as name:
            finished = subprocess.run(
                step.compose(), input=step.initialStdin, cwd=name, capture_output=True, text=True
            )
            unpacked = {path.name: path.read_text() for path in Path(name, "scripts").iterdir()}
        assert finished.returncode == 0, finished.stderr
        for line in finished.stdout.splitlines():
            step.output.feed(line)
        assert step.output.values["cores"].isdecimal()
        assert unpacked == json.loads(step.initialStdin.partition("\n")[0])

    async def test_rpms_need_other_commands(self) -> None:
        """The machine is asked for the commands of its target's type of packages."""
        assert self.given(Machine(), RPM).compose()[3:] == ["scripts/needs-rpm"]


class TestCheckout(StepCase):
    """The step that checks out the forced sha1."""

    COMMAND = ("bash", "scripts/checkout.sh", FORK, SHA1, CEPH, "v*")

    async def test_it_checks_out_the_forced_sha1(self) -> None:
        """The worker gets the fork, the commit of the key, the canonical repository and the pattern of its tags."""
        self.given(Checkout(CEPH, "v*"))
        self.expect_commands(shell(*self.COMMAND).stdout(report()).exit(0))
        await self.finds(SUCCESS, f"checked out {SHA1}")

    async def test_a_failure_is_the_scripts_sentence(self) -> None:
        """A failure's state string, the build's as well, is the sentence of the script and the tool's error."""
        self.given(Checkout(CEPH, "v*"))
        self.expect_commands(
            shell(*self.COMMAND)
            .stderr(
                f"fatal: remote error: not our ref {SHA1}\n"
                + report(f"FAILED: {FORK} has no commit {SHA1}, or cannot be reached", status=1)
            )
            .exit(1)
        )
        said = f"Checking out the commit failed: {FORK} has no commit {SHA1}, or cannot be reached: fatal: remote error: not our ref {SHA1}"
        await self.finds(FAILURE, said, build=said)

    async def test_another_repository_is_tried_by_another_step(self) -> None:
        """A failure of the first request's repository is no failure of the build if somebody who waits has named another."""
        self.waiting = FakeWaiting(FORK, OTHER)
        self.given(Checkout(CEPH, "v*", silence=600, max_seconds=3600))
        added: list[Any] = []
        self.build.addStepsAfterCurrentStep = added.extend
        self.fails(f"{FORK} is silent: for long", timeout=600, max_time=3600)
        self.expect_property("git_url", OTHER, "checkout")
        self.expect_property("failed_checkouts", {FORK: f"{FORK} is silent: for long"}, "checkout")
        said = (
            f"Checking out the commit failed: {FORK} is silent: for long."
            f" The next step tries {OTHER}, which another request names"
        )
        await self.finds(WARNINGS, said)
        assert self.waiting.asked == [([8], [FORK])]
        [another] = added
        assert isinstance(another, Checkout)
        assert (another.timeout, another.maxTime) == (600, 3600)
        assert another._canonical == (CEPH, "v*")

    async def test_the_last_failure_names_every_repository(self) -> None:
        """When no repository is left, the build fails with the reason of each."""
        self.waiting = FakeWaiting(FORK, OTHER)
        self.given(Checkout(CEPH, "v*"), failed_checkouts={OTHER: f"{OTHER} is: away"})
        self.fails(f"{FORK} is silent: for long")
        said = f"Checking out the commit failed: {OTHER} is: away; {FORK} is silent: for long"
        await self.finds(FAILURE, said, build=said)
        assert self.waiting.asked == [([8], [OTHER, FORK])]

    def fails(self, sentence: str, **limits: int) -> None:
        options = {"timeout": 3600, "max_time": 43200, **limits}
        self.expect_commands(
            ExpectShell(
                "wkdir", list(self.COMMAND), log_environ=False, initial_stdin=f"{KEY}\n", **options
            ).stderr(report(f"FAILED: {sentence}", status=1)).exit(1)
        )  # fmt: skip

    async def stopped(self, reason: str, limit: str) -> None:
        self.waiting = FakeWaiting(OTHER)
        self.given(Checkout(CEPH, "v*"))
        self.expect_commands(
            shell(*self.COMMAND).stdout("remote: Counting\n").update("failure_reason", reason).exit(-1)
        )
        said = f"Checking out the commit was stopped: {limit}"
        await self.finds(FAILURE, said, build=said)

    async def test_a_silent_command_says_so(self) -> None:
        """A command that was stopped because it printed nothing says for how long."""
        await self.stopped("timeout_without_output", "no output for 1 h")

    async def test_a_command_that_took_too_long_says_so(self) -> None:
        """A command that was stopped because it took too long names the limit."""
        await self.stopped("timeout", "the build took more than 12 h")

    def watched(self, heard: float) -> list[tuple[str, int]]:
        """Return the list of how the master ends a build that began at 0 and whose worker was last heard at `heard`."""
        step = self.given(Checkout(CEPH, "v*", silence=600, max_seconds=3600))
        ended: list[tuple[str, int]] = []

        async def stop(reason: str, results: int) -> None:
            ended.append((reason, results))

        self.build.stopBuild = stop
        self.worker.lastMessageReceived = heard
        step._watch(0, 3600)
        return ended

    def test_the_master_ends_what_a_silent_worker_does_not(self) -> None:
        """A worker that is not heard for longer than the limit and the grace period cannot keep its build."""
        ended = self.watched(heard=100)
        self.reactor.advance(100 + 600 + GRACE_SECONDS - 1)
        assert ended == []
        self.reactor.advance(2)
        assert ended == [("Checking out the commit was stopped: no output for 10 min", FAILURE)]

    def test_the_master_ends_a_build_that_takes_too_long(self) -> None:
        """A worker that sends something now and then cannot keep its build beyond the limit for the whole build."""
        ended = self.watched(heard=3600)
        self.reactor.advance(3600 + GRACE_SECONDS - 1)
        assert ended == []
        self.reactor.advance(2)
        assert ended == [("Checking out the commit was stopped: the build took more than 1 h", FAILURE)]

    async def test_a_step_gets_what_the_steps_before_it_left(self) -> None:
        """The limit is for the whole build, not for each step."""
        self.given(Checkout(CEPH, "v*"), ends_at=1000)
        self.expect_commands(
            ExpectShell(
                "wkdir", list(self.COMMAND), timeout=3600, max_time=1000, log_environ=False, initial_stdin=f"{KEY}\n"
            ).update("failure_reason", "timeout").exit(-1)
        )  # fmt: skip
        said = "Checking out the commit was stopped: the build took more than 12 h"
        await self.finds(FAILURE, said, build=said)

    async def test_a_lost_worker_is_no_failure_of_the_code(self) -> None:
        """A connection that broke is for another machine to try again."""
        self.given(Checkout(CEPH, "v*"))
        self.expect_commands(shell(*self.COMMAND).error(ConnectionLost()))
        self.expect_outcome(RETRY)
        await self.run_step()


class TestVersion(StepCase):
    """The step that asks git for the version."""

    COMMAND = ("bash", "scripts/version.sh", CEPH, "v*")

    async def test_the_version_is_a_property(self) -> None:
        """What git describes is kept for the steps after."""
        self.given(Version(CEPH, "v*"))
        self.expect_commands(shell(*self.COMMAND).stdout(report("version=19.2.0-3-g73e2fc59")).exit(0))
        self.expect_property("version", "19.2.0-3-g73e2fc59", "version")
        await self.finds(SUCCESS, "version 19.2.0-3-g73e2fc59")

    async def test_without_a_tag_there_is_a_sentence(self) -> None:
        """A commit without a release among its ancestors is refused in words."""
        self.given(Version(CEPH, "v*"))
        self.expect_commands(
            shell(*self.COMMAND)
            .stderr(
                "fatal: No names found, cannot describe anything.\n"
                + report(
                    f"FAILED: no tag v* of {CEPH} is an ancestor of the commit, so it has no version",
                    status=1,
                )
            )
            .exit(1)
        )
        said = (
            f"Finding the version failed: no tag v* of {CEPH} is an ancestor of the commit, so it has no version:"
            " fatal: No names found, cannot describe anything."
        )
        await self.finds(FAILURE, said, build=said)


class TestDependenciesAndTarball(StepCase):
    """The steps that install what the build needs, and make the source tarball."""

    async def test_dependencies_of_rpms(self) -> None:
        """The worker is told which kind of packages is meant."""
        self.given(BuildDependencies(name="dependencies"), key=RPM)
        self.expect_commands(shell("bash", "scripts/dependencies.sh", "rpm").stdout(report()).exit(0))
        await self.finds(SUCCESS, "build dependencies installed")

    async def test_a_recipe_reaches_dependencies(self) -> None:
        """The variables and macros of a recipe are there when dependencies are installed."""
        variables = {"CEPH_EXTRA_CMAKE_ARGS": "-DA=1 -DB=2", "X": "y z"}
        macros = ["_with_a --with-a", "_without_dwz --without-dwz"]
        self.given(BuildDependencies(recipe=RECIPE), key=RPM)
        self.expect_commands(
            shell("bash", "scripts/dependencies.sh", "rpm", *macros, env=variables).stdout(report()).exit(0)
        )
        await self.finds(SUCCESS, "build dependencies installed")

    async def test_a_recipe_reaches_the_tarball(self) -> None:
        """The variables of a recipe are there when the tarball is made."""
        variables = {"CEPH_EXTRA_CMAKE_ARGS": "-DA=1 -DB=2", "X": "y z"}
        self.given(SourceTarball(recipe=RECIPE), key=RPM, version="1.0")
        self.expect_commands(
            shell("bash", "scripts/tarball.sh", "ceph", "1.0", env=variables)
            .stdout(report("tarball=t.tar"))
            .exit(0)
        )
        await self.finds(SUCCESS, "t.tar")

    async def test_a_package_that_apt_cannot_find(self) -> None:
        """apt's own sentence reaches the user."""
        self.given(BuildDependencies(name="dependencies"))
        self.expect_commands(
            shell("bash", "scripts/dependencies.sh", "deb")
            .stderr("E: Unable to locate package libfoo-dev\n" + report("FAILED: install-deps.sh ended with status 100", status=1))
            .exit(1)
        )  # fmt: skip
        said = "Installing the build dependencies failed: E: Unable to locate package libfoo-dev"
        await self.finds(FAILURE, said, build=said)

    async def test_the_tarball_is_a_property(self) -> None:
        """The tarball that was found is kept for the step that builds from it."""
        self.given(SourceTarball(name="tarball"), version="19.2.0-3-g73e2fc59")
        self.expect_commands(
            shell("bash", "scripts/tarball.sh", "ceph", "19.2.0-3-g73e2fc59")
            .stdout("ceph-19.2.0-3-g73e2fc59.tar.bz2: 9 files\n" + report("tarball=ceph-19.2.0-3-g73e2fc59.tar.bz2")).exit(0)
        )  # fmt: skip
        self.expect_property("tarball", "ceph-19.2.0-3-g73e2fc59.tar.bz2")
        await self.finds(SUCCESS, "ceph-19.2.0-3-g73e2fc59.tar.bz2")


class TestBuildPackages(StepCase):
    """The step that builds the packages."""

    PROPERTIES: ClassVar[dict[str, Any]] = {
        "tarball": "ceph.tar.bz2",
        "version": "19.2.0-3-g73e2fc59",
        "jobs": 6,
    }
    COMMAND = ("bash", "scripts/packages-deb.sh", "ceph.tar.bz2", "19.2.0-3-g73e2fc59", "jammy", "6")

    async def test_the_expected_packages_are_a_property(self) -> None:
        """The names that the sources have are kept, and their number is told."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        self.expect_commands(
            shell(*self.COMMAND).stdout("[ 45%] x\n" + report("packages=ceph,ceph-common")).exit(0)
        )
        self.expect_property("packages", ["ceph", "ceph-common"], "packages")
        await self.finds(SUCCESS, "2 packages built")

    async def test_rpms_on_a_stand_in(self) -> None:
        """On a stand-in rpmbuild is told to leave the dependencies to us."""
        self.given(BuildPackages(spec="ceph"), key=RPM, stand_in="Debian", **self.PROPERTIES)
        self.expect_commands(
            shell("bash", "scripts/packages-rpm.sh", "ceph.tar.bz2", "19.2.0-3.g73e2fc59", "ceph", "6", "--nodeps")
            .stdout(report("packages=ceph")).exit(0)
        )  # fmt: skip
        await self.finds(SUCCESS, "1 packages built")

    async def test_debs_by_a_recipe(self) -> None:
        """A recipe's variables reach the worker; what was given is a property, and a log of the step."""
        step = self.given(BuildPackages(recipe=RECIPE), stand_in="", **self.PROPERTIES)
        variables = {
            "CEPH_EXTRA_CMAKE_ARGS": "-DA=1 -DB=2",
            "DEB_BUILD_PROFILES": "pkg.a pkg.b",
            "DWZ": "false",
            "X": "y z",
        }
        self.expect_commands(shell(*self.COMMAND, env=variables).stdout(report("packages=ceph")).exit(0))
        self.expect_property("recipe", {"environment": variables, "rpmbuild": []}, "packages")
        self.expect_log_file(
            "recipe",
            "export CEPH_EXTRA_CMAKE_ARGS='-DA=1 -DB=2'\nexport DEB_BUILD_PROFILES='pkg.a pkg.b'\n"
            "export DWZ=false\nexport X='y z'\n",
        )
        await self.finds(SUCCESS, "1 packages built")
        assert step.environment() == variables

    async def test_rpms_by_a_recipe(self) -> None:
        """rpmbuild's options follow the other words, on a stand-in after its own."""
        self.given(BuildPackages(spec="x", recipe=RECIPE), key=RPM, stand_in="Debian", **self.PROPERTIES)
        variables = {"CEPH_EXTRA_CMAKE_ARGS": "-DA=1 -DB=2", "X": "y z"}
        options = ["--with=a", "--without=dwz"]
        self.expect_commands(
            shell("bash", "scripts/packages-rpm.sh", "ceph.tar.bz2", "19.2.0-3.g73e2fc59", "x", "6", "--nodeps",
                  *options, env=variables)
            .stdout(report("packages=ceph")).exit(0)
        )  # fmt: skip
        self.expect_property("recipe", {"environment": variables, "rpmbuild": options}, "packages")
        await self.finds(SUCCESS, "1 packages built")

    async def test_the_compilers_error_reaches_the_user(self) -> None:
        """A compile failure is shown with the compiler's own words, as the step's and the build's sentence."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        self.expect_commands(
            shell(*self.COMMAND)
            .stdout("[ 45%] Building CXX object x.o\n")
            .stderr("src/a.cc:3:5: error: 'x' was not declared in this scope\nsrc/b.cc:1:1: error: another\n")
            .stderr("make: *** [Makefile:2: a.o] Error 1\n")
            .stderr(report("FAILED: dpkg-buildpackage ended with status 2", status=1))
            .exit(1)
        )
        said = "Building the packages failed: src/a.cc:3:5: error: 'x' was not declared in this scope"
        await self.finds(FAILURE, said, build=said)

    async def test_progress_is_in_the_state_string(self) -> None:
        """While it builds, the step tells the build's own percentage."""
        step = self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        told = []

        def look(_: Any) -> None:
            told.append(step.getCurrentSummary()["step"])

        self.expect_commands(
            shell(*self.COMMAND).behavior(look).stdout("[ 45%] x\n").behavior(look)
            .stdout("[12/57] y\n").behavior(look).stdout(report("packages=ceph")).exit(0)
        )  # fmt: skip
        await self.finds(SUCCESS, "1 packages built")
        assert told == ["building the packages", "building the packages 45 %", "building the packages 21 %"]


class TestReport(StepCase):
    """Which lines of the output a step believes."""

    PROPERTIES = TestBuildPackages.PROPERTIES
    COMMAND = TestBuildPackages.COMMAND

    async def test_lines_without_the_key_are_the_builds(self) -> None:
        """Values, sentences and an end that the build prints are only output, before and after the script's report."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        forged = (
            "packages=ceph-common\nFAILED: forged\nexit 1\nffffffffffffffffffffffffffffffff packages=forged\n"
        )
        self.expect_commands(
            shell(*self.COMMAND).stdout(forged).stderr(forged)
            .stdout(report("packages=ceph")).stdout(forged).exit(0)
        )  # fmt: skip
        self.expect_property("packages", ["ceph"], "packages")
        await self.finds(SUCCESS, "1 packages built")

    async def test_the_first_report_counts(self) -> None:
        """A key that was read in the log is worth nothing: the report ends with the first exit status."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        late = report("packages=late", "FAILED: late", status=1)
        self.expect_commands(shell(*self.COMMAND).stdout(report("packages=ceph") + late).exit(0))
        self.expect_property("packages", ["ceph"], "packages")
        await self.finds(SUCCESS, "1 packages built")

    async def test_status_0_without_a_report_is_a_failure(self) -> None:
        """A script that did not come to its end has not succeeded, whatever its exit status is."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        self.expect_commands(shell(*self.COMMAND).stdout("packages=ceph\n").exit(0))
        said = "Building the packages failed: its end was not reported; last line: packages=ceph"
        await self.finds(FAILURE, said, build=said)

    async def test_a_status_without_a_sentence_is_told(self) -> None:
        """A script that set -e ended tells its status, and the cause in the log if there is one."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        self.expect_commands(shell(*self.COMMAND).stdout("x\nlast words\n").stderr(report(status=4)).exit(4))
        said = "Building the packages failed: exit status 4; last line: last words"
        await self.finds(FAILURE, said, build=said)

    async def ends(self, status: int, result: int, state: str, build: str | None = None) -> None:
        """Run a script whose output stays open after its report, until the step ends the command."""
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        lines = ["packages=ceph"] if status == 0 else ["FAILED: no"]
        moments: list[float] = []

        async def wait(command: Any) -> None:
            while not command.interrupted and self.reactor.seconds() < 60:
                self.reactor.advance(1)
            moments.append(self.reactor.seconds())

        self.expect_commands(
            shell(*self.COMMAND).stdout(report(*lines, status=status)).behavior(wait).exit(-1)
        )
        await self.finds(result, state, build=build)
        assert moments == [10.0]

    async def test_a_background_process_does_not_hold_up_the_step(self) -> None:
        """A background process keeps the output open for at most 10 s, and the script's own status counts."""
        await self.ends(0, SUCCESS, "1 packages built")

    async def test_a_background_process_does_not_hold_up_a_failure(self) -> None:
        """A failed script is ended likewise, with its sentence."""
        said = "Building the packages failed: no"
        await self.ends(1, FAILURE, said, build=said)

    async def test_output_without_end_is_ended(self) -> None:
        """A command that prints more than the database should hold is stopped once, and the sentence says so."""
        self.patch(script, "MOST_OUTPUT", 2 * 1024**2)
        self.given(BuildPackages(), stand_in="", **self.PROPERTIES)
        interrupted: list[bool] = []

        async def look(command: Any) -> None:
            interrupted.append(command.interrupted)

        lines = ("y" * 1023 + "\n") * 1024
        self.expect_commands(
            shell(*self.COMMAND).stdout(lines).behavior(look).stdout(lines).stdout("y\n").behavior(look)
            .stdout(lines).exit(-1)
        )  # fmt: skip
        said = "Building the packages was stopped: it printed more than 2 MiB"
        await self.finds(FAILURE, said, build=said)
        assert interrupted == [False, True]


class TestUpload(StepCase):
    """The step that uploads."""

    PROPERTIES: ClassVar[dict[str, Any]] = {
        "version": "19.2.0-3-g73e2fc59",
        "packages": ["ceph", "ceph-common"],
    }
    COMMAND = (
        "python3", "scripts/upload.py", "http://127.0.0.1:8011/", DEB, "out/deb=pool/main/c/ceph",
        "--version", "19.2.0-3-g73e2fc59-1jammy", "--packages", "ceph,ceph-common",
    )  # fmt: skip

    async def test_the_token_is_in_the_environment_only(self) -> None:
        """The token is in the command's environment, which is not logged, and in none of its words nor in any property."""
        assert TOKEN not in " ".join(self.COMMAND)
        step = self.given(UploadPackages("http://127.0.0.1:8011/"), **self.PROPERTIES)
        self.expect_commands(
            shell(*self.COMMAND, env={"UPLOAD_TOKEN": TOKEN})
            .stdout("[1/1] x 1 B\n" + report("uploaded=57 files, 123456 bytes"))
            .exit(0)
        )
        await self.finds(SUCCESS, "uploaded 57 files, 123456 bytes")
        assert self.publisher.asked == [("open_upload", DEB)]
        assert TOKEN not in repr(self.build.getProperties().asDict())
        assert all(TOKEN not in log.stdout + log.header for log in step.logs.values())

    async def test_a_refused_upload_is_a_sentence(self) -> None:
        """What the package server said is the build's sentence, and the upload stays for `publish` to close."""
        self.given(UploadPackages("http://127.0.0.1:8011/"), **self.PROPERTIES)
        self.expect_commands(
            shell(*self.COMMAND, env={"UPLOAD_TOKEN": TOKEN})
            .stderr(report("FAILED: pool/a.deb was refused (413): An upload may have at most 1 files.", status=1)).exit(1)
        )  # fmt: skip
        said = (
            "Uploading the packages failed: pool/a.deb was refused (413): An upload may have at most 1 files."
        )
        await self.finds(FAILURE, said, build=said)
        assert self.publisher.upload_of(self.build.buildid).token == TOKEN


class TestPublish(StepCase):
    """The step that publishes, or cleans up."""

    RECORD: ClassVar[dict[str, Any]] = {
        "version": "19.2.0-3-g73e2fc59-1jammy",
        "git_url": FORK,
        "recipe": {"environment": {"DWZ": "false"}, "rpmbuild": []},
        "ref": "",
        "reachable_from": None,
        "buildset_id": 7,
        "buildrequest_id": 8,
        "build_url": "http://127.0.0.1:8010/#/builders/1/builds/2",
    }

    async def test_it_publishes_with_who_built_it(self) -> None:
        """An upload of a good build is published with the record of what built it, and then closed."""
        self.given(Publish(), version="19.2.0-3-g73e2fc59", recipe=self.RECORD["recipe"])
        self.publisher.open = SimpleNamespace(token=TOKEN, build_id=self.build.buildid)
        await self.finds(SUCCESS, "published; the commit is unverified")
        assert self.publisher.asked == [("publish", TOKEN, self.RECORD), ("close_upload", TOKEN)]

    async def test_only_a_linked_ref_is_recorded(self) -> None:
        """The manifest has the ref that has a link, not the one that was requested, and the name in the project's own repository."""
        self.given(
            Publish(), version="19.2.0-3-g73e2fc59", recipe=self.RECORD["recipe"],
            ref="main", linked_ref="", reachable_from="refs/heads/main",
        )  # fmt: skip
        self.publisher.open = SimpleNamespace(token=TOKEN, build_id=self.build.buildid)
        await self.finds(SUCCESS, "published")
        record = {**self.RECORD, "reachable_from": "refs/heads/main"}
        assert self.publisher.asked[0] == ("publish", TOKEN, record)

    async def test_a_refusal_is_the_builds_sentence(self) -> None:
        """What verification found wrong is the step's and the build's sentence, and the upload is thrown away."""
        self.publisher = FakePublisher(
            refusal=ValueError("packages that the sources name are missing: ceph-mon")
        )
        self.given(Publish(), version="19.2.0-3-g73e2fc59")
        self.publisher.open = SimpleNamespace(token=TOKEN, build_id=self.build.buildid)
        said = "Publishing failed: packages that the sources name are missing: ceph-mon"
        await self.finds(FAILURE, said, build=said)
        assert self.publisher.asked[-1] == ("close_upload", TOKEN)

    async def test_a_full_disk_is_a_sentence_too(self) -> None:
        """What the disk refused is told in words, without a path of the master's."""
        self.publisher = FakePublisher(refusal=OSError(28, "No space left on device", "/srv/secret/staging"))
        self.given(Publish(), version="19.2.0-3-g73e2fc59")
        self.publisher.open = SimpleNamespace(token=TOKEN, build_id=self.build.buildid)
        said = "Publishing failed: No space left on device"
        await self.finds(FAILURE, said, build=said)
        assert self.publisher.asked[-1] == ("close_upload", TOKEN)

    async def test_nothing_is_published_of_a_failed_build(self) -> None:
        """After a failed step the upload is thrown away, and the publisher is not asked to publish."""
        self.given(Publish(), results=FAILURE)
        self.publisher.open = SimpleNamespace(token=TOKEN, build_id=self.build.buildid)
        await self.finds(SUCCESS, "nothing is published of a failed build")
        assert self.publisher.asked == [("close_upload", TOKEN)]

    async def test_without_an_upload_there_is_nothing_to_do(self) -> None:
        """A build that never came to its upload asks the publisher nothing."""
        self.given(Publish(), results=FAILURE)
        await self.finds(SUCCESS, "nothing was uploaded")
        assert self.publisher.asked == []

    def test_it_runs_whatever_happened_before(self) -> None:
        """The step runs also after a failure, as nobody else closes the upload."""
        assert Publish().alwaysRun


class TestAlreadyPublished(StepCase):
    """The step that looks whether the key has been published meanwhile."""

    async def test_what_is_published_is_not_built_again(self) -> None:
        """Where the key is published, its URL is the property by which all other steps are left out."""
        self.publisher = FakePublisher(published=SERVED)
        self.given(AlreadyPublished())
        self.expect_property("published", SERVED, "look")
        await self.finds(SUCCESS, f"published already: {SERVED}")
        assert self.publisher.asked == [("published_url", DEB)]

    async def test_what_is_not_is_built(self) -> None:
        """Where it is not, the property is empty and the build goes on."""
        self.given(AlreadyPublished())
        self.expect_property("published", "", "look")
        await self.finds(SUCCESS, "not published yet")


def test_every_step_ends_the_build_when_it_fails_and_has_a_name() -> None:
    """No step lets the build go on after its failure, and each is found by a name of its own."""
    steps = [
        Machine(), Checkout(CEPH, "v*"), Version(CEPH, "v*"), BuildDependencies(), SourceTarball(), BuildPackages(),
        UploadPackages("http://h/"), Publish(), AlreadyPublished(),
    ]  # fmt: skip
    assert all(step.haltOnFailure and step.flunkOnFailure for step in steps)
    assert len({step.name for step in steps}) == len(steps)
    # Buildbot's REST finds a step by its name only if that is an identifier.
    assert [step.name for step in steps if list(Identifier(50).validate("name", step.name))] == []
