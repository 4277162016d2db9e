"""What `check` finds, and what it says is to be done."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from master.users import operator_token
from tests.integration.harness import tiny_installation
from tests.patience import free_ports
from tests.teuthology_bridge.environments import CHECKOUT, SITE, Environment, fake_teuthology
from teuthology_bridge import check
from teuthology_bridge.check import Finding
from teuthology_bridge.settings import Settings

OURS = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawXOsxYJKwYBBAHaRw8BAQdAGqxNN010JnLa/RBjnvy132OiEJVkGKV2VuUP
x144pp60PENlcGggYXV0b21hdGVkIHBhY2thZ2Ugc2lnbmluZyBrZXkgKG9mIGEg
dGVzdCkgPHRAbG9jYWxob3N0PoiQBBMWCAA4FiEEEnimKvdleMVnWHafRpmLBY2j
OLgFAmsFzrMCGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQRpmLBY2jOLiU
+QEA+l2ap8dFE5MsYCTQLbIzbNcFMKLe9FCPs+sgjJwibBsA/3hjuCeNL9Umk+Mv
piShAalO3rUk6PS0/t/OClKKDtsI
=VtTf
-----END PGP PUBLIC KEY BLOCK-----
"""
"""Made for this test: a key of `Ceph automated package signing key (of a test)`."""

