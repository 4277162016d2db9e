"""A real master that builds the trees of real files, with the local provider and a mirror of what make-dist downloads."""

from __future__ import annotations

import gzip
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import requests

from tests.integration.harness import DEB, RPM, Installation
from tests.real_ceph import trees
from tests.real_ceph.mirror import mirror
from tests.real_ceph.upstream_files import RELEASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.real_ceph.mirror import Mirror

TRIXIE = "ceph-deb-trixie-x86_64-default"

_RPM = "{http://linux.duke.edu/metadata/common}"


class RealCeph(Installation):
    """An installation whose repository holds the real files."""

    mirror: Mirror
    trees: trees.Trees

    def begin(self, *targets_and_branches: tuple[str, str]) -> None:
        """Request builds and return at once, so that they share the time; `build` then returns each."""
        for target, branch in targets_and_branches:
            self.ask(target, sha1=self.trees.commits[branch])

    def build(self, target: str, branch: str, seconds: float = 600) -> Build:
        """Request a branch's commit for a target, and return the build once it has ended."""
        answer = self.ask(target, sha1=self.trees.commits[branch])
        request = self.wait(answer, seconds)
        return Build(self, target, self.trees.commits[branch], self.builds(answer)[-1], request["results"])


class Build:
    """One build that has ended."""

    def __init__(
        self, here: RealCeph, target: str, sha1: str, build: Mapping[str, Any], results: int
    ) -> None:
        self.here = here
        self.key = f"{target}/{sha1}"
        self.results = results
        self.sentence = str(build["state_string"])
        self.url = f"{here.packages_url}{target}/sha1/{sha1}/"
        self._build = dict(build)

    def log(self, step: str) -> str:
        """Return the log of a step."""
        return self.here.log(self._build, step)

    def steps(self) -> dict[str, str]:
        """Return the sentence of each step."""
        return {name: step["state_string"] for name, step in self.here.steps(self._build).items()}

    def text(self, path: str) -> str:
        """Return a published file as text; one that ends in .gz is unpacked."""
        answer = requests.get(self.url + path, timeout=60)
        answer.raise_for_status()
        return (gzip.decompress(answer.content) if path.endswith(".gz") else answer.content).decode()

    def debs(self, codename: str) -> dict[str, str]:
        """Return the packages of the published apt index with their versions."""
        return dict(
            re.findall(
                r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$",
                self.text(f"dists/{codename}/main/binary-amd64/Packages.gz"),
                re.MULTILINE,
            )
        )

    def rpms(self, part: str) -> dict[str, str]:
        """Return the packages of one published yum repository with their EPOCH:VERSION-RELEASE."""
        [path] = re.findall(
            r'href="(repodata/\S*primary\.xml\.gz)"', self.text(f"{part}/repodata/repomd.xml")
        )
        found = {}
        for package in ET.fromstring(self.text(f"{part}/{path}")).iter(f"{_RPM}package"):
            name, version = package.find(f"{_RPM}name"), package.find(f"{_RPM}version")
            assert name is not None
            assert version is not None
            found[str(name.text)] = "{epoch}:{ver}-{rel}".format(**version.attrib)
        return found


def installed(log: str) -> set[str]:
    """Return the packages that apt installed, by the log of the step `dependencies`."""
    return set(re.findall(r"^Setting up (\S+?)(?::\w+)? \(", log, re.MULTILINE))


@contextmanager
def real_ceph(directory: Path, **overrides: Any) -> Iterator[RealCeph]:
    """Run a master on the trees until the context ends."""
    archives = {release: trees.stand_ins(release) for release in RELEASES}
    files = {name: data for by_name in archives.values() for name, data in by_name.items()}
    with mirror(directory, files) as server:
        environment = {"https_proxy": server.url, "no_proxy": "127.0.0.1", "SYSTEM_WGETRC": "wgetrc"}
        settings: dict[str, Any] = {"targets": [DEB, RPM], "workers": {"local": {"environment": environment}}}
        here = RealCeph(directory, **{**settings, **overrides})
        here.mirror = server
        here.trees = trees.make(here.input / "ceph.git", archives)
        try:
            here.serve()
            here.start()
            yield here
        finally:
            here.stop()
