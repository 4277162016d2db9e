"""The latent worker: a machine of its own for one build, made for it and gone after it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from buildbot.interfaces import (
    LatentWorkerCannotSubstantiate,
    LatentWorkerFailedToSubstantiate,
)
from buildbot.process.build import Build
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, worst_status
from buildbot.util import Notifier
from buildbot.util.twisted import async_to_deferred
from buildbot.worker.latent import AbstractLatentWorker, States
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.python import log
from twisted.python.failure import Failure
from twisted.spread.pb import Error

from model.targets import Target
from workers.provider import NoMachine, NoMachineEver
from workers.sizes import Size

if TYPE_CHECKING:
    from workers.provider import Machine, Provider


ANSWER_SECONDS = 10.0
"""What a worker may take to end what it does for a build that is cancelled. Its machine goes anyway, and nothing of the build is kept."""


_MACHINE_FAILED = "machine_failed"
"""A property of builds that are tried again because of their machine, and not because the master ended."""


class OneBuild(Build):
    """A build that ends with the reason why it got no machine, if that is why it ends."""

    no_machine = ""
    _parting: Any = None
    _master_stops = False
    _limit_exceeded = ""

    @async_to_deferred
    async def startBuild(self, workerforbuilder: Any) -> None:
        """End, too, if it was cancelled before it began: Buildbot 4.3 leaves it, and its slot, as they are."""
        await super().startBuild(workerforbuilder)
        if self.stopped and self._preparation_step is None and not self.finished:
            await self.buildFinished(["cancelled", f"({self.stopped_reason})"], CANCELLED)

    @async_to_deferred
    async def stopBuild(self, reason: str = "", results: int = CANCELLED) -> None:
        """Part from a worker that does not answer: its machine ends all the same.

        If the master stops, which is when a build is to be tried again, at once: there are seconds in which to see
        the machine's end, and the worker's answer is of no use. Otherwise after ANSWER_SECONDS.

        A step stops its build with the result FAILURE when the build exceeds a limit; `reason` becomes the build's sentence.
        """
        if self.finished:
            return
        if results == FAILURE:
            self._limit_exceeded = reason
        if results == RETRY:
            # Both before all else: the machines need the longest to go, and the build may end within the next call.
            self._master_stops = True
            if self.workerforbuilder is not None:
                self.workerforbuilder.worker.end_machine()
        stopping = super().stopBuild(reason, results)
        if results == RETRY:
            self._part()
        elif self._parting is None:
            self._parting = self.master.reactor.callLater(ANSWER_SECONDS, self._part)
        await stopping

    def _part(self) -> None:
        if self.workerforbuilder is not None:
            self.workerforbuilder.worker.part()

    @async_to_deferred
    async def buildFinished(self, text: list[str], results: int) -> None:
        """Show the reason in place of Buildbot's words, which give none; note if it was the machine that failed.

        What was cancelled is not tried again, though its worker was lost before it had answered.
        """
        # As from Buildbot's own first line on: nobody shall end it a second time meanwhile.
        self.finished = True
        if self._parting is not None:
            if self._parting.active():
                self._parting.cancel()
            if results == RETRY:
                text, results = ["cancelled", f"({self.stopped_reason})"], CANCELLED
        if self._limit_exceeded:
            text, results = [self._limit_exceeded], FAILURE
            self.results = results
        if text[:1] == ["failed"] and len(text) > 1:
            text = text[1:]  # The step's sentence already names it.
        if self.no_machine and results in (EXCEPTION, RETRY):
            text = [self.no_machine]
        if worst_status(self.results, results) == RETRY and not self._master_stops:
            # Before the request is free for another build, which counts them.
            self.setProperty(_MACHINE_FAILED, True, "machine")
            await self.master.data.updates.setBuildProperties(self.buildid, self)
        await super().buildFinished(text, results)

    @property
    def preparation_step(self) -> Any:
        """The step in whose time the machine is made; its logs are the machine's."""
        return self._preparation_step


