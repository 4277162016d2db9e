"""Builders: one for each target that is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildbot.config import BuilderConfig

from master.factories import factory
from master.workers import worker_names

if TYPE_CHECKING:
    from master.settings import Settings


def builders(settings: Settings) -> list[BuilderConfig]:
    """Give `c["builders"]`."""
    steps = factory(settings)
    names = worker_names(settings)
    return [
        BuilderConfig(
            name=target.name,
            workernames=names,
            factory=steps,
            collapseRequests=False,
            tags=[target.pkg_type, target.dist, target.arch, target.flavor],
            description=(
                f"{target.project.capitalize()} packages for {target.distribution.title},"
                f" {target.arch}, flavor {target.flavor}"
            ),
        )
        for target in settings.selected_targets
    ]
