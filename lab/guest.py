"""The guest image of rung 2: Debian with its own kernel, systemd, cloud-init and what builds need.

`python -m lab.guest DIRECTORY` makes it, unless it is there. nova boots the kernel itself, so there is no
boot loader in it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from workers.roots import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DISTRO, SUITE = "debian", "bookworm"
NAME = f"{SUITE}-guest"
"""What the image is called in glance."""

_MACHINE = (
    "cloud-init", "ca-certificates", "curl", "dbus", "e2fsprogs", "ifupdown", "iproute2", "isc-dhcp-client",
    "linux-image-cloud-amd64", "netbase", "procps", "systemd-sysv", "udev",
)  # fmt: skip
"""What makes a root a machine, besides what builds need."""

_SIZE = "8G"
"""Of the file system; the image's file holds only what is used of it."""

_COMMAND_LINE = "root=/dev/vda rw console=ttyS0 systemd.show_status=no"
"""The console is for the kernel's words, cloud-init's and the user data's."""

_EARLY_FILES = {
    # The guest's hardware is known, and what it doesn't need takes seconds to unpack without KVM.
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=lz4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
}
"""There before the kernel is installed, which makes the initial RAM disk."""

_FILES = {
    "etc/cloud/cloud.cfg.d/90_lab.cfg": (
        "# The config drive is all there is: no metadata service is looked for.\n"
        "datasource_list: [ConfigDrive, None]\n"
        "datasource: {ConfigDrive: {dsmode: local}}\n"
        # What cloud-init would set up, and this image has not: locales, and a boot loader.
        "locale: false\n"
        "grub_dpkg: {enabled: false}\n"
    ),
    "etc/fstab": "/dev/vda / ext4 noatime 0 0\n",
    "etc/hostname": "guest\n",
    "etc/machine-id": "",
}

_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service")  # fmt: skip
"""Housekeeping that a machine for one build does not live to need."""

_RECIPE = "1"
"""Raise it when the way an image is made changes in a way that the lists above don't show."""


@dataclass(frozen=True)
class Guest:
    """One image: three files in a directory of their own."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The root disk, qcow2, a file system without partitions."""
        return self.directory / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk."""
        return self.directory / "initrd"

    def upload(self, cloud: Any, name: str = NAME, **properties: str) -> str:
        """Put the image into glance as openstacksdk's `cloud` reaches it; give its id."""
        ids = {
            part: cloud.image.create_image(
                f"{name}-{part}", filename=str(path), disk_format=kind, container_format=kind,
                visibility="public", wait=True,
            ).id
            for part, path, kind in (("kernel", self.kernel, "aki"), ("ramdisk", self.initrd, "ari"))
        }  # fmt: skip
        made = cloud.image.create_image(
            name, filename=str(self.disk), disk_format="qcow2", container_format="bare",
            visibility="public", wait=True,
            kernel_id=ids["kernel"], ramdisk_id=ids["ramdisk"], os_command_line=_COMMAND_LINE,
            hw_disk_bus="virtio", hw_vif_model="virtio",
            hw_cdrom_bus="ide",  # the config drive; Debian's cloud kernel has no AHCI
            os_distro=DISTRO, os_version="12", **properties,
        )  # fmt: skip
        return str(made.id)


def packages() -> tuple[str, ...]:
    """Give what is installed: what makes a machine, and what a prepared root of the suite has."""
    return tuple(sorted({*_MACHINE, *Root(SUITE, DISTRO).packages}))


def digest() -> str:
    """Give a digest of all that decides what is in the image, but the day it was made."""
    made_of = [packages(), _EARLY_FILES, _FILES, _MASKED, _SIZE, _RECIPE]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:8]


def build(directory: Path, *, mirror: str = "", tell: Callable[[str], None] = lambda _: None) -> Guest:
    """Make the image in `directory` unless it is there; blocks for minutes; needs root.

    Two that make it at once make it once; one that is killed leaves nothing that counts as an image.
    """
    directory.mkdir(parents=True, exist_ok=True)
    guest = Guest(directory / f"guest-{SUITE}-{digest()}")
    with (directory / "guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if guest.directory.is_dir():
            return guest
        for old in directory.glob(f"guest-{SUITE}-*"):
            _run(["rm", "-rf", "--one-file-system", str(old)])
        making = Guest(directory / f"guest-{SUITE}-making")
        making.directory.mkdir()
        root = making.directory / "root"
        began = time.monotonic()

        def told(text: str) -> None:
            tell(f"{text} ({time.monotonic() - began:.0f} s)")

        _make_root(root, mirror)
        told(f"installed Debian {SUITE} with {len(packages())} packages and what they need")
        _take_kernel(root, making)
        _make_disk(root, making)
        told(f"made a disk of {making.disk.stat().st_size / 1e6:.0f} MB")
        _run(["rm", "-rf", "--one-file-system", str(root)])
        making.directory.rename(guest.directory)
    return guest


def _make_root(root: Path, mirror: str) -> None:
    early = root.parent / "early"
    _write_files(early, _EARLY_FILES)
    _run(
        [
            "mmdebstrap", "--variant=minbase", f"--include={','.join(packages())}",
            '--aptopt=Acquire::Languages "none"',
            f"--essential-hook=sync-in {early} /",
            SUITE, str(root), *([mirror] if mirror else []),
        ]
    )  # fmt: skip
    shutil.rmtree(early)
    _write_files(root, _FILES)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for unit in _MASKED:
        masked = root / "etc/systemd/system" / unit
        masked.unlink(missing_ok=True)
        masked.symlink_to("/dev/null")


def _take_kernel(root: Path, guest: Guest) -> None:
    for link, taken in (("vmlinuz", guest.kernel), ("initrd.img", guest.initrd)):
        shutil.copy(root / (root / link).readlink(), taken)


def _make_disk(root: Path, guest: Guest) -> None:
    """Make the disk without mounting anything, so that nothing can stay mounted."""
    raw = guest.directory / "disk.raw"
    # A machine for one build has no use for a journal.
    _run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(root), str(raw), _SIZE])
    _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(guest.disk)])
    raw.unlink()


def _write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed: deploy/system-packages.sh lab-vm") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise LabError(f"{command[0]} ended with status {done.returncode}: {last}")


def main() -> int:
    """Make the guest image, unless it is there, and print its directory."""
    parser = argparse.ArgumentParser(prog="python -m lab.guest", description=main.__doc__)
    parser.add_argument("directory", type=Path, help="where images are kept; 3 GB")
    parser.add_argument("--mirror", default="", help="a Debian archive; mmdebstrap's own default otherwise")
    arguments = parser.parse_args()
    try:
        guest = build(
            arguments.directory, mirror=arguments.mirror, tell=lambda text: print(f"* {text}", flush=True)
        )
    except (LabError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(guest.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
