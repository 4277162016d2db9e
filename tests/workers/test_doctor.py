"""What the doctor says: judgements that need no cloud, and the script that its server runs."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.targets import Target
from tests.integration.harness import CHECKOUT
from tests.patience import free_ports
from workers.cloud_data import Leftover, Limits, Seen
from workers.doctor import home, verdicts
from workers.doctor.settings import Address, InForce, Unreadable, in_force, read
from workers.doctor.trial import FORGOTTEN_SECONDS, heard, last_lines, not_made, user_data
from workers.doctor.verdicts import Finding, ImageFacts, Login, Named, Verdict
from workers.openstack_settings import BootVolume, CloudSettings, MachineSize, OpenStackSettings
from workers.sizes import NovaFlavor
from workers.tls import self_signed

BOOKWORM = Target.from_name("ceph-deb-bookworm-x86_64-default")
ROCKY = Target.from_name("ceph-rpm-rocky9-x86_64-default")
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
CLOUD = CloudSettings(cloud="sepia", images={"*": "some"}, nova_flavor="m1")
M1 = NovaFlavor("1", "m1", 40, 8192, 4)
MEMBER = Login(
    "builder", "ceph", ("member",), "application credential", "https://sepia:5000/v3", verified=True
)


def said(findings: list[Finding]) -> list[str]:
    """Give the findings as they are printed, with single blanks."""
    return [" ".join(str(one).split()) for one in findings]


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (MEMBER, []),
        (replace(MEMBER, expires=datetime(2027, 1, 1, tzinfo=UTC)), []),
        (
            replace(MEMBER, expires=datetime(2026, 11, 30, 13, 0, tzinfo=UTC)),
            ["the application credential ends in 6 days: make another, and put it in clouds.yaml"],
        ),
        (
            replace(MEMBER, roles=("admin", "member")),
            ["the role is admin; member is enough: make a user and an application credential"],
        ),
        (
            replace(MEMBER, verified=False),
            ["`verify: false` in clouds.yaml: set `cacert` to the cloud's CA instead"],
        ),
        (
            replace(MEMBER, auth_url="http://sepia:5000/v3"),
            ["`auth_url` in clouds.yaml is http: the secret goes over the net in the clear"],
        ),
        (replace(MEMBER, auth_url="http://127.0.0.1:5000/v3"), []),
        (replace(MEMBER, auth_url="http://[::1]:5000/v3"), []),
    ],
)
def test_credentials(login: Login, expected: list[str]) -> None:
    """Rights, end and the way there are judged each by its own warning; the line of who we are is always there."""
    first, *others = verdicts.credentials(login, NOW)
    assert str(first).startswith("ok       credentials: builder in project ceph, ")
    assert said(others) == [f"warning credentials: {one}" for one in expected]


def test_a_region_that_is_not_there() -> None:
    """A service that is missing names its settings, and the regions that the catalogue has."""
    there = {"compute": "", "image": "https://i", "network": "", "block-storage": ""}
    assert said(verdicts.services(there, list(there), "Mars", ["Earth", "Moon"])) == [
        ("FAIL catalogue: no compute in region Mars: settings `cloud` and `region`, or `region_name` and `interface`"
        " in clouds.yaml; regions of the catalogue: Earth, Moon"),
        ("FAIL catalogue: no network in region Mars: settings `networks`, `security_groups` and `floating_ip` need"
        " it; regions of the catalogue: Earth, Moon"),
        ("FAIL catalogue: no block-storage in region Mars: setting `volume` needs it; regions of the catalogue:"
        " Earth, Moon"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("newest", "verdict"),
    [(None, Verdict.FAIL), ((2, 26), Verdict.FAIL), ((2, 59), Verdict.FAIL), ((2, 60), Verdict.OK),
     ((2, 104), Verdict.OK), ((3, 1), Verdict.OK)],
)  # fmt: skip
def test_nova_that_knows_no_tags(newest: tuple[int, int] | None, verdict: Verdict) -> None:
    """What every call asks for, in which a server carries its tag from the first moment, must be there."""
    (finding,) = verdicts.nova(newest)
    assert finding.verdict is verdict


@pytest.mark.parametrize(
    ("skew", "expected"),
    [(0, "ok clock: within"), (-9, "ok clock: within"), (30, "warning clock: the cloud's clock is 30 s ahead of"),
     (-600, "FAIL clock: the cloud's clock is 600 s behind this machine's")],
)  # fmt: skip
def test_clocks_apart(skew: float, expected: str) -> None:
    """Clocks that differ by seconds pass, by half a minute are warned of, and by minutes fail."""
    (line,) = said(verdicts.clock(skew))
    assert line.startswith(expected)


def test_a_flavor_without_a_disk() -> None:
    """nova boots no image of a member's on a nova_flavor with a disk of 0, unless the disk is a volume."""
    none = replace(M1, disk=0)
    (line,) = said(verdicts.flavor(none, CLOUD))
    assert line.startswith("warning nova_flavor: m1: 4 cpus")
    assert line.endswith("set `volume`, or another `nova_flavor`")
    assert verdicts.flavor(none, replace(CLOUD, volume=BootVolume(size=50)))[0].verdict is Verdict.OK


