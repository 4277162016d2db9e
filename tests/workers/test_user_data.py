"""The text of user data: what it says, what it refuses, and that nothing in it is ever taken for shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import build_commands
from model.build_commands import Family
from model.distros import DISTS, PkgType
from model.targets import Target, matrix
from tests.workers.test_tls import NOW
from workers.tls import self_signed
from workers.user_data import FAMILIES, MOST_BYTES, BootConfig, render

CHECKOUT = Path(__file__).resolve().parents[2]
PASSWORD = "the-password-of-this-boot"
PLAIN = BootConfig(
    target=Target.from_name("ceph-deb-jammy-x86_64-default"),
    worker="openstack-7",
    password=PASSWORD,
    master_host="10.77.0.1",
    master_port=9989,
    packages_url="http://10.77.0.1:8011/",
    expires=1790000000,
)


def pem(directory: Path) -> str:
    return self_signed(directory, ["10.77.0.1"], NOW).pem


def variables(script: str, *names: str) -> list[str]:
    """Have bash run the part of a script that says the values, and give some of them as bash has them."""
    values = script[script.index("# What is said by the master.") : script.index("print_run_worker()")]
    shown = "".join(f"printf '%s\\0' \"${name}\"\n" for name in names)
    said = subprocess.run(
        ["bash", "-c", f"set -eu\n{values}\n{shown}"],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert said.stderr == b""
    return said.stdout.decode().split("\0")[:-1]


def test_golden_lines() -> None:
    """A script begins with what the master says, one quoted value a line."""
    lines = render(PLAIN).splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in (
        "target=ceph-deb-jammy-x86_64-default",
        "worker=openstack-7",
        "master=10.77.0.1:9989",
        "with='WITHOUT TLS, as the settings want it'",
        "with_tls=''",
        "expires=1790000000",
        "wheels=http://10.77.0.1:8011/wheels/",
        "buildbot_worker=4.3.0",
        """worker_config='{"host": "10.77.0.1", "port": 9989, "name": "openstack-7", "password": "the-password-of-this-boot", "ca": "", "rendezvous": "", "environment": {}}'""",
        """wheels_config='{"url": "http://10.77.0.1:8011/wheels/", "into": "/opt/buildbot-worker", "version": "4.3.0", "ca": "", "digests": {}}'""",
    ):
        assert line in lines


def test_all_that_can_be_said(tmp_path: Path) -> None:
    """TLS, rendezvous, environment and digests get to the programs that need them, as JSON."""
    config = replace(
        PLAIN,
        tls_ca=pem(tmp_path),
        rendezvous="https://10.77.0.1:8011/boot/abc_-1",
        environment={"http_proxy": "http://proxy:3128/", "no_proxy": "10.77.0.1"},
        wheels={"index-cp310-x86_64.json": "ab" * 32},
    )
    script = render(config)
    with_, with_tls, worker, wheels, proxy = variables(
        script, "with", "with_tls", "worker_config", "wheels_config", "http_proxy"
    )
    assert (with_, with_tls, proxy) == ("with TLS", "OpenSSL service_identity", "http://proxy:3128/")
    told = json.loads(worker)
    assert told["ca"] == config.tls_ca
    assert told["rendezvous"] == config.rendezvous
    assert told["environment"] == dict(config.environment)
    assert json.loads(wheels)["digests"] == dict(config.wheels)
    assert json.loads(wheels)["ca"] == config.tls_ca


@pytest.mark.parametrize(
    ("dist", "family"),
    [
        ("jammy", "apt-get"),
        ("noble", "apt-get"),
        ("resolute", "apt-get"),
        ("bookworm", "apt-get"),
        ("trixie", "apt-get"),
        ("centos9", "dnf"),
        ("centos10", "dnf"),
        ("rocky9", "dnf"),
        ("rocky10", "dnf"),
    ],
)
def test_the_family_is_the_distribution_s(dist: str, family: str) -> None:
    """Each dist gets its own package manager, and no other."""
    script = render(replace(PLAIN, target=Target("ceph", dist)))
    assert re.findall(r"^ +attempt (\S+)", script, re.MULTILINE) == [family] * (
        2 if family == "apt-get" else 1
    )


def test_every_target_has_user_data() -> None:
    """No target of the matrix is without a family, and none's script is longer than nova takes."""
    assert {row.distro for row in DISTS.values()} <= set(FAMILIES)
    for target in matrix():
        assert len(render(replace(PLAIN, target=target)).encode()) < MOST_BYTES


