"""The gitbuilder layout: golden rows of every path, as teuthology asks for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model import layout
from model.package_key import PackageKey
from model.targets import Target

SHA1 = "0123456789abcdef0123456789abcdef01234567"
DEB = PackageKey.from_string(f"ceph-deb-jammy-x86_64-default/{SHA1}")
RPM = PackageKey.from_string(f"ceph-rpm-centos9-x86_64-default/{SHA1}")


def test_names_inside_a_directory_are_teuthologys() -> None:
    """A directory's own files are named `version` and `sha1`, and the public key is `key.asc` at the root."""
    assert (layout.VERSION_FILE, layout.SHA1_FILE, layout.MANIFEST_FILE) == (
        "version",
        "sha1",
        "manifest.json",
    )
    assert layout.KEY_FILE == "key.asc"


def test_a_key_has_one_directory() -> None:
    """A package_key's directory is `<target>/sha1/<sha1>`."""
    assert layout.sha1_path(DEB) == f"ceph-deb-jammy-x86_64-default/sha1/{SHA1}"
    assert layout.sha1_path(RPM) == f"ceph-rpm-centos9-x86_64-default/sha1/{SHA1}"


@pytest.mark.parametrize(
    ("ref", "path", "link"),
    [
        ("main", "ceph-deb-jammy-x86_64-default/ref/main", f"../sha1/{SHA1}"),
        ("v19.2.0", "ceph-deb-jammy-x86_64-default/ref/v19.2.0", f"../sha1/{SHA1}"),
        ("wip/x", "ceph-deb-jammy-x86_64-default/ref/wip/x", f"../../sha1/{SHA1}"),
        ("a/b/c", "ceph-deb-jammy-x86_64-default/ref/a/b/c", f"../../../sha1/{SHA1}"),
    ],
)
def test_a_ref_is_a_link_with_its_slashes(ref: str, path: str, link: str, tmp_path: Path) -> None:
    """A ref's link keeps the ref's slashes, is relative, and leads to the key's directory."""
    assert layout.ref_path(DEB.target, ref) == path
    assert layout.ref_link(DEB.sha1, ref) == link
    directory = tmp_path / layout.sha1_path(DEB)
    directory.mkdir(parents=True)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).symlink_to(link)
    assert os.path.realpath(tmp_path / path) == str(directory)


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://127.0.0.1:8011/", "key.asc", "http://127.0.0.1:8011/key.asc"),
        ("http://127.0.0.1:8011", "key.asc", "http://127.0.0.1:8011/key.asc"),
        ("https://packages.example.org/ceph/", "a/b/", "https://packages.example.org/ceph/a/b/"),
        ("http://h/", "pool/libstdc++_1~2.deb", "http://h/pool/libstdc%2B%2B_1~2.deb"),
        ("http://h/", "ref/a#b%c", "http://h/ref/a%23b%25c"),
    ],
)
def test_a_url_is_quoted_and_has_no_double_slash(base: str, path: str, url: str) -> None:
    """A path's URL has what must be quoted quoted, slashes kept, and one slash after the base."""
    assert layout.url(base, path) == url


@pytest.mark.parametrize(
    ("target", "files"),
    [
        (Target("ceph", "jammy"), ("dists/jammy/Release",)),
        (Target("ceph", "trixie", "aarch64", "debug"), ("dists/trixie/Release",)),
        (Target("ceph", "centos9"), ("SRPMS/repodata/repomd.xml", "noarch/repodata/repomd.xml", "x86_64/repodata/repomd.xml")),
        (Target("ceph", "rocky10", "aarch64"), ("SRPMS/repodata/repomd.xml", "noarch/repodata/repomd.xml", "aarch64/repodata/repomd.xml")),
    ],
)  # fmt: skip
def test_what_package_managers_verify_is_signed(target: Target, files: tuple[str, ...]) -> None:
    """The master signs apt's Release, and the repomd.xml of each of the three yum repositories."""
    assert layout.signed_files(target) == files


def test_the_release_rpm_is_where_teuthology_fetches_it() -> None:
    """The rpm of the repository is `noarch/ceph-release-1-0.<dist>.noarch.rpm`, as teuthology's rpm task spells it."""
    assert layout.release_rpm(Target("ceph", "centos9")) == "noarch/ceph-release-1-0.el9.noarch.rpm"
    assert (
        layout.release_rpm(Target("ceph", "rocky10", "aarch64")) == "noarch/ceph-release-1-0.el10.noarch.rpm"
    )
