"""An OpenStack over HTTP that answers what a test types: for what no lab has, and to see requests as they are sent.

It plays keystone's catalogue and version documents by itself, and no more. It is no fake of nova: a request that
the test gave no answer for fails with 501.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATHS = {
    "compute": "/compute/v2.1",
    "image": "/image",
    "network": "/network",
    "block-storage": "/volume/v3/p",
}
"""Type of a service -> the path of its endpoint in the catalogue."""


@dataclass(frozen=True)
class Answer:
    """The response; `how` may also be `reset` or `hang`, or `late`: a hanging response is sent when it is released."""

    status: int = 200
    body: Any = None
    """JSON, or bytes as they are."""
    headers: dict[str, str] = field(default_factory=dict)
    how: str = "answer"


@dataclass(frozen=True)
class Request:
    """One request as it came, without those for keystone and for versions."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    microversion: str


class OpenStackApi:
    """One such cloud on a port of its own."""

    def __init__(self, *services: str) -> None:
        """Take the services of the catalogue, all by default."""
        self.requests: list[Request] = []
        self.passwords: list[str] = []
        """What was logged in with, in order."""
        self.services = services or tuple(PATHS)
        self.let_go = threading.Event()
        """What hangs is let go when this is set."""
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                api._handle(self, json.loads(self.rfile.read(length)) if length else None)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_one

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Answer a method and a path with these in turn, and for ever with the last."""
        self._answers[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Request]:
        """Give what was asked by a method of a path."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def close(self) -> None:
        """End it, and what hangs."""
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def clouds_yaml(self, directory: Path, **more: Any) -> Path:
        """Write a clouds.yaml whose cloud `sepia` is this one; `more` goes into the cloud."""
        auth = {
            "auth_url": f"{self.url}/identity/v3", "username": "builder", "password": "secret",
            "project_name": "p", "user_domain_id": "default", "project_domain_id": "default",
        }  # fmt: skip
        auth |= more.pop("auth", {})
        file = directory / "clouds.yaml"
        file.write_text(json.dumps({"clouds": {"sepia": {"auth": auth, "region_name": "R", **more}}}))
        return file

    def _handle(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        path = urlsplit(handler.path).path.rstrip("/")
        if path == "/identity/v3/auth/tokens":
            self.passwords.append(body["auth"]["identity"]["password"]["user"]["password"])
        answers = self._answers.get((handler.command, path))
        answer = None if answers else self._document(handler.command, path)
        if answer is None:
            version = handler.headers.get("OpenStack-API-Version", "").partition(" ")[2]
            query = parse_qs(urlsplit(handler.path).query)
            self.requests.append(Request(handler.command, path, query, body, version))
            answer = Answer(501, {"error": {"message": f"the test has no answer for {path}"}})
            if answers:
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.how in ("hang", "late"):
            self.let_go.wait()
        if answer.how in ("hang", "reset"):
            linger = struct.pack("ii", 1, 0)  # a RST, and no polite end
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.close_connection = True
            handler.connection.close()
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        kind = "text/html" if isinstance(answer.body, bytes) else "application/json"
        handler.send_response(answer.status)
        for name, value in ({"Content-Type": kind} | answer.headers).items():
            handler.send_header(name, value)
        if answer.status == 204:
            data = b""
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _document(self, method: str, path: str) -> Answer | None:
        """Give keystone's token, or a version document."""
        if (method, path) == ("POST", "/identity/v3/auth/tokens"):
            return Answer(201, {"token": self._token()}, {"X-Subject-Token": "token"})
        if method != "GET":
            return None
        versions = {
            "/identity/v3": ("v3.14", "/identity/v3/", {}),
            "/compute/v2.1": ("v2.1", "/compute/v2.1/", {"version": "2.100", "min_version": "2.1"}),
            "/volume/v3": ("v3.0", "/volume/v3/", {"version": "3.70", "min_version": "3.0"}),
        }
        lists = {"/image": ("v2.9", "/image/v2/", {}), "/network": ("v2.0", "/network/v2.0/", {})}
        known = versions.get(path) or lists.get(path)
        if known is None:
            return None
        document = {"id": known[0], "status": "CURRENT", **known[2]}
        document["links"] = [{"rel": "self", "href": self.url + known[1]}]
        return Answer(200, {"version": document} if path in versions else {"versions": [document]})

    def _token(self) -> dict[str, Any]:
        catalogue = [
            {
                "type": kind, "name": kind, "id": kind,
                "endpoints": [
                    {"interface": "public", "region": "R", "region_id": "R", "id": kind, "url": self.url + PATHS[kind]}
                ],
            }
            for kind in self.services
        ]  # fmt: skip
        domain = {"id": "default", "name": "Default"}
        return {
            "expires_at": "2099-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
            "methods": ["password"], "roles": [{"id": "r", "name": "member"}], "catalog": catalogue,
            "user": {"id": "u", "name": "builder", "domain": domain},
            "project": {"id": "p", "name": "p", "domain": domain},
        }  # fmt: skip


@contextmanager
def api(*services: str) -> Iterator[OpenStackApi]:
    """Give one, and end it after."""
    made = OpenStackApi(*services)
    try:
        yield made
    finally:
        made.close()
