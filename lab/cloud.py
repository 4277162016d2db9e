"""A running lab, for tests and benchmarks: `with running(directory, roots={...}) as lab:`."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import bringup
from lab.connection import connect
from lab.inside.knobs import Knobs
from lab.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Lab:
    """One lab that is up."""

    def __init__(self, directory: Path, *, attached: bool = False) -> None:
        """Take the directory of a running lab."""
        self._layout, self._state = bringup.opened(directory)
        self.directory = self._layout.directory
        self._processes = Processes(self.directory, attached=attached, yields=self._state["yields"])
        self.knobs = Knobs(self._layout.knobs)

    @property
    def clouds_yaml(self) -> Path:
        """Its clouds: lab, the administrator; packages, a plain member, by application credential.

        packages-password is the same member by password, and other is another one in the same project.
        """
        return self._layout.clouds_yaml

    @property
    def endpoints(self) -> dict[str, str]:
        """The URL of each service."""
        return self._layout.endpoints

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service."""
        return self._layout.ports

    @property
    def credential(self) -> dict[str, str]:
        """The application credential of `packages`: id and secret."""
        found: dict[str, str] = self._state["credential"]
        return found

    @property
    def pids(self) -> dict[str, int]:
        """The process of each service."""
        return self._processes.pids()

    def connect(self, cloud: str = "packages") -> Any:
        """Give a new connection as one of the clouds' users."""
        return connect(self.clouds_yaml, cloud)

    def admin(self) -> Any:
        """Give a new connection as the administrator."""
        return self.connect("lab")

    def set(self, **knobs: Any) -> None:
        """Turn knobs: lab.inside.knobs says which there are."""
        self.knobs.set(**knobs)

    def quota(self, **limits: int) -> None:
        """Set the compute quota of the project `packages`, such as instances=3; -1 is no limit."""
        admin = self.admin()
        admin.compute.update_quota_set(
            admin.identity.find_project("packages", ignore_missing=False), **limits
        )

    def use_roots(self, roots: Mapping[str, Path]) -> None:
        """Have the servers of an image run in a prepared root, as root; an unknown name becomes an image."""
        admin = self.admin()
        for name, root in roots.items():
            found = list(admin.image.images(name=name))
            if not found:
                found = [
                    admin.image.create_image(
                        name, data=b"\0" * 4096, disk_format="raw", container_format="bare",
                        visibility="public", validate_checksum=False,
                    )
                ]  # fmt: skip
            for image in found:
                _set_property(admin, image.id, "lab_root", str(root.absolute()))

    def kill(self, service: str) -> None:
        """Kill a service: keystone, glance, placement, neutron, nova (with every server) or mariadb."""
        self._processes.kill(service)

    def start(self, service: str) -> None:
        """Start a killed service again, on its port."""
        bringup.start_again(self._processes, self._layout, service, self._state["more"])

    def server_directories(self) -> list[Path]:
        """Give the directory of each server that has not been destroyed."""
        return sorted(self._layout.servers.iterdir())


def _set_property(admin: Any, image_id: str, name: str, value: str) -> None:
    """Set a property of an image: the SDK's own way of a change asks to replace what is not there."""
    answer = admin.image.patch(
        f"/images/{image_id}",
        headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        data=json.dumps([{"op": "add", "path": f"/{name}", "value": value}]),
    )
    answer.raise_for_status()


@contextmanager
def running(
    directory: Path,
    driver: str = "process",
    *,
    roots: Mapping[str, Path] | None = None,
    more: Mapping[str, str] | None = None,
    yields: bool = False,
) -> Iterator[Lab]:
    """Give a fresh lab, and leave nothing of it; it ends also if we are killed. One that yields is for benchmarks."""
    bringup.up(directory, driver, attached=True, more=more, yields=yields)
    try:
        lab = Lab(directory, attached=True)
        lab.use_roots(roots or {})
        yield lab
    finally:
        bringup.down(directory)
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(directory)], check=True)
