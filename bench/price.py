"""The price of the system: from the request to published, beside the same commands in a shell script."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import requests

from bench.masters import measured
from bench.moments import durations
from bench.report import Report, Row, Table, at_most, medians, seconds, spread
from model import layout
from model.package_key import PackageKey
from tests.integration.harness import DEB, ROOTS
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.moments import Moments
    from tests.integration.harness import Installation

RUNS = 5
BAR = 1.10

PHASES = {
    "start": ("before the steps", "worker_preparation", "look", "machine"),
    "checkout": ("checkout",),
    "version": ("version",),
    "dependencies": ("dependencies",),
    "tarball": ("tarball",),
    "packages": ("packages",),
    "repository": ("publish",),
    "upload": ("upload",),
    "between the steps": ("between the steps",),
}
"""The parts that are compared, with our steps in each; the script uses the same names.

The master makes the repository in the step `publish`, after the upload."""

SCRIPT = r"""
set -euo pipefail
git_url=$1 sha1=$2 codename=$3 jobs=$4
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBEMAIL=packages@localhost DEBFULLNAME=Me
at() { echo "AT $EPOCHREALTIME $1" >&3; }
cd "$HOME"
at checkout
git clone --quiet "$git_url" src
cd src
git checkout --quiet --detach "$sha1"
git submodule --quiet update --init --recursive
at version
version=$(git describe --abbrev=8 --match 'v*')
version=${version#v}
at 'dependencies'
./install-deps.sh
at 'tarball'
./make-dist "$version"
at packages
mkdir ../out
cd ../out
mv "../src/ceph-$version.tar.bz2" "ceph_$version.orig.tar.bz2"
tar -xf "ceph_$version.orig.tar.bz2"
cd "ceph-$version"
cp -a ../../src/debian .
dch -D "$codename" --force-distribution -b -v "$version-1" 'By hand.'
dpkg-buildpackage -j"$jobs" -uc -us
echo "$version" >"$HOME/version"
"""
"""The commands that a person with a prepared root would type: no checks, no signature."""

REPOSITORY = r"""
set -euo pipefail
version=$1 codename=$2 arch=$3
cd out
pool=pool/main/c/ceph binary=dists/$codename/main/binary-$arch
mkdir -p "../repo/$pool" "../repo/$binary" "../repo/dists/$codename/main/source"
mv ./*.deb ./*.dsc "ceph_$version-1.tar.gz" "../repo/$pool/"
cd ../repo
apt-ftparchive --arch "$arch" packages pool >"$binary/Packages"
apt-ftparchive sources pool >"dists/$codename/main/source/Sources"
gzip -9nk "$binary/Packages" "dists/$codename/main/source/Sources"
apt-ftparchive -o "APT::FTPArchive::Release::Codename=$codename" release "dists/$codename" >Release
mv Release "dists/$codename/"
echo "$version-1" >version
"""
"""The rest of it, outside the root, which has no apt-ftparchive: here the master makes the repository as well."""

_METHOD = """\
The Ceph-shaped input, one deb target. Ours: from just before the POST until `version` of the published directory is
there, looked for every 5 ms. By hand: one shell script with the same commands and as many jobs in the same sandbox of the same prepared root,
apt-ftparchive on the master's machine, and an rsync of the repository to a directory. By turns, each first every other time, on the same machine; what was published is removed
before each run, so each is built in full. The script verifies nothing, signs nothing, and shows nobody how far it is. In ours the master makes the repository, after
the upload, and signs and publishes it in the same step: the row `repository` has all of that. The CPU of ours is that of the
worker with all that it ran, and of the master."""

_MEANING = """\
`start` is what a machine of its own costs before the first command of the build runs: the queue, the root, a Python
with buildbot-worker in it, and our scripts on their way into it; the script's is the root alone. `between the steps`
is Buildbot writing down that one step ended and another began. Ours also does what the script does not: each deb is unpacked once to
see that it is whole, the tarball is listed, and what is published is verified, signed, and synced to the disk. The compiler is much the
larger part of both, and its noise much larger than these differences; CPU seconds say more than wall
seconds on a machine that does other work besides."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    ours: list[dict[str, float]] = []
    by_hand: list[dict[str, float]] = []
    with measured(directory / "ours", targets=[DEB], workers={"local": {"count": 1}}) as (here, moments):
        sha1 = here.serve_shaped().head_sha1
        here.start(patch=moments.patch)
        root = Root.of(PackageKey.from_string(f"{DEB}/{sha1}").target, host_suite())
        list(Roots(ROOTS, {}).prepare(root))
        for number in range(runs):
            scratch = directory / f"by-hand-{number}"
            path = Roots(ROOTS, {}).path(root)
            if number % 2 == 0:
                ours.append(_ours(here, moments, sha1))
                by_hand.append(_by_hand(path, scratch, here, sha1))
            else:
                by_hand.append(_by_hand(path, scratch, here, sha1))
                ours.append(_ours(here, moments, sha1))
    return report(ours, by_hand)


def report(ours: list[dict[str, float]], by_hand: list[dict[str, float]]) -> Report:
    """Give the report of the steps of some runs, `total` among them."""
    total, script = median(one["total"] for one in ours), median(one["total"] for one in by_hand)
    mine, theirs = medians(ours), medians(by_hand)
    rows = []
    for phase in PHASES:
        difference = mine.get(phase, 0.0) - theirs.get(phase, 0.0)
        rows.append([
            phase, seconds(mine.get(phase, 0.0)), seconds(theirs.get(phase, 0.0)),
            f"{'+' if difference >= 0 else '-'}{seconds(abs(difference))}",
            f"{'+' if difference >= 0 else '-'}{abs(difference) / script * 100:.1f} %",
        ])  # fmt: skip
    return Report(
        "The price: from the request to published",
        _METHOD,
        _MEANING,
        [
            Row("request to published", spread([one["total"] for one in ours]),
                spread([one["total"] for one in by_hand]), f"{total / script:.3f}",
                *at_most(BAR, total / script, f"{BAR:.2f}")),
            Row("CPU of it, all processes", spread([one["cpu"] for one in ours]),
                spread([one["cpu"] for one in by_hand]), f"{mine['cpu'] / theirs['cpu']:.3f}"),
            Row("CPU that everything else on the machine took meanwhile", spread([one["elsewhere"] for one in ours]),
                spread([one["elsewhere"] for one in by_hand])),
        ],
        [
            Table(f"By step (medians of {len(ours)}, so they need not add up exactly)",
                  ["step", "ours", "by hand", "difference", "of the script"], rows),
        ],
    )  # fmt: skip


def phases(found: Mapping[str, float]) -> dict[str, float]:
    """Give our steps' times by what they are compared with; LookupError for a step that nothing is."""
    unknown = set(found) - {step for steps in PHASES.values() for step in steps}
    if unknown:
        raise LookupError(f"PHASES does not say what is compared with {', '.join(sorted(unknown))}")
    return {phase: sum(found.get(step, 0.0) for step in steps) for phase, steps in PHASES.items()}


def marks(text: str, began: float, ended: float) -> dict[str, float]:
    """Give the times of the script's phases from its `AT` lines; what comes after `end` is the upload."""
    lines = [line.split(" ", 2)[1:] for line in text.splitlines() if line.startswith("AT ")]
    times = [(began, "start"), *((float(at), name) for at, name in lines), (ended, "")]
    found = {name: after - at for (at, name), (after, _) in pairwise(times)}
    found["upload"] = found.pop("end")
    return found


def _ours(here: Installation, moments: Moments, sha1: str) -> dict[str, float]:
    directory = here.packages / layout.sha1_path(PackageKey.from_string(f"{DEB}/{sha1}"))
    shutil.rmtree(directory, ignore_errors=True)
    _settle()
    before, machine = cpu(here.pid), cpu_of_machine()
    began = time.time()
    answer = here.ask(DEB, sha1=sha1)
    version = directory / layout.VERSION_FILE
    used = _until(here, version, answer)
    ended = time.time()
    used += cpu(here.pid) - before
    elsewhere = cpu_of_machine() - machine - used
    assert here.wait(answer)["results"] == 0
    here.until(lambda: not here.leftovers(), "the machine is gone")
    return {
        "total": ended - began,
        "cpu": used,
        "elsewhere": elsewhere,
        **phases(durations(moments.since(began), began, ended)),
    }


def _until(here: Installation, version: Path, answer: dict[str, Any]) -> float:
    """Wait for a file, looking every 5 ms, and give the worker's CPU seconds by then.

    They are looked at while the upload is there, since the worker is killed soon after it is published.
    RuntimeError if the build ends without the file.
    """
    scratch = here.settings.workers.local.scratch
    upload = here.settings.packages.staging / DEB
    used = 0.0
    looked = time.monotonic()
    while not version.exists():
        time.sleep(0.005)
        if upload.is_dir() and any(upload.iterdir()):
            used = max(used, cpu_of_scratch(scratch))
        if time.monotonic() - looked > 5:
            looked = time.monotonic()
            [number] = answer["buildrequest_ids"].values()
            url = f"{here.url}api/v2/buildrequests/{number}"
            [request] = requests.get(url, timeout=60).json()["buildrequests"]
            if request["complete"] and not version.exists():
                raise RuntimeError(f"the build failed: {here.builds(answer)[-1]['state_string']}")
    return max(used, cpu_of_scratch(scratch))


def _by_hand(root: Path, scratch: Path, here: Installation, sha1: str) -> dict[str, float]:
    target = PackageKey.from_string(f"{DEB}/{sha1}").target
    destination = scratch.with_suffix(".published")
    scratch.mkdir()
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2
    jobs = max(1, min(cores, memory // here.settings.build.memory_per_job))
    script = 'exec 3>"$HOME/marks"; exec bash -c "$@"'
    command = enter(root, scratch, "build", "bash", "-c", script, "bash", SCRIPT, "by-hand.sh",
                    here.git_url, sha1, target.dist, str(jobs))  # fmt: skip
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/home/build", "USER": "build", "LANG": "C.UTF-8", **here.downloads,
        **here.settings.recipes.of(target).variables(target.pkg_type),
    }  # fmt: skip
    _settle()
    before, machine = os.times(), cpu_of_machine()
    began = time.time()
    ran = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(f"the script failed:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    home = scratch / "upper/home/build"
    told = (home / "marks").read_text() + f"AT {time.time()} repository\n"
    described = (home / "version").read_text().strip()
    arguments = ["bash", "-c", REPOSITORY, "repository.sh", described, target.dist, target.deb_arch]
    subprocess.run(arguments, cwd=home, check=True, capture_output=True)
    told += f"AT {time.time()} end\n"
    subprocess.run(["rsync", "-a", f"{home}/repo/", f"{destination}/"], check=True)
    ended = time.time()
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    elsewhere = cpu_of_machine() - machine - used
    shutil.rmtree(scratch)
    shutil.rmtree(destination)
    return {"total": ended - began, "cpu": used, "elsewhere": elsewhere, **marks(told, began, ended)}


def cpu(pid: int, *, children: bool = False) -> float:
    """Give the CPU seconds of a process, with those of the children that it has waited for or without."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if children else 13])) / os.sysconf("SC_CLK_TCK")


def cpu_of_machine() -> float:
    """Give the seconds that all processors have been busy for, whoever kept them so; stolen ones count."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cpu_of_scratch(scratch: Path) -> float:
    """Give the CPU seconds of everything that runs, and ran, in a local provider's scratch directory."""
    mark = f"BUILDPACKAGES_SCRATCH={scratch}".encode()
    found = 0.0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if mark in Path("/proc", entry, "environ").read_bytes():
                    found += cpu(int(entry), children=True)
            except OSError:
                continue
    return found


def _settle() -> None:
    os.sync()
    time.sleep(0.5)
