"""Puts a buildbot-worker and all that it needs into one directory, from wheels that a server offers.

JSON on standard input says from where and into which directory: `url`, of the server's wheels;
`into`; `version`, of buildbot-worker; `ca`, certificates in PEM to trust besides the machine's own, or
nothing; `digests`, SHA-256 by name of index, or nothing. With `digests`, nothing that the server says
is believed unless they vouch for it; without, what an index lists must at least be what comes.

Python's standard library does, from 3.8 on: no pip, and no way out of the network. The directory is
whole or not there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from typing import Any

ATTEMPTS, PAUSE, SECONDS = 4, 3, 60
MOST_BYTES = 64 * 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.whl\Z")


class CannotInstall(Exception):
    """What is wrong, in a sentence."""


def get(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """Give the bytes at a URL; the network of a machine that boots may need some seconds."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with opener.open(url, timeout=SECONDS) as answer:
                data = answer.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise CannotInstall(f"{url} is longer than any wheel")
        except (OSError, HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == ATTEMPTS:
                raise CannotInstall(f"{url}: {error}") from error
            time.sleep(PAUSE)
        else:
            return bytes(data)
    raise AssertionError


def check(data: bytes, sha256: str, what: str) -> None:
    """Refuse what has another SHA-256."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CannotInstall(f"{what} is not what it should be: its SHA-256 is another")


def index_name() -> str:
    """Name the list of wheels for this machine."""
    major, minor = sys.version_info[:2]
    return f"index-cp{major}{minor}-{platform.machine()}.json"


def unpack(wheel: bytes, into: str) -> None:
    """Unpack a wheel; what belongs elsewhere than among the modules is left out."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in archive.namelist():
            parts = name.split("/")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            if name.endswith("/") or ".." in parts or name.startswith("/"):
                continue
            path = os.path.join(into, *parts)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(archive.read(name))


def install(config: dict[str, Any]) -> tuple[int, int]:
    """Get the index and its wheels, check them, unpack them; give how many and how many bytes."""
    context = ssl.create_default_context()
    if config.get("ca"):
        context.load_verify_locations(cadata=config["ca"])
    # No proxy: proxies lead out, and the master is not there.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    digests, name = config.get("digests"), index_name()
    if digests and name not in digests:
        raise CannotInstall(f"the master has no wheels for this machine: it has no {name}")
    data = get(opener, config["url"] + name)
    if digests:
        check(data, digests[name], config["url"] + name)
    index = json.loads(data.decode("utf-8"))
    if index["buildbot-worker"] != config["version"]:
        have = index["buildbot-worker"]
        raise CannotInstall(f"{name} is for buildbot-worker {have}, not {config['version']}")
    making = config["into"] + ".making"
    shutil.rmtree(making, ignore_errors=True)
    size = 0
    for file in index["files"]:
        if not NAME.match(file["name"]):
            raise CannotInstall(f"{name} lists {file['name']!r}, which is no wheel's name")
        wheel = get(opener, config["url"] + file["name"])
        check(wheel, file["sha256"], config["url"] + file["name"])
        unpack(wheel, making)
        size += len(wheel)
    shutil.rmtree(config["into"], ignore_errors=True)
    os.rename(making, config["into"])
    return len(index["files"]), size


def main() -> None:
    """Install, or end with a sentence."""
    try:
        number, size = install(json.load(sys.stdin))
    except CannotInstall as error:
        sys.exit(str(error))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"{number} wheels, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
