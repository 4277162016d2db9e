"""Uploads side by side: our package server, and nginx's DAV module; `python -m bench.upload`.

Both take the same files from the same `curl -T` in the same run, by turns; a third row is our own
uploader, which also hashes. Figures are medians, and for lag the worst besides. CPU is the
server's, in seconds a GiB. Lag is how late a call that is due every 5 ms comes in our server's
reactor, at worst; in nginx's rows that reactor is idle, so they show what the machine itself adds.
"Own" lag leaves out the time that the reactor's thread was ready and the kernel gave it no
processor. Growth is of our server's resident set, at its peak.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT = Path(__file__).parent.parent
_KEY = "ceph-deb-jammy-x86_64-default/0123456789abcdef0123456789abcdef01234567"
_MIB = 1024 * 1024
_TICK = 0.005
_SETS = {"1 GiB in 135 files": (135, 1024 * _MIB), "one file of 2 GiB": (1, 2048 * _MIB)}

_NGINX = """
daemon off;
{user}worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/dav;
        location / {{
            dav_methods PUT;
            create_full_put_path on;
        }}
    }}
}}
"""


class Run(NamedTuple):
    """One upload of one set of files."""

    seconds: float
    cpu: float


class Server(Protocol):
    """What is measured."""

    def upload(self, send: Callable[[str, str], None]) -> Run:
        """Measure what `send` does."""


def _timed(pids: list[int], send: Callable[[], None]) -> Run:
    cpu, began = sum(map(_cpu, pids)), time.monotonic()
    send()
    return Run(time.monotonic() - began, sum(map(_cpu, pids)) - cpu)


class PackageServerUnderTest:
    """Our server in a process of its own."""

    def __init__(self, directory: Path) -> None:
        """Start it; returns once it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.upload", "--serve", str(directory)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self._read()['port']}/upload/{_KEY}/"

    def upload(self, send: Callable[[str, str], None]) -> Run:
        """Measure what `send` does with a URL and a token."""
        token = self._ask("open")["token"]
        run = _timed([self.process.pid], lambda: send(self.url, token))
        self._ask("close")
        return run

    def watch(self) -> tuple[float, float, float]:
        """Give the lag and our own part of it (ms), and the growth (MiB), since the last call."""
        seen = self._ask("watch")
        return seen["lag"] * 1000, seen["own"] * 1000, seen["growth"] / _MIB

    def stop(self) -> None:
        """End it."""
        self.process.communicate()

    def _ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


class NginxUnderTest:
    """A real nginx that takes PUT."""

    def __init__(self, directory: Path) -> None:
        """Start it; returns once it listens."""
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (directory / "dav").mkdir(parents=True)
        user = "user root;\n" if os.geteuid() == 0 else ""
        text = _NGINX.format(directory=directory, port=port, user=user)
        (directory / "nginx.conf").write_text(text)
        command = ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")]
        self.process = subprocess.Popen([*command, "-e", str(directory / "error.log")])
        self.url = f"http://127.0.0.1:{port}/"
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"nginx does not listen; see {directory}/error.log")

    def upload(self, send: Callable[[str, str], None]) -> Run:
        """Measure what `send` does with a URL."""
        pids = [self.process.pid, *_children(self.process.pid)]
        run = _timed(pids, lambda: send(self.url, ""))
        shutil.rmtree(self.directory / "dav")
        (self.directory / "dav").mkdir()
        return run

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def make_files(directory: Path, count: int, size: int) -> None:
    """Make files of together `size` bytes, of sizes as far apart as packages have."""
    weights = [1 + (index * 7919 % count) ** 2 for index in range(count)]
    block = os.urandom(_MIB)
    for index, weight in enumerate(weights):
        path = directory / "pool" / f"part{index % 9}" / f"package{index}_1.0_amd64.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        left = size * weight // sum(weights)
        with path.open("wb") as file:
            while left > 0:
                left -= file.write(block[: min(left, _MIB)])


