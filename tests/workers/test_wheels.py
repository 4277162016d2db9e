"""Wheels: the right ones for every Python, served read-only, and unpacked on the machine only if they are what they should be."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import requests

from model.distros import DISTS
from tests.package_server_process import PackageServerProcess
from tests.patience import free_ports
from tests.workers.fetched_wheels import fetched_wheels
from workers import wheels as module
from workers.wheels import PYTHONS, Machine, digests, fetch, machines, prune

INSTALL = Path(module.__file__).parent / "scripts/install-worker.py"
HERE = Machine(platform.python_version(), platform.machine())
OLD, NEW = Machine("3.8.10", "x86_64"), Machine("3.13.5", "aarch64")


@pytest.fixture(scope="module")
def wheels() -> Path:
    return fetched_wheels()


def wheel(directory: Path, name: str, release: str, *needs: str, files: dict[str, str] | None = None) -> Path:
    """Make a wheel."""
    path = directory / f"{name}-{release}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        lines = [f"Name: {name}", f"Version: {release}", *(f"Requires-Dist: {need}" for need in needs)]
        archive.writestr(f"{name}-{release}.dist-info/METADATA", "\n".join(lines) + "\n\n")
        for file, text in (files or {}).items():
            archive.writestr(file, text)
    return path


def test_every_dist_has_its_python() -> None:
    """No dist is without wheels because somebody has forgotten to say which Python it has."""
    assert set(PYTHONS) == set(DISTS)


def test_the_kinds_of_machines() -> None:
    """Each Python comes once for each architecture."""
    assert [machine.index for machine in machines(["x86_64", "aarch64"])] == [
        "index-cp39-x86_64.json",
        "index-cp310-x86_64.json",
        "index-cp311-x86_64.json",
        "index-cp312-x86_64.json",
        "index-cp313-x86_64.json",
        "index-cp314-x86_64.json",
        "index-cp39-aarch64.json",
        "index-cp310-aarch64.json",
        "index-cp311-aarch64.json",
        "index-cp312-aarch64.json",
        "index-cp313-aarch64.json",
        "index-cp314-aarch64.json",
    ]


@pytest.mark.parametrize(
    ("machine", "pin"),
    [
        (OLD, "Twisted==25.5.0"),
        (OLD, "tomli==2.2.1"),
        (NEW, "Twisted==26.10.0"),
        (NEW, f"buildbot-worker=={version('buildbot-worker')}"),
    ],
)
def test_pins_depend_on_the_machine_s_python(machine: Machine, pin: str) -> None:
    """Markers are evaluated for the machine, not for the Python that evaluates them; buildbot-worker is the master's."""
    assert pin in [line.split()[0] for line in machine.pins()]


def test_each_package_is_pinned_once() -> None:
    """No Python gets two versions of one package."""
    for machine in machines(["x86_64"]):
        names = [pin.partition("==")[0].lower() for pin in machine.pins()]
        assert len(names) == len(set(names)) > 15, machine


@pytest.mark.parametrize(
    ("machine", "twisted", "problems"),
    [
        (OLD, ["attrs>=1"], []),
        (OLD, ["attrs>=3"], ["twisted need attrs>=3"]),
        (OLD, ['tomli; python_version < "3.11"'], ["twisted need tomli"]),
        (NEW, ['tomli; python_version < "3.11"'], []),
        (OLD, ['pyopenssl; extra == "tls"'], ["twisted need pyopenssl"]),
        (OLD, ['pyopenssl; extra == "gtk"'], []),
        (NEW, ['tomli; platform_machine == "aarch64"'], ["twisted need tomli"]),
    ],
)
def test_what_wheels_need_must_be_among_them(
    tmp_path: Path, machine: Machine, twisted: list[str], problems: list[str]
) -> None:
    """A set of wheels is complete for its own Python and architecture, TLS included, or says what is missing."""
    made = [
        wheel(tmp_path, "buildbot_worker", "4.3.0", "twisted>=21"),
        wheel(tmp_path, "twisted", "22.0", *twisted),
        wheel(tmp_path, "attrs", "2.0"),
    ]
    assert machine.unmet(made) == problems


def test_no_wheel_at_all() -> None:
    """What is missing at the root is named as well."""
    assert OLD.unmet([]) == ["missing: Twisted", "missing: buildbot-worker"]


