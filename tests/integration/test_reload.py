"""A reload takes away nothing that is in use (targets, slots, users), and refuses settings that it cannot change."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from master.control import ControlError
from tests.integration.cloud_cases import Gate
from tests.integration.harness import CHECKOUT, DEB, ROOTS, Installation, tiny_installation
from workers.roots import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEBUG = "ceph-deb-bookworm-x86_64-debug"
BOTH = [DEB, DEBUG]
ALICE = "alice's long secret"
IN_FORCE = "the master has read its settings again, and they are in force"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A master with two targets, one slot, and a root that can be taken away from it."""
    directory = tmp_path_factory.mktemp("reload")
    (directory / "roots").mkdir()
    local = {"count": 1, "roots": str(directory / "roots")}
    users = {"alice": hashlib.sha256(ALICE.encode()).hexdigest()}
    with tiny_installation(directory, targets=BOTH, workers={"local": local}, users=users) as made:
        root = Root("bookworm", "debian").name
        (directory / "roots" / root).symlink_to((ROOTS / root).resolve())
        yield made


@contextmanager
def no_root(here: Installation) -> Iterator[Callable[[], None]]:
    """Make machines wait for their root, as if it were being made, until the returned function is called."""
    root = here.directory / "roots" / Root("bookworm", "debian").name
    where = root.readlink()
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root.unlink()

        def there_it_is() -> None:
            if not root.is_symlink():
                root.symlink_to(where)
                fcntl.flock(lock, fcntl.LOCK_UN)

        try:
            yield there_it_is
        finally:
            there_it_is()


