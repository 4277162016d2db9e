"""The digest of a commit's dependency lists, from real git servers, and from servers that do harm."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults

from master.prepared_images.dependency_digest import LIMITS, DependencyDigests, NoDigestError, digest
from tests.git_repositories import commit, git, git_daemon, new_repository
from tests.reactor import finish

BLOB = b"100644 blob 8baef1b4abc478178b004d62031cf7fe6db6f903\t"
"""The beginning of an entry of `git ls-tree -z`."""

FILES = {
    "install-deps.sh": "#!/bin/bash\napt-get install cmake\n",
    "debian/control": "Build-Depends: cmake\n",
    "debian/rules": "#!/usr/bin/make -f\n",
    "ceph.spec.in": "BuildRequires: cmake\n",
    "src/script/lib-build.sh": "prepare() { :; }\n",
    "src/main.c": "int main() {}\n",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Serve the repositories below a directory; give that, and its URL."""
    directory = tmp_path_factory.mktemp("served")
    with git_daemon(directory) as url:
        yield directory, url


@pytest.fixture
def repository(served: tuple[Path, str], request: pytest.FixtureRequest) -> tuple[Path, str]:
    """Make a repository with dependency lists for a test; give it and its URL."""
    directory, url = served
    name = f"{request.node.name}.git"
    made = new_repository(directory / name)
    commit(made, "first", FILES)
    return made, f"{url}{name}/.git"


def digests(directory: Path, *asked: tuple[str, str], seconds: float = 20) -> list[str]:
    """Give the digests of git URLs and sha1s, asked of one object in turn."""

    async def ask(reactor: object) -> list[str]:
        asking = DependencyDigests(reactor, directory / "digests", seconds)
        return [await asking.of(git_url, sha1) for git_url, sha1 in asked]

    return list(finish(ask))


def refused(directory: Path, git_url: str, sha1: str, seconds: float = 20) -> str:
    """Give the sentence that says why there is no digest."""
    with pytest.raises(NoDigestError) as caught:
        digests(directory, (git_url, sha1), seconds=seconds)
    return str(caught.value)


def head(repository: Path) -> str:
    """Give the commit that a repository is at."""
    return git(repository, "rev-parse", "HEAD")


def test_the_digest_is_of_names_modes_and_contents() -> None:
    """It is SHA-256 over mode, type, object and path of each file that counts, a line each, in the order of paths."""
    told = b"100755 blob 00750edc07d6415dcc07ae0351e9397b0222b7ba\t"
    assert (
        digest([BLOB + b"ceph.spec.in", told + b"install-deps.sh", b""])
        == "60f30dcc9cd2f882d61dabc93e8a07ba12e4e9615dec4e106a87cb1b670e9bb1"
    )


def test_the_order_of_entries_is_nothing() -> None:
    """Whatever order git tells the files in, and however often, the digest is the same."""
    entries = [BLOB + name for name in (b"install-deps.sh", b"debian/control", b"a.spec", b"b.spec.in")]
    assert digest(entries) == digest([*reversed(entries), entries[0]])


@pytest.mark.parametrize(
    "name", [b"a.spec.bak", b"sub/a.spec", b"src/install-deps.sh", b"debian/rules", b"debian", b"README"]
)
def test_other_files_do_not_count(name: bytes) -> None:
    """A file that names no dependencies is not in the digest, wherever it has the name of one that does."""
    assert digest([BLOB + b"install-deps.sh", BLOB + name]) == digest([BLOB + b"install-deps.sh"])


@pytest.mark.parametrize(
    "name", ["install-deps.sh", "debian/control", "ceph.spec.in", "src/script/lib-build.sh"]
)
def test_each_dependency_list_counts(repository: tuple[Path, str], tmp_path: Path, name: str) -> None:
    """A commit that changes a dependency list has another digest, and one that takes it back the first again."""
    made, url = repository
    before = head(made)
    changed = commit(made, "changed", {name: "#!/bin/bash\nother\n"})
    back = commit(made, "back", {name: FILES[name]})
    first, second, third = digests(tmp_path, (url, before), (url, changed), (url, back))
    assert first == third != second


def test_what_is_built_does_not_count(repository: tuple[Path, str], tmp_path: Path) -> None:
    """A commit that changes sources only has the digest of the one before it."""
    made, url = repository
    before = head(made)
    after = commit(made, "sources", {"src/main.c": "int main() { return 1; }\n", "debian/rules": "x\n"})
    first, second = digests(tmp_path, (url, before), (url, after))
    assert first == second
    assert len(first) == 64


def test_a_mode_counts(repository: tuple[Path, str], tmp_path: Path) -> None:
    """An install-deps.sh that is no longer executable is not run, so the digest is another."""
    made, url = repository
    before = head(made)
    after = commit(made, "mode", {"install-deps.sh": FILES["install-deps.sh"]})
    assert after != before
    git(made, "update-index", "--chmod=-x", "install-deps.sh")
    git(made, "commit", "--quiet", "-m", "not executable")
    first, second = digests(tmp_path, (url, before), (url, head(made)))
    assert first != second


