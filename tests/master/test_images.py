"""Prepared images in the master's configuration: builders, the nights, and the command that asks for one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from twisted.internet.defer import ensureDeferred

from master.builders import builders
from master.prepared_images.ask import AskError, Progress, follow, main
from master.prepared_images.names import image_targets
from master.prepared_images.schedulers import ImagesScheduler, UtcNightly, image_schedulers, image_services
from master.settings import ENVIRONMENT_VARIABLE, Settings
from model.targets import matrix

ROOT = Path(__file__).parents[2]
BOOKWORM, TRIXIE = (f"ceph-deb-{dist}-x86_64-default" for dist in ("bookworm", "trixie"))
CLOUDS: list[dict[str, Any]] = [
    {"cloud": "one", "images": {"*-bookworm-*": "debian-12"}, "nova_flavor": "large"},
    {"cloud": "two", "region": "R", "images": {"*": "debian"}, "nova_flavor": "large"},
    {"cloud": "three", "images": {"*": "debian"}, "nova_flavor": "large", "volume": {"size": 100}},
]


def settings(directory: Path, *, openstack: bool = True, **prepared: Any) -> Settings:
    """Read settings with three clouds and two targets."""
    data: dict[str, Any] = {
        "git": {"allowed": ["https://github.com/"]},
        "targets": [BOOKWORM, TRIXIE],
    }
    if openstack:
        section = {"clouds": CLOUDS, "master_id": "test-images", "prepared_images": prepared}
        data["workers"] = {"openstack": section}
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(data))
    return Settings.from_file(path)


@pytest.fixture
def prepared(tmp_path: Path) -> Settings:
    """Settings with images of both targets."""
    return settings(tmp_path, targets=["ceph-deb-*"], hour=4, branch="main")


def test_off_by_default(tmp_path: Path) -> None:
    """Without targets in `prepared_images`, or without clouds, there is no builder, no scheduler and no service for it."""
    for given in (settings(tmp_path), settings(tmp_path, openstack=False)):
        assert image_targets(given) == {}
        assert image_schedulers(given) == []
        assert image_services(given) == []
        assert [one.name for one in builders(given)] == [BOOKWORM, TRIXIE]


def test_the_local_provider_imports_no_sdk(tmp_path: Path) -> None:
    """Whoever has no cloud pays nothing for images: the SDK, which takes a second, is not imported."""
    settings(tmp_path, openstack=False)
    code = (
        "import sys, master.builders, master.schedulers, master.services\n"
        "from master.settings import Settings, default_path\n"
        "settings = Settings.from_file(default_path())\n"
        "master.builders.builders(settings), master.schedulers.schedulers(settings), master.services.services(settings)\n"
        "sys.exit('openstack' in sys.modules or 'keystoneauth1' in sys.modules)\n"
    )
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(tmp_path / "settings.yaml")}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment).returncode == 0


def test_each_target_has_two_builders(prepared: Settings) -> None:
    """One makes images from the base image and one tests them, both on machines of the target."""
    made = {one.name: one for one in builders(prepared)}
    assert list(made) == [
        BOOKWORM, TRIXIE, f"image-{BOOKWORM}", f"image-test-{BOOKWORM}", f"image-{TRIXIE}", f"image-test-{TRIXIE}",
    ]  # fmt: skip
    assert made[f"image-{BOOKWORM}"].properties == {"target": BOOKWORM, "only_image": "base"}
    assert made[f"image-test-{BOOKWORM}"].properties == {"target": BOOKWORM}
    assert {one.collapseRequests for one in made.values()} == {False}
    assert [step.step_class.__name__ for step in made[f"image-{BOOKWORM}"].factory.steps] == [
        "NewestCommit", "Machine", "Checkout", "BuildDependencies", "AddMirror", "CleanMachine", "Snapshot",
        "AskForTest",
    ]  # fmt: skip


def test_a_test_publishes_nothing(prepared: Settings) -> None:
    """The test of an image takes the steps of a build up to the packages, uploads nothing, and ends with the switch."""
    [test] = [one for one in builders(prepared) if one.name == f"image-test-{TRIXIE}"]
    assert [step.step_class.__name__ for step in test.factory.steps] == [
        "CommitUnderTest", "Machine", "Checkout", "Version", "BuildDependencies", "SourceTarball", "BuildPackages",
        "SwitchImage",
    ]  # fmt: skip


def test_every_name_is_one_that_buildbot_takes() -> None:
    """However long a target's name, those of its image builders are identifiers of at most 50 characters."""
    assert max(len(f"image-test-{target}") for target in matrix()) <= 50


def test_every_cloud_has_its_nights(prepared: Settings) -> None:
    """Each cloud that can keep images gets its own every night; one with boot volumes, and so without, gets none."""
    nights = [one for one in image_schedulers(prepared) if isinstance(one, UtcNightly)]
    given = {one.name: vars(one)["_config_kwargs"] for one in nights}
    assert {name: one["builderNames"] for name, one in given.items()} == {
        "images-nightly-1": [f"image-{BOOKWORM}"],
        "images-nightly-2": [f"image-{BOOKWORM}", f"image-{TRIXIE}"],
    }
    assert [one["properties"] for one in given.values()] == [
        {"only_cloud": "one", "owner": "nightly"},
        {"only_cloud": "two/R", "owner": "nightly"},
    ]
    assert {(one["hour"], one["minute"]) for one in given.values()} == {(4, 0)}


