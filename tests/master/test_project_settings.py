"""The settings `projects` and `flavors`: what an operator may write, and what it makes of targets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from master.builders import builders
from master.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
GIT = "git: {allowed: [https://github.com/]}\n"
ISCSI = """\
projects:
  ceph: {git_url: https://github.com/ceph/ceph.git, canonical_url: https://github.com/ceph/ceph.git}
  ceph-iscsi:
    git_url: https://github.com/ceph/ceph-iscsi.git
    canonical_url: https://github.com/ceph/ceph-iscsi.git
    tags: "*"
"""


def read(directory: Path, text: str) -> Settings:
    """Read a settings file of this text."""
    path = directory / "settings.yaml"
    path.write_text(GIT + text)
    return Settings.from_file(path)


def problems(directory: Path, text: str) -> list[str]:
    """Return what is said about a settings file, line by line, without the first."""
    with pytest.raises(SettingsError) as caught:
        read(directory, text)
    return [line.removeprefix("  ") for line in str(caught.value).split("\n")[1:]]


def test_ceph_is_the_project_unless_others_are_named(tmp_path: Path) -> None:
    """Without `projects` there is Ceph, with its own repository, tags and spec."""
    settings = read(tmp_path, "targets: [ceph-deb-bookworm-x86_64-default]\n")
    [(name, project)] = settings.projects.items()
    assert name == "ceph"
    assert project.git_url == project.canonical_url == "https://github.com/ceph/ceph.git"
    assert (project.tags, project.spec) == ("v*", "ceph")


def test_another_project_has_targets_of_its_own(tmp_path: Path) -> None:
    """A project that is named is built by its own name, repository and tags; its only flavor is `default`."""
    settings = read(tmp_path, ISCSI + "targets: ['ceph-iscsi-*', ceph-deb-bookworm-x86_64-debug]\n")
    names = [target.name for target in settings.selected_targets]
    assert names[0] == "ceph-deb-bookworm-x86_64-debug"
    assert len(names) == 19
    assert all(name.startswith("ceph-iscsi-") and name.endswith("-default") for name in names[1:])
    made = {one.name: one for one in builders(settings)}
    steps = {
        step.step_class.__name__: step for step in made["ceph-iscsi-rpm-centos9-x86_64-default"].factory.steps
    }
    assert steps["Checkout"].args == ("https://github.com/ceph/ceph-iscsi.git", "*")
    assert steps["BuildPackages"].kwargs["spec"] == ""
    assert steps["BuildPackages"].kwargs["recipe"].record("rpm") == {"environment": {}, "rpmbuild": []}


def test_an_operator_adds_a_flavor_without_code(tmp_path: Path) -> None:
    """A flavor of the settings is a target where it has a recipe, and its recipe is what the steps get."""
    flavors = (
        "flavors: {asan: {deb: {cmake: [-DWITH_ASAN=ON], dwz: false}, centos9: {rpmbuild: [--with=asan]}}}\n"
    )
    settings = read(tmp_path, flavors + "targets: ['ceph-*-x86_64-asan']\n")
    assert [target.name for target in settings.selected_targets] == [
        "ceph-deb-jammy-x86_64-asan",
        "ceph-deb-noble-x86_64-asan",
        "ceph-deb-resolute-x86_64-asan",
        "ceph-deb-bookworm-x86_64-asan",
        "ceph-deb-trixie-x86_64-asan",
        "ceph-rpm-centos9-x86_64-asan",
    ]
    made = {one.name: one for one in builders(settings)}
    for name, record in {
        "ceph-deb-noble-x86_64-asan": {
            "environment": {"CEPH_EXTRA_CMAKE_ARGS": "-DWITH_ASAN=ON", "DWZ": "false"}, "rpmbuild": [],
        },
        "ceph-rpm-centos9-x86_64-asan": {"environment": {}, "rpmbuild": ["--with=asan"]},
    }.items():  # fmt: skip
        for step in made[name].factory.steps:
            if step.step_class.__name__ in ("BuildDependencies", "SourceTarball", "BuildPackages"):
                assert step.kwargs["recipe"].record(name.split("-")[1]) == record
    assert problems(tmp_path, flavors + "targets: [ceph-rpm-rocky9-x86_64-asan]\n") == [
        (
            "targets: 'ceph-rpm-rocky9-x86_64-asan' matches no target: flavor 'asan' of ceph has no recipe for rocky9,"
            " only for deb, centos9 (it is ['ceph-rpm-rocky9-x86_64-asan'])"
        )
    ]


def test_the_page_says_what_was_never_run(tmp_path: Path) -> None:
    """A builder's description on the page names what of the target was never run, if anything."""
    text = "targets: [ceph-deb-bookworm-x86_64-default, ceph-rpm-centos9-x86_64-debug]\n"
    tested, untested = [one.description for one in builders(read(tmp_path, text))]
    assert tested == "Ceph packages for Debian 12 (bookworm), x86_64, flavor default"
    assert untested == (
        "Ceph packages for CentOS Stream 9, x86_64, flavor debug. Untested: never built on CentOS Stream 9 itself,"
        " only with Debian's rpmbuild and el9 macros"
    )


def test_the_command_prints_the_recipes_of_targets_that_are_on(tmp_path: Path) -> None:
    """`python -m master.settings` prints, as comments after the settings, what each target's builds are given."""
    text = "flavors: {asan: {rpm: {cmake: [-DA=1], rpmbuild: [--with=a, --define=b 1]}}}\n"
    read(tmp_path, text + "targets: [ceph-deb-bookworm-x86_64-debug, ceph-rpm-centos9-x86_64-asan]\n")
    printed = subprocess.run(
        [sys.executable, "-m", "master.settings", str(tmp_path / "settings.yaml")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.endswith("""
# ceph-deb-bookworm-x86_64-debug: what the steps dependencies, tarball and packages get
#   export CEPH_EXTRA_CMAKE_ARGS=-DCMAKE_BUILD_TYPE=Debug
#   export DWZ=false

# ceph-rpm-centos9-x86_64-asan: what the steps dependencies, tarball and packages get
#   export CEPH_EXTRA_CMAKE_ARGS=-DA=1
#   rpmbuild and rpmspec get: --with=a '--define=b 1'
""")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("projects: {Ceph: {git_url: https://x/y, canonical_url: https://x/y}}", "projects.Ceph.[key]: project 'Ceph' must be 1 to 16 lower-case letters and digits, with single dashes between, and not begin with image (it is 'Ceph')"),
        ("projects: {ceph: {git_url: 'ext::sh -c id', canonical_url: https://x/y}}", "projects.ceph.git_url: it 'ext::sh -c id' must begin with one of https://, http://, git:// (it is 'ext::sh -c id')"),
        ("projects: {ceph: {git_url: https://github.com/y}}", "projects.ceph.canonical_url: is missing"),
        ("projects: {ceph: {git_url: https://github.com/y, canonical_url: https://x/y, tags: 'v*.*'}}", "projects.ceph.tags: string should match pattern '^[A-Za-z0-9._]*\\*?[A-Za-z0-9._]*$' (it is 'v*.*')"),
        ("projects: {ceph: {git_url: https://github.com/y, canonical_url: https://x/y, spec: a/b}}", "projects.ceph.spec: string should match pattern '^([A-Za-z0-9][A-Za-z0-9._+-]*)?$' (it is 'a/b')"),
        ("projects: {}", "projects: dictionary should have at least 1 item after validation, not 0 (it is {})"),
        ("flavors: {Asan: {deb: {}}}", "flavors.Asan.[key]: flavor 'Asan' must be 1 to 12 lower-case letters and digits (it is 'Asan')"),
        ("flavors: {asan: {focal: {}}}", "flavors.asan.focal.[key]: must be one of deb, rpm, jammy, noble, resolute, bookworm, trixie, centos9, centos10, rocky9, rocky10 (it is 'focal')"),
        ("flavors: {asan: {deb: {cflags: x}}}", "flavors.asan.deb.cflags: unknown key"),
        ("flavors: {asan: {rpm: {rpmbuild: ['']}}}", "flavors.asan.rpm.rpmbuild.0: must not be empty (it is '')"),
        ("flavors: {asan: {deb: {cmake: ['-DA=1 -DB=2']}}}", "flavors.asan.deb.cmake.0: must be one word, not empty and without blanks (it is '-DA=1 -DB=2')"),
        ("flavors: {asan: {deb: {environment: {A-B: x}}}}", "flavors.asan.deb.environment.A-B.[key]: must be the name of an environment variable (it is 'A-B')"),
        ("flavors: {asan: {deb: {environment: {DWZ: 'true'}}}}", "flavors.asan.deb.environment.DWZ.[key]: is set by the keys cmake, profiles and dwz (it is 'DWZ')"),
        ("flavors: {asan: {deb: {environment: {A: '${HOME}'}}}}", "flavors.asan.deb.environment.A: must be one line of printable characters, without ${ (it is '${HOME}')"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_sentence(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake in a project or a flavor is refused with its key and a sentence."""
    assert said in problems(tmp_path, f"{text}\ntargets: [ceph-deb-bookworm-x86_64-default]\n")


def test_a_key_that_has_moved_says_where_to(tmp_path: Path) -> None:
    """A settings file of before is refused with the new names of its keys."""
    path = tmp_path / "settings.yaml"
    path.write_text(
        "git: {url: https://github.com/x, canonical_url: https://github.com/x, allowed: [https://github.com/]}\n"
        "targets: [ceph-deb-bookworm-x86_64-default]\n"
    )
    with pytest.raises(SettingsError) as caught:
        Settings.from_file(path)
    assert str(caught.value).split("\n")[1:] == [
        "  git.url: is now projects.ceph.git_url",
        "  git.canonical_url: is now projects.ceph.canonical_url",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "projects: {ceph: {git_url: https://github.com/y, canonical_url: https://x/y, flavors: {debug: {}}}}",
            "projects.ceph.flavors: Ceph's flavors are set by `flavors` at the top",
        ),
        (
            "workers: {local: {environment: {DWZ: 'true', http_proxy: x}}}",
            (
                "workers.local.environment: DWZ is part of the recipe of ceph-deb-bookworm-x86_64-default, which wins;"
                " set it in `flavors`"
            ),
        ),
        (
            (
                "workers: {openstack: {clouds: [{cloud: a, nova_flavor: b, images: {'*': c},"
                " environment: {CEPH_EXTRA_CMAKE_ARGS: x}}]}}"
            ),
            (
                "workers.openstack.clouds.0.environment: CEPH_EXTRA_CMAKE_ARGS is part of the recipe of"
                " ceph-deb-bookworm-x86_64-default, which wins; set it in `flavors`"
            ),
        ),
    ],
)
def test_nothing_is_set_in_two_places(tmp_path: Path, text: str, said: str) -> None:
    """Where one of two settings would do nothing, it is refused, and the sentence names the one that counts."""
    assert problems(tmp_path, f"{text}\ntargets: [ceph-deb-bookworm-x86_64-default]\n") == [said]


def test_flavors_are_cephs(tmp_path: Path) -> None:
    """Flavors at the top without a project ceph would do nothing."""
    text = (
        ISCSI.replace("  ceph: {", "  other: {") + "flavors: {asan: {deb: {}}}\ntargets: ['ceph-iscsi-*']\n"
    )
    assert problems(tmp_path, text) == [
        "flavors: these are of the project ceph, which `projects` does not name"
    ]


def test_the_names_of_packages_are_patterns(tmp_path: Path) -> None:
    """`packages` has names and shell patterns; anything else is refused where it is written."""
    good = ISCSI + "    packages: ['ceph-iscsi*', tcmu-runner]\ntargets: ['ceph-iscsi-*']\n"
    assert read(tmp_path, good).projects["ceph-iscsi"].packages == ("ceph-iscsi*", "tcmu-runner")
    assert read(tmp_path, good).projects["ceph"].packages == ()
    bad = ISCSI + "    packages: ['a b', '']\ntargets: ['ceph-iscsi-*']\n"
    sentence = "must be the name of a package, or a pattern of such names with * or ?"
    assert problems(tmp_path, bad) == [
        f"projects.ceph-iscsi.packages.0: {sentence} (it is 'a b')",
        f"projects.ceph-iscsi.packages.1: {sentence} (it is '')",
    ]
