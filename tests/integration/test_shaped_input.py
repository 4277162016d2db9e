"""The Ceph-shaped input is built as Ceph's pipeline builds Ceph: its options are obeyed, and its traits reach the packages."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo import ceph_shaped, servers
from model import build_commands
from model.targets import Target
from tests.integration.harness import DEB, ROOTS, RPM, Installation
from tests.package_repositories import SCRIPTS
from tests.patience import free_ports
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT = "-DALLOCATOR=tcmalloc -DWITH_SYSTEM_BOOST=OFF -DWITH_BOOST_VALGRIND=ON"
"""The cmake arguments of Ceph's flavor `default`."""

UNPACK = """
set -euo pipefail
cd "$HOME"
python3 -c "$UNPACK"
"""
BUILD = """
bash scripts/machine.sh scripts/needs
bash scripts/checkout.sh "$url" "$sha1" "$url"
(cd src && ./make-dist "$version")
"""
DEBS = 'bash scripts/packages-deb.sh "ceph-$version.tar.bz2" "$version" bookworm 2\n'
RPMS = """
bash scripts/packages-rpm.sh "ceph-$version.tar.bz2" "$rpm_version" ceph 2 --nodeps --with crimson
rpm2cpio out/rpmbuild/RPMS/x86_64/ceph-common-19*.rpm | cpio --extract --make-directories --quiet
usr/bin/ceph --version
"""


@dataclass
class Input:
    """The served input: its git URL, the environment of its builds, and its commits."""

    url: str
    downloads: str
    made: ceph_shaped.GeneratedRepository


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Input]:
    """Serve the input."""
    directory = tmp_path_factory.mktemp("input")
    git, http = free_ports(2)
    made = ceph_shaped.generate(directory)
    ceph_shaped.write_downloads(directory)
    try:
        servers.serve_repositories(directory, git)
        downloads = servers.serve_downloads(directory, http)
        yield Input(f"git://127.0.0.1:{git}/ceph.git", downloads, made)
    finally:
        servers.stop(directory)


def prepared(target: str) -> Path:
    """Return the prepared root of a target."""
    root = Root.of(Target.from_name(target), host_suite())
    roots = Roots(ROOTS, {})
    list(roots.prepare(root))
    return roots.path(root)


def run(target: str, scratch: Path, work: str, **environment: str) -> tuple[int, str]:
    """Run a shell script as a worker would in a throw-away overlay of a target's root; return its status and what it said.

    Its home is SCRATCH/upper/home/build, and has the scripts of the steps in `scripts`.
    """
    scratch.mkdir()
    scripts = {path.name: path.read_text() for path in SCRIPTS.iterdir() if path.is_file()}
    scripts["needs"] = build_commands.table(Target.from_name(target).distribution.pkg_type)
    unpack = (
        "import json, os, sys\nos.mkdir('scripts')\n"
        "for name, text in json.load(sys.stdin).items():\n    open('scripts/' + name, 'w').write(text)\n"
    )
    ran = subprocess.run(
        enter(prepared(target), scratch, "build", "bash", "-c", UNPACK + work),
        input=json.dumps(scripts), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/build",
            "USER": "build", "LANG": "C.UTF-8", "UNPACK": unpack, **environment,
        },
    )  # fmt: skip
    return ran.returncode, ran.stdout


def build(shaped: Input, target: str, scratch: Path, work: str, **environment: str) -> tuple[Path, str]:
    """Build main's packages with some environment; return the worker's home and the log."""
    described = f"19.2.0-3-g{shaped.made.head_sha1[:8]}"
    status, said = run(
        target, scratch, BUILD + work,
        url=shaped.url, sha1=shaped.made.head_sha1, version=described, rpm_version=described.replace("-g", ".g"),
        BUILDPACKAGES_DEMO_DOWNLOADS=shaped.downloads, **environment,
    )  # fmt: skip
    assert status == 0, said[-3000:]
    return scratch / "upper/home/build", said


def version_line(sha1: str, build_type: str) -> str:
    """Return what `ceph --version` of main prints."""
    return f"ceph version 19.2.0-3-g{sha1[:8]} ({sha1}) squid (dev - {build_type})\n"


