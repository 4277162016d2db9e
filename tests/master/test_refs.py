"""Refs: what a real repository says that they are, and what was remembered of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, DeferredList

from master.publishing.last_resolved import LastResolved
from master.requests import git_process, refs
from master.requests.refs import RefUnknown, RepositoryUnreachable, resolve
from model.package_key import PackageKey
from tests.git_repositories import commit, git, git_daemon, new_repository
from tests.patience import free_ports
from tests.reactor import finish


@dataclass
class Served:
    """A repository behind a git daemon, and its commits."""

    url: str
    base: str
    first: str
    second: str
    third: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a repository with all kinds of tags and branches."""
    directory = tmp_path_factory.mktemp("refs")
    repository = new_repository(directory / "ceph.git")
    first = commit(repository, "first")
    git(repository, "tag", "-a", "-m", "release", "v19.2.0")
    git(repository, "branch", "wip/with/slashes")
    git(repository, "branch", "both")
    second = commit(repository, "second")
    git(repository, "tag", "light")
    git(repository, "tag", "-a", "-m", "of a tag", "nested", "v19.2.0")
    third = commit(repository, "third")
    git(repository, "tag", "both")
    git(repository, "update-ref", "refs/elsewhere/hidden", first)
    git(repository, "branch", "foo/refs/heads/nested-name", first)
    new_repository(directory / "empty.git")
    newer = new_repository(directory / "sha256.git", "sha256")
    commit(newer, "first")
    with git_daemon(directory) as base:
        yield Served(f"{base}ceph.git", base, first, second, third)


def resolved(url: str, ref: str, seconds: float = 60, kind: str = "") -> str:
    """Resolve on a real reactor."""
    return str(finish(lambda reactor: resolve(reactor, url, ref, seconds, kind)))


def test_an_annotated_tag_is_peeled(served: Served) -> None:
    """An annotated tag, also one of a tag, gives the commit and not the tag's own object."""
    assert resolved(served.url, "v19.2.0") == served.first
    assert resolved(served.url, "nested") == served.first


def test_a_lightweight_tag_and_branches_are_commits(served: Served) -> None:
    """A lightweight tag and a branch give their commits, slashes or not."""
    assert resolved(served.url, "light") == served.second
    assert resolved(served.url, "main") == served.third
    assert resolved(served.url, "wip/with/slashes") == served.first


def test_a_tag_goes_before_a_branch_of_its_name(served: Served) -> None:
    """Where a tag and a branch have one name, the tag is meant, as git itself does."""
    assert resolved(served.url, "both") == served.third


def test_only_the_kind_that_is_meant_is_looked_for(served: Served) -> None:
    """Where only a branch or only a tag is meant, the other one of its name is none."""
    assert resolved(served.url, "both", kind="branch") == served.first
    assert resolved(served.url, "both", kind="tag") == served.third
    assert resolved(served.url, "nested", kind="tag") == served.first
    for ref, kind in (("light", "branch"), ("main", "tag")):
        with pytest.raises(RefUnknown) as caught:
            resolved(served.url, ref, kind=kind)
        assert str(caught.value) == f"{served.url} has no {kind} {ref!r}"


def test_a_ref_of_another_kind_has_a_full_name(served: Served) -> None:
    """A ref that is no branch and no tag is found by its full name, and by no part of it."""
    assert resolved(served.url, "refs/elsewhere/hidden", kind="ref") == served.first
    for ref in ("refs/elsewhere", "refs/hidden", "refs/heads/nested-name"):
        with pytest.raises(RefUnknown) as caught:
            resolved(served.url, ref, kind="ref")
        assert str(caught.value) == f"{served.url} has no ref {ref!r}"


@pytest.mark.parametrize(
    "ref", ["nonesuch", "hidden", "elsewhere/hidden", "slashes", "nested-name", "HEAD", "MAIN"]
)
def test_an_unknown_ref_has_its_sentence(served: Served, ref: str) -> None:
    """A name that is no branch and no tag is unknown, though a ref elsewhere ends with it."""
    with pytest.raises(RefUnknown) as caught:
        resolved(served.url, ref)
    assert str(caught.value) == f"{served.url} has no branch or tag {ref!r}"