def test_a_flavor_that_is_only_enough() -> None:
    """A nova_flavor below `good_machine` is used, and warned of."""
    wants = replace(CLOUD, good_machine=MachineSize(cpus=16), min_machine=MachineSize(cpus=2))
    (line,) = said(verdicts.flavor(M1, wants))
    assert "none is as large as `good_machine` (16 cpus" in line


@pytest.mark.parametrize(
    ("facts", "settings", "expected"),
    [
        ({}, CLOUD, "ok image for ceph-deb-bookworm-x86_64-default: img"),
        ({"architecture": "x86_64", "os_distro": "debian", "os_version": "12.12"}, CLOUD, "ok "),
        ({"os_version": "12"}, CLOUD, "ok "),
        ({"os_version": "11.7"}, CLOUD, "warning image for ceph-deb-bookworm-x86_64-default: setting `images`"),
        ({"os_distro": "ubuntu"}, CLOUD, "warning "),
        ({"architecture": "aarch64"}, CLOUD, "FAIL image for ceph-deb-bookworm-x86_64-default: setting `images`"),
        ({"min_disk": 41}, CLOUD, ("FAIL image for ceph-deb-bookworm-x86_64-default: img needs 41 GB of disk, and"
         " setting `nova_flavor` m1 has 40")),
        ({"min_disk": 40}, CLOUD, "ok "),
        ({"bytes": 40 * 1024**3 + 1}, CLOUD, "FAIL image for ceph-deb-bookworm-x86_64-default: img needs 41 GB"),
        ({"min_ram": 8193}, CLOUD, "FAIL image for ceph-deb-bookworm-x86_64-default: img needs 8193 MB of ram"),
        ({"min_disk": 41}, replace(CLOUD, volume=BootVolume(size=41)), "ok "),
        ({"min_disk": 42}, replace(CLOUD, volume=BootVolume(size=41)), ("FAIL image for ceph-deb-bookworm-x86_64"
         "-default: img needs 42 GB of disk, and setting `volume.size` is 41")),
    ],
)  # fmt: skip
def test_images(facts: dict[str, str | int], settings: CloudSettings, expected: str) -> None:
    """An image must fit the nova_flavor, or the volume, and be of the target's architecture and release."""
    found = verdicts.image(BOOKWORM, ImageFacts("img", **facts), M1, settings)  # type: ignore[arg-type]
    (line,) = said(found)
    assert line.startswith(expected)


def test_patterns_that_nothing_takes() -> None:
    """A pattern that matches nothing, or that an earlier one hides, is warned of by its text."""
    settings = replace(CLOUD, images={"*-deb-*": "a", "*-bookworm-*": "b", "*-rpm-*": "c"})
    assert said(verdicts.patterns(settings, [BOOKWORM, ROCKY])) == [
        "warning images: setting `images`: no target that is on takes '*-bookworm-*'"
    ]


def test_names() -> None:
    """A name must be there once; what is ambiguous is told with its ids; an id is as good."""
    known = [Named("1", "a"), Named("2", "b"), Named("3", "b"), Named("4", "c", "has no subnet")]
    assert said(verdicts.named("networks", ["a", "2"], known)) == ["ok networks: a, 2"]
    assert said(verdicts.named("networks", ["b", "c", "d"], known)) == [
        "FAIL networks: setting `networks`: 'b' is the name of 2; name one by its id: 2, 3",
        "FAIL networks: setting `networks`: 'c' has no subnet",
        "FAIL networks: setting `networks`: 'd' is not there; there are: a, b, c",
    ]
    assert said(verdicts.named("key_name", ["x"], [])) == [
        "FAIL key_name: setting `key_name`: 'x' is not there; there are: none"
    ]


