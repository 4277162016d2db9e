"""teuthology's own requests to shaman, recorded, against the real package server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests
import yaml

from tests.contract.shaman_tree import fill
from tests.package_server_process import PackageServerProcess
from tests.published import Publications

RECORDED: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("shaman_requests.yaml").read_text())
URL = "http://packages.test/"
"""What the server was told that others find it at."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    with PackageServerProcess(directory) as server:
        fill(Publications(directory))
        server.ask("reconfigure", url=URL, apt_trusted=True)
        yield server


def replay(server: PackageServerProcess, path: str, headers: dict[str, str]) -> requests.Response:
    """Send a request as it was recorded, to the letter."""
    answer = requests.get(urljoin(server.url, path), headers=headers, allow_redirects=False, timeout=30)
    assert answer.request.path_url == path
    assert answer.status_code == 200, answer.text
    return answer


def recorded(kind: str) -> list[Any]:
    """Give the recorded requests of one kind."""
    found = [pytest.param(one, id=one["path"]) for one in RECORDED if kind in one]
    assert found
    return found


@pytest.mark.parametrize("row", recorded("finds"))
def test_teuthology_finds_what_is_published(server: PackageServerProcess, row: dict[str, Any]) -> None:
    """The first row of a search holds all that ShamanProject reads, and its chacra_url leads to a repository."""
    found = replay(server, row["path"], row["headers"]).json()
    if not row["finds"]:
        assert found == []
        return
    target, sha1, version = row["finds"]
    first = found[0]
    assert first["url"] == f"{URL}{target}/sha1/{sha1}/"
    assert first["sha1"] == sha1
    assert first["extra"]["package_manager_version"] == version
    assert first["extra"]["version"] == "19.2.0-3-g78a52b4b"
    repository = urlsplit(urljoin(first["chacra_url"], "repo")).path
    assert first["url"] in replay(server, repository, {}).text


@pytest.mark.parametrize("row", recorded("completed"))
def test_teuthology_suite_sees_builds_completed(server: PackageServerProcess, row: dict[str, Any]) -> None:
    """The builds of a commit hold all that `build_complete` compares, for each target that is published."""
    found = replay(server, row["path"], row["headers"]).json()
    assert sorted(build["extra"]["job_name"] for build in found) == row["completed"]
    assert {build["status"] for build in found} == {"completed"}
    compared = ("distro", "distro_version", "distro_arch", "flavor")
    assert ("centos", "9", "x86_64", "default") in [
        tuple(build[name] for name in compared) for build in found
    ]


@pytest.mark.parametrize("row", recorded("text"))
def test_teuthology_writes_what_apt_and_yum_read(server: PackageServerProcess, row: dict[str, Any]) -> None:
    """The text of a repository is to the letter what install puts on a node."""
    answer = replay(server, row["path"], row["headers"])
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text == row["text"]
