"""The `local` provider: builds on the master's own machine, each in a throw-away place.

As root, the place is an overlay of a prepared root in namespaces of its own. Without root it is a
directory and a plain process: for code that you trust.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, error, protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python import log

from workers.engine import Limits, abandoned, container, remove_cgroups
from workers.network import of_apt_sources
from workers.provider import NoMachine, NoMachineEver
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter, kill_all, mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.python.failure import Failure

    from model.targets import Target
    from workers.network import Destination
    from workers.provider import Boot, Machine

_MARK = "BUILDPACKAGES_SCRATCH"
"""In the environment of everything that runs in a scratch directory; names that directory."""

_SCRIPTS = Path(__file__).parent / "scripts"
_CONSOLE = 65536
_PATIENCE = 20.0
"""Seconds that a killed machine may take until nothing of it is left."""


@dataclass(frozen=True)
class LocalSettings:
    """What the provider needs to know."""

    scratch: Path
    namespaces: bool
    master_host: str
    master_port: int
    roots: Roots
    environment: Mapping[str, str] = field(default_factory=dict)
    crun: bool = False
    """Whether crun makes the namespaces, with limits."""
    limits: Limits = field(default_factory=Limits)
    """Of each build; only crun enforces them."""
    reach: frozenset[Destination] = frozenset()
    """What builds may connect to; with crun only."""
    most: int = 64
    """Most machines at the same time."""


class LocalProvider:
    """Makes machines out of this one."""

    def __init__(self, settings: LocalSettings) -> None:
        """Take the settings; nothing is touched before the first start."""
        self._settings = settings
        self._preparing = defer.DeferredLock()
        self._machines = 0

    def configure(self, settings: LocalSettings) -> None:
        """Take new settings; what runs goes on as it was begun."""
        self._settings = settings

    async def start(self, boot: Boot) -> Machine:
        """Start a worker in a place of its own; a root that is not there yet is made first."""
        self._machines += 1
        try:
            return await self._start(boot)
        except BaseException:
            self._machines -= 1
            raise

    async def _start(self, boot: Boot) -> Machine:
        settings = self._settings
        settings.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = settings.scratch / f"{boot.worker}-{secrets.token_hex(4)}"
        scratch.mkdir(mode=0o700)
        try:
            if settings.namespaces:
                command, environment = await self._in_namespaces(boot, scratch)
            else:
                command, environment = self._plain(boot, scratch)
            environment |= {**settings.environment, _MARK: str(scratch)}
            machine = LocalMachine(scratch, f"{scratch.name} on this machine", self._gone)
            config = {
                "host": settings.master_host,
                "port": settings.master_port,
                "name": boot.worker,
                "password": await boot.login(),
            }
            machine.spawn(command, environment, json.dumps(config).encode() + b"\n")
        except OSError as failure:
            await _remove(scratch)
            raise NoMachine(f"it cannot be started: {failure}") from None
        except BaseException:
            await _remove(scratch)
            raise
        return machine

    def _gone(self) -> None:
        self._machines -= 1

    def next_request(self, target: Target, requests: Sequence[Any]) -> Any:
        """Return the first one, or None at the limit: a slot that a reload removed may still have a machine."""
        if self._machines >= self._settings.most:
            return None
        return next(iter(requests), None)

    async def close(self, seconds: float) -> None:
        """Do nothing: the workers end their own machines, and the kernel those of a killed master."""

    async def recover(self, changed: Callable[[], None]) -> None:
        """End what a killed master left running, and remove its directories."""
        directory = self._settings.scratch
        left = [*(directory.iterdir() if directory.is_dir() else ()), *abandoned(directory)]
        for scratch in sorted(left):
            try:
                await _remove(scratch)
            except RuntimeError as failure:
                log.msg(f"left by an earlier master, and still there: {failure}")

    async def _in_namespaces(self, boot: Boot, scratch: Path) -> tuple[list[str], dict[str, str]]:
        root = Root.of(boot.target, host_suite())
        roots = self._settings.roots
        if not roots.ready(root):
            await self._prepare(boot, root)
        library = "/opt/buildbot-worker"
        worker = (
            "sh", "-c", 'mkdir -p "$HOME/worker" && cd "$HOME/worker" && exec "$@"', "sh",
            "python3", "-I", f"{library}/run-worker.py", library,
        )  # fmt: skip
        if self._settings.crun:
            limits = self._settings.limits
            reach = self._settings.reach | of_apt_sources(roots.path(root))
            command = container(roots.path(root), scratch, "build", *worker, limits=limits, reach=reach)
        else:
            command = enter(roots.path(root), scratch, "build", *worker)
        environment = _clean_environment("/home/build", root.stand_in)
        return command, environment

    async def _prepare(self, boot: Boot, root: Root) -> None:
        roots = self._settings.roots
        await boot.tell(f"making the root of {root.suite}: a minute or two, once")
        await self._preparing.acquire()
        try:
            await deferToThread(lambda: list(roots.prepare(root)))
        except (RuntimeError, OSError) as failure:
            raise NoMachine(f"the root of {root.suite} cannot be made: {failure}") from None
        finally:
            self._preparing.release()

    def _plain(self, boot: Boot, scratch: Path) -> tuple[list[str], dict[str, str]]:
        if boot.target.pkg_type == "deb" and boot.target.dist != host_suite():
            raise NoMachineEver(f"without root, this machine builds {host_suite() or 'no'} packages only")
        stand_in = "a plain process on the master's machine, for code that you trust"
        if boot.target.pkg_type == "rpm":
            stand_in += f"; a stand-in for {boot.target.dist}"
        (scratch / "worker").mkdir()
        command = [
            "setpriv", "--pdeathsig", "KILL", "--",
            "env", "--chdir", str(scratch / "worker"),
            sys.executable, "-I", str(_SCRIPTS / "run-worker.py"),
        ]  # fmt: skip
        environment = _clean_environment(str(scratch), stand_in)
        return command, environment


class LocalMachine:
    """One started worker and its scratch directory."""

    def __init__(self, scratch: Path, description: str, gone: Callable[[], None]) -> None:
        """`gone` is called once: when the machine is removed, or its removal has failed for good."""
        self.description = description
        self._scratch = scratch
        self._gone = gone
        self._stopped = False
        self._process = _Process()

    def spawn(self, command: list[str], environment: dict[str, str], config: bytes) -> None:
        """Start the process, and tell it what it must know."""
        transport = _reactor().spawnProcess(self._process, command[0], command, environment, "/")
        transport.write(config)
        transport.closeStdin()

    async def check(self) -> str:
        """Give nothing while the process runs, or how it ended."""
        if not self._process.ended.called:
            return ""
        lines = self._process.console.decode(errors="replace").strip().splitlines()
        return f"its process ended ({self._process.how}); its last words: {' / '.join(lines[-3:]) or 'none'}"

    def begin_to_stop(self) -> None:
        """Do nothing: `stop` takes no time."""

    async def stop(self) -> None:
        """Kill it and all that it started, and remove its directory."""
        ended = await self.check()
        if ended:
            log.msg(f"{self.description} was not stopped, yet {ended}")
        self._process.kill()
        try:
            await _remove(self._scratch)
        finally:
            if not self._stopped:
                self._stopped = True
                self._gone()


class _Process(protocol.ProcessProtocol):
    transport: Any

    def __init__(self) -> None:
        self.ended: defer.Deferred[None] = defer.Deferred()
        self.how = ""
        self.console = bytearray()

    def outReceived(self, data: bytes) -> None:
        self.console = (self.console + data)[-_CONSOLE:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        value = reason.value
        signal_number, code = getattr(value, "signal", None), getattr(value, "exitCode", 0)
        self.how = f"by signal {signal_number}" if signal_number else f"with status {code or 0}"
        self.ended.callback(None)

    def kill(self) -> None:
        if self.transport is not None:
            with suppress(error.ProcessExitedAlready):
                self.transport.signalProcess("KILL")


async def _remove(scratch: Path) -> None:
    """Kill all that runs in a scratch directory, until nothing does, and remove it."""
    reactor = _reactor()
    deadline = reactor.seconds() + _PATIENCE
    cgroups: list[Path] = []
    while True:
        running = await deferToThread(kill_all, f"{_MARK}={scratch}", mounted(scratch))
        if not running:
            cgroups = await deferToThread(_delete, scratch)
            if not scratch.exists() and not cgroups:
                return
        if reactor.seconds() > deadline:
            still = "".join(f"; {path} is not empty" for path in cgroups)
            raise RuntimeError(f"{scratch} cannot be removed; still running in it: {running}{still}")
        await deferLater(reactor, 0.05)


def _delete(scratch: Path) -> list[Path]:
    """Remove a directory however deep a build has made it, and its cgroups; return the cgroups that cannot be removed yet."""
    cgroups = remove_cgroups(scratch)
    subprocess.run(
        ["rm", "-rf", "--one-file-system", "--", str(scratch)],
        check=False, stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    return cgroups


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _clean_environment(home: str, stand_in: str) -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "USER": "build" if os.geteuid() == 0 else os.environ.get("USER", "build"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "BUILDPACKAGES_STAND_IN": stand_in,
    }
