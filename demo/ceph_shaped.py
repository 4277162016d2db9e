"""A small git repository with the shape of Ceph's, and its submodule: the same sha1s on every machine.

`python -m demo.ceph_shaped DIRECTORY` makes DIRECTORY/ceph.git and DIRECTORY/ceph-erasure-code.git and prints their sha1s.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from demo.ceph_shaped_history import (
    AFTER_TAG,
    ERASURE_CODE_HISTORY,
    OLD_TAG,
    ON_WIP,
    TAG,
    UNTIL_REEF,
    UNTIL_SQUID,
)
from demo.servers import DOWNLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from demo.ceph_shaped_history import Commit

TREE = Path(__file__).parent / "ceph_shaped_tree"
WIP = "wip/demo"
SUBMODULE = "src/ceph-erasure-code"
IDENTITY = "On-demand Ceph packages <packages@example.invalid>"
FIRST_COMMIT_AT = 1724313600  # 2024-08-22 08:00 UTC; each commit is an hour after the one before it
COMMIT_INTERVAL = 3600

# What the long history is written in: enough words for lines that compress and delta as source text does.
DIRECTORIES = (
    "doc/dev",
    "doc/rados",
    "qa/suites",
    "qa/tasks",
    "src/mds",
    "src/mgr",
    "src/mon",
    "src/os",
    "src/osd",
    "src/rgw",
)
VERBS = (
    "apply",
    "cancel",
    "check",
    "drain",
    "encode",
    "finish",
    "map",
    "merge",
    "peer",
    "queue",
    "read",
    "scrub",
    "trim",
)
NOUNS = (
    "backfill",
    "bucket",
    "cache",
    "epoch",
    "extent",
    "journal",
    "lease",
    "log",
    "object",
    "pool",
    "quorum",
    "shard",
    "snap",
)
LINES = (
    "  {0}({1}, {2});",
    "  if ({1}->{0}() < {2}) {{ return -{3}; }}",
    '  dout({3}) << __func__ << " {0} " << {1} << dendl;',
    "  auto {1} = {0}(std::move({2}), {3});",
    "  // {0} must not hold the lock of {1}, see issue {3}",
    "",
)
FILES = 400
FILE_LINES = 120
HUNK_LINES = 40
COMMITS_IN_ROUND = 10
TOPIC_COMMITS = 5  # of each round, on a side branch that the round's last commit merges


class CephShapedError(RuntimeError):
    """The repositories can't be made or aren't whole; the message says why, and what to do."""


@dataclass(frozen=True)
class GeneratedRepository:
    """The directories of the bare repositories, and the commits of main, the two tags and the wip branch."""

    directory: Path
    head_sha1: str
    tag_sha1: str
    old_tag_sha1: str
    wip_sha1: str


def generate(directory: Path) -> GeneratedRepository:
    """Make the two bare repositories in `directory`; where they are there and whole, leave them and say what they hold."""

    def grow(history: _History) -> None:
        history.play(UNTIL_REEF)
        history.tag(OLD_TAG)
        history.play(UNTIL_SQUID)
        history.tag(TAG)
        history.play(AFTER_TAG)

    return _existing(directory) or _generated(directory, grow)


def generate_with_history(
    directory: Path, *, commits: int = 6000, commits_after_tag: int = 1500
) -> GeneratedRepository:
    """Make the same repositories with `commits` more commits, merges among them, in a tree of hundreds of files more.

    On main, `git describe` counts exactly `commits_after_tag`. It is for measuring a checkout, in a directory of its own:
    whatever ceph.git is there already is the answer.
    """
    if not 0 < commits_after_tag < commits:
        message = f"commits_after_tag must be between 0 and commits ({commits}), not {commits_after_tag}"
        raise ValueError(message)

    def grow(history: _History) -> None:
        prose = _Prose()
        history.play(UNTIL_REEF)
        history.tag(OLD_TAG)
        history.play(UNTIL_SQUID)
        history.commit("doc, qa, src: everything else", prose.tree())
        _play_rounds(history, prose, commits - commits_after_tag - 1)
        history.tag(TAG)
        _play_rounds(history, prose, commits_after_tag)

    # Packed as a server packs: fast-import alone finds poor deltas, which would flatter any checkout that needs few blobs.
    return _existing(directory) or _generated(directory, grow, repack=True)


def write_downloads(directory: Path) -> None:
    """Write DIRECTORY/downloads/crush_types_1_0.tar.bz2, which make-dist downloads: the same bytes every time."""
    downloads = directory / DOWNLOADS
    downloads.mkdir(parents=True, exist_ok=True)
    content = (TREE / "crush-types/crush_types.h").read_bytes()
    member = tarfile.TarInfo("crush_types_1_0/crush_types.h")
    member.size, member.mtime = len(content), FIRST_COMMIT_AT
    with tarfile.open(downloads / "crush_types_1_0.tar.bz2", "w:bz2", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))


def _existing(directory: Path) -> GeneratedRepository | None:
    """Answer from the refs of what is there, or None when there is nothing; never repairs what someone has changed."""
    repository = directory / "ceph.git"
    if not repository.exists():
        return None
    try:
        head_sha1, tag_sha1, old_tag_sha1, wip_sha1 = (
            _git(repository, "rev-parse", "--verify", "--quiet", f"refs/{ref}^{{commit}}")
            for ref in ("heads/main", f"tags/{TAG}", f"tags/{OLD_TAG}", f"heads/{WIP}")
        )
        submodule_sha1 = _git(repository, "rev-parse", "--verify", "--quiet", f"{head_sha1}:{SUBMODULE}")
        _git(repository, "rev-list", "--objects", "--all", "--quiet")
        _git(directory / "ceph-erasure-code.git", "rev-list", "--objects", "--quiet", submodule_sha1)
    except (CephShapedError, OSError) as error:
        message = f"{repository} is there but not whole ({error}): move it away, then run this again"
        raise CephShapedError(message) from error
    return GeneratedRepository(directory, head_sha1, tag_sha1, old_tag_sha1, wip_sha1)


def _generated(
    directory: Path, grow: Callable[[_History], None], *, repack: bool = False
) -> GeneratedRepository:
    """Make both beside their place and rename them into it, ceph.git last: once it is there, all is there."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=directory) as scratch_name:
        scratch = Path(scratch_name)
        submodule = scratch / "ceph-erasure-code.git"
        with _imported(submodule) as stream:
            _History(stream, TREE / "ceph-erasure-code").play(ERASURE_CODE_HISTORY)
        with _imported(scratch / "ceph.git") as stream:
            history = _History(stream, TREE / "ceph", _git(submodule, "rev-parse", "refs/heads/main"))
            grow(history)
            history.branch = WIP
            history.play(ON_WIP)
        if repack:
            _git(scratch / "ceph.git", "repack", "-a", "-d", "-f", "--quiet")
        leftover = directory / "ceph-erasure-code.git"
        if leftover.exists():
            shutil.rmtree(leftover)
        submodule.rename(leftover)
        (scratch / "ceph.git").rename(directory / "ceph.git")
    made = _existing(directory)
    if made is None:
        message = f"{directory / 'ceph.git'} was taken away while it was made: run this again"
        raise CephShapedError(message)
    return made


