"""What a cloud's refusals mean, on the exceptions that the SDK really raises, and what people are told."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from twisted.internet.defer import CancelledError

from tests.fakes.openstack_api import Answer, OpenStackApi, api
from tests.listening import listening
from workers import cloud_errors
from workers.cloud_errors import Kind, Trouble
from workers.tls import self_signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PERMANENT, QUOTA, NO_HOST, PASSING = Kind.PERMANENT, Kind.QUOTA, Kind.NO_HOST, Kind.PASSING

SERVERS = "/compute/v2.1/servers"


def bad(message: str) -> Answer:
    """A 400 as nova words it."""
    return Answer(400, {"badRequest": {"code": 400, "message": message}})


def forbidden(message: str) -> Answer:
    """A 403 as nova words it."""
    return Answer(403, {"forbidden": {"code": 403, "message": message}})


REFUSALS = (
    # nova's answer to POST /servers, the kind, the sentence, the setting to look up anew
    (bad("Can not find requested image"), PERMANENT, "setting `images`: Can not find requested image", "images"),
    (
        bad("Image 6a0c is not active."),
        PERMANENT, "setting `images`: Image 6a0c is not active", "images",
    ),
    (
        bad("Flavor nope could not be found."),
        PERMANENT, "setting `nova_flavor`: Flavor nope could not be found", "nova_flavor",
    ),
    (bad("Invalid key_name provided."), PERMANENT, "setting `key_name`: Invalid key_name provided", "key_name"),
    (
        bad("Security group nope not found for project 4f."),
        PERMANENT, "setting `security_groups`: Security group nope not found for project 4f", "security_groups",
    ),
    (
        bad("Network 11111111-2222-3333-4444-555555555555 could not be found."),
        PERMANENT,
        "setting `networks`: Network 11111111-2222-3333-4444-555555555555 could not be found", "networks",
    ),
    (
        bad("The requested availability zone is not available"),
        PERMANENT,
        "setting `availability_zone`: The requested availability zone is not available", "availability_zone",
    ),
    (
        bad("Block Device Mapping is Invalid: failed to get volume 77."),
        PERMANENT, "setting `volume`: Block Device Mapping is Invalid: failed to get volume 77", "volume",
    ),
    (
        bad("Instance group 0815 could not be found."),
        PERMANENT, "setting `scheduler_hints`: Instance group 0815 could not be found", "scheduler_hints",
    ),
    (
        bad("It is a bad day."),
        PERMANENT, "it refuses what the settings ask for: It is a bad day", "",
    ),
    (
        forbidden("Quota exceeded for instances: Requested 1, but already used 12 of 12 instances"),
        QUOTA, "no quota for instances, 12 of 12 used", "",
    ),
    (
        forbidden("Quota exceeded for cores: Requested 16, but already used 90 of 96 cores"),
        QUOTA, "no quota for cores, 90 of 96 used", "",
    ),
    (
        forbidden("Quota exceeded for cores, ram: Requested 16, 49152, but already used 90, 9 of 96, 10 cores, ram"),
        QUOTA,
        "no quota: Quota exceeded for cores, ram: Requested 16, 49152, but already used 90, 9 of 96, 10 cores, ram",
        "",
    ),
    (forbidden("Maximum number of ports exceeded"), QUOTA, "no quota: Maximum number of ports exceeded", ""),
    (
        forbidden("Policy doesn't allow os_compute_api:servers:create to be performed."),
        PERMANENT,
        ("the credentials' role does not allow this (403: Policy doesn't allow os_compute_api:servers:create to be"
        " performed)"),
        "",
    ),
    (
        Answer(409, {"conflictingRequest": {"code": 409, "message": "Multiple possible networks found"}}),
        PERMANENT, "setting `networks`: Multiple possible networks found", "networks",
    ),
    (
        Answer(409, {"conflictingRequest": {"code": 409, "message": "Instance 6a0c is locked"}}),
        PASSING, "in conflict with something else (409: Instance 6a0c is locked)", "",
    ),
    (
        Answer(409, {"NeutronError": {"type": "OverQuota", "detail": "", "message": "Quota exceeded for resources: ['port']."}}),
        QUOTA, "no quota: Quota exceeded for resources: ['port']", "",
    ),
    (
        Answer(413, {"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'."}}),
        QUOTA, "no quota: VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'",
        "",
    ),
    (
        Answer(418, {"error": {"code": 418, "message": "I am a teapot"}}),
        PERMANENT, "it answers 418: I am a teapot", "",
    ),
    (
        Answer(401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}),
        PERMANENT,
        "the credentials are refused (401: The request you have made requires authentication)", "credentials",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenStackApi, Connection]]:
    """A cloud that answers as told, and the SDK's connection to it."""
    with api() as made:
        yield made, connected(made.clouds_yaml(tmp_path_factory.mktemp("cloud")))


