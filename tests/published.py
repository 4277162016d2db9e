"""Puts package_keys into a published tree by the publisher's own hand, with contents that nobody installs."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from master.publishing.publisher import PublishedTree
from model.package_key import PackageKey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DAY = 1_700_000_000
"""14 November 2023, 22:13:20: what is published `at` so many seconds is so much younger."""

TWO_FILES = {path: path.encode() for path in ("pool/main/c/ceph/ceph.deb", "dists/Release")}


class Publications:
    """A published tree for a test, below a directory; `tree` is what is served."""

    def __init__(self, directory: Path) -> None:
        """Make the tree, with nothing in it."""
        self._published = PublishedTree(directory / "packages", directory / "staging")
        self._published.prepare()
        self.tree = directory / "packages"

    def publish(
        self,
        key: str,
        version: str,
        *refs: str,
        at: int = 0,
        contents: Mapping[str, bytes] = TWO_FILES,
        **more: Any,
    ) -> Path:
        """Publish a package_key with these files, link it from refs, and return its directory.

        `more` goes into the record besides what the publisher writes there itself.
        """
        package_key = PackageKey.from_string(key)
        ready = self._published.staging / "ready"
        files = []
        for path, content in contents.items():
            (ready / path).parent.mkdir(parents=True, exist_ok=True)
            (ready / path).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            files.append({"path": path, "size": len(content), "sha256": digest})
        record = {"package_key": key, "version": version, "packages": ["ceph"], "files": files, **more}
        self._published.write_metadata(package_key, ready, record)
        os.utime(ready / "version", (DAY + at, DAY + at))
        self._published.place(package_key, ready)
        self.link(key, *refs)
        return self.tree / key.replace("/", "/sha1/")

    def link(self, key: str, *refs: str) -> None:
        """Point refs at a package_key."""
        self._published.link(PackageKey.from_string(key), refs)

    def record(self, key: PackageKey) -> dict[str, Any] | None:
        """Say what is published, as the publisher does."""
        return self._published.record(key)
