"""Verification: real repositories pass, and each way of being wrong is refused with its own sentence."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from master import verification
from model.manifest import File, Manifest
from model.package_key import PackageKey
from tests.package_repositories import (
    DEB_KEY,
    DEB_NAMES,
    DEB_VERSION,
    RPM_KEY,
    RPM_NAMES,
    RPM_VERSION,
    build_deb,
    deb_repository,
    files_of,
    rpm_repository,
    write_manifest,
)

RELEASE = "dists/jammy/Release"
PACKAGES = "dists/jammy/main/binary-amd64/Packages"
POOL = "pool/main/c/ceph"
CEPH = f"{POOL}/ceph_19.2.0-3-g73e2fc59-1_amd64.deb"
RELEASE_RPM = "noarch/ceph-release-1-0.el9.noarch.rpm"
ARGPARSE = "noarch/python3-ceph-argparse-19.2.0-3.g73e2fc59.el9.noarch.rpm"


NOT_THREE = "noarch/repodata/repomd.xml is not of filelists, other, primary, each once"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make both repositories; no test changes these."""
    return {
        "deb": deb_repository(tmp_path_factory.mktemp("deb")),
        "rpm": rpm_repository(tmp_path_factory.mktemp("rpm")),
    }


@pytest.fixture
def deb(made: dict[str, Path], tmp_path: Path) -> Path:
    """Give an apt repository that may be spoilt."""
    return Path(shutil.copytree(made["deb"], tmp_path / "repo"))


@pytest.fixture
def rpm(made: dict[str, Path], tmp_path: Path) -> Path:
    """Give yum repositories that may be spoilt."""
    return Path(shutil.copytree(made["rpm"], tmp_path / "repo"))


def verify(directory: Path) -> Manifest:
    """Verify what is in a directory, as if all of it had just been uploaded."""
    key = RPM_KEY if (directory / "x86_64").exists() else DEB_KEY
    return verification.verify(PackageKey.from_string(key), directory, files_of(directory))


def refusal(directory: Path, version: str = "", packages: list[str] | None = None) -> str:
    """Give the sentence about a directory whose manifest lists just what is there."""
    rpm = (directory / "x86_64").exists()
    write_manifest(
        directory,
        version or (RPM_VERSION if rpm else DEB_VERSION),
        packages or (RPM_NAMES if rpm else DEB_NAMES),
    )
    with pytest.raises(ValueError) as caught:
        verify(directory)
    return str(caught.value)


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a text file, which must make a difference."""
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def hash_again(directory: Path) -> None:
    """Make Release anew, so that it is right for what is in dists/."""
    release = directory / RELEASE
    release.unlink()
    made = subprocess.run(
        ["apt-ftparchive", "-o", "APT::FTPArchive::Release::Codename=jammy", "release", "dists/jammy"],
        cwd=directory, check=True, capture_output=True,
    ).stdout  # fmt: skip
    release.write_bytes(made)


def compress_and_hash_again(directory: Path) -> None:
    """Make Packages.gz and Release anew, so that they are right for a Packages that was changed."""
    (directory / (PACKAGES + ".gz")).write_bytes(gzip.compress((directory / PACKAGES).read_bytes()))
    hash_again(directory)


def replace_data(directory: Path, part: str, name: str, data: bytes) -> None:
    """Put other bytes into the metadata of a yum repository, and their digest into its repomd.xml."""
    path = directory / part / "repodata" / name
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(data)
    edit(
        directory / part / "repodata/repomd.xml",
        lambda text: text.replace(f">{before}</checksum>", f">{hashlib.sha256(data).hexdigest()}</checksum>"),
    )


def edit_primary(directory: Path, part: str, change: Callable[[str], str]) -> None:
    """Change the index of a yum repository, with everything around it right."""
    before = gzip.decompress((directory / part / "repodata/primary.xml.gz").read_bytes()).decode()
    after = change(before)
    assert after != before
    replace_data(directory, part, "primary.xml.gz", gzip.compress(after.encode()))


def test_a_good_deb_repository_passes(deb: Path) -> None:
    """What the real tools made is accepted, with its version and packages."""
    manifest = verify(deb)
    assert (manifest.version, manifest.packages) == (
        DEB_VERSION,
        ("ceph", "ceph-common", "python3-ceph-argparse"),
    )
    assert len(manifest.files) == 8


def test_good_rpm_repositories_pass(rpm: Path) -> None:
    """What the real tools made is accepted; the version is a part of VERSION-RELEASE."""
    manifest = verify(rpm)
    assert (manifest.version, manifest.packages) == (RPM_VERSION, ("ceph", "python3-ceph-argparse"))
    assert len(manifest.files) == 16


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_upload_without_manifest_is_not_whole(made: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """The manifest is sent last, so an upload without one broke off."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "repo"))
    (directory / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"^the upload has no manifest, so it is not whole$"):
        verify(directory)


