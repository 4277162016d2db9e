"""What the master is asked, how its answers are read, and what is taken for an answer at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.teuthology_bridge.fake_master import KEY, OTHER, SHA1, TARGET, TOKEN, FakeMaster
from tests.teuthology_bridge.frames import variables
from tests.teuthology_bridge.peers import Peer, says
from tests.teuthology_bridge.test_wire import secure
from teuthology_bridge.errors import RefUnknown, WrongJob, WrongSettings
from teuthology_bridge.master_api import Answer, Away, Master, RepositoryAway, Status, Unknown, Waiter
from teuthology_bridge.settings import Settings
from teuthology_bridge.timed_socket import TimedSocket

GIT = "https://example.org/ceph.git"
REF_NAMES: list[dict[str, str]] = yaml.safe_load(
    (Path(__file__).parents[1] / "contract" / "ref_names.yaml").read_text()
)


@pytest.fixture
def fake() -> Iterator[FakeMaster]:
    with FakeMaster(refs={"main": SHA1}) as fake:
        yield fake


def master_of(fake: FakeMaster, token: str = TOKEN, job: str = "run/1") -> Master:
    return Master(Settings(url=fake.url, token=token, job=job))


def ask(master: Master, **changed: Any) -> Answer:
    what = {"target": TARGET, "kind": "sha1", "value": SHA1, "git_url": GIT, "reason": "why", **changed}
    return master.ask(**what)


# Asking


def test_an_ask(fake: FakeMaster) -> None:
    """An ask names target, commit, repository, reason and run, and gives the key and what to follow."""
    size = {"good_machine": {"cpus": 4}}
    answer = ask(master_of(fake), sizes=size)
    assert answer == Answer(KEY, SHA1, published=False, url="http://elsewhere/", buildrequest_id=1)
    assert fake.asked() == [
        {"builderNames": [TARGET], "sha1": SHA1, "git_url": GIT, "reason": "why", "job": "run/1", **size}
    ]
    assert fake.tokens == [f"Bearer {TOKEN}"]


def test_an_ask_for_what_is_published(fake: FakeMaster) -> None:
    """Where packages are published there is nothing to follow."""
    fake.published.add(KEY)
    assert ask(master_of(fake)) == Answer(
        KEY, SHA1, published=True, url="http://elsewhere/", buildrequest_id=None
    )


@pytest.mark.parametrize("row", REF_NAMES, ids=lambda row: row["ref"])
def test_an_ask_for_a_ref(fake: FakeMaster, row: dict[str, str]) -> None:
    """A branch or a tag is resolved by the master, which is told by git's own name which of them is meant."""
    fake.refs = {row["name"]: SHA1}
    assert ask(master_of(fake), kind=row["kind"], value=row["name"]).package_key == KEY
    assert fake.asked()[0]["ref"] == row["ref"]
    assert "sha1" not in fake.asked()[0]


def test_a_person_has_no_run(fake: FakeMaster) -> None:
    """Without a run, none is named."""
    ask(master_of(fake, job=""))
    assert "job" not in fake.asked()[0]


def test_what_there_cannot_be(fake: FakeMaster) -> None:
    """What the master refuses is the job's fault, with the master's sentence and what was asked for."""
    with pytest.raises(WrongJob) as caught:
        ask(master_of(fake), target="ceph-deb-woody-x86_64-default")
    assert str(caught.value) == (
        f"ceph-deb-woody-x86_64-default/{SHA1} can't be asked for: builderNames:"
        f" 'ceph-deb-woody-x86_64-default' is not a target that is on; there are {TARGET}, {OTHER}"
    )
    with pytest.raises(WrongJob, match="can't be asked for: ref: .* has no branch 'nosuch'$"):
        ask(master_of(fake), kind="branch", value="nosuch")


@pytest.mark.parametrize(
    ("message", "is_it"),
    [({"ref": "a"}, True), ({"ref": "a", "sha1": "b"}, False), ({"git_url": "a"}, False), ("ref", False)],
    ids=repr,
)
def test_a_ref_that_is_refused(fake: FakeMaster, message: object, is_it: bool) -> None:
    """That nothing but the ref is wrong is told apart, as it may be right in another repository."""
    fake.instead = lambda *_: (400, {"error": {"code": 1, "message": message}})
    with pytest.raises(WrongJob) as caught:
        ask(master_of(fake), kind="tag", value="v1")
    assert isinstance(caught.value, RefUnknown) == is_it


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"ref": "a", "git_url": ["b", "c"]}, "ref: a; git_url: b; c"),
        ("missing\nkey", "missing key"),
        (None, "it answered with status 400 and"),
        ({}, "it answered with status 400 and"),
    ],
)
def test_every_sentence_of_a_refusal(fake: FakeMaster, message: object, told: str) -> None:
    """All sentences of a refusal are told, whatever shape they come in."""
    fake.instead = lambda *_: (400, {"error": {"code": 1, "message": message}})
    with pytest.raises(WrongJob) as caught:
        ask(master_of(fake))
    assert f"can't be asked for: {told}" in str(caught.value)


