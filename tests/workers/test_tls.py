"""TLS between a real worker and a real master: the right certificate and name, or no connection; and how a worker knocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.patience import SLOW, free_ports
from tests.workers.small_master import PASSWORD, WORKER, SmallMaster, small_master, until
from workers import tls
from workers.tls import pb_port, self_signed

RUN_WORKER = Path(tls.__file__).parent / "scripts/run-worker.py"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


# The endpoint and the certificate


def test_the_endpoint_of_a_certificate(tmp_path: Path) -> None:
    """What Twisted's endpoint strings take for separators is escaped."""
    certificate = tmp_path / "a:b.crt"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    escaped = str(certificate).replace(":", "\\:")
    assert pb_port("::1", 9989, certificate, Path("/k=e:y")) == (
        f"ssl:9989:interface=\\:\\:1:certKey={escaped}:privateKey=/k=e\\:y"
    )


def names(pem: str) -> set[str]:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in alternatives}


def test_a_certificate_is_made_at_the_first_start(tmp_path: Path) -> None:
    """It is for the names and addresses that machines use, for ten years, and nobody else reads its key."""
    made = self_signed(tmp_path / "state", ["master.example.org", "10.77.0.1", "::1"], NOW)
    assert names(made.pem) == {"master.example.org", "10.77.0.1", "::1"}
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert made.certificate.stat().st_mode & 0o777 == 0o600
    assert made.certificate.parent == tmp_path / "state"
    assert x509.load_pem_x509_certificate(made.pem.encode()).not_valid_after_utc == NOW + timedelta(days=3650)


def test_a_certificate_that_serves_is_kept(tmp_path: Path) -> None:
    """A second start, and names that it has already, change nothing: machines that run go on trusting it."""
    first = self_signed(tmp_path, ["a.example", "10.0.0.1"], NOW).pem
    assert self_signed(tmp_path, ["a.example", "10.0.0.1"], NOW + timedelta(days=3600)).pem == first
    assert self_signed(tmp_path, ["10.0.0.1"], NOW).pem == first


def _lose_key(directory: Path) -> None:
    (directory / "worker-tls.key").unlink()


def _other_key(directory: Path) -> None:
    other = self_signed(directory / "other", ["a.example"], NOW)
    other.key.replace(directory / "worker-tls.key")


def _garbage(directory: Path) -> None:
    (directory / "worker-tls.crt").write_text("garbage")


@pytest.mark.parametrize(
    ("damage", "asked", "days"),
    [
        (lambda _: None, ["a.example", "b.example"], 0),
        (lambda _: None, ["a.example"], 3630),
        (_lose_key, ["a.example"], 0),
        (_other_key, ["a.example"], 0),
        (_garbage, ["a.example"], 0),
    ],
    ids=["another name", "last month", "no key", "another's key", "garbage"],
)
def test_a_certificate_that_does_not_serve_is_made_anew(
    tmp_path: Path, damage: Any, asked: list[str], days: int
) -> None:
    """A name that is missing, a near end, and a certificate without its key each call for a new one."""
    first = self_signed(tmp_path, ["a.example"], NOW).pem
    damage(tmp_path)
    made = self_signed(tmp_path, asked, NOW + timedelta(days=days))
    assert made.pem != first
    assert names(made.pem) == set(asked)
    assert self_signed(tmp_path, asked, NOW + timedelta(days=days)).pem == made.pem


# A real worker and a real master


class RunningWorker:
    """A worker process, and what it has logged."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def log(self) -> str:
        return self._output.read_text()


@contextmanager
def worker(directory: Path, port: int, login_seconds: int = 60, **config: Any) -> Iterator[RunningWorker]:
    """Run a worker until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    code = RUN_WORKER.read_text()
    assert "\nLOGIN_SECONDS = 60\n" in code
    code = code.replace("\nLOGIN_SECONDS = 60\n", f"\nLOGIN_SECONDS = {login_seconds}\n")
    (directory / "run-worker.py").write_text(code)
    told = {"host": "127.0.0.1", "port": port, "name": WORKER, "password": PASSWORD} | config
    with (directory / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(directory / "run-worker.py")],
            cwd=directory, stdin=subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.close()
    try:
        yield RunningWorker(process, directory / "output")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallMaster]:
    directory = tmp_path_factory.mktemp("tls")
    made = self_signed(directory / "state", ["127.0.0.1"])
    endpoint = pb_port("127.0.0.1", 1, made.certificate, made.key).replace("ssl:1:", "ssl:{port}:")
    with small_master(directory / "master", pb=endpoint, command="true") as running:
        yield running


def right_ca(master: SmallMaster) -> str:
    return (master.directory.parent / "state/worker-tls.crt").read_text()


def test_a_worker_that_trusts_the_master_attaches(master: SmallMaster, tmp_path: Path) -> None:
    """With the certificate that the master made itself, for the address that the worker connects to."""
    with worker(tmp_path, master.port, ca=right_ca(master)) as running:
        until(lambda: master.attached, running.log)
    until(lambda: not master.attached, master.log)


def test_a_certificate_of_somebody_else_is_refused(master: SmallMaster, tmp_path: Path) -> None:
    """Whoever stands in the master's place with another certificate gets no password, and the console says why."""
    other = self_signed(tmp_path / "other", ["127.0.0.1"])
    with worker(tmp_path / "worker", master.port, ca=other.pem) as running:
        until(lambda: "TLS: certificate verify failed" in running.log(), running.log)
        assert "worker is ready" not in running.log()
    assert not master.attached


