"""Rotating the signing key, with the real gpg, apt and rpm: a node that trusts either key installs meanwhile."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from master import control
from master.publishing.signing import Key, SigningKey, main, usable_keys
from tests.package_clients import Apt, served
from tests.package_repositories import DEB_NAMES, ROOT, deb_upload, make_metadata
from tests.reactor import finish

DAY = 24 * 3600
RELEASE = "dists/jammy/Release"


@pytest.fixture
def state() -> Iterator[Path]:
    """Give a directory for keys whose path is short enough for the agent's sockets."""
    directory = Path(tempfile.mkdtemp(prefix="key-", dir="/tmp"))
    yield directory
    for home in directory.iterdir():
        if home.is_dir():
            finish(lambda reactor, home=home: SigningKey(reactor, home).stop())
    shutil.rmtree(directory)


def with_key(home: Path, use: Callable[[SigningKey], Any], days: int = 730) -> Any:
    """Return what `use` returns of the keys in a directory."""
    return finish(lambda reactor: use(SigningKey(reactor, home, days)))


def gpg(home: Path, *arguments: str) -> str:
    """Run gpg on a home and return its output."""
    home.mkdir(mode=0o700, exist_ok=True)
    command = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


UID = "Ceph automated package signing key (made on demand) <packages@localhost>"


def old_key(home: Path) -> Key:
    """Make a key as earlier masters did, which signs with its primary key and never ends."""
    gpg(home, "--quick-generate-key", UID, "rsa3072", "sign", "never")
    [key] = with_key(home, SigningKey.keys)
    assert isinstance(key, Key)
    return key


def sign(home: Path, repository: Path) -> bytes:
    """Sign a repository of debs, and return the public keys."""
    with_key(home, lambda key: key.sign(repository / RELEASE))
    public: bytes = with_key(home, SigningKey.public_key)
    return public


def apt_installs(repository: Path, key: bytes, scratch: Path) -> bool:
    """Return whether an apt that trusts only these keys downloads the packages."""
    scratch.mkdir()
    (scratch / "key.asc").write_bytes(key)
    with served(repository) as url:
        try:
            apt = Apt(scratch / "apt", f"[signed-by={scratch}/key.asc] {url} jammy main")
            return len(apt.downloaded(*DEB_NAMES)) == len(DEB_NAMES)
        except subprocess.CalledProcessError:
            return False


def test_d14_nodes_that_trust_either_key_install_during_a_rotation(state: Path, tmp_path: Path) -> None:
    """Before, during and after a rotation, apt installs with the keys that the documentation promises."""
    upload = deb_upload(tmp_path)
    make_metadata(upload)
    home = state / "gnupg"
    with_key(home, SigningKey.prepare)
    first = sign(home, upload)
    earlier = Path(shutil.copytree(upload, tmp_path / "earlier"))
    [old] = with_key(home, SigningKey.keys)

    kept, new = with_key(home, SigningKey.rotate)
    assert kept == old
    both = sign(home, upload)
    only_new = gpg(home, "--armor", "--export", new.fingerprint).encode()
    for number, key in enumerate((first, both, only_new)):
        assert apt_installs(upload, key, tmp_path / f"during-{number}")
    with pytest.raises(ValueError, match=r"^there are 2 signing keys already: the older one must retire"):
        with_key(home, SigningKey.rotate)

    assert with_key(home, SigningKey.retire) == [new]
    after = sign(home, upload)
    assert not apt_installs(upload, first, tmp_path / "after-first")
    assert apt_installs(upload, after, tmp_path / "after")
    # What was published before is still good for nodes that have today's key.asc.
    assert apt_installs(earlier, after, tmp_path / "earlier-after")
    with pytest.raises(ValueError, match=f"^{new.fingerprint} is the only signing key: rotate first$"):
        with_key(home, SigningKey.retire)


