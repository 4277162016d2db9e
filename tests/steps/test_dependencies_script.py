"""The script that installs build dependencies: upstream's ways to ask for those of make check, and packages that are nowhere."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from model.recipes import Recipe
from model.targets import Target
from tests.git_repositories import commit, new_repository
from tests.integration.harness import DEB, ROOTS
from tests.package_repositories import SCRIPTS, run_script
from tests.steps.test_scripts import sentence, tool
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

OLD_FORM = """\
for_make_check=false
if tty -s; then
    for_make_check=true
elif [ $FOR_MAKE_CHECK ]; then
    for_make_check=true
fi
echo "for make check: $for_make_check"
"""
"""As install-deps.sh of reef and before has it: any value is yes."""
NEW_FORM = """\
for_make_check=false
if tty -s; then
    for_make_check=true
else
    case "$FOR_MAKE_CHECK" in
        true|1) for_make_check=true ;;
        false|0|'') for_make_check=false ;;
    esac
fi
echo "for make check: $for_make_check"
"""
"""As install-deps.sh of tentacle and later has it."""


def install(
    directory: Path, pkg_type: str, text: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script on a project with an install-deps.sh of this text."""
    (directory / "src").mkdir()
    tool(directory / "src", "install-deps.sh", text)
    return run_script(directory, "dependencies", pkg_type, **environment)


def install_process(directory: Path, text: str) -> subprocess.Popen[str]:
    """Begin the same in a process group of its own, as a worker does, so that all of it can be ended."""
    (directory / "src").mkdir()
    tool(directory / "src", "install-deps.sh", text)
    return subprocess.Popen(
        ["bash", str(SCRIPTS / "dependencies.sh"), "deb"], cwd=directory, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_projects_own_script_installs(tmp_path: Path) -> None:
    """A project's install-deps.sh is run in the sources, without questions, and its failure has a sentence."""
    finished = install(tmp_path, "deb", 'echo "$DEBIAN_FRONTEND $(basename "$PWD")"; read -r x; exit 0')
    assert "noninteractive src" in finished.stdout
    other = tmp_path / "other"
    other.mkdir()
    assert sentence(install(other, "rpm", "exit 7")) == "install-deps.sh ended with status 7"


@pytest.mark.parametrize("form", [OLD_FORM, NEW_FORM], ids=["old", "new"])
@pytest.mark.parametrize("value", [None, "", "0", "1", "false", "true"])
def test_what_make_check_needs_is_not_installed(form: str, value: str | None, tmp_path: Path) -> None:
    """No form of upstream's test finds that make check is meant, whatever the machine's environment says."""
    environment = {} if value is None else {"FOR_MAKE_CHECK": value}
    assert "for make check: false\n" in install(tmp_path, "deb", form, **environment).stdout


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (" ceph-build-deps : Depends: never-there but it is not installable\n                   Depends: libx-dev (>= 2.0) but 1.0-1 is to be installed\nE: Unable to correct problems, you have held broken packages.",
         "libx-dev (>= 2.0), never-there"),
        ("E: Unable to locate package never-there", "never-there"),
        ("E: Package 'never-there' has no installation candidate", "never-there"),
        ("No matching package to install: 'never-there-devel'\nNot all dependencies satisfied\nError: Some packages could not be found.", "never-there-devel"),
        ("No match for argument: never-there-devel\nError: Unable to find a match: never-there-devel", "never-there-devel"),
        ("Error: \n Problem: conflicting requests\n  - nothing provides libfmt.so.9()(64bit) needed by x-1-1.x86_64", "libfmt.so.9()(64bit)"),
    ],
    ids=["apt-unmet", "apt-unknown", "apt-virtual", "dnf-builddep", "dnf-install", "dnf-conflict"],
)  # fmt: skip
def test_a_failed_dependency_is_named(said: str, named: str, tmp_path: Path) -> None:
    """The sentence names packages that apt or dnf could not install, whichever script of the project failed."""
    text = f"echo 'dpkg-checkbuilddeps: error: Unmet build dependencies: a b'\ncat <<'END'\n{said}\nEND\nexit 100"
    assert sentence(install(tmp_path, "deb", text)) == f"install-deps.sh cannot install {named}"


# A plain debian/ directory, in a real root with the real apt

CONTROL = """\
Source: tiny
Maintainer: Tiny <tiny@example.invalid>
Build-Depends: debhelper, cmake {more}

Package: tiny
Architecture: all
Description: x
"""
APT_GET = '#!/bin/sh\n# Without a network: the root\'s own lists do.\n[ "$1" = update ] || exec /usr/bin/apt-get "$@"\n'