def test_a_file_that_did_not_arrive_is_named(deb: Path) -> None:
    """A file of the manifest that was not received is refused by name."""
    (deb / CEPH).unlink()
    with pytest.raises(ValueError) as caught:
        verify(deb)
    assert str(caught.value) == f"{CEPH} is in the manifest, but was not uploaded"


def test_a_file_that_nobody_announced_is_named(deb: Path) -> None:
    """A file that was received, but is not of the manifest, is refused by name."""
    (deb / "pool/extra.txt").write_text("x")
    with pytest.raises(ValueError) as caught:
        verify(deb)
    assert str(caught.value) == "pool/extra.txt was uploaded, but is not in the manifest"


@pytest.mark.parametrize("change", [b"longer", b""], ids=["longer", "truncated"])
def test_a_file_with_other_bytes_is_named(deb: Path, change: bytes) -> None:
    """A file that arrived longer, or truncated, is refused by name."""
    data = (deb / CEPH).read_bytes()
    (deb / CEPH).write_bytes(data + change if change else data[:-1])
    with pytest.raises(ValueError) as caught:
        verify(deb)
    assert str(caught.value) == f"{CEPH} arrived with another size or SHA-256 than the manifest says"


def test_one_flipped_bit_is_found(deb: Path) -> None:
    """A file of the right size with one bit changed is refused."""
    data = bytearray((deb / CEPH).read_bytes())
    data[len(data) // 2] ^= 1
    (deb / CEPH).write_bytes(data)
    with pytest.raises(ValueError, match=r"arrived with another size or SHA-256 than the manifest says$"):
        verify(deb)


@pytest.mark.parametrize(
    "path",
    ["version", "sha1", "dists/jammy/InRelease", "dists/jammy/Release.gpg", "pool/InRelease", "x/repomd.xml.asc", "InRelease"],
)  # fmt: skip
def test_what_the_master_writes_may_not_be_uploaded(deb: Path, path: str) -> None:
    """No build brings its own signature, version or sha1 along."""
    (deb / path).parent.mkdir(parents=True, exist_ok=True)
    (deb / path).write_text("forged")
    assert refusal(deb) == f"{path} is for the master to write"


def test_a_signature_of_yum_metadata_may_not_be_uploaded(rpm: Path) -> None:
    """No build signs its own repomd.xml."""
    (rpm / "x86_64/repodata/repomd.xml.asc").write_text("forged")
    assert refusal(rpm) == "x86_64/repodata/repomd.xml.asc is for the master to write"


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_missing_packages_are_all_named(made: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """Packages that debian/control or the spec names, and the repository has not, are named together."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "repo"))
    assert refusal(directory, packages=["ceph", "ceph-mon", "ceph-mgr"]) == (
        "packages that the sources name are missing: ceph-mgr, ceph-mon"
    )


def test_a_source_rpm_is_not_the_package_of_its_name(rpm: Path) -> None:
    """The source rpm has the main package's name, and does not stand in for it."""
    (rpm / "x86_64/ceph-19.2.0-3.g73e2fc59.el9.x86_64.rpm").unlink()
    subprocess.run(
        ["createrepo_c", "--quiet", "--no-database", "--simple-md-filenames", "--general-compress-type", "gz", "x86_64"],
        cwd=rpm, check=True,
    )  # fmt: skip
    assert refusal(rpm) == "packages that the sources name are missing: ceph"


@pytest.mark.parametrize("version", ["19.2.0-3-g73e2fc59-2", "19.2.0-3-g73e2fc59", "9.2.0-3-g73e2fc59-1"])
def test_a_debs_version_is_exact(deb: Path, version: str) -> None:
    """The version of every expected deb is the one announced, to the letter."""
    assert refusal(deb, version=version) == f"ceph is of version 19.2.0-3-g73e2fc59-1, not {version}"


def test_an_rpms_version_holds_the_one_announced(rpm: Path) -> None:
    """The version announced must be a part of every expected rpm's VERSION-RELEASE."""
    assert refusal(rpm, version="19.2.0-4") == "ceph is of version 19.2.0-3.g73e2fc59.el9, not 19.2.0-4"


def test_a_deb_that_is_not_indexed_is_named(deb: Path) -> None:
    """A deb that lies in the pool, and that apt would not find, is refused."""
    build_deb(deb / POOL, "ceph-mon", DEB_VERSION)
    assert refusal(deb) == f"{POOL}/ceph-mon_19.2.0-3-g73e2fc59-1_amd64.deb is not in the repository's index"


def test_an_rpm_that_is_not_indexed_is_named(rpm: Path) -> None:
    """An rpm that dnf would not find is refused, wherever it lies."""
    shutil.copy(rpm / ARGPARSE, rpm / "x86_64/stray.rpm")
    assert refusal(rpm) == "x86_64/stray.rpm is not in the repository's index"


@pytest.mark.parametrize(
    ("kind", "path"), [("deb", CEPH), ("rpm", ARGPARSE), ("rpm", "SRPMS/ceph-19.2.0-3.g73e2fc59.el9.src.rpm")]
)
def test_a_package_that_changed_after_indexing_is_named(
    made: dict[str, Path], kind: str, path: str, tmp_path: Path
) -> None:
    """A package whose bytes are not those that were indexed is refused, though the manifest is right."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "repo"))
    with (directory / path).open("ab") as file:
        file.write(b"x")
    assert refusal(directory) == f"the index's size or SHA-256 of {path} is not the file's"


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "manifest.json", "pool/nonesuch.deb"])
def test_an_index_points_at_uploaded_files_only(deb: Path, name: str) -> None:
    """A Filename that leads out of the directory, or to nothing, is refused."""
    edit(deb / PACKAGES, lambda text: text.replace(f"Filename: {CEPH}", f"Filename: {name}"))
    compress_and_hash_again(deb)
    assert refusal(deb) == f"the index's size or SHA-256 of {name} is not the file's"


def test_a_release_that_is_not_for_this_dist_is_refused(deb: Path) -> None:
    """A Release of another codename would make every client complain."""
    edit(deb / RELEASE, lambda text: text.replace("Codename: jammy", "Codename: noble"))
    assert refusal(deb) == "dists/jammy/Release is for 'noble'"
    edit(deb / RELEASE, lambda text: text.replace("Codename: noble\n", ""))
    assert refusal(deb) == "dists/jammy/Release is for None"


@pytest.mark.parametrize("path", [PACKAGES, PACKAGES + ".gz", "dists/jammy/main/source/Sources"])
def test_an_index_that_release_does_not_hold_is_refused(deb: Path, path: str) -> None:
    """A file below dists/ whose digest is not Release's is refused: apt would refuse it, too."""
    with (deb / path).open("ab") as file:
        file.write(b"\n")
    assert refusal(deb) == f"dists/jammy/Release does not hold the size and SHA-256 of {path}"


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("deb", "stray.deb"),
        ("deb", "dists/jammy/main/Extra"),
        ("deb", "dists/jammy/main/binary-arm64/Packages"),
        ("deb", "dists/jammy/main/binary-amd64/Packages.xz"),
        ("deb", "dists/noble/Release"),
        ("deb", "x86_64.repo"),
        ("rpm", "stray.rpm"),
        ("rpm", "aarch64/stray.rpm"),
        ("rpm", "noarch/deeper/stray.rpm"),
        ("rpm", "noarch/repodata/comps.sqlite"),
        ("rpm", "pool/x"),
    ],
)
def test_what_the_layout_has_no_place_for_is_refused(
    made: dict[str, Path], kind: str, path: str, tmp_path: Path
) -> None:
    """Nothing lies beside signed metadata but what the layout knows, wherever a build puts it."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "repo"))
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text("x")
    assert refusal(directory) == f"the layout has no place for {path}"


def test_a_repository_without_release_is_refused(deb: Path) -> None:
    """Where the tool that makes Release failed, the file is missed."""
    (deb / RELEASE).unlink()
    assert refusal(deb) == "dists/jammy/Release is missing"


def test_a_repository_without_packages_is_refused(deb: Path) -> None:
    """Without an index of this architecture there is nothing to install, whether Release lists it or not."""
    (deb / PACKAGES).unlink()
    assert refusal(deb) == ("dists/jammy/Release lists main/binary-amd64/Packages, which was not uploaded")
    (deb / (PACKAGES + ".gz")).unlink()
    hash_again(deb)
    assert refusal(deb) == "dists/jammy/Release does not list main/binary-amd64/Packages"


def test_an_index_of_another_architecture_does_not_do(deb: Path) -> None:
    """The index must be that of the target's own architecture."""
    (deb / "dists/jammy/main/binary-amd64").rename(deb / "dists/jammy/main/binary-arm64")
    hash_again(deb)
    assert refusal(deb) == ("the layout has no place for dists/jammy/main/binary-arm64/Packages")


