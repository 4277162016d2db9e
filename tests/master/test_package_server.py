"""The real package server on a real port: reading, hostile paths, and uploads."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import requests
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from master.package_server.http_requests import Channel
from master.package_server.tree import MissingError, PackageTree
from tests.package_server_process import KEY, PackageServerProcess
from tests.patience import until
from tests.published import Publications

OTHER = "ceph-rpm-centos9-x86_64-default/" + "f" * 40
TARGET, SHA1 = KEY.split("/")
DEB = f"{TARGET}/sha1/{SHA1}/pool/ceph_1_amd64.deb"
CONTENT = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    (directory / "secret").write_text("secret")
    with PackageServerProcess(directory, most_bytes=10**10, most_files=50) as server:
        Publications(directory).publish(KEY, "1", "wip/foo", contents={"pool/ceph_1_amd64.deb": CONTENT})
        (server.tree / "key.asc").write_text("key")
        (server.tree / ".hidden").write_text("secret")
        (server.tree / "out").symlink_to(directory)
        (server.tree / "empty").write_text("")
        yield server


def test_a_client_that_hangs_up_before_the_look_up_is_no_mistake(tmp_path: Path) -> None:
    """The look-up runs in a thread, which may begin after the connection has ended."""
    calls: list[tuple[Any, ...]] = []

    def look_up(*call: Any) -> Deferred[Any]:
        calls.append(call)
        return Deferred()

    factory = SimpleNamespace(look_up=look_up, tree=PackageTree(str(tmp_path), ""), channels=set(), log=print)
    channel: Any = Channel()
    channel.factory = channel.site = factory
    channel.makeConnection(StringTransport())
    channel.dataReceived(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    channel.connectionLost(Failure(ConnectionDone()))
    [(look, *arguments)] = calls
    with pytest.raises(MissingError):
        look(*arguments)


def get(server: PackageServerProcess, path: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(server.url + path, headers=named, allow_redirects=False, timeout=30)


def put(
    server: PackageServerProcess, token: str, path: str, body: bytes = b"x", key: str = KEY, **headers: str
) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"Authorization": f"Bearer {token}"} | named
    return requests.put(f"{server.url}upload/{key}/{path}", data=body, headers=named, timeout=30)


def head_of(server: PackageServerProcess, token: str, path: str, *headers: str, key: str = KEY) -> bytes:
    """Give the head of a PUT, its body to follow."""
    lines = [f"PUT /upload/{key}/{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def talk(server: PackageServerProcess, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; give the status, and all that came until the server closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return (int(answer.split()[1]) if answer else 0), answer


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    until(condition, "it happens", 30)


def everything(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# Reading


def test_a_file_is_served_with_its_headers(server: PackageServerProcess) -> None:
    """Bytes, type, length, and all that keeps a browser from running what is in it."""
    response = get(server, DEB)
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["Content-Type"] == "application/vnd.debian.binary-package"
    assert response.headers["Content-Security-Policy"] == "sandbox"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["ETag"].startswith('"')
    assert response.headers["Last-Modified"].endswith(" GMT")


def test_a_ref_leads_to_its_sha1(server: PackageServerProcess) -> None:
    """A link inside the tree is followed, slashes in the ref's name included."""
    response = get(server, f"{TARGET}/ref/wip/foo/version")
    assert response.text == "1\n"


def test_head_has_no_body_and_heeds_no_range(server: PackageServerProcess) -> None:
    """HEAD says what GET would."""
    status, answer = talk(
        server, f"HEAD /{DEB} HTTP/1.1\r\nConnection: close\r\nRange: bytes=0-1\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status == 200
    assert body == b""
    assert f"Content-Length: {len(CONTENT)}".encode() in head


def test_an_empty_file_is_served(server: PackageServerProcess) -> None:
    """No bytes are an answer, too."""
    response = get(server, "empty")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("0-99", 0, 100), ("1000-", 1000, None), ("-7", -7, None)]
)
def test_one_range(server: PackageServerProcess, asked: str, start: int, stop: int | None) -> None:
    """A broken download goes on where it stopped."""
    response = get(server, DEB, Range=f"bytes={asked}")
    assert response.status_code == 206
    assert response.content == CONTENT[start:stop]
    first = start % len(CONTENT)
    last = first + len(response.content) - 1
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"


