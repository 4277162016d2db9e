"""The direction of imports and the size of things, read from the source text: nothing here is imported."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"master", "model", "steps", "workers", "demo", "bench", "lab", "tests", "teuthology_bridge"}
PRODUCT = ("master", "model", "steps", "workers", "teuthology_bridge")
FULLEST = 13
"""Modules that a folder holds at most, besides `__init__`."""
FULLER = {"workers": 28, "teuthology_bridge": 28, "bench": 28, "lab": 16}
"""Folders that hold more all the same, and must not grow."""
LONGEST = 450
LONGER = {"demo/real_ceph.py": 525}
"""What is longer all the same, and must not grow."""


def modules(*packages: str) -> list[Path]:
    """Give every Python file below packages, but those that are input of the demonstration's builds."""
    return [
        path
        for package in sorted(packages)  # in one order, whatever they come from
        for path in sorted((ROOT / package).rglob("*.py"))
        if "ceph_shaped_tree" not in path.parts
    ]


def imports(text: str) -> set[str]:
    """Give every module that a source text imports, also inside functions and for annotations only."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            found |= {
                node.module if node.module not in OURS else f"{node.module}.{alias.name}"
                for alias in node.names
            }
    return found


def is_of(module: str, package: str) -> bool:
    """Whether a module is a package or inside it."""
    return module == package or module.startswith(package + ".")


def strangers(path: Path, *allowed: str) -> set[str]:
    """Give what a file imports of ours beyond what is allowed to it."""
    return {
        module
        for module in imports(path.read_text())
        if module.split(".")[0] in OURS and not any(is_of(module, package) for package in allowed)
    }


def test_the_reader_of_imports_sees_all_kinds() -> None:
    """An import is seen wherever it stands and however it is spelled."""
    text = "import master\nfrom master import settings\nfrom steps.build import X\nif 1:\n    import os.path\ndef f():\n    from workers import roots as r\n"
    assert imports(text) == {"master", "master.settings", "steps.build", "os.path", "workers.roots"}


def test_there_is_something_to_look_at() -> None:
    """Every package that these rules are about has modules where they are looked for."""
    for package in ("master", "model", "steps", "workers"):
        assert len(modules(package)) >= 5, package


def name_of(path: Path) -> str:
    """Return the dotted name of a file's module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def folder_of(module: str) -> str:
    """Return what a module stands for among folders: its folder, or itself if it lies at the top of a package."""
    parts = module.split(".")
    return ".".join(parts[:2])


def circles(edges: dict[str, set[str]]) -> set[str]:
    """Return all that import themselves, by whatever way."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            new = edges.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    return {one for one in edges if one in reached(one)}


def test_circles_are_seen() -> None:
    """A circle is seen through others in it, and what only leads into one is in none."""
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}
    assert circles(edges) == {"b", "c", "d"}


def test_no_import_runs_back() -> None:
    """Neither modules nor folders import each other in a circle, annotations included."""
    known = {name_of(path): path for path in modules(*PRODUCT)}
    between: dict[str, set[str]] = {}
    folders: dict[str, set[str]] = {}
    for module, path in known.items():
        for imported in imports(path.read_text()):
            # `from a.b import C` is written a.b.C, whether C is a module or in one.
            target = imported if imported in known else imported.rpartition(".")[0]
            if target in known and target != module:
                between.setdefault(module, set()).add(target)
                if folder_of(target) != folder_of(module):
                    folders.setdefault(folder_of(module), set()).add(folder_of(target))
    assert len(between) > 50
    assert circles(between) == set()
    assert circles(folders) == set()


FOLDERS = {
    "package_server": {"publishing", "shaman", "web"},
    "prepared_images": {"project_settings", "reloads", "requests", "settings", "users", "workers"},
    "publishing": {"settings"},
    "reloads": {"settings"},
    "requests": {"publishing", "web"},
    "shaman": {"publishing", "web"},
    "storage": {"database_url", "settings"},
    "web": {"buildbot_patches", "users"},
    "workers_port": set(),
}
"""Folders and modules of `master` that each of its folders may import, as docs/architecture.md says."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_the_master_imports_what_is_below_it(folder: str) -> None:
    """Each folder imports the few others that it needs, and nothing of the assembly above it."""
    allowed = [f"master.{name}" for name in (folder, *FOLDERS[folder])]
    for path in modules(f"master/{folder}"):
        assert strangers(path, "model", "steps", "workers", *allowed) == set(), path


def test_every_folder_of_the_master_has_a_rule() -> None:
    """A new folder is entered in FOLDERS and in docs/architecture.md."""
    there = {path.parent.name for path in (ROOT / "master").glob("*/__init__.py")}
    assert there == FOLDERS.keys()
    page = (ROOT / "docs/architecture.md").read_text()
    assert [name for name in there if f"`master/{name}/`" not in page] == []


