"""The script that builds debs: the real dpkg in every source format, and builds that lie."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.git_repositories import commit, git, new_repository
from tests.package_repositories import DEB_NAMES, make_metadata, run_script, write_manifest
from tests.steps.test_scripts import sentence, tool, values

VERSION = "19.2.0-3-g73e2fc59"
DEB_VERSION = "19.2.0-3-g73e2fc59-1jammy"
DSC = f"ceph_{DEB_VERSION}.dsc"
CONTROL = """\
Source: ceph
Maintainer: Packages on demand <packages@localhost>
Section: misc
Priority: optional
Standards-Version: 4.6.2

""" + "\n".join(
    f"Package: {name}\nArchitecture: {'all' if name.startswith('python3') else 'any'}\nDescription: a package\n x\n"
    for name in DEB_NAMES
)
RULES = """\
#!/usr/bin/make -f
# No debhelper: the least that makes debs.
build clean binary-arch binary-indep:
binary:
\techo "jobs $(DEB_BUILD_OPTIONS)"
\tfor name in $$(dh_listpackages); do \\
\t  mkdir -p debian/$$name/DEBIAN debian/$$name/usr/share/$$name && \\
\t  echo x >debian/$$name/usr/share/$$name/file && \\
\t  dpkg-gencontrol -p$$name -Pdebian/$$name && \\
\t  dpkg-deb --root-owner-group -b debian/$$name .. || exit 1; \\
\tdone
"""
CHANGELOG = "ceph ({version}) unstable; urgency=low\n\n  * First.\n\n -- A <a@localhost>  Mon, 01 Jan 2018 00:00:00 +0000\n"
COMPRESSION = {"gz": "z", "bz2": "j", "xz": "J"}


def sources(
    directory: Path,
    source_format: str = "3.0 (quilt)",
    *,
    compression: str = "gz",
    control: str = CONTROL,
    rules: str = RULES,
    changed: str = "1.0-1",
    top: str = f"ceph-{VERSION}",
) -> str:
    """Commit sources with debian/ and put their tarball beside, as the steps before do; return the tarball's name.

    `source_format` may be empty: then there is no file debian/source/format.
    """
    files = {
        "debian/control": control,
        "debian/rules": rules,
        "debian/changelog": CHANGELOG.format(version=changed),
    }
    if source_format:
        files["debian/source/format"] = source_format + "\n"
    src = new_repository(directory / "src")
    commit(src, "first", files)
    (directory / top).mkdir()
    (directory / top / "README").write_text("x\n")
    tarball = f"{top}.tar.{compression}"
    subprocess.run(["tar", f"-c{COMPRESSION[compression]}f", src / tarball, "-C", directory, top], check=True)
    return tarball


def build(
    directory: Path, tarball: str, path: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script on sources."""
    return run_script(directory, "packages-deb", tarball, VERSION, "jammy", "3", path=path, **environment)


def listed(dsc: Path) -> set[str]:
    """Return the names that a .dsc lists with their SHA-256."""
    return set(re.findall(r"^ [0-9a-f]{64} \d+ (.*)$", dsc.read_text(), re.MULTILINE))


ORIG = f"ceph_{VERSION}.orig.tar"
NATIVE = [f"ceph_{DEB_VERSION}.tar.gz"]
DEBIAN = f"ceph_{DEB_VERSION}.debian.tar.xz"


