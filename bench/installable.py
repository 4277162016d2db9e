"""From the last byte uploaded to installable, with 100 MB of packages."""

from __future__ import annotations

import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING

import requests

from bench.masters import measured
from bench.moments import first
from bench.report import Report, Row, Table, at_most, seconds, spread
from model import layout
from model.package_key import PackageKey
from tests.integration import tiny
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.harness import Installation

RUNS = 5
BAR = 2.0
PACKAGES = ("tiny", "tiny-common", "tiny-libs", "tiny-tests")
BYTES = 25_000_000
"""Bytes in each package that no compression makes less."""

_METHOD = """\
A build whose four debs hold 100 MB that do not compress. From the moment the package server has received the last
file (the manifest, a few hundred bytes, which goes last) until `version` is served over HTTP, asked for every 5 ms; then
a real `apt-get update` with our key and our source only, and `apt-get install --download-only` of a package, whose
times are the client's. The other side is what was measured of chacra with production's delays: 83 s, of which about 1 s is work; it was
not run again here."""

_MEANING = """\
In between the master compares the manifest with the sizes and digests that it took while receiving, makes the indexes
from the files, compares them, signs, writes the metadata, syncs every file to the disk, and renames. Making the indexes
reads every byte once more (`python -m bench.publish` measures that with 4.4 GB). The sync grows with what was uploaded,
and how long it takes is the disk's affair."""


def run(directory: Path, runs: int = RUNS) -> Report:
    """Measure."""
    found: list[dict[str, float]] = []
    after = "; ".join(
        f"head -c {BYTES} /dev/urandom > debian/built/{name}/usr/share/{name}/data"
        f" && dpkg-deb -Znone --root-owner-group --build debian/built/{name} .."
        for name in PACKAGES
    )
    with measured(directory / "ours", targets=[DEB], workers={"local": {"count": 1}}) as (here, moments):
        repository = here.serve_tiny()
        here.start(patch=moments.patch)
        for number in range(runs):
            sha1 = repository.commit(tiny.Knobs(packages=PACKAGES, after=after))
            began = time.time()
            answer = here.ask(DEB, sha1=sha1)
            url = layout.url(
                here.packages_url, layout.sha1_path(PackageKey.from_string(answer["package_key"]))
            )
            served = _served(here, f"{url}/version", answer)
            updated, downloaded = _apt(directory / f"apt-{number}", here, url)
            seen = moments.since(began)
            last = max(one.at for one in seen if one.what == "received")
            assert here.wait(answer)["results"] == 0
            found.append({
                "upload": last - first(seen, "start", "upload"),
                "publish begins": first(seen, "start", "publish") - last,
                "served": served - last, "updated": updated - last, "downloaded": downloaded - last,
            })  # fmt: skip
    return report(found)


def report(found: list[dict[str, float]]) -> Report:
    """Give the report of what was measured."""

    def values(name: str) -> list[float]:
        return [one[name] for one in found]

    return Report(
        "From the last byte uploaded to installable",
        _METHOD,
        _MEANING,
        [
            Row("last byte to `version` served", spread(values("served")), "83 s (chacra, measured before)",
                f"{median(values('served')) / 83:.3f}",
                *at_most(BAR, median(values("served")), "2 s")),
            Row("last byte to `apt-get update` done", spread(values("updated")), "", "",
                *at_most(BAR, median(values("updated")), "2 s")),
        ],
        [
            Table(f"Since the last byte (medians of {len(found)})", ["moment", "after"], [
                [name, seconds(median(values(key))) ]
                for name, key in (
                    ("the step publish begins", "publish begins"), ("version is served", "served"),
                    ("apt-get update is done", "updated"), ("apt-get has downloaded a package", "downloaded"),
                )
            ] + [["for comparison: the upload itself took", seconds(median(values("upload")))]]),
        ],
    )  # fmt: skip


def _served(here: Installation, url: str, answer: dict[str, object]) -> float:
    session = requests.Session()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if session.get(url, timeout=30).status_code == 200:
            return time.time()
        time.sleep(0.005)
    raise RuntimeError(f"{url} is not served: {here.builds(answer)[-1]['state_string']}")


def _apt(directory: Path, here: Installation, url: str) -> tuple[float, float]:
    """Update and download with the machine's apt, in directories of its own."""
    for name in ("etc", "state/lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    key = directory / "key.asc"
    key.write_bytes(requests.get(layout.url(here.packages_url, layout.KEY_FILE), timeout=30).content)
    dist = PackageKey.from_string(f"{DEB}/{'0' * 40}").target.dist
    (directory / "sources.list").write_text(f"deb [signed-by={key}] {url} {dist} main\n")
    options = {
        "Dir::Etc::sourcelist": directory / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null", "Dir::State": directory / "state", "Dir::State::status": directory / "status",
        "Dir::Cache": directory / "cache", "APT::Sandbox::User": "root", "Acquire::http::Proxy": "DIRECT",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True, stdin=subprocess.DEVNULL)
    updated = time.time()
    subprocess.run(
        [*apt, "install", "--yes", "--download-only", PACKAGES[0]], check=True, stdin=subprocess.DEVNULL
    )
    return updated, time.time()
