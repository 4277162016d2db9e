"""`/api/v2/packages`: what is on its way, how far it is, and who waits for it.

GET  /api/v2/packages                    all that is on its way
GET  /api/v2/packages/<buildrequest id>  one, also when it is done
POST /api/v2/packages/<buildrequest id>  {"method": "renew" | "withdraw", "params": {"job": …}}
"""

# mypy: allow-untyped-calls
# Buildbot's data API is annotated in part only.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildbot.data import base, types
from buildbot.util.twisted import async_to_deferred
from buildbot.www.rest import JSONRPC_CODES, BadJsonRpc2

from master.requests.fields import JOB, check_job
from master.requests.progress import Progress
from master.requests.waiting import told, told_json
from master.web.json_rpc import MOST_ID

if TYPE_CHECKING:
    from master.requests.ensure import Ensure
    from master.requests.progress import Status
    from master.requests.waiting import Waiting

_KIND = "packages"
PATH = (_KIND,)


class _OneEndpoint(base.Endpoint):
    kind = base.EndpointKind.SINGLE
    pathPatterns = ("/packages/n:buildrequestid",)
    methods = ("renew", "withdraw")
    rtype: Any

    @async_to_deferred
    async def get(self, resultSpec: Any, kwargs: Any) -> dict[str, Any] | None:
        status = await self._status(kwargs["buildrequestid"])
        return None if status is None else status.as_json()

    @async_to_deferred
    async def control(self, action: str, args: Any, kwargs: Any) -> dict[str, Any]:
        """Say that a job still waits, or that it does not any more."""
        asker, job = str(args["owner"]), args.get("job", "")
        if not isinstance(job, str):
            raise _refused("job: must be a string")
        try:
            job = check_job(job.strip() if job.isprintable() else job)
        except ValueError as error:
            raise _refused(f"{JOB}: {error}") from None
        request, waiting = kwargs["buildrequestid"], self.rtype.waiting
        status = await self._status(request)
        if status is None:
            raise _refused(f"buildrequest {request} is unknown here, or of no packages: ask anew")
        # Nobody waits for a request that has ended or is being cancelled, so renew and withdraw are no mistakes there.
        is_open = status.state in ("waiting", "building") and not waiting.is_ending(request)
        if is_open and not waiting.knows(request, asker, job):
            who = f"{asker} (job {job})" if job else f"{asker} (without a job)"
            others = told(waiting.of(request)) or "nobody"
            raise _refused(f"{who} does not wait for buildrequest {request}; waiting: {others}")
        if action == "renew":
            if is_open:
                await waiting.add(request, asker, job)
            return told_json(waiting.of(request))
        cancelled, left = await self.rtype.ensure.withdraw(request, asker, job)
        return {"cancelled": cancelled, **told_json(left)}

    async def _status(self, request: int) -> Status | None:
        found: Status | None = await self.rtype.progress.of(request) if abs(request) <= MOST_ID else None
        return found


class _AllEndpoint(base.Endpoint):
    kind = base.EndpointKind.COLLECTION
    pathPatterns = ("/packages",)
    methods: tuple[str, ...] = ()
    rtype: Any

    @async_to_deferred
    async def get(self, resultSpec: Any, kwargs: Any) -> list[dict[str, Any]]:
        return [status.as_json() for status in await self.rtype.progress.on_their_way()]


class _Packages(base.ResourceType):
    name = "package"
    plural = "packages"
    endpoints = [_OneEndpoint, _AllEndpoint]  # noqa: RUF012
    eventPathPatterns: list[str] = []  # noqa: RUF012
    progress: Progress
    waiting: Waiting
    ensure: Ensure

    class EntityType(types.Entity):
        """What a status holds; Buildbot's REST filters by these."""

        buildrequest_id = types.Integer()
        package_key = types.String()
        state = types.String()
        git_url = types.String()
        ref = types.String()
        unverified = types.Boolean()

    entityType = EntityType(name)


def add_packages(master: Any, ensure: Ensure, waiting: Waiting) -> None:
    """Have the REST API answer below `/packages`; once for each master."""
    services = master.service_manager.namedServices
    known = master.data.getResourceType(_Packages.name)
    if known is None:
        known = _Packages(master)
        setattr(master.data.rtypes, _Packages.name, known)
        for endpoint in known.getEndpoints():
            for pattern in type(endpoint).pathPatterns:
                master.data.matcher[tuple(pattern.split("/")[1:])] = endpoint
        master.data.rootLinks.append({"name": _Packages.plural})
    known.ensure, known.waiting = ensure, waiting
    known.progress = Progress(master, services["publisher"], waiting, services["turns"])


def _refused(sentence: str) -> BadJsonRpc2:
    return BadJsonRpc2(sentence, JSONRPC_CODES["invalid_params"])
