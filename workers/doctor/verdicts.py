"""What is right and what is not: each function judges what was seen in a cloud against the settings.

Nothing is asked of any cloud here. Every sentence about a failure names the setting to mend.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from model.targets import Target
    from workers.cloud_data import Leftover, Limits, Seen
    from workers.doctor.settings import Address
    from workers.openstack_settings import CloudSettings
    from workers.sizes import NovaFlavor

NEEDED = (2, 60)
"""The microversion of nova from which on tags are in the create call itself."""
_SOON_DAYS = 14
_SKEW = (10, 120)
"""Seconds between two clocks that are worth a warning, and a failure."""
_LATE = 120
"""Seconds after its expiry that a server may still be there."""


class Verdict(Enum):
    """How a finding counts."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    verdict: Verdict
    what: str
    text: str

    def __str__(self) -> str:
        """Give the line."""
        return f"{self.verdict.value:<8} {self.what}: {self.text}"


def ok(what: str, text: str) -> Finding:
    """Say that all is well."""
    return Finding(Verdict.OK, what, text)


def warning(what: str, text: str) -> Finding:
    """Say that it works, but not as one would like."""
    return Finding(Verdict.WARNING, what, text)


def fail(what: str, text: str) -> Finding:
    """Say that builds will fail for it."""
    return Finding(Verdict.FAIL, what, text)


@dataclass(frozen=True)
class Login:
    """Who the cloud says we are."""

    user: str
    project: str
    roles: tuple[str, ...]
    by: str
    """`application credential`, or `password` and the like."""
    auth_url: str
    verified: bool
    """Whether TLS certificates are."""
    expires: datetime | None = None
    """Of the application credential; None if never, or if the cloud does not show it."""


@dataclass(frozen=True)
class ImageFacts:
    """An image, as far as it decides what can boot from it: GB, MB, bytes."""

    title: str
    min_disk: int = 0
    min_ram: int = 0
    bytes: int = 0
    architecture: str = ""
    os_distro: str = ""
    os_version: str = ""


@dataclass(frozen=True)
class Named:
    """Something that settings may name: a network, a security group, a volume type."""

    id: str
    name: str
    trouble: str = ""
    """Why it cannot be used, if it cannot."""


def credentials(login: Login, now: datetime) -> list[Finding]:
    """Judge the rights, the way there, and how long they last."""
    what = "credentials"
    found = []
    days = (login.expires - now).days if login.expires else None
    until = f", good until {login.expires:%Y-%m-%d %H:%M}" if login.expires else ""
    found.append(
        ok(
            what,
            f"{login.user} in project {login.project}, {', '.join(sorted(login.roles))}; {login.by}{until}",
        )
    )
    if days is not None and days < _SOON_DAYS:
        found.append(
            warning(
                what,
                f"the application credential ends in {days} days: make another, and put it in clouds.yaml",
            )
        )
    if "admin" in login.roles:
        found.append(
            warning(what, "the role is admin; member is enough: make a user and an application credential")
        )
    if not login.verified:
        found.append(warning(what, "`verify: false` in clouds.yaml: set `cacert` to the cloud's CA instead"))
    if login.auth_url.startswith("http://") and not is_near(login.auth_url):
        found.append(
            warning(what, "`auth_url` in clouds.yaml is http: the secret goes over the net in the clear")
        )
    return found


def services(
    there: Mapping[str, str], needed: Iterable[str], region: str, regions: Sequence[str]
) -> list[Finding]:
    """Judge the catalogue: endpoint by type of service, empty where there is none."""
    missing = [kind for kind in needed if not there.get(kind)]
    if not missing:
        return [ok("catalogue", f"{', '.join(needed)} in region {region or 'of the cloud'}")]
    known = f"; regions of the catalogue: {', '.join(regions)}" if regions else ""
    because = {
        "block-storage": "setting `volume` needs it",
        "network": "settings `networks`, `security_groups` and `floating_ip` need it",
    }
    return [
        fail(
            "catalogue",
            f"no {kind} in region {region or 'of the cloud'}: "
            f"{because.get(kind, 'settings `cloud` and `region`, or `region_name` and `interface` in clouds.yaml')}"
            f"{known}",
        )
        for kind in missing
    ]  # fmt: skip


def nova(newest: tuple[int, int] | None) -> list[Finding]:
    """Judge nova's newest microversion: without tags in the create call, servers could leak."""
    shown = "{}.{}".format(*newest) if newest else "none"
    if newest is None or newest < NEEDED:
        said = (
            f"its newest microversion is {shown}; 2.60 (Queens) is needed: setting `cloud`, use another one"
        )
        return [fail("nova", said)]
    return [ok("nova", f"microversion {shown}, of which 2.60 is needed")]


