"""Names and URLs against teuthology itself: it runs every golden row's job, and asks where we say it will."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.recipes import BUILT_IN
from model.targets import Target
from tests import teuthology_venv
from tests.patience import SLOW
from tests.teuthology_bridge.job_wants import DEFAULTS, ROWS, made_up, named
from teuthology_bridge import gitbuilder
from teuthology_bridge.errors import WrongSettings
from teuthology_bridge.wants import Want

CHECKOUT = Path(__file__).parents[2]

OURS = {
    "ceph-deb-bookworm-x86_64-default",
    "ceph-deb-jammy-x86_64-debug",
    "ceph-deb-jammy-x86_64-default",
    "ceph-deb-noble-x86_64-default",
    "ceph-rpm-centos9-x86_64-debug",
    "ceph-rpm-centos9-x86_64-default",
    "ceph-rpm-rocky9-x86_64-debug",
    "samba-deb-jammy-x86_64-default",
}
"""Of the targets in the golden rows, those that the master can have."""

MADE_UP = made_up(100)


def in_teuthology(*command: str, given: str = "", home: Path) -> str:
    """Give what a Python beside teuthology prints; it has no configuration of anybody's."""
    settings = home / "teuthology.yaml"
    settings.write_text("{lab_domain: ''}")
    finished = subprocess.run(
        [str(teuthology_venv.venv() / "bin/python"), *command],
        input=given,
        capture_output=True,
        text=True,
        timeout=120 * SLOW,
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TEUTHOLOGY_CONFIG": str(settings),
        },
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict:
    """What teuthology and the bridge in it say of all rows."""
    script = Path(__file__).with_name("what_install_asks.py")
    return json.loads(
        in_teuthology(str(script), given=json.dumps([*ROWS, *MADE_UP]), home=tmp_path_factory.mktemp("home"))
    )


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_install_asks_for_what_the_job_wants(said: dict, row: dict) -> None:
    """Where we look is where teuthology's own install asks, for each row, below a path and at a port."""
    answer = said["rows"][row["name"]]
    typed = [
        f"{said['packages_url']}{target}/{'sha1' if kind == 'sha1' else 'ref'}/{value}"
        for target, kind, value, *_ in row["wants"]
    ]
    assert answer["targets"] == [target for target, *_ in row["wants"]]
    assert answer["urls"] == typed
    assert set(answer["asked"]) == set(typed)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_pinned_job_installs_the_commits(said: dict, row: dict) -> None:
    """When all wants are pinned, in any order, each install takes the commit that its want came to."""
    answer = said["rows"][row["name"]]
    pinned = dict(zip(answer["urls"], answer["pins"], strict=True))
    for asked, wanted in zip(answer["asked_when_pinned"], answer["wanted_when_pinned"], strict=True):
        assert asked == [pinned[url] for url in answer["asked"]]
        assert wanted == sorted(set(pinned.values()))


def test_it_is_so_for_whatever_jobs_there_may_be(said: dict) -> None:
    """For jobs that nobody would write it is the same: install asks where we look, pinned or not."""
    wanted = 0
    for row in MADE_UP:
        answer = said["rows"][row["name"]]
        wanted += len(answer["urls"])
        assert set(answer["asked"]) == set(answer["urls"]), row
        pinned = dict(zip(answer["urls"], answer["pins"], strict=True))
        for asked in answer["asked_when_pinned"]:
            assert asked == [pinned[url] for url in answer["asked"]], row
    assert wanted > 200


def test_the_defaults_are_teuthologys(said: dict) -> None:
    """The versions for jobs that name none come from teuthology's own table."""
    assert said["defaults"] == DEFAULTS


def test_the_master_spells_targets_the_same() -> None:
    """A target that teuthology asks for is named as the master names its builder; the others it hasn't got."""
    for row in ROWS:
        for name, *_ in row["wants"]:
            if name in OURS:
                assert Target.from_name(name).name == name
            else:
                with pytest.raises(ValueError, match="is not one of|has no recipe"):
                    BUILT_IN.of(Target.from_name(name))


