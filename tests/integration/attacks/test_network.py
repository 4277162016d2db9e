"""Attacks by which a build on the master's machine uses the machine's network: its sockets, its ports, its browser."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation
from tests.patience import SLOW, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

SUCCESS = 0
ATTACK = """
import json, socket, sys

told = json.loads(sys.argv[1])
kept, said = [], {}

def attempt(name, family, call, address):
    made = socket.socket(family)
    made.settimeout(10)
    try:
        if call == "bind":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(tuple(address))
            made.listen()
        else:
            made.connect(address if isinstance(address, str) else tuple(address))
    except OSError as error:
        said[name] = str(error)
    else:
        kept.append(made)
        said[name] = "done"

for name, (family, call, address) in told["attempts"].items():
    attempt(name, getattr(socket, "AF_" + family), call, address)
with socket.create_connection(("127.0.0.1", told["gate"])) as gate:
    gate.sendall(json.dumps(said).encode() + b"\\n")
    gate.recv(1)
"""
"""Tries everything, reports to the one port of the test that it may reach, and keeps what it has until that connection ends."""


class Host:
    """The machine on which the master runs, as a build's victim."""

    def __init__(self, installation: Installation, gate: socket.socket) -> None:
        self.installation = installation
        self._gate = gate
        self._gate.settimeout(120 * SLOW)

    @contextmanager
    def attacked(self, **attempts: tuple[str, str, Any]) -> Iterator[dict[str, str]]:
        """Have the root of a build make these attempts; the build holds what it got until the block ends, and then ends well."""
        made = self.installation
        told = json.dumps({"attempts": attempts, "gate": self._gate.getsockname()[1]})
        work = f"sudo -n python3 - '{told}' <<'END'\n{ATTACK}\nEND\n"
        answer = made.ask(DEB, sha1=made.repository.commit(replace(tiny.WHOLE, work=work)))
        connection, _ = self._gate.accept()
        with connection, connection.makefile() as lines:
            yield json.loads(lines.readline())
        assert made.wait(answer)["results"] == SUCCESS, made.said(answer)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A running master whose machine is a container of crun; it reaches one port of the test besides what every build reaches."""
    with ExitStack() as stack:
        gate = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        reach = [f"127.0.0.1:{gate.getsockname()[1]}"]
        workers = {"attempts": 1, "local": {"engine": "crun", "reach": reach}}
        made = stack.enter_context(tiny_installation(tmp_path_factory.mktemp("network"), workers=workers))
        yield Host(made, gate)


def connects(family: socket.AddressFamily, *address: str | int) -> bool:
    """Whether something on this machine accepts a connection."""
    with socket.socket(family) as client:
        client.settimeout(10)
        return client.connect_ex(address) == 0


def test_c9_no_service_on_an_abstract_socket_sees_a_build(host: Host) -> None:
    """A build's root cannot connect to a service of the machine that trusts whoever can connect."""
    name = f"\0buildpackages-test-{host.installation.directory.name}"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(name)
        service.listen()
        service.setblocking(False)
        with host.attacked(abstract=("UNIX", "connect", name)) as said:
            assert said == {"abstract": "[Errno 111] Connection refused"}
            with pytest.raises(BlockingIOError):
                service.accept()


def test_c10_no_build_listens_beside_the_masters_ports(host: Host) -> None:
    """What a build binds is its own: on the machine, no port beside the master's, nor any other of loopback, leads to a build."""
    settings = host.installation.settings
    [free] = free_ports(1)
    ports = {
        "www": (socket.AF_INET6, "::1", settings.www.port),
        "packages": (socket.AF_INET, "127.0.0.2", settings.packages.port),
        "workers": (socket.AF_INET, "127.0.0.3", settings.workers.port),
        "free": (socket.AF_INET, "127.0.0.1", free),
    }
    attempts = {name: (family.name[3:], "bind", place) for name, (family, *place) in ports.items()}
    with host.attacked(**attempts) as said:
        assert said == dict.fromkeys(ports, "done")
        assert not [name for name, place in ports.items() if connects(*place)]


def test_c11_no_browser_of_the_machine_gets_a_page_of_a_build(host: Host) -> None:
    """Cookies know no ports, so a page of a build on 127.0.0.1 would get the operator's; a browser there finds no page."""
    [page] = free_ports(1)
    with host.attacked(page=("INET", "bind", ("127.0.0.1", page))) as said:
        assert said == {"page": "done"}
        assert not connects(socket.AF_INET, "127.0.0.1", page)


def test_the_machines_ports_are_not_there(host: Host) -> None:
    """A build reaches neither the master's web port nor another program of the machine, by no address of it."""
    settings = host.installation.settings
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        addresses = {"127.0.0.1", "127.0.0.2", own_address()}
        attempts = {f"to {address}": ("INET", "connect", (address, port)) for address in addresses}
        attempts["www"] = ("INET", "connect", ("127.0.0.1", settings.www.port))
        attempts["packages"] = ("INET", "connect", ("127.0.0.1", settings.packages.port))
        with host.attacked(**attempts) as said:
            assert said.pop("packages") == "done", "uploads go there"
            assert set(said.values()) <= {
                "[Errno 111] Connection refused",
                "[Errno 101] Network is unreachable",
            }
            assert len(said) == len(addresses) + 1


def own_address() -> str:
    """Return the address that this machine has in its network, or that of loopback if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
