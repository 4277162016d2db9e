"""Attacks by strangers, other sites' pages and other users, on the web port, the package server and the master's git."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import time
from contextlib import ExitStack
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests
from twisted.web.resource import Resource
from twisted.web.server import Site

from master.package_server.service import _IDLE_SECONDS
from master.users import digest
from tests.integration.cloud_cases import Gate
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE, MALLORY = "alice's long and random secret", "mallory's long and random secret"
IDLE = 500
"""Connections to each port that say nothing, or never end what they say."""
BEGUN = (
    b"",
    b"GET / HT",
    b"GET /version HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
)
"""Beginnings of requests that nobody ends."""
SHORT_LIMITS = """
from twisted.web import http

_real = http.HTTPFactory.__init__

def shorter(self, *arguments, **options):
    _real(self, *arguments, **options)
    self.timeOut /= 12

http.HTTPFactory.__init__ = shorter
"""
"""Makes the time limits of both ports a twelfth, so that a test can wait for them."""


class Recorder(BaseHTTPRequestHandler):
    """A git server of Mallory's: it redirects, wants passwords, or is the place that nobody should be sent to."""

    seen: list[tuple[str, dict[str, str]]]
    elsewhere = ""

    def do_GET(self) -> None:
        """Answer by the first part of the path."""
        self.seen.append((self.path, dict(self.headers)))
        kind = self.path.split("/")[1]
        if kind.startswith("30"):
            self.send_response(int(kind))
            self.send_header("Location", f"{self.elsewhere}{self.path.replace(kind, 'reached')}")
        elif kind in ("Basic", "Negotiate", "NTLM", "Digest"):
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", f'{kind} realm="x", nonce="x"' if kind != "NTLM" else kind)
        else:
            self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class Recording:
    """A server that records what it is asked for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.handler = type("Handler", (Recorder,), {"seen": self.seen})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Recording, Recording]]:
    """Return a git server below an allowed prefix, and one that is not allowed, to which the first one redirects."""
    with Recording() as allowed, Recording() as forbidden:
        allowed.handler.elsewhere = forbidden.url
        yield allowed, forbidden


@pytest.fixture(scope="module")
def here(
    tmp_path_factory: pytest.TempPathFactory, servers: tuple[Recording, Recording]
) -> Iterator[Installation]:
    """A running master with two users, which has built one commit."""
    users = {"alice": digest(ALICE), "mallory": digest(MALLORY)}
    with tiny_installation(
        tmp_path_factory.mktemp("strangers"),
        patch=SHORT_LIMITS,
        users=users,
        also_allowed=[f"{servers[0].url}/"],
    ) as made:
        answer = made.ask(DEB, ref="main")
        assert made.wait(answer)["results"] == 0, made.said(answer)
        yield made


def say(here: Installation, path: str, method: str, secret: str, **params: Any) -> requests.Response:
    """Send a method to the REST API, as the user with a secret or as nobody."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return requests.post(f"{here.url}api/v2/{path}", json=body, headers=headers, timeout=60)


def to_end(client: socket.socket) -> bytes:
    """Return what comes until the server ends the connection."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            received += chunk
    return bytes(received)


def queued(here: Installation) -> int:
    """Return how many requests there have been."""
    return len(here.get("buildsets")["buildsets"])


# A12


def test_a12_idle_and_slow_connections_keep_nobody_out(here: Installation) -> None:
    """With five hundred connections to each port that say nothing or half of something, all is answered at once."""
    with ExitStack() as stack:
        clients = []
        for port in (here.settings.www.port, here.settings.packages.port):
            for number in range(IDLE):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                client.sendall(BEGUN[number % len(BEGUN)])
                clients.append(client)
        for round_ in range(10):
            for client in clients[round_ :: len(clients) // 100]:
                with contextlib.suppress(ConnectionError):
                    client.sendall(b"x")
            for url in (f"{here.url}api/v2/builders", f"{here.packages_url}{DEB}/"):
                began = time.monotonic()
                assert requests.get(url, timeout=30).status_code == 200
                assert time.monotonic() - began < 2
        assert say(here, "forceschedulers/packages", "force", ALICE, builderNames=[DEB], ref="main").ok


def test_a12_who_says_nothing_is_dropped(here: Installation) -> None:
    """Both ports drop a client that says nothing, or half of a request, or reads nothing of a large file, after the time limit."""
    large = here.packages / "large"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    with ExitStack() as stack:
        clients = []
        for port in (here.settings.www.port, here.settings.packages.port):
            for begun in BEGUN:
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                client.sendall(begun)
                clients.append(client)
        reader = stack.enter_context(socket.socket())
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", here.settings.packages.port))
        reader.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            to_end(client)
        here.until(lambda: not established(reader), "who reads nothing is dropped", 15)
    large.unlink()


def established(client: socket.socket) -> bool:
    """Return whether the kernel has seen no end of a connection."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


