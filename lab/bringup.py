"""Brings a lab up, from nothing or from a template, and down again."""

from __future__ import annotations

import concurrent.futures
import errno
import fcntl
import json
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keystoneauth1.exceptions
import openstack.exceptions
import requests

from lab import configuration, database, seed
from lab.connection import connect
from lab.errors import LabError
from lab.layout import DRIVERS, HOME, HOST, SERVICES, VENV, Layout, template
from lab.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

STATE = "lab.json"
"""In a lab's directory; what is written there when it has come up. Empty while it comes up."""

_KEPT = ("mysql", "fernet", "cred", "images", "compute_id", "credential.json")
"""What a template holds."""

_PATIENCE = 180.0
_FAILURES = (
    OSError, subprocess.SubprocessError, requests.RequestException,
    openstack.exceptions.SDKException, keystoneauth1.exceptions.ClientException,
)  # fmt: skip


def up(
    directory: Path,
    driver: str = "process",
    *,
    attached: bool = False,
    more: Mapping[str, str] | None = None,
    yields: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Layout:
    """Bring a lab up in a directory that holds nothing but an earlier lab, and start it afresh.

    `attached`: it ends when the thread that called this ends. `more`: environment of its services.
    `yields`: all of it has less of the processors than what runs beside it.
    LabError says what failed, and then nothing is left running.
    """
    directory = directory.absolute()
    if driver not in DRIVERS:
        raise LabError(f"there is no driver {driver}: {' or '.join(DRIVERS)}")
    if not (VENV / "installed").is_file():
        raise LabError(f"{VENV} is not there: `make openstack-lab` or `python -m lab install` makes it")
    _claim(directory)
    processes = Processes(directory, attached=attached, yields=yields)
    with _lock(directory / "up.lock", f"another `up` is at work in {directory}"):
        if _state(directory) and processes.running():
            raise LabError(f"a lab runs in {directory} already: `python -m lab down {directory}` ends it")
        try:
            with _sentences(directory, processes):
                _clear(directory, processes)
                return _Bringup(directory, driver, processes, more or {}, say).run()
        except BaseException:
            processes.end()
            raise


def down(directory: Path) -> int:
    """End everything of a lab, however it was left; give how many processes there were."""
    directory = directory.absolute()
    processes = Processes(directory)
    number = len(processes.running())
    processes.end()
    if (directory / STATE).is_file():
        (directory / STATE).write_text("")
    return number


def opened(directory: Path) -> tuple[Layout, dict[str, Any]]:
    """Give the layout of a lab that is up, and what else was written about it."""
    state = _state(directory.absolute())
    if not state or not Processes(directory.absolute()).running():
        raise LabError(f"no lab runs in {directory}: `python -m lab up {directory}` starts one")
    return Layout(directory.absolute(), state["driver"], state["ports"]), state


class _Bringup:
    def __init__(
        self,
        directory: Path,
        driver: str,
        processes: Processes,
        more: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._sockets = {service: _listen() for service in SERVICES}
        ports = {service: one.getsockname()[1] for service, one in self._sockets.items()}
        self._layout = Layout(directory, driver, ports)
        self._processes = processes
        self._more = more
        self._tell = say
        self._began = time.monotonic()
        self._credential: dict[str, str] = {}

    def run(self) -> Layout:
        layout = self._layout
        for name in ("log", "images", "instances", "lock", "fernet", "cred", "servers"):
            (layout.directory / name).mkdir(exist_ok=True)
        configuration.write(layout)
        kept = template(layout.driver)
        with _lock(HOME / f"{kept.name}.lock"):
            made = kept.is_dir()
            if not made:
                self._from_nothing()
                self._save(kept)
        if made:
            self._from_template(kept)
        configuration.write_clouds(layout.clouds_yaml, layout.url("keystone"), self._credential)
        self._wait_for_compute()
        state = {
            "driver": layout.driver,
            "ports": layout.ports,
            "credential": self._credential,
            "more": dict(self._more),
            "yields": self._processes.yields,
        }
        (layout.directory / STATE).write_text(json.dumps(state))
        self._say("the lab is up")
        return layout

    def _from_template(self, kept: Path) -> None:
        layout = self._layout
        for name in _KEPT:
            if (kept / name).exists():
                _copy(kept / name, layout.directory / name)
        self._credential = json.loads((layout.directory / "credential.json").read_text())
        made_in = (kept / "made-in").read_text()
        self._start_services()
        database.start(layout, self._processes, database.relocation(layout, made_in))
        self._say("the database is up, from a template")

    def _from_nothing(self) -> None:
        layout, processes = self._layout, self._processes
        configuration.write_clouds(layout.clouds_yaml, layout.url("keystone"), {})
        database.create(layout, processes)
        database.start(layout, processes, database.creation())
        self._say("an empty database is up")
        database.fill(layout, processes)
        self._say("every service has its tables")
        self._start_services("keystone", "glance", "placement", "neutron")
        admin = connect(layout.clouds_yaml, "lab")
        self._answer("keystone")
        seed.catalogue(admin, layout)
        self._start_services("nova")
        seed.project(admin)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            parts = [
                pool.submit(part, connect(layout.clouds_yaml, "lab"))
                for part in (seed.images, seed.networks, seed.flavors)
            ]
            for part in concurrent.futures.as_completed(parts):
                part.result()
        tenant = connect(layout.clouds_yaml, "packages-password")
        self._credential = seed.belongings(tenant)
        (layout.directory / "credential.json").write_text(json.dumps(self._credential))
        self._wait_for_compute()
        self._say("every service answers")

    def _save(self, kept: Path) -> None:
        """Copy what the lab is made of while its database is down; the services connect again by themselves."""
        layout = self._layout
        making = kept.with_suffix(".making")
        for old in kept.parent.glob(f"template-{layout.driver}-*"):
            if (
                old.is_dir()
            ):  # a lab that is just being made of it makes its own anew, when it is started again
                shutil.rmtree(old, ignore_errors=True)
        making.mkdir(parents=True)
        self._processes.stop("mariadb")
        try:
            for name in _KEPT:
                if (layout.directory / name).exists():
                    _copy(layout.directory / name, making / name)
            (making / "made-in").write_text(str(layout.directory))
            making.rename(kept)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        database.start(layout, self._processes, [])
        self._say("a template is kept for the next lab")

    def _start_services(self, *names: str) -> None:
        for name in names or SERVICES:
            listener = self._sockets[name]
            start_service(self._processes, name, listener, self._more)
            listener.close()

    def _answer(self, service: str) -> None:
        """Wait until a service answers at all; meanwhile all that have ended are seen."""
        host, port = HOST, self._layout.ports[service]
        while True:
            self._processes.check()
            if time.monotonic() > self._began + _PATIENCE:
                raise LabError(f"{service} does not answer: {self._processes.last_words(service)}")
            try:
                requests.get(f"http://{host}:{port}/", timeout=2)
            except requests.Timeout:
                continue
            except requests.ConnectionError:  # it has just ended, and is seen to have in a moment
                time.sleep(0.2)
                continue
            return

    def _wait_for_compute(self) -> None:
        for service in SERVICES:
            self._answer(service)
        admin = connect(self._layout.clouds_yaml, "lab")
        # With its first call neutron loads its policies; to who asks meanwhile it would show nothing.
        list(admin.network.networks())
        while not any(one.binary == "nova-compute" and one.state == "up" for one in admin.compute.services()):
            self._processes.check()
            if time.monotonic() > self._began + _PATIENCE:
                raise LabError(f"nova has no host: see {self._layout.logs / 'nova.log'}")
            time.sleep(0.1)

    def _say(self, what: str) -> None:
        self._tell(f"{time.monotonic() - self._began:5.1f} s  {what}")


def start_service(processes: Processes, name: str, listener: socket.socket, more: Mapping[str, str]) -> None:
    """Start a service on a socket that listens."""
    module = ["lab.inside.nova_all"] if name == "nova" else ["lab.inside.serve", f"{name}.wsgi.api"]
    processes.start(
        name, ["python", "-m", *module], pass_fds=[listener.fileno()],
        more={**more, "LAB_SOCKET": str(listener.fileno())},
    )  # fmt: skip


def start_again(processes: Processes, layout: Layout, name: str, more: Mapping[str, str]) -> None:
    """Start a service of a running lab that has ended, and wait until it answers."""
    if name == "mariadb":
        database.start(layout, processes, [])
        return
    with _listen(layout.ports[name]) as listener:
        start_service(processes, name, listener, more)
    requests.get(f"http://{HOST}:{layout.ports[name]}/", timeout=_PATIENCE)


def _listen(port: int = 0) -> socket.socket:
    """Give a socket that listens; the threads of a killed process may hold its port a moment longer."""
    deadline = time.monotonic() + 5
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(512)
        except OSError as failure:
            listener.close()
            if failure.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return listener


def _claim(directory: Path) -> None:
    """Make the directory ours; one that holds something else is left alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / STATE).is_file():
        raise LabError(f"{directory} holds something that is not a lab: name an empty or a new directory")
    (directory / STATE).touch()


def _clear(directory: Path, processes: Processes) -> None:
    """End and remove what an earlier lab has left."""
    processes.end()
    (directory / STATE).write_text("")
    for entry in directory.iterdir():
        if entry.name in (STATE, "up.lock"):
            continue
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(entry)], check=True)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(
        ["cp", "--archive", "--reflink=auto", "--sparse=always", "-T", str(source), str(target)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip


def _state(directory: Path) -> dict[str, Any]:
    try:
        text = (directory / STATE).read_text()
    except OSError:
        return {}
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


@contextmanager
def _sentences(directory: Path, processes: Processes) -> Iterator[None]:
    """Turn what fails on the way up into a sentence; a process that has ended knows best what failed."""
    try:
        yield
    except _FAILURES as failure:
        processes.check()
        raise LabError(_sentence(failure, directory)) from failure


def _sentence(failure: BaseException, directory: Path) -> str:
    said = str(failure)
    if isinstance(failure, subprocess.CalledProcessError):
        said = (failure.stderr or "").strip().partition("\n")[0] or str(failure)
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        said = f"no space left on the disk of {directory}"
    return f"the lab in {directory} did not come up: {said}"


@contextmanager
def _lock(path: Path, taken: str = "") -> Iterator[None]:
    """Hold a lock; wait for it, unless `taken` is what to say when somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if taken else 0))
        except BlockingIOError:
            raise LabError(taken) from None
        yield
