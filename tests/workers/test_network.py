"""The network of a container: which addresses it has, and what can be reached from it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cloud import prepared_roots
from tests.patience import until
from workers.engine import container
from workers.network import USUAL, Destination, destinations, inside, of_apt_sources, of_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/build"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
TRY = """
import socket, sys
for argument in sys.argv[1:]:
    host, _, port = argument.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(b"x" * 300000)
            connection.shutdown(socket.SHUT_WR)
            print(argument, sum(len(piece) for piece in iter(lambda: connection.recv(65536), b"")))
    except OSError as error:
        print(argument, type(error).__name__)
"""


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("mirror.example.org", [("mirror.example.org", 80), ("mirror.example.org", 443)]),
        ("GitHub.com:443", [("github.com", 443)]),
        ("127.0.0.1:9418", [("127.0.0.1", 9418)]),
        ("[2001:db8::1]:3128", [("2001:db8::1", 3128)]),
        ("proxy", [("proxy", 80), ("proxy", 443)]),
    ],
)
def test_entries(entry: str, expected: list[tuple[str, int]]) -> None:
    """A host stands for HTTP and HTTPS, and with a port for that port only."""
    assert [(one.host, one.port) for one in destinations(entry)] == expected


@pytest.mark.parametrize(
    "entry",
    [
        "", ":80", "host:0", "host:65536", "host:x", "host:", "*.debian.org", "https://github.com", "host/path", "user@host",
        "a b", "host\n", "host#x", "host?x", "[fe80::1%lo]:80", "[::1", "-x", "a..b", "host\n127.0.0.1 x",
    ],
)  # fmt: skip
def test_entries_that_name_no_host(entry: str) -> None:
    """Patterns, URLs and whatever could change the file /etc/hosts are refused."""
    with pytest.raises(
        ValueError, match="must be HOST or HOST:PORT, such as mirror.example.org or 192.0.2.7:9418"
    ):
        destinations(entry)


def test_ports_of_urls() -> None:
    """A URL without a port has that of its scheme."""
    urls = ("https://github.com/", "http://h/x", "git://h/", "http://127.0.0.1:8011/", "https://[::1]:7/")
    assert [(one.host, one.port) for one in map(of_url, urls)] == [
        ("github.com", 443), ("h", 80), ("h", 9418), ("127.0.0.1", 8011), ("::1", 7),
    ]  # fmt: skip


def test_addresses() -> None:
    """Each name has an address of its own for all its ports; numbers keep theirs, and the loopback interface gets those that it lacks."""
    wanted = [
        Destination("b", 443), Destination("a", 80), Destination("b", 80), Destination("127.0.0.1", 9),
        Destination("localhost", 9), Destination("192.0.2.7", 1), Destination("192.0.2.7", 2), Destination("::1", 3),
        Destination("0.0.0.0", 4), Destination("2001:db8::1", 5),
    ]  # fmt: skip
    made = inside(wanted)
    assert sorted(made["listen"]) == [
        ["0.0.0.0", 4, "0.0.0.0", 4],
        ["127.0.0.1", 9, "localhost", 9],
        ["127.1.0.1", 80, "a", 80],
        ["127.1.0.2", 80, "b", 80],
        ["127.1.0.2", 443, "b", 443],
        ["192.0.2.7", 1, "192.0.2.7", 1],
        ["192.0.2.7", 2, "192.0.2.7", 2],
        ["2001:db8::1", 5, "2001:db8::1", 5],
        ["::1", 3, "::1", 3],
    ]
    assert made["addresses"] == ["192.0.2.7", "2001:db8::1"]
    assert made["hosts"] == "127.0.0.1 localhost buildpackages\n::1 localhost\n127.1.0.1 a\n127.1.0.2 b\n"


def test_the_usual_hosts() -> None:
    """Each entry is a host that the setting could name as well; GitHub is among them."""
    usual = {destination for entry in USUAL for destination in destinations(entry)}
    assert Destination("github.com", 443) in usual


def test_the_servers_of_a_roots_apt_sources(tmp_path: Path) -> None:
    """Both forms of apt's sources are read, and neither comments nor files of other programs count."""
    assert of_apt_sources(tmp_path) == set()
    parts = tmp_path / "etc/apt/sources.list.d"
    parts.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(
        "deb [arch=amd64] http://one.example.org:3142/debian/ bookworm main\n# deb http://no.example.org/ x main\n"
    )
    (parts / "more.sources").write_text("Types: deb\nURIs: https://two.example.org/ubuntu\nSuites: noble\n")
    assert of_apt_sources(tmp_path) == {
        Destination("one.example.org", 3142),
        Destination("two.example.org", 443),
    }


