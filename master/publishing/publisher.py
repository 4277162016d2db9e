"""Publishing: from an upload to a directory that is served, all of it or nothing.

Killed at any moment, a package_key is afterwards either absent or whole: everything is made ready
beside the published tree, and one rename makes it visible. What comes after the rename (the links
of refs) is made good at the next start.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from buildbot import config
from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread
from twisted.python import log

from master.publishing.completeness import recorded
from master.publishing.confined import Confined
from master.publishing.last_resolved import LastResolved
from master.publishing.package_names import PackageNames
from master.publishing.repository_metadata import RepositoryMetadata, missing_tools
from master.publishing.signing import SigningKey
from master.publishing.uploads import Upload, Uploads
from master.publishing.verification import check_upload
from model import layout
from model.package_key import PackageKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.targets import Target


class PublishedTree:
    """The tree that is served, and what may be done to it; all calls block, none leaves it in part."""

    def __init__(self, tree: Path, staging: Path) -> None:
        """Take the directory that is served, and one beside it on the same file system."""
        self.tree = tree
        self.staging = staging

    def prepare(self) -> None:
        """Make both directories; ValueError if a rename between them could not be atomic."""
        self.tree.mkdir(parents=True, exist_ok=True)
        self.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.tree.stat().st_dev != self.staging.stat().st_dev:
            raise ValueError(f"{self.staging} is not on the same file system as {self.tree}")

    def record(self, key: PackageKey) -> dict[str, Any] | None:
        """Give what was recorded of a package_key if it is published and complete, else None."""
        return recorded(str(self.tree / layout.sha1_path(key)))

    def size(self) -> int:
        """Return the bytes of all published packages and their metadata, as their manifests have them."""
        total = 0
        for path in self.tree.glob("*/sha1/*/manifest.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):  # It is being purged.
                total += sum(row["size"] for row in json.loads(path.read_bytes())["files"])
        return total

    def write_metadata(self, key: PackageKey, directory: Path, record: dict[str, Any]) -> None:
        """Write manifest, sha1 and, last, version into a directory that is not published yet."""
        manifest = json.dumps(record, indent=1, sort_keys=True) + "\n"
        (directory / layout.MANIFEST_FILE).write_text(manifest)
        (directory / layout.SHA1_FILE).write_text(key.sha1 + "\n")
        (directory / layout.VERSION_FILE).write_text(record["version"] + "\n")
        for parent, _, names in os.walk(directory):
            os.chmod(parent, 0o755)
            for name in names:
                path = os.path.join(parent, name)
                os.chmod(path, 0o644)
                _sync(path)
            _sync(parent)

    def place(self, key: PackageKey, directory: Path) -> None:
        """Make a ready directory visible, by one rename; an incomplete one gives way to it."""
        destination = self.tree / layout.sha1_path(key)
        destination.parent.mkdir(parents=True, exist_ok=True)
        aside = None
        if destination.exists():
            aside = Path(mkdtemp(prefix="replaced-", dir=self.staging))
            with suppress(FileNotFoundError):  # A purge may have removed it at the same time.
                destination.rename(aside / "old")
        directory.rename(destination)
        _sync(destination.parent)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)

    def link(self, key: PackageKey, refs: Sequence[str]) -> None:
        """Point the links of refs at a published package_key; an older link is replaced at once."""
        for ref in refs:
            link, wanted = self.tree / layout.ref_path(key.target, ref), layout.ref_link(key.sha1, ref)
            with suppress(OSError):  # There is none, or a purge has just removed it.
                if os.readlink(link) == wanted:
                    continue
            try:
                obstacle = self.obstacle(key.target, ref)
                if obstacle:
                    raise FileExistsError(obstacle)
                temporary = Path(mkdtemp(prefix="link-", dir=self.staging)) / "link"
                temporary.symlink_to(wanted)
                _move(temporary, link)
                temporary.parent.rmdir()
            except OSError as error:
                log.msg(f"the link of ref {ref!r} to {key} cannot be made: {error}")

    def unlink(self, target: Target, ref: str) -> None:
        """Remove a ref's link, if there is one, and the directories that hold nothing after that."""
        top, link = self.tree / target.name / "ref", self.tree / layout.ref_path(target, ref)
        if not link.is_symlink():
            return
        link.unlink(missing_ok=True)
        for parent in link.relative_to(top).parents:
            with suppress(OSError):  # Another link is in it.
                (top / parent).rmdir()

    def obstacle(self, target: Target, ref: str) -> str:
        """Return why a ref can have no link now, or an empty string.

        `wip` and `wip/foo` cannot both be links: the second would be made in the published directory that `wip`
        leads to, or would replace a file there.
        """
        top, link = self.tree / target.name / "ref", self.tree / layout.ref_path(target, ref)
        for parent in link.relative_to(top).parents:
            if (top / parent).is_symlink():
                return f"ref/{parent} is the link of another ref"
        if link.is_dir() and not link.is_symlink():
            return f"ref/{ref}/ holds the links of other refs"
        return ""


