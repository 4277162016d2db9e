"""The pure parts of `demo.real_ceph`: no network, no apt, and none of Ceph's own text; the stanzas are written by hand."""

from __future__ import annotations

import hashlib
import stat
import subprocess
from pathlib import Path

import pytest

from demo import real_ceph
from demo.real_ceph import (
    RealCephError,
    SourceFile,
    cut_files,
    fetch_source,
    import_ceph,
    parse_uris,
    pick_mirror,
    reduce_control,
    related,
    relations,
    unpack,
    upstream_version,
    verify,
)

ORIG = "a" * 64
DEBIAN = "b" * 64
URIS = f"""\
Reading package lists...
NOTICE: 'ceph' packaging is maintained in the 'Git' version control system at:
https://packaging.example.org/ceph.git
Need to get 148 MB of source archives.
'http://archive.example.org/pool/c/ceph/ceph_18.2.7%2bds-1.dsc' ceph_18.2.7+ds-1.dsc 8870 SHA256:{"c" * 64}
'http://archive.example.org/pool/c/ceph/ceph_18.2.7%2bds.orig.tar.xz' ceph_18.2.7+ds.orig.tar.xz 1483 SHA256:{ORIG}
'http://archive.example.org/pool/c/ceph/ceph_18.2.7%2bds-1.debian.tar.xz' ceph_18.2.7+ds-1.debian.tar.xz 14 SHA256:{DEBIAN}
"""

CONTROL = """\
Source: pond
Section: admin
Maintainer: Team <team@example.org>
Uploaders:
 Somebody <somebody@example.org>,
Build-Depends:
 cmake (>= 3.30),
 default-jdk,
 libfish-dev [amd64 arm64],
 nasm [amd64],
Vcs-Git: https://packaging.example.org/pond.git

Package: pond
Architecture: linux-any
Depends:
 pond-server (= ${binary:Version}),
 ${misc:Depends},
Description: everything

Package: pond-server
Architecture: linux-any
Description: the server

Package: pond-tool
Architecture: all
Depends:
 lvm2,
 pond-library (= ${source:Version}),
 pond-server (<< ${source:Version}.1~),
 pond-server (>= ${source:Version}),
 pond | other-pond,
 ${misc:Depends},
Suggests:
 fishing-rod,
Description: a tool
 A longer text
 .
 of two paragraphs.

Package: pond-library
Architecture: all
Depends: ${misc:Depends}
Description: a library
"""

OWN = """\
Source: pond
Maintainer: Us <us@example.invalid>

Package: pond-plugins
Architecture: linux-any
Depends: ${shlibs:Depends}
Breaks: pond-server
Description: plugins
"""

REDUCED = """\
Source: pond
Section: admin
XSBC-Original-Maintainer: Team <team@example.org>
Build-Depends:
 cmake (>= 3.30),
 nasm [amd64],
Maintainer: Us <us@example.invalid>

Package: pond-library
Architecture: all
Depends:
 ${misc:Depends},
Description: a library

# The cut does not build pond-server: suggested here, a dependency in Debian.
Package: pond-tool
Architecture: all
Depends:
 lvm2,
 pond-library (= ${source:Version}),
 pond | other-pond,
 ${misc:Depends},
Suggests:
 fishing-rod,
 pond-server,
Description: a tool
 A longer text
 .
 of two paragraphs.

Package: pond-plugins
Architecture: linux-any
Depends:
 ${shlibs:Depends},
Breaks:
 pond-server,
Description: plugins
"""


def source_file(content: bytes, name: str = "ceph_18.2.7+ds.orig.tar.xz") -> SourceFile:
    """Return what an index would say of `content`."""
    return SourceFile("http://archive.example.org/x", name, len(content), hashlib.sha256(content).hexdigest())


# --- fetch


def test_the_first_debian_archive_of_the_host_is_the_mirror() -> None:
    """A security archive or another vendor's repository is passed over: the source package may not be there."""
    targets = (
        "Debian\tDebian-Security\thttp://security.example.org/\n"
        "Vendor\tVendor\thttp://vendor.example.org/\n"
        "Debian\tDebian\thttp://archive.example.org/debian/\n"
        "Debian\tDebian\thttp://second.example.org/debian/\n"
    )
    assert pick_mirror(targets) == "http://archive.example.org/debian/"


@pytest.mark.parametrize(
    "targets", ["", "Ubuntu\tUbuntu\thttp://archive.example.org/ubuntu/\n", "Debian\tDebian\t\n"]
)
def test_no_debian_archive_is_a_sentence_that_says_how_to_name_one(targets: str) -> None:
    """A machine that is no Debian, or never ran apt-get update, is told what to do."""
    with pytest.raises(RealCephError, match=r"names no Debian archive .* apt-get update, .* --mirror"):
        pick_mirror(targets)


