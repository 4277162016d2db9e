"""Sends odd messages to a real master on loopback, and gives changed files of uploads to the code that checks them.

Each message depends on the seed and its number alone, so a defect can be repeated. CONTRIBUTING.md says what a defect is.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from master.users import digest
from tests.fuzz.connections import CLOSED_WITHIN, HANG, OPEN, Connections
from tests.fuzz.messages import PORT_OF, Exchange, Known, exchange
from tests.fuzz.parsers import CORPUS, whole
from tests.fuzz.parsing import MUTATIONS, RUNS_TOOLS, ParsingProcess, changed
from tests.fuzz.report import Report
from tests.fuzz.watch import Log, Probes, growth, last_line, usage
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fuzz.connections import Ended
    from tests.fuzz.report import Case

_SECRET = "a secret of more than sixteen characters"
_BUSY = 40
_LOOKS = 0.5
"""Seconds between two looks at the master's log. What was sent meanwhile may have caused what is there."""

_PROBES = 3.0
"""Seconds between two rounds of well-formed requests."""

_AGAIN = 1.0
"""Seconds that messages which are sent again have for their effect on the log. A wrong secret is answered after 0.5 s."""

_MOST_DEFECTS = 30
"""Different defects after which a run ends: what comes then is mostly their consequence."""

_WARM_UP = 0.25
"""Part of a run after which the master's memory is measured for the first time."""

_TOOLS_SHARE = 20
"""One in so many cases of the parsers that start programs is run, because each takes as long as a hundred others."""


def fuzz(
    directory: Path,
    seed: int,
    findings: Path,
    *,
    seconds: float = float("inf"),
    cases: float = float("inf"),
    patch: str = "",
    kinds: Iterable[str] = (),
) -> Report:
    """Start a master below `directory`, replay the corpus, fuzz for so long or with so many cases, and return the report.

    `patch` is Python that the master's process runs first, with which the tests plant defects. `kinds` are all by default.
    """
    directory.mkdir(parents=True, exist_ok=True)
    report = Report(seed, findings)
    print(f"seed {seed}; findings go to {findings}", flush=True)
    with ExitStack() as stack:
        made = stack.enter_context(tiny_installation(directory, patch=patch, users={"fuzz": digest(_SECRET)}))
        print(f"master {made.pid}", flush=True)
        run = _Run(made, report, tuple(kinds) or (*PORT_OF, *MUTATIONS))
        stack.callback(run.close)
        run.replay()
        run.attack(seconds, cases)
        run.finish()
    return report


