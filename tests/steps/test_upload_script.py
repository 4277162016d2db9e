"""The uploader that workers run: the real script against the real server, and against broken ones."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from model.manifest import Manifest
from tests.listening import listening
from tests.package_server_process import KEY, PackageServerProcess

SCRIPT = Path(__file__).parent.parent.parent / "steps/scripts/upload.py"
FILES = {
    "dists/jammy/Release": b"Codename: jammy\n",
    "pool/c/ceph_19.2.0-1~x+y_amd64.deb": os.urandom(3_000_000),
    "pool/empty": b"",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageServerProcess]:
    with PackageServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for path, content in FILES.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_bytes(content)
    return tmp_path / "repo"


def run(directory: Path, url: str, token: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the step does: as `python3 -c`, with the token in the environment."""
    return run_places([f"{directory}=."], url, token, *more)


def run_places(places: list[str], url: str, token: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the script with pairs of directory and place."""
    arguments = [url, KEY, *places, "--version", "19.2.0-1", "--packages", "ceph,ceph-common", *more]
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.read_text(), *arguments],
        env={"UPLOAD_TOKEN": token, "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def answer(status: str, body: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


def received(content: bytes) -> bytes:
    """Give the answer of a server that received the content."""
    body = json.dumps({"path": "", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return answer("201 Created", body)


@contextmanager
def broken_server(behave: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """Give the URL of a server that treats its n-th connection as `behave` says."""
    with listening(behave) as port:
        yield f"http://127.0.0.1:{port}/"


def read_put(connection: socket.socket) -> tuple[str, bytes]:
    """Read one whole PUT; give its path and its body. EOFError if no more comes."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise EOFError
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head.split()[1].decode(), body


def test_a_directory_arrives_with_its_manifest_last(server: PackageServerProcess, directory: Path) -> None:
    """Every file, its digest, the manifest that the master reads, and progress for the step."""
    token = server.open()
    done = run(directory, server.url, token)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "[1/3] dists/jammy/Release 16 B",
        "[2/3] pool/c/ceph_19.2.0-1~x+y_amd64.deb 2.9 MiB",
        "[3/3] pool/empty 0 B",
        "uploaded=3 files, 3000016 bytes",
    ]
    files = server.files(token)
    assert list(files) == [*sorted(FILES), "manifest.json"]
    for path, content in FILES.items():
        assert files[path] == (len(content), hashlib.sha256(content).hexdigest())
    manifest = Manifest.from_json((server.directory(token) / "manifest.json").read_text())
    assert manifest.version == "19.2.0-1"
    assert manifest.packages == ("ceph", "ceph-common")
    assert {file.path: (file.size, file.sha256) for file in manifest.files} == {
        path: files[path] for path in FILES
    }


def test_each_directory_has_its_place(server: PackageServerProcess, directory: Path) -> None:
    """Directories arrive below the places that the call names, all in one order and in one manifest."""
    token = server.open()
    places = [f"{directory}/pool=x86_64/a", f"{directory}/dists=.", f"{directory}/pool/c=SRPMS"]
    assert run_places(places, server.url, token).stdout.splitlines()[-1] == "uploaded=4 files, 6000016 bytes"
    assert list(server.files(token)) == [
        "SRPMS/ceph_19.2.0-1~x+y_amd64.deb", "jammy/Release", "x86_64/a/c/ceph_19.2.0-1~x+y_amd64.deb",
        "x86_64/a/empty", "manifest.json",
    ]  # fmt: skip


def test_a_directory_without_a_place_is_a_failure(directory: Path) -> None:
    """A call that does not say where the files belong is refused, and nothing is sent."""
    done = run_places([str(directory)], "http://127.0.0.1:1/", "t")
    assert done.stderr == f"FAILED: {str(directory)!r} is not DIRECTORY=PLACE\n"


def test_all_files_take_one_connection(directory: Path) -> None:
    """The connection is kept: a repository of hundreds of files is not hundreds of handshakes."""
    seen = []

    def behave(connection: socket.socket, number: int) -> None:
        try:
            while True:
                path, body = read_put(connection)
                seen.append((number, path))
                connection.sendall(received(body))
        except EOFError:
            pass

    with broken_server(behave) as url:
        assert run(directory, url, "t").returncode == 0
    prefix = f"/upload/{KEY}/"
    assert seen == [
        (0, f"{prefix}dists/jammy/Release"),
        (0, f"{prefix}pool/c/ceph_19.2.0-1~x%2By_amd64.deb"),
        (0, f"{prefix}pool/empty"),
        (0, f"{prefix}manifest.json"),
    ]


