"""A repository of small trees around the real files of Ceph, one branch for each thing that a test looks at."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import tarfile
from typing import TYPE_CHECKING

from tests.git_repositories import commit, git, new_repository
from tests.real_ceph import debian_tree
from tests.real_ceph.spec_tree import short_spec
from tests.real_ceph.upstream_files import FILES, RELEASES, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DOWNLOADS = {
    "reef": ("boost_1_79_0.tar.bz2", "liburing-0.7.tar.gz", "pmdk-1.10.tar.gz"),
    "tentacle": ("boost_1_87_0.tar.bz2", "liburing-2.5.tar.gz", "pmdk-1.10.tar.gz"),
}
"""The downloads of the real make-dist, in the order of its checksums."""

_FRONTEND = "src/pybind/mgr/dashboard/frontend"

_VIRTUALENV = """\
#!/bin/sh
# Stands for the real setup-virtualenv.sh, which installs from PyPI.
set -e
mkdir -p "$1/bin"
for name in pip nodeenv; do printf '#!/bin/sh\\necho %s "$@"\\n' "$name" >"$1/bin/$name"; done
cat >"$1/bin/npm" <<'END'
#!/bin/sh
echo npm "$@"
mkdir -p dist
date -u -d @0 >dist/index.html
END
chmod 755 "$1/bin/pip" "$1/bin/nodeenv" "$1/bin/npm"
printf 'PATH=%s:$PATH\\ndeactivate() { :; }\\n' "$1/bin" >"$1/bin/activate"
"""

_SUBMODULE = "src/pybind/mgr/rook/rook-client-python"
"""The real generate_rook_ceph_client.sh copies files of it, and git-archive-all.sh fails without any submodule."""

_WGETRC = "check_certificate = off\n"
"""For SYSTEM_WGETRC, because the path begins at the checkout: the mirror stands for download.ceph.com, and has no certificate of its."""


@dataclasses.dataclass(frozen=True)
class Trees:
    """The repository, and the commit of each branch."""

    directory: Path
    commits: Mapping[str, str]


def stand_ins(release: str) -> dict[str, bytes]:
    """Return small archives by the names of those that make-dist downloads, with the directory that it expects in each."""
    made = {}
    for name in _DOWNLOADS[release]:
        top = re.sub(r"\.tar\.\w+$", "", name)
        stream = io.BytesIO()
        kind = "w:bz2" if name.endswith("bz2") else "w:gz"
        with tarfile.open(fileobj=stream, mode=kind) as archive:  # type: ignore[call-overload]
            content = f"stands for {top}\n".encode()
            entry = tarfile.TarInfo(f"{top}/README")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        made[name] = stream.getvalue()
    return made


def with_checksums(make_dist: str, archives: Mapping[str, bytes]) -> str:
    """Return make-dist with the checksums of these archives instead of the real ones; nothing else changes."""
    digests = [hashlib.sha256(data).hexdigest() for data in archives.values()]
    replaced, count = re.subn(r"\b[0-9a-f]{64}\b", lambda _: digests.pop(0), make_dist)
    assert count == len(archives), f"make-dist has {count} checksums"
    return replaced


def make(directory: Path, archives: Mapping[str, Mapping[str, bytes]]) -> Trees:
    """Make the repository; `archives` are the stand-ins by release, whose checksums the trees name.

    The branches: `RELEASE` has all packages; `RELEASE-some` a few; `RELEASE-whole-deps` a few, and all build dependencies;
    `RELEASE-untouched` the real make-dist as it is; `RELEASE-pypi` the real setup-virtualenv.sh.
    """
    submodule = new_repository(directory.with_name("rook-client-python.git"))
    pinned = commit(submodule, "client", {"rook_client/ceph.py": "generated = True\n"})
    repository = new_repository(directory)
    (repository / _SUBMODULE).mkdir(parents=True)
    commits: dict[str, str] = {}
    for name, release in RELEASES.items():
        fetched = fetch(release)
        real = {path: (fetched / path).read_text() for path in FILES}
        version = release.version
        base = {
            **real,
            "ceph.spec.in": short_spec(real["ceph.spec.in"]),
            "COPYING": "LGPL-2.1-only\n",
            "wgetrc": _WGETRC,
            "src/.gitignore": ".git_version\n",
            f"{_FRONTEND}/package.json": "{}\n",
            ".gitmodules": f'[submodule "{_SUBMODULE}"]\n\tpath = {_SUBMODULE}\n\turl = ../rook-client-python.git\n',
        }
        git(repository, "checkout", "--quiet", "--orphan", name)
        changed = {**base, "make-dist": with_checksums(real["make-dist"], archives[name])}
        stubbed = {"src/tools/setup-virtualenv.sh": _VIRTUALENV}
        whole = debian_tree.files(version, whole=True)
        some = debian_tree.files(version, whole=False)
        all_depends = debian_tree.files(version, whole=False, build_depends=debian_tree.BUILD_DEPENDS)
        git(repository, "update-index", "--add", "--cacheinfo", f"160000,{pinned},{_SUBMODULE}")
        commit(repository, f"Ceph {version}", {**changed, **stubbed, **whole})
        git(repository, "tag", "--annotate", "--message", f"v{version}", f"v{version}")
        for suffix, files in {
            "": {"AUTHORS": "A commit after the tag.\n"},
            "-some": some,
            "-whole-deps": {**some, **all_depends},
            "-untouched": {**some, "make-dist": real["make-dist"]},
            "-pypi": {**some, "src/tools/setup-virtualenv.sh": real["src/tools/setup-virtualenv.sh"]},
        }.items():
            if suffix:
                git(repository, "checkout", "--quiet", "-b", f"{name}{suffix}", f"v{version}")
            commits[f"{name}{suffix}"] = commit(repository, f"{name}{suffix}", files)
    return Trees(repository, commits)
