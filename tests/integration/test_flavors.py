"""Flavors and projects, built by a real master: what a recipe gives changes what is compiled, and nothing is Ceph's alone."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests

from demo import install
from model.package_key import PackageKey
from tests.git_repositories import commit, git, new_repository
from tests.integration.harness import ROOTS, Installation
from tests.integration.other_projects import CEPH_DEPLOY, CEPH_ISCSI, TCMU_RUNNER
from workers.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEB, RPM = "ceph-deb-bookworm-x86_64-", "ceph-rpm-centos9-x86_64-"
ISCSI = "ceph-iscsi-rpm-centos9-x86_64-default"
TCMU, TCMU_BARE = "tcmu-runner-rpm-centos9-x86_64-default", "tcmu-runner-rpm-centos9-x86_64-bare"
DEPLOY = {"deb": "ceph-deploy-deb-bookworm-x86_64-default", "rpm": "ceph-deploy-rpm-centos9-x86_64-default"}
PROJECTS = {
    "ceph-iscsi": {"tags": "*"},
    "tcmu-runner": {
        "packages": ["tcmu-runner*", "libtcmu*"],
        "flavors": {"bare": {"rpm": {"rpmbuild": ["--without", "rbd"]}}},
    },
    "ceph-deploy": {},
}

CEPH = {
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.18)
project(ceph C)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
add_executable(ceph ceph.c)
target_compile_definitions(ceph PRIVATE BUILD_TYPE="${CMAKE_BUILD_TYPE}" ALLOCATOR="${ALLOCATOR}")
""",
    "ceph.c": """\
#include <stdio.h>
int main(void) { return printf("%s %s\\n", BUILD_TYPE, ALLOCATOR) < 0; }
""",
    "debian/changelog": """\
ceph (1.0-1) unstable; urgency=medium

  * Begins.

 -- A Contributor <contributor@example.org>  Thu, 22 Aug 2024 08:00:00 +0000
""",
    "debian/control": """\
Source: ceph
Section: misc
Priority: optional
Maintainer: A Contributor <contributor@example.org>
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: ceph
Architecture: any
Description: a program that says how it was built
 It was configured by cmake.
""",
    "debian/rules": """\
#!/usr/bin/make -f
clean:
build build-arch build-indep:
\tcmake $(CEPH_EXTRA_CMAKE_ARGS) -S . -B built
\tcmake --build built
binary-indep:
binary binary-arch: build
\tinstall -D -m 755 built/ceph debian/ceph/usr/bin/ceph
\tmkdir -p debian/ceph/DEBIAN
\tdpkg-gencontrol -pceph -Pdebian/ceph
\tdpkg-deb --root-owner-group --build debian/ceph ..
""",
    "debian/source/format": "3.0 (quilt)\n",
    "ceph.spec": """\
%bcond_with tcmalloc
%define debug_package %{nil}
Name: ceph
Version: 0
Release: 0
Summary: A program that says how it was built
License: LGPL-2.1-only
Source0: %{name}-%{version}.tar.gz
%description
It was configured by cmake.
%if %{with tcmalloc}
%package tcmalloc
Summary: Only with an option of rpmbuild
%description tcmalloc
Holds nothing.
%files tcmalloc
%endif
%prep
%setup -q
%build
cmake $CEPH_EXTRA_CMAKE_ARGS -S . -B built
cmake --build built
%install
install -D -m 755 built/ceph %{buildroot}/usr/bin/ceph
%files
/usr/bin/ceph
""",
}