PROBE = """
import json, sys
from teuthology_bridge import gitbuilder
from teuthology_bridge.errors import BuildpackagesError
from teuthology_bridge.wants import Want
assert not [name for name in sys.modules if name.split(".")[0] in ("teuthology", "gevent")]
from teuthology.config import config
from teuthology.packaging import GitbuilderProject, get_builder_project

def want(os_type, os_version):
    return Want("ceph", os_type, os_version, "x86_64", "default", "branch", "a/b")

def told(os_type, os_version):
    try:
        return gitbuilder.target_of(want(os_type, os_version))
    except BuildpackagesError as error:
        return str(error)

config.gitbuilder_host = "of.the.site"
before = dict(config._conf)
found = {
    "ref": gitbuilder.url_of(want("ubuntu", "22.04"), "https://packages.example:8443/a/b/"),
    "sha1": gitbuilder.url_of(want("ubuntu", "22.04"), "http://10.0.0.1:8011/", "a" * 40),
    "codename": told("ubuntu", "noble"),
    "future": told("ubuntu", "99.04"),
    "zero": told("ubuntu", "17.1"),
    "unknown": told("beos", "5"),
    "newer rpm": told("fedora", "41"),
    "untouched": before == dict(config._conf),
}
gitbuilder.point_teuthology_at("https://packages.example:8443/a/b/")
found["class"] = get_builder_project() is GitbuilderProject
found["later"] = GitbuilderProject(
    "ceph", {"os_type": "ubuntu", "os_version": "22.04", "flavor": "default", "sha1": "a" * 40}
).base_url
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> dict:
    """What the module says in a Python beside teuthology."""
    return json.loads(in_teuthology("-c", PROBE, home=tmp_path_factory.mktemp("home")))


def test_urls_have_scheme_port_and_path(probe: dict) -> None:
    """A URL is below the package server's, with its scheme, port and path, for a ref as for a sha1."""
    assert probe["ref"] == "https://packages.example:8443/a/b/ceph-deb-jammy-x86_64-default/ref/a/b"
    assert probe["sha1"] == f"http://10.0.0.1:8011/ceph-deb-jammy-x86_64-default/sha1/{'a' * 40}"


def test_asking_leaves_teuthologys_settings_alone(probe: dict) -> None:
    """A question about a name or a URL changes nothing of the site's settings."""
    assert probe["untouched"] is True


def test_pointing_teuthology_at_us(probe: dict) -> None:
    """From then on teuthology takes its gitbuilder class, and our server, also by https below a path."""
    assert probe["class"] is True
    assert probe["later"] == (
        f"https://packages.example:8443/a/b/ceph-deb-jammy-x86_64-default/sha1/{'a' * 40}"
    )


def test_what_teuthology_does_not_know(probe: dict) -> None:
    """A distribution that install could not name is refused, with what teuthology knows; rpm ones need no table."""
    assert probe["codename"] == "ceph-deb-noble-x86_64-default"
    assert probe["newer rpm"] == "ceph-rpm-fedora41-x86_64-default"
    assert probe["future"].startswith(
        "os_version 99.04 of ubuntu is unknown to teuthology; it knows 24.04, 22.04,"
    )
    assert probe["zero"].startswith(
        "os_version 17.1 of ubuntu is unknown to teuthology, but 17.10 is: put it into quotes; it knows 24.04,"
    )
    assert probe["unknown"] == (
        "os_type 'beos' is unknown to teuthology; it knows alma, centos, debian, fedora, opensuse, rhel, rocky,"
        " sle, ubuntu"
    )


def test_without_teuthology() -> None:
    """Where teuthology is not at hand, the sentence says with which Python to run this."""
    assert "teuthology" not in sys.modules
    want = Want("ceph", "ubuntu", "22.04", "x86_64", "default", "branch", "main")
    with pytest.raises(WrongSettings, match="virtual environment that teuthology is in"):
        gitbuilder.target_of(want)
