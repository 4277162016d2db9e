"""What a contributor's code can reach while it is built, as root and without: next to nothing, and nothing for long."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo import ceph_shaped
from master.settings import Settings, SettingsError
from model.targets import Target
from tests.integration import tiny
from tests.integration.cloud_cases import Gate
from tests.integration.harness import DEB, ROOTS, Installation, tiny_installation
from workers.roots import BUILD_UID, Root, Roots, host_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIXIE = "ceph-deb-trixie-x86_64-default"
TOKENS_MADE = """
import secrets
from pathlib import Path

_real = secrets.token_urlsafe

def token_urlsafe(*arguments):
    made = _real(*arguments)
    with (Path(__file__).parent / "secrets").open("a") as file:
        file.write(made + "\\n")
    return made

secrets.token_urlsafe = token_urlsafe
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with two machines and targets of two distributions."""
    with tiny_installation(
        tmp_path_factory.mktemp("isolation"),
        patch=TOKENS_MADE,
        targets=[DEB, TRIXIE],
        workers={"start_timeout": 600},
    ) as made:
        yield made


def built(made: Installation, work: str, target: str = DEB) -> tuple[dict[str, Any], str]:
    """Build a commit that runs `work`; give the build and what its packages step said."""
    answer = made.ask(target, sha1=made.repository.commit(tiny.Knobs(work=work)))
    assert made.wait(answer)["results"] == 0, made.builds(answer)
    build = made.builds(answer)[-1]
    return build, made.log(build, "packages")


def of_root(root: Path) -> str:
    """Give a digest of every file of a root: its name, mode, owner, size and time."""
    digest = hashlib.sha256()
    for parent, directories, names in os.walk(root):
        directories.sort()
        for name in sorted(names + directories):
            path = os.path.join(parent, name)
            found = os.lstat(path)
            line = (
                f"{path} {found.st_mode} {found.st_uid}:{found.st_gid} {found.st_size} {found.st_mtime_ns}\n"
            )
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def test_trixie_packages_of_the_shaped_input_on_this_machine(here: Installation) -> None:
    """A target of another distribution is built in its own, and install-deps.sh leaves nothing in its root."""
    assert host_suite() != "trixie"
    path = here.input / "shaped"
    made = ceph_shaped.generate(path)
    here.serve_downloads()
    roots = Roots(ROOTS, here.settings.workers.local.mirrors)
    root = Root.of(Target.from_name(TRIXIE), host_suite())
    list(roots.prepare(root))
    status = roots.path(root) / "var/lib/dpkg/status"
    before, packages = of_root(roots.path(root)), status.read_bytes()
    shaped = {"sha1": made.head_sha1, "git_url": here.git_url.replace("/ceph.git", "/shaped/ceph.git")}
    here.repository.git("fetch", "--quiet", str(path / "ceph.git"), "refs/tags/v19*:refs/tags/v19*")
    answer = here.ask(TRIXIE, **shaped)
    assert here.wait(answer)["results"] == 0, here.builds(answer)
    [build] = here.builds(answer)
    steps = here.steps(build)
    assert "Debian GNU/Linux 13 (trixie)" in steps["machine"]["state_string"]
    assert "a stand-in" not in steps["machine"]["state_string"]
    directory = here.packages / TRIXIE / "sha1" / made.head_sha1
    assert (directory / "version").read_text() == f"19.2.0-3-g{made.head_sha1[:8]}-1trixie\n"
    assert "Codename: trixie" in (directory / "dists/trixie/Release").read_text()
    assert "Setting up ceph-build-deps" in here.log(build, "dependencies")
    assert (before, packages) == (of_root(roots.path(root)), status.read_bytes())


LOOK = """
look() {
    how=$1
    shift
    echo "== $how $*"
    "$@" 2>&1 | tr '\\0' '\\n' | sed "s/^/$how: /"
}
echo "uid=$(id -u) host=$(hostname)"
for how in '' 'sudo -n'; do
    who=${how:-plain}
    look "$who" $how id -u
    look "$who" $how ls -A /
    look "$who" $how sh -c 'cat /proc/*/environ; cat /proc/*/cmdline; ls /proc'
    for path in @PATHS@; do
        look "$who" $how ls -lR "$path"
        look "$who" $how find "$path" -type f -exec cat {} +
        look "$who" $how ls -l "/proc/1/root$path" "/proc/1/cwd$path" "/.old$path"
    done
    $how kill -9 @PID@ && echo "$who KILLED"
    $how mount -t tmpfs tmpfs /mnt && echo "$who MOUNTED tmpfs"
    $how mount -t proc proc /mnt && echo "$who MOUNTED proc"
    $how mount --bind / /mnt && echo "$who MOUNTED bind"
    $how mount -o remount,rw /proc/sys && echo "$who REMOUNTED"
    $how umount -l /proc && echo "$who UMOUNTED"
    $how mknod /tmp/disk-$$ b 8 0 && echo "$who MADE a device"
    $how mknod /tmp/null-$$ c 1 3 && echo "$who MADE a device"
    $how unshare --mount true && echo "$who UNSHARED mount"
    $how nsenter --target 1 --mount --pid true && echo "$who ENTERED"
    $how sh -c ': >>/proc/sys/kernel/core_pattern' && echo "$who may WRITE core_pattern"
    $how sh -c ': >>/proc/sysrq-trigger' && echo "$who may WRITE sysrq"
    $how hostname elsewhere && echo "$who RENAMED the host"
    $how dmesg && echo "$who READ dmesg"
    $how chroot /proc/1/root ls @STATE@ && echo "$who BROKE OUT"