def test_a_commit_without_lists_has_a_digest(served: tuple[Path, str], tmp_path: Path) -> None:
    """Where nothing names dependencies, the digest is that of nothing."""
    made = new_repository(served[0] / "bare-of-lists.git")
    sha1 = commit(made, "nothing", {"README": "x\n"})
    assert digests(tmp_path, (f"{served[1]}bare-of-lists.git/.git", sha1)) == [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    ]


def test_no_file_is_fetched_and_nothing_stays(
    repository: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit with a large file costs trees only, and what was fetched is thrown away."""
    made, url = repository
    sha1 = commit(made, "large", {"large": os.urandom(2_000_000).hex()})
    # A fraction of the file, however it is packed: whoever fetched it would fail.
    limits = ("prlimit", "--fsize=500000", "--")
    monkeypatch.setattr("master.prepared_images.dependency_digest.LIMITS", limits)
    assert len(digests(tmp_path, (url, sha1))[0]) == 64
    assert list((tmp_path / "digests").iterdir()) == []


def test_a_digest_is_asked_for_once(repository: tuple[Path, str], tmp_path: Path) -> None:
    """The second time, no server is asked: it need not even be there."""
    made, url = repository
    first, second = digests(tmp_path, (url, head(made)), ("git://127.0.0.1:1/gone.git", head(made)))
    assert first == second


def test_a_commit_that_is_not_there(repository: tuple[Path, str], tmp_path: Path) -> None:
    """A server that does not have the commit is a sentence, and leaves nothing."""
    said = refused(tmp_path, repository[1], "0123456789" * 4)
    assert said.startswith("the dependency lists of 01234567 cannot be looked at: ")
    assert "not our ref" in said
    assert list((tmp_path / "digests").iterdir()) == []


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    """A server that takes the connection and is silent costs the time limit, and is a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/ceph.git"
        said = refused(tmp_path, url, "0123456789" * 4, seconds=1)
    assert said == "the dependency lists of 01234567 cannot be looked at: not within 1 s"


def test_a_server_that_sends_too_much(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends files all the same is cut off at the limit, and the disk gets no more than that."""
    made = new_repository(served[0] / "too-much.git")
    (made / "noise").write_bytes(os.urandom(3_000_000))
    git(made, "add", "noise")
    git(made, "commit", "--quiet", "-m", "noise")
    git(made, "config", "uploadpack.allowFilter", "false")
    monkeypatch.setattr(
        "master.prepared_images.dependency_digest.LIMITS", ("prlimit", "--fsize=1000000", "--")
    )
    said = refused(tmp_path, f"{served[1]}too-much.git/.git", head(made))
    assert said.startswith("the dependency lists of ")
    assert list((tmp_path / "digests").iterdir()) == []


def test_the_limits_hold_for_real() -> None:
    """The limits are such that a git under them can write no file beyond 64 MiB, and not take all memory."""
    told = subprocess.run(
        [*LIMITS, "sh", "-c", "ulimit -f; ulimit -v; ulimit -c"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert told in (["131072", "2097152", "0"], ["65536", "2097152", "0"])


def test_an_object_that_breaks_gits_rules(served: tuple[Path, str], tmp_path: Path) -> None:
    """A tree that would be refused by fsck, as one with a `.git` in it, is refused here."""
    made = new_repository(served[0] / "evil.git")
    blob = git(made, "hash-object", "-w", "--stdin", "--path=x")
    tree = subprocess.run(
        ["git", "-C", made, "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        input=b"100644 .git\0" + bytes.fromhex(blob), capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    sha1 = git(made, "commit-tree", "-m", "evil", tree)
    git(made, "update-ref", "refs/heads/main", sha1)
    said = refused(tmp_path, f"{served[1]}evil.git/.git", sha1)
    assert said.startswith(f"the dependency lists of {sha1[:8]} cannot be looked at: ")


def test_what_a_killed_master_left_is_wiped(tmp_path: Path) -> None:
    """The directory of what is thrown away is emptied at the start."""
    left = tmp_path / "digests" / "01234567-abc"
    left.mkdir(parents=True)

    async def wipe(reactor: object) -> None:
        DependencyDigests(reactor, tmp_path / "digests", 1).wipe()

    finish(wipe)
    assert not left.exists()


def test_many_at_once_are_asked_a_few_at_a_time(repository: tuple[Path, str], tmp_path: Path) -> None:
    """However many builds begin at once, at most four gits run for them."""
    made, url = repository
    commits = [commit(made, str(number)) for number in range(8)]
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, len(list((tmp_path / "digests").glob("*"))))

    async def ask(reactor: object) -> list[str]:
        asking = DependencyDigests(reactor, tmp_path / "digests", 60)
        return list(await gatherResults([Deferred.fromCoroutine(asking.of(url, sha1)) for sha1 in commits]))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        found = finish(ask)
    finally:
        done.set()
        watching.join()
    assert len(set(found)) == 1
    assert 1 <= most <= 4
