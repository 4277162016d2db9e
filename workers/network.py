"""What a build in a network of its own may connect to, and under which address it finds it.

The network of such a build has a loopback interface and nothing else. A relay outside listens on addresses of it, one port for
each destination, and connects to the destination from the machine's network. So the names in the build's /etc/hosts are all that exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

USUAL = (
    "github.com", "codeload.github.com", "raw.githubusercontent.com",
    "objects.githubusercontent.com", "release-assets.githubusercontent.com",
    "download.ceph.com", "shaman.ceph.com", "chacra.ceph.com",
    *(f"{number}.chacra.ceph.com" for number in range(1, 6)),
    "archives.boost.io", "archive.apache.org", "git.kernel.dk",
)  # fmt: skip
"""The hosts that Ceph's install-deps.sh, make-dist and CMake files name, without the package indexes of pip and npm."""
_PORTS = {"http": 80, "https": 443, "git": 9418}
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_-]{1,63})*\Z")
_FIRST_ADDRESS = IPv4Address("127.1.0.1")
"""Addresses for names begin here, away from 127.0.0.1, where builds start servers of their own."""


@dataclass(frozen=True, order=True)
class Destination:
    """A port of a host outside that a build may connect to."""

    host: str
    port: int


def destinations(entry: str) -> tuple[Destination, ...]:
    """Return the ports that `HOST` (80 and 443) or `HOST:PORT` stands for; ValueError says what is wrong with it."""
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", 0
    whole = (
        bool(host) and port != 0 and parts.netloc == entry and not entry.endswith(":") and "@" not in entry
    )
    if not whole or not (_address(host) or _NAME.match(host)):
        raise ValueError("must be HOST or HOST:PORT, such as mirror.example.org or 192.0.2.7:9418")
    return tuple(Destination(host, number) for number in ((80, 443) if port is None else (port,)))


def of_url(url: str) -> Destination:
    """Return the port that a URL's server listens on."""
    parts = urlsplit(url)
    return Destination(parts.hostname or "", parts.port or _PORTS[parts.scheme])


def of_apt_sources(root: Path) -> set[Destination]:
    """Return the servers of packages that a prepared root is configured with."""
    apt = root / "etc/apt"
    files = [apt / "sources.list", *(apt / "sources.list.d").glob("*")]
    text = "\n".join(file.read_text(errors="replace") for file in files if file.is_file())
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return {of_url(url) for line in lines for url in re.findall(r"https?://[^\s\]]+", line)}


def inside(wanted: Iterable[Destination]) -> dict[str, Any]:
    """Return what a build's network is made of, for scripts/run-container.py.

    `listen` has an address and a port inside with the host and the port outside. `addresses` are those that the loopback interface needs
    besides its own. `hosts` is the text of /etc/hosts.
    """
    given: dict[str, str] = {}
    listen: dict[tuple[str, int], str] = {}
    extra: list[str] = []
    for one in sorted(set(wanted)):
        address = _address(one.host)
        if one.host == "localhost":
            at = "127.0.0.1"
        elif address is None:
            at = given.setdefault(one.host, str(_FIRST_ADDRESS + len(given)))
        else:
            at = str(address)
            if not address.is_loopback and not address.is_unspecified and at not in extra:
                extra.append(at)
        listen[at, one.port] = one.host
    lines = [
        "127.0.0.1 localhost buildpackages",
        "::1 localhost",
        *(f"{at} {name}" for name, at in given.items()),
    ]
    return {
        "listen": [[at, port, host, port] for (at, port), host in listen.items()],
        "addresses": extra,
        "hosts": "".join(f"{line}\n" for line in lines),
    }


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address
