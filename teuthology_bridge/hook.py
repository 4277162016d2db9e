"""Makes `teuthology.task.buildpackages` the bridge's task.

teuthology has a task of that name, has no plugins, and looks into its own package first. A finder
ahead of all others takes exactly this one name. It is installed when Python starts, also in
processes that have nothing to do with teuthology: it imports nothing of teuthology, whose import
patches the whole process for gevent, and costs next to nothing until the name is asked for.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # without importing typing, for the same reason
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAME = "teuthology.task.buildpackages"


class Finder:
    """Finds the bridge's task under teuthology's name, and nothing else."""

    @classmethod
    def find_spec(
        cls, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the spec of the bridge's task, or None for any other name."""
        if fullname != NAME:
            return None
        import importlib.util

        return importlib.util.spec_from_file_location(fullname, task_file())


def task_file() -> str:
    """Give the file that is loaded as the task."""
    # __file__ is relative where sys.path is, as with `python -m` of old and an empty PYTHONPATH.
    import os

    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "task.py")


def install() -> None:
    """Have the name resolve to the bridge from now on; once, however often it is called."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