class BuildBoot:
    """The boot of the machine for one build; what the provider is given."""

    def __init__(self, slot: OneBuildWorker, build: OneBuild, build_url: str) -> None:
        """Take the slot, the build, and the address of the build's page."""
        properties = build.getProperties()
        self.worker = slot.name
        self.target = Target.from_name(str(properties.getProperty("target") or build.builder.name))
        self.build_url = build_url
        self.asker = str(properties.getProperty("owner") or "nobody")
        self.request_id = int(build.requests[0].id)
        self.good = _size(properties.getProperty("good_machine"))
        self.least = _size(properties.getProperty("min_machine"))
        self._slot = slot
        self._build = build
        self._attached: Notifier[None] = Notifier()
        self._has_attached = False
        self._log: Any = None
        self._untold: list[tuple[str, str]] = []
        self._telling: Deferred[None] | None = None
        self._began = slot.master.reactor.seconds()

    async def login(self, password: str = "") -> str:
        """Take the password of the next machine, a fresh one if none is given; any before is worth nothing."""
        return await self._slot.change_password(password)

    async def tell(self, text: str) -> None:
        """Show the asker what is being waited for: on the build's page, on the step, and in its log.

        The database is not waited for: with many builds at once, a machine would be asked for later.
        """
        seconds = self._slot.master.reactor.seconds() - self._began
        self._untold.append((text, f"{seconds:7.1f} s  {text}\n"))
        if self._telling is None:
            self._telling = telling = ensureDeferred(self._tell_all())
            telling.addErrback(lambda failure: log.err(failure, "while telling what is waited for"))
            if telling.called:
                self._telling = None

    async def _tell_all(self) -> None:
        """Write what is to be told; of what came meanwhile, all goes to the log, and the last is shown."""
        updates = self._slot.master.data.updates
        step = self._build.preparation_step
        try:
            while self._untold:
                untold, self._untold = self._untold, []
                text = untold[-1][0]
                if not self._has_attached:  # by then the page has more to say
                    await updates.setBuildStateString(self._build.buildid, text)
                await updates.setStepStateString(step.stepid, text)
                if self._log is None:
                    self._log = await step.addLog("machine", "t")
                await self._log.addContent("".join(line for _, line in untold))
        finally:
            self._telling = None

    async def keep(self, name: str, text: str) -> None:
        """Keep a text as a log of the build."""
        await self._build.preparation_step.addCompleteLog(name, text)

    def note(self, **values: str) -> None:
        """Keep values as properties of the build."""
        for name, value in values.items():
            self._build.setProperty(name, value, "machine")

    def asked(self, name: str) -> str:
        """Give a property of the build; empty if it has none."""
        value = self._build.getProperty(name)
        return "" if value is None else str(value)

    async def attached(self) -> None:
        """Wait until the worker has attached."""
        await self._attached.wait()

    def lost(self, reason: str) -> None:
        """End the worker's connection, so that the build is tried on another machine."""
        self._slot.machine_lost(self._build, reason)

    def has_attached(self) -> None:
        """Take note that the worker has."""
        self._has_attached = True
        self._attached.notify(None)

    async def close(self) -> None:
        """Finish the log."""
        if self._telling is not None:
            await self._telling
        kept, self._log = self._log, None
        if kept is not None:
            await kept.finish()


