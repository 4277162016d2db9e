"""Signed rpms, with the real rpm and dnf: what is served is signed as a whole, and nothing of a build's signs it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from master.publishing import rpm_signature
from master.publishing.release_rpm import repo_text
from master.publishing.signing import SigningKey
from model.manifest import File
from model.targets import Target
from tests.package_clients import dnf, served
from tests.package_repositories import files_of, make_metadata, rpm_upload, sign_metadata, signing_home
from tests.reactor import finish

CENTOS = Target("ceph", "centos9")
CEPH = "x86_64/ceph-19.2.0-3.g73e2fc59.el9.x86_64.rpm"


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an upload of rpms that nothing is signed of; no test changes it."""
    return rpm_upload(tmp_path_factory.mktemp("rpm"))


@pytest.fixture
def mine(upload: Path, tmp_path: Path) -> Path:
    """Return an upload that a test may change."""
    return Path(shutil.copytree(upload, tmp_path / "upload"))


@pytest.fixture
def other_home() -> Iterator[Path]:
    """Make a home with another key."""
    directory = Path(tempfile.mkdtemp(prefix="key-", dir="/tmp"))
    finish(lambda reactor: SigningKey(reactor, directory / "gnupg").prepare())
    yield directory / "gnupg"
    finish(lambda reactor: SigningKey(reactor, directory / "gnupg").stop())
    shutil.rmtree(directory)


def checked(path: Path, key: Path, scratch: Path) -> str:
    """Return what rpm says about an rpm if it knows only the keys of one file."""
    database = Path(tempfile.mkdtemp(dir=scratch))
    subprocess.run(["rpmkeys", "--dbpath", database, "--import", key], check=True)
    command = ["rpmkeys", "--dbpath", database, "--checksig", "--verbose", path]
    return subprocess.run(command, capture_output=True, text=True).stdout


def our_key() -> Path:
    """Return the file with the public key that signs here."""
    return signing_home().with_name("key.asc")


def signed(path: Path, home: Path | None = None) -> File:
    """Sign one rpm with the oldest key of a home."""
    received = files_of(path.parent)[path.name]
    used = home or signing_home()

    async def sign(reactor: Any) -> File:
        key = SigningKey(reactor, used)
        headers = rpm_signature.read(path, path.name)
        scratch = path.with_name("header")
        scratch.write_bytes(headers.main)
        signature = await key.signature(scratch, await key.oldest())
        return rpm_signature.digest(rpm_signature.write(path, headers, signature, received))

    made: File = finish(sign)
    return made


def without_room(path: Path) -> None:
    """Write an rpm anew without the space that rpmbuild reserves for a signature."""
    headers, data = rpm_signature.read(path, path.name), path.read_bytes()
    made = rpm_signature._signature_header(headers, b"x", 0)
    path.write_bytes(headers.lead + made + data[len(headers.lead + headers.signature) :])


def test_d13_every_rpm_that_is_served_is_signed(mine: Path, tmp_path: Path) -> None:
    """rpm finds header and payload of each rpm good, that of the master too, and the manifest's digests are of these."""
    before = files_of(mine)
    made = {file.path: file for file in make_metadata(mine)}
    served_rpms = {path: file for path, file in files_of(mine).items() if path.endswith(".rpm")}
    assert len(served_rpms) == 4
    for path, file in served_rpms.items():
        assert made[path] == file
        said = checked(mine / path, our_key(), tmp_path)
        assert "Header V4 RSA/SHA512 Signature" in said
        assert "Payload SHA256 digest: OK" in said
        assert all(line.endswith(": OK") for line in said.splitlines()[1:]), said
        if path in before:
            assert (file.size, file.sha256) != (before[path].size, before[path].sha256)
            assert file.size == before[path].size  # in place


def test_an_rpm_without_room_is_written_anew(mine: Path, tmp_path: Path) -> None:
    """An rpm that reserves no space becomes longer, readable as before, and is as good."""
    without_room(mine / CEPH)
    before = (mine / CEPH).stat().st_size
    umask = os.umask(0o077)
    try:
        file = signed(mine / CEPH)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((mine / CEPH).stat().st_mode) == 0o644
    assert file.size == (mine / CEPH).stat().st_size > before
    assert file.sha256 == hashlib.sha256((mine / CEPH).read_bytes()).hexdigest()
    said = checked(mine / CEPH, our_key(), tmp_path)
    assert all(line.endswith(": OK") for line in said.splitlines()[1:]), said
    assert not list(mine.rglob(".*"))


def test_a_signature_of_the_build_is_replaced(mine: Path, other_home: Path, tmp_path: Path) -> None:
    """An rpm that arrives with somebody's signature is served with ours only."""
    signed(mine / CEPH, other_home)
    assert "NOKEY" in checked(mine / CEPH, our_key(), tmp_path)
    signed(mine / CEPH)
    said = checked(mine / CEPH, our_key(), tmp_path)
    assert said.count("Signature") == 1
    assert "NOKEY" not in said


