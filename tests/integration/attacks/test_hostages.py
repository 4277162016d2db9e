"""Attacks by which the first request for a commit could make it fail, or take for ever, for everybody who waits for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration.harness import DEB, Installation, tiny_installation
from tests.listening import listening

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.integration.tiny import Repository

SECRETS = {"alice": "alice's long secret", "mallory": "mallory's long secret"}
SILENCE = 4


def silent(connection: socket.socket, _: int) -> None:
    """Accept what is sent, and answer nothing."""
    while connection.recv(4096):
        pass


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master, a fork of Alice's and one of Mallory's, and a server of Mallory's that says nothing."""
    users = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in SECRETS.items()}
    environment = {"BUILDPACKAGES_NETWORK_SILENCE": str(SILENCE)}
    with (
        listening(silent) as port,
        tiny_installation(
            tmp_path_factory.mktemp("hostages"),
            also_allowed=[f"git://127.0.0.1:{port}/"],
            users=users,
            workers={"local": {"environment": environment}},
            git={"timeout": 2},
        ) as made,
    ):
        made.silent_url = f"git://127.0.0.1:{port}/ceph.git"  # type: ignore[attr-defined]
        made.forks = {name: made.repository.fork(made.input / f"{name}/ceph.git") for name in SECRETS}  # type: ignore[attr-defined]
        yield made


def fork_url(here: Installation, name: str) -> str:
    """Return the URL of somebody's fork."""
    return f"git://127.0.0.1:{here.git_port}/{name}/ceph.git"


def fork(here: Installation, name: str) -> Repository:
    """Return somebody's fork."""
    return here.forks[name]  # type: ignore[attr-defined,no-any-return]


def ask(here: Installation, name: str, sha1: str, git_url: str) -> dict[str, Any]:
    """Request packages as a user."""
    answer = here.force(SECRETS[name], builderNames=[DEB], sha1=sha1, git_url=git_url)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["result"][2][0]
    return found


def in_checkout(here: Installation, answer: dict[str, Any]) -> None:
    """Wait until a build checks out."""
    [number] = answer["buildrequest_ids"].values()
    here.until(
        lambda: here.get(f"packages/{number}")["packages"][0]["step"] == "checkout", "the checkout has begun"
    )


def with_submodule(repository: Repository, sha1: str) -> str:
    """Commit a submodule with a relative URL on top of `main`; return the commit."""
    modules = b'[submodule "corpus"]\n\tpath = corpus\n\turl = ../corpus.git\n'
    stream = (
        b"commit refs/heads/corpus\ncommitter A <a@example.invalid> 1724313700 +0000\ndata 1\nc\n"
        b"from refs/heads/main^0\n"
        b"M 100644 inline .gitmodules\ndata %d\n%b\nM 160000 %b corpus\n"
        % (len(modules), modules, sha1.encode())
    )
    repository.git("fast-import", "--quiet", "--force", stdin=stream)
    return repository.sha1("corpus")


def published(here: Installation, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of what an answer leads to."""
    [number] = answer["buildrequest_ids"].values()
    status = here.get(f"packages/{number}")["packages"][0]
    assert status["state"] == "published"
    found: dict[str, Any] = requests.get(f"{answer['url']}manifest.json", timeout=30).json()
    return found


def test_b3_a_failure_of_the_first_fork_is_no_answer_to_the_others(here: Installation) -> None:
    """Mallory's fork lacks the neighbour that a submodule needs. Alice joins with her own fork, and gets packages of it."""
    corpus = here.repository.fork(here.input / "alice/corpus.git")
    sha1 = with_submodule(fork(here, "alice"), corpus.first)
    objects = here.input / "mallory/ceph.git/objects/info/alternates"
    objects.write_text(f"{here.input}/alice/ceph.git/objects\n")
    first = ask(here, "mallory", sha1, fork_url(here, "mallory"))
    second = ask(here, "alice", sha1, fork_url(here, "alice"))
    assert second["buildrequest_ids"] == first["buildrequest_ids"], "one build for both"
    assert here.wait(second)["results"] == 0, here.said(second)
    [build] = here.builds(second)
    said = here.steps(build)["checkout"]["state_string"]
    assert "submodules cannot be fetched: corpus" in said
    assert f"{fork_url(here, 'mallory').replace('ceph', 'corpus')}: " in said
    assert said.endswith(f"The next step tries {fork_url(here, 'alice')}, which another request names")
    assert published(here, first)["git_url"] == fork_url(here, "alice")


def test_b4_a_silent_server_is_no_hostage_taker(here: Installation) -> None:
    """Mallory names a server that says nothing. Alice joins during the checkout, and gets packages after some seconds."""
    sha1 = fork(here, "alice").commit(ref="b4")
    first = ask(here, "mallory", sha1, here.silent_url)  # type: ignore[attr-defined]
    in_checkout(here, first)
    second = ask(here, "alice", sha1, fork_url(here, "alice"))
    assert second["buildrequest_ids"] == first["buildrequest_ids"], "one build for both"
    assert here.wait(second)["results"] == 0, here.said(second)
    [build] = here.builds(second)
    assert f"the server sent nothing for {SILENCE} s" in here.steps(build)["checkout"]["state_string"]
    assert published(here, first)["git_url"] == fork_url(here, "alice")


def test_b3_a_failure_names_every_repository_that_was_tried(here: Installation) -> None:
    """A commit that no repository has fails for all who wait, with the reason of each."""
    sha1 = "0" * 39 + "2"
    first = ask(here, "mallory", sha1, here.silent_url)  # type: ignore[attr-defined]
    in_checkout(here, first)
    ask(here, "alice", sha1, fork_url(here, "mallory"))
    assert here.wait(first)["results"] == 2
    [build] = here.builds(first)
    assert build["state_string"].startswith(
        f"Checking out the commit failed: {here.silent_url} cannot be fetched from: "  # type: ignore[attr-defined]
        f"the server sent nothing for {SILENCE} s. Request again, or name another repository that has the commit; "
        f"{fork_url(here, 'mallory')} has no commit {sha1}"
    )
