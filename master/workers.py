"""Workers: the slots that `c["workers"]` holds, and the provider behind them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from workers.latent import OneBuildWorker
from workers.local import LocalProvider, LocalSettings
from workers.roots import Roots

if TYPE_CHECKING:
    from master.settings import Settings


def local_provider(settings: Settings) -> LocalProvider:
    """Give the embedded provider, as the settings want it."""
    local = settings.workers.local
    as_root = os.geteuid() == 0
    return LocalProvider(
        LocalSettings(
            scratch=local.scratch,
            namespaces=local.isolation == "namespaces" or (local.isolation == "auto" and as_root),
            master_host=settings.workers.host,
            master_port=settings.workers.port,
            roots=Roots(local.roots, local.mirrors),
            environment=local.environment,
        )
    )


def workers(settings: Settings) -> list[OneBuildWorker]:
    """Give `c["workers"]`."""
    provider = local_provider(settings)
    return [
        OneBuildWorker(
            name,
            provider=provider,
            attempts=settings.workers.attempts,
            missing_timeout=settings.workers.start_timeout,
        )
        for name in worker_names(settings)
    ]


def worker_names(settings: Settings) -> list[str]:
    """Name the slots: as many as builds may run at once."""
    return [f"local-{number}" for number in range(1, settings.workers.local.count + 1)]
