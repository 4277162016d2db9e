"""The jobs of a run ahead of time: from what `teuthology-suite --dry-run -vv` prints, or from job YAML files.

That command gives each job to teuthology-schedule, whose own dry run prints it on standard output: a line
`---`, and the whole job as YAML. The first and the last of them are no jobs, but notes for the results.
With a single -v there are only the commands' lines in its log, and no jobs; a job that
teuthology-schedule failed to print is no failure of teuthology-suite. Its log may be in the same text.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from teuthology_bridge.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.\d]* [A-Z]+:[\w.]+:")
_SCHEDULED = re.compile(r" INFO:teuthology\.suite\.run:Scheduling ")
_COMMAND = re.compile(r" DEBUG:teuthology\.suite\.util:.* command: \S*teuthology-schedule ")
_SUFFIXES = (".yaml", ".yml")
_OPERATORS = ("%", "+", "$")
"""Names of files by which a suite says how its fragments become jobs."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A suite of hundreds of jobs is megabytes of YAML: the parser in C reads them ten times as fast."""


class NoJobs(Exception):
    """What was given can't be read as jobs; the text says what to give instead."""


@dataclass(frozen=True)
class Job:
    """One job, by the name that a person knows it by."""

    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Something for which there will be no packages, and why."""

    what: str
    sentence: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.what}: {self.sentence}"


@dataclass
class Jobs:
    """What was found."""

    jobs: list[Job] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: int = 0
    """Documents that are no jobs."""

    def add(self, other: Jobs) -> None:
        """Take another one's as well."""
        self.jobs += other.jobs
        self.problems += other.problems
        self.others += other.others

    def common(self, key: str) -> str:
        """Give what all jobs have under a key, or nothing."""
        values = {str(job.config.get(key) or "") for job in self.jobs}
        return values.pop() if len(values) == 1 else ""


def parse(text: str, where: str) -> Jobs:
    """Read jobs from the output of a dry run, with or without its log, or from a YAML file of one or more jobs."""
    found = Jobs()
    for number, document in enumerate(_documents(text.splitlines()), start=1):
        name = f"document {number} of {where}"
        try:
            told = yaml.load(document, Loader=_Loader)  # noqa: S506 - a safe loader
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            found.problems.append(Problem(name, f"is not YAML: {one_line(str(error), 300)}"))
            continue
        if not isinstance(told, dict) or not isinstance(told.get("tasks"), list):
            found.others += 1
        else:
            found.jobs.append(Job(str(told.get("description") or "") or name, told))
    scheduled = len(_SCHEDULED.findall(text))
    if scheduled and not found.jobs and _COMMAND.search(text):
        raise NoJobs(
            f"{where} holds the commands that teuthology-suite would run, and not the jobs:"
            " run it with --dry-run -vv, and give its standard output as well"
        )
    if scheduled and not found.jobs:
        raise NoJobs(
            f"{where} holds the log of teuthology-suite only: give what it prints with --dry-run -vv"
        )
    missing = scheduled - len(found.jobs) - len(found.problems)
    if missing > 0:
        found.problems.append(
            Problem(where, f"lacks {missing} of the {scheduled} jobs that teuthology-suite would schedule")
        )
    return found


def _documents(lines: Iterable[str]) -> Iterator[str]:
    """Give the texts between marks; from a line of a log to the next mark all is the log's, which has long messages."""
    held: list[str] = []
    of_log = False
    for line in lines:
        if line.rstrip() == "---":
            if any(one.strip() for one in held):
                yield "\n".join(held)
            held, of_log = [], False
        elif _LOG_LINE.match(line):
            of_log = True
        elif not of_log:
            held.append(line)
    if any(one.strip() for one in held):
        yield "\n".join(held)


def read(paths: Iterable[str]) -> Jobs:
    """Read jobs from files, from standard input for `-`, and from all YAML files below directories; NoJobs if one of them is not there."""
    found = Jobs()
    for word in paths:
        if word == "-":
            found.add(parse(sys.stdin.read(), "standard input"))
            continue
        path = Path(word)
        if not path.exists():
            raise NoJobs(
                f"{path} is not there; what is for teuthology-suite comes after `--`, as in"
                " `buildpackages prefetch -- --suite rados --ceph main`"
            )
        if not path.is_dir():
            found.add(_file(path, path.name))
            continue
        files = list(_files(path))
        for file in files:
            found.add(_file(file, str(file.relative_to(path))))
    return found


def _files(directory: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(directory):
        folders.sort()
        if operators := sorted(set(names) & set(_OPERATORS)):
            raise NoJobs(
                f"{directory} is made of fragments of jobs, as {os.path.join(here, operators[0])} says:"
                " have teuthology-suite make jobs of them, as in `buildpackages prefetch -- --suite rados`"
            )
        yield from (Path(here, name) for name in sorted(names) if name.endswith(_SUFFIXES))


def _file(path: Path, name: str) -> Jobs:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return Jobs(problems=[Problem(name, f"can't be read: {one_line(str(error), 300)}")])
    found = parse(text, name)
    if len(found.jobs) == 1 and found.jobs[0].name.startswith("document "):
        found.jobs = [Job(name, found.jobs[0].config)]
    return found