def test_debs_obey_the_options_of_a_recipe(shaped: Input, tmp_path: Path) -> None:
    """cmake arguments, build profiles and DWZ=false reach the debs: names, dependencies, and what the program says of itself."""
    home, said = build(
        shaped, DEB, tmp_path / "debs", DEBS,
        CEPH_EXTRA_CMAKE_ARGS=f"{DEFAULT} -DCMAKE_BUILD_TYPE=Debug", DWZ="false", DEB_BUILD_PROFILES="pkg.ceph.crimson",
    )  # fmt: skip
    assert "-- type Debug, allocator tcmalloc, system Boost OFF, Boost for valgrind ON\n" in said
    assert "\nwithout dwz\n" in said
    debs = {path.name.partition("_")[0]: path for path in (home / "out/deb").glob("*.deb")}
    assert sorted(debs) == [
        "ceph", "ceph-common", "ceph-common-dbg", "ceph-osd", "ceph-osd-crimson", "ceph-osd-crimson-dbg", "ceph-osd-dbg",
        "python3-ceph-argparse",
    ]  # fmt: skip
    depends = output("dpkg-deb", "-f", debs["ceph-osd"], "Depends")
    assert f"ceph-osd-crimson (= 19.2.0-3-g{shaped.made.head_sha1[:8]}-1" in depends
    for name, has_symbols in (("ceph", False), ("ceph-osd-dbg", False), ("ceph-common-dbg", True)):
        listed = output("dpkg-deb", "-c", debs[name])
        assert (".debug\n" in listed) == has_symbols, listed
        assert "/usr/bin/" not in listed
    output("dpkg-deb", "-x", debs["ceph-common"], tmp_path / "x")
    assert output(tmp_path / "x/usr/bin/ceph", "--version") == version_line(shaped.made.head_sha1, "Debug")


def test_rpms_obey_the_options_of_a_recipe(shaped: Input, tmp_path: Path) -> None:
    """cmake arguments and --with reach the rpms; with dwz the main package, which has no files, has a debuginfo package."""
    home, said = build(
        shaped, RPM, tmp_path / "rpms", RPMS, CEPH_EXTRA_CMAKE_ARGS=f"{DEFAULT} -DCMAKE_BUILD_TYPE=Debug"
    )
    assert "-- type Debug, allocator tcmalloc, system Boost OFF, Boost for valgrind ON\n" in said
    paths = sorted((home / "out/rpmbuild/RPMS").glob("*/*.rpm"))
    rpms = {output("rpm", "-qp", "--nosignature", "--qf", "%{NAME}", path): path for path in paths}
    assert sorted(rpms) == [
        "ceph", "ceph-common", "ceph-common-debuginfo", "ceph-debuginfo", "ceph-debugsource", "ceph-osd",
        "ceph-osd-crimson", "ceph-osd-crimson-debuginfo", "ceph-osd-debuginfo", "python3-ceph-argparse",
    ]  # fmt: skip
    query = output(
        "rpm", "-qp", "--nosignature", "--qf", "%{EPOCH} %{PAYLOADCOMPRESSOR}", rpms["ceph-common"]
    )
    assert query == "2 xz"
    assert [
        path for path in files_of(rpms["ceph-debuginfo"]) if path.startswith("/usr/lib/debug/.dwz/ceph-19")
    ]
    assert files_of(rpms["ceph"]) == ["(contains no files)"]
    assert [
        path for path in files_of(rpms["ceph-common-debuginfo"]) if re.search(r"/ceph-19.*\.debug$", path)
    ]
    assert said.endswith(version_line(shaped.made.head_sha1, "Debug"))


def test_what_make_check_needs_is_not_installed(shaped: Input, tmp_path: Path) -> None:
    """On a commit whose install-deps.sh takes any FOR_MAKE_CHECK for yes, the step installs no dependency of `make check`."""
    work = """
bash scripts/checkout.sh "$url" "$sha1" "$url"
bash scripts/dependencies.sh deb
dpkg-query --show --showformat='${db:Status-Status} ${Package}\\n' | grep -w -e jq -e ceph-build-deps
"""
    status, said = run(DEB, tmp_path / "deps", work, url=shaped.url, sha1=shaped.made.old_tag_sha1)
    assert status == 0, said[-3000:]
    assert said.splitlines()[-1] == "installed ceph-build-deps"


def test_a_root_without_wget_is_named_before_anything_is_built(tmp_path: Path) -> None:
    """A build on a machine that lacks a command fails in the step `machine`, with the command and its package."""
    root = prepared(DEB)
    roots = tmp_path / "roots"
    lacking = roots / root.name
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    lacking.mkdir(parents=True)
    layers = f"lowerdir={root},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(lacking)], check=True)
    try:
        (lacking / "usr/bin/wget").unlink()
        here = Installation(tmp_path, targets=[DEB], workers={"local": {"roots": str(roots)}})
        try:
            here.serve_shaped()
            here.start()
            answer = here.ask(DEB, ref="main")
            assert here.wait(answer)["results"] == 2
            [built] = here.builds(answer)
            assert built["state_string"].endswith(
                "Debian GNU/Linux 12 (bookworm) lacks what builds call: wget."
                " Install wget on this machine, or in the image that it is made from"
            )
            assert "checkout" not in [
                name for name, step in here.steps(built).items() if step["results"] == 0
            ]
            here.until(lambda: not here.leftovers(), "the machine is gone")
        finally:
            here.stop()
    finally:
        subprocess.run(["umount", str(lacking)], check=True)


def output(*command: str | Path) -> str:
    """Run a program and return what it printed."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def files_of(rpm: Path) -> Sequence[str]:
    """Return the files of an rpm."""
    return output("rpm", "-qpl", "--nosignature", rpm).splitlines()