class Built:
    """The builds of four projects, and where they are published."""

    def __init__(self, directory: Path) -> None:
        targets = [f"{DEB}default", f"{DEB}debug", f"{RPM}default", f"{RPM}debug", ISCSI, TCMU, TCMU_BARE]
        targets += DEPLOY.values()
        self.here = Installation(directory, targets=targets, projects=PROJECTS)
        self.ceph = self._repository("ceph", CEPH, "v1.0")
        self.iscsi = self._repository("ceph-iscsi", CEPH_ISCSI, "3.9")
        self.tcmu = self._repository("tcmu-runner", TCMU_RUNNER, "v1.5.4", "v1.6.0-rc1")
        self.deploy = self._repository("ceph-deploy", CEPH_DEPLOY, "v2.0.1")
        self.here.serve()
        self.answers: dict[str, Any] = {}

    def _repository(self, name: str, files: dict[str, str], *tags: str) -> str:
        repository = new_repository(self.here.input / f"{name}.git")
        commit(repository, "first", files)
        for tag in tags:
            git(repository, "tag", "-a", "-m", tag, tag)
        return commit(repository, "second", {"second": "2\n"})

    def build(self) -> None:
        """Request every target at once, and wait for all of them."""
        self.here.start()
        for target in self.here.settings.targets:
            self.answers[target] = self.here.ask(target, ref="main")
        for target, answer in self.answers.items():
            assert self.here.wait(answer)["results"] == 0, (target, self.here.said(answer))

    def manifest(self, target: str) -> dict[str, Any]:
        """Return what was published of a target."""
        answer = requests.get(f"{self.answers[target]['url']}manifest.json", timeout=60)
        answer.raise_for_status()
        found: dict[str, Any] = json.loads(answer.text)
        return found

    def said(self, target: str, directory: Path) -> str:
        """Return what the published program says, unpacked as its package manager does."""
        [path] = [
            file["path"]
            for file in self.manifest(target)["files"]
            if file["path"].split("/")[-1].startswith(("ceph_", "ceph-1"))
            and file["path"].endswith((".deb", "x86_64.rpm"))
        ]
        package = directory / path.split("/")[-1]
        package.write_bytes(requests.get(f"{self.answers[target]['url']}{path}", timeout=60).content)
        into = directory / target
        into.mkdir()
        if package.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", package, into], check=True)
        else:
            with package.open("rb") as stream:
                archive = subprocess.run(
                    ["rpm2archive", "-n", "-"], stdin=stream, check=True, capture_output=True
                ).stdout
            subprocess.run(["tar", "-x", "-C", into], input=archive, check=True)
        return subprocess.run([into / "usr/bin/ceph"], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Build both flavors of Ceph as debs and rpms, and its neighbours, with a real master."""
    made = Built(tmp_path_factory.mktemp("flavors"))
    try:
        made.build()
        yield made
    finally:
        made.here.stop()


@pytest.mark.parametrize("kind", [DEB, RPM], ids=["deb", "rpm"])
def test_debug_is_another_program_than_default(built: Built, kind: str, tmp_path: Path) -> None:
    """The program of flavor `debug` was compiled as Debug; that of `default` not, and with Ceph's options."""
    assert built.said(f"{kind}default", tmp_path) == "RelWithDebInfo tcmalloc\n"
    assert built.said(f"{kind}debug", tmp_path) == "Debug \n"


@pytest.mark.parametrize(
    ("target", "environment", "options"),
    [
        (f"{DEB}default", {"CEPH_EXTRA_CMAKE_ARGS": "-DALLOCATOR=tcmalloc -DWITH_SYSTEM_BOOST=OFF -DWITH_BOOST_VALGRIND=ON", "DWZ": "false"}, []),
        (f"{DEB}debug", {"CEPH_EXTRA_CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Debug", "DWZ": "false"}, []),
        (f"{RPM}default", {"CEPH_EXTRA_CMAKE_ARGS": "-DALLOCATOR=tcmalloc -DWITH_SYSTEM_BOOST=OFF -DWITH_BOOST_VALGRIND=ON"}, ["--with=tcmalloc", "--without=dwz"]),
        (f"{RPM}debug", {"CEPH_EXTRA_CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Debug"}, ["--without=dwz"]),
        (ISCSI, {}, []),
    ],
)  # fmt: skip
def test_the_manifest_says_what_was_given(
    built: Built, target: str, environment: dict[str, str], options: list[str]
) -> None:
    """manifest.json has the recipe that the packages were built by, and so has the build's page."""
    assert built.manifest(target)["recipe"] == {"environment": environment, "rpmbuild": options}
    [build] = built.here.builds(built.answers[target])
    shown = built.here.log(build, "packages", "recipe")
    for name in environment:
        assert f"export {name}=" in shown
    assert (f"rpmbuild and rpmspec get: {' '.join(options)}" in shown) == bool(options)
    assert ("nothing is given" in shown) == (not environment)


def test_options_of_rpmbuild_add_packages(built: Built) -> None:
    """A package that an option of the recipe adds is built, expected and published; without it, it is neither."""
    assert built.manifest(f"{RPM}default")["packages"] == ["ceph", "ceph-tcmalloc"]
    assert built.manifest(f"{RPM}debug")["packages"] == ["ceph"]


def test_another_project_is_published_by_its_name(built: Built) -> None:
    """A project with dashes, tags without v and a plain spec is built unchanged, and installs by its own release rpm."""
    url = f"{built.here.packages_url}{ISCSI}/"
    version = f"3.9-1.g{built.iscsi[:8]}"
    for path in (f"sha1/{built.iscsi}/version", "ref/main/version"):
        assert requests.get(url + path, timeout=60).text == f"{version}\n"
    names = [file["path"].split("/")[-1] for file in built.manifest(ISCSI)["files"]]
    assert "ceph-iscsi-release-1-0.el9.noarch.rpm" in names
    assert f"ceph-iscsi-{version}.el9.noarch.rpm" in names
    assert not [name for name in names if name.startswith("ceph-release")]
    said = install.with_dnf(
        PackageKey.from_string(f"{ISCSI}/{built.iscsi}"), built.here.packages_url, Roots(ROOTS, {}),
        ["ceph-iscsi"], "python3 @ROOT@/usr/bin/gwcli",
    )  # fmt: skip
    assert "an iSCSI gateway" in said


@pytest.mark.parametrize(("target", "handler"), [(TCMU, "ON"), (TCMU_BARE, "false")])
def test_tcmu_runner_is_built(built: Built, target: str, handler: str) -> None:
    """Every rpm of a spec in the root of the tree has the commit's version and release, and a program and its library install."""
    release = f"1.g{built.tcmu[:8]}.el9"
    manifest = built.manifest(target)
    assert manifest["packages"] == ["libtcmu", "libtcmu-devel", "tcmu-runner"]
    names = {file["path"].split("/")[-1] for file in manifest["files"]}
    assert names >= {
        f"{name}-1.5.4-{release}.x86_64.rpm" for name in ("tcmu-runner", "libtcmu", "libtcmu-devel")
    }
    said = install.with_dnf(
        PackageKey.from_string(f"{target}/{built.tcmu}"), built.here.packages_url, Roots(ROOTS, {}),
        ["tcmu-runner"], "LD_LIBRARY_PATH=@ROOT@/usr/lib64 @ROOT@/usr/bin/tcmu-runner",
    )  # fmt: skip
    assert f"rbd handler: {handler}" in said


@pytest.mark.parametrize("pkg_type", DEPLOY)
def test_ceph_deploy_is_built(built: Built, pkg_type: str) -> None:
    """One tree becomes debs and rpms, both with the commit's version, and the package installs."""
    key = PackageKey.from_string(f"{DEPLOY[pkg_type]}/{built.deploy}")
    manifest = built.manifest(DEPLOY[pkg_type])
    assert manifest["packages"] == ["ceph-deploy"]
    names = {file["path"].split("/")[-1] for file in manifest["files"]}
    roots = Roots(ROOTS, {})
    if pkg_type == "deb":
        version = f"2.0.1-1-g{built.deploy[:8]}-1bookworm"
        assert f"ceph-deploy_{version}_all.deb" in names
        said = install.with_apt(
            key, built.here.packages_url, roots, ["ceph-deploy"], "ceph-deploy", keep_sources=False
        )
    else:
        version = f"2.0.1-1.g{built.deploy[:8]}"
        assert f"ceph-deploy-{version}.el9.noarch.rpm" in names
        said = install.with_dnf(
            key, built.here.packages_url, roots, ["ceph-deploy"], "python3 @ROOT@/usr/bin/ceph-deploy"
        )
    assert manifest["version"] == version
    assert "deploys" in said


def test_a_flavor_that_a_project_does_not_have_is_refused(built: Built) -> None:
    """A flavor without a recipe for the project is no target: the request is refused with a sentence."""
    answer = built.here.force(builderNames=[ISCSI.replace("default", "debug")], ref="main")
    assert answer.status_code == 400
    assert "is not a target that is on; there are" in answer.text


def test_a_request_for_two_projects_needs_a_repository(built: Built) -> None:
    """Targets of two projects have no repository in common, and the sentence says what to do."""
    answer = built.here.force(builderNames=[f"{DEB}default", ISCSI], ref="main")
    assert answer.status_code == 400
    assert "name one, or ask for one project at a time, not for ceph, ceph-iscsi" in answer.text
