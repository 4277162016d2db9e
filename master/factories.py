"""Factories: the way from a sha1 to a published repository, or to an image, as lists of the same verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildbot.process.factory import BuildFactory

from steps.build import BuildPackages, SourceTarball
from steps.image import (
    AddMirror,
    AskForTest,
    CleanMachine,
    CommitUnderTest,
    NewestCommit,
    Snapshot,
    SwitchImage,
)
from steps.prepare import AlreadyPublished, BuildDependencies, Checkout, Machine, Version
from steps.publish import Publish, UploadPackages
from workers.latent import OneBuild

if TYPE_CHECKING:
    from typing import Any

    from buildbot.process.buildstep import BuildStep

    from master.settings import Settings


def factory(settings: Settings) -> BuildFactory:
    """Give the steps of a build; which scripts they run depends on the target's pkg_type."""
    canonical = settings.git.canonical_url
    limits: dict[str, Any] = {
        **_limits(settings),
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
        UploadPackages(settings.packages.internal_url, **limits),
        Publish(),
    ]
    return _made(steps)


def image_factory(settings: Settings) -> BuildFactory:
    """Give the steps that prepare an image: dependencies as a build has them, then a snapshot."""
    limits = _limits(settings)
    return _made(
        [
            NewestCommit(),
            Machine(memory_per_job=settings.build.memory_per_job, **limits),
            Checkout(settings.git.canonical_url, **limits),
            BuildDependencies(**limits),
            AddMirror(**limits),
            CleanMachine(**limits),
            Snapshot(),
            AskForTest(),
        ]
    )


def image_test_factory(settings: Settings) -> BuildFactory:
    """Give the steps that test an image: those of a build, but nothing is published."""
    canonical, limits = settings.git.canonical_url, _limits(settings)
    return _made(
        [
            CommitUnderTest(),
            Machine(memory_per_job=settings.build.memory_per_job, **limits),
            Checkout(canonical, **limits),
            Version(canonical, **limits),
            BuildDependencies(**limits),
            SourceTarball(**limits),
            BuildPackages(**limits),
            SwitchImage(),
        ]
    )


def _limits(settings: Settings) -> dict[str, Any]:
    return {"silence": settings.build.silence, "max_seconds": int(settings.build.hours * 3600)}


def _made(steps: list[BuildStep]) -> BuildFactory:
    made = BuildFactory(steps)
    made.buildClass = OneBuild
    return made


def _not_published(step: BuildStep) -> bool:
    return not step.getProperty("published")