class Publisher(BuildbotService):
    """The service that takes uploads and publishes them; steps know it as `publisher`."""

    name = "publisher"

    def checkConfig(self, *, targets: Sequence[Target], **kwargs: Any) -> None:  # type: ignore[override]
        """Refuse a configuration whose targets need programs that the machine does not have."""
        super().checkConfig()
        for sentence in missing_tools({target.pkg_type for target in targets}):
            config.error(sentence)

    @async_to_deferred
    async def reconfigService(  # type: ignore[override]
        self,
        *,
        tree: PublishedTree,
        uploads: Uploads,
        state: Path,
        packages_url: str,
        targets: Sequence[Target],
        names: Mapping[str, tuple[str, ...]],
        key_days: int = 730,
    ) -> None:
        """`names` are the patterns of the names of each project's packages; empty patterns mean the default.

        A signing key that is made ends after `key_days`.
        """
        await super().reconfigService()
        self._key_days = key_days
        self._url = packages_url
        self._names = {project: PackageNames.of(project, patterns) for project, patterns in names.items()}
        self._targets = {target.name: target for target in targets}
        if not hasattr(self, "_tree"):
            self._tree = tree
            self._uploads = uploads
            self._state = state
            self._upload_of: dict[int, Upload] = {}
            self._measuring = DeferredLock()
            self._ends: Any = None
        self._uploads.limits = uploads.limits
        if hasattr(self, "_key"):
            await self._warn_of_key()
            await self._serve_key()

    @async_to_deferred
    async def startService(self) -> None:
        """Prepare the directories and the key, wipe what a killed master left, mend the links."""
        assert self.master is not None
        await super().startService()
        await deferToThread(self._tree.prepare)
        await deferToThread(self._uploads.wipe)
        self._last_resolved = LastResolved(self._state / "refs.json")
        self._confined = Confined(self.master.reactor)
        self._key = SigningKey(self.master.reactor, self._state / "gnupg", self._key_days)
        await self._key.prepare()
        await self._warn_of_key()
        await self._serve_key()
        for key, ref in self._last_resolved.all(self._targets):
            if await deferToThread(self._tree.record, key):
                await deferToThread(self._tree.link, key, [ref])
        self._ends = await self.master.mq.startConsuming(self._build_ended, ("builds", None, "finished"))

    async def _warn_of_key(self) -> None:
        for sentence in await self._key.warnings():
            log.msg(f"warning: {sentence}")

    async def _serve_key(self) -> None:
        """Serve the public keys, which `make rotate-key` may have changed."""
        key_file = self._tree.tree / layout.KEY_FILE
        text = await self._key.public_key()
        if not key_file.exists() or key_file.read_bytes() != text:
            temporary = self._tree.staging / layout.KEY_FILE
            temporary.write_bytes(text)
            temporary.chmod(0o644)
            temporary.rename(key_file)

    @async_to_deferred
    async def stopService(self) -> None:
        """End gpg's agent."""
        if self._ends is not None:
            self._ends.stopConsuming()
        await super().stopService()
        await self._key.stop()

    def url(self, key: PackageKey) -> str:
        """Where a package_key is, or will be, served."""
        return layout.url(self._url, layout.sha1_path(key) + "/")

    async def published(self, key: PackageKey) -> dict[str, Any] | None:
        """Give what was recorded when the key was published, if it still is, and complete."""
        record: dict[str, Any] | None = await deferToThread(self._tree.record, key)
        return record

    async def published_url(self, key: str) -> str:
        """Give where the package_key is published, or nothing."""
        package_key = PackageKey.from_string(key)
        return self.url(package_key) if await self.published(package_key) else ""

    def ref_url(self, key: PackageKey, ref: str) -> str:
        """Return the URL of a ref's link, which need not exist yet."""
        return layout.url(self._url, layout.ref_path(key.target, ref) + "/")

    def owner(self, key: PackageKey, ref: str) -> str:
        """Return the URL of the repository whose ref has the link; empty if there is no link."""
        return self._last_resolved.owner(key.target.name, ref)

    async def obstacle(self, key: PackageKey, ref: str) -> str:
        """Return why a ref can have no link now, or an empty string."""
        obstacle: str = await deferToThread(self._tree.obstacle, key.target, ref)
        return obstacle

    def reserved(self, key: PackageKey, ref: str, git_url: str) -> str:
        """Return why another repository's ref can have no link beside those of `git_url`, published yet or not; else an empty string."""
        for other in self._last_resolved.refs(key.target.name):
            if _conflict(ref, other) and self._last_resolved.owner(key.target.name, other) == git_url:
                return f"ref/{other} is the link of {git_url}"
        return ""

    async def displace(self, key: PackageKey, ref: str, git_url: str) -> None:
        """Remove the links that are in the way of a ref of `git_url`: `wip` for `wip/foo`, or the reverse.

        Its own are removed, too: git has no two such branches, so the older one was deleted.
        """
        target = key.target.name
        for other in self._last_resolved.refs(target):
            if _conflict(ref, other):
                owner = self._last_resolved.owner(target, other)
                log.msg(f"the link ref/{other} of {owner} gives way to ref/{ref} of {git_url}")
                self._last_resolved.forget(target, other)
                await deferToThread(self._tree.unlink, key.target, other)

    async def resolved(self, key: PackageKey, ref: str, git_url: str) -> None:
        """Remember that a repository's ref is at this key's commit; make the link if the key is published."""
        self._last_resolved.record(key, ref, git_url)
        if await self.published(key):
            await deferToThread(self._tree.link, key, [ref])

    async def open_upload(self, key: PackageKey, build_id: int) -> Upload:
        """Return a place to upload to, closed when the build ends. An earlier upload of the same key is closed now."""
        for upload in self._uploads.of_key(key):
            await self.close_upload(upload)
        await self._measure()
        self._upload_of[build_id] = upload = self._uploads.open(key)
        return upload

    async def _measure(self) -> None:
        """Count the published bytes anew. Reading all manifests takes a while, so only if there is a limit."""
        if self._uploads.limits.most_in_all:
            # One at a time: otherwise a count that began before a key was published could be the last one to end.
            await self._measuring.run(self._count)

    @async_to_deferred
    async def _count(self) -> None:
        self._uploads.published = await deferToThread(self._tree.size)

    def upload_of(self, build_id: int) -> Upload | None:
        """Return the upload that a running build has opened, or None."""
        return self._upload_of.get(build_id)

    @async_to_deferred
    async def _build_ended(self, _: Any, build: dict[str, Any]) -> None:
        """Close the build's upload: Buildbot does not run the step `publish` of a build whose worker is gone."""
        upload = self._upload_of.pop(build["buildid"], None)
        if upload is not None:
            await self.close_upload(upload)

    async def close_upload(self, upload: Upload) -> None:
        """Forget the token, and whatever was uploaded and not published."""
        await deferToThread(self._uploads.remove, upload)

    async def publish(self, upload: Upload, record: dict[str, Any]) -> str:
        """Make the metadata of an upload, sign and publish it. ValueError is a refusal; nothing is visible then."""
        key, directory = upload.key, upload.directory
        self._uploads.close(upload)
        manifest = await deferToThread(check_upload, key, directory, upload.files)
        if manifest.version != record["version"]:
            raise ValueError(f"the manifest says version {manifest.version}, git {record['version']}")
        project = key.target.project
        names = self._names.get(project) or PackageNames.of(project)
        metadata = RepositoryMetadata(self._confined, self._url, names, self._key)
        made = await metadata.make(key, directory, manifest, upload.files)
        # A signed rpm is written anew, so it has another digest than in the build's manifest.
        files = {file.path: file for file in (*manifest.files, *made)}
        await self._serve_key()
        for path in layout.signed_files(key.target):
            await self._key.sign(directory / path)
        record = {
            **record,
            "package_key": str(key),
            "packages": manifest.packages,
            "files": [
                {"path": file.path, "size": file.size, "sha256": file.sha256}
                for file in sorted(files.values())
            ],
        }
        await deferToThread(self._tree.write_metadata, key, directory, record)
        await deferToThread(self._tree.place, key, directory)
        # The upload counts until it is removed, so its bytes are never missing from the sum.
        await self._measure()
        await deferToThread(self._tree.link, key, self._last_resolved.refs_at(key))
        return self.url(key)


def _conflict(ref: str, other: str) -> bool:
    """Return whether two refs cannot both have links, as `wip` and `wip/foo`."""
    return other != ref and (f"{ref}/".startswith(f"{other}/") or f"{other}/".startswith(f"{ref}/"))


def _move(source: Path, destination: Path) -> None:
    """Rename into a new directory; make that again if a purge removes it while it is empty."""
    while True:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            source.rename(destination)
            return


def _sync(path: str | Path) -> None:
    """Have a file or directory on the disk before anything says that it is there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
