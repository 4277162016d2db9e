"""The doctor on real clouds: what is right, and one thing wrong at a time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.inside.knobs import DEFAULTS
from tests.cloud import until
from tests.integration.cloud_harness import cloud_installation
from tests.integration.harness import CHECKOUT, DEB
from tests.patience import SLOW, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.cloud import Lab
    from tests.cloud import Tenant

GOOD: dict[str, Any] = {
    "images": {"*-bookworm-*": {"name": "bookworm", "properties": {"os_version": "12.12"}}},
    "nova_flavor": "small",
    "networks": ["lab"],
    "security_groups": ["builders"],
    "key_name": "ops",
    "availability_zone": "nova",
    "floating_ip": "outside",
    "max_instances": 4,
}
"""Everything that the lab has."""

WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "images",
        {"images": {"*": "no-such"}},
        r"FAIL +image for \S+: setting `images`: 'no-such' is not there",
    ),
    ("ambiguous", {"images": {"*": "bookworm"}}, r"FAIL +image for \S+: setting `images`: .* 2 images"),
    ("newest", {"images": {"*": {"properties": {"os_version": "11"}}}}, r"FAIL +image for .* `images`"),
    (
        "large-image",
        {"images": {"*": "doctor-large"}},
        r"FAIL +image for .* 50 GB .* setting `nova_flavor` small",
    ),
    ("arch", {"images": {"*": "doctor-arm"}}, r"FAIL +image for .* setting `images`: .* aarch64, not x86_64"),
    (
        "version",
        {"images": {"*": "trixie"}},
        r"warning +image for .* setting `images`: .* 13.2, not Debian 12",
    ),
    (
        "pattern",
        {"images": {**GOOD["images"], "*-jamy-*": "jammy"}},
        r"warning +images: setting `images`: .*-jamy-",
    ),
    (
        "flavor",
        {"nova_flavor": "no-such"},
        r"FAIL +nova_flavor: setting `nova_flavor`: 'no-such' is not there",
    ),
    (
        "sizes",
        {"nova_flavor": "", "good_machine": {"cpus": 99}, "min_machine": {"cpus": 64}},
        r"FAIL +nova_flavor: settings `good_machine` and `min_machine`: no nova_flavor has 99 cpus",
    ),
    (
        "not-so-good",
        {"nova_flavor": "", "good_machine": {"cpus": 99}, "min_machine": {"cpus": 1}},
        r"warning +nova_flavor: small: .* none is as large as `good_machine` \(99 cpus",
    ),
    ("networks", {"networks": ["no-such"]}, r"FAIL +networks: setting `networks`: 'no-such' is not there"),
    (
        "network-id",
        {"networks": ["00000000-0000-0000-0000-000000000000"]},
        r"FAIL +networks: setting `networks`: '0000",
    ),
    (
        "choice",
        {"networks": [], "floating_ip": ""},
        r"FAIL +networks: setting `networks` is empty, .* lab, second",
    ),
    (
        "groups",
        {"security_groups": ["no-such"]},
        r"FAIL +security_groups: setting `security_groups`: 'no-such'",
    ),
    ("key", {"key_name": "no-such"}, r"FAIL +key_name: setting `key_name`: 'no-such' .* there are: ops"),
    ("zone", {"availability_zone": "moon"}, r"FAIL +availability_zone: setting `availability_zone`: 'moon'"),
    (
        "hints",
        {"scheduler_hints": {"group": "00000000-0000-0000-0000-000000000000"}},
        r"FAIL +scheduler_hints: setting `scheduler_hints`: '0000",
    ),
    ("inside", {"floating_ip": "lab"}, r"FAIL +floating_ip: setting `floating_ip`: 'lab' is not an external"),
    ("region", {"region": "Mars"}, r"FAIL +(credentials|catalogue): .*`region`"),
)
"""A cloud of its own for each: what is set otherwise there, and the one line that says so."""


@pytest.fixture(scope="module")
def images(lab: Lab) -> Iterator[None]:
    """Two images that no machine of ours can boot."""
    admin = lab.admin()
    made = [
        admin.image.create_image(
            name=name, data=b"\0" * 4096, disk_format="raw", container_format="bare", visibility="public",
            validate_checksum=False, **more,
        )
        for name, more in (("doctor-large", {"min_disk": 50}), ("doctor-arm", {"architecture": "aarch64"}))
    ]  # fmt: skip
    yield
    for one in made:
        admin.image.delete_image(one.id)


class Patient:
    """A settings file with clouds of the lab, and what the doctor says about it."""

    def __init__(self, directory: Path, lab: Lab, **settings: Any) -> None:
        self.file = directory / "settings.yaml"
        self.clouds_yaml = directory / "clouds.yaml"
        self.known = yaml.safe_load(lab.clouds_yaml.read_text())["clouds"]
        self.clouds: list[dict[str, Any]] = []
        ports = free_ports(3)
        self.settings = {
            "git": {"allowed": ["https://github.com/"]},
            "targets": [DEB],
            "www": {"port": ports[0]},
            "packages": {"port": ports[1], **settings.pop("packages", {})},
            "workers": {"port": ports[2], "start_timeout": 60, **settings.pop("workers", {})},
        }
        self.openstack = {"clouds_yaml": "clouds.yaml", "master_id": "patient", **settings}
        self.said = ""
        # Wheels are another test's subject.
        (directory / "wheels").mkdir()
        (directory / "wheels/index-cp311-x86_64.json").write_text("{}")

    def add(
        self, name: str, settings: dict[str, Any] | None = None, *, login: str = "packages", **auth: Any
    ) -> None:
        """Add a cloud: the lab, under a name of its own, with other settings and other `auth`."""
        entry = {**self.known[login], "auth": {**self.known[login]["auth"], **auth}}
        self.known[name] = entry
        self.clouds.append({**GOOD, **(settings or {}), "cloud": name})

    def write(self) -> None:
        """Write both files."""
        self.settings["workers"]["openstack"] = {**self.openstack, "clouds": self.clouds}
        self.file.write_text(yaml.safe_dump(self.settings))
        self.clouds_yaml.touch(0o600)
        self.clouds_yaml.write_text(yaml.safe_dump({"clouds": self.known}))

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "workers.doctor", "--settings", str(self.file)]

    def examine(self, *arguments: str) -> int:
        """Have it examined; give the exit status."""
        self.write()
        told = subprocess.run(
            [*self.command, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
        )
        self.said = told.stdout + told.stderr
        assert "Traceback" not in self.said, self.said
        for login in self.known.values():
            for name in ("application_credential_secret", "password"):
                assert login["auth"].get(name, "\0") not in self.said
        return told.returncode

    def lines(self, cloud: str) -> list[str]:
        """Give the findings about a cloud."""
        section = re.search(
            rf"^(?:cloud )?{re.escape(cloud)}(?:/\w+)?\n((?:  .*\n)*)", self.said, re.MULTILINE
        )
        assert section, self.said
        return [line for line in section[1].splitlines() if re.match(r"  (ok|warning|FAIL) ", line)]

    def not_ok(self, cloud: str) -> list[str]:
        """Give the findings about a cloud that are not ok."""
        return [line for line in self.lines(cloud) if not line.startswith("  ok ")]


def left(tenant: Tenant) -> list[str]:
    """Give what the doctor's trials have left in the project."""
    sdk = tenant.connection
    found = [*sdk.compute.servers(details=True), *sdk.network.ports(), *sdk.network.ips()]
    return [f"{one.name} {one.id}" for one in found if "buildpackages-doctor." in str(one.to_dict())]


