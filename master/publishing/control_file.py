"""Reads stanzas of Packages and Sources, and refuses those that apt and other parsers could read differently.

apt-ftparchive writes an index from the control files of packages. It passes on fields that it does not
know, byte for byte. A line that is a field for one parser and text for another is refused here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELD = re.compile(rb"([A-Za-z][A-Za-z0-9-]*):(?:[ \t]+(.*))?\Z", re.DOTALL)
_CONTINUED = re.compile(rb"[ \t]+[^ \t]", re.DOTALL)
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FILENAME = re.compile(rb"^Filename: ([\x20-\x7e]{1,300})$", re.MULTILINE)

_FOR_THE_ARCHIVE = ("md5sum", "sha1", "sha512")
"""Fields of Packages that ours do not have; apt would believe a package's own before our SHA256."""


class Stanza(dict[str, str]):
    """Field names in lower case to values; the lines of a value are joined by newlines."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def __missing__(self, field: str) -> str:
        raise ValueError(f"{self.what} has no field {field.capitalize()}")


MOST_INDEX = 4 * 1024 * 1024
"""Bytes of an index. Ceph's have a twentieth of that; reading takes up to 50 times as much memory, in the master's process."""


def stanzas(index: bytes) -> Iterator[Stanza]:
    """Yield the stanzas of an index; ValueError names the package whose fields are ambiguous, or says that it is too large."""
    if len(index) > MOST_INDEX:
        raise ValueError(
            f"the control files of the packages have {len(index)} bytes in all; at most {MOST_INDEX} are taken"
        )
    for paragraph in index.split(b"\n\n"):
        if paragraph.strip(b"\n"):
            yield _stanza(paragraph.strip(b"\n"))


def _stanza(paragraph: bytes) -> Stanza:
    filename = _FILENAME.search(paragraph)
    stanza = Stanza(f"the control file of {filename[1].decode()}" if filename else "the .dsc")
    # Lists until the end: text that grows by a million lines would be copied a million times.
    values: dict[str, list[str]] = {}
    name = ""
    # Not splitlines, which also splits at U+2028, form feeds and other characters; apt does not.
    for line in paragraph.split(b"\n"):
        field = _FIELD.match(line)
        if _CONTROL_CHARACTER.search(line) or not (field or (name and _CONTINUED.match(line))):
            raise ValueError(f"{stanza.what} has a line that is no field, nor the text of one: {line[:80]!r}")
        if field:
            name = field[1].decode().lower()
            if name in values:
                raise ValueError(f"{stanza.what} has the field {field[1].decode()} twice")
            if filename and name in _FOR_THE_ARCHIVE:
                raise ValueError(
                    f"{stanza.what} has the field {field[1].decode()}, which only an archive writes"
                )
            values[name] = [(field[2] or b"").decode(errors="replace")]
        else:
            values[name].append(line.decode(errors="replace"))
    stanza.update({name: "\n".join(lines) for name, lines in values.items()})
    return stanza
