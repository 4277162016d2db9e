"""Factories: the way from a sha1 to a published repository, as two lists of the same verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildbot.process.factory import BuildFactory

from steps.build import BuildPackages, SourceTarball
from steps.prepare import AlreadyPublished, BuildDependencies, Checkout, Machine, Version
from steps.publish import Publish, Repository, UploadPackages
from workers.latent import OneBuild

if TYPE_CHECKING:
    from typing import Any

    from buildbot.process.buildstep import BuildStep

    from master.settings import Settings


def factory(settings: Settings) -> BuildFactory:
    """Give the steps of a build; which scripts they run depends on the target's pkg_type."""
    canonical = settings.git.canonical_url
    packages_url = settings.packages.url
    limits: dict[str, Any] = {
        "silence": settings.build.silence,
        "max_seconds": int(settings.build.hours * 3600),
        "doStepIf": _not_published,
        "hideStepIf": lambda _, step: not _not_published(step),
    }
    steps: list[BuildStep] = [
        AlreadyPublished(hideStepIf=lambda _, step: _not_published(step)),
        Machine(memory_per_job=settings.build.memory_per_job, **limits),
        Checkout(canonical, **limits),
        Version(canonical, **limits),
        BuildDependencies(**limits),
        SourceTarball(**limits),
        BuildPackages(**limits),
        Repository(packages_url, **limits),
        UploadPackages(upload_url(settings), **limits),
        Publish(),
    ]
    made = BuildFactory(steps)
    made.buildClass = OneBuild
    return made


def upload_url(settings: Settings) -> str:
    """Where workers upload to: straight to the package server's own port."""
    return f"http://{settings.packages.host}:{settings.packages.port}/"


def _not_published(step: BuildStep) -> bool:
    return not step.getProperty("published")
