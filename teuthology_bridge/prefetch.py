"""`buildpackages prefetch`: a whole run's packages are published before any machine is locked for it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teuthology_bridge import dry_run, jobs, site_yaml, table, wire
from teuthology_bridge.errors import WrongSettings, duration
from teuthology_bridge.look import look
from teuthology_bridge.needs import Need, Teuthology, smallest
from teuthology_bridge.pursuits import Entry, Pursuits
from teuthology_bridge.waiter import waiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teuthology_bridge.jobs import Jobs, Problem
    from teuthology_bridge.settings import Settings

_USAGE = """\
buildpackages prefetch [OPTION...] -- ARGUMENTS OF teuthology-suite
       buildpackages prefetch [OPTION...] PATH...
       teuthology-suite --dry-run -vv ... | buildpackages prefetch [OPTION...] -"""

_DESCRIPTION = """\
Have the packages of a whole run published before it is scheduled, so that no machine is locked while they
are built. What the run's jobs install comes down to the smallest set of packages; those that are not
published yet are asked for, all at once, and one table shows how far they are.

Which jobs these are is told in one of three ways:
  after `--`, by what teuthology-suite is given: it makes a dry run, which schedules nothing;
  by its output (--dry-run -vv) in a file, or on standard input for `-`;
  by YAML files of jobs, or directories of such, as an archive of a run."""

_EXAMPLES = """\
examples:
  buildpackages prefetch -- --suite rados --ceph main --machine-type smithi
  buildpackages prefetch --timeout 4h -- --suite upgrade:reef-x --ceph wip-foo --limit 10
  buildpackages prefetch --dry-run -- --rerun teuthology-2026-01-31_20:00:00-rados-main-distro-default-smithi
  buildpackages prefetch --json jobs/ > packages.json

ends with 0 if all packages are published, 1 if some can't be had (a sentence tells why, for each),
2 if it can't even begin. When it is interrupted or late it withdraws: builds that nobody else waits for
end then."""

_REFS = """\
What a branch or a tag is at now is found out when it is asked for: what is published by its name may be older."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class _Stopped(SystemExit):
    """Somebody ended it; gevent's hub hands on nothing but exceptions of this kind."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's words."""
    parser.usage = _USAGE
    parser.description = _DESCRIPTION
    parser.epilog = "\n\n".join([_EXAMPLES, *([parser.epilog] if parser.epilog else [])])
    parser.add_argument(
        "what", nargs="*", metavar="PATH", help="a file, a directory, - for standard input; see above"
    )
    parser.add_argument(
        "--timeout",
        type=_duration,
        metavar="TIME",
        help="wait no longer: 90s, 30m, 4h, 1d (as `limit` of `buildpackages` says, else 12h)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="ask for nothing: only list the packages, and which are published",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON when it is over; how far it is goes to standard error"
    )