@pytest.mark.parametrize("size", [10, 40_000_000])
def test_a_wrong_token_stops_at_once_with_the_servers_sentence(
    server: PackageServerProcess, directory: Path, size: int
) -> None:
    """No second attempt, and the token is not shown; also when the body was still on its way."""
    (directory / "a").write_bytes(b"x" * size)
    done = run(directory, server.url, "secret-token")
    assert done.returncode == 1
    assert done.stderr == (
        "FAILED: a was refused (401): An upload needs the token of a build that is uploading now.\n"
    )
    assert done.stdout == ""


def test_another_key_is_refused(server: PackageServerProcess, directory: Path) -> None:
    """A 403 is a sentence, too."""
    token = server.open("ceph-rpm-centos9-x86_64-default/" + "f" * 40)
    done = run(directory, server.url, token)
    assert done.returncode == 1
    assert "(403): This token is for ceph-rpm-centos9-x86_64-default/" in done.stderr


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (json.dumps({"sha256": "0" * 64, "size": 16}), "arrived with another size or SHA-256 than was sent"),
        ("<html>", "the server's answer cannot be read: '<html>'"),
        ("[]", "the server's answer cannot be read: '[]'"),
    ],
)
def test_a_corrupt_answer_is_a_failure(directory: Path, body: str, sentence: str) -> None:
    """A file that did not arrive as it was sent has not arrived."""

    def behave(connection: socket.socket, _: int) -> None:
        read_put(connection)
        connection.sendall(answer("201 Created", body))

    with broken_server(behave) as url:
        done = run(directory, url, "t")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.startswith("FAILED: dists/jammy/Release")
    assert done.stderr.count("\n") == 1


def test_a_size_that_differs_is_a_failure(directory: Path) -> None:
    """The digest alone does not do."""

    def behave(connection: socket.socket, _: int) -> None:
        _path, body = read_put(connection)
        text = json.dumps({"sha256": hashlib.sha256(body).hexdigest(), "size": 17})
        connection.sendall(answer("201 Created", text))

    with broken_server(behave) as url:
        assert "arrived with another size" in run(directory, url, "t").stderr


def test_a_broken_connection_is_tried_again(directory: Path) -> None:
    """Twice broken, in the head and in the body, and then whole."""
    whole: dict[str, bytes] = {}

    def behave(connection: socket.socket, number: int) -> None:
        if number == 0:
            return
        if number == 1:
            connection.recv(100)
            return
        try:
            while True:
                path, body = read_put(connection)
                whole[path] = body
                connection.sendall(received(body))
        except EOFError:
            pass

    with broken_server(behave) as url:
        done = run(directory, url, "t")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trying again") == 2
    assert [whole[f"/upload/{KEY}/{path.replace('+', '%2B')}"] for path in FILES] == list(FILES.values())


def test_three_attempts_are_all(directory: Path) -> None:
    """A server that is not well is not asked for ever."""
    attempts = []

    def behave(connection: socket.socket, number: int) -> None:
        read_put(connection)
        attempts.append(number)
        connection.sendall(answer("503 Service Unavailable", "not now", Connection="close"))

    with broken_server(behave) as url:
        done = run(directory, url, "t")
    assert attempts == [0, 1, 2]
    assert done.returncode == 1
    assert done.stderr == (
        "FAILED: dists/jammy/Release could not be uploaded in 3 attempts: the server answered 503: not now\n"
    )