def test_networks_that_nova_chooses() -> None:
    """Without `networks` there must be exactly one that nova can take, or one that the cloud can make."""
    assert said(verdicts.networks_left_to_nova(["only"], "")) == [
        "ok networks: none is set, and nova takes the only one: only"
    ]
    assert said(verdicts.networks_left_to_nova(["b", "a"], "")) == [
        "FAIL networks: setting `networks` is empty, and nova will not choose one of: a, b"
    ]
    assert said(verdicts.networks_left_to_nova([], "no external network")) == [
        "FAIL networks: setting `networks` is empty, and there is no network: no external network"
    ]
    assert verdicts.networks_left_to_nova([], "")[0].verdict is Verdict.OK


def test_zones() -> None:
    """The availability zone must be there and available; a host behind a colon is nova's business."""
    zones = {"a": True, "b": False}
    assert said(verdicts.zone("a", zones)) == ["ok availability_zone: a"]
    assert said(verdicts.zone("a:host-1", zones)) == ["ok availability_zone: a:host-1"]
    assert said(verdicts.zone("b", zones)) == [
        "FAIL availability_zone: setting `availability_zone`: 'b' is not available at the moment"
    ]
    assert said(verdicts.zone("c", zones)) == [
        "FAIL availability_zone: setting `availability_zone`: 'c' is not there; there are: a, b"
    ]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(-1, 5, -1, 5, -1, 5), ["ok quota: room for 10 more of m1 now"]),
        (Limits(10, 0, 40, 0, 81920, 0), ["ok quota: room for 10 more of m1 now"]),
        (Limits(10, 3, 40, 12, 81920, 24576), ["ok quota: room for 7 more of m1 now"]),
        (Limits(10, 10, -1, 0, -1, 0), ["warning quota: no room for another m1 now: a build would wait"]),
        (
            Limits(10, 0, 39, 36, 81920, 0),
            [
                ("warning quota: the quota for cores is 39 (36 used), enough for 9 instances, and setting"
                " `max_instances` is 10: builds will wait; ask for 40"),
                "warning quota: no room for another m1 now: a build would wait",
            ],
        ),
        (
            Limits(10, 0, 40, 0, 8191, 0),
            [
                ("FAIL quota: the quota for ram is 8191 MB (0 used), and one instance needs 8192 MB: ask for more,"
                " or change setting `nova_flavor`"),
            ],
        ),
        (
            Limits(0, 0, -1, 0, -1, 0),
            [
                ("FAIL quota: the quota for instances is 0 (0 used), and one instance needs 1: ask for more, or"
                " change setting `nova_flavor`"),
            ],
        ),
    ],
)  # fmt: skip
def test_the_compute_quota(limits: Limits, expected: list[str]) -> None:
    """Quota for none fails, for fewer than `max_instances` is warned of, and what is free now is told."""
    assert said(verdicts.compute_quota(limits, M1, 10)) == expected


def test_other_quotas() -> None:
    """Ports, floating ips and volumes are counted the same way, each with the setting behind it."""
    assert verdicts.count("ports", "networks", -1, 7, each=2, most=10) == []
    assert verdicts.count("floating ips", "floating_ip", 5, 0, each=0, most=10) == []
    assert said(verdicts.count("volumes' space", "volume", 500, 20, each=100, most=10, unit=" GB")) == [
        ("warning quota: the quota for volumes' space is 500 GB (20 used), enough for 5 instances, and setting"
        " `max_instances` is 10: builds will wait; ask for 1000 GB")
    ]  # fmt: skip
    assert verdicts.count("floating ips", "floating_ip", 0, 0, each=1, most=10)[0].verdict is Verdict.FAIL


def test_a_listing_that_shows_strangers() -> None:
    """A nova that ignores the filter by tag is a failure: the master would take all it shows for its own."""
    tag = "buildpackages-x"
    assert said(verdicts.listing(tag, [("one", [tag, "more"])], 7)) == [
        "ok tag: buildpackages-x: 1 of 7 servers of the project carry it"
    ]
    for tags in (["buildpackages-xy"], [], None):
        (line,) = said(verdicts.listing(tag, [("ours", [tag]), ("theirs", tags)], 2))
        assert line.startswith("FAIL tag: nova lists servers without the tag buildpackages-x")
        assert "(theirs)" in line
        assert "do not start the master" in line


