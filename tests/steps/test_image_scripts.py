"""The scripts that make a machine into an image: the real git, and a whole root that is cleaned."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from model.targets import Target
from tests.git_repositories import commit, git, git_daemon, new_repository
from tests.integration.harness import DEB, ROOTS
from tests.package_repositories import SCRIPTS, run_script
from workers.roots import Root, Roots, host_suite
from workers.sandbox import enter

KEY = "0123456789abcdef0123456789abcdef"
SECRET = "worth-one-boot-only"

# image-mirror.sh, and checkout.sh with what it leaves


@dataclass
class Served:
    """A repository with a submodule, and a mirror of its first commit."""

    repository: Path
    base: str
    url: str
    mirror: Path
    first: str

    def next(self, name: str = "file1", text: str = "changed\n") -> str:
        """Commit a change; give the sha1."""
        return commit(self.repository, "next", {name: text})

    def check_out(self, directory: Path, sha1: str, mirror: Path | None = None) -> int:
        """Check a commit out as a worker does; give the bytes of the objects that were fetched for it."""
        directory.mkdir()
        used = str(mirror or directory / "no-mirror")
        finished = run_script(
            directory, "checkout", self.url, sha1, self.url, "v*", BUILDPACKAGES_MIRROR=used
        )
        assert finished.returncode == 0, finished.stderr
        assert git(directory / "src", "rev-parse", "HEAD") == sha1
        assert git(directory / "src", "status", "--porcelain") == ""
        return fetched(directory)


def fetched(directory: Path) -> int:
    """Give the bytes of a checkout's own objects, its submodules' included, but not those that it shares with a mirror."""
    return sum(
        path.stat().st_size
        for path in (directory / "src/.git").rglob("*")
        if "objects" in path.parts and path.is_file() and path.stat().st_nlink == 1
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Serve a repository, and make the mirror that a prepared image would have of its first commit."""
    directory = tmp_path / "git"
    directory.mkdir()
    with git_daemon(directory) as base:
        module = new_repository(directory / "module.git")
        commit(module, "module", {"module.txt": "of the submodule\n"})
        repository = new_repository(directory / "ceph.git")
        commit(repository, "files", {f"file{number}": os.urandom(10_000).hex() for number in range(20)})
        git(repository, "tag", "-a", "-m", "v19.2.0", "v19.2.0")
        allowed = ("-c", "protocol.file.allow=always")
        git(repository, *allowed, "submodule", "add", "--quiet", f"{base}module.git", "sub")
        first = commit(repository, "first")
        made = Served(repository, base, f"{base}ceph.git", tmp_path / "mirror.git", first)
        made.check_out(tmp_path / "image", first)
        finished = run_script(tmp_path / "image", "image-mirror", BUILDPACKAGES_MIRROR=str(made.mirror))
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout.startswith("mirror=")
        yield made


def describe(directory: Path) -> str:
    """Give the version that git finds for a checkout."""
    return git(directory / "src", "describe", "--match", "v*", "HEAD")


def test_a_checkout_with_a_mirror_fetches_what_is_new(served: Served, tmp_path: Path) -> None:
    """The next commit costs its own bytes only, gives the same tree and the same version, and its submodule none."""
    sha1 = served.next()
    plain = served.check_out(tmp_path / "plain", sha1)
    few = served.check_out(tmp_path / "few", sha1, served.mirror)
    assert plain > 200_000
    assert few < 5_000
    for name in ("plain", "few"):
        assert describe(tmp_path / name) == f"v19.2.0-2-g{sha1[:7]}"
        assert (tmp_path / name / "src/sub/module.txt").read_text() == "of the submodule\n"
    same = ["diff", "--recursive", "--exclude=.git", tmp_path / "plain/src", tmp_path / "few/src"]
    subprocess.run(same, check=True)


def test_the_mirrored_commit_itself_costs_next_to_nothing(served: Served, tmp_path: Path) -> None:
    """A build of the very commit that the image was prepared for fetches no object at all."""
    assert git(served.mirror, "rev-parse", "refs/heads/mirrored") == served.first
    assert served.check_out(tmp_path / "same", served.first, served.mirror) < 1_000
    assert not list((tmp_path / "same/src/.git/objects/pack").glob("*.pack"))


