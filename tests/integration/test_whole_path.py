"""The whole path, real at every step: asked over REST, built, published, installed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import requests

from demo import install
from model.package_key import PackageKey
from tests.integration.harness import DEB, ROOTS, RPM, Installation, installation
from workers.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator

SHA1 = "249a5e70f3ca4bd8169fadb3f6027a577591b5b6"
"""The Ceph-shaped repository's `main`, the same on every machine."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with both targets of one commit asked for and built."""
    with installation(tmp_path_factory.mktemp("whole")) as made:
        answers = [made.ask(DEB, ref="main"), made.ask(RPM, sha1=SHA1)]
        for answer in answers:
            assert made.wait(answer)["results"] == 0, made.builds(answer)
        yield made


def test_debs_install_with_apt_and_run(here: Installation) -> None:
    """apt installs from our source with our key alone, and the program says the right version."""
    said = install.with_apt(
        PackageKey.from_string(f"{DEB}/{SHA1}"), here.packages_url, Roots(ROOTS, {}),
        ["ceph", "python3-ceph-argparse"], "ceph --version",
    )  # fmt: skip
    assert (
        "ceph version 19.2.0-3-g249a5e70 (249a5e70f3ca4bd8169fadb3f6027a577591b5b6) squid (dev - RelWithDebInfo)"
        in said
    )


def test_rpms_install_with_dnf_and_run(here: Installation) -> None:
    """dnf installs through our release rpm, checks the metadata's signature, and the program runs."""
    said = install.with_dnf(
        PackageKey.from_string(f"{RPM}/{SHA1}"), here.packages_url, Roots(ROOTS, {}),
        ["ceph", "python3-ceph-argparse"], "@ROOT@/usr/bin/ceph --version",
    )  # fmt: skip
    assert "Ceph automated package" in said
    assert (
        "ceph version 19.2.0-3-g249a5e70 (249a5e70f3ca4bd8169fadb3f6027a577591b5b6) squid (dev - RelWithDebInfo)"
        in said
    )


def test_debug_packages_are_published(here: Installation) -> None:
    """The debuginfo rpm of a package has its programs' symbols. Without dwz the main package, which has no files, has none."""
    directory = here.packages / RPM / "sha1" / SHA1 / "x86_64"
    for name, file in (
        ("ceph-common-debuginfo", "/usr/lib/debug/usr/bin/ceph-19.2.0-3.g249a5e70.el9.x86_64.debug"),
        ("ceph-debugsource", "/usr/src/debug/ceph-19.2.0-3.g249a5e70.el9.x86_64/src/tools/ceph.cc"),
    ):
        rpm = directory / f"{name}-19.2.0-3.g249a5e70.el9.x86_64.rpm"
        listed = subprocess.run(
            ["rpm", "-qpl", "--nosignature", str(rpm)], check=True, capture_output=True, text=True
        ).stdout
        assert file in listed.splitlines()
    assert not list(directory.glob("ceph-debuginfo-*"))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (f"{DEB}/sha1/{SHA1}/version", "19.2.0-3-g249a5e70-1bookworm\n"),
        (f"{DEB}/sha1/{SHA1}/sha1", f"{SHA1}\n"),
        (f"{DEB}/ref/main/version", "19.2.0-3-g249a5e70-1bookworm\n"),
        (f"{RPM}/sha1/{SHA1}/version", "19.2.0-3.g249a5e70\n"),
        (f"{RPM}/sha1/{SHA1}/sha1", f"{SHA1}\n"),
    ],
)
def test_layout_is_served(here: Installation, path: str, text: str) -> None:
    """The files that teuthology reads are where it looks for them."""
    answer = requests.get(here.packages_url + path, timeout=30)
    assert (answer.status_code, answer.text) == (200, text)


def test_ref_is_linked_only_where_it_was_asked_for(here: Installation) -> None:
    """A request by sha1 makes no link."""
    assert (here.packages / DEB / "ref/main").is_symlink()
    assert not (here.packages / RPM / "ref").exists()


def test_rpm_build_says_that_a_stand_in_builds_it(here: Installation) -> None:
    """The build's first step on the machine names what stands in for the distribution."""
    answer = here.ask(RPM, sha1=SHA1)
    [build] = here.builds(answer)
    summary = here.steps(build)["machine"]["state_string"]
    assert "a stand-in: " in summary
    assert summary.endswith("with rpmbuild and el9 macros, for centos9")


def test_asking_again_builds_nothing(here: Installation) -> None:
    """A published key is answered with its place and the ids of the request that built it."""
    before = len(here.get("builds")["builds"])
    answer = here.ask(DEB, sha1=SHA1)
    assert answer["state"] == "published"
    assert answer["url"] == f"{here.packages_url}{DEB}/sha1/{SHA1}/"
    assert here.builds(answer)[0]["results"] == 0
    assert len(here.get("builds")["builds"]) == before


def test_nothing_is_left_of_the_builds(here: Installation) -> None:
    """Directories, mounts and processes of finished builds are gone, and staging is empty."""
    here.until(lambda: not here.leftovers(), "nothing is left")
    assert [path for path in here.settings.packages.staging.rglob("*") if path.is_file()] == []


def test_log_holds_no_token(here: Installation) -> None:
    """The upload token and the worker's password are in no log."""
    [build] = here.builds(here.ask(DEB, sha1=SHA1))
    text = here.log(build, "upload")
    assert "UPLOAD_TOKEN" not in text
    assert "uploaded" in text
