"""The latent worker: a machine of its own for one build, made for it and gone after it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from buildbot.interfaces import (
    LatentWorkerCannotSubstantiate,
    LatentWorkerFailedToSubstantiate,
)
from buildbot.process.build import Build
from buildbot.process.results import EXCEPTION, RETRY
from buildbot.util.twisted import async_to_deferred
from buildbot.worker.latent import AbstractLatentWorker
from twisted.python import log

from master.model.targets import Target
from workers.provider import Boot, NoMachine, NoMachineEver

if TYPE_CHECKING:
    from workers.provider import Machine, Provider


class OneBuild(Build):
    """A build that ends with the reason why it got no machine, if that is why it ends."""

    no_machine = ""

    def buildFinished(self, text: list[str], results: int) -> Any:
        """Show the reason in place of Buildbot's words, which give none."""
        if self.no_machine and results in (EXCEPTION, RETRY):
            text = [self.no_machine]
        return super().buildFinished(text, results)


class OneBuildWorker(AbstractLatentWorker):
    """Asks its provider for a machine for every build, with a fresh password, and ends it after.

    A build whose machine fails is tried again, on another machine, at most `attempts` times.
    """

    quarantine_max_timeout = 30
    """Seconds. The slot is not to blame for a machine that is gone; others wait for the slot."""

    def checkConfig(  # type: ignore[override]
        self, name: str, *, provider: Provider, attempts: int, **kwargs: Any
    ) -> None:
        """Take the provider, and how often a build is tried."""
        super().checkConfig(name, None, build_wait_timeout=0, **kwargs)
        self._machine: Machine | None = None
        self._build: OneBuild | None = None

    @async_to_deferred
    async def reconfigService(  # type: ignore[override]
        self, name: str, *, provider: Provider, attempts: int, **kwargs: Any
    ) -> None:
        """Take them again; a password in use stays."""
        password = self.getRandomPass()
        await super().reconfigService(
            name, password, build_wait_timeout=0, max_builds=1, check_instance_interval=1, **kwargs
        )
        self._provider = provider
        self._attempts = attempts

    def _generate_random_password(self) -> str:
        return secrets.token_urlsafe(24)

    @async_to_deferred
    async def start_instance(self, build: OneBuild) -> bool:
        """Ask for a machine; Buildbot then waits for the worker to attach."""
        assert self.master is not None
        self._build = build
        await self._give_up_after_attempts(build)
        self.password = self._generate_random_password()
        await self.registration.update(self, self.master.config)
        target = Target.from_name(build.builder.name)

        async def tell(text: str) -> None:
            await self.master.data.updates.setBuildStateString(build.buildid, text)

        boot = Boot(self.name, target, self.password, await build.getUrl(), tell)
        try:
            self._machine = await self._provider.start(boot)
        except NoMachineEver as error:
            build.no_machine = f"no machine for {target}: {error}"
            raise LatentWorkerCannotSubstantiate(build.no_machine) from None
        except NoMachine as error:
            build.no_machine = f"no machine yet for {target}: {error}"
            raise LatentWorkerFailedToSubstantiate(self.name, build.no_machine) from None
        return True

    @async_to_deferred
    async def check_instance(self) -> tuple[bool, str]:  # type: ignore[override]
        """Say whether the machine still lives, while its worker has not attached."""
        reason = await self._machine.check() if self._machine else "it was never made"
        if reason and self._build is not None:
            self._build.no_machine = f"the machine ended before its worker attached: {reason}"
        return (not reason, reason)

    @async_to_deferred
    async def stop_instance(self, fast: bool = False) -> bool:
        """End the machine, and make the password worthless."""
        assert self.master is not None
        machine, self._machine = self._machine, None
        self.password = self._generate_random_password()
        await self.registration.update(self, self.master.config)
        if machine is not None:
            await machine.stop()
            log.msg(f"{self.name}: {machine.description} is gone")
        return True

    def _missing_timer_fired(self) -> Any:
        if self._build is not None:
            self._build.no_machine = f"no worker attached within {self.missing_timeout} s"
        return super()._missing_timer_fired()

    async def _give_up_after_attempts(self, build: Any) -> None:
        assert self.master is not None
        request_id = build.requests[0].id
        builds = await self.master.data.get(("buildrequests", request_id, "builds"))
        failed = [one for one in builds if one["results"] == RETRY]
        if len(failed) >= self._attempts:
            build.no_machine = (
                f"infrastructure failed {len(failed)} times in a row, at last: {failed[-1]['state_string']}"
            )
            raise LatentWorkerCannotSubstantiate(build.no_machine)