def test_a_certificate_for_another_name_is_refused(master: SmallMaster, tmp_path: Path) -> None:
    """A certificate that is trusted serves only the names that it is for."""
    with worker(tmp_path, master.port, ca=right_ca(master), host="localhost") as running:
        until(lambda: "connection to the master lost: " in running.log(), running.log)
        assert "VerificationError" in running.log() or "TLS: " in running.log(), running.log()
        assert "worker is ready" not in running.log()
    assert not master.attached


def test_plain_tcp_gets_nowhere_with_tls(master: SmallMaster, tmp_path: Path) -> None:
    """A worker without TLS does not attach to a master with it; where both wait for one another, it hangs up."""
    with worker(tmp_path, master.port, login_seconds=2) as running:
        until(lambda: running.log().count("connection to the master lost: ") >= 2, running.log)
        assert "the master has not let this worker in for 2 s" in running.log()
        assert "worker is ready" not in running.log()
    assert not master.attached


def _issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def test_a_chain_of_an_operator_s_own_is_sent_along(tmp_path: Path) -> None:
    """A certificate and its chain in one file serve workers that trust the root only, and those that trust the certificate only."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    root = _issue("root", keys[0], root_name, keys[0], ca=True)
    middle = _issue("middle", keys[1], root.subject, keys[0], ca=True)
    leaf = _issue("leaf", keys[2], middle.subject, keys[1], ca=False)
    pem = serialization.Encoding.PEM
    (tmp_path / "crt").write_bytes(leaf.public_bytes(pem) + middle.public_bytes(pem))
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(keys[2].private_bytes(pem, form, secret))
    endpoint = pb_port("127.0.0.1", 1, tmp_path / "crt", tmp_path / "key").replace("ssl:1:", "ssl:{port}:")
    with small_master(tmp_path / "master", pb=endpoint, command="true") as running:
        for trusted in (root, leaf):
            ca = trusted.public_bytes(pem).decode()
            with worker(
                tmp_path / f"worker-{trusted.serial_number}", running.port, ca=ca, host="localhost"
            ) as one:
                until(lambda: running.attached, one.log)
            until(lambda: not running.attached, running.log)


# How a worker knocks


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallMaster]:
    with small_master(tmp_path_factory.mktemp("plain"), command="true") as running:
        yield running


def test_a_worker_that_is_refused_gives_up(plain: SmallMaster, tmp_path: Path) -> None:
    """A password that the master does not take any more ends the worker, with a sentence and a status of its own."""
    with worker(tmp_path, plain.port, password="old") as one:
        until(lambda: one.process.poll() is not None, one.log, 120)
        assert one.process.returncode == 3
        assert "the master has refused this worker" in one.log()


def test_a_master_that_is_away_is_asked_again_soon(tmp_path: Path) -> None:
    """The console says why the master is not reached, and a master that comes late is found within seconds."""
    [port] = free_ports(1)
    with worker(tmp_path / "worker", port) as one:
        until(lambda: one.log().count("the master cannot be reached: Connection was refused") >= 5, one.log)
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        with small_master(tmp_path / "master", pb=endpoint, command="true") as running:
            # A busy machine is slow, but Buildbot's own policy would wait up to a minute by now.
            until(lambda: running.attached, one.log, 20)


def test_the_environment_comes_with_the_rest(tmp_path: Path) -> None:
    """What builds need in their environment is told on standard input; the password is neither there nor on the command line."""
    with (
        small_master(tmp_path / "master", command="echo proxy=$http_proxy") as running,
        worker(tmp_path / "worker", running.port, environment={"http_proxy": "http://p:1/"}) as one,
    ):
        said = until(running.said, one.log)
        assert "\nproxy=http://p:1/\n" in said
        for file in ("environ", "cmdline"):
            assert PASSWORD.encode() not in Path(f"/proc/{one.process.pid}/{file}").read_bytes()


class _Rendezvous:
    """A server that gives the answers it is told to, one for each question."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/boot/token"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_machine_made_ahead_waits_for_its_name(plain: SmallMaster, tmp_path: Path) -> None:
    """It asks again after 204 and after errors, and attaches under the name that it is told."""
    answers = [(204, ""), (500, "broken"), (200, "no JSON"), (204, ""), (200, json.dumps({"worker": WORKER}))]
    with (
        _Rendezvous(*answers) as there,
        worker(tmp_path / "worker", plain.port, rendezvous=there.url, name="nobody") as one,
    ):
        until(lambda: plain.attached, one.log)
        assert "the master cannot be asked for a build: HTTPError: HTTP Error 500" in one.log()
        assert f"a build has come: this machine is worker {WORKER}" in one.log()


@pytest.mark.parametrize("status", [404, 410])
def test_a_machine_that_is_not_wanted_ends(tmp_path: Path, status: int) -> None:
    """404 and 410 end the process with a status of its own, which has the machine power itself off."""
    with (
        _Rendezvous((status, "gone")) as there,
        worker(tmp_path / "worker", 1, rendezvous=there.url, name="nobody") as one,
    ):
        assert one.process.wait(60 * SLOW) == 4
        assert "this machine is not wanted any more" in one.log()


def test_no_proxy_stands_between_machine_and_master(tmp_path: Path) -> None:
    """A proxy leads out to mirrors; the rendezvous is asked directly."""
    with (
        _Rendezvous((404, "gone")) as there,
        worker(
            tmp_path / "worker", 1, rendezvous=there.url, name="nobody",
            environment={"http_proxy": "http://127.0.0.1:1/", "PATH": os.environ["PATH"]},
        ) as one,
    ):  # fmt: skip
        assert one.process.wait(60 * SLOW) == 4
