"""The step that runs one of our scripts on the worker, shows its progress, and says why it failed."""

from __future__ import annotations

import secrets
from math import ceil
from typing import TYPE_CHECKING, Any

from buildbot.process.buildstep import BuildStep, ShellMixin
from buildbot.process.logobserver import LogLineObserver
from buildbot.process.results import CANCELLED, FAILURE, SUCCESS, WARNINGS, statusToString
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.python import log

from model.package_key import PackageKey
from steps.output import Output

if TYPE_CHECKING:
    from buildbot.process.remotecommand import RemoteShellCommand
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from steps.commands import Command

PROGRESS_INTERVAL = 1.0
"""Seconds between two updates of a step's state string, which go to every open browser."""

MOST_OUTPUT = 1024**3
"""Characters that a command may print. The database stores them all: Buildbot 4.3 has a setting logMaxSize, and nothing that
reads it."""

END_SECONDS = 10.0
"""Seconds that a command may still run after its script has reported its end."""

STORE_SECONDS = 5.0
"""Seconds that the master goes on storing the output of a command that is stopped. The rest is discarded: a worker sends output
faster than a database stores it, and the step would end only when all of it is stored."""

GRACE_SECONDS = 30.0
"""Seconds that a worker has to end a command that exceeds a limit, before the master ends the build."""


class _Reader(LogLineObserver):
    def __init__(self, step: Script, command: RemoteShellCommand) -> None:
        super().__init__()
        self._step = step
        self._command = command

    def outLineReceived(self, line: str) -> None:
        self._step.line(line, self._command)

    errLineReceived = outLineReceived


