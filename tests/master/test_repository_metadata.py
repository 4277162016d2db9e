"""The metadata that the master makes: what apt and dnf read is what was received, whatever a build uploads."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp

import pytest

from model.manifest import File
from tests.package_clients import Apt, dnf_packages, served
from tests.package_repositories import (
    DEB_NAMES,
    DEB_VERSION,
    RPM_NAMES,
    RPM_VERSION,
    SPEC,
    build_deb,
    build_rpm,
    build_source,
    deb_upload,
    files_of,
    make_metadata,
    rpm_upload,
    write_manifest,
)

POOL = "pool/main/c/ceph"
CEPH = f"{POOL}/ceph_{DEB_VERSION}_amd64.deb"
PARTS = ("SRPMS", "noarch", "x86_64")
SOURCE_RPM = "ceph-19.2.0-3.g73e2fc59.el9.src.rpm"
CEPH_RPM = "x86_64/ceph-19.2.0-3.g73e2fc59.el9.x86_64.rpm"
ARGPARSE_RPM = "noarch/python3-ceph-argparse-19.2.0-3.g73e2fc59.el9.noarch.rpm"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make both uploads; no test changes these."""
    return {
        "deb": deb_upload(tmp_path_factory.mktemp("deb")),
        "rpm": rpm_upload(tmp_path_factory.mktemp("rpm")),
    }


@pytest.fixture
def deb(made: dict[str, Path], tmp_path: Path) -> Path:
    """Return an upload of debs that a test may change."""
    return Path(shutil.copytree(made["deb"], tmp_path / "upload"))


@pytest.fixture
def rpm(made: dict[str, Path], tmp_path: Path) -> Path:
    """Return an upload of rpms that a test may change."""
    return Path(shutil.copytree(made["rpm"], tmp_path / "upload"))


def make(directory: Path, packages: list[str] | None = None) -> list[File]:
    """Write the manifest of what is there, and make the metadata."""
    rpm = (directory / "SRPMS").exists()
    names = packages or (RPM_NAMES if rpm else DEB_NAMES)
    write_manifest(directory, RPM_VERSION if rpm else DEB_VERSION, names)
    return make_metadata(directory)


def refusal(directory: Path, packages: list[str] | None = None) -> str:
    """Return the sentence about an upload, of which nothing is signed then."""
    with pytest.raises(ValueError) as caught:
        make(directory, packages)
    return str(caught.value)


def read_by_apt(directory: Path, scratch: Path) -> list[tuple[str, ...]]:
    """Return what the real apt lists."""
    with served(directory) as url:
        return Apt(scratch / "apt", f"[trusted=yes] {url} jammy main").packages()


def received_debs(directory: Path) -> list[tuple[str, ...]]:
    """Return what apt should list: each deb by its own name, with the size and SHA-256 of its bytes."""
    rows = []
    for path, file in files_of(directory / "pool").items():
        if path.endswith("deb"):
            name, version, _ = Path(path).stem.split("_")
            rows.append((name, version, f"pool/{path}", str(file.size), file.sha256))
    return sorted(rows)


def control_deb(path: Path, control: bytes, *, members: tuple[str, ...] = (), padding: int = 0) -> None:
    """Write a deb whose control file has just these bytes, without dpkg, which would refuse some of them."""

    def tar(name: str, data: bytes, more: int = 0) -> bytes:
        stream = BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for member, content in ((name, data), ("./padding", b"\0" * more)):
                if content:
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    archive.addfile(info, BytesIO(content))
        return stream.getvalue()

    packed = lzma.compress(tar("./control", control, padding), preset=0)
    parts = [("debian-binary", b"2.0\n"), *((name, b"odd") for name in members), ("control.tar.xz", packed)]
    parts.append(("data.tar", tar("./usr/share/x", b"x")))
    data = b"!<arch>\n"
    for name, content in parts:
        data += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), 0, 0, 0, b"100644", len(content))
        data += content + b"\n" * (len(content) % 2)
    path.write_bytes(data)


FIELDS = f"""\
Package: ceph-odd
Version: {DEB_VERSION}
Source: ceph
Architecture: amd64
Maintainer: a <a@example.invalid>
Description: x
""".encode()
ODD = f"{POOL}/ceph-odd_{DEB_VERSION}_amd64.deb"


