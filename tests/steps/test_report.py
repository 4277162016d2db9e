"""The report of a script to its step: what only the script can say, by the real bash and the real uploader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.output import Output
from tests.package_repositories import SCRIPTS

KEY = "0123456789abcdef0123456789abcdef"
COMMON = f'. "{SCRIPTS}/common.sh"\n'


def run(text: str, *arguments: str, stdin: str = f"{KEY}\n") -> subprocess.CompletedProcess[bytes]:
    """Run a script of this text, which begins with the common part."""
    command = ["bash", "-c", COMMON + text, "script", *arguments]
    return subprocess.run(command, input=os.fsencode(stdin), capture_output=True, timeout=60)


def read(finished: subprocess.CompletedProcess[bytes]) -> Output:
    """Read both streams of a script as its step does."""
    output = Output(KEY)
    for stream in (finished.stdout, finished.stderr):
        for line in stream.decode(errors="replace").split("\n"):
            output.feed(line)
    return output


def test_a_script_reports_values_and_its_status() -> None:
    """Values arrive with the exit status of a script that came to its end."""
    output = read(run("value tarball ceph-19.2.0.tar.bz2; value empty ''; value tarball twice"))
    assert (output.status, output.values) == (0, {"tarball": "twice", "empty": ""})


@pytest.mark.parametrize(
    "text",
    [
        "a b  c ", " ", "a=b", "100 %41", "two\nlines\n", "\t\r\x1b[2J\b", "ü€😀", "$(id) `id` \\ ' \"", "-n", "*", "+=x",
        ",".join(f"ceph-package-{number}" for number in range(400)), "%" * 3000,
    ],
)  # fmt: skip
def test_a_value_may_hold_anything(text: str) -> None:
    """A value arrives as it was, whatever it holds, in lines that a pipe and the worker keep whole."""
    finished = run('value name "$1"', text)
    assert read(finished).values == {"name": text}
    assert max(len(line) for line in finished.stdout.split(b"\n")) < 1200


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=80))
def test_any_text_is_a_value(text: str) -> None:
    """Any text that bash can hold arrives."""
    assert read(run('value name "$1"', text)).values == {"name": text}


def test_a_failure_is_one_sentence() -> None:
    """A script that fails reports its sentence on one line, its status, and no value."""
    finished = run("value packages ceph\nfail 'two' $'lines\\nin one'")
    output = read(finished)
    assert finished.returncode == 1
    assert (output.status, output.values, output.reason()) == (1, {}, "two lines in one")
    assert f"\n{KEY} FAILED: two lines in one\n" in finished.stderr.decode()


def test_a_failure_within_a_substitution_is_the_scripts() -> None:
    """The first sentence counts: that of a function whose output is caught, not what the script says of it."""
    output = read(run("found=$(fail 'no tag')\n"))
    assert (output.status, output.reason()) == (1, "no tag")
    assert read(run("found=$(fail 'no tag') || fail 'later'\n")).reason() == "no tag"


def test_a_command_that_set_e_ends_reports_its_status() -> None:
    """A script that ends without a sentence has its status reported, and the cause is in its output."""
    output = read(run("value packages ceph\nls /nowhere\n"))
    assert (output.status, output.values) == (2, {})
    assert output.reason() == "ls: cannot access '/nowhere': No such file or directory"


def test_a_script_leaves_no_temporary_files(tmp_path: Path) -> None:
    """A script removes its temporary files however it ends, and still reports."""
    for end, status in (("true", 0), ("fail no", 1), ("false", 1)):
        file, directory = tmp_path / "a b", tmp_path / "c"
        directory.mkdir()
        output = read(
            run(f'remove_at_end "$1" "$2"; echo x >"$1"; echo x >"$2/x"; {end}', str(file), str(directory))
        )
        assert output.status == status
        assert list(tmp_path.iterdir()) == []


CHILD = """\
import os, sys
seen = [*os.environ.values(), sys.stdin.read()]
pid = os.getpid()
while pid > 1 and pid != int(sys.argv[1]):
    for name in ("environ", "cmdline"):
        seen.append(open(f"/proc/{pid}/{name}", "rb").read().decode(errors="replace"))
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
print("SEEN" if any(sys.argv[2] in text[::-1] for text in seen) else "nothing", len(seen))
"""


def test_a_child_does_not_find_the_key() -> None:
    """The key is in no environment, in no command line, and not on the standard input of a child."""
    finished = run('python3 -c "$1" "$2" "$3"', CHILD, str(os.getpid()), KEY[::-1])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(b"nothing ")


def test_what_children_print_is_not_the_report() -> None:
    """Lines as a script without a key would print them, also late ones, are the build's."""
    finished = run(
        "(sleep 0.1; echo packages=ceph-common; echo FAILED: late) &\n"
        "echo tarball=elsewhere.tar.gz\necho 'FAILED: forged'\n"
        "value packages ceph\nwait"
    )
    output = read(finished)
    assert (output.status, output.values) == (0, {"packages": "ceph"})
    assert b"packages=ceph-common" in finished.stdout


def test_a_childs_unfinished_line_does_not_hide_the_report() -> None:
    """Output without an end of line, and bytes that are no text, may stand before each line of the report."""
    output = read(run("printf 'downloading 99%%'; printf '\\377\\200' >&2; value tarball x"))
    assert (output.status, output.values) == (0, {"tarball": "x"})
    output = Output(KEY)
    output.feed(f"progress {KEY} packages=a,")
    output.feed(f"12 %{KEY} packages+=b")
    output.feed(f"{KEY} exit 0")
    assert output.values == {"packages": "a,b"}


@pytest.mark.parametrize("stdin", ["", "no key\n", "0123456789ABCDEF0123456789ABCDEF\n", f"{KEY}0\n"])
def test_without_a_key_the_report_is_plain(stdin: str) -> None:
    """A script that is run by hand prints its values and its sentence as people read them."""
    finished = run("value packages 'a b'", stdin=stdin)
    assert (finished.stdout, finished.stderr, finished.returncode) == (b"packages=a b\n", b"", 0)
    finished = run("value packages x; fail 'it is so'", stdin=stdin)
    assert (finished.stdout, finished.stderr, finished.returncode) == (b"", b"FAILED: it is so\n", 1)


def test_the_uploader_reports_as_scripts_do(tmp_path: Path) -> None:
    """The uploader takes the key from its standard input and reports its failure with it."""
    finished = subprocess.run(
        [sys.executable, str(SCRIPTS / "upload.py"), "http://127.0.0.1:1/", "t/1", f"{tmp_path}=.", "--version", "1", "--packages", "a"],
        input=f"{KEY}\n".encode(), capture_output=True, env={**os.environ, "UPLOAD_TOKEN": "t"},
    )  # fmt: skip
    output = read(finished)
    assert (output.status, output.reason()) == (1, f"there are no files to upload in {tmp_path}=.")