def test_leftovers() -> None:
    """A server past its expiry and what belongs to no server are leftovers; all else is a running master's."""

    def server(name: str, expires: str) -> Seen:
        return Seen(name, name, "ACTIVE", "", {"boot": f"of-{name}", "expires": expires}, "", {})

    lives, old = server("lives", "2000"), server("old", "800")
    port = Leftover("port", "p1", "of-lives")
    assert said(verdicts.leftovers([lives], [port], 1000)) == [
        "ok leftovers: none; of a running master: lives ACTIVE"
    ]
    assert said(verdicts.leftovers([], [], 1000)) == ["ok leftovers: none"]
    (line,) = said(verdicts.leftovers([lives, old], [port, Leftover("volume", "v1", "nobody's")], 1000))
    assert line.startswith("warning leftovers: old, volume v1: past their time or without a server")


def test_ways_to_the_master() -> None:
    """Machines must not be told loopback, nor an address on which the master does not listen."""

    def ways(here: str, there: str, *, near: bool = False, port: int = 9989) -> str:
        listens = (Address("workers.host", here, 9989), Address("packages.host", "0.0.0.0", 8011))
        reached = (
            Address("workers.openstack.master_host", there, port),
            Address("packages.worker_url", "10.0.0.5", 8011),
        )
        return said(verdicts.ways(listens, reached, clouds_are_near=near))[0]

    assert ways("0.0.0.0", "10.0.0.5") == "ok master: machines are told 10.0.0.5:9989 and 10.0.0.5:8011"
    assert ways("127.0.0.1", "127.0.0.1", near=True).startswith("ok ")
    assert ways("0.0.0.0", "127.0.0.1").startswith(
        "FAIL master: machines are told 127.0.0.1:9989, which is each machine itself: set"
        " `workers.openstack.master_host`"
    )
    assert ways("127.0.0.1", "master.example.org").startswith(
        "FAIL master: machines are told master.example.org:9989, and the master listens on 127.0.0.1:9989 only:"
        " set `workers.host`"
    )
    assert ways("127.0.0.1", "proxy.example.org", port=80).startswith("ok ")


def test_addresses_as_people_write_them() -> None:
    """An IPv6 address has its brackets."""
    assert str(Address("x", "fd00::5", 9989)) == "[fd00::5]:9989"


ADDRESSES = (
    Address("workers.openstack.master_host", "10.0.0.5", 9989),
    Address("packages.worker_url", "p", 80),
)


def test_what_a_server_says() -> None:
    """Each address is judged by what the console says of it; of silence the console itself is to blame."""
    console = (
        "[ 1.0] cloud-init: doctor: the user data runs\r\n"
        "doctor: does not reach 10.0.0.5 9989 (Connection refused)\r\ndoctor: reaches p 80\r\ndoctor: done\r\n"
    )
    assert said(heard(console, ADDRESSES, 31.5)) == [
        "ok console: the user data had said all after 31.5 s",
        ("FAIL master: the server does not reach 10.0.0.5:9989 (Connection refused): settings"
        " `workers.openstack.master_host`, `networks` and `security_groups`, and the firewall of the master"),
        "ok master: the server reaches p:80",
    ]  # fmt: skip
    assert said(heard("doctor: the user data runs\n", ADDRESSES[:1], 9))[1] == (
        "warning master: the server did not say whether it reaches 10.0.0.5:9989"
    )
    (line,) = said(heard("login: ", ADDRESSES, 300))
    assert line.startswith("FAIL console: the user data has not spoken on the console 300 s after")
    assert line.endswith("| login:")


def test_sentences_of_the_provider() -> None:
    """What the provider says of a build is put as it is true of the trial."""
    assert (
        not_made("infrastructure failed once, at last: cloud c: it did not answer", "c")
        == "it did not answer"
    )
    assert not_made("cloud c: no worker attached within 20 s (instance i, BUILD)", "c") == (
        "setting `start_timeout`: it was not ACTIVE within 20 s (instance i, BUILD)"
    )