@contextmanager
def _imported(repository: Path) -> Iterator[IO[bytes]]:
    """Make a bare repository of what the body writes, a stream for git fast-import."""
    repository.mkdir()
    _git(repository, "init", "--quiet", "--bare", "--template=")
    _git(repository, "symbolic-ref", "HEAD", "refs/heads/main")
    _git(repository, "config", "uploadpack.allowFilter", "true")
    _git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    with tempfile.TemporaryFile() as stream:
        yield stream
        stream.seek(0)
        _git(repository, "fast-import", "--quiet", stdin=stream)


class _History:
    """Writes commits, each an hour after the one before it, as a stream for git fast-import."""

    def __init__(self, stream: IO[bytes], template: Path, submodule_sha1: str = "") -> None:
        self.branch = "main"
        self.tip = 0  # the mark of the newest commit: marks count from 1
        self._stream = stream
        self._template = template
        self._submodule_sha1 = submodule_sha1
        self._texts: dict[str, str] = {}
        self._commits = 0

    def play(self, commits: Iterable[Commit]) -> None:
        """Add commits that are made of the template tree."""
        for commit in commits:
            changes = {path: (self._template / path).read_text(encoding="utf-8") for path in commit.files}
            for edit in commit.edits:
                text = self._texts[edit.path]
                times = text.count(edit.old)
                if times != 1:
                    message = f"{commit.subject!r} wants {edit.old!r} once in {edit.path}, which has it {times} times"
                    raise CephShapedError(message)
                changes[edit.path] = text.replace(edit.old, edit.new)
            self._texts.update(changes)
            self.commit(commit.subject, changes, adds_submodule=commit.adds_submodule)

    def commit(
        self,
        subject: str,
        changes: Mapping[str, str],
        *,
        parent: int | None = None,
        merged: int | None = None,
        adds_submodule: bool = False,
    ) -> int:
        """Add a commit, on the tip where no parent is given; its mark is returned and is the new tip."""
        self._commits += 1
        parent = self.tip if parent is None else parent
        self._line(f"commit refs/heads/{self.branch}")
        self._line(f"mark :{self._commits}")
        self._line(f"author {IDENTITY} {self._time()}")
        self._line(f"committer {IDENTITY} {self._time()}")
        self._data(f"{subject}\n")
        if parent:
            self._line(f"from :{parent}")
        if merged is not None:
            self._line(f"merge :{merged}")
        for path, text in changes.items():
            # By the text, so that a checkout of this project that lost its modes gives the same sha1.
            self._line(f"M {'100755' if text.startswith('#!') else '100644'} inline {path}")
            self._data(text)
        if adds_submodule:
            self._line(f"M 160000 {self._submodule_sha1} {SUBMODULE}")
        self.tip = self._commits
        return self.tip

    def tag(self, name: str) -> None:
        """Put an annotated tag on the tip."""
        self._line(f"tag {name}")
        self._line(f"from :{self.tip}")
        self._line(f"tagger {IDENTITY} {self._time()}")
        self._data(f"{name}\n")

    def _time(self) -> str:
        return f"{FIRST_COMMIT_AT + COMMIT_INTERVAL * (self._commits - 1)} +0000"

    def _line(self, text: str) -> None:
        self._stream.write(f"{text}\n".encode())

    def _data(self, text: str) -> None:
        content = text.encode()
        self._stream.write(b"data %d\n%b\n" % (len(content), content))


