"""What a cloud's refusals mean: which end a request at once, which pass, and what the asker is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import requests
from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(Enum):
    """What to do about it."""

    PERMANENT = "permanent"
    """No use in trying again as things are configured."""
    QUOTA = "quota"
    """Wait until something is given back, or go to another cloud."""
    NO_HOST = "no host"
    """This cloud has no room for such an instance now."""
    PASSING = "passing"
    """Try again later, elsewhere if possible."""


@dataclass(eq=False)
class Trouble(Exception):
    """One refusal: its kind, and a sentence that names the setting to mend or the thing to wait for."""

    kind: Kind
    sentence: str
    retry_after: float = 0.0
    """Seconds that the cloud asked for; 0 if it did not."""
    done_perhaps: bool = False
    """Whether what was asked for may have been done all the same: nobody heard the answer."""
    stale: str = ""
    """The setting whose look-up must not be kept."""
    machine: bool = False
    """Whether an instance failed, and not a call."""

    def __str__(self) -> str:
        """Give the sentence."""
        return self.sentence

    def and_said(self, console: str) -> Trouble:
        """Give the same with what the machine said last of its own failure, if it said anything."""
        said = [line for line in console.splitlines() if "FAILED" in line]
        if not said:
            return self
        return replace(
            self, sentence=f"{self.sentence}; it said: {_line(said[-1].split('FAILED', 1)[1]).lstrip()}"
        )

    def in_cloud(self, cloud: str) -> Trouble:
        """Give the same with the cloud's name in the sentence, once."""
        named = f"cloud {cloud}"
        return self if named in self.sentence else replace(self, sentence=f"{named}: {self.sentence}")


_SETTINGS = (
    (r"too small|larger than|minimum", "nova_flavor` and `images"),
    (r"image", "images"),
    (r"flavor", "nova_flavor"),
    (r"key[_ ]?(name|pair)", "key_name"),
    (r"security[_ ]?group", "security_groups"),
    (r"network|subnet|fixed ip|port ", "networks"),
    (r"availability zone", "availability_zone"),
    (r"hint|server group|group", "scheduler_hints"),
    (r"volume|block device", "volume"),
    (r"user[_ ]?data", "environment"),
)
"""What a 400 of nova speaks of, in the order of looking, and the setting behind it."""

_QUOTA = {
    403: re.compile(r"quota|exceeded|too many", re.IGNORECASE),
    409: re.compile(r"quota", re.IGNORECASE),
    413: re.compile(r"quota|limit ?exceeded", re.IGNORECASE),
}
"""By status: nova says 403, neutron 409, and cinder 413."""
_NO_HOST = re.compile(r"no valid host|not enough|exceeded max scheduling attempts", re.IGNORECASE)
_GONE_IMAGE = re.compile(
    r"image\b.*\b(could not be found|not found|is unacceptable|not active)", re.IGNORECASE
)


