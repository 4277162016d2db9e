"""The step that runs one command on the worker, tells its progress, and says why it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.process.buildstep import BuildStep, ShellMixin
from buildbot.process.logobserver import LogLineObserver
from buildbot.process.results import SUCCESS, statusToString

from model.package_key import PackageKey
from steps.output import Output

if TYPE_CHECKING:
    from steps.commands import Command

PROGRESS_INTERVAL = 1.0
"""Seconds between two updates of a step's state string, which go to every open browser."""


class _Reader(LogLineObserver):
    def __init__(self, step: Script) -> None:
        super().__init__()
        self._step = step

    def outLineReceived(self, line: str) -> None:
        self._step.line(line)

    errLineReceived = outLineReceived


class Script(ShellMixin, BuildStep):
    """Runs the command that `compose` gives; its failure is a sentence, and ends the build."""

    haltOnFailure = True
    flunkOnFailure = True
    doing = ""

    def __init__(self, silence: int = 3600, max_seconds: int = 43200, **kwargs: Any) -> None:
        """Take the seconds without output, and in all, after which the command is killed."""
        kwargs = self.setupShellMixin(
            {"timeout": silence, "maxTime": max_seconds, "logEnviron": False, **kwargs},
            prohibitArgs=["command"],
        )
        super().__init__(**kwargs)
        self.output = Output()
        self._told = 0.0
        self._summary = ""

    @property
    def key(self) -> PackageKey:
        """The package_key that this build is for."""
        return PackageKey.from_string(str(self.getProperty("package_key")))

    def compose(self) -> Command:
        """Give the command line."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Give what the command finds in its environment besides the worker's own."""
        return {}

    def finish(self) -> str:
        """Use what the output told; give the step's summary."""
        return self.doing

    def line(self, line: str) -> None:
        """Take one line of the output, and tell the progress from time to time."""
        assert self.master is not None
        if self.output.feed(line):
            now = self.master.reactor.seconds()
            if now - self._told >= PROGRESS_INTERVAL:
                self._told = now
                self.updateSummary()

    async def run(self) -> int:
        """Run the command on the worker."""
        self.updateSummary()
        command = await self.makeRemoteShellCommand(
            command=self.compose(), env=self.environment(), collectStdout=False
        )
        self.addLogObserver("stdio", _Reader(self))
        await self.runCommand(command)
        result = command.results()
        if result == SUCCESS:
            self._summary = self.finish()
        elif self.timed_out:
            self._summary = f"{self.name}: stopped, it took too long or said nothing for too long"
        else:
            self._summary = f"{self.name}: {self.output.reason()}"
        return int(result)

    def getCurrentSummary(self) -> dict[str, str]:
        """Give what is being done, with the percentage that the build itself tells."""
        percentage = self.output.percentage
        told = "" if percentage is None else f" {percentage} %"
        return {"step": f"{self.doing}{told}"}

    def getResultSummary(self) -> dict[str, str]:
        """Give the summary; on failure it is the build's, too."""
        if self.results == SUCCESS:
            return {"step": self._summary or self.doing}
        sentence = self._summary or f"{self.name}: {statusToString(self.results)}"
        return {"step": sentence, "build": sentence}
