"""Wheels: buildbot-worker and all that it needs, for machines that reach nothing but the master.

`python -m workers.wheels fetch` gets them into a directory that the package server offers below
`/wheels/`; `workers/scripts/install-worker.py` takes them from there, on the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from model.command_line import run
from model.distros import DEB_ARCHES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PYTHONS: Mapping[str, str] = {
    "jammy": "3.10.12",
    "noble": "3.12.3",
    "resolute": "3.14.3",
    "bookworm": "3.11.2",
    "trixie": "3.13.5",
    "centos9": "3.9.18",
    "centos10": "3.12.9",
    "rocky9": "3.9.18",
    "rocky10": "3.12.9",
}
"""The Python that a dist's `python3` is, to the last number: some wheels are not for 3.9.0."""

_PLATFORMS = ("2014", "_2_28")
"""Every dist's glibc is 2.34 or newer."""

_PINS = Path(__file__).parent / "worker-requirements.txt"
_ROOTS = ("buildbot-worker", "Twisted[tls]")
"""What is wanted; all else is there because these need it."""


@dataclass(frozen=True)
class Machine:
    """The kind of machine that a set of wheels is for."""

    python: str
    arch: str

    @property
    def tag(self) -> str:
        """`cp311-x86_64`."""
        major, minor = self.python.split(".")[:2]
        return f"cp{major}{minor}-{self.arch}"

    @property
    def index(self) -> str:
        """The name of the file that lists its wheels."""
        return f"index-{self.tag}.json"

    @property
    def markers(self) -> dict[str, str]:
        """What environment markers of requirements are evaluated with."""
        return {
            "extra": "",
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.arch,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": self.python,
            "python_version": ".".join(self.python.split(".")[:2]),
            "sys_platform": "linux",
        }

    def pins(self) -> list[str]:
        """Return a line for pip for everything to install: `name==version`, and the hashes of that release."""
        pinned = []
        for line in _PINS.read_text().replace("\\\n", " ").splitlines():
            words, *hashes = line.partition("#")[0].split(" --hash=")
            if words.strip():
                pin = Requirement(words.strip())
                if self._wants(pin):
                    pinned.append(
                        " --hash=".join([f"{pin.name}{pin.specifier}", *(one.strip() for one in hashes)])
                    )
        return pinned

    def unmet(self, wheels: Iterable[Path]) -> list[str]:
        """Say what the wheels need that is not among them, or not in the right version."""
        have = {}
        for path in wheels:
            name, found, _, _ = parse_wheel_filename(path.name)
            have[name] = (found, _requirements(path))
        problems, seen = set(), set()
        queue = [("we", "", Requirement(root)) for root in _ROOTS]
        while queue:
            who, extra, need = queue.pop()
            name = canonicalize_name(need.name)
            if not self._wants(need, extra) or (who, name, *need.extras) in seen:
                continue
            seen.add((who, name, *need.extras))
            if name not in have or not need.specifier.contains(have[name][0], prereleases=True):
                problems.add(f"{who} need {need.name}{need.specifier}".replace("we need", "missing:"))
                continue
            for deeper in have[name][1]:
                queue += [(name, one, deeper) for one in ("", *need.extras)]
        return sorted(problems)

    def _wants(self, need: Requirement, extra: str = "") -> bool:
        return need.marker is None or need.marker.evaluate({**self.markers, "extra": extra})


def machines(arches: Sequence[str]) -> list[Machine]:
    """Give every kind of machine that there is a dist for, of these architectures."""
    newest = {python.rpartition(".")[0]: python for python in PYTHONS.values()}
    return [Machine(python, arch) for arch in arches for python in sorted(newest.values(), key=_number)]


