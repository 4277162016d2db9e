"""`python -m master.prepared_images.ask TARGET`: asks for a prepared image and follows it until builds use it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from master.prepared_images.names import image_builder, image_targets
from master.settings import Settings, SettingsError, default_path
from master.users import operator_token
from model import command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.targets import Target

LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 60
_TRIES = 30
"""Looks in a row that may fail: a master that starts again is no reason to give up."""


class AskError(Exception):
    """The master refused, or the image came to nothing, and why."""


@dataclass(frozen=True)
class Progress:
    """How far one buildrequest is; `results` is None until it is complete."""

    state: str
    results: int | None
    build_id: int | None


class Master:
    """The master's REST API, with the operator's token."""

    def __init__(self, url: str, token: str) -> None:
        """Take the URL of the web UI, with a slash at its end, and the token."""
        self._url = f"{url}api/v2/"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def force(self, builder: str, cloud: str) -> int:
        """Ask for an image; give the buildrequest, or raise AskError with the master's sentences."""
        params = {"builderNames": [builder], **({"cloud": cloud} if cloud else {})}
        body = {"jsonrpc": "2.0", "id": 1, "method": "force", "params": params}
        answer = await self._ask("forceschedulers/images", body)
        if "error" in answer:
            said = answer["error"]
            said = said.get("message", said) if isinstance(said, dict) else said
            if isinstance(said, dict):
                said = "; ".join(f"{field}: {sentence}" for field, sentence in said.items())
            raise AskError(str(said))
        [request_id] = answer["result"][1].values()
        return int(request_id)

    async def progress(self, request_id: int) -> Progress:
        """Follow a buildrequest through the builds that it may take."""
        [request] = (await self._ask(f"buildrequests/{request_id}"))["buildrequests"]
        builds = (await self._ask(f"buildrequests/{request_id}/builds"))["builds"]
        results = request["results"] if request["complete"] else None
        if not builds:
            return Progress("waiting for a worker's slot", results, None)
        build = max(builds, key=lambda one: int(one["number"]))
        state = str(build["state_string"])
        if results is None:
            steps = (await self._ask(f"builds/{build['buildid']}/steps"))["steps"]
            running = [one for one in steps if one["started_at"] and not one["complete"]]
            if running:
                name, said = running[-1]["name"], running[-1]["state_string"]
                state = name if said == "pending" else f"{name}: {said}"
        return Progress(state, results, int(build["buildid"]))

    async def property(self, build_id: int, name: str) -> str:
        """Give a property of a build; empty if it has none."""
        [found] = (await self._ask(f"builds/{build_id}/properties"))["properties"]
        return str(found[name][0]) if name in found else ""

    async def last_step(self, build_id: int) -> str:
        """Give what the last step of a build says."""
        steps = (await self._ask(f"builds/{build_id}/steps"))["steps"]
        return str(steps[-1]["state_string"])

    async def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await deferToThread(self._ask_now, path, body)
        return found

    def _ask_now(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._url}{path}", data, self._headers)
        try:
            with urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                text = answer.read()
        except HTTPError as error:
            # A refusal is an answer like any other.
            text = error.read()
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            raise AskError(f"the master does not answer as it should: {text[:200]!r}") from None
        return found


async def follow(
    reactor: Any, master: Master, request_id: int, say: Callable[[str], None], seconds: float = LOOK_SECONDS
) -> Progress:
    """Follow a buildrequest until it is complete, and say each new state; AskError if it did not succeed."""
    said, failures = "", 0
    while True:
        try:
            progress = await master.progress(request_id)
            failures = 0
        except OSError as error:
            failures += 1
            if failures >= _TRIES:
                raise AskError(f"the master does not answer: {error}") from None
            await deferLater(reactor, seconds)
            continue
        if progress.state != said:
            said = progress.state
            say(said)
        if progress.results is not None:
            if progress.results != 0:
                raise AskError(progress.state)
            return progress
        await deferLater(reactor, seconds)


async def ask(reactor: Any, settings: Settings, target: Target, cloud: str) -> None:
    """Ask for an image of a target, and say how it goes until builds use it."""
    www = settings.www
    master = Master(f"http://{www.host}:{www.port}/", operator_token(settings.state))
    began = reactor.seconds()

    def say(text: str) -> None:
        print(f"{reactor.seconds() - began:7.1f} s  {text}", flush=True)

    try:
        request_id = await master.force(image_builder(target), cloud)
    except OSError as error:
        raise AskError(f"the master does not answer at {www.host}:{www.port}: {error}") from None
    say(f"buildrequest {request_id} prepares an image of {target}")
    made = await follow(reactor, master, request_id, say)
    assert made.build_id is not None
    test = await master.property(made.build_id, "test_request")
    say(f"{await master.property(made.build_id, 'image_name')} is made; buildrequest {test} tests it")
    tested = await follow(reactor, master, int(test), say)
    assert tested.build_id is not None
    say(await master.last_step(tested.build_id))


def main(arguments: Sequence[str] | None = None) -> int:
    """Request an image of a target, and wait for it. Exit status 0 only if builds use the new image."""
    parser = argparse.ArgumentParser(prog="python -m master.prepared_images.ask", description=main.__doc__)
    parser.add_argument("target", help="a target that workers.openstack.prepared_images.targets names")
    parser.add_argument(
        "--cloud", default="", help="a cloud of the settings; default: the first that can make the image"
    )
    given = parser.parse_args(arguments)
    try:
        settings = Settings.from_file(default_path())
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    targets = {target.name: target for target in image_targets(settings)}
    if given.target not in targets:
        there = ", ".join(targets) or "none at all: see workers.openstack.prepared_images in the settings"
        print(f"{given.target!r} has no prepared images; there are {there}", file=sys.stderr)
        return 1
    status = 1

    async def run(reactor: Any) -> None:
        nonlocal status
        try:
            await ask(reactor, settings, targets[given.target], given.cloud)
        except AskError as error:
            print(f"no image: {error}", file=sys.stderr)
        else:
            status = 0

    try:
        react(run, [])
    except SystemExit as end:
        return int(end.code or 0) or status
    return status


if __name__ == "__main__":
    command_line.run(main)
