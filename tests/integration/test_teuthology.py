"""The real teuthology: a job that asks for its packages, waits for them, and installs them on a node."""

from __future__ import annotations

import re
import signal
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from master.publishing.signing import SigningKey
from tests import ssh_target
from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation
from tests.integration.teuthology_lab import QA, Lab, lock_server, suite
from tests.patience import free_ports
from tests.reactor import finish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CEPH = replace(tiny.WHOLE, packages=("ceph", "ceph-common"))
SLOW = replace(CEPH, work="sleep 300")
BROKEN = replace(CEPH, work="echo \"foo.c:1:1: error: expected ';' before 'bar'\"; echo noise; exit 1")

V19_2_3 = "c92aebb279828e9c3c1f5d24613efca272649e62"
"""The commit of Ceph that the suite names by its sha1; the tiny repository's v19.2.3 stands in for it."""

SUITE = {
    "branch": {"squid"},
    "default": {"main"},
    "nested": {"v19.2.2"},
    "sha1": {"v19.2.3"},
    "tag": {"v19.2.2"},
    "upgrade": {"v19.2.2", "v19.2.3"},
    "upgrade-in-section": {"v19.2.2", "v19.2.3"},
    "wrong-ref": set(),
}
"""What each job of the suite needs."""


@dataclass(frozen=True)
class Here:
    """What all tests share: a running master, what its repository has, and a lock server."""

    made: Installation
    key: bytes
    lock_server: str
    refs: dict[str, str]

    @property
    def builds(self) -> int:
        """How many builds there have been."""
        return len(self.made.get("builds")["builds"])

    def commit(self, knobs: tiny.Knobs = CEPH, ref: str = "main") -> str:
        """Add a commit."""
        return self.made.repository.commit(knobs, ref=ref)

    def version(self, sha1: str) -> str:
        """Give the version that is published of a commit, or nothing."""
        answer = requests.get(f"{self.made.packages_url}{DEB}/sha1/{sha1}/version", timeout=60)
        return answer.text.strip() if answer.ok else ""

    def on_their_way(self, sha1: str) -> list[dict[str, Any]]:
        """Give what is told of a commit while it is on its way."""
        return [one for one in self.made.get("packages")["packages"] if one["package_key"] == f"{DEB}/{sha1}"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """Give a running master whose repository has a few of Ceph's refs; nothing is published."""
    with tiny_installation(tmp_path_factory.mktemp("master")) as made, lock_server() as server:
        refs = {"main": made.repository.commit(CEPH)}
        for tag in ("v19.2.2", "v19.2.3"):
            refs[tag] = made.repository.commit(CEPH, ref="squid")
            made.repository.tag(tag, refs[tag])
        refs["squid"] = made.repository.commit(CEPH, ref="squid")
        key = requests.get(f"{made.packages_url}key.asc", timeout=60).content
        yield Here(made, key, server, refs)


@pytest.fixture
def lab(here: Here, tmp_path: Path) -> Iterator[Lab]:
    """Give a lab with a fresh node that trusts the master's key, and nothing of which is left afterwards."""
    (tmp_path / "node").mkdir()
    with ssh_target.running(tmp_path / "node", here.key) as node:
        yield Lab(tmp_path, node, here.made, here.lock_server)
        assert not list((tmp_path / "home").iterdir())


def wants(sha1: str) -> dict[str, Any]:
    """Give what teuthology-suite adds to a job for a commit."""
    return {"sha1": sha1, "overrides": {"install": {"ceph": {"sha1": sha1}}}}


INSTALL: tuple[dict[str, Any], dict[str, Any]] = ({"install": None}, {"buildpackages": None})
"""The tasks of a job, in the order that teuthology's prep turns round."""


def test_nothing_of_a_node_is_left(here: Here, tmp_path: Path) -> None:
    """A node takes its keys, mounts and processes with it, and its address is free again."""
    (tmp_path / "node").mkdir()
    with ssh_target.running(tmp_path / "node") as node:
        assert ssh_target.left(tmp_path / "node")
        with pytest.raises(OSError, match="in use"):
            _listen(node.address)
    assert ssh_target.left(tmp_path / "node") == []
    assert not (tmp_path / "node").exists()
    _listen(node.address)


def _listen(address: str) -> None:
    with socket.socket() as one:
        one.bind((address, ssh_target.PORT))


def test_a_job_asks_waits_and_installs(here: Here, lab: Lab) -> None:
    """With nothing published, the job asks first, waits for the real build, and installs from the package server."""
    sha1, before = here.commit(), here.builds
    ended = lab.run(lab.job(*INSTALL, **wants(sha1)))
    assert ended.status == 0, ended.told
    assert ended.tasks[:3] == ["internal.check_packages", "internal.buildpackages_prep", "buildpackages"]
    assert ended.tasks[-1] == "install"
    assert here.builds == before + 1
    version = here.version(sha1)
    assert version.endswith(f"-g{sha1[:8]}-1bookworm")
    installed = [line for line in lab.node.packages() if line.startswith("installed ")]
    assert {f"installed ceph:all {version}", f"installed ceph-common:all {version}"} <= set(installed)
    [told] = ended.summary["buildpackages"]
    assert told["package_key"] == f"{DEB}/{sha1}"
    assert told["url"] == f"{here.made.packages_url}{DEB}/sha1/{sha1}/"
    assert told["how"] == "built"
    assert told["build_url"].startswith(f"{here.made.url}#/builders/")
    assert told["build_url"] in ended.log


def test_what_is_published_is_found(here: Here, lab: Lab) -> None:
    """A job whose packages are there asks for no build, and goes on at once."""
    sha1 = here.commit()
    here.made.wait(here.made.ask(DEB, sha1=sha1))
    before = here.builds
    ended = lab.run(lab.job(*INSTALL, **wants(sha1)))
    assert ended.status == 0, ended.told
    assert here.builds == before
    [told] = ended.summary["buildpackages"]
    assert told["how"] == "found"
    print(f"the task took {ended.seconds:.3f} s, and says {told['waited']} s")


def test_without_the_task_the_job_fails(here: Here, lab: Lab) -> None:
    """The same job without `buildpackages` finds no packages, though teuthology knows where they would be."""
    sha1, before = here.commit(), here.builds
    lab.site |= {
        "package_source": "gitbuilder", "use_shaman": False,
        "gitbuilder_host": here.made.packages_url.removeprefix("http://").rstrip("/"),
    }  # fmt: skip
    ended = lab.run(lab.job({"install": None}, **wants(sha1)))
    assert ended.status == 1
    assert f"{DEB}/sha1/{sha1}/version" in ended.summary["failure_reason"]
    assert here.builds == before


def test_without_the_bridge_the_job_fails(here: Here, lab: Lab) -> None:
    """The same job ends in the task that teuthology ships, which asks nobody."""
    sha1, before = here.commit(), here.builds
    ended = lab.run(lab.job(*INSTALL, **wants(sha1)), PYTHONPATH="")
    assert ended.status == 1
    assert "openstack" in ended.summary["failure_reason"]
    assert here.builds == before


def test_the_node_checks_the_signature(here: Here, tmp_path: Path) -> None:
    """A node that trusts another key, of the same name, installs nothing."""
    sha1 = here.commit()
    (tmp_path / "node").mkdir()

    async def another(reactor: Any) -> bytes:
        key = SigningKey(reactor, tmp_path / "key")
        await key.prepare()
        public = await key.public_key()
        await key.stop()
        return public

    with ssh_target.running(tmp_path / "node", finish(another)) as node:
        lab = Lab(tmp_path, node, here.made, here.lock_server)
        ended = lab.run(lab.job(*INSTALL, **wants(sha1)))
        assert not [line for line in node.packages() if line.startswith("installed ceph")]
    assert ended.status == 1
    assert "NO_PUBKEY" in ended.log
    assert here.version(sha1)
    assert not (tmp_path / "node").exists()


def test_a_supervisor_runs_the_job(here: Here, lab: Lab) -> None:
    """teuthology-supervisor hands the activation down to the job that it runs."""
    sha1 = here.commit()
    ended = lab.supervise(lab.job(*INSTALL, **wants(sha1))).end()
    assert ended.status == 0, ended.told
    [told] = ended.summary["buildpackages"]
    assert told["how"] == "built"
    assert f"installed ceph:all {here.version(sha1)}" in lab.node.packages()


def test_a_scheduled_job_waits_for_its_packages(here: Here, lab: Lab) -> None:
    """From teuthology-schedule by way of the queue and the dispatcher, whose environment alone names us."""
    sha1 = here.commit()
    ended = lab.schedule(lab.job(*INSTALL, **wants(sha1)))
    assert ended.summary["success"], ended.told
    [told] = ended.summary["buildpackages"]
    assert told["how"] == "built"
    assert f"installed ceph:all {here.version(sha1)}" in lab.node.packages()


def test_a_branch_that_moves_meanwhile_mixes_nothing(here: Here, lab: Lab) -> None:
    """A job gets the commit that its branch was at when it began, also if a later one is published before that."""
    later = f"{here.made.packages_url}{DEB}/ref/moving/version"
    look = f"python3 -c 'import urllib.request; urllib.request.urlopen(\"{later}\")'"
    sha1 = here.commit(replace(CEPH, work=f"until {look} 2>/dev/null; do sleep 0.2; done"), ref="moving")
    running = lab.start(lab.job({"install": {"branch": "moving"}}, INSTALL[1], **wants(here.refs["main"])))
    here.made.until(lambda: here.on_their_way(sha1), "the job has asked")
    here.commit(ref="moving")
    here.made.wait(here.made.ask(DEB, ref="moving"))
    assert requests.get(later, timeout=60).ok
    ended = running.end()
    assert ended.status == 0, ended.told
    assert f"installed ceph:all {here.version(sha1)}" in lab.node.packages()


def test_nothing_said_means_main(here: Here, lab: Lab) -> None:
    """Without any reference it is main, as install has it: the job's own sha1 is not for install."""
    sha1 = here.commit()
    ended = lab.run(lab.job(*INSTALL, sha1=here.refs["squid"]))
    assert ended.status == 0, ended.told
    assert [told["package_key"] for told in ended.summary["buildpackages"]] == [f"{DEB}/{sha1}"]
    assert f"installed ceph:all {here.version(sha1)}" in lab.node.packages()


def test_a_commit_that_does_not_build_fails_the_job(here: Here, lab: Lab) -> None:
    """`failure_reason` is one line: which packages, the cause, and where to look."""
    sha1 = here.commit(BROKEN)
    ended = lab.run(lab.job(*INSTALL, **wants(sha1)))
    assert ended.status == 1
    assert ended.summary["status"] == "fail"
    reason = ended.summary["failure_reason"]
    assert reason.startswith(f"{DEB}/{sha1}: ")
    assert "foo.c:1:1: error: expected ';' before 'bar'" in reason
    assert re.search(rf"{re.escape(here.made.url)}#/builders/\d+/builds/\d+$", reason)
    assert "\n" not in reason
    assert ended.tasks[-1] == "buildpackages"


def test_a_ref_that_is_nowhere_fails_the_job(here: Here, lab: Lab) -> None:
    """A job that names a wrong ref ends at once, and names it."""
    before = here.builds
    ended = lab.run(lab.job({"install": {"branch": "no-such-branch"}}, INSTALL[1]))
    assert (ended.status, ended.summary["status"]) == (1, "fail")
    assert "no-such-branch" in ended.summary["failure_reason"]
    assert here.builds == before


def test_a_master_that_is_away_makes_the_job_dead(here: Here, lab: Lab) -> None:
    """That nobody answers is not the commit's fault: the job is `dead`, and says who did not answer."""
    [port] = free_ports(1)
    lab.site["buildpackages"] |= {"url": f"http://127.0.0.1:{port}/", "unreachable_limit": 2}
    ended = lab.run(lab.job(*INSTALL, **wants(here.commit())))
    assert (ended.status, ended.summary["status"]) == (1, "dead")
    assert f"http://127.0.0.1:{port}/" in ended.summary["failure_reason"]


@pytest.mark.parametrize("somebody_else", [False, True], ids=["nobody else", "somebody else"])
def test_a_killed_job_withdraws(here: Here, lab: Lab, somebody_else: bool) -> None:
    """teuthology-kill while it waits ends the build if, and only if, nobody else waits for it."""
    sha1 = here.commit(SLOW)
    running = lab.start(lab.job(*INSTALL, **wants(sha1)))

    def building() -> Any:
        return [one for one in here.on_their_way(sha1) if one["state"] == "building"]

    [one] = here.made.until(building, "the job's build runs")
    if somebody_else:
        here.made.ask(DEB, sha1=sha1)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == -signal.SIGTERM
    number = one["buildrequest_id"]
    [left] = here.made.get(f"packages/{number}")["packages"]
    if somebody_else:
        assert left["state"] == "building"
        assert [waiter["job"] for waiter in left["waiting"]] == [""]
        body = {"jsonrpc": "2.0", "id": 1, "method": "withdraw", "params": {}}
        headers = {"Authorization": f"Bearer {here.made.token}"}
        requests.post(f"{here.made.url}api/v2/packages/{number}", json=body, headers=headers, timeout=60)
    assert here.made.wait({"buildrequest_ids": {"": number}})["results"] == 6


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, Any]]:
    """Give the jobs of the suite that this repository ships, for one of its distributions."""
    jobs = suite("buildpackages")
    return {
        found[1]: jobs[name]
        for name in jobs
        if (found := re.search(r"distros/ubuntu_\S+ tasks/([^ }]+)", name))
    }


