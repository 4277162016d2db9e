"""A master and its package server on loopback, as far as the wire goes: what comes next is written down before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

TOKEN = "s3cret"
TARGET = "ceph-deb-jammy-x86_64-default"
OTHER = "ceph-rpm-centos9-x86_64-default"
SHA1 = "0123456789abcdef0123456789abcdef01234567"
MOVED = "fedcba9876543210fedcba9876543210fedcba98"
KEY = f"{TARGET}/{SHA1}"

Reply = tuple[int, Any]
"""A status, and what is given as JSON, or as it is if it is text."""


def _named(ref: str) -> tuple[str, str]:
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if ref.startswith(prefix):
            return kind, ref.removeprefix(prefix)
    return "branch or tag", ref


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1000


@dataclass
class FakeMaster:
    """`script` holds, for each look at a buildrequest, what is new in its status; the last stays."""

    refs: dict[str, str] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)
    script: list[dict[str, Any]] = field(default_factory=lambda: [{"state": "published"}])
    targets: tuple[str, ...] = (TARGET, OTHER)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Who waits before anybody asks."""
    served: bool = True
    """Whether the package server has what is published."""
    instead: Callable[[str, str], Reply | None] = lambda method, path: None
    """Given method and path, what the master answers instead, if anything."""
    hold: Callable[[int], object] = lambda number: None
    """Given how many asks came before, lets one wait for its answer."""
    most_held: int = 0
    """So many asks waited for their answer at most."""
    requests: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """What the master was asked: `ask`, `status N`, `renew N`, `withdraw N`, each with its params."""
    looks: list[str] = field(default_factory=list)
    """What the package server was asked for."""
    tokens: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._keys: dict[int, str] = {}
        self._waiters: dict[int, list[dict[str, Any]]] = {}
        self._status: dict[int, dict[str, Any]] = {}
        self._next = 1
        self._come = self._held = 0
        self._lock = Lock()

    def __enter__(self) -> Self:
        self._master = self._start(0, self._of_master)
        self._packages = self._start(0, self._of_packages)
        self.port: int = self._master.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.packages_url = f"http://127.0.0.1:{self._packages.server_address[1]}/"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(self._master)
        self._stop(self._packages)

    def kill(self) -> None:
        """Have nobody listen where the master was."""
        self._stop(self._master)

    def start_again(self) -> None:
        """Have the master listen where it was."""
        self._master = self._start(self.port, self._of_master)

    def kill_package_server(self) -> None:
        """Have nobody listen where the package server was."""
        self._stop(self._packages)

    def forget(self) -> None:
        """Lose the database; ids begin anew elsewhere."""
        self._keys.clear()
        self._next += 1000

    def asked(self, what: str = "ask") -> list[Mapping[str, Any]]:
        """Give the params of all requests of a kind."""
        return [params for kind, params in self.requests if kind.split()[0] == what]

    @property
    def order(self) -> list[str]:
        """Give what the master was asked, without params."""
        return [kind for kind, _ in self.requests]

    def version_url(self, target: str = TARGET) -> Callable[[str], str]:
        """Give what teuthology's class gives."""
        return lambda sha1: f"{self.packages_url}{target}/sha1/{sha1}/version"

    def _start(self, port: int, answer: Callable[[str, str, dict[str, Any], str | None], Reply]) -> _Server:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._give({})

            def do_POST(self) -> None:
                self._give(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _give(self, told: dict[str, Any]) -> None:
                status, content = answer(self.command, self.path, told, self.headers.get("Authorization"))
                body = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", content)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = _Server(("127.0.0.1", port), Handler)
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        return server

    def _stop(self, server: _Server) -> None:
        server.shutdown()
        server.server_close()

    def _of_packages(self, method: str, path: str, told: dict[str, Any], token: str | None) -> Reply:
        with self._lock:
            self.looks.append(path)
            there = {f"/{key.replace('/', '/sha1/')}/version" for key in self.published}
            return (200, "17.2.6-1\n") if self.served and path in there else (404, "no")

    def _of_master(self, method: str, path: str, told: dict[str, Any], token: str | None) -> Reply:
        if not path.endswith("/forceschedulers/packages"):
            return self._answer(method, path, told, token)
        with self._lock:
            number, self._come, self._held = self._come, self._come + 1, self._held + 1
            self.most_held = max(self.most_held, self._held)
        try:
            self.hold(number)
            return self._answer(method, path, told, token)
        finally:
            with self._lock:
                self._held -= 1

    def _answer(self, method: str, path: str, told: dict[str, Any], token: str | None) -> Reply:
        with self._lock:
            instead = self.instead(method, path)
            self.tokens.append(token)
            if instead is not None:
                return instead
            assert path.startswith("/api/v2/"), path
            if method == "GET":
                return self._of_status(int(path.rsplit("/", 1)[1]))
            if token != f"Bearer {TOKEN}":
                return 403, {"error": {"code": -32600, "message": "asking needs a user: log in"}}
            if path == "/api/v2/forceschedulers/packages":
                return self._of_ask(told["params"])
            return self._of_word(told["method"], int(path.rsplit("/", 1)[1]), told["params"])

    def _of_ask(self, params: dict[str, Any]) -> Reply:
        self.requests.append(("ask", params))
        [target] = params["builderNames"]
        if target not in self.targets:
            sentence = f"{target!r} is not a target that is on; there are {', '.join(self.targets)}"
            return 400, {"error": {"code": -32602, "message": {"builderNames": sentence}}}
        kind, name = _named(params.get("ref", ""))
        sha1 = params.get("sha1") or self.refs.get(params.get("ref", ""), self.refs.get(name))
        if sha1 is None:
            message = {"ref": f"{params['git_url']} has no {kind} {name!r}"}
            return 400, {"error": {"code": -32602, "message": message}}
        key = f"{target}/{sha1}"
        answer = {"package_key": key, "state": "published", "url": "http://elsewhere/", "buildset_id": None}
        if key in self.published:
            return 200, {"result": [None, {}, [{**answer, "buildrequest_ids": {}}]]}
        known = [one for one, its in self._keys.items() if its == key]
        request = known[0] if known else self._next
        if not known:
            self._next += 1
            self._keys[request], self._status[request] = key, {}
            self._waiters[request] = [*self.waiting]
        if not any(one["job"] == params.get("job") for one in self._waiters[request]):
            self._waiters[request].append({"asker": "lab", "job": params.get("job", ""), "since": 1.0})
        answer |= {"state": "on its way", "buildset_id": 7, "buildrequest_ids": {"3": request}}
        return 200, {"jsonrpc": "2.0", "id": 1, "result": [7, {"3": request}, [answer]]}

    def _of_status(self, request: int) -> Reply:
        self.requests.append((f"status {request}", {}))
        if request not in self._keys:
            return 404, {"error": "not found while getting from <packages>"}
        status = self._status[request]
        status |= self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if status.get("state") == "published":
            self.published.add(self._keys[request])
        return 200, {"packages": [self._whole(request)], "meta": {}}

    def _whole(self, request: int) -> dict[str, Any]:
        build = self._status[request].get("build", 0)
        return {
            "buildrequest_id": request,
            "package_key": self._keys[request],
            "state": "waiting",
            "url": "http://elsewhere/",
            "git_url": "",
            "ref": "",
            "build_url": f"{self.url}#/builders/3/builds/{build}" if build else None,
            "request_url": f"{self.url}#/buildrequests/{request}",
            "build": 0,
            "step": "",
            "step_state": "",
            "asked": 1.0,
            "started": None,
            "elapsed": 0.0,
            "percent": None,
            "time_left": None,
            "reason": "",
            "error": "",
            "waiting": self._waiters[request],
            **self._status[request],
        }

    def _of_word(self, method: str, request: int, params: dict[str, Any]) -> Reply:
        self.requests.append((f"{method} {request}", params))
        if request not in self._keys:
            return 400, {"error": {"code": 1, "message": f"buildrequest {request} is unknown here"}}
        if method == "renew":
            return 200, {"result": {"waiting": self._waiters[request]}}
        left = [one for one in self._waiters[request] if one["job"] != params["job"]]
        self._waiters[request] = left
        return 200, {"result": {"cancelled": not left, "waiting": left}}
