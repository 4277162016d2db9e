"""One exchange by HTTP is over in time and bounded in size, and says in one sentence why there is no answer."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from tests.teuthology_bridge.peers import (
    MUTE,
    STRANGE,
    Behave,
    Peer,
    answers,
    nobody,
    request_of,
    says,
    swallowing,
)
from teuthology_bridge import timed_socket, wire
from teuthology_bridge.timed_socket import Waits
from workers.tls import self_signed

SHORT = 0.2
"""Seconds for an exchange that will not end by itself."""

ENDS = pytest.mark.timeout(30)
"""A test of something that used to last for ever: it fails instead."""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the machine's own proxies and certificates out of it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def get(url: str, timeout: float = 10) -> wire.Reply:
    return wire.exchange("GET", url, timeout=timeout)


def why_not(url: str, timeout: float = 10) -> str:
    with pytest.raises(wire.NoAnswer) as caught:
        get(url, timeout)
    return str(caught.value)


# Answers


def test_an_answer_is_given_as_it_came() -> None:
    """Status and body come as they were sent, and a missing page is an answer as well."""
    with Peer(says("200 OK", b"17.2.6-1\n")) as peer:
        assert get(f"{peer.url}version") == wire.Reply(200, b"17.2.6-1\n")
    with Peer(says("404 Not Found", b"no")) as peer:
        assert get(peer.url) == wire.Reply(404, b"no")


def test_chunks_and_an_end_without_length_are_read() -> None:
    """A body may come in chunks, or end with the connection."""
    with Peer(
        answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    ) as peer:
        assert get(peer.url).body == b"abcde"
    with Peer(answers(b"HTTP/1.0 200 OK\r\n\r\nabc")) as peer:
        assert get(peer.url).body == b"abc"


def test_what_is_sent() -> None:
    """A request names the host, its headers and its body, asks for nothing packed, and is the connection's only one."""
    seen = []

    def behave(one: socket.socket, over: Event) -> None:
        seen.append(request_of(one))
        one.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with Peer(behave) as peer:
        wire.exchange("POST", f"{peer.url}a/b?c=d", timeout=10, headers={"X-Mine": "1"}, body=b"{}")
    head = seen[0].decode().split("\r\n")
    assert head[0] == "POST /a/b?c=d HTTP/1.1"
    assert {
        f"Host: 127.0.0.1:{peer.port}",
        "X-Mine: 1",
        "Content-Length: 2",
        "Accept-Encoding: identity",
        "Connection: close",
    } <= set(head)


def test_redirects_are_not_followed() -> None:
    """A redirect is given back with where it points to, and nobody goes there."""
    with (
        Peer(says("200 OK", b"there")) as there,
        Peer(says("302 Found", b"", f"Location: {there.url}x")) as here,
    ):
        reply = get(here.url)
    assert (reply.status, reply.location, there.connections) == (302, f"{there.url}x", 0)
    assert reply.told() == f"with status 302, a redirect to {there.url}x"


def test_the_longest_body_is_read_whole() -> None:
    """A body of a MiB is taken, as the status of many packages may be long."""
    with Peer(says("200 OK", b"x" * wire.LONGEST)) as peer:
        assert len(get(peer.url).body) == wire.LONGEST


@pytest.mark.parametrize(
    "body",
    [b"<html><h1>Login</h1>", b"", b"[" * 500_000, b"1" * 100_000, b'{"a": ', b"\xff\xfe\x00"],
    ids=["html", "nothing", "deep", "a long number", "cut", "no text"],
)
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    """Whatever a body holds instead of JSON, it is told by status and beginning, in one short line."""
    with pytest.raises(wire.NoAnswer, match=r"^it answered with status 200 and .{1,220}$"):
        wire.Reply(200, body).json()


# Those that give no answer


@ENDS
@pytest.mark.parametrize("name", MUTE)
def test_an_answer_that_never_ends_is_not_waited_for(name: str) -> None:
    """The time for an exchange is for all of it: bytes that come in between do not make it longer."""
    with Peer(MUTE[name]) as peer:
        assert why_not(peer.url, SHORT) == "no whole answer came within 0.2 s"


