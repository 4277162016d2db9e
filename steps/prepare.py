"""Steps before any building: is it there already, what machine is this, which commit, which version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from buildbot.process.buildstep import BuildStep
from buildbot.process.results import FAILURE, SUCCESS, WARNINGS

from model import build_commands
from steps import commands
from steps.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from steps.commands import Command

_SCRIPTS = Path(__file__).parent / "scripts"


class Machine(Script):
    """Puts our scripts on the worker, learns what machine it is, and fails if it lacks a command that builds call."""

    name = "machine"
    doing = "looking at the machine"

    def __init__(self, memory_per_job: int = 3072, **kwargs: Any) -> None:
        """Take the MiB of memory that one parallel compiler job needs."""
        super().__init__(**kwargs)
        scripts = {path.name: path.read_text() for path in sorted(_SCRIPTS.iterdir()) if path.is_file()}
        scripts |= {"needs-deb": build_commands.table("deb"), "needs-rpm": build_commands.table("rpm")}
        self.initialStdin = f"{json.dumps(scripts)}\n{self.report_key}\n"
        self._memory_per_job = memory_per_job

    def compose(self) -> Command:
        """Unpack the scripts from the first line of the standard input, then run machine.sh."""
        # Unbuffered, because the second line is for the script.
        unpack = (
            "import json, os, sys\n"
            "os.makedirs('scripts', exist_ok=True)\n"
            "for name, text in json.loads(open(0, 'rb', 0, closefd=False).readline()).items():\n"
            "    open('scripts/' + name, 'w').write(text)\n"
            "os.execvp('bash', ['bash', 'scripts/machine.sh', *sys.argv[1:]])\n"
        )
        return ["python3", "-c", unpack, f"scripts/needs-{self.key.target.pkg_type}"]

    def finish(self) -> str:
        """Keep the machine's size as properties, and say what stands in for what."""
        values = self.output.values
        cores, memory = int(values["cores"]), int(values["memory"])
        jobs = commands.parallel_jobs(cores, memory, self._memory_per_job)
        stand_in = values.get("stand_in", "")
        for name, value in (("jobs", jobs), ("stand_in", stand_in)):
            self.setProperty(name, value, "machine")
        told = f"{values['system']}, {cores} cores, {memory} MiB, {jobs} jobs"
        return f"{told}; {stand_in}" if stand_in else told


class Waiting(Protocol):
    """What the steps need of the master's service named `waiting`."""

    def next_git_url(self, requests: Sequence[int], tried: Iterable[str]) -> str:
        """Return an untried repository that somebody who waits has named; if there is none, let nobody else join."""


class Checkout(Script):
    """Checks out exactly the forced sha1, its submodules and the canonical tags."""

    name = "checkout"
    doing = "checking out the commit"

    def __init__(self, canonical_url: str, tags: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._canonical = canonical_url, tags

    def compose(self) -> Command:
        """Fetch from the git URL that was asked for, if the canonical repository does not have the commit."""
        return commands.checkout(str(self.getProperty("git_url")), self.key.sha1, *self._canonical)

    async def run(self) -> int:
        """Check out. If that fails, have another step try the next repository that somebody who waits has named.

        Whoever requests a commit first thus cannot have it fail for the others.
        """
        result = await super().run()
        if result != FAILURE or self.output.status is None:  # Its time was over.
            return result
        failed = self.getProperty("failed_checkouts") or {}
        failed = {
            **failed,
            str(self.getProperty("git_url")): self._summary.removeprefix(f"{self.what} failed: "),
        }
        next_url = self._next_git_url(failed)
        if not next_url:
            self._summary = f"{self.what} failed: {'; '.join(failed.values())}"
            return result
        assert self.build is not None
        self.setProperty("failed_checkouts", failed, self.name)
        self.setProperty("git_url", next_url, self.name)
        another = Checkout(*self._canonical, silence=self.timeout, max_seconds=self._whole_build)
        self.build.addStepsAfterCurrentStep([another])
        self._summary += f". The next step tries {next_url}, which another request names"
        return int(WARNINGS)

    def _next_git_url(self, failed: Iterable[str]) -> str:
        assert self.build is not None
        assert self.master is not None
        waiting: Waiting = self.master.service_manager.namedServices["waiting"]
        return waiting.next_git_url([request.id for request in self.build.requests], failed)

    def finish(self) -> str:
        """Name the commit."""
        return f"checked out {self.key.sha1}"


class Version(Script):
    """Asks git for the version, and keeps it as a property."""

    name = "version"
    doing = "finding the version"

    def __init__(self, canonical_url: str, tags: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._canonical = canonical_url, tags

    def compose(self) -> Command:
        """Describe HEAD."""
        return commands.version(*self._canonical)

    def finish(self) -> str:
        """Keep and name the version."""
        described = self.output.values["version"]
        self.setProperty("version", described, "version")
        return f"version {described}"


class AlreadyPublished(BuildStep):
    """Looks whether the package_key has been published meanwhile, as after a killed master."""

    name = "look"
    haltOnFailure = True
    flunkOnFailure = True

    async def run(self) -> int:
        """Set the property `published` to the URL, or to nothing."""
        assert self.master is not None
        publisher = self.master.service_manager.namedServices["publisher"]
        url = await publisher.published_url(str(self.getProperty("package_key")))
        self.setProperty("published", url, self.name)
        if url:
            await self.addURL("packages", url)
        self.descriptionDone = f"published already: {url}" if url else "not published yet"
        return int(SUCCESS)
