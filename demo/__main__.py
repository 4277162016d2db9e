"""The demonstration: from a commit to installed packages, debs and rpms, on this machine.

`make demo` calls it. Its exit status is 0 only if all of it held.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from demo import ceph_shaped, install, real_ceph, servers
from demo.rest import AskError, Master
from master import control
from master.settings import Settings, SettingsError, default_path
from master.users import operator_token
from model import layout
from model.package_key import PackageKey
from model.targets import Target
from workers.roots import Root, Roots, host_suite

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHECKOUT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.5
_DOWNLOADS_PORT = 9480
"""The shaped input's make-dist downloads from here unless its environment names another server."""


@dataclass(frozen=True)
class Input:
    """What the demonstration builds, and what of it gets installed and run."""

    name: str
    port: int
    settings_file: Path
    targets: tuple[str, ...]
    packages: tuple[str, ...]
    program: str
    keep_sources: bool
    first_port: int

    @property
    def directory(self) -> Path:
        """Where its repositories are."""
        return _CHECKOUT / "input" / self.name

    def import_repository(self, mirror: str | None) -> str:
        """Make the repositories unless they are there; give the commit to ask for."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.name == "shaped":
            return ceph_shaped.generate(self.directory).head_sha1
        return real_ceph.import_ceph(self.directory, mirror=mirror, report=say).sha1


def inputs() -> dict[str, Input]:
    """Give what there is to choose from."""
    return {
        "shaped": Input(
            "shaped", 9418, default_path(),
            (f"ceph-deb-{host_suite()}-x86_64-default", "ceph-rpm-centos9-x86_64-default"),
            ("ceph", "python3-ceph-argparse"), "@ROOT@/usr/bin/ceph --version", False, 8010,
        ),
        "ceph": Input(
            "ceph", 9419, _CHECKOUT / "settings-ceph.yaml",
            ("ceph-deb-trixie-x86_64-default",),
            (
                "cephadm", "ceph-volume", "python3-ceph-common", "python3-ceph-argparse",
                "ceph-mgr-modules-core", "ceph-mgr-cephadm", "ceph-mgr-dashboard", "ceph-mgr-rook",
                "ceph-mgr-k8sevents", "ceph-prometheus-alerts", "ceph-resource-agents", "cephfs-top",
                "ceph-erasure-code-plugins",
            ),
            "cephadm --help | head -n 3 && ceph-volume --help | head -n 3", True, 8020,
        ),
    }  # fmt: skip


def write_settings(chosen: Input) -> None:
    """Write a settings file that serves the input on loopback, unless there is one."""
    if chosen.settings_file.exists():
        return
    url = f"git://127.0.0.1:{chosen.port}/"
    apart = "" if chosen.name == "shaped" else f"-{chosen.name}"
    www, packages = chosen.first_port, chosen.first_port + 1
    text = yaml.safe_dump(
        {
            "git": {"allowed": [url]},
            "projects": {"ceph": {"git_url": f"{url}ceph.git", "canonical_url": f"{url}ceph.git"}},
            "targets": list(chosen.targets),
            "www": {"port": www, "url": f"http://127.0.0.1:{www}/"},
            "packages": {
                "port": packages,
                "url": f"http://127.0.0.1:{packages}/",
                "directory": f"packages{apart}",
                "staging": f"staging{apart}",
            },
            "workers": {
                "port": 9989 + chosen.first_port - 8010,
                "local": {"scratch": f"scratch{apart}"},
            },
            "state": f"state{apart}",
        },
        sort_keys=False,
    )
    chosen.settings_file.write_text(
        "# Written by `make demo`; every key is explained in settings.example.yaml.\n" + text
    )
    say(f"wrote {chosen.settings_file.name}")


def prepare_roots(settings: Settings, targets: Sequence[str]) -> Roots:
    """Make the roots that the builds and the clients need, telling what is done."""
    local = settings.workers.local
    roots = Roots(local.roots, local.mirrors)
    for name in targets:
        root = Root.of(Target.from_name(name), host_suite())
        for told in roots.prepare(root):
            say(f"{name}: {told}")
        if root.stand_in:
            say(f"{name}: {root.stand_in}")
    return roots


def build(master: Master, targets: Sequence[str], sha1: str) -> dict[str, dict[str, Any]]:
    """Ask for all targets at once, and show how far they are until all are done."""
    answers = {target: master.ask(target, sha1=sha1, reason="make demo") for target in targets}
    waiting: dict[str, int] = {}
    for target, answer in answers.items():
        if answer["state"] == "published":
            say(f"{target}: published already, so nothing is built")
        else:
            [waiting[target]] = answer["buildrequest_ids"].values()
            say(f"{target}: {answer['state']}, buildrequest {waiting[target]}")
    screen = Screen()
    while waiting:
        now = time.time()
        lines = []
        for target, buildrequest in list(waiting.items()):
            progress = master.progress(buildrequest, now)
            if progress.complete:
                del waiting[target]
                screen.clear()
                say(f"{target}: {progress.state}, {progress.elapsed:.0f} s, {progress.build_url}")
                if not progress.succeeded:
                    raise AskError(f"{target}: {progress.state}; its page: {progress.build_url}")
                for name, summary, seconds in master.steps(buildrequest):
                    print(f"    {seconds:4.0f} s  {name}: {summary}")
            else:
                bar = _bar(progress.percentage)
                lines.append(f"{target}  {progress.elapsed:4.0f} s  {bar}{progress.state}")
        screen.show(lines)
        time.sleep(_POLL_SECONDS)
    screen.clear()
    return answers


def check(chosen: Input, roots: Roots, settings: Settings, key: PackageKey) -> None:
    """Install from the published URLs with the real client, and run one program."""
    url = settings.packages.url
    say(f"{key.target}: installing {', '.join(chosen.packages)} in a throw-away root")
    if key.target.pkg_type == "deb":
        program = chosen.program.replace("@ROOT@", "")
        said = install.with_apt(key, url, roots, chosen.packages, program, keep_sources=chosen.keep_sources)
    else:
        said = install.with_dnf(key, url, roots, chosen.packages, chosen.program)
    for line in said.strip().splitlines()[-3:]:
        print(f"    {line}")


def show_how_to_use(settings: Settings, keys: Sequence[PackageKey], token: str) -> None:
    """Print the URLs, the lines to copy, and how to stop."""
    packages = settings.packages.url
    key_url = layout.url(packages, layout.KEY_FILE)
    print(f"\nweb UI and REST   {settings.www.url}   user operator, secret {token}")
    print(f"packages          {packages}")
    for key in keys:
        base = layout.url(packages, layout.sha1_path(key))
        print(f"\n{key.target}\n  {base}/")
        if key.target.pkg_type == "deb":
            print(f"  curl -s {key_url} | sudo tee /etc/apt/keyrings/ceph-on-demand.asc >/dev/null")
            print(
                "  echo 'deb [signed-by=/etc/apt/keyrings/ceph-on-demand.asc]"
                f" {base} {key.target.dist} main' | sudo tee /etc/apt/sources.list.d/ceph.list"
            )
        else:
            print(f"  sudo dnf -y install {base}/{layout.release_rpm(key.target)}")
    print("\nThe master stays up. `make stop` ends it and every worker process.")


class Screen:
    """The lines at the bottom of a terminal that change; without a terminal, a line a change."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self._shown: list[str] = []
        self._terminal = sys.stdout.isatty()

    def clear(self) -> None:
        """Take the lines away."""
        if self._terminal and self._shown:
            sys.stdout.write(f"\033[{len(self._shown)}A\033[J")
            self._shown = []

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those before."""
        if self._terminal:
            self.clear()
            width = os.get_terminal_size().columns
            self._shown = [line[: width - 1] for line in lines]
            sys.stdout.write("".join(f"{line}\n" for line in self._shown))
        else:
            states = [line.split("  ", 2)[0] + line[line.find(" s  ") :] for line in lines]
            for state, line in zip(states, lines, strict=True):
                if state not in self._shown:
                    print(f"  {line}")
            self._shown = states
        sys.stdout.flush()


def _bar(percentage: int | None) -> str:
    if percentage is None:
        return ""
    full = percentage // 5
    return f"[{'#' * full}{'.' * (20 - full)}] "


def say(text: str) -> None:
    """Tell what is being done."""
    print(f"* {text}", flush=True)


def run(chosen: Input) -> None:
    """Do all of it; what fails raises."""
    if os.geteuid() != 0:
        raise RuntimeError("the demonstration needs root: sudo make demo")
    write_settings(chosen)
    settings = Settings.from_file(chosen.settings_file)
    sha1 = chosen.import_repository(settings.workers.local.mirrors.get("debian"))
    say(f"input: commit {sha1} of {chosen.directory / 'ceph.git'}")
    servers.serve_repositories(chosen.directory, chosen.port)
    if chosen.name == "shaped":
        ceph_shaped.write_downloads(chosen.directory)
        servers.serve_downloads(chosen.directory, _DOWNLOADS_PORT)
    roots = prepare_roots(settings, chosen.targets)
    say(control.start(chosen.settings_file, settings))
    token = operator_token(settings.state)
    keys = [PackageKey(Target.from_name(name), sha1) for name in chosen.targets]
    build(Master(settings.www.url, token), chosen.targets, sha1)
    for key in keys:
        check(chosen, roots, settings, key)
    show_how_to_use(settings, keys, token)


def stop_all() -> None:
    """End the masters and servers of all inputs."""
    for chosen in inputs().values():
        servers.stop(chosen.directory)
        if chosen.settings_file.exists():
            print(control.stop(Settings.from_file(chosen.settings_file)))


def main() -> int:
    """Build Ceph packages on this machine, install them, and say how to use them."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=main.__doc__)
    parser.add_argument(
        "--input", choices=inputs(), default="shaped", help="what to build; ceph: a part of real Ceph 18.2.7"
    )
    parser.add_argument(
        "--stop", action="store_true", help="end the master, its workers and the demonstration's servers"
    )
    arguments = parser.parse_args()
    try:
        if arguments.stop:
            stop_all()
        else:
            run(inputs()[arguments.input])
    except (
        AskError, SettingsError, control.ControlError, install.InstallError,
        ceph_shaped.CephShapedError, real_ceph.RealCephError, servers.PortTaken,
    ) as error:  # fmt: skip
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"\nfailed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