def test_both_tarballs_are_read_from_print_uris_and_the_dsc_is_not() -> None:
    """The notices that apt prints on stdout are skipped, and a mirror without the .dsc does no harm."""
    assert parse_uris(URIS) == (
        SourceFile(
            "http://archive.example.org/pool/c/ceph/ceph_18.2.7%2bds.orig.tar.xz",
            "ceph_18.2.7+ds.orig.tar.xz",
            1483,
            ORIG,
        ),
        SourceFile(
            "http://archive.example.org/pool/c/ceph/ceph_18.2.7%2bds-1.debian.tar.xz",
            "ceph_18.2.7+ds-1.debian.tar.xz",
            14,
            DEBIAN,
        ),
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no file with a SHA256"),
        (URIS.replace(f"SHA256:{ORIG}", f"MD5Sum:{ORIG[:32]}"), "ceph_18.2.7+ds-1.debian.tar.xz"),
        (URIS.replace(".debian.tar", ".orig-extra.tar"), "orig-extra"),
    ],
)
def test_a_source_package_of_another_shape_is_refused(text: str, found: str) -> None:
    """Without a SHA-256 for both tarballs nothing is fetched."""
    with pytest.raises(
        RealCephError, match="is not one orig and one debian tarball but: .*" + found.replace("+", r"\+")
    ):
        parse_uris(text)


def test_the_version_is_upstreams_own() -> None:
    """Debian's suffix for a repacked tarball is no part of Ceph's version, nor of its tag."""
    assert upstream_version(parse_uris(URIS)) == "18.2.7"
    with pytest.raises(RealCephError, match="so the version is not known"):
        upstream_version([source_file(b"", "pond_1.orig.tar.xz")])


def test_a_file_that_is_not_what_the_index_lists_is_refused(tmp_path: Path) -> None:
    """The message has both digests and the path to delete."""
    path = tmp_path / "ceph_18.2.7+ds.orig.tar.xz"
    path.write_bytes(b"good")
    verify(path, source_file(b"good"))
    path.write_bytes(b"evil")
    with pytest.raises(RealCephError) as raised:
        verify(path, source_file(b"good"))
    message = str(raised.value)
    assert hashlib.sha256(b"evil").hexdigest() in message
    assert hashlib.sha256(b"good").hexdigest() in message
    assert f"delete {path}" in message


def test_kept_downloads_are_checked_and_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the index said is kept beside the files, so that a second import works without a network."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for name, content in (
        ("ceph_18.2.7+ds.orig.tar.xz", b"orig"),
        ("ceph_18.2.7+ds-1.debian.tar.xz", b"debian"),
    ):
        (downloads / name).write_bytes(content)
    uris = "".join(
        f"'http://archive.example.org/{name}' {name} {len(content)} SHA256:{hashlib.sha256(content).hexdigest()}\n"
        for name, content in (
            ("ceph_18.2.7+ds.orig.tar.xz", b"orig"),
            ("ceph_18.2.7+ds-1.debian.tar.xz", b"debian"),
        )
    )
    (downloads / "uris").write_text(uris)
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt
    lines: list[str] = []
    assert len(fetch_source(tmp_path, None, lines.append)) == 2
    assert lines == ["kept: ceph_18.2.7+ds.orig.tar.xz, ceph_18.2.7+ds-1.debian.tar.xz"]
    (downloads / "ceph_18.2.7+ds.orig.tar.xz").write_bytes(b"ogir")
    with pytest.raises(RealCephError, match="is not the file that the archive's index lists"):
        fetch_source(tmp_path, None, lines.append)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare machine is told which command it lacks."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RealCephError, match=r"^apt-get is not installed"):
        import_ceph(tmp_path / "input")


# --- the cut


def test_relations_are_split_at_commas_and_know_their_names() -> None:
    """Alternatives, versions, architectures and profiles are no part of a name."""
    assert relations("\n a (>= 1.0),\n b | c [amd64],\n ${misc:Depends},") == [
        "a (>= 1.0)",
        "b | c [amd64]",
        "${misc:Depends}",
    ]
    assert related("b:any (>= 1) | c [amd64] | d <!nocheck>") == {"b", "c", "d"}


def test_the_control_file_keeps_what_is_built_and_suggests_what_is_not() -> None:
    """One golden file: own fields, wanted build dependencies, moved dependencies with their comment, own stanzas."""
    assert reduce_control(CONTROL, OWN, ["pond-library", "pond-tool"], ["nasm", "cmake"]) == REDUCED


