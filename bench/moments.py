"""Moments in a master's life, to the microsecond: the REST API has whole seconds only.

A master that is started with the patch writes a line for each to a file; nothing of the product
knows of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PATCH = """
import sys
import time

sys.path.insert(0, {checkout!r})

from buildbot.data.steps import Step
from buildbot.process.build import Build
from buildbot.worker.base import AbstractWorker
from buildbot.worker.latent import AbstractLatentWorker
from master.publishing.uploads import Upload

def say(what, name):
    with open({file!r}, "a") as file:
        file.write("%.6f %s %s\\n" % (time.time(), what, name))

def before(owner, method, what, name):
    original = getattr(owner, method)
    def wrapped(self, *args, **kwargs):
        say(what, name(self, *args, **kwargs))
        return original(self, *args, **kwargs)
    wrapped.__dict__.update(original.__dict__)
    setattr(owner, method, wrapped)

def after(owner, method, what, name):
    original = getattr(owner, method)
    def wrapped(self, *args, **kwargs):
        def done(result):
            say(what, name(self, result))
            return result
        result = original(self, *args, **kwargs)
        return result.addCallback(done) if hasattr(result, "addCallback") else done(result)
    wrapped.__dict__.update(original.__dict__)
    setattr(owner, method, wrapped)

after(Step, "addStep", "step", lambda self, added: "%s %s" % (added[0], added[2]))
before(Step, "startStep", "start", lambda self, stepid, *_, **__: stepid)
before(Step, "finishStep", "finish", lambda self, stepid, *_, **__: stepid)
before(Build, "startBuild", "build", lambda self, *_, **__: "")
before(AbstractLatentWorker, "_substantiate", "ask", lambda self, *_: self.name)
before(AbstractWorker, "attached", "connected", lambda self, *_: self.name)
after(AbstractWorker, "attached", "attached", lambda self, _: self.name)
after(Upload, "receive", "received", lambda self, _: "")
"""


class Moment(NamedTuple):
    """What happened, to what, and when, in seconds of the epoch."""

    at: float
    what: str
    name: str


class Moments:
    """The moments of one master."""

    def __init__(self, file: Path, checkout: Path) -> None:
        """Take the file that they go to."""
        self._file = file
        self._file.touch()
        self.patch = _PATCH.format(file=str(file), checkout=str(checkout))

    def since(self, began: float) -> list[Moment]:
        """Give those since a time, steps by their names."""
        return read(self._file.read_text(), began)


def read(text: str, began: float = 0.0) -> list[Moment]:
    """Give the moments that lines tell of; a step's number is replaced by its name."""
    names: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        at, what, name = line.split(" ", 2)
        if what == "step":
            number, _, name = name.partition(" ")
            names[number] = name
        elif what in ("start", "finish"):
            name = names.get(name, name)
        if float(at) >= began:
            found.append(Moment(float(at), what, name))
    return found


def first(moments: Sequence[Moment], what: str, name: str | None = None) -> float:
    """Give when something happened first; LookupError if it did not."""
    for moment in moments:
        if moment.what == what and name in (None, moment.name):
            return moment.at
    raise LookupError(f"nothing is told of {what} {name or ''}")


def durations(moments: Sequence[Moment], began: float, ended: float) -> dict[str, float]:
    """Divide a time among the steps in it: what is in none of them is `before` them or `between`."""
    started: dict[str, float] = {}
    found = {"before the steps": 0.0}
    busy_until = began
    between = 0.0
    for moment in moments:
        if moment.what == "start" and moment.at < ended:
            started[moment.name] = moment.at
            gap = max(0.0, moment.at - busy_until)
            if len(found) == 1 and not found["before the steps"]:
                found["before the steps"] = gap
            else:
                between += gap
        elif moment.what == "finish" and moment.name in started:
            end = min(moment.at, ended)
            found[moment.name] = end - started.pop(moment.name)
            busy_until = end
    for name, start in started.items():
        found[name] = ended - start
        busy_until = ended
    found["between the steps"] = between + max(0.0, ended - busy_until)
    return found
