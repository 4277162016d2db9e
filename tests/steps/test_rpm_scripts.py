"""The script that builds rpms: the real rpmbuild and rpmspec, and builds that lie."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.git_repositories import commit, new_repository
from tests.package_repositories import run_script
from tests.steps.test_scripts import sentence, tool, values

VERSION = "19.2.0-3-g73e2fc59"
RPM_VERSION = "19.2.0-3.g73e2fc59"
SPEC = """\
%define debug_package %{nil}
Name: ceph
Version: 19.2.0
Release: 3.g73e2fc59.el9
Summary: A package
License: LGPL-2.1-only
Source0: ceph-19.2.0-3-g73e2fc59.tar.gz
%description
A package.
%package common
Summary: Another package
%description common
Another package.
%prep
echo "jobs %{_smp_mflags}"
%install
mkdir -p %{buildroot}/usr/share/ceph
for number in $(seq 20000); do echo $((number * number)); done >%{buildroot}/usr/share/ceph/main
echo 2 >%{buildroot}/usr/share/ceph/common
%files
/usr/share/ceph/main
%files common
/usr/share/ceph/common
"""


def packages_rpm(
    directory: Path,
    spec: str = SPEC,
    *options: str,
    rpmbuild: str = "",
    rpm_version: str = RPM_VERSION,
    name: str = "ceph",
) -> subprocess.CompletedProcess[str]:
    """Run the script on what make-dist left, with an rpmbuild of this text if there is one."""
    src = new_repository(directory / "src")
    commit(src, "first", {"make-dist": "#!/bin/sh\n"})
    (src / "ceph.spec").write_text(spec)
    (src / f"ceph-{VERSION}.tar.gz").write_bytes(b"")
    path = tool(directory / "bin", "rpmbuild", rpmbuild) if rpmbuild else ""
    return run_script(
        directory, "packages-rpm", f"ceph-{VERSION}.tar.gz", rpm_version, name, "3", *options, path=path
    )


def made(directory: Path) -> list[str]:
    """Return the file names of the binary rpms that were built."""
    return sorted(path.name for path in (directory / "out/rpmbuild/RPMS").rglob("*.rpm"))


def test_rpms_are_built(tmp_path: Path) -> None:
    """The real rpmbuild makes the rpms that the spec names, and the source rpm, with as many jobs as asked for."""
    finished = packages_rpm(tmp_path)
    assert values(finished)["packages"] == "ceph,ceph-common"
    assert "jobs -j3" in finished.stdout
    assert [path.name for path in (tmp_path / "out/rpmbuild/SRPMS").iterdir()] == [
        "ceph-19.2.0-3.g73e2fc59.el9.src.rpm"
    ]


# Packages of debug information


@pytest.mark.parametrize("dwz", [True, False], ids=["dwz", "without-dwz"])
def test_debuginfo_packages_are_not_expected(dwz: bool, tmp_path: Path) -> None:
    """rpmspec names ceph-debuginfo whether or not rpmbuild makes it: it is published if it is there, and never missed."""
    find = "mkdir -p %{buildroot}/usr/lib/debug; touch %{buildroot}/usr/lib/debug/.dwz; echo /usr/lib/debug/.dwz >debugfiles.list"
    spec = SPEC.replace(
        "%define debug_package %{nil}\n",
        f"%bcond_without dwz\n%if %{{with dwz}}\n%global __debug_install_post {find}\n%else\n"
        "%global __debug_install_post : >debugfiles.list\n%define _debuginfo_subpackages 1\n%endif\n",
    ).replace("%description\n", "%debug_package\n%description\n", 1)
    options = [] if dwz else ["--without=dwz"]
    assert values(packages_rpm(tmp_path, spec, *options))["packages"] == "ceph,ceph-common"
    named = subprocess.run(
        ["rpmspec", "-q", "--builtrpms", "--qf", "%{NAME}\n", *options, tmp_path / "src/ceph.spec"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "ceph-debuginfo" in named.split()
    assert any(name.startswith("ceph-debuginfo-") for name in made(tmp_path)) is dwz


# Options


@pytest.mark.parametrize("option", ["--with=extra", "--define=_with_extra 1"])
def test_options_decide_what_is_expected(option: str, tmp_path: Path) -> None:
    """An option that adds a package to the build adds it to what the build must have made."""
    extra = (
        "%bcond_with extra\n%if %{with extra}\n%package extra\nSummary: x\n%description extra\nx\n"
        "%files extra\n%endif\n"
    )
    assert values(packages_rpm(tmp_path, SPEC + extra, option))["packages"] == "ceph,ceph-common,ceph-extra"
    other = tmp_path / "other"
    other.mkdir()
    assert values(packages_rpm(other, SPEC + extra))["packages"] == "ceph,ceph-common"


def test_options_of_the_build_alone_are_not_for_rpmspec(tmp_path: Path) -> None:
    """--nodeps and --nocheck, which rpmspec refuses, reach rpmbuild only."""
    spec = SPEC.replace("License:", "BuildRequires: never-there\nLicense:") + "%check\nexit 1\n"
    finished = packages_rpm(tmp_path, spec, "--nodeps", "--nocheck")
    assert values(finished)["packages"] == "ceph,ceph-common"


# The spec


def test_the_only_spec_is_taken(tmp_path: Path) -> None:
    """Without a name of a spec, the only one of the tree is built."""
    assert values(packages_rpm(tmp_path, name=""))["packages"] == "ceph,ceph-common"


@pytest.mark.parametrize(
    ("name", "specs", "said"),
    [
        ("ceph", ["other.spec"], "the commit has no ceph.spec, nor did make-dist make one, so it has no rpms"),
        ("", [], "the commit has no spec, nor did make-dist make one, so it has no rpms"),
        ("", ["a.spec", "b.spec"], "the commit has 2 specs (a.spec b.spec); the project's settings must name one"),
    ],
    ids=["another", "none", "two"],
)  # fmt: skip
def test_there_must_be_one_spec(name: str, specs: list[str], said: str, tmp_path: Path) -> None:
    """A spec that is not there, or that could be one of several, is a sentence with the names."""
    (tmp_path / "src").mkdir()
    for spec in specs:
        (tmp_path / "src" / spec).touch()
    assert sentence(run_script(tmp_path, "packages-rpm", "x.tar.gz", "1-0", name, "1")) == said


PLAIN_SPEC = """\
Name:           ceph-iscsi
Version:        3.2
Release:        1%{?dist}
Summary:        A package
License:        GPLv3+
Source0:        https://github.com/ceph/ceph-iscsi/archive/%{version}/%{name}-%{version}.tar.COMPRESSION
Source1:        helper.txt
BuildArch:      noarch
%description
A package.
%package cli
Version: 9
Summary: x
%description cli
x
%prep
%setup -q
%install
install -D README %{buildroot}/usr/share/ceph-iscsi/README
install -D %{SOURCE1} %{buildroot}/usr/share/ceph-iscsi/helper.txt
%files
/usr/share/ceph-iscsi
%files cli
"""


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
@pytest.mark.parametrize(
    ("described", "rpm_version"), [("3.9", "3.9-0"), ("3.9-2-g0123abcd", "3.9-2.g0123abcd")]
)
def test_a_spec_that_a_person_wrote_gets_the_version(
    described: str, rpm_version: str, compression: str, tmp_path: Path
) -> None:
    """Without make-dist, the spec's main package gets git's version, and its source is the commit under the name that the spec gives it."""
    files = {
        "ceph-iscsi.spec": PLAIN_SPEC.replace("COMPRESSION", compression),
        "README": "x\n",
        "helper.txt": "y\n",
    }
    commit(new_repository(tmp_path / "src"), "first", files)
    tarball = values(run_script(tmp_path, "tarball", "ceph-iscsi", described))["tarball"]
    finished = run_script(tmp_path, "packages-rpm", tarball, rpm_version, "", "1", "--define=dist .el9")
    assert values(finished)["packages"] == "ceph-iscsi,ceph-iscsi-cli"
    release = rpm_version.partition("-")[2]
    assert made(tmp_path) == [
        f"ceph-iscsi-{rpm_version}.el9.noarch.rpm",
        f"ceph-iscsi-cli-9-{release}.el9.noarch.rpm",
    ]


# Versions


def test_a_package_may_have_a_version_of_its_own(tmp_path: Path) -> None:
    """A release with a circumflex, an epoch and a subpackage with its own version are built."""
    spec = SPEC.replace("el9\n", "el9^dbg\nEpoch: 2\n").replace(
        "%package common\n", "%package common\nVersion: 3.1\n"
    )
    assert values(packages_rpm(tmp_path, spec))["packages"] == "ceph,ceph-common"
    assert made(tmp_path) == [
        "ceph-19.2.0-3.g73e2fc59.el9^dbg.x86_64.rpm",
        "ceph-common-3.1-3.g73e2fc59.el9^dbg.x86_64.rpm",
    ]


@pytest.mark.parametrize(
    ("spec", "rpm_version", "said"),
    [
        (SPEC, "19.2.0-4", "ceph.spec is of version 19.2.0-3.g73e2fc59.el9, which does not hold 19.2.0-4"),
        (SPEC.replace("%files\n/usr/share/ceph/main\n", "").replace("%package common\n", "%package common\nVersion: 3.1\n"), RPM_VERSION, f"no package of ceph.spec is of version {RPM_VERSION}: ceph-common 3.1-3.g73e2fc59.el9"),
        (SPEC.partition("%files")[0], RPM_VERSION, "ceph.spec builds no package"),
        (SPEC.replace("%description\n", "%nonsense\n", 1), RPM_VERSION, "rpmspec cannot read ceph.spec"),
    ],
    ids=["another", "main-not-built", "nothing", "unreadable"],
)  # fmt: skip
def test_a_spec_of_another_version_is_refused_before_the_build(
    spec: str, rpm_version: str, said: str, tmp_path: Path
) -> None:
    """Names and versions that would be refused after the build are refused before rpmbuild runs."""
    finished = packages_rpm(tmp_path, spec, rpmbuild="echo compiled; exit 1", rpm_version=rpm_version)
    assert sentence(finished) == said
    assert "compiled" not in finished.stdout


# Builds that lie

REALLY = '/usr/bin/rpmbuild "$@"; cd out/rpmbuild/RPMS/*/ || exit 9; '


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 5", "rpmbuild ended with status 5"),
        (REALLY + "rm ceph-common-*", "the spec names ceph-common, but the build made no such rpm"),
        (REALLY + "rm ceph-19*", "the spec names ceph, but the build made no such rpm"),
        (REALLY + "truncate -s -100 ceph-19*", "an rpm is corrupt or truncated; the log names it"),
        (REALLY + "printf xxxx | dd of=$(echo ceph-19*) bs=1 seek=20000 conv=notrunc 2>/dev/null", "an rpm is corrupt or truncated; the log names it"),
        (REALLY + "mv ../../SRPMS/*.rpm ../../SRPMS/other-1-1.src.rpm", "the rpm ceph is of the source rpm ceph-19.2.0-3.g73e2fc59.el9.src.rpm, not of other-1-1.src.rpm"),
        ("mkdir -p out/rpmbuild/RPMS", "rpmbuild ended well, but made no rpm"),
        ('/usr/bin/rpmbuild "${@/-ba/-bb}"', "rpmbuild ended well, but made 0 source rpms instead of one"),
        ('/usr/bin/rpmbuild "${@/-ba/-bs}"', "rpmbuild ended well, but made no rpm"),
    ],
    ids=["fails", "one-missing", "main-missing", "truncated", "corrupt", "other-source", "nothing", "no-source", "only-source"],
)  # fmt: skip
def test_rpmbuild_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    """Whatever its status says, every package of the spec must be there, whole, and of the one source rpm."""
    assert sentence(packages_rpm(tmp_path, rpmbuild=text)) == said


def test_a_spec_that_fails_has_its_sentence(tmp_path: Path) -> None:
    """A spec that rpmbuild refuses fails with rpmbuild's status, and its error is in the output before."""
    finished = packages_rpm(tmp_path, SPEC.replace("%prep\n", "%prep\nexit 4\n"))
    assert sentence(finished) == "rpmbuild ended with status 1"
    assert re.search(r"^error: Bad exit status from .* \(%prep\)$", finished.stdout, re.MULTILINE)


# Bytes that repeat


def test_a_second_build_makes_the_same_bytes(tmp_path: Path) -> None:
    """Two builds of one commit, on two machines and at two times, make the same rpms and source rpm.

    The directory must have the same name, as it has on every worker: rpm keeps the spec's expanded text in the source
    rpm, with the paths of the build, and the source rpm's digest in every rpm.
    """
    rpms = []
    directory = tmp_path / "build"
    for name in ("first", "second"):
        directory.mkdir()
        values(packages_rpm(directory))
        top = directory / "out/rpmbuild"
        rpms.append({path.name: path.read_bytes() for path in top.rglob("*.rpm")})
        built = subprocess.run(
            ["rpm", "-qp", "--nosignature", "--qf", "%{BUILDTIME} %{BUILDHOST}\n", *top.rglob("*.rpm")],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        assert built == "1700000000 localhost\n" * 3
        directory.rename(tmp_path / name)
    assert len(rpms[0]) == 3
    assert rpms[0] == rpms[1]
