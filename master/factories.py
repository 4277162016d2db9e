"""Factories: the way from a sha1 to a published repository, or to an image, as lists of the same verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildbot.process.factory import BuildFactory

from steps.build import BuildDependencies, BuildPackages, SourceTarball
from steps.image import (
    AddMirror,
    AskForTest,
    CleanMachine,
    CommitUnderTest,
    NewestCommit,
    Snapshot,
    SwitchImage,
)
from steps.prepare import AlreadyPublished, Checkout, Machine, Version
from steps.publish import Publish, UploadPackages
from workers.latent import OneBuild

if TYPE_CHECKING:
    from typing import Any

    from buildbot.process.buildstep import BuildStep

    from master.settings import Settings
    from model.targets import Target


def factory(settings: Settings, target: Target) -> BuildFactory:
    """Return the steps of a target's builds."""
    limits: dict[str, Any] = {
        **_limits(settings),
        "doStepIf": _not_published,
        "hideStepIf": lambda _, step: not _not_published(step),
    }
    steps: list[BuildStep] = [
        AlreadyPublished(hideStepIf=lambda _, step: _not_published(step)),
        *_to_packages(settings, target, limits),
        UploadPackages(settings.packages.internal_url, **limits),
        Publish(),
    ]
    return _made(steps)


def image_factory(settings: Settings, target: Target) -> BuildFactory:
    """Return the steps that prepare an image: install the dependencies as a build does, then make a snapshot."""
    limits, project = _limits(settings), settings.projects[target.project]
    return _made(
        [
            NewestCommit(),
            Machine(memory_per_job=settings.build.memory_per_job, **limits),
            Checkout(project.canonical_url, project.tags, **limits),
            BuildDependencies(recipe=settings.recipes.of(target), **limits),
            AddMirror(**limits),
            CleanMachine(**limits),
            Snapshot(),
            AskForTest(),
        ]
    )


def image_test_factory(settings: Settings, target: Target) -> BuildFactory:
    """Return the steps that test an image: those of a build, without publishing."""
    limits = _limits(settings)
    return _made(
        [
            CommitUnderTest(),
            *_to_packages(settings, target, limits),
            SwitchImage(),
        ]
    )


def _to_packages(settings: Settings, target: Target, limits: dict[str, Any]) -> list[BuildStep]:
    """Return the steps from a machine to packages, the same for a build and for the test of an image."""
    project, recipe = settings.projects[target.project], settings.recipes.of(target)
    canonical = project.canonical_url, project.tags
    return [
        Machine(memory_per_job=settings.build.memory_per_job, **limits),
        Checkout(*canonical, **limits),
        Version(*canonical, **limits),
        BuildDependencies(recipe=recipe, **limits),
        SourceTarball(recipe=recipe, **limits),
        BuildPackages(spec=project.spec, recipe=recipe, **limits),
    ]


def _limits(settings: Settings) -> dict[str, Any]:
    return {"silence": settings.build.silence, "max_seconds": int(settings.build.hours * 3600)}


def _made(steps: list[BuildStep]) -> BuildFactory:
    made = BuildFactory(steps)
    made.buildClass = OneBuild
    return made


def _not_published(step: BuildStep) -> bool:
    return not step.getProperty("published")
