"""Schedulers: the door `packages`, which every ask for packages comes through; those of images besides."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from buildbot.data.builds import BuildEndpoint
from buildbot.process.properties import Properties
from buildbot.schedulers.forcesched import (
    CollectedValidationError,
    ForceScheduler,
    StringParameter,
)
from buildbot.schedulers.triggerable import Triggerable
from buildbot.util.twisted import async_to_deferred
from buildbot.www.rest import JSONRPC_CODES, BadJsonRpc2
from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

from master.builders import builders_off
from master.prepared_images.schedulers import image_schedulers
from master.requests.commits import Commits, CommitUnknown
from master.requests.ensure import Answer, Ask, Ensure, TooMany
from master.requests.fields import CLAIMED_OWNER, SIZES, Refused, Wanted, parse
from master.requests.refs import RefUnknown, RepositoryUnreachable, resolve
from master.requests.resolved import Resolved
from master.requests.rest import add_packages
from model.git_names import OTHER, GitUrlPolicy
from model.package_key import PackageKey
from model.targets import Target

if TYPE_CHECKING:
    from master.settings import Git, Settings


AT_ONCE = 4
"""Requests of one user that are processed at the same time: slow repositories of one user delay nobody else."""

_NO_SHA1 = "0" * 40

PASSING = -32000
"""The JSON-RPC code of a refusal that may not be one if the same is asked again: a repository is away."""


class PackagesScheduler(ForceScheduler):
    """Makes sure that packages are there: the same answer from the web form, REST and a rebuild."""

    compare_attrs = ("git", "git_urls", "per_user")

    def checkConfig(  # type: ignore[override]
        self, *, git: Git, git_urls: dict[str, str], per_user: int, **kwargs: Any
    ) -> None:
        """Accept the git settings, each project's URL and a user's limit besides a ForceScheduler's own arguments."""
        super().checkConfig(**kwargs)
        self.git, self.git_urls, self.per_user = git, git_urls, per_user

    @async_to_deferred
    async def reconfigService(  # type: ignore[override]
        self, *, git: Git, git_urls: dict[str, str], per_user: int, **kwargs: Any
    ) -> None:
        """Take the settings, and show only fields that mean something here."""
        await super().reconfigService(**kwargs)
        self.git, self.git_urls, self.per_user = git, git_urls, per_user
        self._policy = GitUrlPolicy(git.allowed)
        self._targets = {name: Target.from_name(name) for name in kwargs["builderNames"]}
        fields = [
            StringParameter("ref", label="Branch, tag or full sha1", size=50),
            StringParameter("sha1", label="Full sha1 (or fill in the field above)", size=50),
            StringParameter("git_url", **_repository(git_urls), size=80),
            StringParameter("reason", label="Reason (optional)", size=50),
        ]
        self.all_fields = fields
        self.forcedProperties: list[Any] = []

    @async_to_deferred
    async def activate(self) -> None:
        """Take over rebuilds as well, which would otherwise build a key twice."""
        await super().activate()
        assert self.master is not None
        services = self.master.service_manager.namedServices
        publisher, waiting = services["publisher"], services["waiting"]
        self._turns: defaultdict[str, DeferredSemaphore] = defaultdict(lambda: DeferredSemaphore(AT_ONCE))
        self._commits = Commits(self.master.reactor, lambda: self.git.timeout)
        self._ensure = Ensure(
            self.master, publisher, waiting, self._commits, self._add_buildset, most=lambda: self.per_user
        )
        add_packages(self.master, self._ensure, waiting)
        self._publisher = publisher
        for _, endpoint in self.master.data.matcher.iterPatterns():
            if isinstance(endpoint, BuildEndpoint):
                # Buildbot's own tells what it calls next neither who asks nor anything to know him by.
                endpoint.actionRebuild = partial(self._rebuild, endpoint)

    def force(self, /, **params: Any) -> Deferred[Any]:  # type: ignore[override]
        """Give `[buildset id, {builder id: buildrequest id}, [answers]]`, or say what is wrong."""
        return Deferred.fromCoroutine(self._force(params))

    async def _force(self, params: dict[str, Any]) -> Any:
        owner = str(params.pop("owner", None) or "nobody")
        if CLAIMED_OWNER in params:
            params["owner"] = params.pop(CLAIMED_OWNER)
        builder_id = params.get("builderid")
        name = await self._builder_name(builder_id)
        await self._turns[owner].acquire()
        try:
            wanted = parse(params, self._targets, lambda _: name, self._policy, self.git_urls)
            resolved = await self._resolve(wanted)
            sha1 = resolved.sha1 if resolved else wanted.sha1
            answers = await self._answers(wanted, sha1, resolved, owner)
        except Refused as refused:
            if refused.passing:
                raise BadJsonRpc2(refused.sentences, PASSING) from None
            raise CollectedValidationError(refused.sentences) from None
        finally:
            self._turns[owner].release()
        if builder_id is not None and answers[0].buildset_id is None:
            # The form can only show a buildrequest, and this database knows none.
            raise CollectedValidationError({wanted.commit_field: f"published already: {answers[0].url}"})
        requests = {builder: request for one in answers for builder, request in one.buildrequest_ids.items()}
        return answers[0].buildset_id, requests, [answer.as_json() for answer in answers]

    async def _answers(
        self, wanted: Wanted, sha1: str, resolved: Resolved | None, owner: str
    ) -> list[Answer]:
        answers = []
        for target in wanted.targets:
            key = PackageKey(target, sha1)
            link, no_link = await self._link(key, resolved)
            is_canonical = resolved is not None and resolved.is_at(self.git_urls[target.project])
            ask = Ask(
                key,
                wanted.git_url,
                wanted.ref,
                owner,
                wanted.reason,
                wanted.job,
                wanted.sizes,
                link or no_link,
                commit_field=wanted.commit_field,
                linked_ref=wanted.ref if link else "",
                reachable_from=wanted.ref if is_canonical else "",
            )
            answers.append(replace(await self._ensured(ask), link=link, no_link=no_link))
        return answers

    async def _link(self, key: PackageKey, resolved: Resolved | None) -> tuple[str, str]:
        """Update the link of a ref; return its URL and an empty string, or an empty string and why there is none."""
        if resolved is None:
            return "", "the request names a commit: only a ref gets a ref/ link"
        default_url = self.git_urls[key.target.project]
        no_link = resolved.why_not(default_url, self._publisher.owner(key, resolved.ref))
        owner = resolved.linked_as(default_url)
        if not no_link and owner != default_url:
            no_link = self._publisher.reserved(key, resolved.ref, default_url)
        if not no_link:
            if owner == default_url:
                await self._publisher.displace(key, resolved.ref, default_url)
            await self._publisher.resolved(key, resolved.ref, owner)
            no_link = await self._publisher.obstacle(key, resolved.ref)
        return ("", no_link) if no_link else (self._publisher.ref_url(key, resolved.ref), "")

    async def _ensured(self, ask: Ask) -> Answer:
        try:
            return await self._ensure.ensure(ask)
        except CommitUnknown as error:
            raise Refused({ask.commit_field: str(error)}) from None
        except RepositoryUnreachable as error:
            raise _refusal(error) from None
        except TooMany as error:
            raise Refused({ask.commit_field: str(error)}, passing=True) from None

    async def _builder_name(self, builder_id: Any) -> str | None:
        assert self.master is not None
        text = str(builder_id)
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            return None
        builder = await self.master.data.get(("builders", text))
        return builder and str(builder["name"])

    async def _resolve(self, wanted: Wanted) -> Resolved | None:
        """Resolve a ref in the request's repository, and in the others that may own its link; return None for a sha1."""
        if not wanted.ref:
            return None
        assert self.master is not None
        owners = {
            self._publisher.owner(PackageKey(target, _NO_SHA1), wanted.ref) for target in wanted.targets
        }
        own = (self.git_urls[target.project] for target in wanted.targets)
        urls = list(dict.fromkeys((wanted.git_url, *own, *filter(self._is_allowed, sorted(owners)))))
        # A branch and a tag of one name would have the same link, so the other repositories are asked for both.
        others_kind = wanted.ref_kind if wanted.ref_kind == OTHER else ""
        asked = [
            Deferred.fromCoroutine(
                resolve(
                    self.master.reactor,
                    url,
                    wanted.ref,
                    self.git.timeout,
                    wanted.ref_kind if url == wanted.git_url else others_kind,
                )
            )
            for url in urls
        ]
        for other in asked[1:]:
            other.addErrback(lambda failure: failure.value)
        try:
            said = await gatherResults(asked, consumeErrors=True)
        except FirstError as error:
            raise _refusal(error.subFailure.value) from None
        return Resolved(wanted.ref, wanted.ref_kind, wanted.git_url, dict(zip(urls, said, strict=True)))

    def _is_allowed(self, git_url: str) -> bool:
        try:
            self._policy.check(git_url)
        except ValueError:
            return False
        return True

    async def _add_buildset(self, ask: Ask, properties: Properties) -> tuple[int, dict[int, int]]:
        asked = f"{ask.owner} asked for it"
        buildset_id, requests = await self.addBuildsetForSourceStampsWithDefaults(
            reason=f"{asked}: {ask.reason}" if ask.reason else asked,
            sourcestamps=[
                {
                    "codebase": "",
                    "repository": ask.git_url,
                    "branch": ask.ref or None,
                    "revision": ask.key.sha1,
                    "project": ask.key.target.project,
                }
            ],
            properties=properties,
            builderNames=[ask.key.target.name],
            external_idstring=str(ask.key),
        )
        return buildset_id, requests

    @async_to_deferred
    async def _rebuild(
        self, endpoint: BuildEndpoint, args: dict[str, Any], kwargs: dict[str, Any]
    ) -> tuple[int | None, dict[int, int]]:
        """Answer a rebuild like any other ask: it is of who presses the button, whoever asked before."""
        assert self.master is not None
        build = await endpoint.get({}, kwargs)
        request = build and await self.master.data.get(("buildrequests", build["buildrequestid"]))
        if not request:
            raise BadJsonRpc2("there is no such build", JSONRPC_CODES["invalid_request"])
        stored = await self.master.data.get(("buildsets", request["buildsetid"], "properties"))
        values = {name: str(value) for name, (value, _) in stored.items()}
        if "package_key" not in values:
            raise BadJsonRpc2(
                "this built no packages: ask for an image anew", JSONRPC_CODES["invalid_request"]
            )
        if values["package_key"].partition("/")[0] not in self._targets:
            on = ", ".join(self._targets)
            sentence = f"{values['package_key']} cannot be built: its target is off; there are {on}"
            raise BadJsonRpc2(sentence, JSONRPC_CODES["invalid_request"])
        try:
            self._policy.check(values["git_url"])
        except ValueError as error:  # It was allowed when the build was requested.
            raise BadJsonRpc2({"git_url": str(error)}, JSONRPC_CODES["invalid_params"]) from None
        key = PackageKey.from_string(values["package_key"])
        sizes = {name: stored[name][0] for name in SIZES if name in stored}
        ask = Ask(
            key,
            values["git_url"],
            values["ref"],
            str(args["owner"]),
            "rebuild",
            sizes=sizes,
            linked_ref=values.get("linked_ref", ""),
            reachable_from=values.get("reachable_from", ""),
        )
        await self._turns[ask.owner].acquire()
        try:
            answer = await self._ensured(ask)
        except Refused as refused:
            raise BadJsonRpc2(refused.sentences, JSONRPC_CODES["invalid_params"]) from None
        finally:
            self._turns[ask.owner].release()
        return answer.buildset_id, answer.buildrequest_ids


