"""Nothing leaks, and nobody else loses anything: a master that starts, that is killed, and two in one project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.integration import tiny
from tests.integration.cloud_cases import nothing_left, properties, published, server_of, until_asleep
from tests.integration.cloud_harness import cloud_installation
from tests.integration.harness import DEB

if TYPE_CHECKING:
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


def test_what_has_no_owner_goes_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    """At start-up, and every minute, all that carries this master's mark and has no owner is ended; look-alikes stay."""
    littered = Littered(lab)
    try:
        littered.server("mine", [f"buildpackages-{MINE}"], master=MINE)
        littered.server("mine, with more tags", ["first", f"buildpackages-{MINE}", "z"], master=MINE)
        littered.server("another master's", [f"buildpackages-{MINE}2"], master=f"{MINE}2")
        littered.server("a shorter name's", [f"buildpackages-{MINE[:-1]}"], master=MINE[:-1])
        littered.server("no tag, expired", [], master=MINE, expires="1")
        littered.server("only like it", [f"x-buildpackages-{MINE}", MINE], master=MINE)
        littered.address("mine", f"buildpackages-{MINE} boot 0a1b2c3d")
        littered.address("another master's", f"buildpackages-{MINE}2 boot 0a1b2c3d")
        littered.address("nobody's", "")
        with cloud_installation(tmp_path, lab, openstack={"master_id": MINE}) as here:
            others = {"another master's", "a shorter name's", "no tag, expired", "only like it"}
            addresses = {"another master's", "nobody's"}
            wanted = {"servers": others, "ports": addresses, "ips": addresses}
            here.until(lambda: littered.left() == wanted, "mine are gone, and no others", 60)
            littered.server("stray", [f"buildpackages-{MINE}"], master=MINE)
            littered.server("another stray", [f"buildpackages-{MINE}2"], master=f"{MINE}2")
            running = here.ask(DEB, sha1=here.repository.commit(tiny.sleeping(70)))
            wanted["servers"].add("another stray")
            here.until(lambda: littered.left() == wanted, "the stray is gone within a minute", 75)
            assert len(published(here, running)) == 1, "and what has an owner was let alone"
            log = (here.settings.state / "twistd.log").read_text()
            assert log.count("it has no owner") == 5, "and what was ended is reported"
            nothing_left(here, lab)
        assert littered.left() == wanted
    finally:
        littered.clear()


def test_two_masters_in_one_project(lab: Lab, tmp_path: Path) -> None:
    """A second master that starts and builds in the same project ends nothing of the first, nor the other way round."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with cloud_installation(tmp_path / "first", lab) as first:
        long = first.ask(DEB, sha1=first.repository.commit(tiny.sleeping(25)))
        until_asleep(first, long)
        with cloud_installation(tmp_path / "second", lab) as second:
            assert first.tag != second.tag
            published(second, second.ask(DEB, sha1=second.repository.commit()))
            nothing_left(second, lab)
            [server] = first.servers()
            assert server.id == server_of(first, long)
        assert len(published(first, long)) == 1
        nothing_left(first, lab)


def test_a_master_that_was_killed_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    """Killed with servers that boot, build and are asked for, the next start ends them all, and every request is published."""
    with cloud_installation(tmp_path, lab, clouds=[{"max_instances": 3}]) as here:
        shas = [here.repository.commit(tiny.sleeping(4)) for _ in range(5)]
        building = here.ask(DEB, sha1=shas[0])
        until_asleep(here, building)
        lab.set(boot_seconds=30)
        try:
            answers = [building, *(here.ask(DEB, sha1=sha1) for sha1 in shas[1:])]
            here.until(lambda: len(here.servers()) == 3, "three servers are there")
            old = {one.id for one in here.servers()}
            here.kill()
        finally:
            lab.set(boot_seconds=0)
        assert {one.id for one in here.servers()} == old
        here.start()
        here.until(lambda: not old & {one.id for one in here.servers()}, "the old ones are gone")
        for answer in answers:
            build = published(here, answer)[-1]
            assert properties(here, build)["instance"] not in old
        for sha1 in shas:
            assert (here.packages / DEB / "sha1" / sha1 / "version").exists()
        nothing_left(here, lab)


def test_the_end_of_a_master_is_the_end_of_its_servers(lab: Lab, tmp_path: Path) -> None:
    """Stopped as an operator stops it, with servers that boot and build, a master leaves none."""
    with cloud_installation(tmp_path, lab) as here:
        answers: list[dict[str, Any]] = [here.ask(DEB, sha1=here.repository.commit(tiny.sleeping(60)))]
        until_asleep(here, answers[0])
        lab.set(boot_seconds=60)
        try:
            answers.append(here.ask(DEB, sha1=here.repository.commit()))
            server_of(here, answers[1])
        finally:
            lab.set(boot_seconds=0)
        assert len(here.servers()) == 2
        pid = here.pid
        here.stop()
        assert pid
        assert here.pid == 0
        assert here.servers() == []
