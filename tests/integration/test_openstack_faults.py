"""Every failure of a cloud has an end: a real master, a real nova, and between them what goes wrong in real clouds."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.inside.knobs import DEFAULTS
from lab.proxy import FaultProxy
from tests.integration.cloud_cases import (
    DEBUG,
    RETRY,
    SUCCESS,
    Gate,
    more_clouds,
    nothing_left,
    page,
    properties,
    published,
    refused,
    server_of,
    told,
    until_asleep,
    until_log,
    until_page,
    until_server,
)
from tests.integration.cloud_harness import CloudInstallation, cloud_installation
from tests.integration.harness import DEB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.cloud import Lab

NOBODY = "11111111-2222-3333-4444-555555555555"

# -- settings that are wrong

WRONG: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    # what is wrong -> the target that shows it, settings of its cloud, changes of clouds.yaml, what the page says
    "image": (
        "ceph-deb-resolute-x86_64-default", {"images": {"*": "no-such"}}, {},
        r"setting `images`: 'no-such' is not there, or not active",
    ),
    "image id": (
        "ceph-deb-resolute-x86_64-debug", {"images": {"*": NOBODY}}, {},
        rf"setting `images`: '{NOBODY}' is not there, or not active",
    ),
    "nova_flavor": (
        "ceph-deb-jammy-x86_64-default", {"nova_flavor": "no-such"}, {},
        r"setting `nova_flavor`: 'no-such' is not there; there are .*small \(1 cpus, 512 MB, 5 GB\)",
    ),
    "sizes": (
        "ceph-deb-jammy-x86_64-debug",
        {"nova_flavor": "", "good_machine": {"cpus": 640}, "min_machine": {"cpus": 64}}, {},
        r"settings `good_machine` and `min_machine`: no nova_flavor has 640 cpus.*; nor 64 cpus",
    ),
    "network": (
        "ceph-deb-noble-x86_64-default", {"networks": ["no-such"]}, {},
        r"setting `networks`: 'no-such' is not there; there are lab, outside, second",
    ),
    "network id": (
        "ceph-deb-noble-x86_64-debug", {"networks": [NOBODY]}, {},
        rf"setting `networks`: Network {NOBODY} could not be found",
    ),
    "key": (
        "ceph-deb-trixie-x86_64-default", {"key_name": "no-such"}, {},
        r"setting `key_name`: Invalid key_name provided",
    ),
    "security group": (
        "ceph-deb-trixie-x86_64-debug", {"security_groups": ["no-such"]}, {},
        r"setting `security_groups`: .*no-such",
    ),
    "availability zone": (
        "ceph-deb-resolute-aarch64-default", {"availability_zone": "no-such"}, {},
        r"setting `availability_zone`: The requested availability zone is not available",
    ),
    "scheduler hints": (
        "ceph-deb-resolute-aarch64-debug", {"scheduler_hints": {"group": NOBODY}}, {},
        rf"setting `scheduler_hints`: .*{NOBODY} could not be found",
    ),
    "floating ip": (
        "ceph-deb-jammy-aarch64-default", {"floating_ip": "no-such"}, {},
        r"setting `floating_ip`: no network 'no-such'",
    ),
    "volume": (
        "ceph-deb-jammy-aarch64-debug", {"volume": {"size": 5}}, {},
        r"setting `volume`: Service 'block-storage' is disabled",
    ),
    "credentials": (
        "ceph-deb-noble-aarch64-default", {}, {"auth": {"application_credential_secret": "wrong"}},
        r"keystone refuses the credentials that clouds.yaml or OS_\* give \(401: ",
    ),
    "region": (
        "ceph-deb-noble-aarch64-debug", {"region": "Nowhere"}, {},
        r"settings `cloud` and `region`: .*Nowhere",
    ),
    "cloud": (
        "ceph-deb-bookworm-aarch64-default", {"cloud": "no-such"}, {},
        r"settings `cloud` and `region`: Cloud no-such was not found",
    ),
    "keystone": (
        "ceph-deb-bookworm-aarch64-debug", {}, {"auth": {"auth_url": "http://127.0.0.1:{nobody}/v3"}},
        (r"infrastructure failed 2 times, at last: cloud wrong-keystone: it did not answer:"
        r" http://127.0.0.1:{nobody}/v3/auth/tokens: Connection refused"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def nobody() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="module")
def wrong(lab: Lab, nobody: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the page said in the end, at a master each of whose targets has a cloud with one thing wrong."""
    directory = tmp_path_factory.mktemp("wrong")
    names: dict[str, Any] = {}
    clouds = []
    for what, (target, settings, changes, _) in WRONG.items():
        name = f"wrong-{what.replace(' ', '-')}"
        auth = {key: one.replace("{nobody}", str(nobody)) for key, one in changes.get("auth", {}).items()}
        names[name] = {"auth": auth}
        clouds.append({"cloud": name, "images": {target: "tiny"}, "max_instances": 1, **settings})
        if "images" in settings:
            clouds[-1]["images"] = {target: settings["images"]["*"]}
    clouds_yaml = more_clouds(lab.clouds_yaml, directory / "clouds", names)
    targets = [row[0] for row in WRONG.values()]
    with cloud_installation(
        directory, lab, clouds=clouds, clouds_yaml=clouds_yaml, targets=targets,
        openstack={"waiting": len(WRONG), "api_tries": 2},
    ) as here:  # fmt: skip
        sha1 = here.repository.commit()
        answers = {what: here.ask(row[0], sha1=sha1) for what, row in WRONG.items()}
        said = {what: refused(here, answer) for what, answer in answers.items()}
        nothing_left(here, lab)
    return said


