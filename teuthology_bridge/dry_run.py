"""Runs `teuthology-suite --dry-run` for its jobs; nothing is scheduled, and no package needs to be there yet."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

import yaml

from teuthology_bridge import site_yaml
from teuthology_bridge.errors import WrongSettings, one_line
from teuthology_bridge.jobs import Jobs, NoJobs, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAM = "teuthology-suite"

_AHEAD = {"suite_verify_ceph_hash": False, "suite_allow_missing_packages": True}
"""Without these it refuses to schedule what has no packages yet."""

_TOLD = 5
"""Lines of its log that are shown besides when it fails."""


def program() -> str:
    """Give the teuthology-suite beside this Python, or else the one on PATH, or nothing."""
    beside = Path(sys.executable).parent / PROGRAM
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM) or ""


def look_for_teuthology() -> None:
    """WrongSettings if it can't be imported here: before a minute is spent, and with the Python that can."""
    if importlib.util.find_spec("teuthology") is not None:
        return
    python = _python_of(program())
    told = (
        f"here that is {python} -m teuthology_bridge prefetch" if python else "install the bridge there, too"
    )
    raise WrongSettings(
        f"{sys.executable} has no teuthology, whose tables say what packages are called: use the Python of the"
        f" virtual environment that teuthology is in; {told}"
    )


def _python_of(script: str) -> str:
    """Give the Python that a script begins with, or nothing."""
    try:
        with open(script, "rb") as stream:
            first = stream.readline(1000).decode()
    except (OSError, ValueError):
        return ""
    python = first.removeprefix("#!").strip()
    return python if first.startswith("#!") and os.access(python, os.X_OK) else ""


def command(arguments: Sequence[str]) -> list[str]:
    """Give the words to run; the program's own name may be the first of the arguments."""
    words = list(arguments)
    named = bool(words) and os.path.basename(words[0]) == PROGRAM
    path = words.pop(0) if named else PROGRAM
    if path == PROGRAM:
        path = program()
    if not path:
        raise NoJobs(
            f"{PROGRAM} is neither beside {sys.executable} nor on PATH: name it, as in"
            f" `buildpackages prefetch -- /opt/teuthology/bin/{PROGRAM} --suite rados`"
        )
    # It takes -vv before everything else, and no other -v besides.
    return [path, "-vv", "--dry-run", *(word for word in words if not _ours(word))]


def _ours(word: str) -> bool:
    """Whether a word is one that is given anyhow; long ones may be cut short."""
    if word in ("-v", "-vv"):
        return True
    return any(
        len(word) >= len(least) and whole.startswith(word)
        for whole, least in (("--dry-run", "--dr"), ("--verbose", "--ve"))
    )


def run(arguments: Sequence[str], environment: Mapping[str, str], progress: Callable[[int], None]) -> Jobs:
    """Give the jobs it would schedule; NoJobs says why there are none. Progress is told each job's number."""
    words = command(arguments)
    with tempfile.TemporaryDirectory(prefix="buildpackages-") as directory:
        # Made by tempfile for this user only: the site's configuration may hold secrets.
        site = Path(directory, "teuthology.yaml")
        site.write_text(yaml.safe_dump({**site_yaml.site(environment), **_AHEAD}), encoding="utf-8")
        try:
            process = subprocess.Popen(
                words,
                env={**environment, "TEUTHOLOGY_CONFIG": str(site), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise NoJobs(f"{words[0]} can't be run: {error.strerror}") from None
        with process:
            try:
                output, log = _read(process, progress)
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        raise NoJobs(_why(process.returncode, log, words))
    found = parse(f"{output}\n{log}", PROGRAM)
    if not found.jobs and not found.problems:
        raise NoJobs(f"{PROGRAM} would schedule no job; it ran as {' '.join(words)}")
    return found


def _why(status: int, log: str, words: Sequence[str]) -> str:
    """Say why there are no jobs: the exception at the end of its log, and what it did until then."""
    if re.search(r"^usage:", log, re.MULTILINE):
        return f"{PROGRAM} takes no such arguments: {shlex.join(words[3:])}; it has a --help of its own"
    lines = [line for line in log.splitlines() if line.strip()]
    last = one_line(lines[-1]) if lines else "it says nothing"
    # Of a failure the traceback says nothing to its reader, nor do details.
    told = [line for line in lines if re.search(r" (INFO|WARNING|ERROR|CRITICAL):", line)][-_TOLD:]
    tail = "".join(f"\n  {line}" for line in told)
    return f"{PROGRAM} ended with status {status}: {last}{tail}"


def _read(process: subprocess.Popen[str], progress: Callable[[int], None]) -> tuple[str, str]:
    """Give what the process says on both its streams, to the end."""
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    thread = threading.Thread(target=_drain, args=(process.stderr, log), daemon=True)
    thread.start()
    output = []
    marks = 0
    for line in process.stdout:
        output.append(line)
        if line.rstrip() == "---":
            # The first and the last are no jobs.
            progress(max(0, marks))
            marks += 1
    process.wait()
    thread.join()
    return "".join(output), "".join(log)


def _drain(stream: IO[str], into: list[str]) -> None:
    into.extend(stream)
