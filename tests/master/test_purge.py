"""Purging removes a key and its links for everybody at once, also while the master works on the same key."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from master.publishing.completeness import CompleteDirectories
from master.publishing.publisher import PublishedTree
from master.publishing.uploads import Uploads
from master.purge import Key, Purge, PurgeError
from model.package_key import PackageKey
from tests.published import DAY, Publications

ROOT = Path(__file__).parents[2]
NAME = "ceph-deb-jammy-x86_64-default"
A, B = f"{NAME}/{'a' * 40}", f"{NAME}/{'b' * 40}"


@pytest.fixture
def publications(tmp_path: Path) -> Publications:
    return Publications(tmp_path)


@pytest.fixture
def purge(tmp_path: Path) -> Purge:
    return Purge(tmp_path / "packages", tmp_path / "staging")


def links(publications: Publications) -> dict[str, str]:
    """Return every link below ref/, with the sha1's first digit."""
    top = publications.tree / NAME / "ref"
    return {str(path.relative_to(top)): os.readlink(path)[-1] for path in top.rglob("*") if path.is_symlink()}


def test_a_key_goes_with_its_links_and_nothing_else(publications: Publications, purge: Purge) -> None:
    """A purged key leaves no file, no link and no empty directory of a link; other keys keep theirs."""
    publications.publish(A, "1", "main", "wip/x/y", "wip/z")
    publications.publish(B, "1", "wip/z", "v1")
    purged = purge.purge(Key.from_string(A))
    assert purged is not None
    assert (purged.files, purged.links) == (5, ("main", "wip/x/y"))
    assert not (publications.tree / A.replace("/", "/sha1/")).exists()
    assert links(publications) == {"wip/z": "b", "v1": "b"}
    assert not (publications.tree / NAME / "ref/wip/x").exists()
    assert publications.record(PackageKey.from_string(B)) is not None
    assert list((publications.tree.parent / "staging").iterdir()) == []