def connected(clouds_yaml: Path, cloud: str = "sepia", timeout: float = 30, **more: Any) -> Connection:
    """Connect as the product does."""
    config = OpenStackConfig(config_files=[str(clouds_yaml)], load_envvars=False)
    region = config.get_one(
        cloud=cloud, api_timeout=timeout, connect_retries=0, status_code_retries=0,
        compute_default_microversion="2.60", **more,
    )  # fmt: skip
    return Connection(config=region)


def trouble_of(call: Callable[[], Any]) -> Trouble:
    """Give what the exception of a call means."""
    try:
        answer = call()
    except Exception as error:
        found = cloud_errors.of(error)
        assert found is not None, repr(error)
        return found
    raise AssertionError(f"nothing was raised, but given {answer!r}")


def posted(cloud: tuple[OpenStackApi, Connection], answer: Answer) -> Trouble:
    """Give what an answer to POST /servers means."""
    played, sdk = cloud
    played.on("POST", SERVERS, answer)
    return trouble_of(
        lambda: sdk.compute.create_server(name="x", flavor_id="f", image_id="i", networks="auto")
    )


@pytest.mark.parametrize(
    ("answer", "kind", "sentence", "stale"), REFUSALS, ids=[row[2][:50] for row in REFUSALS]
)
def test_a_refusal_names_the_setting_or_what_is_waited_for(
    cloud: tuple[OpenStackApi, Connection], answer: Answer, kind: Kind, sentence: str, stale: str
) -> None:
    """What ends a request names its setting; quota is waited for; nothing of it may have been done."""
    trouble = posted(cloud, answer)
    assert (trouble.kind, trouble.sentence, trouble.stale) == (kind, sentence, stale)
    assert not trouble.done_perhaps
    assert not trouble.machine


@pytest.mark.parametrize("status", [413, 429])
@pytest.mark.parametrize(("retry_after", "seconds"), [("7", 7), ("86400", 600), ("soon", 0), ("", 0)])
def test_who_asks_too_often_waits_as_long_as_told(
    cloud: tuple[OpenStackApi, Connection], status: int, retry_after: str, seconds: float
) -> None:
    """A Retry-After in seconds is kept to, up to ten minutes; nonsense is none."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    trouble = posted(
        cloud, Answer(status, {"overLimit": {"code": status, "message": "Too many requests"}}, headers)
    )
    assert (trouble.kind, trouble.retry_after, trouble.done_perhaps) == (PASSING, seconds, False)
    assert trouble.sentence == f"asked too often ({status})"


def test_a_date_as_retry_after_is_none(cloud: tuple[OpenStackApi, Connection]) -> None:
    """HTTP allows a date there, which counts as nothing rather than as an error."""
    date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert posted(cloud, Answer(503, {}, date)).retry_after == 0


def test_a_gateway_may_give_up_before_nova_does(cloud: tuple[OpenStackApi, Connection]) -> None:
    """After a 5xx, of nova or of what stands before it, the instance may have been made."""
    body = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available.\n</body></html>"
    trouble = posted(cloud, Answer(503, body, {"Retry-After": "4"}))
    assert (trouble.kind, trouble.done_perhaps, trouble.retry_after) == (PASSING, True, 4)
    assert trouble.sentence == "it is in trouble (503: 503 Service Unavailable: No server is available)"
    fault = {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
    trouble = posted(cloud, Answer(500, fault))
    assert (trouble.kind, trouble.done_perhaps) == (PASSING, True)
    assert trouble.sentence == "it is in trouble (500: Unexpected API Error)"


def test_a_broken_connection_may_have_carried_the_request(
    cloud: tuple[OpenStackApi, Connection], tmp_path: Path
) -> None:
    """After a reset or a time-out the instance may have been made, and the sentence says which and of whom."""
    address = f"{cloud[0].url}{SERVERS}"
    trouble = posted(cloud, Answer(how="reset"))
    assert (trouble.kind, trouble.done_perhaps) == (PASSING, True)
    assert trouble.sentence == f"it did not answer: {address}: Connection reset by peer"
    trouble = posted((cloud[0], connected(cloud[0].clouds_yaml(tmp_path), timeout=2)), Answer(how="hang"))
    assert (trouble.kind, trouble.done_perhaps) == (PASSING, True)
    assert trouble.sentence == f"it did not answer: Request to {address} timed out"


def test_a_refused_connection_has_carried_nothing(tmp_path: Path) -> None:
    """Where nobody listens, be it keystone or nova, nothing can have been made; the sentence says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with api() as played:
            away = played.clouds_yaml(tmp_path, auth={"auth_url": f"{nobody}/v3"})
            trouble = trouble_of(lambda: list(connected(away).compute.servers()))
            assert (trouble.kind, trouble.done_perhaps) == (PASSING, False)
            assert trouble.sentence == f"it did not answer: {nobody}/v3/auth/tokens: Connection refused"
            here = connected(played.clouds_yaml(tmp_path), compute_endpoint_override=f"{nobody}/v2.1")
            trouble = trouble_of(lambda: list(here.compute.servers()))
            assert (trouble.kind, trouble.done_perhaps) == (PASSING, False)
            assert trouble.sentence.endswith("Connection refused")