done
echo looked
"""


def test_looking_around_finds_nothing(here: Installation) -> None:
    """Neither the master's files and processes nor its secrets are there, also not for the root inside."""
    victim = subprocess.Popen(["sleep", "987654"])
    private = [
        here.settings.state, here.settings_file, here.settings.packages.directory, here.settings.packages.staging,
        here.settings.workers.local.scratch, here.settings.workers.local.roots, here.input, here.directory,
    ]  # fmt: skip
    work = LOOK.replace("@PATHS@", shlex.join(str(path) for path in private))
    work = work.replace("@PID@", str(victim.pid)).replace("@STATE@", shlex.quote(str(here.settings.state)))
    try:
        _, said = built(here, work)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    assert "looked" in said
    assert f"uid={BUILD_UID} host=buildpackages" in said
    assert "sudo -n: 0" in said, "inside, the build may become root: that one is looked at, too"
    for word in (
        "KILLED",
        "MOUNTED",
        "MADE a",
        "UNSHARED",
        "ENTERED",
        "may WRITE",
        "RENAMED",
        "READ dmesg",
        "BROKE OUT",
    ):
        assert f" {word}" not in said, [line for line in said.splitlines() if f" {word}" in line]
    gpg = [path.stem for path in (here.settings.state / "gnupg/private-keys-v1.d").iterdir()]
    assert gpg
    secrets = (here.directory / "site/secrets").read_text().split()
    for secret in [
        here.token,
        *secrets,
        *gpg,
        "PRIVATE KEY",
        "987654",
        "buildbot.tac",
        "state.sqlite",
        "twistd",
    ]:
        assert secret not in said, secret
    # The build's own environment names its scratch directory, which is nowhere inside.
    names = ("BUILDPACKAGES_SCRATCH=", "OLDPWD=")
    seen = [line for line in said.splitlines() if line.startswith(("plain: ", "sudo -n: "))]
    seen = [line for line in seen if line.partition(": ")[2].startswith(names) is False]
    for path in private:
        found = [line for line in seen if str(path) in line]
        assert found, "it was looked for"
        for line in found:
            assert line.endswith(("No such file or directory", "Permission denied")), line


def test_background_process_ends_with_its_build(here: Installation) -> None:
    """Whatever a build leaves running, detached from everything, is killed when the build is over."""
    sleep = b"sleep\x0012345.5\x00"
    _, said = built(here, "setsid nohup sleep 12345.5 >/dev/null 2>&1 &\necho left")
    assert "left" in said
    here.until(lambda: not running(sleep), "the process is dead")
    here.until(lambda: not here.leftovers(), "nothing is left of the build")


def running(command: bytes) -> list[int]:
    """Give the processes of this machine with a command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == command:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_two_builds_do_not_see_one_another(here: Installation) -> None:
    """Two machines at once share neither processes nor files nor a host's semaphores."""
    meet = """
touch /tmp/i-am-@ME@ "$HOME/i-am-@ME@" /dev/shm/i-am-@ME@
sleep @ME@ &
@GATE@
echo "others: $(find /tmp /dev/shm "$HOME" -name 'i-am-*' | grep -v -- -@ME@ | wc -l)"
echo "sleepers: $(cat /proc/[0-9]*/comm | grep -c '^sle[e]p$')"
kill $!
"""
    with Gate(here.gate_port) as gate:
        answers = [
            here.ask(
                DEB,
                sha1=here.repository.commit(
                    tiny.Knobs(work=meet.replace("@ME@", me).replace("@GATE@", gate.knobs.work))
                ),
            )
            for me in ("5000.5", "5001.5")
        ]
        here.until(
            lambda: running(b"sleep\x005000.5\x00") and running(b"sleep\x005001.5\x00"), "both build at once"
        )
        gate.open()
        for answer in answers:
            assert here.wait(answer)["results"] == 0
            said = here.log(here.builds(answer)[-1], "packages")
            assert "others: 0" in said
            assert "sleepers: 1" in said


