"""Strangers at the door: every bad field gets a sentence, and nobody asks without being a user."""

from __future__ import annotations

import base64
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import requests

from master.purge import Key, Purge
from master.users import digest
from tests.integration import tiny
from tests.integration.harness import DEB, RPM, Installation, tiny_installation
from tests.patience import SLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

SHA1 = "0123456789abcdef0123456789abcdef01234567"
ALICE = "a long random secret of alice"
GIT_SECONDS = 2 * SLOW
SECRETS_MADE = """
import secrets
from pathlib import Path

_real = secrets.token_urlsafe

def token_urlsafe(*arguments):
    made = _real(*arguments)
    with (Path(__file__).parent / "secrets").open("a") as file:
        file.write(made + "\\n")
    return made

secrets.token_urlsafe = token_urlsafe
"""
"""Writes down every secret that the master's process makes: passwords and upload tokens."""


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Ports that tell a git client nothing: one refuses connections, one takes them and stays silent."""
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))
        yield {"CLOSED": closed.getsockname()[1], "SILENT": silent.getsockname()[1]}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Installation]:
    """A running master that has built one commit."""
    allowed = [f"git://127.0.0.1:{port}/" for port in ports.values()]
    with tiny_installation(
        tmp_path_factory.mktemp("requests"), patch=SECRETS_MADE, users={"alice": digest(ALICE)},
        also_allowed=allowed, git={"timeout": GIT_SECONDS},
    ) as made:  # fmt: skip
        assert made.wait(made.ask(DEB, ref="main"))["results"] == 0
        yield made


@pytest.fixture
def nothing_queued(here: Installation) -> Iterator[None]:
    """Whatever the test asks for, nothing gets into the queue."""
    before = len(here.get("buildsets")["buildsets"])
    yield
    assert len(here.get("buildsets")["buildsets"]) == before


AWAY = -32000
"""The code of what may be asked again, as the repository is away."""


def refused(here: Installation, code: int = -32602, **params: Any) -> dict[str, str]:
    """Ask for what must be refused; give field to sentence."""
    answer = here.force(**params)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert isinstance(error["message"], dict), error
    for sentence in error["message"].values():
        assert sentence
        assert len(sentence) < 700
    return dict(error["message"])


NOT_STRINGS = [
    (7, "a number"),
    (None, "null"),
    (["x"], "a list"),
    ({"x": 1}, "an object"),
    (True, "true or false"),
]
NO_SHA1 = "must be 40 lower-case hex digits"


@pytest.mark.usefixtures("nothing_queued")
@pytest.mark.parametrize("field", ["sha1", "ref", "git_url", "reason"])
@pytest.mark.parametrize(("value", "called"), NOT_STRINGS)
def test_wrong_type(here: Installation, field: str, value: Any, called: str) -> None:
    """A field that is no string is refused by name, whatever else it is."""
    others = {} if field in ("sha1", "ref") else {"sha1": SHA1}
    sentences = refused(here, builderNames=[DEB], **{**others, field: value})
    assert sentences[field] == f"must be a string, not {called}"


@pytest.mark.usefixtures("nothing_queued")
@pytest.mark.parametrize(
    ("params", "field", "sentence"),
    [
        # What is asked for.
        ({}, "sha1", "give a sha1, or a ref to be resolved to one"),
        ({"sha1": ""}, "sha1", "give a sha1, or a ref to be resolved to one"),
        ({"sha1": SHA1[1:]}, "sha1", f"sha1 '{SHA1[1:]}' has 39 hex digits; a full one has 40"),
        ({"sha1": SHA1 + "0"}, "sha1", f"sha1 '{SHA1}0' has 41 hex digits; a full one has 40"),
        ({"sha1": SHA1.upper()}, "sha1", f"sha1 '{SHA1.upper()}' must be lower case"),
        ({"sha1": SHA1[:-1] + "g"}, "sha1", NO_SHA1),
        ({"sha1": SHA1[:-1] + "\u0661"}, "sha1", NO_SHA1),
        ({"sha1": SHA1 + "\n"}, "sha1", NO_SHA1),
        ({"sha1": "-" + SHA1[1:]}, "sha1", NO_SHA1),
        ({"sha1": "0" * 50_000}, "sha1", "has 50000 hex digits; a full one has 40"),
        ({"sha1": SHA1, "ref": "main"}, "ref", "give sha1 or ref, not both"),
        ({"ref": "a..b"}, "ref", "may not contain '..'"),
        ({"ref": "a\x00b"}, "ref", "may not contain '\\x00'"),
        ({"ref": "a\nb"}, "ref", "may not contain '\\n'"),
        ({"ref": "a b"}, "ref", "may not contain ' '"),
        ({"ref": "a\x7fb"}, "ref", "may not contain '\\x7f'"),
        ({"ref": "-main"}, "ref", "may not start with - or /"),
        ({"ref": "--upload-pack=touch /tmp/x"}, "ref", "may not contain ' '"),
        ({"ref": "--upload-pack=true"}, "ref", "may not start with - or /"),
        ({"ref": "/main"}, "ref", "may not start with - or /"),
        ({"ref": "refs/pull/1/head"}, "ref", "has no ref 'refs/pull/1/head'"),
        ({"ref": SHA1.upper()}, "ref", "must be lower case"),
        ({"ref": SHA1[:7]}, "ref", "has no branch or tag '0123456': a commit is named by all 40 digits of its sha1"),
        ({"ref": SHA1}, "ref", f"has no commit {SHA1}: push it there"),
        ({"sha1": SHA1}, "sha1", f"has no commit {SHA1}: push it there"),
        ({"ref": "refs/heads/refs/heads/main"}, "ref", "must be the short name"),
        ({"ref": "refs/heads/"}, "ref", "may not start with - or /, nor end with / or ."),
        ({"ref": "refs/heads/a..b"}, "ref", "may not contain '..'"),
        ({"ref": "refs/tags/main"}, "ref", "has no tag 'main'"),
        ({"ref": "refs/heads/no-such"}, "ref", "has no branch 'no-such'"),
        ({"ref": "x" * 50_000}, "ref", "ref has 50000 characters; at most 200 are taken"),
        ({"ref": "no/such-branch"}, "ref", "has no branch or tag 'no/such-branch'"),
        ({"ref": "mai"}, "ref", "has no branch or tag 'mai'"),
        # Where from.
        ({"ref": "main", "git_url": "ext::sh -c touch% /tmp/x"}, "git_url", "must begin with one of https://"),
        ({"ref": "main", "git_url": "file:///etc"}, "git_url", "must begin with one of https://"),
        ({"ref": "main", "git_url": "/etc"}, "git_url", "must begin with one of https://"),
        ({"ref": "main", "git_url": "git@github.com:ceph/ceph.git"}, "git_url", "may not carry credentials"),
        ({"ref": "main", "git_url": "-uhttp://127.0.0.1/x"}, "git_url", "may not start with -"),
        ({"ref": "main", "git_url": "--upload-pack=true"}, "git_url", "may not start with -"),
        ({"ref": "main", "git_url": "ssh://-oProxyCommand=true/x"}, "git_url", "must begin with one of https://"),
        ({"ref": "main", "git_url": "git://-oProxyCommand=true/x"}, "git_url", "may hold letters, digits and"),
        ({"ref": "main", "git_url": "https://user:secret@github.com/x"}, "git_url", "may not carry credentials"),
        ({"ref": "main", "git_url": "https://example.com/ceph.git"}, "git_url", "is not below an allowed URL"),
        ({"ref": "main", "git_url": "git://[::1/x"}, "git_url", "is not a URL"),
        ({"ref": "main", "git_url": "git://127.0.0.1:99999/x"}, "git_url", "is not a URL"),
        ({"ref": "main", "git_url": "git://127.0.0.1:CLOSED/../x"}, "git_url", "has a path with ., .."),
        ({"ref": "main", "git_url": "git://127.0.0.1:CLOSED/a;b"}, "git_url", "may hold letters, digits and"),
        ({"ref": "main", "git_url": "git://127.0.0.1:CLOSED/a\n"}, "git_url", "may hold letters, digits and"),
        ({"ref": "main", "git_url": "x" * 50_000}, "git_url", "git_url has 50000 characters"),
        ({"ref": "main", "git_url": "git://127.0.0.1:CLOSED/x.git"}, "git_url", "cannot be asked for its refs"),
        ({"ref": "main", "git_url": "git://127.0.0.1:SILENT/x.git"}, "git_url", f"did not answer within {GIT_SECONDS} s"),
        # Why.
        ({"sha1": SHA1, "reason": "x" * 501}, "reason", "has 501 characters; at most 500 are taken"),
        ({"sha1": SHA1, "reason": "a\x1bb"}, "reason", "may not contain control characters"),
        ({"sha1": SHA1, "reason": "\ud800"}, "reason", "may not contain control characters"),
        # What nobody may say.
        ({"sha1": SHA1, "revision": "x"}, "revision", "unknown parameter; there are builderNames, builderid, sha1"),
        ({"sha1": SHA1, "self": "x"}, "self", "unknown parameter"),
        ({"sha1": SHA1, "owner": "alice"}, "owner", "unknown parameter"),
        ({"sha1": SHA1, "": "x"}, "", "unknown parameter"),
        ({"sha1": SHA1, "params": {}}, "params", "unknown parameter"),
    ],
)  # fmt: skip
def test_bad_field(
    here: Installation, ports: dict[str, int], params: dict[str, Any], field: str, sentence: str
) -> None:
    """Each mistake is answered at its own field, with a sentence that says what is wrong, and no other."""
    if "git_url" in params:
        url = (
            params["git_url"].replace("CLOSED", str(ports["CLOSED"])).replace("SILENT", str(ports["SILENT"]))
        )
        params = {**params, "git_url": url}
    away = sentence in ("cannot be asked for its refs", f"did not answer within {GIT_SECONDS} s")
    sentences = refused(here, AWAY if away else -32602, builderNames=[DEB], **params)
    assert list(sentences) == [field]
    assert sentence in sentences[field]


@pytest.mark.usefixtures("nothing_queued")
@pytest.mark.parametrize(
    ("params", "field", "sentence"),
    [
        ({}, "builderNames", f"name at least one target of {DEB}"),
        ({"builderNames": []}, "builderNames", f"name at least one target of {DEB}"),
        ({"builderNames": DEB}, "builderNames", "must be a list of strings, not str"),
        ({"builderNames": [7]}, "builderNames", "must be a list of strings"),
        ({"builderNames": [None]}, "builderNames", "must be a list of strings"),
        ({"builderNames": {"x": 1}}, "builderNames", "must be a list of strings, not an object"),
        ({"builderNames": 7}, "builderNames", "must be a list of strings, not a number"),
        ({"builderNames": ["nope"]}, "builderNames", f"'nope' is not a target that is on; there are {DEB}"),
        ({"builderNames": [DEB, RPM]}, "builderNames", f"'{RPM}' is not a target that is on"),
        ({"builderNames": ["x" * 50_000]}, "builderNames", "is not a target that is on"),
        ({"builderNames": [""]}, "builderNames", "is not a target that is on"),
        ({"builderid": 10**9}, "builderid", "1000000000 is not the number of a target that is on"),
        ({"builderid": 0}, "builderid", "0 is not the number of a target that is on"),
        ({"builderid": -1}, "builderid", "must be a builder's number"),
        ({"builderid": 10**30}, "builderid", "must be a builder's number"),
        ({"builderid": "abc"}, "builderid", "must be a builder's number"),
        ({"builderid": "1 or 1"}, "builderid", "must be a builder's number"),
        ({"builderid": "\u0661"}, "builderid", "must be a builder's number"),
        ({"builderid": 1.5}, "builderid", "must be a builder's number"),
        ({"builderid": True}, "builderid", "must be a builder's number"),
        ({"builderid": [1]}, "builderid", "must be a builder's number"),
        ({"builderid": {"x": 1}}, "builderid", "must be a builder's number"),
    ],
)
def test_bad_target(here: Installation, params: dict[str, Any], field: str, sentence: str) -> None:
    """A target must be one that is on, however it is named."""
    sentences = refused(here, sha1=SHA1, **params)
    assert list(sentences) == [field]
    assert sentence in sentences[field]


@pytest.mark.usefixtures("nothing_queued")
def test_all_bad_fields_at_once(here: Installation) -> None:
    """Whoever makes five mistakes is told of all five."""
    sentences = refused(
        here, builderNames=["nope"], sha1=SHA1.upper(), git_url="ext::true", reason=7, typo="x"
    )
    assert sentences.keys() == {"builderNames", "sha1", "git_url", "reason", "typo"}


@pytest.mark.usefixtures("nothing_queued")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"params": []}, "'params' must be an object"),
        ({"params": "x"}, "'params' must be an object"),
        ({"params": None}, "'params' must be an object"),
        ({"method": 7}, "'method' must be a string"),
        ({"jsonrpc": "1.0"}, "only JSONRPC 2.0 is supported"),
        ([], "JSONRPC batch requests are not supported"),
        ("{", "JSON parse error"),
    ],
)
def test_bad_envelope(here: Installation, body: Any, sentence: str) -> None:
    """What is no JSON-RPC request is refused with 400, too."""
    if isinstance(body, dict):
        body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {}, **body}
    answer = requests.post(
        f"{here.url}api/v2/forceschedulers/packages",
        data=body if isinstance(body, str) else json.dumps(body),
        headers={"Authorization": f"Bearer {here.token}", "Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]["message"]


def test_a_sha1_in_the_field_for_a_ref_is_that_commit(here: Installation) -> None:
    """A commit that is pasted where a branch belongs is what was meant; a ref that is no branch has its own link."""
    sha1 = here.repository.sha1("main")
    pasted = here.ask(DEB, ref=f"{sha1} ")
    assert (pasted["state"], pasted["package_key"]) == ("published", f"{DEB}/{sha1}")
    assert (pasted["link"], pasted["no_link"]) == (
        "",
        "the request names a commit: only a ref gets a ref/ link",
    )
    here.repository.git("update-ref", "refs/pull/12/head", sha1)
    pulled = here.ask(DEB, ref="refs/pull/12/head")
    assert (pulled["state"], pulled["package_key"]) == ("published", f"{DEB}/{sha1}")
    assert pulled["link"] == f"{here.packages_url}{DEB}/ref/refs/pull/12/head/"
    assert requests.get(f"{pulled['link']}version", timeout=30).status_code == 200
    assert here.ask(DEB, ref="main")["link"] == f"{here.packages_url}{DEB}/ref/main/"


@pytest.mark.usefixtures("nothing_queued")
@pytest.mark.parametrize(
    ("path", "method", "status", "sentence"),
    [
        (
            "forceschedulers/packages",
            "ask",
            400,
            "forceschedulers/packages has no method 'ask'; there are force",
        ),
        (
            "forceschedulers/packages",
            "get",
            400,
            "forceschedulers/packages has no method 'get'; there are force",
        ),
        ("forceschedulers/package", "force", 404, "there is no forceschedulers/package"),
        ("buildrequests/999", "cancel", 404, "there is no buildrequests/999"),
        (
            "buildrequests/1",
            "stop",
            400,
            "buildrequests/1 has no method 'stop'; there are cancel, set_priority",
        ),
        (f"buildrequests/{10**30}", "cancel", 404, f"there is no buildrequests/{10**30}"),
        ("builds/999", "stop", 404, "there is no builds/999"),
        ("builds/1", "explode", 400, "builds/1 has no method 'explode'; there are rebuild, stop"),
        ("workers/999", "stop", 404, "there is no workers/999"),
        ("schedulers/999", "enable", 404, "there is no schedulers/999"),
        ("builders", "force", 400, "builders has no method 'force': it can only be read"),
        ("packages/1", "ask", 400, "packages/1 has no method 'ask'; there are renew, withdraw"),
        ("nothing", "force", 404, "Invalid path: nothing"),
    ],
)
def test_what_cannot_be_done_is_an_error(
    here: Installation, path: str, method: str, status: int, sentence: str
) -> None:
    """A method that there is not, and a thing that there is not, are 400 and 404 with a sentence, never success or 500."""
    for token in (here.token, ALICE):
        answer = post(here, path, method, {"Authorization": f"Bearer {token}"})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"] == sentence
    assert post(here, path, method, {}).status_code == 403, "who is no user learns nothing of it"


def test_a_purged_package_is_published_for_nobody(here: Installation) -> None:
    """After a purge, the package server, the request's own page of the API and shaman's view agree; a new request builds it again."""
    sha1 = here.repository.commit(tiny.WHOLE, ref="purged")
    answer = here.ask(DEB, ref="purged")
    here.wait(answer)
    [number] = answer["buildrequest_ids"].values()
    urls = [f"{at}version" for at in (answer["url"], answer["link"])]
    assert here.get(f"packages/{number}")["packages"][0]["state"] == "published"
    assert [requests.get(url, timeout=30).status_code for url in urls] == [200, 200]
    purge = Purge(here.settings.packages.directory, here.settings.packages.staging)
    purged = purge.purge(Key.from_string(f"{DEB}/{sha1}"))
    assert purged is not None
    assert purged.links == ("purged",)
    [status] = here.get(f"packages/{number}")["packages"]
    assert (status["state"], status["error"]) == (
        "purged", "the packages were published, and have been removed since: request them again",
    )  # fmt: skip
    assert [requests.get(url, timeout=30).status_code for url in urls] == [404, 404]
    assert requests.get(f"{here.packages_url}api/search?sha1={sha1}", timeout=30).json() == []
    again = here.ask(DEB, sha1=sha1)
    assert again["state"] == "on its way"
    assert here.wait(again)["results"] == 0
    assert [requests.get(url, timeout=30).status_code for url in urls] == [200, 200]


def test_builderid_of_a_target_is_as_good_as_its_name(here: Installation) -> None:
    """The web form names the builder by number."""
    [builder] = here.get(f"builders?name={DEB}")["builders"]
    answer = here.force(builderid=builder["builderid"], ref="main")
    assert answer.status_code == 200
    assert answer.json()["result"][2][0]["state"] == "published"


def test_blanks_around_a_field_are_no_mistake(here: Installation) -> None:
    """Whoever copies a sha1 with a blank at its end gets what they meant."""
    assert here.ask(DEB, sha1=f" {here.repository.sha1('main')} ", reason="")["state"] == "published"


def test_owner_is_who_asked(here: Installation) -> None:
    """The buildset says which user asked for it, by the token and by nothing else."""
    answer = here.force(ALICE, builderNames=[DEB], sha1=here.repository.commit(tiny.WHOLE, ref="alice"))
    buildset = answer.json()["result"][0]
    [properties] = here.get(f"buildsets/{buildset}/properties")["properties"]
    assert properties["owner"] == ["alice", "packages"]
    here.wait(answer.json()["result"][2][0])


def basic(name: str, secret: str) -> dict[str, str]:
    """Give a header of Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def post(
    here: Installation, path: str, method: str, headers: dict[str, str], **params: Any
) -> requests.Response:
    """Send a control request."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return requests.post(f"{here.url}api/v2/{path}", json=body, headers=headers, timeout=30)


BAD_HEADERS = [
    {}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer"},
    {"Authorization": "Basic !!"}, {"Authorization": "Basic"}, {"Authorization": "Digest x"},
    {"Authorization": "Bearer \xff\xfe".encode("latin-1")}, {"Authorization": "Basic /////w=="},
    {"Cookie": "TWISTED_SESSION=nonsense"},
    basic("operator", "wrong"), basic("nobody", ""), basic("", ""), basic("alice", digest(ALICE)),
    {"Authorization": f"Bearer {digest(ALICE)}"},
]  # fmt: skip


@pytest.mark.usefixtures("nothing_queued")
@pytest.mark.parametrize("headers", BAD_HEADERS, ids=str)
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("forceschedulers/packages", "force"),
        ("builds/1", "rebuild"),
        ("builds/1", "stop"),
        ("buildrequests/1", "cancel"),
        ("builders/1", "stop"),
        ("workers/1", "pause"),
        ("workers/1", "kill"),
    ],
)
def test_strangers_change_nothing(here: Installation, path: str, method: str, headers: Any) -> None:
    """Without a user's secret every control request is 403, and says how to become a user."""
    answer = post(
        here, path, method, headers, **({"builderNames": [DEB], "sha1": SHA1} if method == "force" else {})
    )
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["message"] == (
        "asking needs a user: log in, or send 'Authorization: Bearer <token>' with a token"
        " that the operator gave you"
    )


