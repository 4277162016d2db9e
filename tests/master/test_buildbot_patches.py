"""Buildbot still has every name that is replaced: a release that renames one must not leave us without the replacement."""

from __future__ import annotations

import json
import subprocess
import sys

LOOK = """
import inspect, json
from buildbot.db import logs
from buildbot.www import rest, service, ws
names = lambda function: list(inspect.signature(function).parameters)
print(json.dumps({
    "_write_json_data": names(rest.V2RootResource._write_json_data),
    "_render_raw": names(rest.V2RootResource._render_raw),
    "_async_iter_on_pool": names(logs._async_iter_on_pool),
    "WsProtocolFactory": names(ws.WsProtocolFactory.__init__),
    "BuildbotSite": names(service.BuildbotSite.__init__),
    "updateSession": names(service.BuildbotSession.updateSession),
    "requestFactory": "requestFactory" in vars(service.server.Site),
}))
"""
"""Run in a process of its own: in this one the replacements may be in place."""


def test_what_is_replaced_takes_what_it_took() -> None:
    """Each replaced function has the parameters that its replacement was written for; the site leaves the request to its class."""
    finished = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    assert json.loads(finished.stdout) == {
        "_write_json_data": ["request", "encoder", "data"],
        "_render_raw": ["self", "request", "ep", "rspec", "kwargs"],
        "_async_iter_on_pool": [
            "generator_sync", "reactor", "provider_threadpool", "max_backlog", "wait_backlog_consuption",
        ],
        "WsProtocolFactory": ["self", "master"],
        "BuildbotSite": ["self", "root", "logPath", "rotateLength", "maxRotatedFiles"],
        "updateSession": ["self", "request"],
        "requestFactory": True,
    }  # fmt: skip
