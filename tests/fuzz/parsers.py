"""The code that checks uploads, given one changed file of a whole upload: `python -m tests.fuzz.parsers`.

Runs in a process with a limit of memory. Each case is a line with a parser's name and a path; each answer is a line of JSON.
A ValueError is a refusal, as it should be. Any other exception is a defect, its subclasses too.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from master.publishing import rpm_signature, verification
from master.publishing.confined import Confined, give
from master.publishing.package_names import PackageNames
from model import layout
from model.manifest import File, Manifest
from model.package_key import PackageKey
from tests.package_repositories import DEB_KEY, RPM_KEY, files_of
from tests.reactor import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
MEMORY = 1 << 30
"""Bytes of address space. The largest index that is read takes about 200 MiB."""

PARTS = ("x86_64", "noarch", "SRPMS")
_NAMES = PackageNames.of("ceph")
_DEB, _RPM = PackageKey.from_string(DEB_KEY), PackageKey.from_string(RPM_KEY)
_POOL = "pool/main/c/ceph"
_CREATEREPO = [
    "createrepo_c",
    "--quiet",
    "--no-database",
    "--simple-md-filenames",
    "--general-compress-type",
    "gz",
]


def whole(name: str) -> bytes:
    """Return the file of a whole upload that a parser gets changed."""
    return (CORPUS / name / "whole").read_bytes()


def _received(manifest: bytes) -> dict[str, File]:
    size_of = File(layout.MANIFEST_FILE, len(manifest), "")
    return {file.path: file for file in (*Manifest.from_json(manifest).files, size_of)}


class Parsers:
    """The parsers by name. `directory` is theirs to write to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._debs = _received(whole("deb-manifest"))
        self._rpms = _received(whole("rpm-manifest"))
        # The indexes are of the signed rpms and of the release rpm.
        self._indexed = dict(self._rpms)
        for part in PARTS:
            data = gzip.compress(whole(f"rpm-{part}"))
            self._indexed |= {
                package.file.path: package.file
                for package in verification._rpms(part, data, _NAMES, layout.release_rpm(_RPM.target))
            }
        self.by_name: Mapping[str, Callable[[bytes], None]] = {
            "deb-packages": lambda data: self._check_debs(packages=data),
            "deb-sources": lambda data: self._check_debs(sources=data),
            "deb-manifest": self._deb_manifest,
            "deb-file": self._deb_file,
            "dsc-file": self._dsc_file,
            "rpm-manifest": self._rpm_manifest,
            "rpm-gzip": lambda data: self._check_rpms(primaries={"x86_64": data}),
            "rpm-file": self._rpm_file,
            **{f"rpm-{part}": self._primary(part) for part in PARTS},
        }

    def _check_debs(self, *, received: Mapping[str, File] | None = None, **changed: bytes) -> None:
        files = {name: whole(f"deb-{name}") for name in ("manifest", "packages", "sources")} | changed
        manifest = Manifest.from_json(files["manifest"])
        verification.check_debs(
            _DEB, manifest, files["packages"], files["sources"], received or self._debs, names=_NAMES
        )

    def _check_rpms(
        self,
        *,
        manifest: bytes = b"",
        received: Mapping[str, File] | None = None,
        primaries: Mapping[str, bytes] | None = None,
    ) -> None:
        whole_primaries = {part: gzip.compress(whole(f"rpm-{part}")) for part in PARTS}
        verification.check_rpms(
            _RPM,
            Manifest.from_json(manifest or whole("rpm-manifest")),
            {**whole_primaries, **(primaries or {})},
            received or self._indexed,
            names=_NAMES,
        )

    def _primary(self, part: str) -> Callable[[bytes], None]:
        return lambda data: self._check_rpms(primaries={part: gzip.compress(data, 1)})

    def _deb_manifest(self, data: bytes) -> None:
        (self._directory / layout.MANIFEST_FILE).write_bytes(data)
        verification.check_upload(_DEB, self._directory, self._debs)
        self._check_debs(manifest=data)

    def _rpm_manifest(self, data: bytes) -> None:
        (self._directory / layout.MANIFEST_FILE).write_bytes(data)
        verification.check_upload(_RPM, self._directory, self._rpms)
        self._check_rpms(manifest=data)

    def _deb_file(self, data: bytes) -> None:
        """Let apt-ftparchive read a deb, as the publisher does, and check what it says."""
        others = [path for path in self._debs if path.endswith(".deb")]
        path = next(path for path in others if "/ceph_" in path)
        with _Place(self._directory, _POOL) as place:
            (place / Path(path).name).write_bytes(data)
            index = self._confined(place.parents[3], ["apt-ftparchive", "packages", "pool"])
            [file] = files_of(place).values()
        stanzas = [
            stanza
            for stanza in whole("deb-packages").split(b"\n\n")
            if f"Filename: {path}".encode() not in stanza
        ]
        received = {**self._debs, path: replace(file, path=path)}
        digests = (b"MD5sum:", b"SHA1:", b"SHA512:")
        lines = [line for line in index.split(b"\n") if not line.startswith(digests)]
        self._check_debs(packages=b"\n".join(lines) + b"\n\n" + b"\n\n".join(stanzas), received=received)

    def _dsc_file(self, data: bytes) -> None:
        """Let apt-ftparchive read a .dsc and its tarballs, and check what it says."""
        path = next(path for path in self._debs if path.endswith(".dsc"))
        with _Place(self._directory, _POOL) as place:
            for tarball in (FOLDER / "sources").iterdir():
                shutil.copy(tarball, place)
            (place / Path(path).name).write_bytes(data)
            index = self._confined(place.parents[3], ["apt-ftparchive", "sources", "pool"])
            file = files_of(place)[Path(path).name]
        self._check_debs(sources=index, received={**self._debs, path: replace(file, path=path)})

    def _rpm_file(self, data: bytes) -> None:
        """Put a signature into an rpm, let createrepo_c read it, and check what it says."""
        path = next(path for path in self._indexed if path.startswith("x86_64/"))
        with _Place(self._directory, "x86_64") as place:
            rpm = place / Path(path).name
            rpm.write_bytes(data)
            received = replace(files_of(place)[rpm.name], path=path)
            written = rpm_signature.write(rpm, rpm_signature.read(rpm, path), bytes(300), received)
            rpm.chmod(0o644)
            output = place.parent / "output"
            output.mkdir()
            give(output)
            signed = rpm_signature.digest(written)
            self._confined(place.parent, [*_CREATEREPO, "--outputdir", "output", "x86_64"])
            primary = (output / "repodata/primary.xml.gz").read_bytes()
        self._check_rpms(received={**self._indexed, path: signed}, primaries={"x86_64": primary})

    def _confined(self, directory: Path, command: list[str]) -> bytes:
        ran: bytes = finish(lambda reactor: Confined(reactor).run(directory, command))
        return ran


class _Place:
    """A directory for the time of one case. The confined tools run as nobody, so everybody may read it."""

    def __init__(self, directory: Path, path: str) -> None:
        self._top = directory / "made"
        self._place = self._top / path

    def __enter__(self) -> Path:
        self._place.mkdir(parents=True)
        return self._place

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._top)


def outcome(parser: Callable[[bytes], None], data: bytes) -> dict[str, str]:
    """Return `accepted`, `refused` with its sentence, or `defect` with a traceback."""
    try:
        parser(data)
    except BaseException as error:
        # Not a subclass: no check raises UnicodeDecodeError on purpose, and nobody understands its sentence.
        if type(error) is ValueError:
            return {"state": "refused", "text": str(error)[:500]}
        return {"state": "defect", "text": traceback.format_exc(limit=-8)}
    return {"state": "accepted", "text": ""}


def main() -> None:
    """Answer one line for each line of the standard input."""
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with TemporaryDirectory(prefix="parsers-") as directory:
        parsers = Parsers(Path(directory))
        for line in sys.stdin:
            name, path = line.split()
            print(json.dumps(outcome(parsers.by_name[name], Path(path).read_bytes())), flush=True)


if __name__ == "__main__":
    main()
