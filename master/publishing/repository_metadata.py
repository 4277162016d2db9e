"""Makes the repository's metadata from the received files, so that the master signs no index that a build wrote."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import DeferredList, DeferredSemaphore, ensureDeferred

from master.publishing import release_rpm, rpm_signature
from master.publishing.confined import give
from master.publishing.verification import check_debs, check_rpms
from model import layout
from model.manifest import File

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from twisted.internet.defer import Deferred

    from master.publishing.confined import Confined
    from master.publishing.package_names import PackageNames
    from master.publishing.signing import Key, SigningKey
    from model.manifest import Manifest
    from model.package_key import PackageKey

T = TypeVar("T")

LABEL = "Ceph on demand"
"""The Label of each Release file, by which apt knows our repositories."""

TOOLS = {
    "deb": {"apt-ftparchive": "apt-utils"},
    "rpm": {"createrepo_c": "createrepo-c or createrepo_c", "rpmbuild": "rpm or rpm-build"},
}
"""Programs that the master runs for each pkg_type, with the packages that contain them."""

_SHA256_ONLY = [f"-oAPT::FTPArchive::{name}=false" for name in ("MD5", "SHA1", "SHA512")]
"""One digest instead of four, because the files are read again and have gigabytes."""

_SCRATCH = ".metadata"
"""Where createrepo_c may write. No uploaded path can have a part that begins with a dot."""

_YUM_FILES = ("primary.xml.gz", "filelists.xml.gz", "other.xml.gz", "repomd.xml")


def missing_tools(pkg_types: Iterable[str]) -> list[str]:
    """Return a sentence for each missing program that publishing packages of these types needs."""
    return [
        f"{tool} is not installed: publishing {pkg_type} packages needs it (package {package})"
        for pkg_type in sorted(pkg_types)
        for tool, package in TOOLS[pkg_type].items()
        if shutil.which(tool) is None
    ]


class RepositoryMetadata:
    """Makes the metadata of uploads, which will be served below `packages_url`."""

    def __init__(
        self, confined: Confined, packages_url: str, names: PackageNames, signing_key: SigningKey
    ) -> None:
        self._confined = confined
        self._url = packages_url
        self._names = names
        self._signing_key = signing_key
        self._at_once = DeferredSemaphore(os.cpu_count() or 1)

    async def make(
        self, key: PackageKey, directory: Path, manifest: Manifest, received: Mapping[str, File]
    ) -> list[File]:
        """Sign the rpms of an upload, write its indexes into its directory, and return what was written.

        ValueError says what is wrong with the packages; nothing may be published then.
        """
        await self._confined.in_thread(_make_readable, directory)
        if key.target.pkg_type == "deb":
            return await self._apt(key, directory, manifest, received)
        return await self._yum(key, directory, manifest, received)

    async def _apt(
        self, key: PackageKey, directory: Path, manifest: Manifest, received: Mapping[str, File]
    ) -> list[File]:
        arch, dist = key.target.deb_arch, key.target.dist
        top = f"dists/{dist}"
        packages = await self._confined.run(directory, ["apt-ftparchive", *_SHA256_ONLY, "packages", "pool"])
        sources = await self._confined.run(directory, ["apt-ftparchive", "sources", "pool"])
        await self._confined.in_thread(
            check_debs, key, manifest, packages, sources, received, names=self._names
        )
        made = []
        for name, text in ((f"binary-{arch}/Packages", packages), ("source/Sources", sources)):
            path = f"{top}/main/{name}"
            made.append(await self._confined.in_thread(_write, directory, path, text))
            packed = await self._confined.in_thread(gzip.compress, text, mtime=0)
            made.append(await self._confined.in_thread(_write, directory, f"{path}.gz", packed))
        await self._confined.in_thread(_make_readable, directory / "dists")
        fields = {
            "Origin": "Ceph", "Label": LABEL, "Suite": dist, "Codename": dist,
            "Architectures": arch, "Components": "main",
        }  # fmt: skip
        options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
        release = await self._confined.run(directory, ["apt-ftparchive", *options, "release", top])
        made.append(await self._confined.in_thread(_write, directory, f"{top}/Release", release))
        return made

    async def _yum(
        self, key: PackageKey, directory: Path, manifest: Manifest, received: Mapping[str, File]
    ) -> list[File]:
        release = layout.release_rpm(key.target)
        parts = layout.repositories(key.target)
        made: list[File] = []

        async def metadata_of(part: str) -> dict[str, bytes]:
            rpms = [file for path, file in received.items() if path.startswith(f"{part}/")]
            if release.startswith(f"{part}/"):
                rpms.append(await self._add_release_rpm(key, directory, release))
            signed = await self._sign_rpms(directory, rpms)

            async def digest() -> None:
                made.extend(await self._digests(signed))

            # createrepo_c reads each byte as well: at the same time, the disk is read once.
            outcomes: list[Any] = await _all_of([self._createrepo(directory, part), digest()])
            files: dict[str, bytes] = outcomes[0]
            return files

        try:
            # Side by side, because each program needs a fraction of a second to start.
            written = dict(zip(parts, await _all_of(map(metadata_of, parts)), strict=True))
        finally:
            await self._confined.in_thread(shutil.rmtree, directory / _SCRATCH, ignore_errors=True)
        expected = {**received, **{file.path: file for file in made}}
        for part, files in written.items():
            for name, data in files.items():
                path = f"{part}/repodata/{name}"
                made.append(await self._confined.in_thread(_write, directory, path, data))
        primaries = {part: files["primary.xml.gz"] for part, files in written.items()}
        await self._confined.in_thread(check_rpms, key, manifest, primaries, expected, names=self._names)
        return made

    async def _add_release_rpm(self, key: PackageKey, directory: Path, path: str) -> File:
        base_url = layout.url(self._url, layout.sha1_path(key))
        text = release_rpm.repo_text(key.target, base_url, layout.url(self._url, layout.KEY_FILE))
        rpm = await release_rpm.build(self._confined, key.target, text)
        file = await self._confined.in_thread(_write, directory, path, rpm)
        await self._confined.in_thread(_make_readable, (directory / path).parent)
        return file

    async def _digests(self, signed: Iterable[rpm_signature.Written]) -> list[File]:
        return await _all_of(
            self._at_once.run(self._confined.in_thread, rpm_signature.digest, written) for written in signed
        )

    async def _sign_rpms(self, directory: Path, rpms: Iterable[File]) -> list[rpm_signature.Written]:
        """Write a signature into each rpm, some at the same time."""
        key = await self._signing_key.oldest()
        with TemporaryDirectory(prefix="headers-", dir=directory.parent) as scratch:
            return await _all_of(
                self._at_once.run(
                    self._sign_rpm, directory / file.path, Path(scratch, str(number)), file, key
                )
                for number, file in enumerate(rpms)
            )

    async def _sign_rpm(self, path: Path, scratch: Path, file: File, key: Key) -> rpm_signature.Written:
        headers = await self._confined.in_thread(rpm_signature.read, path, file.path)
        await self._confined.in_thread(scratch.write_bytes, headers.main)
        signature = await self._signing_key.signature(scratch, key)
        return await self._confined.in_thread(rpm_signature.write, path, headers, signature, file)

    async def _createrepo(self, directory: Path, part: str) -> dict[str, bytes]:
        output = directory / _SCRATCH / part
        await self._confined.in_thread(_make_scratch, output, directory / part)
        # No database: its size field overflows on rpms of more than 2 GiB.
        await self._confined.run(
            directory,
            ["createrepo_c", "--quiet", "--no-database", "--simple-md-filenames", "--general-compress-type", "gz",
             "--outputdir", f"{_SCRATCH}/{part}", part],
        )  # fmt: skip
        return {
            name: await self._confined.in_thread(_take, output / "repodata" / name) for name in _YUM_FILES
        }


async def _all_of(coroutines: Iterable[Coroutine[Any, Any, T] | Deferred[T]]) -> list[T]:
    """Return the results once all coroutines have ended; raise the first one's exception if any failed.

    The others are not left behind: they use a directory that the caller removes.
    """
    ended: list[tuple[bool, Any]] = await DeferredList(
        [ensureDeferred(one) for one in coroutines], consumeErrors=True
    )
    for succeeded, result in ended:
        if not succeeded:
            result.raiseException()
    return [result for _, result in ended]


def _make_readable(directory: Path) -> None:
    for parent, _, names in os.walk(directory):
        os.chmod(parent, 0o755)
        for name in names:
            os.chmod(os.path.join(parent, name), 0o644)


def _make_scratch(output: Path, packages: Path) -> None:
    packages.mkdir(mode=0o755, exist_ok=True)
    output.mkdir(parents=True)
    output.parent.chmod(0o755)
    give(output)


def _take(path: Path) -> bytes:
    """Read a file that a confined program wrote. Links and pipes are refused; a pipe could block for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"createrepo_c left no {path.name}: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"createrepo_c left a {path.name} that is no plain file")
        return file.read()


def _write(directory: Path, path: str, data: bytes) -> File:
    destination = directory / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_bytes(data)
    return File(path, len(data), hashlib.sha256(data).hexdigest())
