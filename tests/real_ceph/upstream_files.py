"""Files of the real Ceph, out of the source tarballs that Debian's archive serves; none of them is in this repository.

`fetch(RELEASES["tentacle"])` returns a directory that holds them, in `.real-ceph/` of the checkout. The first call downloads
the tarball and keeps nothing else of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from demo.real_ceph import RealCephError, SourceFile, parse_uris, pick_mirror, private_apt

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".real-ceph"

FILES = (
    "bin/git-archive-all.sh",
    "ceph.spec.in",
    "install-deps.sh",
    "make-dist",
    "src/pybind/mgr/rook/generate_rook_ceph_client.sh",
    "src/script/lib-build.sh",
    "src/tools/setup-virtualenv.sh",
)
"""The files of a tarball that the tests use."""

_BLOCK = 1 << 20
_NO_MIRROR = "apt's configuration names no archive of Debian; add one to the sources, then run apt-get update"


class UpstreamError(Exception):
    """Debian's archive does not serve a tarball that the tests can use; the message says what was looked for."""


@dataclasses.dataclass(frozen=True)
class Release:
    """One release of Ceph as Debian ships it."""

    name: str
    version: str
    size: int
    sha256: str
    suite: str
    """The suite whose signed index names the tarball once the archive has dropped this one."""

    @property
    def series(self) -> str:
        """The first two numbers of the version: what a successor must share."""
        return ".".join(self.version.split(".")[:2])

    @property
    def tarball(self) -> str:
        """The name of the tarball in the archive."""
        return f"ceph_{self.version}+ds.orig.tar.xz"


RELEASES = {
    "reef": Release(
        "reef", "18.2.7", 148306992, "71c0795fa0d6312ec7b57dee4031559b7e62e086a78e6ae1ad8549e0b351e28f", "trixie"
    ),
    "tentacle": Release(
        "tentacle", "20.2.4", 245630284, "190b4ca726717069b1d85b613aab99f9976a488129352a66a5ff41ada5d06730", "sid"
    ),
}  # fmt: skip


def mirror() -> str:
    """Return the Debian archive of apt's configuration; UpstreamError if apt names none."""
    command = ["apt-get", "indextargets", "--format=$(ORIGIN)\t$(LABEL)\t$(REPO_URI)"]
    if shutil.which(command[0]) is None:
        raise UpstreamError(_NO_MIRROR)
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        return pick_mirror(listed.stdout)
    except RealCephError:
        raise UpstreamError(_NO_MIRROR) from None


def fetch(
    release: Release,
    cache: Path = CACHE,
    archive: str = "",
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Path:
    """Return the directory that holds FILES of a release, with their paths; download the tarball if it is not there.

    A tarball that the archive no longer serves is replaced by the series' newest one, by the archive's signed index.
    """
    cache.mkdir(exist_ok=True)
    with (cache / f"{release.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = cache / release.name
        if all((made / name).is_file() for name in FILES):
            return made
        archive = archive or mirror()
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{release.name}-") as scratch:
            directory = Path(scratch)
            try:
                source = SourceFile(
                    f"{archive.rstrip('/')}/pool/main/c/ceph/{release.tarball}",
                    release.tarball, release.size, release.sha256,
                )  # fmt: skip
                tarball = download(source, directory, report)
            except FileNotFoundError:
                report(f"{source.uri} is no longer served; looking for its successor in {release.suite}")
                source = successor(release, directory, archive)
                tarball = download(source, directory, report)
            _unpack(tarball, directory / "files")
            (directory / "files/source").write_text(f"{source.name} {source.sha256}\n")
            shutil.rmtree(made, ignore_errors=True)
            (directory / "files").rename(made)
    return made


def download(source: SourceFile, directory: Path, report: Callable[[str], None]) -> Path:
    """Download a file and check its size and SHA-256; FileNotFoundError if the server says that it has none."""
    report(f"downloading {source.uri}, {source.size / 1e6:.0f} MB")
    path, digest, size = directory / source.name, hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(source.uri, timeout=60) as answer, path.open("wb") as file:
            while block := answer.read(_BLOCK):
                digest.update(block)
                size += len(block)
                file.write(block)
    except urllib.error.HTTPError as error:
        if error.code in {404, 410}:
            raise FileNotFoundError(source.uri) from None
        raise UpstreamError(f"{source.uri}: the server answered {error.code} {error.reason}") from None
    except OSError as error:
        raise UpstreamError(f"{source.uri} cannot be downloaded: {error}") from None
    if (size, digest.hexdigest()) != (source.size, source.sha256):
        raise UpstreamError(
            f"{source.uri} has {size} bytes and SHA-256 {digest.hexdigest()}, "
            f"expected {source.size} and {source.sha256}"
        )
    return path


def successor(release: Release, directory: Path, archive: str) -> SourceFile:
    """Return the tarball of the same series that the signed index of the release's suite lists now."""
    looked_for = f"{release.tarball} (SHA-256 {release.sha256}) at {archive}, then ceph {release.series} in {release.suite}"
    configuration = private_apt(directory / "apt", archive, release.suite)
    apt = ["apt-get", "-c", str(configuration)]
    for command in (["update", "--error-on=any"], ["source", "--print-uris", "--only-source", "ceph"]):
        done = subprocess.run([*apt, *command], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise UpstreamError(f"Looked for {looked_for}: {(done.stderr or done.stdout).strip()}")
    [found] = [file for file in parse_uris(done.stdout) if ".orig.tar." in file.name]
    if not re.match(rf"ceph_{re.escape(release.series)}\.\d", found.name):
        raise UpstreamError(
            f"Looked for {looked_for}, but {release.suite} has {found.name}. "
            "Name a release that is served, its size and SHA-256 in tests/real_ceph/upstream_files.py."
        )
    return found


def _unpack(tarball: Path, into: Path) -> None:
    """Unpack FILES and nothing else; `tar` stops reading where it has found all of them."""
    into.mkdir()
    listed = subprocess.run(
        ["tar", "-x", "-f", tarball, "-C", into, "--strip-components=1", "--no-same-owner", "--occurrence=1",
         "--wildcards", "--no-wildcards-match-slash", *(f"*/{name}" for name in FILES)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    missing = [name for name in FILES if not (into / name).is_file()]
    if missing:
        raise UpstreamError(f"{tarball.name} holds no {', '.join(missing)}: {listed.stderr.strip()}")


def main() -> int:
    """Fetch the releases that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.real_ceph.upstream_files", description=main.__doc__
    )
    parser.add_argument("release", nargs="*", choices=[*RELEASES, []], help="default: all")
    for name in parser.parse_args().release or RELEASES:
        try:
            print(fetch(RELEASES[name]))
        except (UpstreamError, RealCephError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
