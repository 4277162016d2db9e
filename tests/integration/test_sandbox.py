"""The sandbox itself: what root inside may not do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from master.model.targets import Target
from tests.integration.harness import DEB, ROOTS
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("user", ["build", "root"])
@pytest.mark.parametrize(
    "forbidden", ["unshare -U true", "unshare -Ur true", "mount -t tmpfs t /mnt", "chroot /tmp true"]
)
def test_nobody_inside_gets_capabilities_back(tmp_path: Path, user: str, forbidden: str) -> None:
    """A user namespace would give them all back, so the kernel is made to refuse it, to root as well."""
    root, roots = Root.of(Target.from_name(DEB), host_suite()), Roots(ROOTS, {})
    list(roots.prepare(root))
    command = ["sh", "-c", f"sudo -n {forbidden}; {forbidden} || echo refused as $(id -un)"]
    said = subprocess.run(
        enter(roots.path(root), tmp_path, user, *command),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == f"refused as {user}\n", said.stderr
