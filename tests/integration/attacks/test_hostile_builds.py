"""Attacks by a build: on what is published, on its machine, on the package server with its own token, and on who reads its log."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration import tiny
from tests.integration.attacks.test_denial import MEBIBYTE, resident
from tests.integration.attacks.test_machine_life import TOKENS_MADE, python
from tests.integration.attacks.test_strangers import talk
from tests.integration.harness import DEB, ROOTS, Installation, tiny_installation
from tests.integration.test_isolation import of_root, running
from tests.patience import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

SUCCESS, FAILURE, CANCELLED = 0, 2, 6
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master with two machines."""
    with tiny_installation(
        tmp_path_factory.mktemp("hostile"), patch=TOKENS_MADE, workers={"attempts": 1}
    ) as made:
        yield made


def failed(here: Installation, knobs: tiny.Knobs) -> tuple[dict[str, Any], str]:
    """Build a commit that must fail; return the build and its sentence."""
    answer = here.ask(DEB, sha1=here.repository.commit(knobs, ref="hostile"))
    assert here.wait(answer)["results"] == FAILURE, here.said(answer)
    assert not (here.packages / answer["package_key"]).exists()
    [build] = here.builds(answer)
    return build, str(build["state_string"])


def properties(here: Installation, build: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a build's properties."""
    found = here.get(f"builds/{build['buildid']}/properties")["properties"][0]
    return {name: value for name, (value, _) in found.items()}


# B9

FORGED_VERSION = """\
echo version=99.9.9-evil
for script in ../scripts/*.sh; do echo 'value version 99.9.9-evil' >>"$script"; done
sed -i 's/^    data = {"version": version/    data = {"version": "99.9.9-evil"/' ../scripts/upload.py
grep -q evil ../scripts/upload.py && echo overwritten
"""


def test_b9_a_build_chooses_no_version(here: Installation) -> None:
    """The version is what git described before any code of the commit ran; a manifest with another one is refused."""
    build, sentence = failed(here, replace(tiny.WHOLE, install_deps=FORGED_VERSION))
    assert "overwritten" in here.log(build, "dependencies"), "the attack took place"
    version = properties(here, build)["version"]
    assert version.startswith("1.0-")
    assert sentence == f"Publishing failed: the manifest says version 99.9.9-evil, git {version}-1bookworm"


# C15

EVIL_TARBALL = "../../../../etc/passwd;$(touch /tmp/ran)`touch /tmp/ran`<script>alert(1)</script>"
EVIL_PACKAGES = "<img src=x onerror=alert(1)>,$(touch /tmp/ran),`touch /tmp/ran`;touch /tmp/ran,--version"
EVIL_VALUES = f"""\
cat >../scripts/tarball.sh <<'END'
. "$(dirname "$0")/common.sh"
value tarball '{EVIL_TARBALL}'
END
cat >../scripts/packages-deb.sh <<'END'
. "$(dirname "$0")/common.sh"
printf 'argument: %s\\n' "$@"
mkdir -p out/deb
echo x >out/deb/x.deb
value packages '{EVIL_PACKAGES}'
END
cat >../scripts/upload.py <<'END'
import os, sys
print("ran:", os.path.exists("/tmp/ran"))
for argument in sys.argv[1:]:
    print("argument:", argument)
sys.exit("no upload")
END
"""


def test_c15_values_of_a_build_are_arguments_and_text(here: Installation) -> None:
    """Values that a build reports run nothing, neither on its machine nor on the master's, and are shown as they are."""
    marks = [Path("/tmp/ran"), here.settings.state / "ran"]
    build, _ = failed(here, replace(tiny.WHOLE, install_deps=EVIL_VALUES))
    assert f"argument: {EVIL_TARBALL}\n" in here.log(build, "packages")
    uploaded = here.log(build, "upload")
    assert f"argument: {EVIL_PACKAGES}\n" in uploaded
    assert "ran: False\n" in uploaded
    assert not [mark for mark in marks if mark.exists()]
    assert here.steps(build)["tarball"]["state_string"] == EVIL_TARBALL
    answer = requests.get(f"{here.url}api/v2/builds/{build['buildid']}/steps", timeout=30)
    assert answer.headers["Content-Type"].startswith(("application/json", "text/plain"))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# C13

STAY = """
import ctypes, os, signal, socket, sys
for _ in range(3):
    if os.fork():
        os._exit(0)
    os.setsid()
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
listener = socket.socket()
listener.bind(("127.0.0.1", PORT))
listener.listen()
os.set_inheritable(listener.fileno(), True)
os.execve("/bin/sleep", ["sleep", "98761.5"], {})
"""
LEAVE = """
sudo -n cp /bin/bash /usr/local/bin/rootshell && sudo -n chmod 4755 /usr/local/bin/rootshell
sudo -n sh -c 'echo evil >/etc/cron.d/evil; echo evil >/var/cache/apt/archives/evil.deb; echo evil >>/etc/passwd; echo evil >/evil'
sudo -n chattr +i /evil
deep=.; for i in $(seq 300); do deep=$deep/d; done; mkdir -p "$deep"; chmod 0 d
ls -l /usr/local/bin/rootshell /evil
"""


def test_c13_nothing_of_a_build_stays(here: Installation) -> None:
    """A withdrawn build leaves no process, port, file or change of its root, though it detached and hid all it could."""
    [port] = free_ports(1)
    stay = python(STAY.replace("PORT", str(port)))
    work = f"{LEAVE}\n{{ {stay} }} &\nsudo -n sh -c '{{ setsid nohup sleep 98762.5 >/dev/null 2>&1 & }}'\necho placed; sleep 1000"
    [root] = [path for path in ROOTS.iterdir() if "bookworm" in path.name and path.is_dir()][:1]
    before = of_root(root)
    answer = here.ask(DEB, sha1=here.repository.commit(replace(tiny.WHOLE, work=work), ref="hostile"))
    commands = (b"sleep\x0098761.5\x00", b"sleep\x0098762.5\x00")
    here.until(lambda: all(running(command) for command in commands), "it has taken its places")
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        pass
    [build] = here.builds(answer)
    here.until(lambda: "placed" in here.log(build, "packages"), "it has left its files")
    assert "-rwsr-xr-x" in here.log(build, "packages")
    [number] = answer["buildrequest_ids"].values()
    body = {"jsonrpc": "2.0", "id": 1, "method": "withdraw", "params": {}}
    headers = {"Authorization": f"Bearer {here.token}"}
    assert requests.post(f"{here.url}api/v2/packages/{number}", json=body, headers=headers, timeout=60).ok
    assert here.wait(answer)["results"] == CANCELLED
    here.until(lambda: not here.leftovers(), "nothing is left of the build")
    assert [command for command in commands if running(command)] == []
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
    assert of_root(root) == before
    assert not Path("/evil").exists()


# C16

LOUD = f"""
echo '{MARKUP.replace("'", chr(34))}'
printf '\\033[2J\\033[31mred\\033]0;title\\007\\n'
head -c 20000000 /dev/zero | tr '\\0' x
echo; echo '</pre>{MARKUP.replace("'", chr(34))}' ; echo ended
exit 1
"""


def test_c16_a_line_without_an_end_holds_nobody_up(here: Installation) -> None:
    """A line without an end is stored in pieces while the API answers, and markup in a log is sent as text."""
    before = resident(here.pid)
    answer = here.ask(DEB, sha1=here.repository.commit(replace(tiny.WHOLE, work=LOUD), ref="hostile"))
    [number] = answer["buildrequest_ids"].values()
    slowest = 0.0
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        began = time.monotonic()
        [request] = here.get(f"buildrequests/{number}")["buildrequests"]
        slowest = max(slowest, time.monotonic() - began)
        if request["complete"]:
            break
        time.sleep(0.05)
    assert request["results"] == FAILURE
    assert slowest < 2
    [build] = here.builds(answer)
    [log] = [
        one
        for one in here.get(f"steps/{here.steps(build)['packages']['stepid']}/logs")["logs"]
        if one["name"] == "stdio"
    ]
    raw = requests.get(f"{here.url}api/v2/logs/{log['logid']}/raw", timeout=60)
    assert raw.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert raw.headers["X-Content-Type-Options"] == "nosniff"
    assert max(map(len, raw.text.splitlines())) <= 65536
    assert raw.text.count("x") > 1_000_000
    assert "\nended\n" in raw.text
    assert resident(here.pid) - before < 150 * MEBIBYTE


# D11

HOLD = """
import os, signal, time
while True:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = open(f"/proc/{entry}/cmdline").read()
            except OSError:
                continue
            if "scripts/upload.py" in command and command.startswith("python3"):
                os.kill(int(entry), signal.SIGSTOP)
                raise SystemExit
    time.sleep(0.001)
"""
BAD_PATHS = [
    *("", "../evil", "%2e%2e/evil", "pool/%2e%2e/%2e%2e/evil", "pool/./evil", ".evil", "pool/.evil", "pool//evil", "/evil"),
    *("%2fevil", "%2ftmp%2fevil", "evil%00", "evil%0a", "ev%20il", "..\\evil", "..%5cevil", "evil%5c", "%ff", "evil%c0%ae"),
    *("e" * 256, "e/" * 251, "<evil>", "-evil", "~evil", "%2e%2e%2f%2e%2e%2fevil", "evil/", "evil;", "evil%", "%zz"),
]  # fmt: skip
BAD_HEADS = [
    *("Content-Length: 4\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 4", "Content-Length: +4", "Content-Length: -4"),
    *("Content-Length: 4, 4", "Content-Length: 0x4", f"Content-Length: {10**30}", f"Content-Length: {10**13}", "X: y"),
    *("Transfer-Encoding: chunked", "Content-Length: 4\r\nTransfer-Encoding: chunked", "Content-Length : 4"),
    *("Content-Length: 4\r\nContent-Range: bytes 0-3/8", "Content-Length: 4\r\nContent-Digest: sha-256=:AAAA:"),
]  # fmt: skip


def stopped_upload() -> int:
    """Return the pid of a stopped process that uploads, or 0."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, stat = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
            except OSError:
                continue
            if b"scripts/upload.py" in command and stat.rpartition(")")[2].split()[0] == "T":
                return int(entry.name)
    return 0


def test_d11_the_token_of_a_build_uploads_nothing_odd(here: Installation) -> None:
    """A build that uploads gets no file to another key or place, or past the checks of a body, and can neither remove nor replace one."""
    hold = python(HOLD).replace("python3", "setsid nohup python3", 1)
    knobs = replace(tiny.WHOLE, work=f"{{ {hold} }} >/dev/null 2>&1 &\n")
    other = f"{DEB}/{here.repository.commit(ref='other')}"
    answer = here.ask(DEB, sha1=here.repository.commit(knobs, ref="hostile"))
    key = answer["package_key"]
    pid = here.until(stopped_upload, "it uploads")
    token = [one for one in (here.directory / "site/tokens").read_text().split() if len(one) == 43][-1]
    staging = here.settings.packages.staging
    before = sorted(staging.rglob("*"))

    def status(method: str, path: str, *, secret: str = token, head: str = "Content-Length: 4") -> int:
        lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n{head}\r\n\r\nevil"
        said = talk(here.settings.packages.port, lines.encode())
        return int(said.split(b" ", 2)[1])

    try:
        refused = {
            **{("PUT", path): status("PUT", f"/upload/{key}/{path}") for path in BAD_PATHS},
            **{("head", head): status("PUT", f"/upload/{key}/evil.deb", head=head) for head in BAD_HEADS},
            **{
                ("key", named): status("PUT", f"/upload/{named}/evil.deb")
                for named in (
                    other,
                    key.upper(),
                    f"{key}x",
                    f"{DEB}/..",
                    "x",
                    f"x/../{key}",
                    key.replace("/", "%2f"),
                )
            },
            **{
                ("secret", secret): status("PUT", f"/upload/{key}/evil.deb", secret=secret)
                for secret in ("", token[:-1], token.lower(), f"{token}x", f"{token} {token}", here.token)
            },
            **{
                (method, ""): status(method, f"/upload/{key}/manifest.json")
                for method in ("GET", "POST", "DELETE", "MOVE", "COPY", "MKCOL", "PATCH", "PROPFIND", "put")
            },
        }
        assert {what: code for what, code in refused.items() if not 400 <= code < 500} == {}
        assert sorted(staging.rglob("*")) == before
        assert not list(here.packages.rglob("*evil*"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert here.wait(answer)["results"] == SUCCESS, here.said(answer)
    assert status("PUT", f"/upload/{key}/late.deb") == 401
