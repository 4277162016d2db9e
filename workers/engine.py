"""The containers of the `local` provider: crun with a bundle of ours, over a prepared root."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import network

if TYPE_CHECKING:
    from collections.abc import Iterable

_RUN = Path(__file__).parent / "scripts/run-container.py"
_PROFILE = Path("/usr/share/containers/seccomp.json")
"""The default profile of podman and others, from Debian's package golang-github-containers-common."""
_REFUSED = frozenset(
    {
        "add_key",
        "keyctl",
        "request_key",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
    }
    | {"clone3", "setns", "unshare"}
)
"""Also refused, to root inside as well: the keyrings are no part of any namespace, the next have a long record of bugs, and the last
give a user namespace, in which everybody has all capabilities. clone(2) without one is allowed; filters cannot see clone3's flags."""
_CLONE_NEWUSER = 0x10000000
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""The sockets that builds may make. AF_VSOCK, which leads to the host of a virtual machine, is in no network namespace."""
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "SETFCAP",
)  # fmt: skip
"""What package managers need, and sudo."""
_IDS = 65536
_FIRST_RANGE, _RANGES = 16, 16384
"""Ranges of 65,536 ids from 2**20 to 2**30: above what useradd gives out, below what some file systems cannot store."""
_EPERM, _ENOSYS = 1, 38
_LINUX = (5, 19)
"""The first version in which an overlay takes an idmapped mount as a layer."""
_INSTALL = "install it with `deploy/system-packages.sh crun`"
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


@dataclass(frozen=True)
class Limits:
    """What one build may use; 0 is no limit."""

    memory: int = 0
    """Bytes."""
    processes: int = 0
    processors: float = 0
    disk: int = 0
    """Bytes."""


_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = {"memory": "memory", "processes": "pids", "processors": "cpu"}


def crun_problems(profile: Path = _PROFILE, path: str | None = None) -> list[str]:
    """Return why this process cannot run containers, a sentence each."""
    found = []
    if os.geteuid() != 0:
        found.append("it needs root")
    if platform.machine() not in _ARCHITECTURES:
        found.append(
            f"it runs on {' and '.join(_ARCHITECTURES)} only, and this machine is {platform.machine()}"
        )
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    if version is None or (int(version[1]), int(version[2])) < _LINUX:
        found.append(
            f"it needs Linux {'.'.join(map(str, _LINUX))} or later, and this is {platform.release()}"
        )
    for program in ("crun", "ip"):
        if shutil.which(program, path=path) is None:
            found.append(f"the program {program} is not installed: {_INSTALL}")
    try:
        seccomp(json.loads(profile.read_text()), next(iter(_ARCHITECTURES)))
    except OSError as failure:
        found.append(f"the system call filter {profile} cannot be read ({failure.strerror}): {_INSTALL}")
    except (ValueError, LookupError, TypeError, AttributeError) as failure:
        found.append(f"the system call filter {profile} is not one of containers-common ({failure!r})")
    return found


def no_disks(loop: Path = Path("/dev/loop-control"), path: str | None = None) -> str:
    """Return why a build's disk cannot be limited on this machine, or nothing: it is a file system in a file."""
    if not loop.exists():
        return f"this machine has no loop devices ({loop} is missing)"
    return (
        "" if shutil.which("mkfs.ext4", path=path) else f"the program mkfs.ext4 is not installed: {_INSTALL}"
    )


def not_enforceable(limits: Limits, cgroups: Path = _CGROUPS) -> list[str]:
    """Return the names of the limits for which this machine has no cgroup that this process may write."""
    version_2 = cgroups / "cgroup.controllers"
    if version_2.is_file():
        there = version_2.read_text().split() if os.access(cgroups, os.W_OK) else []
    else:
        there = [name for name in _CONTROLLERS.values() if os.access(cgroups / name, os.W_OK)]
    return [name for name, kind in _CONTROLLERS.items() if getattr(limits, name) and kind not in there]


def remove_cgroups(scratch: Path) -> list[Path]:
    """Remove the cgroups that a killed crun has left; return those that remain, because a process in them still ends."""
    found = [path for path in _cgroups() if path.name == _cgroup(scratch)]
    for path in found:
        with suppress(OSError):
            path.rmdir()
    return [path for path in found if path.exists()]


def abandoned(directory: Path) -> list[Path]:
    """Return the scratch directories in `directory` that do not exist, but whose containers' cgroups do."""
    scratches = {directory / path.name.split("-", 2)[2]: path.name for path in _cgroups()}
    return [path for path, cgroup in scratches.items() if _cgroup(path) == cgroup and not path.exists()]


