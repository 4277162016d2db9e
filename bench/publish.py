"""Publishing packages of Ceph's size: 4.4 GB of debs, and of rpms, from the last byte uploaded to published."""

# mypy: allow-untyped-calls

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.report import Report, Row, Table, at_most, seconds
from model import layout
from model.package_key import PackageKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = Path(__file__).resolve().parent.parent
_SHA1 = "0123456789abcdef0123456789abcdef01234567"
KEYS = {
    "debs": PackageKey.from_string(f"ceph-deb-bookworm-x86_64-default/{_SHA1}"),
    "rpms": PackageKey.from_string(f"ceph-rpm-centos9-x86_64-default/{_SHA1}"),
}
_MB = 1000**2
BAR = 60.0
LARGE, LARGE_BYTES = 30, 140 * _MB
SMALL, SMALL_BYTES = 76, 2_600_000
"""Sizes like Ceph's: 106 packages, of which the 30 with debug symbols have 4.2 of the 4.4 GB."""

_METHOD = """\
106 packages of 4.4 GB in all, 30 of which have 140 MB each as those with debug symbols do, of bytes that do not compress, stored
uncompressed. The real package server and publisher run in a process of their own; `steps/scripts/upload.py` sends the files over loopback.
The time is from the last byte received (the manifest goes last) to the directory being served: manifest, indexes, comparison,
signature, sync of every file to the disk, rename. The other side is the least that has to be done anywhere for such an index,
run right after on the published files: `apt-ftparchive packages` with its four digests, as the worker's step did before, or
`createrepo_c`. Memory is the largest resident set, of the master's process and of the largest of its children; a child begins as a copy of
the master, so less than the master's is not seen."""

_MEANING = """\
The tools read every byte once more, here mostly from the page cache; a master whose memory is smaller than an upload reads them
from the disk. One digest instead of four is what makes the debs faster than the worker's step was. The sync is the disk's affair."""


class Outcome(NamedTuple):
    """One upload that was published: times in seconds, memory in bytes."""

    bytes: int
    upload: float
    publish: float
    metadata: float
    by_hand: float
    master: int
    child: int


