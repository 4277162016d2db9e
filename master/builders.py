"""Builders: one for each target that is on, and two for each whose images are prepared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from buildbot.config import BuilderConfig

from master.factories import factory, image_factory, image_test_factory
from master.images import image_builder, image_targets, image_test_builder
from master.workers import provider, worker_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from buildbot.process.factory import BuildFactory

    from master.settings import Settings
    from model.targets import Target
    from workers.provider import Provider


def builders(settings: Settings) -> list[BuilderConfig]:
    """Give `c["builders"]`."""
    packages = [
        _builder(settings, target.name, target, factory(settings, target), "packages")
        for target in settings.selected_targets
    ]
    images = [
        builder
        for target in image_targets(settings)
        for builder in (
            _builder(
                settings,
                image_builder(target),
                target,
                image_factory(settings, target),
                "image",
                only_image="base",
            ),
            _builder(
                settings,
                image_test_builder(target),
                target,
                image_test_factory(settings, target),
                "test of an image",
            ),
        )
    ]
    return [*packages, *images]


def _builder(
    settings: Settings, name: str, target: Target, steps: BuildFactory, what: str, **properties: str
) -> BuilderConfig:
    tags = [target.pkg_type, target.dist, target.arch, target.flavor]
    if what != "packages":
        tags.append("image")
        properties["target"] = target.name
    untested = f". Untested: {target.untested}" if target.untested else ""
    return BuilderConfig(
        name=name,
        workernames=worker_names(settings),
        factory=steps,
        collapseRequests=False,
        nextBuild=partial(_next_request, provider(settings), target),
        properties=properties,
        tags=tags,
        description=(
            f"{target.project.capitalize()} {what} for {target.distribution.title},"
            f" {target.arch}, flavor {target.flavor}{untested}"
        ),
    )


def _next_request(behind: Provider, target: Target, _: Any, requests: Sequence[Any]) -> Any:
    """Let the provider choose: it knows who could have a machine now."""
    return behind.next_request(target, requests)
