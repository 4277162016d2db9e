"""Asking for what is published already, beside the plainest read of the same REST API."""

from __future__ import annotations

import http.client
import json
import time
from statistics import median
from typing import TYPE_CHECKING

from bench.masters import measured
from bench.report import Report, Row, at_most, percentile, seconds
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.integration.harness import Installation

RUNS = 100
BAR = 2.0

_METHOD = """\
On one master, with one client, by turns: a POST that asks for a published sha1, and
`GET /api/v2/builders`; once with connections that are kept, once with one for each request. Medians, and the 95th percentile in brackets.
Both targets of the installation are on, so the GET has two rows to tell of. Asking by the name of a branch is
shown as well: it has the repository asked where the branch is, by a `git ls-remote`."""

_MEANING = """\
The POST is authorized, validated, and answered from the disk (every file of the packages must still be there, in its
size) and from the database (two queries, for the ids that a client follows). A ref costs a git process, and the way to the
repository, which is loopback here."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    with measured(directory / "ours", workers={"local": {"count": 1}}) as (here, _):
        repository = here.serve_tiny()
        here.start()
        sha1 = repository.sha1("main")
        assert here.wait(here.ask(DEB, sha1=sha1))["results"] == 0
        return report({kept: _turns(here, sha1, runs, kept=kept) for kept in (True, False)})


def report(found: dict[bool, dict[str, list[float]]]) -> Report:
    """Give the report of times, by whether connections were kept."""
    rows = []
    for kept, times in found.items():
        way = "connections kept" if kept else "a connection each"
        base = median(times["GET"])
        ratio = median(times["sha1"]) / base
        rows.append(Row(f"POST of a sha1, {way}", _told(times["sha1"]), _told(times["GET"]), f"{ratio:.2f}",
                        *at_most(BAR, ratio, f"{BAR:.0f}")))  # fmt: skip
        rows.append(Row(f"POST of a ref, {way}", _told(times["ref"]), _told(times["GET"]),
                        f"{median(times['ref']) / base:.2f}"))  # fmt: skip
    return Report("Asking for what is published already", _METHOD, _MEANING, rows)


class _Client:
    """Asks over one connection, or over one for each question."""

    def __init__(self, here: Installation, *, kept: bool) -> None:
        self._here = here
        self._kept = kept
        self._connection = self._connect()

    def ask(self, method: str, path: str, body: bytes = b"") -> float:
        """Give how long the answer took; RuntimeError if it is not 200."""
        headers = {}
        if body:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._here.token}"}
        began = time.perf_counter()
        if not self._kept:
            self._connection.close()
            self._connection = self._connect()
        self._connection.request(method, path, body or None, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return took

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._here.settings.www.port, timeout=60)


def _turns(here: Installation, sha1: str, runs: int, *, kept: bool) -> dict[str, list[float]]:
    client = _Client(here, kept=kept)
    path = "/api/v2/forceschedulers/packages"
    ways: dict[str, Callable[[], float]] = {
        "sha1": lambda: client.ask("POST", path, _body(sha1=sha1)),
        "GET": lambda: client.ask("GET", "/api/v2/builders"),
        "ref": lambda: client.ask("POST", path, _body(ref="main")),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(runs + 5):  # the first five warm up
        for way, ask in ways.items():
            took = ask()
            if turn >= 5:
                found[way].append(took)
    return found


def _body(**params: str) -> bytes:
    body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"builderNames": [DEB], **params}}
    return json.dumps(body).encode()


def _told(times: Sequence[float]) -> str:
    return f"{seconds(median(times))} ({seconds(percentile(times, 95))})"
