"""All of nova in one process: conductor, scheduler, compute and API, on an in-memory message bus."""

# ruff: noqa: E402  the threading backend is chosen before anything else of nova is imported
from __future__ import annotations

from nova import monkey_patch

monkey_patch.patch(backend="threading")

import shlex
import sys
from pathlib import Path

sys.argv = ["nova-all"]

import nova.virt

nova.virt.__path__.append(str(Path(__file__).parent / "virt"))  # nova loads drivers from there only

from nova.wsgi import osapi_compute  # isort: skip  it reads the configuration

import nova.conf
import os_brick
import os_vif
from nova import context, objects, service, utils
from nova.compute import rpcapi
from nova.objects import host_mapping
from oslo_privsep import priv_context
from oslo_service import opts

from lab.inside.serve import serve

PARTS = (
    ("nova-conductor", "conductor", None),
    ("nova-scheduler", "scheduler", None),
    ("nova-compute", rpcapi.RPC_TOPIC, rpcapi.RPC_TOPIC_ALT),
)


def main() -> None:
    """Start the parts, let the cell know its host, and serve the API."""
    configuration = nova.conf.CONF
    opts.register_service_opts(configuration)
    objects.register_all()
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(configuration)
    os_vif.initialize()
    objects.Service.enable_min_version_cache()
    parts = [
        service.Service.create(binary=binary, topic=topic, topic_alt=alternative)
        for binary, topic, alternative in PARTS
    ]
    for part in parts:
        part.start()
    host_mapping.discover_hosts(context.get_admin_context())
    serve(osapi_compute.application, threads=40)


if __name__ == "__main__":
    main()