def test_it_is_gone_before_its_first_file_is(
    publications: Publications, purge: Purge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While files are removed, which may take minutes, no door has any of them."""
    directory = publications.publish(A, "1", "main")
    complete = CompleteDirectories(lambda: time.time_ns() + 3600 * 10**9)
    assert complete.has(str(directory))
    seen: list[object] = []

    def rmtree(path: Path, **_: object) -> None:
        seen.extend(
            [
                complete.has(str(directory)),
                directory.exists(),
                links(publications),
                len(list(path.rglob("*"))),
            ]
        )

    monkeypatch.setattr("master.purge.shutil.rmtree", rmtree)
    purge.purge(Key.from_string(A))
    assert seen == [False, False, {}, 12]


def test_a_key_that_is_not_there_is_none(publications: Publications, purge: Purge) -> None:
    """Purging what is not published, twice or of no target changes nothing."""
    publications.publish(A, "1", "main")
    assert purge.purge(Key.from_string(B)) is None
    assert purge.purge(Key.from_string(f"nothing-deb/{'a' * 40}")) is None
    assert purge.purge(Key.from_string(A)) is not None
    assert purge.purge(Key.from_string(A)) is None
    assert list((publications.tree.parent / "staging").iterdir()) == []


def test_half_a_key_is_purged_too(publications: Publications, purge: Purge) -> None:
    """A purge removes the remains of an interrupted `rm -r`, with their links."""
    directory = publications.publish(A, "1", "main")
    (directory / "version").unlink()
    purged = purge.purge(Key.from_string(A))
    assert purged is not None
    assert (purged.files, purged.links, links(publications)) == (4, ("main",), {})


def test_a_target_that_is_no_more_is_purged_too(publications: Publications, purge: Purge) -> None:
    """A key of a distribution that has left the matrix can still be named."""
    directory = publications.publish(A, "1", "main")
    directory.parents[1].rename(publications.tree / "ceph-deb-hardy-i386-default")
    purged = purge.purge(Key.from_string(f"ceph-deb-hardy-i386-default/{'a' * 40}"))
    assert purged is not None
    assert purged.links == ("main",)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", NAME, f"{NAME}/", f"{NAME}/main", f"{NAME}/{'a' * 39}", f"{NAME}/{'A' * 40}", f"../{'a' * 40}", f"x/../{'a' * 40}",
        f"/{A}", f"{A}/", f"{A}/..", f"{A}\n", f".hidden/{'a' * 40}", f"{NAME}/sha1/{'a' * 40}", "*",
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    """Only TARGET/SHA1 is a key: no path, no pattern, no part of one."""
    with pytest.raises(
        PurgeError, match=r"is not a package_key: it must be TARGET/SHA1, such as ceph-deb-jammy"
    ):
        Key.from_string(text)


def test_the_master_publishes_while_it_is_purged(publications: Publications, purge: Purge) -> None:
    """While the same key is published and purged again and again, it is whole or absent, and neither side fails."""
    stop, failed = threading.Event(), list[BaseException]()

    def publish() -> None:
        try:
            while not stop.is_set():
                publications.publish(A, "1", "main", "wip/x")
        except OSError as error:
            failed.append(error)

    publisher = threading.Thread(target=publish)
    publisher.start()
    taken = []
    while len(taken) < 60 and not failed:
        purged = purge.purge(Key.from_string(A))
        taken += [] if purged is None else [purged.files]
    stop.set()
    publisher.join()
    assert failed == []
    assert taken == [5] * 60
    publications.publish(A, "1", "main", "wip/x")
    assert publications.record(PackageKey.from_string(A)) is not None
    assert links(publications) == {"main": "a", "wip/x": "a"}


def test_a_ref_that_moves_while_it_is_purged_stays(
    publications: Publications, purge: Purge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that the master points to another key between the look and the removal is put back."""
    publications.publish(A, "1", "main", "wip/x")
    publications.publish(B, "1")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "main":
            publications.link(B, "main")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    purge.purge(Key.from_string(A))
    assert links(publications) == {"main": "b"}


def test_a_master_that_starts_meanwhile_wipes_what_is_left(
    publications: Publications, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start removes the remains of a killed purge in staging, also if they vanish at the same time."""
    publications.publish(A, "1")
    purge = Purge(tmp_path / "packages", tmp_path / "staging")
    monkeypatch.setattr("master.purge.shutil.rmtree", lambda *_, **__: None)
    purge.purge(Key.from_string(A))
    monkeypatch.undo()
    real = os.unlink

    def unlink(path: str, **options: int) -> None:
        real(path, **options)
        if str(path) == "version":
            real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    Uploads(tmp_path / "staging").wipe()
    assert list((tmp_path / "staging").iterdir()) == []


def test_old_keys_are_found_by_when_they_were_published(publications: Publications, purge: Purge) -> None:
    """The time of `version` counts, the oldest first; links and strange names are not keys."""
    publications.publish(A, "1", at=100)
    publications.publish(B, "1", at=50)
    publications.publish(f"{NAME}/{'c' * 40}", "1", at=90_000)
    sha1s = publications.tree / NAME / "sha1"
    (sha1s / "notes").mkdir()
    (sha1s / ("d" * 40)).symlink_to("a" * 40)
    now = DAY + 86_500.5
    assert [str(key) for key in purge.older_than(1, now)] == [B, A]
    assert [str(key) for key in purge.older_than(1.0005, now)] == [B]
    assert purge.older_than(2, now) == []


def command(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command as an operator does; return its exit status, output and errors."""
    settings = tmp_path / "settings.yaml"
    git = "https://example.org/ceph.git"
    data = {
        "git": {"allowed": ["https://example.org/"]},
        "projects": {"ceph": {"git_url": git, "canonical_url": git}},
        "targets": [NAME],
    }
    settings.write_text(yaml.safe_dump(data))
    ran = subprocess.run(
        [sys.executable, "-m", "master.purge", "--settings", str(settings), *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def test_the_command_says_what_it_did(publications: Publications, tmp_path: Path) -> None:
    """Each purged key is a line with its files, size and links; one that was not published is an error."""
    publications.publish(A, "1", "main", contents={"pool/a.deb": b"x" * 2048})
    size = "2.3 KiB"
    assert command(tmp_path, A, "--dry-run") == (
        0, f"would purge {A}: 4 files, {size}; links: main\n{size} would be freed by purging 1 package key\n", "",
    )  # fmt: skip
    assert publications.record(PackageKey.from_string(A)) is not None
    assert command(tmp_path, A, B, A) == (
        1,
        f"purged {A}: 4 files, {size}; links: main\n{size} freed by purging 1 package key\n",
        f"{B}: nothing is published\n",
    )
    assert command(tmp_path, "--older-than", "0.5") == (
        0,
        "nothing was published more than 0.5 days ago\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name either one or more KEYs, or --older-than DAYS"),
        ([A, "--older-than", "3"], "name either one or more KEYs, or --older-than DAYS"),
        (["--older-than", "0"], "must be a number of days above 0, not '0'"),
        (["--older-than", "-1"], "must be a number of days above 0, not '-1'"),
        (["--older-than", "nan"], "must be a number of days above 0, not 'nan'"),
        (["--older-than", "inf"], "must be a number of days above 0, not 'inf'"),
        (["--older-than", "soon"], "must be a number of days above 0, not 'soon'"),
        ([A, "main"], "'main' is not a package_key: it must be TARGET/SHA1"),
    ],
)
def test_nonsense_is_refused(
    publications: Publications, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    """Wrong arguments are an error with a sentence, and nothing is purged, not even what is right among them."""
    publications.publish(A, "1")
    status, _, errors = command(tmp_path, *arguments)
    assert status == 2
    assert sentence in errors
    assert publications.record(PackageKey.from_string(A)) is not None


def test_where_nothing_was_ever_published_the_command_says_so(tmp_path: Path) -> None:
    """Without a tree nothing is made, and the sentence names the directory."""
    status, _, errors = command(tmp_path, A)
    assert (status, errors) == (1, f"{tmp_path}/packages does not exist: nothing is published\n")
    assert not (tmp_path / "staging").exists()


def test_a_purge_between_look_and_rename_is_no_failure(
    tmp_path: Path, publications: Publications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incomplete directory that is purged right before it would give way to the new one is simply absent."""
    directory = publications.publish(A, "1")
    tree = PublishedTree(tmp_path / "packages", tmp_path / "staging")
    ready = tmp_path / "staging/ready"
    ready.mkdir()
    real = Path.exists

    def exists(self: Path, **options: bool) -> bool:
        found = real(self, **options)
        if self == directory and found:
            monkeypatch.undo()
            Purge(tmp_path / "packages", tmp_path / "staging").purge(Key.from_string(A))
        return found

    monkeypatch.setattr(Path, "exists", exists)
    tree.place(PackageKey.from_string(A), ready)
    assert real(directory)
