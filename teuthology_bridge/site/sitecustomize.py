"""Activates the bridge wherever this directory is on PYTHONPATH, whatever the virtual environment holds.

It is for dispatcher workers: they run teuthology from virtual environments that are synced, and
lose whatever was installed into them. PYTHONPATH is inherited by what a dispatcher starts.
Only the package `teuthology_bridge` becomes importable, nothing else that lies beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _activate(package: Path) -> None:
    name = package.name
    if name not in sys.modules:  # else a .pth was first
        spec = importlib.util.spec_from_file_location(
            name, package / "__init__.py", submodule_search_locations=[str(package)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{package} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    importlib.import_module(f"{name}.hook").install()


def _chain() -> None:
    """Run the sitecustomize that would have run without this one: the next on the path."""
    ours = [index for index, entry in enumerate(sys.path) if Path(entry or ".").resolve() == _HERE]
    # Only what comes after: with two copies of this file, each would find the other for ever.
    spec = PathFinder.find_spec(__name__, sys.path[ours[-1] + 1 :] if ours else [])
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules[__name__] = module
        spec.loader.exec_module(module)


_activate(_HERE.parent)
_chain()
