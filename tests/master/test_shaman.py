"""shaman's view of the published tree: its answers, and the same over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from master.publishing.uploads import RefusedError
from master.shaman import view as shaman
from master.shaman.forms import BuildState, described, place_of_sha1, repository_text
from master.shaman.index import PublishedIndex
from master.shaman.view import Shaman
from master.web.answers import Answer
from model.package_key import PackageKey
from model.targets import Target
from tests.contract.shaman_tree import (
    ARM,
    BOOKWORM,
    BUILD_URL,
    CENTOS,
    DEBUG,
    JAMMY,
    NEW,
    OLD,
    ROCKY,
    UNKNOWN,
    fill,
)
from tests.package_repositories import BASE_URL, KEY_URL, RPM_KEY, make_metadata, rpm_upload
from tests.package_server_process import PackageServerProcess
from tests.published import Publications

URL = "http://packages.test/sub/"
SHORT = {JAMMY: "jammy", BOOKWORM: "bookworm", CENTOS: "centos", ROCKY: "rocky", ARM: "arm", DEBUG: "debug"}
AGES = {NEW: "new", OLD: "old"}


def view_of(publications: Publications) -> Shaman:
    return Shaman(PublishedIndex(str(publications.tree), publications.record), URL, apt_trusted=True)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Shaman:
    """Give a view of the tree that teuthology's requests are replayed against."""
    publications = Publications(tmp_path_factory.mktemp("tree"))
    fill(publications)
    return view_of(publications)


@pytest.fixture
def publications(tmp_path: Path) -> Publications:
    """Give an empty tree."""
    return Publications(tmp_path)


def ask(view: Shaman, uri: str, *builds: BuildState) -> Any:
    """Ask, and read the answer."""
    answer = view.answer(uri.encode(), builds)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.body)


def rows(view: Shaman, uri: str) -> list[str]:
    """Give which target and commit each row is of, in order: `jammy new`."""
    return [f"{SHORT[row['extra']['job_name']]} {AGES[row['sha1']]}" for row in ask(view, uri)]


def refusal(view: Shaman, uri: str) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        view.answer(uri.encode())
    return caught.value.status, caught.value.sentence


def state(
    target: str, status: Any, sha1: str = NEW, modified: float = 9.5, url: str | None = None
) -> BuildState:
    return BuildState(f"{target}/{sha1}", status, url or f"http://builds/{target}", 1.0, None, modified)


# Search


def test_a_row_of_a_deb_repository(view: Shaman) -> None:
    """Every field that shaman has is there, and says what it does there."""
    assert ask(view, f"/api/search?sha1={OLD}&distros=ubuntu/jammy") == [
        {
            "status": "ready",
            "sha1": "0dd9bfed6cd0e2d7b3a0a1b7b8c6c0a0d9e0f1a2",
            "url": "http://packages.test/sub/ceph-deb-jammy-x86_64-default/sha1/0dd9bfed6cd0e2d7b3a0a1b7b8c6c0a0d9e0f1a2/",
            "chacra_url": "http://packages.test/sub/ceph-deb-jammy-x86_64-default/sha1/0dd9bfed6cd0e2d7b3a0a1b7b8c6c0a0d9e0f1a2/",
            "ref": "v19.2.0",
            "distro": "ubuntu",
            "distro_version": "22.04",
            "distro_codename": "jammy",
            "flavor": "default",
            "project": "ceph",
            "archs": ["x86_64"],
            "modified": "2023-11-14 22:13:21.000000",
            "extra": {
                "version": "19.2.0",
                "package_manager_version": "19.2.0-1",
                "build_url": "http://127.0.0.1:8010/#/builders/1/builds/2",
                "root_build_cause": "MANUALTRIGGER",
                "node_name": "",
                "job_name": "ceph-deb-jammy-x86_64-default",
                "reachable_from": None,
                "unverified": True,
            },
        }
    ]


def test_b7_a_commit_of_no_canonical_ref_is_called_unverified(publications: Publications) -> None:
    """Rows of repositories and of builds say whether a ref of the project's own repository is known to have been at the commit."""
    publications.publish(f"{JAMMY}/{NEW}", "1", at=1, reachable_from="main")
    publications.publish(f"{JAMMY}/{OLD}", "1", at=2, reachable_from=None)
    view = view_of(publications)
    found = {row["sha1"]: row["extra"] for row in ask(view, "/api/search?project=ceph")}
    assert (found[NEW]["unverified"], found[NEW]["reachable_from"]) == (False, "main")
    assert (found[OLD]["unverified"], found[OLD]["reachable_from"]) == (True, None)
    built = {sha1: ask(view, f"/api/builds/ceph/x/{sha1}")[0]["extra"]["unverified"] for sha1 in (NEW, OLD)}
    assert built == {NEW: False, OLD: True}