def test_a_mirror_is_used_again_and_stays_as_it_is(served: Served, tmp_path: Path) -> None:
    """A checkout changes nothing of the mirror, and what it fetches goes into its own repository."""

    def state() -> list[tuple[str, int]]:
        return sorted(
            (str(path), path.stat().st_mtime_ns) for path in served.mirror.rglob("*") if path.is_file()
        )

    before = state()
    served.check_out(tmp_path / "one", served.next(), served.mirror)
    served.check_out(tmp_path / "two", served.next("file2"), served.mirror)
    assert state() == before


def test_a_fork_uses_the_mirror_of_the_canonical_repository(served: Served, tmp_path: Path) -> None:
    """A commit that only a fork has is fetched from there, upon what the mirror has of the canonical repository."""
    fork = new_repository(tmp_path / "git" / "fork.git")
    git(fork, "pull", "--quiet", "--no-tags", str(served.repository), "main")
    sha1 = commit(fork, "ours", {"ours": "ours\n"})
    url = served.url.replace("ceph.git", "fork.git")
    directory = tmp_path / "fork"
    directory.mkdir()
    finished = run_script(
        directory, "checkout", url, sha1, served.url, "v*", BUILDPACKAGES_MIRROR=str(served.mirror)
    )
    assert finished.returncode == 0, finished.stderr
    assert fetched(directory) < 5_000
    assert (directory / "src/ours").read_text() == "ours\n"


def test_a_submodule_that_has_moved_is_fetched_anew(served: Served, tmp_path: Path) -> None:
    """A commit whose submodule has another URL and commit by now gets that one, whatever the mirror has."""
    moved = new_repository(tmp_path / "git" / "moved.git")
    new = commit(moved, "elsewhere", {"module.txt": "of another server\n"})
    allowed = ("-c", "protocol.file.allow=always")
    git(served.repository, "submodule", "set-url", "sub", f"{served.base}moved.git")
    git(served.repository / "sub", "fetch", "--quiet", str(moved), "main")
    git(served.repository / "sub", "checkout", "--quiet", new)
    git(served.repository, *allowed, "add", "--all")
    git(served.repository, "commit", "--quiet", "-m", "moved")
    sha1 = git(served.repository, "rev-parse", "HEAD")
    served.check_out(tmp_path / "moved", sha1, served.mirror)
    assert (tmp_path / "moved/src/sub/module.txt").read_text() == "of another server\n"


def test_the_mirror_carries_nothing_that_runs(served: Served, tmp_path: Path) -> None:
    """Hooks and settings of the checkout that the mirror is made of are not in it, and none of its indexes."""
    names = {path.name for path in served.mirror.rglob("*")}
    assert not names & {"hooks", "index", "logs"}
    assert "url" not in (served.mirror / "config").read_text()
    assert {path.name for path in served.mirror.iterdir()} == {
        "HEAD", "config", "modules", "objects", "packed-refs", "refs",
    }  # fmt: skip
    assert not (tmp_path / "image/src").exists()


def test_there_must_be_a_checkout(tmp_path: Path) -> None:
    """Without a checkout there is no mirror, but a sentence."""
    finished = run_script(tmp_path, "image-mirror", BUILDPACKAGES_MIRROR=str(tmp_path / "mirror.git"))
    assert finished.returncode == 1
    assert finished.stderr == "FAILED: there is no checkout to make the mirror of\n"
    assert not (tmp_path / "mirror.git").exists()


# image-clean.sh: only ever inside of a throw-away root

