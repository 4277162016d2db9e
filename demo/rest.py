"""The REST API as a contributor uses it: ask, follow the buildrequest, read the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 60


class AskError(Exception):
    """The master refused, and why."""


@dataclass(frozen=True)
class Progress:
    """How far one request is: the step's own words, and seconds since the build began."""

    complete: bool
    succeeded: bool
    state: str
    elapsed: float
    build_url: str
    percentage: int | None


class Master:
    """One master, reached by its URL and a token."""

    def __init__(self, url: str, token: str) -> None:
        """Take the URL of the web UI, with a slash at its end, and a user's secret."""
        self._url = url
        self._session = requests.Session()
        # Compressed answers of a loaded Buildbot 4.3 were seen not to decompress.
        self._session.headers.update({"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"})
        # A master that is busy, or starts again, is no reason to give up following a build.
        retries = Retry(total=8, backoff_factor=0.5, status_forcelist=(502, 503, 504))
        self._session.mount("http", HTTPAdapter(max_retries=retries))

    def ask(self, target: str, **params: str) -> dict[str, Any]:
        """Ask for one target's packages; give the answer, or raise AskError with all sentences."""
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "force",
            "params": {"builderNames": [target], **params},
        }
        url = urljoin(self._url, "api/v2/forceschedulers/packages")
        answer = self._session.post(url, json=body, timeout=_SECONDS).json()
        if "error" in answer:
            raise AskError(f"{target}: {answer['error']['message']}")
        found: dict[str, Any] = answer["result"][2][0]
        return found

    def progress(self, buildrequest_id: int, now: float) -> Progress:
        """Follow a buildrequest, through the builds that it may take."""
        request = self._get(f"buildrequests/{buildrequest_id}")["buildrequests"][0]
        builds = self._get(f"buildrequests/{buildrequest_id}/builds")["builds"]
        if not builds:
            return Progress(request["complete"], False, "waiting for a machine", 0, "", None)
        build = max(builds, key=lambda one: int(one["number"]))
        page = urljoin(self._url, f"#/builders/{build['builderid']}/builds/{build['number']}")
        if request["complete"]:
            took = (build["complete_at"] or now) - build["started_at"]
            return Progress(True, request["results"] == 0, build["state_string"], took, page, None)
        steps: Sequence[dict[str, Any]] = self._get(f"builds/{build['buildid']}/steps")["steps"]
        running = [step for step in steps if step["started_at"] and not step["complete"]]
        state = running[-1]["state_string"] if running else build["state_string"]
        if state == "pending":
            state = running[-1]["name"]
        return Progress(False, False, state, now - build["started_at"], page, _percentage(state))

    def steps(self, buildrequest_id: int) -> list[tuple[str, str, float]]:
        """Give name, summary and seconds of each step of a request's last build."""
        builds = self._get(f"buildrequests/{buildrequest_id}/builds")["builds"]
        build = max(builds, key=lambda one: int(one["number"]))
        return [
            (step["name"], step["state_string"], (step["complete_at"] or 0) - (step["started_at"] or 0))
            for step in self._get(f"builds/{build['buildid']}/steps")["steps"]
        ]

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._session.get(urljoin(self._url, f"api/v2/{path}"), timeout=_SECONDS)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def _percentage(state: str) -> int | None:
    words = state.split()
    if len(words) >= 2 and words[-1] == "%" and words[-2].isdigit():
        return int(words[-2])
    return None