def main(arguments: argparse.Namespace) -> int:
    """Do it; give the exit status."""
    try:
        with _unwound_by_signals():
            return _Prefetch(arguments).run()
    except (WrongSettings, jobs.NoJobs) as error:
        print(f"buildpackages: {error}", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        return 2


class _Prefetch:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._stream = sys.stderr if arguments.json else sys.stdout
        self._display = table.display(self._stream, os.environ.get("TERM", ""))
        self._jobs = jobs.Jobs()
        self._problems: list[Problem] = []
        self._suite: list[str] = []
        """What teuthology-suite was given, if it was run."""

    def run(self) -> int:
        if not self._arguments.what:
            raise jobs.NoJobs(
                "what is to be scheduled? give the arguments of teuthology-suite after `--`, or files of jobs;"
                " `buildpackages prefetch --help` has examples"
            )
        settings = site_yaml.load(os.environ)
        for warning in settings.warnings:
            self._display.say(warning)
        dry_run.look_for_teuthology()
        try:
            self._jobs = self._found()
            needs, problems = smallest(self._jobs.jobs, Teuthology(settings.packages_url), settings.machines)
        finally:
            self._display.end()
        self._problems = [*self._jobs.problems, *problems]
        if self._arguments.dry_run:
            return self._list(needs, settings)
        return self._fetch(needs, settings)

    def _found(self) -> Jobs:
        what: list[str] = self._arguments.what
        if _is_of_suite(what):
            self._suite = what
            self._display.say(f"runs {shlex.join(dry_run.command(what))}")
            found = dry_run.run(what, os.environ, self._count)
        else:
            found = jobs.read(what)
        if not found.jobs and not found.problems:
            others = f"; none of its {found.others} documents has `tasks`" if found.others else ""
            raise jobs.NoJobs(f"there is no job in {shlex.join(what)}{others}")
        return found

    def _count(self, number: int) -> None:
        self._display.show(f"teuthology-suite's dry run: {_number(number, 'job')} so far", [])

    def _list(self, needs: Sequence[Need], settings: Settings) -> int:
        """Show what is needed and what of it is there; ask for nothing."""
        rows, told = [], []
        why = ""
        for need in needs:
            url = need.url(need.value if need.kind == "sha1" else "")
            version = None
            # One that hangs is not asked for each of them.
            if not why:
                try:
                    version = look(f"{url}version", settings.look_timeout)
                except wire.NoAnswer as error:
                    why = f"the package server at {settings.packages_url} gives no answer: {error}"
            state = "published" if version else "unknown" if why else "not published"
            rows.append(table.Row(need.key, state, str(len(need.jobs)), url=url if version else ""))
            told.append(_told(need) | {"state": state, "version": version, "url": url})
        if self._arguments.json:
            self._print_json(
                ok=not why and not self._problems, packages=told, **({"error": why} if why else {})
            )
        else:
            self._print([*map(str, self._problems), *([why] if why else []), *self._table(rows, "JOBS")])
            if any(need.refs for need in needs):
                self._print([_REFS])
            self._print([f"{self._sum(needs)}: {table.counts(rows) or 'nothing to publish'}."])
        return 1 if why or self._problems else 0

    def _fetch(self, needs: Sequence[Need], settings: Settings) -> int:
        name = self._jobs.common("name") or _from(self._arguments.what)
        settings = replace(
            settings,
            job=waiter(f"prefetch/{name}"),
            limit=self._arguments.timeout or settings.limit,
        )
        pursuits = Pursuits(needs, settings, self._log(), reason=f"buildpackages prefetch of {name}")
        began = time.monotonic()
        said: set[str] = set()

        def watch() -> None:
            # At once: hours may go by until all have come to their end.
            for sentence in (str(entry.error) for entry in pursuits.entries if entry.error):
                if sentence not in said:
                    said.add(sentence)
                    self._display.say(sentence)
            rows = pursuits.rows()
            gone = f"{duration(time.monotonic() - began)} gone"
            counts = table.counts(rows)
            told = "; ".join(one for one in (counts, gone, table.time_left(rows)) if one)
            head = [f"{self._sum([entry.need for entry in pursuits.entries])}: {told}"]
            self._display.show("\n".join([*head, *([pursuits.trouble] if pursuits.trouble else [])]), rows)

        for problem in self._problems:
            self._display.say(str(problem))
        status = 0
        try:
            pursuits.run(watch)
        except _Stopped as stopped:
            status = int(stopped.code or 1)
        finally:
            self._display.end()
        return self._end(pursuits, status)

    def _end(self, pursuits: Pursuits, status: int) -> int:
        """Tell how it ended."""
        entries = pursuits.entries
        missing = [entry for entry in entries if not entry.published]
        status = status or status_of(entries, self._problems)
        if self._arguments.json:
            self._print_json(
                ok=status == 0,
                packages=[_end_of(entry) for entry in entries],
                schedule=self._schedule(),
            )
            return status
        lines = [str(entry.error) for entry in missing if entry.error] + [str(one) for one in self._problems]
        lines += self._table(pursuits.rows())
        told = f"{self._sum([entry.need for entry in entries])}: {table.counts(pursuits.rows()) or 'nothing to publish'}"
        if self._problems:
            told += f"; {_number(len(self._problems), 'mistake')} in the jobs"
        self._print([*lines, f"{told}."])
        if status == 0 and self._suite:
            self._print([f"To schedule these very jobs: {shlex.join(self._schedule())}"])
        return status

    def _schedule(self) -> list[str]:
        """Give the words that schedule the jobs of the dry run: what was left to chance or to a branch is named."""
        if not self._suite:
            return []
        words = [*self._suite]
        if os.path.basename(words[0]) != dry_run.PROGRAM:
            words.insert(0, dry_run.PROGRAM)
        if (seed := self._jobs.common("seed")) and not _given(words, "--seed"):
            words += ["--seed", seed]
        if (sha1 := self._jobs.common("sha1")) and not _given(words, "--sha1", "-S"):
            # It looks at github.com whether there is such a commit, wherever the repository is.
            words += [
                "--sha1",
                sha1,
                *(() if _given(words, "--validate-sha1") else ("--validate-sha1", "false")),
            ]
        return words

    def _sum(self, needs: Sequence[Need]) -> str:
        return f"{_number(len(needs), 'package')} for {_number(len(self._jobs.jobs), 'job')}"

    def _table(self, rows: Sequence[table.Row], step: str = "STEP") -> list[str]:
        width = shutil.get_terminal_size().columns - 1 if self._stream.isatty() else 1000
        return table.render(rows, width, step=step)

    def _print(self, lines: Sequence[str]) -> None:
        table.write(sys.stdout, "".join(f"{line}\n" for line in lines))

    def _print_json(self, *, ok: bool, **more: Any) -> None:
        told = {
            "ok": ok,
            "run": self._jobs.common("name"),
            "jobs": len(self._jobs.jobs),
            "problems": [{"what": one.what, "sentence": one.sentence} for one in self._problems],
            **more,
        }
        self._print([json.dumps(told, indent=1)])

    def _log(self) -> logging.Logger:
        """Give a log whose warnings are shown; the table and its lines tell the rest."""
        log = logging.getLogger("buildpackages.prefetch")
        log.setLevel(logging.WARNING)
        # teuthology has the root's go to standard error, right into the table.
        log.propagate = False
        log.handlers = [_Shown(self._display)]
        return log


class _Shown(logging.Handler):
    def __init__(self, display: table.Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.say(record.getMessage())


def status_of(entries: Sequence[Entry], problems: Sequence[Problem]) -> int:
    """Give the exit status of a run that came to its end."""
    if any(isinstance(entry.error, WrongSettings) for entry in entries):
        return 2
    return 0 if all(entry.published for entry in entries) and not problems else 1


def _told(need: Need) -> dict[str, Any]:
    return {
        "key": need.key,
        "target": need.target,
        "sha1": need.value if need.kind == "sha1" else None,
        "refs": need.refs,
        "git_url": need.git_url,
        "jobs": need.jobs,
    }


def _end_of(entry: Entry) -> dict[str, Any]:
    row = entry.row(time.monotonic())
    outcome = entry.pursuit.outcome if entry.pursuit else None
    return _told(entry.need) | {
        "state": row.state,
        "how": outcome.how if outcome else None,
        "url": outcome.url if outcome else None,
        "build_url": entry.pursuit.build_url if entry.pursuit else None,
        "seconds": round(outcome.seconds, 1) if outcome else None,
        "error": str(entry.error) if entry.error else None,
    }


def _is_of_suite(words: Sequence[str]) -> bool:
    """Whether these are arguments of teuthology-suite, which can't do without an option, and not paths."""
    named = os.path.basename(words[0]) == dry_run.PROGRAM
    return named or any(word.startswith("-") and word != "-" for word in words)


def _given(words: Sequence[str], *names: str) -> bool:
    return any(word.startswith(names) for word in words)


def _from(words: Sequence[str]) -> str:
    return Path(words[0]).resolve().name if words[0] != "-" else "standard input"


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 4h or 1d")
    return seconds


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Have a signal unwind what runs, so that it withdraws; a second one ends the process at once."""

    def stop(number: int, _: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        raise _Stopped(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
