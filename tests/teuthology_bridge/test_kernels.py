"""Kernels that teuthology's own task would look for on our server, which has none."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests import teuthology_venv
from teuthology_bridge.kernels import looked_for

ROLES = [["mon.a", "osd.0"], ["osd.1", "client.0"]]
SCRIPT = Path(__file__).with_name("kernels_in_teuthology.py")
ALL = ["mon.a", "osd.0", "osd.1", "client.0"]
DISTRO = {"branch": "distro", "sha1": "distro", "kdb": True}


@pytest.mark.parametrize(
    ("kernel", "found"),
    [
        (None, []),
        ({}, []),
        (DISTRO, []),
        ({"timeout": 300}, []),
        ({"branch": "testing"}, ALL),
        ({"tag": "v3.18", "timeout": 300}, ALL),
        ({"sha1": "275dd19ea4e84c34f985ba097f9cddb539f54a50", "flavor": "default"}, ALL),
        # The sha1 decides, not the branch.
        ({"branch": "distro"}, ALL),
        ({"kdb": True}, ALL),
        ({"rpm": "/x.rpm"}, []),
        ({"deb": "/x.deb"}, []),
        ({"koji": 416058}, []),
        ({"koji_task": 9678206}, []),
        ({"osd": {"branch": "testing"}}, ["osd.0", "osd.1"]),
        ({"osd": {"branch": "testing"}, "osd.0": {"deb": "/x.deb"}}, ["osd.1"]),
        ({"client.0": {"tag": "v3.0"}, "osd": None}, ["client.0"]),
    ],
    ids=repr,
)
def test_what_is_looked_for(kernel: object, found: list[str]) -> None:
    """Each role is read as teuthology's task normalises its configuration."""
    assert looked_for({"roles": ROLES, "tasks": [{"kernel": kernel}]}) == found


@pytest.mark.parametrize(
    ("override", "found"),
    [
        (DISTRO, []),
        ({"timeout": 9}, ALL),
        ({"kdb": False}, ALL),
        ({"osd.1": {"deb": "/x.deb"}}, ["mon.a", "osd.0", "client.0"]),
    ],
    ids=repr,
)
def test_overrides(override: dict[str, Any], found: list[str]) -> None:
    """A version in the overrides takes the place of the task's own, and anything else is added to it."""
    job = {"roles": ROLES, "tasks": [{"kernel": {"branch": "testing"}}], "overrides": {"kernel": override}}
    assert looked_for(job) == found


def test_as_teuthology_reads_it() -> None:
    """For every configuration with every other one as its overrides, teuthology's own task says the same."""
    rows: list[dict[str, Any]] = [
        DISTRO, {}, {"timeout": 3}, {"branch": "testing"}, {"sha1": "2" * 40, "timeout": 3}, {"kdb": True},
        {"branch": "distro"}, {"deb": "/x.deb"}, {"koji_task": 3}, {"osd": {"branch": "testing"}},
        {"osd": {"branch": "testing"}, "osd.0": {"rpm": "/x.rpm"}}, {"client.0": {"tag": "v3.0"}, "osd": None},
    ]  # fmt: skip
    jobs = [
        {"roles": ROLES, "tasks": [{"kernel": told}], "overrides": {"kernel": over}}
        for told, over in product(rows, rows)
    ]
    told = subprocess.run(
        [teuthology_venv.venv() / "bin/python", SCRIPT],
        input=json.dumps(jobs), stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    for job, found in zip(jobs, json.loads(told), strict=True):
        assert sorted(looked_for(job)) == sorted(found), job


def test_where_a_task_stands() -> None:
    """Only what runs after our task looks on our server, in a section as well; a job may have no such task."""
    kernel = {"kernel": {"branch": "testing"}}
    tasks = [kernel, {"buildpackages": None}, {"install": None}]
    assert looked_for({"roles": ROLES, "tasks": tasks}) == []
    assert looked_for({"roles": ROLES, "tasks": [*tasks, {"sequential": [kernel]}]}) == ALL
    assert looked_for({"roles": ROLES, "tasks": [kernel, {"install": None}]}) == ALL
    assert looked_for({"tasks": []}) == looked_for({}) == []


def test_what_is_no_job() -> None:
    """What teuthology itself will stumble over is left to it."""
    for kernel in (5, ["branch"], {7: {"branch": "x"}}, {"osd": 5}):
        looked_for({"roles": ["mon.a", [7, "osd.0"], None], "tasks": [None, {"kernel": kernel}, "kernel"]})
