"""One cloud through the SDK: the requests as they are sent, the answers as they come, and no call on the reactor's thread.

What no lab has, such as cinder, is here held to requests and answers that were typed from the services' references.
"""

from __future__ import annotations

import base64
import inspect
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests
from twisted.internet.defer import DeferredList, ensureDeferred

from tests.fakes.boot import FakeBoot
from tests.fakes.cloud import FakeCloud
from tests.fakes.openstack_api import Answer, OpenStackApi, api
from tests.patience import SLOW
from tests.reactor import finish
from workers import cloud as module
from workers import provider
from workers.cloud import Cloud
from workers.cloud_data import Image, Leftover, Limits, Wanted
from workers.cloud_errors import Kind, Trouble
from workers.openstack import _Ahead
from workers.openstack_settings import BootVolume, CloudSettings, MachineSize, NewestImage
from workers.sdk_calls import CHANGES, THREADS
from workers.sizes import NovaFlavor, Size

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

TAG = "buildpackages-tests"
NETWORK = "11111111-2222-3333-4444-555555555555"
SECOND = "11111111-2222-3333-4444-666666666666"
IMAGE = Image("99999999-2222-3333-4444-555555555555", "bookworm", "2026-11-03T00:00:00Z")
BUILD = NovaFlavor("f-build", "build", 100, 49152, 16)
WANTED = Wanted(
    "ceph-deb-bookworm-x86_64-default-0a1b2c3d", BUILD, IMAGE, "#!/bin/bash\necho ü\n", {"boot": "0a1b2c3d"}
)

SERVERS = "/compute/v2.1/servers"
PORTS = "/network/v2.0/ports"
FLOATING_IPS = "/network/v2.0/floatingips"
VOLUMES = "/volume/v3/p/volumes"
IMAGES = "/image/v2/images"


