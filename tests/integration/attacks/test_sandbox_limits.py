"""Attacks by which a build on the master's machine could take memory, processes or disk from the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation
from workers.engine import abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator

SUCCESS, FAILURE = 0, 2
PROCESSES = 400
# Both are bounded, so that a sandbox without limits fails the test and not the machine.
FORK_BOMB = f"""
import os, time
for made in range(3 * {PROCESSES}):
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
print("no limit", flush=True)
"""
MEMORY_BOMB = """
taken = []
for mebibytes in range(0, 1500, 100):
    taken.append(bytearray(b"x") * (100 << 20))
    print("took", mebibytes + 100, "MiB", flush=True)
print("no limit", flush=True)
"""
DISK_FILLER = """
with open("filler", "wb", buffering=0) as file:
    for mebibytes in range(1, 1500):
        file.write(bytes(1 << 20))
print("no limit", flush=True)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master whose two machines are containers of crun with limits."""
    limits = {"memory": 0.5, "processes": PROCESSES, "disk": 0.5}
    with tiny_installation(
        tmp_path_factory.mktemp("limits"),
        workers={"attempts": 1, "local": {"engine": "crun", "limits": limits}},
    ) as made:
        yield made


@pytest.mark.parametrize(
    ("bomb", "sentence"),
    [
        (FORK_BOMB, "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
        (MEMORY_BOMB, "Killed"),
        (DISK_FILLER, "No space left on device"),
    ],
    ids=["fork", "memory", "disk"],
)
def test_a_bomb_ends_its_own_build(here: Installation, bomb: str, sentence: str) -> None:
    """A build that reaches a limit fails within a minute and says why; the build beside it ends well, and nothing stays."""
    work = f"python3 - <<'END'\n{bomb}\nEND\n"
    beside = here.ask(DEB, sha1=here.repository.commit(replace(tiny.WHOLE, work="echo asleep; sleep 8")))
    answer = here.ask(DEB, sha1=here.repository.commit(replace(tiny.WHOLE, work=work)))
    assert here.wait(answer, 60)["results"] == FAILURE, here.said(answer)
    [(_, said)] = here.said(answer)
    assert sentence in said
    [build] = here.builds(answer)
    assert "no limit" not in here.log(build, "packages")
    assert here.wait(beside)["results"] == SUCCESS, here.said(beside)
    here.until(lambda: not here.leftovers(), "nothing is left of the builds")
    # The cgroups of 400 processes are removed after the directory: the kernel needs a while to end them all.
    here.until(lambda: not abandoned(here.settings.workers.local.scratch), "no cgroup is left")