SOMEBODYS = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawXOsxYJKwYBBAHaRw8BAQdA0KxDQRMkSWVmUp6pyEq8iSviA1iujyGecaEl
EPhQGi+0FlNvbWVib2R5IDxzQGxvY2FsaG9zdD6IkAQTFggAOBYhBEjYsaBp0+PT
z92kSR3c3GjudtCkBQJrBc6zAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJ
EB3c3GjudtCkTOoA/iIjeVRGS6Y+uIIi1ZQ/9hdO5gm0DufRCfXAL4s/tdZOAQD+
vVUQZtOWaslBdmgd5skekSbRU5Zn1QEbOTg+G3L8Ag==
=GBd7
-----END PGP PUBLIC KEY BLOCK-----
"""

NOTHING = '{"packages": [], "meta": {}}'
ASK_ANEW = (400, '{"error": {"code": -32602, "message": "buildrequest 0 is unknown here"}}')


@contextmanager
def server(**routes: tuple[int, str]) -> Iterator[str]:
    """Give the URL of a server that answers `METHOD_last-word` as written down, and all else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            word = self.path.rsplit("/", 1)[1].replace(".", "_")
            status, text = routes.get(f"{self.command}_{word}", (404, "no"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/"
    finally:
        running.shutdown()
        running.server_close()


def nobody() -> str:
    """Give the URL of a port on which nobody listens."""
    return f"http://127.0.0.1:{free_ports(1)[0]}/"


def settings(url: str = "", packages_url: str = "", token: str = "t0ken") -> Settings:
    """Give settings with these."""
    return Settings(url=url or nobody(), packages_url=packages_url or nobody(), token=token, look_timeout=5)


def environment(tmp_path: Path, **given: str) -> dict[str, str]:
    """Give an environment in which teuthology's configuration is an empty file."""
    file = tmp_path / "teuthology.yaml"
    if not file.exists():
        file.write_text("{}")
    return {"TEUTHOLOGY_CONFIG": str(file), **given}


def states(found: list[Finding]) -> dict[str, str]:
    """Give the state of each thing that was looked at."""
    return {one.what: one.state for one in found}


@pytest.fixture
def active(tmp_path: Path) -> Environment:
    """An environment in which the bridge is active, beside something of teuthology's name."""
    made = Environment(tmp_path / "venv")
    made.add_path("checkout", CHECKOUT)
    made.add_path("teuthology", fake_teuthology(tmp_path / "teuthology"))
    made.add_yaml()
    made.run("-m", "teuthology_bridge", "activate")
    return made


def test_a_real_master(tmp_path: Path, active: Environment) -> None:
    """Against a real master everything is well, and a token that it does not know is found out."""
    with tiny_installation(tmp_path) as here:
        given = environment(
            tmp_path, BUILDPACKAGES_URL=here.url, BUILDPACKAGES_PACKAGES_URL=here.packages_url
        )
        token = operator_token(here.settings.state)
        found = check.findings({**given, "BUILDPACKAGES_TOKEN": token}, active.python)
        assert check.is_good(found), check.as_text(found)
        assert list(states(found)) == ["name", "master", "token", "packages", "key"]
        wrong = check.findings({**given, "BUILDPACKAGES_TOKEN": "not-this-one"}, active.python)
        assert states(wrong) == {**states(found), "token": "wrong"}
        none = check.findings(given, active.python)
        assert states(none) == {**states(found), "token": "wrong"}


def test_the_name(active: Environment) -> None:
    """The name is looked at in a new Python: it is ours, with the file that it is."""
    found = check.name(active.python)
    assert (found.state, found.said) == (
        "ok",
        f"teuthology.task.buildpackages is {CHECKOUT}/teuthology_bridge/task.py",
    )


def test_the_name_is_not_ours(active: Environment) -> None:
    """Where teuthology's own task is found, both ways to activate the bridge are told."""
    active.run("-m", "teuthology_bridge", "deactivate")
    found = check.name(active.python)
    assert found.state == "wrong"
    assert found.said.endswith("teuthology/task/buildpackages.py, teuthology's own")
    assert "python -m teuthology_bridge activate" in found.do
    assert str(SITE) in found.do


def test_the_name_can_not_be_imported(active: Environment, tmp_path: Path) -> None:
    """Where the task can't be loaded, its own error is told in one line; activating is told of where it is not yet done."""
    (tmp_path / "teuthology/teuthology/__init__.py").write_text("raise ImportError('first line\\nsecond')\n")
    found = check.name(active.python)
    assert found.state == "wrong"
    assert "ImportError: first line second" in found.said
    assert "activate" not in found.do
    active.run("-m", "teuthology_bridge", "deactivate")
    assert "activate" in check.name(active.python).do


def test_no_teuthology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no teuthology it is said that this is the wrong Python, were it run beside a checkout of it."""
    monkeypatch.chdir(fake_teuthology(tmp_path / "checkout"))
    found = check.name(sys.executable)
    assert (found.state, found.said) == ("wrong", f"{sys.executable} has no teuthology")
    assert "--python" in found.do


def test_no_python(tmp_path: Path) -> None:
    """What is no Python is found out."""
    found = check.name(str(tmp_path / "nothing"))
    assert found.state == "wrong"
    assert "No such file" in found.said
    assert "does not answer as a Python does: it says nothing" in check.name("/bin/true").said


def test_the_master_is_away() -> None:
    """Without a master nothing is known of the token, and it is said what to do."""
    given = settings()
    master = check.master_answers(given)
    assert master.state == "wrong"
    assert f"the master at {given.url}" in master.said
    assert "Connection refused" in master.said
    assert "`url`" in master.do
    assert check.token_is_good(given, master).state == "unknown"


@pytest.mark.parametrize(
    "answer", [(404, "no"), (200, "<html>hello</html>"), (502, "<html>bad gateway</html>"), (200, "{}")]
)
def test_the_master_is_somebody_else(answer: tuple[int, str]) -> None:
    """A server that is no master, or a proxy without one behind it, is told by what it answered."""
    with server(GET_packages=answer) as url:
        found = check.master_answers(settings(url))
    assert found.state == "wrong"
    assert f"status {answer[0]}" in found.said


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ASK_ANEW, "ok"),
        ((404, "no"), "ok"),
        ((401, '{"error": "no"}'), "wrong"),
        ((403, '{"error": {"message": "asking needs a user"}}'), "wrong"),
        ((503, "later"), "unknown"),
    ],
)
def test_the_token(answer: tuple[int, str], state: str) -> None:
    """The token is good if the master takes a word about a buildrequest that there can't be."""
    with server(GET_packages=(200, NOTHING), POST_0=answer) as url:
        given = settings(url)
        master = check.master_answers(given)
        assert master == Finding("master", "ok", f"the master at {url} answers; 0 on their way")
        found = check.token_is_good(given, master)
    assert found.state == state
    assert ("token_file" in found.do) == (state == "wrong")
    assert given.token not in check.as_text([found])


def test_no_token() -> None:
    """Without a token nothing is asked, and it is said where one comes from."""
    found = check.token_is_good(settings(token=""), Finding("master", "ok", ""))
    assert (found.state, found.said) == ("wrong", "there is none")
    assert "state/token" in found.do


def test_the_key() -> None:
    """The key is of the name that install looks for, and it is said what apt's condition is."""
    with server(GET_key_asc=(200, OURS)) as url:
        packages, key = check.packages_and_key(settings(packages_url=url))
    assert (packages.state, key.state) == ("ok", "ok")
    assert "`Ceph automated package`" in key.said
    assert "git.ceph.com" in key.do
    assert "this machine only" in packages.do


@pytest.mark.parametrize("text", [SOMEBODYS, "", "hello", OURS.replace("Y2thZ2Ug", "Y2th"), OURS[:200]])
def test_a_key_of_somebody_else(text: str) -> None:
    """A key of another name, and what is no key, would have install fetch another one."""
    with server(GET_key_asc=(200, text)) as url:
        packages, key = check.packages_and_key(settings(packages_url=url))
    assert (packages.state, key.state) == ("ok", "wrong")


def test_no_key() -> None:
    """A package server without a key is told."""
    with server() as url:
        packages, key = check.packages_and_key(settings(packages_url=url))
        assert (packages.state, key.state) == ("ok", "wrong")
        assert f"{url}key.asc is not there" in key.said


@pytest.mark.parametrize("answer", [(302, "elsewhere"), (503, "later"), None])
def test_the_package_server_is_away(answer: tuple[int, str] | None) -> None:
    """Without a package server nothing is known of the key."""
    with server(**({"GET_key_asc": answer} if answer else {})) as url:
        packages, key = check.packages_and_key(settings(packages_url=url if answer else ""))
    assert (packages.state, key.state) == ("wrong", "unknown")
    assert "`packages_url`" in packages.do


def test_a_server_that_others_reach() -> None:
    """Of a package server that is not on loopback, nothing is said of machines that could not reach it."""
    assert check._reachable("http://packages.example.org:8011/") == ""
    assert "localhost is this machine only" in check._reachable("http://localhost:8011/")
    assert "127.0.0.1 is this machine only" in check._reachable("http://127.0.0.1:8011/")


def test_wrong_settings(tmp_path: Path) -> None:
    """Settings that can't be read are told, and nothing else is looked at but the name."""
    given = environment(tmp_path)
    Path(given["TEUTHOLOGY_CONFIG"]).write_text("{buildpackages: {urll: x}}")
    found = check.findings(given)
    assert [one.what for one in found] == ["name", "settings"]
    assert "`urll`" in found[1].said
    Path(given["TEUTHOLOGY_CONFIG"]).write_text("{buildpackages: [}")
    assert "can't be read" in check.findings(given)[1].said


def test_a_warning_is_to_be_acted_on(tmp_path: Path) -> None:
    """What the settings warn of is among the findings."""
    file = tmp_path / "token"
    file.write_text("t0ken\n")
    file.chmod(0o644)
    found = check.findings(
        environment(tmp_path, BUILDPACKAGES_TOKEN_FILE=str(file), BUILDPACKAGES_URL=nobody())
    )
    assert "chmod" in next(one for one in found if one.what == "settings").said


def test_how_it_is_told() -> None:
    """People get a line for each finding and what to do below it; programs get all of it as JSON."""
    found = [Finding("name", "ok", "fine"), Finding("token", "wrong", "there is none", "get one")]
    assert check.as_text(found) == (
        "ok      name      fine\nwrong   token     there is none\n                  -> get one"
    )
    told = json.loads(check.as_json(found))
    assert (told["ok"], told["findings"][1]["do"]) == (False, "get one")
    assert json.loads(check.as_json(found[:1]))["ok"] is True
    assert not check.is_good([Finding("token", "unknown", "nobody can say")])
