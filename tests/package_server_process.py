"""The real package server in a process of its own, for tests, and the handle to ask things of it.

Run as a module it serves until its standard input ends, and answers each line of JSON on it with
one: that way no server outlives its test, however the test ends.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

KEY = "ceph-deb-jammy-x86_64-default/0123456789abcdef0123456789abcdef01234567"
_ROOT = Path(__file__).parent.parent


class PackageServerProcess:
    """A package server on a free port, with `tree` and `staging` below a directory."""

    def __init__(self, directory: Path, **limits: int) -> None:
        """Start it; returns once it listens."""
        self.tree = directory / "packages"
        self.staging = directory / "staging"
        self.tree.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self.tree, self.staging, json.dumps(limits)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.port: int = self._answer()["port"]
        self.url = f"http://127.0.0.1:{self.port}/"

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have the server's process do something, and give what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def open(self, key: str = KEY) -> str:
        """Open an upload; give its token."""
        token: str = self.ask("open", key=key)["token"]
        return token

    def files(self, token: str) -> dict[str, tuple[int, str]]:
        """Give path to size and SHA-256 of what an upload has received."""
        return {path: tuple(row) for path, row in self.ask("files", token=token)["files"].items()}

    def directory(self, token: str) -> Path:
        """Give an upload's directory."""
        return Path(self.ask("files", token=token)["directory"])

    def growing(self) -> list[Path]:
        """Give the files that are on their way in."""
        incoming = self.staging / "incoming"
        return list(incoming.iterdir()) if incoming.exists() else []

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End it, and see that it ended in good order."""
        if self._process.poll() is None:
            self._process.communicate(timeout=30)
            assert kind is not None or self._process.returncode == 0

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the package server's process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(tree: str, staging: str, limits: dict[str, int]) -> None:
    """Run the server, and do what comes on standard input."""
    from buildbot.util.service import MasterService
    from twisted.internet import reactor, stdio
    from twisted.internet.defer import ensureDeferred
    from twisted.protocols.basic import LineReceiver
    from twisted.python import log

    from master.package_server.service import PackageServer
    from master.publishing.uploads import Limits, Uploads
    from model.package_key import PackageKey

    loop: Any = reactor
    uploads = Uploads(Path(staging), Limits(**limits))
    loopback = "tcp:0:interface=127.0.0.1"
    server = PackageServer(port=loopback, tree=tree, uploads=uploads, title="Packages <of> tests")
    opened: dict[str, Any] = {}

    class Control(LineReceiver):
        delimiter = b"\n"

        def say(self, **answer: Any) -> None:
            self.sendLine(json.dumps(answer).encode())

        def lineReceived(self, line: bytes) -> None:
            arguments = json.loads(line)
            getattr(self, arguments.pop("do"))(**arguments)

        def connectionLost(self, reason: Any = None) -> None:
            loop.callFromThread(loop.stop)

        def open(self, key: str) -> None:
            upload = uploads.open(PackageKey.from_string(key))
            opened[upload.token] = upload
            self.say(token=upload.token)

        def files(self, token: str) -> None:
            files = {row.path: (row.size, row.sha256) for row in opened[token].files.values()}
            self.say(files=files, directory=str(opened[token].directory))

        def close(self, token: str) -> None:
            uploads.close(opened[token])
            self.say()

        def remove(self, token: str) -> None:
            uploads.remove(opened[token])
            self.say()

        def reconfigure(self, **arguments: Any) -> None:
            new = PackageServer(**{"port": loopback, "tree": tree, "uploads": uploads} | arguments)
            done = server.reconfigServiceWithSibling(new)
            done.addCallback(lambda _: self.say(port=server.port))

    async def run() -> None:
        log.startLogging(sys.stderr, setStdout=False)
        master: Any = MasterService()
        master.reactor = reactor
        await server.setServiceParent(master)
        await master.startService()
        loop.addSystemEventTrigger("before", "shutdown", master.stopService)
        control = Control()
        stdio.StandardIO(control)
        control.say(port=server.port)

    loop.callWhenRunning(lambda: ensureDeferred(run()))
    loop.run()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