@pytest.mark.parametrize(
    ("family", "needs", "package"),
    [
        ("apt", "wget xz dch", "python3-venv"),
        ("dnf", "wget xz cpio debugedit dnf dwz", "dnf-plugins-core"),
        ("zypper", "wget xz cpio debugedit dwz", "python311"),
    ],
)
def test_a_machine_gets_what_the_list_of_commands_says(family: Family, needs: str, package: str) -> None:
    """Each family's script checks the commands of the one list, and installs that list's packages."""
    lines = render(PLAIN, family).splitlines()
    pkg_type: PkgType = "deb" if family == "apt" else "rpm"
    [checked] = [line for line in lines if line.startswith("needs=(")]
    assert f" {needs}" in checked
    assert checked == f"needs=({' '.join(build_commands.needs(family, pkg_type))})"
    [installed] = [line for line in lines if line.startswith("packages=(")]
    assert package in installed.removeprefix("packages=(").rstrip(")").split()
    assert installed == f"packages=({' '.join(build_commands.packages(family, pkg_type))})"


@pytest.mark.parametrize("family", ["apt", "dnf", "zypper"])
def test_the_scripts_are_sound(tmp_path: Path, family: Family) -> None:
    """bash parses the whole script of each family, and shellcheck has nothing to say, with no check off for the file."""
    script = render(replace(PLAIN, tls_ca=pem(tmp_path), environment={"http_proxy": "http://p/"}), family)
    file = tmp_path / "user-data.sh"
    file.write_text(re.sub(r"^# shellcheck .*\n", "", script, flags=re.MULTILINE))
    subprocess.run(["bash", "-n", file], check=True)
    # The per-boot script's text is meant to be expanded when it runs: the one check that is off.
    subprocess.run(["shellcheck", "--exclude=SC2016", file], check=True)
    assert not re.search(r"^\. ", script, re.MULTILINE), "all parts are in it"


def test_the_password_is_in_one_place() -> None:
    """The script holds the password once, in a value; no command has it among its words."""
    script = render(PLAIN)
    assert script.count(PASSWORD) == 1
    uses = [line.strip() for line in script.splitlines() if "worker_config" in line]
    assert uses[1:] == ["""(umask 077 && printf '%s\\n' "$worker_config" >"$state/worker.json")"""]


