"""One key is one build, however many ask, from however many doors; and a fork is not the repository."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBUG = "ceph-deb-bookworm-x86_64-debug"
Ids = tuple[int, tuple[tuple[str, int], ...]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with two targets and two machines."""
    with tiny_installation(tmp_path_factory.mktemp("one"), targets=[DEB, DEBUG]) as made:
        yield made


def rebuild(here: Installation, build: dict[str, Any]) -> requests.Response:
    """Press the rebuild button of a build."""
    return requests.post(
        f"{here.url}api/v2/builds/{build['buildid']}",
        json={"jsonrpc": "2.0", "id": 1, "method": "rebuild", "params": {}},
        headers={"Authorization": f"Bearer {here.token}"},
        timeout=120,
    )


def ids(answer: requests.Response) -> Ids:
    """Give buildset and buildrequest ids, from any door."""
    assert answer.status_code == 200, answer.text
    buildset, buildrequests, *_ = answer.json()["result"]
    return buildset, tuple(sorted(buildrequests.items()))


def succeeded(here: Installation, answer: dict[str, Any]) -> None:
    """Wait for a request's end, which must be good."""
    assert here.wait(answer)["results"] == 0, here.said(answer)


def is_whole(here: Installation, key: str) -> bool:
    """Whether a published key has all its files, as the package server sees it."""
    target, sha1 = key.split("/")
    base = f"{here.packages_url}{target}/sha1/{sha1}/"
    files = requests.get(f"{base}manifest.json", timeout=30).json()["files"]
    sizes = {
        file["path"]: int(requests.head(base + file["path"], timeout=30).headers["Content-Length"])
        for file in files
    }
    return len(files) >= 8 and all(sizes[file["path"]] == file["size"] for file in files)


def test_two_hundred_requests_for_ten_keys_are_ten_builds(here: Installation) -> None:
    """20 clients ask 200 times, by sha1, by ref and by the rebuild button: every answer is the same one."""
    shas = {f"wip/{number}": here.repository.commit(ref=f"wip/{number}") for number in range(10)}
    before = len(here.get("builds")["builds"])

    def ask(number: int) -> tuple[str, Ids]:
        ref = f"wip/{number % 10}"
        sha1 = shas[ref]
        door = number // 10 % 4
        if door == 1:
            return sha1, ids(here.force(builderNames=[DEB], ref=ref))
        if door == 2:
            for build in here.get("builds?property=package_key")["builds"]:
                properties = here.get(f"builds/{build['buildid']}/properties")["properties"][0]
                if properties.get("package_key", [""])[0] == f"{DEB}/{sha1}":
                    return sha1, ids(rebuild(here, build))
        return sha1, ids(here.force(builderNames=[DEB], sha1=sha1))

    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(ask, range(200)))
    by_sha1: dict[str, set[Ids]] = {}
    for sha1, given in answers:
        by_sha1.setdefault(sha1, set()).add(given)
    assert len(by_sha1) == 10
    assert [len(given) for given in by_sha1.values()] == [1] * 10
    requests_of = {sha1: dict(next(iter(given))[1]) for sha1, given in by_sha1.items()}
    assert len({tuple(one.items()) for one in requests_of.values()}) == 10
    for one in requests_of.values():
        succeeded(here, {"buildrequest_ids": one})
    builds = here.get("builds")["builds"]
    assert len(builds) == before + 10, [build["state_string"] for build in builds]
    for ref, sha1 in shas.items():
        assert (here.packages / DEB / "ref" / ref / "sha1").read_text() == f"{sha1}\n"
    for sha1, given in by_sha1.items():
        assert ids(here.force(builderNames=[DEB], sha1=sha1)) in given, "published, and still the same ids"