def test_a_cloud_with_all_right(lab: Lab, tmp_path: Path) -> None:
    """Where all is right, each setting has a line that says ok, by either kind of credentials, and the status is 0."""
    patient = Patient(tmp_path, lab)
    patient.add("one")
    patient.add("two", login="packages-password")
    assert patient.examine() == 0, patient.said
    said = [line.split(":")[0].split()[-1] for line in patient.lines("master")]
    assert said == ["clouds_yaml", "tls", "wheels", "data"]
    for cloud in ("one", "two"):
        assert patient.not_ok(cloud) == []
        said = [line.split()[1].rstrip(":") for line in patient.lines(cloud)]
        assert said == [
            "credentials", "catalogue", "nova", "clock", "nova_flavor", "image", "networks", "security_groups",
            "key_name", "availability_zone", "floating_ip", "quota", "tag", "leftovers", "master",
        ]  # fmt: skip


@pytest.mark.usefixtures("images")
def test_one_thing_wrong_at_a_time(lab: Lab, tmp_path: Path) -> None:
    """Each wrong setting gives one line, which names the setting, and all else stays ok; the status is 1."""
    patient = Patient(tmp_path, lab)
    for name, settings, _ in WRONG:
        patient.add(name, settings)
    assert patient.examine() == 1
    for name, _, expected in WRONG:
        not_ok = [line for line in patient.not_ok(name) if " the rest: " not in line]
        assert len(not_ok) == 1, (name, patient.said)
        assert re.search(expected, not_ok[0]), (name, not_ok)


