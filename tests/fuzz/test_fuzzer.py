"""The fuzzer: a short run with a fixed seed finds nothing, and it reports each kind of defect that is planted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import connections, parsers, parsing, watch
from tests.fuzz.fuzzer import fuzz
from tests.fuzz.messages import PORT_OF, Exchange
from tests.patience import SLOW, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 11
CASES = 400
"""Of the short run. They take about 10 s, the start of the master, two builds and the replay of the corpus as long again."""

PLANTED = """
import os
from twisted.web import http

received, kept = http.Request.requestReceived, []

def planted(self, command, path, version):
    if path.startswith(b"/api/search"):
        kept.append(b"x" * (4 << 20))
    elif path.startswith(b"/boot/"):
        kept.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(20))
    elif path.startswith(b"/upload/") and b"ceph" not in path:
        raise TypeError("planted")
    elif path.startswith(b"/wheels/"):
        self.setResponseCode(500)
        self.finish()
        return
    received(self, command, path, version)

http.Request.requestReceived = planted
"""
"""For the master's process: leaks of memory and descriptors, a traceback in the log, a connection that ends without an answer, a 500."""


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose name is short enough for the sockets of gpg's agent below it."""
    return tmp_path_factory.mktemp("fuzz")


def test_a_short_run_finds_nothing(directory: Path) -> None:
    """No 5xx, traceback, growth, hang or silence while the three ports and the checks of uploads get odd input."""
    report = fuzz(directory / "made", SEED, directory / "findings", cases=CASES)
    assert report.defects == [], report.table()
    assert not (directory / "findings").exists()
    assert set(report.cases) == {*PORT_OF, *parsing.MUTATIONS}


def test_planted_defects_are_reported(directory: Path) -> None:
    """A leak, a traceback, a lost connection and a 500 are each reported once, and the bytes that found them are written."""
    report = fuzz(
        directory / "made", SEED, directory / "findings", cases=300, patch=PLANTED, kinds=["packages"]
    )
    names = {defect.partition(": ")[0] + ": " + defect.split(": ")[1] for defect in report.defects}
    assert names >= {
        "packages: status 500", "packages: closed without an answer to a well-formed request",
        "traceback in the log: builtins.TypeError",
    }, names  # fmt: skip
    grown = [defect for defect in report.defects if defect.startswith("the master's ")]
    assert sorted(defect.split()[2].strip(":") for defect in grown) == ["descriptors", "memory_mib"], grown
    kept = [path.read_bytes() for path in (directory / "findings/packages").iterdir()]
    assert any(b" /wheels/" in data for data in kept)
    assert "planted" in (directory / "findings/report.txt").read_text()


class _Silent:
    """A server that reads one request of each connection, and answers what it is given; None is silence."""

    def __init__(self, answer: bytes | None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._answer = answer
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                client.recv(65536)
                if self._answer is None:
                    self._accepted.append(client)
                    continue
                client.sendall(self._answer)
                client.close()

    def close(self) -> None:
        self._listening.close()
        for client in self._accepted:
            client.close()


REQUEST = b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "exchange", "outcome", "defect"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", {"needs_answer": True}, "2xx", ""),
        (b"HTTP/1.1 503 Busy\r\n\r\n", {}, "5xx", "status 503"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n", {}, "2xx", "status 500"),
        (b"HTTP/1.1 504 Gateway\r\n\r\n", {}, "5xx", ""),
        (b"", {}, "empty", ""),
        (b"", {"needs_answer": True}, "empty", "closed without an answer to a well-formed request"),
        (None, {"needs_answer": True}, "empty", "no answer within 1 s to a well-formed request"),
        (None, {"is_patient": True}, "empty", "still open after 2 s of silence"),
    ],
)
def test_what_is_wrong_with_an_answer(
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes | None,
    exchange: dict[str, bool],
    outcome: str,
    defect: str,
) -> None:
    """A 5xx, an empty answer to a well-formed request, no answer, and a connection beyond its limit are defects."""
    monkeypatch.setattr(connections, "HANG", 1)
    monkeypatch.setattr(connections, "CLOSED_WITHIN", dict.fromkeys(PORT_OF, 1))
    server = _Silent(answer)
    sent = connections.Connections({"packages": server.port})
    assert sent.send(Exchange(0, "packages", REQUEST, **exchange)) == []  # type: ignore[arg-type]
    ended = until(lambda: sent.poll(0.1), "it ended", 30)
    sent.close()
    server.close()
    assert [(one.outcome, one.defect) for one in ended] == [(outcome, defect)]


