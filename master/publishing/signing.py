"""The signing keys, which never leave the master: `python -m master.publishing.signing show|rotate|retire`.

A key is an OpenPGP primary key with one signing subkey; both end on the same day. Usually there is one. After
`rotate` there are two: all metadata has a signature of each, so that test nodes which trust either one
install. docs/operating.md has the steps of a rotation, docs/adr/0021 the reasons.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from master.settings import Settings, SettingsError, default_path
from model import command_line
from workers.processes import run

if TYPE_CHECKING:
    from collections.abc import Sequence

_UID = "Ceph automated package signing key (made on demand) <packages@localhost>"
"""teuthology looks for `Ceph automated package` in the keys that a test node trusts."""

_ALGORITHM = "rsa3072"
"""rpm of EL 8 knows no curves."""

_LONGEST = 106
"""Bytes of a socket's name, unix(7), as gpg-agent counts them."""

_ENDED = "Every signing key has ended: run `make rotate-key`, and put the new key.asc on the test nodes"

WARN_DAYS = 30
_DAY = 24 * 3600


@dataclass(frozen=True)
class Key:
    """One secret key that can sign now."""

    fingerprint: str
    """Of the primary key, by which nodes know it."""
    signer: str
    """Fingerprint of the subkey, or primary key, that makes the signatures."""
    created: int
    expires: int | None
    """Seconds since the epoch; None if it never ends."""

    def __str__(self) -> str:
        """Return the fingerprint and the last day."""
        return f"{self.fingerprint}, {f'ends on {_date(self.expires)}' if self.expires else 'never ends'}"


class SigningKey:
    """Signs with gpg, in a home directory of its own."""

    def __init__(self, reactor: Any, home: Path, days: int = 730) -> None:
        """`home` is made, with mode 0700, when it is first needed; new keys end after `days`."""
        self._reactor = reactor
        self._home = home
        self._days = days

    async def prepare(self) -> None:
        """Make a key unless there is one; ValueError says why gpg could not, or that the last one has ended."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.chmod(0o700)
        await self._sockets()
        if b"\nfpr:" not in b"\n" + await self._listed():
            await self._make()
        await self._usable()

    async def keys(self) -> list[Key]:
        """Return the keys that can sign now, the oldest first."""
        return usable_keys((await self._listed()).decode())

    async def warnings(self, now: float | None = None) -> list[str]:
        """Return a sentence for each key that needs the operator."""
        return key_warnings(await self.keys(), time.time() if now is None else now)

    async def rotate(self) -> list[Key]:
        """Make another key, which signs besides the present one; ValueError if there are two already."""
        keys = await self.keys()
        if len(keys) > 1:
            raise ValueError(
                f"there are {len(keys)} signing keys already: the older one must retire before a third is made"
            )
        await self._make()
        return await self.keys()

    async def retire(self, *, forget: bool = False) -> list[Key]:
        """Remove the secret part of each key but the newest one; `forget` removes the public part as well."""
        *older, newest = await self._usable()
        if not older:
            raise ValueError(f"{newest.fingerprint} is the only signing key: rotate first")
        for key in older:
            await self._gpg("--yes", "--delete-secret-keys", key.fingerprint)
            if forget:
                await self._gpg("--yes", "--delete-keys", key.fingerprint)
        return await self.keys()

    async def public_key(self) -> bytes:
        """Return all public keys in one ASCII armour: apt reads the first armour of a file only."""
        return await self._gpg("--armor", "--export")

    async def sign(self, path: Path) -> None:
        """Sign a Release file as InRelease and Release.gpg, any other file beside it as .asc, with every key."""
        signers = [word for key in await self._usable() for word in ("--local-user", f"{key.signer}!")]
        if path.name == "Release":
            clear, detached = path.with_name("InRelease"), path.with_name("Release.gpg")
            await self._gpg("--yes", *signers, "--output", str(clear), "--clear-sign", str(path))
        else:
            detached = path.with_name(path.name + ".asc")
        await self._gpg("--yes", *signers, "--armor", "--output", str(detached), "--detach-sign", str(path))

    async def oldest(self) -> Key:
        """Return the key that nodes have known for longest: it signs what has room for one signature only."""
        return (await self._usable())[0]

    async def signature(self, path: Path, key: Key) -> bytes:
        """Return a binary signature of a file by one key."""
        return await self._gpg("--local-user", f"{key.signer}!", "--output", "-", "--detach-sign", str(path))

    async def _usable(self) -> list[Key]:
        keys = await self.keys()
        if not keys:
            raise ValueError(_ENDED)
        return keys

    async def _make(self) -> None:
        before = _fingerprints((await self._listed()).decode())
        ends = f"{self._days}d"
        # --yes: the older key has the same name.
        await self._gpg("--yes", "--quick-generate-key", _UID, _ALGORITHM, "cert", ends, seconds=300)
        [made] = _fingerprints((await self._listed()).decode()) - before
        await self._gpg("--quick-add-key", made, _ALGORITHM, "sign", ends, seconds=300)

    async def _listed(self) -> bytes:
        return await self._gpg("--list-secret-keys", "--with-colons")

    async def _sockets(self) -> None:
        """Raise ValueError if the sockets' names are too long: gpg would only say that no agent is running."""
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
        finished = await run(self._reactor, _gpg(self._home, *arguments), _environment(), seconds)
        if finished.status != 0:
            last = (finished.errors.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"signing failed: gpg ended with status {finished.status}: {last}")
        return finished.output