def test_an_answer_that_is_no_answer_passes(cloud: tuple[OpenStackApi, Connection]) -> None:
    """A proxy's page in place of nova's JSON is trouble that passes."""
    played, sdk = cloud
    played.on("GET", f"{SERVERS}/detail", Answer(200, b"<html>Please log in</html>"))
    trouble = trouble_of(lambda: list(sdk.compute.servers(details=True)))
    assert (trouble.kind, trouble.done_perhaps) == (PASSING, True)


KEYSTONE = (
    (
        401,
        PERMANENT,
        "keystone refuses the credentials that clouds.yaml or OS_* give (401: as it says)",
        False,
    ),
    (
        403,
        PERMANENT,
        "keystone refuses the credentials that clouds.yaml or OS_* give (403: as it says)",
        False,
    ),
    (404, PERMANENT, "`auth_url` of clouds.yaml or OS_* is not keystone's (as it says)", False),
    (429, PASSING, "asked too often (429)", False),
    (500, PASSING, "it is in trouble (500: as it says)", True),
    (503, PASSING, "it is in trouble (503: as it says)", True),
)


@pytest.mark.parametrize(
    ("status", "kind", "sentence", "done_perhaps"), KEYSTONE, ids=[str(row[0]) for row in KEYSTONE]
)
def test_keystone_raises_exceptions_of_its_own(
    tmp_path: Path, status: int, kind: Kind, sentence: str, done_perhaps: bool
) -> None:
    """keystoneauth's exceptions, which are none of the SDK's, are understood as well."""
    with api() as played:
        error = {"error": {"code": status, "message": "as it says", "title": "T"}}
        played.on("POST", "/identity/v3/auth/tokens", Answer(status, error, {"Retry-After": "3"}))
        sdk = connected(played.clouds_yaml(tmp_path))
        trouble = trouble_of(lambda: list(sdk.compute.servers()))
    assert (trouble.kind, trouble.sentence, trouble.done_perhaps) == (kind, sentence, done_perhaps)
    assert trouble.retry_after == (3 if kind is PASSING else 0)


def test_what_clouds_yaml_lacks_is_said(tmp_path: Path) -> None:
    """An unknown cloud, an unknown region, a service that is not in the catalogue: each ends a request, and is named."""
    with api("network") as played:
        file = played.clouds_yaml(tmp_path)
        for call, words in (
            (lambda: connected(file, "nope"), "Cloud nope was not found"),
            (lambda: connected(file, region_name="Nowhere"), "Region Nowhere is not a valid region name"),
            (lambda: list(connected(file).compute.servers()), "Service 'compute' is disabled"),
        ):
            trouble = trouble_of(call)
            assert trouble.kind is PERMANENT
            assert trouble.sentence.startswith("settings `cloud` and `region`: ")
            assert words in trouble.sentence
        volumes = trouble_of(lambda: list(connected(file).block_storage.volumes()))
    assert volumes.kind is PERMANENT
    assert volumes.sentence.startswith("setting `volume`: Service 'block-storage' is disabled")


def test_no_way_to_log_in_is_said(tmp_path: Path) -> None:
    """Credentials of an unknown kind end a request."""
    with api() as played:
        file = played.clouds_yaml(tmp_path, auth_type="magic")
        trouble = trouble_of(lambda: list(connected(file).compute.servers()))
    assert (trouble.kind, trouble.sentence) == (
        PERMANENT,
        "the credentials of clouds.yaml or OS_* do not do: The plugin magic could not be found",
    )


def test_a_handshake_that_breaks_passes(tmp_path: Path) -> None:
    """What stands before a service, and starts anew, closes connections in mid-handshake: that is no wrong CA."""
    with api() as played, listening(lambda connection, _: connection.recv(65536)) as port:
        url = f"https://127.0.0.1:{port}/v3"
        sdk = connected(played.clouds_yaml(tmp_path, auth={"auth_url": url}))
        trouble = trouble_of(lambda: list(sdk.compute.servers()))
    assert (trouble.kind, trouble.done_perhaps, trouble.stale) == (PASSING, True, "")
    assert trouble.sentence == f"it did not answer: {url}/auth/tokens: EOF occurred in violation of protocol"


