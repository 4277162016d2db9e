"""What Buildbot's database knows of builds of package_keys, in shaman's words."""

# mypy: allow-untyped-calls
# Buildbot's database is annotated in part only.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.data.resultspec import Filter, ResultSpec
from buildbot.process.results import SUCCESS, WARNINGS
from buildbot.reporters.utils import getURLForBuild, getURLForBuildrequest

from master.shaman.forms import BuildState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_MOST_BUILDSETS = 500


async def builds(master: Any, keys: Sequence[str]) -> list[BuildState]:
    """Tell, of each package_key that was ever asked for, how its newest request is doing."""
    newest: dict[str, Any] = {}
    for buildset in await master.db.buildsets.getBuildsets(resultSpec=_of(keys)):
        newest.setdefault(buildset.external_idstring, buildset)
    states = []
    for key, buildset in newest.items():
        for request in await master.db.buildrequests.getBuildRequests(bsid=buildset.bsid):
            tries = await master.db.builds.getBuilds(buildrequestid=request.buildrequestid)
            states.append(_state(master, key, request, max(tries, key=lambda one: one.id, default=None)))
    return states


def _of(keys: Sequence[str]) -> ResultSpec:
    """Ask for the buildsets of package_keys, newest first."""
    spec = ResultSpec(
        filters=[Filter("external_idstring", "eq", list(keys))], order=["-bsid"], limit=_MOST_BUILDSETS
    )
    spec.fieldMapping = {"external_idstring": "buildsets.external_idstring", "bsid": "buildsets.id"}
    return spec


def _state(master: Any, key: str, request: Any, build: Any) -> BuildState:
    """Give the state of a request whose newest build, if there is any, is `build`."""
    started, completed = _seconds(build and build.started_at), _seconds(request.complete_at)
    if build is None:
        url = getURLForBuildrequest(master, request.buildrequestid)
    else:
        url = getURLForBuild(master, build.builderid, build.number)
    if request.complete:
        status = "completed" if request.results in (SUCCESS, WARNINGS) else "failed"
    else:
        # Between two tries it is in the queue again.
        status = "started" if build is not None and build.complete_at is None else "queued"
    modified = completed or started or _seconds(request.submitted_at) or 0.0
    return BuildState(key, status, url, started, completed, modified)  # type: ignore[arg-type]


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
