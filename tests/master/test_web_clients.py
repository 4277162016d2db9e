"""Clients of the web port: which pages are its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from autobahn.websocket.types import ConnectionDeny
from buildbot.www.rest import V2RootResource

from master import buildbot_patches
from master.web.clients import allowed_origins


@pytest.mark.parametrize(
    ("url", "origin", "is_own"),
    [
        ("https://builds.example.org/", "https://builds.example.org", True),
        ("https://builds.example.org:443/", "https://builds.example.org", True),
        ("https://Builds.example.org/ci/", "https://builds.example.org:443", True),
        ("https://builds.example.org:8443/", "https://BUILDS.example.org:8443", True),
        ("http://builds.example.org:80/", "http://builds.example.org", True),
        ("http://builds.example.org:443/", "http://builds.example.org", False),
        ("https://builds.example.org/", "http://builds.example.org", False),
        ("https://builds.example.org/", "https://builds.example.org:8443", False),
        ("https://builds.example.org/", "https://builds.example.org.evil.example", False),
        ("https://builds.example.org/", "https://evil.example/https://builds.example.org", False),
        ("https://builds.example.org/", "http://localhost", False),
        ("https://builds.example.org/", "null", False),
        ("http://127.0.0.1:8010/", "http://localhost:8010", True),
        ("http://localhost:8010/", "http://127.0.0.1:8010", True),
        ("http://127.0.0.2:8010/", "http://127.0.0.2:8010", True),
        ("http://127.0.0.1:8010/", "http://127.0.0.1:8011", False),
        ("http://127.0.0.1:8010/", "http://127.0.0.3:8010", False),
        ("http://127.0.0.1:8010/", "http://[::1]:8010", False),
        ("http://[::1]:8010/", "http://[::1]:8010", True),
        ("http://[::1]:8010/", "http://:::8010", False),
        ("http://[::1]:8010/", "http://localhost:8010", True),
    ],
)
def test_d9_origins_are_compared_as_origins(
    monkeypatch: pytest.MonkeyPatch, url: str, origin: str, is_own: bool
) -> None:
    """The websocket and REST take the same pages: those at www.url, and at each name of this machine if it is loopback."""
    config = SimpleNamespace(buildbotURL=url, www={"allowed_origins": allowed_origins(url)})
    monkeypatch.setattr(buildbot_patches, "_on_connect", lambda *_: None)
    protocol: Any = SimpleNamespace(master=SimpleNamespace(config=config))
    try:
        buildbot_patches._only_own_pages(protocol, SimpleNamespace(origin=origin))
        over_websocket = True
    except ConnectionDeny:
        over_websocket = False
    rest: Any = SimpleNamespace()
    V2RootResource.reconfigResource(rest, config)
    over_rest = any(pattern.match(origin.lower()) for pattern in rest.origins)
    assert (over_websocket, over_rest) == (is_own, is_own)