class _Discarded:
    """Takes the place of a command's log, and stores nothing."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def add_stdout_lines(self, _: str) -> Deferred[None]:
        # In a later turn: the lock that each piece waits for calls the next one from within the end of the one before,
        # and a thousand pieces that ended at once would exceed Python's recursion limit.
        return deferLater(self._reactor, 0)

    add_stderr_lines = add_header_lines = add_stdout_lines


class Script(ShellMixin, BuildStep):
    """Run the command that `compose` returns, and end the build with a sentence if it fails.

    The command is one of our scripts. It gets a key on its standard input, new for each command, and reports on lines
    that begin with it: values, the sentence of a failure, its exit status.
    """

    haltOnFailure = True
    flunkOnFailure = True
    doing = ""
    """The step's action, such as "building the packages": the state string, and the beginning of a failure's sentence."""

    def __init__(self, silence: int = 3600, max_seconds: int = 43200, **kwargs: Any) -> None:
        """Stop the command after `silence` seconds without output, and `max_seconds` after the build's first script began.

        The worker keeps both limits. It is a process of the build, which can stop it, so the master keeps them as well.
        """
        kwargs = self.setupShellMixin(
            {"timeout": silence, "maxTime": max_seconds, "logEnviron": False, **kwargs},
            prohibitArgs=["command"],
        )
        super().__init__(**kwargs)
        self.report_key = secrets.token_hex(16)
        self.initialStdin = f"{self.report_key}\n"
        self.output = Output(self.report_key)
        self._updated = 0.0
        self._printed = 0
        self._printed_too_much = False
        self._summary = ""
        self._waiting_for_end: Any = None
        self._end_forced = False
        self._limit: Any = None
        self._discarding: Any = None
        self._whole_build = max_seconds

    @property
    def key(self) -> PackageKey:
        """The package_key that this build is for."""
        return PackageKey.from_string(str(self.getProperty("package_key")))

    def compose(self) -> Command:
        """Return the command line."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the variables that are added to the worker's own environment."""
        return {}

    def finish(self) -> str:
        """Use the values of a command that succeeded; return the step's summary."""
        return self.doing

    def line(self, line: str, command: RemoteShellCommand) -> None:
        """Read one line of the output; show the progress at most once in PROGRESS_INTERVAL."""
        assert self.master is not None
        self._printed += len(line) + 1
        if self._printed > MOST_OUTPUT and not self._printed_too_much:
            self._printed_too_much = True
            command.interrupt(f"it printed more than {MOST_OUTPUT >> 20} MiB")
            self._discard(command)
        if self.output.feed(line):
            now = self.master.reactor.seconds()
            if now - self._updated >= PROGRESS_INTERVAL:
                self._updated = now
                self.updateSummary()
        elif self.output.status is not None and self._waiting_for_end is None:
            self._waiting_for_end = self.master.reactor.callLater(END_SECONDS, self._force_end, command)

    async def run(self) -> int:
        """Run the command on the worker."""
        self.updateSummary()
        ends_at = self._ends_at()
        now = self._now()
        self.maxTime = max(1, ceil(ends_at - now))
        command = await self.makeRemoteShellCommand(
            command=self.compose(), env=self.environment(), collectStdout=False
        )
        self.addLogObserver("stdio", _Reader(self, command))
        self._watch(now, ends_at)
        try:
            await self.runCommand(command)
        finally:
            for timer in (self._waiting_for_end, self._limit, self._discarding):
                if timer is not None and timer.active():
                    timer.cancel()
        result = int(command.results())
        if self._end_forced and not self.stopped:
            result = SUCCESS if self.output.status == 0 else FAILURE
        elif (self._printed_too_much and not self.stopped) or (result == SUCCESS and self.output.status != 0):
            result = FAILURE
        if result == SUCCESS:
            self._summary = self.finish()
        elif not self._summary:
            self._summary = self._sentence(result, command)
        return result

    def interrupt(self, reason: str | Failure) -> Deferred[None]:
        """Stop the command, and STORE_SECONDS later no longer store what it has printed."""
        if self.cmd is not None and self._discarding is None:
            assert self.master is not None
            self._discarding = self.master.reactor.callLater(STORE_SECONDS, self._discard, self.cmd)
        interrupted: Deferred[None] = super().interrupt(reason)
        return interrupted

    def _discard(self, command: RemoteShellCommand) -> None:
        """Discard the command's output from now on, with all that waits to be stored."""
        assert self.master is not None
        command.logs["stdio"] = _Discarded(self.master.reactor)
        self.getLog("stdio").addHeader("the command was stopped: the rest of its output is discarded\n")

    def _ends_at(self) -> float:
        """Return when the whole build must have ended, in seconds of the epoch; its first script sets that."""
        if not self.hasProperty("ends_at"):
            self.setProperty("ends_at", self._now() + self._whole_build, "limit")
        return float(self.getProperty("ends_at"))

    def _watch(self, began: float, ends_at: float) -> None:
        """End the build when a limit has passed by GRACE_SECONDS; look again when the next one may have."""
        assert self.master is not None
        if self.stopped:  # Its build ends already, for another reason.
            return
        now = self._now()
        heard = max(began, self.worker.lastMessageReceived)
        silent_at, late_at = heard + self.timeout + GRACE_SECONDS, ends_at + GRACE_SECONDS
        if now < min(silent_at, late_at):
            wait = min(silent_at, late_at) - now
            self._limit = self.master.reactor.callLater(wait, self._watch, began, ends_at)
            return
        self._summary = self._late() if late_at <= now else self._silent()
        ending = ensureDeferred(self._end_build(self._summary))
        ending.addErrback(lambda failure: log.err(failure, "while ending a build that exceeded a limit"))

    def _now(self) -> float:
        assert self.master is not None
        return float(self.master.reactor.seconds())

    async def _end_build(self, sentence: str) -> None:
        assert self.build is not None
        await self.build.stopBuild(sentence, FAILURE)

    def _silent(self) -> str:
        return f"{self.what} was stopped: no output for {_duration(self.timeout)}"

    def _late(self) -> str:
        return f"{self.what} was stopped: the build took more than {_duration(self._whole_build)}"

    def _force_end(self, command: RemoteShellCommand) -> None:
        """End a command whose script has ended: a background process may keep its output open.

        For the worker, a command ends when all its output is closed, so the step would wait until `silence` is over.
        """
        self._end_forced = True
        why = "the script has ended, but processes that it left in the background keep its output open"
        self.getLog("stdio").addHeader(f"{why}: they are stopped\n")
        command.interrupt(why)

    @property
    def what(self) -> str:
        """The step's action, as the beginning of a sentence."""
        return f"{self.doing[:1].upper()}{self.doing[1:]}"

    def failure(self, status: int | None = None) -> str:
        """Return the sentence of a failure; `status` is the command's, for a script that did not report its own."""
        return f"{self.what} failed: {self.output.reason(status)}"

    def _sentence(self, result: int, command: RemoteShellCommand) -> str:
        if command.remote_failure_reason == "timeout_without_output":
            return self._silent()
        if command.remote_failure_reason == "timeout":
            return self._late()
        if result == CANCELLED:
            return f"{self.what} was cancelled"
        if self._printed_too_much:
            return f"{self.what} was stopped: it printed more than {MOST_OUTPUT >> 20} MiB"
        return self.failure(command.rc)

    def getCurrentSummary(self) -> dict[str, str]:
        """Return the step's action, with the percentage that the build prints."""
        percentage = self.output.percentage
        suffix = "" if percentage is None else f" {percentage} %"
        return {"step": f"{self.doing}{suffix}"}

    def getResultSummary(self) -> dict[str, str]:
        """Return the summary; on failure it is the build's, too."""
        if self.results in (SUCCESS, WARNINGS):
            return {"step": self._summary or self.doing}
        sentence = self._summary or f"{self.doing}: {statusToString(self.results)}"
        return {"step": sentence, "build": sentence}


def _duration(seconds: int) -> str:
    """Return seconds as people say them."""
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"
