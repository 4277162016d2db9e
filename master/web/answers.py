"""An answer over HTTP, before it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from http import HTTPStatus


class Part(NamedTuple):
    """Bytes to send as they are, then `size` bytes of the file from `offset` on."""

    head: bytes
    offset: int
    size: int


@dataclass
class Answer:
    """A status, headers, and either a body or parts of the file at `path`."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    path: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def length(self) -> int:
        """Bytes of the body, whichever it is."""
        return len(self.body) + sum(len(part.head) + part.size for part in self.parts)