def in_a_root(directory: Path, more: str, profiles: str = "", install_deps: str = "") -> str:
    """Run the script as the user of a build machine, on a debian/control with these Build-Depends; return its output."""
    root, roots = Root.of(Target.from_name(DEB), host_suite()), Roots(ROOTS, {})
    list(roots.prepare(root))
    upper = directory / "upper"
    (upper / "usr/local/bin").mkdir(parents=True)
    (upper / "usr/local/bin/apt-get").write_text(APT_GET)
    (upper / "usr/local/bin/apt-get").chmod(0o755)
    build = upper / "home/build/job"
    (build / "scripts").mkdir(parents=True)
    for name in ("common.sh", "network.sh", "dependencies.sh"):
        (build / "scripts" / name).write_bytes((SCRIPTS / name).read_bytes())
    (build / "src/debian").mkdir(parents=True)
    (build / "src/debian/control").write_text(CONTROL.format(more=more))
    if install_deps:
        tool(build / "src", "install-deps.sh", install_deps)
    subprocess.run(["chmod", "-R", "a+rwX", build], check=True)
    command = f"cd /home/build/job && DEB_BUILD_PROFILES='{profiles}' HOME=/home/build bash scripts/dependencies.sh deb; echo status $?"
    finished = subprocess.run(
        enter(roots.path(root), directory, "build", "sh", "-c", command),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return finished.stdout + finished.stderr


def test_the_real_apt_names_what_is_missing(tmp_path: Path) -> None:
    """A build dependency that no repository has is named; the check before the installation is not the error."""
    said = in_a_root(tmp_path, ", never-there (>= 1), other-never")
    assert "FAILED: apt-get build-dep cannot install never-there (>= 1), other-never\n" in said, said
    assert "status 1\n" in said
    assert "error: Unmet" not in said


def test_what_the_projects_own_script_could_not_install_is_named(tmp_path: Path) -> None:
    """mk-build-deps, which Ceph's install-deps.sh calls, does not say what is missing; the sentence does."""
    text = "sudo mk-build-deps --install --remove --tool 'apt-get -y --no-install-recommends' debian/control || exit 1\n"
    said = in_a_root(tmp_path, ", never-there (>= 1)", install_deps=text)
    assert "mk-build-deps: Unable to install all build-dep packages\n" in said
    assert "FAILED: install-deps.sh cannot install never-there (>= 1)\n" in said, said


def test_build_profiles_decide_what_is_installed(tmp_path: Path) -> None:
    """Dependencies marked <pkg.ceph.check> are skipped unless DEB_BUILD_PROFILES names the profile, also through sudo."""
    more = ", never-there <pkg.ceph.check>"
    (tmp_path / "plain").mkdir()
    assert "status 0\n" in in_a_root(tmp_path / "plain", more)
    (tmp_path / "check").mkdir()
    said = in_a_root(tmp_path / "check", more, "pkg.ceph.check")
    assert "FAILED: apt-get build-dep cannot install never-there\n" in said, said


@pytest.mark.parametrize(
    ("pkg_type", "project", "command"),
    [("deb", "debian/control", "apt-get update"), ("rpm", "tiny.spec", "dnf builddep -y --spec ")],
)
def test_the_time_limit_is_below_sudo(pkg_type: str, project: str, command: str, tmp_path: Path) -> None:
    """Only root stops a process of root: a signal of the build's user would not reach it."""
    (tmp_path / "src" / project).parent.mkdir(parents=True)
    (tmp_path / "src" / project).touch()
    path = tool(tmp_path / "bin", "sudo", 'echo "as root: $*"')
    tool(tmp_path / "bin", "id", "echo 1000")
    tool(tmp_path / "bin", "dpkg-checkbuilddeps", "exit 1")
    finished = run_script(
        tmp_path, "dependencies", pkg_type, path=path, BUILDPACKAGES_STAND_IN="", DEB_BUILD_PROFILES=""
    )
    assert finished.returncode == 0, finished.stderr
    expected = f"as root: -n env DEBIAN_FRONTEND=noninteractive DEB_BUILD_PROFILES= timeout 1800 {command}"
    assert expected in finished.stdout


def test_a_commit_that_names_no_dependencies_is_refused(tmp_path: Path) -> None:
    """Without install-deps.sh, debian/control or a spec the script says which of them it looked for."""
    (tmp_path / "src").mkdir()
    environment = {"BUILDPACKAGES_STAND_IN": ""}
    finished = run_script(tmp_path, "dependencies", "deb", **environment)
    assert sentence(finished) == "the commit has neither install-deps.sh nor debian/control"
    finished = run_script(tmp_path, "dependencies", "rpm", **environment)
    assert sentence(finished) == "the commit has neither install-deps.sh nor a spec"


# A spec; there is no dnf on a machine that builds Ceph's debs, so one stands in that has rpm read the spec

DNF = """\
[ "$1 $2" = "builddep -y" ] || exit 2
shift 2
macros=()
while [ "$1" = --define ]; do macros+=("$1" "$2"); shift 2; done
[ "$1" = --spec ] || exit 2
rpmspec -q --buildrequires "${macros[@]}" "$2" || exit 1
! rpmspec -q --buildrequires "${macros[@]}" "$2" | grep -q never || { echo "No matching package to install: 'never-there-devel'"; exit 1; }
"""
SPEC = """\
#%define _RC
Name: tiny
Version: {version}
Release: 1
Summary: x
License: MIT
BuildRequires: {requires}
%description
x
%files
"""


@pytest.mark.parametrize(("name", "version"), [("tiny.spec", "1.0"), ("tiny.spec.in", "@TINY_VERSION@")])
@pytest.mark.parametrize(
    ("requires", "said"),
    [("gcc", ""), ("never-there-devel", "dnf builddep cannot install never-there-devel")],
)
def test_what_a_spec_requires_is_installed(
    name: str, version: str, requires: str, said: str, tmp_path: Path
) -> None:
    """Without install-deps.sh, dnf gets the spec or spec.in, with nothing in it that rpm cannot read."""
    commit(new_repository(tmp_path / "src"), "first", {name: SPEC.format(version=version, requires=requires)})
    path = tool(tmp_path / "bin", "dnf", DNF)
    tool(tmp_path / "bin", "sudo", 'shift; exec "$@"')
    finished = run_script(tmp_path, "dependencies", "rpm", path=path, BUILDPACKAGES_STAND_IN="")
    if said:
        assert sentence(finished) == said
    else:
        assert finished.returncode == 0, finished.stderr
        assert "gcc\n" in finished.stdout


CONDITIONAL = """\
%bcond_with fuse
%bcond_without dbus
{spec}
%if %{{with fuse}}
BuildRequires: fuse-devel
%endif
%if %{{with dbus}}
BuildRequires: dbus-devel
%endif
%if 0%{{?selinux:1}}
BuildRequires: checkpolicy >= %{{selinux}}
%endif
"""


def test_the_recipe_decides_what_a_spec_requires(tmp_path: Path) -> None:
    """BuildRequires that an option of the recipe turns on are installed, and those that it turns off are not."""
    head, description = SPEC.format(version="1", requires="gcc").split("%description")
    text = CONDITIONAL.format(spec=head) + f"%description{description}"
    commit(new_repository(tmp_path / "src"), "first", {"tiny.spec": text})
    path = tool(tmp_path / "bin", "dnf", DNF)
    tool(tmp_path / "bin", "sudo", 'shift; exec "$@"')

    def installed(*options: str) -> list[str]:
        macros = Recipe(rpmbuild=options).macros("rpm")
        finished = run_script(tmp_path, "dependencies", "rpm", *macros, path=path, BUILDPACKAGES_STAND_IN="")
        assert finished.returncode == 0, finished.stderr
        return sorted(finished.stdout.splitlines())

    assert installed() == ["dbus-devel", "gcc"]
    assert installed("--with=fuse", "--without", "dbus", "--define=selinux 2.5") == [
        "checkpolicy >= 2.5",
        "fuse-devel",
        "gcc",
    ]


def test_a_process_left_in_the_background_holds_nothing_up(tmp_path: Path) -> None:
    """The script ends with install-deps.sh, although a daemon that was started there has its output open and writes to it."""
    text = f"(while :; do echo alive; sleep 1; done) & echo $! >{tmp_path}/pid; echo 'E: Unable to locate package x'; exit 3"
    process = install_process(tmp_path, text)
    try:
        output, errors = process.communicate(timeout=60)
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert "E: Unable to locate package x\n" in output
    assert "FAILED: install-deps.sh cannot install x\n" in errors


def test_all_of_the_output_is_shown_in_its_order(tmp_path: Path) -> None:
    """What one command prints is shown once and whole, and before the output of the next one."""
    lines = [f"line {number} {'x' * 200}" for number in range(20_000)]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    (tmp_path / "src/debian").mkdir(parents=True)
    (tmp_path / "src/debian/control").touch()
    path = tool(
        tmp_path / "bin", "sudo", f'[[ " $* " == *" build-dep "* ]] && exec echo second; cat {tmp_path}/lines'
    )
    tool(tmp_path / "bin", "id", "echo 1000")
    tool(tmp_path / "bin", "dpkg-checkbuilddeps", "exit 1")
    finished = run_script(tmp_path, "dependencies", "deb", path=path)
    assert finished.stdout.splitlines() == [*lines, "second"]
