"""A reload refuses some changes, and keeps builders and slots of the configuration in force."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from buildbot.config import ConfigErrors
from buildbot.config.master import MasterConfig
from buildbot.process.builder import Builder
from buildbot.worker.latent import AbstractLatentWorker

from master.builders import builders
from master.reloads import in_force
from master.reloads.in_force import InForce, refuse_changes
from master.schedulers import schedulers
from master.services import services
from master.settings import Settings
from master.workers import worker_names, workers

if TYPE_CHECKING:
    from pathlib import Path

GIT = "https://github.com/ceph/ceph.git"
BOOKWORM, JAMMY = "ceph-deb-bookworm-x86_64-default", "ceph-deb-jammy-x86_64-default"
CLOUD = {"cloud": "sepia", "images": {"*": "debian"}, "nova_flavor": "large", "max_instances": 4}
PREPARED = {"openstack": {"clouds": [CLOUD], "waiting": 2, "prepared_images": {"targets": [BOOKWORM]}}}
PLAIN = {"openstack": {"clouds": [CLOUD], "waiting": 2}}


def settings(directory: Path, **changes: Any) -> Settings:
    """Read settings that differ from the usual ones in some keys."""
    data = {
        "git": {"allowed": ["https://github.com/"]},
        "projects": {"ceph": {"git_url": GIT, "canonical_url": GIT}},
        "targets": [BOOKWORM],
        **changes,
    }
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(data))
    return Settings.from_file(path)


def bring_into_force(monkeypatch: pytest.MonkeyPatch, given: Settings) -> None:
    """Make a configuration of these settings the one in force."""
    config = MasterConfig()
    config.builders, config.workers = builders(given), workers(given)
    config.schedulers = {one.name: one for one in schedulers(given)}
    config.services = {one.name: one for one in services(given)}
    running = SimpleNamespace(settings=given, master=SimpleNamespace(config=config))
    monkeypatch.setattr(InForce, "current", running)


@pytest.mark.parametrize(
    ("name", "changes", "before", "after"),
    [
        ("state", {"state": "other"}, "{here}/state", "{here}/other"),
        ("www.host", {"www": {"host": "localhost"}}, "127.0.0.1", "localhost"),
        ("www.port", {"www": {"port": 8020}}, "8010", "8020"),
        ("packages.host", {"packages": {"host": "localhost"}}, "127.0.0.1", "localhost"),
        ("packages.port", {"packages": {"port": 8021}}, "8011", "8021"),
        ("packages.directory", {"packages": {"directory": "new"}}, "{here}/packages", "{here}/new"),
        ("packages.staging", {"packages": {"staging": "new"}}, "{here}/staging", "{here}/new"),
        ("workers.host", {"workers": {"host": "localhost"}}, "127.0.0.1", "localhost"),
        ("workers.port", {"workers": {"port": 9990}}, "9989", "9990"),
        ("workers.tls", {"workers": {"tls": "off"}}, "auto", "off"),
        ("workers.openstack", {"workers": PLAIN}, "not set", "set"),
    ],
)
def test_what_cannot_change_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    before: str,
    after: str,
) -> None:
    """Builds and booting machines were given these: another value would leave them without."""
    bring_into_force(monkeypatch, settings(tmp_path))
    with pytest.raises(ConfigErrors) as caught:
        refuse_changes(settings(tmp_path, **changes))
    shown = [text.replace("{here}", str(tmp_path)) for text in (before, after)]
    assert caught.value.errors[0] == (
        f"setting `{name}`: it is {shown[0]} in the running master, and cannot change to {shown[1]} while the master"
        " runs. Undo the change, or run `make stop`, then `make start`"
    )


def test_the_database_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sentence goes into a log that many may read."""
    bring_into_force(monkeypatch, settings(tmp_path, database="postgresql://master:first@db/buildbot"))
    with pytest.raises(ConfigErrors) as caught:
        refuse_changes(settings(tmp_path, database="postgresql://master:second@db/buildbot"))
    [sentence] = caught.value.errors
    assert sentence.startswith(
        "setting `database`: it is postgresql://master:***@db/buildbot in the running master"
    )
    assert "second" not in sentence


