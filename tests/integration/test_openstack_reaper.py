"""Nothing leaks, and nobody else loses anything: a master that starts, that is killed, and two in one project."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.cloud import processes
from tests.integration.cloud_cases import Gate, nothing_left, properties, published, server_of, until_asleep
from tests.integration.cloud_harness import CloudInstallation, cloud_installation
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.cloud import Lab

MINE = "test-reaper"


class Littered:
    """A project with servers, ports and floating ips of many, by name."""

    def __init__(self, lab: Lab) -> None:
        self.cloud = lab.connect("other")
        self._image = next(self.cloud.image.images(name="tiny")).id
        self._flavor = self.cloud.compute.find_flavor("small").id
        self._network = self.cloud.network.find_network("lab").id
        self._outside = self.cloud.network.find_network("outside").id
        self.servers: dict[str, str] = {}
        self.ports: dict[str, str] = {}
        self.ips: dict[str, str] = {}

    def server(self, what: str, tags: list[str], **metadata: str) -> None:
        """Make a server."""
        made = self.cloud.compute.create_server(
            name=f"{DEB}-0a1b2c3d", image_id=self._image, flavor_id=self._flavor, tags=tags,
            networks=[{"uuid": self._network}], metadata={"boot": "0a1b2c3d", **metadata},
        )  # fmt: skip
        self.servers[what] = made.id

    def address(self, what: str, description: str) -> None:
        """Make a port, and a floating ip for it."""
        port = self.cloud.network.create_port(network_id=self._network, description=description)
        self.ports[what] = port.id
        made = self.cloud.network.create_ip(
            floating_network_id=self._outside, port_id=port.id, description=description
        )
        self.ips[what] = made.id

    def left(self) -> dict[str, set[str]]:
        """Give what is still there, by kind."""
        network = self.cloud.network
        there = {
            "servers": {one.id for one in self.cloud.compute.servers(details=False)},
            "ports": {one.id for one in network.ports()},
            "ips": {one.id for one in network.ips()},
        }
        return {
            kind: {what for what, its in getattr(self, kind).items() if its in ids}
            for kind, ids in there.items()
        }

    def clear(self) -> None:
        """Remove it all."""
        for one in self.ips.values():
            self.cloud.network.delete_ip(one)
        for one in self.ports.values():
            self.cloud.network.delete_port(one)
        for one in self.servers.values():
            self.cloud.compute.delete_server(one)


@pytest.fixture(scope="module")
def littered(lab: Lab) -> Iterator[Littered]:
    """A project in which much lies about before our master starts."""
    made = Littered(lab)
    try:
        made.server("mine", [f"buildpackages-{MINE}"], master=MINE)
        made.server("mine, with more tags", ["first", f"buildpackages-{MINE}", "z"], master=MINE)
        made.server("another master's", [f"buildpackages-{MINE}2"], master=f"{MINE}2")
        made.server("a shorter name's", [f"buildpackages-{MINE[:-1]}"], master=MINE[:-1])
        made.server("no tag, expired", [], master=MINE, expires="1")
        made.server("only like it", [f"x-buildpackages-{MINE}", MINE], master=MINE)
        made.address("mine", f"buildpackages-{MINE} boot 0a1b2c3d")
        made.address("another master's", f"buildpackages-{MINE}2 boot 0a1b2c3d")
        made.address("nobody's", "")
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="module")
def first(
    lab: Lab, littered: Littered, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CloudInstallation]:
    """A master of that project, whose servers and ports are all that has its mark."""
    with cloud_installation(
        tmp_path_factory.mktemp("first"), lab, openstack={"master_id": MINE}, clouds=[{"max_instances": 2}]
    ) as made:
        made.until(lambda: "mine" not in littered.left()["servers"], "its reaper has begun")
        littered.server("stray", [f"buildpackages-{MINE}"], master=MINE)
        littered.server("another stray", [f"buildpackages-{MINE}2"], master=f"{MINE}2")
        yield made


OTHERS = {"another master's", "a shorter name's", "no tag, expired", "only like it", "another stray"}
ADDRESSES = {"another master's", "nobody's"}


def test_at_start_up_what_has_no_owner_goes(first: CloudInstallation, littered: Littered) -> None:
    """All that an earlier master with this mark has left is ended: servers, ports and floating ips; look-alikes stay."""

    def as_wanted() -> bool:
        left = littered.left()
        left["servers"].discard("stray")
        return left == {"servers": OTHERS, "ports": ADDRESSES, "ips": ADDRESSES}

    first.until(as_wanted, "mine are gone, and no others", 60)


def test_two_masters_in_one_project(lab: Lab, first: CloudInstallation, tmp_path: Path) -> None:
    """A second master that starts, builds and is killed in the same project ends nothing of the first's.

    The first ends nothing of the second's either. After the kill the second ends all that it had, and
    every request is published: what boots, what builds and what waits.
    """
    with Gate() as gate:
        long = first.ask(DEB, sha1=first.repository.commit(gate.knobs))
        until_asleep(first, long)
        with cloud_installation(tmp_path, lab, clouds=[{"max_instances": 2}]) as second:
            assert first.tag != second.tag
            sha1s = [second.repository.commit(gate.knobs) for _ in range(3)]
            answers = [second.ask(DEB, sha1=sha1s[0])]
            until_asleep(second, answers[0])
            lab.set(boot_seconds=30)
            try:
                answers += [second.ask(DEB, sha1=sha1) for sha1 in sha1s[1:]]
                second.until(lambda: len(second.servers()) == 2, "one boots, one builds, and one waits")
            finally:
                lab.set(boot_seconds=0)
            old = {one.id for one in second.servers()}
            second.kill()
            assert {one.id for one in second.servers()} == old
            second.start()
            second.until(lambda: not old & {one.id for one in second.servers()}, "the old ones are gone")
            gate.open()
            for sha1, answer in zip(sha1s, answers, strict=True):
                build = published(second, answer)[-1]
                assert properties(second, build)["instance"] not in old
                assert (second.packages / DEB / "sha1" / sha1 / "version").exists()
            nothing_left(second, lab)
        assert len(published(first, long)) == 1
    nothing_left(first, lab, 75)


def test_every_minute_what_has_no_owner_goes(first: CloudInstallation, littered: Littered) -> None:
    """What turns up later is ended at the next sweep, and all that was ended is reported; look-alikes stay."""
    first.until(lambda: littered.left()["servers"] == OTHERS, "the stray is gone", 75)
    log = (first.settings.state / "twistd.log").read_text()
    assert log.count("it has no owner") == 5


def test_the_end_of_a_master_is_the_end_of_its_servers(
    lab: Lab, first: CloudInstallation, littered: Littered
) -> None:
    """Stopped as an operator stops it, with a server that boots and one that builds but hangs, a master leaves none."""
    with Gate() as gate:
        building = first.ask(DEB, sha1=first.repository.commit(gate.knobs))
        until_asleep(first, building)
        lab.set(boot_seconds=60)
        try:
            server_of(first, first.ask(DEB, sha1=first.repository.commit()))
        finally:
            lab.set(boot_seconds=0)
        assert len([one for one in first.servers() if one.name.startswith(DEB)]) >= 2
        for pid in processes(lab.directory / "servers" / server_of(first, building)):
            # What waits for the gate begins and ends all the time.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        first.stop()
        assert first.pid == 0
        littered.servers.pop("stray", None)
        first.gone(30)
    assert littered.left()["servers"] == OTHERS
