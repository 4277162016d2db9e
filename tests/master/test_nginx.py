"""deploy/nginx.conf, in a real nginx, in front of the real package server."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.package_server_process import KEY, PackageServerProcess
from tests.patience import free_ports, listens, until
from tests.published import Publications

CONF = Path(__file__).parent.parent.parent / "deploy/nginx.conf"
DEB = f"{KEY.replace('/', '/sha1/')}/pool/a.deb"
CONTENT = os.urandom(3_000_000)
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


class Www(BaseHTTPRequestHandler):
    """Stands for the web UI: tells what it was asked, and streams an event without an end."""

    protocol_version = "HTTP/1.1"
    end = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.startswith("/sse/"):
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"event: first\n\n")
            self.end.wait(60)
            self.close_connection = True
            return
        body = json.dumps(dict(self.headers)).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    with PackageServerProcess(directory) as server:
        Publications(directory).publish(KEY, "1", contents={"pool/a.deb": CONTENT})
        yield server


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, server: PackageServerProcess) -> Iterator[int]:
    """Start nginx with the file as it is, but for ports."""
    directory, [port] = tmp_path_factory.mktemp("nginx"), free_ports(1)
    www = ThreadingHTTPServer(("127.0.0.1", 0), Www)
    www.daemon_threads = True
    threading.Thread(target=www.serve_forever, daemon=True).start()
    text = CONF.read_text()
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:8011;", f"server 127.0.0.1:{server.port};"),
        ("server 127.0.0.1:8010;", f"server 127.0.0.1:{www.server_address[1]};"),
    ):
        assert old in text
        text = text.replace(old, new)
    (directory / "packages.conf").write_text(text)
    user = "user root;\n" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user))
    nginx = subprocess.Popen(
        ["nginx", "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "error.log"]
    )
    try:
        listens(nginx, ("127.0.0.1", port), (directory / "error.log").read_text)
        yield port
    finally:
        Www.end.set()
        nginx.terminate()
        nginx.wait(30)
        www.shutdown()
        www.server_close()


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> requests.Response:
    named = {"Host": "packages.example.org"} | {key.replace("_", "-"): text for key, text in headers.items()}
    url = f"http://127.0.0.1:{port}/{path}"
    return requests.request(method, url, data=body, headers=named, timeout=60, allow_redirects=False)


def test_files_and_parts_come_through(port: int) -> None:
    """Whole, in part, not at all if unchanged, and with the headers that protect the reader."""
    whole = ask(port, "GET", DEB)
    assert whole.content == CONTENT
    assert whole.headers["Content-Security-Policy"] == "sandbox"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    part = ask(port, "GET", DEB, Range="bytes=1000000-1000099", If_Range=whole.headers["ETag"])
    assert (part.status_code, part.content) == (206, CONTENT[1000000:1000100])
    assert ask(port, "GET", DEB, If_None_Match=whole.headers["ETag"]).status_code == 304
    assert ask(port, "HEAD", DEB).headers["Content-Length"] == str(len(CONTENT))


def test_a_redirect_stays_on_the_host(port: int) -> None:
    """The package server's own port is not to be seen."""
    response = ask(port, "GET", KEY.split("/", maxsplit=1)[0])
    assert response.status_code == 301
    assert "127.0.0.1" not in response.headers["Location"]


@pytest.mark.parametrize("path", ["%2e%2e%2fsecret", "..%5csecret", ".hidden", "a/%2e%2e/%2e%2e/secret"])
def test_no_path_leaves_the_tree(port: int, path: str) -> None:
    """Neither server lets one out."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) in (400, 404)


def test_an_upload_comes_through(server: PackageServerProcess, port: int) -> None:
    """A body of any size, to the server that checks it."""
    token = server.open()
    body = os.urandom(1_000_000) * 30
    response = ask(port, "PUT", f"upload/{KEY}/pool/a.deb", body, Authorization=f"Bearer {token}")
    assert response.status_code == 201
    assert server.files(token) == {"pool/a.deb": (len(body), hashlib.sha256(body).hexdigest())}


def test_an_upload_is_not_buffered(server: PackageServerProcess, port: int) -> None:
    """The first bytes are with the package server before the last are sent."""
    token = server.open()
    head = (
        f"PUT /upload/{KEY}/a HTTP/1.1\r\nHost: packages.example.org\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 9000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + b"x" * 8_000_000)
        until(
            lambda: any(path.stat().st_size > 1_000_000 for path in server.growing()),
            "the first of it is through",
            30,
        )
        connection.sendall(b"x" * 1_000_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 Created")


@pytest.mark.parametrize("size", [10, 60_000_000])
def test_a_refusal_comes_through(port: int, size: int) -> None:
    """With its sentence, whatever the body's size: nginx makes no 502 of it."""
    head = (
        f"PUT /upload/{KEY}/a HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\n"
        f"Authorization: Bearer wrong\r\nContent-Length: {size}\r\n\r\n"
    )
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        try:
            connection.sendall(b"x" * size)
        except (BrokenPipeError, ConnectionResetError):
            assert size > 1_000_000
        while not answer.endswith(b"now.\n"):
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized")


def test_only_uploads_have_bodies(port: int) -> None:
    """What reads has nothing to send."""
    assert ask(port, "POST", "key.asc", b"x" * 1000).status_code == 413


def test_one_word_about_caches_comes_through(port: int) -> None:
    """The package server's own word comes through alone, and nginx's own refusals are not kept either."""
    for method, path, body, status, word in (
        ("GET", DEB, b"", 200, "no-cache"),
        ("GET", "nothing", b"", 404, "no-store"),
        ("POST", "key.asc", b"", 405, "no-store"),
        ("POST", "key.asc", b"x" * 1000, 413, "no-store"),
        ("GET", "a" * 40_000, b"", 414, "no-store"),
    ):
        answer = ask(port, method, path, body)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (status, word), path[:99]


def test_the_web_ui_has_another_host(port: int) -> None:
    """It is told who asked, and by which name."""
    seen = ask(port, "GET", "", Host="builds.example.org").json()
    assert seen["Host"] == "builds.example.org"
    assert seen["X-Forwarded-Proto"] == "http"
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert "Upgrade" not in seen


def test_websockets_come_through(port: int) -> None:
    """Buildbot's UI may ask to upgrade."""
    seen = ask(port, "GET", "ws", Host="builds.example.org", Upgrade="websocket", Connection="Upgrade").json()
    assert seen["Upgrade"] == "websocket"
    assert seen["Connection"] == "upgrade"


def test_events_come_at_once(port: int) -> None:
    """An event is not kept until there are more."""
    headers = {"Host": "builds.example.org"}
    url = f"http://127.0.0.1:{port}/sse/listen"
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        assert next(response.iter_lines()) == b"event: first"
