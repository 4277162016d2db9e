"""Run by the Python of teuthology's virtual environment: the bridge's task, many times in one process.

Reads `{"jobs": [job, ...], "site": {...}, "at": time, "bare": url}` in JSON. With `at`, all begin at that moment,
each in a greenlet of its own, as teuthology's patches have it; without, one after the other, each beside one
bare GET of `bare`. Writes, for each, seconds, its failure if it failed, and its summary.
"""

import json
import logging
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import requests
from teuthology.config import config as site

from teuthology_bridge.task import task

_given = json.load(sys.stdin)
site.update(_given["site"])
logging.getLogger().setLevel(logging.ERROR)


def _one(job: dict[str, Any]) -> dict[str, Any]:
    """Run the task of one job, as a job would that is about to install."""
    ctx = SimpleNamespace(config=job, summary={}, archive=None, os_type=None, os_version=None)
    began = time.perf_counter()
    failure = ""
    try:
        task(ctx, None)
    except Exception as error:  # whatever it is, it is this job's outcome
        failure = f"{type(error).__name__}: {error}"
    took = time.perf_counter() - began
    return {"took": took, "failure": failure, "summary": ctx.summary.get("buildpackages")}


def _in_turn() -> list[dict[str, Any]]:
    found = []
    for job in _given["jobs"]:
        outcome = _one(job)
        began = time.perf_counter()
        requests.get(_given["bare"], timeout=60).raise_for_status()
        found.append({**outcome, "bare": time.perf_counter() - began})
    return found


def _at_once() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def run(job: dict[str, Any]) -> None:
        time.sleep(max(0.0, _given["at"] - time.time()))
        found.append(_one(job))

    threads = [threading.Thread(target=run, args=(job,)) for job in _given["jobs"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


json.dump(_at_once() if _given.get("at") else _in_turn(), sys.stdout)
