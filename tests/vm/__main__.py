"""`make openstack-vm-test`: packages built inside a real virtual machine, which a real nova boots for them.

The guest's image is the project's own, its cloud-init and kernel are Debian's, its user data is the
product's. Nothing is asserted about how long anything takes; the log says it. Exit status 0 only if all held.
"""

from __future__ import annotations

import argparse
import fcntl
import re
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from demo import ceph_shaped, servers
from lab import guest, hypervisor
from lab.errors import LabError
from lab.layout import HOME
from master import control
from master.settings import Settings
from model.targets import Target
from tests.integration.cloud_harness import CloudInstallation
from tests.integration.harness import DEB
from tests.patience import free_ports
from tests.vm.machine_life import Event, Watch, console_events, step_events, table
from workers import wheels
from workers.user_data import BootConfig, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.cloud import Lab

MACHINE = {"ram": 3072, "vcpus": 2, "disk": 8}
NOVA_FLAVOR = "virtual"
PACKAGES = ("ceph", "ceph-common", "ceph-common-dbg", "ceph-osd", "ceph-osd-dbg", "python3-ceph-argparse")
MINUTES = 60
"""Until a build that has not ended counts as stuck: without KVM, on a machine that does other things as well."""

EXPIRY_SECONDS = 150
"""After which the second machine, whose master does not exist, must end itself."""


class Log:
    """What was reached when, in parts; each is printed when it is known."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._lines: list[str] = []
        self._began = time.time()
        self._ready: list[Event] = []

    def ready(self, name: str) -> None:
        """Take note that a part of the preparations is done."""
        self._ready.append(Event(name, time.time()))
        print(f"{self._ready[-1].at - self._began:7.1f} s  {name}", flush=True)

    def part(self, title: str, begin: float, events: list[Event]) -> None:
        """Take a part that is complete."""
        rows = ["", f"### {title}", "", *table(events, begin)]
        self._lines += rows
        print("\n".join(rows), flush=True)

    def markdown(self) -> str:
        """Give all of it, the preparations first."""
        rows = ["### Getting ready", "", *table(self._ready, self._began), *self._lines]
        return "\n".join([*rows, "", f"All of it took {time.time() - self._began:.0f} s.", ""])


class Virtual(CloudInstallation):
    """A master whose servers are virtual machines: they reach it, and its git daemon, at one address only."""

    def __init__(self, directory: Path, lab: Lab) -> None:
        """Write the settings."""
        packages, git, downloads = free_ports(3, hypervisor.ADDRESS)
        url = f"git://{hypervisor.ADDRESS}:{git}/"
        super().__init__(
            directory, lab,
            clouds=[
                {
                    "images": {"*-bookworm-*": guest.NAME}, "nova_flavor": NOVA_FLAVOR, "max_instances": 1,
                    "environment": {"BUILDPACKAGES_DEMO_DOWNLOADS": f"http://{hypervisor.ADDRESS}:{downloads}"},
                }
            ],
            git={"allowed": [url]},
            projects={"ceph": {"git_url": f"{url}ceph.git", "canonical_url": f"{url}ceph.git"}},
            packages={
                "host": hypervisor.ADDRESS,
                "port": packages,
                "url": f"http://{hypervisor.ADDRESS}:{packages}/",
            },
            workers={"host": hypervisor.ADDRESS, "start_timeout": 900, "attempts": 1},
            build={"memory_per_job": 1024},
        )  # fmt: skip
        self.git_port, self.downloads_port = git, downloads

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve the Ceph-shaped repository, and what its make-dist downloads, to the guests."""
        self.input.mkdir()
        ceph_shaped.generate(self.input)
        ceph_shaped.write_downloads(self.input)
        programs = subprocess.run(
            ["git", "--exec-path"], check=True, capture_output=True, text=True
        ).stdout.strip()
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", f"{programs}/git-daemon", f"--base-path={self.input}", "--export-all", "--reuseaddr",
             f"--listen={hypervisor.ADDRESS}", f"--port={self.git_port}", str(self.input)],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        downloads = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "http.server", "--bind", hypervisor.ADDRESS,
             "--directory", str(self.input / servers.DOWNLOADS), str(self.downloads_port)],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
        finally:
            for server in (daemon, downloads):
                server.terminate()
                server.wait()


