"""A slot of the latent worker: what a build leaves of its machine does not outlive it."""

from __future__ import annotations

import socket
import ssl
import warnings
from threading import Event, Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():  # Buildbot's kit turns every warning into an error, for everybody
    from buildbot.test import fakedb
    from buildbot.test.fake import fakemaster
    from buildbot.test.reactor import TestReactorMixin
import pytest
from buildbot.interfaces import LatentWorkerCannotSubstantiate
from buildbot.process.build import Build
from buildbot.process.results import CANCELLED, RETRY
from buildbot.util.deferwaiter import DeferWaiter
from buildbot.worker.latent import States
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial import unittest

from tests.patience import SLOW, free_ports
from tests.reactor import finish
from workers.latent import OneBuild, OneBuildWorker
from workers.tls import pb_port, self_signed

if TYPE_CHECKING:
    from pathlib import Path

    from twisted.python.failure import Failure


class _Machine:
    description = "one machine"

    async def stop(self) -> None:
        """Be ended, without a word to the master."""


def test_a_worker_that_stands_still_does_not_hold_its_slot(tmp_path: Path) -> None:
    """With TLS a connection ends when the other side says so, and the machine of one that was made to stand still is gone."""
    made = self_signed(tmp_path, ["127.0.0.1"])
    [port] = free_ports(1)
    over = Event()

    def stand_still() -> None:
        context = ssl.create_default_context(cafile=str(made.certificate))
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"here")
            over.wait(60 * SLOW)

    async def use(reactor: Any) -> str:
        attached: Deferred[Protocol] = Deferred()
        gone: Deferred[str] = Deferred()

        class Attached(Protocol):
            def dataReceived(self, _: bytes) -> None:
                attached.callback(self)

            def connectionLost(self, reason: Any = None) -> None:
                gone.callback("gone")

        endpoint = serverFromString(reactor, pb_port("127.0.0.1", port, made.certificate, made.key))
        listening = await endpoint.listen(Factory.forProtocol(Attached))
        worker = Thread(target=stand_still)
        worker.start()
        try:
            transport = (await attached).transport
            slot = OneBuildWorker.__new__(OneBuildWorker)
            slot.name, slot._starting, slot._machine, slot._boot = "one", None, _Machine(), None
            slot.change_password = _nothing  # type: ignore[method-assign]
            slot.conn = SimpleNamespace(
                loseConnection=transport.loseConnection,
                mind=SimpleNamespace(broker=SimpleNamespace(transport=transport)),
            )
            # As Buildbot does when the build has ended, before the machine is ended.
            slot.conn.loseConnection()
            await slot.stop_instance()
            gone.addTimeout(10 * SLOW, reactor, lambda *_: "still there")
            return await gone
        finally:
            over.set()
            await listening.stopListening()
            worker.join()

    assert finish(use) == "gone"


@pytest.mark.parametrize("state", [state for state in States if state is not States.SUBSTANTIATING_STARTING])
def test_a_worker_that_is_not_expected_is_refused_and_not_waited_for(state: States) -> None:
    """Its connection is closed. The end of that is never reported, so a master that waited for it could not stop."""
    slot = OneBuildWorker.__new__(OneBuildWorker)
    slot.name, slot.state, slot._deferwaiter = "one", state, DeferWaiter()
    done: list[str] = []
    refusals: list[Failure] = []
    conn = SimpleNamespace(
        loseConnection=lambda: done.append("closed"), notifyDisconnected=lambda: done.append("forgotten")
    )
    slot.attached(conn).addErrback(refusals.append)
    assert [refusal.getErrorMessage() for refusal in refusals] == ["no build of one waits for its worker"]
    assert done == ["closed", "forgotten"]
    assert not slot._deferwaiter.has_waited()


async def _nothing(_: str = "") -> str:
    return ""


@pytest.mark.parametrize(("results", "order"), [(RETRY, ["end", "stop", "part"]), (CANCELLED, ["stop"])])
def test_the_end_of_the_master_ends_machines_first(
    monkeypatch: pytest.MonkeyPatch, results: int, order: list[str]
) -> None:
    """Of all that a stopping master does they take the longest; a build that is cancelled may still have something to say."""
    done: list[str] = []

    async def stop(build: OneBuild, *_: Any) -> None:
        assert build._master_stops == (results == RETRY), "what ends meanwhile is no machine's failure"
        done.append("stop")

    monkeypatch.setattr(Build, "stopBuild", lambda build, *_: Deferred.fromCoroutine(stop(build)))
    build = OneBuild.__new__(OneBuild)
    build.finished = False
    build.master = SimpleNamespace(reactor=SimpleNamespace(callLater=lambda *_: None))
    slot = SimpleNamespace(end_machine=lambda: done.append("end"), part=lambda: done.append("part"))
    build.workerforbuilder = SimpleNamespace(worker=slot)
    build.stopBuild("Master Shutdown", results)
    assert done == order


class TestAttempts(TestReactorMixin, unittest.TestCase):
    """How many machines may fail for one request."""

    async def setUp(self) -> None:
        self.setup_test_reactor()
        self.master = await fakemaster.make_master(self, wantDb=True, wantData=True)
        await self.master.db.insert_test_data(
            [
                fakedb.Master(id=1), fakedb.Worker(id=1, name="w"), fakedb.Builder(id=7, name="b"),
                fakedb.SourceStamp(id=3), fakedb.Buildset(id=2),
                fakedb.BuildsetSourceStamp(buildsetid=2, sourcestampid=3),
                fakedb.BuildRequest(id=22, buildsetid=2, builderid=7),
            ]
        )  # fmt: skip
        self.builds = 0

    async def tried(self, *, machine_failed: bool) -> None:
        """Add a build that is to be tried again."""
        self.builds += 1
        await self.master.db.insert_test_data(
            [
                fakedb.Build(
                    id=self.builds, number=self.builds, buildrequestid=22, builderid=7, masterid=1, workerid=1,
                    results=5, complete_at=50, state_string=f"reason {self.builds}",
                )
            ]
        )  # fmt: skip
        if machine_failed:
            await self.master.db.builds.setBuildProperty(self.builds, "machine_failed", True, "machine")

    async def given_up(self, attempts: int) -> str:
        """Give why no more is tried; nothing if one more is."""
        slot = OneBuildWorker.__new__(OneBuildWorker)
        slot._attempts = attempts
        self.patch(OneBuildWorker, "master", self.master)
        build = SimpleNamespace(requests=[SimpleNamespace(id=22)], no_machine="")
        try:
            await slot._give_up_after_attempts(build)
        except LatentWorkerCannotSubstantiate as error:
            assert str(error) == build.no_machine
        return build.no_machine

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Alembic's, of Buildbot's own files
    async def test_a_master_that_starts_anew_is_no_machine_that_failed(self) -> None:
        """However often it does, its builds are made again; those whose machines failed count, and the last one is told of."""
        for machine_failed in (False, False, True, False):
            await self.tried(machine_failed=machine_failed)
        assert await self.given_up(2) == ""
        assert await self.given_up(1) == "infrastructure failed once, at last: reason 3"
        await self.tried(machine_failed=True)
        assert await self.given_up(2) == "infrastructure failed 2 times, at last: reason 5"
