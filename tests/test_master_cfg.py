"""master.cfg, loaded as Buildbot loads it: what it makes of settings, and what it says of wrong ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

LOAD = """
import json, sys
from buildbot.config import ConfigErrors
from buildbot.config.master import FileLoader
from buildbot.schedulers.forcesched import ForceScheduler
try:
    config = FileLoader(sys.argv[1], "master.cfg").loadConfig()
except ConfigErrors as error:
    print(json.dumps({"errors": error.errors}))
    sys.exit()
print(json.dumps({
    "builders": [
        {"name": one.name, "collapse": one.collapseRequests, "workers": one.workernames, "tags": one.tags,
         "steps": [step.step_class.__name__ for step in one.factory.steps], "description": one.description}
        for one in config.builders
    ],
    "collapse": config.collapseRequests,
    "schedulers": {
        name: {"force": isinstance(one, ForceScheduler), "builders": one.builderNames}
        for name, one in config.schedulers.items()
    },
    "services": sorted(config.services),
    "workers": [one.name for one in config.workers],
    "www": config.www["port"],
    "pb": config.protocols["pb"]["port"],
    "packages": config.services["packages"]._config_kwargs["port"],
    "db": config.db.db_url,
    "usage": config.buildbotNetUsageData,
    "title": config.title,
    "titleURL": config.titleURL,
    "buildbotURL": config.buildbotURL,
}))
"""

SETTINGS = """\
git:
  allowed: [https://github.com/]
"""


def load(directory: Path, settings: str, **environment: str) -> dict[str, Any]:
    """Load master.cfg with a settings file of this text, in a process of its own."""
    path = directory / "settings.yaml"
    path.write_text(SETTINGS + settings)
    finished = subprocess.run(
        [sys.executable, "-c", LOAD, str(ROOT)],
        env={**os.environ, "BUILDPACKAGES_SETTINGS": str(path), **environment}, cwd=directory, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Load it with two targets on."""
    return load(
        tmp_path_factory.mktemp("few"),
        "targets: [ceph-rpm-centos9-x86_64-default, ceph-deb-jammy-x86_64-default]\nworkers: {local: {count: 2}}\n",
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Load it with the whole matrix on."""
    return load(tmp_path_factory.mktemp("everything"), "targets: ['*']\n")


def test_the_builders_are_the_targets_that_are_on(few: dict[str, Any]) -> None:
    """There is one builder for each target that is on, named as the target, in the order of the matrix, and no other."""
    assert [one["name"] for one in few["builders"]] == [
        "ceph-deb-jammy-x86_64-default",
        "ceph-rpm-centos9-x86_64-default",
    ]
    assert few["builders"][0]["tags"] == ["deb", "jammy", "x86_64", "default"]
    assert few["builders"][1]["description"] == (
        "Ceph packages for CentOS Stream 9, x86_64, flavor default. Untested: never built on CentOS Stream 9 itself,"
        " only with Debian's rpmbuild and el9 macros"
    )


def test_debs_and_rpms_have_the_same_verbs(few: dict[str, Any]) -> None:
    """Every build goes the same way: look, machine, checkout, version, dependencies, tarball, packages, upload, publish."""
    for one in few["builders"]:
        assert one["steps"] == [
            "AlreadyPublished", "Machine", "Checkout", "Version", "BuildDependencies", "SourceTarball",
            "BuildPackages", "UploadPackages", "Publish",
        ]  # fmt: skip


def test_a_program_that_publishing_needs_is_missed_at_once(tmp_path: Path) -> None:
    """A master without the programs that its targets' packages need is refused when it is configured, not hours later."""
    targets = "targets: [ceph-rpm-centos9-x86_64-default, ceph-deb-jammy-x86_64-default]\n"
    assert load(tmp_path, targets, PATH=str(tmp_path))["errors"] == [
        "apt-ftparchive is not installed: publishing deb packages needs it (package apt-utils)",
        "createrepo_c is not installed: publishing rpm packages needs it (package createrepo-c or createrepo_c)",
        "rpmbuild is not installed: publishing rpm packages needs it (package rpm or rpm-build)",
    ]


def test_requests_are_never_collapsed(few: dict[str, Any], everything: dict[str, Any]) -> None:
    """No request of a key is ever taken for another's: collapsing is off for the master and for each builder."""
    for config in (few, everything):
        assert config["collapse"] is False
        assert {one["collapse"] for one in config["builders"]} == {False}


def test_there_is_one_door(few: dict[str, Any]) -> None:
    """The only scheduler is the forcescheduler `packages`, for all builders."""
    assert few["schedulers"] == {
        "packages": {
            "force": True,
            "builders": ["ceph-deb-jammy-x86_64-default", "ceph-rpm-centos9-x86_64-default"],
        }
    }


def test_every_door_is_on_loopback(few: dict[str, Any]) -> None:
    """Web, workers and packages listen on the documented ports of loopback, unless settings say otherwise."""
    assert (few["www"], few["pb"], few["packages"]) == (
        "tcp:8010:interface=127.0.0.1", "tcp:9989:interface=127.0.0.1", "tcp:8011:interface=127.0.0.1",
    )  # fmt: skip
    assert (few["buildbotURL"], few["titleURL"]) == ("http://127.0.0.1:8010/", "http://127.0.0.1:8011/")


def test_doors_are_where_settings_say(tmp_path: Path) -> None:
    """Other ports and addresses are those that the operator set."""
    config = load(
        tmp_path,
        "targets: [ceph-deb-jammy-*-default]\ncontributors_trusted: true\nwww: {host: 0.0.0.0, port: 1}\n"
        "packages: {port: 2}\nworkers: {host: 192.0.2.1, port: 3}\n",
    )
    assert (config["www"], config["packages"], config["pb"]) == (
        "tcp:1:interface=0.0.0.0", "tcp:2:interface=127.0.0.1", "tcp:3:interface=192.0.2.1",
    )  # fmt: skip


def test_services_and_workers(few: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The master has the publisher, the package server and the reaper, and as many slots as may build at once, usable by every builder."""
    assert few["services"] == [
        "in_force",
        "index",
        "old_logs",
        "packages",
        "publisher",
        "reaper",
        "turns",
        "waiting",
        "workers_port",
    ]
    assert few["workers"] == ["local-1", "local-2"]
    assert [one["workers"] for one in few["builders"]] == [["local-1", "local-2"]] * 2


def test_the_database_is_in_the_state_directory(few: dict[str, Any]) -> None:
    """All that must be kept is below `state`, beside the settings, and nothing is told to anybody."""
    assert few["db"].startswith("sqlite:////")
    assert few["db"].endswith("/state/state.sqlite")
    assert few["usage"] is None


def test_every_name_of_the_matrix_is_taken(everything: dict[str, Any]) -> None:
    """Buildbot takes the whole matrix: 36 names of at most 50 characters, without dots."""
    names = [one["name"] for one in everything["builders"]]
    assert len(set(names)) == 36
    assert all(len(name) <= 50 and "." not in name for name in names)


def test_wrong_settings_are_all_told(tmp_path: Path) -> None:
    """A configuration with several mistakes is refused with every sentence, as `buildbot checkconfig` prints it."""
    errors = load(tmp_path, "targets: [nonesuch]\ntitel: x\nworkers: {attempts: 0}\n")["errors"]
    text = "\n".join(errors)
    assert "targets: 'nonesuch' matches no target; the matrix: python -m model.targets" in text
    assert "titel: unknown key" in text
    assert "workers.attempts: input should be greater than or equal to 1 (it is 0)" in text


def test_missing_settings_say_what_to_do(tmp_path: Path) -> None:
    """Without a settings file the master does not start with defaults that nobody chose, but says what to copy where."""
    finished = subprocess.run(
        [sys.executable, "-c", LOAD, str(ROOT)],
        env={**os.environ, "BUILDPACKAGES_SETTINGS": str(tmp_path / "none.yaml")}, capture_output=True, text=True,
    )  # fmt: skip
    [error] = json.loads(finished.stdout)["errors"]
    assert f"{tmp_path / 'none.yaml'} is missing: copy settings.example.yaml there and edit it" in error
