"""The fault proxy: each fault as a client of the real services sees it, and what the services saw."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keystoneauth1.exceptions
import openstack.exceptions
import pytest
import requests

from lab.connection import connect
from lab.proxy import FaultProxy
from tests.cloud import Tenant, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.cloud import Lab


@pytest.fixture
def proxy(lab: Lab) -> Iterator[FaultProxy]:
    """Give a proxy that lets everything through, so far."""
    with FaultProxy(lab) as made:
        yield made


@pytest.fixture
def behind(proxy: FaultProxy, lab: Lab) -> Iterator[Tenant]:
    """Give a tenant whose every call goes through the proxy, and who has made some already."""
    made = Tenant(lab)
    direct, made.connection = made.connection, connect(proxy.clouds_yaml, "packages")
    list(made.connection.compute.servers())
    proxy.forget_calls()
    yield made
    made.connection = direct
    made.delete_all()


def nova(
    proxy: FaultProxy, connection: Any, method: str = "GET", path: str = "/servers", **more: Any
) -> requests.Response:
    """Call nova without the SDK's own opinion on failures."""
    url = proxy.endpoints["nova"] + path
    return requests.request(method, url, headers={"X-Auth-Token": connection.auth_token}, timeout=20, **more)


def test_a_client_never_gets_past_it(proxy: FaultProxy, behind: Tenant, lab: Lab) -> None:
    """The catalogue and every link in an answer name the proxy's ports, and every call is on record."""
    server = behind.boot("#!/bin/sh\necho started\nexec sleep 1000\n", image="tiny")
    behind.prints(server, "started")
    behind.delete(server)
    for service in ("nova", "glance", "neutron"):
        assert (
            behind.connection.endpoint_for(
                {"nova": "compute", "glance": "image", "neutron": "network"}[service]
            )
            == proxy.endpoints[service]
        )
    answers = [nova(proxy, behind.connection, path=path).text for path in ("/flavors", "/images")]
    answers.append(requests.get(proxy.endpoints["keystone"], timeout=20).text)
    # A call is on record once its answer has been sent.
    until(lambda: "keystone" in {call.service for call in proxy.calls}, "the last call is on record")
    for text in answers:
        assert "127.0.0.1" in text
        assert not [port for port in lab.ports.values() if f":{port}" in text]
    made = [
        (call.service, call.status)
        for call in proxy.calls
        if call.method == "POST" and call.path.endswith("/servers")
    ]
    assert made == [("nova", 202)]
    assert {call.service for call in proxy.calls} == {"nova", "glance", "neutron", "keystone"}
    assert proxy.count() == len([call for call in proxy.calls if call.service != "keystone"])
    assert all(call.seconds > 0 and not call.fault for call in proxy.calls)


def test_an_error_is_answered_so_many_times(proxy: FaultProxy, behind: Tenant) -> None:
    """The status, the message and Retry-After come as asked, as often as asked, and only where asked; nova hears nothing."""
    proxy.fail(method="POST", path="/servers$", status=429, times=2, retry_after=7, message="slowly")
    answers = [nova(proxy, behind.connection, "POST", json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 400]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].json()["error"]["message"] == "slowly"
    proxy.fail(path="/servers$", status=503)
    assert nova(proxy, behind.connection, path="/flavors").status_code == 200
    assert nova(proxy, behind.connection).status_code == 503
    proxy.fail(service="neutron", status=403, message="not you")
    with pytest.raises(openstack.exceptions.ForbiddenException, match="not you"):
        list(behind.connection.network.networks())


def test_an_answer_is_lost_after_it_was_done(proxy: FaultProxy, behind: Tenant) -> None:
    """A lost answer is a reset for the client, though the server was made: this is how servers leak."""
    proxy.lose(method="POST", path="/servers$")
    with pytest.raises(keystoneauth1.exceptions.ConnectFailure):
        behind.create(image="tiny")
    [server] = behind.servers()
    assert behind.built(server).status == "ACTIVE"
    [call] = [call for call in proxy.calls if call.fault]
    assert (call.method, call.status, call.fault) == ("POST", 0, "lose")


def test_a_call_is_reset_before_anything_is_done(proxy: FaultProxy, behind: Tenant) -> None:
    """A reset call has done nothing."""
    proxy.reset(method="POST", path="/servers$")
    with pytest.raises(keystoneauth1.exceptions.ConnectFailure, match="Connection reset|Connection aborted"):
        behind.create(image="tiny")
    assert behind.servers() == []