def test_who_cannot_come_in(lab: Lab, tmp_path: Path) -> None:
    """Credentials, keystone's address and the cloud's name are told apart, and nothing else is looked at."""
    patient = Patient(tmp_path, lab)
    (port,) = free_ports(1)
    patient.add("secret", application_credential_secret="wrong")
    patient.add("address", auth_url=f"http://127.0.0.1:{port}/v3")
    patient.add("not-keystone", auth_url=lab.endpoints["glance"])
    patient.add("unknown")
    del patient.known["unknown"]
    assert patient.examine() == 1
    for name, expected in (
        ("secret", "FAIL +credentials: keystone refuses the credentials that clouds.yaml"),
        ("address", "FAIL +credentials: .*refused"),
        ("not-keystone", "FAIL +credentials: .*"),
        ("unknown", "FAIL +credentials: settings `cloud` and `region`: .*unknown"),
    ):
        assert len(patient.lines(name)) == 2, patient.said
        assert re.search(expected, patient.lines(name)[0]), patient.said


def test_a_volume_where_there_is_no_cinder(lab: Lab, tmp_path: Path) -> None:
    """A boot volume in a cloud without block storage fails at the catalogue, and names `volume`."""
    patient = Patient(tmp_path, lab)
    patient.add("one", {"volume": {"size": 20}})
    assert patient.examine() == 1
    assert re.search("FAIL +catalogue: no block-storage .* setting `volume`", patient.said), patient.said


def test_credentials_that_are_not_as_they_should_be(lab: Lab, tmp_path: Path) -> None:
    """The end of an application credential, an administrator's rights and a readable clouds.yaml are warned of."""
    owner = lab.connect("packages-password")
    made = owner.identity.create_application_credential(
        owner.current_user_id, "short",
        expires_at=(datetime.now(UTC) + timedelta(days=5, hours=1)).strftime("%Y-%m-%dT%H:%M:%S"),
    )  # fmt: skip
    patient = Patient(tmp_path, lab)
    patient.add("short", application_credential_id=made.id, application_credential_secret=made.secret)
    nothing = {"security_groups": [], "key_name": ""}
    patient.add("lab", nothing, login="lab")
    try:
        assert patient.examine() == 3, patient.said
    finally:
        owner.identity.delete_application_credential(owner.current_user_id, made.id)
    (line,) = patient.not_ok("short")
    assert re.search("warning +credentials: the application credential ends in 5 days", line)
    (line,) = patient.not_ok("lab")
    assert re.search("warning +credentials: the role is admin", line)

    patient.clouds_yaml.chmod(0o644)
    assert patient.examine() == 1
    assert "warning  clouds_yaml: others on this machine may read" in patient.said