def test_an_index_lists_what_was_fetched(wheels: Path) -> None:
    """Names, sizes and SHA-256 are those of the files, and of all of them."""
    [index] = wheels.glob("index-*.json")
    assert index.name == f"index-cp311-{platform.machine()}.json"
    listed = json.loads(index.read_text())
    assert listed["buildbot-worker"] == version("buildbot-worker")
    assert {file["name"] for file in listed["files"]} == {path.name for path in wheels.glob("*.whl")}
    for file in listed["files"]:
        content = (wheels / file["name"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert digests(wheels) == {index.name: hashlib.sha256(index.read_bytes()).hexdigest()}
    assert not list(wheels.glob(".fetching-*"))


def _locked(pin: str) -> str:
    """Return the line of a pin for pip, with its hashes."""
    return next(line for line in Machine("3.11.2", "x86_64").pins() if line.startswith(pin))


@pytest.mark.parametrize(
    ("pins", "sentence"),
    [
        (
            f"attrs==0.0.1.dev999 --hash=sha256:{'0' * 64}",
            "pip has no wheels for cp311-x86_64: No matching distribution found for attrs",
        ),
        (
            _locked("incremental==24.11.0"),
            "worker-requirements.txt is not complete for cp311-x86_64: .*missing: Twisted",
        ),
    ],
)
def test_what_cannot_be_fetched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pins: str, sentence: str
) -> None:
    """A pin without a wheel, and a pin that is forgotten, each end in a sentence, and nothing is listed."""
    file = tmp_path / "worker-requirements.txt"
    file.write_text(pins)
    monkeypatch.setattr(module, "_PINS", file)
    with pytest.raises(RuntimeError, match=sentence):
        fetch(tmp_path / "wheels", Machine("3.11.2", "x86_64"))
    assert list((tmp_path / "wheels").iterdir()) == []


def test_what_no_index_lists_goes(tmp_path: Path) -> None:
    """Old wheels and what a killed fetch has left are removed, and nothing else."""
    kept = wheel(tmp_path, "a", "2")
    wheel(tmp_path, "a", "1")
    (tmp_path / ".fetching-x").mkdir()
    (tmp_path / ".fetching-x/b").write_text("")
    (tmp_path / "index-cp311-x86_64.json").write_text(json.dumps({"files": [{"name": kept.name}]}))
    (tmp_path / "readme").write_text("")
    prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {kept.name, "index-cp311-x86_64.json", "readme"}


# Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    directory = tmp_path_factory.mktemp("served")
    (directory / "secret").write_text("secret")
    (directory / "wheels").mkdir()
    (directory / "wheels/.hidden").write_text("secret")
    (directory / "wheels/out").symlink_to(directory / "secret")
    with PackageServerProcess(directory) as server:
        server.ask("reconfigure", wheels=str(directory / "wheels"))
        yield server


def offer(served: PackageServerProcess, *paths: Path, release: str = "", **index: str) -> Path:
    """Have the server offer wheels to this machine, in place of any before; give the index."""
    directory = served.tree.parent / "wheels"
    for old in directory.glob("*.*"):
        if old.is_file() and not old.name.startswith("."):
            old.unlink()
    files = []
    for path in paths:
        shutil.copy(path, directory)
        files.append({"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    listed = directory / HERE.index
    release = release or version("buildbot-worker")
    listed.write_text(json.dumps({"buildbot-worker": release, "files": files} | index))
    return listed


def install(url: str, into: Path, **config: object) -> subprocess.CompletedProcess[str]:
    """Run what runs on the machine."""
    told = {"url": f"{url}wheels/", "into": str(into), "version": version("buildbot-worker"), **config}
    return subprocess.run(
        [sys.executable, "-I", str(INSTALL)],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_wheels_are_served_read_only(served: PackageServerProcess, tmp_path: Path) -> None:
    """The directory is there below /wheels/, with nothing of what lies beside it, and no way to write."""
    index = offer(served, wheel(tmp_path, "a", "1"))
    answer = requests.get(f"{served.url}wheels/{index.name}", timeout=10)
    assert answer.content == index.read_bytes()
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "a-1-py3-none-any.whl" in requests.get(f"{served.url}wheels/", timeout=10).text
    for path in ("wheels/out", "wheels/.hidden", "wheels/..%2fsecret", "wheels/wheels", "wheels/nothing"):
        assert requests.get(served.url + path, timeout=10).status_code == 404, path
    put = requests.put(f"{served.url}wheels/b.whl", data=b"x", timeout=10)
    assert put.status_code == 405


def test_without_the_setting_there_are_no_wheels(tmp_path: Path) -> None:
    """A package server that is told of no wheels has none."""
    with PackageServerProcess(tmp_path) as server:
        assert requests.get(f"{server.url}wheels/", timeout=10).status_code == 404


def test_what_a_machine_installs_is_a_worker(
    served: PackageServerProcess, wheels: Path, tmp_path: Path
) -> None:
    """From the server's wheels comes a directory with which a bare Python has a worker of the right version, with TLS."""
    for path in wheels.iterdir():
        shutil.copy(path, served.tree.parent / "wheels")
    done = install(served.url, tmp_path / "worker", digests=digests(wheels))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("21 wheels, ")
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p] + [sys.argv[1]];"
        "import buildbot_worker.bot, OpenSSL, service_identity, twisted;"
        "print(buildbot_worker.version, twisted.__file__)"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "worker")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == [version("buildbot-worker"), str(tmp_path / "worker/twisted/__init__.py")]


def test_a_wheel_is_laid_out_as_pip_would(served: PackageServerProcess, tmp_path: Path) -> None:
    """Modules of a wheel's data go where modules go, its other data nowhere, and nothing gets out of the directory."""
    files = {
        "m/__init__.py": "1",
        "m-1.data/purelib/p.py": "2",
        "m-1.data/scripts/s": "3",
        "../../out.py": "4",
        "/tmp/buildpackages-out.py": "5",
    }
    offer(served, wheel(tmp_path, "m", "1", files=files))
    into = tmp_path / "deep/er/worker"
    into.parent.mkdir(parents=True)
    assert install(served.url, into).returncode == 0
    found = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    assert found == {"m/__init__.py", "p.py", "m-1.dist-info/METADATA"}
    assert not list(tmp_path.rglob("out.py"))
    assert not Path("/tmp/buildpackages-out.py").exists()


def test_what_is_not_as_listed_is_refused(served: PackageServerProcess, tmp_path: Path) -> None:
    """A wheel with another SHA-256 is not unpacked, and the directory is not there at all."""
    good, bad = wheel(tmp_path, "a", "1"), wheel(tmp_path, "b", "1")
    offer(served, good, bad)
    (served.tree.parent / "wheels" / bad.name).write_bytes(good.read_bytes())
    done = install(served.url, tmp_path / "worker")
    assert done.returncode == 1
    assert f"{bad.name} is not what it should be: its SHA-256 is another" in done.stderr
    assert not (tmp_path / "worker").exists()


def test_an_index_that_the_master_did_not_vouch_for_is_refused(
    served: PackageServerProcess, tmp_path: Path
) -> None:
    """With digests, whoever sits between machine and server cannot change the list itself."""
    index = offer(served, wheel(tmp_path, "a", "1"))
    vouched = {index.name: hashlib.sha256(index.read_bytes()).hexdigest()}
    assert install(served.url, tmp_path / "worker", digests=vouched).returncode == 0
    offer(served, wheel(tmp_path, "a", "2"))
    done = install(served.url, tmp_path / "other", digests=vouched)
    assert f"{index.name} is not what it should be" in done.stderr
    done = install(served.url, tmp_path / "other", digests={"index-cp27-pdp11.json": "0" * 64})
    assert done.stderr == f"the master has no wheels for this machine: it has no {index.name}\n"
    assert not (tmp_path / "other").exists()


def test_a_refused_set_leaves_the_one_before(served: PackageServerProcess, tmp_path: Path) -> None:
    """A worker that is there stays as it was until another one is whole."""
    into = tmp_path / "worker"
    offer(served, wheel(tmp_path, "a", "1", files={"a.py": "old"}))
    assert install(served.url, into).returncode == 0
    listed = offer(served, wheel(tmp_path, "b", "1"), wheel(tmp_path, "c", "1"))
    (listed.parent / "c-1-py3-none-any.whl").unlink()
    assert "c-1-py3-none-any.whl: HTTP Error 404" in install(served.url, into).stderr
    assert (into / "a.py").read_text() == "old"


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ({"buildbot-worker": "1.0"}, " is for buildbot-worker 1.0, not "),
        ({"files": [{"name": "../secret", "sha256": ""}]}, " lists '../secret', which is no wheel's name"),
        ({"files": [{"sha256": ""}]}, "KeyError: 'name'"),
    ],
)
def test_a_strange_index_is_refused(
    served: PackageServerProcess, tmp_path: Path, index: dict[str, str], sentence: str
) -> None:
    """An index of another version or shape ends in a sentence."""
    offer(served, **index)
    done = install(served.url, tmp_path / "worker")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    """After some tries the sentence has the URL and the reason."""
    [port] = free_ports(1)
    code = INSTALL.read_text().replace(
        "ATTEMPTS, PAUSE, SECONDS = 4, 3, 60", "ATTEMPTS, PAUSE, SECONDS = 2, 0.1, 5"
    )
    told = {"url": f"http://127.0.0.1:{port}/wheels/", "into": str(tmp_path / "x"), "version": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=json.dumps(told), capture_output=True, text=True
    )
    assert done.stderr == (
        f"http://127.0.0.1:{port}/wheels/{HERE.index}: <urlopen error [Errno 111] Connection refused>\n"
    )


def test_what_is_no_wheel_is_refused(served: PackageServerProcess, tmp_path: Path) -> None:
    """A file that is listed as it is, yet is no wheel, ends in a sentence."""
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(b"no zip")
    offer(served, path)
    assert install(served.url, tmp_path / "worker").stderr == "BadZipFile: File is not a zip file\n"
