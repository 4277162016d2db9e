"""Strangers of the web port: what they learn, what they can write into the log, and how failed logins are logged."""

from __future__ import annotations

import base64
import os
import re
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from master.requests.fields import FIELDS
from master.web.clients import DELAY
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master behind a proxy at 127.0.0.2."""
    with tiny_installation(tmp_path_factory.mktemp("noise"), www={"proxies": ["127.0.0.2"]}) as made:
        yield made


def deep(innermost: Any, levels: int) -> Any:
    """Return lists within lists."""
    for _ in range(levels):
        innermost = [innermost]
    return innermost


def log(here: Installation) -> str:
    """Return the text of the master's log."""
    return (here.settings.state / "twistd.log").read_text()


def raw(here: Installation, request: str, source: str = "127.0.0.1") -> str:
    """Send a request from an address, and return the answer."""
    port = here.settings.www.port
    with socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0)) as client:
        client.sendall(f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode(errors="replace")


@pytest.mark.parametrize(
    "path",
    [
        "builds?limit=99999999999999999999",
        "builds?offset=99999999999999999999",
        "builds?limit=-1",
        "builds?buildid=99999999999999999999",
        "builds?buildid__gt=-99999999999999999999",
        "builds?no=1",
        "builds/99999999999999999999",
        "buildrequests/99999999999999999999/builds",
        "changes/0/builds",
        "changes/-1",
    ],
)
def test_a13_nonsense_is_answered_without_a_traceback(here: Installation, path: str) -> None:
    """A number that no database takes is a mistake of the client, and fills no log."""
    before = log(here).count("Traceback")
    answer = requests.get(f"{here.url}api/v2/{path}", timeout=30)
    assert answer.status_code in (400, 404), answer.text
    cookie = {"Cookie": "TWISTED_SESSION=\xe9nonsense"}
    assert requests.get(f"{here.url}config", headers=cookie, timeout=30).status_code == 200
    assert log(here).count("Traceback") == before


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [
        (b"GET", b"/api/v2/a%00b", b""),
        (b"POST", b"/a%00pi/v2/forceschedulers/packages", b""),
        (b"GET", b"/api/v2/%ff", b""),
        (b"GET", b"/%ff", b""),
        (b"GET", b"/api/v2/b\x84uilds", b""),
        (b"GET", b"/api/v2/logs/1/contents?offset=-1&li\x84\x80mit=1", b""),
        (b"GET", b"/api/v2/builds?field=%ff", b""),
        (b"GET", b"/api/v2/builds?field=%00", b""),
        (b"POST", b"/api/v2/forceschedulers/packages", b"Content-Type: application/js\xf3\xf8\r\n"),
        (b"GET", b"/api/v2/builds", b"Origin: \xff\r\n"),
    ],
)
def test_a13_bytes_that_are_no_text_are_refused(
    here: Installation, method: bytes, path: bytes, header: bytes
) -> None:
    """A path, argument or header that is not UTF-8 or has a NUL gets 400 and a sentence, and fills no log."""
    before = log(here).count("Traceback")
    with socket.create_connection(("127.0.0.1", here.settings.www.port), timeout=30) as client:
        client.sendall(b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n" % (method, path, header))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.endswith(b" of a request must be UTF-8 without NUL.\n"), answer
    assert log(here).count("Traceback") == before


def test_a13_what_buildbot_lacks_is_no_error(here: Installation) -> None:
    """The properties of a change are listed, though Buildbot 4.3 has lost the function for it; no method is answered with 501."""
    before = log(here).count("Traceback")
    answer = requests.get(f"{here.url}api/v2/changes/2/properties_list", timeout=30)
    assert (answer.status_code, answer.json()["_properties"]) == (200, [])
    for method, path, allowed in (
        ("OPTIONS", "", "GET, HEAD, POST"),
        ("BREW", "", "GET, HEAD, POST"),
        ("DELETE", "api/v2/builds/1", "GET, HEAD, POST, OPTIONS"),
    ):
        answer = requests.request(method, here.url + path, timeout=30)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert requests.options(f"{here.url}api/v2/builds", timeout=30).status_code == 400  # Buildbot answers it
    assert log(here).count("Traceback") == before


@pytest.mark.parametrize("value", ["1", "2", "99999", "9" * 30, "x", "stdio", DEB])
def test_a13_no_path_of_the_api_fails(here: Installation, value: str) -> None:
    """Every path of Buildbot's specification is answered without a 5xx, whatever stands for its variables."""
    before = log(here).count("Traceback")
    specs = here.get("application.spec")["specs"]
    paths = {re.sub(r"/\w?:\w+", f"/{value}", spec["path"]).lstrip("/") for spec in specs}
    assert len(paths) > 50
    assert [
        path
        for path in sorted(paths)
        if requests.get(f"{here.url}api/v2/{path}", timeout=30).status_code >= 500
    ] == []
    assert log(here).count("Traceback") == before


@pytest.mark.parametrize(
    "query",
    [
        "builds?order=", "builders?field=", "builders?builderid__contains=1", "builders?masterids__lt=1",
        "builders?description_format__contains=x", "builders?order=-tags&masterids__le=1", "buildrequests?complete__lt=1", "buildrequests?waited_for__contains=1",
        "builders/1/buildrequests?complete__ge=true", "builders/1/builds/1/properties?order=name", "builds/1/properties?x=1",
        "buildsets/1/properties?results__gt=1", "application.spec?order=type_spec",
    ],
)  # fmt: skip
def test_a13_a_query_that_makes_no_sense_is_the_clients(here: Installation, query: str) -> None:
    """A filter or an order that does not fit the field is answered with 400, and fills no log."""
    before = log(here).count("Traceback")
    answer = requests.get(f"{here.url}api/v2/{query}", timeout=30)
    assert answer.status_code == 400, answer.text
    assert log(here).count("Traceback") == before


@pytest.mark.parametrize("kind", ["(" * 300, "multipart/form-data", "application/x-www-form-urlencoded"])
def test_a13_no_form_is_parsed(here: Installation, kind: str) -> None:
    """A POST is answered whatever its Content-Type is; Twisted did not answer one that its parser failed at."""
    before = log(here).count("Traceback")
    url = f"{here.url}api/v2/forceschedulers/packages"
    answer = requests.post(url, data=b"a=b", headers={"Content-Type": kind}, timeout=30)
    assert answer.status_code == 400
    assert log(here).count("Traceback") == before


@pytest.mark.parametrize("path", ["sse/listen/builds/*/new", "sse/listen/builds?a=1", "sse/add/x", "sse"])
def test_a13_there_are_no_server_sent_events(here: Installation, path: str) -> None:
    """Buildbot's own answer some requests with 500, and keep a connection without a limit; the UI uses the websocket instead."""
    before = log(here).count("Traceback")
    assert requests.get(here.url + path, timeout=30).status_code == 404
    assert log(here).count("Traceback") == before


def test_a13_d5_a_failed_login_is_logged_and_delayed(here: Installation) -> None:
    """The log has name and address, on one line; the answer comes late, and other clients do not wait for it."""
    began = time.monotonic()
    answer = requests.get(f"{here.url}auth/login", auth=("mallory\nx", "wrong"), timeout=30)
    assert answer.status_code == 401
    assert time.monotonic() - began >= DELAY
    assert r"login refused: 'mallory\nx' at 127.0.0.1" in log(here)
    assert here.force("a wrong token of many characters", ref="main").status_code == 403
    assert "login refused: no name at 127.0.0.1" in log(here)


def test_a13_a_refusal_is_logged(here: Installation) -> None:
    """The log says who was refused what, and from where."""
    assert here.force("", ref="main").status_code == 403
    assert "refused (403): nobody at 127.0.0.1: 'POST' '/api/v2/forceschedulers/packages': " in log(here)


def test_a13_only_a_proxy_of_the_settings_names_a_client(here: Installation) -> None:
    """X-Real-IP counts from the address in `www.proxies`, and from nobody else."""
    basic = base64.b64encode(b"eve:wrong").decode()
    request = f"GET /auth/login HTTP/1.1\r\nAuthorization: Basic {basic}\r\nX-Real-IP: "
    for source, named, written in (
        ("127.0.0.2", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "203.0.113.8", "127.0.0.1"),
        ("127.0.0.2", "no address", "127.0.0.2"),
    ):
        before = log(here).count(f"'eve' at {written}\n")
        assert " 401 " in raw(here, request + named, source)
        assert log(here).count(f"'eve' at {written}\n") == before + 1


def test_d4_no_other_site_shows_the_ui_in_a_frame(here: Installation) -> None:
    """Every answer of the web port forbids frames, an error as well."""
    for path in ("", "api/v2/builds", "api/v2/nothing", "config", "nothing"):
        answer = requests.get(f"{here.url}{path}", timeout=30)
        assert answer.headers["X-Frame-Options"] == "DENY", path
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], path
        assert "Set-Cookie" not in answer.headers, path


