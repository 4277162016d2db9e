"""Whether a repository has a commit, asked of real git servers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from master.requests import commits as module
from master.requests.commits import Commits, CommitUnknown
from master.requests.refs import RepositoryUnreachable
from tests.git_repositories import commit, git, git_daemon, new_repository
from tests.patience import free_ports
from tests.reactor import finish

ABSENT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """A repository behind a git daemon, and objects of it."""

    url: str
    base: str
    hidden: str
    """A commit that no ref leads to, as of a branch that was pushed anew."""
    tag: str
    blob: str
    directory: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("commits")
    repository = new_repository(directory / "ceph.git")
    hidden = commit(repository, "first", {"file": "x"})
    git(repository, "commit", "--quiet", "--amend", "-m", "again")
    git(repository, "tag", "-a", "-m", "release", "v1")
    tag, blob = git(repository, "rev-parse", "v1"), git(repository, "rev-parse", "HEAD:file")
    with git_daemon(directory) as base:
        yield Served(f"{base}ceph.git", base, hidden, tag, blob, directory)


def asked(url: str, *sha1s: str, seconds: float = 60) -> list[object]:
    """Check commits at once on a real reactor; return each outcome: None, or the error."""

    async def check(reactor: Any) -> list[object]:
        commits = Commits(reactor, lambda: seconds)

        async def one(sha1: str) -> object:
            try:
                await commits.check(url, sha1)
            except (CommitUnknown, RepositoryUnreachable) as error:
                return error
            return commits.is_settled(url, sha1)

        return list(await gatherResults([Deferred.fromCoroutine(one(sha1)) for sha1 in sha1s]))

    found: list[object] = finish(check)
    return found


def test_a_commit_that_is_there_is_settled(served: Served) -> None:
    """A commit is found by its sha1 alone, whether a ref leads to it or not."""
    assert asked(served.url, served.hidden) == [True]


def test_a_commit_that_is_nowhere_has_its_sentence(served: Served) -> None:
    """The sentence names the repository and the commit, and says what to do."""
    [error] = asked(served.url, ABSENT)
    assert isinstance(error, CommitUnknown)
    assert (
        str(error)
        == f"{served.url} has no commit {ABSENT}: push it there, or name the repository that has it"
    )


def test_what_is_no_commit_is_refused(served: Served) -> None:
    """The sha1 of an annotated tag or of a file is refused: the build's checkout could not be at it."""
    told = [str(error) for error in asked(served.url, served.tag, served.blob)]
    assert told == [
        f"{served.tag} in {served.url} is not a commit but an annotated tag: name the tag instead",
        f"{served.blob} in {served.url} is not a commit but a blob",
    ]


