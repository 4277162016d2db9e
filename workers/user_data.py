"""User data: the script that makes a build machine of a plain image, and starts the worker of one build.

`python -m workers.user_data TARGET` shows it. One template for each distribution family lies in
`workers/templates`; cloud-init runs what comes of it as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from model import build_commands, command_line
from model.targets import Target

if TYPE_CHECKING:
    from model.build_commands import Family
    from model.distros import PkgType

FAMILIES: Mapping[str, Family] = {
    "debian": "apt",
    "ubuntu": "apt",
    "centos": "dnf",
    "rocky": "dnf",
    "opensuse": "zypper",
    "sles": "zypper",
}
"""The package manager of a distribution."""

MOST_BYTES = 65535 * 3 // 4
"""nova takes 65535 bytes of Base64."""

_HERE = Path(__file__).parent
_PROGRAMS = ("run-worker", "install-worker")
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}\Z")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}\Z|[0-9A-Fa-f:.]{2,45}\Z")
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+/[!-~]*\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CERTIFICATES = re.compile(
    r"(\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----)+\s*\Z", re.ASCII
)
_SOURCED = re.compile(r"^# shellcheck source=.*\n\. (values|common)\.sh\n", re.MULTILINE)


@dataclass(frozen=True)
class BootConfig:
    """What one machine must know; ValueError names what cannot be."""

    target: Target
    worker: str
    password: str
    master_host: str
    master_port: int
    """As the machine reaches it."""
    packages_url: str
    """The package server, as the machine reaches it; wheels are below `wheels/`."""
    expires: int
    """Seconds since the epoch; then the machine powers itself off, whatever has become of the master."""
    tls_ca: str = ""
    """Certificates in PEM that the master is verified with; empty means plain TCP, which is insecure."""
    rendezvous: str = ""
    """A URL that tells a prewarmed machine its worker's name: 200 and `{"worker": name}`; 204 to be
    asked again, at the latest after 60 s; 404 or 410 if the machine is not wanted any more."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the boot and of the builds, such as http_proxy."""
    wheels: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by name of index, as `workers.wheels.digests` gives them; without, the server is believed."""

    def __post_init__(self) -> None:
        """Refuse what has no business in a script, however well it would be quoted."""
        for name, value, form in (
            ("worker", self.worker, _WORKER),
            ("master_host", self.master_host, _HOST),
            ("packages_url", self.packages_url, _URL),
            ("rendezvous", self.rendezvous or "http://none/", _URL),
            ("tls_ca", self.tls_ca or _NO_CERTIFICATE, _CERTIFICATES),
            *((f"environment {name!r}", name, _VARIABLE) for name in self.environment),
        ):
            if not form.match(value):
                shown = "the text" if name == "tls_ca" else repr(value)
                raise ValueError(f"user data: {name}: {shown} is not of the form that it must have")
        if not self.packages_url.endswith("/"):
            raise ValueError(f"user data: packages_url: {self.packages_url!r} must end with /")
        if not 0 < self.master_port < 65536:
            raise ValueError(f"user data: master_port: {self.master_port} is no port")
        if not self.password or not self.password.isprintable():
            raise ValueError("user data: password: it must be printable, and not empty")
        for name, value in self.environment.items():
            if "\0" in value or "\n" in value:
                raise ValueError(f"user data: environment {name}: the value must be one line")


_NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"


def render(config: BootConfig, family: Family | None = None) -> str:
    """Return the script for a machine. Its family is that of the target's distribution unless given."""
    family = family or FAMILIES[config.target.distribution.distro]
    parts = {"values": _values(config, family), "common": _template("common")}
    text = _SOURCED.sub(lambda match: parts[match[1]], _template(family))
    if len(text.encode()) > MOST_BYTES:
        size = len(text.encode())
        raise ValueError(f"user data: {size} bytes are more than the {MOST_BYTES} that nova takes")
    return text


def _template(name: str) -> str:
    return (_HERE / f"templates/user_data-{name}.sh").read_text()


def _values(config: BootConfig, family: Family) -> str:
    wheels = f"{config.packages_url}wheels/"
    release = version("buildbot-worker")
    worker = {
        "host": config.master_host,
        "port": config.master_port,
        "name": config.worker,
        "password": config.password,
        "ca": config.tls_ca,
        "rendezvous": config.rendezvous,
        "environment": dict(config.environment),
    }
    install = {
        "url": wheels,
        "into": "/opt/buildbot-worker",
        "version": release,
        "ca": config.tls_ca,
        "digests": dict(config.wheels),
    }
    values = {
        "target": config.target.name,
        "worker": config.worker,
        "master": f"{config.master_host}:{config.master_port}",
        "with": "with TLS" if config.tls_ca else "WITHOUT TLS, as the settings want it",
        "with_tls": "OpenSSL service_identity" if config.tls_ca else "",
        "expires": str(config.expires),
        "wheels": wheels,
        "buildbot_worker": release,
        "worker_config": json.dumps(worker),
        "wheels_config": json.dumps(install),
    }
    lines = ["# What is said by the master."]
    lines += [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    pkg_type: PkgType = "deb" if family == "apt" else "rpm"
    for name, words in (
        ("needs", build_commands.needs(family, pkg_type)),
        ("packages", build_commands.packages(family, pkg_type)),
    ):
        lines.append(f"{name}=({shlex.join(words)})")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(config.environment.items())]
    return "\n".join([*lines, *map(_program, _PROGRAMS)]) + "\n"


def _program(name: str) -> str:
    """Give a shell function that prints one of our programs."""
    text = (_HERE / f"scripts/{name}.py").read_text()
    end = f"END OF {name}.py"
    assert end not in text.splitlines()
    return f"print_{name.replace('-', '_')}() {{\n    cat <<'{end}'\n{text}{end}\n}}"


def main() -> None:
    """Show the user data of a target's machines, with made-up values in place of the master's."""
    parser = argparse.ArgumentParser(prog="python -m workers.user_data", description=main.__doc__)
    parser.add_argument("target", type=Target.from_name, help="such as ceph-deb-jammy-x86_64-default")
    parser.add_argument(
        "--family", choices=sorted({*FAMILIES.values()}), help="another than the target's own"
    )
    arguments = parser.parse_args()
    config = BootConfig(
        target=arguments.target,
        worker="openstack-1",
        password="the-password-of-this-boot",  # noqa: S106
        master_host="master.example.org",
        master_port=9989,
        packages_url="http://packages.example.org/",
        expires=4102444800,
        tls_ca=_NO_CERTIFICATE,
        environment={"http_proxy": "http://proxy.example.org:3128"},
    )
    print(render(config, arguments.family), end="")


if __name__ == "__main__":
    command_line.run(main)