def test_quota(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """Quota for none is a failure, for fewer than `max_instances` a warning, and both say how much to ask for."""
    patient = Patient(tmp_path, lab)
    patient.add("one", {"nova_flavor": "medium"})
    lab.quota(instances=3, ram=4095)
    assert patient.examine() == 1
    few, none = patient.not_ok("one")
    assert re.search(r"warning +quota: the quota for instances is 3 \(\d used\), enough for 3 instances", few)
    assert few.endswith("setting `max_instances` is 4: builds will wait; ask for 4")
    assert re.search(
        r"FAIL +quota: the quota for ram is 4095 MB \(\d+ used\), and one instance needs 4096 MB", none
    )
    assert none.endswith("ask for more, or change setting `nova_flavor`")


def test_what_is_left_of_the_master(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """A server past its expiry, and a port without a server, are warned of; a running server is only told of."""
    lives = tenant.boot(metadata={"boot": "b1", "expires": "4102444800"})
    old = tenant.boot(metadata={"boot": "b2", "expires": "1700000000"})
    network = lab.connect().network
    port = network.create_port(network_id=network.find_network("lab").id, description=f"{tenant.tag} boot b3")
    patient = Patient(tmp_path, lab, master_id=tenant.master_id)
    patient.add("one")
    try:
        assert patient.examine() == 3, patient.said
        (line,) = patient.not_ok("one")
        assert f"leftovers: {old.name}, port {port.id}: past their time" in line
        assert f"tag: {tenant.tag}: 2 of " in patient.said
        tenant.delete(old)
    finally:
        network.delete_port(port.id)
    assert patient.examine() == 0, patient.said
    assert f"leftovers: none; of a running master: {lives.name} ACTIVE" in patient.said


def test_a_server_made_and_destroyed(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """`--server` makes one in each cloud, hears whether it reaches the master, ends it, and leaves nothing."""
    patient = Patient(tmp_path, lab)
    patient.add("with-floating-ip")
    patient.add("without", {"floating_ip": ""})
    assert patient.examine("--server", DEB) == 0, patient.said
    for cloud in ("with-floating-ip", "without"):
        tail = "\n".join(patient.lines(cloud)[-6:])
        workers, packages = patient.settings["workers"]["port"], patient.settings["packages"]["port"]
        for expected in (
            r"server: [0-9a-f-]{36}: small, bookworm \(.*; accepted after \d+\.\d s, ACTIVE after \d+\.\d s",
            r"console: the user data had said all after",
            rf"the server reaches 127.0.0.1:{workers}\n",
            rf"the server reaches 127.0.0.1:{packages}\n",
            r"gone: \d+\.\d s after it was to go; nothing of it is left",
        ):
            assert re.search(expected, tail + "\n"), patient.said
    assert left(tenant) == []


def test_a_server_that_fails(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """A server in ERROR is shown with its fault, one that never speaks with its console; nothing of them is left."""
    patient = Patient(tmp_path, lab, workers={"start_timeout": 40})
    patient.add("fails")
    patient.add("mute", {"floating_ip": ""})
    lab.set(fail_spawn=1, never_attach=1)
    try:
        assert patient.examine("--server") == 1
    finally:
        lab.set(**DEFAULTS)
    (line,) = patient.not_ok("fails")
    assert re.search("FAIL +server: the instance went to ERROR: .+", line), patient.said
    (line,) = patient.not_ok("mute")
    assert re.search("FAIL +console: .*setting `images`.*`config_drive`", line), patient.said
    assert re.search(r"^ +\| \S", patient.said, re.MULTILINE), patient.said
    assert left(tenant) == []


def test_a_master_out_of_reach(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """A server that does not get through to the package server fails, and the line names the setting of its address."""
    (nobody,) = free_ports(1)
    patient = Patient(tmp_path, lab, packages={"worker_url": f"http://127.0.0.1:{nobody}/"})
    patient.add("one")
    assert patient.examine("--server") == 1
    (line,) = patient.not_ok("one")
    assert re.search(
        rf"FAIL +master: the server does not reach 127.0.0.1:{nobody} .*`packages.worker_url`, `networks`",
        line,
    )
    assert left(tenant) == []


def test_an_interrupted_doctor(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """A doctor that is interrupted while its server boots ends it before it goes."""
    patient = Patient(tmp_path, lab)
    patient.add("one")
    patient.write()
    lab.set(hang_spawn=True)
    try:
        with subprocess.Popen(
            [*patient.command, "--server"], cwd=CHECKOUT, stdout=subprocess.DEVNULL
        ) as doctor:
            tag = "buildpackages-doctor.patient"
            until(lambda: list(tenant.connection.compute.servers(tags=tag)), "a server of the doctor's")
            doctor.send_signal(signal.SIGINT)
            assert doctor.wait(60 * SLOW) != 0
    finally:
        lab.set(**DEFAULTS)
    assert left(tenant) == []


def test_settings_that_cannot_be_examined(lab: Lab, tmp_path: Path) -> None:
    """A file with a mistake, one without clouds, and none at all each give a sentence and status 1."""
    patient = Patient(tmp_path, lab)
    patient.add("one", {"nova_flavour": "small"})
    assert patient.examine() == 1
    assert "workers.openstack.clouds.0.nova_flavour: unknown key" in patient.said

    patient.clouds = []
    patient.write()
    del patient.settings["workers"]["openstack"]
    patient.file.write_text(yaml.safe_dump(patient.settings))
    told = subprocess.run(patient.command, cwd=CHECKOUT, capture_output=True, text=True)
    assert told.returncode == 1
    assert "setting `workers.openstack` is not there" in told.stdout

    patient.file.unlink()
    told = subprocess.run(patient.command, cwd=CHECKOUT, capture_output=True, text=True)
    assert told.returncode == 1
    assert "is missing: copy settings.example.yaml" in told.stdout


def test_beside_a_running_master(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """The doctor examines a master that runs: its server reaches it, is not taken for one of the master's, and goes."""
    (tmp_path / "m").mkdir()
    with cloud_installation(tmp_path / "m", lab, openstack={"master_id": tenant.master_id}) as here:
        told = subprocess.run(
            [sys.executable, "-m", "workers.doctor", "--settings", str(here.settings_file), "--server"],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert told.returncode in (0, 3), told.stdout + told.stderr
        for port in (here.settings.workers.port, here.settings.packages.port):
            assert f"the server reaches 127.0.0.1:{port}\n" in told.stdout
        assert "nothing of it is left" in told.stdout
        assert "it has no owner" not in (here.settings.state / "twistd.log").read_text()
    assert left(tenant) == []
