"""The script that checks a commit out: real git, forks, submodules, and servers that misbehave."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.git_repositories import commit, git, git_daemon, new_repository
from tests.listening import listening
from tests.package_repositories import run_script
from tests.steps.test_scripts import sentence, values


@dataclass
class Forked:
    """A canonical repository with tags, a fork without, and their commits."""

    fork: str
    canonical: str
    submodule: str
    tagged: str
    ours: str
    base: str


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Serve a canonical repository, and a fork that got its branch but not its tags, with commits of its own."""
    directory = tmp_path_factory.mktemp("git")
    with git_daemon(directory) as base:
        module = new_repository(directory / "module.git")
        submodule = commit(module, "module", {"module.txt": "of the submodule\n"})
        canonical = new_repository(directory / "canonical.git")
        for number in range(5):
            commit(canonical, f"commit {number}", {f"file{number}": f"{number}\n"})
        tagged = commit(canonical, "release", {"README": "19.2.0\n"})
        git(canonical, "tag", "-a", "-m", "v19.2.0", "v19.2.0")
        git(canonical, "tag", "-a", "-m", "no version", "nightly")
        fork = new_repository(directory / "fork.git")
        git(fork, "pull", "--quiet", "--no-tags", str(canonical), "main")
        git(
            fork,
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "add",
            "--quiet",
            f"{base}module.git",
            "sub",
        )
        commit(fork, "with a submodule")
        git(fork, "tag", "-a", "-m", "a fork's own", "v99.0.0")
        ours = commit(fork, "ours", {"README": "ours\n"})
        commit(fork, "newer", {"README": "newer\n"})
        unnamed = new_repository(directory / "unnamed.git")
        commit(unnamed, "no tag at all")
        yield Forked(f"{base}fork.git", f"{base}canonical.git", submodule, tagged, ours, base)


def test_a_fork_without_tags_gets_the_canonical_version(forked: Forked, tmp_path: Path) -> None:
    """The forced commit of a fork is checked out with its submodule, and the canonical tags, not the fork's own, give the version."""
    finished = run_script(tmp_path, "checkout", forked.fork, forked.ours, forked.canonical)
    assert finished.returncode == 0, finished.stderr
    assert git(tmp_path / "src", "rev-parse", "HEAD") == forked.ours
    assert (tmp_path / "src/README").read_text() == "ours\n"
    assert (tmp_path / "src/sub/module.txt").read_text() == "of the submodule\n"
    assert git(tmp_path / "src/sub", "rev-parse", "HEAD") == forked.submodule
    told = values(run_script(tmp_path, "version", forked.canonical))
    assert told == {"version": f"19.2.0-2-g{forked.ours[:8]}"}


def test_history_is_filtered_and_not_cut(forked: Forked, tmp_path: Path) -> None:
    """All commits are there, so that describing counts right, but old files are not."""
    run_script(tmp_path, "checkout", forked.fork, forked.ours, forked.canonical)
    src = tmp_path / "src"
    assert git(src, "rev-list", "--count", "HEAD") == "8"
    assert not (src / ".git/shallow").exists()
    missing = git(src, "rev-list", "--objects", "--missing=print", "HEAD")
    assert any(line.startswith("?") for line in missing.splitlines())


def test_a_tagged_commit_is_that_version(forked: Forked, tmp_path: Path) -> None:
    """The commit of a tag is checked out from the canonical repository itself, and its version is the tag's."""
    finished = run_script(tmp_path, "checkout", forked.canonical, forked.tagged, forked.canonical)
    assert finished.returncode == 0, finished.stderr
    assert values(run_script(tmp_path, "version", forked.canonical)) == {"version": "19.2.0"}


