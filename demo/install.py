"""Installs published packages with the real clients, in throw-away roots, and runs one program."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from model import layout
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.package_key import PackageKey

_SCRIPTS = Path(__file__).parent / "scripts"
_CLEAN_PACKAGES = "ca-certificates,mount,python3"


class InstallError(Exception):
    """The packages do not install, and what the client said."""


def with_apt(
    key: PackageKey,
    base_url: str,
    roots: Roots,
    packages: Sequence[str],
    program: str,
    *,
    keep_sources: bool = False,
) -> str:
    """Install with apt, from our source and our key alone; give all that was said.

    `keep_sources` leaves the distribution's own sources, for what our packages depend on.
    """
    root = clean_root(key.target.dist, roots)
    script = (_SCRIPTS / "install-deb.sh").read_text()
    return _in_root(
        root,
        ["sh", "-c", script, "install-deb.sh", _directory_url(key, base_url), key.target.dist,
         layout.url(base_url, layout.KEY_FILE), "yes" if keep_sources else "no", program, *packages],
    )  # fmt: skip


def with_dnf(key: PackageKey, base_url: str, roots: Roots, packages: Sequence[str], program: str) -> str:
    """Install with dnf into an empty installroot; give all that was said."""
    root = Root.of(key.target, host_suite())
    list(roots.prepare(root))
    script = (_SCRIPTS / "install-rpm.py").read_text()
    return _in_root(
        roots.path(root),
        ["python3", "-c", script, _directory_url(key, base_url), layout.release_rpm(key.target),
         key.target.arch, program, *packages],
    )  # fmt: skip


def clean_root(suite: str, roots: Roots) -> Path:
    """Give a root of a Debian-family suite with apt and Python and nothing else; made once, kept."""
    roots.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = roots.directory / f"clean-{suite}"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            making = path.with_suffix(".making")
            _run(["rm", "-rf", "--one-file-system", str(making)])
            _run(
                ["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--variant=apt", f"--include={_CLEAN_PACKAGES}",
                 "--skip=cleanup/apt/lists", suite, str(making)]
            )  # fmt: skip
            making.rename(path)
    return path


def _directory_url(key: PackageKey, base_url: str) -> str:
    return layout.url(base_url, layout.sha1_path(key))


def _in_root(root: Path, command: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory(prefix="install-", dir=root.parent) as scratch:
        return _run(enter(root, Path(scratch), "root", *command, capabilities=("sys_chroot",)))


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
    )  # fmt: skip
    if finished.returncode != 0:
        raise InstallError(f"status {finished.returncode}:\n{finished.stdout}")
    return finished.stdout