def _repository(git_urls: dict[str, str]) -> dict[str, str]:
    """Return label and default of the form's field git_url: with several projects, the target decides."""
    if len(git_urls) == 1:
        return {"label": "Repository", "default": "".join(git_urls.values())}
    return {"label": "Repository (the project's own, if empty)", "default": ""}


def _refusal(error: BaseException | None) -> BaseException:
    """Put what went wrong with a ref beside its field."""
    if isinstance(error, RefUnknown):
        return Refused({"ref": str(error)})
    if isinstance(error, RepositoryUnreachable):
        return Refused({"git_url": str(error)}, passing=error.passing)
    return error or RuntimeError("nothing failed")


def schedulers(settings: Settings) -> list[Any]:
    """Return `c["schedulers"]`."""
    off = builders_off(settings)
    return [
        PackagesScheduler(
            name="packages",
            builderNames=[target.name for target in settings.selected_targets],
            buttonName="Ask for packages",
            label="Ask for packages of a commit",
            git=settings.git,
            git_urls={name: project.git_url for name, project in settings.projects.items()},
            per_user=settings.requests.per_user,
        ),
        *image_schedulers(settings),
        # Buildbot refuses a builder without a scheduler. Nothing triggers this one.
        *([Triggerable(name="off", builderNames=off)] if off else []),
    ]
