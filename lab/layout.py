"""Where everything of one lab lies, and what it is called."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
HOME = CHECKOUT / ".lab"
"""Shared by all labs of a checkout: the virtual environment, and the templates."""

VENV = HOME / "venv"
REQUIREMENTS = CHECKOUT / "requirements-lab.txt"

HOST = "127.0.0.1"
REGION = "RegionOne"
PASSWORD = "lab-password"  # noqa: S105  it guards nothing: everything listens on loopback
MARK = "BUILDPACKAGES_LAB"
"""In the environment of every process of a lab; names the lab's directory."""

SERVICES = {
    "keystone": ("identity", "/v3"),
    "glance": ("image", ""),
    "placement": ("placement", ""),
    "neutron": ("network", ""),
    "nova": ("compute", "/v2.1"),
}
"""Name of a service -> its type in the catalogue, and the path of its endpoint."""

DATABASES = ("keystone", "glance", "placement", "neutron", "nova_api", "nova_cell0", "nova_cell1")
DRIVERS = {"process": "lab_process.ProcessDriver", "libvirt": "libvirt.LibvirtDriver"}
"""The lab's name of a driver -> nova's."""


@dataclass(frozen=True)
class Layout:
    """One lab: its directory, the driver of its servers, and the port of each service."""

    directory: Path
    driver: str
    ports: dict[str, int]

    def url(self, service: str) -> str:
        """Give the endpoint of a service."""
        return f"http://{HOST}:{self.ports[service]}{SERVICES[service][1]}"

    @property
    def endpoints(self) -> dict[str, str]:
        """Give every service's endpoint."""
        return {service: self.url(service) for service in self.ports}

    @property
    def clouds_yaml(self) -> Path:
        """The clients' configuration."""
        return self.directory / "clouds.yaml"

    @property
    def knobs(self) -> Path:
        """What the driver is told to do wrong."""
        return self.directory / "knobs.json"

    @property
    def servers(self) -> Path:
        """One directory for each server that lives."""
        return self.directory / "servers"

    @property
    def logs(self) -> Path:
        """One log for each service, and one for its last words."""
        return self.directory / "log"


def template(driver: str) -> Path:
    """Where the template of a driver is kept; another recipe or other packages give another name."""
    digest = hashlib.sha256(driver.encode())
    recipe = [REQUIREMENTS, *(Path(__file__).parent / name for name in ("configuration.py", "database.py",
              "layout.py", "seed.py")), *sorted((Path(__file__).parent / "inside").glob("*_init.py"))]  # fmt: skip
    for path in recipe:
        digest.update(path.read_bytes())
    return HOME / f"template-{driver}-{digest.hexdigest()[:12]}"