def test_many_ranges(server: PackageServerProcess) -> None:
    """Each part says where it is from."""
    response = get(server, DEB, Range="bytes=0-1,300-303,-2")
    assert response.status_code == 206
    boundary = response.headers["Content-Type"].removeprefix("multipart/byteranges; boundary=")
    parts = response.content.split(f"\r\n--{boundary}".encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [
        CONTENT[0:2],
        CONTENT[300:304],
        CONTENT[-2:],
    ]
    assert f"Content-Range: bytes 300-303/{len(CONTENT)}".encode() in parts[2]


def test_a_range_beyond_the_end(server: PackageServerProcess) -> None:
    """416 says how long the file is."""
    response = get(server, DEB, Range=f"bytes={len(CONTENT)}-")
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("header", ["bytes=x", "bytes=-", "bytes=\xe4-", "bytes=" + "0-," * 300])
def test_a_malformed_range_is_ignored(server: PackageServerProcess, header: str) -> None:
    """The whole file, and not an error of ours."""
    status, answer = talk(
        server,
        f"GET /{DEB} HTTP/1.1\r\nConnection: close\r\nRange: {header}\r\n\r\n".encode("latin-1"),
    )
    assert status == 200
    assert answer.endswith(CONTENT)


def test_what_did_not_change_is_not_sent_again(server: PackageServerProcess) -> None:
    """By tag, weak or in a list, and by date; the tag counts more."""
    first = get(server, DEB).headers
    for tag in (first["ETag"], "W/" + first["ETag"], f'"x", {first["ETag"]}', "*"):
        response = get(server, DEB, If_None_Match=tag)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == first["ETag"]
    assert get(server, DEB, If_Modified_Since=first["Last-Modified"]).status_code == 304
    assert get(server, DEB, If_Modified_Since="Thu, 01 Jan 2015 00:00:00 GMT").status_code == 200
    assert get(server, DEB, If_Modified_Since="yesterday").status_code == 200
    both = get(server, DEB, If_None_Match='"x"', If_Modified_Since=first["Last-Modified"])
    assert both.status_code == 200


def test_a_range_of_what_changed_is_the_whole(server: PackageServerProcess) -> None:
    """If-Range mends no new file with an old beginning."""
    first = get(server, DEB).headers
    for good in (first["ETag"], first["Last-Modified"]):
        assert get(server, DEB, Range="bytes=5-", If_Range=good).status_code == 206
    for bad in ('"x"', "Thu, 01 Jan 2015 00:00:00 GMT", "W/" + first["ETag"]):
        assert get(server, DEB, Range="bytes=5-", If_Range=bad).content == CONTENT


def test_another_file_of_one_name_has_another_tag(server: PackageServerProcess) -> None:
    """A key that was purged and built again is not mistaken for what it was."""
    path = server.tree / "changing"
    path.write_text("one")
    before, date = get(server, "changing").headers["ETag"], path.stat().st_mtime_ns
    path.rename(server.tree / "changed")
    path.write_text("two")
    os.utime(path, ns=(date, date))
    assert get(server, "changing").headers["ETag"] != before


def test_a_directory_has_a_page_for_people(server: PackageServerProcess) -> None:
    """Sizes, links to what is in it, to the directory above and to each on the way."""
    response = get(server, f"{TARGET}/sha1/{SHA1}/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"].startswith("sandbox allow-downloads;")
    assert "script" not in response.headers["Content-Security-Policy"]
    page = response.text
    assert "Packages &lt;of&gt; tests" in page
    for link in ('"../"', '"./pool/"', '"./version"', '"../../../"', '"../../"', '"./"'):
        assert f"<a href={link}>" in page
    assert page.index(">pool/<") < page.index(">version<")
    assert "2 B" in page


def test_every_link_of_a_listing_is_good(server: PackageServerProcess) -> None:
    """Whoever clicks gets there, from the root to the package."""
    seen, left = set(), [server.url]
    while left:
        url = left.pop()
        response = requests.get(url, timeout=30, allow_redirects=False)
        assert response.status_code == 200, url
        if response.headers["Content-Type"].startswith("text/html"):
            for link in re.findall(r'href="([^"]*)"', response.text):
                to = urljoin(url, link)
                assert to.startswith(server.url)
                left += [to] if to not in seen else []
                seen.add(to)
    assert server.url + DEB in seen
    assert not any("hidden" in url or "/out" in url for url in seen)


def test_a_directory_without_its_slash_is_redirected(server: PackageServerProcess) -> None:
    """To a path, so that it works behind nginx, and never to another host."""
    response = get(server, f"{TARGET}/ref/wip/foo?x=y")
    assert response.status_code == 301
    assert response.headers["Location"] == f"/{TARGET}/ref/wip/foo/"
    status, answer = talk(server, b"GET //example.org/%2e%2e HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert status == 404
    assert b"Location" not in answer


NOT_KEPT = [
    ("GET", "nothing", {}, 404),
    ("GET", f"{TARGET}/sha1/{'e' * 40}/version", {}, 404),
    ("GET", TARGET, {}, 301),
    ("GET", DEB, {"Range": f"bytes={len(CONTENT)}-"}, 416),
    ("POST", "key.asc", {}, 405),
    ("PUT", f"upload/{KEY}/a", {"Authorization": "Bearer wrong"}, 401),
    ("GET", "boot/nobody", {}, 404),
    ("GET", "api/nothing", {}, 404),
    ("GET", "api/search?nonsense=1", {}, 400),
    ("GET", "api/repos/ceph/wip/foo/latest/ubuntu/jammy/repo", {}, 302),
    ("GET", "api/repos/ceph/nothing/latest/ubuntu/jammy/repo", {}, 504),
    ("GET", "%", {"Content-Length": "-1"}, 400),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), NOT_KEPT)
def test_what_is_no_file_is_never_kept(
    server: PackageServerProcess, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """No cache may keep a refusal, a redirect or an error: the next moment may have the packages."""
    lines = [f"{method} /{path} HTTP/1.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    found, answer = talk(server, "\r\n".join([*lines, "", ""]).encode())
    assert found == status, answer[:500]
    assert answer.partition(b"\r\n\r\n")[0].count(b"Cache-Control: ") == 1
    assert b"\r\nCache-Control: no-store\r\n" in answer


def test_what_is_a_file_is_asked_for_again(server: PackageServerProcess) -> None:
    """Whole, in part or unchanged, a file may be kept by a cache that asks again before each use."""
    tag = get(server, DEB).headers["ETag"]
    for headers, status in (({}, 200), ({"Range": "bytes=0-1"}, 206), ({"If-None-Match": tag}, 304)):
        response = get(server, DEB, **headers)
        assert (response.status_code, response.headers["Cache-Control"]) == (status, "no-cache")
    for path in ("", f"{TARGET}/sha1/{SHA1}/", f"{TARGET}/sha1/{SHA1}/version", "api/search"):
        assert get(server, path).headers["Cache-Control"] == "no-cache"


def test_a_part_removed_is_all_removed(tmp_path: Path) -> None:
    """Once one file of a package_key is gone, no file, no page, no ref and no view of shaman has any of it."""
    with PackageServerProcess(tmp_path) as server:
        directory = Publications(tmp_path).publish(KEY, "1", "main")
        (server.tree / "key.asc").write_text("key")
        at, by_ref = f"{TARGET}/sha1/{SHA1}/", f"{TARGET}/ref/main/"
        names = ("", "version", "sha1", "manifest.json", "dists/Release", "pool/", "repo")
        paths = [at + name for name in names] + [by_ref + name for name in names[:-1]]
        for path in paths:
            assert get(server, path).status_code == 200, path
        assert [get(server, f"api/repos/ceph/{what}").json()[0] for what in ("main/", "")] == [SHA1, "main"]
        (directory / "pool/main/c/ceph/ceph.deb").unlink()
        assert {path: get(server, path).status_code for path in paths} == dict.fromkeys(paths, 404)
        assert SHA1 not in get(server, f"{TARGET}/sha1/").text
        assert "main" not in get(server, f"{TARGET}/ref/").text
        assert get(server, "api/search").json() == []
        assert get(server, "api/repos/").json() == {"ceph": {"refs": [], "sha1s": []}}
        assert get(server, "key.asc").text == "key"


def test_packages_of_a_target_that_is_no_more_are_served_as_before(tmp_path: Path) -> None:
    """Packages for a distribution that has left the matrix stay, complete or absent like all others."""
    with PackageServerProcess(tmp_path) as server:
        directory = Publications(tmp_path).publish(KEY, "1")
        old = server.tree / "ceph-deb-hardy-i386-default"
        directory.parents[1].rename(old)
        assert get(server, f"{old.name}/sha1/{SHA1}/version").text == "1\n"
        (old / "sha1" / SHA1 / "dists/Release").unlink()
        assert get(server, f"{old.name}/sha1/{SHA1}/version").status_code == 404


HOSTILE = [
    *("../secret", "%2e%2e/secret", "..%2fsecret", "%2e%2e%2fsecret", "a/../../secret", "..\\secret"),
    *("..%5csecret", "%2e%2e%5csecret", "%252e%252e/secret", "./key.asc", "%2e/key.asc", "key.asc/"),
    *("/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "out", "out/", "out/secret"),
    *(".hidden", "%2ehidden", "key.asc%00", "%00", "key.asc%00.txt", "%ff%fe", "%c0%ae%c0%ae/secret"),
    *("a" * 10_000, "a/" * 5_000, "%61" * 3_400, "../" * 3_000, "nothing", f"{TARGET}/sha1/{SHA1}x/"),
    *("..;/secret", "~root", "%", "%zz", "key.asc/../key.asc", "staging/", "key.asc%2f", "?", "upload"),
]


@pytest.mark.parametrize("path", HOSTILE)
def test_no_path_leaves_the_tree(server: PackageServerProcess, path: str) -> None:
    """Not found, or a bad request; never an error of ours, never a byte from elsewhere."""
    if path == "?":
        path = "?/../../secret"  # a query is no path: this is the root
    status, answer = talk(server, f"GET /{path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    assert status in ((200,) if path.startswith("?") else (400, 404)), answer[:500]
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2].replace(path[:200].encode(), b"")
    assert b"X-Content-Type-Options: nosniff" in answer
    assert b"Content-Security-Policy: sandbox" in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET ../secret HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET http://127.0.0.1/../secret HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET * HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_a_request_that_is_none_is_400_or_404(server: PackageServerProcess, request_: bytes) -> None:
    """Every answer, also one to nonsense, has the headers that protect its reader."""
    status, answer = talk(server, request_)
    assert status in (400, 404), answer[:500]
    assert b"X-Content-Type-Options: nosniff" in answer
    assert b"Content-Security-Policy: sandbox" in answer


def test_nothing_there_is_a_plain_sentence(server: PackageServerProcess) -> None:
    """What a person and a program can read, and a browser does not run."""
    response = get(server, "a/<b>")
    assert response.status_code == 404
    assert response.text == "There is nothing at /a/%3Cb%3E.\n"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE", "PROPFIND", "X"])
@pytest.mark.parametrize("body", [b"", b"body"])
def test_other_methods_are_405(server: PackageServerProcess, method: str, body: bytes) -> None:
    """With and without a body; the answer says what may be done."""
    response = requests.request(method, server.url + "key.asc", data=body, timeout=30)
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert response.text == f"{method} is not for this path; GET, HEAD may be.\n"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_uploads_are_never_read(server: PackageServerProcess) -> None:
    """Staging has no door out, also for who has the token."""
    token = server.open()
    put(server, token, "a")
    response = get(server, f"upload/{KEY}/a", Authorization=f"Bearer {token}")
    assert response.status_code == 405
    assert response.headers["Allow"] == "PUT"


def test_a_tree_without_a_directory_is_404(tmp_path: Path) -> None:
    """The server may be there before anything is published."""
    with PackageServerProcess(tmp_path) as server:
        server.tree.rmdir()
        assert get(server, "").status_code == 404


# Uploads


def test_an_upload_arrives(server: PackageServerProcess) -> None:
    """The answer, the record and the disk agree, and the connection is kept for the next file."""
    token = server.open()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        for path in ("pool/a_1~2+3:4.deb", "dists/Release", "empty"):
            body = b"" if path == "empty" else CONTENT
            url = f"{server.url}upload/{KEY}/{quote(path)}"
            response = session.put(url, data=body, headers={"Content-Length": str(len(body))})
            assert response.status_code == 201
            assert "Connection" not in response.headers
            expected = hashlib.sha256(body).hexdigest()
            assert response.json() == {"path": path, "size": len(body), "sha256": expected}
    files = server.files(token)
    assert files["pool/a_1~2+3:4.deb"] == (len(CONTENT), sha256)
    assert sorted(files) == ["dists/Release", "empty", "pool/a_1~2+3:4.deb"]
    directory = server.directory(token)
    assert everything(directory) == sorted(files)
    assert (directory / "pool/a_1~2+3:4.deb").read_bytes() == CONTENT
    assert server.growing() == []


def test_a_content_digest_is_compared(server: PackageServerProcess) -> None:
    """A right one is taken, a wrong one refused with nothing kept, and a bad one never begun."""
    token = server.open()
    good = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    response = put(server, token, "wrong", CONTENT, Content_Digest=f"sha-512=:AA==:, sha-256=:{wrong}:")
    assert response.status_code == 400
    assert response.text.startswith(f"wrong arrived with SHA-256 {hashlib.sha256(CONTENT).hexdigest()}, but")
    response = put(server, token, "bad", CONTENT, Content_Digest="sha-256=:abc:")
    assert (response.status_code, response.text) == (400, "The Content-Digest's sha-256 is no SHA-256.\n")
    assert put(server, token, "good", CONTENT, Content_Digest=f"sha-256=:{good}:").status_code == 201
    assert list(server.files(token)) == ["good"]
    assert everything(server.directory(token)) == ["good"]
    assert put(server, token, "wrong", CONTENT).status_code == 201
    assert server.growing() == []


HUGE = "Content-Length: 5000000000"


def refusals(server: PackageServerProcess) -> dict[str, tuple[bytes, int, str]]:
    """Give head, status and sentence of each way to be refused."""
    token, closed = server.open(), server.open()
    server.ask("close", token=closed)
    put(server, token, "there")
    put(server, token, "directory/file")
    nobody = "An upload needs the token of a build that is uploading now."
    other = f"This token is for {KEY} only."
    return {
        "no token": (f"PUT /upload/{KEY}/a HTTP/1.1\r\n{HUGE}\r\n\r\n".encode(), 401, nobody),
        "unknown token": (head_of(server, "x" * 43, "a", HUGE), 401, nobody),
        "closed upload": (head_of(server, closed, "a", HUGE), 401, nobody),
        "unknown, bad path": (head_of(server, "x", "../a", HUGE), 401, nobody),
        "other scheme": (
            f"PUT /upload/{KEY}/a HTTP/1.1\r\nAuthorization: Basic {token}\r\n{HUGE}\r\n\r\n".encode(),
            401,
            nobody,
        ),
        "other key": (head_of(server, token, "a", HUGE, key=OTHER), 403, other),
        "no key": (head_of(server, token, "a", HUGE, key="x"), 403, other),
        "key in capitals": (head_of(server, token, "a", HUGE, key=KEY.upper()), 403, other),
        "bad path": (head_of(server, token, "a/%2e%2e/b", HUGE), 400, "path 'a/../b' must be names of"),
        "no path": (head_of(server, token, "", HUGE), 400, "path '' must be names of"),
        "long path": (head_of(server, token, "a" * 10_000, HUGE), 400, "path has 10000 characters"),
        "no length": (head_of(server, token, "a"), 411, "An upload needs a Content-Length."),
        "chunked": (
            head_of(server, token, "a", "Transfer-Encoding: chunked"),
            411,
            "An upload needs a Content-Length.",
        ),
        "too large": (
            head_of(server, token, "a", "Content-Length: 10000000001"),
            413,
            "An upload may have at most 9.31 GiB (packages.upload_gib); with a it would have 9.31 GiB.",
        ),
        "in part": (
            head_of(server, token, "a", HUGE, "Content-Range: bytes 0-1/2"),
            400,
            "An upload is of a whole file.",
        ),
        "already there": (head_of(server, token, "there", HUGE), 409, "there is already uploaded."),
        "directory": (head_of(server, token, "directory", HUGE), 409, "directory is a directory."),
        "below a file": (
            head_of(server, token, "there/a", HUGE),
            409,
            "there is a file, not a directory.",
        ),
    }


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_refusal_comes_before_the_body(server: PackageServerProcess, expect: bytes) -> None:
    """Headers alone get the answer and the end of the connection, and never a "100 Continue"."""
    for name, (head, status, sentence) in refusals(server).items():
        request = head.replace(b"\r\n\r\n", b"\r\n" + expect + b"\r\n")
        got, answer = talk(server, request)
        assert got == status, (name, answer)
        body = answer.partition(b"\r\n\r\n")[2].decode()
        assert body.startswith(sentence), name
        assert body.endswith(".\n"), name
        assert body.count("\n") == 1, name
        assert b"Connection: close" in answer, name
        assert b"X-Content-Type-Options: nosniff" in answer, name
        assert b"100 Continue" not in answer, name
        assert (b"WWW-Authenticate: Bearer" in answer) is (status == 401), name


def test_too_many_files_are_refused(server: PackageServerProcess) -> None:
    """The limit of files holds, too."""
    token = server.open()
    for number in range(50):
        assert put(server, token, f"f{number}").status_code == 201
    response = put(server, token, "f50")
    assert (response.status_code, response.text) == (413, "An upload may have at most 50 files.\n")


def test_an_accepted_upload_is_told_to_continue(server: PackageServerProcess) -> None:
    """A client that waits for a "100 Continue" gets it, once the upload is accepted."""
    head = head_of(
        server, server.open(), "a", "Content-Length: 2", "Expect: 100-continue", "Connection: close"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ab")
        assert b"".join(iter(lambda: connection.recv(1000), b"")).startswith(b"HTTP/1.1 201 Created")


@pytest.mark.parametrize("size", [100, 50_000_000])
def test_a_refused_sender_can_read_why(server: PackageServerProcess, size: int) -> None:
    """Also one that sends all it has before it looks: it reads the answer, and not a reset."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head_of(server, "x", "a", f"Content-Length: {size}"))
        try:
            connection.sendall(b"x" * size)
        except (BrokenPipeError, ConnectionResetError):
            assert size > 1_000_000
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized")
    assert get(server, "key.asc").status_code == 200


def test_a_refused_sender_is_not_reset(server: PackageServerProcess) -> None:
    """What is under way when the answer comes meets no reset, which could overtake the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head_of(server, "x", "a", "Content-Length: 9000"))
        while connection.recv(65536):
            pass  # to the end: the server has closed its half
        for _ in range(3):
            connection.sendall(b"x" * 1000)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_what_follows_a_refused_request_is_not_a_request(server: PackageServerProcess) -> None:
    """A body that looks like a request is a body: nothing is smuggled past a refusal."""
    inner = b"GET /key.asc HTTP/1.1\r\n\r\n"
    _, answer = talk(server, head_of(server, "x", "a", f"Content-Length: {len(inner)}") + inner)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_lost_connection_leaves_nothing(server: PackageServerProcess) -> None:
    """A body cut short is not recorded, its bytes are removed, and the path is free again."""
    token = server.open()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head_of(server, token, "pool/a", "Content-Length: 9000000"))
        connection.sendall(b"x" * 8_999_999)
        eventually(lambda: server.growing() and server.growing()[0].stat().st_size > 1_000_000)
        assert put(server, token, "pool/a").text == "pool/a is being uploaded.\n"
    eventually(lambda: not server.growing())
    assert server.files(token) == {}
    assert everything(server.directory(token)) == []
    assert put(server, token, "pool/a").status_code == 201


def test_a_closed_upload_ends_what_is_on_its_way(server: PackageServerProcess) -> None:
    """A build that is over cannot slip in a file that was not verified."""
    token = server.open()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head_of(server, token, "a", "Content-Length: 9000000"))
        connection.sendall(b"x" * 5_000_000)
        eventually(server.growing)
        server.ask("close", token=token)
        # It may have hung up before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"x" * 4_000_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 Unauthorized")
    eventually(lambda: not server.growing())
    assert server.files(token) == {}
    assert everything(server.directory(token)) == []
    assert put(server, token, "b").status_code == 401


def test_a_removed_upload_leaves_nothing(server: PackageServerProcess) -> None:
    """The directory goes with the token."""
    token = server.open()
    put(server, token, "a/b")
    directory = server.directory(token)
    server.ask("remove", token=token)
    assert not directory.exists()
    assert put(server, token, "c").status_code == 401


def test_a_file_already_there_tells_its_digest(server: PackageServerProcess) -> None:
    """Whoever lost an answer learns that the file arrived; the file stays as it was."""
    token = server.open()
    put(server, token, "a", b"first")
    response = put(server, token, "a", b"second")
    assert response.status_code == 409
    digest = base64.b64encode(hashlib.sha256(b"first").digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert (server.directory(token) / "a").read_bytes() == b"first"


def test_a_disk_that_fails_is_a_sentence(server: PackageServerProcess) -> None:
    """What cannot be stored is refused with the reason, and the server goes on."""
    token = server.open()
    directory = server.directory(token)
    directory.rmdir()
    directory.write_text("")  # so that no file can be below it
    response = put(server, token, "a/b")
    assert response.status_code == 507
    assert response.text.startswith("The package server cannot store the file: ")
    assert server.growing() == []
    assert get(server, "key.asc").status_code == 200


def test_uploads_run_side_by_side(server: PackageServerProcess) -> None:
    """Bodies that arrive by turns are kept apart."""
    token = server.open()
    bodies = {f"f{number}": bytes([number]) * 3_000_000 for number in range(6)}
    connections = {}
    try:
        for path, body in bodies.items():
            connections[path] = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            connections[path].sendall(head_of(server, token, path, f"Content-Length: {len(body)}"))
        for start in range(0, 3_000_000, 100_000):
            for path, connection in connections.items():
                connection.sendall(bodies[path][start : start + 100_000])
        for connection in connections.values():
            assert connection.recv(65536).startswith(b"HTTP/1.1 201")
    finally:
        for connection in connections.values():
            connection.close()
    assert server.files(token) == {
        path: (len(body), hashlib.sha256(body).hexdigest()) for path, body in bodies.items()
    }


# The service


def test_reconfig_listens_anew_only_on_another_port(tmp_path: Path) -> None:
    """Another title is taken over with the connections kept; another port closes the old one."""
    with PackageServerProcess(tmp_path) as server:
        with requests.Session() as session:
            session.get(server.url, timeout=30)
            assert server.ask("reconfigure", title="Another")["port"] == server.port
            assert "Another" in session.get(server.url, timeout=30).text
        new = server.ask("reconfigure", port="tcp:0:interface=localhost")["port"]
        assert new != server.port
        assert requests.get(f"http://127.0.0.1:{new}/", timeout=30).status_code == 200
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url, timeout=30)


def test_stop_does_not_wait_for_uploads(tmp_path: Path) -> None:
    """A stopped master ends its connections: the handle asserts that the process ends well."""
    with PackageServerProcess(tmp_path) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        connection.sendall(head_of(server, server.open(), "a", "Content-Length: 9000000") + b"x" * 1000)
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""


def test_a_port_that_uploads_cannot_use_is_an_error() -> None:
    """A wrong setting is told while configuring."""
    from buildbot.config.errors import capture_config_errors

    from master.package_server.service import PackageServer
    from master.publishing.uploads import Uploads

    with capture_config_errors() as errors:
        PackageServer(port="ssl:443", tree="/x", uploads=Uploads(Path("/x")))
    assert errors.errors == ["packages: port 'ssl:443' must begin with tcp:, tcp6: or unix:"]


def test_a_json_answer_is_json(server: PackageServerProcess) -> None:
    """A program reads it without guessing."""
    response = put(server, server.open(), "a", b"x")
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(response.text)["size"] == 1
