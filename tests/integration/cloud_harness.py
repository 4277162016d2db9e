"""An installation whose machines are servers of a lab, and what of them is left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.integration.harness import DEB, Installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.cloud import Lab

CLOUD: dict[str, Any] = {
    "cloud": "packages",
    "images": {"*-bookworm-*": {"name": "bookworm", "properties": {"os_version": "12.12"}}},
    "nova_flavor": "small",
    "networks": ["lab"],
    "max_instances": 4,
}


class CloudInstallation(Installation):
    """One master whose provider is `openstack`."""

    def __init__(
        self, directory: Path, lab: Lab, *, clouds: list[dict[str, Any]] | None = None, **overrides: Any
    ) -> None:
        """Write the settings; each of `clouds` is merged over the usual one, `openstack` over its section."""
        self.lab = lab
        workers = dict(overrides.pop("workers", {}))
        section = {
            "clouds_yaml": str(overrides.pop("clouds_yaml", lab.clouds_yaml)),
            "clouds": [{**CLOUD, **one} for one in clouds or [{}]],
            "waiting": 4,
            **overrides.pop("openstack", {}),
        }
        super().__init__(
            directory, **{"targets": [DEB], "workers": {**workers, "openstack": section}, **overrides}
        )

    @property
    def tag(self) -> str:
        """The tag of this master's servers."""
        openstack = self.settings.workers.openstack
        assert openstack is not None
        master_id = openstack.master_id or (self.settings.state / "master-id").read_text().strip()
        return f"buildpackages-{master_id}"

    def servers(self) -> list[Any]:
        """Give this master's servers, as nova has them."""
        return list(self.lab.connect().compute.servers(details=True, tags=[self.tag]))

    def gone(self, seconds: float = 60) -> None:
        """Wait until no server is left."""
        self.until(lambda: not self.servers(), "no server is left", seconds)

    def machine_log(self, build: dict[str, Any], name: str = "machine") -> str:
        """Give a log of the step in whose time a build's machine was made; empty if there is none."""
        step = self.steps(build)["worker_preparation"]
        logs = {one["name"]: one["logid"] for one in self.get(f"steps/{step['stepid']}/logs")["logs"]}
        return self.text(logs[name]) if name in logs else ""


@contextmanager
def cloud_installation(
    directory: Path, lab: Lab, *, patch: str = "", **overrides: Any
) -> Iterator[CloudInstallation]:
    """Give an installation whose master runs on a tiny repository and builds in a lab; end it after."""
    made = CloudInstallation(directory, lab, **overrides)
    try:
        made.serve_tiny()
        made.start(patch=patch)
        yield made
    finally:
        made.stop()
