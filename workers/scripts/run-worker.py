"""Runs one buildbot-worker in this directory; what it needs to know comes as JSON on standard input.

So the password is neither in a file, nor on a command line, nor in an environment. It runs on
whatever Python the machine has, from 3.8 on.

The JSON's keys: host, port, name, password; `ca`, certificates in PEM that the master is verified
with, or nothing for plain TCP; `environment`, to have besides the process's own; `rendezvous`, a URL
that tells the name, once there is a build for this machine.

It ends with status 3 if the master refuses the password for good, and with 4 if there will be no build.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

library = sys.argv[1:2]
sys.path[:0] = library

from buildbot_worker import pb  # noqa: E402
from buildbot_worker.bot import Worker  # noqa: E402
from twisted.application.internet import ClientService, backoffPolicy  # noqa: E402
from twisted.cred.error import UnauthorizedLogin  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS  # noqa: E402
from twisted.python import log  # noqa: E402

REFUSED, NOT_WANTED = 3, 4
REFUSALS, SECONDS = 5, 20
"""A master that has refused the password so often, for so long, will not take it any more."""

LOGIN_SECONDS = 60
LONGEST_POLL = 120


def endpoint(config: dict[str, Any]) -> Any:
    """Give the way to the master: with TLS, certificate and name verified, if there is what to verify with."""
    tcp = HostnameEndpoint(reactor, config["host"], config["port"], timeout=10)
    if not config.get("ca"):
        return tcp
    from OpenSSL.crypto import X509StoreFlags
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
    from zope.interface import implementer

    found = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", config["ca"], re.DOTALL)
    trusted = trustRootFromCertificates([Certificate.loadPEM(one) for one in found])
    options = optionsForClientTLS(config["host"], trustRoot=trusted)

    @implementer(IOpenSSLClientConnectionCreator)
    class Trusting:
        def clientConnectionForTLS(self, protocol: Any) -> Any:
            connection = options.clientConnectionForTLS(protocol)
            # So that the master's own certificate will do, whoever has signed it.
            connection.get_context().get_cert_store().set_flags(X509StoreFlags.PARTIAL_CHAIN)
            return connection

    return wrapClientTLS(Trusting(), tcp)


class Telling:
    """An endpoint whose failures are in the log: whoever reads a console's end sees why no worker came."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def __repr__(self) -> str:
        """Say what Twisted calls it in the log."""
        return "the master"

    def connect(self, factory: Any) -> Any:
        """Connect, or say why not."""
        return self._endpoint.connect(factory).addErrback(self._tell)

    def _tell(self, reason: Any) -> Any:
        log.msg(f"the master cannot be reached: {why(reason)}")
        return reason


class Ending:
    """How this process ends."""

    status = 0

    def __call__(self, status: int, sentence: str) -> None:
        """Say why, and stop."""
        log.msg(sentence)
        self.status = status
        reactor.stop()


def tell_why(factory: Any, ending: Ending) -> None:
    """Have every lost connection leave its reason in the log, and too many refusals end the process.

    Buildbot's own code passes over a failed TLS handshake in silence, knocks for ever, and waits for ever
    for a master that accepts a connection and says nothing.
    """
    build, got, failed = factory.buildProtocol, factory.gotPerspective, factory.failedToGetPerspective
    refusals = []
    brokers = []

    def build_protocol(address: Any) -> Any:
        broker = build(address)
        lost = broker.connectionLost

        def connection_lost(reason: Any) -> None:
            no_timer()
            log.msg(f"connection to the master lost: {why(reason)}")
            lost(reason)

        def too_late() -> None:
            log.msg(f"the master has not let this worker in for {LOGIN_SECONDS} s")
            broker.transport.abortConnection()

        broker.connectionLost = connection_lost
        broker.timer = reactor.callLater(LOGIN_SECONDS, too_late)
        brokers[:] = [broker]
        return broker

    def no_timer() -> None:
        for broker in brokers:
            if broker.timer.active():
                broker.timer.cancel()

    def got_perspective(perspective: Any) -> Any:
        no_timer()
        refusals.clear()
        return got(perspective)

    def failed_to_get_perspective(reason: Any, broker: Any) -> Any:
        no_timer()
        if reason.check(UnauthorizedLogin):
            refusals.append(reactor.seconds())
            if len(refusals) >= REFUSALS and refusals[-1] - refusals[0] >= SECONDS:
                ending(REFUSED, f"the master has refused this worker {len(refusals)} times: giving up")
        return failed(reason, broker)

    factory.buildProtocol = build_protocol
    factory.gotPerspective = got_perspective
    factory.failedToGetPerspective = failed_to_get_perspective


def why(reason: Any) -> str:
    """Give the sentence of a failure: OpenSSL's errors are lists of triples."""
    errors = reason.value.args[0] if reason.value.args else None
    if isinstance(errors, list):
        return f"TLS: {'; '.join(str(error[-1]) for error in errors)}"
    return str(reason.getErrorMessage())


def start(config: dict[str, Any], ending: Ending) -> None:
    """Make the worker, and have it connect and reconnect."""
    # Worker's own argument for it has no effect, and its default goes up to a minute.
    pb.backoffPolicy = lambda: backoffPolicy(initialDelay=0.5, maxDelay=5.0)
    worker = Worker(
        config["host"],
        config["port"],
        config["name"],
        config["password"],
        os.getcwd(),
        keepalive=60,
        umask=0o022,
    )
    for service in list(worker):
        if isinstance(service, ClientService):
            worker.removeService(service)
    worker.bf.noisy = False
    tell_why(worker.bf, ending)
    service = ClientService(Telling(endpoint(config)), worker.bf, retryPolicy=pb.backoffPolicy())
    service.setServiceParent(worker)
    worker.startService()


def wait_for_name(url: str, ca: str) -> str:
    """Ask until the answer is a name; give it, or nothing if this machine is not wanted any more."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(cadata=ca)
    # No proxy: proxies lead out, and the master is not there.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    said = ""
    while True:
        try:
            with opener.open(url, timeout=LONGEST_POLL) as answer:
                if answer.status == 200:
                    return str(json.loads(answer.read().decode("utf-8"))["worker"])
                problem = "" if answer.status == 204 else f"it answers with status {answer.status}"
        except (OSError, HTTPException, ValueError, KeyError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in (404, 410):
                return ""
            problem = f"{type(error).__name__}: {error}"
        if problem:
            if problem != said:
                log.msg(f"the master cannot be asked for a build: {problem}")
            time.sleep(2)
        said = problem


def main() -> int:
    """Read what there is to know, and run until something ends it."""
    config = json.loads(sys.stdin.readline())
    sys.stdin.close()
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    os.environ.update(config.pop("environment", {}))
    log.startLogging(sys.stdout, setStdout=False)
    if config.get("rendezvous"):
        log.msg("ready, and waiting for a build")
        config["name"] = wait_for_name(config["rendezvous"], config.get("ca", ""))
        if not config["name"]:
            log.msg("no build will come: this machine is not wanted any more")
            return NOT_WANTED
        log.msg(f"a build has come: this machine is worker {config['name']}")
    ending = Ending()
    start(config, ending)
    del config
    reactor.run()
    return ending.status


sys.exit(main())
