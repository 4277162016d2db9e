"""The command `buildpackages`, for people: `python -m teuthology_bridge`."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from teuthology_bridge import __version__, activation, check, prefetch, site_yaml, wire
from teuthology_bridge.ensure import Ensure, Goal
from teuthology_bridge.errors import BuildpackagesError, WrongJob
from teuthology_bridge.heartbeat import doing
from teuthology_bridge.look import look
from teuthology_bridge.master_api import Away, Master, RepositoryAway, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teuthology_bridge.settings import Settings

_LOG = logging.getLogger("buildpackages")
_KEY = re.compile(r"(?P<target>[^/\s]+)/(?P<sha1>[0-9a-f]{40})/?\Z")
_SHA1 = re.compile(r"[0-9a-fA-F]{40}\Z")
_GOOD = ("waiting", "building", "published")

_SETTINGS = """\
The URLs of the master and the token come from `buildpackages:` in teuthology's configuration
(TEUTHOLOGY_CONFIG, ~/.teuthology.yaml, /etc/teuthology.yaml). The variables BUILDPACKAGES_URL,
BUILDPACKAGES_PACKAGES_URL and BUILDPACKAGES_TOKEN take precedence."""


def parser() -> argparse.ArgumentParser:
    """Give the words that the command takes."""
    top = argparse.ArgumentParser(
        prog="buildpackages",
        description="Ceph packages on demand: request them, follow them, and set teuthology up to request them.",
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, does: str, more: str = "") -> argparse.ArgumentParser:
        one = commands.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.{more}",
            epilog=_SETTINGS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(run=run)
        return one

    one = command(
        "check",
        _check,
        "check whether everything is in place for a job, and print what to do if it is not",
        "\nThe exit status is 0 if everything is in place, else 1.",
    )
    one.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="the Python that runs teuthology (the one that runs this)",
    )
    one.add_argument("--json", action="store_true", help="print JSON")
    command(
        "activate",
        _activate,
        "make the bridge's task `buildpackages` replace teuthology's",
        f"\nWrites {activation.PTH} into the virtual environment of the Python that runs this; pip writes it,\n"
        "too, so that it is needed after `deactivate` and some editable installs only.",
    )
    command(
        "deactivate",
        _deactivate,
        "make the name `buildpackages` lead to teuthology's own task again",
        f"\nRemoves {activation.PTH} from the virtual environment of the Python that runs this.",
    )
    one = command(
        "ask",
        _ask,
        "request packages unless they are published or already requested",
        "\nPrints their URL. With --wait, the exit status is 0 only when they are published; an interrupt withdraws.",
    )
    one.add_argument("target", metavar="TARGET", help="what to build, such as ceph-deb-jammy-x86_64-default")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--sha1", type=_sha1, help="the commit, by its 40 digits")
    which.add_argument("--ref", help="a branch, a tag, or the full name of any ref")
    one.add_argument("--git-url", help="the repository, unless it is the site's or else the master's own")
    one.add_argument("--wait", action="store_true", help="wait until they are published, or failed")
    one = command(
        "status",
        _status,
        "print the state of packages",
        "\nThe exit status is 0 unless they failed, or were not requested.",
    )
    one.add_argument(
        "which",
        nargs="?",
        metavar="KEY|ID",
        help="TARGET/SHA1, or a buildrequest's number; default: all open requests",
    )
    one = command(
        "prefetch", prefetch.main, "have the packages of a whole run published before the run is scheduled"
    )
    prefetch.add_arguments(one)
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; give the exit status."""
    arguments = parser().parse_args(words)
    try:
        return int(arguments.run(arguments))
    except BuildpackagesError as error:
        print(f"buildpackages: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read this has seen enough; what is left must not be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _check(arguments: argparse.Namespace) -> int:
    found = check.findings(os.environ, arguments.python)
    print(check.as_json(found) if arguments.json else check.as_text(found), flush=True)
    return 0 if check.is_good(found) else 1


def _activate(_: argparse.Namespace) -> int:
    written = activation.activate()
    print(f"{activation.place()} {'is written' if written else 'is there already'}")
    found = check.name()
    print(check.as_text([found]))
    return 0 if check.is_good([found]) else 1


def _deactivate(_: argparse.Namespace) -> int:
    removed = activation.deactivate()
    print(f"{activation.place()} {'is removed' if removed else 'was not there'}")
    return 0


def _ask(arguments: argparse.Namespace) -> int:
    kind, value = ("sha1", arguments.sha1) if arguments.sha1 else ("ref", arguments.ref)
    git_url = arguments.git_url or site_yaml.git_url(os.environ)
    if arguments.wait:
        return _wait(arguments.target, kind, value, git_url)
    settings = _settings()
    master = Master(settings)
    try:
        answer = master.ask(arguments.target, kind, value, git_url, reason=_reason())
    except RepositoryAway as error:
        raise BuildpackagesError(str(error)) from None
    except Away as error:
        raise _away(master.name, error) from None
    where = f"{settings.packages_url}{arguments.target}/sha1/{answer.sha1}/"
    if answer.published:
        print(f"{answer.package_key}: published, {where}")
    else:
        print(
            f"{answer.package_key}: on its way as buildrequest {answer.buildrequest_id}"
            f" (buildpackages status {answer.buildrequest_id}); it will be {where}"
        )
    return 0


def _wait(target: str, kind: Any, value: str, git_url: str) -> int:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO)
    # Unwound, not ended: the master is told that nobody waits any more.
    signal.signal(signal.SIGTERM, _interrupt)
    settings = _settings(job=f"buildpackages ask, process {os.getpid()} on {socket.gethostname()}")
    goal = Goal(
        target, kind, value, git_url, lambda sha1: f"{settings.packages_url}{target}/sha1/{sha1}/version"
    )
    [outcome] = Ensure(settings, _LOG, reason=_reason()).run([goal])
    print(outcome.url)
    return 0