@pytest.mark.parametrize("what", WRONG)
def test_what_the_settings_name_wrongly_ends_a_request(wrong: dict[str, str], nobody: int, what: str) -> None:
    """The request ends, as one that can have no machine, with a sentence that names the setting and the cloud."""
    assert re.search(WRONG[what][3].replace("{nobody}", str(nobody)), wrong[what]), wrong[what]
    assert "cloud " in wrong[what]


# -- machines that never come to anything

PATIENCE = 40
"""Seconds for a worker to attach: more than a busy nova takes to bring a server to ACTIVE, or to ERROR."""


@pytest.fixture(scope="module")
def hopeless(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the page said in the end, on a cloud where nothing ever boots, each in its own way; and a console."""
    directory = tmp_path_factory.mktemp("hopeless")
    lab.quota(instances=-1, cores=-1, ram=-1)
    clouds_yaml = more_clouds(lab.clouds_yaml, directory / "clouds", {"full": {}})
    with cloud_installation(
        directory, lab, clouds_yaml=clouds_yaml, targets=[DEB, DEBUG],
        clouds=[{"cloud": "full", "images": {DEBUG: "tiny"}, "nova_flavor": "huge"}, {"images": {DEB: "tiny"}}],
        openstack={"api_tries": 2}, workers={"attempts": 1, "start_timeout": PATIENCE},
    ) as here:  # fmt: skip
        answers = {"no host": here.ask(DEBUG, sha1=here.repository.commit())}
        try:
            for what, knob in (
                ("error", {"fail_spawn": 1}),
                ("silent", {"never_attach": 1}),
                ("build", {"hang_spawn": True}),
            ):
                before = {one.id for one in here.servers()}
                lab.set(**knob)
                answers[what] = here.ask(DEB, sha1=here.repository.commit())
                if what == "error":
                    here.wait(answers[what])
                else:
                    until_server(here, answers[what], {"silent": "ACTIVE", "build": "BUILD"}[what], before)
            said = {what: refused(here, answer) for what, answer in answers.items()}
            nothing_left(here, lab)
        finally:
            lab.set(**DEFAULTS)
        [build] = here.builds(answers["silent"])
        said["console"] = here.machine_log(build, "console")
    return said


HOPELESS = {
    "no host": (
        r"infrastructure failed 2 times, at last: cloud full: no host has room for such an instance"
        r" \(No valid host was found"
    ),
    "error": (
        r"infrastructure failed once, at last: cloud packages: the instance went to ERROR: .*the lab was told to fail"
    ),
    "silent": rf"infrastructure failed once, at last: cloud packages: no worker attached within {PATIENCE} s .*, ACTIVE",
    "build": rf"infrastructure failed once, at last: cloud packages: no worker attached within {PATIENCE} s .*, BUILD",
}


@pytest.mark.parametrize("what", HOPELESS)
def test_a_machine_that_comes_to_nothing_ends_a_request(hopeless: dict[str, str], what: str) -> None:
    """After as many tries as settings say the request ends, as a failure of infrastructure, with what was seen last."""
    assert re.search(HOPELESS[what], hopeless[what]), hopeless[what]


def test_the_last_words_of_a_machine_are_kept(hopeless: dict[str, str]) -> None:
    """The console of one whose worker never attached is a log of the build."""
    assert "this server was told to run nothing" in hopeless["console"]


# -- what passes


@pytest.fixture(scope="module")
def stormy(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CloudInstallation, FaultProxy]]:
    """A master with a proxy between it and the cloud; it started when nothing answered."""
    directory = tmp_path_factory.mktemp("stormy")
    lab.use_roots({"swap": _root(lab)})
    other = lab.connect("other")
    theirs = _look_alike(other)
    with FaultProxy(lab) as proxy:
        proxy.refuse("keystone")
        proxy.fail(service="nova", method="GET", path="/v2.1/?$", status=503)
        proxy.fail(service="nova", method="GET", path="/v2.1/?$", status=500)
        with cloud_installation(
            directory, lab, clouds_yaml=proxy.clouds_yaml, targets=[DEB, DEBUG],
            clouds=[{"images": {DEB: {"name": "bookworm"}, DEBUG: "swap"}, "timeout": 6}],
            openstack={"api_tries": 20}, workers={"attempts": 2},
        ) as here:  # fmt: skip
            yield here, proxy
            proxy.clear()
            nothing_left(here, lab)
            assert other.compute.get_server(theirs).status == "ACTIVE", "it was somebody else's"
    other.compute.delete_server(theirs)


@pytest.fixture(autouse=True)
def _calm(lab: Lab) -> Iterator[None]:
    """Knobs and quotas are as before after each test."""
    yield
    lab.quota(instances=-1, cores=-1, ram=-1)


def use_up(lab: Lab) -> int:
    """Have no quota for one more instance than there are now; give their number."""
    used = len(list(lab.connect("packages").compute.servers(details=False)))
    lab.quota(instances=used)
    return used


def _root(lab: Lab) -> Any:
    """Give the prepared root of the image bookworm."""
    newest = max(lab.admin().image.images(name="bookworm"), key=lambda one: one.created_at)
    return Path(newest.properties["lab_root"])


def _look_alike(cloud: Any) -> str:
    """Make a server of somebody else's in the same project, with no tag; give its id."""
    return str(
        cloud.compute.create_server(
            name=f"{DEB}-00000000",
            image_id=next(cloud.image.images(name="tiny")).id,
            flavor_id=cloud.compute.find_flavor("small").id,
            networks=[{"uuid": cloud.network.find_network("lab").id}],
            metadata={"boot": "00000000", "expires": "1"},
        ).id
    )


def test_keystone_is_away_and_comes_back(stormy: tuple[CloudInstallation, FaultProxy]) -> None:
    """The page says so while it is away; when it is back the build goes on, though nova stumbles at first."""
    here, proxy = stormy
    answer = here.ask(DEB, sha1=here.repository.commit())
    until_page(here, answer, r"cloud packages: it did not answer: .*: Connection refused; next try in \d+ s")
    proxy.refuse("keystone", on=False)
    published(here, answer)


STORM = (
    # a fault of the call that makes a server, and what is said of it
    ({"how": "fail", "status": 503}, r"it is in trouble \(503: the lab was told to fail\)"),
    ({"how": "fail", "status": 429, "retry_after": 2}, r"asked too often \(429\)"),
    ({"how": "fail", "status": 413, "retry_after": 1}, r"asked too often \(413\)"),
    ({"how": "fail", "status": 409}, r"in conflict with something else \(409: the lab was told to fail\)"),
    ({"how": "lose"}, r"it did not answer: \S+/servers: (Connection reset by peer|Remote end closed)"),
    ({"how": "reset"}, r"it did not answer: \S+/servers: (Connection reset by peer|Remote end closed)"),
    ({"how": "stall", "seconds": 20}, r"it did not answer: Request to \S+/servers timed out"),
    (
        {
            "how": "fail", "status": 403,
            "message": "Quota exceeded for instances: Requested 1, but already used 12 of 12 instances",
        },
        r"no quota for instances, 12 of 12 used; next try in \d+ s",
    ),
)  # fmt: skip


def test_calls_that_fail_are_made_again(stormy: tuple[CloudInstallation, FaultProxy]) -> None:
    """Whatever happens to the calls that make and end servers, every build is published and no server is left."""
    here, proxy = stormy
    for fault, _ in STORM:
        rule = dict(fault)
        getattr(proxy, rule.pop("how"))(service="nova", method="POST", path="/servers$", **rule)
    for _ in range(2):
        proxy.fail(service="nova", method="DELETE", status=503)
        proxy.ignore_deletes()
        proxy.lose(service="nova", method="DELETE")
        proxy.stall(8, service="nova", method="DELETE")
    proxy.fail(service="nova", method="GET", path="/servers/detail$", status=500, times=3)
    proxy.fail(service="glance", method="GET", status=503, times=2)
    answers = [here.ask(DEB, sha1=here.repository.commit()) for _ in range(len(STORM))]
    logs = ""
    for answer in answers:
        published(here, answer)
        logs += told(here, answer)
    for _, said in STORM:
        assert re.search(rf"cloud packages: {said}|{said}", logs), said
    builds = [here.said(answer) for answer in answers]
    assert [len(one) for one in builds] == [1] * len(STORM), f"and none of it cost a build: {builds}"
    proxy.clear()
    nothing_left(here, here.lab)


def test_a_machine_that_fails_is_replaced(stormy: tuple[CloudInstallation, FaultProxy], lab: Lab) -> None:
    """A server that goes to ERROR, and one that somebody deletes while it boots, are replaced within one build."""
    here, _ = stormy
    lab.set(fail_spawn=1)
    answer = here.ask(DEB, sha1=here.repository.commit())
    until_log(here, answer, r"the instance went to ERROR: .*the lab was told to fail; next try in \d+ s")
    assert len(published(here, answer)) == 1
    lab.set(boot_seconds=60)
    answer = here.ask(DEB, sha1=here.repository.commit())
    first = server_of(here, answer)
    lab.connect("other").compute.delete_server(first)
    lab.set(boot_seconds=0)
    until_log(here, answer, r"the instance is gone, deleted by somebody else")
    [build] = published(here, answer)
    assert properties(here, build)["instance"] != first
    nothing_left(here, lab)


def test_a_machine_that_is_lost_while_it_builds_costs_a_build(
    stormy: tuple[CloudInstallation, FaultProxy], lab: Lab
) -> None:
    """A server that is deleted, or switched off, in the middle of its build is replaced for another build."""
    here, _ = stormy
    with Gate() as gate:
        answers = [here.ask(DEB, sha1=here.repository.commit(gate.knobs)) for _ in range(2)]
        for answer in answers:
            until_asleep(here, answer)
        others = lab.connect("other").compute
        others.delete_server(server_of(here, answers[0]))
        others.stop_server(server_of(here, answers[1]))
        for answer in answers:
            until_asleep(here, answer, builds=2)
        gate.open()
        for answer in answers:
            first, second = published(here, answer)
            assert (first["results"], second["results"]) == (RETRY, SUCCESS)
    nothing_left(here, lab)


def test_nova_is_away_while_machines_boot_and_go(
    stormy: tuple[CloudInstallation, FaultProxy], lab: Lab
) -> None:
    """When nova refuses connections, and when it answers nothing, builds wait and say so; all ends well after."""
    here, proxy = stormy
    for away in (proxy.refuse, proxy.hang):
        with Gate() as gate:
            going = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
            until_asleep(here, going)
            lab.set(boot_seconds=3)
            booting = here.ask(DEB, sha1=here.repository.commit())
            server_of(here, booting)
            lab.set(boot_seconds=0)
            away("nova")
            asking = here.ask(DEB, sha1=here.repository.commit())
            until_page(here, asking, r"it did not answer: .*; next try in")
            gate.open()
            published(here, going)
            away("nova", on=False)
            for answer in (booting, asking):
                assert len(published(here, answer)) == 1
    nothing_left(here, lab)


def test_quota_is_waited_for(stormy: tuple[CloudInstallation, FaultProxy], lab: Lab) -> None:
    """The page says what there is no quota of, in which cloud, and when the next try is; then the build goes on."""
    here, proxy = stormy
    with Gate() as gate:
        running = here.ask(DEB, sha1=here.repository.commit(gate.knobs))
        until_asleep(here, running)
        used = use_up(lab)
        waiting = here.ask(DEB, sha1=here.repository.commit())
        proxy.forget_calls()
        pattern = rf"^no quota for instances in cloud packages, {used} of {used} used; next try in \d+ s$"
        until_page(here, waiting, pattern)
        step = here.steps(here.builds(waiting)[-1])["worker_preparation"]
        assert re.search(pattern, step["state_string"])
        lab.quota(instances=-1)
        published(here, waiting)
        made = [call for call in proxy.calls if call.method == "POST" and call.path.endswith("/servers")]
        assert len(made) == 1, "nothing was asked for in vain"
        gate.open()
        published(here, running)
    nothing_left(here, lab)


def test_an_image_is_replaced_and_vanishes(stormy: tuple[CloudInstallation, FaultProxy], lab: Lab) -> None:
    """Another image of the same name is used at once; with none left the request ends, and names the setting."""
    here, _ = stormy
    [first] = published(here, here.ask(DEBUG, sha1=here.repository.commit()))
    images = lab.admin().image
    root = _root(lab)
    for image in list(images.images(name="swap")):
        images.delete_image(image.id)
    lab.use_roots({"swap": root})
    [second] = published(here, here.ask(DEBUG, sha1=here.repository.commit()))
    assert properties(here, first)["image"] != properties(here, second)["image"]
    for image in list(images.images(name="swap")):
        images.delete_image(image.id)
    said = refused(here, here.ask(DEBUG, sha1=here.repository.commit()))
    assert said == "cloud packages: setting `images`: 'swap' is not there, or not active"
    nothing_left(here, lab)


# -- another cloud


@pytest.fixture(scope="module")
def several(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudInstallation]:
    """A master with a cloud that has no room, one with a quota, and one that takes what they refuse."""
    directory = tmp_path_factory.mktemp("several")
    clouds_yaml = more_clouds(lab.clouds_yaml, directory / "clouds", {"full": {}})
    with cloud_installation(
        directory, lab, clouds_yaml=clouds_yaml, targets=[DEB, DEBUG], workers={"attempts": 1},
        clouds=[
            {"cloud": "full", "nova_flavor": "huge", "images": {DEBUG: "tiny"}},
            {"cloud": "packages", "images": {"*": {"name": "bookworm"}}},
            {"cloud": "lab", "images": {"*": {"name": "bookworm"}}},
        ],
    ) as here:  # fmt: skip
        yield here
        nothing_left(here, lab)


def test_a_cloud_with_no_host_is_left_for_the_next(several: CloudInstallation) -> None:
    """What has no valid host in one cloud is built in the next, in the same build."""
    answer = several.ask(DEBUG, sha1=several.repository.commit())
    [build] = published(several, answer)
    assert properties(several, build)["cloud"] == "packages"
    assert "cloud full: no host has room for such an instance" in told(several, answer)


def test_a_cloud_with_no_quota_is_left_for_the_next(several: CloudInstallation, lab: Lab) -> None:
    """What one cloud has no quota for is built in the next, without a wait, while the first goes on building."""
    with Gate() as gate:
        running = several.ask(DEB, sha1=several.repository.commit(gate.knobs))
        until_asleep(several, running)
        use_up(lab)
        answer = several.ask(DEB, sha1=several.repository.commit())
        [build] = published(several, answer)
        assert properties(several, build)["cloud"] == "lab"
        assert "next try" not in told(several, answer)
        gate.open()
        [first] = published(several, running)
        assert properties(several, first)["cloud"] == "packages"
        assert page(several, running) == "build successful"
