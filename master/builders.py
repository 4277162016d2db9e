"""Builders: one for each target that is on, and two for each whose images are prepared."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from buildbot.config import BuilderConfig
from buildbot.util.twisted import async_to_deferred

from master.factories import factory, image_factory, image_test_factory
from master.prepared_images.names import image_builder, image_targets, image_test_builder
from master.reloads.in_force import builders_in_force
from master.requests.turns import Turns
from master.workers import provider, worker_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from buildbot.process.factory import BuildFactory

    from master.settings import Settings
    from model.targets import Target
    from workers.provider import Provider


_OFF = "off"
"""The tag of a builder that takes no new requests."""


def builders(settings: Settings) -> list[BuilderConfig]:
    """Return `c["builders"]`: those that the settings want, then those that only finish their requests.

    A builder in force is never removed while the master runs. Otherwise its queue would wait for ever, its running build
    would hang and keep other builders from starting theirs, and latent workers would not come back to a builder that
    is removed and added again (Buildbot #9135).
    """
    wanted = _wanted(settings)
    return [*wanted, *(_turned_off(builder, settings) for builder in _kept(wanted))]


def builders_off(settings: Settings) -> list[str]:
    """Return the names of the builders that only finish their requests."""
    return [builder.name for builder in _kept(_wanted(settings))]


def _kept(wanted: Sequence[BuilderConfig]) -> list[BuilderConfig]:
    names = {builder.name for builder in wanted}
    return [builder for builder in builders_in_force() if builder.name not in names]


def _turned_off(before: BuilderConfig, settings: Settings) -> BuilderConfig:
    """Return a builder of the configuration in force as it is, tagged `off`."""
    kept = copy(before)
    kept.workernames = worker_names(settings)
    kept.tags = [*(tag for tag in before.tags if tag != _OFF), _OFF]
    return kept


def _wanted(settings: Settings) -> list[BuilderConfig]:
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


@async_to_deferred
async def _next_request(behind: Provider, target: Target, builder: Any, requests: Sequence[Any]) -> Any:
    """Let the provider choose in the order of turns: it knows who could have a machine now."""
    turns: Turns = builder.master.service_manager.namedServices[Turns.name]
    chosen = behind.next_request(target, await turns.sorted(requests))
    if chosen is not None:
        turns.serve(chosen.id)
    return chosen
