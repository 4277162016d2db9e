"""Steps that build: the source tarball, then the packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps import commands
from steps.script import Script

if TYPE_CHECKING:
    from steps.commands import Command


class SourceTarball(Script):
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


class BuildPackages(Script):
    """Builds the packages, and checks that all are there and whole."""

    name = "packages"
    doing = "building the packages"

    def compose(self) -> Command:
        """Use as many jobs as the machine bears."""
        return commands.packages(
            self.key.target,
            str(self.getProperty("tarball")),
            str(self.getProperty("version")),
            int(self.getProperty("jobs")),
            nodeps=bool(self.getProperty("stand_in")),
        )

    def finish(self) -> str:
        """Keep the names of the packages that the sources say there must be."""
        names = self.output.values["packages"].split(",")
        self.setProperty("packages", names, "packages")
        return f"{len(names)} packages built"
