"""The lab, for every test that needs a cloud: one for the whole session, and a master id for each test."""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.cloud import running
from lab.inside.knobs import DEFAULTS
from lab.install import install
from model.targets import Target
from tests import patience
from tests.integration.harness import DEB, ROOTS, RPM
from workers.roots import Root, Roots, host_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.cloud import Lab

TRIXIE = "ceph-deb-trixie-x86_64-default"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Give the session's lab, whose images bookworm, trixie and centos9 have prepared roots."""
    install(print)
    with running(tmp_path_factory.mktemp("lab") / "lab", roots=prepared_roots()) as made:
        yield made


@pytest.fixture
def tenant(lab: Lab) -> Iterator[Tenant]:
    """Give a test its own master id in the session's lab; knobs and quotas are as before afterwards."""
    made = Tenant(lab)
    try:
        yield made
    finally:
        lab.set(**DEFAULTS)
        made.delete_all()
        lab.quota(instances=-1, cores=-1, ram=-1)


def prepared_roots() -> dict[str, Path]:
    """Give the prepared root of each image that has one; they are made if they are not there."""
    roots, found = Roots(ROOTS, {}), {}
    for image, target in (("bookworm", DEB), ("trixie", TRIXIE), ("centos9", RPM)):
        root = Root.of(Target.from_name(target), host_suite())
        list(roots.prepare(root))
        found[image] = roots.path(root)
    return found


@dataclass
class Tenant:
    """One test's view of the cloud: a plain member of the project `packages`, and a master id."""

    lab: Lab
    master_id: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.connection = self.lab.connect("packages")

    @property
    def tag(self) -> str:
        """The tag of the servers of this test's master."""
        return f"buildpackages-{self.master_id}"

    def servers(self) -> list[Any]:
        """Give the servers with this master's tag."""
        return list(self.connection.compute.servers(tags=self.tag))

    def create(self, user_data: str = "", *, image: str = "bookworm", **more: Any) -> Any:
        """Ask for a server with this master's tag; give it as the answer to the POST has it."""
        compute, network = self.connection.compute, self.connection.network
        found = max(self.connection.image.images(name=image), key=lambda one: one.created_at)
        wanted = {
            "name": f"server-{secrets.token_hex(3)}",
            "image_id": found.id,
            "flavor_id": compute.find_flavor(more.pop("flavor", "small"), ignore_missing=False).id,
            "networks": [{"uuid": network.find_network("lab", ignore_missing=False).id}],
            "tags": [self.tag],
            **more,
        }
        if user_data:
            wanted["user_data"] = base64.b64encode(user_data.encode()).decode()
        return compute.create_server(**wanted)

    def boot(self, user_data: str = "", **more: Any) -> Any:
        """Ask for a server, and wait until it is no longer in BUILD."""
        return self.built(self.create(user_data, **more))

    def built(self, server: Any) -> Any:
        """Wait until a server is no longer in BUILD; give it."""
        return until(lambda: (found := self.get(server)).status != "BUILD" and found, f"{server.id} is built")

    def get(self, server: Any) -> Any:
        """Give a server as it is now."""
        return self.connection.compute.get_server(server.id)

    def console(self, server: Any) -> str:
        """Give what a server has printed."""
        found: str = self.connection.compute.get_server_console_output(server.id)["output"]
        return found

    def prints(self, server: Any, text: str, seconds: float = 60) -> str:
        """Wait until a server has printed something; give all that it has printed."""
        printed: str = until(
            lambda: text in (console := self.console(server)) and console,
            lambda: f"{text!r} on the console: {self.console(server)}",
            seconds,
        )
        return printed

    def delete(self, server: Any) -> None:
        """Delete a server, and wait until it is gone."""
        self.connection.compute.delete_server(server.id)
        until(lambda: server.id not in [one.id for one in self.servers()], f"{server.id} is gone")

    def delete_all(self) -> None:
        """Delete what has this master's tag, and wait until it is gone."""
        for server in self.servers():
            self.connection.compute.delete_server(server.id)
        until(
            lambda: not self.servers(),
            lambda: (
                f"all servers are gone: {[(one.id, one.status, one.task_state) for one in self.servers()]}"
            ),
            120,
        )

    def left(self) -> list[str]:
        """Give what is still there with this master's tag: servers, ports and floating addresses."""
        network = self.connection.network
        return [
            *(f"server {one.name} ({one.status}, {one.id})" for one in self.servers()),
            *(f"port {one.id}" for one in network.ports(tags=self.tag)),
            *(f"floating address {one.floating_ip_address}" for one in network.ips(tags=self.tag)),
        ]


def processes(directory: Path) -> dict[int, bytes]:
    """Give the processes of this machine that belong to a directory, and their command lines, whose words end with NUL."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environment = Path("/proc", entry, "environ").read_bytes()
                mounts = Path("/proc", entry, "mountinfo").read_bytes()
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if bytes(directory) in environment or bytes(directory) in mounts:
                found[int(entry)] = command
    return found


def remains(directory: Path) -> list[str]:
    """Give what on this machine still belongs to a directory: itself, processes, and mounts."""
    left = [str(directory)] if directory.exists() else []
    return left + [f"{pid}: {command!r}" for pid, command in processes(directory).items()]


def until(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 60) -> Any:
    """Wait for a condition of the lab, at most so long; the sentence says what did not come about."""
    return patience.until(condition, what, seconds, longest_pause=1.0)
