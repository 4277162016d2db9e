"""Users: who may ask, by a long random secret of which only the SHA-256 is kept.

`python -m master.users NAME` makes a secret, and prints what to put into settings.yaml.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import os
import re
import secrets
import sys
from typing import TYPE_CHECKING

from model import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OPERATOR = "operator"
"""The user whose secret is the token in the state directory."""

LEAST_SECRET = 16
"""Least number of characters of a secret; shorter ones, such as that of an empty file, are never valid."""


def digest(secret: str) -> str:
    """Give what is kept of a secret. It is long and random, so one plain hash is enough."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def operator_token(state: Path) -> str:
    """Give the operator's token; it is made, with mode 0600, when there is none."""
    path = state / "token"
    if not path.exists():
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = state / f"token.{os.getpid()}"
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_urlsafe(32) + "\n")
        temporary.rename(path)
    return path.read_text().strip()


class Users:
    """Knows every user's digest."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        """Take user name to SHA-256 of the secret, in hex."""
        self._digests = dict(digests)

    def check(self, name: str, secret: str) -> bool:
        """Whether this is the user's secret."""
        known = self._digests.get(name, "")
        return len(secret) >= LEAST_SECRET and hmac.compare_digest(digest(secret), known)

    def mark(self, name: str) -> str:
        """Return the mark of a user's sessions; it changes when the user gets another secret or is removed."""
        known = self._digests.get(name)
        return "" if known is None else digest(f"session of {name} {known}")

    def claimed(self, header: str) -> str:
        """Return the name that an Authorization header claims, true or not; empty if it has none."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            return base64.b64decode(value.strip(), validate=True).decode(errors="replace").partition(":")[0]
        except ValueError:
            return ""

    def of_authorization(self, header: str) -> str | None:
        """Give the user that an Authorization header proves, Bearer or Basic; None if nobody."""
        scheme, _, value = header.partition(" ")
        value = value.strip()
        if scheme.lower() == "bearer" and len(value) >= LEAST_SECRET:
            found = digest(value)
            for name, known in self._digests.items():
                if hmac.compare_digest(found, known):
                    return name
        elif scheme.lower() == "basic":
            try:
                name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
            except ValueError:  # no base64, or no text in it
                return None
            if self.check(name, secret):
                return name
        return None


def main() -> int:
    """Make a secret for a user, and print the lines for the settings, which have only its SHA-256."""
    parser = argparse.ArgumentParser(prog="python -m master.users", description=main.__doc__)
    parser.add_argument("name", help="letters, digits and . _ @ -; at most 64 characters")
    name = parser.parse_args().name
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z", name) or name == OPERATOR:
        print(f"{name!r} cannot be a user's name", file=sys.stderr)
        return 1
    secret = secrets.token_urlsafe(32)
    print(f"secret, to be given to {name}, and shown only now:\n  {secret}")
    print(f'into settings.yaml, then `make reload`:\nusers:\n  {name}: "{digest(secret)}"')
    return 0


if __name__ == "__main__":
    command_line.run(main)
