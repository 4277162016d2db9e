"""A real nginx that runs deploy/nginx.conf, changed only in its ports and certificates."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.patience import free_ports, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

CONF = Path(__file__).parent.parent / "deploy/nginx.conf"
MAIN = """
daemon off;
{user}worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/packages.conf;
}}
"""


@dataclass
class Nginx:
    """The ports of a running nginx, and the certificate that it shows."""

    http: int
    https: int
    certificate: Path

    def connect(self) -> ssl.SSLSocket:
        """Return a connection with TLS."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        plain = socket.create_connection(("127.0.0.1", self.https), timeout=60)
        return context.wrap_socket(plain, server_hostname="packages.example.org")


@contextmanager
def nginx(directory: Path, *, packages: int, www: int) -> Iterator[Nginx]:
    """Run nginx in front of a package server and a web UI at these ports."""
    http, https = free_ports(2)
    certificate, key = directory / "nginx.crt", directory / "nginx.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=packages.example.org", "-addext",
            "subjectAltName=DNS:packages.example.org,DNS:builds.example.org,IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    text = CONF.read_text()
    for pattern, new in (
        (r"listen 80;", f"listen 127.0.0.1:{http};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{https} ssl;"),
        (r"server 127.0.0.1:8011;", f"server 127.0.0.1:{packages};"),
        (r"server 127.0.0.1:8010;", f"server 127.0.0.1:{www};"),
        (r"ssl_certificate +[^;]+;", f"ssl_certificate {certificate};"),
        (r"ssl_certificate_key +[^;]+;", f"ssl_certificate_key {key};"),
    ):
        text, count = re.subn(pattern, new, text)
        assert count, pattern
    (directory / "packages.conf").write_text(text)
    user = "user root;\n" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user))
    process = subprocess.Popen(
        ["nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "error.log"]
    )
    try:
        listens(process, ("127.0.0.1", https), (directory / "error.log").read_text)
        yield Nginx(http, https, certificate)
    finally:
        process.terminate()
        process.wait(30)