def test_an_empty_repository_has_no_refs(served: Served) -> None:
    """A repository without commits answers, and has no such ref."""
    with pytest.raises(RefUnknown, match=r"empty\.git has no branch or tag 'main'$"):
        resolved(served.base + "empty.git", "main")


def test_a_repository_of_longer_hashes_has_its_sentence(served: Served) -> None:
    """A repository whose commits are not SHA-1 is refused with a sentence for the git URL."""
    with pytest.raises(RepositoryUnreachable) as caught:
        resolved(served.base + "sha256.git", "main")
    assert str(caught.value).startswith(f"{served.base}sha256.git cannot be asked for its refs: ")


def test_no_repository_has_its_sentence(served: Served) -> None:
    """Where the server has no such repository, git's own last words are told."""
    with pytest.raises(RepositoryUnreachable) as caught:
        resolved(served.base + "nonesuch.git", "main")
    assert str(caught.value).startswith(f"{served.base}nonesuch.git cannot be asked for its refs: ")
    assert not caught.value.passing, "there will be none the next time, either"


def test_an_unreachable_port_has_its_sentence() -> None:
    """Where nobody listens, the sentence says so, and names the URL."""
    [port] = free_ports(1)
    with pytest.raises(RepositoryUnreachable) as caught:
        resolved(f"git://127.0.0.1:{port}/ceph.git", "main")
    sentence = str(caught.value)
    assert sentence.startswith(f"git://127.0.0.1:{port}/ceph.git cannot be asked for its refs: ")
    assert "Connection refused" in sentence
    assert caught.value.passing


def test_a_server_that_never_answers_is_given_up() -> None:
    """A server that takes the connection and stays silent is given up after the limit, and may be asked again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/ceph.git"
        with pytest.raises(RepositoryUnreachable) as caught:
            resolved(url, "main", seconds=0.5)
    assert str(caught.value) == f"{url} did not answer within 0.5 s; ask again"
    assert caught.value.passing


@pytest.mark.parametrize("scheme", ["file://", "ext::cat ", ""])
def test_only_network_protocols_are_spoken(scheme: str, tmp_path: Path) -> None:
    """Even a URL that got past the checks reads no local repository and runs no program."""
    repository = new_repository(tmp_path / "local")
    commit(repository, "first")
    with pytest.raises(RepositoryUnreachable, match=r"cannot be asked for its refs: .*not allowed") as caught:
        resolved(f"{scheme}{repository}", "main")
    assert not caught.value.passing


DEB = "ceph-deb-jammy-x86_64-default"
RPM = "ceph-rpm-centos9-x86_64-default"
OLD = PackageKey.from_string(f"{DEB}/{'a' * 40}")
NEW = PackageKey.from_string(f"{DEB}/{'b' * 40}")
OTHER = PackageKey.from_string(f"{RPM}/{'a' * 40}")


CEPH = "https://github.com/ceph/ceph.git"
FORK = "https://github.com/me/ceph.git"


def record(last: LastResolved, key: PackageKey, ref: str, git_url: str = CEPH) -> None:
    """Write down a ref of a repository."""
    last.record(key, ref, git_url)


def test_a_ref_is_where_it_was_last(tmp_path: Path) -> None:
    """A ref that moved is not at the older commit any more, whenever that one is published."""
    last = LastResolved(tmp_path / "refs.json")
    record(last, OLD, "main")
    record(last, OLD, "wip/x")
    assert last.refs_at(OLD) == ["main", "wip/x"]
    record(last, NEW, "main")
    assert last.refs_at(OLD) == ["wip/x"]
    assert last.refs_at(NEW) == ["main"]
    record(last, OLD, "main")
    assert (last.refs_at(OLD), last.refs_at(NEW)) == (["main", "wip/x"], [])


def test_whose_a_ref_is_is_remembered(tmp_path: Path) -> None:
    """The repository that a ref was last recorded for has it, in each target by itself; the link follows that one."""
    last = LastResolved(tmp_path / "refs.json")
    assert last.owner(DEB, "wip/x") == ""
    record(last, OLD, "wip/x", FORK)
    assert (last.owner(DEB, "wip/x"), last.owner(RPM, "wip/x")) == (FORK, "")
    record(last, NEW, "wip/x")
    assert last.owner(DEB, "wip/x") == CEPH
    assert (last.refs_at(OLD), last.refs_at(NEW)) == ([], ["wip/x"])


def test_targets_have_refs_of_their_own(tmp_path: Path) -> None:
    """A ref of one target says nothing of another's."""
    last = LastResolved(tmp_path / "refs.json")
    record(last, OLD, "main")
    assert last.refs_at(OTHER) == []