def checkout(
    directory: Path, url: str, sha1: str, canonical: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script in a directory that it makes, with short limits."""
    directory.mkdir(exist_ok=True)
    limits = {"BUILDPACKAGES_NETWORK_LIMIT": "60", "BUILDPACKAGES_NETWORK_SILENCE": "2", **environment}
    return run_script(directory, "checkout", url, sha1, canonical, **limits)


def test_nothing_of_the_fork_is_left(forked: Forked, tmp_path: Path) -> None:
    """The only remote is the canonical repository, and nothing in .git names the fork: a sha1 has one content."""
    assert checkout(tmp_path / "a", forked.fork, forked.ours, forked.canonical).returncode == 0
    src = tmp_path / "a/src"
    assert git(src, "remote") == "origin"
    assert git(src, "config", "remote.origin.url") == forked.canonical
    assert git(src, "for-each-ref", "--format=%(refname)").split() == ["refs/tags/v19.2.0"]
    named = subprocess.run(
        ["grep", "-rl", forked.fork, src / ".git"], check=False, capture_output=True, text=True
    )
    assert named.stdout == ""


def test_the_tags_are_of_the_projects_pattern(forked: Forked, tmp_path: Path) -> None:
    """A project with tags of another pattern gets those."""
    finished = run_script(tmp_path, "checkout", forked.canonical, forked.tagged, forked.canonical, "night*")
    assert finished.returncode == 0, finished.stderr
    assert git(tmp_path / "src", "tag").split() == ["nightly"]


# Commits and repositories that cannot be fetched

NOWHERE = "0" * 39 + "1"


def test_a_commit_that_is_not_there_has_its_sentence(forked: Forked, tmp_path: Path) -> None:
    """A sha1 that the repository does not have is a sentence with both, from a fork and from the canonical repository."""
    for name, url in (("fork", forked.fork), ("canonical", forked.canonical)):
        finished = checkout(tmp_path / name, url, NOWHERE, forked.canonical)
        assert sentence(finished) == f"{url} has no commit {NOWHERE}"


def test_a_repository_that_is_not_there_has_its_sentence(forked: Forked, tmp_path: Path) -> None:
    """A fork or a canonical repository that is gone is named, with git's reason."""
    gone = f"{forked.base}gone.git"
    reason = "remote error: access denied or repository not exported: /gone.git"
    finished = checkout(tmp_path / "fork", gone, forked.ours, forked.canonical)
    assert sentence(finished) == f"{gone} cannot be fetched from: {reason}"
    finished = checkout(tmp_path / "canonical", forked.fork, forked.ours, gone)
    assert sentence(finished) == f"the tags of {gone} cannot be fetched: {reason}"


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_only_network_protocols_are_spoken(scheme: str, tmp_path: Path) -> None:
    """A URL of the worker's own disk is not fetched from."""
    repository = new_repository(tmp_path / "local.git")
    sha1 = commit(repository, "first")
    url = f"{scheme}{repository}"
    assert (
        sentence(run_script(tmp_path, "checkout", url, sha1, url))
        == f"{url} cannot be fetched from: transport 'file' not allowed"
    )


def silent(connection: socket.socket, _: int) -> None:
    """Accept what is sent, and answer nothing."""
    while connection.recv(4096):
        pass


def trickling(connection: socket.socket, _: int) -> None:
    """Send a byte of a message each second, without an end."""
    connection.recv(4096)
    with suppress(OSError):
        connection.sendall(b"0fff")
        while True:
            connection.sendall(b"a")
            time.sleep(1)


def delaying(server: tuple[str, int], connection: socket.socket, _: int) -> None:
    """Pass everything on to a server, and its answers back after a second for each 800 bytes."""
    with socket.create_connection(server) as there:
        threading.Thread(target=_copy, args=(connection, there, 65536, 0.0), daemon=True).start()
        _copy(there, connection, 800, 1.0)


def _copy(source: socket.socket, sink: socket.socket, size: int, delay: float) -> None:
    with suppress(OSError):
        while data := source.recv(size):
            time.sleep(delay)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def locked(connection: socket.socket, _: int) -> None:
    """Answer with 401."""
    connection.recv(4096)
    connection.sendall(
        b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
    )


TOO_SLOW = "the server sent nothing for 2 s"
ADVICE = "Request again, or name another repository that has the commit"
ASKS = "it asks for a user and a password, as GitHub does for a repository that is not there"


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_b4_a_repository_that_says_nothing_is_not_waited_for(
    scheme: str, forked: Forked, tmp_path: Path
) -> None:
    """A server that accepts the connection and is silent ends the checkout, with a sentence that names it and the way out."""
    with listening(silent) as port:
        url = f"{scheme}://127.0.0.1:{port}/ceph.git"
        began = time.monotonic()
        finished = checkout(tmp_path / "a", url, forked.ours, forked.canonical)
        assert time.monotonic() - began < 30
        assert sentence(finished) == f"{url} cannot be fetched from: {TOO_SLOW}. {ADVICE}"


def test_a_server_that_is_slow_without_an_end_has_a_limit_for_the_call(
    forked: Forked, tmp_path: Path
) -> None:
    """A server that sends a byte now and then keeps a call for `limit` seconds, and not for ever."""
    with listening(trickling) as port:
        url = f"git://127.0.0.1:{port}/ceph.git"
        finished = checkout(
            tmp_path / "a", url, forked.ours, forked.canonical, BUILDPACKAGES_NETWORK_LIMIT="6"
        )
        assert sentence(finished) == f"{url} cannot be fetched from: it took longer than 6 s. {ADVICE}"


def test_a_slow_repository_is_waited_for(forked: Forked, tmp_path: Path) -> None:
    """A server that takes longer than the limit of silence, and sends some bytes in between, ends in a checkout."""
    host, _, port = forked.base.removeprefix("git://").rstrip("/").partition(":")
    with listening(partial(delaying, (host, int(port)))) as slow:
        url = f"git://127.0.0.1:{slow}/fork.git"
        began = time.monotonic()
        finished = checkout(tmp_path / "a", url, forked.ours, forked.canonical)
        assert time.monotonic() - began > 6
        assert finished.returncode == 0, finished.stderr


def test_a_repository_that_wants_a_password_is_named(forked: Forked, tmp_path: Path) -> None:
    """After a 401 there is no second request and no prompt for a password; the sentence says what the server wants."""
    with listening(locked) as port:
        url = f"http://127.0.0.1:{port}/ceph.git"
        finished = checkout(tmp_path / "a", url, forked.ours, forked.canonical)
    assert sentence(finished) == f"{url} cannot be fetched from: {ASKS}"


# Submodules


def link(repository: Path, path: str, url: str, sha1: str, *, more: str = "") -> None:
    """Add a submodule to the index as a commit of it, whether or not that is anywhere."""
    with (repository / ".gitmodules").open("a") as file:
        file.write(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n{more}')
    git(repository, "add", ".gitmodules")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{sha1},{path}")


def committed(repository: Path) -> str:
    """Commit the index; return the sha1."""
    git(repository, "commit", "--quiet", "-m", "links")
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a directory of repositories; return it and its URL."""
    directory = tmp_path / "git"
    directory.mkdir()
    with git_daemon(directory) as base:
        yield directory, base


def test_each_missing_submodule_is_named(served: tuple[Path, str], tmp_path: Path) -> None:
    """Every submodule that cannot be fetched is named with its URL and the reason, also one of a submodule's own, in one go."""
    directory, base = served
    local = new_repository(tmp_path / "local.git")
    secret = commit(local, "secret", {"secret": "x"})
    module = new_repository(directory / "module.git")
    nested = commit(module, "module", {"module.txt": "x\n"})
    outer = new_repository(directory / "outer.git")
    link(outer, "inner", "../gone.git", nested)
    with_inner = committed(outer)
    repository = new_repository(directory / "bad.git")
    with listening(locked) as locked_port, listening(silent) as silent_port:
        links = {
            "fine": (f"{base}module.git", nested),
            "outer": (f"{base}outer.git", with_inner),
            "a/nowhere": (f"{base}module.git", NOWHERE),
            "a/ssh": ("git@host:me/module.git", nested),
            "b/here": (str(local), secret),
            "b/locked": (f"http://127.0.0.1:{locked_port}/x.git", nested),
            "b/silent": (f"http://127.0.0.1:{silent_port}/x.git", nested),
        }
        for path, (url, sha1) in links.items():
            link(repository, path, url, sha1)
        git(repository, "update-index", "--add", "--cacheinfo", f"160000,{nested},unlisted")
        sha1 = committed(repository)
        finished = checkout(tmp_path / "a", f"{base}bad.git", sha1, f"{base}bad.git")
    silent_url = links["b/silent"][0]
    assert sentence(finished) == (
        "submodules cannot be fetched: "
        f"a/nowhere ({base}module.git: it has no such commit); "
        "a/ssh (git@host:me/module.git: transport 'ssh' not allowed); "
        f"b/here ({local}: transport 'file' not allowed); "
        f"b/locked ({links['b/locked'][0]}: {ASKS}); "
        f"b/silent ({silent_url}: {TOO_SLOW}); "
        f"outer/inner ({base}gone.git: remote error: access denied or repository not exported: /gone.git); "
        "unlisted (no URL in .gitmodules)"
    )
    assert not (tmp_path / "a/src/b/here/secret").exists()


def test_a_submodule_that_says_nothing_over_git_is_not_waited_for(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    """Where git has no limit of silence of its own, the script has one."""
    directory, base = served
    repository = new_repository(directory / "bad.git")
    with listening(silent) as port:
        link(repository, "sub", f"git://127.0.0.1:{port}/x.git", NOWHERE)
        url = f"{base}bad.git"
        finished = checkout(tmp_path / "a", url, committed(repository), url)
        assert sentence(finished) == (
            f"submodules cannot be fetched: sub (git://127.0.0.1:{port}/x.git: {TOO_SLOW})"
        )


def test_relative_urls_lead_to_the_canonical_neighbours_first(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    """A relative URL is the canonical repository's neighbour, and the fork's if that lacks the commit; nested ones as well."""
    directory, base = served
    theirs, ours = directory / "ceph", directory / "me"
    deep = commit(new_repository(theirs / "deep.git"), "deep", {"deep.txt": "canonical\n"})
    both = new_repository(theirs / "both.git")
    link(both, "deep", "./../deep.git", deep)
    shared = committed(both)
    # The fork's neighbour of the same name lacks the commit, so a checkout that tries it first fails.
    commit(new_repository(ours / "both.git"), "another", {"a": "b\n"})
    own_deep = commit(new_repository(ours / "own-deep.git"), "deep", {"deep.txt": "fork\n"})
    own = new_repository(ours / "own.git")
    link(own, "deep", "../own-deep.git", own_deep)
    only_ours = committed(own)
    canonical = new_repository(theirs / "ceph.git")
    commit(canonical, "first")
    fork = new_repository(ours / "ceph.git")
    link(fork, "both", "../both.git", shared)
    link(fork, "own", "../own.git", only_ours)
    link(fork, "gone", "../gone.git", NOWHERE)
    sha1 = committed(fork)
    git(fork, "rm", "--quiet", "--cached", "gone")
    fine = committed(fork)
    canonical_url, url = f"{base}ceph/ceph.git", f"{base}me/ceph.git"
    finished = checkout(tmp_path / "a", url, fine, canonical_url)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "a/src/both/deep/deep.txt").read_text() == "canonical\n"
    assert (tmp_path / "a/src/own/deep/deep.txt").read_text() == "fork\n"
    assert git(tmp_path / "a/src/own", "config", "remote.origin.url") == f"{base}ceph/own.git"
    denied = "remote error: access denied or repository not exported"
    assert sentence(checkout(tmp_path / "b", url, sha1, canonical_url)) == (
        f"submodules cannot be fetched: gone ({base}ceph/gone.git: {denied}: /ceph/gone.git, "
        f"{base}me/gone.git: {denied}: /me/gone.git)"
    )


def test_a_commit_of_no_branch_is_fetched(served: tuple[Path, str], tmp_path: Path) -> None:
    """A submodule's commit that no branch of its repository leads to is fetched by its name."""
    directory, base = served
    module = new_repository(directory / "module.git")
    commit(module, "first", {"module.txt": "first\n"})
    lost = commit(module, "lost", {"module.txt": "lost\n"})
    git(module, "reset", "--quiet", "--hard", "HEAD~1")
    repository = new_repository(directory / "ceph.git")
    link(repository, "sub", "../module.git", lost)
    url = f"{base}ceph.git"
    finished = checkout(tmp_path / "a", url, committed(repository), url)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "a/src/sub/module.txt").read_text() == "lost\n"


def test_many_submodules_are_fetched_and_are_gits_own(served: tuple[Path, str], tmp_path: Path) -> None:
    """More submodules than are fetched at a time are all there, git finds them whole, and what a project's own scripts do with them fetches nothing."""
    directory, base = served
    module = new_repository(directory / "module.git")
    sha1 = commit(module, "module", {"module.txt": "x\n"})
    outer = new_repository(directory / "outer.git")
    link(outer, "inner", "../module.git", sha1)
    with_inner = committed(outer)
    repository = new_repository(directory / "ceph.git")
    paths = [f"src/module {number}" for number in range(12)]
    for path in paths:
        link(repository, path, "../module.git", sha1)
    link(repository, "outer", f"{base}outer.git", with_inner)
    link(repository, "skipped", "../gone.git", sha1, more="\tupdate = none\n")
    url = f"{base}ceph.git"
    top = committed(repository)
    finished = checkout(tmp_path / "a", url, top, url)
    assert finished.returncode == 0, finished.stderr
    src = tmp_path / "a/src"
    assert git(src, "status", "--porcelain") == ""
    status = git(src, "submodule", "status", "--recursive").splitlines()
    assert [line for line in status if line[0] in "-+U"] == [f"-{sha1} skipped"]
    assert len(status) == 15
    for repository_of_one in directory.iterdir():
        repository_of_one.rename(directory / f"{repository_of_one.name}.away")
    git(src, "submodule", "sync", "--recursive")
    git(src, "submodule", "update", "--init", "--recursive")
    assert (src / "outer/inner/module.txt").read_text() == "x\n"


def content(src: Path) -> list[str]:
    """Return what a build can read from git in a checkout and in each of its submodules."""
    read = []
    for path in (".", "outer", "outer/inner"):
        one = src / path
        read += [
            git(one, "rev-parse", "HEAD^{tree}"),
            git(one, "for-each-ref", "--format=%(refname) %(objectname)"),
            git(one, "config", "--get-regexp", r"^remote\..*\.url$"),
            git(one, "describe", "--always", "--all", "--long"),
            git(one, "archive", "HEAD", "VERSION"),
        ]
    return read


def test_b2_a_checkout_is_the_same_through_a_fork(served: tuple[Path, str], tmp_path: Path) -> None:
    """A commit of the canonical repository has the same trees, refs, remotes, description and export-subst through a fork whose repositories have tags on it."""
    directory, base = served
    files = {"VERSION": "$Format:%D$\n", ".gitattributes": "VERSION export-subst\n"}
    inner = new_repository(directory / "ceph/inner.git")
    inner_sha1 = commit(inner, "inner", files)
    outer = new_repository(directory / "ceph/outer.git")
    commit(outer, "outer", files)
    link(outer, "inner", "../inner.git", inner_sha1)
    outer_sha1 = committed(outer)
    canonical = new_repository(directory / "ceph/ceph.git")
    commit(canonical, "first", files)
    git(canonical, "tag", "-a", "-m", "v1.0", "v1.0")
    link(canonical, "outer", "../outer.git", outer_sha1)
    sha1 = committed(canonical)
    (directory / "me").mkdir()
    for name in ("inner.git", "outer.git", "ceph.git"):
        subprocess.run(["cp", "-a", directory / "ceph" / name, directory / "me" / name], check=True)
        git(directory / "me" / name, "tag", "-a", "-m", "forged", 'v1";system("forged")')
    url = f"{base}ceph/ceph.git"
    through_fork = checkout(tmp_path / "fork", f"{base}me/ceph.git", sha1, url)
    assert through_fork.returncode == 0, through_fork.stderr
    directly = checkout(tmp_path / "canonical", url, sha1, url)
    assert directly.returncode == 0, directly.stderr
    expected = content(tmp_path / "canonical/src")
    assert content(tmp_path / "fork/src") == expected
    assert "forged" not in "".join(expected)


def test_b2_a_submodule_keeps_no_ref_of_a_simple_server(served: tuple[Path, str], tmp_path: Path) -> None:
    """A submodule whose server knows branches and tags only is fetched by them, and keeps none."""
    directory, base = served
    module = new_repository(directory / "module.git")
    sha1 = commit(module, "module", {"module.txt": "x\n"})
    git(module, "tag", "-a", "-m", "forged", "v99")
    git(module, "update-server-info")
    repository = new_repository(directory / "ceph.git")
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(directory))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        link(repository, "sub", f"http://127.0.0.1:{server.server_port}/module.git/.git", sha1)
        url = f"{base}ceph.git"
        finished = checkout(tmp_path / "a", url, committed(repository), url)
    finally:
        server.shutdown()
        server.server_close()
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "a/src/sub/module.txt").read_text() == "x\n"
    assert git(tmp_path / "a/src/sub", "for-each-ref") == ""