class _Run:
    """One run against one master."""

    def __init__(self, made: Installation, report: Report, kinds: tuple[str, ...]) -> None:
        self._made, self._report, self._kinds = made, report, kinds
        self._pid = made.pid
        self._corpus = {
            folder.name: [path.read_bytes() for path in sorted(folder.iterdir())]
            for folder in sorted(CORPUS.iterdir())
            if folder.name in kinds
        }
        build = self._built()
        [log, *_] = made.get(f"steps/{made.steps(build)['packages']['stepid']}/logs")["logs"]
        self._log = Log(made.settings.state / "twistd.log")
        self._probes = Probes(made, log["logid"])
        settings = made.settings
        self._connections = Connections(
            {"www": settings.www.port, "packages": settings.packages.port, "workers": settings.workers.port}
        )
        self._parsing = ParsingProcess(made.directory)
        specs = made.get("application.spec")["specs"]
        self._known = Known(
            [row["path"] for row in specs],
            sorted({field["name"] for row in specs for field in row["type_spec"].get("fields", ())}),
            self._published_paths(),
            f"Bearer {_SECRET}",
        )
        self._recent: list[Case] = []
        """Sent since the last look but one: some answers, and what they leave in the log, come late."""
        self._sent_before = 0
        self._next_look = self._next_probe = 0.0
        self._paused = 0.0
        """Seconds during which nothing new was sent."""

    def _built(self) -> dict[str, object]:
        """Return a build of a new commit: a worker has logged in and done its work."""
        answer = self._made.ask(DEB, sha1=self._made.repository.commit())
        assert self._made.wait(answer)["results"] == 0, self._made.said(answer)
        build: dict[str, object] = self._made.builds(answer)[-1]
        return build

    def _published_paths(self) -> list[str]:
        tree = self._made.packages
        return sorted(f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file())

    def replay(self) -> None:
        """Send everything that the corpus keeps, one at a time, and look at the log after each."""
        for kind, files in self._corpus.items():
            for data in files:
                if kind in PORT_OF:
                    self._count(self._connections.send(Exchange(-1, kind, data)))
                    self._recent.append((kind, -1, data))
                    deadline = time.monotonic() + 1
                    while self._connections.busy() and time.monotonic() < deadline:
                        self._count(self._connections.poll(0.05))
                    self._look()
                else:
                    self._parse(kind, -1, data)

    def attack(self, seconds: float, cases: float) -> None:
        """Fuzz for so long, or until there are that many cases, many defects, or no master."""
        begun, number = time.monotonic(), 0
        while (done := max((time.monotonic() - begun - self._paused) / seconds, number / cases)) < 1:
            if self._report.before.memory_mib == 0 and done > _WARM_UP:
                self._end_warm_up()
            self._one(number)
            number += 1
            self._count(self._connections.poll(0))
            while self._connections.busy() >= _BUSY:
                self._count(self._connections.poll(0.01))
            self._watch()
            if not self._made.pid:
                self._report.add("the master ended", "its process is gone", self._recent)
                return
            if len(self._report.defects) >= _MOST_DEFECTS:
                return

    def _end_warm_up(self) -> None:
        begun = time.monotonic()
        self._settle()
        self._report.before = usage(self._pid, self._staging)
        self._parsing.outcome(
            "deb-packages", whole("deb-packages")
        )  # its process runs, and has loaded everything
        self._report.parsers_before = usage(self._parsing.pid)
        self._paused += time.monotonic() - begun

    def finish(self) -> None:
        """Let the master get rest, and compare what it holds; let a worker log in and build once more."""
        report = self._report
        if not self._made.pid:
            return
        self._settle()
        self._look()
        self._probe()
        if not report.before.memory_mib:
            report.add("no growth measured", "the run ended before its warm-up did")
            return
        deadline = time.monotonic() + HANG
        while True:
            report.after = usage(self._pid, self._staging)
            if not growth(report.before, report.after) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        report.parsers_after = usage(self._parsing.pid)
        for sentence in growth(report.before, report.after):
            report.add(f"the master's {sentence.split()[0]}", sentence)
        for sentence in growth(report.parsers_before, report.parsers_after):
            report.add(f"the parsers' {sentence.split()[0]}", sentence)
        try:
            self._built()
        except (AssertionError, requests.RequestException) as error:
            report.add("a build after the run", f"{error}")
        self._look()
        report.slowest = self._probes.slowest

    def close(self) -> None:
        """Close the connections and end the parsers."""
        self._connections.close()
        self._parsing.stop()
        self._log.close()

    @property
    def _staging(self) -> list[Path]:
        return [self._made.settings.packages.staging]

    def _one(self, number: int) -> None:
        rng = random.Random(f"{self._report.seed}/{number}")
        kind = rng.choice(self._kinds)
        if kind in PORT_OF:
            may_wait = self._connections.patient(kind) < OPEN[kind] // 2
            made = exchange(number, rng, kind, self._corpus[kind], self._known, may_wait=may_wait)
            self._recent.append((kind, number, made.data))
            self._count(self._connections.send(made))
        elif kind not in RUNS_TOOLS or not rng.randrange(_TOOLS_SHARE):
            self._parse(kind, number, changed(rng, kind, rng.choice(self._corpus[kind])))

    def _parse(self, kind: str, number: int, data: bytes) -> None:
        state, text = self._parsing.outcome(kind, data)
        self._report.count(kind, state)
        if state == "defect":
            self._report.add(f"{kind}: {last_line(text)}", text, [(kind, number, data)])

    def _count(self, ended: Iterable[Ended]) -> None:
        for one in ended:
            sent = one.exchange
            self._report.count(sent.kind, one.outcome)
            if one.defect:
                self._report.add(f"{sent.kind}: {one.defect}", "", [(sent.kind, sent.number, sent.data)])

    def _watch(self) -> None:
        now = time.monotonic()
        if now > self._next_look:
            self._look()
            self._next_look = now + _LOOKS
        if now > self._next_probe:
            self._probe()
            self._next_probe = time.monotonic() + _PROBES

    def _look(self) -> None:
        for text in self._log.tracebacks():
            name = f"traceback in the log: {last_line(text)}"
            cases = [] if self._report.has(name) else self._culprits(last_line(text))
            self._report.add(name, text, cases)
        del self._recent[: self._sent_before]
        self._sent_before = len(self._recent)

    def _culprits(self, traceback: str) -> list[Case]:
        """Send the recent messages again, in ever smaller halves, and return those after which the traceback comes again."""
        begun = time.monotonic()
        cases = [case for case in self._recent if case[0] in PORT_OF]
        while len(cases) > 1:
            half = len(cases) // 2
            repeating = next(
                (part for part in (cases[:half], cases[half:]) if self._repeats(part, traceback)), None
            )
            if repeating is None:
                break
            cases = repeating
        self._paused += time.monotonic() - begun
        return cases

    def _repeats(self, cases: Iterable[Case], traceback: str) -> bool:
        for kind, number, data in cases:
            self._count(self._connections.send(Exchange(number, kind, data)))
        deadline = time.monotonic() + _AGAIN
        while time.monotonic() < deadline:
            self._count(self._connections.poll(_AGAIN / 10))
        return traceback in map(last_line, self._log.tracebacks())

    def _probe(self) -> None:
        for sentence in self._probes.silent():
            self._report.add(sentence.partition(":")[0], sentence, self._recent)

    def _settle(self) -> None:
        """End all connections, so that what the master still holds does not depend on the moment."""
        self._count(self._connections.drain())
        longest = max(CLOSED_WITHIN.values()) + HANG
        deadline = time.monotonic() + longest
        while (left := self._connections.not_closed()) and time.monotonic() < deadline:
            time.sleep(0.2)
        if left:
            cases = [(exchange.kind, exchange.number, exchange.data) for exchange in left]
            sentence = f"{len(left)} connections are open {longest} s after their clients have closed them"
            self._report.add("connections stay open", sentence, cases)
        time.sleep(1)
