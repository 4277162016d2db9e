"""Machine sizes: which nova_flavor a build gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Size:
    """What a machine must have at least: disk in GB, ram in MB, and cpus."""

    disk: int = 0
    ram: int = 0
    cpus: int = 0

    def __str__(self) -> str:
        """Give it as people read it."""
        return f"{self.cpus} cpus, {self.ram} MB of ram, {self.disk} GB of disk"


@dataclass(frozen=True)
class NovaFlavor:
    """A nova_flavor as nova lists it: disk in GB, ram in MB."""

    id: str
    name: str
    disk: int
    ram: int
    cpus: int

    def satisfies(self, size: Size, *, disk_elsewhere: bool) -> bool:
        """Whether a machine of it is as large as wanted; a disk may come from a volume."""
        enough_disk = disk_elsewhere or self.disk >= size.disk
        return enough_disk and self.ram >= size.ram and self.cpus >= size.cpus


class NoSuchFlavor(Exception):
    """No nova_flavor is as the settings want it; the sentence names the setting and what there is."""


def by_name(flavors: Iterable[NovaFlavor], wanted: str) -> NovaFlavor:
    """Give the nova_flavor of a name or id."""
    known = list(flavors)
    for one in known:
        if wanted in (one.name, one.id):
            return one
    raise NoSuchFlavor(f"setting `nova_flavor`: {wanted!r} is not there; there are {_names(known)}")


def smallest(
    flavors: Iterable[NovaFlavor], good: Size | None, least: Size | None, *, disk_elsewhere: bool = False
) -> NovaFlavor:
    """Give the smallest that satisfies the good size, else the smallest; none is below the least size.

    Smallest is fewest cpus, then least ram, then least disk, then the first name.
    """
    known = sorted(flavors, key=lambda one: (one.cpus, one.ram, one.disk, one.name))
    sizes = [size for size in (good, least) if size is not None]
    for size in sizes:
        for one in known:
            if all(one.satisfies(wanted, disk_elsewhere=disk_elsewhere) for wanted in {size, least or size}):
                return one
    wanted = "; nor ".join(str(size) for size in sizes)
    raise NoSuchFlavor(
        f"settings `good_machine` and `min_machine`: no nova_flavor has {wanted}; there are {_names(known)}"
    )


def _names(flavors: Iterable[NovaFlavor]) -> str:
    told = [f"{one.name} ({one.cpus} cpus, {one.ram} MB, {one.disk} GB)" for one in flavors]
    more = f" and {len(told) - 12} more" if len(told) > 12 else ""
    return (", ".join(told[:12]) or "none") + more
