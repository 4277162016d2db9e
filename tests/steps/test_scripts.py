"""The scripts that run on a worker: the real bash and the real tools, and tools that lie."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.git_repositories import commit, new_repository
from tests.package_repositories import (
    SCRIPTS,
    run_script,
)

VERSION = "19.2.0-3-g73e2fc59"


def sentence(finished: subprocess.CompletedProcess[str]) -> str:
    """Give the sentence that a script failed with, as the step finds it."""
    assert finished.returncode != 0, finished.stdout
    sentences = re.findall(r"^FAILED: (.*)$", finished.stderr, re.MULTILINE)
    assert sentences, finished.stderr
    return str(sentences[0])


def values(finished: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the values that a script without a key printed; it ended with status 0."""
    assert finished.returncode == 0, finished.stderr
    return dict(re.findall(r"^([a-z_]+)=(.*)$", finished.stdout, re.MULTILINE))


def tool(directory: Path, name: str, text: str) -> str:
    """Put a tool that lies into a directory for PATH, and give that."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/bash\n{text}")
    (directory / name).chmod(0o755)
    return str(directory)


def test_every_script_is_bash_and_sources_the_common_part() -> None:
    """Every script stops at the first command that fails, reports as the common part does, and keeps its EXIT trap."""
    for path in SCRIPTS.glob("*.sh"):
        if path.name not in ("common.sh", "network.sh"):
            text = path.read_text()
            assert text.startswith(f"#!/usr/bin/env bash\n# {path.name}"), path
            assert '\n. "$(dirname "$0")/common.sh"\n' in text, path
            assert not re.search(r"^\s*trap\b|FAILED", text, re.MULTILINE), path


# machine.sh


def machine(
    directory: Path, *needs: str, path: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run machine.sh with a list of needs."""
    (directory / "needs").write_text("".join(f"{line}\n" for line in needs))
    return run_script(directory, "machine", "needs", path=path, **environment)


def test_the_machine_tells_its_size(tmp_path: Path) -> None:
    """System, cores and memory are values that the step reads, and so is what stands in for the distribution."""
    told = values(machine(tmp_path, BUILDPACKAGES_STAND_IN=""))
    assert told["system"]
    assert int(told["cores"]) >= 1
    assert int(told["memory"]) >= 1
    assert told["stand_in"] == ""
    stand_in = values(machine(tmp_path, BUILDPACKAGES_STAND_IN="Debian for centos9"))["stand_in"]
    assert stand_in == "Debian for centos9"


MISSING = (
    "bash bash bash bash",
    "no-such-command no-such-package other-package another-package",
    "no-such-second no-such-package other-package another-package",
    "python3:no_such_module no-such-python b c",
    "python3:json a b c",
    "not-needed - other-package another-package",
)


def test_the_machine_names_the_commands_that_it_lacks(tmp_path: Path) -> None:
    """Each missing command and Python module is named, and each package of this system that brings them, once."""
    system = values(machine(tmp_path))["system"]
    assert sentence(machine(tmp_path, *MISSING)) == (
        f"{system} lacks what builds call: no-such-command, no-such-second, the Python module no_such_module."
        " Install no-such-package no-such-python on this machine, or in the image that it is made from"
    )


@pytest.mark.parametrize(
    ("manager", "packages"),
    [("dnf", "other-package b"), ("zypper", "another-package c"), ("", "another-package c")],
)
def test_the_machine_names_packages_of_its_own_system(tmp_path: Path, manager: str, packages: str) -> None:
    """Where there is no apt-get, the packages are dnf's or zypper's, and what only they need is asked for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(Path(sys.executable).resolve())
    for name in ("awk", "bash", "dirname", "id", "nproc", "uname"):
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    if manager:
        tool(tmp_path / "bin", manager, "")
    (tmp_path / "needs").write_text("".join(f"{line}\n" for line in MISSING))
    ran = subprocess.run(
        ["bash", str(SCRIPTS / "machine.sh"), "needs"],
        cwd=tmp_path, env={"PATH": f"{tmp_path}/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert sentence(ran).endswith(
        f"the Python module no_such_module, not-needed. Install {packages} on this machine, or in the image that it is made from"
    )


# tarball.sh


def make_dist(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a commit with a make-dist of this text."""
    commit(new_repository(directory / "src"), "first", {"make-dist": f"#!/bin/bash\n{text}"})
    return run_script(directory, "tarball", "ceph", VERSION)


