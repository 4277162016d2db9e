"""Verification: an upload is what its manifest says, and holds packages and their sources only."""

from __future__ import annotations

import gzip
import shutil
import tracemalloc
from pathlib import Path

import pytest

from master.publishing import verification
from master.publishing.package_names import PackageNames
from master.publishing.verification import check_rpms, check_upload, gunzip
from model.manifest import File, Manifest
from model.package_key import PackageKey
from tests.package_repositories import (
    DEB_KEY,
    DEB_NAMES,
    DEB_VERSION,
    RPM_KEY,
    RPM_NAMES,
    RPM_VERSION,
    deb_upload,
    files_of,
    key_of,
    rpm_upload,
    write_manifest,
)

POOL = "pool/main/c/ceph"
CEPH = f"{POOL}/ceph_19.2.0-3-g73e2fc59-1_amd64.deb"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make both uploads; no test changes these."""
    return {
        "deb": deb_upload(tmp_path_factory.mktemp("deb")),
        "rpm": rpm_upload(tmp_path_factory.mktemp("rpm")),
    }


@pytest.fixture
def deb(made: dict[str, Path], tmp_path: Path) -> Path:
    """Return an upload of debs that a test may damage."""
    return Path(shutil.copytree(made["deb"], tmp_path / "upload"))


def check(directory: Path) -> Manifest:
    """Check what is in a directory, as if all of it had just been uploaded."""
    return check_upload(key_of(directory), directory, files_of(directory))


def refusal(directory: Path) -> str:
    """Return the sentence about an upload."""
    with pytest.raises(ValueError) as caught:
        check(directory)
    return str(caught.value)


def test_good_uploads_pass(made: dict[str, Path]) -> None:
    """An upload made by the real tools is accepted, with its version, packages and files."""
    manifest = check(made["deb"])
    assert (manifest.version, manifest.packages) == (
        "19.2.0-3-g73e2fc59-1",
        ("ceph", "ceph-common", "python3-ceph-argparse"),
    )
    assert len(manifest.files) == 6
    manifest = check(made["rpm"])
    assert (manifest.version, manifest.packages) == ("19.2.0-3.g73e2fc59", ("ceph", "python3-ceph-argparse"))
    assert len(manifest.files) == 3


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_upload_without_manifest_is_not_whole(made: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """The manifest is sent last, so an upload without one broke off."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "upload"))
    (directory / "manifest.json").unlink()
    assert refusal(directory) == "the upload has no manifest, so it is not whole"


def test_a_file_that_did_not_arrive_is_named(deb: Path) -> None:
    """A file of the manifest that was not received is refused by name."""
    (deb / CEPH).unlink()
    assert refusal(deb) == f"{CEPH} is in the manifest, but was not uploaded"


def test_a_file_that_nobody_announced_is_named(deb: Path) -> None:
    """A file that was received, but is not of the manifest, is refused by name."""
    (deb / "pool/extra.txt").write_text("x")
    assert refusal(deb) == "pool/extra.txt was uploaded, but is not in the manifest"


@pytest.mark.parametrize("change", [b"longer", b""], ids=["longer", "truncated"])
def test_a_file_with_other_bytes_is_named(deb: Path, change: bytes) -> None:
    """A file that arrived longer, or truncated, is refused by name."""
    data = (deb / CEPH).read_bytes()
    (deb / CEPH).write_bytes(data + change if change else data[:-1])
    assert refusal(deb) == f"{CEPH} arrived with another size or SHA-256 than the manifest says"


def test_one_flipped_bit_is_found(deb: Path) -> None:
    """A file of the right size with one bit changed is refused."""
    data = bytearray((deb / CEPH).read_bytes())
    data[len(data) // 2] ^= 1
    (deb / CEPH).write_bytes(data)
    assert refusal(deb) == f"{CEPH} arrived with another size or SHA-256 than the manifest says"


def test_the_digests_are_those_of_what_arrived(deb: Path) -> None:
    """The comparison uses the digests that the package server counted, not the disk's or the manifest's."""
    received = files_of(deb)
    received[CEPH] = File(CEPH, received[CEPH].size, "0" * 64)
    with pytest.raises(ValueError, match=r"arrived with another size or SHA-256 than the manifest says$"):
        check_upload(PackageKey.from_string(DEB_KEY), deb, received)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("deb", "version"), ("deb", "sha1"), ("deb", "InRelease"), ("deb", "ceph.deb"),
        ("deb", "dists/jammy/Release"), ("deb", "dists/jammy/InRelease"), ("deb", "dists/jammy/main/binary-amd64/Packages"),
        ("deb", "dists/jammy/main/binary-amd64/Packages.gz"), ("deb", "dists/jammy/main/source/Sources"),
        ("deb", "pool/main/c/other/ceph.deb"), ("deb", "pool/main/c/ceph/deeper/ceph.deb"), ("deb", "x86_64/ceph.rpm"),
        ("rpm", "version"), ("rpm", "stray.rpm"), ("rpm", "aarch64/stray.rpm"), ("rpm", "noarch/deeper/stray.rpm"),
        ("rpm", "x86_64/repodata/repomd.xml"), ("rpm", "x86_64/repodata/repomd.xml.asc"), ("rpm", "x86_64/repodata/primary.xml.gz"),
        ("rpm", "noarch/ceph.repo"), ("rpm", "pool/main/c/ceph/ceph.deb"),
    ],
)  # fmt: skip
def test_an_upload_has_packages_only(made: dict[str, Path], kind: str, path: str, tmp_path: Path) -> None:
    """Whatever clients read besides packages is for the master to make: a build's own is refused by name."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "upload"))
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text("x")
    write_manifest(directory, *((DEB_VERSION, DEB_NAMES) if kind == "deb" else (RPM_VERSION, RPM_NAMES)))
    key = PackageKey.from_string(DEB_KEY if kind == "deb" else RPM_KEY)
    with pytest.raises(ValueError) as caught:
        check_upload(key, directory, files_of(directory))
    assert str(caught.value) == f"{path} is no package: an upload has packages and their sources only"


def test_the_release_rpm_is_for_the_master_to_make(made: dict[str, Path], tmp_path: Path) -> None:
    """teuthology installs it by its name, so no build brings it along."""
    directory = Path(shutil.copytree(made["rpm"], tmp_path / "upload"))
    (directory / "noarch/ceph-release-1-0.el9.noarch.rpm").write_text("x")
    write_manifest(directory, RPM_VERSION, RPM_NAMES)
    assert refusal(directory) == "noarch/ceph-release-1-0.el9.noarch.rpm is for the master to make"


def test_an_endless_manifest_is_not_read(deb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest larger than any real one is refused before it is in the master's memory."""
    monkeypatch.setattr(verification, "_MOST_INDEX", 20_000)
    check(deb)
    with (deb / "manifest.json").open("a") as file:
        file.write(" " * 20_000)
    assert refusal(deb) == "manifest.json is larger than 20000 bytes"


