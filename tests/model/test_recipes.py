"""Recipes: what each flavor gives, exactly, for debs and rpms; and how settings change it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.recipes import BUILT_IN, Recipe, Recipes
from model.targets import Target

ROOT = Path(__file__).parents[2]
BOOST = "'-DALLOCATOR=tcmalloc -DWITH_SYSTEM_BOOST=OFF -DWITH_BOOST_VALGRIND=ON'"
ROW: dict[str, Any] = {"cmake": [], "environment": {}, "profiles": [], "rpmbuild": [], "dwz": None}


def printed(target: str) -> subprocess.CompletedProcess[str]:
    """Run the command that shows a recipe."""
    return subprocess.run(
        [sys.executable, "-m", "model.targets", "--recipe", target], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("ceph-deb-bookworm-x86_64-default", [f"export CEPH_EXTRA_CMAKE_ARGS={BOOST}", "export DWZ=false"]),
        (
            "ceph-deb-jammy-x86_64-default",
            [f"export CEPH_EXTRA_CMAKE_ARGS={BOOST}", "export DWZ=false", "export NO_BOOST_PKGS=1"],
        ),
        (
            "ceph-rpm-centos9-x86_64-default",
            [
                f"export CEPH_EXTRA_CMAKE_ARGS={BOOST}",
                "# rpmbuild and rpmspec get: --with=tcmalloc --without=dwz",
            ],
        ),
        (
            "ceph-deb-noble-x86_64-debug",
            ["export CEPH_EXTRA_CMAKE_ARGS=-DCMAKE_BUILD_TYPE=Debug", "export DWZ=false"],
        ),
        (
            "ceph-rpm-rocky10-x86_64-debug",
            [
                "export CEPH_EXTRA_CMAKE_ARGS=-DCMAKE_BUILD_TYPE=Debug",
                "# rpmbuild and rpmspec get: --without=dwz",
            ],
        ),
        (
            "ceph-iscsi-rpm-centos9-x86_64-default",
            ["# nothing is given: the commit's own defaults"],
        ),
    ],
)
def test_a_recipe_is_printed_as_one_could_export_it(target: str, lines: list[str]) -> None:
    """The command prints the built-in recipe of a target: the field's variables, and rpmbuild's options."""
    finished = printed(target)
    head = f"# {target}: what the steps dependencies, tarball and packages get"
    assert (finished.stdout.splitlines(), finished.stderr) == ([head, *lines], "")
    sourced = subprocess.run(
        ["sh", "-euc", f'{finished.stdout}printf %s "${{CEPH_EXTRA_CMAKE_ARGS-}}"'],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    given = BUILT_IN.of(Target.from_name(target)).variables("deb")
    assert sourced == given.get("CEPH_EXTRA_CMAKE_ARGS", "")


def test_what_has_no_recipe_is_a_mistake_of_the_command() -> None:
    """For a flavor without a recipe the command ends with status 2 and the sentence."""
    finished = printed("ceph-iscsi-rpm-centos9-x86_64-debug")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "error: flavor 'debug' of ceph-iscsi has no recipe; there are default" in finished.stderr


def test_options_are_macros_as_rpm_itself_defines_them(tmp_path: Path) -> None:
    """In every form of rpmbuild's options, what they define is what the real rpm reads from the same options."""
    options = (
        "--with=a", "--with", "b", "--without=c", "--without", "d", "-D", "e 1 2", "-De2 3", "--define=f 4", "--define", "g %{nil}h",
        "--nocheck", "--target=x86_64",
    )  # fmt: skip
    recipe = Recipe(rpmbuild=options, dwz=False)
    assert recipe.macros("deb") == ()
    macros = recipe.macros("rpm")
    assert macros == (
        "_with_a --with-a", "_with_b --with-b", "_without_c --without-c", "_without_d --without-d", "e 1 2", "e2 3", "f 4",
        "g %{nil}h", "_without_dwz --without-dwz",
    )  # fmt: skip
    names = [macro.partition(" ")[0] for macro in macros]
    spec = tmp_path / "x.spec"
    shown = "".join(f"{name}=%{{{name}}};" for name in names)
    spec.write_text(f"Name: x\nVersion: 1\nRelease: 1\nLicense: x\nSummary: {shown}\n%description\n%files\n")

    def read_by_rpm(*words: str) -> str:
        command = ["rpmspec", "-q", "--srpm", "--qf", "%{SUMMARY}", *words, str(spec)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for_rpmspec = [word for word in recipe.options("rpm") if word != "--nocheck"]
    defined = [word for macro in macros for word in ("--define", macro)]
    assert read_by_rpm(*for_rpmspec) == read_by_rpm(*defined)
    assert "%{" not in read_by_rpm(*defined)


def test_every_key_is_given() -> None:
    """Each key of a recipe reaches the kind of packages that it is for, and no other."""
    recipe = Recipe(
        cmake=("-DA=1", "-DB=2"),
        environment={"X": "y z"},
        profiles=("p", "q"),
        rpmbuild=("--with=a",),
        dwz=True,
    )
    assert recipe.record("deb") == {
        "environment": {"CEPH_EXTRA_CMAKE_ARGS": "-DA=1 -DB=2", "DEB_BUILD_PROFILES": "p q", "DWZ": "true", "X": "y z"},
        "rpmbuild": [],
    }  # fmt: skip
    assert recipe.record("rpm") == {
        "environment": {"CEPH_EXTRA_CMAKE_ARGS": "-DA=1 -DB=2", "X": "y z"},
        "rpmbuild": ["--with=a", "--with=dwz"],
    }
    assert Recipe().record("deb") == Recipe().record("rpm") == {"environment": {}, "rpmbuild": []}


def test_settings_add_and_replace_flavors() -> None:
    """A flavor of the settings is what they say, whole; the others stay; another project has its own."""
    given = Recipes.from_settings(
        {"ceph": {"flavors": {}}, "ceph-iscsi": {"flavors": {"fast": {"rpm": {**ROW, "dwz": False}}}}},
        {"debug": {"noble": {**ROW, "cmake": ["-DX=1"]}}, "asan": {"deb": ROW}},
    )
    assert list(given.flavors("ceph")) == ["default", "debug", "asan"]
    assert given.of(Target("ceph", "noble", flavor="debug")) == Recipe(cmake=("-DX=1",))
    assert given.of(Target("ceph", "jammy")) == BUILT_IN.of(Target("ceph", "jammy"))
    assert list(given.flavors("ceph-iscsi")) == ["default", "fast"]
    for target, sentence in (
        (Target("ceph", "jammy", flavor="debug"), "flavor 'debug' of ceph has no recipe for jammy, only for noble"),
        (Target("ceph", "centos9", flavor="asan"), "flavor 'asan' of ceph has no recipe for centos9, only for deb"),
        (Target("ceph-iscsi", "centos9", flavor="asan"), "flavor 'asan' of ceph-iscsi has no recipe; there are default, fast"),
    ):  # fmt: skip
        assert not given.has(target)
        with pytest.raises(ValueError) as caught:
            given.of(target)
        assert str(caught.value) == sentence


def test_a_flavor_that_is_emptied_is_no_target() -> None:
    """An operator takes a built-in flavor away by leaving it empty."""
    given = Recipes.from_settings({"ceph": {}}, {"debug": {}})
    assert not given.has(Target("ceph", "jammy", flavor="debug"))
    with pytest.raises(ValueError, match="there are default$"):
        given.of(Target("ceph", "jammy", flavor="debug"))
