"""The smallest set of packages for the jobs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.teuthology_bridge.fake_master import MOVED, SHA1
from teuthology_bridge.errors import WrongJob, WrongSettings
from teuthology_bridge.jobs import Job
from teuthology_bridge.needs import smallest
from teuthology_bridge.wants import Want

JAMMY, FOCAL = "ceph-deb-jammy-x86_64-default", "ceph-deb-focal-x86_64-default"


class Names:
    """Names as teuthology gives them, for two versions of one distribution: tests/contract has the real ones."""

    def default_versions(self) -> Mapping[str, str]:
        return {"ubuntu": "22.04"}

    def target_of(self, want: Want) -> str:
        codenames = {"22.04": "jammy", "20.04": "focal"}
        if want.os_version not in codenames:
            raise WrongJob(f"os_version {want.os_version} of {want.os_type} is unknown to teuthology")
        return f"{want.project}-deb-{codenames[want.os_version]}-{want.arch}-{want.flavor}"

    def url_of(self, want: Want, sha1: str) -> str:
        return f"http://p/{self.target_of(want)}/{f'sha1/{sha1}' if sha1 else f'ref/{want.ref}'}"

    def git_url(self, config: Mapping[str, Any], project: str) -> str:
        return str(config.get("repo", "")) if project == "ceph" else f"https://git/{project}.git"


def job(name: str, *tasks: dict[str, Any], **more: Any) -> Job:
    return Job(
        name,
        {
            "os_type": "ubuntu",
            "os_version": "22.04",
            "repo": "https://git/a.git",
            **more,
            "tasks": list(tasks),
        },
    )


def test_each_commit_once_for_each_target() -> None:
    """Jobs that install the same have one need, in the order of the jobs, which knows them all."""
    needs, problems = smallest(
        [
            job("a", {"install": {"sha1": SHA1}}),
            job("b", {"install": {"sha1": SHA1}}, {"install.upgrade": {"all": {"sha1": MOVED}}}),
            job("c", {"install": {"sha1": SHA1}}, os_version="20.04"),
            # The same commit is in another repository as well.
            job("d", {"install": {"sha1": SHA1.upper()}}, repo="https://git/b.git"),
        ],
        Names(),
    )
    assert problems == []
    assert [(need.key, need.jobs) for need in needs] == [
        (f"{JAMMY}/{SHA1}", ["a", "b", "d"]),
        (f"{JAMMY}/{MOVED}", ["b"]),
        (f"{FOCAL}/{SHA1}", ["c"]),
    ]
    assert needs[0].git_url == "https://git/a.git"
    assert needs[0].url(SHA1) == f"http://p/{JAMMY}/sha1/{SHA1}/"


def test_a_name_is_one_of_its_repository() -> None:
    """A branch in two repositories is two commits, until it is known better, and so are a branch and a tag of one name."""
    needs, _ = smallest(
        [
            job("a", {"install": {"branch": "wip"}}),
            job("b", {"install": {"branch": "wip"}}, repo="https://git/b.git"),
            job("c", {"install": {"tag": "wip"}}),
            job("d", {"install": {"project": "samba", "branch": "wip"}}),
        ],
        Names(),
    )
    assert [(need.key, need.git_url, need.jobs) for need in needs] == [
        (f"{JAMMY}/wip", "https://git/a.git", ["a"]),
        (f"{JAMMY}/wip", "https://git/b.git", ["b"]),
        (f"{JAMMY}/wip", "https://git/a.git", ["c"]),
        ("samba-deb-jammy-x86_64-default/wip", "https://git/samba.git", ["d"]),
    ]
    assert needs[0].refs == ["wip"]
    assert needs[0].url("") == f"http://p/{JAMMY}/ref/wip/"


def test_a_machine_does_for_all_jobs() -> None:
    """Of the sizes that jobs ask for, overrides included, the largest of each part is taken."""
    needs, _ = smallest(
        [
            job(
                "a", {"install": {"sha1": SHA1}}, {"buildpackages": {"min_machine": {"ram": 8000, "cpus": 4}}}
            ),
            job(
                "b",
                {"buildpackages": None},
                {"install": {"sha1": SHA1}},
                overrides={
                    "buildpackages": {"min_machine": {"ram": 4000, "cpus": 8}, "good_machine": {"disk": 40}}
                },
            ),
            job("c", {"install": {"sha1": SHA1}}),
        ],
        Names(),
    )
    assert [need.sizes for need in needs] == [
        {"min_machine": {"ram": 8000, "cpus": 8}, "good_machine": {"disk": 40}}
    ]


def test_a_site_has_sizes_for_all_jobs() -> None:
    """The site's sizes are below those of each job."""
    sized = {"buildpackages": {"min_machine": {"ram": 4000}}}
    jobs = [job("a", {"install": {"sha1": SHA1}}, sized), job("b", {"install": {"sha1": MOVED}})]
    needs, _ = smallest(jobs, Names(), {"min_machine": {"ram": 8000, "cpus": 4}})
    assert [need.sizes["min_machine"] for need in needs] == [
        {"ram": 4000, "cpus": 4},
        {"ram": 8000, "cpus": 4},
    ]


def test_one_jobs_mistake_is_not_anothers() -> None:
    """What is wrong with jobs is said once for all that have it; the others' packages are needed all the same."""
    number = {"install": {"sha1": 12345678}}
    needs, problems = smallest(
        [
            job("a", number),
            job("good", {"install": {"sha1": SHA1}}),
            job("b", number),
            job("c", number),
            job("d", {"install": {"sha1": SHA1}}, os_version="4.10"),
            job("e", {"install": {"sha1": SHA1}}, {"buildpackages": {"min_machine": {"ram": "much"}}}),
        ],
        Names(),
    )
    assert [need.jobs for need in needs] == [["good"]]
    first, second, third = map(str, problems)
    assert first.startswith("a and 2 others: sha1 12345678 of tasks[0]: install")
    assert second == "d: os_version 4.10 of ubuntu is unknown to teuthology"
    assert third.startswith("e: ")
    assert "`ram` of `min_machine` in the job's `buildpackages` must be a whole number" in third


def test_jobs_that_install_nothing_need_nothing() -> None:
    """No install, no need; and a task that is no mapping is teuthology's business."""
    assert smallest(
        [job("a", {"exec": {"mon.a": ["true"]}}), Job("b", {"os_type": "ubuntu", "tasks": ["x"]})], Names()
    ) == ([], [])


def test_wrong_settings_end_it() -> None:
    """What is wrong with teuthology or its site is not one job's problem."""

    class Broken(Names):
        def target_of(self, want: Want) -> str:
            raise WrongSettings("teuthology can't be imported")

    with pytest.raises(WrongSettings):
        smallest([job("a", {"install": {"sha1": SHA1}})], Broken())