def test_an_empty_index_is_refused(deb: Path) -> None:
    """An index without any package is refused, whatever it should have held."""
    for path in deb.glob(f"{POOL}/*.deb"):
        path.unlink()
    (deb / PACKAGES).write_text("")
    (deb / (PACKAGES + ".gz")).write_bytes(gzip.compress(b""))
    hash_again(deb)
    assert refusal(deb) == "the repository's index is empty"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("SHA256", f"{PACKAGES} has a stanza without just one field SHA256"),
        ("Size", f"{PACKAGES} has a stanza without just one field Size"),
        ("Filename", f"{PACKAGES} has a stanza without just one field Filename"),
        ("Version", f"{PACKAGES} has a stanza without just one field Version"),
    ],
)
def test_an_index_without_a_field_is_refused(deb: Path, field: str, sentence: str) -> None:
    """An index that leaves out what apt verifies by is refused, and the sentence names the field."""
    edit(
        deb / PACKAGES,
        lambda text: "".join(line for line in text.splitlines(True) if not line.startswith(f"{field}: ")),
    )
    compress_and_hash_again(deb)
    assert refusal(deb) == sentence


def test_a_compressed_index_says_the_same(deb: Path) -> None:
    """apt fetches Packages.gz, so that must unpack to the Packages that was looked at."""
    (deb / (PACKAGES + ".gz")).write_bytes(gzip.compress(b"Package: other\n"))
    hash_again(deb)
    assert refusal(deb) == f"{PACKAGES}.gz does not unpack to Packages"
    (deb / (PACKAGES + ".gz")).write_bytes(b"no gzip at all")
    hash_again(deb)
    assert refusal(deb) == f"{PACKAGES}.gz does not unpack to Packages"