def by_curl(directory: Path) -> Callable[[str, str], None]:
    """Send all files through one `curl`, which keeps its connection."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())

    def send(url: str, token: str) -> None:
        lines = [f'header = "Authorization: Bearer {token}"' if token else ""]
        for path in paths:
            lines.append(f'upload-file = "{path}"')
            lines.append(f'url = "{url}{path.relative_to(directory)}"')
        command = ["curl", "--fail", "-sS", "-o", "/dev/null", "--config", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True, stdout=subprocess.DEVNULL)

    return send


def by_uploader(directory: Path) -> Callable[[str, str], None]:
    """Send all files through the script that workers run."""
    script = _ROOT / "steps/scripts/upload.py"

    def send(url: str, token: str) -> None:
        base = url.partition("upload/")[0]
        command = [sys.executable, str(script), base, _KEY, f"{directory}=.", "--version", "1"]
        environment = os.environ | {"UPLOAD_TOKEN": token}
        subprocess.run(
            [*command, "--packages", "package0"],
            check=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    return send


def measure(directory: Path, runs: int) -> Iterator[str]:
    """Give the lines of a table."""
    yield "| files | way | MiB/s | of nginx | server CPU s/GiB | lag ms (worst) | own lag ms (worst) | growth MiB |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    ours = PackageServerUnderTest(directory / "ours")
    nginx = NginxUnderTest(directory / "nginx")
    try:
        for name, (count, size) in _SETS.items():
            files = directory / f"files{count}"
            make_files(files, count, size)
            curl, uploader = by_curl(files), by_uploader(files)
            ways: dict[str, tuple[Server, Callable[[str, str], None]]] = {
                "curl -T to nginx, DAV": (nginx, curl),
                "curl -T to the package server": (ours, curl),
                "upload.py to the package server": (ours, uploader),
            }
            results: dict[str, list[tuple[Run, float, float, float]]] = {way: [] for way in ways}
            for _ in range(runs):
                for way, (server, send) in ways.items():
                    os.sync()
                    ours.watch()
                    results[way].append((server.upload(send), *ours.watch()))
            shutil.rmtree(files)
            yield from _rows(name, size, results)
    finally:
        ours.stop()
        nginx.stop()


def _rows(name: str, size: int, results: dict[str, list[tuple[Run, float, float, float]]]) -> Iterator[str]:
    base = 0.0
    for way, measured in results.items():
        runs, lags, own, growths = zip(*measured, strict=True)
        seconds = median(run.seconds for run in runs)
        base = base or seconds
        cpu = median(run.cpu for run in runs) * 1024 * _MIB / size
        yield (
            f"| {name} | {way} | {size / _MIB / seconds:.0f} | {base / seconds:.2f} | {cpu:.2f} "
            f"| {median(lags):.0f} ({max(lags):.0f}) | {median(own):.0f} ({max(own):.0f}) | {max(growths):.0f} |"
        )


def serve(directory: Path) -> None:
    """Run our server; open and close uploads, and tell what was seen, as standard input asks."""
    from buildbot.util.service import MasterService
    from twisted.internet import reactor, stdio
    from twisted.internet.defer import ensureDeferred
    from twisted.internet.task import LoopingCall
    from twisted.internet.threads import deferToThread
    from twisted.protocols.basic import LineReceiver

    from master.package_server.service import PackageServer
    from master.publishing.uploads import Upload, Uploads
    from model.package_key import PackageKey

    loop: Any = reactor
    (directory / "tree").mkdir(parents=True)
    uploads = Uploads(directory / "staging")
    server = PackageServer(port="tcp:0:interface=127.0.0.1", tree=str(directory / "tree"), uploads=uploads)

    class Control(LineReceiver):
        delimiter = b"\n"
        upload: Upload
        lag = own = 0.0
        last, waited = time.monotonic(), 0.0
        resident = 0

        def tick(self) -> None:
            now, waited = time.monotonic(), _waited()
            late = now - self.last - _TICK
            self.lag, self.own = max(self.lag, late), max(self.own, late - (waited - self.waited))
            self.last, self.waited = now, waited

        def say(self, **answer: Any) -> None:
            self.sendLine(json.dumps(answer).encode())

        def lineReceived(self, line: bytes) -> None:
            if line == b"open":
                self.upload = uploads.open(PackageKey.from_string(_KEY))
                self.say(token=self.upload.token)
            elif line == b"watch":
                self.say(lag=self.lag, own=self.own, growth=_peak() - self.resident)
                Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
                self.lag, self.own, self.resident = 0.0, 0.0, _peak()
            else:
                done = deferToThread(uploads.remove, self.upload)
                done.addCallback(lambda _: self.say())

        def connectionLost(self, *_: Any) -> None:
            loop.callFromThread(loop.stop)

    async def run() -> None:
        master: Any = MasterService()
        master.reactor = reactor
        await server.setServiceParent(master)
        await master.startService()
        loop.addSystemEventTrigger("before", "shutdown", master.stopService)
        control = Control()
        stdio.StandardIO(control)
        LoopingCall(control.tick).start(_TICK)
        control.say(port=server.port)

    loop.callWhenRunning(lambda: ensureDeferred(run()))
    loop.run()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no VmHWM")


def _waited() -> float:
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> None:
    """Measure, print a table, and leave nothing behind."""
    parser = argparse.ArgumentParser(prog="python -m bench.upload", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each, for the median")
    parser.add_argument("--directory", type=Path, help="where 10 GB are free (default: /tmp)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    directory = Path(mkdtemp(prefix="bench-upload-", dir=arguments.directory))
    try:
        for line in measure(directory, arguments.runs):
            print(line, flush=True)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
