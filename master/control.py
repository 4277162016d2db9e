"""Starts, stops and reloads the master: `python -m master.control start|stop|reload|status`."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from master.database_url import connection_problem
from master.publishing.signing import warnings_of
from master.reloads.reload_log import LogTail, Reload
from master.settings import ENVIRONMENT_VARIABLE, Settings, SettingsError, default_path
from master.users import operator_token
from model import command_line

_CHECKOUT = Path(__file__).resolve().parent.parent
_START_SECONDS = 180
_STOP_SECONDS = 30
_RELOAD_SECONDS = 120

_TAC = """\
# Made by `python -m master.control start`; changes here are lost.
import os
import sys

from buildbot.master import BuildMaster
from twisted.application import service
from twisted.python.log import FileLogObserver, ILogObserver
from twisted.python.logfile import LogFile

os.environ[{variable!r}] = {settings!r}
sys.path.insert(0, {checkout!r})
basedir = {state!r}
configfile = {configfile!r}
application = service.Application('buildmaster')
logfile = LogFile.fromFullPath(os.path.join(basedir, "twistd.log"), rotateLength=10000000, maxRotatedFiles=10)
application.setComponent(ILogObserver, FileLogObserver(logfile).emit)
master = BuildMaster(basedir, configfile, 0o022)
master.setServiceParent(application)
"""


class ControlError(Exception):
    """What went wrong, and where to look."""


def prepare(settings_file: Path, settings: Settings) -> None:
    """Make the state directory what Buildbot expects: token, tac, and the database's schema."""
    state = settings.state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    operator_token(state)
    (state / "buildbot.tac").write_text(
        _TAC.format(
            variable=ENVIRONMENT_VARIABLE,
            settings=str(settings_file.resolve()),
            checkout=str(_CHECKOUT),
            configfile=str(_CHECKOUT / "master.cfg"),
            state=str(state),
        )
    )
    schema = state / "schema"
    wanted = f"buildbot {version('buildbot')} {settings.database}\n"
    if problem := connection_problem(settings.database):
        raise ControlError(f"The setting `database` names a database that cannot be opened: {problem}")
    if not schema.exists() or schema.read_text() != wanted:
        _buildbot(settings_file, "upgrade-master", "--quiet", str(state))
        schema.write_text(wanted)


def start(settings_file: Path, settings: Settings) -> str:
    """Start the master unless it runs, and wait until it answers."""
    if running(settings):
        return f"the master runs already: {settings.www.url}"
    if taken := taken_ports(settings):
        raise ControlError("\n".join(taken))
    prepare(settings_file, settings)
    (settings.state / "twistd.pid").unlink(missing_ok=True)
    log = settings.state / "twistd.log"
    _buildbot(settings_file, "start", f"--start_timeout={_START_SECONDS}", str(settings.state))
    url = f"http://{settings.www.host}:{settings.www.port}/api/v2/forceschedulers/packages"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=5) as answer:
                answer.read()
                if answer.status == 200:
                    return f"the master runs: {settings.www.url}"
        except (URLError, OSError):
            if not running(settings):
                break
        time.sleep(0.2)
    raise ControlError(f"the master did not start; its log: {log}")


def taken_ports(settings: Settings) -> list[str]:
    """Return a sentence for each port of the settings that another program listens on, or that cannot be had."""
    sentences = []
    for name, where in (
        ("www", settings.www),
        ("packages", settings.packages),
        ("workers", settings.workers),
    ):
        with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as probe:
            # As Twisted does: a connection that has just ended does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((where.host, where.port))
            except OSError as error:
                sentences.append(
                    f"{name}.port: {where.host}:{where.port} cannot be used: {error.strerror}."
                    f" End what uses it, or set another {name}.port."
                )
    return sentences


def stop(settings: Settings) -> str:
    """End the master and with it every local worker; by force if it does not end by itself."""
    pid = running(settings)
    if not pid:
        return "the master does not run"
    os.kill(pid, signal.SIGTERM)
    how = "stopped"
    deadline = time.monotonic() + _STOP_SECONDS
    # twistd removes its pid file some time before it ends.
    while _alive(pid):
        if time.monotonic() > deadline:
            how = f"killed, since it did not stop within {_STOP_SECONDS} s"
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.05)
    return f"the master is {how}"


def reload(settings: Settings) -> str:
    """Make the master read its settings again, and wait until they are in force. ControlError has the reasons of a refusal.

    Buildbot writes the outcome to its log only.
    """
    pid = running(settings)
    if not pid:
        raise ControlError(f"no master runs with the state directory {settings.state}")
    path = settings.state / "twistd.log"
    log = LogTail(path)
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_SECONDS
    outcome = Reload()
    while not outcome.end and time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
        for line in log.new_lines():
            outcome.take(line)
    if outcome.end == "complete":
        return "the master has read its settings again, and they are in force"
    if outcome.end == "aborted":
        said = "\n  ".join(outcome.lines)
        raise ControlError(f"the settings were refused; those before stay in force:\n  {said}")
    if outcome.end == "partially applied":
        said = "\n  ".join(outcome.lines)
        raise ControlError(
            f"the settings are in force only in part; see {path}, then restart the master:\n  {said}"
        )
    how = f"has not finished within {_RELOAD_SECONDS} s" if _alive(pid) else "ended meanwhile"
    raise ControlError(f"whether the settings are in force is not known: the master {how}; its log: {path}")


def running(settings: Settings) -> int:
    """Give the master's pid, or 0."""
    try:
        pid = int((settings.state / "twistd.pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if _alive(pid) else 0


def status(settings: Settings) -> str:
    """Return whether the master runs and, if it does, the warnings for its signing keys."""
    if not running(settings):
        return "the master does not run"
    warnings = [f"warning: {sentence}" for sentence in warnings_of(settings.state / "gnupg")]
    return "\n".join(["the master runs", *warnings])


def _alive(pid: int) -> bool:
    """Whether a pid is a running master's: it may have become another program's since."""
    try:
        command = Path("/proc", str(pid), "cmdline").read_bytes()
        state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return b"buildbot" in command and state != "Z"


def _buildbot(settings_file: Path, *arguments: str) -> None:
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(settings_file.resolve())}
    command = [sys.executable, "-c", "from buildbot.scripts.runner import run; run()", *arguments]
    finished = subprocess.run(
        command, check=False, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if finished.returncode != 0:
        raise ControlError(f"buildbot {arguments[0]} failed:\n{finished.stdout}{finished.stderr}")


def main() -> int:
    """Start, stop or reload the master that a settings file describes, or print whether it runs."""
    parser = argparse.ArgumentParser(prog="python -m master.control", description=main.__doc__)
    parser.add_argument("verb", choices=["start", "stop", "reload", "status"], help="what to do")
    parser.add_argument(
        "--settings",
        type=Path,
        default=default_path(),
        help="default: $BUILDPACKAGES_SETTINGS, else settings.yaml beside master.cfg",
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.from_file(arguments.settings)
        if arguments.verb == "start":
            print(start(arguments.settings, settings))
        elif arguments.verb == "stop":
            print(stop(settings))
        elif arguments.verb == "reload":
            print(reload(settings))
        else:
            print(status(settings))
    except (SettingsError, ControlError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command_line.run(main)
