"""The lab as a whole: up, beside another one, killed, on a full disk, down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lab import bringup
from lab.cloud import Lab
from lab.errors import LabError
from lab.layout import CHECKOUT
from tests.cloud import Tenant, remains, until

if TYPE_CHECKING:
    from pathlib import Path


def command(*words: object) -> list[str]:
    """Give the command line of `python -m lab`."""
    return [sys.executable, "-m", "lab", *map(str, words)]


def said(*words: object) -> tuple[int, str, str]:
    """Run `python -m lab`; give its status and what it said."""
    finished = subprocess.run(
        command(*words), cwd=CHECKOUT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return finished.returncode, finished.stdout, finished.stderr


def test_two_labs_stand_side_by_side(lab: Lab, tenant: Tenant, tmp_path: Path) -> None:
    """A second lab has ports and servers of its own, can't be brought up twice, and ends without a trace."""
    directory = tmp_path / "second"
    try:
        status, printed, errors = said("up", directory)
        assert status == 0, errors
        assert f"OS_CLIENT_CONFIG_FILE={directory}/clouds.yaml" in printed
        second = Lab(directory)
        assert not set(second.ports.values()) & set(lab.ports.values())
        theirs = Tenant(second)
        server = theirs.boot("#!/bin/sh\necho started\nexec sleep 1000\n", image="tiny")
        theirs.prints(server, "started")
        assert server.id not in [one.id for one in lab.admin().compute.servers(all_projects=True)]
        status, _, errors = said("up", directory)
        assert (status, errors) == (
            1,
            f"failed: a lab runs in {directory} already: `python -m lab down {directory}` ends it\n",
        )
        status, printed, _ = said("status", directory)
        assert status == 0
        assert second.endpoints["nova"] in printed
        assert "servers: 1" in printed
    finally:
        status, printed, _ = said("down", directory)
    assert (status, printed.split()[0]) == (0, "ended")
    # Its server's processes end with nova, which ends with the lab.
    until(lambda: set(remains(directory)) <= {str(directory)}, "nothing of it is left", 10)
    assert tenant.boot(image="tiny").status == "ACTIVE", "the first lab does not mind"


def test_a_lab_killed_on_its_way_up_is_found_and_ended(tmp_path: Path) -> None:
    """What a killed `up` has started is known by its mark, `status` says that no lab runs, and `down` ends it."""
    directory = tmp_path / "lab"
    bringing = subprocess.Popen(command("up", directory), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert bringing.stdout is not None
    assert "the database is up" in bringing.stdout.readline()
    bringing.kill()
    bringing.wait()
    status, _, errors = said("status", directory)
    assert (status, errors) == (
        1,
        f"failed: no lab runs in {directory}: `python -m lab up {directory}` starts one\n",
    )
    assert len(remains(directory)) > 5
    assert bringup.down(directory) >= 6
    assert remains(directory) == [str(directory)]


def test_a_full_disk_is_said_and_can_be_mended(tmp_path: Path) -> None:
    """On a full disk `up` says so and leaves nothing running; with room it works; and the lab ends with its owner."""
    directory = tmp_path / "lab"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(directory)], check=True)
    try:
        status, _, errors = said("up", directory)
        assert status == 1
        assert f"failed: the lab in {directory} did not come up" in errors
        assert "No space left on device" in errors
        assert len(errors.splitlines()) == 1
        assert running_in(directory) == []
        subprocess.run(["mount", "-o", "remount,size=1g", str(directory)], check=True)
        script = f"from pathlib import Path; from lab import bringup; import time\nbringup.up(Path({str(directory)!r}), attached=True)\nprint('up', flush=True); time.sleep(1000)"
        owner = subprocess.Popen(
            [sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert len(running_in(directory)) == 6
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        until(lambda: running_in(directory) == [], lambda: f"all ended: {running_in(directory)}", 10)
    finally:
        bringup.down(directory)
        time.sleep(0.2)
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def running_in(directory: Path) -> list[str]:
    """Give the processes of a lab, but for those that only see that something is mounted there."""
    return [str(pid) for pid in bringup.Processes(directory).running()]


def test_a_directory_that_is_not_a_lab_is_left_alone(tmp_path: Path) -> None:
    """A directory with anything else in it is refused, and what is in it stays."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(
        LabError, match=r"holds something that is not a lab: name an empty or a new directory"
    ):
        bringup.up(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_no_two_come_up_in_one_directory(tmp_path: Path) -> None:
    """While a lab comes up in a directory, another `up` there is refused at once."""
    import fcntl

    (tmp_path / bringup.STATE).touch()
    with (tmp_path / "up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LabError, match=f"another `up` is at work in {tmp_path}"):
            bringup.up(tmp_path)


def test_a_driver_has_a_name(tmp_path: Path) -> None:
    """A driver that there is not is refused, and those that there are are named."""
    with pytest.raises(LabError, match="there is no driver vmware: process or libvirt"):
        bringup.up(tmp_path, "vmware")


@pytest.mark.parametrize("verb", ["install", "up", "status", "down"])
def test_every_verb_explains_itself(verb: str) -> None:
    """`--help` says what a verb does, and touches nothing."""
    status, printed, _ = said(verb, "--help")
    assert status == 0
    assert printed.startswith(f"usage: python -m lab {verb}")
