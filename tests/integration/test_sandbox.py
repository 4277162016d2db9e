"""The sandbox itself: what root inside may not do, and whose end is whose."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cloud import prepared_roots
from tests.patience import until
from workers.sandbox import enter, kill_all, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def root() -> Path:
    """Give a prepared root."""
    return prepared_roots()["bookworm"]


@pytest.mark.parametrize("user", ["build", "root"])
@pytest.mark.parametrize(
    "forbidden", ["unshare -U true", "unshare -Ur true", "mount -t tmpfs t /mnt", "chroot /tmp true"]
)
def test_nobody_inside_gets_capabilities_back(root: Path, tmp_path: Path, user: str, forbidden: str) -> None:
    """A user namespace would give them all back, so the kernel is made to refuse it, to root as well."""
    command = ["sh", "-c", f"sudo -n {forbidden}; {forbidden} || echo refused as $(id -un)"]
    said = subprocess.run(
        enter(root, tmp_path, user, *command),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == f"refused as {user}\n", said.stderr


@contextmanager
def asleep(root: Path, scratch: Path) -> Iterator[str]:
    """Run something in a sandbox that has rid itself of its environment; give its PID namespace."""
    scratch.mkdir()
    process = subprocess.Popen(
        enter(root, scratch, "root", "env", "-i", "sh", "-c", "readlink /proc/self/ns/pid; exec sleep 1005"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def killed(scratch: Path) -> list[int]:
    """Kill what has the sandbox among its mounts; give what was found: the first to die may take the others along."""
    return kill_all("NOBODY_HAS=this", mounted(scratch))


def test_the_end_of_one_is_not_the_end_of_another(root: Path, tmp_path: Path) -> None:
    """All that runs in a sandbox is found, whatever it has done to its environment; what has come after it is not.

    The kernel gives another one the number of a PID namespace that has ended.
    """
    with asleep(root, tmp_path / "the first"):
        assert killed(tmp_path / "the first")
        until(lambda: not killed(tmp_path / "the first"), "all of it is dead", 10)
    with ExitStack() as running:
        numbers = [running.enter_context(asleep(root, tmp_path / f"next {number}")) for number in range(3)]
        assert all(number.startswith("pid:") for number in numbers)
        assert killed(tmp_path / "the first") == []
        assert killed(tmp_path / "next") == []
        assert killed(tmp_path / "next 1")