def build_inside(here: Virtual, image: guest.Guest, log: Log) -> None:
    """Have the debs built in a virtual machine, and see all of it through to the machine's end."""
    with Watch(here.lab.admin()) as watch:
        began = time.time()
        answer = here.ask(DEB, ref="main")
        request = followed(here, answer)
        [build] = here.builds(answer)
        here.until(
            lambda: watch.servers and all("gone" in one.seen for one in watch.servers.values()),
            "the server is gone",
        )
    watched = list(watch.servers.values())
    if request["results"] != 0:
        print(here.machine_log(build), here.machine_log(build, "console"), *(one.console for one in watched))
    check(request["results"] == 0, f"the build ended well: {build['state_string']}")
    check(len(watched) == 1, f"one server was made for it: {len(watched)}")
    seen = watched[0].seen
    boot = boot_events(watched[0].console, seen["ACTIVE"])
    log.part(
        "One build",
        began,
        [
            Event("nova has the server", min(seen.values())),
            Event("nova: ACTIVE", seen["ACTIVE"]),
            *boot,
            *step_events(here.steps(build)),
            Event("nova knows the server no more", seen["gone"]),
        ],
    )
    inside(here, build, image)
    published(here, answer)


def followed(here: Virtual, answer: dict[str, Any]) -> dict[str, Any]:
    """Wait for the request's end, telling what it is at; give it."""
    told = ""
    deadline = time.monotonic() + MINUTES * 60
    while time.monotonic() < deadline:
        for build in here.builds(answer)[-1:]:
            at = [step for step in here.steps(build).values() if step["started_at"] and not step["complete"]]
            said = at[-1]["state_string"] if at else build["state_string"]
            if said != told:
                print(f"          {said}", flush=True)
                told = said
        request = here.get(f"buildrequests/{next(iter(answer['buildrequest_ids'].values()))}")[
            "buildrequests"
        ][0]
        if request["complete"]:
            found: dict[str, Any] = request
            return found
        time.sleep(1)
    raise SystemExit(f"not within {MINUTES} minutes; at last: {told}")


def boot_events(console: str, began: float) -> list[Event]:
    """Give what the console told, by this machine's clock; without it nothing proves that cloud-init ran."""
    events = console_events(console)
    for word in (
        "kernel up",
        "cloud-init begins `init-local`",
        "cloud-init begins `modules:final`",
        "user data:",
    ):
        check(any(event.name.startswith(word) for event in events), f"the console tells of {word!r}")
    return [Event(event.name, began + event.at) for event in events]


def inside(here: Virtual, build: dict[str, Any], image: guest.Guest) -> None:
    """The build's own words say where it ran: on the guest's kernel, not on this machine's."""
    release = re.search(rb"\d+\.\d+\.\d+-\d+-cloud-amd64", image.kernel.read_bytes()[:65536])
    check(release is not None, "the image has Debian's cloud kernel")
    assert release is not None
    said = here.log(build, "machine")
    check(release[0].decode() in said, f"the build ran on the guest's kernel {release[0].decode()}")
    check("uid=0" not in said, "the build ran as a plain user")
    compiled = here.log(build, "packages")
    check("dpkg-deb: building package 'ceph-common'" in compiled, "the debs were made in that build")


def published(here: Virtual, answer: dict[str, Any]) -> None:
    """What is served is whole, and its program runs."""
    index = requests.get(f"{answer['url']}dists/bookworm/main/binary-amd64/Packages", timeout=30).text
    names = re.findall(r"^Package: (.+)$", index, re.MULTILINE)
    check(sorted(names) == list(PACKAGES), f"published: {', '.join(sorted(names))}")
    with tempfile.TemporaryDirectory() as name:
        for path in re.findall(r"^Filename: (.+)$", index, re.MULTILINE):
            deb = Path(name, Path(path).name)
            deb.write_bytes(requests.get(answer["url"] + path, timeout=60).content)
            subprocess.run(["dpkg-deb", "-x", str(deb), name], check=True)
        said = subprocess.run(
            [f"{name}/usr/bin/ceph", "--version"], check=True, capture_output=True, text=True
        )
    check(answer["package_key"].rpartition("/")[2] in said.stdout, f"it runs: {said.stdout.strip()}")


