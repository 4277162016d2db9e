"""A client of the lab's clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openstack.config import OpenStackConfig
from openstack.connection import Connection

if TYPE_CHECKING:
    from pathlib import Path


def connect(clouds_yaml: Path, cloud: str) -> Any:
    """Connect as the user of a cloud, whatever else is configured on this machine.

    Any: the SDK's annotations leave open which version of keystone it talks to.
    """
    found = OpenStackConfig(
        config_files=[str(clouds_yaml)], secure_files=[], vendor_files=[], load_envvars=False
    ).get_one(cloud)
    return Connection(config=found)
