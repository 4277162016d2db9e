"""A local stand-in for the servers that Ceph's make-dist downloads from, reached through `https_proxy`."""

from __future__ import annotations

import socketserver
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Mirror(socketserver.ThreadingTCPServer):
    """Answers for every host: the files that it has by the last part of their path, and 404 for everything else."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, files: Mapping[str, bytes], certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        self.files = files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.requested: list[str] = []

    @property
    def url(self) -> str:
        """The value for https_proxy."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    host = ""

    @property
    def mirror(self) -> Mirror:
        return cast("Mirror", self.server)

    def do_GET(self) -> None:
        self.mirror.requested.append(f"https://{self.host}{self.path}")
        data = self.mirror.files.get(self.path.rpartition("/")[2])
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        pass


class _Proxy(_Handler):
    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        host = self.path.partition(":")[0]
        handler = type("_Inside", (_Handler,), {"host": host})
        try:
            with self.mirror.context.wrap_socket(self.connection, server_side=True) as inside:
                handler(inside, self.client_address, self.server)
        except OSError:
            pass  # The client does not trust the certificate, or has gone.
        self.close_connection = True


@contextmanager
def mirror(directory: Path, files: Mapping[str, bytes]) -> Iterator[Mirror]:
    """Serve these files while the context lasts."""
    certificate = directory / "mirror.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mirror",
         "-keyout", certificate, "-out", f"{certificate}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate.write_text(certificate.read_text() + certificate.with_name("mirror.pem.crt").read_text())
    with Mirror(files, certificate) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