# debs


def test_apt_reads_what_was_received(deb: Path, tmp_path: Path) -> None:
    """apt lists each deb once with the bytes that were received, downloads it, and finds the source package."""
    made = make(deb)
    assert [file.path for file in made] == [
        "dists/jammy/main/binary-amd64/Packages", "dists/jammy/main/binary-amd64/Packages.gz",
        "dists/jammy/main/source/Sources", "dists/jammy/main/source/Sources.gz", "dists/jammy/Release",
    ]  # fmt: skip
    assert {file.path: file for file in made}.items() <= files_of(deb).items()
    with served(deb) as url:
        source = f"[trusted=yes] {url} jammy main"
        apt = Apt(tmp_path / "apt", f"{source}\ndeb-src {source}")
        assert apt.packages() == received_debs(deb)
        assert apt.downloaded(*DEB_NAMES) == [
            f"ceph-common_{DEB_VERSION}_amd64.deb", f"ceph_{DEB_VERSION}_amd64.deb",
            f"python3-ceph-argparse_{DEB_VERSION}_all.deb",
        ]  # fmt: skip
        sources = apt.run("apt-get", "source", "--print-uris", "ceph")
        assert len(re.findall(r"^'http://\S+' ", sources, re.MULTILINE)) == 3


def test_release_is_for_the_target(deb: Path) -> None:
    """Release has the codename, architecture and component of the target, and nothing is signed yet."""
    make(deb)
    release = (deb / "dists/jammy/Release").read_text().splitlines()
    assert {
        "Origin: Ceph", "Label: Ceph on demand", "Suite: jammy", "Codename: jammy",
        "Architectures: amd64", "Components: main",
    } <= set(release)  # fmt: skip
    assert not list(deb.rglob("InRelease"))


@pytest.mark.parametrize(
    "control",
    [
        FIELDS + "X-A: a\u2028Package: evil\n".encode(),
        FIELDS + "X-A: a\u0085Filename: evil\n".encode(),
        FIELDS + b"X-A: \xff\xfe\n",
        FIELDS + b"Filename: ../../evil.deb\nSize: 7\nSHA256: 00\nStatus: install ok installed\n",
        FIELDS + b"\nPackage: injected\nVersion: 1\nArchitecture: amd64\n",
        FIELDS + b"X-A: a\n .\n\t b\n",
        FIELDS.replace(b"Package: ceph-odd", b"Package: evil\nPackage: ceph-odd"),
        FIELDS.replace(b"Package:", b"package :"),
        FIELDS + b"X-Long: " + b"y" * 1_000_000 + b"\n",
    ],
    ids=["u2028", "nel", "not-utf-8", "own-filename", "two-stanzas", "continued", "two-names", "spelling", "long"],
)  # fmt: skip
def test_apt_and_the_master_read_an_odd_control_file_alike(deb: Path, control: bytes, tmp_path: Path) -> None:
    """A control file that is odd, but that no client reads otherwise, is indexed as the package that its file is named after."""
    control_deb(deb / ODD, control)
    make(deb)
    assert read_by_apt(deb, tmp_path) == received_debs(deb)


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        (FIELDS.replace(b"Package: ceph-odd", b"Package: ceph-odd\nPackage: ceph-mon"), f"{ODD} holds the package 'ceph-mon_{DEB_VERSION}_amd64': a package's file must have its name"),
        (FIELDS.replace(b"Package: ceph-odd", b"Package: ../odd"), f"{ODD} holds the package '../odd_{DEB_VERSION}_amd64': a package's file must have its name"),
        (FIELDS + b"X-A: a\nX-A: b\n", f"the control file of {ODD} has the field X-A twice"),
        (FIELDS + b"X-A: a\nx-a: b\n", f"the control file of {ODD} has the field x-a twice"),
        (FIELDS + b"MD5sum: 00\n", f"the control file of {ODD} has the field MD5sum, which only an archive writes"),
        (FIELDS + b"Sha512: 00\n", f"the control file of {ODD} has the field SHA512, which only an archive writes"),
        (FIELDS + b"Essential: yes\n", f"{ODD} is marked Essential: apt would install it unasked"),
        (FIELDS + b"Important: yes\n", f"{ODD} is marked Important: apt would install it unasked"),
        (FIELDS + b"X-A: a\n \n b\n", f"the control file of {ODD} has a line that is no field, nor the text of one: b' '"),
        (FIELDS + b"X-A: a\n# comment\nX-B: b\n", f"the control file of {ODD} has a line that is no field, nor the text of one: b'# comment'"),
        (FIELDS + b"X-A: a\x0cb\n", f"the control file of {ODD} has a line that is no field, nor the text of one: b'X-A: a\\x0cb'"),
        (FIELDS.replace(b"Source: ceph\n", b"X-A: a\r\n\r\n"), f"the control file of {ODD} has no field Architecture"),
        (FIELDS.replace(b"Source: ceph\n", b""), f"{ODD} comes from ceph-odd ({DEB_VERSION}), not from ceph ({DEB_VERSION})"),
        (FIELDS.replace(b"Source: ceph", b"Source: ceph (1-1)"), f"{ODD} comes from ceph (1-1), not from ceph ({DEB_VERSION})"),
        (FIELDS.replace(b"Source: ceph", b"Source: a b c"), f"{ODD} has the field Source: 'a b c'"),
        (FIELDS.replace(b"amd64", b"arm64"), f"{ODD} is for arm64, not amd64"),
        (FIELDS.replace(b"amd64", b"all"), f"{ODD} holds the package 'ceph-odd_{DEB_VERSION}_all': a package's file must have its name"),
        (b"\n\n", f"{ODD} is no package that apt-ftparchive can read"),
    ],
)  # fmt: skip
def test_a_misleading_control_file_is_refused(deb: Path, control: bytes, sentence: str) -> None:
    """A control file whose index entry could mislead a client is refused, and the sentence names the file."""
    control_deb(deb / ODD, control)
    assert refusal(deb) == sentence


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"!<arch>\n", b"!<arch>\n" + b"x" * 500, b"\x7fELF"],
    ids=["empty", "text", "no-member", "nonsense", "elf"],
)
def test_what_is_no_deb_is_refused(deb: Path, data: bytes) -> None:
    """A file that apt-ftparchive leaves out, with status 0, is missed."""
    (deb / ODD).write_bytes(data)
    assert refusal(deb) == f"{ODD} is no package that apt-ftparchive can read"


