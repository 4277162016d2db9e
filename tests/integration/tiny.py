"""A tiny repository with a plain debian/ directory, whose builds take a second and do as they are told.

It has neither make-dist nor install-deps.sh, its rules call dpkg-deb without debhelper, and what a
commit does while it is built is a shell script that the test writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "Tiny <tiny@example.invalid>"

_CONTROL = """\
Source: tiny
Section: misc
Priority: optional
Maintainer: Tiny <tiny@example.invalid>
Standards-Version: 4.6.2
Rules-Requires-Root: no

"""
_PACKAGE = """\
Package: {name}
Architecture: all
Description: tiny package {name}
 Holds the number of its commit.

"""
_CHANGELOG = """\
tiny (1.0-1) unstable; urgency=medium

  * Begins.

 -- Tiny <tiny@example.invalid>  Thu, 22 Aug 2024 08:00:00 +0000
"""
_RULES = """\
#!/usr/bin/make -f
clean:
\trm -rf debian/built debian/files
build build-arch build-indep:
\tsh ./work
binary-arch:
binary binary-indep: build
\tfor name in {packages}; do \\
\t\tmkdir -p debian/built/$$name/DEBIAN debian/built/$$name/usr/share/$$name || exit 1; \\
\t\tcp number debian/built/$$name/usr/share/$$name/ || exit 1; \\
\t\tdpkg-gencontrol -p$$name -Pdebian/built/$$name || exit 1; \\
\t\tdpkg-deb --root-owner-group --build debian/built/$$name .. || exit 1; \\
\tdone
\t{after}
"""


@dataclass(frozen=True)
class Knobs:
    """What a commit is like."""

    work: str = "true"
    """Shell that runs as the compiler would."""
    after: str = "true"
    """Shell that runs when the debs are there, one line."""
    packages: tuple[str, ...] = ("tiny",)
    named: tuple[str, ...] = ()
    """Packages that debian/control names besides; nothing builds them."""
    debian: bool = True
    install_deps: str = ""
    """An install-deps.sh; without it, debian/control says what is needed."""
    make_dist: str = ""
    """A make-dist; without it, the tarball is what git archives."""


WHOLE = Knobs()
COMPILE_ERROR = replace(
    WHOLE, work="echo \"foo.c:1:1: error: expected ';' before 'bar'\"; echo noise; exit 1"
)
MISSING_PACKAGE = replace(WHOLE, named=("tiny-tools",))
TRUNCATED = replace(WHOLE, after="truncate -s 200 ../tiny_*.deb")
FORGERY = "echo packages=ceph-common; echo tarball=elsewhere.tar.gz; echo 'FAILED: forged'; echo exit 1"
HARMLESS = """\
echo "fatal: not a git repository (or any of the parent directories): .git"
echo "x.c:9:28: fatal error: y.h: No such file or directory"
echo "compilation terminated."
echo "going on without y.h"
"""
FORGING = replace(
    WHOLE,
    make_dist=f'{FORGERY}\ngit archive --prefix="ceph-$1/" -o "ceph-$1.tar.gz" HEAD\n{FORGERY}; exit 0',
    # Some of it comes when all else is done, and the last of it has no end of line.
    work=f"{HARMLESS}\n(sleep 4; {FORGERY}; printf packages=) &\n{FORGERY}",
)
FORGED_FAILURE = replace(
    FORGING, work=f"{FORGING.work}\necho \"foo.c:1:1: error: expected ';' before 'bar'\"; exit 1"
)
LEFT_BEHIND = replace(WHOLE, work="sleep 1000 &")
BACKGROUND = replace(WHOLE, work="setsid nohup sleep 1000 >/dev/null 2>&1 & echo background $!")


def sleeping(seconds: float) -> Knobs:
    """Give a commit whose build sleeps; the step's log says `asleep` by then."""
    return replace(WHOLE, work=f"echo asleep\nsleep {seconds:g}\n")


class Repository:
    """A bare repository that grows while it is served: each commit is on top of its branch."""

    def __init__(self, path: Path, *, tag: str = "v1.0") -> None:
        """Make it, with a first commit on `main`; `tag` is an annotated tag there, if any."""
        self.path = path
        self._number = 0
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--template=")
        self.git("symbolic-ref", "HEAD", "refs/heads/main")
        self.git("config", "uploadpack.allowFilter", "true")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")
        self.first = self.commit()
        if tag:
            self.tag(tag, self.first)

    def fork(self, path: Path) -> Repository:
        """Give a copy of its own without any tag."""
        shutil.copytree(self.path, path)
        made = copy(self)
        made.path = path
        for name in made.git("tag", "--list").split():
            made.git("tag", "--delete", name)
        return made

    def commit(self, knobs: Knobs = WHOLE, *, ref: str = "main", orphan: bool = False) -> str:
        """Add a commit to a branch, which begins at the first commit; give its sha1."""
        self._number += 1
        parent = "" if orphan else self.sha1(ref) or getattr(self, "first", "")
        stream = bytearray(
            f"commit refs/heads/{ref}\ncommitter {IDENTITY} {1724313600 + self._number} +0000\n"
            f"data 2\nc\n{f'from {parent}' if parent else ''}\ndeleteall\n".encode()
        )
        for name, text in self._files(knobs).items():
            mode = "100755" if text.startswith("#!") else "100644"
            stream += f"M {mode} inline {name}\ndata {len(text.encode())}\n{text}\n".encode()
        if orphan:
            self.git("update-ref", "-d", f"refs/heads/{ref}")
        self.git("fast-import", "--quiet", stdin=bytes(stream))
        return self.sha1(ref)

    def tag(self, name: str, sha1: str) -> None:
        """Put an annotated tag on a commit."""
        self.git("tag", "-a", "-m", name, name, sha1)

    def sha1(self, ref: str) -> str:
        """Give the commit that a branch or tag is at, or nothing."""
        return self.git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", check=False)

    def git(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
        """Run git in the repository, deaf to the machine's configuration; give what it says."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(self.path), "GIT_COMMITTER_NAME": "Tiny", "GIT_COMMITTER_EMAIL": "tiny@example.invalid",
            "GIT_COMMITTER_DATE": "1724313600 +0000",
        }  # fmt: skip
        ran = subprocess.run(["git", *arguments], env=environment, input=stdin, capture_output=True)
        assert ran.returncode == 0 or not check, ran.stderr.decode()
        return ran.stdout.decode().strip()

    def _files(self, knobs: Knobs) -> dict[str, str]:
        files = {
            "number": f"{self._number} of {self.path.parent.name}/{self.path.name}\n",
            "work": f"{knobs.work}\n",
        }
        if knobs.install_deps:
            files["install-deps.sh"] = f"#!/bin/bash\n{knobs.install_deps}\n"
        if knobs.make_dist:
            files["make-dist"] = f"#!/bin/bash\n{knobs.make_dist}\n"
        if knobs.debian:
            named = (*knobs.packages, *knobs.named)
            files |= {
                "debian/changelog": _CHANGELOG,
                "debian/control": _CONTROL + "".join(_PACKAGE.format(name=name) for name in named),
                "debian/rules": _RULES.format(packages=" ".join(knobs.packages), after=knobs.after),
                "debian/source/format": "3.0 (quilt)\n",
            }
        return files
