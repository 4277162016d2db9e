"""What an operator sets of the `openstack` provider; part of the settings file, under workers.openstack."""

from __future__ import annotations

from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.sizes import Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.targets import Target

_STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")

Pattern = Annotated[str, Field(min_length=1, max_length=80)]
"""A shell pattern of target names."""
MasterId = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,39})?$")]
Hour = Annotated[int, Field(ge=0, le=24)]
Day = Annotated[str, Field(pattern="^(mon|tue|wed|thu|fri|sat|sun)$")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MachineSize:
    """A machine's size: disk in GB, ram in MB, cpus."""

    disk: Annotated[int, Field(ge=0)] = 0
    ram: Annotated[int, Field(ge=0)] = 0
    cpus: Annotated[int, Field(ge=0)] = 0

    @property
    def size(self) -> Size:
        """The same as what sizes.py chooses by."""
        return Size(self.disk, self.ram, self.cpus)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class NewestImage:
    """The newest active image that has all these properties; `name` is a shell pattern."""

    name: str = "*"
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BootVolume:
    """A boot disk from cinder instead of the nova_flavor's own: GB, and the volume type."""

    size: Annotated[int, Field(ge=1)]
    type: str = ""


GOOD_MACHINE = MachineSize(disk=100, ram=48000, cpus=16)
MIN_MACHINE = MachineSize(disk=100, ram=32000, cpus=8)
"""Sizes for a build of Ceph, from docs/build-plan.md, for a cloud whose settings name neither a nova_flavor nor a size."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CloudSettings:
    """One cloud, or one region of it."""

    cloud: Annotated[str, Field(min_length=1, max_length=60)]
    region: str = ""
    max_instances: Annotated[int, Field(ge=1, le=1000)] = 10
    images: dict[Pattern, str | NewestImage]
    nova_flavor: str = ""
    good_machine: MachineSize | None = None
    min_machine: MachineSize | None = None
    networks: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    key_name: str = ""
    availability_zone: str = ""
    floating_ip: str = ""
    volume: BootVolume | None = None
    config_drive: bool = True
    scheduler_hints: dict[str, str | list[str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    timeout: Annotated[float, Field(ge=1, le=300)] = 20

    def __post_init__(self) -> None:
        if not self.nova_flavor and self.good_machine is None and self.min_machine is None:
            object.__setattr__(self, "good_machine", GOOD_MACHINE)
            object.__setattr__(self, "min_machine", MIN_MACHINE)

    @property
    def title(self) -> str:
        """The name that people are told."""
        return f"{self.cloud}/{self.region}" if self.region else self.cloud

    def image(self, target: Target) -> str | NewestImage | None:
        """Give what the first pattern that matches a target names; None where this cloud does not build it."""
        return first_match(self.images, target)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Prewarm:
    """Machines kept ready: how many, for which target, how old at most, and when."""

    target: str
    count: Annotated[int, Field(ge=1, le=100)] = 1
    max_age: Annotated[float, Field(gt=0, le=48)] = 4
    """Hours."""
    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri")
    hours: tuple[Hour, Hour] = (7, 19)
    """From this hour on and before that one, UTC."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PreparedImages:
    """Images with the build dependencies in them, made every night."""

    targets: tuple[Pattern, ...] = ()
    branch: str = "main"
    hour: Annotated[int, Field(ge=0, le=23)] = 3
    """UTC."""
    keep: Annotated[int, Field(ge=1, le=20)] = 2


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OpenStackSettings:
    """The `openstack` provider: a server of its own for every build."""

    clouds: Annotated[tuple[CloudSettings, ...], Field(min_length=1)]
    clouds_yaml: Path | None = None
    master_id: MasterId = ""
    master_host: str = ""
    max_instances_per_target: Annotated[int, Field(ge=0)] = 0
    max_instances_per_asker: Annotated[int, Field(ge=0)] = 8
    waiting: Annotated[int, Field(ge=1, le=500)] = 20
    api_tries: Annotated[int, Field(ge=1, le=100)] = 8
    """How many calls of clouds may fail for one build, and how often there may be no host for it."""
    lifetime: Annotated[float, Field(gt=0, le=168)] = 16
    """Hours after which a server is ended, whatever it does."""
    wait_for_quota: Annotated[float, Field(gt=0, le=168)] = 12
    """Hours that a build waits for quota at most."""
    prewarm: tuple[Prewarm, ...] = ()
    prepared_images: PreparedImages = field(default_factory=PreparedImages)

    @property
    def slots(self) -> int:
        """How many builds may have a slot: those with an instance, and those that wait for one."""
        return sum(cloud.max_instances for cloud in self.clouds) + self.waiting

    def contradictions(self, targets: tuple[Target, ...]) -> list[str]:
        """Say, a sentence each, which settings don't go together."""
        problems = []
        for number, cloud in enumerate(self.clouds):
            where = f"workers.openstack.clouds.{number}"
            if cloud.nova_flavor and (cloud.good_machine or cloud.min_machine):
                problems.append(f"{where}: nova_flavor, or good_machine and min_machine, not both")
            if cloud.floating_ip and not cloud.networks:
                problems.append(f"{where}: floating_ip needs networks")
        titles = [cloud.title for cloud in self.clouds]
        if len(set(titles)) != len(titles):
            problems.append(f"workers.openstack.clouds: {', '.join(titles)}: name each once")
        problems += [
            f"workers.openstack.clouds: no cloud has an image for the target {target}"
            for target in targets
            if not any(cloud.image(target) for cloud in self.clouds)
        ]
        for pattern in self.prepared_images.targets:
            matched = [target for target in targets if fnmatchcase(target.name, pattern)]
            where = f"workers.openstack.prepared_images.targets: {pattern!r}"
            if not matched:
                problems.append(f"{where} matches no target that is on")
            problems += [
                f"{where} matches {target}, which only clouds with `volume` build"
                for target in matched
                if not any(cloud.image(target) and cloud.volume is None for cloud in self.clouds)
            ]
        known = {target.name for target in targets}
        problems += [
            f"workers.openstack.prewarm: {one.target!r} is not a target that is on"
            for one in self.prewarm
            if one.target not in known
        ]
        problems += [
            f"workers.openstack.prewarm: max_age {one.max_age:g} must be less than lifetime, {self.lifetime:g}"
            for one in self.prewarm
            if one.max_age >= self.lifetime
        ]
        problems += [
            f"workers.openstack.prewarm: hours {one.hours[0]} to {one.hours[1]}: the first must be before the second"
            for one in self.prewarm
            if one.hours[0] >= one.hours[1]
        ]
        return problems


def first_match(patterns: Mapping[str, T], target: Target) -> T | None:
    """Give what the first shell pattern that matches a target's name stands for."""
    for pattern, value in patterns.items():
        if fnmatchcase(target.name, pattern):
            return value
    return None