def test_what_can_change_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Targets, users, limits, URLs; and any settings at all at a master's start."""
    refuse_changes(settings(tmp_path))
    bring_into_force(monkeypatch, settings(tmp_path))
    refuse_changes(
        settings(
            tmp_path, targets=[JAMMY], users={"alice": "0" * 64}, workers={"attempts": 1, "local": {"count": 5}},
            packages={"url": "https://packages.example.org/"}, www={"url": "https://master.example.org/"},
        )
    )  # fmt: skip


def test_builders_and_slots_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A builder that the new settings do not name only finishes its requests; named again, it is as before."""
    bring_into_force(monkeypatch, settings(tmp_path, workers={"local": {"count": 3}}))
    given = settings(tmp_path, targets=[JAMMY], workers={"local": {"count": 1}})
    assert worker_names(given) == ["local-1", "local-2", "local-3"]
    assert [one._config_kwargs["takes_builds"] for one in workers(given)] == [True, False, False]
    jammy, bookworm = builders(given)
    assert (jammy.name, bookworm.name) == (JAMMY, BOOKWORM)
    assert jammy.workernames == bookworm.workernames == ["local-1", "local-2", "local-3"]
    assert jammy.tags == ["deb", "jammy", "x86_64", "default"]
    assert bookworm.tags == ["deb", "bookworm", "x86_64", "default", "off"]
    drives = {one.name: one.builderNames for one in schedulers(given)}
    assert drives == {"packages": [JAMMY], "off": [BOOKWORM]}
    bring_into_force(monkeypatch, given)
    assert [one.tags[4:] for one in builders(given)] == [[], ["off"]]
    again = settings(tmp_path, targets=[JAMMY, BOOKWORM], workers={"local": {"count": 2}})
    assert [one.tags[4:] for one in builders(again)] == [[], []]
    assert [one._config_kwargs["takes_builds"] for one in workers(again)] == [True, True, False]


def test_an_image_in_the_making_is_still_tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A target that is taken out of `prepared_images` keeps builders, what triggers the test, and the service."""
    image, test = f"image-{BOOKWORM}", f"image-test-{BOOKWORM}"
    bring_into_force(monkeypatch, settings(tmp_path, workers=PREPARED))
    given = settings(tmp_path, workers=PLAIN)
    assert [(one.name, one.tags[4:]) for one in builders(given)] == [
        (BOOKWORM, []), (image, ["image", "off"]), (test, ["image", "off"]),
    ]  # fmt: skip
    drives = {one.name: one.builderNames for one in schedulers(given)}
    assert drives == {"packages": [BOOKWORM], test: [test], "off": [image, test]}
    assert "images" in [one.name for one in services(given)]
    monkeypatch.setattr(InForce, "current", None)
    assert "images" not in [one.name for one in services(given)]


def test_a_project_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its target is off, and finishes what it has with the steps that it had, as nothing else says what they were."""
    url, name = "https://github.com/ceph/ceph-iscsi.git", "ceph-iscsi-rpm-centos9-x86_64-default"
    projects = {
        "ceph": {"git_url": GIT, "canonical_url": GIT},
        "ceph-iscsi": {"git_url": url, "canonical_url": url, "tags": "*"},
    }
    before = settings(tmp_path, projects=projects, targets=[BOOKWORM, name])
    bring_into_force(monkeypatch, before)
    had = {one.name: one.factory for one in in_force.builders_in_force()}
    bookworm, iscsi = builders(settings(tmp_path))
    assert (bookworm.name, iscsi.name, iscsi.tags[4:]) == (BOOKWORM, name, ["off"])
    assert iscsi.factory is had[name]


def test_what_is_reached_in_buildbot_is_there() -> None:
    """The configuration of a master has these lists, and a slot's own `updateWorker` (#9135) stands on these methods."""
    config = MasterConfig()
    assert (config.builders, config.workers, config.schedulers) == ([], [], {})
    assert callable(AbstractLatentWorker.updateWorker)
    assert callable(AbstractLatentWorker.canStartBuild)
    assert callable(Builder.addLatentWorker)
    assert in_force.builders_in_force() == []
