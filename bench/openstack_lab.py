"""The ground of the OpenStack benchmarks: one lab, and on it a master of ours and a stock one.

Each master reaches the lab through a fault proxy of its own, which counts its calls. The lab, the
proxies and the servers run at nice 10, and so do the sessions of lab and servers: in production they are
other machines, and what is measured is the master.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.moments import Moments
from bench.openstack_probe import Lags, until
from bench.stock_openstack import START_TIMEOUT, StockOpenStack
from lab.cloud import Lab, running
from lab.install import install
from lab.proxy import FaultProxy
from model.targets import Target
from tests.integration.cloud_harness import CLOUD, CloudInstallation
from tests.integration.harness import CHECKOUT, DEB, ROOTS
from workers.roots import Root, Roots, host_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

FLAVOR = "small"


class Ground:
    """A running lab, with what both sides' servers are made of."""

    def __init__(self, lab: Lab) -> None:
        """Look it up once, for who needs ids."""
        self.lab = lab
        self._tenant = lab.connect()
        wanted = CLOUD["images"]["*-bookworm-*"]
        [image] = [
            one
            for one in self._tenant.image.images(name=wanted["name"])
            if one.os_version == wanted["properties"]["os_version"]
        ]
        self.image: str = image.id
        self.flavor: str = self._tenant.compute.find_flavor(FLAVOR, ignore_missing=False).id
        self.network: str = self._tenant.network.find_network("lab", ignore_missing=False).id

    def servers(self) -> list[Any]:
        """List every server of the project, not through a proxy."""
        return list(self._tenant.compute.servers(details=True))

    def there(self, server_id: str) -> bool:
        """Whether nova knows a server."""
        found = self._tenant.compute.get(f"/servers/{server_id}")
        return bool(found.status_code != 404)

    def status(self, server_id: str) -> str:
        """Give a server's status."""
        return str(self._tenant.compute.get(f"/servers/{server_id}").json()["server"]["status"])

    def create(self, name: str, user_data: str) -> str:
        """Make a server by hand, in one call; give its id."""
        made = self._tenant.compute.create_server(
            name=name, flavor_id=self.flavor, image_id=self.image, networks=[{"uuid": self.network}],
            user_data=base64.b64encode(user_data.encode()).decode(), config_drive=True,
        )  # fmt: skip
        return str(made.id)

    def delete(self, server_id: str) -> None:
        """Delete a server by hand."""
        self._tenant.compute.delete_server(server_id)