@ENDS
@pytest.mark.parametrize("name", STRANGE)
def test_an_answer_that_cannot_be_read(name: str) -> None:
    """What is cut, broken, packed, too long or no HTTP is told in one sentence, without reading on."""
    behave, sentence = STRANGE[name]
    with Peer(behave) as peer:
        assert why_not(peer.url).startswith(sentence)


def test_a_head_that_is_cut() -> None:
    """A head that ends in the middle holds nothing, so that nobody takes it for an answer."""
    with Peer(answers(b"HTTP/1.1 200 OK\r\nContent-Le")) as peer:
        reply = get(peer.url)
    with pytest.raises(wire.NoAnswer, match="with status 200 and nothing else"):
        reply.json()


@pytest.mark.parametrize("sent", [True, False])
def test_whether_it_may_have_been_taken(sent: bool) -> None:
    """An answer that is missing tells whether the request may have arrived."""
    with nobody() as dead, Peer(MUTE["stalls"]) as peer, pytest.raises(wire.NoAnswer) as caught:
        get(peer.url if sent else dead, SHORT)
    assert caught.value.sent is sent


def test_nobody_listens() -> None:
    """A refused connection is told as the system does."""
    with nobody() as url:
        assert why_not(url) == "Connection refused"


@ENDS
def test_a_connection_that_is_swallowed() -> None:
    """A firewall that drops packets does not hold the exchange."""
    with swallowing() as url:
        assert why_not(url, SHORT) == "no whole answer came within 0.2 s"


@ENDS
def test_a_request_that_nobody_reads() -> None:
    """Sending is bounded as well as reading."""
    with Peer(MUTE["never reads"]) as peer, pytest.raises(wire.NoAnswer, match="no whole answer"):
        wire.exchange("POST", peer.url, timeout=SHORT, body=b"x" * 50_000_000)


def test_every_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a name has several addresses, the first that answers is taken."""
    with nobody() as dead, Peer(says("200 OK", b"here")) as peer:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(url.split(":")[-1].strip("/"))))
            for url in (dead, peer.url)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        assert get("http://two.example/").body == b"here"


@ENDS
def test_an_address_that_swallows_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address has its share of the time, so that a dead first one does not use it up."""
    with swallowing() as dead, Peer(says("200 OK", b"here")) as peer:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(url.split(":")[-1].strip("/"))))
            for url in (dead, peer.url)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        assert get("http://two.example/", 2).body == b"here"


# Names


def test_names_are_looked_up() -> None:
    """A host may be given by name."""
    with Peer(says("200 OK", b"here")) as peer:
        assert get(f"http://localhost:{peer.port}/").body == b"here"


def test_a_name_that_does_not_exist() -> None:
    """A name that nobody knows is told as the resolver does."""
    assert why_not("http://no-such-host.invalid/") in (
        "Name or service not known",
        "Temporary failure in name resolution",
        "No address associated with hostname",
    )


def test_a_name_that_is_none() -> None:
    """What can't be a host's name is told as that."""
    assert why_not(f"http://{'a' * 70}.example/").endswith("is no host's name")


@ENDS
def test_a_look_up_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for an exchange holds also while a name is looked up, which nothing can interrupt."""
    hanging = Event()
    # A resolver that does not answer: none can be had without changing the machine's configuration.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hanging.wait(60))
    assert why_not("http://slow.example/", SHORT) == "no whole answer came within 0.2 s"
    hanging.set()


def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address needs no thread."""
    monkeypatch.setattr(
        timed_socket, "unpatched", lambda *name: {("socket", "getaddrinfo"): socket.getaddrinfo}[name]
    )
    found = timed_socket.look_up("::1", 80, time.monotonic() + 10, Waits.usual())
    assert [one[4][:2] for one in found] == [("::1", 80)]


# TLS


