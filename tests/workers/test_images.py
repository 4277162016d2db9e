"""Prepared images, in a real glance: which one a build runs on, and how they are made, switched to and removed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from model.targets import Target
from tests.cloud import until
from tests.fakes.boot import DEB, FakeBoot
from tests.reactor import finish
from workers.cloud import Cloud
from workers.cloud_data import Image
from workers.cloud_errors import Kind, Trouble
from workers.image_plan import clouds_of, is_prepared
from workers.images import ImageError, Images, ImageSource
from workers.openstack_settings import (
    BootVolume,
    CloudSettings,
    MachineSize,
    NewestImage,
    PreparedImages,
)
from workers.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cloud import Tenant

OTHER = Target.from_name("ceph-deb-trixie-x86_64-default")
SHA1 = "73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5"
KEY = f"{DEB}/{SHA1}"
URL = "https://github.com/ceph/ceph.git"
DIGEST = "60f30dcc9cd2f882d61dabc93e8a07ba12e4e9615dec4e106a87cb1b670e9bb1"
BOOKWORM = NewestImage(name="bookworm", properties={"os_version": "12.12"})
SETTING = "newest bookworm os_version=12.12"
NAME = f"buildpackages-{DEB}-20261124-0300-60f30dcc"


@dataclass
class Glance:
    """One test's images in the lab, and what it asks of them as its master would."""

    tenant: Tenant
    monkeypatch: pytest.MonkeyPatch
    targets: tuple[str, ...] = ("*-bookworm-*",)
    digest: str | Exception = DIGEST
    digests: list[tuple[str, str, str]] = field(default_factory=list)
    calls: int = 0
    """Calls of the cloud that the last coroutine made."""

    def put(self, state: str = "current", target: Target = DEB, **more: Any) -> str:
        """Put an image into glance, as a prepared one would be; give its id."""
        properties = {
            "buildpackages_master": self.tenant.tag, "buildpackages_target": target.name,
            "buildpackages_state": state, "buildpackages_digest": DIGEST,
            "buildpackages_setting": SETTING, "buildpackages_disk": "5", "buildpackages_request": "1",
            "os_version": "12.12",
        }  # fmt: skip
        properties |= {name: str(value) for name, value in more.items() if name != "name"}
        image = self.tenant.connection.image.create_image(
            more.get("name", NAME), data=b"\0" * 1024, disk_format="raw", container_format="bare",
            validate_checksum=False, allow_duplicates=True, visibility="private", **{name: value for name, value in properties.items() if value},
        )  # fmt: skip
        return str(image.id)

    def there(self) -> dict[str, str]:
        """Give the state of each private image of the project, by id."""
        return {
            str(one.id): str(one.properties.get("buildpackages_state", ""))
            for one in self.tenant.connection.image.images(visibility="private")
        }

    def asking(self, use: Callable[[Images, Any], Any], **settings: Any) -> Any:
        """Run a coroutine function with the images of a master and its fleet; give what it gives."""

        async def on(reactor: Any) -> Any:
            self.monkeypatch.setattr("workers.cloud._reactor", lambda: reactor)
            images, fleet = self._master(reactor, **settings)
            try:
                return await use(images, fleet)
            finally:
                self.calls = fleet.cloud.calls
                fleet.cloud.close()

        return finish(on)

    def choose(self, wanted: str | NewestImage = BOOKWORM, **asked: str) -> tuple[Image, str]:
        """Choose an image for a boot of a build, with properties of it."""
        boot = FakeBoot(**{"package_key": KEY, "git_url": URL, **asked})
        chosen: tuple[Image, str] = self.asking(lambda images, fleet: images.choose(fleet, boot, wanted))
        self.noted = boot.noted
        return chosen

    def _master(self, clock: Any, **more: Any) -> tuple[Images, Any]:
        settings = CloudSettings(
            cloud="packages", images={"*": BOOKWORM},
            **{"min_machine": MachineSize(ram=512), "good_machine": MachineSize(ram=512), **more},
        )  # fmt: skip
        cloud = Cloud(settings, self.tenant.lab.clouds_yaml, self.tenant.tag, clock)
        fleet = SimpleNamespace(cloud=cloud, instances={})
        provider = SimpleNamespace(
            all_fleets=[fleet], settings=SimpleNamespace(prepared_images=PreparedImages(targets=self.targets))
        )
        return Images(provider, self._digest, clock), fleet  # type: ignore[arg-type]

    async def _digest(self, target: Target, git_url: str, sha1: str) -> str:
        self.digests.append((str(target), git_url, sha1))
        if isinstance(self.digest, Exception):
            raise self.digest
        return self.digest


