"""Programs that read what a contributor's code made run here: with limits, without network, as nobody.

util-linux does it, so it holds whatever the program does. docs/adr/0014 says what each part keeps out,
and what is left where the master does not run as root.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.threads import deferToThreadPool
from twisted.python import log

from workers.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

_SECONDS = 1800
"""Wall time, and processor time, of one program."""

_MEMORY = 4 * 1024**3
_FILE = 256 * 1024**2
"""Bytes of one file that a program writes: filelists.xml.gz of Ceph has about one MiB."""

_ALONE = ("--net", "--ipc", "--pid", "--fork")
"""No network, and a process namespace: nothing that the program started outlives it."""

_WITH_PARENT = ("--pdeathsig", "KILL")
"""If the master is killed, the kernel kills `unshare`, and with it the program; the next master wipes their files.
Set twice, because the kernel clears it when the program becomes nobody."""

_ELSEWHERE = 'mount --bind "$1" /mnt && cd /mnt && shift && exec "$@"'
"""Mounts one directory at /mnt. The user nobody may not search the path to staging, which apt-ftparchive does."""


_PASSING = re.compile("temporarily unavailable|Cannot allocate memory")


class Confined:
    """Runs programs in a directory that they may read; they may write to paths that `give` was called with."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._namespaces: list[str] | None = None

    async def in_thread(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a function that blocks in a thread of the reactor's pool, and return what it returns."""
        pool = self._reactor.getThreadPool()
        result: T = await deferToThreadPool(self._reactor, pool, function, *arguments, **options)
        return result

    async def run(self, directory: Path, command: Sequence[str], **environment: str) -> bytes:
        """Return the standard output of a program that starts in `directory`; ValueError says how it failed.

        The program gets only `environment`, PATH, a locale and a HOME that does not exist.
        """
        if self._namespaces is None:
            self._namespaces = await self._allowed()
        limits = [f"--as={_MEMORY}", f"--cpu={_SECONDS}", f"--fsize={_FILE}", "--core=0"]
        if "--mount" in self._namespaces:
            nobody = pwd.getpwnam("nobody")
            there = ["sh", "-c", _ELSEWHERE, "sh", str(directory)]
            user = [
                f"--reuid={nobody.pw_uid}",
                f"--regid={nobody.pw_gid}",
                "--clear-groups",
                "--bounding-set=-all",
            ]
        else:
            there, user = ["env", f"--chdir={directory}"], []
        wrapped = [
            "setpriv", *_WITH_PARENT, "--", *self._namespaces, *there,
            "setpriv", *user, "--inh-caps=-all", "--no-new-privs", *_WITH_PARENT, "prlimit", *limits, *command,
        ]  # fmt: skip
        base = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
        finished = await run(self._reactor, wrapped, base | environment, _SECONDS)
        if finished.status == 0:
            return finished.output
        lines = [line for line in finished.errors.splitlines() if line.strip()]
        said = f": {lines[-1].strip()[:300]}" if lines else ""
        if finished.status is None:
            raise ValueError(f"{command[0]} was stopped after {_SECONDS} s, or 64 MiB of output{said}")
        if finished.status < 0:
            name = signal.Signals(-finished.status).name
            raise ValueError(
                f"{command[0]} was ended by {name}; it may use {_MEMORY >> 30} GiB of memory and {_SECONDS} s{said}"
            )
        raise ValueError(f"{command[0]} ended with status {finished.status}{said}")

    async def _allowed(self) -> list[str]:
        """Return the `unshare` command with as many namespaces as this machine allows; [] for none.

        ValueError if it is too busy to say: what is returned holds until the master stops.
        """
        for namespaces in (("--mount", *_ALONE), ("--user", "--map-current-user", *_ALONE)):
            if "--mount" in namespaces and os.geteuid() != 0:
                continue
            command = ["unshare", *namespaces]
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            finished = await run(self._reactor, [*command, "true"], environment, 60)
            if finished.status == 0:
                return command
            if finished.status is None or finished.status < 0 or _PASSING.search(finished.errors):
                said = f": {finished.errors.strip()[:300]}" if finished.errors.strip() else ""
                raise ValueError(
                    f"whether this machine allows namespaces could not be found out{said}; request it again"
                )
        log.msg("this machine allows no namespaces: programs that read uploads run with limits only")
        return []


def give(path: Path) -> None:
    """Make the user that confined programs run as the owner of a file or directory."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
