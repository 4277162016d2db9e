"""Activates the bridge in a virtual environment: the file that has each Python there install the hook.

The wheel brings the same file, and pip takes it away again. Where the package is importable by other
means, as it is after an editable install by some build tools, it is written here.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from teuthology_bridge.errors import WrongSettings, one_line

PTH = "zzz_teuthology_bridge.pth"
"""Python reads these files by their names' order: this one after those that make packages importable."""

TEXT = (
    r'import sys; exec("try:\n    import teuthology_bridge.hook\nexcept ImportError:\n    pass\n'
    r'else:\n    teuthology_bridge.hook.install()")'
    "\n"
)
"""What is in it. Left behind by a package that has gone, it does nothing."""


def place() -> Path:
    """Give where the file is, or would be, for the Python that runs this."""
    return Path(sysconfig.get_path("purelib")) / PTH


def activate() -> bool:
    """Have it there, as the wheel has it; tell whether it was not."""
    try:
        if place().read_text(encoding="ascii") == TEXT:
            return False
    except (FileNotFoundError, ValueError):
        pass
    except OSError as error:
        raise _refused(error) from None
    # At once or not at all: a line cut short would have every Python here complain.
    new = place().with_suffix(".new")
    try:
        new.write_text(TEXT, encoding="ascii")
        new.replace(place())
    except OSError as error:
        raise _refused(error) from None
    return True


def deactivate() -> bool:
    """Have it gone; tell whether it was there."""
    try:
        place().unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refused(error) from None
    return True


def _refused(error: OSError) -> WrongSettings:
    return WrongSettings(
        f"{place()}: {one_line(error.strerror or str(error))}: run this as a user who may write there, or"
        " use PYTHONPATH instead, which needs nothing to be written"
    )
