"""Which nova_flavor a build gets, by its name or by size."""

from __future__ import annotations

import pytest

from workers.sizes import NoSuchFlavor, NovaFlavor, Size, by_name, smallest

TINY = NovaFlavor("1", "tiny", disk=5, ram=512, cpus=1)
DISKLESS = NovaFlavor("2", "diskless", disk=0, ram=65536, cpus=16)
BUILD = NovaFlavor("3", "build", disk=100, ram=49152, cpus=16)
ROOMY = NovaFlavor("4", "roomy", disk=400, ram=49152, cpus=16)
LARGE = NovaFlavor("5", "large", disk=100, ram=98304, cpus=32)
THERE = (LARGE, ROOMY, TINY, DISKLESS, BUILD)

GOOD = Size(disk=100, ram=49152, cpus=16)
LEAST = Size(disk=50, ram=16384, cpus=8)

CHOICES = (
    # the good size, the least one, whether the disk comes from a volume, what is chosen
    (GOOD, None, False, BUILD),
    (GOOD, LEAST, False, BUILD),
    (None, LEAST, False, BUILD),
    (None, Size(), False, TINY),
    (Size(cpus=32), LEAST, False, LARGE),
    (Size(cpus=1), LEAST, False, BUILD),
    (Size(cpus=1), Size(ram=65536), False, DISKLESS),
    (Size(cpus=64), LEAST, False, BUILD),
    (Size(disk=101), None, False, ROOMY),
    (Size(disk=101), None, True, TINY),
    (Size(disk=100, ram=1024), None, True, BUILD),
    (Size(ram=49153), None, False, DISKLESS),
    (Size(disk=1, ram=49153), None, False, LARGE),
    (Size(disk=1000, ram=65536), None, True, DISKLESS),
)


@pytest.mark.parametrize(("good", "least", "disk_elsewhere", "chosen"), CHOICES)
def test_the_smallest_that_is_good_enough(
    good: Size | None, least: Size | None, disk_elsewhere: bool, chosen: NovaFlavor
) -> None:
    """The good size comes first, then the least one; fewest cpus win, then least ram, then least disk."""
    assert smallest(THERE, good, least, disk_elsewhere=disk_elsewhere) is chosen


def test_fewest_cpus_come_before_least_ram() -> None:
    """Cpus are what is scarce: a machine with fewer of them is smaller, however much ram it has."""
    fat, lean = NovaFlavor("8", "fat", 5, 65536, 1), NovaFlavor("7", "lean", 5, 512, 2)
    assert smallest([lean, fat], Size(), None) is fat


def test_two_of_a_size_are_told_apart_by_name() -> None:
    """The choice does not depend on the order in which nova lists them."""
    one, two = NovaFlavor("8", "a", 5, 512, 1), NovaFlavor("7", "b", 5, 512, 1)
    assert smallest([two, one], Size(), None) is smallest([one, two], Size(), None) is one


def test_none_is_large_enough() -> None:
    """The sentence names both settings, both sizes, and what there is."""
    with pytest.raises(NoSuchFlavor) as caught:
        smallest([TINY], GOOD, LEAST)
    assert str(caught.value) == (
        "settings `good_machine` and `min_machine`: no nova_flavor has 16 cpus, 49152 MB of ram, 100 GB of disk;"
        " nor 8 cpus, 16384 MB of ram, 50 GB of disk; there are tiny (1 cpus, 512 MB, 5 GB)"
    )


def test_by_name_or_id() -> None:
    """A nova_flavor is found by its name or its id; else the sentence says what there is."""
    assert by_name(THERE, "build") is by_name(THERE, "3") is BUILD
    with pytest.raises(NoSuchFlavor) as caught:
        by_name([TINY], "nope")
    assert (
        str(caught.value)
        == "setting `nova_flavor`: 'nope' is not there; there are tiny (1 cpus, 512 MB, 5 GB)"
    )
    with pytest.raises(NoSuchFlavor, match="'nope' is not there; there are none$"):
        by_name([], "nope")


def test_a_cloud_of_many_flavors_gets_a_short_sentence() -> None:
    """Only the first dozen are told."""
    many = [NovaFlavor(str(number), f"f{number}", 1, 1, 1) for number in range(40)]
    with pytest.raises(NoSuchFlavor, match=r"f11 \(1 cpus, 1 MB, 1 GB\) and 28 more$"):
        by_name(many, "nope")