@pytest.fixture
def glance(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Glance]:
    """Give a test a master id in the lab's glance; the images that it leaves are removed."""
    before = {one.id for one in tenant.connection.image.images()}
    yield Glance(tenant, monkeypatch)
    for image in tenant.connection.image.images():
        if image.id not in before:
            tenant.connection.image.delete_image(image.id)


@pytest.fixture
def base(glance: Glance) -> str:
    """The id of the base image."""
    images = glance.tenant.connection.image.images(name="bookworm")
    [found] = [one.id for one in images if one.properties["image_date"] == "2026-11-03"]
    return str(found)


# -- which image a build runs on


def test_a_build_runs_on_the_image_for_its_dependencies(glance: Glance) -> None:
    """The current image of the target whose digest is the commit's is taken, and the sentence says since when."""
    image_id = glance.put()
    image, why = glance.choose()
    assert image.id == image_id
    assert why == f"image {NAME} ({image_id}): prepared {image.created_at[:10]} for these dependencies"
    assert glance.digests == [(str(DEB), URL, SHA1)]


def test_a_build_with_other_dependencies_runs_on_the_base(glance: Glance, base: str) -> None:
    """A digest that differs means the base image, and the sentence names the prepared one."""
    glance.put()
    glance.digest = "0" * 64
    image, why = glance.choose()
    assert image.id == base
    assert why == f"image bookworm ({base}): the prepared image {NAME} is for other dependencies"


def test_a_digest_that_cannot_be_had_means_the_base(glance: Glance, base: str) -> None:
    """Whatever is wrong with asking for the digest, the build goes on, and its log says what."""
    glance.put()
    glance.digest = ValueError("the dependency lists of 73e2fc59 cannot be looked at: not within 20 s")
    image, why = glance.choose()
    assert image.id == base
    assert why == f"image bookworm ({base}): not the prepared image {NAME}: {glance.digest}"


def test_without_prepared_images_nothing_is_asked(glance: Glance, base: str) -> None:
    """A target whose images are not prepared costs the one call that finds its base image."""
    glance.put()
    glance.targets = ("*-trixie-*",)
    image, why = glance.choose()
    assert (image.id, why) == (base, f"image bookworm ({base})")
    assert (glance.digests, glance.calls) == ([], 1)


def test_without_an_image_yet_no_digest_is_asked_for(glance: Glance, base: str) -> None:
    """Where no image is current, nobody's git server is asked, and the list is kept for who comes next."""

    async def twice(images: Images, fleet: Any) -> list[tuple[Image, str]]:
        boots = [FakeBoot(package_key=KEY, git_url=URL) for _ in range(2)]
        return [await images.choose(fleet, boot, BOOKWORM) for boot in boots]

    found = glance.asking(twice)
    assert {(image.id, why) for image, why in found} == {
        (base, f"image bookworm ({base}): there is no prepared image yet")
    }
    assert (glance.digests, glance.calls) == ([], 2)


@pytest.mark.parametrize("state", ["making", "testing", "old"])
def test_only_a_current_image_is_used(glance: Glance, base: str, state: str) -> None:
    """An image that is not tested yet, or not used any more, is not chosen."""
    glance.put(state)
    assert glance.choose()[0].id == base


def test_images_of_others_are_not_used(glance: Glance, base: str) -> None:
    """An image of another target, of another master, or of nobody is not chosen, whatever its name."""
    glance.put(target=OTHER)
    glance.put(buildpackages_master="buildpackages-other")
    glance.put(buildpackages_master="")
    assert glance.choose()[0].id == base