@pytest.mark.parametrize(
    "lines",
    [
        "SHA256:\n abc\n", "SHA256: abc\n", "SHA256:\n abc ten main/x\n", "SHA256: abc 10 main/x\n", "SHA256:\n\n",
        "SHA256:\n abc 10 main/x y z\n", "",
    ],
)  # fmt: skip
def test_a_release_of_nonsense_is_refused_in_words(deb: Path, lines: str) -> None:
    """A Release whose table of digests is none is refused like any other mistake, and says of which file."""
    (deb / RELEASE).write_text(f"Codename: jammy\n{lines}")
    assert refusal(deb).startswith("dists/jammy/Release ")


@pytest.mark.parametrize(
    "field", ["Acquire-By-Hash", "Signed-By", "NotAutomatic", "Valid-Until", "Changelogs"]
)
def test_a_release_says_only_what_ours_say(deb: Path, field: str) -> None:
    """A field that could make apt trust or fetch something else is refused by name, before the master signs it."""
    edit(deb / RELEASE, lambda text: f"{field}: yes\n{text}")
    assert refusal(deb) == f"dists/jammy/Release has a field {field}, which no repository of ours has"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\nCodename: jammy\n",
        lambda text: "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + text,
        lambda text: text + "-----BEGIN PGP SIGNATURE-----\n",
    ],
    ids=["two", "signed", "signature"],
)
def test_a_release_is_one_plain_stanza(deb: Path, change: Callable[[str], str]) -> None:
    """A Release of two stanzas, or one that brings a signature along, is read differently by apt and is refused."""
    edit(deb / RELEASE, change)
    assert refusal(deb) == "Release is not one plain stanza"