ATTACKS = [
    "'; touch ATTACK; '",
    '"; touch ATTACK; "',
    "$(touch ATTACK)",
    "`touch ATTACK`",
    "\\'$(touch ATTACK)\\",
    "END OF run-worker.py",
    "${PATH} $1 * ~ ! # & | > < ; %s \\n",
    "ä€",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_no_value_is_taken_for_shell(tmp_path: Path, text: str) -> None:
    """A password and an environment with everything that shells know arrive as they are, and run nothing."""
    text = text.replace("ATTACK", str(tmp_path / "attack"))
    script = render(replace(PLAIN, password=text, environment={"http_proxy": text}))
    worker, proxy = variables(script, "worker_config", "http_proxy")
    assert json.loads(worker)["password"] == text
    assert json.loads(worker)["environment"] == {"http_proxy": text}
    assert proxy == text
    assert not (tmp_path / "attack").exists()


@settings(max_examples=25, deadline=None)
@given(st.text(string.printable[:95] + "äöß€", min_size=1, max_size=40))
def test_whatever_is_printable_arrives(text: str) -> None:
    """Quoting holds for any printable text."""
    script = render(replace(PLAIN, password=text, environment={"x": text}))
    worker, x = variables(script, "worker_config", "x")
    assert (json.loads(worker)["password"], x) == (text, text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"worker": "a b"}, "worker: 'a b' is not of the form"),
        ({"worker": "a\n"}, "worker: 'a\\\\n' is not of the form"),
        ({"worker": "-a"}, "worker: '-a' is not of the form"),
        ({"master_host": "a;b"}, "master_host: 'a;b' is not of the form"),
        ({"master_port": 0}, "master_port: 0 is no port"),
        ({"packages_url": "http://a"}, "packages_url: 'http://a' is not of the form"),
        ({"packages_url": "http://a/b"}, "packages_url: 'http://a/b' must end with /"),
        ({"packages_url": "file:///etc/"}, "packages_url: 'file:///etc/' is not of the form"),
        ({"packages_url": "http://a/ b/"}, "packages_url: 'http://a/ b/' is not of the form"),
        ({"rendezvous": "ftp://a/"}, "rendezvous: 'ftp://a/' is not of the form"),
        ({"password": ""}, "password: it must be printable"),
        ({"password": "a\nb"}, "password: it must be printable"),
        ({"environment": {"a-b": "c"}}, "environment 'a-b': 'a-b' is not of the form"),
        ({"environment": {"x;touch y": "c"}}, "is not of the form"),
        ({"environment": {"a": "b\nc"}}, "environment a: the value must be one line"),
        ({"tls_ca": "a certificate"}, "tls_ca: the text is not of the form"),
        (
            {"tls_ca": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"},
            "tls_ca: the text is not",
        ),
    ],
)
def test_what_has_no_business_in_a_script_is_refused(change: dict[str, object], sentence: str) -> None:
    """Each bad value is named; a password and a key are not shown."""
    with pytest.raises(ValueError, match=f"^user data: .*{sentence}") as caught:
        replace(PLAIN, **change)  # type: ignore[arg-type]
    assert "PRIVATE" not in str(caught.value)


def test_a_key_beside_a_certificate_is_refused(tmp_path: Path) -> None:
    """A file with both a certificate and its key does not get into user data by mistake."""
    made = self_signed(tmp_path, ["a"], NOW)
    with pytest.raises(ValueError, match="^user data: tls_ca: the text is not"):
        replace(PLAIN, tls_ca=made.pem + made.key.read_text())


@pytest.mark.parametrize("host", ["2001:db8::1", "master.example.org", "127.0.0.1"])
def test_names_and_addresses_are_hosts(host: str) -> None:
    """A master may be named by an address of either kind, or by a name."""
    [worker] = variables(render(replace(PLAIN, master_host=host)), "worker_config")
    assert json.loads(worker)["host"] == host


def test_what_nova_would_refuse_is_refused_before() -> None:
    """User data that is too long ends in a sentence that has both sizes."""
    with pytest.raises(ValueError, match=r"^user data: \d+ bytes are more than the 49151 that nova takes"):
        render(replace(PLAIN, environment={"x": "y" * 50000}))


def show(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.user_data", *arguments], cwd=CHECKOUT, capture_output=True, text=True
    )


def test_the_command_shows_it() -> None:
    """`python -m workers.user_data TARGET` prints the script with a made-up password."""
    shown = show("ceph-rpm-centos9-x86_64-default")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("#!/bin/bash\n")
    assert "target=ceph-rpm-centos9-x86_64-default\n" in shown.stdout
    assert shlex.quote(PASSWORD) in shown.stdout
    assert "attempt zypper" in show("ceph-rpm-centos9-x86_64-default", "--family", "zypper").stdout


def test_the_command_refuses_what_is_no_target() -> None:
    """A wrong name ends with the usual status, and --help says what is shown."""
    assert show("ceph-deb-jammy").returncode == 2
    assert "user data" in show("--help").stdout