def clock(skew: float) -> list[Finding]:
    """Judge by how many seconds the cloud's clock is ahead of ours."""
    ahead = f"the cloud's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) < _SKEW[0]:
        return [ok("clock", f"within {_SKEW[0]} s of the cloud's")]
    said = f"{ahead}; machines end themselves by it (setting `lifetime`): have NTP run on both"
    return [warning("clock", said) if abs(skew) < _SKEW[1] else fail("clock", said)]


def flavor(chosen: NovaFlavor, settings: CloudSettings) -> list[Finding]:
    """Judge the nova_flavor that was chosen."""
    told = f"{chosen.name}: {chosen.cpus} cpus, {chosen.ram} MB of ram, {chosen.disk} GB of disk"
    good = settings.good_machine
    if chosen.disk == 0 and settings.volume is None:
        said = f"{told}; nova lets nobody but its operators boot an image without a disk: set `volume`, or"
        return [warning("nova_flavor", f"{said} another `nova_flavor`")]
    if good and not chosen.satisfies(good.size, disk_elsewhere=settings.volume is not None):
        said = f"{told}; none is as large as `good_machine` ({good.size}), this one is as `min_machine`"
        return [warning("nova_flavor", said)]
    return [ok("nova_flavor", told)]


def image(
    target: Target, seen: ImageFacts, chosen: NovaFlavor | None, settings: CloudSettings
) -> list[Finding]:
    """Judge the image that the machines of a target boot from."""
    what = f"image for {target}"
    if seen.architecture and seen.architecture != target.arch:
        return [fail(what, f"setting `images`: {seen.title} is for {seen.architecture}, not {target.arch}")]
    if chosen is not None:
        disk, whose = chosen.disk, f"`nova_flavor` {chosen.name} has"
        if settings.volume is not None:
            disk, whose = settings.volume.size, "`volume.size` is"
        needed = max(seen.min_disk, -(-seen.bytes // 1024**3))
        if disk and needed > disk:
            return [fail(what, f"{seen.title} needs {needed} GB of disk, and setting {whose} {disk}")]
        if seen.min_ram > chosen.ram:
            said = f"{seen.title} needs {seen.min_ram} MB of ram, and setting `nova_flavor` {chosen.name} has"
            return [fail(what, f"{said} {chosen.ram}")]
    dist = target.distribution
    version = dist.version.split(".")
    if (seen.os_distro and seen.os_distro != dist.distro) or (
        seen.os_version and seen.os_version.split(".")[: len(version)] != version
    ):
        said = (
            f"setting `images`: {seen.title} says it is {seen.os_distro} {seen.os_version}, not {dist.title}"
        )
        return [warning(what, said)]
    return [ok(what, seen.title)]


def patterns(settings: CloudSettings, targets: Sequence[Target]) -> list[Finding]:
    """Judge whether every pattern of images stands for a target that is on."""
    used = {
        next((pattern for pattern in settings.images if fnmatchcase(target.name, pattern)), "")
        for target in targets
    }
    return [
        warning("images", f"setting `images`: no target that is on takes {pattern!r}")
        for pattern in settings.images
        if pattern not in used
    ]


def named(setting: str, wanted: Sequence[str], known: Sequence[Named]) -> list[Finding]:
    """Judge names or ids that a setting gives, against what there is."""
    found = []
    for one in wanted:
        same = [other for other in known if one in (other.id, other.name)]
        if not same:
            there = ", ".join(sorted({other.name for other in known})) or "none"
            found.append(fail(setting, f"setting `{setting}`: {one!r} is not there; there are: {there}"))
        elif len(same) > 1:
            ids = ", ".join(other.id for other in same)
            said = f"setting `{setting}`: {one!r} is the name of {len(same)}; name one by its id: {ids}"
            found.append(fail(setting, said))
        elif same[0].trouble:
            found.append(fail(setting, f"setting `{setting}`: {one!r} {same[0].trouble}"))
    return found or [ok(setting, ", ".join(wanted))]


def networks_left_to_nova(usable: Sequence[str], automatic: str) -> list[Finding]:
    """Judge `networks: []`: usable networks by name, and why none can be made by itself (empty: it can)."""
    if len(usable) == 1:
        return [ok("networks", f"none is set, and nova takes the only one: {usable[0]}")]
    if usable:
        there = ", ".join(sorted(usable))
        return [fail("networks", f"setting `networks` is empty, and nova will not choose one of: {there}")]
    if automatic:
        return [fail("networks", f"setting `networks` is empty, and there is no network: {automatic}")]
    return [ok("networks", "none is set, and the cloud makes one by itself")]


def zone(wanted: str, zones: Mapping[str, bool]) -> list[Finding]:
    """Judge the availability zone; nova's administrators may add a host to it."""
    what, name = "availability_zone", wanted.partition(":")[0]
    if name not in zones:
        return [fail(what, f"setting `{what}`: {name!r} is not there; there are: {', '.join(sorted(zones))}")]
    if not zones[name]:
        return [fail(what, f"setting `{what}`: {name!r} is not available at the moment")]
    return [ok(what, wanted)]


def compute_quota(limits: Limits, chosen: NovaFlavor, most: int) -> list[Finding]:
    """Judge whether the project may have as many instances as the settings want, and how many now."""
    found: list[Finding] = []
    free = most
    for what, unit, limit, used, each in (
        ("instances", "", limits.instances, limits.instances_used, 1),
        ("cores", "", limits.cores, limits.cores_used, chosen.cpus),
        ("ram", " MB", limits.ram, limits.ram_used, chosen.ram),
    ):
        found += count(what, "nova_flavor", limit, used, each=each, most=most, unit=unit)
        if limit >= 0 and each:
            free = min(free, max(0, (limit - used) // each))
    if free:
        return [*found, ok("quota", f"room for {free} more of {chosen.name} now")]
    if any(one.verdict is Verdict.FAIL for one in found):
        return found
    return [*found, warning("quota", f"no room for another {chosen.name} now: a build would wait")]


def count(
    what: str, setting: str, limit: int, used: int, *, each: int, most: int, unit: str = ""
) -> list[Finding]:
    """Judge one quota; nothing is found where it is enough. A limit of -1 is none."""
    if limit < 0 or each <= 0 or limit >= each * most:
        return []
    have = f"the quota for {what} is {limit}{unit} ({used} used)"
    if limit < each:
        said = f"{have}, and one instance needs {each}{unit}: ask for more, or change setting `{setting}`"
        return [fail("quota", said)]
    said = f"{have}, enough for {limit // each} instances, and setting `max_instances` is {most}: builds will"
    return [warning("quota", f"{said} wait; ask for {each * most}{unit}")]


def listing(tag: str, shown: Sequence[tuple[str, Sequence[str] | None]], visible: int) -> list[Finding]:
    """Judge whether a listing by tag shows what carries the tag only: what it shows is deleted."""
    strangers = [name for name, tags in shown if tags is None or tag not in tags]
    if strangers:
        said = f"nova lists servers without the tag {tag} when asked for it ({', '.join(strangers[:5])}): setting"
        return [fail("tag", f"{said} `cloud`: do not start the master, which would delete them")]
    return [ok("tag", f"{tag}: {len(shown)} of {visible} servers of the project carry it")]


def leftovers(servers: Sequence[Seen], others: Sequence[Leftover], now: float) -> list[Finding]:
    """Judge what carries our tag: what is past its expiry, and what belongs to no server."""
    what = "leftovers"
    late = [one.name for one in servers if one.expires < now - _LATE]
    boots = {one.boot for one in servers}
    lost = [f"{one.kind} {one.id}" for one in others if one.boot not in boots]
    if late or lost:
        said = "is the master away? It ends them at its start, and every minute"
        return [
            warning(what, f"{', '.join([*late, *lost][:10])}: past their time or without a server; {said}")
        ]
    states = ", ".join(f"{one.name} {one.status}" for one in servers[:5])
    return [ok(what, f"none; of a running master: {states}" if servers else "none")]


def ways(listens: Sequence[Address], reached: Sequence[Address], *, clouds_are_near: bool) -> list[Finding]:
    """Judge the addresses at which machines are to reach the master."""
    found = []
    for here, there in zip(listens, reached, strict=True):
        if is_loopback(there.host) and not clouds_are_near:
            said = f"machines are told {there}, which is each machine itself: set `{there.setting}`"
            found.append(fail("master", f"{said} to the master's address as they reach it"))
        elif is_loopback(here.host) and not is_loopback(there.host) and here.port == there.port:
            said = f"machines are told {there}, and the master listens on {here} only: set `{here.setting}`"
            found.append(fail("master", said))
    return found or [ok("master", f"machines are told {reached[0]} and {reached[1]}")]


def is_near(url: str) -> bool:
    """Whether a URL is of the machine itself."""
    return is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host is the machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