def test_a_row_of_an_rpm_repository(view: Shaman) -> None:
    """An rpm distribution has no codename, and its repository holds noarch and sources besides."""
    [row] = ask(view, f"/api/search?sha1={NEW}&distros=centos/9&flavor=default")
    assert (row["distro"], row["distro_version"], row["distro_codename"]) == ("centos", "9", None)
    assert row["archs"] == ["x86_64", "noarch", "source"]
    assert row["extra"]["package_manager_version"] == "19.2.0-3.g78a52b4b"
    assert row["extra"]["version"] == "19.2.0-3-g78a52b4b"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["debug new", "arm new", "rocky new", "centos new", "bookworm new", "jammy new", "centos old", "jammy old"]),
        ("project=ceph&flavor=debug", ["debug new"]),
        ("project=samba", []),
        ("project=", []),
        ("flavor=crimson", []),
        ("status=ready&flavor=debug", ["debug new"]),
        ("status=building", []),
        ("status=", []),
        (f"sha1={OLD}", ["centos old", "jammy old"]),
        (f"sha1={UNKNOWN}", []),
        (f"sha1={NEW.upper()}", []),
        (f"sha1={NEW[:8]}", []),
        ("sha1=", []),
        ("sha1=../../etc", []),
        ("distros=ubuntu/jammy", ["arm new", "jammy new", "jammy old"]),
        ("distros=ubuntu/22.04", ["arm new", "jammy new", "jammy old"]),
        ("distros=ubuntu/22.04/", ["arm new", "jammy new", "jammy old"]),
        ("distros=ubuntu%2F22.04%2Faarch64", ["arm new"]),
        ("distros=ubuntu/22.04/arm64", ["arm new"]),
        ("distros=ubuntu/jammy/amd64", ["jammy new", "jammy old"]),
        ("distros=debian/12,rocky/10", ["rocky new", "bookworm new"]),
        ("distros=debian/12,%20rocky/10%20", ["rocky new", "bookworm new"]),
        ("distros=debian/12,plan/9", ["bookworm new"]),
        ("distros=debian/jammy", []),
        ("distros=ubuntu/12", []),
        ("distros=ubuntu/jammy/noarch", []),
        ("distros=centos/9/noarch&flavor=default", ["centos new", "centos old"]),
        ("ref=main", ["debug new", "jammy new"]),
        ("ref=v19.2.0", ["centos old", "jammy old"]),
        ("ref=wip/foo", ["centos new", "bookworm new"]),
        ("ref=wip%2Ffoo", ["centos new", "bookworm new"]),
        ("ref=wip", []),
        ("ref=nowhere", []),
        ("ref=", []),
        ("ref=..%2F..%2Fsha1", []),
        (f"ref={OLD}", ["centos old", "jammy old"]),
        (f"ref=main&sha1={NEW}&distros=rocky/10", ["rocky new"]),
        (f"ref=main&sha1={OLD}", []),
        (f"ref={NEW}&sha1={NEW}&distros=rocky/10", ["rocky new"]),
    ],
)  # fmt: skip
def test_a_search_finds(view: Shaman, query: str, found: list[str]) -> None:
    """Each parameter limits the rows, the newest comes first, and what is unknown is an empty list."""
    assert rows(view, f"/api/search?{query}") == found
    assert rows(view, f"/api/search/?{query}") == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        # Published last are debug, arm and rocky, none of which has the older commit.
        ("distros=ubuntu/jammy/x86_64,centos/9", ["jammy new", "debug new"]),
        ("distros=centos/9,ubuntu/jammy/x86_64&flavor=default", ["centos new", "jammy new"]),
        ("distros=ubuntu/jammy,ubuntu/22.04/x86_64", ["arm new", "jammy new"]),
        ("distros=ubuntu/jammy,ubuntu/22.04", ["arm new"]),
        ("flavor=debug&distros=centos/9", ["debug new"]),
        ("distros=ubuntu/jammy,ubuntu/noble", []),
        ("distros=ubuntu/noble", []),
        ("project=samba", []),
        ("ref=v19.2.0&distros=ubuntu/jammy,centos/9", ["jammy old", "centos old"]),
        ("ref=wip/foo&flavor=default&distros=ubuntu/jammy/x86_64,centos/9", ["jammy new", "centos new"]),
        ("ref=wip/foo&distros=ubuntu/jammy", []),
        ("ref=nowhere&distros=ubuntu/jammy", []),
        ("ref=v19.2.0", ["centos old", "jammy old"]),
        ("flavor=default", ["arm new", "rocky new", "centos new", "bookworm new", "jammy new"]),
    ],
)
def test_the_latest_sha1(view: Shaman, query: str, found: list[str]) -> None:
    """`latest` is the newest commit that all distributions have, and one row of each in the order asked."""
    assert rows(view, f"/api/search?project=ceph&sha1=latest&{query}" if "project" not in query else f"/api/search?sha1=latest&{query}") == found  # fmt: skip


