"""What the doctor checks: the settings in force, as `python -m master.settings` prints them.

Asking that command keeps one reader of the file, with one set of sentences; no code of the master is loaded here.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import yaml
from pydantic import TypeAdapter

from model.recipes import Recipes
from model.targets import Target, select
from workers.openstack_settings import OpenStackSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]


class Unreadable(Exception):
    """There is nothing to check; the sentences say why."""


@dataclass(frozen=True)
class Address:
    """A host and a port, and the setting that names them."""

    setting: str
    host: str
    port: int

    def __str__(self) -> str:
        """Give them as people write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class InForce:
    """Of the settings, what concerns clouds."""

    openstack: OpenStackSettings
    targets: tuple[Target, ...]
    master_id: str
    """Empty if the master has not been started yet and the settings name none."""
    start_timeout: float
    listens: tuple[Address, ...]
    """Where the master takes workers and uploads."""
    reached: tuple[Address, ...]
    """The same as build machines are told."""
    packages_url: str
    wheels: Path
    tls: bool
    certificate: Path | None
    """What workers are shown; None if the master makes one."""

    @property
    def tag(self) -> str:
        """What the master's servers carry."""
        return f"buildpackages-{self.master_id}"


def read(file: Path | None) -> InForce:
    """Read a settings file, else the one in force; Unreadable holds all its problems."""
    command = [sys.executable, "-m", "master.settings", *([str(file.resolve())] if file else [])]
    told = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    if told.returncode:
        raise Unreadable(told.stderr.strip() or f"{' '.join(command)} ended with status {told.returncode}")
    return in_force(yaml.safe_load(told.stdout))


def in_force(data: Mapping[str, Any]) -> InForce:
    """Take the settings as the command prints them."""
    workers, packages = data["workers"], data["packages"]
    if workers["openstack"] is None:
        raise Unreadable(
            "setting `workers.openstack` is not there: builds run on the master's own machine, and there is"
            " no cloud to check; docs/openstack.md says how to begin"
        )
    openstack = TypeAdapter(OpenStackSettings).validate_python(workers["openstack"])
    url = packages["worker_url"] or f"http://{packages['host']}:{packages['port']}/"
    parts = urlsplit(url)
    by_url = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return InForce(
        openstack=openstack,
        targets=select(data["targets"], Recipes.from_settings(data["projects"], data["flavors"])),
        master_id=openstack.master_id or _kept(Path(data["state"]) / "master-id"),
        start_timeout=float(workers["start_timeout"]),
        listens=(
            Address("workers.host", workers["host"], workers["port"]),
            Address("packages.host", packages["host"], packages["port"]),
        ),
        reached=(
            Address(
                "workers.openstack.master_host", openstack.master_host or workers["host"], workers["port"]
            ),
            Address("packages.worker_url", parts.hostname or "", by_url),
        ),
        packages_url=url,
        wheels=Path(packages["wheels"]),
        tls=workers["tls"] != "off",
        certificate=Path(workers["certificate"]) if workers["certificate"] else None,
    )


def _kept(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