def run(directory: Path, runs: int = 1) -> Report:
    """Measure, the median of so many runs by the time to publish."""
    found = {}
    for kind, key in KEYS.items():
        source = directory / kind
        names = _debs(source, key) if kind == "debs" else _rpms(source, key)
        outcomes = [_publish(directory / f"{kind}-{number}", source, key, names) for number in range(runs)]
        found[kind] = sorted(outcomes, key=lambda one: one.publish)[runs // 2]
        shutil.rmtree(source)
    return report(found)


def report(found: Mapping[str, Outcome]) -> Report:
    """Return the report of what was measured."""
    return Report(
        "Publishing 4.4 GB", _METHOD, _MEANING,
        [Row(f"{kind}: last byte to published", seconds(one.publish), seconds(one.by_hand), f"{one.publish / one.by_hand:.2f}",
             *at_most(BAR, one.publish, f"{BAR:.0f} s")) for kind, one in found.items()],
        [Table("In it, and beside it", ["what", *found], [
            ["bytes", *(f"{one.bytes / 1000 / _MB:.2f} GB" for one in found.values())],
            ["the upload", *(seconds(one.upload) for one in found.values())],
            ["making and comparing the indexes", *(seconds(one.metadata) for one in found.values())],
            ["the rest: signature, sync, rename", *(seconds(one.publish - one.metadata) for one in found.values())],
            ["memory of the master", *(f"{one.master / 1024**2:.0f} MiB" for one in found.values())],
            ["memory of the largest child", *(f"{one.child / 1024**2:.0f} MiB" for one in found.values())],
        ])],
    )  # fmt: skip


def _sizes() -> dict[str, int]:
    names = {f"ceph-part{number}": SMALL_BYTES for number in range(SMALL)}
    return names | {f"ceph-part{number}-dbg": LARGE_BYTES for number in range(LARGE)}


def _debs(source: Path, key: PackageKey) -> list[str]:
    """Make the debs and their source package, below the places that they are uploaded to."""
    pool = source / layout.pool(key.target)
    pool.mkdir(parents=True)
    fields = "Maintainer: a <a@example.invalid>\n"
    for name, size in _sizes().items():
        root = source / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1-1\nSource: ceph\nArchitecture: amd64\n{fields}Description: x\n"
        )
        _fill(root / "data", size)
        subprocess.run(
            ["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, pool / f"{name}_1-1_amd64.deb"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        shutil.rmtree(root)
    (tarball := pool / "ceph_1-1.tar.gz").write_bytes(b"source")
    digest = hashlib.sha256(b"source").hexdigest()
    md5 = hashlib.md5(b"source").hexdigest()
    (pool / "ceph_1-1.dsc").write_text(
        f"Format: 1.0\nSource: ceph\nBinary: {', '.join(_sizes())}\nArchitecture: any\nVersion: 1-1\n{fields}"
        f"Checksums-Sha256:\n {digest} 6 {tarball.name}\nFiles:\n {md5} 6 {tarball.name}\n"
    )
    return list(_sizes())


def _rpms(source: Path, key: PackageKey) -> list[str]:
    """Make the rpms, below the places that they are uploaded to."""
    top = source / "rpmbuild"
    top.mkdir(parents=True)
    spec = (
        "Name: ceph\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nAutoReqProv: no\n%global debug_package %{nil}\n"
        "%global _build_id_links none\n%global __os_install_post %{nil}\n%description\nx\n"
    )
    for name, size in _sizes().items():
        _fill(top / name, size)
        spec += f"%package -n {name}\nSummary: x\n%description -n {name}\nx\n%files -n {name}\n/{name}\n"
    spec += f"%install\nmkdir -p %{{buildroot}}\ncp -l {top}/ceph-part* %{{buildroot}}/\n"
    (top / "ceph.spec").write_text(spec)
    subprocess.run(
        ["rpmbuild", "-ba", "-D", f"_topdir {top}", "-D", "_binary_payload w.ufdio", "--target", key.target.arch, top / "ceph.spec"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (top / "SRPMS").rename(source / "SRPMS")
    (top / "RPMS" / key.target.arch).rename(source / key.target.arch)
    shutil.rmtree(top)
    return list(_sizes())


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for begin in range(0, size, 16 * _MB):
            file.write(os.urandom(min(16 * _MB, size - begin)))


def _publish(directory: Path, source: Path, key: PackageKey, names: Sequence[str]) -> Outcome:
    """Upload and publish once, then have the tools do it by hand."""
    deb = key.target.pkg_type == "deb"
    directory.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.publish", "--serve", str(directory), str(key)],
        cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        opened = json.loads(server.stdout.readline())
        began = time.monotonic()
        subprocess.run(
            [sys.executable, _ROOT / "steps/scripts/upload.py", opened["url"], str(key), f"{source}=.",
             "--version", "1-1", "--packages", ",".join(names)],
            env={"UPLOAD_TOKEN": opened["token"], "PATH": os.environ["PATH"]}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        upload = time.monotonic() - began
        server.stdin.write("publish\n")
        server.stdin.flush()
        said = json.loads(server.stdout.readline())
    finally:
        server.communicate()
    if "error" in said:
        raise RuntimeError(said["error"])
    published = directory / "tree" / layout.sha1_path(key)
    began = time.monotonic()
    if deb:
        by_hand = ["apt-ftparchive", "packages", "pool"]
    else:
        by_hand = ["createrepo_c", "--quiet", "--no-database", "--outputdir", str(directory), key.target.arch]
    subprocess.run(by_hand, cwd=published, check=True, stdout=subprocess.DEVNULL)
    hand = time.monotonic() - began
    size = sum(file.stat().st_size for file in published.rglob("*") if file.is_file())
    shutil.rmtree(directory)
    return Outcome(size, upload, said["publish"], said["metadata"], hand, said["master"], said["child"])


def serve(directory: Path, key: PackageKey) -> None:
    """Run package server and publisher; publish what was uploaded, once standard input says so."""
    from buildbot.mq.simple import SimpleMQ
    from buildbot.util.service import MasterService
    from twisted.internet import reactor, stdio
    from twisted.internet.defer import ensureDeferred
    from twisted.protocols.basic import LineReceiver

    from master.package_server.service import PackageServer
    from master.publishing.publisher import PublishedTree, Publisher
    from master.publishing.repository_metadata import RepositoryMetadata
    from master.publishing.uploads import Upload, Uploads

    loop: Any = reactor
    uploads = Uploads(directory / "staging")
    tree = PublishedTree(directory / "tree", directory / "staging")
    server = PackageServer(port="tcp:0:interface=127.0.0.1", tree=str(tree.tree), uploads=uploads)
    publisher = Publisher(
        tree=tree,
        uploads=uploads,
        state=directory / "s",
        packages_url="http://127.0.0.1/",
        targets=[key.target],
        names={},
    )
    took: dict[str, float] = {}
    made = RepositoryMetadata.make

    async def timed(self: RepositoryMetadata, *arguments: Any) -> Any:
        began = time.monotonic()
        result = await made(self, *arguments)
        took["metadata"] = time.monotonic() - began
        return result

    setattr(RepositoryMetadata, "make", timed)  # noqa: B010 - mypy holds an assignment to the signature

    class Control(LineReceiver):
        delimiter = b"\n"
        upload: Upload

        def say(self, **answer: Any) -> None:
            self.sendLine(json.dumps(answer).encode())

        def lineReceived(self, _: bytes) -> None:
            ensureDeferred(self.publish())

        async def publish(self) -> None:
            began = time.monotonic()
            try:
                await publisher.publish(self.upload, {"version": "1-1"})
            except (ValueError, OSError) as error:
                self.say(error=str(error))
                return
            took["publish"] = time.monotonic() - began
            most = {
                name: resource.getrusage(who).ru_maxrss * 1024
                for name, who in (("master", resource.RUSAGE_SELF), ("child", resource.RUSAGE_CHILDREN))
            }
            self.say(**took, **most)

        def connectionLost(self, *_: Any) -> None:
            loop.callFromThread(loop.stop)

    async def begin() -> None:
        master: Any = MasterService()
        master.reactor = reactor
        master.mq = SimpleMQ()
        await master.mq.setServiceParent(master)
        await publisher.setServiceParent(master)
        await server.setServiceParent(master)
        await master.startService()
        loop.addSystemEventTrigger("before", "shutdown", master.stopService)
        control = Control()
        control.upload = await publisher.open_upload(key, 1)
        stdio.StandardIO(control)
        control.say(url=f"http://127.0.0.1:{server.port}/", token=control.upload.token)

    loop.callWhenRunning(lambda: ensureDeferred(begin()))
    loop.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.publish")
    parser.add_argument("--serve", nargs=2, metavar=("DIRECTORY", "KEY"), required=True)
    given = parser.parse_args().serve
    serve(Path(given[0]), PackageKey.from_string(given[1]))
