"""Buildbot still has every name that is replaced: a release that renames one must not leave us without the replacement."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from buildbot.util.service import BuildbotService
from buildbot.util.twisted import async_to_deferred
from twisted.internet.defer import Deferred

from master import buildbot_patches

LOOK = """
import inspect, json
from buildbot.db import logs
from buildbot.util.service import BuildbotService
from buildbot.data import masters, properties
from buildbot.data.resultspec import ResultSpec
from buildbot.db.changes import ChangesConnectorComponent
from buildbot.www import auth, config, rest, service, ws
from buildbot.worker.protocols.manager.pb import Dispatcher, PBManager
from twisted.spread import pb
from twisted.spread.pb import Broker
names = lambda function: list(inspect.signature(function).parameters)
print(json.dumps({
    "_write_json_data": names(rest.V2RootResource._write_json_data),
    "_render_raw": names(rest.V2RootResource._render_raw),
    "_async_iter_on_pool": names(logs._async_iter_on_pool),
    "WsProtocolFactory": names(ws.WsProtocolFactory.__init__),
    "BuildbotSite": names(service.BuildbotSite.__init__),
    "updateSession": names(service.BuildbotSession.updateSession),
    "build_cookie_name": names(auth.build_cookie_name),
    "parse_user_info_from_token": names(auth.parse_user_info_from_token),
    "decodeResultSpec": names(rest.V2RootResource.decodeResultSpec),
    "_db2data": names(masters._db2data),
    "produceEvent": names(masters.Master.produceEvent),
    "get_www_frontend_config_dict": names(config.get_www_frontend_config_dict),
    "onConnect": names(ws.WsProtocol.onConnect),
    "getSession": names(service.server.Request.getSession),
    "requestFactory": "requestFactory" in vars(service.server.Site),
    "reconfigServiceWithSibling": names(BuildbotService.reconfigServiceWithSibling),
    "compared": BuildbotService.compare_attrs,
    "dispatcher_class": PBManager.dispatcher_class is Dispatcher,
    "Dispatcher": names(Dispatcher.__init__),
    "requestAvatar": names(Dispatcher.requestAvatar),
    "_recvMessage": names(Broker._recvMessage),
    "_sendFailure": names(Broker._sendFailure),
    "properties_list": names(properties.PropertiesListEndpoint.get),
    "EventResource": names(service.sse.EventResource.__init__),
    "Request": names(service.server.Request.__init__),
    "doRefCount": hasattr(pb.RemoteReference, "doRefCount"),
    "apply": names(ResultSpec.apply),
    "mended": hasattr(ChangesConnectorComponent, "getChangeProperties"),
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
        "build_cookie_name": ["is_secure", "sitepath"],
        "parse_user_info_from_token": ["token", "session_secret"],
        "decodeResultSpec": ["self", "request", "endpoint"],
        "_db2data": ["model"],
        "produceEvent": ["self", "msg", "event"],
        "get_www_frontend_config_dict": ["master", "www_config"],
        "onConnect": ["self", "request"],
        "getSession": ["self", "sessionInterface", "forceNotSecure"],
        "requestFactory": True,
        "reconfigServiceWithSibling": ["self", "sibling"],
        "compared": ["name", "_config_args", "_config_kwargs"],
        "dispatcher_class": True,
        "Dispatcher": ["self", "config_portstr", "portstr"],
        "requestAvatar": ["self", "avatarId", "mind", "interfaces"],
        "_recvMessage": [
            "self", "findObjMethod", "requestID", "objectID", "message", "answerRequired", "netArgs", "netKw",
        ],
        "_sendFailure": ["self", "fail", "requestID"],
        "properties_list": ["self", "resultSpec", "kwargs"],
        "EventResource": ["self", "master"],
        "Request": ["self", "channel", "args", "parsePOSTFormSubmission", "kw"],
        "doRefCount": False,
        "apply": ["self", "data"],
        "mended": False,
    }  # fmt: skip


class _Service(BuildbotService):
    """Notes what it is configured with."""

    name = "noting"

    def checkConfig(self, **_: Any) -> None:
        """Accept anything."""
        self.taken: list[int] = []

    @async_to_deferred
    async def reconfigService(self, *, number: int) -> None:  # type: ignore[override]
        self.taken.append(number)


def test_a_setting_that_is_set_back_is_applied() -> None:
    """Each configuration that differs from the one before is applied, also if it is the first one again."""
    buildbot_patches.apply()
    buildbot_patches.apply()
    service = _Service(number=3)
    for number in (3, 3, 1, 1, 3):
        done: Deferred[Any] = service.reconfigServiceWithSibling(_Service(number=number))
        assert done.called
    assert service.taken == [3, 1, 3]