def test_the_newest_of_the_current_ones_counts(glance: Glance) -> None:
    """Two current ones may be there for a moment, as when a master is killed while it switches."""
    glance.put()
    until(lambda: True, "a second has passed")
    newer = glance.put(name=f"{NAME}-newer")
    older, newest = sorted(
        glance.tenant.connection.image.images(visibility="private"), key=lambda one: one.created_at
    )
    if older.created_at == newest.created_at:
        newer = max(older.id, newest.id)
    assert glance.choose()[0].id == newer


def test_another_setting_means_another_base(glance: Glance, base: str) -> None:
    """An image that was prepared from what the settings do not name any more is not used."""
    glance.put(buildpackages_setting="bookworm")
    image, why = glance.choose()
    assert image.id == base
    assert why.endswith(f"the prepared image {NAME} is of another base than the settings name now")


def test_a_disk_that_is_too_small_means_the_base(glance: Glance, base: str) -> None:
    """A build whose machine has a smaller disk than the image was made on runs on the base image."""
    glance.put(buildpackages_disk="80")
    image, why = glance.choose()
    assert image.id == base
    assert why.endswith(f"the prepared image {NAME} needs a disk of 80 GB")


def test_an_image_that_has_vanished_does_no_harm(glance: Glance, base: str) -> None:
    """An image that somebody deletes after it was listed is noticed before a server is asked for."""
    image_id = glance.put()

    async def vanish(images: Images, fleet: Any) -> list[tuple[Image, str]]:
        first = await images.choose(fleet, FakeBoot(package_key=KEY, git_url=URL), BOOKWORM)
        glance.tenant.connection.image.delete_image(image_id)
        return [first] + [
            await images.choose(fleet, FakeBoot(package_key=KEY, git_url=URL), BOOKWORM) for _ in range(2)
        ]

    (first, _), (second, why), (third, later) = glance.asking(vanish)
    assert (first.id, second.id, third.id) == (image_id, base, base)
    assert why.endswith(f"the prepared image {NAME} is gone")
    assert later.endswith("there is no prepared image yet")


def test_the_base_is_never_a_prepared_image(glance: Glance, base: str) -> None:
    """A prepared image has its base's properties and is newer, and is not what `newest` finds all the same."""
    glance.put("old")
    glance.put("current", buildpackages_master="buildpackages-other")
    image, _ = glance.choose(NewestImage(name="*", properties={"os_version": "12.12"}))
    assert image.id == base


def test_an_image_is_prepared_from_the_base(glance: Glance, base: str) -> None:
    """The build that prepares an image runs on the base, whatever is there, and keeps which one that was."""
    glance.put()
    image, why = glance.choose(only_image="base")
    assert (image.id, why) == (base, f"image bookworm ({base}): the base, to prepare an image from")
    assert glance.noted == {"base_image": base}
    assert glance.digests == []


def test_an_image_is_tested_whatever_its_state(glance: Glance) -> None:
    """The build that tests an image runs on that image."""
    glance.put()
    image_id = glance.put("testing", name=f"{NAME}-new")
    image, why = glance.choose(only_image=image_id)
    assert image.id == image_id
    assert why == f"image {NAME}-new ({image_id}): a prepared one, to be tested"


def test_an_image_to_be_tested_that_is_gone_ends_the_build(glance: Glance) -> None:
    """There is no use in trying again, and the sentence speaks of the image and not of the settings only."""
    with pytest.raises(Trouble) as caught:
        glance.choose(only_image="01234567-89ab-cdef-0123-456789abcdef")
    assert caught.value.kind is Kind.PERMANENT
    assert str(caught.value).startswith("the prepared image to be tested is not to be had: ")


def test_glance_in_trouble_does_not_end_a_build(glance: Glance, base: str) -> None:
    """A listing of prepared images that fails costs the build nothing but those."""
    glance.put()

    async def fail(_: Snapshots) -> list[Image]:
        raise Trouble(Kind.PASSING, "it is in trouble (503: no)")

    glance.monkeypatch.setattr(Snapshots, "listed", fail)
    image, why = glance.choose()
    assert image.id == base
    assert why.endswith("prepared images cannot be looked at: it is in trouble (503: no)")


