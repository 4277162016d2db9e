"""The real Ceph as an input repository: Debian's source package in git, with the cut that builds on two cores in minutes.

`import_ceph(directory)` leaves `directory/ceph.git`, a bare repository of two commits on branch `reef`:

1. the upstream tree with Debian's patches applied, tagged `v18.2.7`;
2. the cut: `debian/` reduced to the packages in `KEPT` and one of the erasure-code plugins, and the three tools that the
   build steps call (`install-deps.sh`, `make-dist`, `debian/rules`).

Nothing of Ceph is stored with this project. The two tarballs come through apt, checked against the signed index; control
stanzas and .install files are derived from Debian's at import time; what had to be written anew is in `real_ceph_cut/`.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from debian.deb822 import Deb822

SUITE = "trixie"
BRANCH = "reef"
KEPT = (
    "ceph-mgr-cephadm",
    "ceph-mgr-dashboard",
    "ceph-mgr-k8sevents",
    "ceph-mgr-modules-core",
    "ceph-mgr-rook",
    "ceph-prometheus-alerts",
    "ceph-resource-agents",
    "ceph-volume",
    "cephadm",
    "cephfs-top",
    "python3-ceph-argparse",
    "python3-ceph-common",
)
PLUGINS = "ceph-erasure-code-plugins"
PLUGINS_OWNER = "ceph-base"  # Debian's package that holds the plugins
CUT = Path(__file__).parent / "real_ceph_cut"

AUTHOR = "On-demand Ceph packages <packages@example.invalid>"
COMMIT_TIME = 1746662400  # the day of 18.2.7: the sha1 must not depend on when or where the import ran

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
APT_HELPER = "/usr/lib/apt/apt-helper"
RELATIONS = (
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Replaces",
    "Conflicts",
    "Provides",
)
STRONG = ("Pre-Depends", "Depends", "Recommends")
DROPPED = ("Uploaders", "Vcs-Git", "Vcs-Browser", "Build-Depends", "Maintainer")

Report = Callable[[str], None]


class RealCephError(Exception):
    """The real Ceph could not be fetched, patched, cut or imported; the message says what failed and what to do."""


@dataclasses.dataclass(frozen=True)
class ImportedRepository:
    """A bare repository, the sha1 to ask for, and the tag that `git describe` counts from."""

    directory: Path
    sha1: str
    tag: str


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One file of a source package, as the archive's signed index lists it."""

    uri: str
    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class CutFile:
    """One file of the cut's tree."""

    content: bytes
    executable: bool = False


# --- fetch -----------------------------------------------------------------------------------------------------------


def pick_mirror(targets: str) -> str:
    """Return the first Debian archive among lines of `origin<TAB>label<TAB>URI`, or say how to name one."""
    for line in targets.splitlines():
        origin, _, rest = line.partition("\t")
        label, _, uri = rest.partition("\t")
        if origin == label == "Debian" and uri:
            return uri
    raise RealCephError(
        "apt's configuration names no Debian archive to fetch the source package of ceph from: "
        "run apt-get update, or on another distribution name one with --mirror"
    )


def parse_uris(text: str) -> tuple[SourceFile, ...]:
    """Read what `apt-get source --print-uris` prints, other lines skipped; the .dsc is left out, some mirrors lack it."""
    pattern = r"^'(?P<uri>[^']+)' (?P<name>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$"
    files = tuple(
        SourceFile(found["uri"], found["name"], int(found["size"]), found["sha256"])
        for found in re.finditer(pattern, text, re.MULTILINE)
        if not found["name"].endswith(".dsc")
    )
    kinds = sorted(kind for file in files for kind in ("orig", "debian") if f".{kind}.tar." in file.name)
    if kinds != ["debian", "orig"] or len(files) != len(kinds):
        names = ", ".join(file.name for file in files) or "no file with a SHA256"
        raise RealCephError(
            f"the source package of ceph in {SUITE} is not one orig and one debian tarball but: {names}"
        )
    return files