def fetch(directory: Path, machine: Machine) -> int:
    """Get the wheels of one kind of machine, and list them in its index; give how many; blocks.

    RuntimeError says what there is no wheel of, or what the pins leave out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetching-", dir=directory) as name:
        fetched = Path(name)
        _download(machine, fetched)
        wheels = sorted(fetched.iterdir())
        problems = machine.unmet(wheels)
        if problems:
            raise RuntimeError(f"{_PINS.name} is not complete for {machine.tag}: {'; '.join(problems)}")
        index = {
            "buildbot-worker": version("buildbot-worker"),
            "python": machine.python,
            "arch": machine.arch,
            "files": [
                {"name": wheel.name, "sha256": _sha256(wheel), "size": wheel.stat().st_size}
                for wheel in wheels
            ],
        }
        for wheel in wheels:
            wheel.replace(directory / wheel.name)
        listed = fetched / machine.index
        listed.write_text(json.dumps(index, indent=1) + "\n")
        listed.replace(directory / machine.index)
    return len(wheels)


def prune(directory: Path) -> None:
    """Remove the wheels that no index lists, and what a killed fetch has left."""
    listed = {
        file["name"] for index in _indexes(directory) for file in json.loads(index.read_text())["files"]
    }
    for path in directory.glob("*.whl"):
        if path.name not in listed:
            path.unlink()
    for path in directory.glob(".fetching-*"):
        shutil.rmtree(path)


def digests(directory: Path) -> dict[str, str]:
    """Give the SHA-256 of every index: with these, a machine need not trust the way to the server."""
    return {index.name: _sha256(index) for index in _indexes(directory)}


def _indexes(directory: Path) -> list[Path]:
    return sorted(directory.glob("index-*.json"))


def _download(machine: Machine, into: Path) -> None:
    platforms = [f"--platform=manylinux{glibc}_{machine.arch}" for glibc in _PLATFORMS]
    # pip evaluates markers for the Python that it runs on, so it gets none, and no dependencies to find.
    with NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("\n".join(machine.pins()))
        pins.flush()
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--dest", str(into), "--only-binary=:all:", "--implementation=cp", "--require-hashes",
            "--python-version", machine.python, *platforms, "--platform=any", "-r", pins.name,
        ]  # fmt: skip
        finished = subprocess.run(
            command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    if finished.returncode != 0:
        errors = [line for line in finished.stderr.splitlines() if line.startswith("ERROR: ")]
        last = (errors or finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"pip has no wheels for {machine.tag}: {last.removeprefix('ERROR: ')}")


def _requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [
            name
            for name in archive.namelist()
            if name.endswith(".dist-info/METADATA") and name.count("/") == 1
        ]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _number(python: str) -> list[int]:
    return [int(part) for part in python.split(".")]


def main() -> int:
    """Get the wheels of buildbot-worker for every Python that packages are built with."""
    parser = argparse.ArgumentParser(prog="python -m workers.wheels", description=main.__doc__)
    parser.add_argument("verb", choices=["fetch"], help="download the wheels")
    parser.add_argument(
        "--directory", type=Path, default=Path("wheels"), help="where to put them (default: wheels)"
    )
    parser.add_argument(
        "--arch", action="append", choices=list(DEB_ARCHES), help="may be repeated; default: this machine's"
    )
    parser.add_argument(
        "--dist", action="append", choices=list(PYTHONS), help="may be repeated; default: all"
    )
    arguments = parser.parse_args()
    wanted = {PYTHONS[dist].rpartition(".")[0] for dist in arguments.dist or PYTHONS}
    os.umask(0o022)
    status = 0
    for machine in machines(arguments.arch or [platform.machine()]):
        if machine.python.rpartition(".")[0] in wanted:
            try:
                number = fetch(arguments.directory, machine)
            except (RuntimeError, OSError) as error:
                print(error, file=sys.stderr)
                status = 1
            else:
                print(f"{machine.tag}: {number} wheels", flush=True)
    if arguments.directory.is_dir():
        prune(arguments.directory)
    return status


if __name__ == "__main__":
    run(main)
