"""The containers of the `local` provider, run for real: users, system calls, limits, and their end."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest

from tests.cloud import prepared_roots
from tests.patience import until
from workers.engine import (
    Limits,
    abandoned,
    container,
    crun_problems,
    first_id,
    no_disks,
    not_enforceable,
    remove_cgroups,
    seccomp,
)

PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/build"}
KEYS = """
import ctypes, platform
add_key, keyctl, io_uring_setup, userfaultfd = {"x86_64": (248, 250, 425, 323), "aarch64": (217, 219, 425, 282)}[platform.machine()]
call = ctypes.CDLL(None, use_errno=True).syscall
for number in (add_key, keyctl, io_uring_setup, userfaultfd):
    assert call(number, 0, 0, 0, 0, 0) == -1
    print(ctypes.get_errno())
"""


@pytest.fixture(scope="module")
def root() -> Path:
    """Return a prepared root."""
    return prepared_roots()["bookworm"]


def inside(root: Path, scratch: Path, user: str, *command: str, **limits: int) -> str:
    """Return what a command in a container writes to standard output."""
    scratch.mkdir(exist_ok=True)
    arguments = container(root, scratch, user, *command, limits=Limits(**limits))
    finished = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, env=PATH, timeout=60
    )
    return finished.stdout


@pytest.mark.parametrize("user", ["build", "root"])
@pytest.mark.parametrize(
    "forbidden", ["unshare -U true", "unshare -Ur true", "mount -t tmpfs t /mnt", "chroot /tmp true"]
)
def test_nobody_inside_gets_capabilities_back(root: Path, tmp_path: Path, user: str, forbidden: str) -> None:
    """A user namespace would give them all back, so the filter refuses it, to root as well."""
    script = f"sudo -n {forbidden} && echo MADE; {forbidden} || echo refused as $(id -un)"
    assert inside(root, tmp_path, user, "sh", "-c", script) == f"refused as {user}\n"


@pytest.mark.parametrize("user", ["build", "root"])
def test_c8_c12_no_keyring_io_uring_or_userfaultfd(root: Path, tmp_path: Path, user: str) -> None:
    """System calls that no namespace covers, or with a long record of bugs, do not exist inside, for root either."""
    assert inside(root, tmp_path, user, "sudo", "-n", "python3", "-c", KEYS).split() == ["38"] * 4


def test_no_socket_leads_around_the_network(root: Path, tmp_path: Path) -> None:
    """The network namespace covers the kinds of sockets that can be made; all others are refused."""
    script = (
        "import socket\n"
        "for family in ('UNIX', 'INET', 'INET6', 'NETLINK', 'VSOCK', 'ALG', 'PACKET'):\n"
        "    kind = socket.SOCK_RAW if family in ('NETLINK', 'PACKET') else socket.SOCK_STREAM\n"
        "    try: socket.socket(getattr(socket, 'AF_' + family), kind); print(family)\n"
        "    except OSError as error: print(family, error.errno)\n"
    )
    said = inside(root, tmp_path, "root", "python3", "-c", script)
    assert said.split("\n")[:-1] == ["UNIX", "INET", "INET6", "NETLINK", "VSOCK 38", "ALG 38", "PACKET 38"]


def test_a_fork_bomb_ends_at_the_limit_of_processes(root: Path, tmp_path: Path) -> None:
    """Processes beyond the limit are refused."""
    bomb = (
        "import os\nmade = 0\ntry:\n    while made < 300:\n        if os.fork() == 0: os.read(os.pipe()[0], 1)\n"
        "        made += 1\nexcept BlockingIOError: print('refused', made)"
    )
    words = inside(root, tmp_path, "build", "python3", "-c", bomb, processes=100).split()
    assert words[0] == "refused"
    assert int(words[1]) < 100


def test_a_memory_bomb_ends_at_the_limit_of_memory(root: Path, tmp_path: Path) -> None:
    """The kernel kills what takes more memory than the limit; the rest of the container goes on."""
    bomb = "prlimit --as=1073741824 python3 -c 'print(len(bytearray(b\"x\") * 400_000_000))'; echo status $?"
    assert inside(root, tmp_path / "small", "build", "sh", "-c", bomb, memory=200 * 2**20) == "status 137\n"
    assert (
        inside(root, tmp_path / "large", "build", "sh", "-c", bomb, memory=900 * 2**20)
        == "400000000\nstatus 0\n"
    )


def test_a_disk_filler_ends_at_the_limit_of_the_disk(root: Path, tmp_path: Path) -> None:
    """A container with a limit has that much and no more, for root too; nothing of its file system stays mounted or attached."""
    filler = (
        "dd if=/dev/zero of=$HOME/file bs=1M count=100 2>&1; rm $HOME/file; touch $HOME/again && echo goes on"
    )
    said = inside(root, tmp_path, "root", "sh", "-c", filler, disk=64 * 2**20)
    assert "No space left on device" in said
    assert said.endswith("goes on\n")
    assert (tmp_path / "disk.ext4").stat().st_size == 64 * 2**20
    attached = ["losetup", "--noheadings", "--associated", str(tmp_path / "disk.ext4")]
    until(lambda: not subprocess.run(attached, capture_output=True, check=True).stdout, "no loop device", 10)


def test_a_killed_container_leaves_no_cgroup(root: Path, tmp_path: Path) -> None:
    """The cgroups of a killed container are found without its scratch directory, and are removed once they are empty."""
    scratch = tmp_path / "local-1-ab"
    scratch.mkdir()
    command = container(
        root, scratch, "build", "sh", "-c", "echo up; sleep 1006", limits=Limits(processes=100)
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=PATH)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    cgroups = list(Path("/sys/fs/cgroup").rglob(f"*-{first_id(scratch)}-*"))
    assert cgroups
    assert set(remove_cgroups(scratch)) == set(cgroups), "processes in them live"
    process.kill()
    process.communicate(timeout=30)
    assert abandoned(tmp_path) == []
    scratch.rename(tmp_path / "elsewhere")
    assert abandoned(tmp_path) == [scratch]
    assert abandoned(tmp_path / "of-another-master") == []
    until(lambda: not remove_cgroups(scratch), "the cgroups are gone", 10)
    assert not [path for path in cgroups if path.exists()]
    assert abandoned(tmp_path) == []


def test_the_command_line_is_short(root: Path, tmp_path: Path) -> None:
    """The configuration is in a file: a command line has a limit, and everybody on the machine can read it."""
    command = container(root, tmp_path, "build", "true", limits=Limits(processes=100))
    assert len(" ".join(command)) < 1000


def test_limits_without_a_cgroup_are_named(tmp_path: Path) -> None:
    """Limits need a controller of either version; those that are 0 need none."""
    (tmp_path / "pids").mkdir()
    assert not_enforceable(Limits(1, 2, 3), tmp_path) == ["memory", "processors"]
    assert not_enforceable(Limits(0, 2, 0), tmp_path) == []
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    assert not_enforceable(Limits(1, 2, 0), tmp_path) == ["processes"]


def test_limits_of_the_disk_need_loop_devices(tmp_path: Path) -> None:
    """A machine without loop devices or without mkfs.ext4 cannot limit a disk, and says why."""
    assert no_disks() == ""
    assert no_disks(tmp_path / "no") == f"this machine has no loop devices ({tmp_path / 'no'} is missing)"
    install = "install it with `deploy/system-packages.sh crun`"
    assert no_disks(tmp_path, str(tmp_path)) == f"the program mkfs.ext4 is not installed: {install}"


def test_missing_packages_are_named(tmp_path: Path) -> None:
    """Each missing part of crun is a sentence that says how to install it."""
    assert crun_problems() == []
    profile = tmp_path / "seccomp.json"
    install = "install it with `deploy/system-packages.sh crun`"
    assert crun_problems(profile, str(tmp_path)) == [
        f"the program crun is not installed: {install}",
        f"the program ip is not installed: {install}",
        f"the system call filter {profile} cannot be read (No such file or directory): {install}",
    ]
    for text in ("", "[]", "{}", '{"syscalls": [{}]}', '{"syscalls": 1}'):
        profile.write_text(text)
        [problem] = crun_problems(profile)
        assert problem.startswith(f"the system call filter {profile} is not one of containers-common (")


def test_conditions_of_the_profile_are_resolved() -> None:
    """Rules for capabilities that a container lacks, or for other architectures, are left out."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "keyctl", "clone", "socket"], "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}},
        ],
    }
    allowed = [
        (rule["names"], rule.get("args"))
        for rule in json.loads(json.dumps(seccomp(profile, platform.machine())))["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
    ]
    clone = [{"index": 0, "value": 0x10000000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    sockets = [
        (["socket"], [{"index": 0, "value": family, "valueTwo": 0, "op": "SCMP_CMP_EQ"}])
        for family in (1, 2, 10, 16)
    ]
    assert allowed == [(["read"], []), (["clone"], clone), *sockets]
