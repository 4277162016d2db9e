"""The signing key: made on first start, and never off the master."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from workers.processes import run

if TYPE_CHECKING:
    from pathlib import Path

_UID = "Ceph automated package signing key (made on demand) <packages@localhost>"
"""teuthology looks for `Ceph automated package` in the keys that a test node trusts."""

_LONGEST = 106
"""Bytes of a socket's name, unix(7), as gpg-agent counts them."""


class SigningKey:
    """Signs with gpg, in a home directory of its own."""

    def __init__(self, reactor: Any, home: Path) -> None:
        """Take the directory that holds the key; it is made, with mode 0700, when first needed."""
        self._reactor = reactor
        self._home = home

    async def prepare(self) -> None:
        """Make the key unless there is one; ValueError says why gpg could not."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.chmod(0o700)
        await self._sockets()
        listed = await self._gpg("--list-secret-keys", "--with-colons")
        if b"\nfpr:" not in b"\n" + listed:
            await self._gpg("--quick-generate-key", _UID, "rsa3072", "sign", "never", seconds=300)

    async def public_key(self) -> bytes:
        """Give the public key, in ASCII armour."""
        return await self._gpg("--armor", "--export")

    async def sign(self, path: Path) -> None:
        """Sign a Release file as InRelease and Release.gpg, any other beside it as .asc."""
        if path.name == "Release":
            clear, detached = path.with_name("InRelease"), path.with_name("Release.gpg")
            await self._gpg("--yes", "--output", str(clear), "--clear-sign", str(path))
        else:
            detached = path.with_name(path.name + ".asc")
        await self._gpg("--yes", "--armor", "--output", str(detached), "--detach-sign", str(path))

    async def _sockets(self) -> None:
        """Say what is wrong where gpg would say that no agent is running."""
        asked = ["gpgconf", "--homedir", str(self._home), "--list-dirs", "agent-browser-socket"]
        longest = (await run(self._reactor, asked, _environment(), 60)).output.strip()
        if len(longest) > _LONGEST:
            raise ValueError(
                f"{self._home.parent}: {len(longest) - _LONGEST} bytes too long a name for the sockets of gpg's agent;"
                " choose a shorter `state`"
            )

    async def stop(self) -> None:
        """End gpg's agent, which would outlive the master."""
        await run(
            self._reactor, ["gpgconf", "--homedir", str(self._home), "--kill", "all"], _environment(), 10
        )

    async def _gpg(self, *arguments: str, seconds: float = 60) -> bytes:
        command = [
            "gpg", "--homedir", str(self._home), "--batch", "--no-tty", "--pinentry-mode", "loopback",
            "--passphrase", "", "--digest-algo", "SHA512", *arguments,
        ]  # fmt: skip
        finished = await run(self._reactor, command, _environment(), seconds)
        if finished.status != 0:
            last = (finished.errors.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"signing failed: gpg ended with status {finished.status}: {last}")
        return finished.output


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
