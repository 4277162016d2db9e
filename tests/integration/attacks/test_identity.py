"""Attacks by which a published package could stand in for a package of the system, or a repository for another's."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import requests

from tests.integration import tiny
from tests.integration.harness import CHECKOUT, DEB, Installation, tiny_installation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master."""
    with tiny_installation(tmp_path_factory.mktemp("identity")) as made:
        yield made


def test_c5_a_commit_that_builds_a_bash_is_not_published(here: Installation) -> None:
    """The request fails with a sentence that names the package and the setting, and nothing of the key is served."""
    sha1 = here.repository.commit(replace(tiny.WHOLE, packages=("tiny", "bash")))
    answer = here.ask(DEB, sha1=sha1)
    assert here.wait(answer)["results"] == 2
    assert (
        "is the package 'bash', which project ceph may not publish: if it is right, add the name to"
        " projects.ceph.packages"
    ) in str(here.said(answer))
    assert not (here.packages / DEB / "sha1" / sha1).exists()


def test_c5_the_page_names_the_packages_of_the_settings(here: Installation) -> None:
    """The page of a published directory has the pin with the project's own patterns."""
    answer = here.ask(DEB, sha1=(sha1 := here.repository.commit()))
    assert here.wait(answer)["results"] == 0
    page = requests.get(f"{here.packages_url}{DEB}/sha1/{sha1}/", timeout=60).text
    patterns = here.settings.projects["ceph"].packages
    assert f"Package: {' '.join(patterns)}\nPin: release l=Ceph on demand\nPin-Priority: 500" in page


def test_d14_a_rotation_takes_no_restart(here: Installation) -> None:
    """`make rotate-key` and a reload serve both public keys; what is published then has both signatures."""
    key = f"{here.packages_url}key.asc"
    before = requests.get(key, timeout=60).text
    command = [
        sys.executable,
        "-m",
        "master.publishing.signing",
        "rotate",
        "--settings",
        str(here.settings_file),
    ]
    ran = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    assert ran.stdout.count(", ends on ") == 2
    here.reload()
    served = requests.get(key, timeout=60).text
    assert served != before
    assert fingerprints(served) > fingerprints(before)
    sha1 = here.repository.commit()
    answer = here.ask(DEB, sha1=sha1)
    assert here.wait(answer)["results"] == 0
    signature = here.packages / DEB / "sha1" / sha1 / "dists/bookworm/Release.gpg"
    packets = subprocess.run(["gpg", "--list-packets", signature], capture_output=True, text=True).stdout
    assert packets.count(":signature packet:") == 2


def fingerprints(armour: str) -> set[str]:
    """Return the fingerprints of the primary keys of an armour."""
    command = ["gpg", "--batch", "--show-keys", "--with-colons"]
    shown = subprocess.run(command, input=armour, check=True, capture_output=True, text=True).stdout
    rows = [line.split(":") for line in shown.splitlines()]
    return {after[9] for row, after in itertools.pairwise(rows) if row[0] == "pub" and after[0] == "fpr"}


def test_c4_an_upload_beyond_the_settings_fails_as_a_build(here: Installation) -> None:
    """After a reload with a smaller limit, the build fails with the sentence that names the setting."""
    for setting in ("upload_gib", "total_gib"):
        here.reload(packages={setting: 1e-7})
        answer = here.ask(DEB, sha1=here.repository.commit())
        assert here.wait(answer)["results"] == 2
        assert f"(packages.{setting})" in str(here.said(answer))
        here.reload(packages={"upload_gib": 20, "total_gib": 0})
    answer = here.ask(DEB, sha1=here.repository.commit())
    assert here.wait(answer)["results"] == 0