def test_d14_a_stolen_key_is_forgotten(state: Path, tmp_path: Path) -> None:
    """After `retire --forget`, key.asc no longer has the older key, so nodes refuse what it has signed."""
    upload = deb_upload(tmp_path)
    make_metadata(upload)
    old_key(state / "gnupg")
    sign(state / "gnupg", upload)
    settings = state / "settings.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "git": {"allowed": ["https://github.com/"]},
                "targets": ["ceph-deb-bookworm-x86_64-default"],
                "state": ".",
            }
        )
    )
    command = ["--settings", str(settings)]
    for verb in (["rotate"], ["retire", "--forget"], ["show"]):
        ran = subprocess.run(
            [sys.executable, "-m", "master.publishing.signing", *verb, *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
    key = with_key(state / "gnupg", SigningKey.public_key)
    assert not apt_installs(upload, key, tmp_path / "apt")
    ran = subprocess.run(
        [sys.executable, "-m", "master.publishing.signing", "retire", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert ran.stderr.endswith(" is the only signing key: rotate first\n")


def test_a_key_without_an_end_goes_on_with_a_warning(state: Path) -> None:
    """A key of an earlier master signs as before; the warning names the next command, after which there is none."""
    home = state / "gnupg"
    old = old_key(home)
    with_key(home, SigningKey.prepare)
    assert with_key(home, SigningKey.keys) == [old]
    assert old.expires is None
    [warning] = with_key(home, SigningKey.warnings)
    assert warning.startswith(f"The signing key {old.fingerprint} never ends, ")
    assert "`make rotate-key`" in warning
    _, new = with_key(home, SigningKey.rotate)
    assert with_key(home, SigningKey.warnings) == [
        (
            f"The older signing key {old.fingerprint} never ends, and still signs besides {new.fingerprint}."
            " Run `make retire-key` once all test nodes have the new key.asc."
        )
    ]
    with_key(home, SigningKey.retire)
    assert with_key(home, SigningKey.warnings) == []


def test_make_status_shows_the_warnings_of_a_running_master(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who does not read the log sees the warning, or why the keys cannot be read."""
    settings: Any = SimpleNamespace(state=state)
    assert control.status(settings) == "the master does not run"
    monkeypatch.setattr(control, "running", lambda _: 1)
    unreadable = rf"the master runs\nwarning: The signing keys in {state}/gnupg cannot be read: gpg: .+"
    assert re.fullmatch(unreadable, control.status(settings))
    old = old_key(state / "gnupg")
    assert control.status(settings).startswith(
        f"the master runs\nwarning: The signing key {old.fingerprint} never ends, "
    )


def test_a_key_that_ends_soon_is_warned_of(state: Path) -> None:
    """From 30 days before the end, the master logs the day and what to do."""
    home = state / "gnupg"
    with_key(home, SigningKey.prepare, 40)
    [key] = with_key(home, SigningKey.keys)
    assert key.expires
    assert abs(key.expires - time.time() - 40 * DAY) < 600
    assert with_key(home, SigningKey.warnings) == []
    [warning] = with_key(home, lambda one: one.warnings(key.expires - 29.5 * DAY))
    day = time.strftime("%Y-%m-%d", time.gmtime(key.expires))
    assert warning == (
        f"The signing key {key.fingerprint} ends in 29 days, on {day}."
        " Run `make rotate-key`, and put the new key.asc on the test nodes before that day."
    )


def test_a_key_that_has_ended_signs_nothing(state: Path, tmp_path: Path) -> None:
    """A start, and a signature, fail with the command to run; after a rotation the new key alone signs."""
    home = state / "gnupg"
    year_ago = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() - 365 * DAY))
    gpg(home, "--faked-system-time", year_ago, "--quick-generate-key", UID, "rsa3072", "sign", "1d")
    assert with_key(home, SigningKey.keys) == []
    sentence = (
        r"^Every signing key has ended: run `make rotate-key`, and put the new key\.asc on the test nodes$"
    )
    (tmp_path / "Release").write_text("x\n")
    for use in (SigningKey.prepare, lambda key: key.sign(tmp_path / "Release")):
        with pytest.raises(ValueError, match=sentence):
            with_key(home, use)
    [new] = with_key(home, SigningKey.rotate)
    with_key(home, SigningKey.prepare)
    with_key(home, lambda key: key.sign(tmp_path / "Release"))
    made = gpg(home, "--list-packets", str(tmp_path / "Release.gpg"))
    assert made.count(":signature packet:") == 1
    assert f"keyid {new.signer[-16:]}" in made


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("sec:u:3072:1:A:10:99::u:::cSC:::+:\nfpr:::::::::AA:\nssb:u:3072:1:B:11:88:::::s:::+:\nfpr:::::::::BB:", [Key("AA", "BB", 10, 88)]),
        ("sec:u:3072:1:A:10:99::u:::cSC:::#:\nfpr:::::::::AA:\nssb:u:3072:1:B:11::::::s:::+:\nfpr:::::::::BB:", [Key("AA", "BB", 10, 99)]),
        ("sec:u:3072:1:A:10:::u:::scSC:::+:\nfpr:::::::::AA:", [Key("AA", "AA", 10, None)]),
        ("sec:e:3072:1:A:10:12::u:::scSC:::+:\nfpr:::::::::AA:", []),
        ("sec:u:3072:1:A:10:99::u:::cSC:::+:\nfpr:::::::::AA:\nssb:e:3072:1:B:11:12:::::s:::+:\nfpr:::::::::BB:", []),
        ("sec:r:3072:1:A:10:99::u:::cSC:::+:\nfpr:::::::::AA:\nssb:u:3072:1:B:11:88:::::s:::+:\nfpr:::::::::BB:", []),
        ("sec:u:3072:1:A:10:99::u:::cSC:::+:\nfpr:::::::::AA:\nssb:u:3072:1:B:11:88:::::e:::+:\nfpr:::::::::BB:", []),
        ("", []),
    ],
    ids=["subkey", "primary-offline", "primary-signs", "ended", "subkey-ended", "revoked", "cannot-sign", "none"],
)  # fmt: skip
def test_the_keys_that_can_sign(listed: str, expected: list[Key]) -> None:
    """A valid subkey signs for its valid primary key, also if the secret part of that is kept elsewhere."""
    assert usable_keys(listed) == expected


def test_only_retire_forgets(capsys: pytest.CaptureFixture[str]) -> None:
    """`--forget` with another verb is an error of usage."""
    with pytest.raises(SystemExit) as ended:
        main(["rotate", "--forget"])
    assert ended.value.code == 2
    assert "--forget is for retire" in capsys.readouterr().err
