"""Workers: the slots that `c["workers"]` holds, and the provider behind them."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildbot.config import error
from twisted.internet.threads import deferToThread

from master.reloads.in_force import workers_in_force
from workers import network
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


@dataclass
class _Running:
    """What one configuration of a running master leaves to the next."""

    local: LocalProvider | None = None
    openstack: OpenStackProvider | None = None
    """Providers outlive the configuration that made them, and so does what they know."""
    endpoint: str = ""
    certificate: str = ""
    """Where workers connect to with TLS, and what they are shown there: it was read when that was opened, no later."""
    name: str = ""
    """What the master's own certificate is for."""


_masters: defaultdict[Path, _Running] = defaultdict(_Running)
"""By the directory of their state."""


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
    running = _masters[settings.state]
    if running.endpoint != endpoint:
        running.endpoint, running.certificate = endpoint, certificate.pem
    return {"pb": {"port": endpoint}}


def meet(settings: Settings) -> Callable[[str], Any] | None:
    """Give what tells machines that were made ahead which workers they are."""
    if settings.workers.openstack is None:
        return None
    return _openstack_provider(settings)[0].rendezvous.ask


def workers(settings: Settings) -> list[OneBuildWorker]:
    """Give `c["workers"]`."""
    behind, wanted = provider(settings), _wanted_names(settings)
    return [
        OneBuildWorker(
            name,
            provider=behind,
            attempts=settings.workers.attempts,
            takes_builds=name in wanted,
            missing_timeout=settings.workers.start_timeout,
        )
        for name in worker_names(settings)
    ]


def worker_names(settings: Settings) -> list[str]:
    """Return the names of the slots: one for each build that may run, or wait for a machine, at the same time.

    A slot in force stays, because removing it would end its build. A slot that is no longer wanted takes no new build.
    """
    return list(dict.fromkeys([*_wanted_names(settings), *workers_in_force()]))


def _wanted_names(settings: Settings) -> list[str]:
    openstack = settings.workers.openstack
    if openstack is None:
        return [f"local-{number}" for number in range(1, settings.workers.local.count + 1)]
    return [f"openstack-{number}" for number in range(1, openstack.slots + 1)]


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
    running = _masters[settings.state]
    if running.local is None:
        running.local = LocalProvider(_local_settings(settings))
    return running.local


def _local_settings(settings: Settings) -> LocalSettings:
    local = settings.workers.local
    return LocalSettings(
        scratch=local.scratch,
        namespaces=local.isolated,
        master_host=settings.workers.host,
        master_port=settings.workers.port,
        roots=Roots(local.roots, local.mirrors),
        environment=local.environment,
        crun=local.engine == "crun",
        limits=local.limits_in_force,
        reach=_reach(settings),
        most=local.count,
    )


def _reach(settings: Settings) -> frozenset[network.Destination]:
    """Return what builds in a network of their own may connect to: the master's two ports for them, git servers, mirrors."""
    local = settings.workers.local
    projects = settings.projects.values()
    urls = [
        settings.packages.internal_url,
        *settings.git.allowed,
        *(url for project in projects for url in (project.git_url, project.canonical_url)),
        *local.mirrors.values(),
    ]
    entries = network.USUAL if local.reach is None else local.reach
    return frozenset(
        {
            network.Destination(settings.workers.host, settings.workers.port),
            *map(network.of_url, urls),
            *(destination for entry in entries for destination in network.destinations(entry)),
        }
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
    running = _masters[settings.state]
    if running.openstack is None:
        running.openstack = OpenStackProvider(openstack, dock, reactor)
    elif running.openstack.dock.master_id != dock.master_id:
        # What builds now is the other's, and nobody would look after it.
        error(
            "setting `workers.openstack.master_id`: what this master has in the clouds is marked with"
            f" {running.openstack.dock.master_id}, not with {dock.master_id}:"
            " end it with `make stop`, and start it with `make start`"
        )
    return running.openstack, dock


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
            # What they will be shown need not be on the disk any more.
            tls_ca=(_masters[settings.state].certificate or certificate.pem) if certificate else "",
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
    running = _masters[settings.state]
    running.name = running.name or workers.reached_at
    if running.name != workers.reached_at:
        error(
            "settings `workers.openstack.master_host` and `workers.host`: the certificate that this master shows since its"
            f" start is for {running.name}, not for {workers.reached_at}: end it with `make stop`, and start it with `make start`"
        )
    return self_signed(settings.state, [running.name])
