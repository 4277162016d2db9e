"""Ends a command quietly when the reader of its output has gone, as in `python -m model.targets | head`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

BROKEN_PIPE = 141
"""The status that a shell shows for a command that SIGPIPE ended."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit with its status, or with 141 if nobody reads standard output any more."""
    try:
        try:
            status: object = main()
        except SystemExit as end:  # argparse ends so after --help
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would print a traceback then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    sys.exit(status)  # type: ignore[arg-type]
