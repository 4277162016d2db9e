"""Prepared images, whole: a real master, the real cloud, and `make image` as the operator calls it."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from master.users import digest
from tests.integration import tiny
from tests.integration.cloud_harness import CloudInstallation, cloud_installation
from tests.integration.harness import CHECKOUT, DEB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.cloud import Lab

DEPENDENCIES = replace(
    tiny.WHOLE,
    install_deps='[ ! -e /opt/dependency ] && sudo touch /opt/dependency && echo "installed now" || echo "there already"',
)
"""A commit whose install-deps.sh leaves something on the machine, and says whether it had to."""
OTHER = replace(DEPENDENCIES, install_deps=f"{DEPENDENCIES.install_deps}\necho more")

ONE_MACHINE: dict[str, Any] = {
    "clouds": [{"max_instances": 1}],
    "openstack": {"prepared_images": {"targets": ["*"], "branch": "main"}},
}
"""Room for one machine at a time: an image can be made all the same."""


class Images:
    """An installation with prepared images, and what is in its glance."""

    def __init__(self, here: CloudInstallation, lab: Lab) -> None:
        self.here = here
        self.lab = lab
        self.glance = lab.connect().image

    def start_making(self, target: str = DEB, *more: str) -> subprocess.Popen[str]:
        """Call `make image`'s command."""
        return subprocess.Popen(
            [sys.executable, "-m", "master.prepared_images.ask", target, *more],
            cwd=CHECKOUT, env={**os.environ, "BUILDPACKAGES_SETTINGS": str(self.here.settings_file)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def make(self, *more: str) -> tuple[int, str]:
        """Ask for an image and follow it; give the command's status, and what it said."""
        making = self.start_making(DEB, *more)
        said, errors = making.communicate(timeout=300)
        return making.returncode, said + errors

    def states(self) -> dict[str, str]:
        """Give name and state of this master's images, the newest first."""
        ours = [
            one
            for one in self.glance.images(visibility="private")
            if (one.properties or {}).get("buildpackages_master") == self.here.tag
        ]
        ours.sort(key=lambda one: one.created_at, reverse=True)
        return {f"{one.name} {one.id}": one.properties["buildpackages_state"] for one in ours}

    def current(self) -> str:
        """Give name and id of the one image that is in use."""
        [found] = [name for name, state in self.states().items() if state == "current"]
        return found

    def build(self, sha1: str) -> tuple[str, str]:
        """Build a commit; give the line that says on which image, and what its install-deps.sh said."""
        answer = self.here.ask(DEB, sha1=sha1)
        assert self.here.wait(answer)["results"] == 0
        [line] = self.image_of(*answer["buildrequest_ids"].values())
        return line, self.here.log(self.here.builds(answer)[-1], "dependencies")

    def image_of(self, request_id: int | str) -> list[str]:
        """Give what a buildrequest's builds say on which image each runs."""
        builds = self.here.builds({"buildrequest_ids": {"": request_id}})
        logs = "".join(self.here.machine_log(build) for build in builds)
        return re.findall(r"for an instance: small, (.*)", logs)

    def base(self) -> str:
        """Give the id of the base image."""
        images = self.glance.images(name="bookworm")
        return str(max(images, key=lambda one: one.properties["image_date"]).id)


@contextmanager
def images(directory: Path, lab: Lab, **overrides: Any) -> Iterator[Images]:
    """Give an installation with prepared images; none of them is left after."""
    with cloud_installation(directory, lab, **{**ONE_MACHINE, **overrides}) as here:
        made = Images(here, lab)
        yield made
        here.gone()
        for name in made.states():
            made.glance.delete_image(name.rpartition(" ")[2])


@pytest.fixture(scope="module")
def prepared(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Images, str, str]]:
    """Make an image, once; give where, what the command said, and the password of the boot that it was made of."""
    with images(tmp_path_factory.mktemp("images"), lab) as made:
        made.here.repository.commit(DEPENDENCIES)
        making = made.start_making()
        [server] = made.here.until(made.here.servers, "there is a server")
        told = base64.b64decode(lab.admin().compute.get_server(server.id).user_data).decode()
        [password] = re.findall(r'"password": "([^"]{20,})"', told)
        said, errors = making.communicate(timeout=300)
        assert making.returncode == 0, said + errors
        yield made, said, password


def test_the_command_follows_it_to_the_end(prepared: tuple[Images, str, str]) -> None:
    """It says what goes on, first while the image is made and then while it is tested, and ends when builds use it."""
    made, said, _ = prepared
    name, _, image_id = made.current().partition(" ")
    assert re.fullmatch(rf"buildpackages-{DEB}-\d{{8}}-\d{{4}}-[0-9a-f]{{8}}", name)
    for expected in (
        rf"buildrequest \d+ prepares an image of {DEB}",
        rf"{name} is made; buildrequest \d+ tests it",
        rf"builds of {DEB} use {name} in cloud packages\n\Z",
    ):
        assert re.search(expected, said), (expected, said)
    first, second = re.findall(r"buildrequest (\d+) (?:prepares|tests it\b)", said)
    assert made.image_of(first) == [
        f"image bookworm ({made.base()}): the base, to prepare an image from",
    ]
    assert made.image_of(second) == [f"image {name} ({image_id}): a prepared one, to be tested"]


def test_its_test_has_published_nothing(prepared: tuple[Images, str, str]) -> None:
    """The packages that the test made are nobody's: the key is not published."""
    made, _, _ = prepared
    sha1 = made.here.repository.sha1("main")
    assert not (made.here.packages / DEB / "sha1" / sha1).exists()


def test_no_secret_is_in_the_image(prepared: tuple[Images, str, str]) -> None:
    """The password of the boot that the image was made of is nowhere in it, nor is that boot's user data."""
    made, _, password = prepared
    image_id = made.current().rpartition(" ")[2]
    changes = made.lab.directory / "snapshots" / image_id / "changes"
    assert (changes / "opt/dependency").exists()
    assert (changes / "var/lib/buildpackages/mirror.git/packed-refs").is_file()
    found = subprocess.run(["grep", "-rlaF", "-e", password, changes], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")
    assert not (changes / "var/lib/cloud/instance").is_dir()
    assert list((changes / "home/build").glob("*")) == []


def test_builds_use_it_if_their_dependencies_are_the_same(prepared: tuple[Images, str, str]) -> None:
    """A build of another commit finds what the image was prepared with, and its log says which image that is."""
    made, _, _ = prepared
    name, _, image_id = made.current().partition(" ")
    line, said = made.build(made.here.repository.commit(DEPENDENCIES))
    assert re.fullmatch(
        rf"image {name} \({image_id}\): prepared \d{{4}}-\d\d-\d\d for these dependencies", line
    )
    assert "there already" in said


def test_builds_with_other_dependencies_do_not(prepared: tuple[Images, str, str]) -> None:
    """A commit that needs something else is built on the base image, and its log says why."""
    made, _, _ = prepared
    name, _, _ = made.current().partition(" ")
    line, said = made.build(made.here.repository.commit(OTHER, ref="other"))
    assert re.fullmatch(rf"image bookworm \(\S+\): the prepared image {name} is for other dependencies", line)
    assert "installed now" in said


def test_an_image_that_fails_its_test_is_removed(prepared: tuple[Images, str, str]) -> None:
    """A commit that does not build leaves the former image in use, and nothing of the new one."""
    made, _, _ = prepared
    before = made.states()
    made.here.repository.commit(replace(DEPENDENCIES, work=tiny.COMPILE_ERROR.work))
    try:
        status, said = made.make()
    finally:
        made.here.repository.commit(DEPENDENCIES)
    assert status == 1
    assert re.search(r"no image: Building the packages failed: foo\.c:1:1: error: expected", said), said
    made.here.until(lambda: made.states() == before, "only the former image is left")


def test_an_image_whose_dependencies_fail_is_not_made(prepared: tuple[Images, str, str]) -> None:
    """A commit whose install-deps.sh fails makes no snapshot at all."""
    made, _, _ = prepared
    before = made.states()
    made.here.repository.commit(replace(DEPENDENCIES, install_deps="echo 'E: no cmake'; exit 3"))
    try:
        status, said = made.make()
    finally:
        made.here.repository.commit(DEPENDENCIES)
    assert status == 1
    assert "no image: Installing the build dependencies failed: E: no cmake" in said, said
    assert made.states() == before


def test_the_next_image_takes_the_place_of_the_last(prepared: tuple[Images, str, str]) -> None:
    """The new one is current, the former one is kept as old, and builds run on the new one."""
    made, _, _ = prepared
    former = made.current()
    status, said = made.make("--cloud", "packages")
    assert status == 0, said
    states = made.states()
    assert states.pop(former) == "old"
    assert list(states.values()) == ["current"]
    line, _ = made.build(made.here.repository.commit(DEPENDENCIES))
    name, _, image_id = made.current().partition(" ")
    assert line.startswith(f"image {name} ({image_id}): prepared ")


def force(made: Images, token: str, **params: Any) -> requests.Response:
    """Knock at the door `images`."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": params}
    url = f"{made.here.url}api/v2/forceschedulers/images"
    return requests.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def test_the_door_says_what_is_wrong(prepared: tuple[Images, str, str]) -> None:
    """A builder, a cloud or a field that there is not is a sentence beside it, all of them at once."""
    made, _, _ = prepared
    token = made.here.token
    answer = force(made, token, builderNames=[f"image-{DEB}"], cloud="sepia", colour="red")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == {
        "cloud": "must be one of packages",
        "colour": "is not a field of this form",
    }
    for wanted in ({"builderNames": [DEB]}, {"builderNames": []}, {"builderid": 99}, {"builderid": "x"}, {}):
        answer = force(made, token, **wanted)
        assert answer.json()["error"]["message"] == {"builderNames": f"must be one of image-{DEB}"}, wanted
    assert force(made, "nobody's", builderNames=[f"image-{DEB}"]).status_code == 403


def test_a_build_of_an_image_is_not_rebuilt(prepared: tuple[Images, str, str]) -> None:
    """A rebuild is an ask for packages, and here there are none: the answer says so."""
    made, _, _ = prepared
    [builder] = [one for one in made.here.get("builders")["builders"] if one["name"] == f"image-{DEB}"]
    build = made.here.get(f"builders/{builder['builderid']}/builds")["builds"][0]
    answer = requests.post(
        f"{made.here.url}api/v2/builds/{build['buildid']}",
        json={"jsonrpc": "2.0", "id": 1, "method": "rebuild", "params": {}},
        headers={"Authorization": f"Bearer {made.here.token}"}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "this built no packages: ask for an image anew"


def test_only_the_operator_asks_for_images(lab: Lab, tmp_path: Path) -> None:
    """Another user may ask for packages, but for no image."""
    secret = "a-long-secret-of-alice"
    with images(tmp_path, lab, users={"alice": digest(secret)}) as made:
        answer = force(made, secret, builderNames=[f"image-{DEB}"])
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == {"owner": "images are the operator's to ask for"}


def test_a_killed_master_leaves_no_half_made_image(lab: Lab, tmp_path: Path) -> None:
    """Killed while the snapshot is made, the master makes the image anew when it is back, and removes the half-made one."""
    with images(tmp_path, lab) as made:
        made.here.repository.commit(DEPENDENCIES)
        answer = force(made, made.here.token, builderNames=[f"image-{DEB}"])
        [request_id] = answer.json()["result"][1].values()
        asked = {"buildrequest_ids": {"1": request_id}}
        made.here.until(lambda: "making" in made.states().values(), "a snapshot is made", 120)
        made.here.kill()
        [half_made] = made.states()
        made.here.start()
        made.here.until(lambda: half_made not in made.states(), "the half-made image is removed")
        assert not made.here.get(f"buildrequests/{request_id}")["buildrequests"][0]["complete"]
        assert made.here.wait(asked)["results"] == 0
        build = made.here.builds(asked)[-1]
        properties = made.here.get(f"builds/{build['buildid']}/properties")["properties"][0]
        tested = {"buildrequest_ids": {"1": properties["test_request"][0]}}
        assert made.here.wait(tested)["results"] == 0
        made.here.until(lambda: list(made.states().values()) == ["current"], "there is one image", 30)
        assert half_made not in made.states()