# The index of an rpm repository


def test_a_bomb_of_gzip_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that unpacks to more than any real one is refused without unpacking it."""
    monkeypatch.setattr(verification, "_MOST_INDEX", 1_000_000)
    with pytest.raises(ValueError, match=r"^an index unpacks to more than 1000000 bytes$"):
        gunzip(gzip.compress(b"\0" * 20_000_000))


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b"a") + gzip.compress(b"b"), gzip.compress(b"a" * 1000)[:-9], gzip.compress(b"a") + b"x"],
    ids=["two members", "truncated", "more after it"],
)
def test_an_index_is_one_gzip_member(data: bytes) -> None:
    """Only some clients read past the first gzip member, so an index with a second one is refused."""
    with pytest.raises(ValueError, match=r"^an index is not one whole gzip member$"):
        gunzip(data)


PACKAGE = """\
<package type="rpm"><name>a</name><arch>x86_64</arch><version epoch="0" ver="1" rel="2"/>
<checksum type="sha256" pkgid="YES">00</checksum><size package="7"/><location href="a-1-2.x86_64.rpm"/>
<format><rpm:sourcerpm>a-1-2.src.rpm</rpm:sourcerpm></format></package>
"""
HEAD = (
    '<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm">'
)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("<name>a</name>", "<name>a</name><name>b</name>", "the index of x86_64 cannot be read: a package has 2 elements name"),
        ("<location href", '<location href="b"/><location href', "the index of x86_64 cannot be read: a package has 2 elements location"),
        ("<location href", '<location base="http://evil/" href', "x86_64/a-1-2.x86_64.rpm has a location of its own"),
        ('type="sha256"', 'type="md5"', "x86_64/a-1-2.x86_64.rpm is indexed without SHA-256"),
        ('package="7"', 'package="x"', "the index has 'x' as the size of x86_64/a-1-2.x86_64.rpm"),
        ("</package>", "", "the index of x86_64 cannot be read: mismatched tag: line 4, column 2"),
        ('<package type="rpm">', '<package type="rpm" xmlns="urn:x">', "x86_64/a-1-2.x86_64.rpm is no package that createrepo_c can read"),
        ("<package", "<!DOCTYPE x><package", "the index of x86_64 cannot be read: "),
    ],
)  # fmt: skip
def test_an_index_of_another_shape_is_refused(old: str, new: str, sentence: str) -> None:
    """A primary.xml that createrepo_c does not write is refused: dnf might read it otherwise than the master."""
    manifest = Manifest("1", ("a",), ())
    received = {"x86_64/a-1-2.x86_64.rpm": File("x86_64/a-1-2.x86_64.rpm", 7, "00")}
    text = f"{HEAD}{PACKAGE.replace(old, new, 1)}</metadata>"
    with pytest.raises(ValueError) as caught:
        check_rpms(
            PackageKey.from_string(RPM_KEY), manifest, {"x86_64": gzip.compress(text.encode())}, received,
            names=PackageNames("ceph", ("a",)),
        )  # fmt: skip
    assert str(caught.value).startswith(sentence)


LAUGHS = "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, 10))
BOMBS = {
    "a billion entities": f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]>{HEAD}<package type="rpm"><name>&a9;</name></package></metadata>',
    "a large entity, often": f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]>{HEAD}<package><name>{"&a;" * 50_000}</name></package></metadata>',
    "a file": f'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>{HEAD}<package><name>&a;</name></package></metadata>',
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_c17_a_bomb_of_entities_is_refused(bomb: str) -> None:
    """An index that defines entities is refused at the definition, before any of it is expanded or read."""
    received = {"x86_64/a-1-2.x86_64.rpm": File("x86_64/a-1-2.x86_64.rpm", 7, "00")}
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"^the index of x86_64 cannot be read: "):
        check_rpms(
            PackageKey.from_string(RPM_KEY), Manifest("1", ("a",), ()), {"x86_64": gzip.compress(bomb.encode())}, received,
            names=PackageNames("ceph", ("a",)),
        )  # fmt: skip
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10_000_000
