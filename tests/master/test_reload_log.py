"""How the outcome of a reload is read from the master's log; lines as Buildbot 4.3 and Twisted write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from master.reloads.reload_log import LogTail, Reload

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = "2026-11-30 20:01:48+0000 [-] beginning configuration update"
LOAD = "2026-11-30 20:01:48+0000 [-] Loading configuration from '/srv/master.cfg'"
NOISE = "2026-11-30 20:01:48+0000 [Broker,8,127.0.0.1] Worker.detached(local-1)"
COMPLETE = "2026-11-30 20:01:48+0000 [-] configuration update complete (took 0.103 seconds)"
ABORTED = (
    "2026-11-30 20:01:48+0000 [-] configuration update aborted without making any changes (took 0.1 seconds)"
)
PARTLY = (
    "2026-11-30 20:01:48+0000 [-] WARNING: configuration update partially applied; master may malfunction"
    " (took 0.1 seconds)"
)
ACTIVE = "2026-11-30 20:01:48+0000 [-] reconfig already active; will reconfig again after"
SENTENCE = "2026-11-30 20:01:48+0000 [-] setting `www.port`: it is 1"


def read(*lines: str) -> Reload:
    """Return what has been read of a reload."""
    made = Reload()
    for line in lines:
        made.take(line)
    return made


def test_a_reload_that_is_taken() -> None:
    """It is over with its last line, and not before."""
    assert read(BEGIN, LOAD, NOISE).end == ""
    assert read(NOISE, BEGIN, LOAD, NOISE, COMPLETE, ABORTED).end == "complete"


def test_a_reload_that_is_refused() -> None:
    """The sentences are the master's own lines during the reload, with their continuation lines."""
    found = read(SENTENCE, BEGIN, LOAD, NOISE, SENTENCE, "\tand not 2", ABORTED)
    assert (found.end, found.lines) == ("aborted", ["setting `www.port`: it is 1", "and not 2"])


def test_a_reload_that_stops_half_way() -> None:
    """Some services have the new settings, some the old ones."""
    assert read(BEGIN, LOAD, PARTLY).end == "partially applied"


def test_another_reload_that_was_under_way() -> None:
    """Its end is not ours, whether it began before our signal or right after."""
    assert read(ACTIVE, ABORTED, BEGIN, LOAD).end == ""
    assert read(ACTIVE, ABORTED, BEGIN, LOAD, COMPLETE).end == "complete"
    assert read(BEGIN, LOAD, ACTIVE, ABORTED).end == ""
    assert read(BEGIN, LOAD, ACTIVE, ABORTED, BEGIN, LOAD, COMPLETE).end == "complete"


def test_a_log_is_followed_when_it_is_rotated(tmp_path: Path) -> None:
    """Only what comes later counts; the end of the old file is read before the beginning of the new one."""
    path = tmp_path / "twistd.log"
    path.write_text("before\n")
    tail = LogTail(path)
    assert list(tail.new_lines()) == []
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert list(tail.new_lines()) == ["one"]
        file.write("o\nthree\n")
    path.rename(tmp_path / "twistd.log.1")
    path.write_text("four\n")
    assert list(tail.new_lines()) == ["two", "three", "four"]
