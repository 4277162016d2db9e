"""A test node as teuthology expects one: Debian 12, reached by ssh as `ubuntu`, who may use sudo.

It is the product's own sandbox with an sshd in it, over a prepared root and one layer with what a
test node needs besides, which is a cache of the checkout. It listens on an address of loopback of
its own. `python -m tests.ssh_target` makes the layer ahead of the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.targets import Target
from tests.integration.harness import DEB, ROOTS
from tests.patience import listens
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(__file__).resolve().parent.parent / ".teuthology"
USER = "ubuntu"
PORT = 22
"""teuthology knows no other: it reads no port from ssh's configuration."""

_PACKAGES = ("gnupg", "openssh-server")
_SSHD = """\
AuthorizedKeysFile /etc/ssh/authorized_keys
HostKey /etc/ssh/host_key
PasswordAuthentication no
PidFile none
Subsystem sftp internal-sftp
UseDNS no
UsePAM no
"""
_LAYER = f"""\
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update
apt-get -q -y --no-install-recommends install {" ".join(_PACKAGES)}
apt-get clean
# What it installs afterwards comes from the package server alone.
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/* /etc/ssh/ssh_host_*
# The password `*` is none, but the account is not locked, as sshd has it.
useradd --create-home --shell /bin/bash --password '*' {USER}
echo '{USER} ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/{USER}
mkdir -p /run/sshd
: >/var/log/dpkg.log
printf '%s' '{_SSHD}' >/etc/ssh/sshd_config
# teuthology leaves the kernel, the clock and the logs of a container alone: they are the machine's.
touch /.dockerenv
"""
_START = """\
set -eu
for name in host client; do ssh-keygen -q -t ed25519 -N '' -C '' -f "/etc/ssh/${name}_key"; done
cp /etc/ssh/client_key.pub /etc/ssh/authorized_keys
exec /usr/sbin/sshd -D -e -o "ListenAddress=$1"
"""


@dataclass(frozen=True)
class Node:
    """A test node that runs."""

    address: str
    root: Path
    """Where what it has written to its file system lies: the upper layer of its overlay."""

    @property
    def name(self) -> str:
        """How teuthology calls it."""
        return f"{USER}@{self.address}"

    @property
    def host_key(self) -> str:
        """The key that it proves its identity with, as known_hosts has it."""
        return (self.root / "etc/ssh/host_key.pub").read_text().strip()

    @property
    def client_key(self) -> Path:
        """The private key that lets one in."""
        return self.root / "etc/ssh/client_key"

    def packages(self) -> list[str]:
        """Give what dpkg has brought into each state, in order: `installed ceph:all 1.0-1`."""
        log = self.root / "var/log/dpkg.log"
        lines = log.read_text().splitlines() if log.is_file() else []
        return [line.split(" status ")[1] for line in lines if " status " in line]


@contextmanager
def running(scratch: Path, *trusted: bytes) -> Iterator[Node]:
    """Give a fresh node whose apt trusts these keys besides Debian's; nothing of it is left afterwards."""
    layers = f"{layer()}:{_root()}"
    node = Node(_free_address(), scratch / "upper")
    keys = node.root / "etc/apt/trusted.gpg.d"
    keys.mkdir(parents=True)
    for number, key in enumerate(trusted):
        (keys / f"trusted-{number}.asc").write_bytes(key)
    command = enter(
        Path(layers), scratch, "root", "sh", "-c", _START, "sh", node.address,
        capabilities=("net_bind_service", "sys_chroot"),
    )  # fmt: skip
    with (scratch / "sshd.log").open("wb") as log:
        sshd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_for(node.address, sshd, scratch / "sshd.log")
            yield node
        finally:
            # unshare(1) ignores SIGTERM; its namespaces end after it, and the mounts with them.
            sshd.kill()
            sshd.wait()
            deadline = time.monotonic() + 30
            while (still := left(scratch)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not still, still
            shutil.rmtree(scratch)


def left(scratch: Path) -> list[str]:
    """Give the processes that see a node's file system: none, once it has ended."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if bytes(scratch) in Path("/proc", entry, "mountinfo").read_bytes():
                    found.append(Path("/proc", entry, "cmdline").read_text())
            except OSError:
                continue
    return found


def layer() -> Path:
    """Give the layer over the prepared root, made first unless it is there."""
    root = _root()
    digest = hashlib.sha256(f"{root.name}\n{_LAYER}".encode()).hexdigest()[:8]
    made = HOME / f"node-{digest}"
    HOME.mkdir(exist_ok=True)
    with (HOME / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            making = HOME / "node.making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            command = enter(root, making, "root", "sh", "-c", _LAYER)
            finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
            for old in HOME.glob("node-????????"):
                shutil.rmtree(old)
            (making / "upper").rename(made)
            shutil.rmtree(making)
    return made


def _root() -> Path:
    roots, root = Roots(ROOTS, {}), Root.of(Target.from_name(DEB), host_suite())
    list(roots.prepare(root))
    return roots.path(root)


def _free_address() -> str:
    """Give an address of loopback whose port 22 is free."""
    for _ in range(20):
        address = f"127.{random.randint(2, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
        with socket.socket() as one:
            try:
                one.bind((address, PORT))
            except OSError:
                continue
            return address
    raise AssertionError("port 22 is taken on every address of loopback: does an sshd listen on 0.0.0.0?")


def _wait_for(address: str, sshd: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it accepts connections."""
    listens(sshd, (address, PORT), log.read_text)


if __name__ == "__main__":
    print(layer())
