"""Workers: the slots that `c["workers"]` holds, and the provider behind them."""

from __future__ import annotations

import os
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildbot.config import error
from twisted.internet.threads import deferToThread

from workers.latent import OneBuildWorker
from workers.local import LocalProvider, LocalSettings
from workers.roots import Roots
from workers.tls import Certificate, pb_port, self_signed
from workers.wheels import digests

if TYPE_CHECKING:
    from collections.abc import Callable

    from master.settings import Settings
    from workers.openstack import Login, OpenStackProvider
    from workers.provider import Boot, Provider

_openstack: dict[str, OpenStackProvider] = {}
"""By master id: a provider outlives the configuration that made it, and so does what it knows."""

_local: dict[Path, LocalProvider] = {}
"""The same, by the directory of its master's state."""

_slots: dict[Path, int] = {}
"""By the same, the most slots of `openstack` so far: to take one away would cut off the build that it has."""

_shown: dict[Path, tuple[str, str]] = {}
"""By the same, the endpoint for workers with TLS, and the certificate there: it was read when that was opened, no later."""

_ids: dict[Path, str] = {}
"""By the same, the id that everything in the clouds is marked with."""

_name: dict[Path, str] = {}
"""By the same, the name that the master's own certificate is for."""


def provider(settings: Settings) -> Provider:
    """Give the provider that the settings want; nothing is made or asked for yet."""
    if settings.workers.openstack is None:
        return _local_provider(settings)
    return _openstack_provider(settings)[0]


def configure(settings: Settings) -> Callable[[], None]:
    """Give what puts the settings in force in the provider."""
    if settings.workers.openstack is None:
        return partial(_local_provider(settings).configure, _local_settings(settings))
    found, dock = _openstack_provider(settings)
    return partial(found.configure, settings.workers.openstack, dock)


def protocols(settings: Settings) -> dict[str, Any]:
    """Give `c["protocols"]`: where workers connect to, with TLS if the settings want it."""
    host, port = settings.workers.host, settings.workers.port
    certificate = _certificate(settings)
    if certificate is None:
        return {"pb": {"port": f"tcp:{port}:interface={host}"}}
    endpoint = pb_port(host, port, certificate.certificate, certificate.key)
    if settings.state not in _shown or _shown[settings.state][0] != endpoint:
        _shown[settings.state] = (endpoint, certificate.pem)
    return {"pb": {"port": endpoint}}


def meet(settings: Settings) -> Callable[[str], Any] | None:
    """Give what tells machines that were made ahead which workers they are."""
    if settings.workers.openstack is None:
        return None
    return _openstack_provider(settings)[0].rendezvous.ask


def workers(settings: Settings) -> list[OneBuildWorker]:
    """Give `c["workers"]`."""
    behind = provider(settings)
    return [
        OneBuildWorker(
            name,
            provider=behind,
            attempts=settings.workers.attempts,
            missing_timeout=settings.workers.start_timeout,
        )
        for name in worker_names(settings)
    ]


def worker_names(settings: Settings) -> list[str]:
    """Name the slots: as many as builds may run, or wait for a machine, at once."""
    openstack = settings.workers.openstack
    if openstack is None:
        return [f"local-{number}" for number in range(1, settings.workers.local.count + 1)]
    most = _slots[settings.state] = max(openstack.slots, _slots.get(settings.state, 0))
    return [f"openstack-{number}" for number in range(1, most + 1)]


def master_id(settings: Settings) -> str:
    """Give the name that everything this master makes in a cloud is marked with; it never changes."""
    openstack = settings.workers.openstack
    if openstack is not None and openstack.master_id:
        return openstack.master_id
    file = settings.state / "master-id"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = secrets.token_hex(6)
        file.write_text(f"{made}\n")
        return made


def _local_provider(settings: Settings) -> LocalProvider:
    if settings.state not in _local:
        _local[settings.state] = LocalProvider(_local_settings(settings))
    return _local[settings.state]


def _local_settings(settings: Settings) -> LocalSettings:
    local = settings.workers.local
    as_root = os.geteuid() == 0
    return LocalSettings(
        scratch=local.scratch,
        namespaces=local.isolation == "namespaces" or (local.isolation == "auto" and as_root),
        master_host=settings.workers.host,
        master_port=settings.workers.port,
        roots=Roots(local.roots, local.mirrors),
        environment=local.environment,
    )


def _openstack_provider(settings: Settings) -> tuple[OpenStackProvider, Any]:
    # The SDK takes a second to import, which only those who use it should pay.
    from twisted.internet import reactor

    from workers.openstack import Dock, OpenStackProvider

    openstack = settings.workers.openstack
    assert openstack is not None
    dock = Dock(
        # In a thread: templates and lists of wheels are read from the disk.
        render=lambda boot, login: deferToThread(_user_data, settings, boot, login),
        master_id=master_id(settings),
        start_timeout=settings.workers.start_timeout,
        attempts=settings.workers.attempts,
    )
    known = _ids.setdefault(settings.state, dock.master_id)
    if known != dock.master_id:
        # What builds now is the other's, and nobody would look after it.
        error(
            f"setting `workers.openstack.master_id`: what this master has in the clouds is marked with {known}, not with"
            f" {dock.master_id}: end it with `make stop`, and start it with `make start`"
        )
    if dock.master_id not in _openstack or _openstack[dock.master_id].closed:
        _openstack[dock.master_id] = OpenStackProvider(openstack, dock, reactor)
    return _openstack[dock.master_id], dock


def _user_data(settings: Settings, boot: Boot, login: Login) -> str:
    from workers.user_data import BootConfig, render

    certificate = _certificate(settings)
    return render(
        BootConfig(
            target=boot.target,
            worker=boot.worker,
            password=login.password,
            master_host=settings.workers.reached_at,
            master_port=settings.workers.port,
            packages_url=settings.packages.internal_url,
            expires=login.expires,
            tls_ca=_trusted(settings, certificate) if certificate else "",
            rendezvous=f"{settings.packages.internal_url}boot/{login.token}" if login.token else "",
            environment=login.environment,
            wheels=digests(settings.packages.wheels),
        )
    )


def _certificate(settings: Settings) -> Certificate | None:
    """Give the certificate that workers are shown; one is made in `state` unless settings name it."""
    workers = settings.workers
    if not workers.uses_tls:
        return None
    if workers.certificate is not None and workers.key is not None:
        return Certificate(workers.certificate, workers.key)
    name = _name.setdefault(settings.state, workers.reached_at)
    if name != workers.reached_at:
        error(
            "settings `workers.openstack.master_host` and `workers.host`: the certificate that this master shows since its"
            f" start is for {name}, not for {workers.reached_at}: end it with `make stop`, and start it with `make start`"
        )
    return self_signed(settings.state, [name])


def _trusted(settings: Settings, certificate: Certificate) -> str:
    """Give the certificate that workers will be shown, which need not be the one on the disk."""
    shown = _shown.get(settings.state)
    return shown[1] if shown else certificate.pem