@contextmanager
def secure(tmp_path: Path, behave: Behave, name: str = "127.0.0.1") -> Iterator[tuple[Peer, Path]]:
    """Give a server with a certificate of its own for a name, and the certificate's file."""
    made = self_signed(tmp_path, [name], datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def over_tls(one: socket.socket, over: Event) -> None:
        with context.wrap_socket(one, server_side=True) as inner:
            behave(inner, over)

    with Peer(over_tls) as peer:
        peer.url = peer.url.replace("http:", "https:")
        yield peer, made.certificate


def test_a_trusted_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is trusted by the file that the environment names is talked to, also at length."""
    body = b"x" * 500_000
    with secure(tmp_path, says("200 OK", body)) as (peer, certificate):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert wire.exchange("POST", peer.url, timeout=10, body=b"y" * 100_000).body == body


def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    """A certificate that is not trusted is an error of its own, as trying again does not help."""
    with (
        secure(tmp_path, says("200 OK")) as (peer, _),
        pytest.raises(wire.Untrusted, match="its certificate is not trusted here: self"),
    ):
        get(peer.url)


def test_a_certificate_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trusted certificate for another name is not trusted for this one."""
    with secure(tmp_path, says("200 OK"), "other.example") as (peer, certificate):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with pytest.raises(wire.Untrusted, match="IP address mismatch"):
            get(peer.url)


def test_a_cut_answer_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is cut over TLS as well."""
    with secure(tmp_path, STRANGE["cuts its body"][0]) as (peer, certificate):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert why_not(peer.url) == "its answer ended in the middle"


@ENDS
@pytest.mark.parametrize("name", MUTE)
def test_an_answer_over_tls_that_never_ends(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for an exchange holds over TLS as well."""
    with secure(tmp_path, MUTE[name]) as (peer, certificate):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert why_not(peer.url, 0.5) == "no whole answer came within 0.5 s"


def hello_without_end(one: socket.socket, over: Event) -> None:
    """Begin a record of TLS that is long, and send it byte by byte."""
    one.recv(65536)
    one.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
    while not over.wait(0.01):
        one.sendall(b"\x03")


@ENDS
@pytest.mark.parametrize("behave", [MUTE["never reads"], hello_without_end], ids=["stalls", "drips"])
def test_a_handshake_that_never_ends(behave: Behave) -> None:
    """The time for an exchange holds for the handshake as well."""
    with Peer(behave) as peer:
        assert why_not(peer.url.replace("http:", "https:"), SHORT) == "no whole answer came within 0.2 s"


def test_a_server_that_does_not_speak_tls() -> None:
    """https where only http is spoken is told in one line."""

    def behave(one: socket.socket, over: Event) -> None:
        one.recv(65536)
        one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Peer(behave) as peer:
        assert "SSL" in why_not(peer.url.replace("http:", "https:"))


# Proxies


def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is asked, with its user, as teuthology's own requests are."""
    seen = []

    def behave(one: socket.socket, over: Event) -> None:
        seen.append(request_of(one).decode().split("\r\n"))
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")

    with Peer(behave) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy.port}")
        assert get("http://far.invalid:8010/api").body == b"proxy"
    assert seen[0][0] == "GET http://far.invalid:8010/api HTTP/1.1"
    assert {"Host: far.invalid:8010", "Proxy-Authorization: Basic bWU6c2VjcmV0"} <= set(seen[0])


def test_a_tunnel_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a proxy, TLS is spoken with the server itself."""
    seen = []
    made = self_signed(tmp_path, ["far.invalid"], datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def behave(one: socket.socket, over: Event) -> None:
        seen.append(request_of(one).split(b"\r\n")[0])
        one.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(one, server_side=True) as inner:
            says("200 OK", b"inside")(inner, over)

    with Peer(behave) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
        assert get("https://far.invalid/").body == b"inside"
    assert seen == [b"CONNECT far.invalid:443 HTTP/1.1"]


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel that is refused is told to be the proxy's doing."""
    with Peer(says("403 Forbidden")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert why_not("https://far.invalid/") == "the proxy 127.0.0.1 answered with status 403"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_here_is_asked_through_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on this machine is asked directly, and so is what no_proxy names."""
    with nobody() as proxy, Peer(says("200 OK", b"here")) as peer:
        monkeypatch.setenv("http_proxy", proxy)
        assert get(f"http://{host}:{peer.port}/").body == b"here"
        monkeypatch.setenv("no_proxy", ".invalid")
        assert why_not("http://far.invalid/") != "Connection refused"
