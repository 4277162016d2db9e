"""run-container.py SCRATCH COMMAND...: runs COMMAND in a throw-away overlay of a root, as a container of crun.

It runs as root in mount and PID namespaces of its own, which unshare(1) has made; whatever it mounts or
starts goes with them. `workers.engine.container` has written SCRATCH/container.json.

The overlay's lower layer is an idmapped mount (mount_setattr(2), kernel 5.12; on an overlay's layer 5.19), so
that root inside is another uid outside without a copy of the root. mount(8) has X-mount.idmap from 2.39 only,
and Debian 12 has 2.38.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

_IDS = 65536
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
"""System calls that the C library of Debian 12 or Python 3.11 does not offer; the numbers are those of every architecture."""
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_IDMAP = 1, 4, 0x100000

_INIT = """exec 3<&0 </dev/null
user=$1
shift
setpriv --reuid="$user" --regid="$user" --init-groups --inh-caps=-all "$@" <&3 3<&- &
exec 3<&-
wait "$!"
"""
"""PID 1 inside: it reaps orphans, and its end is the end of everything inside. It reads no secret from standard input."""

_RESOLVER = "# No name server: builds reach the names in /etc/hosts, which come from the setting workers.local.reach.\n"


def _system_call(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        failure = ctypes.get_errno()
        raise OSError(failure, os.strerror(failure), f"system call {number}")
    return result


def _user_namespace(first: int) -> int:
    """Return a descriptor of a user namespace whose ids begin at `first`."""
    ready, made = os.pipe()
    child = os.fork()
    if child == 0:
        if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0:
            os.write(made, b"1")
            signal.pause()
        os._exit(1)
    os.close(made)
    try:
        if not os.read(ready, 1):
            raise OSError("the kernel refuses user namespaces")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 {first} {_IDS}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _mount_idmapped(source: str, target: str, first: int) -> None:
    namespace = _user_namespace(first)
    tree = _system_call(_OPEN_TREE, _AT_FDCWD, source.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
    _system_call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    _system_call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
    os.close(namespace)


def _mount_disk(scratch: Path, size: int) -> None:
    """Put a file system of a size over the scratch directory, in this mount namespace; its file lies in that directory.

    It has no journal because nothing of it is read after a crash, and mkfs leaves most of its tables to the kernel, which takes
    45 ms for 100 GiB.
    """
    file = scratch / "disk.ext4"
    with file.open("wb") as opened:
        opened.truncate(size)
    options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
    subprocess.run(["mkfs.ext4", *options, str(file)], check=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(scratch)], check=True)


def _mount_root(root: str, scratch: Path, first: int) -> Path:
    for name in ("lower", "upper", "work"):
        (scratch / name).mkdir(exist_ok=True)
    os.chown(scratch / "upper", first, first)
    _mount_idmapped(root, str(scratch / "lower"), first)
    # Whoever cleans up knows our processes by the name of `upper` in their mounts, which they cannot change.
    layers = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work,volatile"
    # In this mount namespace only; users other than root may not search the path to `scratch`.
    made = Path("/mnt")
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(made)], check=True)
    return made


def _make_network(network: dict[str, Any]) -> None:
    """Enter a network of our own, which only the relay connects to other hosts.

    It belongs to the machine's user namespace, so that root inside can change nothing of it.
    """
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None).unshare(_CLONE_NEWNET) != 0:
        raise OSError("the kernel refuses network namespaces")
    commands = ["link set lo up", *(f"address add {address} dev lo" for address in network["addresses"])]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
    listeners = []
    for address, port, host, port_there in network["listen"]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family, backlog=128)
        listeners.append((listener.detach(), host, port_there))
    descriptors = [number for number, _, _ in listeners] + [outside]
    relay = [
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__).parent / "relay.py"),
        str(outside),
        json.dumps(listeners),
    ]
    # Standard input has the worker's password, and is the worker's alone.
    subprocess.Popen(relay, pass_fds=descriptors, stdin=subprocess.DEVNULL)
    for number in descriptors:
        os.close(number)


def _write(root: Path, first: int, name: str, text: str) -> None:
    file = root / "etc" / name
    file.unlink(missing_ok=True)
    file.write_text(text)
    os.chown(file, first, first)


def main() -> None:
    """Mount the root, make the network, write the bundle and run it; the end of this process, PID 1 of its namespace, ends all."""
    scratch = Path(sys.argv[1])
    settings = json.loads((scratch / "container.json").read_text())
    first = settings["first_id"]
    if settings["disk"]:
        _mount_disk(scratch, settings["disk"])
    root = _mount_root(settings["root"], scratch, first)
    _write(root, first, "resolv.conf", _RESOLVER)
    _write(root, first, "hosts", settings["network"]["hosts"])
    _make_network(settings["network"])
    # crun refuses the layout in which version 2 of cgroups lies beside version 1; in this mount namespace it need not see it.
    subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=False, stderr=subprocess.DEVNULL)
    config = settings["config"]
    config["root"] = {"path": str(root)}
    config["process"]["args"] = ["/bin/sh", "-c", _INIT, "init", settings["user"], *sys.argv[2:]]
    config["process"]["env"] = [f"{name}={value}" for name, value in os.environ.items()]
    (scratch / "config.json").write_text(json.dumps(config))
    state = scratch / "crun"
    state.mkdir(mode=0o700, exist_ok=True)
    # crun waits for all children of its process, and the relay would be one of them if crun took this one's place.
    finished = subprocess.run(
        [
            "crun",
            f"--root={state}",
            f"--cgroup-manager={settings['cgroups']}",
            "run",
            f"--bundle={scratch}",
            scratch.name,
        ],
        check=False,
    )
    sys.exit(finished.returncode if finished.returncode >= 0 else 128 - finished.returncode)


main()