@pytest.mark.parametrize("room", [True, False], ids=["in-place", "anew"])
def test_an_rpm_that_changed_on_the_disk_is_refused(mine: Path, room: bool) -> None:
    """A payload that is not what was received is refused, whichever way the signature is written."""
    if not room:
        without_room(mine / CEPH)
    received, data = files_of(mine)[CEPH], bytearray((mine / CEPH).read_bytes())
    data[-1] ^= 1
    (mine / CEPH).write_bytes(data)
    headers = rpm_signature.read(mine / CEPH, CEPH)
    with pytest.raises(ValueError, match=r"^x86_64/ceph-.* changed on the disk after it had arrived$"):
        rpm_signature.digest(rpm_signature.write(mine / CEPH, headers, b"x" * 400, received))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"", "x is no rpm: it does not begin as one"),
        (lambda data: b"PK" + data[2:], "x is no rpm: it does not begin as one"),
        (lambda data: data[:100], "x is no rpm: it ends before its headers do"),
        (lambda data: data[:96] + b"x" * 200, "x is no rpm: it has no header where one should be"),
        (lambda data: data[:104] + struct.pack(">II", 2**32 - 1, 0) + data[112:], "x is no rpm: it has no header where one should be"),
        (lambda data: data.replace(struct.pack(">II", 5092, 8), struct.pack(">II", 5099, 8)), "x has no digest of its payload, so it cannot be signed: build it with rpm 4.14 or later"),
    ],
    ids=["empty", "zip", "short", "nonsense", "long", "no-payload-digest"],
)  # fmt: skip
def test_what_cannot_be_signed_is_refused(upload: Path, tmp_path: Path, change: Any, sentence: str) -> None:
    """A file that is no rpm, or whose payload no signature would cover, is refused in a sentence."""
    path = tmp_path / "x"
    path.write_bytes(change((upload / CEPH).read_bytes()))
    with pytest.raises(ValueError) as caught:
        rpm_signature.read(path, "x")
    assert str(caught.value) == sentence


def test_damaged_headers_end_in_sentences(upload: Path, tmp_path: Path) -> None:
    """Whatever bytes of the headers are, reading and signing ends in a file or in a sentence."""
    chance, data = random.Random(13), (upload / CEPH).read_bytes()
    path = tmp_path / "x"
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.choice((chance.randrange(96, 320), chance.randrange(len(data))))] = (
                chance.randrange(256)
            )
        path.write_bytes(damaged)
        received = File("x", len(damaged), hashlib.sha256(damaged).hexdigest())
        try:
            headers = rpm_signature.read(path, "x")
            file = rpm_signature.digest(rpm_signature.write(path, headers, b"s" * 400, received))
        except ValueError as error:
            assert str(error).startswith("x ")
        else:
            assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.read_bytes().endswith(damaged[len(headers.lead + headers.signature) :])


def installs(directory: Path, *, repo_gpgcheck: bool = True, key: str = "key.asc") -> tuple[bool, str]:
    """Return whether a dnf that has our .repo file installs ceph, and what it prints."""
    with served(directory) as url:
        text = repo_text(CENTOS, f"{url}/upload", f"{url}/{key}")
        assert text.count("gpgcheck=1\nrepo_gpgcheck=1") == 3
        if not repo_gpgcheck:
            text = text.replace("repo_gpgcheck=1", "repo_gpgcheck=0")
        ran = dnf(
            "-y", "--installroot=/installed", "--releasever=9", "--forcearch=x86_64", "--setopt=reposdir=/tmp/repos",
            "--downloadonly", "install", "ceph", "python3-ceph-argparse", files={"/tmp/repos/ceph.repo": text},
        )  # fmt: skip
    return ran.returncode == 0, ran.stdout + ran.stderr


def test_d13_dnf_checks_packages_and_metadata(mine: Path) -> None:
    """With gpgcheck=1 and repo_gpgcheck=1, dnf takes the key from the .repo file and accepts all of it."""
    make_metadata(mine)
    sign_metadata(mine)
    shutil.copy(our_key(), mine.parent)
    good, said = installs(mine.parent)
    assert good, said
    assert "ceph-19.2.0" in said


def test_d13_dnf_refuses_an_rpm_of_somebody_elses(mine: Path, other_home: Path) -> None:
    """Between server and node, an rpm that another key signed does not get in, even with metadata that fits it."""
    make_metadata(mine, other_home)
    shutil.copy(our_key(), mine.parent)
    good, said = installs(mine.parent, repo_gpgcheck=False)
    assert not good
    assert "GPG check FAILED" in said


def test_d14_dnf_installs_during_a_rotation(mine: Path, other_home: Path) -> None:
    """With two keys in the master, a node that knows only the older one installs, and so does one with both."""

    def export() -> bytes:
        data: bytes = finish(lambda reactor: SigningKey(reactor, other_home).public_key())
        return data

    (mine.parent / "old.asc").write_bytes(export())
    finish(lambda reactor: SigningKey(reactor, other_home).rotate())
    (mine.parent / "both.asc").write_bytes(export())
    make_metadata(mine, other_home)
    sign_metadata(mine, other_home)
    for name in ("old.asc", "both.asc"):
        good, said = installs(mine.parent, key=name)
        assert good, said