def test_the_latest_sha1_is_the_common_one(publications: Publications) -> None:
    """A newer commit that one of the distributions lacks, or has in part only, is passed over."""
    for at, sha1 in enumerate("abc"):
        publications.publish(f"{JAMMY}/{sha1 * 40}", "1", at=at)
    publications.publish(f"{CENTOS}/{'a' * 40}", "1", at=3)
    broken = publications.publish(f"{CENTOS}/{'c' * 40}", "1", at=8)
    (broken / "dists/Release").unlink()
    view = view_of(publications)
    found = ask(view, "/api/search?sha1=latest&distros=ubuntu/jammy,centos/9")
    assert [row["sha1"][0] for row in found] == ["a", "a"]
    assert [row["sha1"][0] for row in ask(view, "/api/search?sha1=latest&distros=ubuntu/jammy")] == ["c"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("arch=x86_64", "'arch' is not a parameter of a search; there are project, distros, ref, sha1, flavor, status."),
        ("Ref=main", "'Ref' is not a parameter of a search; there are project, distros, ref, sha1, flavor, status."),
        ("x" * 9000 + "=", "'" + "x" * 50 + "' is not a parameter of a search; there are project, distros, ref, sha1, flavor, status."),
        ("status=x&a=b", "'a' is not a parameter of a search; there are project, distros, ref, sha1, flavor, status."),
        ("ref=a&ref=b", "Each parameter of a search may be there once."),
        ("&".join(["ref=a"] * 21), "A search has at most 20 parameters."),
        ("distros=centos7,frufru", "Invalid version or codename for distro: centos7"),
        ("distros=ubuntu/jammy,centos/", "Invalid version or codename for distro: centos/"),
        ("distros=", "Invalid version or codename for distro: "),
        ("distros=/jammy", "Invalid version or codename for distro: /jammy"),
        ("distros=ubuntu/jammy/x86_64/pool", "Invalid version or codename for distro: ubuntu/jammy/x86_64/pool"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(view: Shaman, query: str, sentence: str) -> None:
    """A parameter that shaman has not, or that says nothing, is 400 with a sentence."""
    assert refusal(view, f"/api/search?{query}") == (400, sentence)


def test_a_ref_is_where_it_was_last_resolved_to(publications: Publications) -> None:
    """A ref that has moved leads to its new commit, though an older one was published after it."""
    publications.publish(f"{JAMMY}/{NEW}", "2", "main", at=1, ref="main")
    publications.publish(f"{JAMMY}/{OLD}", "1", at=2, ref="main")
    view = view_of(publications)
    assert rows(view, "/api/search?ref=main") == ["jammy new"]
    assert rows(view, f"/api/search?ref=main&sha1={OLD}") == ["jammy old"]
    publications.link(f"{JAMMY}/{OLD}", "main")
    assert rows(view, "/api/search?ref=main") == ["jammy old"]


def test_a_row_says_the_best_ref(publications: Publications) -> None:
    """The ref asked for; else that of the manifest; else a link; else the sha1, by which it is found again."""
    publications.publish(f"{JAMMY}/{NEW}", "1", "main", "wip", ref="wip/asked")
    publications.publish(f"{CENTOS}/{NEW}", "1", "wip", "main")
    publications.publish(f"{ROCKY}/{NEW}", "1")
    view = view_of(publications)
    for query, refs in (
        ("ref=wip", {JAMMY: "wip", CENTOS: "wip"}),
        ("", {JAMMY: "wip/asked", CENTOS: "main", ROCKY: NEW}),
    ):
        found = ask(view, f"/api/search?{query}")
        assert {row["extra"]["job_name"]: row["ref"] for row in found} == refs
        for row in found:
            again = ask(view, f"/api/search?ref={row['ref']}&sha1={row['sha1']}")
            assert row["url"] in [one["url"] for one in again]


def test_what_is_published_meanwhile_is_found(publications: Publications) -> None:
    """The next search after a publication, a purge or a moved ref knows of it."""
    view = view_of(publications)
    queries = ("", "sha1=latest", "ref=main", f"sha1={NEW}")
    assert [rows(view, f"/api/search?{query}") for query in queries] == [[], [], [], []]
    directory = publications.publish(f"{JAMMY}/{NEW}", "1", "main", at=1)
    assert [rows(view, f"/api/search?{query}") for query in queries] == [["jammy new"]] * 4
    publications.publish(f"{JAMMY}/{OLD}", "2", at=2)
    assert rows(view, "/api/search?sha1=latest") == ["jammy old"]
    shutil.rmtree(directory / "pool")
    assert [rows(view, f"/api/search?{query}") for query in queries] == [["jammy old"], ["jammy old"], [], []]


def test_an_answer_has_an_end(publications: Publications, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for everything gets the newest only."""
    monkeypatch.setattr(shaman, "MOST_ROWS", 3)
    for number in range(5):
        publications.publish(f"{JAMMY}/{number}{'0' * 39}", "1", at=number)
    found = ask(view_of(publications), "/api/search")
    assert [row["sha1"][0] for row in found] == ["4", "3", "2"]


def test_a_question_asked_a_thousand_times_is_one(publications: Publications) -> None:
    """However often a search names a distribution, its repositories are looked at once."""
    publications.publish(f"{JAMMY}/{NEW}", "1")
    looked = []

    def record(key: PackageKey) -> Any:
        looked.append(key)
        return publications.record(key)

    view = Shaman(PublishedIndex(str(publications.tree), record), URL)
    distros = ",".join(["ubuntu/jammy", "ubuntu/jammy/amd64", "ubuntu/jammy/x86_64"] * 500)
    assert rows(view, f"/api/search?sha1=latest&distros={distros}") == ["jammy new"]
    assert len(looked) == 2


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        (JAMMY, "19.2.0-3-g78a52b4b-1jammy", "19.2.0-3-g78a52b4b"),
        (JAMMY, "19.2.0-1jammy", "19.2.0"),
        (JAMMY, "19.2.0-1", "19.2.0"),
        (CENTOS, "19.2.0-3.g78a52b4b", "19.2.0-3-g78a52b4b"),
        (CENTOS, "19.2.0-0", "19.2.0"),
        (CENTOS, "20.0.0-rc1-4.g78a52b4b", "20.0.0-rc1-4-g78a52b4b"),
    ],
)
def test_what_git_describe_said(name: str, version: str, said: str) -> None:
    """The version that git gave is read back from the one that packages have."""
    assert described(Target.from_name(name), version) == said


# Builds


def test_a_row_of_a_build(view: Shaman) -> None:
    """A published package_key is a completed build; when it began, only the database can tell."""
    expected = {
        "url": BUILD_URL,
        "log_url": BUILD_URL,
        "ref": "main",
        "sha1": "78a52b4b724b056d0164d678a5d27f667060fa71",
        "flavor": "default",
        "status": "completed",
        "extra": {"job_name": "ceph-deb-jammy-x86_64-default", "unverified": True},
        "modified": "2023-11-14 22:13:23.000000",
        "started": None,
        "completed": "2023-11-14 22:13:23.000000",
        "project": "ceph",
        "distro": "ubuntu",
        "distro_version": "22.04",
        "distro_codename": "jammy",
        "distro_arch": "x86_64",
    }
    uri = f"/api/builds/ceph/main/{NEW}"
    assert ask(view, uri)[-1] == expected
    assert ask(view, f"{uri}/")[-1] == expected
    for status in ("started", "completed"):  # It is published before its build has ended.
        told = ask(view, uri, state(JAMMY, status, url=BUILD_URL))[-1]
        assert told == {**expected, "started": "1970-01-01 00:00:01.000000"}
        assert ask(view, uri, state(JAMMY, status))[-1] == expected


def test_builds_on_their_way_are_told(view: Shaman) -> None:
    """What is not published is as the database says, among the rest by time; a purged build never was."""
    uri = f"/api/builds/ceph/wip/x/{OLD}"
    states = [
        state(BOOKWORM, "queued", OLD, 1.7e9 + 1.5),
        state(ROCKY, "failed", OLD, 1.8e9),
        state(ARM, "started", OLD, 1.0),
        state(DEBUG, "completed", OLD),
    ]
    found = ask(view, uri, *states)
    told = [(SHORT[row["extra"]["job_name"]], row["status"], row["url"]) for row in found]
    assert told == [
        ("rocky", "failed", f"http://builds/{ROCKY}"),
        ("centos", "completed", ""),
        ("bookworm", "queued", f"http://builds/{BOOKWORM}"),
        ("jammy", "completed", BUILD_URL),
        ("arm", "started", f"http://builds/{ARM}"),
    ]
    assert {row["ref"] for row in found} == {"wip/x"}
    assert (found[2]["distro"], found[2]["distro_arch"], found[2]["completed"]) == ("debian", "x86_64", None)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("builds/", {"ceph": ["main", "v19.2.0", "wip/foo"]}),
        ("builds/ceph/", ["main", "v19.2.0", "wip/foo"]),
        ("builds/ceph/main", [NEW]),
        ("builds/ceph/wip/foo/", [NEW]),
        ("builds/ceph/wip%2Ffoo/", [NEW]),
        ("builds/ceph/nowhere/", []),
        (f"builds/ceph/main/{UNKNOWN}", []),
        (f"builds/samba/main/{NEW}", []),
        (f"builds/../main/{NEW}", []),
    ],
)
def test_the_levels_of_builds(view: Shaman, path: str, found: Any) -> None:
    """Above a commit are refs and projects; of an unknown commit there is no build, which is no error."""
    assert ask(view, f"/api/{path}") == found


def test_which_builds_the_database_is_asked_for() -> None:
    """Those of every target of the project at the commit, and none for anything else."""
    view = Shaman(PublishedIndex("/nowhere", lambda _: None), URL)
    keys = view.keys(f"/api/builds/ceph/wip/foo/{NEW}/?x=y".encode())
    assert len(keys) == 36
    assert f"ceph-rpm-centos9-aarch64-debug/{NEW}" in keys
    for path in (
        f"builds/samba/main/{NEW}",
        f"builds/ceph/{NEW}",
        "builds/ceph/main/1234",
        f"builds/C%00/main/{NEW}",
        f"repos/ceph/main/{NEW}",
        f"builds/ceph/main/{NEW}/x",
    ):
        assert view.keys(f"/api/{path}".encode()) == []


# Repositories


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", {"repos": ["ceph"]}),
        ("repos/", {"ceph": {"refs": ["main", "v19.2.0", "wip/foo"], "sha1s": [OLD, NEW]}}),
        ("repos/ceph", ["main", "v19.2.0", "wip/foo"]),
        ("repos/ceph/main/", [NEW]),
        ("repos/ceph/nowhere/", []),
        (f"repos/ceph/{OLD}", [OLD]),
        (f"repos/ceph/main/{NEW}/", ["centos", "debian", "rocky", "ubuntu"]),
        (f"repos/ceph/main/{UNKNOWN}/", []),
        (f"repos/ceph/main/{NEW}/ubuntu", ["jammy"]),
        (f"repos/ceph/main/{NEW}/centos/", ["9"]),
        (f"repos/ceph/main/{NEW}/plan/", []),
        (f"repos/ceph/main/{NEW}/centos/9/flavors/", ["debug", "default"]),
        (f"repos/ceph/main/{NEW}/ubuntu/noble/", []),
        ("repos/ceph/main/latest/", ["centos", "debian", "rocky", "ubuntu"]),
    ],
)
def test_the_levels_of_repositories(view: Shaman, path: str, found: Any) -> None:
    """Each level lists what is below it; a release is called by its codename where it has one."""
    assert ask(view, f"/api/{path}") == found


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", None),
        ("main", None),
        ("latest", None),
        (NEW, None),
        ("main/latest", 1),
        ("latest/latest", 1),
        ("wip/latest/latest/ubuntu", 2),
        (f"{NEW}/{NEW}/ubuntu", 1),
        (f"wip/latest/{NEW}/ubuntu", 2),
        (f"wip/foo/{NEW}/ubuntu/jammy/x86_64/latest/{OLD}", 2),
    ],
)
def test_where_a_ref_ends(path: str, place: int | None) -> None:
    """A ref ends before the first sha1, or else before the last `latest`, and has one part at least."""
    assert place_of_sha1(path.split("/")) == place


def test_a_ref_that_leads_nowhere_is_not_listed(publications: Publications) -> None:
    """The link of a commit that was purged is no ref of any level."""
    shutil.rmtree(publications.publish(f"{JAMMY}/{NEW}", "1", "wip/foo"))
    view = view_of(publications)
    assert ask(view, "/api/repos/ceph/") == []
    assert ask(view, "/api/builds/") == {"ceph": []}
    assert ask(view, "/api/repos/ceph/wip/foo/") == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"wip/foo/{NEW}/ubuntu/jammy", ["arm new", "jammy new"]),
        (f"wip/foo/{NEW}/ubuntu/22.04/?arch=x86_64", ["jammy new"]),
        (f"main/{NEW}/centos/9/", ["centos new"]),
        (f"main/{NEW}/centos/9/flavors/debug/", ["debug new"]),
        ("wip/foo/latest/centos/9", ["centos new"]),
        ("main/latest/centos/9/flavors/debug", ["debug new"]),
        (f"{NEW}/{NEW}/debian/12/", ["bookworm new"]),
    ],
)
def test_repositories_are_listed(view: Shaman, path: str, found: list[str]) -> None:
    """At a release are its repositories, of the default flavor unless another is named; the ref is as asked."""
    assert rows(view, f"/api/repos/ceph/{path}") == found
    ref = path.partition(f"/{NEW}")[0].partition("/latest")[0]
    assert {row["ref"] for row in ask(view, f"/api/repos/ceph/{path}")} == {ref}


@pytest.mark.parametrize(
    ("path", "target", "sha1", "below"),
    [
        ("main/latest/ubuntu/jammy/repo", JAMMY, NEW, "repo"),
        ("main/latest/ubuntu/22.04/repo/", JAMMY, NEW, "repo"),
        (f"main/{NEW}/ubuntu/jammy/flavors/default/repo", JAMMY, NEW, "repo"),
        (f"main/{NEW}/ubuntu/jammy/repo?arch=arm64", ARM, NEW, "repo"),
        (f"main/{NEW}/ubuntu/jammy/repo?arch=x86_64", JAMMY, NEW, "repo"),
        (f"nowhere/{OLD}/centos/9/repo", CENTOS, OLD, "repo"),
        ("main/latest/centos/9/flavors/debug/repo", DEBUG, NEW, "repo"),
        ("v19.2.0/latest/centos/9/x86_64/noarch/a%20b%2Bc.rpm", CENTOS, OLD, "noarch/a%20b%2Bc.rpm"),
        (f"main/{NEW}/ubuntu/jammy/aarch64/", ARM, NEW, ""),
        (f"main/{NEW}/ubuntu/jammy/x86_64/%0d%0aX:%2F", JAMMY, NEW, "%0D%0AX%3A%2F"),
    ],
)
def test_a_path_leads_to_the_repository(view: Shaman, path: str, target: str, sha1: str, below: str) -> None:
    """`repo`, and files behind an architecture, are redirected to where they are; x86_64 is meant if none is named."""
    answer = view.answer(f"/api/repos/ceph/{path}".encode())
    assert answer.status == 302
    assert answer.headers["Location"] == f"{URL}{target}/sha1/{sha1}/{below}"


def test_no_other_architecture_is_taken_for_the_usual(publications: Publications) -> None:
    """A newer commit that is there for ARM alone is not what `latest` leads to."""
    publications.publish(f"{JAMMY}/{OLD}", "1", "main", at=1)
    publications.publish(f"{ARM}/{NEW}", "2", "main", at=2)
    view = view_of(publications)
    path = b"/api/repos/ceph/main/latest/ubuntu/jammy/repo"
    assert view.answer(path).headers["Location"] == f"{URL}{JAMMY}/sha1/{OLD}/repo"
    assert view.answer(path + b"?arch=aarch64").headers["Location"] == f"{URL}{ARM}/sha1/{NEW}/repo"


@pytest.mark.parametrize(
    "path",
    [
        "nowhere/latest/ubuntu/jammy/repo", "main/latest/ubuntu/noble/repo", "main/latest/rocky/10/",
        "nowhere/latest/", f"main/{UNKNOWN}/ubuntu/jammy/repo", f"main/{NEW}/ubuntu/jammy/flavors/debug/repo",
        f"main/{NEW}/rocky/10/repo?arch=aarch64", f"main/{NEW}/ubuntu/jammy/sparc/",
    ],
)  # fmt: skip
def test_a_repository_that_is_not_ready(view: Shaman, path: str) -> None:
    """What leads nowhere is 504 with shaman's own words."""
    status, sentence = refusal(view, f"/api/repos/ceph/{path}")
    assert (status, sentence) == (504, f"no repository is ready for: ceph/{path.partition('/')[0]}")


@pytest.mark.parametrize(
    "path",
    [
        "api/nothing", "api/search/x", "api//search", "api/repos//ceph", "api/builds/samba/", "api/nodes/next/",
        "api/repos/samba", "api/repos/samba/main/latest/ubuntu/jammy/repo", f"{JAMMY}/sha1/{UNKNOWN}/repo",
        f"ceph-deb-nowhere-x86_64-default/sha1/{NEW}/repo", f"{JAMMY}/sha1/{NEW}/repo/x",
        f"api/repos/ceph/main/{NEW}/ubuntu/jammy/x86_64/../../x", f"api/repos/ceph/main/{NEW}/ubuntu/jammy/x86_64/%2e%2e/x",
        f"api/repos/ceph/main/{NEW}/ubuntu/jammy/x86_64//x",
    ],
)  # fmt: skip
def test_nothing_is_there(view: Shaman, path: str) -> None:
    """What this view has not is 404: other parts of shaman, unknown projects, and ways up."""
    assert refusal(view, f"/{path}")[0] == 404


def test_the_text_for_yum_is_that_of_the_release_rpm(tmp_path: Path) -> None:
    """Both ways to the same packages put the same file on a node."""
    make_metadata(rpm_upload(tmp_path))
    [release] = tmp_path.glob("upload/noarch/ceph-release-1-0.*.rpm")
    archive = subprocess.run(
        ["rpm2archive", "-n", "-"], stdin=release.open("rb"), check=True, capture_output=True
    )
    command = ["tar", "-xO", "./etc/yum.repos.d/ceph.repo"]
    installed = subprocess.run(command, input=archive.stdout, check=True, capture_output=True).stdout
    assert b"[Ceph-noarch]" in installed
    target = PackageKey.from_string(RPM_KEY).target
    assert repository_text(target, f"{BASE_URL}/", KEY_URL, trusted=False).body == installed


def test_d13_apt_checks_signatures_unless_the_settings_trust_the_network(publications: Publications) -> None:
    """Without trusted=yes, the text says which key the node needs; apt takes the first line for a comment."""
    view = Shaman(PublishedIndex(str(publications.tree), publications.record), URL)
    fill(publications)
    body = view.answer(f"/{JAMMY}/sha1/{NEW}/repo".encode()).body
    assert body.decode() == (
        f"# This node must have the key {URL}key.asc in /etc/apt/trusted.gpg.d, as a file that ends in .asc.\n"
        f"deb {URL}{JAMMY}/sha1/{NEW}/ jammy main\n"
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.sampled_from(
                [b"repos", b"builds", b"search", b"ceph", b"main", b"latest", b"ubuntu", b"jammy", b"flavors",
                 b"default", b"repo", b"x86_64", b"..", b"%2e%2e", b"%2f", b"\xff", b"", NEW.encode(), b"?arch=", b"?sha1=latest"]
            ),
            max_size=10,
        ).map(b"/".join),
    )
)  # fmt: skip
def test_no_question_breaks_it(view: Shaman, path: bytes) -> None:
    """Whatever is asked, there is an answer or a refusal, and no way leads out of the server."""
    try:
        answer = view.answer(b"/api/" + path)
    except RefusedError as refused:
        assert refused.status in (400, 404, 504)
        return
    assert isinstance(answer, Answer)
    where = answer.headers.get("Location", URL)
    assert where.startswith(URL)
    assert ".." not in urlsplit(where).path
    assert "\n" not in where


# Over HTTP


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    with PackageServerProcess(directory) as server:
        fill(Publications(directory))
        server.ask("reconfigure", url=server.url, apt_trusted=True)
        yield server


def test_an_answer_is_safe_to_read(server: PackageServerProcess) -> None:
    """JSON says that it is JSON and nothing else, is not kept, and HEAD says the same without it."""
    url = f"{server.url}api/search?ref=main"
    answer = requests.get(url, timeout=30)
    assert len(answer.json()) == 2
    head = requests.head(url, timeout=30)
    for one in (answer, head):
        assert one.status_code == 200
        assert one.headers["Content-Type"] == "application/json"
        assert one.headers["X-Content-Type-Options"] == "nosniff"
        assert one.headers["Content-Security-Policy"] == "sandbox"
        assert one.headers["Cache-Control"] == "no-cache"
        assert one.headers["Content-Length"] == str(len(answer.content))
    assert head.content == b""


def test_a_repository_is_found_by_following(server: PackageServerProcess) -> None:
    """From the path that people type to the text that apt reads, and on to a file of the repository."""
    here = f"{server.url}api/repos/ceph/main/latest/ubuntu/jammy/"
    text = requests.get(f"{here}repo", timeout=30).text
    assert text == f"deb [trusted=yes] {server.url}{JAMMY}/sha1/{NEW}/ jammy main\n"
    assert requests.get(f"{here}x86_64/version", timeout=30).text == "19.2.0-3-g78a52b4b-1\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["api/search", "api/repos/ceph/", f"{JAMMY}/sha1/{NEW}/repo"])
def test_the_view_is_for_reading(server: PackageServerProcess, method: str, path: str) -> None:
    """What would change something at shaman is 405 here."""
    answer = requests.request(method, server.url + path, timeout=30)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /api/search?status=%ff%00%0d%0a HTTP/1.1", 200),
        (b"GET /api/search?&&=&; HTTP/1.1", 400),
        (b"GET /api/search?\xff=\xff HTTP/1.1", 400),
        (b"GET /api/repos/%00/%ff/%0d%0a HTTP/1.1", 404),
        (b"GET /api/../../etc/passwd HTTP/1.1", 404),
        (b"GET /api/search?ref=" + b"a" * 15000 + b" HTTP/1.1", 200),
        (b"GET /api/search?distros=" + b"a/b," * 3800 + b"a/b HTTP/1.1", 200),
        (b"GET /api/search?ref=" + b"a" * 70000 + b" HTTP/1.1", 400),
        (b"GET /api" + b"/a" * 7000 + b" HTTP/1.1", 404),
    ],
    ids=range(9),
)  # fmt: skip
def test_hostile_requests(server: PackageServerProcess, request_line: bytes, status: int) -> None:
    """Any bytes of any length get an answer, and the server goes on."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request_line + b"\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) == status
    assert len(requests.get(f"{server.url}api/search?ref=main", timeout=30).json()) == 2


def test_a_slow_disk_stops_nobody_else(tmp_path: Path) -> None:
    """While the view waits for the tree, everything else is served: it waits in a thread of its own."""
    with PackageServerProcess(tmp_path) as server:
        publications = Publications(tmp_path)
        publications.publish(f"{JAMMY}/{OLD}", "1")
        directory = publications.publish(f"{JAMMY}/{NEW}", "1")
        manifest = directory / "manifest.json"
        content = manifest.read_bytes()
        manifest.rename(tmp_path / "manifest.json")
        os.mkfifo(manifest)
        found: list[int] = []

        def search() -> None:
            found.append(len(requests.get(f"{server.url}api/search?sha1={NEW}", timeout=60).json()))

        searches = [
            threading.Thread(target=search) for _ in range(6)
        ]  # more than there are threads for files
        for thread in searches:
            thread.start()
        with manifest.open(
            "wb"
        ) as pipe:  # opens once the view reads it, which then waits for what is written
            for _ in range(4):
                assert requests.get(f"{server.url}{JAMMY}/sha1/{OLD}/version", timeout=30).text == "1\n"
                assert requests.get(f"{server.url}{JAMMY}/", timeout=30).status_code == 200
            assert found == []
            (tmp_path / "manifest.json").rename(manifest)
            pipe.write(content)
        for thread in searches:
            thread.join()
        assert found == [1] * 6
