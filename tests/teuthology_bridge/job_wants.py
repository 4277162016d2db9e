"""The golden rows of tests/contract/job_wants.yaml, for the tests of both modules that they are about."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "contract/job_wants.yaml"
ROWS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())

DEFAULTS = {
    "alma": "9.7",
    "centos": "9.stream",
    "debian": "8.0",
    "fedora": "25",
    "opensuse": "15.6",
    "rhel": "8.6",
    "rocky": "9.7",
    "sle": "15.2",
    "ubuntu": "22.04",
}
"""teuthology 1.3.0's versions of distributions for jobs that name none, typed from the facts."""


def named(row: dict[str, Any]) -> str:
    """Give what a test of this row is called."""
    return row["name"].replace(" ", "-")


def made_up(number: int) -> list[dict[str, Any]]:
    """Give jobs that nobody would write, always the same ones: every mixture of what decides a reference."""
    chance = random.Random(4)

    def node(often: float) -> dict[str, Any]:
        choices = {
            "tag": (often / 2, [None, "", "v1", "v2"]),
            "branch": (often, [None, "", "b1", "b2", "b3"]),
            "sha1": (often, [None, "a" * 40, "b" * 40]),
            "flavor": (0.2, ["debug", "default"]),
            "valgrind": (0.1, [True, False]),
            "coverage": (0.1, [True]),
        }
        return {key: chance.choice(of) for key, (often, of) in choices.items() if chance.random() < often}

    def task(*, nested: bool = False) -> dict[str, Any]:
        kind = chance.choice(["install", "upgrade"] if nested else ["install", "upgrade", "sequential"])
        if kind == "sequential":
            return {"sequential": [task(nested=True) for _ in range(chance.randint(1, 3))]}
        project = {"project": "samba"} if chance.random() < 0.1 else {}
        if kind == "install":
            return {"install": {**node(0.5), **project} or None}
        keys = chance.sample(["mon.a", "osd.0", "mon.b", "osd.1", "client.0", "mon.z"], chance.randint(1, 4))
        if chance.random() < 0.25:
            keys.append("all")
        return {"install.upgrade": {**{key: node(0.4) or None for key in keys}, **project}}

    def job() -> dict[str, Any]:
        made = {
            "os_type": "ubuntu",
            "os_version": "22.04",
            "roles": [["mon.a", "osd.0"], ["mon.b", "osd.1"], ["client.0"]],
            "tasks": [task() for _ in range(chance.randint(1, 4))],
        }
        if chance.random() < 0.85:
            made["overrides"] = {"install": {"ceph": node(0.6), "samba": node(0.2)}}
        return made

    return [{"name": f"made up, {index}", "job": job()} for index in range(number)]