def test_a12_the_time_limits_are_short() -> None:
    """Without the factor of these tests, the limits are a minute for the web port and two for the package server."""
    assert Site(Resource()).timeOut == 60
    assert _IDLE_SECONDS == 120


# D4

FOREIGN = [
    "http://evil.example",
    "null",
    "PACKAGES",
    "OTHER PORT",
    "OWN.evil.example",
    "https://OWN",
    "file://",
    "http://OWN@evil.example",
]
BODIES = {
    "application/json": "{body}",
    "text/plain": "{body}",
    "application/x-www-form-urlencoded": "{body}=",
    "multipart/form-data; boundary=x": '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n{body}\r\n--x--\r\n',
    "application/json-rpc": "{body}",
    "text/json": "{body}",
    "": "{body}",
}


@pytest.fixture(scope="module")
def session(here: Installation) -> requests.Session:
    """Return the session of Alice's browser, which sends her cookie."""
    made = requests.Session()
    made.get(f"{here.url}auth/login", auth=("alice", ALICE), allow_redirects=False, timeout=30)
    assert made.cookies
    return made


@pytest.mark.parametrize("content_type", BODIES)
@pytest.mark.parametrize("origin", FOREIGN)
def test_d4_another_sites_page_asks_for_nothing(
    here: Installation, session: requests.Session, origin: str, content_type: str
) -> None:
    """Even with the user's cookie, which SameSite=Strict keeps back, a request of another origin is refused, whatever its type."""
    own = here.url.removeprefix("http://").rstrip("/")
    origin = origin.replace("OWN", own).replace("PACKAGES", here.packages_url.rstrip("/"))
    origin = origin.replace("OTHER PORT", f"http://127.0.0.1:{here.git_port}")
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"builderNames": [DEB], "ref": "main"}}
    )
    before = queued(here)
    answer = session.post(
        f"{here.url}api/v2/forceschedulers/packages",
        data=BODIES[content_type].format(body=body),
        headers={"Origin": origin, "Content-Type": content_type},
        timeout=30,
    )
    assert answer.status_code in (400, 403), answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert queued(here) == before