def test_only_targets_that_are_named(tmp_path: Path) -> None:
    """A pattern chooses the targets."""
    assert [str(one) for one in image_targets(settings(tmp_path, targets=["*-trixie-*"]))] == [TRIXIE]


@pytest.fixture
def new_york() -> Iterator[None]:
    """Have the machine's clock in New York."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_the_hour_is_utc(new_york: None) -> None:
    """The hour of the settings is UTC's, wherever the master stands."""
    nightly = UtcNightly("images-nightly-1", ["x"])
    for name, value in (("minute", 0), ("hour", 4), ("dayOfMonth", "*"), ("month", "*"), ("dayOfWeek", "*")):
        setattr(nightly, name, value)
    began = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
    found: list[float] = []
    nightly.getNextBuildTime(began).addCallback(found.append)
    assert datetime.fromtimestamp(found[0], UTC) == datetime(2026, 7, 2, 4, tzinfo=UTC)


def test_the_door_shows_what_it_takes(prepared: Settings) -> None:
    """The forcescheduler `images` is for the builders that make images, with the clouds that each can have them in."""
    [door] = [one for one in image_schedulers(prepared) if isinstance(one, ImagesScheduler)]
    assert door.name == "images"
    assert door.builderNames == [f"image-{BOOKWORM}", f"image-{TRIXIE}"]
    assert door.clouds == {f"image-{BOOKWORM}": ["one", "two/R"], f"image-{TRIXIE}": ["two/R"]}


# -- the command


class Told:
    """A master that answers what a test says."""

    def __init__(self, *answers: Progress | Exception) -> None:
        self.answers = list(answers)

    async def progress(self, _: int) -> Progress:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Now:
    """A reactor whose calls are due at once."""

    def callLater(self, _: float, call: Any, *arguments: Any) -> None:
        call(*arguments)


def following(*answers: Progress | Exception) -> tuple[Any, list[str]]:
    """Follow a buildrequest; give what comes of it, and what was said."""
    said: list[str] = []
    found: list[Any] = []
    waiting = ensureDeferred(follow(Now(), Told(*answers), 7, said.append))  # type: ignore[arg-type]
    waiting.addBoth(found.append)
    return getattr(found[0], "value", found[0]), said


def test_progress_is_told_once() -> None:
    """Each new state is said, and the end is what the buildrequest came to."""
    end = Progress("build successful", 0, 3)
    found, said = following(Progress("a", None, None), Progress("a", None, 3), Progress("b", None, 3), end)
    assert found == end
    assert said == ["a", "b", "build successful"]


@pytest.mark.parametrize("results", [2, 4, 6])
def test_whatever_is_no_success_is_an_error(results: int) -> None:
    """A request that failed, could not be built or was cancelled ends with its own sentence."""
    found, _ = following(Progress("failed dependencies: E: no cmake", results, 3))
    assert isinstance(found, AskError)
    assert str(found) == "failed dependencies: E: no cmake"


def test_a_master_that_starts_again_is_waited_for() -> None:
    """A master that does not answer for a while is asked again; one that never does ends the following."""
    gone = ConnectionRefusedError("Connection refused")
    end = Progress("build successful", 0, 3)
    assert following(*[gone] * 29, Progress("a", None, 3), *[gone] * 29, end)[0] == end
    found, _ = following(*[gone] * 30)
    assert isinstance(found, AskError)
    assert str(found) == "the master does not answer: Connection refused"


def test_the_command_names_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target without prepared images is refused with those that have some, without asking any master."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "settings.yaml"))
    settings(tmp_path, targets=["*-trixie-*"])
    assert main([BOOKWORM]) == 1
    assert capsys.readouterr().err == f"'{BOOKWORM}' has no prepared images; there are {TRIXIE}\n"
    settings(tmp_path)
    assert main([BOOKWORM]) == 1
    assert "none at all: see workers.openstack.prepared_images in the settings" in capsys.readouterr().err
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone.yaml"))
    assert main([BOOKWORM]) == 1
    assert "gone.yaml is missing" in capsys.readouterr().err


def test_the_command_says_that_no_master_answers(tmp_path: Path) -> None:
    """Where no master runs, that is the sentence, and the status says that there is no image."""
    given = settings(tmp_path, targets=["*"])
    data = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    data["www"] = {"port": 1}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(data))
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(tmp_path / "settings.yaml")}
    ran = subprocess.run(
        [sys.executable, "-m", "master.prepared_images.ask", TRIXIE],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert given.www.port == 8010
    assert ran.returncode == 1
    assert ran.stderr.startswith("no image: the master does not answer at 127.0.0.1:1: ")