def test_a_deb_without_a_control_file_is_refused(deb: Path) -> None:
    """apt-ftparchive indexes it with the control file of the deb that it read before: the file's name gives it away."""
    control_deb(deb / ODD, b"")
    assert refusal(deb).startswith(ODD)


def test_a_deb_with_odd_members_is_what_its_control_file_says(deb: Path, tmp_path: Path) -> None:
    """Members that dpkg does not know are passed over by apt and by the master."""
    control_deb(deb / ODD, FIELDS, members=("control", "_odd", "control.tar.gz2"))
    make(deb)
    assert read_by_apt(deb, tmp_path) == received_debs(deb)


def test_a_bomb_of_a_control_archive_harms_nobody(deb: Path) -> None:
    """A control archive that unpacks to 200 MB is read in a process with limits, and the answer is right."""
    control_deb(deb / ODD, FIELDS, padding=200_000_000)
    make(deb)


def test_an_endless_control_file_is_refused(deb: Path) -> None:
    """A control file of 80 MB becomes an index that is too long, and is refused in words."""
    control_deb(deb / ODD, FIELDS + b"X-A: " + b"y" * 80_000_000 + b"\n")
    assert refusal(deb).startswith(
        ("apt-ftparchive was ", f"{ODD} is no package that apt-ftparchive can read")
    )


def test_a_package_of_the_masters_name_is_refused(deb: Path) -> None:
    """`ceph-release` tells clients where to look, so no build brings its own."""
    build_deb(deb / POOL, "ceph-release", DEB_VERSION, "all")
    assert (
        refusal(deb)
        == "ceph-release is the package that the master makes; a build may have none of this name"
    )


def test_debug_debs_of_ubuntu_are_indexed(deb: Path, tmp_path: Path) -> None:
    """A .ddeb is a package like any other, and apt finds it."""
    path = build_deb(deb / POOL, "ceph-dbgsym", DEB_VERSION)
    path.rename(path.with_suffix(".ddeb"))
    make(deb)
    assert read_by_apt(deb, tmp_path) == received_debs(deb)
    assert len(received_debs(deb)) == 4


