"""Images of our servers in one cloud's glance: made, marked, listed and removed; nobody else's is ever listed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from openstack.compute.v2.server import Server
from openstack.exceptions import NotFoundException, raise_from_response

from workers.cloud_data import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openstack.connection import Connection

    from workers.cloud import Cloud

MASTER = "buildpackages_master"
"""The property that says whose an image is: our servers' tag."""

_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


class Snapshots:
    """What one master keeps in the glance of one cloud. All methods raise Trouble."""

    def __init__(self, cloud: Cloud) -> None:
        """Take the cloud."""
        self._cloud = cloud

    async def listed(self, *, active: bool = True) -> list[Image]:
        """List ours, newest first; only those that can be booted from, unless all are wanted."""
        query = {"status": "active"} if active else {}

        def look(sdk: Connection) -> list[Image]:
            found = [Image.of(one) for one in sdk.image.images(visibility="private", **query)]
            ours = [one for one in found if one.properties.get(MASTER) == self._cloud.tag]
            return sorted(ours, key=lambda one: (one.created_at, one.id), reverse=True)

        return await self._cloud.run(look)

    async def take(self, server_id: str, name: str, properties: Mapping[str, str]) -> str:
        """Ask for an image of a server, which goes on running; give the image's id."""
        metadata = {**properties, MASTER: self._cloud.tag}
        return await self._cloud.run_change(
            lambda sdk: Server.new(id=server_id).create_image(sdk.compute, name, metadata)
        )

    async def status(self, image_id: str) -> str:
        """Give an image's status: `queued`, `saving`, `active` and others; empty if it is gone."""

        def look(sdk: Connection) -> str:
            try:
                return str(sdk.image.get_image(image_id).status)
            except NotFoundException:
                return ""

        return await self._cloud.run(look)

    async def mark(self, image_id: str, properties: Mapping[str, str]) -> None:
        """Put properties on an image."""
        changes = [{"op": "add", "path": f"/{name}", "value": value} for name, value in properties.items()]

        def change(sdk: Connection) -> None:
            # The SDK's own update asks to replace also what is not there.
            answer = sdk.image.patch(f"/images/{image_id}", data=json.dumps(changes), headers=_PATCH)
            raise_from_response(answer)

        await self._cloud.run_change(change)

    async def remove(self, image_id: str) -> None:
        """Delete an image; one that is gone already is as good."""
        await self._cloud.run_change(lambda sdk: sdk.image.delete_image(image_id, ignore_missing=True))