def test_the_suite_has_no_other_jobs() -> None:
    """Every job of the suite is run here."""
    assert {path.stem for path in (QA / "suites/buildpackages/tasks").iterdir()} == set(SUITE)


@pytest.mark.parametrize("name", SUITE)
def test_a_job_of_the_suite(here: Here, lab: Lab, shipped: dict[str, dict[str, Any]], name: str) -> None:
    """Each job of the suite passes, merged as teuthology-suite does, with what that adds of its own."""
    job = _put(shipped[name], V19_2_3, here.refs["v19.2.3"])
    run = {"sha1": here.refs["main"], "flavor": "default"}
    install = job["overrides"].setdefault("install", {"ceph": {}})
    install["ceph"] = {**run, **install["ceph"]}
    # Its own distribution is none that the one node here has.
    changed = {"branch": "main", "sha1": run["sha1"], "os_type": "debian", "os_version": "12"}
    ended = lab.run(lab.job() | job | changed)
    assert ended.status == 0, ended.told
    keys = {told["package_key"] for told in ended.summary.get("buildpackages", [])}
    assert keys == {f"{DEB}/{here.refs[ref]}" for ref in SUITE[name]}


def _put(value: Any, old: str, new: str) -> Any:
    """Give a configuration with one text in another's place."""
    if isinstance(value, dict):
        return {key: _put(part, old, new) for key, part in value.items()}
    if isinstance(value, list):
        return [_put(part, old, new) for part in value]
    return new if value == old else value