def test_make_dist_is_told_the_version(tmp_path: Path) -> None:
    """make-dist gets the version, and the tarball that it leaves is looked into and named."""
    finished = make_dist(
        tmp_path, 'mkdir "ceph-$1"; echo x >"ceph-$1/a"; tar -cjf "ceph-$1.tar.bz2" "ceph-$1"'
    )
    assert values(finished) == {"tarball": f"ceph-{VERSION}.tar.bz2"}
    assert f"ceph-{VERSION}.tar.bz2: 2 files, " in finished.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "make-dist ended with status 3"),
        ("exit 0", f"make-dist ended well, but left 0 files ceph-{VERSION}.tar.* instead of one"),
        ("touch ceph-1.0.tar.gz", f"make-dist ended well, but left 0 files ceph-{VERSION}.tar.* instead of one"),
        ('touch "ceph-$1.tar.gz" "ceph-$1.tar.bz2"', f"make-dist ended well, but left 2 files ceph-{VERSION}.tar.* instead of one"),
        ('touch "ceph-$1.tar.gz"', f"ceph-{VERSION}.tar.gz is not a whole tarball"),
        ('head -c 300000 /dev/urandom >a; mkdir "ceph-$1"; mv a "ceph-$1/"; tar -cz "ceph-$1" | head -c 200000 >"ceph-$1.tar.gz"', f"ceph-{VERSION}.tar.gz is not a whole tarball"),
        ('mkdir other; tar -czf "ceph-$1.tar.gz" other', f"ceph-{VERSION}.tar.gz holds other/, outside ceph-{VERSION}/"),
    ],
    ids=["fails", "nothing", "another", "two", "empty", "truncated", "stray"],
)  # fmt: skip
def test_make_dist_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    """Whatever make-dist's status says, there must be one whole tarball of this version."""
    assert sentence(make_dist(tmp_path, text)) == said


def test_a_project_without_make_dist_is_archived(tmp_path: Path) -> None:
    """A plain project's tarball is what git has at HEAD."""
    repository = new_repository(tmp_path / "src")
    commit(repository, "first", {"a": "1\n", "b/c": "2\n"})
    (repository / "untracked").write_text("x")
    assert values(run_script(tmp_path, "tarball", "ceph", VERSION)) == {"tarball": f"ceph-{VERSION}.tar.gz"}
    listed = subprocess.run(
        ["tar", "-tf", repository / f"ceph-{VERSION}.tar.gz"], check=True, capture_output=True, text=True
    ).stdout
    assert listed.split() == [
        f"ceph-{VERSION}/",
        f"ceph-{VERSION}/a",
        f"ceph-{VERSION}/b/",
        f"ceph-{VERSION}/b/c",
    ]


# network.sh


def read_by_tools(directory: Path, home: Path, **environment: str) -> tuple[str, str]:
    """Return the configuration that wget and curl read in a script that sources network.sh."""
    text = (
        f'. {SCRIPTS}/common.sh\n. {SCRIPTS}/network.sh\ncat "$WGETRC"; echo --; cat "$CURL_HOME/.curlrc"\n'
    )
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("WGETRC", "CURL_HOME", "XDG_CONFIG_HOME")
    }
    finished = subprocess.run(
        ["bash", "-c", text], cwd=directory, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**clean, "HOME": str(home), **environment},
    )  # fmt: skip
    wget, _, curl = finished.stdout.partition("--\n")
    return wget, curl


def test_an_operators_configuration_of_wget_and_curl_stays(tmp_path: Path) -> None:
    """The file that wget or curl would have read is read after our limits, wherever its own variable says that it is."""
    home, other = tmp_path / "home", tmp_path / "other"
    for directory in (home, other):
        directory.mkdir()
        (directory / ".wgetrc").write_text(f"ca_certificate = {directory}/ca.pem\n")
        (directory / ".curlrc").write_text(f"cacert = {directory}/ca.pem\n")
        (directory / "curlrc").write_text(f"cacert = {directory}/xdg.pem\n")
    ours = ("timeout = 120\ntries = 3\n", "connect-timeout = 120\nspeed-limit = 1\nspeed-time = 120\n")
    wget, curl = read_by_tools(tmp_path, home)
    assert (wget, curl) == (
        f"{ours[0]}ca_certificate = {home}/ca.pem\n",
        f"{ours[1]}cacert = {home}/ca.pem\n",
    )
    wget, curl = read_by_tools(tmp_path, home, WGETRC=f"{other}/.wgetrc", CURL_HOME=str(other))
    assert (wget, curl) == (
        f"{ours[0]}ca_certificate = {other}/ca.pem\n",
        f"{ours[1]}cacert = {other}/ca.pem\n",
    )
    assert read_by_tools(tmp_path, home, XDG_CONFIG_HOME=str(other))[1] == (
        f"{ours[1]}cacert = {other}/xdg.pem\n"
    )
    assert read_by_tools(tmp_path, tmp_path / "none") == ours


def test_wget_and_curl_obey_an_operators_files(tmp_path: Path) -> None:
    """The real tools, started by a script, do what the files of WGETRC and CURL_HOME say."""
    agents = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            agents.append(self.headers["User-Agent"])
            self.send_response(204)
            self.end_headers()

    (tmp_path / "wgetrc").write_text("user_agent = operators-wget\n")
    (tmp_path / ".curlrc").write_text("user-agent = operators-curl\n")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        text = f". {SCRIPTS}/common.sh\n. {SCRIPTS}/network.sh\nwget -q -O - {url}\ncurl -sf {url}\n"
        subprocess.run(
            ["bash", "-c", text], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "WGETRC": str(tmp_path / "wgetrc"), "CURL_HOME": str(tmp_path), "no_proxy": "127.0.0.1"},
        )  # fmt: skip
        server.shutdown()
    assert agents == ["operators-wget", "operators-curl"]
