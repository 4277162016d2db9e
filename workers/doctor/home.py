"""What needs no cloud to be judged: the files and the sentences that the master hands to its machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509

from workers.doctor.verdicts import Finding, fail, ok, warning
from workers.user_data import MOST_BYTES, BootConfig, render
from workers.wheels import PYTHONS, Machine, digests

if TYPE_CHECKING:
    from pathlib import Path

    from workers.doctor.settings import InForce

_SOON = timedelta(days=30)


def home(in_force: InForce) -> list[Finding]:
    """Judge all of it."""
    return [
        *secrecy(in_force.openstack.clouds_yaml),
        *tls(in_force, datetime.now(UTC)),
        *wheels(in_force),
        *user_data(in_force),
    ]


def secrecy(clouds_yaml: Path | None) -> list[Finding]:
    """Judge who else may read the file with the credentials."""
    if clouds_yaml is None:
        return []
    try:
        mode = clouds_yaml.stat().st_mode
    except OSError as error:
        return [fail("clouds_yaml", f"setting `clouds_yaml`: {error.strerror}: {clouds_yaml}")]
    if mode & 0o077:
        return [warning("clouds_yaml", f"others on this machine may read {clouds_yaml}: chmod 600")]
    return [ok("clouds_yaml", "nobody else may read it")]


def tls(in_force: InForce, now: datetime) -> list[Finding]:
    """Judge whether workers know their master, and whether a certificate of the operator's will do."""
    if not in_force.tls:
        return [
            warning("tls", "setting `workers.tls` is off: whoever sits between reads a worker's password")
        ]
    if in_force.certificate is None:
        return [ok("tls", "on; the master makes the certificate, and each machine trusts no other")]
    try:
        found = x509.load_pem_x509_certificate(in_force.certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        return [fail("tls", f"setting `workers.certificate`: {in_force.certificate}: {error}")]
    host = in_force.reached[0].host
    if not _covers(names, host):
        return [fail("tls", f"setting `workers.certificate`: it is not for {host}, which machines are told")]
    until = found.not_valid_after_utc
    if not found.not_valid_before_utc <= now < until:
        return [fail("tls", f"setting `workers.certificate`: it is good until {until:%Y-%m-%d} only")]
    said = f"on; the certificate is for {host}, until {until:%Y-%m-%d}"
    return [warning("tls", said) if until - now < _SOON else ok("tls", said)]


def wheels(in_force: InForce) -> list[Finding]:
    """Judge whether every kind of machine finds a buildbot-worker at the package server."""
    there = digests(in_force.wheels)
    needed = {
        Machine(PYTHONS[target.dist], target.arch) for target in in_force.targets if target.dist in PYTHONS
    }
    missing = sorted(machine.tag for machine in needed if machine.index not in there)
    if missing:
        said = (
            f"setting `packages.wheels`: {in_force.wheels} has none for {', '.join(missing)}: `make wheels`,"
        )
        return [warning("wheels", f"{said} or have buildbot-worker in the images")]
    return [ok("wheels", ", ".join(sorted(machine.tag for machine in needed)))]


def user_data(in_force: InForce) -> list[Finding]:
    """Judge whether user data can be made of the settings, for every cloud and target, and its size."""
    largest, known = 0, digests(in_force.wheels)
    try:
        certificate = in_force.certificate.read_text() if in_force.tls and in_force.certificate else ""
    except (OSError, ValueError):
        return []  # told of by `tls`
    for cloud in in_force.openstack.clouds:
        for target in in_force.targets:
            try:
                text = render(
                    BootConfig(
                        target=target, worker="openstack-1", password="x" * 32,
                        master_host=in_force.reached[0].host, master_port=in_force.reached[0].port,
                        packages_url=in_force.packages_url, expires=4102444800,
                        tls_ca=certificate, environment=cloud.environment, wheels=known,
                    )
                )  # fmt: skip
            except ValueError as error:
                return [fail("user data", f"settings of cloud {cloud.title}: {error}")]
            largest = max(largest, len(text.encode()))
    return [ok("user data", f"{largest} bytes at most, of {MOST_BYTES}")]


def _covers(names: x509.SubjectAlternativeName, host: str) -> bool:
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        known = names.get_values_for_type(x509.DNSName)
        return host in known or f"*.{host.partition('.')[2]}" in known