def key_warnings(keys: Sequence[Key], now: float) -> list[str]:
    """Return a sentence if no key can sign, if the newest ends soon or never, and for each older one that never ends."""
    if not keys:
        return [_ENDED]
    *older, newest = keys
    sentences = [
        (
            f"The older signing key {key.fingerprint} never ends, and still signs besides {newest.fingerprint}."
            " Run `make retire-key` once all test nodes have the new key.asc."
        )
        for key in older
        if key.expires is None
    ]
    if newest.expires is None:
        sentences.append(
            f"The signing key {newest.fingerprint} never ends, so nobody would notice if it were stolen."
            " Run `make rotate-key` to make one that does; docs/operating.md has the steps."
        )
    elif (left := newest.expires - now) < WARN_DAYS * _DAY:
        sentences.append(
            f"The signing key {newest.fingerprint} ends in {int(left // _DAY)} days, on {_date(newest.expires)}."
            " Run `make rotate-key`, and put the new key.asc on the test nodes before that day."
        )
    return sentences


def warnings_of(home: Path) -> list[str]:
    """Return the warnings for the keys in a directory. For commands: blocks, and leaves gpg's agent to the running master."""
    command = _gpg(home, "--list-secret-keys", "--with-colons")
    try:
        listed = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60, env=_environment()
        )
    except (OSError, subprocess.SubprocessError) as error:
        errors = (getattr(error, "stderr", None) or "").strip().splitlines() or [str(error)]
        return [f"The signing keys in {home} cannot be read: {errors[-1]}"]
    return key_warnings(usable_keys(listed.stdout), time.time())


def usable_keys(listed: str) -> list[Key]:
    """Return the keys of `gpg --list-secret-keys --with-colons` that can sign, the oldest first.

    A primary key whose secret part was taken away (`#`) still counts: its subkey signs.
    """
    found: list[Key] = []
    primary: list[str] = []
    owner, signer, row = "", None, [""]
    for line in (*listed.splitlines(), "sec"):
        fields = line.split(":")
        if fields[0] == "sec":
            if signer and primary[1] not in ("e", "r", "d", "i"):
                ends = [int(value) for value in (primary[6], signer[1]) if value]
                found.append(Key(owner, signer[0], int(primary[5]), min(ends, default=None)))
            owner, signer = "", None
        if fields[0] in ("sec", "ssb"):
            row = fields
        if fields[0] == "sec":
            primary = fields
        elif fields[0] == "fpr":
            owner = owner or fields[9]
            if row[1] not in ("e", "r", "d", "i") and "s" in row[11] and row[14] != "#":
                signer = (fields[9], row[6])
    return sorted(found, key=lambda key: key.created)


def _fingerprints(listed: str) -> set[str]:
    """Return the fingerprints of all primary keys of a listing."""
    lines = listed.splitlines()
    return {
        following.split(":")[9]
        for line, following in itertools.pairwise(lines)
        if line.startswith("sec:") and following.startswith("fpr:")
    }


def _gpg(home: Path, *arguments: str) -> list[str]:
    return [
        "gpg", "--homedir", str(home), "--batch", "--no-tty", "--pinentry-mode", "loopback",
        "--passphrase", "", "--digest-algo", "SHA512", *arguments,
    ]  # fmt: skip


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}


async def _command(reactor: Any, settings: Settings, verb: str, *, forget: bool) -> None:
    key = SigningKey(reactor, settings.state / "gnupg", settings.packages.signing_key_days)
    if verb == "rotate":
        keys = await key.rotate()
    elif verb == "retire":
        keys = await key.retire(forget=forget)
    else:
        keys = await key.keys()
    for one in keys:
        print(one)
    if verb != "show":
        print(f"Run `make reload`, so that the master serves {settings.packages.url}key.asc anew.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the signing keys, make another one (rotate), or remove the older one (retire)."""
    parser = argparse.ArgumentParser(prog="python -m master.publishing.signing", description=main.__doc__)
    parser.add_argument("verb", choices=["show", "rotate", "retire"], help="what to do")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="retire: remove the older key from key.asc, too, as after a theft; what it has signed must be built again",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        default=default_path(),
        help="default: $BUILDPACKAGES_SETTINGS, else settings.yaml beside master.cfg",
    )
    given = parser.parse_args(arguments)
    if given.forget and given.verb != "retire":
        parser.error("--forget is for retire")
    status = 0

    async def command(reactor: Any) -> None:
        nonlocal status
        try:
            await _command(reactor, Settings.from_file(given.settings), given.verb, forget=given.forget)
        except (SettingsError, ValueError) as error:
            print(error, file=sys.stderr)
            status = 1

    try:
        react(lambda reactor: ensureDeferred(command(reactor)))
    except SystemExit as ended:
        return status or int(ended.code or 0)
    return status


if __name__ == "__main__":
    command_line.run(main)