def test_many_who_ask_at_once_are_one_question(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty checks of a commit are one fetch, and all get its outcome; another commit has its own."""
    real, fetches = module.run, []

    def run(reactor: Any, arguments: Any, *rest: Any) -> Coroutine[Any, Any, Any]:
        fetches.extend([arguments[-1]] if "fetch" in arguments else [])
        return real(reactor, arguments, *rest)

    monkeypatch.setattr(module, "run", run)
    outcomes = asked(served.url, *[ABSENT] * 10, *[served.hidden] * 10)
    assert sorted(fetches) == sorted([ABSENT, served.hidden])
    assert [type(outcome) for outcome in outcomes] == [CommitUnknown] * 10 + [bool] * 10


def test_a_server_without_filters_is_asked_all_the_same(served: Served) -> None:
    """A server that ignores the filter sends its small tree as well; the answer is as good."""
    plain = new_repository(served.directory / "plain.git")
    sha1 = commit(plain, "first", {"file": "x"})
    git(plain, "config", "uploadpack.allowFilter", "false")
    outcomes = asked(f"{served.base}plain.git", sha1, ABSENT)
    assert outcomes[0] is True
    assert isinstance(outcomes[1], CommitUnknown)


def test_a_tree_too_large_for_a_question_is_not_waited_for(served: Served) -> None:
    """A server that ignores the filter and has a large tree is broken off: then nothing is known, and nothing refused."""
    large = new_repository(served.directory / "large.git")
    (large / "file").write_bytes(os.urandom(12_000_000))
    sha1 = commit(large, "first")
    git(large, "config", "uploadpack.allowFilter", "false")
    assert asked(f"{served.base}large.git", sha1) == [False]


def test_a_server_that_never_answers_settles_nothing() -> None:
    """A server that takes the connection and stays silent is given up: the build may still reach it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert asked(f"git://127.0.0.1:{silent.getsockname()[1]}/x.git", ABSENT, seconds=0.5) == [False]
    [port] = free_ports(1)
    assert asked(f"git://127.0.0.1:{port}/x.git", ABSENT) == [False]


def test_a_repository_that_is_none_has_its_sentence(served: Served) -> None:
    """Where there is no such repository, there will be no commit of it later, either."""
    [error] = asked(f"{served.base}nonesuch.git", ABSENT)
    assert isinstance(error, RepositoryUnreachable)
    assert str(error).startswith(f"{served.base}nonesuch.git cannot be asked for {ABSENT}: ")
    assert not error.passing


def old_server(listener: socket.socket, advertised: str) -> None:
    """Speak git's first protocol, as a server of before 2018: one ref, and no word about fetching by sha1."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            line = f"{advertised} refs/heads/main\0multi_ack side-band-64k ofs-delta shallow agent=old/1\n"
            connection.sendall(f"{len(line) + 4:04x}{line}0000".encode())
            connection.recv(65536)


def test_a_server_that_lets_no_sha1_be_fetched_is_not_asked_again(served: Served) -> None:
    """An old server cannot answer: the request is accepted, and the next one does not wait for the server again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=old_server, args=(listener, served.hidden), daemon=True).start()
        url = f"git://127.0.0.1:{listener.getsockname()[1]}/ceph.git"
        assert asked(url, ABSENT) == [True]
        listener.shutdown(socket.SHUT_RDWR)


def endless_server(listener: socket.socket) -> None:
    """Advertise refs without an end."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        lines = b"".join(
            b"%04x%s" % (len(line) + 4, line)
            for line in (f"{number:040x} refs/heads/{number:0200x}\n".encode() for number in range(1, 2000))
        )
        try:
            connection.sendall(b"%04x%s" % (60, b"1" * 40 + b" refs/heads/x\0\n"[:16].ljust(16)))
            while True:
                connection.sendall(lines)
        except OSError:
            return


def test_refs_without_an_end_fill_no_memory(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lists refs for ever is broken off, whatever time there is, and nothing is refused for it."""
    limits = ("prlimit", f"--as={200 * 1024**2}", "--")
    monkeypatch.setattr("master.requests.git_process.LIMITS", limits)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=endless_server, args=(listener,), daemon=True).start()
        assert asked(f"git://127.0.0.1:{listener.getsockname()[1]}/ceph.git", ABSENT) == [False]


def test_what_was_found_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settled commit is no question for an hour; of very many the oldest are forgotten first."""
    monkeypatch.setattr(module, "_MOST_KEPT", 2)
    clock = Clock()
    commits = Commits(clock, lambda: 1)
    for sha1 in ("a", "b", "a", "c"):
        commits.settle("url", sha1)
    assert [commits.is_settled("url", sha1) for sha1 in "abc"] == [True, False, True]
    assert not commits.is_settled("another", "a")
    clock.advance(3599)
    assert commits.is_settled("url", "a")
    clock.advance(1)
    assert not commits.is_settled("url", "a")


def test_nothing_is_left_of_a_question(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever came of it, the repository that a commit was fetched into is gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked(served.url, served.hidden, ABSENT, served.tag)
    assert list(tmp_path.iterdir()) == []