@pytest.mark.parametrize("field", ["Filename: pool/other.deb", "SHA256: 0", "package: other", "SIZE : 7"])
def test_a_stanza_says_each_thing_once(deb: Path, field: str) -> None:
    """A field that stands twice in a stanza, in whatever case, is refused: apt and we might choose different ones."""
    edit(deb / PACKAGES, lambda text: text.replace("\n\n", f"\n{field}\n\n", 1))
    compress_and_hash_again(deb)
    name = {"filename": "Filename", "sha256": "SHA256", "package": "Package", "size": "Size"}
    said = name[field.split(":", maxsplit=1)[0].strip().lower()]
    assert refusal(deb) == f"{PACKAGES} has a stanza without just one field {said}"


@pytest.mark.parametrize("table", ["MD5Sum", "SHA1", "SHA512"])
def test_a_release_lists_what_was_uploaded(deb: Path, table: str) -> None:
    """Each table of Release lists uploaded files only: apt would fetch the others in vain."""
    edit(deb / RELEASE, lambda text: text.replace(f"{table}:\n", f"{table}:\n 00 1 main/x/Packages.xz\n"))
    assert refusal(deb) == "dists/jammy/Release lists main/x/Packages.xz, which was not uploaded"


@pytest.mark.parametrize("path", [RELEASE, PACKAGES])
def test_an_index_is_text(deb: Path, path: str) -> None:
    """An index that is not UTF-8 is refused by name."""
    with (deb / path).open("ab") as file:
        file.write(b"\xff\n")
    if path == PACKAGES:
        hash_again(deb)
    assert refusal(deb) == f"{path} is not UTF-8"