def test_a_certificate_that_is_not_trusted_ends_a_request(tmp_path: Path) -> None:
    """No try will make it good; the setting is named, and what clouds.yaml says is read again at the next request."""
    made = self_signed(tmp_path, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def shake(connection: socket.socket, _: int) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    with api() as played, listening(shake) as port:
        sdk = connected(played.clouds_yaml(tmp_path, auth={"auth_url": f"https://127.0.0.1:{port}/v3"}))
        trouble = trouble_of(lambda: list(sdk.compute.servers()))
    assert (trouble.kind, trouble.stale) == (PERMANENT, "credentials")
    assert trouble.sentence.startswith("`cacert` of clouds.yaml or OS_CACERT does not do: ")
    assert "certificate verify failed" in trouble.sentence


def test_a_name_that_is_not_there_has_no_status(cloud: tuple[OpenStackApi, Connection]) -> None:
    """The SDK's own `not found`, which has no HTTP status, names the setting; so does a name that many have."""
    played, sdk = cloud
    played.on("GET", "/image/v2/images/nope", Answer(404, b"<html>404 Not Found</html>"))
    played.on("GET", "/image/v2/images", Answer(200, {"images": []}))
    trouble = trouble_of(lambda: sdk.image.find_image("nope", ignore_missing=False))
    assert (trouble.kind, trouble.sentence) == (PERMANENT, "setting `images`: No Image found for nope")
    two = [{"id": "1", "name": "twice"}, {"id": "2", "name": "twice"}]
    played.on("GET", "/network/v2.0/networks/twice", Answer(404, {}))
    played.on("GET", "/network/v2.0/networks", Answer(200, {"networks": two}))
    trouble = trouble_of(lambda: sdk.network.find_network("twice", ignore_missing=False))
    assert (trouble.kind, trouble.sentence) == (
        PERMANENT,
        "More than one Network exists with the name 'twice'; name it by its id",
    )


def test_only_what_a_cloud_does_is_a_clouds_trouble() -> None:
    """A mistake of ours, and the end of a wait, stay what they are."""
    for error in (ZeroDivisionError("ours"), CancelledError(), AssertionError()):
        assert cloud_errors.of(error) is None
    trouble = Trouble(PASSING, "said before")
    assert cloud_errors.of(trouble) is trouble


FAULTS = (
    # a server's fault, the kind, the sentence, whether a machine failed, the setting to look up anew
    (
        "No valid host was found. There are not enough hosts available.", NO_HOST,
        "no host has room for such an instance (No valid host was found. There are not enough hosts available)",
        False, "",
    ),
    (
        "Exceeded maximum number of retries. Exceeded max scheduling attempts 3 for instance 12. Last exception: x",
        NO_HOST,
        ("no host has room for such an instance (Exceeded maximum number of retries. Exceeded max scheduling attempts"
        " 3 for instance 12. Last exception: x)"),
        False, "",
    ),
    (
        "Quota exceeded for instances: Requested 1, but already used 13 of 12 instances", QUOTA,
        "no quota for instances, 13 of 12 used", False, "",
    ),
    (
        "Image 6a0c could not be found.", PASSING,
        "the image is not to be had (Image 6a0c could not be found)", True, "images",
    ),
    (
        "Build of instance 12 aborted: the disk is on fire", PASSING,
        "the instance went to ERROR: Build of instance 12 aborted: the disk is on fire", True, "",
    ),
    ("", PASSING, "the instance went to ERROR: no reason given", True, ""),
)  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "kind", "sentence", "machine", "stale"), FAULTS, ids=[row[2][:40] for row in FAULTS]
)
def test_the_fault_of_a_server_is_understood(
    fault: str, kind: Kind, sentence: str, machine: bool, stale: str
) -> None:
    """What a server in ERROR says of itself decides whether its cloud has no room, or the machine failed."""
    trouble = cloud_errors.of_fault(fault)
    assert (trouble.kind, trouble.sentence) == (kind, sentence)
    assert (trouble.machine, trouble.stale) == (machine, stale)


def test_the_cloud_is_named_once() -> None:
    """A sentence gets its cloud's name where it has none."""
    trouble = Trouble(QUOTA, "no quota", retry_after=3).in_cloud("sepia")
    assert str(trouble) == trouble.sentence == "cloud sepia: no quota"
    assert (trouble.kind, trouble.retry_after) == (QUOTA, 3)
    assert trouble.in_cloud("sepia").sentence == "cloud sepia: no quota"


def test_a_sentence_fits_a_line(cloud: tuple[OpenStackApi, Connection]) -> None:
    """However long and however many lines an answer is, the sentence is one line of bounded length."""
    trouble = posted(cloud, Answer(500, {"computeFault": {"message": "a\n" * 1000}}))
    assert "\n" not in trouble.sentence
    assert len(trouble.sentence) < 350
