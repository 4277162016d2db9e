"""Reads a repository with the real apt and dnf; every test of metadata compares with their results."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from model.package_key import PackageKey
from tests.integration.harness import ROOTS
from tests.package_repositories import RPM_KEY
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve a directory on loopback, and give its URL without a slash at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Apt:
    """The machine's apt with one source and directories of its own."""

    def __init__(self, directory: Path, source: str, *, preferences: str = "", status: str = "") -> None:
        """Write the configuration, and fetch the indexes; CalledProcessError if apt does not like them.

        `preferences` are pins, and `status` is dpkg's list of what is installed.
        """
        for name in ("state/lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True)
        (directory / "status").write_text(status)
        (directory / "preferences").write_text(preferences)
        (directory / "sources.list").write_text(f"deb {source}\n")
        options = {
            "Dir::Etc::sourcelist": directory / "sources.list", "Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::preferences": directory / "preferences",
            "Dir::State": directory / "state", "Dir::State::status": directory / "status", "Dir::Cache": directory / "cache",
            "APT::Sandbox::User": "root", "Acquire::http::Proxy": "DIRECT", "APT::Architecture": "amd64", "APT::Architectures": "amd64",
        }  # fmt: skip
        self._options = [f"-o{name}={value}" for name, value in options.items()]
        self.directory = directory
        self.run("apt-get", "-qq", "update")

    def run(self, program: str, *arguments: str) -> str:
        """Run one of apt's programs, and return its output."""
        return subprocess.run(
            [program, *self._options, *arguments],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="surrogateescape",
        ).stdout  # fmt: skip

    def packages(self) -> list[tuple[str, ...]]:
        """Return Package, Version, Filename, Size and SHA256 of each package that apt has read."""
        fields = ("Package", "Version", "Filename", "Size", "SHA256")
        found = []
        for stanza in self.run("apt-cache", "dumpavail").split("\n\n"):
            lines = dict(
                line.split(": ", 1) for line in stanza.split("\n") if ": " in line and line[0] not in " \t"
            )
            if lines:
                found.append(tuple(lines[field] for field in fields))
        return sorted(found)

    def downloaded(self, *names: str) -> list[str]:
        """Download packages, which checks their digests; return the names of the files."""
        self.run("apt-get", "-qq", "--yes", "--download-only", "install", *names)
        return sorted(path.name for path in (self.directory / "cache/archives").glob("*.deb"))


def dnf(*arguments: str, files: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the dnf of the stand-in root, in a throw-away copy where these files are."""
    roots = Roots(ROOTS, {})
    root = Root.of(PackageKey.from_string(RPM_KEY).target, host_suite())
    list(roots.prepare(root))
    write = 'while [ "$1" != -- ]; do mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"; shift 2; done; shift; exec dnf "$@"'
    words = [word for pair in (files or {}).items() for word in pair]
    with tempfile.TemporaryDirectory(prefix="dnf-", dir=ROOTS) as scratch:
        return subprocess.run(
            enter(roots.path(root), Path(scratch), "root", "sh", "-c", write, "sh", *words, "--", *arguments, capabilities=("sys_chroot",)),
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
        )  # fmt: skip


def dnf_packages(url: str, parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return name, epoch:version-release, architecture, part and path of each package that dnf reads below a URL."""
    repositories = [f"--repofrompath={part},{url}/{part}" for part in parts]
    ran = dnf(
        "-q", *repositories, "--disablerepo=*", *(f"--enablerepo={part}" for part in parts),
        *(f"--setopt={part}.gpgcheck=0" for part in parts), "repoquery", "--forcearch=x86_64",
        "--qf", "%{name} %{epoch}:%{evr} %{arch} %{repoid} %{relativepath}",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return sorted(tuple(line.split(" ")) for line in ran.stdout.splitlines())