def test_two_targets_in_one_request(here: Installation) -> None:
    """Each target gets its own build and its own answer."""
    sha1 = here.repository.commit()
    answer = here.force(builderNames=[DEB, DEBUG, DEB], sha1=sha1)
    _, buildrequests, answers = answer.json()["result"]
    assert [one["package_key"] for one in answers] == [f"{DEB}/{sha1}", f"{DEBUG}/{sha1}"]
    assert len(set(buildrequests.values())) == 2
    for one in answers:
        succeeded(here, one)
        assert is_whole(here, one["package_key"])


def test_another_sha1_that_waits_is_not_swallowed(here: Installation) -> None:
    """Requests for one builder that wait together stay different requests."""
    shas = [here.repository.commit(tiny.sleeping(1)) for _ in range(4)]
    answers = [here.ask(DEB, sha1=sha1) for sha1 in shas]
    assert len({one["buildset_id"] for one in answers}) == 4
    for sha1, answer in zip(shas, answers, strict=True):
        succeeded(here, answer)
        assert is_whole(here, f"{DEB}/{sha1}")


def test_rebuild_button(here: Installation) -> None:
    """In flight it gives the ids that there are; once published it builds nothing."""
    answer = here.ask(DEB, sha1=here.repository.commit(tiny.sleeping(2)))
    [build] = here.until(lambda: here.builds(answer), "the build is there")
    first = (answer["buildset_id"], tuple(answer["buildrequest_ids"].items()))
    assert ids(rebuild(here, build)) == first
    succeeded(here, answer)
    before = len(here.get("buildrequests")["buildrequests"])
    assert ids(rebuild(here, build)) == first
    assert len(here.get("buildrequests")["buildrequests"]) == before


def test_failed_key_is_built_again_for_who_asks_again(here: Installation) -> None:
    """A failure is no answer for later: the same key is a new request, at once."""
    sha1 = here.repository.commit(tiny.COMPILE_ERROR)
    first = here.ask(DEB, sha1=sha1)
    assert here.wait(first)["results"] == 2
    again = here.ask(DEB, sha1=sha1)
    assert again["buildset_id"] != first["buildset_id"]
    assert here.wait(again)["results"] == 2
    assert ids(rebuild(here, here.builds(again)[0]))[0] > again["buildset_id"]


def test_purged_key_is_built_again(here: Installation) -> None:
    """What an operator removes from the disk, a file or all of it, is not published any more."""
    sha1 = here.repository.commit()
    key = f"{DEB}/{sha1}"
    directory = here.packages / DEB / "sha1" / sha1
    answer = here.ask(DEB, sha1=sha1)
    succeeded(here, answer)
    for purge in (
        lambda: next(directory.rglob("*.deb")).unlink(),
        lambda: os.truncate(next(directory.rglob("*.deb")), 100),
        lambda: (directory / "version").unlink(),
        lambda: shutil.rmtree(directory),
    ):
        purge()
        again = here.ask(DEB, sha1=sha1)
        assert again["state"] == "on its way"
        assert again["buildset_id"] > answer["buildset_id"]
        succeeded(here, again)
        assert is_whole(here, key)
        assert (directory / "version").exists()
        answer = again
    assert here.ask(DEB, sha1=sha1)["state"] == "published"
    assert list(here.settings.packages.staging.rglob("*.deb")) == []


@pytest.fixture(scope="module")
def fork(here: Installation) -> tiny.Repository:
    """A fork without any tag, whose `main` is its own."""
    return here.repository.fork(here.input / "somebody/ceph.git")


def fork_url(here: Installation) -> str:
    """Where the fork is served."""
    return f"git://127.0.0.1:{here.git_port}/somebody/ceph.git"


def test_fork_has_the_canonical_version(here: Installation, fork: tiny.Repository) -> None:
    """A fork without tags gets the version that the canonical repository's tags give."""
    sha1 = fork.commit(ref="wip/x")
    answer = here.ask(DEB, ref="wip/x", git_url=fork_url(here))
    assert answer["package_key"] == f"{DEB}/{sha1}"
    succeeded(here, answer)
    commits = fork.git("rev-list", "--count", f"{fork.first}..{sha1}")
    served = requests.get(f"{answer['url']}version", timeout=30)
    assert served.text == f"1.0-{commits}-g{sha1[:8]}-1bookworm\n"
    link = here.packages / DEB / "ref/wip/x"
    assert os.readlink(link) == f"../../sha1/{sha1}", "a ref that only the fork has is linked, its slash kept"
    assert requests.get(f"{here.packages_url}{DEB}/ref/wip/x/sha1", timeout=30).text == f"{sha1}\n"


