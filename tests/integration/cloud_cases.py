"""What the tests of clouds that fail share: clouds.yaml with more names, what the build page says, and what is left."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.integration import tiny

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lab.cloud import Lab
    from tests.integration.cloud_harness import CloudInstallation

DEBUG = "ceph-deb-bookworm-x86_64-debug"
"""A second target that builds in the same root."""

SUCCESS, EXCEPTION, RETRY = 0, 4, 5


class Gate:
    """What commits wait at while they are built, until a test opens it; the lab's servers share the host's network."""

    def __init__(self, port: int = 0) -> None:
        """`port` is needed for builds that reach only some ports: `Installation.gate_port` is one of them."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))  # nobody can connect until somebody listens
        self._letting_in = threading.Thread(target=self._let_in)
        port = self._listener.getsockname()[1]
        # The relay of a build's own network accepts before it has connected to us, so only our word counts.
        knock = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && read -r -t 5 <&3' 2>/dev/null"
        self.knobs = replace(tiny.WHOLE, work=f"echo asleep\nuntil {knock}; do sleep 0.2; done\n")
        """A commit whose build waits; the log of its step says `asleep` by then."""

    def __enter__(self) -> Self:
        return self

    def open(self) -> None:
        """Let through who waits, and whoever comes later."""
        if not self._letting_in.is_alive():
            self._listener.listen(100)
            self._letting_in.start()

    def _let_in(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.sendall(b"open\n")

    def __exit__(self, *_: object) -> None:
        if self._letting_in.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._letting_in.join()
        self._listener.close()


def more_clouds(original: Path, directory: Path, names: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a clouds.yaml that has further names for the cloud `packages`, each with changes of its own."""
    clouds = yaml.safe_load(original.read_text())["clouds"]
    for name, changes in names.items():
        usual = clouds["packages"]
        clouds[name] = {**usual, **changes, "auth": {**usual["auth"], **changes.get("auth", {})}}
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "clouds.yaml"
    made.write_text(yaml.safe_dump({"clouds": clouds}))
    return made


def page(here: CloudInstallation, answer: dict[str, Any]) -> str:
    """Give what the page of a request's newest build says; empty while there is none."""
    builds = here.builds(answer)
    return str(builds[-1]["state_string"]) if builds else ""


def until_page(here: CloudInstallation, answer: dict[str, Any], pattern: str, seconds: float = 60) -> str:
    """Wait until the page says something, and give it."""
    said: list[str] = [""]

    def says() -> bool:
        said.append(page(here, answer))
        return re.search(pattern, said[-1]) is not None

    try:
        here.until(says, f"the page says {pattern!r}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; it said {list(dict.fromkeys(said))}") from None
    return said[-1]


def until_log(here: CloudInstallation, answer: dict[str, Any], pattern: str, seconds: float = 60) -> None:
    """Wait until what was told of a request's machines has a line in it."""
    here.until(lambda: re.search(pattern, told(here, answer)), f"its log says {pattern!r}", seconds)


def told(here: CloudInstallation, answer: dict[str, Any]) -> str:
    """Give all that was told of a request's machines, of all its builds."""
    return "".join(here.machine_log(build) for build in here.builds(answer))


def server_of(here: CloudInstallation, answer: dict[str, Any], *, but: str = "") -> str:
    """Wait until a request has a server besides one, and give its id."""

    def found() -> str:
        ids = re.findall(r"instance ([0-9a-f-]{36}) in cloud \S+: waiting", told(here, answer))
        return ids[-1] if ids and ids[-1] != but else ""

    return str(here.until(found, "it has a server", 60))


def until_server(here: CloudInstallation, answer: dict[str, Any], status: str, but: set[str]) -> None:
    """Wait until nova has a server in a status that is none of some; what it waits for must not have ended before."""
    [number] = answer["buildrequest_ids"].values()

    def there() -> bool:
        if any(one.id not in but and one.status == status for one in here.servers()):
            return True
        [request] = here.get(f"buildrequests/{number}")["buildrequests"]
        assert not request["complete"], f"no server was {status}: {page(here, answer)}; {told(here, answer)}"
        return False

    here.until(there, f"a server is {status}")


def until_asleep(here: CloudInstallation, answer: dict[str, Any], builds: int = 1) -> None:
    """Wait until a build of a request, the first unless said, runs a commit that sleeps."""

    def asleep() -> bool:
        found = here.builds(answer)
        if len(found) < builds or "packages" not in here.steps(found[builds - 1]):
            return False
        return "asleep" in here.log(found[builds - 1], "packages")

    here.until(asleep, "it builds", 120)


def published(here: CloudInstallation, answer: dict[str, Any], seconds: float = 180) -> list[dict[str, Any]]:
    """Wait until a request has ended as published; give its builds."""
    request = here.wait(answer, seconds)
    builds = here.builds(answer)
    said = [(build["results"], build["state_string"], here.machine_log(build)) for build in builds]
    assert request["results"] == SUCCESS, said
    return builds


def refused(here: CloudInstallation, answer: dict[str, Any], seconds: float = 120) -> str:
    """Wait until a request has ended as one that got no machine; give the sentence of its page."""
    request = here.wait(answer, seconds)
    [build] = here.builds(answer)
    assert (request["results"], build["results"]) == (EXCEPTION, EXCEPTION), build["state_string"]
    prefix = "no machine for "
    said = str(build["state_string"])
    assert said.startswith(prefix), said
    return said.removeprefix(prefix).partition(": ")[2]


def properties(here: CloudInstallation, build: dict[str, Any]) -> dict[str, Any]:
    """Give a build's properties."""
    [found] = here.get(f"builds/{build['buildid']}/properties")["properties"]
    return {name: value for name, (value, _) in found.items()}


def nothing_left(here: CloudInstallation, lab: Lab, seconds: float = 60) -> None:
    """Wait until nothing of a master is left in nova, nor in neutron what belonged to it or to servers that are gone."""
    here.gone(seconds)
    admin, tenant = lab.admin(), lab.connect("packages")

    def left() -> list[str]:
        stale = [f"server {one.id}" for one in admin.compute.servers(tags=[here.tag])]
        alive = {one.id for one in tenant.compute.servers()}
        ports = [one for one in tenant.network.ports() if one.device_owner.startswith("compute:")]
        stale += [f"port {one.id}" for one in ports if one.device_id not in alive]
        both = [*tenant.network.ports(), *tenant.network.ips()]
        return stale + [one.id for one in both if str(one.description).startswith(f"{here.tag} ")]

    try:
        here.until(lambda: not left(), "nothing is left", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {left()}") from None