def test_what_was_resolved_survives_the_master(tmp_path: Path) -> None:
    """A master that starts again knows where each ref was and whose it is, of the targets that are still on."""
    path = tmp_path / "refs.json"
    first = LastResolved(path)
    record(first, OLD, "main")
    record(first, NEW, "main")
    record(first, OTHER, "v19.2.0")
    again = LastResolved(path)
    assert again.refs_at(NEW) == ["main"]
    assert again.refs_at(OTHER) == ["v19.2.0"]
    assert again.all({DEB: NEW.target, RPM: OTHER.target}) == [(NEW, "main"), (OTHER, "v19.2.0")]
    assert again.all({RPM: OTHER.target}) == [(OTHER, "v19.2.0")]
    assert again.owner(DEB, "main") == CEPH
    assert [entry.name for entry in tmp_path.iterdir()] == ["refs.json"]


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    """Resolving a ref to the commit that it was at before leaves the file alone."""
    path = tmp_path / "refs.json"
    last = LastResolved(path)
    record(last, OLD, "main")
    path.unlink()
    record(last, OLD, "main")
    assert not path.exists()


def test_a9_servers_that_never_answer_are_asked_a_few_at_a_time() -> None:
    """Of many requests for a silent server, a bounded number of git processes run, and all get their answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x.git"

        async def many(reactor: Any) -> list[Any]:
            asked = [
                Deferred.fromCoroutine(resolve(reactor, url, "main", 1))
                for _ in range(git_process.AT_ONCE + 10)
            ]
            answers = await DeferredList(asked, consumeErrors=True)
            return [answer.value for _, answer in answers]

        most, running, real = 0, 0, refs.run

        async def counted(*arguments: Any) -> Any:
            nonlocal most, running
            running += 1
            most = max(most, running)
            try:
                return await real(*arguments)
            finally:
                running -= 1

        with mock.patch.object(refs, "run", counted):
            answers = finish(many)
    assert most == git_process.AT_ONCE
    assert {type(answer) for answer in answers} == {RepositoryUnreachable}


class _WantsNtlm(BaseHTTPRequestHandler):
    """Answers 401 and offers NTLM and Kerberos, as a server does that collects the hashes of its visitors."""

    sent: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Note the Authorization header."""
        self.sent.append(self.headers.get("Authorization", ""))
        self.send_response(401)
        for scheme in ("NTLM", "Negotiate", 'Basic realm="x"'):
            self.send_header("WWW-Authenticate", scheme)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def test_a9_a_server_that_asks_for_ntlm_is_sent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """git answers no server's request for a login, though it would without our option."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _WantsNtlm) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.git"
        sent = []
        for options in (git_process.OPTIONS, git_process.OPTIONS[:-2]):
            monkeypatch.setattr(git_process, "OPTIONS", options)
            _WantsNtlm.sent.clear()
            with pytest.raises(RepositoryUnreachable, match="Authentication failed"):
                resolved(url, "main")
            sent.append("".join(_WantsNtlm.sent))
        server.shutdown()
    assert sent[0] == ""
    if not sent[1]:
        pytest.skip("this machine's git has no NTLM, so it sends nothing without the option either")
    assert sent[1].startswith("NTLM ")
