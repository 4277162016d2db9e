"""The wheel: what is in it, and what pip's installing and uninstalling it does."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import teuthology_bridge
from tests import teuthology_venv
from tests.teuthology_bridge.environments import CHECKOUT, FOREIGN, HOOKED, NAME, Environment
from teuthology_bridge import activation

PTH = "zzz_teuthology_bridge.pth"
ORIGIN = f"import importlib.util as u, sys; sys.stdout.write('>' + u.find_spec({NAME!r}).origin)"
EVERY_MODULE = """
import pkgutil, importlib, teuthology_bridge
names = [m.name for m in pkgutil.iter_modules(teuthology_bridge.__path__) if m.name != "__main__"]
for name in names:
    importlib.import_module(f"teuthology_bridge.{name}")
print(len(names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by pip as anybody would, but with the build backend that is at hand."""
    where = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index",
            "--no-deps", "--no-build-isolation", "--wheel-dir", str(where), str(CHECKOUT),
        ],
        check=True,
        cwd=where,
        timeout=300,
    )  # fmt: skip
    [made] = where.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with pip that has teuthology 1.3.0 and what that needs, and nothing else."""
    made = Environment(tmp_path_factory.mktemp("beside") / "venv", pip=True)
    [packages] = teuthology_venv.venv().glob("lib/python*/site-packages")
    made.add_path("teuthology", packages)
    (made.directory / ".teuthology.yaml").write_text("{lab_domain: ''}")
    return made


def pip(environment: Environment, *words: str, status: int | None = 0, **given: str) -> str:
    """Run pip, which may not go anywhere."""
    options = ["--disable-pip-version-check", "--no-input"]
    if words[0] == "install":
        options.append("--no-index")
    return environment.run("-m", "pip", words[0], *options, *words[1:], status=status, **given).stdout


def origin(environment: Environment) -> str:
    """Give the file that teuthology's name resolves to in a new Python."""
    return environment.run("-c", ORIGIN).stdout.rpartition(">")[2]


def left(environment: Environment) -> list[str]:
    """Give what there is of the bridge in an environment."""
    return sorted(
        str(path.relative_to(environment.directory))
        for path in environment.directory.rglob("*")
        if "teuthology_bridge" in path.name or path.name == "buildpackages"
    )


def test_what_is_in_it(wheel: Path) -> None:
    """It holds the bridge, the file that activates it, and nothing of the rest of the checkout."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        assert opened.read(PTH).decode() == activation.TEXT
    assert {name.split("/")[0].split("-")[0] for name in names} == {"teuthology_bridge", PTH}
    assert "teuthology_bridge/site/sitecustomize.py" in names
    assert wheel.name == f"teuthology_bridge-{teuthology_bridge.__version__}-py3-none-any.whl"


def test_what_it_needs(wheel: Path) -> None:
    """It needs PyYAML only, nothing of the master's, and the Python that teuthology needs."""
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith("/METADATA")]
        told = email.message_from_bytes(opened.read(name))
    assert [one.lower() for one in told.get_all("Requires-Dist", [])] == ["pyyaml"]
    assert told["Requires-Python"] == ">=3.10"


def test_alone(wheel: Path, tmp_path: Path) -> None:
    """In an environment with PyYAML and nothing else it installs, every module loads, and the command helps."""
    environment = Environment(tmp_path / "venv", pip=True)
    environment.add_yaml()
    pip(environment, "install", "--quiet", str(wheel))
    assert int(environment.says(EVERY_MODULE)) > 10
    assert environment.says("import sys; print('requests' in sys.modules)") == "False"
    helped = subprocess.run(
        [environment.directory / "bin/buildpackages", "--help"], capture_output=True, text=True, timeout=60
    )
    assert helped.returncode == 0, helped.stderr
    assert "prefetch" in helped.stdout


def test_installed_beside_teuthology_and_gone_again(wheel: Path, beside: Environment) -> None:
    """From the installation to its end, teuthology's name is the bridge's in every new Python; then nothing is left."""
    shipped = origin(beside)
    assert shipped.endswith("/teuthology/task/buildpackages.py")
    pip(beside, "install", "--quiet", str(wheel))
    assert origin(beside) == str(beside.packages / "teuthology_bridge/task.py")
    # A Python that has nothing to do with teuthology has the finder, and no teuthology.
    assert beside.says(HOOKED) == "['Finder']"
    assert beside.says(FOREIGN) == "[]"
    assert "buildpackages" in beside.run("-m", "teuthology_bridge", "--version").stdout
    assert "teuthology-bridge" not in pip(beside, "check", status=None)
    pip(beside, "uninstall", "--quiet", "--yes", "teuthology-bridge")
    assert left(beside) == []
    assert origin(beside) == shipped
    assert beside.says(HOOKED) == "[]"


def test_an_editable_install(beside: Environment) -> None:
    """Installed from the checkout to work on it, it is the checkout's; deactivated and activated by its command."""
    backend = str(Path(pytest.__file__).parents[1])
    pip(
        beside,
        "install",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "--editable",
        str(CHECKOUT),
        PYTHONPATH=backend,
    )
    task = str(CHECKOUT / "teuthology_bridge/task.py")
    beside.run("-m", "teuthology_bridge", "activate")
    assert origin(beside) == task
    beside.run("-m", "teuthology_bridge", "deactivate")
    assert origin(beside).endswith("/teuthology/task/buildpackages.py")
    beside.run("-m", "teuthology_bridge", "activate")
    pip(beside, "uninstall", "--quiet", "--yes", "teuthology-bridge")
    assert left(beside) == []