def _cgroups() -> list[Path]:
    """Return the cgroups of all masters' containers: below the mount of version 2, and of each controller of version 1."""
    return [*_CGROUPS.glob("buildpackages-*-*"), *_CGROUPS.glob("*/buildpackages-*-*")]


def _cgroup(scratch: Path) -> str:
    return f"buildpackages-{first_id(scratch)}-{scratch.name}"


def seccomp(profile: dict[str, Any], machine: str) -> dict[str, Any]:
    """Return the OCI form of a profile in the form of containers-common, for a container without CAP_SYS_ADMIN.

    The profile's conditions on capabilities and architectures are resolved here; OCI has none.
    """
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if not set(includes.get("caps", ())) <= {f"CAP_{name}" for name in _CAPABILITIES}:
            continue
        if set(excludes.get("caps", ())) & {f"CAP_{name}" for name in _CAPABILITIES}:
            continue
        if (includes.get("arches") and arch not in includes["arches"]) or arch in excludes.get("arches", ()):
            continue
        names = [name for name in rule["names"] if name not in {*_REFUSED, "clone", "socket"}]
        if names:
            kept = {key: rule[key] for key in ("action", "args", "errnoRet") if rule.get(key) is not None}
            rules.append({"names": names, **kept})
    # glibc and libuv fall back on ENOSYS, but give up on EPERM.
    without = {"index": 0, "value": _CLONE_NEWUSER, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [without]})
    for family in _FAMILIES.values():
        only = {"index": 0, "value": family, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
        rules.append({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [only]})
    rules.append({"names": sorted(_REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", _EPERM),
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": rules,
    }


def first_id(scratch: Path) -> int:
    """Return the uid and gid that root inside has outside: a range for each scratch directory."""
    digest = hashlib.sha256(str(scratch).encode()).digest()
    return (_FIRST_RANGE + int.from_bytes(digest[:4], "big") % (_RANGES - _FIRST_RANGE)) * _IDS


def container(
    root: Path,
    scratch: Path,
    user: str,
    *command: str,
    limits: Limits | None = None,
    reach: Iterable[network.Destination] = (),
) -> list[str]:
    """Return the command line that runs `command` as a user of `root` in a container; it needs root.

    `reach` is what the command may connect to. Its environment is that of the process. Nothing inside
    outlives it, nor the thread that started it; the directory `scratch` stays. What the container is
    like is written there.
    """
    settings = {
        "root": str(root), "user": user, "first_id": first_id(scratch),
        "config": _config(scratch, limits or Limits()), "cgroups": "cgroupfs" if limits and replace(limits, disk=0) != Limits() else "disabled",
        "disk": limits.disk if limits else 0,
        "network": network.inside(reach),
    }  # fmt: skip
    (scratch / "container.json").write_text(json.dumps(settings))
    return [
        "setpriv", "--pdeathsig", "KILL", "--",
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--",
        sys.executable, "-I", "-S", str(_RUN), str(scratch), *command,
    ]  # fmt: skip


def _mount(target: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": ["nosuid", *options]}


def _config(scratch: Path, limits: Limits) -> dict[str, Any]:
    capabilities = [f"CAP_{name}" for name in _CAPABILITIES]
    ids = [{"containerID": 0, "hostID": first_id(scratch), "size": _IDS}]
    resources: dict[str, Any] = {}
    if limits.memory:
        resources["memory"] = {"limit": limits.memory}
    if limits.processes:
        resources["pids"] = {"limit": limits.processes}
    if limits.processors:
        resources["cpu"] = {"period": 100_000, "quota": int(limits.processors * 100_000)}
    return {
        "ociVersion": "1.0.0",
        "hostname": "buildpackages",
        "process": {
            "terminal": False, "cwd": "/root", "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 500,
            # sudo needs its new privileges; those end at the user namespace.
            "noNewPrivileges": False,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            _mount("/proc", "proc", "nodev", "noexec"),
            _mount("/dev", "tmpfs", "mode=755", "size=1m"),
            _mount("/dev/pts", "devpts", "noexec", "newinstance", "ptmxmode=0666", "mode=620", "gid=5"),
            _mount("/dev/shm", "tmpfs", "nodev", "mode=1777", "size=1g"),  # noqa: S108 - a mount of its own, inside
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("user", "mount", "pid", "uts", "ipc", "cgroup")],
            "uidMappings": ids, "gidMappings": ids,
            "cgroupsPath": f"/{_cgroup(scratch)}",
            "resources": resources,
            "seccomp": seccomp(json.loads(_PROFILE.read_text()), platform.machine()),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kpageflags", "/proc/slabinfo", "/proc/vmallocinfo"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"],
        },
    }  # fmt: skip