PLANTED = {
    "var/lib/cloud/instances/i-1/user-data.txt": SECRET,
    "var/lib/cloud/data/instance-id": "i-1",
    "var/lib/cloud/sem/config_scripts_per_once.once": "",
    "var/lib/cloud/instances/i-1/sem/config_scripts_user": "",
    "var/lib/cloud/scripts/per-boot/buildpackages": "poweroff",
    "home/build/worker/twistd.log": SECRET,
    "home/build/.bash_history": SECRET,
    "home/build/.netrc": SECRET,
    "home/build/.cache/pip/x": "x",
    "root/.ssh/id_ed25519": SECRET,
    "root/.cache/x": "x",
    "tmp/secret": SECRET,
    "var/tmp/.secret": SECRET,
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key": SECRET,
    "var/lib/systemd/random-seed": "seed",
    "var/lib/dhcp/dhclient.leases": "lease",
    "var/log/cloud-init-output.log": SECRET,
    "var/log/journal/1/system.journal": SECRET,
    "var/lib/apt/lists/mirror_dists_x_Release": "x",
    "var/cache/apt/archives/left_1_all.deb": "x",
}
KEPT = {
    "root/.ssh/authorized_keys": "the operator's\n",
    "opt/dependency": "installed\n",
    "var/lib/buildpackages/mirror.git/HEAD": "ref: refs/heads/mirrored\n",
    "opt/buildbot-worker/run-worker.py": "the worker\n",
    "var/lib/cloud/seed/nocloud/meta-data": "of the image itself\n",
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Give the changes of a machine that has built something, with traces of all kinds."""
    upper = tmp_path / "upper"
    for name, text in (PLANTED | KEPT).items():
        path = upper / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    scripts = upper / "home/build/worker/image-x/build/scripts"
    scripts.mkdir(parents=True)
    for name in ("common.sh", "image-clean.sh"):
        (scripts / name).write_bytes((SCRIPTS / name).read_bytes())
    for directory in ("tmp", "var/tmp"):
        (upper / directory).chmod(0o1777)
    (upper / "run/buildpackages").mkdir(parents=True, mode=0o700)
    return upper


def clean(upper: Path, user: str = "build", scripts: str = "/home/build/worker/image-x/build") -> str:
    """Clean a machine as the step does; give all that is said."""
    root, roots = Root.of(Target.from_name(DEB), host_suite()), Roots(ROOTS, {})
    list(roots.prepare(root))
    command = ["sh", "-c", f"cd {scripts} && HOME=/home/build bash scripts/image-clean.sh; echo status $?"]
    finished = subprocess.run(
        enter(roots.path(root), upper.parent, user, *command),
        input=f"{KEY}\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    return finished.stdout + finished.stderr


def files(upper: Path) -> dict[str, str]:
    """Give the files of a machine's changes; what hides something of the root below is none."""
    return {
        str(path.relative_to(upper)): path.read_text(errors="replace")
        for path in upper.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_cleaned_machine_has_no_secret_and_no_identity(machine: Path) -> None:
    """Nothing that this boot was told, and nothing that tells it from another machine, is left anywhere."""
    said = clean(machine)
    assert "status 0" in said, said
    assert f"{KEY} used=" in said
    left = files(machine)
    assert not [name for name, text in left.items() if SECRET in text]
    gone = [name for name in PLANTED if not name.startswith("var/log/cloud") and name != "etc/machine-id"]
    assert not [name for name in gone if name in left]
    # An empty file, and not none: systemd makes a new one of it, and takes none for a first installation.
    assert left["etc/machine-id"] == ""
    assert left["var/log/cloud-init-output.log"] == ""


def test_cleaning_keeps_what_the_image_is_for(machine: Path) -> None:
    """Dependencies, the mirror, the worker's code and what the image itself brought stay as they are."""
    clean(machine)
    left = files(machine)
    assert {name: left.get(name) for name in KEPT} == KEPT


def test_root_is_not_asked_for_where_it_is_there(machine: Path) -> None:
    """A worker that runs as root cleans as well as one that has to ask sudo."""
    said = clean(machine, user="root")
    assert "status 0" in said, said
    assert f"{KEY} used=" in said
    assert not [name for name, text in files(machine).items() if SECRET in text]


def test_a_machine_that_is_not_ours_is_not_cleaned(machine: Path) -> None:
    """Where no user data of ours has run, nothing is removed: the master's own machine is such a one."""
    (machine / "run/buildpackages").rmdir()
    before = {name: text for name, text in files(machine).items() if not name.startswith("etc/")}
    said = clean(machine)
    assert "FAILED: this is no machine that was made for one build, and would lose what it is\n" in said
    assert "status 1" in said
    assert {name: text for name, text in files(machine).items() if name in before} == before