@pytest.mark.parametrize(
    ("source_format", "compression", "archives"),
    [
        ("", "gz", [f"{ORIG}.gz", f"ceph_{DEB_VERSION}.diff.gz"]),
        ("", "bz2", NATIVE),
        ("1.0", "gz", [f"{ORIG}.gz", f"ceph_{DEB_VERSION}.diff.gz"]),
        ("1.0", "bz2", NATIVE),
        ("1.0", "xz", NATIVE),
        ("3.0 (quilt)", "gz", [f"{ORIG}.gz", DEBIAN]),
        ("3.0 (quilt)", "bz2", [f"{ORIG}.bz2", DEBIAN]),
        ("3.0 (quilt)", "xz", [f"{ORIG}.xz", DEBIAN]),
        ("3.0 (native)", "bz2", [f"{ORIG}.bz2", DEBIAN]),
    ],
)
def test_every_source_format_is_published_whole(
    source_format: str, compression: str, archives: list[str], tmp_path: Path
) -> None:
    """Whatever the source format and compression, out/deb holds the debs, the .dsc, what the .dsc lists, and nothing else."""
    told = values(build(tmp_path, sources(tmp_path, source_format, compression=compression)))
    assert told["packages"] == "ceph,ceph-common,python3-ceph-argparse"
    out = tmp_path / "out/deb"
    debs = [f"{name}_{DEB_VERSION}_amd64.deb" for name in ("ceph", "ceph-common")]
    debs.append(f"python3-ceph-argparse_{DEB_VERSION}_all.deb")
    assert {path.name for path in out.iterdir()} == {*debs, DSC, *archives}
    assert listed(out / DSC) == set(archives)
    subprocess.run(["dpkg-source", "--no-check", "-x", DSC, tmp_path / "unpacked"], cwd=out, check=True)
    assert (tmp_path / "unpacked/README").read_text() == "x\n"
    assert (tmp_path / "unpacked/debian/changelog").read_text().startswith(f"ceph ({DEB_VERSION}) jammy; ")


def test_debs_become_a_repository(tmp_path: Path) -> None:
    """The repository that the master makes holds debs of the version asked for, built by as many jobs as asked for, and their source package."""
    finished = build(tmp_path, sources(tmp_path, "", compression="bz2"))
    assert values(finished)["packages"] == "ceph,ceph-common,python3-ceph-argparse"
    assert "parallel=3" in finished.stdout
    repo = tmp_path / "upload"
    (repo / "pool/main/c").mkdir(parents=True)
    (tmp_path / "out/deb").rename(repo / "pool/main/c/ceph")
    write_manifest(repo, DEB_VERSION, DEB_NAMES)
    make_metadata(repo)
    packages = (repo / "dists/jammy/main/binary-amd64/Packages").read_text()
    assert sorted(re.findall(r"^Package: (.*)$", packages, re.MULTILINE)) == DEB_NAMES
    assert set(re.findall(r"^Version: (.*)$", packages, re.MULTILINE)) == {DEB_VERSION}
    table = (repo / "dists/jammy/main/source/Sources").read_text()
    named = set(re.findall(r"^ [0-9a-f]{64} \d+ (.*)$", table, re.MULTILINE))
    assert named == {DSC, f"ceph_{DEB_VERSION}.tar.gz"}
    assert named <= {path.name for path in (repo / "pool/main/c/ceph").iterdir()}


def test_a_tarball_of_a_component_is_published(tmp_path: Path) -> None:
    """A second upstream tarball is published because the .dsc lists it."""
    component = (
        "build binary-arch binary-indep:\nclean:\n\tmkdir -p extra && echo e >extra/file\n"
        f"\ttar -czf ../ceph_{VERSION}.orig-extra.tar.gz extra\n"
    )
    rules = RULES.replace("build clean binary-arch binary-indep:\n", component)
    values(build(tmp_path, sources(tmp_path, rules=rules)))
    name = f"ceph_{VERSION}.orig-extra.tar.gz"
    assert name in listed(tmp_path / "out/deb" / DSC)
    assert (tmp_path / "out/deb" / name).is_file()


def test_only_what_the_build_lists_is_published(tmp_path: Path) -> None:
    """A deb that lies beside the build's own and is not in its .changes is left behind."""
    rules = (
        RULES
        + f"\tcp ../ceph_{DEB_VERSION}_amd64.deb ../stray_{DEB_VERSION}_amd64.deb; touch ../notes.tar.xz\n"
    )
    values(build(tmp_path, sources(tmp_path, rules=rules)))
    assert not list((tmp_path / "out/deb").glob("stray*"))
    assert not list((tmp_path / "out/deb").glob("notes*"))


