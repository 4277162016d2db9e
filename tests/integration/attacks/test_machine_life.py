"""Attacks by which a build could go on, or keep a place, after its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
import requests

from model.package_key import PackageKey
from steps.script import GRACE_SECONDS
from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUCCESS, FAILURE, EXCEPTION, CANCELLED = 0, 2, 4, 6
TOKENS_MADE = """
import secrets
from pathlib import Path

_real = secrets.token_urlsafe

def token_urlsafe(*arguments):
    made = _real(*arguments)
    with (Path(__file__).parent / "tokens").open("a") as file:
        file.write(made + "\\n")
    return made

secrets.token_urlsafe = token_urlsafe
"""
SQUAT = """
import socket, time
while True:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        time.sleep(1000)
    except OSError:
        taken.close()
        time.sleep(0.001)
"""
SECOND_WORKER = """
import sys
from twisted.cred.credentials import UsernamePassword
from twisted.internet import defer, reactor
from twisted.spread import pb

class Bot(pb.Referenceable):
    def remote_print(self, message): pass
    def remote_getWorkerInfo(self): return {}

@defer.inlineCallbacks
def attack():
    for password in sys.argv[2:]:
        factory = pb.PBClientFactory()
        reactor.connectTCP("127.0.0.1", int(sys.argv[1]), factory)
        try:
            yield factory.login(UsernamePassword(b"local-1", password.encode()), Bot())
        except Exception as error:
            print(type(error).__name__, error)
    reactor.stop()

reactor.callWhenRunning(attack)
reactor.run()
"""
SIGNAL_THE_WORKER = """
import os, signal
for entry in os.listdir("/proc"):
    if entry.isdigit():
        try:
            command = open(f"/proc/{entry}/cmdline").read()
        except OSError:
            continue
        if "run-worker.py" in command and command.startswith("python3"):
            os.kill(int(entry), signal.NUMBER)
"""


def python(text: str) -> str:
    """Return shell that runs Python, without quotes of the shell's in it."""
    return f"python3 - <<'END'\n{text}\nEND\n"


def stand_still() -> tiny.Knobs:
    """Return a commit whose build stops its own worker, and stays."""
    text = SIGNAL_THE_WORKER.replace("NUMBER", signal.SIGSTOP.name)
    return replace(tiny.WHOLE, work=f"echo it stands\n{python(text)}\nsleep 1000\n")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with one machine."""
    with tiny_installation(
        tmp_path_factory.mktemp("life"),
        patch=TOKENS_MADE,
        workers={"local": {"count": 1}, "attempts": 1},
    ) as made:
        yield made


def builds_well(here: Installation) -> None:
    """Build another commit on the only machine."""
    answer = here.ask(DEB, sha1=here.repository.commit(tiny.WHOLE))
    assert here.wait(answer)["results"] == SUCCESS, here.said(answer)


def test_c1_a_squatter_does_not_get_the_workers_port(here: Installation) -> None:
    """A process that waits for the workers' port to be free never gets it, and ends with its build."""
    squat = python(SQUAT.replace("PORT", str(here.settings.workers.port))).replace(
        "python3", "setsid nohup python3", 1
    )
    work = f"{{ {squat} }} >/dev/null 2>&1 &\nsleep 1; exit 1"
    answer = here.ask(DEB, sha1=here.repository.commit(replace(tiny.WHOLE, work=work)))
    assert here.wait(answer)["results"] == FAILURE
    here.until(lambda: not here.leftovers(), "the squatter is gone")
    builds_well(here)
    log = (here.settings.state / "twistd.log").read_text()
    assert "CannotListenError" not in log


def test_c2_limits_hold_though_the_worker_stands_still(here: Installation) -> None:
    """The master ends a build whose worker cannot, as a failure of the build, and the slot is free."""
    here.reload(build={"hours": 0.005})
    answer = here.ask(DEB, sha1=here.repository.commit(stand_still()))
    assert here.wait(answer, 60 + 4 * GRACE_SECONDS)["results"] == FAILURE, here.said(answer)
    sentence = "Building the packages was stopped: the build took more than 18 s"
    assert here.said(answer) == [(FAILURE, sentence)]
    here.until(lambda: not here.leftovers(), "nothing of the build is left")
    here.reload(build={"hours": 12})
    builds_well(here)


def put_late(here: Installation, key: PackageKey, token: str) -> requests.Response:
    """Upload a file with a token, as a process that has kept it could."""
    return requests.put(
        f"{here.packages_url}upload/{key}/pool/late.deb",
        data=b"late",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )


def test_c3_an_upload_ends_with_its_build(here: Installation) -> None:
    """The token of a build that lost its worker while it uploaded is worth nothing, and nothing uploaded is kept."""
    text = f"import time\nwhile True:\n{indented(WAIT_FOR_UPLOAD)}\n    time.sleep(0.001)\n"
    kill = python(text).replace("python3", "setsid nohup python3", 1)
    work = f"{{ {kill} }} >/dev/null 2>&1 &\n"
    sha1 = here.repository.commit(replace(tiny.WHOLE, work=work))
    answer = here.ask(DEB, sha1=sha1)
    assert here.wait(answer)["results"] == EXCEPTION, here.said(answer)
    key = PackageKey.from_string(f"{DEB}/{sha1}")
    tokens = (here.directory / "site/tokens").read_text().split()
    statuses = {put_late(here, key, token).status_code for token in tokens[-8:]}
    assert statuses == {HTTPStatus.UNAUTHORIZED}
    staging = here.settings.packages.staging
    here.until(lambda: not list(staging.rglob(f"{sha1}-*")), "nothing uploaded is left")
    builds_well(here)


def test_a11_a_build_that_floods_its_log_is_cancelled_and_does_not_hold_the_master(tmp_path: Path) -> None:
    """The cancelled build ends though its output comes faster than it is stored, and the master can stop afterwards."""
    with tiny_installation(tmp_path, workers={"local": {"count": 1}}) as here:
        flood = replace(tiny.WHOLE, work="base64 /dev/urandom\n")
        answer = here.ask(DEB, sha1=here.repository.commit(flood))
        [number] = answer["buildrequest_ids"].values()
        here.until(lambda: printed(here, answer) > 1000, "the build floods its log")
        time.sleep(4)
        response = requests.post(
            f"{here.url}api/v2/packages/{number}",
            json={"jsonrpc": "2.0", "id": 1, "method": "withdraw", "params": {}},
            headers={"Authorization": f"Bearer {here.token}"},
            timeout=60,
        )
        assert response.json()["result"]["cancelled"] is True
        assert here.wait(answer, 10)["results"] == CANCELLED, here.said(answer)
        [build] = here.builds(answer)
        end = "the command was stopped: the rest of its output is discarded"
        assert end in here.log(build, "packages").splitlines()
        here.until(lambda: not here.leftovers(), "nothing of the build is left")
        # Leaving the block stops the master, and fails if it had to be killed.


def test_a11_a_worker_that_is_refused_does_not_hold_the_master(tmp_path: Path) -> None:
    """A build stops its worker, so that another connection is taken for it; it is refused, and the master can stop."""
    workers = {"local": {"count": 1}, "attempts": 1}
    with tiny_installation(tmp_path, patch=TOKENS_MADE, workers=workers) as here:
        answer = here.ask(DEB, sha1=here.repository.commit(stand_still()))
        here.until(lambda: printed(here, answer), "the worker stands still")
        tokens = (here.directory / "site/tokens").read_text().split()
        command = [sys.executable, "-c", SECOND_WORKER, str(here.settings.workers.port), *tokens]

        def said() -> str:
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout

        # Until the build's own worker stands still, the other one is refused as a duplicate.
        here.until(lambda: "no build of local-1 waits for its worker" in said(), "it is refused")
        assert here.wait(answer)["results"] == EXCEPTION, here.said(answer)
        builds_well(here)
        # Leaving the block stops the master, and fails if it had to be killed.


def printed(here: Installation, answer: dict[str, Any]) -> int:
    """Return how many lines of the packages' log are stored."""
    steps = [steps["packages"] for build in here.builds(answer) if "packages" in (steps := here.steps(build))]
    logs = [log for step in steps for log in here.get(f"steps/{step['stepid']}/logs")["logs"]]
    return sum(int(log["num_lines"]) for log in logs)


WAIT_FOR_UPLOAD = """
import os, signal
found = {}
for entry in os.listdir("/proc"):
    if entry.isdigit():
        try:
            found[int(entry)] = open(f"/proc/{entry}/cmdline").read()
        except OSError:
            pass
if any("upload.py" in command for command in found.values()):
    for number, command in found.items():
        if "run-worker.py" in command and command.startswith("python3"):
            os.kill(number, signal.SIGKILL)
"""


def indented(text: str) -> str:
    """Return text four spaces further in."""
    return "\n".join(f"    {line}" for line in text.splitlines())