# -- how an image is made


def image_source(request_id: int = 7) -> ImageSource:
    """What an image is made from."""
    return ImageSource(DEB, SHA1, DIGEST, "base-1", request_id)


def test_an_image_of_a_server_says_what_it_is(glance: Glance) -> None:
    """The image is named by target, time and digest, carries what it is of, and can be booted from at the end."""
    server = glance.tenant.boot(image="tiny")

    async def make(images: Images, fleet: Any) -> tuple[str, str]:
        fleet.instances["b"] = SimpleNamespace(server_id=server.id, flavor=SimpleNamespace(disk=5))
        made: tuple[str, str] = await images.make("packages", server.id, image_source())
        return made

    image_id, name = glance.asking(make)
    image = glance.tenant.connection.image.get_image(image_id)
    assert image.name == name
    assert name.startswith(f"buildpackages-{DEB}-2")
    assert name.endswith("-60f30dcc")
    assert image.status == "active"
    ours = {key: value for key, value in image.properties.items() if key.startswith("buildpackages")}
    assert ours == {
        "buildpackages_master": glance.tenant.tag, "buildpackages_target": DEB.name,
        "buildpackages_state": "making", "buildpackages_digest": DIGEST, "buildpackages_base": "base-1",
        "buildpackages_setting": SETTING, "buildpackages_disk": "5", "buildpackages_sha1": SHA1,
        "buildpackages_request": "7",
    }  # fmt: skip


def test_a_server_that_is_gone_makes_no_image(glance: Glance) -> None:
    """A server that nova does not know, or we do not, is a sentence, and leaves no image."""
    unknown = "01234567-89ab-cdef-0123-456789abcdef"

    async def make(images: Images, fleet: Any) -> None:
        with pytest.raises(ImageError, match=f"instance {unknown} in cloud packages is gone"):
            await images.make("packages", unknown, image_source())
        fleet.instances["b"] = SimpleNamespace(server_id=unknown, flavor=SimpleNamespace(disk=5))
        with pytest.raises(ImageError, match="could not be found"):
            await images.make("packages", unknown, image_source())
        with pytest.raises(ImageError, match="cloud sepia is not in the settings any more"):
            await images.make("sepia", unknown, image_source())

    glance.asking(make)
    assert glance.there() == {}


class Taking:
    """Snapshots whose image goes through states that a test names; the last one stays."""

    def __init__(self, *states: str | Exception, take: tuple[Exception, ...] = ()) -> None:
        self.states, self.take_fails = list(states), list(take)
        self.removed: list[str] = []
        self.taken = 0

    async def take(self, *_: Any) -> str:
        if self.take_fails:
            raise self.take_fails.pop(0)
        self.taken += 1
        return "image-1"

    async def status(self, _: str) -> str:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return state

    async def remove(self, image_id: str) -> None:
        self.removed.append(image_id)


def making(monkeypatch: pytest.MonkeyPatch, taking: Taking, seconds: int = 4000) -> Any:
    """Make an image by such snapshots while time passes; give what comes of it, or the Deferred that waits."""
    clock = Clock()
    clock.advance(1795489200)  # 2026-11-24 03:00 UTC
    cloud = SimpleNamespace(title="sepia", settings=CloudSettings(cloud="sepia", images={"*": "bookworm"}))
    instance = SimpleNamespace(server_id="server-1", flavor=SimpleNamespace(disk=5))
    fleet = SimpleNamespace(cloud=cloud, instances={"b": instance})
    monkeypatch.setattr("workers.images.Snapshots", lambda _: taking)
    images = Images(SimpleNamespace(all_fleets=[fleet]), None, clock)  # type: ignore[arg-type]
    results: list[Any] = []
    waiting = ensureDeferred(images.make("sepia", "server-1", image_source()))
    waiting.addBoth(results.append)
    for _ in range(seconds):
        clock.advance(1)
    if not results:
        return waiting
    return getattr(results[0], "value", results[0])