def test_each_boot_has_a_password_of_its_own(here: Installation) -> None:
    """Passwords are long, never used twice, and worthless once the machine is gone."""
    for _ in range(2):
        built(here, "true")
    made = (here.directory / "site/secrets").read_text().split()
    assert len(made) == len(set(made))
    assert min(len(one) for one in made) >= 32
    attached = subprocess.run(
        [sys.executable, "-c", ATTACH, str(here.settings.workers.port), *[one for one in made if len(one) == 32]],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert attached.stdout.split() == ["refused"] * 2 * len([one for one in made if len(one) == 32]), attached


ATTACH = """
import sys
from twisted.cred.credentials import UsernamePassword
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.spread.pb import PBClientFactory

async def attach():
    for password in sys.argv[2:]:
        for name in (b"local-1", b"local-2"):
            factory = PBClientFactory()
            reactor.connectTCP("127.0.0.1", int(sys.argv[1]), factory)
            try:
                await factory.login(UsernamePassword(name, password.encode()))
            except Exception:
                print("refused", flush=True)
            else:
                print("attached", flush=True)
            factory.disconnect()
    reactor.stop()

ensureDeferred(attach())
reactor.run()
"""


def test_stop_ends_every_worker(tmp_path: Path) -> None:
    """Stopped in mid-build, the master takes its machines along, within half a minute."""
    with tiny_installation(tmp_path) as made:
        for _ in range(2):
            made.ask(DEB, sha1=made.repository.commit(tiny.sleeping(4321.25)))
        made.until(lambda: len(running(b"sleep\x004321.25\x00")) == 2, "both build")
        # Had it not stopped in time, that would say that it was killed.
        made.stop()
        assert not made.pid
        assert running(b"sleep\x004321.25\x00") == []
        made.until(lambda: not made.leftovers(), "nothing is left", 10)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
@pytest.mark.parametrize("service", ["www", "packages", "workers"])
def test_only_loopback_is_served_unless_contributors_are_trusted(
    tmp_path: Path, service: str, host: str
) -> None:
    """A master that builds on its own machine refuses to start for the whole network."""
    made = Installation(tmp_path)
    data = yaml.safe_load(made.settings_file.read_text())
    data[service]["host"] = host
    made.settings_file.write_text(yaml.safe_dump(data))
    with pytest.raises(SettingsError, match=rf"{service}\.host: .* is not loopback"):
        Settings.from_file(made.settings_file)
    started = subprocess.run(
        [sys.executable, "-m", "master.control", "start", "--settings", str(made.settings_file)],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert started.returncode == 1
    assert f"{service}.host: '{host}' is not loopback" in started.stderr
    data["contributors_trusted"] = True
    made.settings_file.write_text(yaml.safe_dump(data))
    assert Settings.from_file(made.settings_file).contributors_trusted


def test_plain_processes(tmp_path: Path) -> None:
    """Without isolation a build is a plain process in a throw-away directory; it says so, and leaves nothing."""
    with tiny_installation(tmp_path, workers={"local": {"isolation": "none"}}) as made:
        build, said = built(made, "pwd; setsid nohup sleep 23456.5 >/dev/null 2>&1 &\necho left")
        assert "left" in said
        assert str(made.settings.workers.local.scratch) in said
        assert (
            "a plain process on the master's machine, for code that you trust"
            in (made.steps(build)["machine"]["state_string"])
        )
        made.until(lambda: not running(b"sleep\x0023456.5\x00"), "the process is dead")
        made.until(lambda: not made.leftovers(), "nothing is left of the build")
        made.ask(DEB, sha1=made.repository.commit(tiny.Knobs(work="setsid sleep 34567.5")))
        left = made.until(lambda: running(b"sleep\x0034567.5\x00"), "it builds")
        made.kill()
        made.start()
        made.until(lambda: not set(left) & set(running(b"sleep\x0034567.5\x00")), "what was left is dead", 30)
