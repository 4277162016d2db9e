"""Services: what runs inside the master besides Buildbot itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from master.package_server.service import PackageServer
from master.prepared_images.schedulers import image_services
from master.publishing.publisher import PublishedTree, Publisher
from master.publishing.uploads import Limits, Uploads
from master.reloads.in_force import InForce
from master.requests.turns import Turns
from master.requests.waiting import Waiting
from master.shaman.builds import builds
from master.storage.database import Index
from master.storage.old_logs import OldLogs
from master.workers import configure, meet, protocols, provider
from master.workers_port.service import WorkersPort
from workers.reaper import Reaper

if TYPE_CHECKING:
    from buildbot.util.service import BuildbotService

    from master.settings import Settings

GIB = 1024**3


def services(settings: Settings) -> list[BuildbotService]:
    """Give `c["services"]`."""
    packages = settings.packages
    limits = Limits(
        most_bytes=int(packages.upload_gib * GIB),
        reserve=int(packages.reserve_gib * GIB),
        most_in_all=int(packages.total_gib * GIB),
    )
    uploads = Uploads(packages.staging, limits)
    names = {name: project.packages for name, project in settings.projects.items()}
    return [
        InForce(settings=settings),
        WorkersPort(endpoint=protocols(settings)["pb"]["port"]),
        Index(),
        Waiting(),
        Turns(),
        OldLogs(days=settings.build.keep_logs, longest_build=settings.build.hours * 3600),
        Reaper(provider=provider(settings), configure=configure(settings)),
        Publisher(
            tree=PublishedTree(packages.directory, packages.staging),
            uploads=uploads,
            state=settings.state,
            packages_url=packages.url,
            targets=settings.selected_targets,
            names=names,
            key_days=packages.signing_key_days,
        ),
        PackageServer(
            port=f"tcp:{packages.port}:interface={packages.host}",
            tree=str(packages.directory),
            uploads=uploads,
            title=settings.title,
            meet=meet(settings),
            wheels=str(packages.wheels),
            url=packages.url,
            builds=builds,
            recipes=settings.recipes,
            apt_trusted=packages.trusts_unsigned,
            names=names,
        ),
        *image_services(settings),
    ]