def test_a_binary_may_have_a_version_of_its_own(deb: Path, tmp_path: Path) -> None:
    """With `dh_gencontrol -- -v3:2.4.6-1` a deb has an epoch, which its file's name has not; its Source field has the build's version."""
    build_deb(deb / POOL, "libceph2", "3:2.4.6-1", more=f"Source: ceph ({DEB_VERSION})\n")
    make(deb, [*DEB_NAMES, "libceph2"])
    listed = {row[0]: row[1:3] for row in read_by_apt(deb, tmp_path)}
    assert listed["libceph2"] == ("3:2.4.6-1", f"{POOL}/libceph2_2.4.6-1_amd64.deb")


def test_an_expected_package_carries_the_version(deb: Path) -> None:
    """If no expected package has the published version, nothing shows which version is installed: it is refused."""
    build_deb(deb / POOL, "libceph2", "2.4.6-1", more=f"Source: ceph ({DEB_VERSION})\n")
    assert refusal(deb, ["libceph2"]) == f"no expected package is of version {DEB_VERSION}"


def test_missing_packages_are_all_named(deb: Path) -> None:
    """Packages that debian/control names, and the upload has not, are named together."""
    assert refusal(deb, ["ceph", "ceph-mon", "ceph-mgr"]) == (
        "packages that the sources name are missing: ceph-mgr, ceph-mon"
    )


# the source package


def _gone(deb: Path) -> None:
    next(deb.glob(f"{POOL}/*.debian.tar.xz")).unlink()


def _other_bytes(deb: Path) -> None:
    next(deb.glob(f"{POOL}/*.orig.tar.gz")).write_bytes(b"x")


def _stray(deb: Path) -> None:
    (deb / POOL / "notes.txt").write_text("x")


def _two(deb: Path) -> None:
    build_source(deb / POOL, "18.2.0-1")


def _none(deb: Path) -> None:
    next(deb.glob(f"{POOL}/*.dsc")).unlink()


def _of_another_version(deb: Path) -> None:
    for path in deb.glob(f"{POOL}/*19.2.0*"):
        if path.suffix != ".deb":
            path.unlink()
    build_source(deb / POOL, "18.2.0-1")


def _named_elsewhere(deb: Path) -> None:
    dsc = next(deb.glob(f"{POOL}/*.dsc"))
    dsc.write_text(dsc.read_text().replace("Files:\n", "Files:\n 00000000000000000000000000000000 1 other\n"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_gone, r"the \.dsc, or a file that it lists, cannot be read by apt-ftparchive"),
        (_other_bytes, r"the \.dsc lists 'ceph_19\.2\.0-3-g73e2fc59\.orig\.tar\.gz', but another file, or none, was received"),
        (_stray, rf"{POOL}/notes\.txt is neither a package, nor does the \.dsc list it"),
        (_two, r"the upload has 2 \.dsc files instead of one"),
        (_none, r"the upload has 0 \.dsc files instead of one"),
        (_of_another_version, rf"the \.dsc is of version 18\.2\.0-1, not {DEB_VERSION}"),
        (_named_elsewhere, r"the \.dsc, or a file that it lists, cannot be read by apt-ftparchive"),
    ],
)  # fmt: skip
def test_a_source_package_is_whole(deb: Path, change: Callable[[Path], None], sentence: str) -> None:
    """There is one .dsc, of the published version; what it lists was received, and nothing else lies beside it."""
    change(deb)
    assert re.fullmatch(sentence, refusal(deb))


# rpms