@pytest.fixture
def echo() -> Iterator[int]:
    """A server on this machine's loopback that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"".join(iter(lambda: connection.recv(65536), b"")))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def run(scratch: Path, reach: Iterable[Destination], *command: str, user: str = "build") -> str:
    """Return what a command in a container writes to standard output."""
    arguments = container(prepared_roots()["bookworm"], scratch, user, *command, reach=reach)
    return subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, env=PATH, timeout=60
    ).stdout


@needs_root
def test_what_is_listed_is_reached_and_nothing_else(tmp_path: Path, echo: int) -> None:
    """A listed port of loopback and of a name is reached with all bytes both ways; the machine's other ports are not there."""
    with socket.create_server(("0.0.0.0", 0)) as other:
        unlisted = other.getsockname()[1]
        machine = subprocess.run(
            ["ip", "-4", "-o", "address", "show", "scope", "global"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        addresses = [word.partition("/")[0] for word in machine if "/" in word]
        tried = [
            f"127.0.0.1:{unlisted}",
            f"localhost:{echo + 1}",
            *(f"{one}:{unlisted}" for one in addresses),
        ]
        said = run(
            tmp_path,
            [Destination("127.0.0.1", echo), Destination("localhost.localdomain", 9), Destination("192.0.2.99", 9)],
            "python3", "-c", TRY, f"127.0.0.1:{echo}", "192.0.2.99:10", "mirror.example.org:80", *tried,
        )  # fmt: skip
    lines = dict(line.rsplit(" ", 1) for line in said.splitlines())
    assert lines.pop(f"127.0.0.1:{echo}") == "300000"
    assert lines.pop("mirror.example.org:80") == "gaierror"
    assert set(lines) == {"192.0.2.99:10", *tried}
    assert set(lines.values()) <= {"ConnectionRefusedError", "OSError"}, (
        lines
    )  # OSError: Network is unreachable


@needs_root
def test_root_inside_changes_nothing_of_the_network(tmp_path: Path) -> None:
    """The network belongs to the machine's user namespace: not even root inside may change its interface."""
    script = (
        "import fcntl, socket, struct\n"
        "request = struct.pack('16sH14x', b'lo', 0)\n"
        "try: fcntl.ioctl(socket.socket(), 0x8914, request); print('DOWN')\n"
        "except PermissionError: print('refused')\n"
    )
    assert run(tmp_path, [], "python3", "-c", script, user="root") == "refused\n"


@needs_root
def test_the_relay_is_nobody_and_ends_with_the_container(tmp_path: Path) -> None:
    """What a hostile build talks to runs without privileges, and no process of it stays after the container was killed."""
    command = container(
        prepared_roots()["bookworm"], tmp_path, "build", "sh", "-c", "echo up; sleep 1007",
        reach=[Destination("127.0.0.1", 9)],
    )  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**PATH, "MARK": str(tmp_path)}
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        until(
            lambda: [one for one in relays(tmp_path) if "65534\t65534\t65534\t65534" in one],
            "it is nobody",
            10,
        )
        [status] = relays(tmp_path)
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status
    finally:
        process.kill()
        process.communicate(timeout=30)
    until(lambda: not relays(tmp_path), "the relay is gone", 10)


def relays(mark: Path) -> list[str]:
    """Return the status of each relay with a mark in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (
                    b"relay.py" in (entry / "cmdline").read_bytes()
                    and bytes(mark) in (entry / "environ").read_bytes()
                ):
                    found.append((entry / "status").read_text())
            except OSError:
                continue
    return found