class Proxy:
    """A fault proxy in a process of its own; any of its methods by name."""

    def __init__(self, lab: Lab, clouds_yaml: Path) -> None:
        """Start it; the clouds that lead through it are written to a file."""
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, str(lab.directory), str(clouds_yaml)), daemon=True
        )
        self._process.start()
        theirs.close()
        self.clouds_yaml = clouds_yaml
        self.endpoints: dict[str, str] = self._answer()

    def __call__(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the proxy, or read a property."""
        self._ours.send((method, arguments, named))
        return self._answer()

    def calls(self) -> int:
        """Count the calls since the count began, beyond keystone's."""
        return int(self("count"))

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.join(10)
        self._process.kill()

    def _answer(self) -> Any:
        good, found = self._ours.recv()
        if not good:
            raise RuntimeError(f"the proxy failed: {found}")
        return found


def _serve(pipe: Connection, directory: str, clouds_yaml: str) -> None:
    """Do what the pipe says until its other end is closed."""
    os.nice(10)
    with FaultProxy(Lab(Path(directory))) as proxy:
        # The next proxy of this lab writes the same file.
        shutil.copy(proxy.clouds_yaml, clouds_yaml)
        pipe.send((True, proxy.endpoints))
        while True:
            try:
                name, arguments, named = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                found = getattr(proxy, name)
                pipe.send((True, found(*arguments, **named) if callable(found) else found))
            except (AttributeError, TypeError, ValueError) as error:
                pipe.send((False, repr(error)))


class Stock(StockOpenStack):
    """A stock master, which reaches the lab through its own proxy."""

    def __init__(self, directory: Path, found: Ground, proxy: Proxy, workers: int, plain: bool) -> None:
        """Make it, and start it."""
        self.proxy = proxy
        super().__init__(directory, found, proxy.endpoints["keystone"], workers, plain=plain)


class Ours:
    """Our master on a lab: an installation, what is seen of it, and its proxy."""

    def __init__(self, directory: Path, ground: Ground, *, patch: str = "", **overrides: Any) -> None:
        """Make it; it is not started yet. `cloud` and `workers` of the overrides are merged into the settings."""
        directory.mkdir()
        self.ground = ground
        self.proxy = Proxy(ground.lab, directory / "clouds.yaml")
        self.moments = Moments(directory / "moments", CHECKOUT)
        self.lags = Lags(directory / "lags")
        self.patch = self.moments.patch + self.lags.patch + patch
        cloud = {"max_instances": 20, **overrides.pop("cloud", {})}
        openstack = {
            "max_instances_per_asker": 0,
            **overrides.pop("openstack", {}),
        }  # all builds are one user's here
        workers = {"start_timeout": START_TIMEOUT, **overrides.pop("workers", {})}
        self.here = CloudInstallation(
            directory, ground.lab, clouds=[cloud], clouds_yaml=self.proxy.clouds_yaml, workers=workers,
            openstack=openstack, **overrides,
        )  # fmt: skip
        self.url = self.here.url

    def start(self) -> None:
        """Start the master, and the git daemon of a tiny repository."""
        self.here.serve_tiny()
        self.here.start(patch=self.patch)

    def get(self, path: str) -> Any:
        """Read the REST API."""
        return self.here.get(path)

    def servers(self) -> list[str]:
        """Give the ids of its servers, as nova has them."""
        return [str(one.id) for one in self.ground.servers() if self._mark(one)]

    def built(self, answer: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        """Give how a request ended, -1 if it has not, and its builds."""
        [number] = answer["buildrequest_ids"].values()
        [request] = self.here.get(f"buildrequests/{number}")["buildrequests"]
        return (request["results"] if request["complete"] else -1), self.here.builds(answer)

    def instance(self, build: dict[str, Any]) -> str:
        """Give the id of the server that was made for a build; empty if none was."""
        found = self.here.get(f"builds/{build['buildid']}/properties")["properties"][0]
        return str(found.get("instance", [""])[0])

    def close(self) -> None:
        """End everything."""
        self.here.stop()
        self.proxy.close()

    def _mark(self, server: Any) -> bool:
        return f"buildpackages-{(server.metadata or {}).get('master')}" == self.here.tag


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Give a lab whose servers run in the root that our builds run in."""
    install(lambda text: print(text, file=sys.stderr))
    root = Root.of(Target.from_name(DEB), host_suite())
    roots = Roots(ROOTS, {})
    list(roots.prepare(root))
    with running(directory / "lab", roots={"bookworm": roots.path(root)}, yields=True) as lab:
        yield Ground(lab)


@contextmanager
def our_master(directory: Path, found: Ground, *, patch: str = "", **overrides: Any) -> Iterator[Ours]:
    """Give our master on a lab; it runs."""
    made = Ours(directory, found, patch=patch, **overrides)
    try:
        made.start()
        yield made
    finally:
        made.close()


@contextmanager
def stock_master(
    directory: Path, found: Ground, *, workers: int = 20, plain: bool = False
) -> Iterator[Stock]:
    """Give a stock master on a lab, and its proxy; it runs, and what it leaves in the lab is removed after."""
    proxy = Proxy(found.lab, directory.with_suffix(".yaml"))
    try:
        made = Stock(directory, found, proxy, workers, plain)
        try:
            yield made
        finally:
            made.close()
            for server_id in made.servers():
                found.delete(server_id)
    finally:
        proxy.close()


def until_gone(ground: Ground, server_id: str, patience: float = 120) -> float:
    """Wait until nova does not know a server; give the time."""
    until(lambda: not ground.there(server_id), f"server {server_id} is gone", patience, 0.05)
    return time.time()
