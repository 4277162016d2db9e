"""Sends mutated exchanges to a real master on loopback, and mutated bytes to the parsers of uploads.

The mutations depend on the seed and on the number of the exchange alone, so a defect can be repeated.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import socket
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests

from master.publishing import verification
from master.publishing.control_file import stanzas
from master.publishing.package_names import PackageNames
from model.manifest import Manifest
from tests.integration.harness import Installation, tiny_installation
from tests.patience import SLOW

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parent / "corpus"
BOUND = 30 * SLOW
"""Seconds within which the master answers a plain request during the attack."""

QUIET = 0.3
"""Seconds to wait for the answer to an exchange that may be incomplete."""

PARTS = (
    b"\0", b"\xff\xfe", b"\r\n", b"\n", b"%00", b"%2e%2e/", b"../", b"-1", b"9" * 30, b"[" * 3000, b'"', b"{}",
    b"null", b"A" * 5000, b"&", b"?", b":", b"\xed\xa0\x80", b"\\ud800", b"1e999", b"\x84\x80", b"Content-Length: 1\r\n",
)  # fmt: skip
_SERVER_ERROR = re.compile(rb"HTTP/1\.[01] (5\d\d)")


class Usage(NamedTuple):
    """What the master's process holds."""

    memory_mib: int
    descriptors: int
    threads: int
    children: int
    files: int


ALLOWED = Usage(memory_mib=100, descriptors=10, threads=0, children=0, files=0)
"""Growth that is no defect: caches and the database's connections fill in the first minutes."""


class Report:
    """Counts of exchanges, and the defects found."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.exchanges: Counter[str] = Counter()
        self.defects: list[str] = []
        self.before = self.after = Usage(0, 0, 0, 0, 0)

    def table(self) -> str:
        """Return the report for people."""
        rows = [f"seed {self.seed}", *(f"{name:12} {count:9}" for name, count in self.exchanges.items())]
        rows += [
            f"{name:12} {old} -> {new}"
            for name, old, new in zip(Usage._fields, self.before, self.after, strict=True)
        ]
        return "\n".join([*rows, f"defects: {len(self.defects)}", *self.defects])


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with up to six insertions, deletions, changed bytes or repetitions."""
    result = bytearray(data)
    for _ in range(rng.randrange(7)):
        at = rng.randrange(len(result) + 1)
        end = min(len(result), at + rng.randrange(1, 20))
        match rng.randrange(4):
            case 0:
                result[at:at] = rng.choice(PARTS)
            case 1:
                del result[at:end]
            case 2:
                result[at:end] = rng.randbytes(end - at)
            case _:
                result[at:at] = result[at:end] * rng.randrange(1, 50)
    return bytes(result)


def fuzz(directory: Path, seconds: float, seed: int) -> Report:
    """Start a master below `directory`, fuzz it and the parsers for so long, stop it, and return the report."""
    report = Report(seed)
    print(f"seed {seed}", flush=True)
    corpus = {part.name: sorted(part.iterdir()) for part in sorted(CORPUS.iterdir())}
    with tiny_installation(directory) as made:
        senders = _senders(made)
        number = 0
        end = time.monotonic() + seconds
        warm = time.monotonic() + seconds / 4
        measured = False
        while time.monotonic() < end:
            rng = random.Random(f"{seed}/{number}")
            name = rng.choice(sorted(corpus))
            data = mutated(rng, rng.choice(corpus[name]).read_bytes())
            if found := _defect(senders[name], data):
                report.defects.append(f"{name}, exchange {number}: {found}; bytes {data[:300]!r}")
            report.exchanges[name] += 1
            number += 1
            if not number % 100:
                report.defects.extend(_silent(made))
            if not measured and time.monotonic() > warm:
                measured = True
                report.before = usage(made)
        report.defects.extend(_silent(made))
        # Give the master the time after which it closes a connection without a request.
        settled = time.monotonic() + BOUND
        while (grown := _growth(report, made)) and time.monotonic() < settled:
            time.sleep(1)
        report.defects.extend(grown)
    return report


def usage(made: Installation) -> Usage:
    """Return what the master holds now."""
    process = Path(f"/proc/{made.pid}")
    status = (process / "statm").read_text().split()
    children = [
        child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()
    ]
    staging = made.settings.packages.staging
    files = sum(len(names) for _, _, names in os.walk(staging))
    return Usage(
        int(status[1]) * os.sysconf("SC_PAGE_SIZE") >> 20,
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        len(children),
        files,
    )


def _growth(report: Report, made: Installation) -> list[str]:
    report.after = usage(made)
    # Threads grow up to the pool's size, and stay.
    return [
        f"{name} grew from {old} to {new}"
        for name, old, new, allowed in zip(Usage._fields, report.before, report.after, ALLOWED, strict=True)
        if name != "threads" and new - old > allowed
    ]


def _silent(made: Installation) -> list[str]:
    found = []
    for url in (f"{made.url}api/v2/application.spec", made.packages_url):
        try:
            requests.get(url, timeout=BOUND)
        except requests.RequestException as error:
            found.append(f"{url} gave no answer within {BOUND} s: {error}")
    return found


def _defect(send: Callable[[bytes], bytes], data: bytes) -> str:
    try:
        answer = send(data)
    except ValueError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    status = _SERVER_ERROR.match(answer)
    return f"status {status[1].decode()}" if status else ""


def _senders(made: Installation) -> dict[str, Callable[[bytes], bytes]]:
    names = PackageNames.of("ceph")
    www, packages, workers = (
        made.settings.www.port, made.settings.packages.port, made.settings.workers.port,
    )  # fmt: skip

    def stanza(data: bytes) -> bytes:
        list(stanzas(data))
        return b""

    def manifest(data: bytes) -> bytes:
        Manifest.from_json(data.decode())
        return b""

    def primary(data: bytes) -> bytes:
        list(verification._rpms("x86_64", gzip.compress(data), names, "x86_64/ours.rpm"))
        return b""

    return {
        "rest": lambda data: exchange(www, data),
        "packages": lambda data: exchange(packages, data),
        "websocket": lambda data: exchange(www, _UPGRADE + _frame(data)),
        "pb": lambda data: exchange(workers, data),
        "stanza": stanza,
        "manifest": manifest,
        "primary": primary,
    }


_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _frame(data: bytes) -> bytes:
    # The mask of zeros leaves the text as it is.
    return b"\x81\xfe" + min(len(data), 65535).to_bytes(2, "big") + bytes(4) + data


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, and return the beginning of the answer; nothing if the other end waits for more."""
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND) as client:
        try:
            client.sendall(data)
            client.settimeout(QUIET)
            return client.recv(4096)
        except (TimeoutError, ConnectionError):
            return b""
