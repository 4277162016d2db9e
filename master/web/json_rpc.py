"""Answers POST requests with an unknown method, or to a path that has nothing, with an error.

Buildbot 4.3 answers some of these with 200 and null, as if they had succeeded, and others with a traceback.
"""

# mypy: allow-untyped-calls
# Buildbot's data API is annotated in part only.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.data.base import Endpoint, EndpointKind
from buildbot.data.buildrequests import BuildRequestEndpoint
from buildbot.data.changes import ChangesEndpoint
from buildbot.data.changesources import ChangeSourceEndpoint
from buildbot.data.exceptions import InvalidPathError
from buildbot.data.forceschedulers import ForceSchedulerEndpoint, ForceSchedulersEndpoint
from buildbot.data.schedulers import SchedulerEndpoint
from buildbot.data.test_result_sets import TestResultSetsEndpoint
from buildbot.data.workers import WorkerEndpoint
from buildbot.www.authz import Forbidden
from buildbot.www.rest import JSONRPC_CODES, BadJsonRpc2, V2RootResource
from twisted.internet.defer import Deferred

from master.web.clients import log_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_ID = 2**31 - 1
"""Larger ids cannot exist, and some databases raise an error on them."""

_METHODS: Mapping[type[Endpoint], tuple[str, ...]] = {
    ForceSchedulerEndpoint: ("force",),
    BuildRequestEndpoint: ("cancel", "set_priority"),
    SchedulerEndpoint: ("enable",),
    WorkerEndpoint: ("kill", "pause", "stop", "unpause"),
}
"""Methods of those endpoints of Buildbot that parse the method themselves; the others have an attribute for each."""

_TRUSTING = (
    ChangesEndpoint, ChangeSourceEndpoint, ForceSchedulersEndpoint, SchedulerEndpoint, TestResultSetsEndpoint,
)  # fmt: skip
"""Endpoints of Buildbot that answer 500 if what they belong to does not exist."""

_get_endpoint = V2RootResource.getEndpoint


def methods_of(endpoint: Any) -> tuple[str, ...]:
    """Return the methods of an endpoint, sorted."""
    for kind, methods in _METHODS.items():
        if isinstance(endpoint, kind):
            return methods
    own: tuple[str, ...] | None = getattr(endpoint, "methods", None)
    if own is not None:
        return own
    return tuple(
        sorted(name.removeprefix("action").lower() for name in dir(endpoint) if name.startswith("action"))
    )


def _are_possible(arguments: dict[str, Any]) -> bool:
    """Return whether all numbers of a path can exist: ids begin at 1, others, such as `step_number`, at 0."""
    return all(
        (1 if name.endswith("id") else 0) <= value <= MOST_ID
        for name, value in arguments.items()
        if isinstance(value, int)
    )


async def check(master: Any, path: tuple[str, ...], method: str) -> None:
    """Raise BadJsonRpc2 for a method that the endpoint lacks, InvalidPathError if there is nothing at the path."""
    endpoint, arguments = master.data.getEndpoint(path)
    methods = methods_of(endpoint)
    where = "/".join(path)
    if method not in methods:
        there_are = f"; there are {', '.join(methods)}" if methods else ": it can only be read"
        sentence = f"{where} has no method {method[:50]!r}{there_are}"
        raise BadJsonRpc2(sentence, JSONRPC_CODES["method_not_found"])
    if endpoint.kind != EndpointKind.SINGLE or hasattr(endpoint, "methods"):
        return
    numbers = [value for value in arguments.values() if isinstance(value, int)]
    if any(abs(number) > MOST_ID for number in numbers) or await endpoint.get({}, arguments) is None:
        raise InvalidPathError(f"there is no {where}")


async def _check_owners(master: Any, path: tuple[str, ...], arguments: dict[str, Any]) -> None:
    """Raise InvalidPathError unless `builds/1` exists for `builds/1/changes`, and everything else that the path names."""
    for start in range(0, len(path) - 1, 2):
        pair = path[start : start + 2]
        endpoint, own = master.data.getEndpoint(pair)
        owner = await endpoint.get({}, own) if _are_possible(own) else None
        if owner is None:
            raise InvalidPathError(f"there is no {'/'.join(pair)}")
        # Where the path has a name, Buildbot passes it on as the id.
        arguments.update({name: owner[name] for name in arguments if name in owner})


def check_every_post(refusal: bytes) -> None:
    """Check every POST before its endpoint gets it. A client without a user gets only the refusal."""

    async def logged(resource: V2RootResource, request: Any, method: str, params: dict[str, Any]) -> Any:
        try:
            return await checked(resource, request, method, params)
        except Forbidden as error:
            user = str(resource.master.www.getUserInfos(request).get("username") or "nobody")
            log_refusal(request, user, error.message)
            raise

    async def checked(resource: V2RootResource, request: Any, method: str, params: dict[str, Any]) -> Any:
        if request.method == b"POST":
            if resource.master.www.getUserInfos(request).get("anonymous"):
                raise Forbidden(refusal)
            await check(
                resource.master, tuple(part.decode(errors="replace") for part in request.postpath), method
            )
        endpoint, arguments = await _get_endpoint(resource, request, method, params)
        if not _are_possible(arguments):
            raise InvalidPathError(
                f"there is no {'/'.join(part.decode(errors='replace') for part in request.postpath)}"
            )
        if isinstance(endpoint, _TRUSTING):
            path = tuple(part.decode(errors="replace") for part in request.postpath if part)
            await _check_owners(resource.master, path, arguments)
        return endpoint, arguments

    def get_endpoint(resource: V2RootResource, *arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(logged(resource, *arguments))

    V2RootResource.getEndpoint = get_endpoint  # type: ignore[method-assign,assignment]