def test_the_name_has_the_time_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and id are given, once the image is active."""
    taking = Taking("queued", "saving", "active")
    assert making(monkeypatch, taking) == ("image-1", NAME)
    assert taking.removed == []


@pytest.mark.parametrize(("state", "said"), [("killed", "killed"), ("deleted", "deleted"), ("", "gone")])
def test_an_image_that_the_cloud_gives_up_is_removed(
    monkeypatch: pytest.MonkeyPatch, state: str, said: str
) -> None:
    """An image that ends otherwise than active is a sentence, and nothing of it stays."""
    taking = Taking("queued", state)
    assert str(making(monkeypatch, taking)) == f"the cloud gave up making {NAME}: it is {said}"
    assert taking.removed == ["image-1"]


def test_an_image_that_is_never_ready_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour the waiting ends."""
    taking = Taking("saving")
    assert making(monkeypatch, taking, seconds=3590).called is False
    assert str(making(monkeypatch, taking)) == f"{NAME} is still saving after 3600 s"
    assert taking.removed == ["image-1"]


def test_a_look_that_fails_is_looked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passing trouble with a look ends nothing; permanent trouble does, and removes the image."""
    away = Trouble(Kind.PASSING, "cloud sepia: it did not answer")
    assert making(monkeypatch, Taking(away, away, "active")) == ("image-1", NAME)
    taking = Taking(Trouble(Kind.PERMANENT, "cloud sepia: the credentials are refused"))
    error = making(monkeypatch, taking)
    assert isinstance(error, ImageError)
    assert str(error) == "cloud sepia: the credentials are refused"
    assert taking.removed == ["image-1"]


def test_a_snapshot_is_asked_for_again_if_it_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that passes is tried again, but one that does not is not, nor a lost answer: there would be two."""
    busy = Trouble(Kind.PASSING, "cloud sepia: in conflict with something else (409)")
    taking = Taking("active", take=(busy,) * 4)
    assert making(monkeypatch, taking) == ("image-1", NAME)
    taking = Taking("active", take=(busy,) * 5)
    assert str(making(monkeypatch, taking)) == str(busy)
    lost = Taking("active", take=(Trouble(Kind.PASSING, "cloud sepia: lost", done_perhaps=True),))
    assert str(making(monkeypatch, lost)) == "cloud sepia: lost"
    full = Taking("active", take=(Trouble(Kind.QUOTA, "cloud sepia: no quota for images"),))
    assert str(making(monkeypatch, full)) == "cloud sepia: no quota for images"
    assert (taking.taken, lost.taken, full.taken) == (0, 0, 0)


def test_who_stops_waiting_leaves_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that is stopped while it waits has its half-made image removed."""
    taking = Taking("saving")
    waiting = making(monkeypatch, taking, seconds=30)
    stopped: list[Any] = []
    waiting.addBoth(stopped.append)
    waiting.cancel()
    assert taking.removed == ["image-1"]


# -- the switch, and what is removed


def test_a_switch_is_to_one_image_and_keeps_the_last_ones(glance: Glance) -> None:
    """The new one is current and the former one old; of the old ones the last two stay, and others' stay as they are."""
    ids = [glance.put("old", name=f"old-{number}") for number in range(3)]
    former = glance.put("current", name="former")
    others = [
        glance.put("old", target=OTHER, name="other-target"),
        glance.put("current", buildpackages_master="buildpackages-other", name="other-master"),
        glance.put("old", buildpackages_master="", name=NAME),
        glance.put("testing", name="tested-now"),
    ]
    before = glance.there()
    new = glance.put("testing", name="new")
    made = {
        one.id: (one.created_at, one.id)
        for one in glance.tenant.connection.image.images(visibility="private")
    }
    removed = glance.asking(lambda images, _: images.switch("packages", new, DEB, 2))
    left = glance.there()
    assert left[new] == "current"
    kept = sorted([*ids, former], key=made.__getitem__)[-2:]
    assert {one: left[one] for one in left if one not in others and one != new} == dict.fromkeys(kept, "old")
    assert len(removed) == 2
    assert {one: left[one] for one in others} == {one: before[one] for one in others}


