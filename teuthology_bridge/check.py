"""Whether everything is in place for a job, and what to do about each thing that is not."""

from __future__ import annotations

import binascii
import ipaddress
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from teuthology_bridge import __version__, site_yaml, wire
from teuthology_bridge.errors import BuildpackagesError, one_line
from teuthology_bridge.hook import NAME
from teuthology_bridge.master_api import Away, Master

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from teuthology_bridge.settings import Settings

State = Literal["ok", "wrong", "unknown"]

UID = "Ceph automated package"
"""What install looks for in the keys that a machine under test trusts."""

_PROBE = f"""
import importlib, json, sys
told = {{"origin": None, "ours": False, "error": "", "active": False}}
try:
    module = importlib.import_module({NAME!r})
except Exception as error:
    told["error"] = f"{{type(error).__name__}}: {{error}}"
    told["missing"] = getattr(error, "name", None)
    told["active"] = "teuthology_bridge.hook" in sys.modules
else:
    told["origin"] = module.__file__
    hook = sys.modules.get("teuthology_bridge.hook")
    told["ours"] = hook is not None and hook.task_file() == module.__file__
print(json.dumps(told))
"""
_PATIENCE = 60.0
"""Seconds for the import of teuthology, which takes one or two."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    said: str
    do: str = ""
    """What to do about it, or what else to know."""


def findings(environment: Mapping[str, str], python: str = sys.executable) -> list[Finding]:
    """Look at everything; the name is looked at in a new Python, as a job would start it."""
    found = [name(python)]
    try:
        settings = site_yaml.load(environment)
    except BuildpackagesError as error:
        where = "`buildpackages` in teuthology's configuration, or the BUILDPACKAGES_ variables"
        return [*found, Finding("settings", "wrong", str(error), f"correct {where}")]
    for warning in settings.warnings:
        found.append(Finding("settings", "wrong", warning))
    master = master_answers(settings)
    found += [master, token_is_good(settings, master)]
    return found + packages_and_key(settings)


def name(python: str = sys.executable) -> Finding:
    """Tell whether teuthology's name resolves to the bridge for that Python, and loads."""
    which = "name the Python of the virtual environment that teuthology is in, by --python"
    try:
        # Not where this runs: a checkout there would be importable, and would not be for a job.
        finished = subprocess.run(
            [python, "-c", _PROBE], cwd=os.sep, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
        told = json.loads(finished.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Finding("name", "unknown", f"{python} did not import teuthology within {_PATIENCE:.0f} s")
    except OSError as error:
        return Finding("name", "wrong", f"{python} can't be run: {error.strerror}", which)
    except (ValueError, IndexError):
        said = one_line(finished.stderr or finished.stdout, 300) or "it says nothing"
        return Finding("name", "wrong", f"{python} does not answer as a Python does: {said}", which)
    if told["ours"]:
        return Finding("name", "ok", f"{NAME} is {told['origin']}")
    if told.get("missing") in ("teuthology", "teuthology.task"):
        return Finding(
            "name",
            "wrong",
            f"{python} has no teuthology",
            "run this with the Python of the virtual environment that teuthology is in, or name it by --python",
        )
    activate = (
        "run `python -m teuthology_bridge activate` with that Python, or have PYTHONPATH begin with the"
        f" directory {os.path.join(os.path.dirname(os.path.abspath(__file__)), 'site')}"
    )
    if told["origin"]:
        return Finding("name", "wrong", f"{NAME} is {told['origin']}, teuthology's own", activate)
    # What is wrong with teuthology itself, or with its configuration, no activation mends.
    do = "correct that: no job of this Python gets beyond it" if told["active"] else activate
    said = f"{NAME} can't be imported by {python}: {one_line(told['error'])}"
    return Finding("name", "wrong", said, do)


def master_answers(settings: Settings) -> Finding:
    """Tell whether the master answers, as a master."""
    master = Master(settings)
    try:
        on_their_way = master.statuses()
    except Away as error:
        return Finding(
            "master",
            "wrong",
            f"{master.name}: {error}",
            "start the master, or set `url` of `buildpackages` to its web address",
        )
    except BuildpackagesError as error:
        return Finding("master", "wrong", str(error))
    return Finding("master", "ok", f"{master.name} answers; {len(on_their_way)} on their way")


def token_is_good(settings: Settings, master: Finding) -> Finding:
    """Tell whether the master takes the token, by a word about a buildrequest that there can't be."""
    give = (
        "set `token_file` of `buildpackages` to a file with a secret that the master knows: its state/token,"
        " or one that `make user NAME=...` made there"
    )
    if not settings.token:
        return Finding("token", "wrong", "there is none", give)
    if master.state != "ok":
        return Finding("token", "unknown", "the master does not answer, so nobody can say")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "renew", "params": {"job": ""}}).encode()
    try:
        reply = wire.exchange(
            "POST",
            f"{settings.url}api/v2/packages/0",
            timeout=settings.look_timeout,
            headers={"Content-Type": "application/json"},
            authorization=settings.authorization,
            body=body,
        )
    except wire.NoAnswer as error:
        return Finding("token", "unknown", f"the master at {settings.url}: {error}")
    if reply.status in (401, 403):
        return Finding("token", "wrong", f"the master answered {reply.told()}", give)
    if reply.status in (200, 400, 404):
        return Finding("token", "ok", "the master takes it")
    return Finding("token", "unknown", f"the master answered {reply.told()}")