@pytest.mark.parametrize(
    ("kind", "path"), [("deb", PACKAGES), ("deb", RELEASE), ("rpm", "noarch/repodata/repomd.xml")]
)
def test_an_endless_index_is_not_read(
    made: dict[str, Path], kind: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index larger than any real one is refused before it is in the master's memory."""
    directory = Path(shutil.copytree(made[kind], tmp_path / "repo"))
    monkeypatch.setattr(verification, "_MOST_INDEX", 20_000)
    verify(directory)
    with (directory / path).open("a") as file:
        file.write("\n" + " " * 20_000)
    if path == PACKAGES:
        hash_again(directory)
    assert refusal(directory) == f"{path.rsplit('/', 1)[1]} is larger than 20000 bytes"


@pytest.mark.parametrize("part", ["SRPMS", "noarch", "x86_64"])
def test_each_of_the_three_repositories_has_metadata(rpm: Path, part: str) -> None:
    """SRPMS, noarch and the architecture each need their repomd.xml."""
    (rpm / part / "repodata/repomd.xml").unlink()
    assert refusal(rpm) == f"{part}/repodata/repomd.xml is missing"


def test_without_the_release_rpm_nothing_is_published(rpm: Path) -> None:
    """teuthology installs the rpm of the repository first, so it must be there."""
    (rpm / RELEASE_RPM).unlink()
    assert refusal(rpm) == f"{RELEASE_RPM} is missing"


@pytest.mark.parametrize("name", ["primary", "filelists", "other"])
def test_metadata_that_repomd_does_not_hold_is_refused(rpm: Path, name: str) -> None:
    """Every file that repomd.xml lists has the digest that it says."""
    path = f"noarch/repodata/{name}.xml.gz"
    (rpm / path).write_bytes(gzip.compress(b"<other/>"))
    assert refusal(rpm) == f"noarch/repodata/repomd.xml does not hold the SHA-256 of {path}"


def test_metadata_that_is_not_there_is_refused(rpm: Path) -> None:
    """A file that repomd.xml lists, and that was not uploaded, is refused."""
    (rpm / "noarch/repodata/other.xml.gz").unlink()
    assert (
        refusal(rpm) == "noarch/repodata/repomd.xml does not hold the SHA-256 of noarch/repodata/other.xml.gz"
    )


def test_metadata_elsewhere_is_refused(rpm: Path) -> None:
    """repomd.xml cannot point out of its repository."""
    edit(
        rpm / "noarch/repodata/repomd.xml",
        lambda text: text.replace('href="repodata/other', 'href="../../repodata/other'),
    )
    assert (
        refusal(rpm)
        == "noarch/repodata/repomd.xml does not hold the SHA-256 of noarch/../../repodata/other.xml.gz"
    )


def test_a_repomd_without_an_index_is_refused(rpm: Path) -> None:
    """A repomd.xml that names no primary.xml.gz would be a repository of nothing."""
    edit(rpm / "noarch/repodata/repomd.xml", lambda text: text.replace('type="primary"', 'type="primary_db"'))
    assert refusal(rpm) == NOT_THREE


REPOMD = '<repomd xmlns="http://linux.duke.edu/metadata/repo">{}</repomd>'
BARE = '<data type="primary"/><data type="filelists"/><data type="other"/>'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the metadata of noarch cannot be read: no element found: line 1, column 0"),
        ("<repomd", "the metadata of noarch cannot be read: unclosed token: line 1, column 0"),
        (REPOMD.format(BARE), "the metadata of noarch cannot be read: 'repo:location'"),
        (REPOMD.format(BARE.replace("/>", "><location/></data>")), "the metadata of noarch cannot be read: 'href'"),
        (REPOMD.format("<data/>"), "the metadata of noarch cannot be read: 'type'"),
        (REPOMD.format('<data type="primary"/>'), NOT_THREE),
        (REPOMD.format(BARE + '<data type="primary"/>'), NOT_THREE),
        (REPOMD.format(BARE + '<data type="modules"/>'), NOT_THREE),
        (REPOMD.format(BARE + "<tags/>"), "noarch/repodata/repomd.xml holds more than data and revision"),
        (REPOMD.format(BARE).replace("<data", '<data xml:base="http://evil/"', 1), "xml:base leads away from the repository"),
        ("<repomd/>", NOT_THREE),
    ],
)  # fmt: skip
def test_a_repomd_of_nonsense_is_refused_in_words(rpm: Path, text: str, sentence: str) -> None:
    """A repomd.xml that is no XML, or lacks a part, is refused, and the sentence names the repository."""
    (rpm / "noarch/repodata/repomd.xml").write_text(text)
    assert refusal(rpm) == sentence


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [BOMB, OUTSIDE], ids=["bomb", "outside"])
@pytest.mark.parametrize("where", ["repomd", "primary"])
def test_entities_are_refused(rpm: Path, head: str, where: str) -> None:
    """XML that defines entities, to fill the memory or to read a file, is refused unread, and the sentence names the repository."""
    if where == "repomd":
        (rpm / "noarch/repodata/repomd.xml").write_text(head + "<repomd>&a;</repomd>")
    else:
        replace_data(
            rpm, "noarch", "primary.xml.gz", gzip.compress((head + "<metadata>&a;</metadata>").encode())
        )
    assert refusal(rpm).startswith("the metadata of noarch cannot be read: ")