def test_the_log_is_read_across_a_rotation(tmp_path: Path) -> None:
    """Each traceback is returned once: of Twisted's loggers, of what a program prints, and of a log that was rotated."""
    path = tmp_path / "twistd.log"
    path.write_text("2026-01-01 00:00:00+0000 [-] Traceback (most recent call last): old\n")
    log = watch.Log(path)
    assert log.tracebacks() == []
    with path.open("a") as file:
        file.write("2026-01-01 00:00:01+0000 [-] Unhandled Error\n\tTraceback (most recent call last):\n")
        file.write('\t  File "/x/site-packages/a.py", line 1, in b\n\tKeyError: 1\n\t\n')
    path.rename(tmp_path / "twistd.log.1")
    stamp = "2026-01-01 00:00:02+0000 [stderr#error] "
    path.write_text(
        f'{stamp}Traceback (most recent call last):\n{stamp}  File "c.py"\n{stamp}ValueError: 2\n{stamp}other\n'
    )
    first, second = log.tracebacks()
    log.close()
    assert watch.last_line(first) == 'KeyError: 1 (a.py", line 1, in b)'
    assert watch.last_line(second) == 'ValueError: 2 (File "c.py")'
    assert path.exists()


def test_the_probe_of_the_workers_port_needs_a_challenge() -> None:
    """A port that accepts connections and says nothing useful counts as silent."""
    server = _Silent(b"\x04\x82none")
    with pytest.raises((ValueError, ConnectionError)):
        watch.log_in(server.port)
    server.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[parsing.ParsingProcess]:
    """The process of the parsers."""
    made = parsing.ParsingProcess(tmp_path)
    yield made
    made.stop()


def test_every_file_of_the_whole_uploads_is_accepted(process: parsing.ParsingProcess) -> None:
    """The fuzzer changes uploads that pass every check; otherwise it would reach the first check only."""
    outcomes = {name: process.outcome(name, parsers.whole(name)) for name in parsing.MUTATIONS}
    assert outcomes == dict.fromkeys(parsing.MUTATIONS, ("accepted", ""))


def test_parsers_that_hang_or_die_are_reported(process: parsing.ParsingProcess) -> None:
    """A parser that takes too long, or whose process ends, is a defect; the next case gets a new process."""
    pid = process.pid
    os.kill(pid, signal.SIGSTOP)
    assert process.outcome("deb-packages", b"", 1) == ("defect", "no answer within 1 s")
    os.kill(process.pid, signal.SIGKILL)
    state, text = process.outcome("deb-packages", parsers.whole("deb-packages"))
    assert (state, text.partition(":")[0]) in {
        ("accepted", ""),
        ("defect", "the process ended with status -9"),
    }
    assert process.outcome("deb-packages", parsers.whole("deb-packages")) == ("accepted", "")
    assert process.pid != pid


def test_only_a_plain_value_error_is_a_refusal() -> None:
    """A UnicodeDecodeError is a ValueError that no check raises on purpose."""

    def raising(error: Exception) -> dict[str, str]:
        def parser(_: bytes) -> None:
            raise error

        return parsers.outcome(parser, b"")

    assert raising(ValueError("no")) == {"state": "refused", "text": "no"}
    assert raising(UnicodeDecodeError("utf-8", b"", 0, 1, "bad"))["state"] == "defect"
    assert raising(MemoryError())["state"] == "defect"


def test_sigterm_ends_the_master(tmp_path: Path) -> None:
    """A terminated fuzzer leaves no master behind, which is a daemon."""
    output = tmp_path / "output"
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "5", "--findings", f"{tmp_path}/findings"]
    with output.open("w") as file:
        fuzzer = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=file, stderr=file)
    try:
        until(lambda: "\nmaster " in output.read_text(), output.read_text, 60)
        pid = int(output.read_text().partition("\nmaster ")[2].split()[0])
        fuzzer.terminate()
        assert fuzzer.wait(60 * SLOW) == 128 + signal.SIGTERM, output.read_text()
    finally:
        fuzzer.kill()
        fuzzer.wait()
    # An ended process stays in the list until its parent, which is init, has been told.
    until(lambda: not Path(f"/proc/{pid}").exists(), "the master has ended", 30)