class OneBuildWorker(AbstractLatentWorker):
    """Asks its provider for a machine for every build, with a fresh password, and ends it after.

    A build whose machine fails is tried again, on another machine, at most `attempts` times.
    """

    quarantine_max_timeout = 30
    """Seconds. The slot is not to blame for a machine that is gone; others wait for the slot."""

    def checkConfig(  # type: ignore[override]
        self, name: str, *, provider: Provider, attempts: int, takes_builds: bool = True, **kwargs: Any
    ) -> None:
        """Check the configuration; a slot with `takes_builds=False` only finishes its current build."""
        super().checkConfig(name, None, build_wait_timeout=0, **kwargs)
        self._machine: Machine | None = None
        self._build: OneBuild | None = None
        self._boot: BuildBoot | None = None
        self._starting: Deferred[Machine] | None = None
        self.takes_builds = False

    @async_to_deferred
    async def reconfigService(  # type: ignore[override]
        self, name: str, *, provider: Provider, attempts: int, takes_builds: bool = True, **kwargs: Any
    ) -> None:
        """Apply a new configuration; a password in use stays."""
        password = self.getRandomPass()
        await super().reconfigService(
            name, password, build_wait_timeout=0, max_builds=1, check_instance_interval=1, **kwargs
        )
        self._provider = provider
        self._attempts = attempts
        before, self.takes_builds = self.takes_builds, takes_builds
        if takes_builds and not before:
            # Buildbot looks for slots before it reconfigures them.
            self.botmaster.maybeStartBuildsForWorker(self.name)

    def canStartBuild(self) -> bool:
        """Return whether the slot may have another build."""
        return self.takes_builds and bool(super().canStartBuild())

    def updateWorker(self) -> Deferred[None]:
        """Offer the slot to new builders.

        Buildbot also sends the list of builders to an attached worker, and a reload waits for its answer. This worker
        already has its only build, and a machine that is gone never answers.
        """
        if self.state is not States.SUBSTANTIATED:
            updated: Deferred[None] = super().updateWorker()
            return updated
        for builder in self.botmaster.getBuildersForWorker(self.name):
            if builder.name not in self.workerforbuilders:
                builder.addLatentWorker(self)
        return succeed(None)

    def _generate_random_password(self) -> str:
        return secrets.token_urlsafe(24)

    async def change_password(self, password: str = "") -> str:
        """Take a password, or a fresh one, as the only one from now on."""
        assert self.master is not None
        self.password = password or self._generate_random_password()
        await self.registration.update(self, self.master.config)
        return self.password

    @async_to_deferred
    async def start_instance(self, build: OneBuild) -> bool:
        """Begin to make a machine; Buildbot then waits for the worker to attach.

        Making it may take hours, of which the provider gives account; it can be stopped all the time.
        """
        self._build = build
        await self._give_up_after_attempts(build)
        self._boot = BuildBoot(self, build, await build.getUrl())
        # Buildbot's timer starts when the build does. Ours starts when there is something to wait for.
        self.stopMissingTimer()
        self._starting = Deferred.fromCoroutine(self._provider.start(self._boot))
        self._starting.addCallbacks(self._started, self._not_started)
        return True

    def _started(self, machine: Machine) -> None:
        self._starting = None
        self._machine = machine
        if self.state is States.SUBSTANTIATING_STARTING:
            self.startMissingTimer()

    def _not_started(self, failure: Failure) -> None:
        self._starting = None
        build = self._build
        if failure.check(CancelledError) or build is None:
            return
        error = failure.value
        ever = isinstance(error, NoMachineEver)
        if not isinstance(error, NoMachine | NoMachineEver):
            log.err(failure, f"{self.name}: while making a machine for {build}")
            error = RuntimeError(f"the provider failed: {type(error).__name__}: {error}")
        target = self._boot.target if self._boot else build.builder.name
        build.no_machine = f"no machine {'' if ever else 'yet '}for {target}: {error}"
        if ever:
            refusal: Exception = LatentWorkerCannotSubstantiate(build.no_machine)
        else:
            refusal = LatentWorkerFailedToSubstantiate(self.name, build.no_machine)
        self._substantiation_failed(Failure(refusal))

    @async_to_deferred
    async def attached(self, conn: Any) -> None:
        """Let the boot know, once Buildbot has taken the worker in. Refuse a worker that is not expected.

        Buildbot refuses it as well, but then waits for the end of its connection, which is never reported because the
        login failed. A master that had refused one worker could not stop.
        """
        if self.state is not States.SUBSTANTIATING_STARTING:
            conn.loseConnection()
            conn.notifyDisconnected()
            raise Error(f"no build of {self.name} waits for its worker")
        await super().attached(conn)
        if self._boot is not None:
            self._boot.has_attached()

    @async_to_deferred
    async def check_instance(self) -> tuple[bool, str]:  # type: ignore[override]
        """Say whether the machine still lives, while its worker has not attached."""
        reason = await self._machine.check() if self._machine else ""
        if reason and self._build is not None:
            self._build.no_machine = f"the machine ended before its worker attached: {reason}"
        return (not reason, reason)

    @async_to_deferred
    async def stop_instance(self, fast: bool = False) -> bool:
        """End the machine, or the making of one, and then make the password worthless: nothing else may delay the end."""
        starting, self._starting = self._starting, None
        machine, self._machine = self._machine, None
        boot, self._boot = self._boot, None
        if starting is not None:
            starting.addErrback(lambda failure: failure.trap(CancelledError))
            starting.cancel()
        try:
            if machine is not None:
                await machine.stop()
                log.msg(f"{self.name}: {machine.description} is ended")
        finally:
            # Whatever the build has left there, as a worker that was made to stand still, must not hold the slot.
            self.part()
            try:
                await self.change_password()
            finally:
                if boot is not None:
                    await boot.close()
        return True

    def end_machine(self) -> None:
        """Have the end of the machine begin, if there is one; `stop_instance` sees to the rest."""
        if self._machine is not None:
            self._machine.begin_to_stop()

    def machine_lost(self, build: OneBuild, reason: str) -> None:
        """Give up a machine that is gone without having closed its connection."""
        if build is self._build and self.conn is not None:
            log.msg(f"{self.name}: {reason}")
            build.no_machine = reason
            self.part()

    def part(self) -> None:
        """Close the connection, if there is one, without a word from the other side.

        With TLS, Buildbot's way waits for one until TCP gives up, and a machine that is gone gives none.
        """
        if self.conn is not None:
            transport = self.conn.mind.broker.transport
            self.conn.loseConnection()
            transport.abortConnection()

    def _missing_timer_fired(self) -> Any:
        if self._build is not None:
            self._build.no_machine = f"no worker attached within {self.missing_timeout} s"
        return super()._missing_timer_fired()

    async def _give_up_after_attempts(self, build: Any) -> None:
        assert self.master is not None
        request_id = build.requests[0].id
        builds = await self.master.data.get(("buildrequests", request_id, "builds"))
        failed = [
            one
            for one in builds
            if one["results"] == RETRY
            and _MACHINE_FAILED in await self.master.data.get(("builds", one["buildid"], "properties"))
        ]
        if len(failed) >= self._attempts:
            times = "once" if len(failed) == 1 else f"{len(failed)} times"
            build.no_machine = f"infrastructure failed {times}, at last: {failed[-1]['state_string']}"
            raise LatentWorkerCannotSubstantiate(build.no_machine)


def _size(value: Any) -> Size | None:
    """Read a size that a request asks for: disk in GB, ram in MB, cpus."""
    if not isinstance(value, dict):
        return None
    return Size(**{name: int(value.get(name) or 0) for name in ("disk", "ram", "cpus")})
