"""User data at work: run as root in a throw-away overlay of a prepared root, as it is, against a real master."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from model.targets import Target
from tests.cloud import prepared_roots
from tests.integration.harness import DEB, RPM
from tests.package_server_process import PackageServerProcess
from tests.patience import free_ports
from tests.workers.fetched_wheels import fetched_wheels
from tests.workers.small_master import PASSWORD, WORKER, SmallMaster, small_master, until
from tests.workers.test_tls import _Rendezvous
from workers.sandbox import enter, mounted
from workers.tls import pb_port, self_signed
from workers.user_data import BootConfig, render
from workers.wheels import digests

SCRIPT = "var/lib/cloud/instance/scripts/part-001"
"""Where cloud-init puts user data."""


@pytest.fixture(scope="module")
def root() -> Path:
    """Give a prepared root."""
    return prepared_roots()["bookworm"]


@pytest.fixture(scope="module")
def wheels() -> Path:
    return fetched_wheels()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[PackageServerProcess]:
    with PackageServerProcess(tmp_path_factory.mktemp("server")) as running:
        running.ask("reconfigure", wheels=str(wheels))
        yield running


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallMaster]:
    """Give a master with TLS, whose only build says who builds."""
    directory = tmp_path_factory.mktemp("master")
    made = self_signed(directory / "state", ["127.0.0.1"])
    endpoint = pb_port("127.0.0.1", 1, made.certificate, made.key).replace("ssl:1:", "ssl:{port}:")
    with small_master(directory / "master", pb=endpoint) as running:
        yield running


OVER = "this machine powers itself off: its time is over"


def config(port: int, packages_url: str = "http://127.0.0.1:1/", seconds: int = 600) -> BootConfig:
    return BootConfig(
        target=Target.from_name(DEB),
        worker=WORKER,
        password=PASSWORD,
        master_host="127.0.0.1",
        master_port=port,
        packages_url=packages_url,
        expires=int(time.time()) + seconds,
    )


class Machine:
    """A machine in an overlay."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root = root
        self.scratch = directory
        self.upper = directory / "upper"
        self.upper.mkdir(parents=True)
        self.process: subprocess.Popen[bytes]

    def add(self, path: str, content: str, mode: int = 0o755) -> None:
        """Put a file into the image."""
        file = self.upper / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)

    def leave_out(self, path: str) -> None:
        """Have an image without a file or directory of the root."""
        (self.upper / path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(self.upper / path, stat.S_IFCHR | 0o600, os.makedev(0, 0))

    def run(self, *command: str) -> str:
        """Run a command in it to its end; give what it printed."""
        done = subprocess.run(
            enter(self.root, self.scratch, "root", *command),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        self._off()
        return done.stdout

    @contextmanager
    def boot(self, script: str, *command: str) -> Iterator[Machine]:
        """Run user data as cloud-init does, until the end of the block."""
        # The seconds in which people can read on the console what has failed are no use here.
        assert "\ngrace=10 " in script
        script = script.replace("\ngrace=10 ", "\ngrace=1 ").replace("\nlinger=300 ", "\nlinger=1 ")
        self.add(SCRIPT, script, 0o700)
        with (self.scratch / "console").open("w") as console:
            self.process = subprocess.Popen(
                enter(self.root, self.scratch, "root", *(command or (f"/{SCRIPT}",))),
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        try:
            yield self
        finally:
            self.process.kill()
            self.process.wait()
            until(lambda: not self.processes(), self.processes)
            self._off()

    def console(self) -> str:
        return (self.scratch / "console").read_text()

    def processes(self) -> list[Path]:
        """Give the directories in /proc of all that runs in it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mounted(self.scratch) in (entry / "mountinfo").read_bytes():
                    found.append(entry)
            except OSError:
                continue
        return found

    def ends(self, seconds: float = 90) -> str:
        """Wait until it has ended by itself; give its console."""
        until(lambda: self.process.poll() is not None, self.console, seconds)
        until(lambda: not self.processes(), self.processes)
        return self.console()

    def _off(self) -> None:
        subprocess.run(["rm", "-rf", str(self.scratch / "work"), str(self.scratch / "base")], check=True)


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Machine:
    return Machine(root, tmp_path / "machine")


def phases(console: str) -> list[str]:
    """Give the console's lines of ours, without what differs from run to run."""
    lines = re.findall(r"^buildpackages: (.*)$", console, re.MULTILINE)
    return [re.sub(r"^\d+ s: ", "", re.sub(r"127\.0\.0\.1:\d+", "HOST", line)) for line in lines]


def test_an_image_that_has_everything(machine: Machine, tmp_path: Path) -> None:
    """The worker attaches and builds as `build`, who may become root; the password is in no file, argument or environment."""
    with ExitStack() as stack:
        master = stack.enter_context(small_master(tmp_path / "master"))
        told = config(master.port)
        stack.enter_context(machine.boot(render(told)))
        said = until(master.said, machine.console)
        assert "\nbuild\nroot\n" in said
        until_text = time.strftime("%F %T UTC", time.gmtime(told.expires))
        assert phases(machine.console())[1:] == [
            "what builds need is there",
            "buildbot-worker 4.3.0 is there",
            "the worker starts, and connects to HOST WITHOUT TLS, as the settings want it",
        ]
        assert f"{DEB}, worker machine-1, until {until_text}" in phases(machine.console())[0]
        assert not (machine.upper / SCRIPT).exists()
        running = machine.processes()
        assert len(running) >= 3
        for process in running:
            for file in ("cmdline", "environ"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    assert PASSWORD.encode() not in (process / file).read_bytes()
        kept = subprocess.run(["grep", "-rlF", "password of this boot", machine.upper], capture_output=True)
        assert kept.stdout == b""
        sudoers = machine.upper / "etc/sudoers.d/build"
        assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440


def test_an_image_that_lacks_a_package_and_the_worker(
    machine: Machine, master: SmallMaster, server: PackageServerProcess, wheels: Path
) -> None:
    """The packages come from the machine's mirrors, the worker from the master's wheels; it may all be run again."""
    machine.run(
        "dpkg", "--remove", "--force-depends", "lsb-release", "python3-venv", "python3.11-venv", "wget"
    )
    machine.leave_out("opt/buildbot-worker")
    ca = (master.directory.parent / "state/worker-tls.crt").read_text()
    told = replace(config(master.port, server.url), tls_ca=ca, wheels=digests(wheels))
    with machine.boot(render(told)):
        until(lambda: master.attached or machine.process.poll() is not None, machine.console, 240)
        assert master.attached, machine.console()
        lines = phases(machine.console())[1:]
        assert lines == [
            "installing what builds need; missing: python3:ensurepip wget lsb_release",
            "what builds need is installed",
            "getting buildbot-worker 4.3.0 from http://HOST/wheels/",
            lines[3],
            "the worker starts, and connects to HOST with TLS",
        ]
        assert re.fullmatch(r"buildbot-worker 4\.3\.0 is installed: 21 wheels, [\d.]+ MB", lines[3])
    until(lambda: not master.attached, master.log)
    with machine.boot(render(told)):
        until(lambda: master.attached, machine.console)
        assert phases(machine.console())[1:3] == [
            "what builds need is there",
            "buildbot-worker 4.3.0 is there",
        ]


def test_a_worker_without_tls_in_the_image_is_replaced(
    machine: Machine, master: SmallMaster, server: PackageServerProcess
) -> None:
    """An image whose worker cannot do what the master wants gets the worker from the master's wheels."""
    for path in (machine.root / "opt/buildbot-worker").glob("OpenSSL*"):
        machine.leave_out(f"opt/buildbot-worker/{path.name}")
    ca = (master.directory.parent / "state/worker-tls.crt").read_text()
    until(lambda: not master.attached, master.log)
    with machine.boot(render(replace(config(master.port, server.url), tls_ca=ca))):
        until(lambda: master.attached, machine.console)
        assert "getting buildbot-worker 4.3.0 from http://HOST/wheels/" in phases(machine.console())


def test_a_machine_ends_at_its_expiry(machine: Machine) -> None:
    """With no master at all, everything in the machine ends at the time that it was told."""
    [port] = free_ports(1)
    began = time.monotonic()
    with machine.boot(render(config(port, seconds=12))):
        console = machine.ends()
        assert time.monotonic() - began > 10
        assert OVER in phases(console)


def test_a_machine_that_is_late_does_not_begin(machine: Machine) -> None:
    """A machine whose time is over before it boots ends at once."""
    [port] = free_ports(1)
    with machine.boot(render(config(port, seconds=-5))):
        said = phases(machine.ends())
        assert OVER in said
        assert not [one for one in said if one.startswith("the worker starts")]


def test_what_fails_is_the_last_that_is_said(machine: Machine) -> None:
    """Without a worker in the image and without wheels, the console names the URL, and the machine ends by itself."""
    [port] = free_ports(1)
    machine.leave_out("opt/buildbot-worker")
    with machine.boot(render(config(port, f"http://127.0.0.1:{port}/"))):
        failed, off = phases(machine.ends())[-2:]
    assert re.fullmatch(
        r"FAILED after \d+ s: buildbot-worker cannot be had: http://HOST/wheels/index-cp311-\w+\.json: "
        r"<urlopen error \[Errno 111\] Connection refused>",
        failed,
    )
    assert off == "this machine powers itself off: it is of no use"


def test_a_package_manager_that_fails_has_its_say(machine: Machine) -> None:
    """After three tries the console has the package manager's last words, then the command and its status."""
    machine.leave_out("usr/bin/lsb_release")
    machine.add("usr/local/sbin/apt-get", "#!/bin/sh\necho E: mirror is away >&2\nexit 100\n")
    machine.add("usr/local/sbin/sleep", "#!/bin/sh\n")
    [port] = free_ports(1)
    with machine.boot(render(config(port))):
        console = machine.ends()
    assert console.count("E: mirror is away\n") == 3
    assert phases(console)[2:4] == ["apt-get failed; once more in 5 s", "apt-get failed; once more in 20 s"]
    assert re.match(
        r"FAILED after \d+ s: apt-get -q -y .* update: status 100; its last words are above",
        phases(console)[4],
    )


def test_a_package_that_does_not_help_is_named(machine: Machine) -> None:
    """A command that is still missing after all packages are installed ends the boot."""
    machine.leave_out("usr/bin/lsb_release")
    machine.add("usr/local/sbin/apt-get", "#!/bin/sh\n")
    [port] = free_ports(1)
    with machine.boot(render(config(port))):
        console = machine.ends()
    assert "there is still no lsb_release, although all packages are installed" in phases(console)[-2]


def test_what_fails_unforeseen_names_the_phase(machine: Machine) -> None:
    """A command that nobody thought could fail leaves a last line as well."""
    machine.add("usr/local/sbin/install", "#!/bin/sh\nexit 7\n")
    [port] = free_ports(1)
    with machine.boot(render(config(port))):
        failed = phases(machine.ends())[-2]
    assert re.fullmatch(r"FAILED after \d+ s: adding the user build: a command ended with status 7", failed)


def test_a_machine_that_is_not_wanted_ends(machine: Machine) -> None:
    """A machine made ahead is ready before it asks, and powers itself off when it is told to go."""
    with (
        _Rendezvous((404, "gone")) as there,
        machine.boot(render(replace(config(1), worker="ahead", rendezvous=there.url))),
    ):
        console = machine.ends()
    assert "ready, and waiting for a build" in console
    assert phases(console)[-2:] == [
        f"the worker for {DEB} ended with status 4",
        "this machine powers itself off: without a worker it is of no use",
    ]


STUB = """#!/bin/sh
echo "$0 $*" >>/stub.log
for command in cpio debugedit dnf dwz eu-strip python3.11 rpmbuild rpmspec; do
    [ -e "/usr/local/sbin/$command" ] || ln -s /bin/true "/usr/local/sbin/$command"
done
"""


@pytest.mark.parametrize(
    ("family", "manager", "calls"),
    [
        (
            "dnf",
            "dnf",
            [
                "dnf -q -y --setopt=install_weak_deps=False --setopt=retries=10 install /usr/bin/curl bzip2 ca-certificates cmake"
            ],
        ),
        (
            "zypper",
            "zypper",
            [
                "zypper --quiet --non-interactive refresh",
                "zypper --quiet --non-interactive install --no-recommends bzip2 ca-certificates cmake",
            ],
        ),
    ],
)
def test_the_other_families_install_what_is_missing(
    machine: Machine, family: str, manager: str, calls: list[str]
) -> None:
    """dnf and zypper are asked for all packages where a command is missing; here both are stand-ins."""
    machine.add(f"usr/local/sbin/{manager}", STUB)
    with _Rendezvous((204, "")) as there:
        script = render(replace(config(1), target=Target.from_name(RPM), rendezvous=there.url), family)
        with machine.boot(script):
            until(lambda: "waiting for a build" in machine.console(), machine.console)
        assert "what builds need is installed" in phases(machine.console())
        log = (machine.upper / "stub.log").read_text().splitlines()
        assert len(log) == len(calls)
        for line, call in zip(log, calls, strict=True):
            assert line.startswith(f"/usr/local/sbin/{call}")


def test_with_systemd_the_worker_is_a_unit_of_its_own(machine: Machine) -> None:
    """Expiry and worker are handed to systemd, and user data ends; here systemd is a stand-in that starts commands."""
    machine.add(
        "usr/local/sbin/systemd-run",
        '#!/bin/sh\necho "systemd-run $*" >>/stub.log\n'
        'while [ "${1#--}" != "$1" ]; do shift; done\nsetsid "$@" </dev/null >>/journal &\n',
    )
    machine.add("usr/local/sbin/systemctl", '#!/bin/sh\necho "systemctl $*" >>/stub.log\n')
    (machine.upper / "run/systemd/system").mkdir(parents=True)
    with (
        _Rendezvous((204, "")) as there,
        machine.boot(
            render(replace(config(1), rendezvous=there.url)),
            "sh",
            "-c",
            f"/{SCRIPT}; echo it ended: $?; sleep 600",
        ),
    ):
        journal = machine.upper / "journal"
        until(lambda: journal.exists() and "waiting for a build" in journal.read_text(), machine.console)
        assert "it ended: 0\n" in machine.console()
        log = (machine.upper / "stub.log").read_text()
        assert "systemd-run --quiet --collect --unit=buildpackages-expiry " in log
        assert "systemd-run --quiet --unit=buildpackages-worker " in log
        assert "OOMPolicy=continue" in log
        assert PASSWORD not in log
        assert not (machine.upper / "run/buildpackages/worker.json").exists()


def test_a_machine_that_boots_again_powers_off(machine: Machine) -> None:
    """cloud-init runs nothing of ours a second time, but this: off, if it is the same machine, and not one made from its image."""
    machine.add("usr/local/sbin/systemctl", '#!/bin/sh\necho "systemctl $*"\n')
    machine.add("var/lib/cloud/data/instance-id", "i-1 $(touch /x)\n", 0o644)
    (machine.upper / "var/lib/cloud/scripts/per-boot").mkdir(parents=True)
    with _Rendezvous((204, "")) as there, machine.boot(render(replace(config(1), rendezvous=there.url))):
        until(lambda: "waiting for a build" in machine.console(), machine.console)
    assert machine.run("/var/lib/cloud/scripts/per-boot/buildpackages") == "systemctl poweroff --force\n"
    machine.add("var/lib/cloud/data/instance-id", "i-2\n", 0o644)
    assert machine.run("/var/lib/cloud/scripts/per-boot/buildpackages") == ""
    assert not (machine.upper / "x").exists()