ODD = {
    "a NUL": "a\0b",
    "an escape": "a\x1b[2Jb",
    "a bidi override": "a\u202eb",
    "a surrogate": "\ud800",
    "10^30": 10**30,
    "a deep list": deep([], 200),
    "a deep object": {"x": deep({}, 200)},
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("field", [*FIELDS, "unknown"])
def test_d7_an_odd_value_is_refused_by_the_name_of_its_field(
    here: Installation, field: str, value: Any
) -> None:
    """Each field of a request refuses a value that is odd with a sentence of its own, and no other field is blamed."""
    right: dict[str, Any] = {"builderNames": [DEB], "sha1": "0" * 40}
    if field in ("ref", "builderid"):
        del right[{"ref": "sha1", "builderid": "builderNames"}[field]]
    answer = here.force(**{**right, field: value})
    assert answer.status_code == 400, answer.text
    sentences = answer.json()["error"]["message"]
    assert list(sentences) == [field]
    assert sentences[field].isprintable()
    assert re.search(
        r"must be |must begin with |may not contain |unknown parameter|has no 'x'", sentences[field]
    )


def test_d7_head_is_answered_as_get(here: Installation) -> None:
    """HEAD on the API has the status and length of GET."""
    for path, status in (("builders", 200), ("builders/99", 404)):
        url = f"{here.url}api/v2/{path}"
        # The length of a compressed answer is not known before its end.
        head, get = (
            requests.request(method, url, headers={"Accept-Encoding": "identity"}, timeout=30)
            for method in ("HEAD", "GET")
        )
        assert (head.status_code, get.status_code) == (status, status)
        assert head.headers.get("Content-Length") == get.headers.get("Content-Length")
        assert status == 404 or int(head.headers["Content-Length"]) > 2
        assert head.content == b""


def test_d9_neither_host_nor_path_of_the_master_is_shown(here: Installation) -> None:
    """What strangers may read names no host, no directory and no versions."""
    read = [
        requests.get(f"{here.url}{path}", timeout=30).text
        for path in ("", "config", "api/v2/masters", "api/v2/masters/1", "api/v2/builders/1/masters",
                     "api/v2/workers", "api/v2/builders", "api/v2/schedulers")
    ]  # fmt: skip
    for text in read:
        assert str(here.directory) not in text
        assert os.uname().nodename not in text
        assert "4.3.0" not in text
        assert "interface=" not in text


def test_d9_a_picture_comes_from_here(here: Installation) -> None:
    """No browser is sent to another site with a hash of a user's name."""
    answer = requests.get(f"{here.url}avatar?email=alice&size=32", timeout=30, allow_redirects=False)
    assert answer.headers["Location"] == "img/nobody.png"
    assert "gravatar" not in requests.get(f"{here.url}config", timeout=30).text


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("http://127.0.0.1", 101),
        ("http://localhost", 101),
        ("http://evil.example", 403),
        ("null", 400),
    ],
)
def test_d9_a_websocket_is_for_pages_of_this_site(
    here: Installation, origin: str | None, status: int
) -> None:
    """A page of another site reads nothing through its visitor's browser."""
    if origin in ("http://127.0.0.1", "http://localhost"):
        origin = f"{origin}:{here.settings.www.port}"
    header = f"\r\nOrigin: {origin}" if origin else ""
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.create_connection(("127.0.0.1", here.settings.www.port), timeout=30) as client:
        client.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{here.settings.www.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13{header}\r\n\r\n".encode()
        )
        assert client.recv(4096).startswith(f"HTTP/1.1 {status}".encode())
    answer = requests.get(f"{here.url}api/v2/builders", headers={"Origin": origin}, timeout=30)
    assert answer.status_code == (200 if status == 101 else 400)
