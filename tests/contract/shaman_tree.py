"""The tree that teuthology's requests to shaman were recorded against, and are replayed against."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.published import Publications

NEW = "78a52b4b724b056d0164d678a5d27f667060fa71"
OLD = "0dd9bfed6cd0e2d7b3a0a1b7b8c6c0a0d9e0f1a2"
UNKNOWN = "feedfacefeedfacefeedfacefeedfacefeedface"

JAMMY = "ceph-deb-jammy-x86_64-default"
BOOKWORM = "ceph-deb-bookworm-x86_64-default"
CENTOS = "ceph-rpm-centos9-x86_64-default"
ROCKY = "ceph-rpm-rocky10-x86_64-default"
ARM = "ceph-deb-jammy-aarch64-default"
DEBUG = "ceph-rpm-centos9-x86_64-debug"

BUILD_URL = "http://127.0.0.1:8010/#/builders/1/builds/2"


def fill(publications: Publications) -> None:
    """Publish an older and a newer commit; `main` and `wip/foo` are at the newer one."""
    publications.publish(f"{JAMMY}/{OLD}", "19.2.0-1", "v19.2.0", at=1, build_url=BUILD_URL)
    publications.publish(f"{CENTOS}/{OLD}", "19.2.0-0", "v19.2.0", at=2)
    publications.publish(f"{JAMMY}/{NEW}", "19.2.0-3-g78a52b4b-1", "main", at=3, build_url=BUILD_URL)
    publications.publish(f"{BOOKWORM}/{NEW}", "19.2.0-3-g78a52b4b-1", "wip/foo", at=4)
    publications.publish(f"{CENTOS}/{NEW}", "19.2.0-3.g78a52b4b", "wip/foo", at=5)
    publications.publish(f"{ROCKY}/{NEW}", "19.2.0-3.g78a52b4b", at=6)
    publications.publish(f"{ARM}/{NEW}", "19.2.0-3-g78a52b4b-1", at=7)
    publications.publish(f"{DEBUG}/{NEW}", "19.2.0-3.g78a52b4b", "main", at=8)