def test_a_repository_that_is_away_passes(fake: FakeMaster) -> None:
    """A refusal of the moment is no job's fault: it is asked again, and nothing was taken."""
    fake.instead = lambda *_: (400, {"error": {"code": -32000, "message": {"git_url": "G did not answer"}}})
    with pytest.raises(RepositoryAway, match=r"^the master at \S+ says git_url: G did not answer$") as caught:
        ask(master_of(fake), kind="branch", value="main")
    assert not caught.value.taken


# Settings that do not fit


def test_a_token_that_is_not_good(fake: FakeMaster) -> None:
    """A refused user is the operator's business; whether there was a token is told, and never which."""
    with pytest.raises(WrongSettings) as caught:
        ask(master_of(fake, token="s3cr3t-but-wrong"))
    assert str(caught.value) == (
        f"the master at {fake.url} refuses this user: asking needs a user: log in"
        " (the `token` of `buildpackages` is not good there)"
    )
    with pytest.raises(WrongSettings, match=r"\(no `token` is set for `buildpackages`\)$"):
        ask(master_of(fake, token=""))


def test_an_interrupted_exchange_does_not_show_the_token(
    fake: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends an ask, no variable of its frames shows the token, but those that Sentry's client blots out."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TimedSocket, "recv_into", interrupt)
    master = master_of(fake)
    with pytest.raises(KeyboardInterrupt) as caught:
        ask(master)
    told = list(variables(caught.value))
    assert any(line.startswith("exchange: url = ") for line in told)
    assert [line for line in told if TOKEN in line] == []


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ((404, "<html>Not Found</html>"), "with status 404 and '<html>Not Found</html>': set `url`"),
        ((405, ""), "with status 405 and nothing else: set `url`"),
        (
            (302, "https://m/x"),
            "with status 302, a redirect to https://m/x, which is not followed: set `url`",
        ),
    ],
)
def test_somebody_else_than_the_master(fake: FakeMaster, instead: tuple[int, str], told: str) -> None:
    """Where another server answers than a master, the setting is told to be wrong, and where a redirect points to."""
    fake.instead = lambda *_: instead
    with pytest.raises(WrongSettings) as caught:
        ask(master_of(fake))
    assert str(caught.value).startswith(f"the master at {fake.url} answered {told}")


@pytest.mark.parametrize("instead", [(404, "x"), (302, "https://m/maintenance"), (502, "x")])
def test_a_master_that_was_met_is_only_away(fake: FakeMaster, instead: tuple[int, str]) -> None:
    """Once the master has answered, pages of others in its place mean that it is away."""
    master = master_of(fake)
    ask(master)
    fake.instead = lambda *_: instead
    with pytest.raises(Away, match=f"^it answered with status {instead[0]}"):
        ask(master)


# Those that are no answers


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes(fake: FakeMaster, status: int) -> None:
    """An overloaded or starting server is away, and nobody's settings are wrong."""
    fake.instead = lambda *_: (status, "<html>")
    with pytest.raises(Away, match=f"^it answered with status {status} and '<html>'$"):
        ask(master_of(fake))


def answer(**changed: Any) -> dict[str, Any]:
    one = {
        "package_key": KEY,
        "state": "on its way",
        "url": "u",
        "buildset_id": 1,
        "buildrequest_ids": {"3": 4},
        **changed,
    }
    return {"result": [1, {"3": 4}, [one]]}


@pytest.mark.parametrize(
    "told",
    [
        "<html>Welcome</html>",
        [],
        {"result": None},
        {"result": {"a": 1}},
        {"result": [1, {}, []]},
        {"result": [1, {}, ["x"]]},
        answer(package_key=None),
        answer(package_key=f"{OTHER}/{SHA1}"),
        answer(package_key=f"{TARGET}/{'f' * 40}"),
        answer(package_key=f"{TARGET}/main"),
        answer(state="perhaps"),
        answer(buildrequest_ids={}),
        answer(buildrequest_ids={"3": "4"}),
        answer(buildrequest_ids={"3": True}),
        answer(buildrequest_ids=[4]),
        answer(buildrequest_ids={"3": 4, "5": 6}),
    ],
    ids=repr,
)
def test_an_ask_without_an_answer(fake: FakeMaster, told: object) -> None:
    """What is no answer to the ask, nor about what was asked for, is none."""
    fake.instead = lambda *_: (200, told)
    with pytest.raises(Away, match="^it answered with status 200 and"):
        ask(master_of(fake))


