"""deploy/nginx.conf, in a real nginx, in front of the real package server."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.nginx import Nginx, nginx
from tests.package_server_process import KEY, PackageServerProcess
from tests.patience import until
from tests.published import Publications

DEB = f"{KEY.replace('/', '/sha1/')}/pool/a.deb"
CONTENT = os.urandom(3_000_000)


class Www(BaseHTTPRequestHandler):
    """Stands for the web UI: tells what it was asked, and keeps connections to /ws/ open."""

    protocol_version = "HTTP/1.1"
    end = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.startswith("/ws/"):
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

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    with PackageServerProcess(directory) as server:
        Publications(directory).publish(KEY, "1", contents={"pool/a.deb": CONTENT})
        yield server


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, server: PackageServerProcess) -> Iterator[Nginx]:
    """Run nginx with deploy/nginx.conf as it is, but for fronts and certificates."""
    www = ThreadingHTTPServer(("127.0.0.1", 0), Www)
    www.daemon_threads = True
    threading.Thread(target=www.serve_forever, daemon=True).start()
    directory = tmp_path_factory.mktemp("nginx")
    try:
        with nginx(directory, packages=server.port, www=www.server_address[1]) as running:
            yield running
            Www.end.set()
    finally:
        Www.end.set()
        www.shutdown()
        www.server_close()


def ask(front: Nginx, method: str, path: str, body: bytes = b"", **headers: str) -> requests.Response:
    named = {"Host": "packages.example.org"} | {key.replace("_", "-"): text for key, text in headers.items()}
    url = f"https://127.0.0.1:{front.https}/{path}"
    return requests.request(
        method,
        url,
        data=body,
        headers=named,
        timeout=60,
        allow_redirects=False,
        verify=str(front.certificate),
    )


def test_files_and_parts_come_through(front: Nginx) -> None:
    """Whole, in part, not at all if unchanged, and with the headers that protect the reader."""
    whole = ask(front, "GET", DEB)
    assert whole.content == CONTENT
    assert whole.headers["Content-Security-Policy"] == "sandbox"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    part = ask(front, "GET", DEB, Range="bytes=1000000-1000099", If_Range=whole.headers["ETag"])
    assert (part.status_code, part.content) == (206, CONTENT[1000000:1000100])
    assert ask(front, "GET", DEB, If_None_Match=whole.headers["ETag"]).status_code == 304
    assert ask(front, "HEAD", DEB).headers["Content-Length"] == str(len(CONTENT))


def test_a_redirect_stays_on_the_host(front: Nginx) -> None:
    """The package server's own front is not to be seen."""
    response = ask(front, "GET", KEY.split("/", maxsplit=1)[0])
    assert response.status_code == 301
    assert "127.0.0.1" not in response.headers["Location"]


@pytest.mark.parametrize("path", ["%2e%2e%2fsecret", "..%5csecret", ".hidden", "a/%2e%2e/%2e%2e/secret"])
def test_no_path_leaves_the_tree(front: Nginx, path: str) -> None:
    """Neither server lets one out."""
    with front.connect() as connection:
        connection.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) in (400, 404)


def test_an_upload_comes_through(server: PackageServerProcess, front: Nginx) -> None:
    """A body of any size, to the server that checks it."""
    token = server.open()
    body = os.urandom(1_000_000) * 30
    response = ask(front, "PUT", f"upload/{KEY}/pool/a.deb", body, Authorization=f"Bearer {token}")
    assert response.status_code == 201
    assert server.files(token) == {"pool/a.deb": (len(body), hashlib.sha256(body).hexdigest())}


