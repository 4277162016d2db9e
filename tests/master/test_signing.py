"""The signing key, with the real gpg: made once, good for everybody's eyes, and gone without a trace in memory."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from master.publishing.signing import SigningKey
from tests.patience import until
from tests.reactor import finish

DAY = 24 * 3600


@dataclass
class Made:
    """A key's home, and what it exported."""

    home: Path
    public: bytes


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """Make a key, in a home whose path is short enough for the agent's socket."""
    directory = Path(tempfile.mkdtemp(prefix="key-", dir="/tmp"))
    home = directory / "gnupg"
    try:
        finish(lambda reactor: SigningKey(reactor, home).prepare())
        yield Made(home, finish(lambda reactor: SigningKey(reactor, home).public_key()))
    finally:
        finish(lambda reactor: SigningKey(reactor, home).stop())
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def verifier(made: Made) -> Iterator[Path]:
    """Give a keyring that has only the exported key, as a test node's."""
    directory = Path(tempfile.mkdtemp(prefix="ring-", dir="/tmp"))
    subprocess.run(
        ["gpg", "--homedir", directory, "--batch", "--import"],
        input=made.public,
        check=True,
        capture_output=True,
    )
    yield directory
    subprocess.run(["gpgconf", "--homedir", directory, "--kill", "all"], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def verify(verifier: Path, *arguments: str | Path) -> bool:
    """Whether gpg, with the exported key only, finds a signature good."""
    finished = subprocess.run(
        ["gpg", "--homedir", verifier, "--batch", "--status-fd", "1", *arguments], capture_output=True
    )
    return finished.returncode == 0 and (b"GOODSIG" in finished.stdout or b"VALIDSIG" in finished.stdout)


def agents_of(home: Path) -> list[str]:
    """Give the command lines of gpg-agents that serve a home."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"gpg-agent" in words[0] and str(home).encode() in words:
            lines.append(b" ".join(words).decode())
    return lines


def test_too_long_a_name_is_said() -> None:
    """gpg's agent makes sockets in the key's directory, whose names have an end; what is too long is said in bytes."""
    short = Path(tempfile.mkdtemp(prefix="key-", dir="/tmp"))
    sockets = len("/gnupg/S.gpg-agent.browser")
    home = short / ("x" * (106 - sockets - len(str(short)) - 1)) / "gnupg"
    try:
        finish(lambda reactor: SigningKey(reactor, home).prepare())
        finish(lambda reactor: SigningKey(reactor, home).stop())
        longer = home.parent.with_name(home.parent.name + "yy")
        with pytest.raises(
            ValueError, match=f"^{longer}: 2 bytes too long a name for the sockets of gpg's agent; "
        ):
            finish(lambda reactor: SigningKey(reactor, longer / "gnupg").prepare())
    finally:
        shutil.rmtree(short, ignore_errors=True)


def listed(home: Path) -> list[list[str]]:
    """Return the rows of gpg's listing of public keys."""
    command = ["gpg", "--homedir", home, "--batch", "--list-keys", "--with-colons"]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    return [line.split(":") for line in lines]


def test_the_key_has_the_name_that_teuthology_looks_for(made: Made) -> None:
    """The key's uid holds `Ceph automated package`."""
    [uid] = [row[9] for row in listed(made.home) if row[0] == "uid"]
    assert "Ceph automated package" in uid


def test_d14_the_key_ends_and_a_subkey_signs(made: Made) -> None:
    """The primary key certifies only; its one subkey signs; both end 730 days after they were made."""
    rows = listed(made.home)
    [public], [sub] = ([row for row in rows if row[0] == kind] for kind in ("pub", "sub"))
    assert (public[11].lower(), sub[11]) == ("csc", "s")
    for row in (public, sub):
        assert int(row[2]) >= 3072
        assert int(row[6]) - int(row[5]) == 730 * DAY
    [key] = finish(lambda reactor: SigningKey(reactor, made.home).keys())
    assert key.signer != key.fingerprint
    assert key.expires in (int(public[6]), int(sub[6]))


def test_the_key_is_made_once(made: Made) -> None:
    """A master that starts again signs with the same key."""
    finish(lambda reactor: SigningKey(reactor, made.home).prepare())
    assert finish(lambda reactor: SigningKey(reactor, made.home).public_key()) == made.public


def test_only_the_public_half_is_exported(made: Made) -> None:
    """What is served as key.asc is an armoured public key, one only."""
    text = made.public.decode()
    assert text.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    assert text.count("-----BEGIN ") == 1
    assert "PRIVATE" not in text


def test_the_home_is_nobody_elses(made: Made) -> None:
    """The directory of the key is for the master's user only, also if it was made with another mode."""
    assert stat.S_IMODE(made.home.stat().st_mode) == 0o700
    made.home.chmod(0o755)
    finish(lambda reactor: SigningKey(reactor, made.home).prepare())
    assert stat.S_IMODE(made.home.stat().st_mode) == 0o700


def test_a_release_is_signed_twice(made: Made, verifier: Path, tmp_path: Path) -> None:
    """apt gets InRelease and Release.gpg, both good with the exported key alone, and InRelease says what Release says."""
    release = tmp_path / "Release"
    release.write_text("Codename: jammy\n- a line that clear-signing must escape\n")
    finish(lambda reactor: SigningKey(reactor, made.home).sign(release))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["InRelease", "Release", "Release.gpg"]
    assert verify(verifier, "--verify", tmp_path / "Release.gpg", release)
    assert verify(verifier, "--output", tmp_path / "said", "--decrypt", tmp_path / "InRelease")
    assert (tmp_path / "said").read_text() == release.read_text()
    assert "Hash: SHA512" in (tmp_path / "InRelease").read_text()


def test_a_repomd_is_signed_beside_it(made: Made, verifier: Path, tmp_path: Path) -> None:
    """dnf gets repomd.xml.asc, armoured, good with the exported key alone."""
    repomd = tmp_path / "repomd.xml"
    repomd.write_text("<repomd/>")
    finish(lambda reactor: SigningKey(reactor, made.home).sign(repomd))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repomd.xml", "repomd.xml.asc"]
    assert (tmp_path / "repomd.xml.asc").read_text().startswith("-----BEGIN PGP SIGNATURE-----\n")
    assert verify(verifier, "--verify", tmp_path / "repomd.xml.asc", repomd)


def test_a_signature_is_of_these_bytes(made: Made, verifier: Path, tmp_path: Path) -> None:
    """A file that changed after signing is not good any more, and signing again mends it."""
    repomd = tmp_path / "repomd.xml"
    repomd.write_text("<repomd/>")
    finish(lambda reactor: SigningKey(reactor, made.home).sign(repomd))
    repomd.write_text("<repomd>other</repomd>")
    assert not verify(verifier, "--verify", tmp_path / "repomd.xml.asc", repomd)
    finish(lambda reactor: SigningKey(reactor, made.home).sign(repomd))
    assert verify(verifier, "--verify", tmp_path / "repomd.xml.asc", repomd)


def test_a_failure_is_gpgs_sentence(made: Made, tmp_path: Path) -> None:
    """Where gpg cannot sign, the error says so in gpg's words."""
    with pytest.raises(
        ValueError,
        match=r"^signing failed: gpg ended with status 2: gpg: signing failed: No such file or directory$",
    ):
        finish(lambda reactor: SigningKey(reactor, made.home).sign(tmp_path / "repomd.xml"))


def test_stopping_leaves_no_agent(made: Made, tmp_path: Path) -> None:
    """After stop, no gpg-agent of this home runs on."""
    repomd = tmp_path / "repomd.xml"
    repomd.write_text("<repomd/>")
    finish(lambda reactor: SigningKey(reactor, made.home).sign(repomd))
    assert agents_of(made.home)
    finish(lambda reactor: SigningKey(reactor, made.home).stop())
    # It has answered, and ends.
    until(lambda: not agents_of(made.home), "no agent runs", 10)


def test_stopping_before_a_start_is_no_error(tmp_path: Path) -> None:
    """A master that failed before it had a key stops all the same."""
    finish(lambda reactor: SigningKey(reactor, tmp_path / "none").stop())