@pytest.mark.parametrize(
    "told",
    [
        "<html>Welcome</html>",
        {},
        {"packages": {}},
        {"packages": []},
        {"packages": [None]},
        {"packages": [{"buildrequest_id": 1, "package_key": KEY, "state": "perhaps"}]},
        {"packages": [{"buildrequest_id": 1, "package_key": KEY, "state": ["waiting"]}]},
        {"packages": [{"buildrequest_id": "1", "package_key": KEY, "state": "waiting"}]},
        {"packages": [{"buildrequest_id": 1, "package_key": None, "state": "waiting"}]},
    ],
    ids=repr,
)
def test_a_look_without_a_status(fake: FakeMaster, told: object) -> None:
    """What is no status is none."""
    fake.instead = lambda *_: (200, told)
    with pytest.raises(Away, match="^it answered with status 200 and"):
        master_of(fake).status(1)


# Following


def test_a_status(fake: FakeMaster) -> None:
    """A status is read whole."""
    fake.script = [{"state": "building", "build": 2, "step": "compile", "percent": 35, "time_left": 60.5}]
    master = master_of(fake)
    ask(master)
    assert master.status(1) == Status(
        buildrequest_id=1,
        package_key=KEY,
        state="building",
        url="http://elsewhere/",
        build_url=f"{fake.url}#/builders/3/builds/2",
        request_url=f"{fake.url}#/buildrequests/1",
        build=2,
        step="compile",
        asked=1.0,
        elapsed=0.0,
        percent=35,
        time_left=60.5,
        waiting=(Waiter("lab", "run/1", 1.0),),
    )


def test_what_is_strange_in_a_status_is_left_out() -> None:
    """A field that can't be read costs no more than itself, and no line break gets through."""
    told = {
        "buildrequest_id": 1, "package_key": KEY, "state": "building", "build": "x", "percent": 250, "build_url": 5,
        "elapsed": "NaN", "time_left": 10**400, "asked": True, "reason": "a\nb", "waiting": [None, {"job": 3}],
    }  # fmt: skip
    with Peer(says("200 OK", json.dumps({"packages": [told]}).encode())) as peer:
        status = Master(Settings(url=peer.url)).status(1)
    assert status == Status(1, KEY, "building", percent=100, reason="a b", waiting=(Waiter("", "", 0.0),))


def test_all_that_is_on_its_way() -> None:
    """All statuses come at once, and there may be none."""
    told = [{"buildrequest_id": n, "package_key": KEY, "state": "waiting"} for n in (1, 2)]
    with Peer(says("200 OK", json.dumps({"packages": told}).encode())) as peer:
        assert [one.buildrequest_id for one in Master(Settings(url=peer.url)).statuses()] == [1, 2]
    with Peer(says("200 OK", b'{"packages": []}')) as peer:
        assert Master(Settings(url=peer.url)).statuses() == []


def test_a_request_that_the_master_does_not_know(fake: FakeMaster) -> None:
    """That the master knows no such request is told apart from a page of somebody else, and from a master that starts."""
    master = master_of(fake)
    with pytest.raises(Unknown):
        master.status(99)
    fake.instead = lambda *_: (404, {"error": "Invalid path: packages/99"})
    with pytest.raises(Away):
        master.status(99)
    fake.instead = lambda *_: (404, "<html>404</html>")
    with pytest.raises(Away):
        master.status(99)


def test_words_of_those_who_wait(fake: FakeMaster) -> None:
    """A run says that it still waits or not any more; whether that ends the build, and who is left, is given back."""
    fake.waiting = [{"asker": "kim", "job": "", "since": 1.0}]
    master = master_of(fake)
    ask(master)
    master.renew(1)
    assert master.withdraw(1) == (False, (Waiter("kim", "", 1.0),))
    assert fake.requests[1:] == [("renew 1", {"job": "run/1"}), ("withdraw 1", {"job": "run/1"})]
    with pytest.raises(Away, match="buildrequest 99 is unknown here"):
        master.withdraw(99)


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """TLS that is not trusted is a matter of settings: waiting does not help."""
    with (
        secure(tmp_path, says("200 OK")) as (peer, _),
        pytest.raises(WrongSettings, match="is not trusted here"),
    ):
        Master(Settings(url=peer.url)).status(1)