def test_a_bomb_of_gzip_is_refused(rpm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that unpacks to more than any real one is refused without unpacking it."""
    monkeypatch.setattr(verification, "_MOST_INDEX", 1_000_000)
    replace_data(rpm, "noarch", "primary.xml.gz", gzip.compress(b"\0" * 20_000_000))
    assert refusal(rpm) == "an index unpacks to more than 1000000 bytes"


@pytest.mark.parametrize(
    "data", [b"", b"no gzip", gzip.compress(b"<metadata/>" * 1000)[:-12]], ids=["empty", "text", "cut"]
)
def test_an_index_that_does_not_unpack_is_refused(rpm: Path, data: bytes) -> None:
    """A primary.xml.gz that is no gzip, or only the beginning of one, is refused."""
    replace_data(rpm, "noarch", "primary.xml.gz", data)
    assert refusal(rpm).startswith("the metadata of noarch cannot be read: ")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('<checksum type="sha256"', '<checksum type="sha1"', "noarch has packages without SHA-256"),
        ('<size package="', '<size packages="', "the metadata of noarch cannot be read: 'package'"),
        ('<size package="', '<size package="x', "noarch has a package whose size is 'x"),
        ('<location href="', '<location base="/" href="../', "the index's size or SHA-256 of noarch/../ceph-release-1-0.el9.noarch.rpm is not the file's"),
        ("<name>python3-ceph-argparse<", "<name>other<", "packages that the sources name are missing: python3-ceph-argparse"),
    ],
)  # fmt: skip
def test_an_index_that_lies_is_refused(rpm: Path, old: str, new: str, sentence: str) -> None:
    """An index without what dnf verifies by, or that points elsewhere, is refused, with everything around it right."""
    edit_primary(rpm, "noarch", lambda text: text.replace(old, new))
    assert refusal(rpm).startswith(sentence)


@pytest.fixture(scope="module")
def spoilt(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give copies that a test may spoil again and again."""
    return {
        kind: Path(shutil.copytree(path, tmp_path_factory.mktemp("spoilt") / kind))
        for kind, path in made.items()
    }


_ODD = st.binary(max_size=6) | st.sampled_from(
    [b"\n", b"\n\n", b": ", b" ", b"<", b"<a>", b"&a;", b'"', b"SHA256:\n x\n", b"Size: x\n"]
)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("deb", RELEASE),
        ("deb", PACKAGES),
        ("rpm", "noarch/repodata/repomd.xml"),
        ("rpm", "noarch/repodata/primary.xml.gz"),
    ],
)
@settings(max_examples=100)
@given(at=st.integers(0, 1_000_000), length=st.integers(0, 400), odd=_ODD)
def test_whatever_metadata_a_build_writes_the_answer_is_a_sentence(
    spoilt: dict[str, Path], made: dict[str, Path], kind: str, path: str, at: int, length: int, odd: bytes
) -> None:
    """With any piece of an index replaced by anything, and all digests around it right, it passes or ValueError says why."""
    directory, good = spoilt[kind], made[kind]
    data = (good / path).read_bytes()
    text = gzip.decompress(data) if path.endswith(".gz") else data
    at %= len(text)
    changed = text[:at] + odd + text[at + length :]
    if path.endswith(".gz"):
        shutil.copy(good / "noarch/repodata/repomd.xml", directory / "noarch/repodata/repomd.xml")
        packed = gzip.compress(changed, 1)
        old, new = (hashlib.sha256(some).hexdigest() for some in (data, packed))
        (directory / path).write_bytes(packed)
        repomd = directory / "noarch/repodata/repomd.xml"
        repomd.write_text(repomd.read_text().replace(old, new))
    else:
        (directory / path).write_bytes(changed)
    if path == PACKAGES:
        old, new = (f" {hashlib.sha256(some).hexdigest()} {len(some):>16} main/" for some in (data, changed))
        release = (good / RELEASE).read_text()
        assert old in release
        (directory / RELEASE).write_text(release.replace(old, new))
        (directory / (PACKAGES + ".gz")).unlink(missing_ok=True)
    write_manifest(directory, RPM_VERSION if kind == "rpm" else DEB_VERSION, ["ceph"])
    try:
        verify(directory)
    except ValueError as error:
        assert str(error)
    finally:
        shutil.copy(good / path, directory / path)


def test_the_digests_are_those_of_what_arrived(deb: Path) -> None:
    """What the package server counted is what is compared, not what the disk or the manifest says now."""
    received = files_of(deb)
    received[CEPH] = File(CEPH, received[CEPH].size, "0" * 64)
    with pytest.raises(ValueError, match=r"arrived with another size or SHA-256 than the manifest says$"):
        verification.verify(PackageKey.from_string(DEB_KEY), deb, received)