def test_a_package_or_build_dependency_that_debian_dropped_is_named() -> None:
    """A newer source package of another shape stops the import with a sentence, not with half a control file."""
    with pytest.raises(RealCephError, match="no longer builds: pond-boat"):
        reduce_control(CONTROL, OWN, ["pond-boat", "pond-tool"], ["cmake"])
    with pytest.raises(RealCephError, match="no longer asks to be built with: ninja-build"):
        reduce_control(CONTROL, OWN, ["pond-tool"], ["cmake", "ninja-build"])


def debian_directory(directory: Path) -> Path:
    """Write a small debian/ with the names that the cut asks for, and things that it must leave behind."""
    build_depends = real_ceph.listed((real_ceph.CUT / "build-depends").read_text())
    packages = "\n".join(
        f"Package: {name}\nArchitecture: all\nDescription: x\n" for name in (*real_ceph.KEPT, "ceph-base")
    )
    files = {
        "control": f"Source: ceph\nMaintainer: T <t@example.org>\nBuild-Depends: {', '.join(build_depends)}\n\n{packages}",
        "changelog": "ceph (1-1) unstable; urgency=low\n",
        "copyright": "free\n",
        "rules": "theirs\n",
        "ceph-base.install": "usr/bin/crushtool\nusr/lib/*/ceph/erasure-code/*\n",
        "cephadm.install": "usr/sbin/cephadm\n",
        "cephadm.postinst": "#!/bin/sh\n",
        "ceph-osd.install": "usr/bin/ceph-osd\n",
        "patches/series": "# none\n",
        "source/format": "3.0 (quilt)\n",
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def test_the_cut_takes_its_packages_files_and_no_patch(tmp_path: Path) -> None:
    """Patches are in the tree already: a series left behind would be applied a second time."""
    files = cut_files(debian_directory(tmp_path / "debian"))
    assert sorted(files) == [
        "debian/ceph-erasure-code-plugins.install",
        "debian/cephadm.install",
        "debian/cephadm.postinst",
        "debian/changelog",
        "debian/control",
        "debian/copyright",
        "debian/not-installed",
        "debian/py3dist-overrides",
        "debian/rules",
        "debian/source/format",
        "install-deps.sh",
        "make-dist",
    ]
    assert files["debian/ceph-erasure-code-plugins.install"].content == b"usr/lib/*/ceph/erasure-code/*\n"
    assert {name for name, file in files.items() if file.executable} == {
        "debian/rules",
        "install-deps.sh",
        "make-dist",
    }


def test_plugins_that_moved_to_another_package_are_missed(tmp_path: Path) -> None:
    """An empty plugin package must not pass for a built one."""
    debian = debian_directory(tmp_path / "debian")
    (debian / "ceph-base.install").write_text("usr/bin/crushtool\n")
    with pytest.raises(RealCephError, match="no longer names the erasure-code plugins"):
        cut_files(debian)


def test_the_tools_are_executable_in_our_own_tree_too() -> None:
    """Git keeps the bit, and shellcheck and people run the files where they lie."""
    for name in ("rules", "install-deps.sh", "make-dist"):
        assert (real_ceph.CUT / name).stat().st_mode & stat.S_IXUSR, name


# --- import


def tarballs(directory: Path, series: str, source_format: str = "3.0 (quilt)") -> tuple[SourceFile, ...]:
    """Make a source package of one file and one patch."""
    tree = directory / "make" / "ceph-18.2.7+ds"
    (tree / "src/zstd").mkdir(parents=True)
    (tree / "src/pond.c").write_text("int fish = 1;\n")
    (tree / "src/link").symlink_to("pond.c")
    (tree / "src/zstd/.gitattributes").write_text("*.sln text eol=crlf\n")
    (tree / "src/zstd/x.sln").write_bytes(b"a\r\nb\r\n")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    debian = debian_directory(directory / "make" / "debian")
    (debian / "source/format").write_text(f"{source_format}\n")
    (debian / "patches/series").write_text(series)
    (debian / "patches/more-fish.patch").write_text(
        "--- a/src/pond.c\n+++ b/src/pond.c\n@@ -1 +1 @@\n-int fish = 1;\n+int fish = 2;\n"
    )
    (debian / "patches/no-such-fish.patch").write_text(
        "--- a/src/pond.c\n+++ b/src/pond.c\n@@ -1 +1 @@\n-int shark = 1;\n+int shark = 2;\n"
    )
    downloads = directory / "downloads"
    downloads.mkdir()
    files = []
    for name, top in (
        ("ceph_18.2.7+ds.orig.tar.gz", "ceph-18.2.7+ds"),
        ("ceph_18.2.7+ds-1.debian.tar.gz", "debian"),
    ):
        subprocess.run(["tar", "-czf", downloads / name, "-C", directory / "make", top], check=True)
        files.append(source_file((downloads / name).read_bytes(), name))
    (downloads / "uris").write_text(
        "".join(f"'{file.uri}' {file.name} {file.size} SHA256:{file.sha256}\n" for file in files)
    )
    return tuple(files)


def test_a_patch_that_does_not_apply_stops_the_import(tmp_path: Path) -> None:
    """No tree is imported with only some of Debian's patches."""
    files = tarballs(tmp_path, "more-fish.patch\nno-such-fish.patch\n")
    with pytest.raises(RealCephError, match=r"dpkg-source --before-build \. failed"):
        unpack(tmp_path / "downloads", files, tmp_path / "tree", lambda _: None)


def test_a_patch_that_was_not_tried_stops_the_import(tmp_path: Path) -> None:
    """dpkg-source passes over the patches of another source format without a word; exit code 0 is not proof."""
    files = tarballs(tmp_path, "more-fish.patch\n", source_format="1.0")
    with pytest.raises(RealCephError, match=r"patches did not all apply to .*: more-fish\.patch"):
        unpack(tmp_path / "downloads", files, tmp_path / "tree", lambda _: None)


def test_the_imported_repository_is_whole_repeatable_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commits, the tag on the first, the same sha1 anywhere, whatever the user's git says, and a clean checkout."""
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    tarballs(tmp_path, "# comment\n\nmore-fish.patch\n")
    made = import_ceph(tmp_path)
    assert made.directory == tmp_path / "ceph.git"
    assert made.tag == "v18.2.7"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(made.directory), *arguments]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert git("rev-parse", "reef").strip() == made.sha1
    assert git("describe", "--match", "v*", "--abbrev=8", made.sha1).strip() == f"v18.2.7-1-g{made.sha1[:8]}"
    assert git("cat-file", "-t", "v18.2.7").strip() == "tag"
    assert git("show", "v18.2.7:src/pond.c") == "int fish = 2;\n"
    assert git("show", "v18.2.7:debian/rules") == "theirs\n"
    assert "debian/patches" not in git("ls-tree", "-r", "--name-only", made.sha1)
    assert ".pc" not in git("ls-tree", "-r", "--name-only", "v18.2.7")
    assert git("ls-tree", made.sha1, "run.sh", "src/link").split()[0] == "100755"
    assert git("ls-tree", made.sha1, "src/link").startswith("120000 blob")
    assert git("config", "uploadpack.allowFilter").strip() == "true"
    assert git("config", "uploadpack.allowAnySHA1InWant").strip() == "true"

    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", made.directory, checkout], check=True)
    subprocess.run(["touch", checkout / "src/zstd/x.sln"], check=True)
    status = subprocess.run(
        ["git", "-C", checkout, "status", "--porcelain"], check=True, capture_output=True, text=True
    )
    assert status.stdout == ""

    lines: list[str] = []
    assert import_ceph(tmp_path, report=lines.append) == made
    assert lines == ["kept: ceph.git"]
    (made.directory / "made-by").write_text("an older version of this module")
    lines.clear()
    assert import_ceph(tmp_path, report=lines.append) == made
    assert lines[-1].endswith("files, all")