def expire(here: Virtual, machines: hypervisor.Hypervisor, log: Log) -> None:
    """A machine whose master is gone for ever ends itself when its time is over, though its worker goes on knocking."""
    cloud = here.lab.connect()
    data = render(
        BootConfig(
            target=Target.from_name(DEB), worker="nobody", password="worthless",
            master_host=hypervisor.ADDRESS, master_port=free_ports(1, hypervisor.ADDRESS)[0],
            packages_url=here.settings.packages.internal_url, expires=int(time.time()) + EXPIRY_SECONDS,
        )
    )  # fmt: skip
    with Watch(here.lab.admin()) as watch:
        began = time.time()
        server = cloud.compute.create_server(
            name="forgotten", config_drive=True, user_data=b64encode(data.encode()).decode(),
            image_id=cloud.image.find_image(guest.NAME, ignore_missing=False).id,
            flavor_id=cloud.compute.find_flavor(NOVA_FLAVOR, ignore_missing=False).id,
            networks=[{"uuid": cloud.network.find_network("lab", ignore_missing=False).id}],
        )  # fmt: skip
        here.until(
            lambda: (found := watch.servers.get(server.id)) and "ACTIVE" in found.seen,
            "the forgotten machine is there",
        )
        there = (len(machines.guests()), len(machines.processes()))
        check(there == (1, 1), f"while it lives there are a libvirt domain and a qemu process: {there}")
        watched = here.until(
            lambda: (found := watch.servers.get(server.id)) and "SHUTOFF" in found.seen and found,
            "the forgotten machine is off", EXPIRY_SECONDS + 300,
        )  # fmt: skip
        # libvirt gives no console of what is off.
        console = here.lab.directory / "instances" / server.id / "console.log"
        said = console.read_text(errors="replace")
        check("its time is over" in said, "it powered itself off because its time was over")
        check("the worker starts, and connects to" in said, "its worker was there, and knocked in vain")
        cloud.compute.delete_server(server.id)
        cloud.compute.wait_for_delete(server)
    log.part(
        f"A machine whose master is gone for ever, given {EXPIRY_SECONDS} s",
        began,
        [
            Event("nova: ACTIVE", watched.seen["ACTIVE"]),
            *boot_events(said, watched.seen["ACTIVE"]),
            Event("nova: SHUTOFF, which it looks for with delay", watched.seen["SHUTOFF"]),
        ],
    )


def nothing_left(lab: Lab, machines: hypervisor.Hypervisor) -> None:
    """No guest is left: neither in nova, nor in libvirt, nor a process, nor a disk, nor a port."""
    admin = lab.admin()
    check(not list(admin.compute.servers(all_projects=True)), "nova has no server")
    check(not machines.guests(), "libvirt has no domain")
    check(not machines.processes(), "there is no qemu process")
    disks = [path.name for path in (lab.directory / "instances").glob("*-*-*-*-*")]
    check(not disks, f"there is no disk {disks}")
    ports = [port for port in admin.network.ports() if port.device_owner.startswith("compute:")]
    check(not ports, f"neutron has no port of a server {ports}")


def check(holds: bool, what: str) -> None:
    """Say what holds; end with what does not."""
    print(f"{'  ok' if holds else 'FAIL'}  {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def run(directory: Path) -> Log:
    """Do all of it in a directory of its own."""
    log = Log()
    image = guest.build(HOME / "guests", tell=lambda text: print(f"* {text}", flush=True))
    log.ready("guest image there")
    hypervisor.install()
    with ExitStack() as stack:
        lab, machines = stack.enter_context(hypervisor.machines(directory))
        log.ready("libvirtd and OpenStack up")
        admin = lab.admin()
        admin.compute.create_flavor(name=NOVA_FLAVOR, **MACHINE)
        image.upload(admin)
        log.ready(f"guest image of {image.disk.stat().st_size / 1e6:.0f} MB in glance")
        (directory / "master").mkdir()
        here = Virtual(directory / "master", lab)
        [kind] = [one for one in wheels.machines(["x86_64"]) if one.tag.startswith("cp311-")]
        wheels.fetch(here.settings.packages.wheels, kind)
        log.ready("wheels of buildbot-worker fetched")
        stack.enter_context(here.serving())
        stack.callback(here.stop)
        here.start()
        log.ready("the master up")
        build_inside(here, image, log)
        expire(here, machines, log)
        nothing_left(lab, machines)
    check(not machines.pid and not machines.processes(), "libvirtd has ended, and every guest with it")
    check(not Path("/sys/class/net", hypervisor.HOST_SIDE).exists(), "the interfaces are gone")
    return log


@contextmanager
def alone(directory: Path) -> Iterator[Path]:
    """Give a directory that nobody else uses, without what a killed test has left in it; remove it after."""
    directory.parent.mkdir(exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("another openstack-vm-test runs") from None
        left = directory / "master/settings.yaml"
        if left.exists():
            control.stop(Settings.from_file(left))
        remove = ["rm", "-rf", "--one-file-system", "--", str(directory)]
        subprocess.run(remove, check=True)
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            subprocess.run(remove, check=True)


def main() -> int:
    """Build packages inside a virtual machine, and write down what was reached when."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=main.__doc__)
    parser.add_argument(
        "--log", type=Path, default=HOME / "vm-test.md", help="where the log is written (%(default)s)"
    )
    arguments = parser.parse_args()
    try:
        with alone(HOME / "vm") as directory:
            log = run(directory)
    except (LabError, RuntimeError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    arguments.log.write_text(log.markdown())
    print(f"\n{arguments.log} has the log")
    return 0


if __name__ == "__main__":
    sys.exit(main())