def test_the_end_of_a_console() -> None:
    """The last 15 lines are shown, cut to a screen's width; an empty console is called so."""
    shown = last_lines("\n".join(["x" * 300] * 20)).splitlines()
    assert len(shown) == 15
    assert max(map(len, shown)) < 180
    assert last_lines("").strip() == "| empty"


def test_the_script_reaches_what_listens(tmp_path: Path) -> None:
    """The script says of each address whether it is reached, and why not; values of the settings stay values."""
    (closed,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        text = user_data(
            [
                Address("a", "127.0.0.1", port),
                Address("b", "127.0.0.1", closed),
                Address("c", "$(id>hurt)'", 1),
            ]
        )
        script = tmp_path / "user_data"
        script.write_text(text)
        # What would power this machine off is not to be found, and what waits for it ends at once.
        (tmp_path / "bin").mkdir()
        for name in ("poweroff", "shutdown", "setsid"):
            (tmp_path / "bin" / name).symlink_to("/bin/true")
        script.write_text(text.replace("export PATH=", f"export PATH={tmp_path}/bin:"))
        told = subprocess.run(
            ["bash", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.defpath},
        )
    assert told.stdout.splitlines()[:2] == ["doctor: the user data runs", f"doctor: reaches 127.0.0.1 {port}"]
    assert told.stdout.splitlines()[2] == f"doctor: does not reach 127.0.0.1 {closed} (Connection refused)"
    assert told.stdout.splitlines()[-1] == "doctor: done"
    assert told.returncode == 0
    assert not (tmp_path / "hurt").exists()
    assert text.splitlines()[1] == f"set -- {FORGOTTEN_SECONDS} " + shlex.join(
        ["127.0.0.1", str(port), "127.0.0.1", str(closed), "$(id>hurt)'", "1"]
    )


def test_clouds_yaml_that_others_may_read(tmp_path: Path) -> None:
    """A clouds.yaml of a mode that lets others read it is warned of, and one that is not there fails."""
    file = tmp_path / "clouds.yaml"
    assert home.secrecy(None) == []
    assert said(home.secrecy(file)) == [
        f"FAIL clouds_yaml: setting `clouds_yaml`: No such file or directory: {file}"
    ]
    file.touch()
    file.chmod(0o640)
    assert said(home.secrecy(file)) == [
        f"warning clouds_yaml: others on this machine may read {file}: chmod 600"
    ]
    file.chmod(0o600)
    assert said(home.secrecy(file)) == ["ok clouds_yaml: nobody else may read it"]


def at_home(**more: Any) -> InForce:
    """Give settings of a master at master.example.org."""
    address = Address("workers.openstack.master_host", "master.example.org", 9989)
    values: dict[str, Any] = {
        "openstack": OpenStackSettings(clouds=(CLOUD,)), "targets": (BOOKWORM, ROCKY), "master_id": "x",
        "start_timeout": 1200.0, "listens": (address,), "reached": (address,),
        "packages_url": "http://master.example.org:8011/", "wheels": Path("/nonexistent"), "tls": True,
        "certificate": None, **more,
    }  # fmt: skip
    return InForce(**values)


def test_tls(tmp_path: Path) -> None:
    """TLS that is off is warned of; a certificate of the operator's must be there, for the host, and last."""
    now = datetime.now(UTC)
    made = self_signed(tmp_path, ["master.example.org", "10.0.0.5"]).certificate

    def judged(host: str = "master.example.org", at: datetime = now, **more: Any) -> str:
        address = Address("x", host, 9989)
        return said(home.tls(at_home(**{"certificate": made, "reached": (address,), **more}), at))[0]

    assert judged(tls=False).startswith("warning tls: setting `workers.tls` is off")
    assert judged(certificate=None).startswith("ok tls: on; the master makes the certificate")
    assert judged().startswith("ok tls: on; the certificate is for master.example.org, until 20")
    assert judged("10.0.0.5").startswith("ok ")
    for other in ("10.0.0.6", "other.example.org", "example.org"):
        assert judged(other).startswith(f"FAIL tls: setting `workers.certificate`: it is not for {other}")
    assert judged(at=now + timedelta(days=3640)).startswith("warning tls: on; the certificate is for")
    assert judged(at=now + timedelta(days=3660)).startswith(
        "FAIL tls: setting `workers.certificate`: it is good until"
    )
    assert judged(certificate=tmp_path / "none").startswith("FAIL tls: setting `workers.certificate`")
    (tmp_path / "text").write_text("hello")
    assert judged(certificate=tmp_path / "text").startswith("FAIL tls: setting `workers.certificate`")
    wild = self_signed(tmp_path / "wild", ["*.example.org"]).certificate
    assert judged(certificate=wild).startswith("ok ")
    assert judged("a.b.example.org", certificate=wild).startswith("FAIL ")


def test_wheels(tmp_path: Path) -> None:
    """Every kind of machine that targets need must find wheels; what is missing is named."""
    (line,) = said(home.wheels(at_home(wheels=tmp_path)))
    assert line.startswith(
        f"warning wheels: setting `packages.wheels`: {tmp_path} has none for cp311-x86_64, cp39-"
    )
    for name in ("cp311-x86_64", "cp39-x86_64"):
        (tmp_path / f"index-{name}.json").write_text("{}")
    assert said(home.wheels(at_home(wheels=tmp_path))) == ["ok wheels: cp311-x86_64, cp39-x86_64"]


def test_user_data_that_cannot_be_made(tmp_path: Path) -> None:
    """What the settings say of machines must fit in user data; what does not is told with its cloud."""
    (line,) = said(home.user_data(at_home()))
    assert re.fullmatch(r"ok user data: \d{5} bytes at most, of 49151", line)
    broken = replace(CLOUD, environment={"http proxy": "x"})
    (line,) = said(
        home.user_data(at_home(openstack=OpenStackSettings(clouds=(CLOUD, replace(broken, cloud="b")))))
    )
    assert line.startswith("FAIL user data: settings of cloud b: user data: environment 'http proxy'")
    (tmp_path / "cert").write_text("not a certificate")
    (line,) = said(home.user_data(at_home(certificate=tmp_path / "cert")))
    assert line.startswith("FAIL user data: settings of cloud sepia: user data: tls_ca: the text is not")


SETTINGS = {
    "git": {"allowed": ["https://github.com/"]},
    "targets": ["ceph-deb-*-x86_64-default"],
    "workers": {
        "host": "0.0.0.0", "start_timeout": 900,
        "openstack": {
            "clouds_yaml": "clouds.yaml", "master_host": "10.0.0.5",
            "clouds": [{"cloud": "sepia", "images": {"*": {"properties": {"a": "b"}}}, "nova_flavor": "m1"}],
        },
    },
    "packages": {"host": "0.0.0.0", "worker_url": "https://packages.example.org/build/"},
}  # fmt: skip


def test_the_settings_that_are_read(tmp_path: Path) -> None:
    """The settings are those in force: defaults, absolute paths, and the id that the master has kept."""
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    found = read(file)
    assert found.openstack.clouds_yaml == tmp_path / "clouds.yaml"
    assert found.openstack.clouds[0].image(BOOKWORM) == found.openstack.clouds[0].images["*"]
    assert "ceph-deb-jammy-x86_64-default" in [str(one) for one in found.targets]
    assert found.listens == (
        Address("workers.host", "0.0.0.0", 9989),
        Address("packages.host", "0.0.0.0", 8011),
    )
    assert found.reached == (
        Address("workers.openstack.master_host", "10.0.0.5", 9989),
        Address("packages.worker_url", "packages.example.org", 443),
    )
    assert (found.start_timeout, found.master_id) == (900, "")
    assert (found.tls, found.certificate, found.wheels) == (True, None, tmp_path / "wheels")
    assert found.packages_url == "https://packages.example.org/build/"

    (tmp_path / "state").mkdir()
    (tmp_path / "state/master-id").write_text("0123456789ab\n")
    assert read(file).tag == "buildpackages-0123456789ab"


def test_settings_without_clouds() -> None:
    """Where builds run on the master's own machine there is nothing to examine, and the sentence says how to begin."""
    data = {"workers": {"openstack": None}, "packages": {}, "targets": [], "state": ""}
    with pytest.raises(Unreadable, match="setting `workers.openstack` is not there"):
        in_force(data)


def test_the_manual() -> None:
    """`--help` tells the statuses, and a target that is none is refused with a sentence."""
    told = subprocess.run(
        [sys.executable, "-m", "workers.doctor", "--help"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert "0 if every line says ok; 1 if one says FAIL; 3 if there are warnings only" in told.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "workers.doctor", "--server", "jammy"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "such as ceph-deb-jammy-x86_64-default" in refused.stderr
