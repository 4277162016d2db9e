"""Targets that images are prepared for, and the names of the builders that make and test these images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.image_plan import clouds_of, is_prepared

if TYPE_CHECKING:
    from master.settings import Settings
    from model.targets import Target

NIGHTLY = "nightly"
"""The requester of the nightly images."""


def image_targets(settings: Settings) -> dict[Target, list[str]]:
    """Return the targets that images are prepared for, with the clouds that can have them."""
    openstack = settings.workers.openstack
    if openstack is None:
        return {}
    return {
        target: clouds_of(openstack.clouds, target)
        for target in settings.selected_targets
        if is_prepared(openstack.prepared_images, target)
    }


_PREFIX = "image-"
TEST_PREFIX = "image-test-"


def is_image_builder(name: str) -> bool:
    """Return whether a builder makes or tests images."""
    return name.startswith(_PREFIX)


def image_builder(target: Target) -> str:
    """Return the name of the builder that makes a target's images."""
    return f"{_PREFIX}{target}"


def image_test_builder(target: Target) -> str:
    """Return the name of the builder that tests a target's images."""
    return f"{TEST_PREFIX}{target}"