def test_debug_symbols_are_published_and_installer_packages_are_not(tmp_path: Path) -> None:
    """An automatic .ddeb is published and not expected; a .udeb is built, and neither published nor expected."""
    control = CONTROL + "\nPackage: ceph-udeb\nPackage-Type: udeb\nArchitecture: any\nDescription: x\n x\n"
    # As dh_strip and dh_builddeb register an automatic package on Ubuntu.
    ddeb = (
        "\tmkdir -p dbgsym/DEBIAN\n"
        "\tdpkg-gencontrol -pceph -Pdbgsym -UPre-Depends -DPackage=ceph-dbgsym -DAuto-Built-Package=debug-symbols"
        f" -nceph-dbgsym_{DEB_VERSION}_amd64.ddeb\n"
        f"\tdpkg-deb --root-owner-group -b dbgsym ../ceph-dbgsym_{DEB_VERSION}_amd64.ddeb\n"
    )
    rules = RULES.replace(
        "dpkg-deb --root-owner-group -b debian/$$name ..",
        f"if [ $$name = ceph-udeb ]; then dpkg-deb -b debian/$$name ../$${{name}}_{DEB_VERSION}_amd64.udeb;"
        " else dpkg-deb --root-owner-group -b debian/$$name ..; fi",
    )
    told = values(build(tmp_path, sources(tmp_path, control=control, rules=rules + ddeb)))
    assert told["packages"] == "ceph,ceph-common,python3-ceph-argparse"
    names = {path.name for path in (tmp_path / "out/deb").iterdir()}
    assert f"ceph-dbgsym_{DEB_VERSION}_amd64.ddeb" in names
    assert not any(name.endswith(".udeb") for name in names)


def test_the_changelog_of_the_very_version_is_no_obstacle(tmp_path: Path) -> None:
    """A tagged commit, whose changelog begins with the version that is built, is built and keeps its source tarball."""
    values(build(tmp_path, sources(tmp_path, changed=DEB_VERSION)))
    assert f"ceph_{VERSION}.orig.tar.gz" in listed(tmp_path / "out/deb" / DSC)


# Versions


@pytest.mark.parametrize("own", ["3:2.4.6-1", "2.4.6-1", "99.0.0-1~x"], ids=["epoch", "older", "newer"])
def test_a_package_may_have_a_version_of_its_own(own: str, tmp_path: Path) -> None:
    """A package may have its own version or an epoch, as long as another one has the version of the build."""
    rules = RULES.replace(
        "dpkg-gencontrol -p$$name",
        f"dpkg-gencontrol $$([ $$name != ceph-common ] || echo -v{own}) -p$$name",
    )
    told = values(build(tmp_path, sources(tmp_path, rules=rules)))
    assert told["packages"] == "ceph,ceph-common,python3-ceph-argparse"
    [deb] = (tmp_path / "out/deb").glob("ceph-common_*.deb")
    field = ["dpkg-deb", "-f", deb, "Version"]
    assert subprocess.run(field, check=True, capture_output=True, text=True).stdout == f"{own}\n"


def test_some_package_must_have_the_version_of_the_build(tmp_path: Path) -> None:
    """If no package has the version of the build, the sentence lists the versions that they have."""
    rules = RULES.replace("dpkg-gencontrol -p$$name", "dpkg-gencontrol -v2:1-1 -p$$name")
    assert sentence(build(tmp_path, sources(tmp_path, rules=rules))) == (
        f"no package is of version {DEB_VERSION}: ceph 2:1-1,ceph-common 2:1-1,python3-ceph-argparse 2:1-1"
    )


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("s/^Source: .*/Source: other/", f"other {DEB_VERSION}"),
        (f"s/^Source: .*/Source: ceph ({DEB_VERSION}0)/", f"ceph {DEB_VERSION}0"),
    ],
    ids=["name", "version"],
)
def test_every_deb_is_of_the_source_package_that_was_built(field: str, said: str, tmp_path: Path) -> None:
    """A deb of another source package, or of another version of it, is refused."""
    rules = RULES.replace(
        "dpkg-deb --root",
        f"{{ sed -i '{field}' debian/$$name/DEBIAN/control || exit 1; }} && dpkg-deb --root",
    )
    assert sentence(build(tmp_path, sources(tmp_path, rules=rules))) == (
        f"ceph-common_{DEB_VERSION}_amd64.deb is of the source package {said}, not of ceph {DEB_VERSION}"
    )