def test_an_import_that_fails_leaves_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing named ceph.git is seen before it is whole, and what was unpacked is gone."""
    tarballs(tmp_path, "more-fish.patch\n")
    monkeypatch.setattr(real_ceph, "KEPT", ("no-such-package",))
    with pytest.raises(RealCephError, match="no longer builds: no-such-package"):
        import_ceph(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "downloads", "make"]


def test_what_git_refuses_is_said_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that git can't read stops the import, and no writer is left waiting for a reader that is gone."""
    tarballs(tmp_path, "more-fish.patch\n")
    tree = tmp_path / "tree"
    unpack(
        tmp_path / "downloads", parse_uris((tmp_path / "downloads/uris").read_text()), tree, lambda _: None
    )
    (tree / "src/large").write_bytes(b"x" * 1000000)
    monkeypatch.setattr(real_ceph, "AUTHOR", "an author without an address")
    with pytest.raises(
        RealCephError, match=r"git fast-import of .* failed: fatal: Missing < in ident string"
    ):
        real_ceph._make_repository(tmp_path / "ceph.git", tree, "18.2.7", lambda _: None)


def test_the_command_prints_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to stderr, so that the line can be read by a program; a failure is exit code 1 and a sentence."""
    tarballs(tmp_path, "more-fish.patch\n")
    assert real_ceph.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert '"tag": "v18.2.7"' in out
    assert "ceph: 1 Debian patches applied" in err
    (tmp_path / "ceph.git" / "made-by").unlink()
    (tmp_path / "downloads" / "ceph_18.2.7+ds.orig.tar.gz").write_bytes(b"cut short")
    assert real_ceph.main([str(tmp_path)]) == 1
    assert "is not the file that the archive's index lists" in capsys.readouterr().err