def test_users_may_ask(here: Installation) -> None:
    """Bearer and Basic, the operator's token and that of a user in the settings are all taken."""
    for headers in (
        {"Authorization": f"Bearer {here.token}"}, {"Authorization": f"bearer  {here.token}"},
        basic("operator", here.token), {"Authorization": f"Bearer {ALICE}"}, basic("alice", ALICE),
    ):  # fmt: skip
        answer = post(here, "forceschedulers/packages", "force", headers, builderNames=[DEB], ref="main")
        assert answer.status_code == 200, (headers, answer.text)


def test_web_login_gives_a_cookie_that_may_ask(here: Installation) -> None:
    """The way of the web UI: log in with name and secret, then ask with the session's cookie."""
    session = requests.Session()
    assert session.get(f"{here.url}auth/login", auth=("alice", "wrong"), timeout=30).status_code == 401
    url = f"{here.url}api/v2/forceschedulers/packages"
    body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": {"builderNames": [DEB], "ref": "main"}}
    assert session.post(url, json=body, timeout=30).status_code == 403
    login = session.get(f"{here.url}auth/login", auth=("alice", ALICE), allow_redirects=False, timeout=30)
    assert login.status_code == 302
    assert session.cookies
    answer = session.post(url, json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    foreign = session.post(url, json=body, headers={"Origin": "http://evil.example"}, timeout=30)
    assert foreign.status_code == 400, foreign.text


def test_no_secret_is_readable_by_anybody(here: Installation) -> None:
    """No page, log or table that anybody may read holds a password, a token or a digest of one."""
    secrets = set((here.directory / "site/secrets").read_text().split())
    assert len(secrets) > 3, "worker passwords and upload tokens were written down"
    secrets |= {here.token, digest(here.token), ALICE, digest(ALICE), "PRIVATE KEY"}
    paths = {
        "builders", "buildrequests", "builds", "buildsets", "changes", "changesources", "forceschedulers", "masters",
        "schedulers", "sourcestamps", "workers", "projects", "application.spec",
    }  # fmt: skip
    for build in here.get("builds")["builds"]:
        paths |= {
            f"builds/{build['buildid']}/properties",
            f"buildrequests/{build['buildrequestid']}/properties",
        }
        for step in here.get(f"builds/{build['buildid']}/steps")["steps"]:
            for log in here.get(f"steps/{step['stepid']}/logs")["logs"]:
                paths |= {f"logs/{log['logid']}/raw", f"logs/{log['logid']}/contents"}
    for buildset in here.get("buildsets")["buildsets"]:
        paths.add(f"buildsets/{buildset['bsid']}/properties")
    read = 0
    for url in [f"{here.url}api/v2/{path}" for path in sorted(paths)] + [
        here.url,
        f"{here.url}config",
        f"{here.url}auth",
    ]:
        answer = requests.get(url, timeout=30)
        assert answer.status_code < 500, url
        read += answer.status_code == 200
        found = [secret for secret in secrets if secret in answer.text]
        assert not found, (url, found)
    assert read > 30
