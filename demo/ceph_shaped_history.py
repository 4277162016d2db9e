"""The commits of the Ceph-shaped repository, as files of the template tree and edits of them."""

from __future__ import annotations

from dataclasses import dataclass

OLD_TAG = "v18.2.7"
TAG = "v19.2.0"


@dataclass(frozen=True)
class Edit:
    """Replaces one text of a file, which must be there exactly once, by another."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Commit:
    """A commit that adds `files` of the template tree and then makes `edits`."""

    subject: str
    files: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    adds_submodule: bool = False


ERASURE_CODE_HISTORY = (
    Commit("gf256: multiply and divide", files=("README.md", "gf256.cc", "gf256.h")),
    Commit(
        "reed_solomon: any k chunks give the data back",
        files=("CMakeLists.txt", "reed_solomon.cc", "reed_solomon.h"),
    ),
)
UNTIL_REEF = (
    Commit(
        "common: ceph.conf, checksums, hashes and the version",
        files=(
            ".gitignore",
            "COPYING",
            "README.md",
            "src/ceph_release",
            "src/ceph_ver.h.in",
            "src/common/conf_file.cc",
            "src/common/conf_file.h",
            "src/common/crc32c.cc",
            "src/common/crc32c.h",
            "src/common/hash.cc",
            "src/common/hash.h",
            "src/common/version.cc",
            "src/common/version.h",
        ),
    ),
    Commit("crush: draw straws", files=("src/crush/placement.cc", "src/crush/placement.h")),
    Commit("erasure-code: as a submodule", files=(".gitmodules",), adds_submodule=True),
    Commit(
        "tools: ceph, ceph-conf and ceph-erasure-code-tool",
        files=(
            "CMakeLists.txt",
            "PendingReleaseNotes",
            "src/CMakeLists.txt",
            "src/tools/ceph.cc",
            "src/tools/ceph_conf.cc",
            "src/tools/crimson_osd.cc",
            "src/tools/ceph_erasure_code_tool.cc",
        ),
    ),
    Commit("pybind: ceph_argparse", files=("src/pybind/ceph_argparse/__init__.py",)),
    Commit("make-dist, install-deps.sh: build from a checkout", files=("install-deps.sh", "make-dist")),
    Commit(
        "debian, rpm: 18.2.7",
        files=(
            "ceph.spec.in",
            "debian/ceph-common.install",
            "debian/ceph-osd-crimson.install",
            "debian/ceph-osd.install",
            "debian/changelog",
            "debian/compat",
            "debian/control",
            "debian/copyright",
            "debian/python3-ceph-argparse.install",
            "debian/rules",
        ),
    ),
)
UNTIL_SQUID = (
    Commit(
        "install-deps.sh: FOR_MAKE_CHECK says yes or no",
        edits=(
            Edit(
                "install-deps.sh",
                """\
if tty -s; then
    # interactive
    for_make_check=true
elif [ "$FOR_MAKE_CHECK" ]; then
    for_make_check=true
fi
""",
                """\
if [ "$FOR_MAKE_CHECK" ]; then
    case "$FOR_MAKE_CHECK" in
    true | 1 | yes) for_make_check=true ;;
    false | 0 | no) for_make_check=false ;;
    *)
        echo "error: unexpected FOR_MAKE_CHECK value: $FOR_MAKE_CHECK"
        exit 2
        ;;
    esac
elif tty -s; then
    # interactive
    for_make_check=true
fi
""",
            ),
        ),
    ),
    Commit(
        "debian, rpm: 19.2.0",
        edits=(
            Edit("src/ceph_release", "18\nreef\n", "19\nsquid\n"),
            Edit("PendingReleaseNotes", ">=18.2.7\n", ">=19.2.0\n"),
            Edit(
                "debian/changelog",
                "ceph (18.2.7-1) stable;",
                """\
ceph (19.2.0-1) stable; urgency=medium

  * New upstream release.

 -- On-demand Ceph packages <packages@example.invalid>  Thu, 26 Sep 2024 12:00:00 +0000

ceph (18.2.7-1) stable;""",
            ),
            Edit(
                "ceph.spec.in",
                "%changelog\n",
                """\
%changelog
* Thu Sep 26 2024 On-demand Ceph packages <packages@example.invalid> - 19.2.0-0
- New upstream release.

""",
            ),
        ),
    ),
)
AFTER_TAG = (
    Commit("src: squid is in development again", edits=(Edit("src/ceph_release", "stable", "dev"),)),
    Commit(
        "ceph: map onto eight OSDs where nothing is said",
        edits=(Edit("src/tools/ceph.cc", ": 6);", ": 8);"),),
    ),
    Commit(
        "PendingReleaseNotes: ceph osd map",
        edits=(
            Edit(
                "PendingReleaseNotes",
                ">=19.2.0\n",
                ">=19.2.1\n\n* ceph osd map: eight OSDs by default.\n\n>=19.2.0\n",
            ),
        ),
    ),
)
ON_WIP = (
    Commit(
        "ceph: say in the usage which branch it is",
        edits=(Edit("src/tools/ceph.cc", '[OSDS]\\n";', '[OSDS]\\n"\n    "built from wip/demo\\n";'),),
    ),
)
