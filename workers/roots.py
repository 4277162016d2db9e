"""Prepared roots: a file system of a target's own distribution, made once and kept.

`python -m workers.roots prepare TARGET...` makes them ahead of the first build.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from model import command_line
from model.build_commands import packages
from model.distros import DISTS
from model.targets import Target
from workers.provider import NoMachineEver
from workers.wheels import Machine, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BUILD_UID = 64017
"""The user `build` inside; no user of the machine outside should have this number."""

_INGREDIENTS = (
    "scripts/install-worker.py", "scripts/run-worker.py", "worker-requirements.txt", "templates/macros.stand-in",
)  # fmt: skip
"""Our own files that go into a root."""
_HERE = Path(__file__).parent
_RECIPE = "7"
"""Raise it when the way a root is made changes; roots of another recipe are made anew."""

_DEBUG_PACKAGES = """
%install %{?_enable_debug_packages:%{?buildsubdir:%{debug_package}}}\\
%%install\\
%{nil}
"""
"""Defines the debug packages where a spec says %install, as EL 8 to 10 do. From 4.20 on rpm does it itself, and fails if they are
already defined (https://github.com/rpm-software-management/rpm/pull/3085)."""


@dataclass(frozen=True)
class Root:
    """What a root is made of."""

    suite: str
    distro: str
    stand_in_for: str = ""
    """The dist whose packages are built here although the root is of another distribution."""

    @classmethod
    def of(cls, target: Target, host_suite: str) -> Root:
        """Choose the root of a target: its own distribution's, or a stand-in for it."""
        machine = platform.machine()
        if target.arch != machine:
            raise NoMachineEver(f"this machine is {machine}, and builds no {target.arch} packages")
        if target.pkg_type == "deb":
            return cls(target.dist, target.distribution.distro)
        if host_suite not in DISTS:
            host_suite = "bookworm"
        return cls(host_suite, DISTS[host_suite].distro, target.dist)

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages inside, besides the essential ones."""
        found = {*packages("apt", "deb"), *(packages("apt", "rpm") if self.stand_in_for else ())}
        return tuple(sorted(found))

    @property
    def stand_in(self) -> str:
        """The sentence that says what stands in for what; empty for a target's own root."""
        if not self.stand_in_for:
            return ""
        release = DISTS[self.stand_in_for].dist_release
        return (
            f"a stand-in: {self.distro} {self.suite} with rpmbuild and {release} macros,"
            f" for {self.stand_in_for}"
        )

    @property
    def name(self) -> str:
        """The directory's name: what it is, and a digest of how it was made."""
        ours = [(_HERE / name).read_text() for name in _INGREDIENTS]
        made_of = json.dumps([self.packages, version("buildbot-worker"), _RECIPE, ours])
        digest = hashlib.sha256(made_of.encode()).hexdigest()[:8]
        purpose = f"-for-{self.stand_in_for}" if self.stand_in_for else ""
        return f"{self.suite}{purpose}-{digest}"


class Roots:
    """The directory in which roots are kept."""

    def __init__(self, directory: Path, mirrors: Mapping[str, str]) -> None:
        """Take the directory, and the mirrors to use instead of mmdebstrap's own, by distribution."""
        self.directory = directory
        self._mirrors = mirrors

    def path(self, root: Root) -> Path:
        """Where a root is, or will be."""
        return self.directory / root.name

    def ready(self, root: Root) -> bool:
        """Whether it has been made."""
        return self.path(root).is_dir()

    def prepare(self, root: Root) -> Iterator[str]:
        """Make a root unless it is there, telling what is being done; blocks for a minute or two.

        Two that prepare the same root wait for one another. RuntimeError says what failed.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / f"{root.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.ready(root):
                return
            making = self.directory / f"{root.name}.making"
            _run(["rm", "-rf", "--one-file-system", str(making)])
            yield f"making a root of {root.distro} {root.suite} with {len(root.packages)} packages"
            mirror = self._mirrors.get(root.distro)
            _run(
                [
                    *_OWN_MOUNTS, "mmdebstrap", "--variant=minbase", f"--include={','.join(root.packages)}",
                    '--aptopt=Acquire::Languages "none"', "--skip=cleanup/apt/lists",
                    root.suite, str(making), *([mirror] if mirror else []),
                ]
            )  # fmt: skip
            yield "putting a buildbot-worker and the user build into it"
            self._add_worker(making)
            self._add_user(making)
            if root.stand_in_for:
                _add_macros(making, root.stand_in_for)
            making.rename(self.path(root))
            for old in self.directory.glob(f"{root.name.rpartition('-')[0]}-????????"):
                if old != self.path(root) and old.is_dir():
                    shutil.rmtree(old)

    def _add_worker(self, making: Path) -> None:
        """Install the master's own version of buildbot-worker for the root's Python, as machines in a cloud do.

        It lies apart from the root's packages, so that a build does not see it.
        """
        inside = ["chroot", str(making), "python3", "-I"]
        python = _run([*inside, "-c", "import platform; print(platform.python_version())"]).strip()
        wheels = making / "tmp/wheels"
        fetch(wheels, Machine(python, platform.machine()))
        told = {
            "url": "file:///tmp/wheels/",
            "into": "/opt/buildbot-worker",
            "version": version("buildbot-worker"),
        }
        scripts = _HERE / "scripts"
        _run([*inside, "-c", (scripts / "install-worker.py").read_text()], json.dumps(told))
        shutil.rmtree(wheels)
        shutil.copy(scripts / "run-worker.py", making / "opt/buildbot-worker")
        _run([*inside, "-m", "compileall", "-q", "/opt/buildbot-worker"])

    @staticmethod
    def _add_user(making: Path) -> None:
        number = str(BUILD_UID)
        _run(["chroot", str(making), "groupadd", "--gid", number, "build"])
        _run(
            [
                "chroot", str(making), "useradd", "--uid", number, "--gid", number, "--create-home",
                "--shell", "/bin/bash", "build",
            ]
        )  # fmt: skip
        sudoers = making / "etc/sudoers.d/build"
        sudoers.write_text("build ALL=(ALL:ALL) NOPASSWD: ALL\nDefaults:build !use_pty\n")
        sudoers.chmod(0o440)


def host_suite() -> str:
    """Give the codename of the machine that we are on; empty if it has none."""
    release = platform.freedesktop_os_release()
    return release.get("VERSION_CODENAME", "")


def _add_macros(making: Path, dist: str) -> None:
    file = making / "etc/rpm/macros.stand-in"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(macros(dist, _run(["chroot", str(making), "rpm", "--version"])))


def macros(dist: str, rpm_version: str) -> str:
    """Return the macros that a spec expects of the real distribution; `rpm_version` is the output of rpm --version."""
    row = DISTS[dist]
    text = f"%dist .{row.dist_release}\n%rhel {row.version}\n%{row.dist_release} 1\n"
    text += (_HERE / "templates/macros.stand-in").read_text()
    major, minor = map(int, re.findall(r"\d+", rpm_version)[:2])
    return text if (major, minor) >= (4, 20) else text + _DEBUG_PACKAGES


_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")
"""The file systems that mmdebstrap mounts in a root go with it. Those of a killed one would keep the root from being removed."""


def _run(command: Sequence[str], told: str = "") -> str:
    finished = subprocess.run(command, check=False, capture_output=True, text=True, input=told)
    if finished.returncode != 0:
        last = (finished.stderr.strip() or finished.stdout.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{command[0]} ended with status {finished.returncode}: {last}")
    return finished.stdout


def main() -> int:
    """Make the roots of targets, unless they are there."""
    parser = argparse.ArgumentParser(prog="python -m workers.roots", description=main.__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where roots are kept")
    parser.add_argument("--mirrors", type=json.loads, default={}, help="JSON: distribution to URL")
    parser.add_argument("verb", choices=["prepare"])
    parser.add_argument("target", nargs="+", type=Target.from_name)
    arguments = parser.parse_args()
    roots = Roots(arguments.directory, arguments.mirrors)
    for target in arguments.target:
        try:
            root = Root.of(target, host_suite())
            for told in roots.prepare(root):
                print(f"{target}: {told}", flush=True)
        except (RuntimeError, NoMachineEver, OSError) as error:
            print(f"{target}: {error}", file=sys.stderr)
            return 1
        print(f"{target}: {roots.path(root)} is ready", flush=True)
    return 0


if __name__ == "__main__":
    command_line.run(main)