def test_dnf_reads_what_was_received(rpm: Path) -> None:
    """dnf lists each rpm once, in its own repository, and the rpm that the master made."""
    made = make(rpm)
    assert {file.path: file for file in made}.items() <= files_of(rpm).items()
    for part in PARTS:
        names = sorted(path.name for path in (rpm / part / "repodata").iterdir())
        assert names == ["filelists.xml.gz", "other.xml.gz", "primary.xml.gz", "repomd.xml"]
    version = "0:19.2.0-3.g73e2fc59.el9"
    with served(rpm) as url:
        assert dnf_packages(url, PARTS) == [
            ("ceph", version, "src", "SRPMS", SOURCE_RPM),
            ("ceph", version, "x86_64", "x86_64", CEPH_RPM.partition("/")[2]),
            ("ceph-release", "0:1-0.el9", "noarch", "noarch", "ceph-release-1-0.el9.noarch.rpm"),
            ("python3-ceph-argparse", version, "noarch", "noarch", ARGPARSE_RPM.partition("/")[2]),
        ]
    assert not (rpm / ".metadata").exists()


CARET = SPEC.replace("Release: 3.g73e2fc59.el9", "Epoch: 2\nRelease: 3.g73e2fc59.el9^dbg").replace(
    "Summary: Another package\n", "Summary: Another package\nVersion: 4.1\nRelease: 7\n"
)


def test_versions_that_dnf_accepts_are_published(tmp_path: Path) -> None:
    """A release with a caret, an epoch, and a subpackage with a version of its own: dnf finds them all."""
    build_rpm(tmp_path / "upload", CARET)
    make(tmp_path / "upload")
    with served(tmp_path / "upload") as url:
        found = {row[0]: row for row in dnf_packages(url, ("noarch", "x86_64"))}
    assert found["ceph"][1:] == (
        "2:2:19.2.0-3.g73e2fc59.el9^dbg", "x86_64", "x86_64", "ceph-19.2.0-3.g73e2fc59.el9^dbg.x86_64.rpm",
    )  # fmt: skip
    assert found["python3-ceph-argparse"][1:3] == ("2:2:4.1-7", "noarch")


def test_an_expected_rpm_carries_the_version(tmp_path: Path) -> None:
    """If no expected rpm's version contains the published one, nothing shows which version is installed: it is refused."""
    build_rpm(tmp_path / "upload", CARET)
    assert refusal(tmp_path / "upload", ["python3-ceph-argparse"]) == (
        f"the version of no expected package holds {RPM_VERSION}"
    )


def _renamed(rpm: Path) -> None:
    (rpm / CEPH_RPM).rename(rpm / "x86_64/ceph-1-1.x86_64.rpm")


def _copied(rpm: Path) -> None:
    shutil.copy(rpm / ARGPARSE_RPM, rpm / "x86_64/stray.rpm")


def _noarch_in_arch(rpm: Path) -> None:
    shutil.move(rpm / ARGPARSE_RPM, rpm / "x86_64")


def _source_among_binaries(rpm: Path) -> None:
    shutil.copy(rpm / "SRPMS" / SOURCE_RPM, rpm / "x86_64")


def _binary_among_sources(rpm: Path) -> None:
    shutil.copy(rpm / CEPH_RPM, rpm / "SRPMS" / SOURCE_RPM)


def _cut(rpm: Path) -> None:
    (rpm / CEPH_RPM).write_bytes((rpm / CEPH_RPM).read_bytes()[:900])


def _header_says_another_name(rpm: Path) -> None:
    data = (rpm / ARGPARSE_RPM).read_bytes()
    (rpm / ARGPARSE_RPM).write_bytes(data.replace(b"\0python3-ceph-argparse\0", b"\0../../ceph-argparse.\0"))


def _header_says_gigabytes(rpm: Path) -> None:
    data = bytearray((rpm / ARGPARSE_RPM).read_bytes())
    header = data.rindex(b"\x8e\xad\xe8\x01")  # the signature has one as well
    data[header + 12 : header + 16] = (0x7FFFFFFF).to_bytes(4)
    (rpm / ARGPARSE_RPM).write_bytes(data)


def _two_sources(rpm: Path) -> None:
    (rpm / "SRPMS/other-1-1.src.rpm").write_bytes(b"x")


def _of_another_source(rpm: Path) -> None:
    (rpm / "x86_64" / CEPH_RPM.partition("/")[2]).unlink()
    build_rpm(rpm / "else", SPEC.replace("Name: ceph", "Name: ceph-other"))
    for path in (rpm / "else").rglob("ceph-other*.x86_64.rpm"):
        shutil.move(path, rpm / "x86_64")
    shutil.rmtree(rpm / "else")