def _interrupt(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _status(arguments: argparse.Namespace) -> int:
    settings = _settings()
    master = Master(settings)
    which = arguments.which or ""
    try:
        if which.isdecimal():
            found = [master.status(int(which))]
        elif not which:
            found = master.statuses()
        else:
            return _status_of_key(which, master, settings)
    except Unknown:
        raise WrongJob(f"{master.name} knows no buildrequest {which} of packages") from None
    except Away as error:
        raise _away(master.name, error) from None
    if not found:
        print("nothing is on its way")
    for one in found:
        print(_told(one))
    return 0 if all(one.state in _GOOD for one in found) else 1


def _status_of_key(which: str, master: Master, settings: Settings) -> int:
    key = _KEY.match(which)
    if key is None:
        raise WrongJob(f"{which!r} is neither a buildrequest's number nor TARGET/SHA1 with a whole sha1")
    name = f"{key['target']}/{key['sha1']}"
    url = f"{settings.packages_url}{key['target']}/sha1/{key['sha1']}/"
    try:
        version = look(f"{url}version", settings.look_timeout)
    except wire.NoAnswer as error:
        raise _away(f"the package server at {settings.packages_url}", error) from None
    if version is not None:
        print(f"{name}: published, version {version}, {url}")
        return 0
    for one in master.statuses():
        if one.package_key == name:
            print(_told(one))
            return 0
    print(f"{name}: neither published nor on its way")
    return 1


def _told(status: Status) -> str:
    """Give what is known of one, on a line, and on further ones who waits."""
    ended = {
        "published": f"published, {status.url}",
        "purged": f"purged: {status.reason}",
        "failed": f"failed: {status.error or status.reason}",
        "infrastructure": f"could not be built, and not because of the commit: {status.error or status.reason}",
        "cancelled": f"cancelled: {status.reason or status.error}",
    }
    line = f"{status.package_key}: {ended.get(status.state) or doing(status)}"
    if status.percent is not None and status.state == "building":
        line += f", {status.percent} %"
    if status.build_url:
        line += f", {status.build_url}"
    lines = [line, *(f"    {one} waits" for one in status.waiting)]
    if status.waiting_more:
        lines.append(f"    {status.waiting_more} more wait")
    return "\n".join(lines)


def _settings(job: str = "") -> Settings:
    settings = site_yaml.load(os.environ, job=job)
    for warning in settings.warnings:
        print(f"buildpackages: {warning}", file=sys.stderr)
    return settings


def _away(server: str, error: Exception) -> BuildpackagesError:
    return BuildpackagesError(f"{server} gives no answer: {error}")


def _reason() -> str:
    return f"buildpackages ask on {socket.gethostname()}"


def _sha1(text: str) -> str:
    if not _SHA1.match(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the 40 hexadecimal digits of a commit")
    return text.lower()


if __name__ == "__main__":
    sys.exit(main())