class Playing:
    """A cloud on HTTP answers of the test's, each use on a reactor of its own."""

    def __init__(self, played: OpenStackApi, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = played
        self._directory = directory
        self._monkeypatch = monkeypatch

    def run(self, use: Callable[[Cloud], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
        """Give what `use(cloud)` comes to."""
        usual = {"cloud": "sepia", "images": {"*": "bookworm"}, "nova_flavor": "build", "timeout": 5}
        made = CloudSettings(**{**usual, **settings})

        async def on(reactor: Any) -> Any:
            self._monkeypatch.setattr(module, "_reactor", lambda: reactor)
            cloud = Cloud(made, self.api.clouds_yaml(self._directory), TAG, reactor)
            try:
                return await use(cloud)
            finally:
                cloud.close()

        return finish(on)

    def trouble(self, use: Callable[[Cloud], Coroutine[Any, Any, Any]], **settings: Any) -> Trouble:
        """Give the Trouble that it comes to."""
        with pytest.raises(Trouble) as caught:
            self.run(use, **settings)
        return caught.value


@pytest.fixture
def playing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Playing]:
    """A cloud that answers as told."""
    with api() as played:
        yield Playing(played, tmp_path, monkeypatch)


def created(playing: Playing, wanted: Wanted = WANTED, **settings: Any) -> dict[str, Any]:
    """Create a server, and give the body of the request."""
    playing.api.on("POST", SERVERS, Answer(202, {"server": {"id": "s1", "adminPass": "x"}}))
    assert playing.run(lambda cloud: cloud.create(wanted), **settings) == "s1"
    [request] = playing.api.asked("POST", SERVERS)
    assert request.microversion == "2.60"
    body: dict[str, Any] = request.body
    return body


# -- servers


def test_a_server_is_asked_for_with_all_that_settings_name(playing: Playing) -> None:
    """Tag, metadata, user data and everything of the settings are in the one call that makes the server."""
    body = created(
        playing,
        networks=(NETWORK, SECOND),
        security_groups=("builders", "default"),
        key_name="ops",
        availability_zone="az1",
        scheduler_hints={"group": "g1"},
    )
    assert body == {
        "server": {
            "name": "ceph-deb-bookworm-x86_64-default-0a1b2c3d",
            "flavorRef": "f-build",
            "imageRef": "99999999-2222-3333-4444-555555555555",
            "user_data": base64.b64encode("#!/bin/bash\necho ü\n".encode()).decode(),
            "metadata": {"boot": "0a1b2c3d"},
            "tags": ["buildpackages-tests"],
            "config_drive": True,
            "networks": [{"uuid": NETWORK}, {"uuid": SECOND}],
            "security_groups": [{"name": "builders"}, {"name": "default"}],
            "key_name": "ops",
            "availability_zone": "az1",
        },
        "OS-SCH-HNT:scheduler_hints": {"group": "g1"},
    }


def test_what_settings_do_not_name_is_not_sent(playing: Playing) -> None:
    """With the least of settings, the cloud chooses the network, and nothing else is said."""
    body = created(playing, config_drive=False)["server"]
    assert body["networks"] == "auto"
    assert body["config_drive"] is False
    assert body.keys() == {
        "name", "flavorRef", "imageRef", "user_data", "metadata", "tags", "config_drive", "networks"
    }  # fmt: skip


def test_a_server_boots_from_a_volume(playing: Playing) -> None:
    """With a volume there is no image, and the volume goes with the server."""
    body = created(playing, Wanted("x", BUILD, IMAGE, "", {}, volume_id="v1"), volume=BootVolume(size=100))
    assert "imageRef" not in body["server"] or body["server"]["imageRef"] == ""
    assert body["server"]["block_device_mapping_v2"] == [
        {
            "boot_index": 0, "uuid": "v1", "source_type": "volume", "destination_type": "volume",
            "delete_on_termination": True,
        }
    ]  # fmt: skip


def test_a_server_takes_its_port(playing: Playing) -> None:
    """A port stands in the place of the first network, and has the security groups itself."""
    body = created(
        playing,
        Wanted("x", BUILD, IMAGE, "", {}, port_id="p1"),
        networks=(NETWORK, SECOND),
        security_groups=("builders",),
    )["server"]
    assert body["networks"] == [{"port": "p1"}, {"uuid": SECOND}]
    assert "security_groups" not in body


def test_metadata_fits(playing: Playing) -> None:
    """A value longer than nova takes is cut, rather than refused."""
    body = created(playing, Wanted("x", BUILD, IMAGE, "", {"build_url": "u" * 300}))
    assert body["server"]["metadata"] == {"build_url": "u" * 255}


@pytest.mark.parametrize("answer", [Answer(202, {}), Answer(202, b"<html>Please log in</html>")])
def test_an_answer_without_an_id_is_a_lost_answer(playing: Playing, answer: Answer) -> None:
    """Something was perhaps made, and nobody can tell which."""
    playing.api.on("POST", SERVERS, answer)
    trouble = playing.trouble(lambda cloud: cloud.create(WANTED))
    assert (trouble.kind, trouble.done_perhaps) == (Kind.PASSING, True)
    assert trouble.sentence == "cloud sepia: its answer to a create call has no id"


def test_our_servers_are_listed(playing: Playing) -> None:
    """One listing by tag gives what there is to know, whatever of it nova leaves out."""
    listed = [
        {
            "id": "s1", "name": "one", "status": "ERROR", "OS-EXT-STS:task_state": None, "tags": [TAG, "more"],
            "metadata": {"boot": "b1", "expires": "1700000000"}, "addresses": {},
            "fault": {"code": 500, "message": "No valid host was found. ", "created": "2026-11-03T00:00:00Z"},
        },
        {
            "id": "s2", "name": "two", "status": "ACTIVE", "OS-EXT-STS:task_state": "deleting", "tags": [TAG],
            "metadata": {}, "addresses": {"lab": [{"addr": "10.77.0.5", "version": 4}]},
        },
    ]  # fmt: skip
    playing.api.on("GET", f"{SERVERS}/detail", Answer(200, {"servers": listed}))
    one, two = playing.run(lambda cloud: cloud.servers())
    assert (one.id, one.name, one.status, one.task_state) == ("s1", "one", "ERROR", "")
    assert (one.boot, one.expires, one.fault) == ("b1", 1_700_000_000.0, "No valid host was found. ")
    assert (two.boot, two.expires, two.fault, two.task_state) == ("", float("inf"), "", "deleting")
    assert list(two.addresses) == ["lab"]
    [request] = playing.api.asked("GET", f"{SERVERS}/detail")
    assert request.query == {"tags": [TAG]}
    assert request.microversion == "2.60"


def test_a_listing_of_many_pages_is_read_to_its_end(playing: Playing) -> None:
    """nova shows so many at a time, and says that there are more: none of ours is missed."""

    def listed(*ids: str) -> list[dict[str, Any]]:
        return [{"id": one, "name": one, "status": "ACTIVE", "tags": [TAG]} for one in ids]

    more = {"servers_links": [{"rel": "next", "href": "http://nova.example.org/servers/detail?marker=s2"}]}
    playing.api.on(
        "GET", f"{SERVERS}/detail",
        Answer(200, {"servers": listed("s1", "s2"), **more}), Answer(200, {"servers": listed("s3")}),
    )  # fmt: skip
    assert [one.id for one in playing.run(lambda cloud: cloud.servers())] == ["s1", "s2", "s3"]
    first, second = playing.api.asked("GET", f"{SERVERS}/detail")
    assert (first.query, second.query) == ({"tags": [TAG]}, {"tags": [TAG], "marker": ["s2"]})


@pytest.mark.parametrize("tags", [None, [], ["buildpackages-tests2"]])
def test_a_listing_that_shows_others_is_not_believed(playing: Playing, tags: list[str] | None) -> None:
    """A nova that does not know tags shows everybody's servers: what it shows is ended by nobody."""
    theirs = {"id": "s1", "name": "theirs", "status": "ACTIVE", "metadata": {}, "addresses": {}}
    if tags is not None:
        theirs["tags"] = tags
    playing.api.on("GET", f"{SERVERS}/detail", Answer(200, {"servers": [theirs]}))
    trouble = playing.trouble(lambda cloud: cloud.servers())
    assert trouble.kind is Kind.PASSING
    assert "servers without our tag" in trouble.sentence


@pytest.mark.parametrize(
    "how", [Answer(503, {}), Answer(200, b"<html>"), Answer(how="reset"), Answer(404, {})]
)
def test_tags_are_asked_for_also_when_versions_are_not_known(playing: Playing, how: Answer) -> None:
    """When the SDK's look for nova's versions fails, the listing that follows is for our tag all the same."""
    playing.api.on("GET", "/compute/v2.1", how)
    playing.api.on("GET", f"{SERVERS}/detail", Answer(200, {"servers": []}))
    assert playing.run(lambda cloud: cloud.servers()) == []
    [request] = playing.api.asked("GET", f"{SERVERS}/detail")
    assert request.microversion == "2.60"


def test_one_that_is_gone_is_as_good_as_deleted(playing: Playing) -> None:
    """A DELETE of what is not there is no failure, and whether it is there can be asked."""
    gone = Answer(404, {"itemNotFound": {"code": 404, "message": "Instance s1 could not be found."}})
    there = Answer(200, {"server": {"id": "s1", "status": "ACTIVE", "tags": []}})
    playing.api.on("DELETE", f"{SERVERS}/s1", Answer(204), gone)
    playing.api.on("GET", f"{SERVERS}/s1", there, gone)

    async def use(cloud: Cloud) -> list[bool]:
        seen = []
        for _ in range(2):
            await cloud.delete("s1")
            seen.append(await cloud.exists("s1"))
        return seen

    assert playing.run(use) == [True, False]
    assert len(playing.api.asked("GET", f"{SERVERS}/s1")) == 2


def test_only_a_404_says_that_one_is_gone(playing: Playing) -> None:
    """A refusal to show a server is no sign that it is not there."""
    playing.api.on("GET", f"{SERVERS}/s1", Answer(403, {"forbidden": {"code": 403, "message": "no"}}))
    assert playing.trouble(lambda cloud: cloud.exists("s1")).kind is Kind.PERMANENT


def test_the_end_of_the_console_is_read(playing: Playing) -> None:
    """The last lines of a server's console are asked for, and an empty one is empty."""
    path = f"{SERVERS}/s1/action"
    playing.api.on("POST", path, Answer(200, {"output": "last words\n"}), Answer(200, {"output": None}))
    assert playing.run(lambda cloud: cloud.console("s1")) == "last words\n"
    assert playing.run(lambda cloud: cloud.console("s1")) == ""
    assert playing.api.asked("POST", path)[0].body == {"os-getConsoleOutput": {"length": 200}}


# -- what the settings name

LIMITS = {
    "limits": {
        "rate": [],
        "absolute": {
            "maxTotalInstances": 12, "totalInstancesUsed": 3, "maxTotalCores": -1, "totalCoresUsed": 48,
            "maxTotalRAMSize": 512000, "totalRAMUsed": 147456, "maxServerMeta": 128,
        },
    }
}  # fmt: skip


def test_the_quota_is_read_once_for_all_who_ask(playing: Playing) -> None:
    """Who asks at the same time gets the same answer, which is good for seconds, or until it is said to be old."""
    playing.api.on("GET", "/compute/v2.1/limits", Answer(200, LIMITS))

    async def use(cloud: Cloud) -> Any:
        before = cloud.limits_read_at
        answers = await DeferredList([ensureDeferred(cloud.limits()) for _ in range(20)])
        await cloud.limits()
        assert len(playing.api.asked("GET", "/compute/v2.1/limits")) == 1
        assert cloud.limits_read_at > before
        cloud.forget_limits()
        await cloud.limits()
        assert len(playing.api.asked("GET", "/compute/v2.1/limits")) == 2
        return {answer for _, answer in answers}

    assert playing.run(use) == {Limits(12, 3, -1, 48, 512000, 147456)}


def test_what_fits_into_a_quota() -> None:
    """The first of instances, cores and ram that does not suffice is named; -1 is no limit."""
    small = NovaFlavor("f", "small", 5, 512, 1)
    assert Limits(12, 11, -1, 500, 10_000, 9_488).lacks(small) == ""
    assert Limits(12, 12, 1, 1, 1, 1).lacks(small) == "no quota for instances, 12 of 12 used"
    assert Limits(12, 11, -1, 0, -1, 0).lacks(small, instances=1) == "no quota for instances, 12 of 12 used"
    assert Limits(-1, 0, 96, 90, -1, 0).lacks(BUILD) == "no quota for cores, 90 of 96 used, 16 needed"
    assert (
        Limits(-1, 0, -1, 0, 10_000, 9_489).lacks(small) == "no quota for ram, 9489 of 10000 used, 512 needed"
    )


FLAVORS = {
    "flavors": [
        {"id": "f1", "name": "small", "ram": 512, "vcpus": 1, "disk": 5},
        {"id": "f2", "name": "build", "ram": 49152, "vcpus": 16, "disk": 100},
    ]
}


def test_nova_flavors_are_listed_once(playing: Playing) -> None:
    """By name or by size, one listing is enough for minutes; one that is not there is looked for anew."""
    path = "/compute/v2.1/flavors/detail"
    playing.api.on("GET", path, Answer(200, FLAVORS))

    async def use(cloud: Cloud) -> list[str]:
        names = [(await cloud.flavor()).name, (await cloud.flavor(Size(cpus=1))).name]
        names.append((await cloud.flavor(Size(cpus=99), Size(cpus=2))).name)
        assert len(playing.api.asked("GET", path)) == 1
        with pytest.raises(Trouble) as caught:
            await cloud.flavor(Size(cpus=99))
        assert (caught.value.kind, caught.value.stale) == (Kind.PERMANENT, "nova_flavor")
        assert caught.value.sentence.startswith("cloud sepia: settings `good_machine` and `min_machine`: ")
        await cloud.flavor()
        assert len(playing.api.asked("GET", path)) == 2
        return names

    assert playing.run(use) == ["build", "small", "build"]


def test_sizes_of_the_settings_choose_as_well(playing: Playing) -> None:
    """Without a nova_flavor the sizes of the settings choose; with a boot volume the disk does not count."""
    playing.api.on("GET", "/compute/v2.1/flavors/detail", Answer(200, FLAVORS))
    sizes = {
        "nova_flavor": "",
        "good_machine": MachineSize(cpus=99),
        "min_machine": MachineSize(cpus=1, disk=6),
    }
    assert playing.run(lambda cloud: cloud.flavor(), **sizes).name == "build"
    assert playing.run(lambda cloud: cloud.flavor(), **sizes, volume=BootVolume(size=9)).name == "small"


def image(number: int, name: str = "bookworm", **more: Any) -> dict[str, Any]:
    """An image as glance shows it."""
    return {
        "id": f"{number:08d}-2222-3333-4444-555555555555", "name": name, "status": "active",
        "created_at": f"2026-11-{number:02d}T00:00:00Z", **more,
    }  # fmt: skip


def test_an_image_by_its_name(playing: Playing) -> None:
    """One active image of the name is taken, looked up once; several are not chosen from, and none is said."""
    playing.api.on("GET", IMAGES, Answer(200, {"images": [image(1, os_distro="debian", mine="1")]}))

    async def use(cloud: Cloud) -> Image:
        await cloud.image("bookworm")
        return await cloud.image("bookworm")

    found = playing.run(use)
    assert str(found) == "bookworm (00000001-2222-3333-4444-555555555555)"
    assert found.properties["mine"] == "1"
    assert found.properties["os_distro"] == "debian"
    [request] = playing.api.asked("GET", IMAGES)
    assert request.query == {"name": ["bookworm"], "status": ["active"]}
    playing.api.on("GET", IMAGES, Answer(200, {"images": [image(1), image(2)]}))
    assert playing.trouble(lambda cloud: cloud.image("bookworm")).sentence == (
        "cloud sepia: setting `images`: 'bookworm' is the name of 2 images; name one by its id, or `newest` properties"
    )
    playing.api.on("GET", IMAGES, Answer(200, {"images": []}))
    trouble = playing.trouble(lambda cloud: cloud.image("bookworm"))
    assert trouble.sentence == "cloud sepia: setting `images`: 'bookworm' is not there, or not active"
    assert (trouble.kind, trouble.stale) == (Kind.PERMANENT, "images")


def test_an_image_by_its_id(playing: Playing) -> None:
    """An id is looked for as one, and an image that is not active is none."""
    wanted = image(1)["id"]
    playing.api.on("GET", IMAGES, Answer(200, {"images": [image(1)]}))
    assert playing.run(lambda cloud: cloud.image(wanted)).id == wanted
    assert playing.api.asked("GET", IMAGES)[0].query == {"id": [f"in:{wanted}"]}
    playing.api.on("GET", IMAGES, Answer(200, {"images": [image(1, status="deactivated")]}))
    assert "is not there, or not active" in playing.trouble(lambda cloud: cloud.image(wanted)).sentence


NEWEST = (
    # what is wanted, which of the images below
    (NewestImage(name="bookworm"), 4),
    (NewestImage(name="bookworm", properties={"os_version": "12.5"}), 3),
    (NewestImage(name="book*"), 5),
    (NewestImage(properties={"os_version": "13.2"}), 6),
    (NewestImage(name="bookworm", properties={"os_version": "13.2"}), None),
)


@pytest.mark.parametrize(("wanted", "number"), NEWEST)
def test_the_newest_image_with_given_properties(
    playing: Playing, wanted: NewestImage, number: int | None
) -> None:
    """Every property has to be there, a name may be a pattern, and images that were prepared from others do not count."""
    there = [
        image(2, os_version="12.5"), image(3, os_version="12.5"), image(4, os_version="12.12"),
        image(5, "bookworm-arm"), image(6, "trixie", os_version="13.2"),
        image(9, buildpackages_target="ceph-deb-bookworm-x86_64-default"),
    ]  # fmt: skip
    exact = [one for one in there if one["name"] == wanted.name]
    playing.api.on("GET", IMAGES, Answer(200, {"images": exact or there}))
    if number is None:
        trouble = playing.trouble(lambda cloud: cloud.image(wanted))
        assert trouble.sentence == (
            "cloud sepia: setting `images`: no active image 'bookworm' has os_version=13.2"
        )
    else:
        assert playing.run(lambda cloud: cloud.image(wanted)).id == image(number)["id"]


def test_what_is_stale_is_looked_up_again(playing: Playing) -> None:
    """After a refusal that names an image, the next look-up asks glance, which may have another of its name."""
    playing.api.on("GET", IMAGES, Answer(200, {"images": [image(1)]}), Answer(200, {"images": [image(2)]}))
    refusal = {"badRequest": {"code": 400, "message": "Can not find requested image"}}
    playing.api.on("POST", SERVERS, Answer(400, refusal))

    async def use(cloud: Cloud) -> list[str]:
        first = await cloud.image("bookworm")
        with pytest.raises(Trouble):
            await cloud.create(WANTED)
        return [first.id, (await cloud.image("bookworm")).id]

    assert playing.run(use) == [image(1)["id"], image(2)["id"]]


def test_new_settings_are_looked_up_anew(playing: Playing, tmp_path: Path) -> None:
    """Settings that change forget what the old ones named, and the clouds.yaml that they name is read."""
    (tmp_path / "other").mkdir()
    playing.api.on("GET", "/compute/v2.1/flavors/detail", Answer(200, FLAVORS))

    async def use(cloud: Cloud) -> None:
        await cloud.flavor()
        other = playing.api.clouds_yaml(tmp_path / "other", auth={"password": "of the other file"})
        cloud.configure(cloud.settings, other)
        await cloud.flavor()

    playing.run(use)
    assert len(playing.api.asked("GET", "/compute/v2.1/flavors/detail")) == 2
    assert playing.api.passwords[-1] == "of the other file"


def test_credentials_that_were_mended_are_read(playing: Playing, tmp_path: Path) -> None:
    """After credentials were refused, clouds.yaml is read again: nobody has to start the master anew for that."""
    refused = {"error": {"code": 401, "message": "requires authentication", "title": "Unauthorized"}}
    playing.api.on("GET", f"{SERVERS}/detail", Answer(200, {"servers": []}))
    tokens = "/identity/v3/auth/tokens"
    playing.api.on("POST", tokens, Answer(401, refused))

    async def use(cloud: Cloud) -> list[Any]:
        with pytest.raises(Trouble):
            await cloud.servers()
        playing.api._answers.pop(("POST", tokens))
        playing.api.clouds_yaml(tmp_path, auth={"password": "mended"})
        return await cloud.servers()

    assert playing.run(use) == []
    sent = playing.api.passwords
    assert sent[-1] == "mended"


def test_networks_by_name_or_id(playing: Playing) -> None:
    """Names are looked up once, ids are taken as they are; an unknown name, or one of two, ends the request."""
    there = [
        {"id": NETWORK, "name": "lab"}, {"id": SECOND, "name": "twice"}, {"id": "3", "name": "twice"}
    ]  # fmt: skip
    playing.api.on("GET", "/network/v2.0/networks", Answer(200, {"networks": there}))
    assert created(playing, networks=("lab", SECOND))["server"]["networks"] == [
        {"uuid": NETWORK},
        {"uuid": SECOND},
    ]
    assert len(playing.api.asked("GET", "/network/v2.0/networks")) == 1
    trouble = playing.trouble(lambda cloud: cloud.create(WANTED), networks=("nope",))
    assert (trouble.kind, trouble.sentence) == (
        Kind.PERMANENT,
        "cloud sepia: setting `networks`: 'nope' is not there; there are lab, twice",
    )
    trouble = playing.trouble(lambda cloud: cloud.create(WANTED), networks=("twice",))
    assert trouble.sentence == (
        "cloud sepia: setting `networks`: 'twice' is the name of 2 networks; name one by its id"
    )


def test_a_neutron_that_lists_no_network_is_asked_again(playing: Playing) -> None:
    """It has been seen to do so for seconds after its start, so that ends no request: it passes."""
    playing.api.on("GET", "/network/v2.0/networks", Answer(200, {"networks": []}))
    trouble = playing.trouble(lambda cloud: cloud.create(WANTED), networks=("lab",))
    assert (trouble.kind, trouble.sentence) == (Kind.PASSING, "cloud sepia: neutron lists no network at all")


# -- volumes, ports, floating ips


def test_a_volume_is_asked_of_cinder(playing: Playing) -> None:
    """The boot volume is made from the image, and marked as ours in the call itself."""
    playing.api.on("POST", VOLUMES, Answer(202, {"volume": {"id": "v1", "status": "creating"}}))
    playing.api.on("GET", f"{VOLUMES}/v1", Answer(200, {"volume": {"id": "v1", "status": "downloading"}}))

    async def use(cloud: Cloud) -> tuple[str, str]:
        volume_id = await cloud.create_volume("name", IMAGE, "b1")
        return volume_id, await cloud.volume_status(volume_id)

    assert playing.run(use, volume=BootVolume(size=100, type="ssd")) == ("v1", "downloading")
    assert playing.api.asked("POST", VOLUMES)[0].body == {
        "volume": {
            "size": 100,
            "name": "name",
            "imageRef": "99999999-2222-3333-4444-555555555555",
            "volume_type": "ssd",
            "metadata": {"buildpackages": "buildpackages-tests", "boot": "b1"},
        }
    }


def test_a_floating_ip_needs_a_port(playing: Playing) -> None:
    """A port on the first network, with the security groups' ids, and a floating ip for it; both marked as ours."""
    groups = [{"id": "g1", "name": "builders"}, {"id": "g2", "name": "other"}]
    playing.api.on("GET", "/network/v2.0/security-groups", Answer(200, {"security_groups": groups}))
    playing.api.on("POST", PORTS, Answer(201, {"port": {"id": "p1"}}))
    playing.api.on("GET", "/network/v2.0/networks/outside", Answer(404, {}))
    outside = {"networks": [{"id": "n9", "name": "outside"}]}
    playing.api.on("GET", "/network/v2.0/networks", Answer(200, outside))
    playing.api.on("POST", FLOATING_IPS, Answer(201, {"floatingip": {"id": "ip1"}}))

    async def use(cloud: Cloud) -> tuple[str, str]:
        port_id = await cloud.create_port("name", "b1")
        return port_id, await cloud.create_floating_ip(port_id, "b1")

    settings = {"networks": (NETWORK,), "security_groups": ("builders", "g3"), "floating_ip": "outside"}
    assert playing.run(use, **settings) == ("p1", "ip1")
    assert playing.api.asked("POST", PORTS)[0].body == {
        "port": {
            "network_id": NETWORK,
            "name": "name",
            "description": "buildpackages-tests boot b1",
            "security_groups": ["g1", "g3"],
        }
    }
    assert playing.api.asked("POST", FLOATING_IPS)[0].body == {
        "floatingip": {
            "floating_network_id": "n9",
            "port_id": "p1",
            "description": "buildpackages-tests boot b1",
        }
    }


def test_leftovers_are_ours_only(playing: Playing) -> None:
    """What is marked as ours is listed with its boot; other masters' and what only looks like it is not."""
    described = [
        {"id": "1", "description": "buildpackages-tests boot b1"},
        {"id": "2", "description": "buildpackages-tests2 boot b1"},
        {"id": "3", "description": "buildpackages-test boot b1"},
        {"id": "4", "description": "about buildpackages-tests boot b1"},
        {"id": "5", "description": ""},
    ]
    playing.api.on("GET", FLOATING_IPS, Answer(200, {"floatingips": described}))
    playing.api.on("GET", PORTS, Answer(200, {"ports": described}))
    volumes = [
        {"id": "1", "metadata": {"buildpackages": "buildpackages-tests", "boot": "b1"}},
        {"id": "2", "metadata": {"buildpackages": "buildpackages-tests2", "boot": "b1"}},
        {"id": "3", "metadata": {"boot": "b1"}},
    ]
    playing.api.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": volumes}))
    assert playing.run(lambda cloud: cloud.leftovers()) == [
        Leftover("floating ip", "1", "b1"),
        Leftover("port", "1", "b1"),
        Leftover("volume", "1", "b1"),
    ]


def test_a_cloud_without_routers_has_no_floating_ips(playing: Playing) -> None:
    """A network service that does not know floating ips still has ports to look at."""
    playing.api.on(
        "GET", FLOATING_IPS, Answer(404, {"NeutronError": {"message": "The resource is not there"}})
    )
    playing.api.on("GET", PORTS, Answer(200, {"ports": [{"id": "1", "description": f"{TAG} boot b1"}]}))
    playing.api.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": []}))
    assert playing.run(lambda cloud: cloud.leftovers()) == [Leftover("port", "1", "b1")]


def test_a_cloud_without_volumes_and_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud whose catalogue has neither service has no such leftovers, and that is no trouble."""
    with api("compute", "image") as played:
        assert Playing(played, tmp_path, monkeypatch).run(lambda cloud: cloud.leftovers()) == []


@pytest.mark.parametrize(
    ("kind", "path"),
    [("volume", f"{VOLUMES}/x"), ("port", f"{PORTS}/x"), ("floating ip", f"{FLOATING_IPS}/x")],
)
def test_leftovers_are_removed(playing: Playing, kind: str, path: str) -> None:
    """Each kind is deleted where it lives; one that is gone is as good, and one in use is trouble that passes."""
    in_use = Answer(409, {"NeutronError": {"message": "it is in use"}})
    playing.api.on("DELETE", path, Answer(204), Answer(404, {}), in_use)
    for _ in range(2):
        playing.run(lambda cloud: cloud.remove(Leftover(kind, "x", "b")))
    trouble = playing.trouble(lambda cloud: cloud.remove(Leftover(kind, "x", "b")))
    assert trouble.kind is Kind.PASSING
    assert len(playing.api.asked("DELETE", path)) == 3


# -- threads


def test_no_call_is_made_on_the_reactors_thread(playing: Playing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of a cloud is used, every request is sent, and every answer read, in a thread of the cloud's own."""
    threads: set[int] = set()
    send = requests.Session.send

    def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        threads.add(threading.get_ident())
        return send(self, *arguments, **named)

    monkeypatch.setattr(requests.Session, "send", noted)
    calls: dict[str, tuple[Any, ...]] = {
        "servers": (), "create": (WANTED,), "delete": ("s",), "exists": ("s",), "console": ("s",),
        "limits": (), "flavor": (), "image": ("bookworm",), "create_volume": ("n", IMAGE, "b"),
        "volume_status": ("v",), "create_port": ("n", "b"), "create_floating_ip": ("p", "b"),
        "leftovers": (), "remove": (Leftover("port", "x", "b"),), "run": (lambda sdk: sdk.compute.get("/x"),),
        "run_change": (lambda sdk: sdk.compute.post("/x"),),
    }  # fmt: skip
    public = {
        name for name, one in vars(Cloud).items() if inspect.iscoroutinefunction(one) and name[0] != "_"
    }
    assert calls.keys() == public, "every coroutine of a cloud is looked at here"

    async def use(cloud: Cloud) -> None:
        for name, arguments in calls.items():
            before = len(playing.api.requests)
            with suppress(Trouble):  # most get a 501
                await getattr(cloud, name)(*arguments)
            assert len(playing.api.requests) > before, f"{name} asked nothing"

    playing.run(use, networks=("lab",), volume=BootVolume(size=1), floating_ip="outside")
    assert threads
    assert threading.get_ident() not in threads


def test_calls_that_hang_leave_the_reactor_alone(playing: Playing) -> None:
    """While as many calls hang as there are threads, the reactor runs, and closing does not wait for them."""
    playing.api.on("GET", f"{SERVERS}/detail", Answer(how="hang"))

    async def use(cloud: Cloud) -> list[Any]:
        from twisted.internet.task import deferLater

        outcomes: list[Any] = []
        for _ in range(2 * THREADS):
            ensureDeferred(cloud.servers()).addBoth(outcomes.append)
        reactor = module._reactor()
        while len(playing.api.asked("GET", f"{SERVERS}/detail")) < THREADS:
            await deferLater(reactor, 0.01)
        return list(outcomes)

    assert playing.run(use, timeout=300) == []


def test_nobody_waits_for_a_burst_to_read_the_quota(playing: Playing) -> None:
    """While more servers are asked for than there are threads, and nova answers none of it, quota and listing are read."""
    playing.api.on("POST", SERVERS, Answer(how="hang"))
    playing.api.on("GET", "/compute/v2.1/limits", Answer(200, LIMITS))
    playing.api.on("GET", f"{SERVERS}/detail", Answer(body={"servers": []}))

    async def use(cloud: Cloud) -> tuple[int, list[Any]]:
        from twisted.internet.task import deferLater

        for _ in range(2 * THREADS):
            ensureDeferred(cloud.create(WANTED)).addErrback(lambda _: None)
        while len(playing.api.asked("POST", SERVERS)) < CHANGES:
            await deferLater(module._reactor(), 0.01)
        return (await cloud.limits()).instances, await cloud.servers()

    assert playing.run(use, timeout=300, networks=(NETWORK,)) == (12, [])
    assert len(playing.api.asked("POST", SERVERS)) == CHANGES


def test_a_call_without_an_answer_ends_after_its_time(playing: Playing) -> None:
    """The settings say how long one call may take; after that it may have been done, or not."""
    path = f"{SERVERS}/1"
    playing.api.on("DELETE", path, Answer(how="hang"))
    trouble = playing.trouble(lambda cloud: cloud.delete("1"), timeout=5)
    assert (trouble.kind, trouble.done_perhaps) == (Kind.PASSING, True)
    assert trouble.sentence == f"cloud sepia: it did not answer: Request to {playing.api.url}{path} timed out"


def test_a_slow_nova_makes_a_server_once(playing: Playing) -> None:
    """An answer to the call for a server is still taken when a call that was made before it has been given up."""
    playing.api.on("DELETE", f"{SERVERS}/1", Answer(how="hang"))
    playing.api.on("POST", SERVERS, Answer(202, {"server": {"id": "2"}}, how="late"))

    async def use(cloud: Cloud) -> str:
        from twisted.internet.task import deferLater

        making = ensureDeferred(cloud.create(WANTED))
        while not playing.api.asked("POST", SERVERS):
            await deferLater(module._reactor(), 0.01)
        with pytest.raises(Trouble):
            await cloud.delete("1")
        playing.api.let_go.set()
        return await making

    assert playing.run(use, timeout=5, networks=(NETWORK,)) == "2"


ENDING = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from workers.cloud import Cloud
from workers.openstack_settings import CloudSettings

settings = CloudSettings(cloud="sepia", images={}, timeout=300)
cloud = Cloud(settings, Path(sys.argv[1]), "tag", reactor)
for _ in range(12):
    ensureDeferred(cloud.servers()).addErrback(lambda _: None)

def look():
    if sys.stdin.readline() == "end\\n":
        reactor.callFromThread(cloud.close)
        reactor.callFromThread(reactor.stop)

reactor.callInThread(look)
reactor.run()
print("ended", flush=True)
"""


def test_the_process_ends_while_calls_hang(playing: Playing) -> None:
    """Neither calls that hang nor those that wait behind them keep the master's process from its end."""
    playing.api.on("GET", f"{SERVERS}/detail", Answer(how="hang"))
    command = [sys.executable, "-c", ENDING, str(playing.api.clouds_yaml(playing._directory))]
    ending = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        while len(playing.api.asked("GET", f"{SERVERS}/detail")) < THREADS:
            assert ending.poll() is None
            time.sleep(0.01)
        said, _ = ending.communicate("end\n", timeout=60 * SLOW)
        assert said == "ended\n"
        assert ending.returncode == 0
    finally:
        ending.kill()


# -- mistakes and odd answers


@pytest.mark.parametrize("body", [{}, [], {"servers": None}, None])
def test_an_odd_answer_passes(playing: Playing, body: Any, mistakes: list[str]) -> None:
    """What the SDK cannot make sense of is trouble that passes, and is logged with all there is to know."""
    playing.api.on("GET", f"{SERVERS}/detail", Answer(200, body))
    trouble = playing.trouble(lambda cloud: cloud.servers())
    assert (trouble.kind, trouble.done_perhaps) == (Kind.PASSING, True)
    mistakes.clear()


def test_a_password_that_is_missing_ends_a_request(playing: Playing, tmp_path: Path) -> None:
    """keystoneauth raises a bare Exception for it, which must not be tried again."""
    playing.api.clouds_yaml = lambda _: OpenStackApi.clouds_yaml(  # type: ignore[method-assign,misc]
        playing.api, tmp_path, auth={"password": None}
    )
    trouble = playing.trouble(lambda cloud: cloud.servers())
    assert trouble.kind is Kind.PERMANENT
    assert "clouds.yaml" in trouble.sentence
    assert "password is a required attribute" in trouble.sentence


# -- the fakes are as the real ones


@pytest.mark.parametrize(
    ("fake", "real"),
    [(FakeCloud, Cloud), (FakeBoot, provider.Boot), (_Ahead, provider.Boot)],
    ids=["cloud", "boot", "boot ahead"],
)
def test_a_fake_has_the_methods_of_what_it_stands_for(fake: type, real: type) -> None:
    """Every public method of the real one is there, with the same arguments, and is a coroutine where that is one."""
    names = [name for name, one in vars(real).items() if not name.startswith("_") and callable(one)]
    assert names
    for name in names:
        its, ours = getattr(real, name), getattr(fake, name)
        assert _arguments(ours) == _arguments(its), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(its), name
    made = list(inspect.signature(Cloud).parameters)
    assert list(inspect.signature(FakeCloud).parameters)[: len(made)] == made


def _arguments(method: Any) -> list[tuple[str, Any, Any]]:
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [(one.name.lstrip("_"), one.kind, one.default) for one in parameters]
