"""Rung 2's host: libvirt and qemu on this machine, and a pair of interfaces between it and the guests.

libvirtd runs in namespaces of its own, so it neither needs nor touches the machine's own libvirt, and its
end is the end of every guest. The guests reach this machine at ADDRESS, on any port, and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cloud import Lab, running
from lab.errors import LabError
from lab.layout import VENV

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "10.77.0.1"
"""The host, as guests reach it."""

NETWORK = "10.77.0.0/24"

HOST_SIDE, GUEST_SIDE = "lab0", "lab1"
"""The pair of interfaces; guests get a macvtap each on the second."""

_PYTHON = "libvirt-python==9.10.0"
"""What nova needs besides itself; 10 and later want a newer libvirt than Debian 12 has."""

_SCRIPT = Path(__file__).parent / "scripts/libvirtd.sh"
_SECONDS = 30
_LONGEST = 107
"""Bytes of a socket's name."""

_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

_LIBVIRTD_CONF = """\
unix_sock_dir = "{directory}/run/libvirt"
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""


class Hypervisor:
    """libvirtd and the network of one lab; there can be one on a machine at a time."""

    def __init__(self, directory: Path, *, attached: bool = False) -> None:
        """Take the directory that holds all its files; what is attached is killed when the thread that starts it ends."""
        self.directory = directory.resolve()
        self._tied = ["setpriv", "--pdeathsig", "KILL", "--"] if attached else []
        self._pid_file = self.directory / "pid"
        self._namespace_file = self.directory / "pid-namespace"

    @property
    def uri(self) -> str:
        """What libvirt's clients connect to."""
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt/libvirt-sock"

    def environment(self) -> dict[str, str]:
        """Give what nova and neutron must find in their environment: options that precede their files'."""
        return {
            "LAB_INTERFACE": GUEST_SIDE,
            "OS_LIBVIRT__CONNECTION_URI": self.uri,
            # What a guest that lives for one build writes need not survive this machine.
            "OS_LIBVIRT__DISK_CACHEMODES": "file=unsafe",
        }

    @property
    def pid(self) -> int:
        """The process whose end is the end of all of it, or 0."""
        return _pid(self.directory)

    def start(self) -> None:
        """Start all of it; LabError says what is missing, or whose it is already."""
        if self.pid:
            raise LabError(f"a hypervisor runs in {self.directory} already")
        if len(os.fsencode(self.uri.partition("=")[2])) > _LONGEST:
            raise LabError(f"{self.directory} is too long a name for a directory with a socket in it")
        for place in ("etc/libvirt", "run/libvirt"):
            (self.directory / place).mkdir(parents=True, exist_ok=True)
        (self.directory / "etc/libvirt/qemu.conf").write_text(_QEMU_CONF)
        (self.directory / "etc/libvirt/libvirtd.conf").write_text(
            _LIBVIRTD_CONF.format(directory=self.directory)
        )
        self._connect()
        with (self.directory / "libvirtd.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *self._tied, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--",
                    "sh", str(_SCRIPT), str(self.directory),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._pid_file.write_text(f"{process.pid}\n")
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise LabError(f"libvirtd does not answer; its log: {log.name}")
            time.sleep(0.1)
        self._namespace_file.write_text(os.readlink(f"/proc/{process.pid}/ns/pid_for_children"))

    def guests(self) -> list[str]:
        """Name the virtual machines that there are."""
        return self._virsh("list", "--all", "--name").split()

    def processes(self) -> list[int]:
        """Give the pids of its qemu processes, whatever libvirtd knows of them."""
        try:
            namespace = self._namespace_file.read_text()
        except FileNotFoundError:
            return []
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    program = os.readlink(f"/proc/{entry}/exe")
                    inside = os.readlink(f"/proc/{entry}/ns/pid") == namespace
                except OSError:
                    continue
                if inside and "/qemu-system-" in program:
                    found.append(int(entry))
        return found

    def stop(self) -> None:
        """End every guest, libvirtd and the interfaces; may be called twice."""
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + _SECONDS
            while self.pid or self.processes():
                if time.monotonic() > deadline:
                    raise LabError(f"still there: {pid}, {self.processes()}")
                time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)
        if _alias() == str(self.directory):
            _run("ip", "link", "delete", HOST_SIDE)

    def _connect(self) -> None:
        """Make the interfaces, in place of those that a killed lab left."""
        owner = _alias()
        if owner is not None:
            if not owner or _pid(Path(owner)):
                raise LabError(
                    f"the interface {HOST_SIDE} is in use by {owner or 'somebody else'}: ip link delete {HOST_SIDE} removes it"
                )
            _run("ip", "link", "delete", HOST_SIDE)
        _run("ip", "link", "add", HOST_SIDE, "type", "veth", "peer", "name", GUEST_SIDE)
        _run("ip", "link", "set", HOST_SIDE, "alias", str(self.directory))
        _run("ip", "address", "add", f"{ADDRESS}/24", "dev", HOST_SIDE)
        for side in (HOST_SIDE, GUEST_SIDE):
            _run("ip", "link", "set", side, "up")

    def _answers(self) -> bool:
        try:
            self._virsh("version")
        except LabError:
            return False
        return True

    def _virsh(self, *words: str) -> str:
        return _run("virsh", "--quiet", "--connect", self.uri, *words)


def _pid(directory: Path) -> int:
    try:
        pid = int((directory / "pid").read_text())
        command = Path("/proc", str(pid), "cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if os.fsencode(directory) in command else 0


def _alias() -> str | None:
    """Give the directory that the interface was made for, nothing if it says none, None if there is no interface."""
    try:
        return Path("/sys/class/net", HOST_SIDE, "ifalias").read_text().strip()
    except FileNotFoundError:
        return None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed: deploy/system-packages.sh lab-vm") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise LabError(f"{command[0]} {command[1]}: {last}")
    return done.stdout


def install() -> None:
    """Put what nova needs to talk to libvirt into the lab's virtual environment, unless it is there."""
    name, _, wanted = _PYTHON.partition("==")
    python = str(VENV / "bin/python")
    try:
        have = _run(python, "-c", f"from importlib.metadata import version; print(version({name!r}))").strip()
    except LabError:
        have = ""
    if have != wanted:
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _PYTHON)


@contextmanager
def machines(directory: Path) -> Iterator[tuple[Lab, Hypervisor]]:
    """Give a fresh lab whose servers are virtual machines, and leave nothing of it, also if we are killed."""
    hypervisor = Hypervisor(directory / "hypervisor", attached=True)
    try:
        hypervisor.start()
        with running(directory / "cloud", "libvirt", more=hypervisor.environment()) as lab:
            yield lab, hypervisor
    finally:
        hypervisor.stop()