def test_a_switch_is_seen_at_once(glance: Glance) -> None:
    """The build right after the switch runs on the new image, whatever was known before."""
    first = glance.put("current")
    new = glance.put("testing", name=f"{NAME}-new")

    async def switch(images: Images, fleet: Any) -> list[str]:
        found = []
        for _ in range(2):
            image, _ = await images.choose(fleet, FakeBoot(package_key=KEY, git_url=URL), BOOKWORM)
            found.append(image.id)
            await images.switch("packages", new, DEB, 2)
        return found

    assert glance.asking(switch) == [first, new]


def test_an_image_that_cannot_be_marked_is_not_switched_to(glance: Glance) -> None:
    """An image that is gone is a sentence, and the former one stays in use."""
    former = glance.put("current")

    async def switch(images: Images, _: Any) -> None:
        with pytest.raises(ImageError, match="cannot be marked current"):
            await images.switch("packages", "01234567-89ab-cdef-0123-456789abcdef", DEB, 2)

    glance.asking(switch)
    assert glance.there() == {former: "current"}


def test_the_owner_of_an_image_changes_hands(glance: Glance) -> None:
    """An image that is to be tested belongs to the buildrequest that tests it."""
    image_id = glance.put("making")
    glance.asking(lambda images, _: images.hand_over("packages", image_id, 12))
    properties = glance.tenant.connection.image.get_image(image_id).properties
    assert properties["buildpackages_state"] == "testing"
    assert properties["buildpackages_request"] == "12"


def test_half_made_images_without_an_owner_are_removed(glance: Glance) -> None:
    """What nobody goes on making or testing goes, and nothing else: not what is used, nor anybody else's."""
    gone = [
        glance.put("making", buildpackages_request=3),
        glance.put("testing", buildpackages_request=4),
        glance.put("testing", buildpackages_request="nonsense"),
        glance.put("making", buildpackages_request=5),
    ]
    stay = [
        glance.put("making", buildpackages_request=9),
        glance.put("testing", buildpackages_request=9),
        glance.put("current", buildpackages_request=3),
        glance.put("old", buildpackages_request=3),
        glance.put("making", buildpackages_master="buildpackages-other"),
        glance.put("making", buildpackages_master="", name=NAME),
        glance.put("making", buildpackages_target=""),
    ]

    async def is_open(request_id: int) -> bool:
        return request_id in (5, 9)

    removed = glance.asking(lambda images, _: images.tidy(is_open, 5))
    assert len(removed) == len(gone)
    assert set(glance.there()) == set(stay)


def test_an_image_that_is_not_active_yet_is_found(glance: Glance) -> None:
    """A snapshot that a killed master left in the making is removed, whatever state the cloud has it in."""
    image_id = glance.put("making", buildpackages_request=3)
    queued = glance.tenant.connection.image.create_image(
        f"queued-{secrets.token_hex(3)}", disk_format="raw", container_format="bare", visibility="private",
        **glance.tenant.connection.image.get_image(image_id).properties,
    )  # fmt: skip
    assert glance.tenant.connection.image.get_image(queued.id).status == "queued"

    async def is_open(_: int) -> bool:
        return False

    glance.asking(lambda images, _: images.tidy(is_open))
    assert glance.there() == {}


# -- what the settings say


def test_which_targets_and_clouds() -> None:
    """Images are of the targets that a pattern names, in the clouds that build them on a server's own disk."""
    prepared = PreparedImages(targets=("*-bookworm-*", "ceph-rpm-*"))
    assert [is_prepared(prepared, target) for target in (DEB, OTHER)] == [True, False]
    assert not is_prepared(PreparedImages(), DEB)
    clouds = (
        CloudSettings(cloud="one", images={"*": "x"}),
        CloudSettings(cloud="two", images={"*-trixie-*": "x"}),
        CloudSettings(cloud="three", images={"*": "x"}, volume=BootVolume(size=100)),
        CloudSettings(cloud="four", region="R", images={"*": "x"}),
    )
    assert clouds_of(clouds, DEB) == ["one", "four/R"]
