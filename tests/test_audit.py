"""`make audit` says what it found and what it could not ask; the latter is no clean result.

The real advisory services are not asked. A local proxy stands in for both: it answers for the package index and Debian's security tracker in
their own formats, with a certificate that the real pip-audit and debsecan are made to trust.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from pip_audit._service import pypi as pip_audit_service

from tests.patience import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parent.parent
INDEX = re.findall(r"https://([\w.-]+)/pypi/", inspect.getsource(pip_audit_service))
"""The host that the installed pip-audit asks."""
SERVICES = (*INDEX, "security-tracker.debian.org")

PYPI = {
    "twisted": {
        "id": "PYSEC-2099-1", "aliases": ["CVE-2099-1"], "summary": "x", "fixed_in": ["99.1.0"], "published": "2099-01-01T00:00:00Z",
    },
}  # fmt: skip
"""Advisories by package, as the index has them for each release."""

DEBIAN = """\
VERSION 1
CVE-2099-2,,of git
CVE-2099-3,,of bash

git,0,SHRF,99:1,
bash,1,SHRF,99:1,

git,git git-man
bash,bash

"""
"""Two packages that most machines have. The master needs git; bash is none of the packages that it names."""

NO_ADVISORIES = "VERSION 1\n\n\n\n"


class _Proxy(BaseHTTPRequestHandler):
    """Answers what is asked through a tunnel itself."""

    protocol_version = "HTTP/1.1"
    server: _Services

    def do_CONNECT(self) -> None:
        """Begin TLS in the place of the service."""
        assert self.path in [f"{name}:443" for name in SERVICES], self.path
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]
        self.close_connection = False  # http.client sends CONNECT as HTTP/1.0.

    def do_GET(self) -> None:
        """Answer with the advisories of a release of a Python package, or with all of Debian."""
        release = re.fullmatch(r"/pypi/([^/]+)/[^/]+/json", self.path)
        if release:
            found = self.server.pypi.get(release[1])
            body = json.dumps({"vulnerabilities": [found] if found else []}).encode()
        else:
            assert self.path.startswith("/tracker/debsecan/release/1/"), self.path
            body = zlib.compress(self.server.debian.encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Services(ThreadingHTTPServer):
    """The stand-in for both services."""

    def __init__(self, tls: ssl.SSLContext, pypi: dict[str, dict], debian: str) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        self.tls, self.pypi, self.debian = tls, pypi, debian


@contextmanager
def services(directory: Path, pypi: dict[str, dict], debian: str) -> Iterator[dict[str, str]]:
    """Serve advisories, and yield the environment that leads programs there."""
    certificate, key = directory / "ca.crt", directory / "ca.key"
    names = ",".join(f"DNS:{name}" for name in SERVICES)
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=advisories", "-addext", f"subjectAltName={names}",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with _Services(tls, pypi, debian) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            **through(f"http://127.0.0.1:{server.server_port}"),
            **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(certificate)),
            # pip-audit keeps answers in pip's cache, where the real ones would be found and these would stay.
            "PIP_CACHE_DIR": str(directory / "cache"),
        }
        server.shutdown()


def through(proxy: str) -> dict[str, str]:
    """Return the environment that has every request go through a proxy."""
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    return {**dict.fromkeys(names, proxy), "no_proxy": "", "NO_PROXY": ""}


def audit(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what `make audit` runs."""
    return subprocess.run(
        [sys.executable, "deploy/audit.py"],
        cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_known_vulnerability_is_found(tmp_path: Path) -> None:
    """An advisory for a locked requirement and one for a system package are printed, with status 1; others' packages are not."""
    with services(tmp_path, PYPI, DEBIAN) as environment:
        ran = audit(environment)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(
        r"^requirements\.txt:\n(.*\n)+?twisted +\S+ +PYSEC-2099-1 +99\.1\.0", ran.stdout, re.MULTILINE
    )
    assert re.search(r"^CVE-2099-2 git\b", ran.stdout, re.MULTILINE)
    assert "CVE-2099-3" not in ran.stdout


def test_no_known_vulnerability_is_status_0(tmp_path: Path) -> None:
    """Services that know of nothing are a clean result, which names what was checked."""
    with services(tmp_path, {}, NO_ADVISORIES) as environment:
        ran = audit(environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines() == [
        "requirements.txt: no known vulnerabilities",
        "workers/worker-requirements.txt: no known vulnerabilities",
        "system packages: no update fixes a known vulnerability",
    ]


def test_a_service_that_cannot_be_reached_is_named() -> None:
    """Without the network, pip-audit and debsecan both end in a sentence, and the status is not that of a finding."""
    [closed] = free_ports(1)
    ran = audit(through(f"http://127.0.0.1:{closed}"))
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "pip-audit could not check requirements.txt: " in ran.stderr
    assert "debsecan could not ask Debian's security tracker: " in ran.stderr
    assert "no known" not in ran.stdout
