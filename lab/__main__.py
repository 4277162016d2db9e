"""`python -m lab install|up|status|down`: a real small OpenStack on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lab.errors import LabError
from lab.install import install
from lab.layout import DRIVERS, HOME, VENV


def main() -> int:
    """Do what was asked; a sentence says what failed."""
    arguments = _parser().parse_args()
    try:
        status: int = arguments.verb(arguments)
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return status


def _install(_: argparse.Namespace) -> int:
    install(print)
    print(f"OpenStack is in {VENV}")
    return 0


def _up(arguments: argparse.Namespace) -> int:
    from lab import bringup
    from lab.cloud import Lab

    install(print)
    bringup.up(arguments.directory, arguments.driver, say=lambda line: print(line, flush=True))
    lab = Lab(arguments.directory)
    lab.use_roots(dict(arguments.root))
    print(f"""
export OS_CLIENT_CONFIG_FILE={lab.clouds_yaml} OS_CLOUD=packages

Clouds: `packages` (a plain member, by application credential), `packages-password` (the same, by
password), `other` (another member of the same project), `lab` (the administrator).
End it with: python -m lab down {arguments.directory}""")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from lab.cloud import Lab

    lab = Lab(arguments.directory)
    for service, pid in lab.pids.items():
        print(f"{service:10} {pid:8}  {lab.endpoints.get(service, '')}")
    print(f"clouds: {lab.clouds_yaml}")
    print(f"servers: {len(lab.server_directories())}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from lab import bringup

    number = bringup.down(arguments.directory)
    print(f"ended {number} processes" if number else f"no lab runs in {arguments.directory}")
    return 0


def _root(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found or not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not IMAGE=DIRECTORY with a directory that is there")
    return name, Path(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, does, text in (
        ("install", _install, "make the virtual environment with OpenStack in it"),
        ("up", _up, "start a lab afresh, and leave it running"),
        ("status", _status, "say what runs, and where"),
        ("down", _down, "end everything of a lab, however it was left"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"{text}.")
        verb.set_defaults(verb=does)
        if name != "install":
            verb.add_argument(
                "directory", nargs="?", type=Path, default=HOME / "lab", metavar="DIR",
                help="the lab's directory; default: %(default)s",
            )  # fmt: skip
        if name == "up":
            verb.add_argument("--driver", choices=sorted(DRIVERS), default="process",
                              help="what a server is: a process that runs its user data, or a virtual machine"
                                   " (default: %(default)s)")  # fmt: skip
            verb.add_argument("--root", action="append", type=_root, default=[], metavar="IMAGE=DIRECTORY",
                              help="a prepared root, in whose throw-away overlay the servers of an image run as"
                                   " root; may be repeated")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
