"""One exchange by HTTP that is over in time, whatever the other side does; redirects are not followed."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import os
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from teuthology_bridge import __version__
from teuthology_bridge.errors import one_line
from teuthology_bridge.timed_socket import TimedSocket, Waits

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

LONGEST = 1 << 20
"""Bytes of a body. What we read is far shorter, and a page that is not ours may have any length."""

_TOLD = 200
_PORTS = {"http": 80, "https": 443}


class NoAnswer(Exception):
    """The other side gave no answer that can be read; trying again may help."""

    sent = True
    """Whether the other side may have taken the request all the same."""


class Untrusted(NoAnswer):
    """The other side has no certificate that is trusted here; trying again does not help."""


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes = b""
    location: str = ""
    """Where a redirect points to."""

    @property
    def text(self) -> str:
        """Give the body as text, whatever is in it."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """Give what the body holds as JSON; NoAnswer if it holds something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NoAnswer(f"it answered {self.told()}") from None

    def told(self) -> str:
        """Say what came, for a sentence."""
        told = f"with status {self.status}"
        if 300 <= self.status < 400 and self.location:
            return f"{told}, a redirect to {one_line(self.location, _TOLD)}"
        beginning = one_line(self.text[: 4 * _TOLD], _TOLD)
        return f"{told} and {beginning!r}" if beginning else f"{told} and nothing else"


def exchange(
    method: str,
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    authorization: str = "",
    body: bytes | None = None,
    waits: Waits | None = None,
) -> Reply:
    """Give the answer to one request within so many seconds; NoAnswer says in one sentence why there is none.

    What it says of the user is apart from the other headers, under the name that a report to Sentry blots out.
    """
    sent = False
    try:
        one = _Exchange(urlsplit(url), time.monotonic() + timeout, waits or Waits.usual())
        sent = True
        return one.run(method, headers or {}, authorization, body)
    except NoAnswer:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        answer = _no_answer(error, timeout)
        answer.sent = sent
        raise answer from None


def _no_answer(error: Exception, timeout: float) -> NoAnswer:
    """Give the sentence for what went wrong."""
    if isinstance(error, TimeoutError):
        return NoAnswer(f"no whole answer came within {timeout:.3g} s")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Untrusted(f"its certificate is not trusted here: {error.verify_message}")
    if isinstance(error, http.client.RemoteDisconnected):
        return NoAnswer("it closed the connection without an answer")
    if isinstance(error, http.client.IncompleteRead):
        return NoAnswer(_CUT)
    if isinstance(error, OSError):
        return NoAnswer(one_line(error.strerror or str(error) or type(error).__name__, _TOLD))
    told = one_line(f"{type(error).__name__} {error}", _TOLD)
    return NoAnswer(f"it answered with something else than HTTP: {told}")


_CUT = "its answer ended in the middle"


class _Exchange:
    """One request and its answer, on a connection of their own."""

    def __init__(self, parts: SplitResult, deadline: float, waits: Waits) -> None:
        self._parts = parts
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._proxy = _proxy(parts)
        through = self._proxy or parts
        port = through.port or _PORTS.get(through.scheme, 80)
        self._timed = TimedSocket(through.hostname or "", port, deadline, waits)

    def run(self, method: str, headers: Mapping[str, str], authorization: str, body: bytes | None) -> Reply:
        try:
            if self._parts.scheme == "https":
                self._secure()
            target = self._parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
            sent = {
                "Host": self._parts.netloc,
                "User-Agent": f"teuthology-bridge/{__version__}",
                # What is not packed can't unpack to more than was read.
                "Accept-Encoding": "identity",
                "Connection": "close",
                **headers,
            }
            if self._proxy is not None and self._parts.scheme == "http":
                target = self._parts.geturl()
                sent |= _authorization(self._proxy)
            # Connected already, and named in Host: this name is for nobody.
            connection = http.client.HTTPConnection("peer")
            connection.sock = cast("socket.socket", self._timed)
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            if body is not None:
                sent["Content-Length"] = str(len(body))
            for name, value in sent.items():
                connection.putheader(name, value)
            if authorization:
                connection.putheader("Authorization", authorization)
            connection.endheaders(body)
            return _read(connection.getresponse())
        finally:
            self._timed.hang_up()

    def _secure(self) -> None:
        if self._proxy is not None:
            host = f"[{self._host}]" if ":" in self._host else self._host
            lines = [f"CONNECT {host}:{self._port} HTTP/1.1", f"Host: {host}:{self._port}"]
            lines += [f"{name}: {value}" for name, value in _authorization(self._proxy).items()]
            self._timed.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            response = http.client.HTTPResponse(cast("socket.socket", self._timed), method="CONNECT")
            response.begin()
            if response.status != 200:
                raise NoAnswer(f"the proxy {self._proxy.hostname} answered with status {response.status}")
        self._timed.start_tls(_trust(), self._host)


def _read(response: http.client.HTTPResponse) -> Reply:
    packed = response.getheader("Content-Encoding", "identity")
    if packed != "identity":
        raise NoAnswer(f"its answer is packed as {one_line(packed, 20)!r}, which nobody asked for")
    if response.length is not None and response.length > LONGEST:
        raise NoAnswer(f"its answer is {response.length} bytes long")
    body = response.read(LONGEST + 1)
    if len(body) > LONGEST:
        raise NoAnswer(f"its answer is more than {LONGEST} bytes long")
    if response.length:
        raise NoAnswer(_CUT)
    return Reply(response.status, body, response.getheader("Location") or "")


def _trust() -> ssl.SSLContext:
    """Trust whom the system trusts, or whom the variables name that requests and curl look at."""
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not named:
        return ssl.create_default_context()
    if os.path.isdir(named):
        return ssl.create_default_context(capath=named)
    return ssl.create_default_context(cafile=named)


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Give the proxy that the environment names for a URL, as teuthology's own requests take it.

    Nothing on this machine is asked through a proxy, which would look for it on its own.
    """
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if here or not named or proxy_bypass(host):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