class _Prose:
    """Files of text that looks like source, and changes to them: the same ones each time."""

    def __init__(self) -> None:
        self._random = random.Random(19)
        self._files: dict[str, list[str]] = {}

    def tree(self) -> dict[str, str]:
        """Return the files to begin with."""
        for number in range(FILES):
            directory = DIRECTORIES[number % len(DIRECTORIES)]
            self._files[f"{directory}/{self._word()}_{number}.cc"] = [
                self._sentence() for _ in range(FILE_LINES)
            ]
        return {path: _text(lines) for path, lines in self._files.items()}

    def files(self, count: int) -> list[str]:
        """Choose some files."""
        return self._random.sample(list(self._files), count)

    def changed(self, path: str) -> str:
        """Replace some lines of a file by others, and return it whole."""
        lines = self._files[path]
        start = self._random.randrange(len(lines) + 1)
        taken, given = self._random.randrange(HUNK_LINES), self._random.randrange(HUNK_LINES)
        lines[start : start + taken] = [self._sentence() for _ in range(given)]
        return _text(lines)

    def _word(self) -> str:
        return f"{self._random.choice(VERBS)}_{self._random.choice(NOUNS)}"

    def _sentence(self) -> str:
        return self._random.choice(LINES).format(
            self._word(), self._word(), self._word(), self._random.randrange(70000)
        )


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _play_rounds(history: _History, prose: _Prose, commits: int) -> None:
    """Add exactly so many commits: rounds with a side branch and its merge, and single commits for the rest."""
    rounds, rest = divmod(commits, COMMITS_IN_ROUND)
    for _ in range(rounds):
        # No file is changed on both sides, so the merge has no conflict: it is main with the side branch's files.
        paths = prose.files(3 * COMMITS_IN_ROUND)
        fork = history.tip
        merged: dict[str, str] = {}
        for number in range(TOPIC_COMMITS):
            changes = {path: prose.changed(path) for path in paths[3 * number : 3 * number + 3]}
            merged.update(changes)
            history.commit(f"topic: part {number + 1}", changes, parent=fork if number == 0 else None)
        topic = history.tip
        history.tip = fork
        for number in range(TOPIC_COMMITS, COMMITS_IN_ROUND - 1):
            history.commit(
                "osd: fix", {path: prose.changed(path) for path in paths[3 * number : 3 * number + 3]}
            )
        history.commit("Merge branch 'topic'", merged, merged=topic)
    for path in prose.files(rest):
        history.commit("osd: fix", {path: prose.changed(path)})


def _git(repository: Path, *arguments: str, stdin: IO[bytes] | None = None) -> str:
    """Run git in a bare repository, deaf to the machine's and the user's configuration, and return what it says."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": os.devnull,  # git before 2.32 doesn't know GIT_CONFIG_GLOBAL
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(repository),
    }
    run = subprocess.run(
        ["git", *arguments],
        env=environment,
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        message = f"git {' '.join(arguments)} failed in {repository}: {run.stderr.strip() or f'exit status {run.returncode}'}"
        raise CephShapedError(message)
    return run.stdout.strip()


def main() -> None:
    """Make the repositories in the directory that is named, and print one line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.ceph_shaped", description="Make the Ceph-shaped git repository."
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    made = generate(parser.parse_args().directory.absolute())
    print(json.dumps({**dataclasses.asdict(made), "directory": str(made.directory)}))


if __name__ == "__main__":
    main()
