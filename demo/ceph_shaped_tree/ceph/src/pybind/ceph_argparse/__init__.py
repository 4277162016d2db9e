"""Checks the words of a command against its signature, as the `ceph` program sends them to a monitor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Union

__all__ = ["ArgumentError", "CephInt", "CephName", "CephSize", "matches", "validate"]


class ArgumentError(ValueError):
    """Says which word is not what its place in the command asks for."""


@dataclass(frozen=True)
class CephInt:
    """A whole number from `low` to `high`, both included."""

    low: int | None = None
    high: int | None = None

    def parse(self, word: str) -> int:
        """Return the number, or raise ArgumentError."""
        try:
            value = int(word)
        except ValueError:
            raise ArgumentError(f"{word!r} is not a whole number") from None
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise ArgumentError(f"{value} is not between {self.low} and {self.high}")
        return value


@dataclass(frozen=True)
class CephName:
    """A daemon's name: its type, a dot and its id."""

    def parse(self, word: str) -> tuple[str, str]:
        """Return (type, id), or raise ArgumentError."""
        kind, dot, identity = word.partition(".")
        if kind not in {"osd", "mon", "mgr", "mds", "client"} or not dot or not identity:
            raise ArgumentError(f"{word!r} is not a name such as osd.0 or client.admin")
        return kind, identity


@dataclass(frozen=True)
class CephSize:
    """A number of bytes, with the binary suffixes K, M, G and T."""

    def parse(self, word: str) -> int:
        """Return the bytes, or raise ArgumentError."""
        match = re.fullmatch(r"(\d+)([KMGT]?)i?B?", word)
        if match is None:
            raise ArgumentError(f"{word!r} is not a size such as 4096, 64K or 10GiB")
        return int(match[1]) << (10 * " KMGT".index(match[2] or " "))


Argument = Union[CephInt, CephName, CephSize]


def validate(signature: list[str | Argument], words: list[str]) -> list[object]:
    """Return the parsed arguments of a command; a word of the signature that is a string must be there as it is."""
    if len(words) != len(signature):
        raise ArgumentError(f"expected {len(signature)} words, got {len(words)}")
    parsed: list[object] = []
    for expected, word in zip(signature, words):
        if isinstance(expected, str):
            if word != expected:
                raise ArgumentError(f"expected {expected!r}, got {word!r}")
        else:
            parsed.append(expected.parse(word))
    return parsed


def matches(signature: list[str | Argument], words: list[str]) -> bool:
    """Tell whether the words are a call of the command."""
    try:
        validate(signature, words)
    except ArgumentError:
        return False
    return True
