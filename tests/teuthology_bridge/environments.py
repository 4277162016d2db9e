"""Virtual environments of a test's own, beside what they need, and nothing fetched from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).parents[2]
SITE = CHECKOUT / "teuthology_bridge/site"
NAME = "teuthology.task.buildpackages"
ORIGIN = f"import importlib.util as u; print(u.find_spec({NAME!r}).origin)"
HOOKED = "import sys; print([f.__name__ for f in sys.meta_path if getattr(f, '__module__', '') == 'teuthology_bridge.hook'])"
FOREIGN = "import sys; print([n for n in sys.modules if n.split('.')[0] in ('teuthology', 'gevent')])"


class Environment:
    """One virtual environment."""

    def __init__(self, directory: Path, *, pip: bool = False) -> None:
        venv.create(directory, with_pip=pip, symlinks=True)
        self.directory = directory
        self.python = str(directory / "bin/python")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.packages = directory / f"lib/python{version}/site-packages"

    def add_path(self, name: str, path: Path) -> None:
        """Have everything in a directory importable, as an editable install does."""
        (self.packages / f"{name}.pth").write_text(f"{path}\n")

    def add_yaml(self) -> None:
        """Have PyYAML installed, the one that the tests run with."""
        have = Path(yaml.__file__).parents[1]
        for one in [have / "yaml", have / "_yaml", *have.glob("[pP]y[yY][aA][mM][lL]-*.dist-info")]:
            (self.packages / one.name).symlink_to(one)

    def run(
        self, *words: str, status: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run its Python with these words, elsewhere than in the checkout."""
        return run([self.python, *words], cwd=self.directory, status=status, **environment)

    def says(self, code: str, **environment: str) -> str:
        """Give what a new Python prints for some code; it must not complain of anything."""
        finished = self.run("-c", code, **environment)
        assert finished.stderr == ""
        return finished.stdout.strip()


def run(
    command: Sequence[str], *, cwd: Path, status: int | None = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of the tests' environment, and hold it to its exit status."""
    finished = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if status is not None:
        assert finished.returncode == status, f"{finished.stdout}\n{finished.stderr}"
    return finished


def fake_teuthology(directory: Path) -> Path:
    """Write a package that has teuthology's task, for what needs no more of it than the name."""
    task = directory / "teuthology/task"
    task.mkdir(parents=True)
    (task.parent / "__init__.py").touch()
    (task / "__init__.py").touch()
    (task / "buildpackages.py").write_text("SHIPPED = True\n")
    return directory
