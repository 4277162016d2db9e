"""Users: who may ask, proven by a secret of which only the SHA-256 is kept."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from master.users import Users, digest, operator_token

ROOT = Path(__file__).parents[2]
USERS = Users({
    "alice": "f10232d0ef9d8fb949b70c277833e0339e7aba9e0dea4d5b359bd382b3f14cf1",  # of: alice-alice-alice
    "bob": "414fecdbf8187d4de2ed76ad2fe42f8a718ffbffd6fb949e6c1639bc794bd2b7",  # of: bob-bob-bob-bob-bob
})  # fmt: skip


def basic(text: str) -> str:
    """Give a Basic header of `name:secret`."""
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_what_is_kept_is_the_sha256() -> None:
    """What is kept of a secret is its SHA-256 in hex, as sha256sum gives it."""
    assert digest("alice") == "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"


@pytest.mark.parametrize(
    ("header", "user"),
    [
        ("Bearer alice-alice-alice", "alice"),
        ("bearer bob-bob-bob-bob-bob", "bob"),
        ("Bearer   alice-alice-alice ", "alice"),
        (basic("alice:alice-alice-alice"), "alice"),
        (basic("bob:bob-bob-bob-bob-bob").replace("Basic", "basic"), "bob"),
    ],
)
def test_a_secret_proves_its_user(header: str, user: str) -> None:
    """A secret sent as Bearer, or as Basic with its user's name, is that user's; schemes have no case."""
    assert USERS.of_authorization(header) == user


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", "alice", "Bearer mallory", "Digest alice-alice-alice", "Bearer alice-alice-alice bob",
        "Bearer f10232d0ef9d8fb949b70c277833e0339e7aba9e0dea4d5b359bd382b3f14cf1",
        basic("alice:bob-bob-bob-bob-bob"), basic("mallory:alice-alice-alice"), basic(":alice-alice-alice"), basic("alice:"), basic("alice"),
        "Basic", "Basic !!!", "Basic YWxpY2U6YWxpY2U", "Basic /////w==", basic("Alice:alice-alice-alice"),
    ],
)  # fmt: skip
def test_anything_else_proves_nobody(header: str) -> None:
    """No secret, another's, a digest instead of the secret, or a broken header: nobody, and no error."""
    assert USERS.of_authorization(header) is None


@given(st.sampled_from(["Bearer ", "Basic ", ""]), st.text())
def test_no_header_is_an_error(scheme: str, value: str) -> None:
    """Whatever stands in the header, the answer is a user or nobody."""
    assert USERS.of_authorization(scheme + value) in (None, "alice", "bob")


@pytest.mark.parametrize(
    ("name", "secret"),
    [("mallory", ""), ("", ""), ("alice", ""), ("alice", "bob-bob-bob-bob-bob"), ("alice", "\udcff" * 20)],
)
def test_a_wrong_secret_is_refused(name: str, secret: str) -> None:
    """An unknown name has no secret that fits, not even an empty one, and bytes that are no text only don't fit."""
    assert not USERS.check(name, secret)
    assert USERS.check("alice", "alice-alice-alice")


@pytest.mark.parametrize("secret", ["", "fifteen letters"])
def test_a_short_secret_is_nobodys(secret: str) -> None:
    """A secret of fewer than 16 characters is never valid, even with a known digest: an empty file has a digest too."""
    users = Users({"alice": digest(secret)})
    assert not users.check("alice", secret)
    assert users.of_authorization(f"Bearer {secret}") is None
    assert users.of_authorization(basic(f"alice:{secret}")) is None


def test_the_operators_token_is_made_once_and_is_the_operators_only(tmp_path: Path) -> None:
    """The first token is made on first start, long, readable by its owner only, and the same from then on."""
    state = tmp_path / "made" / "state"
    token = operator_token(state)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert stat.S_IMODE((state / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert operator_token(state) == token
    assert [path.name for path in state.iterdir()] == ["token"]
    assert operator_token(tmp_path / "other") != token


def test_an_operator_may_choose_the_token(tmp_path: Path) -> None:
    """A token that an operator wrote is taken as it stands, without the end of its line."""
    (tmp_path / "token").write_text("chosen\n")
    assert operator_token(tmp_path) == "chosen"


def test_the_command_makes_a_user() -> None:
    """The command prints a new secret, and for the settings only its digest."""
    finished = subprocess.run(
        [sys.executable, "-m", "master.users", "alice.b"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = finished.stdout.splitlines()
    secret = lines[1].strip()
    assert lines[0] == "secret, to be given to alice.b, and shown only now:"
    assert yaml.safe_load("\n".join(lines[3:])) == {
        "users": {"alice.b": hashlib.sha256(secret.encode()).hexdigest()}
    }
    assert finished.stdout.count(secret) == 1


@pytest.mark.parametrize("name", ["operator", "", "a b", "-x", "a:b", "a\nb", "x" * 65])
def test_the_command_refuses_a_name_that_is_none(name: str) -> None:
    """The operator's name is taken, and a name that no header can carry is refused with a sentence."""
    finished = subprocess.run(
        [sys.executable, "-m", "master.users", "--", name], cwd=ROOT, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr == f"{name!r} cannot be a user's name\n"