def test_d4_no_other_method_asks_or_allows(here: Installation, session: requests.Session) -> None:
    """Neither GET with the method in the query, nor PUT, nor DELETE asks for anything; OPTIONS allows other sites nothing."""
    before = queued(here)
    url = f"{here.url}api/v2/forceschedulers/packages"
    query = {
        "method": "force",
        "jsonrpc": "2.0",
        "id": "1",
        "params": "{}",
        "builderNames": DEB,
        "ref": "main",
    }
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "post"):
        session.request(method, url, params=query, json={"method": "force"}, timeout=30)
    preflight = session.options(
        url,
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert not [name for name in preflight.headers if name.lower().startswith("access-control-")]
    assert queued(here) == before


def test_d4_the_own_page_may_ask(here: Installation, session: requests.Session) -> None:
    """The same request from the UI's own origin is answered, so that the refusals above are those of the origin."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"builderNames": [DEB], "ref": "main"}}
    headers = {"Origin": here.url.rstrip("/")}
    url = f"{here.url}api/v2/forceschedulers/packages"
    assert session.post(url, json=body, headers=headers, timeout=30).status_code == 200


# D6


@pytest.fixture(scope="module")
def victim(here: Installation) -> Iterator[dict[str, Any]]:
    """Alice's request, which builds, and what names it."""
    with Gate() as gate:
        sha1 = here.repository.commit(gate.knobs)
        answer = say(here, "forceschedulers/packages", "force", ALICE, builderNames=[DEB], sha1=sha1).json()
        buildset, numbers, _ = answer["result"]
        [number] = numbers.values()
        request = {"buildrequest_ids": numbers}
        [build] = here.until(lambda: here.builds(request), "it builds")
        yield {"request": number, "build": build["buildid"], "builder": build["builderid"], "number": build["number"],
               "worker": build["workerid"], "buildset": buildset, "sha1": sha1}  # fmt: skip
        gate.open()
        assert here.wait(request)["results"] == 0, here.said(request)


ATTEMPTS = [
    ("builds/{build}", "stop"),
    ("builders/{builder}/builds/{number}", "stop"),
    (f"builders/{DEB}/builds/{{number}}", "stop"),
    ("buildrequests/{request}/builds/{number}", "stop"),
    ("workers/{worker}/builds/{number}", "stop"),
    ("builds", "stop"),
    ("builders/{builder}/builds", "stop"),
    ("builders/{builder}", "stop"),
    (f"builders/{DEB}", "stop"),
    ("buildrequests/{request}", "cancel"),
    ("builders/{builder}/buildrequests/{request}", "cancel"),
    (f"builders/{DEB}/buildrequests/{{request}}", "cancel"),
    ("buildrequests", "cancel"),
    ("buildrequests/{request}", "set_priority"),
    ("buildsets/{buildset}", "cancel"),
    ("packages/{request}", "withdraw"),
    ("packages/{request}", "renew"),
    ("packages", "withdraw"),
    ("schedulers/1", "enable"),
    ("schedulers/1", "disable"),
    ("workers/{worker}", "pause"),
    ("workers/{worker}", "unpause"),
    ("workers/{worker}", "stop"),
    ("workers/{worker}", "kill"),
    ("builders/{builder}/workers/{worker}", "pause"),
    ("masters/1", "stop"),
    ("masters/1/builders/{builder}/workers/{worker}", "kill"),
    ("forceschedulers/packages", "stop"),
    ("steps/1", "stop"),
    ("changes", "add"),
    ("logs/1", "delete"),
]  # fmt: skip


@pytest.mark.parametrize("secret", ["", MALLORY], ids=["nobody", "mallory"])
def test_d6_nobody_ends_or_delays_anothers_request(
    here: Installation, victim: dict[str, Any], secret: str
) -> None:
    """By no path and no spelling of a method can another user stop, cancel, reorder or withdraw a request, or pause a worker."""
    params = {"priority": -100, "owner": "alice", "username": "alice", "job": "", "enabled": False}
    for path, method in ATTEMPTS:
        for spelling in (method, method.upper()):
            answer = say(here, path.format(**victim), spelling, secret, **params)
            assert answer.status_code in ((400, 403, 404) if secret else (403,)), (
                path,
                spelling,
                answer.text,
            )
        unchanged(here, victim, path)


def unchanged(here: Installation, victim: dict[str, Any], path: str) -> None:
    """Check that a request builds as before, for Alice alone, and that its worker works."""
    [request] = here.get(f"buildrequests/{victim['request']}")["buildrequests"]
    assert (request["complete"], request["priority"]) == (False, 0), path
    [build] = here.get(f"builds/{victim['build']}")["builds"]
    assert build["complete"] is False, path
    [worker] = here.get(f"workers/{victim['worker']}")["workers"]
    assert (worker["paused"], worker["graceful"]) == (False, False), path
    [status] = here.get(f"packages/{victim['request']}")["packages"]
    assert [one["asker"] for one in status["waiting"]] == ["alice"], path


def test_d6_the_owner_of_a_request_is_who_asks(here: Installation, victim: dict[str, Any]) -> None:
    """A claimed owner is refused, in a request and in a rebuild, in any spelling of the method."""
    before = queued(here)
    for method in ("force", "FORCE", "Force"):
        for claim in ("owner", "username", "user", "asker"):
            answer = say(
                here,
                "forceschedulers/packages",
                method,
                MALLORY,
                builderNames=[DEB],
                ref="main",
                **{claim: "alice"},
            )
            assert answer.status_code == 400, answer.text
    assert queued(here) == before


# D8


@pytest.fixture(scope="module")
def paused(here: Installation, victim: dict[str, Any]) -> Iterator[None]:
    """Pause the workers, so that nothing but the master contacts a git server; remove what was queued afterwards."""
    workers = [worker["workerid"] for worker in here.get("workers")["workers"]]
    for worker in workers:
        say(here, f"workers/{worker}", "pause", here.token)
    yield
    for request in here.get("buildrequests?complete=false")["buildrequests"]:
        if request["buildrequestid"] != victim["request"]:
            assert say(here, f"buildrequests/{request['buildrequestid']}", "cancel", here.token).ok
    for worker in workers:
        say(here, f"workers/{worker}", "unpause", here.token)


@pytest.mark.usefixtures("paused")
@pytest.mark.parametrize("kind", ["301", "302", "303", "307", "308", "Basic", "Negotiate", "NTLM", "Digest"])
def test_d8_the_master_is_sent_nowhere_and_says_nothing(
    here: Installation, servers: tuple[Recording, Recording], kind: str
) -> None:
    """The master follows no redirect of an allowed git server, and sends no name, password or NTLM message to one that asks."""
    allowed, forbidden = servers
    allowed.seen.clear()
    common = {"builderNames": [DEB], "git_url": f"{allowed.url}/{kind}/ceph.git"}
    answer = say(here, "forceschedulers/packages", "force", MALLORY, ref="main", **common)
    assert answer.status_code == 400, answer.text
    asked = len(allowed.seen)
    assert asked >= 1
    # Of a commit nothing is known, so it is accepted for the build to find out.
    say(
        here,
        "forceschedulers/packages",
        "force",
        MALLORY,
        sha1=hashlib.sha1(kind.encode()).hexdigest(),
        **common,
    )
    assert len(allowed.seen) > asked, "it is asked for the commit as well"
    assert [headers for _, headers in allowed.seen if "Authorization" in headers] == []
    assert forbidden.seen == []


# D10


def talk(port: int, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request)
        return to_end(client)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEADS = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding\x20: chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Content-Length: 0\r\nContent-Length: 37",
    b"Content-Length: 37, 0",
    b"Content-Length: +37",
    b"Content-Length: -37",
    b"Content-Length: 0x25",
    b"Content-Length: 3_7",
    b"Content-Length: 37 0",
    b"Content-Length\x20: 37",
    b"Content-Length: 37\x00",
    b"X: y\x00z",
    b"X\xff: y",
]
PORTS = ["www", "packages"]


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("head", HEADS)
def test_d10_no_body_becomes_a_request(here: Installation, name: str, head: bytes) -> None:
    """A head whose length can be read in two ways is refused, and the connection ends: what follows is no request."""
    port = getattr(here.settings, name).port
    answer = talk(port, b"GET /first HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize(
    "head", [b"X: y\r\n Content-Length: 57", b" Content-Length: 57", b"X: y\n\tContent-Length: 57"]
)
def test_d10_a_folded_line_is_no_header(here: Installation, name: str, head: bytes) -> None:
    """A line that begins with a blank belongs to the header before it, so it gives the request no body."""
    port = getattr(here.settings, name).port
    answer = talk(port, b"GET /first HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 400") or answer.count(b"HTTP/1.1 ") == 2, answer


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize(
    "path",
    [
        "%0d%0aSet-Cookie:%20x=y",
        "/evil.example/%2e%2e",
        "\\evil.example",
        "%5c%5cevil.example",
        f"{DEB}%0d%0aX:%20y",
        f"{DEB}?%0d%0aX:%20y",
    ],
)
def test_d10_no_path_makes_a_header_or_leads_away(here: Installation, name: str, path: str) -> None:
    """An encoded end of line stays quoted in a redirect, and no redirect leads to another host."""
    port = getattr(here.settings, name).port
    answer = talk(port, f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nset-cookie" not in head
    assert b"\r\nx: y" not in head
    assert b"location: //" not in head
    assert b"evil" not in head


def test_d10_only_what_is_published_is_served(here: Installation) -> None:
    """Neither staging, nor the master's state, nor wheels or boot files of no machine can be read."""
    names = ("staging/", "../staging/", "state/", "wheels/", "wheels/../../state/token", "boot/", "boot/x", "boot/..%2f..%2fstate%2ftoken",
             "upload/", f"upload/{DEB}/", ".git/config", "settings.yaml", "twistd.log", "server-status")  # fmt: skip
    for name in names:
        answer = talk(
            here.settings.packages.port,
            f"GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
        )
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 405")), (name, answer[:200])
        assert here.token.encode() not in answer


def test_d10_a_search_of_a_thousand_distributions_is_short(here: Installation) -> None:
    """However many distributions a search names, it is answered at once, and the server goes on."""
    distros = ",".join(f"ubuntu/{number}" for number in range(1050))
    began = time.monotonic()
    for query in (
        f"distros={distros}",
        f"distros={'ubuntu/jammy/x86_64,' * 500}",
        f"ref={'a' * 10_000}",
        "sha1=latest&" * 500,
    ):
        assert (
            requests.get(f"{here.packages_url}api/search?project=ceph&{query}", timeout=30).status_code < 500
        )
    assert time.monotonic() - began < 5