def test_an_upload_is_not_buffered(server: PackageServerProcess, front: Nginx) -> None:
    """The first bytes are with the package server before the last are sent."""
    token = server.open()
    head = (
        f"PUT /upload/{KEY}/a HTTP/1.1\r\nHost: packages.example.org\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 9000000\r\n\r\n"
    )
    with front.connect() as connection:
        connection.sendall(head.encode() + b"x" * 8_000_000)
        until(
            lambda: any(path.stat().st_size > 1_000_000 for path in server.growing()),
            "the first of it is through",
            30,
        )
        connection.sendall(b"x" * 1_000_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201 Created")


@pytest.mark.parametrize("size", [10, 60_000_000])
def test_a_refusal_comes_through(front: Nginx, size: int) -> None:
    """With its sentence, whatever the body's size: nginx makes no 502 of it."""
    head = (
        f"PUT /upload/{KEY}/a HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\n"
        f"Authorization: Bearer wrong\r\nContent-Length: {size}\r\n\r\n"
    )
    answer = b""
    with front.connect() as connection:
        connection.sendall(head.encode())
        try:
            connection.sendall(b"x" * size)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            assert size > 1_000_000
        while not answer.endswith(b"now.\n"):
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized")


def test_only_uploads_have_bodies(front: Nginx) -> None:
    """What reads has nothing to send."""
    assert ask(front, "POST", "key.asc", b"x" * 1000).status_code == 413


def test_one_word_about_caches_comes_through(front: Nginx) -> None:
    """The package server's own word comes through alone, and nginx's own refusals are not kept either."""
    for method, path, body, status, word in (
        ("GET", DEB, b"", 200, "no-cache"),
        ("GET", "nothing", b"", 404, "no-store"),
        ("POST", "key.asc", b"", 405, "no-store"),
        ("POST", "key.asc", b"x" * 1000, 413, "no-store"),
        ("GET", "a" * 10_000, b"", 414, "no-store"),
    ):
        answer = ask(front, method, path, body)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (status, word), path[:99]


def test_the_web_ui_has_another_host(front: Nginx) -> None:
    """It is told who asked, and by which name."""
    seen = ask(front, "GET", "", Host="builds.example.org").json()
    assert seen["Host"] == "builds.example.org"
    assert seen["X-Forwarded-Proto"] == "https"
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert seen["X-Real-IP"] == "127.0.0.1"
    assert "Upgrade" not in seen


def test_websockets_come_through(front: Nginx) -> None:
    """Buildbot's UI may ask to upgrade."""
    seen = ask(
        front, "GET", "ws", Host="builds.example.org", Upgrade="websocket", Connection="Upgrade"
    ).json()
    assert seen["Upgrade"] == "websocket"
    assert seen["Connection"] == "upgrade"


def test_d13_plain_http_leads_to_https(front: Nginx) -> None:
    """Nothing is served without TLS."""
    for host in ("packages.example.org", "builds.example.org"):
        url = f"http://127.0.0.1:{front.http}/a?b=c"
        answer = requests.get(url, headers={"Host": host}, timeout=30, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (301, f"https://{host}/a?b=c")
    assert "max-age" in ask(front, "GET", "", Host="builds.example.org").headers["Strict-Transport-Security"]


def test_a4_a_large_body_does_not_reach_the_master(front: Nginx) -> None:
    """The limit of a body is the master's own."""
    host = "builds.example.org"
    assert ask(front, "POST", "api", b"x" * 65_536, Host=host).status_code == 200
    assert ask(front, "POST", "api", b"x" * 65_537, Host=host).status_code == 413


def test_a2_websockets_of_one_address_are_limited(front: Nginx) -> None:
    """Of thirty connections of one address that stay open, twenty are open at the same time."""
    opened = []
    try:
        for _ in range(30):
            connection = front.connect()
            opened.append(connection)
            connection.sendall(b"GET /ws/x HTTP/1.1\r\nHost: builds.example.org\r\n\r\n")
        answers = [connection.recv(12) for connection in opened]
    finally:
        for connection in opened:
            connection.close()
    assert answers.count(b"HTTP/1.1 429") >= 10
    assert answers.count(b"HTTP/1.1 200") >= 10


def test_d5_logins_of_one_address_are_limited(front: Nginx) -> None:
    """Of many logins in a moment, the first ones pass; reading is not limited."""
    host = "builds.example.org"
    logins = [ask(front, "GET", "auth/login", Host=host).status_code for _ in range(40)]
    assert logins[:20] == [200] * 20
    assert 429 in logins
    assert {ask(front, "GET", "api", Host=host).status_code for _ in range(60)} == {200}


def test_d5_posts_of_one_address_are_limited(front: Nginx) -> None:
    """A bridge that sends two hundred requests at once is served; who goes on like that is not."""
    host = "builds.example.org"
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(ask, front, "POST", "api", Host=host) for _ in range(600)]
        statuses = [one.result().status_code for one in sent]
    assert statuses[:150] == [200] * 150
    assert 429 in statuses