def of(error: BaseException) -> Trouble | None:
    """Give what an exception of the SDK means; None where it is none of a cloud's."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, keystone.HttpError):
        return _keystone(error)
    if isinstance(error, sdk.HttpException) and error.status_code is not None:
        headers = error.response.headers if error.response is not None else {}
        return _http(int(error.status_code), str(error.details or error.message), headers)
    if isinstance(error, sdk.NotFoundException):
        return _not_found(str(error.message))
    if isinstance(error, keystone.ClientException):
        return _client(error)
    if isinstance(error, sdk.ConfigException):
        return _no_such_service(error)
    if isinstance(error, sdk.DuplicateResource):
        return Trouble(Kind.PERMANENT, f"{_line(error)}; name it by its id")
    if type(error) is Exception:  # keystoneauth, of a password that is not there
        return Trouble(
            Kind.PERMANENT,
            f"the credentials of clouds.yaml or OS_* do not do: {_line(error)}",
            stale="credentials",
        )
    if isinstance(error, KeyError | TypeError | AttributeError | ValueError):
        said = f"the SDK makes no sense of its answer ({type(error).__name__}: {_line(error)})"
        return Trouble(Kind.PASSING, said, done_perhaps=True)
    if isinstance(error, requests.RequestException | sdk.SDKException | OSError):
        return Trouble(Kind.PASSING, f"it did not answer: {_line(error)}", done_perhaps=True)
    return None


def of_fault(message: str) -> Trouble:
    """Give what the `fault` of a server in ERROR means."""
    said = _line(message) or "no reason given"
    if _NO_HOST.search(said):
        return Trouble(Kind.NO_HOST, f"no host has room for such an instance ({said})")
    if "quota" in said.lower():
        return Trouble(Kind.QUOTA, _quota(said))
    if _GONE_IMAGE.search(said):
        return Trouble(Kind.PASSING, f"the image is not to be had ({said})", stale="images", machine=True)
    return Trouble(Kind.PASSING, f"the instance went to ERROR: {said}", machine=True)


def _keystone(error: keystone.HttpError) -> Trouble:
    status = int(error.http_status)
    if status in (401, 403):
        return Trouble(
            Kind.PERMANENT,
            f"keystone refuses the credentials that clouds.yaml or OS_* give ({status}: {_line(error)})",
            stale="credentials",
        )
    if status == 404:
        return Trouble(
            Kind.PERMANENT,
            f"`auth_url` of clouds.yaml or OS_* is not keystone's ({_line(error)})",
            stale="credentials",
        )
    return _http(status, _line(error), error.response.headers if error.response is not None else {})


def _no_such_service(error: Exception) -> Trouble:
    """Of a service that the cloud lacks, or of a cloud that clouds.yaml lacks; only one service can be done without."""
    setting = "setting `volume`" if "block-storage" in str(error) else "settings `cloud` and `region`"
    return Trouble(Kind.PERMANENT, f"{setting}: {_line(error)}", stale="credentials")


_UNTRUSTED = re.compile(r"certificate verify failed|doesn't match|hostname mismatch", re.IGNORECASE)
"""What is no use to try again; a handshake that broke is, as while what is in front of a service starts anew."""


def _client(error: keystone.ClientException) -> Trouble:
    if isinstance(error, keystone.EndpointNotFound):
        return _no_such_service(error)
    if isinstance(error, keystone.SSLError) and _UNTRUSTED.search(str(error)):
        return Trouble(
            Kind.PERMANENT,
            f"`cacert` of clouds.yaml or OS_CACERT does not do: {_line(error)}",
            stale="credentials",
        )
    if isinstance(
        error, keystone.ConnectFailure | keystone.ConnectionError | keystone.RetriableConnectionFailure
    ):
        # A connection that was refused has carried nothing; one that broke may have.
        refused = "Connection refused" in str(error) or "Name or service not known" in str(error)
        return Trouble(Kind.PASSING, f"it did not answer: {_line(error)}", done_perhaps=not refused)
    if isinstance(error, keystone.auth_plugins.AuthPluginException | keystone.MissingAuthPlugin):
        return Trouble(
            Kind.PERMANENT,
            f"the credentials of clouds.yaml or OS_* do not do: {_line(error)}",
            stale="credentials",
        )
    return Trouble(Kind.PASSING, f"it did not answer as it should: {_line(error)}", done_perhaps=True)


def _http(status: int, said: str, headers: Mapping[str, str]) -> Trouble:
    said = _line(said)
    after = _seconds(headers.get("Retry-After", ""))
    if status == 400:
        return _bad_request(said)
    if status == 401:
        return Trouble(Kind.PERMANENT, f"the credentials are refused (401: {said})", stale="credentials")
    if status in _QUOTA and _QUOTA[status].search(said):
        return Trouble(Kind.QUOTA, _quota(said), after)
    if status == 409 and re.search(r"multiple possible networks|auto-?allocat", said, re.IGNORECASE):
        return Trouble(Kind.PERMANENT, f"setting `networks`: {said}", stale="networks")
    if status == 403:
        return Trouble(Kind.PERMANENT, f"the credentials' role does not allow this (403: {said})")
    if status == 404:
        return _not_found(said)
    if status in (413, 429):
        return Trouble(Kind.PASSING, f"asked too often ({status})", after)
    if status == 409:
        return Trouble(Kind.PASSING, f"in conflict with something else (409: {said})", after)
    if status >= 500:
        # Something between us and nova may have given up before nova did.
        return Trouble(Kind.PASSING, f"it is in trouble ({status}: {said})", after, done_perhaps=True)
    return Trouble(Kind.PERMANENT, f"it answers {status}: {said}")


def _quota(said: str) -> str:
    """Say it as we say it when the limits show it beforehand."""
    found = re.search(r"for (\w+): Requested [\d, ]+, but already used (\d+) of (\d+) ", said)
    return "no quota for {}, {} of {} used".format(*found.groups()) if found else f"no quota: {said}"


def _bad_request(said: str) -> Trouble:
    for pattern, setting in _SETTINGS:
        if re.search(pattern, said, re.IGNORECASE):
            return Trouble(Kind.PERMANENT, f"setting `{setting}`: {said}", stale=setting)
    return Trouble(Kind.PERMANENT, f"it refuses what the settings ask for: {said}")


def _not_found(said: str) -> Trouble:
    for pattern, setting in _SETTINGS:
        if re.search(pattern, said, re.IGNORECASE):
            return Trouble(Kind.PERMANENT, f"setting `{setting}`: {_line(said)}", stale=setting)
    return Trouble(Kind.PERMANENT, f"something that the settings name is not there: {_line(said)}")


_REASON = re.compile(
    r"\[Errno -?\d+\] ([^'\")]+)|certificate verify failed[^'\")]*|Read timed out|Connection reset by peer"
    r"|Remote end closed connection without response|EOF occurred in violation of protocol"
)
"""What went wrong, deep inside what urllib3 says."""


def _seconds(text: str) -> float:
    """Read a Retry-After; a date, or nonsense, counts as nothing."""
    return min(float(text), 600.0) if re.fullmatch(r"\d{1,6}", text.strip()) else 0.0


def _line(what: object) -> str:
    """Give the first line, short enough for a state string, without what only a library's author reads."""
    text = " ".join(str(what).split())
    connection = re.search(r"(?:connection to|connecting to) (https?://\S+?):? ", text)
    reason = _REASON.search(text)
    if connection and reason:
        text = f"{connection[1]}: {reason[1] or reason[0]}"
    text = re.sub(r" ?\(HTTP \d+\)| ?\(Request-ID: [^)]*\)", "", text)
    return text[:300].rstrip(". ")