def packages_and_key(settings: Settings) -> list[Finding]:
    """Tell whether the package server answers, and whether apt can be told to trust what it serves."""
    url = f"{settings.packages_url}key.asc"
    server = f"the package server at {settings.packages_url}"
    correct = (
        "see that the master is up, or set `packages_url` of `buildpackages` to where it serves packages"
    )
    skipped = Finding("key", "unknown", "the package server does not answer, so nobody can say")
    try:
        reply = wire.exchange("GET", url, timeout=settings.look_timeout)
    except wire.NoAnswer as error:
        return [Finding("packages", "wrong", f"{server}: {error}", correct), skipped]
    if reply.status not in (200, 404):
        return [Finding("packages", "wrong", f"{server} answered {reply.told()}", correct), skipped]
    found = [Finding("packages", "ok", f"{server} answers", _reachable(settings.packages_url))]
    trust = (
        f"have {url} among the keys that apt trusts on machines with deb packages, in their image: install looks"
        f" there for a key of `{UID}`, and fetches another one from git.ceph.com if there is none"
    )
    if reply.status == 404:
        return [*found, Finding("key", "wrong", f"{url} is not there, so apt can't check anything", correct)]
    if UID.encode() not in _armored(reply.text):
        return [*found, Finding("key", "wrong", f"{url} is no public key of `{UID}`", trust)]
    return [*found, Finding("key", "ok", f"{url} is a key of `{UID}`", trust)]


def _reachable(packages_url: str) -> str:
    host = urlsplit(packages_url).hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return f"machines under test fetch from there themselves: {host} is this machine only" if here else ""


def _armored(text: str) -> bytes:
    """Give the bytes in an armored public key, in which the user's name stands as it is; else nothing."""
    begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
    if begin not in text or end not in text:
        return b""
    # Headers end with an empty line, and the checksum begins with a sign of equality.
    lines = text.split(begin, 1)[1].split(end, 1)[0].strip("\n").splitlines()
    body = lines[lines.index("") + 1 :] if "" in lines else lines
    try:
        return binascii.a2b_base64("".join(line for line in body if not line.startswith("=")))
    except binascii.Error:
        return b""


def as_json(found: Sequence[Finding]) -> str:
    """Give all of it for programs."""
    told = {"version": __version__, "ok": is_good(found), "findings": [asdict(one) for one in found]}
    return json.dumps(told, indent=1)


def as_text(found: Sequence[Finding]) -> str:
    """Give all of it for people."""
    lines = []
    for one in found:
        lines.append(f"{one.state:8}{one.what:10}{one.said}")
        if one.do:
            lines.append(f"{'':18}-> {one.do}")
    return "\n".join(lines)


def is_good(found: Sequence[Finding]) -> bool:
    """Tell whether there is nothing to do."""
    return all(one.state == "ok" for one in found)