def test_no_folder_is_too_full() -> None:
    """A folder holds a dozen modules or little more, so that their names tell them apart."""
    number: dict[str, int] = {}
    for path in modules(*OURS - {"tests"}):
        if path.name != "__init__.py":
            folder = str(path.parent.relative_to(ROOT))
            number[folder] = number.get(folder, 0) + 1
    assert {name: count for name, count in number.items() if count > FULLER.get(name, FULLEST)} == {}
    assert all(number[name] > FULLEST for name in FULLER), "one of these has become small: take it out"


@pytest.mark.parametrize("path", modules("model"), ids=lambda path: path.name)
def test_the_model_stands_on_the_standard_library(path: Path) -> None:
    """`model` imports the standard library and itself, so that anything may stand on it."""
    for module in imports(path.read_text()):
        assert is_of(module, "model") or module.split(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("path", modules("steps"), ids=lambda path: path.name)
def test_steps_know_the_model_only(path: Path) -> None:
    """Steps import, of our packages, only `model` and each other: neither the master's assembly nor workers."""
    assert strangers(path, "model", "steps") == set()


@pytest.mark.parametrize("path", modules("workers"), ids=lambda path: path.name)
def test_workers_know_the_model_only(path: Path) -> None:
    """Workers import, of our packages, only `model` and each other: neither the master's assembly nor steps."""
    assert strangers(path, "model", "workers") == set()


@pytest.mark.parametrize("path", modules("master"), ids=lambda path: path.name)
def test_the_master_needs_no_tests_and_no_demonstration(path: Path) -> None:
    """What runs in production imports neither the demonstration, nor the benchmark, nor tests, nor the bridge."""
    assert strangers(path, "master", "model", "steps", "workers") == set()


def test_the_bridge_shares_no_code() -> None:
    """teuthology_bridge imports nothing of ours but itself: it runs in teuthology's process, and knows only the wire."""
    for path in modules("teuthology_bridge"):
        assert strangers(path, "teuthology_bridge") == set(), path


@pytest.mark.parametrize("path", modules("steps/scripts"), ids=lambda path: path.name)
def test_what_runs_on_a_worker_needs_python_only(path: Path) -> None:
    """A script of the steps imports the standard library only, as it runs wherever packages are built."""
    assert all(module.split(".")[0] in sys.stdlib_module_names for module in imports(path.read_text()))


@pytest.mark.parametrize(
    "path", [*modules(*OURS), ROOT / "master.cfg"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_nobody_imports_the_bare_package(path: Path) -> None:
    """`import master` is written nowhere: what is meant is always a module of it."""
    assert not imports(path.read_text()) & {"master", "model", "steps", "workers"}


def test_master_cfg_is_a_table_of_contents() -> None:
    """master.cfg has at most 40 lines, decides nothing and repeats nothing."""
    text = (ROOT / "master.cfg").read_text()
    assert len(text.splitlines()) <= 40
    decides = (ast.If, ast.For, ast.While, ast.IfExp, ast.comprehension, ast.FunctionDef, ast.Lambda, ast.Try)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, decides)]


@pytest.mark.parametrize("path", modules(*OURS - {"tests"}), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    """Every module begins with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", modules("tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_its_rule(path: Path) -> None:
    """Every test has a docstring of its own, which states the rule that it holds."""
    silent = [
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "path",
    [*modules(*OURS - {"tests"}), *sorted(ROOT.glob("*/scripts/*.sh"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    """No module and no script has more lines than a reader bears."""
    assert len(path.read_text().splitlines()) <= LONGER.get(str(path.relative_to(ROOT)), LONGEST)


@pytest.mark.parametrize(
    "path", modules("master", "model", "steps", "workers"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_shell_and_no_net_for_every_error(path: Path) -> None:
    """No command goes through a shell's text, and nothing catches every exception there is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert not [word for word in node.keywords if word.arg == "shell"], node.lineno
            assert ast.unparse(node.func) not in ("os.system", "os.popen", "eval", "exec"), node.lineno
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, node.lineno
            assert (
                "Exception"
                not in ast.unparse(node.type).replace("(", " ").replace(",", " ").replace(")", " ").split()
            ), node.lineno


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in modules("master", "model", "steps", "workers")
        if "scripts" not in path.parts and path.name != "control.py"
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_sleeps_in_the_master(path: Path) -> None:
    """Nothing that runs in the master sleeps; the command that starts and stops it is another process."""
    assert "sleep" not in {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name)
    }
