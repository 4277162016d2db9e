"""`python -m workers.doctor`: check the clouds of the settings, and say what to mend."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from model import command_line
from model.targets import Target
from workers.cloud import Cloud
from workers.cloud_errors import Trouble
from workers.doctor import verdicts
from workers.doctor.checks import Checks
from workers.doctor.home import home
from workers.doctor.settings import InForce, Unreadable, read
from workers.doctor.trial import Trial
from workers.doctor.verdicts import Finding, Verdict, fail

if TYPE_CHECKING:
    from workers.openstack_settings import CloudSettings

_ENDS = """
Exit status: 0 if every line says ok; 1 if one says FAIL; 3 if there are warnings only.
No password and no secret is shown. The master may run meanwhile, or not.
"""


class Doctor:
    """One examination of all clouds."""

    def __init__(self, in_force: InForce, arguments: argparse.Namespace, reactor: Any) -> None:
        """Take the settings, and what was asked for."""
        self._in_force = in_force
        self._arguments = arguments
        self._reactor = reactor
        self._counts = dict.fromkeys(Verdict, 0)

    async def run(self) -> int:
        """Check, print, and give the exit status."""
        in_force = self._in_force
        clouds = in_force.openstack.clouds
        print(f"targets: {', '.join(map(str, in_force.targets))}")
        print("\nmaster", flush=True)
        for finding in home(in_force):
            self._show(finding)
        for cloud in clouds:
            print(f"\ncloud {cloud.title}", flush=True)
            await self._cloud(cloud)
        counts = self._counts
        print(f"\n{counts[Verdict.FAIL]} FAIL, {counts[Verdict.WARNING]} warnings, {counts[Verdict.OK]} ok")
        if counts[Verdict.FAIL]:
            return 1
        return 3 if counts[Verdict.WARNING] else 0

    async def _cloud(self, settings: CloudSettings) -> None:
        in_force = self._in_force
        cloud = Cloud(settings, in_force.openstack.clouds_yaml, in_force.tag, self._reactor)
        before = self._counts[Verdict.FAIL]
        try:
            async for finding in Checks(cloud, in_force, self._reactor).run():
                self._show(finding)
        finally:
            cloud.close()
        if self._arguments.server is None:
            return
        if self._counts[Verdict.FAIL] > before:
            self._show(verdicts.warning("server", "not tried: mend what fails first"))
            return
        await self._trial(settings)

    async def _trial(self, settings: CloudSettings) -> None:
        targets = [self._arguments.server] if self._arguments.server else list(self._in_force.targets)
        target = next((one for one in targets if settings.image(one) is not None), None)
        if target is None:
            self._show(fail("server", f"setting `images`: this cloud has none for {targets[0]}"))
            return
        try:
            findings = await Trial(self._in_force, settings, target, self._reactor).run(_say)
        except Trouble as trouble:
            findings = [fail("server", str(trouble))]
        for finding in findings:
            self._show(finding)

    def _show(self, finding: Finding) -> None:
        self._counts[finding.verdict] += 1
        print(f"  {finding}", flush=True)


def _say(text: str) -> None:
    print(f"           {text}", flush=True)


def _target(text: str) -> Target:
    try:
        return Target.from_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workers.doctor", description="Check the clouds of the settings, and print what to correct.",
        epilog=_ENDS, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--settings", type=Path, metavar="FILE",
        help="default: $BUILDPACKAGES_SETTINGS, else settings.yaml beside master.cfg",
    )  # fmt: skip
    parser.add_argument(
        "--server", nargs="?", type=_target, const=(), metavar="TARGET",
        help="also make a server in each cloud, as for a build of TARGET (else of the first target that the"
        " cloud builds), have it say whether it reaches the master, and destroy it",
    )  # fmt: skip
    return parser


def main() -> int:
    """Examine; the exit status tells the worst that was found."""
    arguments = _parser().parse_args()
    try:
        in_force = read(arguments.settings)
    except Unreadable as error:
        print(f"FAIL     settings: {error}")
        return 1
    status = [1]

    async def examine(reactor: Any) -> None:
        status[0] = await Doctor(in_force, arguments, reactor).run()

    try:
        react(lambda reactor: ensureDeferred(examine(reactor)))
    except SystemExit as ended:
        return status[0] if not ended.code else 1
    return status[0]


if __name__ == "__main__":
    command_line.run(main)