def test_a_release_is_not_older_than_cephs_own(tmp_path: Path) -> None:
    """A build of a release's commit is to dpkg what Ceph's own packages are, 20.2.0-1jammy: apt takes it for no older one."""
    tarball = sources(tmp_path, top="ceph-20.2.0")
    values(run_script(tmp_path, "packages-deb", tarball, "20.2.0", "jammy", "1"))
    [deb] = (tmp_path / "out/deb").glob("ceph-common_*.deb")
    field = subprocess.run(["dpkg-deb", "-f", deb, "Version"], check=True, capture_output=True, text=True)
    subprocess.run(["dpkg", "--compare-versions", field.stdout.strip(), "ge", "20.2.0-1jammy"], check=True)


# What is known before anything is compiled

COMPILED = "echo compiled; exit 1"


@pytest.mark.parametrize(
    "control",
    ["Source: ceph\n\nPackage: ceph\nArchitecture: s390x\nDescription: x\n", "Source: ceph\n", "nonsense\n"],
    ids=["architecture", "none", "nonsense"],
)
def test_a_control_without_packages_is_refused_before_the_build(control: str, tmp_path: Path) -> None:
    """A debian/control that names no package for this machine fails before dpkg-buildpackage runs."""
    path = tool(tmp_path / "bin", "dpkg-buildpackage", COMPILED)
    finished = build(tmp_path, sources(tmp_path, control=control), path)
    assert sentence(finished) == "debian/control names no package for amd64"
    assert "compiled" not in finished.stdout


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("control", "the commit has no debian/control, so it has no debs"),
        ("changelog", "the commit has no debian/changelog, which names the source package"),
    ],
)
def test_a_commit_without_debian_has_no_debs(missing: str, said: str, tmp_path: Path) -> None:
    """Without debian/control or debian/changelog the script fails with its own sentence."""
    tarball = sources(tmp_path)
    (tmp_path / "src/debian" / missing).unlink()
    assert sentence(build(tmp_path, tarball)) == said


def test_a_changelog_that_names_no_source_is_refused(tmp_path: Path) -> None:
    """A debian/changelog without an entry fails before the build."""
    tarball = sources(tmp_path)
    (tmp_path / "src/debian/changelog").write_text("")
    assert sentence(build(tmp_path, tarball)) == "debian/changelog does not name the source package"


# Builds that lie


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all that one real dpkg-buildpackage leaves beside its tree."""
    directory = tmp_path_factory.mktemp("built")
    values(build(directory, sources(directory)))
    left = directory / "out/build"
    for path in (directory / "out/deb").iterdir():
        path.rename(left / path.name)
    (left / f"ceph-{VERSION}").rename(directory / "tree")
    return left


def lying(directory: Path, text: str, built: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with a dpkg-buildpackage of this text; `REALLY` in it leaves what the real one did."""
    text = text.replace("REALLY", f"cd ..; cp {built}/* .")
    path = tool(directory / "bin", "dpkg-buildpackage", text)
    return build(directory, sources(directory), path)


