"""Runs jobs by teuthology itself, with machines that accept whatever they are told, and says what it asked for.

It runs in teuthology's virtual environment: jobs as JSON come in, answers as JSON go out. What is
replaced is what runs on machines or needs a lab; what is asked of the package server is teuthology's
own doing, over real HTTP.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# teuthology first, as in a job: it patches the process.
from teuthology import packaging, run_tasks
from teuthology.config import FakeNamespace
from teuthology.config import config as teuth_config
from teuthology.orchestra.cluster import Cluster
from teuthology.orchestra.opsys import OS
from teuthology.task import install

from teuthology_bridge import gitbuilder, wants

VERSION = "18.2.4-1-gabcdef0-1"
asked: list[str] = []


class Server(BaseHTTPRequestHandler):
    """Has every package."""

    def do_GET(self) -> None:
        asked.append(f"http://{self.headers['Host']}{self.path}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(VERSION.encode())

    def log_message(self, *_: object) -> None:
        pass


class Machine:
    """Does what it is told, and never fails."""

    is_reimageable = True
    host_key = None

    def __init__(self, name: str, os: OS, arch: str) -> None:
        self.name, self.os, self.arch = name, os, arch
        self.shortname = self.hostname = name
        self.system_type = os.package_type

    def run(self, stdout: object = None, **_: object) -> object:
        return types.SimpleNamespace(
            stdout=stdout or io.StringIO(), stderr=io.StringIO(), exitstatus=0, returncode=0
        )

    def sh(self, *_: object, **__: object) -> str:
        return ""

    write_file = sudo_write_file = put_file = sh


@contextlib.contextmanager
def nothing(**_: object):
    yield


packaging.get_package_version = lambda *_: VERSION
install.redhat.install = install.ship_utilities = nothing


def run(job: dict, os: OS) -> list[str]:
    """Give every URL that one run of the job asks for, in order."""
    job = copy.deepcopy(job)
    cluster = Cluster()
    for index, roles in enumerate(job.get("roles") or [None]):
        name = f"ubuntu@machine{index}"
        cluster.add(Machine(name, os, job.get("arch", "x86_64")), roles or name)
    asked.clear()
    context = FakeNamespace({"config": job, "summary": {}, "cluster": cluster, "archive": None})
    try:
        run_tasks.run_tasks(job["tasks"], context)
    except SystemExit:
        raise AssertionError(context.summary["failure_reason"]) from None
    return [url.removesuffix("/version") for url in asked]


def answer(row: dict, packages_url: str) -> dict:
    """Give what the bridge says of a job, what teuthology asks for, and that again with the job pinned."""
    job = row["job"]
    found = wants.wants(
        job,
        os_type=row.get("os_type"),
        os_version=row.get("os_version"),
        defaults=gitbuilder.default_versions(),
    )
    distro, version = (
        (found[0].os_type, found[0].os_version) if found else (job["os_type"], job["os_version"])
    )
    with contextlib.suppress(KeyError):
        version, _ = OS.version_codename(distro, version)
    machine = OS(name=distro, version=version)
    # Pinned like this, two branches that come to the same would not go unseen.
    pins = [want.sha1 or f"{index:040x}" for index, want in enumerate(found, 1)]
    pinned = []
    for order in (1, -1):
        changed = copy.deepcopy(job)
        for want, sha1 in list(zip(found, pins, strict=True))[::order]:
            wants.pin(changed, want, sha1)
        pinned.append(changed)
    return {
        "targets": [gitbuilder.target_of(want) for want in found],
        "urls": [gitbuilder.url_of(want, packages_url) for want in found],
        "asked": run(job, machine),
        "pins": [gitbuilder.url_of(want, packages_url, sha1) for want, sha1 in zip(found, pins, strict=True)],
        "pinned": pinned,
        "asked_when_pinned": [run(changed, machine) for changed in pinned],
        "wanted_when_pinned": [
            sorted(
                {
                    gitbuilder.url_of(want, packages_url)
                    for want in wants.wants(
                        changed,
                        os_type=row.get("os_type"),
                        os_version=row.get("os_version"),
                        defaults=gitbuilder.default_versions(),
                    )
                }
            )
            for changed in pinned
        ],
    }


def main() -> None:
    """Answer for every job of stdin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    packages_url = f"http://127.0.0.1:{server.server_port}/below/here/"
    # The site's own settings must not matter.
    teuth_config.gitbuilder_host = "gitbuilder.invalid"
    teuth_config.baseurl_template = "https://{host}/elsewhere/{uri}"
    answers = {}
    for row in json.load(sys.stdin):
        before = dict(teuth_config._conf)
        gitbuilder.point_teuthology_at(packages_url)
        answers[row["name"]] = answer(row, packages_url)
        teuth_config._conf = before
    json.dump(
        {"packages_url": packages_url, "rows": answers, "defaults": gitbuilder.default_versions()}, sys.stdout
    )


if __name__ == "__main__":
    main()