def test_no_server_is_a_failure(directory: Path) -> None:
    """Nobody listens: one sentence, and no traceback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        done = run(directory, url, "t")
    assert done.returncode == 1
    assert done.stderr.startswith("FAILED: dists/jammy/Release could not be uploaded in 3 attempts: ")
    assert done.stderr.count("\n") == 1


def test_a_lost_answer_is_no_failure(directory: Path) -> None:
    """The file was received, the answer lost: the second attempt learns so from the digest."""
    release = hashlib.sha256(FILES["dists/jammy/Release"]).digest()

    def behave(connection: socket.socket, number: int) -> None:
        if number == 0:
            read_put(connection)
        elif number == 1:
            read_put(connection)
            connection.sendall(answer("409 Conflict", "is being uploaded.", Connection="close"))
        elif number == 2:
            read_put(connection)
            import base64

            digest = f"sha-256=:{base64.b64encode(release).decode()}:"
            connection.sendall(answer("409 Conflict", "there", Repr_Digest=digest, Connection="close"))
        else:
            try:
                while True:
                    connection.sendall(received(read_put(connection)[1]))
            except EOFError:
                pass

    with broken_server(behave) as url:
        done = run(directory, url, "t")
    assert done.returncode == 0, done.stderr


def test_a_lost_answer_of_another_file_is_a_failure(directory: Path) -> None:
    """What is there is not what was to be there."""

    def behave(connection: socket.socket, number: int) -> None:
        read_put(connection)
        if number:
            connection.sendall(answer("409 Conflict", "there", Repr_Digest="sha-256=:AAAA:"))

    with broken_server(behave) as url:
        done = run(directory, url, "t")
    assert done.returncode == 1
    assert done.stderr == "FAILED: dists/jammy/Release is there already, and is another file\n"


def test_a_first_conflict_is_a_failure(server: PackageServerProcess, directory: Path) -> None:
    """An upload that somebody else began is not ours to finish."""
    token = server.open()
    assert run(directory, server.url, token).returncode == 0
    done = run(directory, server.url, token)
    assert done.stderr == (
        "FAILED: dists/jammy/Release was refused (409): dists/jammy/Release is already uploaded.\n"
    )


def test_a_server_that_dies_midway_is_a_failure(tmp_path: Path, directory: Path) -> None:
    """The master was killed: the script ends with a sentence, and the master's next start wipes."""
    (directory / "zz").write_bytes(os.urandom(200_000_000))
    with PackageServerProcess(tmp_path / "server") as server:
        token = server.open()
        watcher = threading.Thread(target=lambda: _kill_when_growing(server), daemon=True)
        watcher.start()
        done = run(directory, server.url, token)
        watcher.join(60)
    assert done.returncode == 1
    assert done.stderr.startswith("FAILED: zz could not be uploaded in 3 attempts: ")
    assert done.stderr.count("\n") == 1


def _kill_when_growing(server: PackageServerProcess) -> None:
    while True:
        # What has come whole meanwhile has another place.
        with suppress(FileNotFoundError):
            if any(path.stat().st_size > 3_000_000 for path in server.growing()):
                server.kill()
                return
        threading.Event().wait(0.005)


def test_an_empty_directory_is_a_failure(tmp_path: Path) -> None:
    """A build that made nothing has nothing to publish."""
    done = run(tmp_path, "http://127.0.0.1:1/", "t")
    assert done.returncode == 1
    assert done.stderr == f"FAILED: there are no files to upload in {tmp_path}=.\n"


def test_no_directory_is_a_failure(tmp_path: Path) -> None:
    """What is not there cannot be read."""
    done = run(tmp_path / "gone", "http://127.0.0.1:1/", "t")
    assert done.stderr == f"FAILED: {tmp_path}/gone cannot be read: No such file or directory\n"


@pytest.mark.parametrize("to", ["dists", "/etc/passwd", "nowhere"])
def test_a_link_is_a_failure(directory: Path, to: str) -> None:
    """Nothing from outside the directory is sent, and nothing twice."""
    (directory / "pool/link").symlink_to(to)
    done = run(directory, "http://127.0.0.1:1/", "t")
    assert done.stderr == "FAILED: pool/link is a link or no plain file, and cannot be uploaded\n"


def test_a_manifest_of_its_own_is_a_failure(directory: Path) -> None:
    """The manifest is made of what was sent."""
    (directory / "manifest.json").write_text("{}")
    done = run(directory, "http://127.0.0.1:1/", "t")
    assert done.stderr == "FAILED: manifest.json is there already, but is for the upload to make\n"


@pytest.mark.parametrize(
    ("url", "token", "more", "sentence"),
    [
        ("http://127.0.0.1:1/", "", [], "UPLOAD_TOKEN is not in the environment"),
        ("ftp://x/", "t", [], "'ftp://x/' is not the URL of a package server"),
        ("http://127.0.0.1:1/", "t", ["--packages", ","], "--packages names no package"),
    ],
)
def test_a_wrong_call_is_a_failure(
    directory: Path, url: str, token: str, more: list[str], sentence: str
) -> None:
    """The step that made the mistake can be told by its sentence."""
    done = run(directory, url, token, *more)
    assert (done.returncode, done.stderr) == (1, f"FAILED: {sentence}\n")


def test_the_script_fits_a_command_line() -> None:
    """It is handed over as one argument."""
    assert len(SCRIPT.read_bytes()) < 30_000


def test_the_script_has_only_old_syntax() -> None:
    """Workers have Python 3.6: no syntax that is newer."""
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
