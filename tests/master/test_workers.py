"""What `c["workers"]` and `c["protocols"]` keep from one configuration of a running master to the next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from buildbot.config import ConfigErrors

from master import workers
from master.settings import Settings
from model.targets import Target
from tests.fakes.boot import FakeBoot
from workers.local import LocalProvider
from workers.openstack import Login, OpenStackProvider
from workers.tls import self_signed

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "ceph-deb-bookworm-x86_64-default"


def settings(directory: Path, *clouds: dict[str, Any], openstack: bool = True, **more: Any) -> Settings:
    """Read settings with these clouds, each over the usual one."""
    usual = {"cloud": "sepia", "images": {"*": "debian"}, "nova_flavor": "large", "max_instances": 4}
    section = {
        "clouds": [{**usual, **one} for one in clouds or ({},)],
        "waiting": 2,
        **more.pop("section", {}),
    }
    data: dict[str, Any] = {
        "git": {"allowed": ["https://github.com/"]},
        "targets": [TARGET],
        "workers": {"openstack": section, **more} if openstack else more,
    }
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(data))
    return Settings.from_file(path)


def trusted(given: Settings) -> str:
    """Give what a machine that boots now is told to trust."""
    return workers._user_data(given, FakeBoot(Target.from_name(TARGET)), Login("password", 9, {}))


def test_there_are_as_many_slots_as_builds_may_run_or_wait(tmp_path: Path) -> None:
    """A build that waits for an instance has a slot already."""
    assert len(workers.worker_names(settings(tmp_path, {}, {"cloud": "two"}))) == 10
    assert len(workers.worker_names(settings(tmp_path, {"max_instances": 20}))) == 22


def test_a_provider_outlives_its_configuration(tmp_path: Path) -> None:
    """It is the same object for the same master."""
    first = workers.provider(settings(tmp_path))
    assert isinstance(first, OpenStackProvider)
    assert workers.provider(settings(tmp_path, {"cloud": "two"})) is first
    local = settings(tmp_path, openstack=False, local={"count": 2})
    assert isinstance(workers.provider(local), LocalProvider)
    assert workers.provider(settings(tmp_path, openstack=False)) is workers.provider(local)


@pytest.mark.skipif(os.geteuid() != 0, reason="crun needs root")
def test_builds_with_crun_reach_the_master_git_and_mirrors(tmp_path: Path) -> None:
    """The master's port for browsers is not reachable; `reach` replaces the usual hosts, but not what every build needs."""
    needed = {
        ("127.0.0.1", 9989), ("127.0.0.1", 8011), ("github.com", 443), ("mirror.example.org", 3142),
    }  # fmt: skip
    local = {"engine": "crun", "mirrors": {"debian": "http://mirror.example.org:3142/debian/"}}
    made = workers._local_settings(settings(tmp_path, openstack=False, local=local))
    assert needed | {("download.ceph.com", 443)} <= {(one.host, one.port) for one in made.reach}
    assert ("127.0.0.1", 8010) not in {(one.host, one.port) for one in made.reach}
    made = workers._local_settings(
        settings(tmp_path, openstack=False, local={**local, "reach": ["proxy:3128"]})
    )
    assert {(one.host, one.port) for one in made.reach} == needed | {("proxy", 3128)}


def test_another_id_needs_another_start(tmp_path: Path) -> None:
    """The servers of the one before would be nobody's, with the builds that run on them."""
    workers.provider(settings(tmp_path, section={"master_id": "one"}))
    with pytest.raises(ConfigErrors) as caught:
        workers.provider(settings(tmp_path, section={"master_id": "two"}))
    assert caught.value.errors == [
        ("setting `workers.openstack.master_id`: what this master has in the clouds is marked with one, not with two:"
        " end it with `make stop`, and start it with `make start`")
    ]  # fmt: skip


def test_machines_trust_what_the_master_shows(tmp_path: Path) -> None:
    """A certificate that was renewed on the disk is read at the next start: until then the old one is shown, and trusted."""
    made = self_signed(tmp_path / "tls", ["127.0.0.1"])
    given = settings(tmp_path, certificate=str(made.certificate), key=str(made.key))
    before = made.pem
    workers.protocols(given)
    made.certificate.unlink()
    renewed = self_signed(tmp_path / "tls", ["127.0.0.1"])
    assert renewed.pem != before
    workers.protocols(given)
    last = before.splitlines()[-2]
    assert last in trusted(given)
    assert renewed.pem.splitlines()[-2] not in trusted(given)


def test_another_name_needs_another_certificate(tmp_path: Path) -> None:
    """The master's own is for one name; a reload with another one is refused, and touches nothing."""
    given = settings(tmp_path, section={"master_host": "one.example.org"})
    workers.protocols(given)
    before = (given.state / "worker-tls.crt").read_bytes()
    with pytest.raises(ConfigErrors) as caught:
        workers.protocols(settings(tmp_path, section={"master_host": "two.example.org"}))
    assert caught.value.errors == [
        (
            "settings `workers.openstack.master_host` and `workers.host`: the certificate that this master shows since its"
            " start is for one.example.org, not for two.example.org: end it with `make stop`, and start it with `make start`"
        )
    ]
    assert (given.state / "worker-tls.crt").read_bytes() == before
    assert before.decode().splitlines()[-2] in trusted(given)
