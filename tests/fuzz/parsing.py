"""Gives changed files to `tests.fuzz.parsers` in a process of its own, which is ended if it takes too long."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz import mutations
from tests.patience import SLOW

if TYPE_CHECKING:
    import random

LONGEST = 15 * SLOW
"""Seconds that the checks of one upload may take. A bomb or a quadratic search takes longer."""

MUTATIONS: dict[str, mutations.Mutation] = {
    "deb-packages": mutations.mutate_stanzas,
    "deb-sources": mutations.mutate_stanzas,
    "deb-manifest": mutations.mutate_json,
    "deb-file": mutations.mutate_deb,
    "dsc-file": mutations.mutate_stanzas,
    "rpm-manifest": mutations.mutate_json,
    "rpm-x86_64": mutations.mutate_xml,
    "rpm-noarch": mutations.mutate_xml,
    "rpm-SRPMS": mutations.mutate_xml,
    "rpm-gzip": mutations.mutate_gzip,
    "rpm-file": mutations.mutate_rpm,
}
"""The change of structure that fits each file; changes of its bytes fit all."""

RUNS_TOOLS = frozenset({"deb-file", "dsc-file", "rpm-file"})
"""Parsers that start apt-ftparchive or createrepo_c, which takes a hundred times as long as the others."""

_ROOT = Path(__file__).parents[2]


def changed(rng: random.Random, name: str, data: bytes) -> bytes:
    """Return a file of an upload with its structure or its bytes changed."""
    change = MUTATIONS[name] if rng.randrange(3) else mutations.mutate_bytes
    try:
        return change(rng, data)
    except Exception:
        # What the corpus keeps of an earlier defect need not have the structure.
        return mutations.mutate_bytes(rng, data)


class ParsingProcess:
    """The process of the parsers; a new one is started after one has hung or ended."""

    def __init__(self, directory: Path) -> None:
        """`directory` is where the file of the present case is."""
        self._case = directory / "case"
        self._errors = directory / "parsers.log"
        self._process: subprocess.Popen[bytes] | None = None

    def outcome(self, name: str, data: bytes, longest: float = LONGEST) -> tuple[str, str]:
        """Return `accepted`, `refused` or `defect`, and a sentence or a traceback."""
        self._case.write_bytes(data)
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{name} {self._case}\n".encode())
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], longest)[0]
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [process.stdout], b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer["state"], answer["text"]
        self.stop()
        if not ready:
            return "defect", f"no answer within {longest:g} s"
        last = self._errors.read_text(errors="replace")[-500:]
        return "defect", f"the process ended with status {process.returncode}: {last}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running().pid

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            with self._errors.open("w") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.fuzz.parsers"],
                    cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                )  # fmt: skip
        return self._process