def test_a_delete_is_ignored(proxy: FaultProxy, behind: Tenant) -> None:
    """An ignored delete is accepted, and the server stays as it was; the next is heard."""
    server = behind.boot(image="tiny")
    proxy.ignore_deletes()
    behind.connection.compute.delete_server(server.id, ignore_missing=False)
    time.sleep(1)
    assert (behind.get(server).status, behind.get(server).task_state) == ("ACTIVE", None)
    behind.delete(server)


def test_a_call_is_slow(proxy: FaultProxy, behind: Tenant) -> None:
    """A delayed call comes through, later."""
    proxy.delay(1.5, method="GET", path="/servers")
    began = time.monotonic()
    assert behind.servers() == []
    assert 1.5 < time.monotonic() - began < 15


def test_a_service_refuses_connections(proxy: FaultProxy, behind: Tenant) -> None:
    """A refusing service refuses at once, also whoever was connected, while others answer; afterwards all is as before."""
    session = requests.Session()
    headers = {"X-Auth-Token": behind.connection.auth_token}
    url = f"{proxy.endpoints['nova']}/flavors"
    assert session.get(url, headers=headers, timeout=20).status_code == 200
    proxy.refuse("nova")
    began = time.monotonic()
    for client in (session, requests):
        with pytest.raises(
            requests.ConnectionError, match="Connection refused|Connection reset|Remote end closed"
        ):
            client.get(url, headers=headers, timeout=20)
    with pytest.raises(requests.ConnectionError, match="Connection refused"):
        session.get(url, headers=headers, timeout=20)
    assert time.monotonic() - began < 20
    assert list(behind.connection.network.networks())
    proxy.refuse("nova", on=False)
    assert session.get(url, headers=headers, timeout=20).status_code == 200


def test_a_service_accepts_and_does_not_answer(proxy: FaultProxy, behind: Tenant) -> None:
    """A hanging service takes connections and calls, answers none, and has heard none when it closes them."""
    proxy.hang("nova")
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{proxy.endpoints['nova']}/flavors", timeout=1.5)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(behind.connection.compute.post, "/servers", json={})
        time.sleep(1)
        assert not waiting.done()
        proxy.hang("nova", on=False)
        with pytest.raises(keystoneauth1.exceptions.ConnectFailure):
            waiting.result(10)
    assert behind.servers() == []
    assert {call.fault for call in proxy.calls if call.status == 0} == {"hang"}


def test_a_stalled_call_ends_by_itself(proxy: FaultProxy, behind: Tenant) -> None:
    """A stalled call has its connection closed after so many seconds; the next one is answered."""
    proxy.stall(1, path="/flavors")
    began = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        nova(proxy, behind.connection, path="/flavors")
    assert 1 < time.monotonic() - began < 10
    assert nova(proxy, behind.connection, path="/flavors").status_code == 200


def test_chance_can_be_had_again(proxy: FaultProxy, behind: Tenant) -> None:
    """A fifth of the calls fail by chance: the same ones for the same seed, others for another, none when it ends."""

    def outcomes(seed: int) -> list[str]:
        proxy.random(0.2, seed, services=("nova",), hang_seconds=0.05)
        proxy.forget_calls()
        for _ in range(60):
            try:
                nova(proxy, behind.connection, path="/not-there")
            except requests.ConnectionError:
                continue

        def made() -> list[Any]:
            # A call is on record once it has been answered: the next one may be there before it.
            return sorted((c for c in proxy.calls if "not-there" in c.path), key=lambda call: call.at)

        until(lambda: len(made()) == 60, "60 calls")
        return [f"{call.fault} {call.status}" for call in made()]

    first = outcomes(5)
    assert 4 < len([one for one in first if one != " 404"]) < 22
    assert outcomes(5) == first
    assert outcomes(6) != first
    proxy.random(0.0, 5)
    assert nova(proxy, behind.connection, path="/not-there").status_code == 404


def test_all_is_forgotten(proxy: FaultProxy, behind: Tenant) -> None:
    """After `clear` everything comes through again."""
    proxy.fail(times=-1)
    proxy.refuse("glance")
    proxy.hang("neutron")
    proxy.clear()
    assert behind.servers() == []
    assert list(behind.connection.image.images(name="tiny"))
    assert list(behind.connection.network.networks())
