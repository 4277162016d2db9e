"""A session of the web UI ends with its user, and its cookie is of no use to other sites."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from master import control
from master.settings import Settings
from master.users import digest
from tests.integration.harness import DEB, Installation, tiny_installation
from tests.nginx import nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "mallory's secret of more than sixteen characters"


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with a user besides the operator."""
    users = {"mallory": digest(SECRET), "nobody": digest("")}
    with tiny_installation(tmp_path_factory.mktemp("sessions"), users=users) as made:
        yield made


def login(here: Installation, name: str, secret: str) -> requests.Session:
    """Log in as a browser does; return what keeps the cookie."""
    session = requests.Session()
    session.get(f"{here.url}auth/login", auth=(name, secret), timeout=30, allow_redirects=False)
    return session


def may_request(here: Installation, session: requests.Session, **headers: str) -> bool:
    """Return whether a session may request packages; the commit does not exist, so nothing is built."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "force",
        "params": {"builderNames": [DEB], "sha1": "no sha1"},
    }
    url = f"{here.url}api/v2/forceschedulers/packages"
    answer = session.post(url, json=body, timeout=30, headers={"Origin": here.url.rstrip("/"), **headers})
    assert answer.status_code in (400, 403), answer.text
    return answer.status_code == 400


def reload(here: Installation) -> None:
    """Reload the settings, and wait until they are in force."""
    log = here.settings.state / "twistd.log"
    before = log.read_text().count("configuration update complete")
    control.reload(Settings.from_file(here.settings_file))
    here.until(
        lambda: log.read_text().count("configuration update complete") > before, "the settings are in force"
    )


def test_d1_a_removed_user_and_a_rotated_token_end_their_sessions(here: Installation) -> None:
    """A cookie is worth nothing once its user is removed, or has another secret."""
    mallory = login(here, "mallory", SECRET)
    operator = login(here, "operator", here.token)
    assert may_request(here, mallory)
    assert may_request(here, operator)
    settings = yaml.safe_load(here.settings_file.read_text())
    del settings["users"]["mallory"]
    here.settings_file.write_text(yaml.safe_dump(settings))
    (here.settings.state / "token").write_text("another token of the operator\n")
    reload(here)
    assert not may_request(here, mallory)
    assert not may_request(here, operator)
    assert may_request(here, login(here, "operator", "another token of the operator"))


def test_d2_the_cookie_is_for_this_site_and_no_script(here: Installation) -> None:
    """The session's cookie is HttpOnly and SameSite=Strict, and lasts for a day at most."""
    answer = requests.get(
        f"{here.url}auth/login", auth=("mallory", SECRET), timeout=30, allow_redirects=False
    )
    [cookie] = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert cookie["httponly"]
    assert cookie["samesite"].lower() == "strict"
    assert not cookie["secure"], "this site is plain HTTP on loopback"


def test_d3_an_empty_secret_is_nobodys(here: Installation) -> None:
    """Neither an emptied token file nor the digest of an empty secret lets anybody in."""
    (here.settings.state / "token").write_text("\n")
    reload(here)
    nobody = requests.Session()
    assert not may_request(here, nobody, Authorization="Bearer ")
    assert not may_request(here, nobody, Authorization="Basic bm9ib2R5Og==")  # nobody:
    assert not may_request(here, login(here, "nobody", ""))
    assert not may_request(here, login(here, "operator", ""))


def test_d2_behind_tls_the_cookie_is_for_this_host_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If the UI's address is https, the cookie is `__Host-`, Secure and for /, and a session with it is valid."""
    directory = tmp_path_factory.mktemp("tls")
    url = "https://builds.example.org/"
    with tiny_installation(directory, users={"mallory": digest(SECRET)}, www={"url": url}) as here:
        here.url = f"http://127.0.0.1:{here.settings.www.port}/"  # as the proxy reaches it
        answer = requests.get(
            f"{here.url}auth/login", auth=("mallory", SECRET), timeout=30, allow_redirects=False
        )
        [(name, cookie)] = SimpleCookie(answer.headers["Set-Cookie"]).items()
        assert name.startswith("__Host-")
        assert cookie["secure"]
        assert cookie["httponly"]
        assert cookie["samesite"].lower() == "strict"
        assert (cookie["path"], cookie["domain"]) == ("/", "")
        for sent, user in ((name, "mallory"), ("TWISTED_SESSION", None)):
            session = {"Cookie": f"{sent}={cookie.value}"}
            shown = requests.get(f"{here.url}config", headers=session, timeout=30).json()["user"]
            assert shown.get("username") == user


def test_d2_a_session_through_nginx(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Behind deploy/nginx.conf a user logs in, stays known over TLS, and is logged with the address that nginx saw."""
    directory, own = tmp_path_factory.mktemp("nginx"), tmp_path_factory.mktemp("master")
    www = {"url": "https://builds.example.org/", "proxies": ["127.0.0.1"]}
    with tiny_installation(own, users={"mallory": digest(SECRET)}, www=www) as here:
        ports = {"packages": here.settings.packages.port, "www": here.settings.www.port}
        with nginx(directory, **ports) as front:

            def get(path: str, **options: Any) -> requests.Response:
                headers = {"Host": "builds.example.org", **options.pop("headers", {})}
                url = f"https://127.0.0.1:{front.https}/{path}"
                return requests.get(
                    url,
                    headers=headers,
                    verify=str(front.certificate),
                    timeout=30,
                    allow_redirects=False,
                    **options,
                )

            [(name, cookie)] = SimpleCookie(
                get("auth/login", auth=("mallory", SECRET)).headers["Set-Cookie"]
            ).items()
            assert name.startswith("__Host-")
            assert cookie["secure"]
            assert (
                get("config", headers={"Cookie": f"{name}={cookie.value}"}).json()["user"]["username"]
                == "mallory"
            )
            forged = {"X-Real-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9"}
            assert get("auth/login", auth=("eve", "wrong"), headers=forged).status_code == 401
        log = (here.settings.state / "twistd.log").read_text()
        assert "login refused: 'eve' at 127.0.0.1\n" in log
