"""Fuzz a real master for some minutes: `python -m tests.fuzz --minutes 60 [--seed N]`."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.fuzzer import fuzz


def main() -> int:
    """Fuzz, print the table, and return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    with TemporaryDirectory(prefix="fuzz-") as directory:
        report = fuzz(Path(directory), options.minutes * 60, options.seed)
    print(report.table())
    return 1 if report.defects else 0


if __name__ == "__main__":
    sys.exit(main())