CEPH_DEB = f"ceph_{DEB_VERSION}_amd64.deb"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 2", "dpkg-buildpackage ended with status 2"),
        ("exit 0", "dpkg-buildpackage ended well, but made 0 .changes files instead of one"),
        ("REALLY; cp *.changes second.changes", "dpkg-buildpackage ended well, but made 2 .changes files instead of one"),
        ("REALLY; rm *.dsc", "dpkg-buildpackage ended well, but made 0 .dsc files instead of one"),
        ("REALLY; rm *.debian.tar.xz", f"dpkg-buildpackage ended well, but ceph_{DEB_VERSION}.debian.tar.xz is not there"),
        (f"REALLY; rm {CEPH_DEB}", f"dpkg-buildpackage ended well, but {CEPH_DEB} is not there"),
        ("REALLY; sed -i /deb$/d *.changes", "dpkg-buildpackage ended well, but made no deb"),
        ("REALLY; sed -i /ceph-common_/d *.changes", "debian/control names ceph-common, but the build made no such deb"),
        ("REALLY; sed -i '/ ceph_.*deb$/d' *.changes; mv ceph_*.deb ceph-mon_1_amd64.deb", "debian/control names ceph, but the build made no such deb"),
        (f"REALLY; truncate -s -100 {CEPH_DEB}", f"{CEPH_DEB} is corrupt or truncated"),
        (f"REALLY; printf xxxx | dd of={CEPH_DEB} bs=1 seek=700 conv=notrunc 2>/dev/null", f"{CEPH_DEB} is corrupt or truncated"),
        (f"REALLY; : >{CEPH_DEB}", f"{CEPH_DEB} is corrupt or truncated"),
    ],
    ids=["fails", "nothing", "two-changes", "no-dsc", "source-missing", "deb-missing", "no-debs", "one-unlisted", "another-instead", "truncated", "corrupt", "empty"],
)  # fmt: skip
def test_dpkg_buildpackage_is_not_believed(text: str, said: str, built: Path, tmp_path: Path) -> None:
    """Whatever its status says, every package of debian/control must be there, listed and whole, and so must the source package."""
    assert sentence(lying(tmp_path, text, built)) == said


def test_the_real_build_passes_what_refuses_the_lies(built: Path, tmp_path: Path) -> None:
    """With everything left whole, the script succeeds: the tests above fail for the reason that they name."""
    assert values(lying(tmp_path, "REALLY", built))["packages"] == "ceph,ceph-common,python3-ceph-argparse"


# Bytes that repeat


def test_a_second_build_makes_the_same_bytes(tmp_path: Path) -> None:
    """Two builds of one commit, in two directories and at two times, make the same debs, .dsc and source archives."""
    made = []
    for name, jobs in (("first", "1"), ("a-second-place", "4")):
        directory = tmp_path / name
        directory.mkdir()
        sources(directory)
        tarball = values(run_script(directory, "tarball", "ceph", VERSION))["tarball"]
        subprocess.run(
            ["find", directory, "-exec", "touch", "-d", f"@{1_800_000_000 + int(jobs)}", "{}", "+"],
            check=True,
        )
        values(run_script(directory, "packages-deb", tarball, VERSION, "jammy", jobs))
        made.append({path.name: path.read_bytes() for path in (directory / "out/deb").iterdir()})
    assert len(made[0]) == 6
    assert made[0] == made[1]


def test_the_entry_of_the_changelog_has_the_commits_time(tmp_path: Path) -> None:
    """The changelog's new entry is of the commit's date, so that dpkg stamps the packages with that."""
    values(build(tmp_path, sources(tmp_path)))
    assert git(tmp_path / "src", "log", "-1", "--format=%ct") == "1700000000"
    changelog = (tmp_path / f"out/build/ceph-{VERSION}/debian/changelog").read_text()
    assert changelog == (
        f"ceph ({DEB_VERSION}) jammy; urgency=medium\n\n  * Built on demand.\n\n"
        " -- Packages on demand <packages@localhost>  Tue, 14 Nov 2023 22:13:20 +0000\n\n"
        "ceph (1.0-1) unstable; urgency=low\n\n  * First.\n\n -- A <a@localhost>  Mon, 01 Jan 2018 00:00:00 +0000\n"
    )