def test_main_of_a_fork_does_not_take_the_link_of_main(here: Installation, fork: tiny.Repository) -> None:
    """`ref/main` stays the default repository's, whoever asks for his own main and whenever."""
    ours = here.ask(DEB, ref="main")
    succeeded(here, ours)
    link = here.packages / DEB / "ref/main"
    assert os.readlink(link) == f"../sha1/{here.repository.sha1('main')}"
    theirs = fork.commit(ref="main")
    answer = here.ask(DEB, ref="main", git_url=fork_url(here))
    assert answer["package_key"] == f"{DEB}/{theirs}"
    succeeded(here, answer)
    assert os.readlink(link) == f"../sha1/{here.repository.sha1('main')}"
    again = here.ask(DEB, ref="main", git_url=fork_url(here))
    assert again["state"] == "published"
    assert os.readlink(link) == f"../sha1/{here.repository.sha1('main')}"


def test_main_that_moves_takes_its_link_along(here: Installation) -> None:
    """The link follows the branch once the new commit is published, and not before."""
    before = os.readlink(here.packages / DEB / "ref/main")
    sha1 = here.repository.commit(tiny.sleeping(1), ref="main")
    answer = here.ask(DEB, ref="main")
    assert os.readlink(here.packages / DEB / "ref/main") == before
    succeeded(here, answer)
    assert os.readlink(here.packages / DEB / "ref/main") == f"../sha1/{sha1}"


def test_a_forks_link_is_another_forks_once_it_is_gone(here: Installation, fork: tiny.Repository) -> None:
    """The first of two forks keeps the link while it has the branch; then the other gets it. Both answers say so."""
    other = here.repository.fork(here.input / "another/ceph.git")
    other_url = fork_url(here).replace("/somebody/", "/another/")
    link = f"{here.packages_url}{DEB}/ref/shared/"
    theirs, ours = fork.commit(ref="shared"), other.commit(ref="shared")
    answer = here.ask(DEB, ref="shared", git_url=fork_url(here))
    assert (answer["link"], answer["no_link"]) == (link, "")
    succeeded(here, answer)
    answer = here.ask(DEB, ref="shared", git_url=other_url)
    assert (answer["link"], answer["no_link"]) == ("", f"it is that of 'shared' in {fork_url(here)}")
    succeeded(here, answer)
    assert requests.get(f"{link}sha1", timeout=30).text == f"{theirs}\n"
    fork.git("update-ref", "-d", "refs/heads/shared")
    answer = here.ask(DEB, ref="shared", git_url=other_url)
    assert (answer["state"], answer["link"]) == ("published", link)
    assert requests.get(f"{link}sha1", timeout=30).text == f"{ours}\n"
    [build] = here.builds(answer)
    properties = here.get(f"builds/{build['buildid']}/properties")["properties"][0]
    assert properties["ref_link"][0] == f"it is that of 'shared' in {fork_url(here)}"


def test_a_link_in_the_way_gives_way(here: Installation) -> None:
    """A branch whose name begins with a deleted one's and a slash gets the link in its place."""
    here.repository.commit(ref="whole")
    succeeded(here, here.ask(DEB, ref="whole"))
    here.repository.git("update-ref", "-d", "refs/heads/whole")
    here.repository.commit(ref="whole/part")
    answer = here.ask(DEB, ref="whole/part")
    assert (answer["link"], answer["no_link"]) == (f"{here.packages_url}{DEB}/ref/whole/part/", "")
    succeeded(here, answer)