def _of_another_architecture(rpm: Path) -> None:
    build_rpm(rpm / "else", SPEC, "--target", "aarch64")
    shutil.rmtree(rpm / "x86_64")
    (rpm / "else/aarch64").rename(rpm / "x86_64")
    shutil.rmtree(rpm / "else")


def _reserved(rpm: Path) -> None:
    shutil.rmtree(rpm)
    build_rpm(rpm, SPEC.replace("python3-ceph-argparse", "ceph-release"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_renamed, f"x86_64/ceph-1-1.x86_64.rpm holds the package '{CEPH_RPM[7:-4]}': a package's file must have its name"),
        (_copied, "x86_64/stray.rpm is for noarch, not x86_64"),
        (_noarch_in_arch, f"x86_64/{ARGPARSE_RPM[7:]} is for noarch, not x86_64"),
        (_source_among_binaries, f"x86_64/{SOURCE_RPM} is for src, not x86_64"),
        (_binary_among_sources, f"SRPMS/{SOURCE_RPM} is for x86_64, not src"),
        (_cut, f"{CEPH_RPM} is no rpm: it ends before its headers do"),
        (_header_says_another_name, f"{ARGPARSE_RPM} is no package that createrepo_c can read"),
        (_header_says_gigabytes, f"{ARGPARSE_RPM} is no rpm: it has no header where one should be"),
        (_two_sources, "the upload has 2 source rpms instead of one"),
        (_of_another_source, f"x86_64/ceph-other-19.2.0-3.g73e2fc59.el9.x86_64.rpm comes from ceph-other-19.2.0-3.g73e2fc59.el9.src.rpm, not from {SOURCE_RPM}"),
        (_of_another_architecture, "x86_64/ceph-19.2.0-3.g73e2fc59.el9.aarch64.rpm is for aarch64, not x86_64"),
        (_reserved, "ceph-release is the package that the master makes; a build may have none of this name"),
    ],
)  # fmt: skip
def test_rpms_are_what_their_names_and_places_say(
    rpm: Path, change: Callable[[Path], None], sentence: str
) -> None:
    """An rpm lies in the repository of its architecture, has its own name, and is of the one source rpm."""
    change(rpm)
    assert refusal(rpm, ["ceph"]) == sentence


# the tools


