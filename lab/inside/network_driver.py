"""The ML2 driver of the lab: binds every port at once, and needs no agent.

A server of the process driver ignores what its port is bound to. A virtual machine gets a macvtap
device on the interface that $LAB_INTERFACE names.
"""

from __future__ import annotations

import os
from typing import Any

from neutron_lib.plugins.ml2 import api

INTERFACE = os.environ.get("LAB_INTERFACE", "lab1")


class NetworkDriver(api.MechanismDriver):
    """Says of every port that it is connected."""

    connectivity = "l2"

    def initialize(self) -> None:
        """Need nothing."""

    def bind_port(self, context: Any) -> None:
        """Bind to the first segment there is."""
        details = {
            "port_filter": False,
            "macvtap_source": INTERFACE,
            "macvtap_mode": "bridge",
            "physical_interface": INTERFACE,
        }
        context.set_binding(context.segments_to_bind[0][api.ID], "macvtap", details, status="ACTIVE")
