"""The finder for teuthology's name, and what PYTHONPATH does where nothing can be installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import teuthology_venv
from tests.teuthology_bridge.environments import (
    CHECKOUT,
    FOREIGN,
    HOOKED,
    NAME,
    ORIGIN,
    SITE,
    Environment,
    fake_teuthology,
    run,
)
from teuthology_bridge import hook

TASK = str(CHECKOUT / "teuthology_bridge/task.py")


def says(code: str, *path: Path | str, cwd: Path) -> str:
    """Give what a new Python prints that has these directories on PYTHONPATH, and that complains of nothing."""
    finished = run([sys.executable, "-c", code], cwd=cwd, PYTHONPATH=":".join(map(str, path)))
    assert finished.stderr == ""
    return finished.stdout.strip()


@pytest.fixture
def teuthology(tmp_path: Path) -> Path:
    """A directory with something that has teuthology's name for the task."""
    return fake_teuthology(tmp_path / "teuthology")


@pytest.mark.parametrize(
    "name",
    [
        "teuthology",
        "teuthology.task",
        "teuthology.task.install",
        "teuthology.task.buildpackages.x",
        "teuthology.task.buildpackages2",
        "tasks.buildpackages",
        "buildpackages",
    ],
)
def test_all_other_names_are_left_alone(name: str) -> None:
    """The finder knows exactly one name."""
    assert hook.Finder.find_spec(name) is None


def test_the_one_name() -> None:
    """The name is found as the bridge's file, under that name, and has not been loaded for it."""
    spec = hook.Finder.find_spec(NAME)
    assert spec is not None
    assert (spec.name, spec.origin) == (NAME, TASK)
    assert NAME not in sys.modules


def test_the_hook_imports_nothing(tmp_path: Path) -> None:
    """Every Python that starts runs it: it loads itself, and not one module besides."""
    code = """
import sys
before = set(sys.modules)
import teuthology_bridge.hook
teuthology_bridge.hook.install()
print(sorted(set(sys.modules) - before))
"""
    found = says(code, CHECKOUT, cwd=tmp_path)
    assert found == str(["__future__", "teuthology_bridge", "teuthology_bridge.hook"])


def test_installing_twice_is_installing_once(tmp_path: Path, teuthology: Path) -> None:
    """However often it is installed, there is one finder, and it goes before all others."""
    code = "import sys, teuthology_bridge.hook as h; h.install(); h.install(); print(sys.meta_path.count(h.Finder), sys.meta_path[0] is h.Finder)"
    assert says(code, CHECKOUT, teuthology, cwd=tmp_path) == "1 True"


def test_by_pythonpath(tmp_path: Path, teuthology: Path) -> None:
    """One directory on PYTHONPATH is enough, for child processes as well, and makes nothing else importable."""
    assert says(ORIGIN, teuthology, cwd=tmp_path) == str(teuthology / "teuthology/task/buildpackages.py")
    assert says(ORIGIN, SITE, teuthology, cwd=tmp_path) == TASK
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ORIGIN!r}])"
    assert says(child, SITE, teuthology, cwd=tmp_path) == TASK
    others = (
        "import importlib.util as u; print([n for n in ('master', 'tests', 'workers') if u.find_spec(n)])"
    )
    assert says(others, SITE, cwd=tmp_path) == "[]"
    assert (
        says("import teuthology_bridge.wants as w; print(w.UPGRADE)", SITE, cwd=tmp_path) == "install.upgrade"
    )
    assert says(FOREIGN, SITE, teuthology, cwd=tmp_path) == "[]"


def test_an_existing_sitecustomize_runs_as_well(tmp_path: Path, teuthology: Path) -> None:
    """The sitecustomize that would have run without ours runs after it, and is the one of that name."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sitecustomize.py").write_text("import sys; MARK = 'ran'; sys.stdout.write('ran\\n')\n")
    code = f"import sitecustomize; print(sitecustomize.MARK, sitecustomize.__file__); {ORIGIN}"
    assert says(code, SITE, tmp_path / "other", teuthology, cwd=tmp_path).splitlines() == [
        "ran",
        f"ran {tmp_path / 'other/sitecustomize.py'}",
        TASK,
    ]


def test_a_sitecustomize_that_fails(tmp_path: Path, teuthology: Path) -> None:
    """One that fails is complained of as without ours, and the bridge is there all the same."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/sitecustomize.py").write_text("raise RuntimeError('broken by somebody else')\n")
    finished = run(
        [sys.executable, "-c", ORIGIN], cwd=tmp_path, PYTHONPATH=f"{SITE}:{tmp_path / 'other'}:{teuthology}"
    )
    assert finished.stdout.strip() == TASK
    assert "broken by somebody else" in finished.stderr


def test_two_copies_on_the_path(tmp_path: Path, teuthology: Path) -> None:
    """Two copies, or one named twice, neither chase each other nor install two finders."""
    copy = tmp_path / "copy/teuthology_bridge"
    copy.mkdir(parents=True)
    for name in ("__init__.py", "hook.py", "task.py", "site/sitecustomize.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text((CHECKOUT / "teuthology_bridge" / name).read_text())
    path = [SITE, copy / "site", SITE, copy / "site", teuthology]
    assert says(ORIGIN, *path, cwd=tmp_path) == TASK
    assert says(HOOKED, *path, cwd=tmp_path) == "['Finder']"
    assert says(ORIGIN, copy / "site", SITE, teuthology, cwd=tmp_path) == str(copy / "task.py")


def test_installed_and_on_the_path(tmp_path: Path, teuthology: Path) -> None:
    """Where it is activated in the environment too, there is one finder still."""
    environment = Environment(tmp_path / "venv")
    environment.add_path("checkout", CHECKOUT)
    environment.packages.joinpath("zzz_teuthology_bridge.pth").write_text(
        (CHECKOUT / "teuthology_bridge/zzz_teuthology_bridge.pth").read_text()
    )
    assert environment.says(HOOKED) == "['Finder']"
    assert environment.says(HOOKED, PYTHONPATH=str(SITE)) == "['Finder']"
    assert environment.says(ORIGIN, PYTHONPATH=f"{SITE}:{teuthology}") == TASK


def test_teuthology_itself_takes_ours(tmp_path: Path) -> None:
    """teuthology looks its tasks up by name: with PYTHONPATH it gets the bridge's, and without its own."""
    settings = tmp_path / "teuthology.yaml"
    settings.write_text("{lab_domain: ''}")
    code = "import sys; from teuthology.run_tasks import get_task; sys.stdout.write(get_task('buildpackages').__code__.co_filename)"
    python = str(teuthology_venv.venv() / "bin/python")
    given = {"TEUTHOLOGY_CONFIG": str(settings)}
    assert run([python, "-c", code], cwd=tmp_path, PYTHONPATH=str(SITE), **given).stdout == TASK
    shipped = run([python, "-c", code], cwd=tmp_path, status=None, **given)
    assert "teuthology/task/buildpackages.py" in shipped.stdout + shipped.stderr