def status(here: Installation, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the master's status of a request."""
    [number] = answer["buildrequest_ids"].values()
    [found] = here.get(f"packages/{number}")["packages"]
    assert isinstance(found, dict)
    return found


def until_builds(here: Installation, answer: dict[str, Any]) -> None:
    """Wait until a request's commit waits at its gate."""

    def asleep() -> bool:
        builds = here.builds(answer)
        step = here.steps(builds[-1]).get("packages") if builds else None
        return step is not None and "asleep" in here.log(builds[-1], "packages")

    here.until(asleep, "it builds")


def until_prepares(here: Installation, answer: dict[str, Any]) -> None:
    """Wait until a request's machine is being made."""
    here.until(lambda: "making the root" in status(here, answer)["reason"], "its machine is being made")


def published(here: Installation, *answers: dict[str, Any]) -> None:
    """Wait until requests end; each must be published by its first build."""
    for answer in answers:
        request = here.wait(answer)
        assert request["results"] == 0, here.said(answer)
        assert [build["results"] for build in here.builds(answer)] == [0]
        assert status(here, answer)["state"] == "published"


def send(number: signal.Signals, pids: list[int]) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def builds_again(here: Installation) -> None:
    """Build a new commit of the target, as if there had been no reload."""
    published(here, here.ask(DEB, sha1=here.repository.commit()))


@pytest.mark.parametrize("moment", ["waiting", "preparing", "building", "published"])
def test_a_target_is_taken_out_and_put_back(here: Installation, moment: str) -> None:
    """In each state, a request of the target is published by its first build, and the target builds again."""
    with Gate(here.gate_port) as gate, no_root(here) as root_is_there:
        if moment != "preparing":
            root_is_there()
        if moment == "published":
            gate.open()
        first = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        requests_of_it = [first]
        if moment == "preparing":
            until_prepares(here, first)
        elif moment == "published":
            published(here, first)
        else:
            until_builds(here, first)
        if moment == "waiting":
            requests_of_it.append(here.ask(DEB, sha1=here.repository.commit(gate.knobs)))
            assert status(here, requests_of_it[-1])["state"] == "waiting"
        assert here.reload(targets=[DEBUG]) == IN_FORCE
        assert here.reload(targets=BOTH) == IN_FORCE
        root_is_there()
        gate.open()
        published(here, *requests_of_it)
    builds_again(here)
    assert "AttributeError" not in (here.settings.state / "twistd.log").read_text()


def test_a_target_that_is_off_finishes_what_it_has(here: Installation) -> None:
    """It takes no new request and no rebuild, with a sentence; what waits, prepares or builds is published."""
    done = here.ask(DEB, sha1=here.repository.commit())
    published(here, done)
    with Gate(here.gate_port) as gate, no_root(here) as root_is_there:
        prepares = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        until_prepares(here, prepares)
        waits = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        assert here.reload(targets=[DEBUG]) == IN_FORCE
        other = here.ask(DEBUG, sha1=here.repository.commit())
        refused = here.force(builderNames=[DEB], sha1=here.repository.commit())
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == {
            "builderNames": f"'{DEB}' is not a target that is on; there are {DEBUG}"
        }
        [build] = here.builds(done)
        rebuild = requests.post(
            f"{here.url}api/v2/builds/{build['buildid']}",
            json={"jsonrpc": "2.0", "id": 1, "method": "rebuild", "params": {}},
            headers={"Authorization": f"Bearer {here.token}"},
            timeout=120,
        )
        assert rebuild.json()["error"]["message"] == (
            f"{done['package_key']} cannot be built: its target is off; there are {DEBUG}"
        )
        [builder] = [one for one in here.get("builders")["builders"] if one["name"] == DEB]
        assert builder["tags"] == ["deb", "bookworm", "x86_64", "default", "off"]
        root_is_there()
        until_builds(here, prepares)
        gate.open()
        published(here, prepares, waits, other)
    assert here.reload(targets=BOTH) == IN_FORCE
    [builder] = [one for one in here.get("builders")["builders"] if one["name"] == DEB]
    assert builder["tags"] == ["deb", "bookworm", "x86_64", "default"]
    builds_again(here)


def test_a_reload_during_a_reload(here: Installation) -> None:
    """Reloads that come faster than they are done all end, the last settings are in force, and a build goes on."""
    with Gate(here.gate_port) as gate:
        building = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        until_builds(here, building)
        for targets in ([DEBUG], BOTH, [DEBUG]):
            here.change(targets=targets)
            os.kill(here.pid, signal.SIGHUP)
        assert here.reload(targets=BOTH) == IN_FORCE
        gate.open()
        published(here, building)
    builds_again(here)


def test_fewer_slots(here: Installation) -> None:
    """Builds of slots that a reload takes away go on; nothing new begins before there are as few as there may be, and a
    slot that is given back is used at once.
    """
    assert here.reload(workers={"local": {"count": 2}}) == IN_FORCE
    with Gate(here.gate_port) as gate:
        two = [here.ask(DEB, sha1=here.repository.commit(gate.knobs)) for _ in range(2)]
        for answer in two:
            until_builds(here, answer)
        assert here.reload(workers={"local": {"count": 1}}) == IN_FORCE
        later = [here.ask(DEB, sha1=here.repository.commit()) for _ in range(2)]
        gate.open()
        published(here, *two, *later)
    times = [(build["started_at"], build["complete_at"]) for one in later for build in here.builds(one)]
    assert min(started for started, _ in times) >= max(here.builds(one)[0]["complete_at"] for one in two)
    assert times[0][1] <= times[1][0] or times[1][1] <= times[0][0]
    assert {build["workerid"] for one in later for build in here.builds(one)} == {1}
    with Gate(here.gate_port) as gate:
        first, second = (here.ask(DEB, sha1=here.repository.commit(gate.knobs)) for _ in range(2))
        until_builds(here, first)
        assert status(here, second)["state"] == "waiting"
        assert here.reload(workers={"local": {"count": 2}}) == IN_FORCE
        until_builds(here, second)
        gate.open()
        published(here, first, second)
    assert here.reload(workers={"local": {"count": 1}}) == IN_FORCE


def test_a_machine_that_stands_still_holds_up_no_reload(here: Installation) -> None:
    """A reload that brings a builder in asks nothing of a worker that builds already, and might never answer."""
    with Gate(here.gate_port) as gate:
        building = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        until_builds(here, building)
        stopped = [int(line.partition(":")[0]) for line in here.leftovers() if line[0].isdigit()]
        send(signal.SIGSTOP, stopped)
        try:
            assert here.reload(targets=[*BOTH, "ceph-deb-trixie-x86_64-default"]) == IN_FORCE
        finally:
            send(signal.SIGCONT, stopped)
        gate.open()
        published(here, building)
    assert here.reload(targets=BOTH) == IN_FORCE


def test_a_user_is_taken_out(here: Installation) -> None:
    """Her earlier request is still built; she cannot make another one."""
    with Gate(here.gate_port) as gate:
        before = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        answer = here.force(ALICE, builderNames=[DEB], sha1=here.repository.commit(gate.knobs))
        hers = answer.json()["result"][2][0]
        data = yaml.safe_load(here.settings_file.read_text())
        del data["users"]
        here.settings_file.write_text(yaml.safe_dump(data))
        assert here.reload() == IN_FORCE
        gate.open()
        published(here, before, hers)
    assert here.force(ALICE, builderNames=[DEB], sha1=here.repository.commit()).status_code == 403


def test_what_cannot_change_is_refused(here: Installation, tmp_path: Path) -> None:
    """The operator gets a sentence for each setting, the settings before stay in force, and builds go on."""
    before = here.settings_file.read_text()
    with Gate(here.gate_port) as gate:
        building = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        until_builds(here, building)
        with pytest.raises(ControlError) as caught:
            here.reload(targets=[DEBUG], packages={"directory": str(tmp_path), "port": 1}, www={"port": 2})
        here.settings_file.write_text(before)
        ending = "while the master runs. Undo the change, or run `make stop`, then `make start`"  # of each sentence
        directory = f"{tmp_path} {ending}"
        www, packages = here.settings.www.port, here.settings.packages.port
        assert str(caught.value).splitlines() == [
            "the settings were refused; those before stay in force:",
            f"  setting `www.port`: it is {www} in the running master, and cannot change to 2 {ending}",
            f"  setting `packages.port`: it is {packages} in the running master, and cannot change to 1 {ending}",
            f"  setting `packages.directory`: it is {here.packages} in the running master, and cannot change to {directory}",
        ]
        waits = here.ask(DEB, sha1=here.repository.commit())
        gate.open()
        published(here, building, waits)


def test_settings_that_are_wrong_are_not_read(here: Installation) -> None:
    """`make reload` lists the problems, exits with 1, and the master goes on as before."""
    before = here.settings_file.read_text()
    here.change(targets=["nonesuch"], titel="x")
    finished = subprocess.run(
        [sys.executable, "-m", "master.control", "reload", "--settings", str(here.settings_file)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    here.settings_file.write_text(before)
    assert finished.returncode == 1
    assert "titel: unknown key" in finished.stderr
    assert "'nonesuch' matches no target" in finished.stderr
    builds_again(here)


def test_a_target_is_taken_out_of_a_stopped_master(here: Installation) -> None:
    """The next start cancels its requests, each with the reason; put back, the target builds again."""
    with Gate(here.gate_port) as gate:
        building = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        until_builds(here, building)
        waits = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        here.kill()
        here.change(targets=[DEBUG])
        here.start()
        for answer in (building, waits):
            here.wait(answer)
            told = status(here, answer)
            assert (told["state"], told["error"]) == (
                "cancelled",
                f"the master was started with {DEB} off; the request had waited in its queue",
            )
    published(here, here.ask(DEBUG, sha1=here.repository.commit()))
    assert here.reload(targets=BOTH) == IN_FORCE
    builds_again(here)
