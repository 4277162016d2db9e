"""Clients of the web port: their address, their session's cookie, and their failed logins, which are logged and delayed."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_to_bytes, urlsplit

import jwt
from buildbot.www import auth, service
from twisted.python import log

from master.buildbot_patches import LimitedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

    from master.users import Users

DELAY = 0.5
"""Seconds after which a request with a wrong secret is answered. Requests with the right one are not delayed."""

_MOST_SHOWN = 100
"""Characters of a client's own text in a line of the log."""

_HEADERS = (
    (b"X-Frame-Options", b"DENY"),
    (b"Content-Security-Policy", b"frame-ancestors 'none'"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"same-origin"),
)
"""Headers of every answer: no other site shows the UI in a frame, where it could steer a user's clicks."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_METHODS = (b"GET", b"HEAD", b"POST")

_DECODED = (b"Content-Type", b"Origin")
"""Headers that Buildbot decodes. A cookie that is not UTF-8 is ignored, and such a login is refused with 401."""


def configure(*, https: bool, proxies: Sequence[IPv4Address | IPv6Address]) -> None:
    """Apply the settings in force; `proxies` are the addresses whose X-Real-IP is believed.

    With HTTPS, the cookie's name begins with `__Host-`: a browser takes such a cookie from this host alone and over HTTPS
    alone, so a page on another port or subdomain cannot plant one.
    """
    WebRequest.proxies = frozenset(str(proxy) for proxy in proxies)
    WebRequest.https = https


def allowed_origins(url: str) -> list[str]:
    """Return the origins of the pages at `url`, as patterns of fnmatch: REST and the websocket compare with these.

    A browser leaves out a scheme's default port and writes the host in lower case. A loopback `url` is this machine's, under
    whichever name its user typed. `[::1]` is not added: the master listens there only if that is its address, so a
    build could.
    """
    parts = urlsplit(url)
    host, scheme = parts.hostname or "", parts.scheme.lower()
    hosts = {f"[[]{host}]" if ":" in host else host}
    if _is_loopback(host):
        hosts |= {"localhost", "127.0.0.1"}
    port = parts.port or _DEFAULT_PORTS[scheme]
    suffixes = {f":{port}", "" if port == _DEFAULT_PORTS[scheme] else f":{port}"}
    return sorted(f"{scheme}://{host}{suffix}" for host in hosts for suffix in suffixes)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def apply() -> None:
    """Let the web port use WebRequest."""
    service.BuildbotSite.requestFactory = WebRequest
    service.BuildbotSession.updateSession = _update_session  # type: ignore[method-assign]
    auth.build_cookie_name = lambda *_: WebRequest.cookie()
    auth.parse_user_info_from_token = user_info_from_token


def user_info_from_token(token: str | bytes, secret: str) -> dict[str, Any]:
    """Return the user of a session's cookie; KeyError if the cookie is not valid.

    Buildbot logs a traceback for each cookie that is not a token.
    """
    try:
        found = jwt.decode(token, secret, algorithms=[auth.SESSION_SECRET_ALGORITHM])["user_info"]
    except (jwt.PyJWTError, ValueError) as error:
        raise KeyError(str(error)) from None
    if not isinstance(found, dict):
        raise KeyError("user_info")
    return found


class WebRequest(LimitedRequest):
    """A request to the web port. If its Authorization header is wrong, that is logged, and its answer is delayed."""

    proxies: ClassVar[frozenset[str]] = frozenset()
    https: ClassVar[bool] = False
    site: Any
    _session: Any = None

    @classmethod
    def cookie(cls) -> bytes:
        """Return the name of the session's cookie."""
        return b"__Host-buildpackages" if cls.https else b"TWISTED_SESSION"

    def getSession(self, sessionInterface: Any = None, forceNotSecure: bool = False) -> Any:
        """Return the session of the cookie, else an anonymous one.

        Twisted has a fixed name for the cookie, and sends one to every client, which scripts can read.
        """
        if self._session is None:
            token = self.getCookie(self.cookie())
            if token:
                with suppress(KeyError):
                    self._session = self.site.getSession(token)
            if self._session is None:
                self._session = self.site.makeSession()
        return self._session

    def process(self) -> None:
        """Answer, late if the request has a wrong secret."""
        if self._received > self.most_body:
            return
        for field, value in _HEADERS:
            self.setHeader(field, value)
        if (place := self._unreadable()) is not None:
            self._answer(HTTPStatus.BAD_REQUEST, f"The {place} of a request must be UTF-8 without NUL.")
            return
        methods = (*_METHODS, b"OPTIONS") if self.path.startswith(b"/api/") else _METHODS
        if self.method not in methods:
            # Twisted answers 501, which a monitor counts as a failure of the server.
            self.setHeader(b"Allow", b", ".join(methods))
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "This path does not take the method of the request.")
            return
        header = self.getHeader(b"authorization")
        users: Users | None = getattr(self.channel.site, "users", None)
        if header is not None and users is not None:
            text = header.decode(errors="surrogateescape")
            if users.of_authorization(text) is None:
                name = users.claimed(text)
                log.msg(f"login refused: {shown(name) if name else 'no name'} at {address(self)}")
                self.channel.site.reactor.callLater(DELAY, self._late)
                return
        super().process()

    def _unreadable(self) -> str | None:
        """Return the part of the request that is not UTF-8 or has a NUL, else None.

        Buildbot and Twisted decode these parts without a check, and log a traceback for each that they cannot decode.
        """
        parts = {
            "path": [unquote_to_bytes(self.path)],
            "names and values of arguments": [
                part for name, values in self.args.items() for part in (name, *values)
            ],
            **{f"{name.decode()} header": self.requestHeaders.getRawHeaders(name, []) for name in _DECODED},
        }
        return next((place for place, texts in parts.items() if not all(map(_is_text, texts))), None)

    def _answer(self, status: HTTPStatus, sentence: str) -> None:
        body = f"{sentence}\n".encode()
        self.setResponseCode(status)
        self.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def _late(self) -> None:
        if not self.finished and self.channel is not None:
            super().process()


def _update_session(session: Any, request: WebRequest) -> None:
    """Set the session's cookie so that no script reads it and no other site sends it.

    Behind a proxy that ends TLS, Buildbot takes the connection for a plain one and leaves `Secure` out.
    """
    request.addCookie(
        request.cookie(), session.uid, path=b"/", secure=request.https, httpOnly=True, sameSite=b"strict"
    )


def address(request: Any) -> str:
    """Return the client's IP address; behind a proxy of the settings, the one that the proxy names."""
    peer = str(getattr(request.getClientAddress(), "host", "unknown"))
    if peer in WebRequest.proxies:
        named = request.getHeader(b"x-real-ip") or b""
        with suppress(ValueError):
            return str(ip_address(named.decode("ascii", "replace").strip()))
    return peer


def log_refusal(request: Any, user: str, reason: bytes | str) -> None:
    """Log that a request was refused: who, from where, and what."""
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    where = shown(request.path.decode("ascii", "replace"))
    method = shown(request.method.decode("ascii", "replace"))
    log.msg(f"refused ({HTTPStatus.FORBIDDEN:d}): {user} at {address(request)}: {method} {where}: {text}")


def _is_text(data: bytes) -> bool:
    """Return whether the bytes are UTF-8 without NUL."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return "\0" not in text


def shown(text: str) -> str:
    """Return a client's text for a line of the log: short, and without a line break."""
    return ascii(text[:_MOST_SHOWN])
