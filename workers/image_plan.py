"""Which images are to be prepared, as the settings say it; imports no SDK."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model.targets import Target
    from workers.openstack_settings import CloudSettings, PreparedImages

ONLY_IMAGE = "only_image"
"""The property of a build that must run on one image: `base`, or an image's id."""
ONLY_CLOUD = "only_cloud"
"""The property of a build that must run in one cloud."""


def is_prepared(settings: PreparedImages, target: Target) -> bool:
    """Whether images of a target are to be prepared."""
    return any(fnmatchcase(target.name, pattern) for pattern in settings.targets)


def clouds_of(clouds: Iterable[CloudSettings], target: Target) -> list[str]:
    """Name the clouds that can have prepared images of a target: its disk must be the server's own."""
    return [one.title for one in clouds if one.image(target) is not None and one.volume is None]
