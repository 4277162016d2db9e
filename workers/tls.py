"""TLS between workers and the master: the certificate, and the endpoint that shows it.

A master without a certificate of its own makes one at its first start, and hands it to its machines
as the only one that they trust.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.endpoints import quoteStringArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

_DAYS = 3650
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class Certificate:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path

    @property
    def pem(self) -> str:
        """The certificate itself, for those that shall trust it."""
        return self.certificate.read_text()


def pb_port(host: str, port: int, certificate: Path, key: Path) -> str:
    """Give the endpoint to listen on for workers, as `protocols: {pb: {port: ...}}` takes it.

    A chain that follows the certificate in its file is sent along.
    """
    parts = [
        "ssl", str(port), f"interface={quoteStringArgument(host)}",
        f"certKey={quoteStringArgument(str(certificate))}", f"privateKey={quoteStringArgument(str(key))}",
    ]  # fmt: skip
    if certificate.read_text().count("-----BEGIN CERTIFICATE-----") > 1:
        parts.append(f"extraCertChain={quoteStringArgument(str(certificate))}")
    return ":".join(parts)


def self_signed(directory: Path, names: Sequence[str], now: datetime | None = None) -> Certificate:
    """Give the directory's certificate, made anew unless it is for all the names and lasts a month yet.

    `names` are the host names and addresses by which machines reach the master. The key is of mode 0600.
    """
    now = now or datetime.now(UTC)
    made = Certificate(directory / "worker-tls.crt", directory / "worker-tls.key")
    if not _serves(made, names, now):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        # The key first: a certificate that is there has its key.
        _write(
            made.key,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        certificate = _sign(key, names, now)
        _write(made.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return made


def _sign(key: ec.EllipticCurvePrivateKey, names: Sequence[str], now: datetime) -> x509.Certificate:
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "build machines' way to their master")])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = dict.fromkeys(
        (
            "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(title)
        .issuer_name(title)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _serves(made: Certificate, names: Sequence[str], now: datetime) -> bool:
    """Whether a certificate is there, with its key, for all the names, and for some time to come."""
    try:
        certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
        key = serialization.load_pem_private_key(made.key.read_bytes(), None)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        key.public_key() == certificate.public_key()
        and {_name(name) for name in names} <= set(alternatives)
        and certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    """Put a file in place whole, for our own eyes only."""
    making = path.with_name(f".{path.name}.making")
    making.unlink(missing_ok=True)
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
