"""Lock every requirement with hashes: `make lock`. With `--check`, only say which locks do not have what their inputs want.

The inputs are the files `*.in` beside this one; a pin that still fits stays as it is, so delete a lock to renew all of its pins.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent

LOCKS = {
    "master": "requirements.txt",
    "dev": "requirements-dev.txt",
    "lab": "requirements-lab.txt",
    "teuthology": "requirements-teuthology.txt",
}
"""Input to lock. `worker` is locked line by line, because its lines are for different Pythons."""

WORKER_LOCK = "workers/worker-requirements.txt"
WORKER_PYTHONS = ("3.8.10", "3.9.18", "3.10.12", "3.11.2", "3.12.3", "3.13.5", "3.14.3")
HEAD = "# Made by `make lock` from requirements/{name}.in.\n"

_LINE = re.compile(r"^(?P<pin>[A-Za-z0-9][^\s;\\]*)(?P<marker>\s*;[^\\\n]*?)?(?: \\)?$")


def pins(text: str) -> dict[str, list[str]]:
    """Return the hashes of each pin of a lock: `name==version`, in lower case and with its marker, to `sha256:…`."""
    found: dict[str, list[str]] = {}
    hashes: list[str] = []
    for line in text.splitlines():
        if match := _LINE.match(line):
            hashes = found.setdefault(_normal(match["pin"]) + (match["marker"] or "").rstrip(), [])
        hashes += re.findall(r"--hash=(sha256:[0-9a-f]{64})", line)
    return found


def _normal(pin: str) -> str:
    """Return a pin without extras, in the spelling that indexes use."""
    name, _, version = re.sub(r"\[.*\]", "", pin).partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def compiled(source: Path, *options: str) -> str:
    """Return what `uv pip compile` makes of an input; RuntimeError with its message if it fails."""
    command = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "--no-emit-index-url",
        *options,
    ]
    try:
        finished = subprocess.run(
            [*command, str(source)], cwd=CHECKOUT, check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise RuntimeError("uv is not installed: requirements-dev.txt brings it") from None
    if finished.returncode:
        raise RuntimeError(f"{source.name} cannot be locked: {finished.stderr.strip()}")
    return finished.stdout


def worker_lock() -> str:
    """Return the lock of what workers install: the lines of the input, each with the hashes of its release."""
    source = HERE / "worker.in"
    known: dict[str, list[str]] = {}
    for python in WORKER_PYTHONS:
        known |= pins(compiled(source, "--no-deps", "--no-annotate", "--python-version", python))
    lines = []
    for line in source.read_text().splitlines():
        match = _LINE.match(line)
        if match:
            hashes = known.get(_normal(match["pin"]), [])
            if not hashes:
                raise RuntimeError(f"worker.in: no Python of WORKER_PYTHONS takes {line!r}")
            line = " \\\n".join([line.rstrip(), *(f"    --hash={one}" for one in hashes)])
        lines.append(line)
    return "\n".join(lines) + "\n"


def renew() -> None:
    """Write every lock."""
    for name, lock in LOCKS.items():
        path = CHECKOUT / lock
        compiled(HERE / f"{name}.in", "--universal", "--python-version", "3.11", "--output-file", str(path))
        text = path.read_text()
        path.write_text(HEAD.format(name=name) + text)
        print(f"{lock}: {len(pins(text))} releases")
    text = worker_lock()
    (CHECKOUT / WORKER_LOCK).write_text(HEAD.format(name="worker") + text)
    print(f"{WORKER_LOCK}: {len(pins(text))} releases")


def problems() -> list[str]:
    """Return a sentence for each lock that lacks a hash, or a line of its input."""
    found = []
    for name, lock in {**LOCKS, "worker": WORKER_LOCK}.items():
        locked = pins((CHECKOUT / lock).read_text())
        found += [f"{lock}: {pin} has no hash" for pin, hashes in locked.items() if not hashes]
        for line in (HERE / f"{name}.in").read_text().splitlines():
            match = _LINE.match(line.partition(" #")[0].rstrip())
            wanted = match and _normal(match["pin"]) + (match["marker"] or "").rstrip()
            if wanted and wanted not in locked:
                found.append(f"{lock}: {wanted} of requirements/{name}.in is missing; run make lock")
    return found


def main() -> int:
    """Renew the locks, or check them."""
    parser = argparse.ArgumentParser(prog="make lock", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check; needs no network")
    if parser.parse_args().check:
        sentences = problems()
        print("\n".join(sentences) or "every requirement is locked")
        return 1 if sentences else 0
    try:
        renew()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
