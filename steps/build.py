"""Steps that build with the target's recipe: build dependencies, source tarball, packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.recipes import Recipe
from steps import commands
from steps.script import Script

if TYPE_CHECKING:
    from typing import Any

    from steps.commands import Command


_NOTHING = Recipe()


class FollowsRecipe(Script):
    """A step whose command gets the environment variables of a recipe; they win over the worker's own."""

    def __init__(self, recipe: Recipe = _NOTHING, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recipe = recipe

    def environment(self) -> dict[str, str]:
        """Return the recipe's variables."""
        return self.recipe.variables(self.key.target.pkg_type)


class BuildDependencies(FollowsRecipe):
    """Installs the build dependencies."""

    name = "dependencies"
    doing = "installing the build dependencies"

    def compose(self) -> Command:
        """Use the project's own script."""
        target = self.key.target
        return commands.dependencies(target, self.recipe.macros(target.pkg_type))

    def finish(self) -> str:
        """Return the summary."""
        return "build dependencies installed"


class SourceTarball(FollowsRecipe):
    """Makes the source tarball, and looks into it."""

    name = "tarball"
    doing = "making the source tarball"

    def compose(self) -> Command:
        """Use the project's own make-dist."""
        return commands.tarball(self.key.target, str(self.getProperty("version")))

    def finish(self) -> str:
        """Keep and name the tarball."""
        tarball = self.output.values["tarball"]
        self.setProperty("tarball", tarball, "tarball")
        return tarball


class BuildPackages(FollowsRecipe):
    """Builds the packages, and checks that all are there and whole."""

    name = "packages"
    doing = "building the packages"

    def __init__(self, spec: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._spec = spec

    async def run(self) -> int:
        """Show the recipe on the build's page, and keep it for the manifest."""
        target = self.key.target
        self.setProperty("recipe", self.recipe.record(target.pkg_type), self.name)
        await self.addCompleteLog("recipe", "\n".join([*self.recipe.lines(target.pkg_type), ""]))
        return await super().run()

    def compose(self) -> Command:
        """Use as many jobs as the machine bears."""
        target = self.key.target
        tarball, described = str(self.getProperty("tarball")), str(self.getProperty("version"))
        jobs = int(self.getProperty("jobs"))
        if target.pkg_type == "deb":
            return commands.debs(target, tarball, described, jobs)
        # The rpm database of a stand-in does not know the build dependencies.
        nodeps = ["--nodeps"] if self.getProperty("stand_in") else []
        options = [*nodeps, *self.recipe.options(target.pkg_type)]
        return commands.rpms(tarball, described, self._spec, jobs, options)

    def finish(self) -> str:
        """Keep the names of the packages that the sources say there must be."""
        names = self.output.values["packages"].split(",")
        self.setProperty("packages", names, "packages")
        return f"{len(names)} packages built"
