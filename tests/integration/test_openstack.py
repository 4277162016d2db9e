"""A server of its own for every build: a real master on a real OpenStack."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from master.users import digest
from tests.integration.cloud_cases import (
    Gate,
    nothing_left,
    page,
    properties,
    published,
    until_asleep,
    until_page,
)
from tests.integration.cloud_harness import CloudInstallation, cloud_installation
from tests.integration.harness import CHECKOUT, DEB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.cloud import Lab

ALICE, BOB = "a-secret-of-alice-that-is-long-enough", "b-secret-of-bob-that-is-long-enough-too"


@pytest.fixture(scope="module")
def here(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudInstallation]:
    """A master with users, limits for each, and everything in its settings that the lab has."""
    directory = tmp_path_factory.mktemp("openstack")
    cloud = {
        "max_instances": 3, "floating_ip": "outside", "security_groups": ["builders"], "key_name": "ops",
        "availability_zone": "nova", "config_drive": True,
    }  # fmt: skip
    with cloud_installation(
        directory, lab, clouds=[cloud], openstack={"max_instances_per_asker": 2, "lifetime": 2},
        users={"alice": digest(ALICE), "bob": digest(BOB)},
    ) as made:  # fmt: skip
        yield made
        nothing_left(made, lab)


def ask(here: CloudInstallation, secret: str, sha1: str) -> dict[str, Any]:
    """Ask as somebody."""
    answer = here.force(secret, builderNames=[DEB], sha1=sha1)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["result"][2][0]
    return found


def test_a_build_gets_a_server_that_says_whose_it_is(here: CloudInstallation, lab: Lab) -> None:
    """The server carries the tag and all there is to know from the start, has a floating ip, and leaves nothing."""
    with Gate() as gate:
        answer = ask(here, ALICE, here.repository.commit(gate.knobs))
        until_asleep(here, answer)
        _looked_at(here, answer, lab)
        gate.open()
        [build] = published(here, answer)
    of_build = properties(here, build)
    assert of_build["cloud"] == "packages"
    assert of_build["image"].startswith("bookworm (")
    assert of_build["nova_flavor"] == "small"
    nothing_left(here, lab)


def _looked_at(here: CloudInstallation, answer: dict[str, Any], lab: Lab) -> None:
    """Look at the server of a build that runs."""
    [server] = here.servers()
    [build] = here.builds(answer)
    assert here.tag == f"buildpackages-{server.metadata['master']}"
    boot, expires = server.metadata["boot"], int(server.metadata["expires"])
    assert server.metadata == {
        "master": server.metadata["master"], "boot": boot, "target": DEB, "asker": "alice",
        "worker": properties(here, build)["workername"], "expires": str(expires),
        "build_url": f"{here.url}#/builders/{build['builderid']}/builds/{build['number']}",
    }  # fmt: skip
    assert build["started_at"] < expires - 2 * 3600 + 60
    assert expires - 2 * 3600 - 60 < build["started_at"]
    assert server.name == f"{DEB}-{boot[:8]}"
    assert (server.key_name, server.availability_zone, server.has_config_drive) == ("ops", "nova", "True")
    network = lab.connect().network
    [port] = [one for one in network.ports() if one.description == f"{here.tag} boot {boot}"]
    [ip] = [one for one in network.ips() if one.description == f"{here.tag} boot {boot}"]
    assert (port.device_id, ip.port_id) == (server.id, port.id)
    group = network.find_security_group("builders")
    assert port.security_group_ids == [group.id]
    assert properties(here, build)["instance"] == server.id


def test_nobody_has_more_than_their_share(here: CloudInstallation, lab: Lab) -> None:
    """With three places and two for each asker, a third request of one waits, and another's is built; the page says why."""
    with Gate() as gate:
        sha1s = [here.repository.commit(gate.knobs) for _ in range(5)]
        alice = [ask(here, ALICE, sha1) for sha1 in sha1s[:3]]
        until_page(here, alice[2], r"^2 of 2 instances that alice may have; next try in \d+ s$")
        bob = [ask(here, BOB, sha1) for sha1 in sha1s[3:]]
        until_page(here, bob[1], r"^3 of 3 instances that cloud packages may have; next try in \d+ s$")
        for answer in (*alice[:2], bob[0]):
            until_asleep(here, answer)
        assert sorted(one.metadata["asker"] for one in here.servers()) == ["alice", "alice", "bob"]
        gate.open()
        for answer in (*alice, *bob):
            published(here, answer)
            assert page(here, answer) == "build successful"
    nothing_left(here, lab)


def test_a_build_takes_a_machine_that_was_kept_ready(here: CloudInstallation, lab: Lab) -> None:
    """Turned on by a reload, a machine is made ahead; the next build runs on it, as nova's id of it shows."""
    prewarm = {
        "target": DEB,
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        "hours": [0, 24],
        "max_age": 1,
    }
    reload(here, prewarm=[prewarm])
    [warm] = here.until(here.servers, "a machine is made ahead", 60)
    assert warm.metadata["asker"] == "prewarm"
    twistd = here.settings.state / "twistd.log"
    here.until(lambda: "a machine that was made ahead is ready" in twistd.read_text(), "it is ready")
    console = lab.connect().compute.get_server_console_output(warm.id)["output"]
    assert "waiting for a build" in console
    answer = ask(here, ALICE, here.repository.commit())
    [build] = published(here, answer)
    assert properties(here, build)["instance"] == warm.id
    assert f"taking instance {warm.id} in cloud packages, kept ready" in here.machine_log(build)
    reload(here, prewarm=[])
    nothing_left(here, lab)


def reload(here: CloudInstallation, **openstack: Any) -> None:
    """Change the section of the settings, and have the running master read it."""
    data = yaml.safe_load(here.settings_file.read_text())
    data["workers"]["openstack"].update(openstack)
    here.settings_file.write_text(yaml.safe_dump(data))
    subprocess.run(
        [sys.executable, "-m", "master.control", "reload", "--settings", str(here.settings_file)],
        cwd=CHECKOUT, check=True,
    )  # fmt: skip