def upstream_version(files: Iterable[SourceFile]) -> str:
    """Return Ceph's own version, without the suffix that Debian gives to a repacked tarball."""
    for file in files:
        if found := re.match(r"ceph_(\d+\.\d+\.\d+)[^_]*\.orig\.tar\.", file.name):
            return found[1]
    raise RealCephError("no file is named ceph_VERSION.orig.tar.*, so the version is not known")


def verify(path: Path, file: SourceFile) -> None:
    """Raise unless the file at `path` has the size and the SHA-256 of the index."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if path.stat().st_size != file.size or found != file.sha256:
        raise RealCephError(
            f"{file.name} is not the file that the archive's index lists: SHA-256 {found} of {path.stat().st_size} bytes, "
            f"expected {file.sha256} of {file.size}: delete {path} and start again"
        )


def fetch_source(directory: Path, mirror: str | None, report: Report) -> tuple[SourceFile, ...]:
    """Bring both tarballs to `directory/downloads`, or keep those that are there and still what the index said."""
    downloads = directory / "downloads"
    downloads.mkdir(exist_ok=True)
    record = downloads / "uris"
    if record.exists() and all((downloads / file.name).exists() for file in parse_uris(record.read_text())):
        files = parse_uris(record.read_text())
        report(f"kept: {', '.join(file.name for file in files)}")
    else:
        files = _download(directory, downloads, record, mirror, report)
    for file in files:
        verify(downloads / file.name, file)
    return files


def _download(
    directory: Path, downloads: Path, record: Path, mirror: str | None, report: Report
) -> tuple[SourceFile, ...]:
    if mirror is None:
        fields = r"--format=$(ORIGIN)	$(LABEL)	$(REPO_URI)"
        mirror = pick_mirror(_run(["apt-get", "indextargets", fields]))
    if not KEYRING.exists():
        raise RealCephError(
            f"{KEYRING} is missing, so nothing can be checked: install debian-archive-keyring"
        )
    configuration = private_apt(directory / "apt", mirror)
    report(f"apt index of {SUITE}'s sources")
    _run(["apt-get", "-c", str(configuration), "update", "--error-on=any"])
    uris = _run(["apt-get", "-c", str(configuration), "source", "--print-uris", "--only-source", "ceph"])
    files = parse_uris(uris)
    for file in files:
        report(f"fetching {file.name}, {file.size / 1e6:.1f} MB")
        target = downloads / file.name
        helper = [APT_HELPER, "-c", str(configuration), "-o", "APT::Sandbox::User=root"]
        _run([*helper, "download-file", file.uri, str(target), f"SHA256:{file.sha256}"])
        verify(target, file)
    record.write_text(uris)
    return files


def private_apt(directory: Path, mirror: str, suite: str = SUITE) -> Path:
    """Write an apt configuration with its own sources, lists and caches; the host's proxy settings still apply."""
    for name in ("lists/partial", "cache/archives/partial", "state", "sources.d"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {mirror} {suite} main\n")
    configuration = directory / "apt.conf"
    configuration.write_text(
        "#clear APT::Update;\n"  # hooks of the host
        f'Dir::State "{directory}/state";\n'
        f'Dir::State::Lists "{directory}/lists";\n'
        f'Dir::Cache "{directory}/cache";\n'
        f'Dir::Etc::SourceList "{directory}/sources.list";\n'
        f'Dir::Etc::SourceParts "{directory}/sources.d";\n'
    )
    return configuration


def unpack(downloads: Path, files: Iterable[SourceFile], tree: Path, report: Report) -> None:
    """Unpack both tarballs to `tree` and apply every patch of debian/patches/series; raise if one does not apply."""
    tree.mkdir()
    for file in files:
        report(f"unpacking {file.name}")
        strip = ["--strip-components=1"] if ".orig.tar." in file.name else []
        _run(["tar", "-x", "-f", str(downloads / file.name), "-C", str(tree), "--no-same-owner", *strip])
    _run(["dpkg-source", "--before-build", "."], cwd=tree)
    series = (tree / "debian/patches/series").read_text().splitlines()
    wanted = [line for line in series if line and not line.startswith("#")]
    applied_file = tree / ".pc/applied-patches"
    applied = applied_file.read_text().split() if applied_file.exists() else []
    if applied != wanted:
        missing = ", ".join(sorted(set(wanted) - set(applied))) or "in another order"
        raise RealCephError(f"Debian's patches did not all apply to {tree}: {missing}")
    report(f"{len(applied)} Debian patches applied")


# --- the cut ---------------------------------------------------------------------------------------------------------


def relations(value: str) -> list[str]:
    """Split a relation field at its commas."""
    return [part for part in (" ".join(part.split()) for part in value.split(",")) if part]


def related(relation: str) -> set[str]:
    """Return the package names of one relation, alternatives included."""
    return {re.split(r"[\s:(\[<]", choice.strip())[0] for choice in relation.split("|")}


def reduce_control(debian: str, own: str, kept: Iterable[str], build_depends: Iterable[str]) -> str:
    """Return debian/control for the cut: Debian's stanzas of the `kept` packages, then those of `own`.

    A dependency on a package of the same source that the cut does not build becomes a suggestion without a version, since
    Debian's package of that name asks for Debian's exact version of what is built here. Build dependencies are Debian's own
    relations for the names in `build_depends`. The first stanza of `own` replaces fields of the source's.
    """
    theirs, ours = _stanzas(debian), _stanzas(own)
    packages = {stanza["Package"]: stanza for stanza in theirs[1:]}
    kept, built = list(kept), set(kept) | {stanza["Package"] for stanza in ours[1:]}
    if unknown := sorted(set(kept) - set(packages)):
        raise RealCephError(f"Debian's source package of ceph no longer builds: {', '.join(unknown)}")
    source = dict(theirs[0].items())
    available = {
        name: relation for relation in relations(source["Build-Depends"]) for name in related(relation)
    }
    wanted = list(build_depends)
    if unknown := sorted(set(wanted) - set(available)):
        raise RealCephError(
            f"Debian's source package of ceph no longer asks to be built with: {', '.join(unknown)}"
        )
    head = {
        **{field: value for field, value in source.items() if field not in DROPPED},
        "XSBC-Original-Maintainer": source["Maintainer"],
        "Build-Depends": _relation_field(available[name] for name in sorted(wanted)),
        **dict(ours[0].items()),
    }
    missing = set(packages) - built
    stanzas = [
        _dump(head),
        *(_reduced_stanza(packages[name], missing) for name in kept),
        *map(_dump, map(dict, ours[1:])),
    ]
    return "\n".join(stanzas)


def _reduced_stanza(stanza: Mapping[str, str], missing: set[str]) -> str:
    fields = dict(stanza.items())
    moved: set[str] = set()
    for field in STRONG:
        if field in fields:
            gone = [relation for relation in relations(fields[field]) if related(relation) <= missing]
            moved |= {name for relation in gone for name in related(relation)}
            fields[field] = _relation_field(
                relation for relation in relations(fields[field]) if relation not in gone
            )
    if not moved:
        return _dump(fields)
    fields["Suggests"] = _relation_field(sorted({*relations(fields.get("Suggests", "")), *moved}))
    return f"# The cut does not build {', '.join(sorted(moved))}: suggested here, a dependency in Debian.\n{_dump(fields)}"


def _stanzas(text: str) -> list[Deb822]:
    return list(Deb822.iter_paragraphs(text, use_apt_pkg=False))


def _relation_field(values: Iterable[str]) -> str:
    return "".join(f"\n {value}," for value in values)


def _dump(fields: Mapping[str, str]) -> str:
    lines = []
    for field, value in fields.items():
        text = _relation_field(relations(value)) if field in RELATIONS else value
        if text:
            lines.append(f"{field}:{text}" if text.startswith("\n") else f"{field}: {text}")
    return "\n".join(lines) + "\n"


def listed(text: str) -> list[str]:
    """Return the lines of a table without blank ones and comments."""
    return [
        line for line in (line.strip() for line in text.splitlines()) if line and not line.startswith("#")
    ]


def cut_files(debian: Path, cut: Path = CUT) -> dict[str, CutFile]:
    """Return all files of the second commit by path: the new debian/, whole, and the tools at the tree's root."""
    control = reduce_control(
        (debian / "control").read_text(),
        (cut / "control").read_text(),
        KEPT,
        listed((cut / "build-depends").read_text()),
    )
    plugins = [
        line for line in listed((debian / f"{PLUGINS_OWNER}.install").read_text()) if "/erasure-code/" in line
    ]
    if not plugins:
        raise RealCephError(f"debian/{PLUGINS_OWNER}.install no longer names the erasure-code plugins")
    files = {
        "debian/control": CutFile(control.encode()),
        f"debian/{PLUGINS}.install": CutFile("".join(f"{line}\n" for line in plugins).encode()),
    }
    for path in sorted(debian.iterdir()):
        if path.name in ("changelog", "copyright") or path.name.rpartition(".")[0] in KEPT:
            files[f"debian/{path.name}"] = CutFile(path.read_bytes())
    files["debian/source/format"] = CutFile((debian / "source/format").read_bytes())
    for name in ("not-installed", "py3dist-overrides", "rules"):
        files[f"debian/{name}"] = CutFile((cut / name).read_bytes(), executable=name == "rules")
    for name in ("install-deps.sh", "make-dist"):
        files[name] = CutFile((cut / name).read_bytes(), executable=True)
    return files


# --- import ----------------------------------------------------------------------------------------------------------


def import_ceph(
    directory: Path, *, mirror: str | None = None, report: Report = lambda _: None
) -> ImportedRepository:
    """Make `directory/ceph.git` unless it is there and this module is still the one that made it.

    Two callers at once make it once; killed at any point, the repository is afterwards either whole or absent.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    repository = directory / "ceph.git"
    with _locked(directory / ".lock"):
        if _maker(repository) == _this_maker():
            report("kept: ceph.git")
            return _read_repository(repository)
        files = fetch_source(directory, mirror, report)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=directory) as name:
            aside = Path(name)
            unpack(directory / "downloads", files, aside / "tree", report)
            made = aside / "ceph.git"
            _make_repository(made, aside / "tree", upstream_version(files), report)
            if repository.exists():
                repository.rename(aside / "old.git")
            made.rename(repository)
        return _read_repository(repository)


def _this_maker() -> str:
    """Return a digest of all that decides the repository's content but the source package, which is imported once."""
    digest = hashlib.sha256()
    for path in (Path(__file__), *sorted(path for path in CUT.iterdir() if path.is_file())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _maker(repository: Path) -> str:
    path = repository / "made-by"
    return path.read_text() if path.exists() else ""


def _make_repository(repository: Path, tree: Path, version: str, report: Report) -> None:
    options = ["--bare", "--quiet", "--template=", "--object-format=sha1", f"--initial-branch={BRANCH}"]
    _run(["git", "init", *options, str(repository)])
    for key in ("allowFilter", "allowAnySHA1InWant"):
        _git(repository, "config", f"uploadpack.{key}", "true")
    command = ["git", "-C", str(repository), "fast-import", "--quiet", "--done", "--date-format=raw"]
    with tempfile.TemporaryFile() as errors:
        importer = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors, env=_git_environment())
        with suppress(BrokenPipeError), importer:  # its own message says why
            assert importer.stdin is not None
            _write_history(importer.stdin, tree, version, report)
        if importer.returncode != 0:
            errors.seek(0)
            message = errors.read().decode(errors="replace").strip()
            raise RealCephError(f"git fast-import of {tree} failed: {message}")
    described = _git(repository, "describe", "--match", "v*", "--abbrev=8", BRANCH)
    if not described.startswith(f"v{version}-1-g"):
        raise RealCephError(f"git describe says {described} of the imported tree, not v{version}-1-g…")
    (repository / "made-by").write_text(_this_maker())


def _write_history(stream: IO[bytes], tree: Path, version: str, report: Report) -> None:
    identity = f"{AUTHOR} {COMMIT_TIME} +0000\n".encode()

    def data(content: bytes) -> None:
        stream.write(b"data %d\n%b\n" % (len(content), content))

    def modify(mode: bytes, path: bytes, content: bytes) -> None:
        if path.startswith(b'"') or b"\n" in path:
            raise RealCephError(f"a path that git fast-import can't take as it is: {path!r}")
        stream.write(b"M %b inline %b\n" % (mode, path))
        data(content)

    stream.write(b"commit refs/heads/%b\nmark :1\ncommitter %b" % (BRANCH.encode(), identity))
    data(f"Ceph {version} as Debian {SUITE} ships it, Debian's patches applied\n".encode())
    count = 0
    for path in tree_files(tree):
        name = os.fsencode(path.relative_to(tree))
        if path.is_symlink():
            modify(b"120000", name, os.fsencode(path.readlink()))
        else:
            modify(b"100755" if path.stat().st_mode & 0o100 else b"100644", name, path.read_bytes())
        count += 1
        if count % 20000 == 0:
            report(f"importing: {count} files")
    report(f"importing: {count} files, all")
    stream.write(b"tag v%b\nfrom :1\ntagger %b" % (version.encode(), identity))
    data(f"Ceph {version}\n".encode())
    stream.write(b"commit refs/heads/%b\nmark :2\ncommitter %b" % (BRANCH.encode(), identity))
    data(
        b"The cut: what builds on two cores in minutes\n\ndebian/ reduced; install-deps.sh and make-dist replaced.\n"
    )
    stream.write(b"from :1\nD debian\n")
    # Attributes of what upstream has as submodules convert line ends, but a tarball's files are converted already: a
    # checkout would show them as changed.
    for path in sorted(tree.glob("*/**/.gitattributes")):
        stream.write(b"D %b\n" % os.fsencode(path.relative_to(tree)))
    for file_name, file in sorted(cut_files(tree / "debian").items()):
        modify(b"100755" if file.executable else b"100644", file_name.encode(), file.content)
    stream.write(b"done\n")


def tree_files(tree: Path) -> Iterator[Path]:
    """Yield all files and symbolic links below `tree` in one order, without what dpkg-source noted about patches."""
    for parent, directories, names in os.walk(tree):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        directories[:] = sorted(name for name in directories if name not in links and name != ".pc")
        yield from (Path(parent) / name for name in sorted([*names, *links]))


def _read_repository(repository: Path) -> ImportedRepository:
    sha1 = _git(repository, "rev-parse", "--verify", f"{BRANCH}^{{commit}}")
    tag = _git(repository, "describe", "--match", "v*", "--abbrev=0", BRANCH)
    return ImportedRepository(repository, sha1, tag)


def _git(repository: Path, *arguments: str) -> str:
    return _run(["git", "-C", str(repository), *arguments], env=_git_environment()).strip()


def _git_environment() -> dict[str, str]:
    """Return an environment in which nobody's git configuration counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _run(command: list[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Return what the command printed; raise with the last lines of its errors if it failed or is not installed."""
    if shutil.which(command[0]) is None:
        raise RealCephError(f"{command[0]} is not installed, and the import of Ceph needs it")
    environment = {**(os.environ if env is None else env), "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise RealCephError(f"{shlex.join(command)} failed with exit code {done.returncode}:\n{last}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Import Ceph to DIRECTORY: progress on stderr, one JSON line on stdout."""
    parser = argparse.ArgumentParser(prog="python -m demo.real_ceph", description=main.__doc__)
    parser.add_argument(
        "directory", type=Path, help="where ceph.git, downloads/ and apt/ are kept; about 500 MB"
    )
    parser.add_argument("--mirror", help="a Debian archive's URI; default: the one in apt's configuration")
    options = parser.parse_args(arguments)
    try:
        made = import_ceph(
            options.directory,
            mirror=options.mirror,
            report=lambda line: print(f"ceph: {line}", file=sys.stderr),
        )
    except RealCephError as error:
        print(f"ceph: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"directory": str(made.directory), "sha1": made.sha1, "tag": made.tag}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
