"""Fuzz a real master for some minutes: `python -m tests.fuzz --minutes 60 [--seed N]`."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.fuzzer import fuzz


def _end(number: int, _: object) -> None:
    # The master is a daemon: only what follows this exception ends it. A second signal must not interrupt that.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Fuzz, print the table, and return 1 if there is any defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz-findings"), help="folder for the bytes that found defects"
    )
    options = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _end)
    with TemporaryDirectory(prefix="fuzz-") as directory:
        report = fuzz(Path(directory), options.seed, options.findings.resolve(), seconds=options.minutes * 60)
    print(report.table())
    return 1 if report.defects else 0


if __name__ == "__main__":
    sys.exit(main())
