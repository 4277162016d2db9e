"""The cause that users see: logs written after the real tools, each with the line that a person would choose."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.cause import Cause

LOGS = Path(__file__).parent / "logs"
DEPENDENCIES = "Installing the build dependencies failed: "
TARBALL = "Making the source tarball failed: "
PACKAGES = "Building the packages failed: "
NO_TARBALL = f"{TARBALL}make-dist ended well, but left 0 files ceph-20.2.4-3-gc75eef5e.tar.* instead of one: "
SUBMODULES = "Checking out the commit failed: the submodules of 73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5 cannot be fetched: "
UNREACHABLE = (
    "Checking out the commit failed: https://git.example.org/me/ceph.git has no commit"
    " 73e2fc59c56ffde226d1974c4d494a4fbc3bb4d5, or cannot be reached: "
)

# A log; the line of it that a person would point at; how the sentence begins that ends with this line.
CAUSES = [
    ("apt-no-network", "E: Failed to fetch http://mirror.example.org/debian/pool/main/b/boost1.74/libboost-atomic1.74-dev_1.74.0%2bds1-21_amd64.deb  Temporary failure resolving 'mirror.example.org'", DEPENDENCIES),
    ("apt-unmet-dependency", "ceph-build-deps : Depends: libfmt-dev (>= 9.1) but it is not installable", DEPENDENCIES),
    ("checkbuilddeps-unmet", "dpkg-checkbuilddeps: error: Unmet build dependencies: libutf8proc-dev (>= 2.2.0) python3-prettytable", PACKAGES),
    ("checks-after-success", "", f"{PACKAGES}debian/control names ceph-test, but the build made no such deb"),
    ("cmake-missing-library", 'CMake Error at /usr/share/cmake-3.25/Modules/FindPackageHandleStandardArgs.cmake:230 (message): Could NOT find FUSE: Found unsuitable version "2.9.9", but required is at least "3.2" (found /usr/lib/x86_64-linux-gnu/libfuse.so)', PACKAGES),
    ("configure-pkg-config", "configure: error: Package requirements (libkmod >= 28) were not met: No package 'libkmod' found", PACKAGES),
    ("ctest", "The following tests FAILED: 2 - unittest_crypto (Failed)", PACKAGES),
    ("curl-not-found", "curl: (22) The requested URL returned error: 404", TARBALL),
    ("cython", "rbd.pyx:4871:40: Cannot assign type 'int (*)(uint64_t, size_t, int, void *) except? -1' to 'librbd_callback_t'. Exception values are incompatible.", PACKAGES),
    ("dh-missing-files", "dh_install: warning: ceph-volume missing files: usr/bin/ceph-volume-systemd", PACKAGES),
    ("dnf-builddep-missing", "No matching package to install: 'librabbitmq-devel >= 0.13'", DEPENDENCIES),
    ("dnf-no-network", "Error: Error downloading packages: gcc-toolset-13-gcc-c++-13.3.1-2.1.el9.x86_64: Cannot download, all mirrors were already tried without success", DEPENDENCIES),
    ("git-no-network", "fatal: unable to access 'https://git.example.org/me/ceph.git/': Could not resolve host: git.example.org", UNREACHABLE),
    ("git-submodule", "fatal: could not read Username for 'https://github.com': terminal prompts disabled", SUBMODULES),
    ("harmless-then-other", "alua.c:77:21: error: 'struct tcmu_device' has no member named 'alua_lock'", PACKAGES),
    ("linker-no-library", "/usr/bin/ld: cannot find -lrbd: No such file or directory", PACKAGES),
    ("linker-undefined", "/home/build/ceph/src/rgw/rgw_appmain.cc:402: undefined reference to `rgw::dmclock::make_scheduler(ceph::common::CephContext*)'", PACKAGES),
    ("make-burst-of-errors", "/home/build/ceph-19.2.0/src/mds/MDSAuthCaps.h:118:12: error: ‘optional’ in namespace ‘std’ does not name a template type", PACKAGES),
    ("make-j8-compile", "/home/build/src/osd/PG.cc:1412:9: error: ‘class PG’ has no member named ‘last_interval’; did you mean ‘past_intervals’?", PACKAGES),
    ("make-no-rule", "make[3]: *** No rule to make target '../src/isa-l/erasure_code/ec_multibinary.asm.s', needed by 'src/erasure-code/isa/ec_multibinary.asm.o'.  Stop.", PACKAGES),
    ("ninja-nested-try", "../src/common/TrackedOp.cc:233:1: error: no return statement in function returning non-void [-Werror=return-type]", PACKAGES),
    ("no-space-left", "dpkg-deb: error: writing to '../ceph-osd-dbg_19.2.0-3-g73e2fc59-1_amd64.deb' failed: No space left on device", PACKAGES),
    ("npm-no-network", "npm ERR! network request to https://npm.example.org/@angular%2fcli failed, reason: getaddrinfo ENOTFOUND npm.example.org", TARBALL),
    ("out-of-memory", "c++: fatal error: Killed signal terminated program cc1plus", PACKAGES),
    ("pip-metadata", "AttributeError: cython_sources", PACKAGES),
    ("pip-no-network", "ERROR: Could not find a version that satisfies the requirement nodeenv (from versions: none)", PACKAGES),
    ("pip-no-wheel", "src/common.h:15:10: fatal error: Python.h: No such file or directory", DEPENDENCIES),
    ("python-traceback", "KeyError: 'type'", PACKAGES),
    ("quilt-patch", "1 out of 2 hunks FAILED -- rejects in file rbd.c", PACKAGES),
    ("rpm-build-dependencies", "error: Failed build dependencies: libnbd-devel is needed by ceph-2:19.2.0-3.g73e2fc59.el9.x86_64", PACKAGES),
    ("rpm-unknown-macro", "/var/tmp/rpm-tmp.BQBsEV: line 33: fg: no job control", PACKAGES),
    ("rpm-unpackaged-files", "error: Installed (but unpackaged) file(s) found: /usr/bin/gwcli.py", PACKAGES),
    ("tar-truncated", "tar: Unexpected EOF in archive", PACKAGES),
    ("unknown-words", "check-options.sh: --zap-disk is described in ceph-deploy-osd.8, but the program does not have it", PACKAGES),
    ("wget-no-network", "wget: unable to resolve host address 'github.com'", NO_TARBALL),
    ("wget-not-installed", "./make-dist: line 47: wget: command not found", NO_TARBALL),
]  # fmt: skip


def cause(text: str) -> str:
    """Return the cause in a text."""
    found = Cause()
    for line in text.split("\n"):
        found.feed(line)
    return found.line


@pytest.mark.parametrize(("name", "line"), [row[:2] for row in CAUSES], ids=[row[0] for row in CAUSES])
def test_the_cause_is_what_a_person_points_at(name: str, line: str) -> None:
    """In each log the cause is the line that a person would point at."""
    assert cause((LOGS / f"{name}.log").read_text()) == line


def test_every_log_has_its_row() -> None:
    """No log is without a row, and each is as long as a log that hides its cause."""
    assert [name for name, _, _ in CAUSES] == sorted(path.stem for path in LOGS.iterdir())
    lengths = {path.stem: path.read_text().count("\n") for path in LOGS.iterdir()}
    assert {name: length for name, length in lengths.items() if not 40 <= length <= 300} == {}


HARMLESS = [
    "fatal: not a git repository (or any of the parent directories): .git\n",
    "dpkg-checkbuilddeps: error: Unmet build dependencies: cmake libaio-dev\nSetting up cmake (3.25.1-1) ...\n",
    "checking for y.h...\nx.c:9:28: fatal error: y.h: No such file or directory\ncompilation terminated.\nno\n",
    "FAILED: [code=1] a.o\ncc -c a.c\na.c:1:1: error: no\nninja: build stopped: subcommand failed.\nthe try failed\n",
    "make[5]: *** [Makefile:4: probe.o] Error 1\nmake[5]: Leaving directory '/x'\ngoing on without it\n",
    ("probe.c:3:3: error: no\nmake[6]: *** [Makefile:4: probe.o] Error 1\nmake[6]: *** Waiting for unfinished jobs....\n"
    "make[5]: *** [Makefile:1: all] Error 2\nchecking for the rest... yes\n"),
    "probe.c:3:3: error: no\nmake[1]: *** [Makefile:4: probe] Error 1\nmake[1]: [Makefile:9: optional] Error 1 (ignored)\ngoing on\n",
    "Traceback (most recent call last):\n  File \"x\", line 1\nModuleNotFoundError: No module named 'yaml'\n-- using our own\n",
    "E: Unable to locate package libfoo-dev\ntrying without\n",
    "W: Failed to fetch http://h/InRelease  Temporary failure resolving 'h'\nReading package lists...\n",
    "npm ERR! code ENOENT\nnpm ERR! network request to https://h failed\nusing the cache\n",
    "error: Bad exit status from /var/tmp/rpm-tmp.x (%check)\ngoing on\n",
    "CMake Error at x.cmake:1 (message):\n  nothing\n\n-- Configuring incomplete, errors occurred!\n-- trying the other\n",
    "\n\n", "[ 45%] Building CXX object a.cc.o\n", "    indented: error: x\n", "error:\n", "100 %\n", "\x1b[31mred\x1b[0m\n",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(HARMLESS) | st.text(max_size=40).map(lambda text: f"{text}\n"), max_size=8),
    st.sampled_from(CAUSES),
)
def test_what_came_before_does_not_matter(before: list[str], row: tuple[str, str, str]) -> None:
    """Whatever failed earlier and did not stop the build, the cause of a log stays what it is."""
    name, line, _ = row
    assert cause("".join(before) + (LOGS / f"{name}.log").read_text()) == line


OTHER_JOBS = [
    "[ 46%] Building CXX object src/CMakeFiles/other.dir/other.cc.o",
    "other.cc:7:2: warning: unused variable 'error' [-Wunused]",
    "checking for x.h... no",
    "conftest.c:22:10: fatal error: x.h: No such file or directory",
    "compilation terminated.",
    "npm WARN deprecated glob@7.2.3",
    "Traceback (most recent call last):",
    '  File "other.py", line 1, in <module>',
    "KeyError: 'other'",
    "other.cc:1:1: error: another",
    "make[7]: *** [Makefile:1: other.o] Error 1",
    "make[7]: *** Waiting for unfinished jobs....",
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(OTHER_JOBS), max_size=100),
    st.sampled_from([row for row in CAUSES if "*** Waiting" in (LOGS / f"{row[0]}.log").read_text()]),
)
def test_what_other_jobs_print_does_not_matter(others: list[str], row: tuple[str, str, str]) -> None:
    """After a failed make, the output of its other jobs changes nothing, even if it contains failures."""
    before, waiting, after = (
        (LOGS / f"{row[0]}.log").read_text().partition("*** Waiting for unfinished jobs....\n")
    )
    assert cause(before + waiting + "\n".join([*others, after])) == row[1]


@settings(deadline=None)
@given(st.lists(st.sampled_from("".join(HARMLESS).split("\n")) | st.text(max_size=60), max_size=40))
def test_any_log_can_be_read(lines: list[str]) -> None:
    """Whatever a build prints, it is read, and the cause is of one line or none."""
    text = "\n".join(lines)
    assert "\n" not in cause(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.cc:1:10: fatal error: boost/version.hpp: No such file or directory\na.cc:2:1: error: second\n",
         "a.cc:1:10: fatal error: boost/version.hpp: No such file or directory"),
        ("g++: internal compiler error: Killed (program cc1plus)\n", "g++: internal compiler error: Killed (program cc1plus)"),
        ("Reading package lists...\nE: Unable to locate package libfoo-dev\n", "E: Unable to locate package libfoo-dev"),
        ("error: pathspec 'x' did not match any file(s) known to git\n", "error: pathspec 'x' did not match any file(s) known to git"),
        ("sh: 1: cython3: not found\nmake: *** [debian/rules:3: build] Error 127\n", "sh: 1: cython3: not found"),
        ("make: *** [Makefile:5: all] Error 2\n", ""),
        ("cc -c a.c\nmake: *** [Makefile:5: all] Error 1\n", ""),
        ("sh: 1: cython3: not found\nFAILED: to build the module\n", "sh: 1: cython3: not found"),
        ("it cannot be\nmake: *** [Makefile:5: all] Error 1\n", "it cannot be"),
        ("a.c:1:1: error: a\nmake[1]: *** [M:1: a.o] Error 1\nmake[1]: *** Waiting for unfinished jobs....\n"
         + "cc -c other.c\n" * 50 + "b.c:1:1: error: b\nmake[1]: *** [M:1: b.o] Error 1\nmake: *** [M:1: all] Error 2\n",
         "a.c:1:1: error: a"),
        ("a.c:1:1: error: a\n" + "cc -c other.c\n" * 1000 + "make[1]: *** [M:1: a.o] Error 1\n", "a.c:1:1: error: a"),
        ("a.c:1:1: error: a\n" + "cc -c other.c\n" * 1000, ""),
        ("a.c:1:1: error: a\nmake: *** [M:1: a.o] Error 1\n" + "well\n" * 1000, ""),
        ("x error: y\n" + "a" * 100_000 + "\n", ""),
        ("a.c:1:1: error: " + "x" * 100_000 + "\n", "a.c:1:1: error: " + "x" * 984),
    ],
)  # fmt: skip
def test_short_logs(text: str, line: str) -> None:
    """The nearest failure counts, with the first line of its burst, if it is near enough to explain the end."""
    assert cause(text) == line


@pytest.mark.parametrize(
    "line",
    [
        "make[1]: Entering directory '/build'",
        "make[2]: Leaving directory '/build'",
        "make: *** [Makefile:5: all] Error 2",
        "g++ -Werror=format-security -c a.cc",
        "Setting up libgpg-error0:amd64 (1.46-1) ...",
        "-- Looking for error.h",
        "checking for error_at_line... yes",
        "checking for libfoo... not found",
        "Get:1 http://mirror.example.org bookworm InRelease",
        "[ 45%] Building CXX object error.cc.o",
        "errors: none",
        "0 errors, 0 warnings",
        "a.c:1:1: warning: unused variable 'error' [-Wunused]",
    ],
)
def test_harmless_lines_are_no_cause(line: str) -> None:
    """Lines that every good build prints are no cause, alone or after the real one."""
    assert cause(f"{line}\n") == ""
    assert cause(f"a.cc:3:5: error: real\n{line}\n") == "a.cc:3:5: error: real"


def test_memory_is_bounded() -> None:
    """A log of any length, with lines of any length, takes no more memory than a few lines."""
    chunk = [*"".join(HARMLESS).split("\n"), "a.c:1:1: error: " + "y" * 100_000, "plain " * 5000]
    found = Cause()
    for line in chunk:
        found.feed(line)
    tracemalloc.start()
    for number in range(200):
        for line in chunk:
            found.feed(f"{line}{number}")
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 100_000


@pytest.mark.parametrize("line", ["FAILED: " + "./ " * 22 + "x", "/" * 1000, "FAILED: " + "." * 980 + " x"])
def test_no_line_takes_the_reactor_long(line: str) -> None:
    """A line that a build can print at will is read in some microseconds: the master waits meanwhile."""
    found = Cause()
    before = time.thread_time()
    for _ in range(50):
        found.feed("a.cc:1:1: error: real")
        found.feed(line)
    assert time.thread_time() - before < 0.1
