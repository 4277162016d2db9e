"""The settings of the `openstack` provider: what is refused, and what each cloud is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from model.targets import Target
from workers.openstack_settings import MachineSize, NewestImage, OpenStackSettings, first_match

DEB = Target.from_name("ceph-deb-bookworm-x86_64-default")
JAMMY = Target.from_name("ceph-deb-jammy-x86_64-default")
RPM = Target.from_name("ceph-rpm-centos9-x86_64-default")

CLOUD: dict[str, Any] = {"cloud": "sepia", "images": {"*": "builder"}, "nova_flavor": "build"}


def settings(*clouds: dict[str, Any], **more: Any) -> OpenStackSettings:
    """Read a section with these clouds, each over the usual one."""
    section = {"clouds": [{**CLOUD, **one} for one in clouds or ({},)], **more}
    return TypeAdapter(OpenStackSettings).validate_python(section)


def test_what_is_usual_has_no_contradictions() -> None:
    """A cloud, its images and a nova_flavor are all that has to be said."""
    found = settings()
    assert found.contradictions((DEB, RPM)) == []
    assert found.clouds[0].max_instances == 10
    assert found.slots == 10 + found.waiting


CONTRADICTIONS = (
    # the clouds, the rest of the section, what is said about it
    (
        [{}, {"cloud": "two", "min_machine": {"cpus": 4}}], {},
        ["workers.openstack.clouds.1: nova_flavor, or good_machine and min_machine, not both"],
    ),
    ([{}, {}], {}, ["workers.openstack.clouds: sepia, sepia: name each once"]),
    (
        [{"images": {"*-deb-*": "builder"}}], {},
        ["workers.openstack.clouds: no cloud has an image for the target ceph-rpm-centos9-x86_64-default"],
    ),
    (
        [{}], {"prewarm": [{"target": "ceph-deb-jammy-x86_64-default"}]},
        ["workers.openstack.prewarm: 'ceph-deb-jammy-x86_64-default' is not a target that is on"],
    ),
    (
        [{}], {"prewarm": [{"target": "ceph-deb-bookworm-x86_64-default", "hours": [19, 7]}]},
        ["workers.openstack.prewarm: hours 19 to 7: the first must be before the second"],
    ),
    (
        [{}], {"prepared_images": {"targets": ["*-noble-*"]}},
        ["workers.openstack.prepared_images.targets: '*-noble-*' matches no target that is on"],
    ),
    (
        [{"volume": {"size": 100}, "images": {"*-deb-*": "builder"}}, {"cloud": "two", "images": {"*-rpm-*": "builder"}}],
        {"prepared_images": {"targets": ["*"]}},
        [
            ("workers.openstack.prepared_images.targets: '*' matches ceph-deb-bookworm-x86_64-default, which only"
            " clouds with `volume` build")
        ],
    ),
    (
        [{"floating_ip": "outside"}], {},
        ["workers.openstack.clouds.0: floating_ip needs networks"],
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("clouds", "more", "said"), CONTRADICTIONS, ids=[row[2][0][18:70] for row in CONTRADICTIONS]
)
def test_settings_that_do_not_go_together_are_said(
    clouds: list[dict[str, Any]], more: dict[str, Any], said: list[str]
) -> None:
    """Each contradiction is one sentence that names its place in the file."""
    assert settings(*clouds, **more).contradictions((DEB, RPM)) == said


def test_a_build_of_ceph_has_a_size_by_default() -> None:
    """Without a nova_flavor and a size, the sizes are those of docs/build-plan.md; what is set stays alone."""
    [cloud] = settings({"nova_flavor": ""}).clouds
    assert (cloud.good_machine, cloud.min_machine) == (
        MachineSize(disk=100, ram=48000, cpus=16),
        MachineSize(disk=100, ram=32000, cpus=8),
    )
    [cloud] = settings({"nova_flavor": "build"}).clouds
    assert (cloud.good_machine, cloud.min_machine) == (None, None)
    [cloud] = settings({"nova_flavor": "", "min_machine": {"cpus": 2}}).clouds
    assert (cloud.good_machine, cloud.min_machine) == (None, MachineSize(cpus=2))


def test_several_contradictions_are_said_at_once() -> None:
    """Nobody has to mend one to hear of the next."""
    found = settings({"floating_ip": "outside"}, prewarm=[{"target": "x", "hours": [5, 5]}])
    assert len(found.contradictions((DEB,))) == 3


REFUSED = (
    ([{"nova_flavour": "x"}], {}, "nova_flavour"),
    ([{"cloud": ""}], {}, "cloud"),
    ([{"max_instances": 0}], {}, "max_instances"),
    ([{"timeout": 0}], {}, "timeout"),
    ([{"volume": {"size": 0}}], {}, "volume"),
    ([{}], {"master_id": "Has Capitals"}, "master_id"),
    ([{}], {"master_id": "a b"}, "master_id"),
    ([{}], {"prewarm": [{"target": "x", "days": ["monday"]}]}, "days"),
    ([{}], {"prewarm": [{"target": "x", "hours": [0, 25]}]}, "hours"),
    ([{}], {"api_tries": 0}, "api_tries"),
)


@pytest.mark.parametrize(("clouds", "more", "where"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_makes_no_sense_is_refused(clouds: list[Any], more: dict[str, Any], where: str) -> None:
    """A value out of its range, and a key that is not known, are refused, and the place is named."""
    with pytest.raises(ValidationError) as caught:
        settings(*clouds, **more)
    assert where in str(caught.value.errors()[0]["loc"])


def test_there_is_no_provider_without_a_cloud() -> None:
    """An empty list of clouds is refused."""
    with pytest.raises(ValidationError, match="at least 1"):
        TypeAdapter(OpenStackSettings).validate_python({"clouds": []})


def test_the_first_pattern_that_matches_counts() -> None:
    """Images are found by shell patterns of target names, in the order of the file; none is none."""
    cloud = settings(
        {"images": {"*-jammy-*": "a", "*-deb-*": {"name": "b*", "properties": {"v": "1"}}}}
    ).clouds[0]
    assert cloud.image(JAMMY) == "a"
    assert cloud.image(DEB) == NewestImage(name="b*", properties={"v": "1"})
    assert cloud.image(RPM) is None
    assert first_match({}, DEB) is None


def test_a_region_is_part_of_the_name() -> None:
    """Two regions of one cloud are two clouds, and are told apart."""
    found = settings({"region": "east"}, {"region": "west"})
    assert [one.title for one in found.clouds] == ["sepia/east", "sepia/west"]
    assert found.contradictions((DEB,)) == []
    assert found.slots == 20 + found.waiting