@contextmanager
def tools(texts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put these scripts before the tools of their names; give a directory where they may write."""
    directory = Path(mkdtemp(prefix="tools-", dir="/tmp"))  # where nobody may search the way
    try:
        directory.chmod(0o755)
        (directory / "marks").mkdir()
        (directory / "marks").chmod(0o777)
        for name, text in texts.items():
            (directory / name).write_text(f"#!/bin/bash\n{text}")
            (directory / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(directory), prepend=":")
        yield directory / "marks"
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("kind", "name", "text", "sentence"),
    [
        ("deb", "apt-ftparchive", '[[ " $* " == *" packages "* ]] && exit 100; exec /usr/bin/apt-ftparchive "$@"', "apt-ftparchive ended with status 100"),
        ("deb", "apt-ftparchive", '[[ " $* " == *" sources "* ]] && exit 9; exec /usr/bin/apt-ftparchive "$@"', "apt-ftparchive ended with status 9"),
        ("deb", "apt-ftparchive", '[[ " $* " == *" release "* ]] && exit 1; exec /usr/bin/apt-ftparchive "$@"', "apt-ftparchive ended with status 1"),
        ("deb", "apt-ftparchive", "exit 0", f"{POOL}/ceph-common_{DEB_VERSION}_amd64.deb is no package that apt-ftparchive can read"),
        ("deb", "apt-ftparchive", '/usr/bin/apt-ftparchive "$@" | sed "/^Package: ceph-common/,/^$/d"', f"{POOL}/ceph-common_{DEB_VERSION}_amd64.deb is no package that apt-ftparchive can read"),
        ("deb", "apt-ftparchive", '/usr/bin/apt-ftparchive "$@"; /usr/bin/apt-ftparchive "$@"', f"{POOL}/ceph-common_{DEB_VERSION}_amd64.deb is twice in the index"),
        ("deb", "apt-ftparchive", '/usr/bin/apt-ftparchive "$@" | sed "s/^SHA256: ...../SHA256: 00000/"', f"the index's size or SHA-256 of {POOL}/ceph-common_{DEB_VERSION}_amd64.deb is not that of the file received"),
        ("rpm", "createrepo_c", "exit 1", "createrepo_c ended with status 1"),
        ("rpm", "createrepo_c", "exit 0", "createrepo_c left no primary.xml.gz: No such file or directory"),
        ("rpm", "createrepo_c", 'cd "${@: -2:1}" && mkdir repodata && ln -s /etc/passwd repodata/primary.xml.gz', "createrepo_c left no primary.xml.gz: Too many levels of symbolic links"),
        ("rpm", "createrepo_c", 'cd "${@: -2:1}" && mkdir repodata && mkfifo repodata/primary.xml.gz', "createrepo_c left a primary.xml.gz that is no plain file"),
        ("rpm", "createrepo_c", '/usr/bin/createrepo_c "$@" && cd "${@: -2:1}/repodata" && echo x >primary.xml.gz', "the index of SRPMS cannot be read: Error -3 while decompressing data: incorrect header check"),
        ("rpm", "rpmbuild", "exit 3", "rpmbuild ended with status 3"),
        ("rpm", "rpmbuild", "exit 0", "rpmbuild ended well, but made no noarch/ceph-release-1-0.el9.noarch.rpm"),
    ],
)  # fmt: skip
def test_the_tools_are_not_believed(
    made: dict[str, Path], kind: str, name: str, text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A tool that fails, lies, leaves a package out, or leaves a trap instead of a file, ends in a sentence."""
    with tools({name: text}, monkeypatch):
        assert refusal(Path(shutil.copytree(made[kind], tmp_path / "upload"))) == sentence


SIDE_BY_SIDE = """\
marks=${0%/*}/marks
if [[ $0 == */rpmbuild ]]; then mark=rpmbuild; else mark=${*: -1}; fi
touch "$marks/$mark"
for ((look = 0; look < 600; look++)); do
    [ -f "$marks/rpmbuild" ] && [ -f "$marks/SRPMS" ] && [ -f "$marks/x86_64" ] && exec "/usr/bin/${0##*/}" "$@"
    sleep 0.1
done
exit 1
"""
"""Each program waits until three of them run: the fourth, for noarch, needs what rpmbuild makes."""


def test_the_programs_run_side_by_side(rpm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release rpm is made while the repositories that do not hold it are indexed, and stands in its own."""
    with tools({"rpmbuild": SIDE_BY_SIDE, "createrepo_c": SIDE_BY_SIDE}, monkeypatch):
        made = make(rpm)
    release = "noarch/ceph-release-1-0.el9.noarch.rpm"
    assert release in {file.path for file in made}
    primary = gzip.decompress((rpm / "noarch/repodata/primary.xml.gz").read_bytes()).decode()
    assert f'href="{release.removeprefix("noarch/")}"' in primary


def test_a_failure_waits_for_the_other_programs(rpm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that fails at once ends nothing else: when the sentence comes, no program uses the upload any more."""
    slow = 'case ${*: -1} in SRPMS) exit 7 ;; x86_64) sleep 2; touch "${0%/*}/marks/done" ;; esac; exec /usr/bin/createrepo_c "$@"'
    with tools({"createrepo_c": slow}, monkeypatch) as marks:
        assert refusal(rpm) == "createrepo_c ended with status 7"
        assert (marks / "done").exists()
    assert not (rpm / ".metadata").exists()


def test_a_file_that_changed_on_the_disk_is_refused(deb: Path) -> None:
    """The tools read the disk, the digests are of what arrived: a difference between them is refused."""
    write_manifest(deb, DEB_VERSION, DEB_NAMES)
    with (deb / CEPH).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(ValueError, match=r"^pool/main/c/ceph/ceph_.* arrived with another size or SHA-256"):
        make_metadata(deb)


def test_metadata_is_the_same_whatever_the_umask(deb: Path, tmp_path: Path) -> None:
    """The confined tools can read an upload even if the master's files are private."""
    write_manifest(deb, DEB_VERSION, DEB_NAMES)
    subprocess.run(["chmod", "-R", "go=", deb], check=True)
    make_metadata(deb)
    assert read_by_apt(deb, tmp_path) == received_debs(deb)
