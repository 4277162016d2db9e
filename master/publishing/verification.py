"""What must hold before an upload is published; a refusal is a ValueError with a sentence.

A worker, where a contributor's code ran, sent packages and a manifest. The package server digested the
bytes while they arrived. The master's own tools then made the indexes from the same files
(`master.publishing.repository_metadata`), and apt and dnf will read those indexes. Three things are compared here:
the manifest, the received digests and the indexes.
"""

from __future__ import annotations

import re
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from master.publishing.control_file import stanzas
from model import layout
from model.manifest import File, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from master.publishing.package_names import PackageNames
    from model.package_key import PackageKey

_MOST_INDEX = 4 * 1024 * 1024
"""Bytes of an unpacked primary.xml or of the manifest. Ceph's have less than 2 MiB; reading takes up to 50 times as much memory."""

_DEB = re.compile(r".+\.d?deb\Z")
_UNASKED = ("essential", "important", "protected")
_OF_A_SYSTEM = ("required", "important")
"""Priorities of the packages that debootstrap and mmdebstrap install without a request."""

_DEBUG_SYMBOLS = "-dbgsym"
"""End of the names of debs that debhelper makes, and that no control file names."""

_CLAIMS = ("provides", "obsoletes", "supplements")
"""Fields of an rpm by which dnf installs it in place of another package, or because of one."""

_SOURCE = re.compile(r"(?P<name>[^\s()]+)(?:\s*\((?P<version>[^\s()]+)\))?\Z")

_COMMON = "{http://linux.duke.edu/metadata/common}"
_RPM = "{http://linux.duke.edu/metadata/rpm}"


class Indexed(NamedTuple):
    """One binary package, as the repository's index describes it."""

    name: str
    version: str
    """`version` as apt compares it, or VERSION-RELEASE."""
    source: str
    """`name (version)` of the source package, or the file name of the source rpm."""
    file: File


def check_upload(key: PackageKey, directory: Path, received: Mapping[str, File]) -> Manifest:
    """Return the manifest of an upload after checking its files against it, and that all are where packages belong."""
    if layout.MANIFEST_FILE not in received:
        raise ValueError("the upload has no manifest, so it is not whole")
    manifest = Manifest.from_json(_read(directory / layout.MANIFEST_FILE))
    files = {path: file for path, file in received.items() if path != layout.MANIFEST_FILE}
    listed = {file.path: file for file in manifest.files}
    for path in sorted(listed.keys() | files.keys()):
        if path not in files:
            raise ValueError(f"{path} is in the manifest, but was not uploaded")
        if path not in listed:
            raise ValueError(f"{path} was uploaded, but is not in the manifest")
        if files[path] != listed[path]:
            raise ValueError(f"{path} arrived with another size or SHA-256 than the manifest says")
        if not _place(key).fullmatch(path):
            raise ValueError(f"{path} is no package: an upload has packages and their sources only")
    deb = key.target.pkg_type == "deb"
    sources = [path for path in files if path.endswith(".dsc") or path.startswith("SRPMS/")]
    if len(sources) != 1:
        raise ValueError(
            f"the upload has {len(sources)} {'.dsc files' if deb else 'source rpms'} instead of one"
        )
    if not deb and layout.release_rpm(key.target) in files:
        raise ValueError(f"{layout.release_rpm(key.target)} is for the master to make")
    return manifest


def check_debs(
    key: PackageKey,
    manifest: Manifest,
    packages: bytes,
    sources: bytes,
    received: Mapping[str, File],
    *,
    names: PackageNames,
) -> None:
    """Check that Packages and Sources hold the received files, each once, of the right version and allowed names."""
    debs = {path for path in received if _DEB.match(path)}
    indexed = list(_debs(key, packages, names))
    _check_indexed(indexed, received, debs, "apt-ftparchive")
    source, named = _check_sources(manifest, sources, received, debs)
    for package in indexed:
        if package.source != source:
            raise ValueError(f"{package.file.path} comes from {package.source}, not from {source}")
        if package.name.removesuffix(_DEBUG_SYMBOLS) not in named:
            raise ValueError(f"{package.file.path} is a package that the sources do not name")
    _check_expected(key, manifest, indexed)
    if all(package.version != manifest.version for package in indexed if package.name in manifest.packages):
        raise ValueError(f"no expected package is of version {manifest.version}")


def check_rpms(
    key: PackageKey,
    manifest: Manifest,
    primaries: Mapping[str, bytes],
    received: Mapping[str, File],
    *,
    names: PackageNames,
) -> None:
    """Check that the primary.xml.gz hold the received rpms, each once, of the right version and allowed names."""
    ours = layout.release_rpm(key.target)
    indexed = [package for part, data in primaries.items() for package in _rpms(part, data, names, ours)]
    rpms = {path for path in received if path.endswith(".rpm")}
    _check_indexed(indexed, received, rpms, "createrepo_c")
    [source] = [package for package in indexed if package.file.path.startswith("SRPMS/")]
    if manifest.version not in source.version:
        raise ValueError(
            f"{source.file.path} is of version {source.version}, which does not hold {manifest.version}"
        )
    binaries = [package for package in indexed if package is not source and package.file.path != ours]
    for package in binaries:
        if f"SRPMS/{package.source}" != source.file.path:
            raise ValueError(
                f"{package.file.path} comes from {package.source}, not from {source.file.path.partition('/')[2]}"
            )
    _check_expected(key, manifest, binaries)
    if all(
        manifest.version not in package.version for package in binaries if package.name in manifest.packages
    ):
        raise ValueError(f"the version of no expected package holds {manifest.version}")


def _place(key: PackageKey) -> re.Pattern[str]:
    target = key.target
    if target.pkg_type == "deb":
        return re.compile(rf"{re.escape(layout.pool(target))}/[^/]+")
    return re.compile(rf"({'|'.join(layout.repositories(target))})/[^/]+\.rpm")


def _check_indexed(
    indexed: list[Indexed], received: Mapping[str, File], expected: set[str], tool: str
) -> None:
    if not expected:
        raise ValueError("the upload has no package")
    seen: set[str] = set()
    for package in indexed:
        path = package.file.path
        if path in seen:
            raise ValueError(f"{path} is twice in the index")
        seen.add(path)
        if received.get(path) != package.file:
            raise ValueError(f"the index's size or SHA-256 of {path} is not that of the file received")
    if expected - seen:
        raise ValueError(f"{min(expected - seen)} is no package that {tool} can read")


def _check_expected(key: PackageKey, manifest: Manifest, indexed: Iterable[Indexed]) -> None:
    names: set[str] = set()
    for package in indexed:
        if package.name in names:
            raise ValueError(f"{package.file.path} is a second package of the name {package.name!r}")
        names.add(package.name)
    missing = [name for name in manifest.packages if name not in names]
    if missing:
        raise ValueError(f"packages that the sources name are missing: {', '.join(missing)}")
    reserved = layout.release_package(key.target.project)
    if reserved in names:
        raise ValueError(
            f"{reserved} is the package that the master makes; a build may have none of this name"
        )


def _debs(key: PackageKey, packages: bytes, names: PackageNames) -> Iterator[Indexed]:
    """Read Packages, whose stanzas are the control files of the debs with Filename, Size and SHA256."""
    for stanza in stanzas(packages):
        path, name, version, arch = (
            stanza[field] for field in ("filename", "package", "version", "architecture")
        )
        if arch not in ("all", key.target.deb_arch):
            raise ValueError(f"{path} is for {arch}, not {key.target.deb_arch}")
        _check_name(path, f"{name}_{version.partition(':')[2] or version}_{arch}", (".deb", ".ddeb"))
        for field in _UNASKED:
            if stanza.get(field, "no") != "no":
                raise ValueError(f"{path} is marked {field.capitalize()}: apt would install it unasked")
        if stanza.get("priority", "optional") in _OF_A_SYSTEM:
            raise ValueError(
                f"{path} has the priority {stanza['priority']}, which is for packages of a distribution"
            )
        names.check(path, name)
        names.check_claims(path, "Provides", _relations(stanza.get("provides", "")))
        source = _SOURCE.match(stanza.get("source", name))
        if source is None:
            raise ValueError(f"{path} has the field Source: {stanza['source'][:80]!r}")
        yield Indexed(
            name, version, f"{source['name']} ({source['version'] or version})", _file(stanza, path)
        )


def _relations(value: str) -> Iterator[str]:
    """Yield the names of a field like Provides, without versions and architectures."""
    for relation in value.split(","):
        if name := re.split(r"[\s(:]", relation.strip(), maxsplit=1)[0]:
            yield name


def _check_sources(
    manifest: Manifest, text: bytes, received: Mapping[str, File], debs: set[str]
) -> tuple[str, set[str]]:
    """Return `name (version)` of the one source package, all of whose files were received, and its packages' names."""
    found = list(stanzas(text))
    if len(found) != 1:
        raise ValueError("the .dsc, or a file that it lists, cannot be read by apt-ftparchive")
    [stanza] = found
    place = stanza["directory"]
    rows = [row.split() for row in stanza["checksums-sha256"].split("\n") if row.strip()]
    for row in rows:
        path = f"{place}/{row[-1]}"
        if received.get(path) != _file({"size": row[-2] if len(row) == 3 else "", "sha256": row[0]}, path):
            raise ValueError(f"the .dsc lists {row[-1][:80]!r}, but another file, or none, was received")
    listed = {f"{place}/{row[-1]}" for row in rows}
    strays = set(received) - listed - debs - {layout.MANIFEST_FILE}
    if strays:
        raise ValueError(f"{min(strays)} is neither a package, nor does the .dsc list it")
    for field in ("files", "checksums-sha1"):
        if {
            f"{place}/{row.split()[-1]}" for row in stanza.get(field, "").split("\n") if row.strip()
        } - listed:
            raise ValueError(f"the .dsc lists other files in {field.capitalize()} than in Checksums-Sha256")
    if stanza["version"] != manifest.version:
        raise ValueError(f"the .dsc is of version {stanza['version']}, not {manifest.version}")
    return f"{stanza['package']} ({stanza['version']})", set(_relations(stanza["binary"]))


def _rpms(part: str, compressed: bytes, names: PackageNames, ours: str) -> Iterator[Indexed]:
    """Read a primary.xml.gz, package by package; each element is freed when it has been read."""
    try:
        for _, element in iterparse(BytesIO(gunzip(compressed))):
            if element.tag == f"{_COMMON}package":
                package = _rpm(part, element)
                if part != "SRPMS" and package.file.path != ours:
                    _check_names(package, element, names)
                yield package
                element.clear()
    except (ParseError, DefusedXmlException, LookupError, zlib.error) as error:
        raise ValueError(f"the index of {part} cannot be read: {error}") from None


def _rpm(part: str, element: Element) -> Indexed:
    version = _only(element, "version").attrib
    name, arch = _text(element, "name"), _text(element, "arch")
    checksum, location = _only(element, "checksum"), _only(element, "location").attrib
    path = f"{part}/{location['href']}"
    if set(location) != {"href"}:
        raise ValueError(f"{path} has a location of its own")
    kind = "src" if part == "SRPMS" else part
    if arch != kind:
        raise ValueError(f"{path} is for {arch}, not {kind}")
    _check_name(path, f"{name}-{version['ver']}-{version['rel']}.{arch}", (".rpm",))
    if checksum.attrib["type"] != "sha256":
        raise ValueError(f"{path} is indexed without SHA-256")
    size = _only(element, "size").attrib["package"]
    source = element.findtext(f"{_COMMON}format/{_RPM}sourcerpm") or ""
    file = _file({"size": size, "sha256": checksum.text or ""}, path)
    return Indexed(name, f"{version['ver']}-{version['rel']}", source, file)


def _check_names(package: Indexed, element: Element, names: PackageNames) -> None:
    """Refuse an rpm whose name, or a name that it claims, is not the project's."""
    names.check(package.file.path, package.name)
    for field in _CLAIMS:
        rows = element.findall(f"{_COMMON}format/{_RPM}{field}/{_RPM}entry")
        claimed = (row.attrib["name"] for row in rows)
        if field != "supplements":
            # Capabilities such as libceph-common.so.2()(64bit) and python3dist(ceph) are not names of packages. What an rpm
            # supplements must have no other form: dnf would install it wherever such a capability is.
            claimed = (name for name in claimed if "(" not in name)
        names.check_claims(package.file.path, field.capitalize(), claimed)


def _check_name(path: str, wanted: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a package whose file has another name than the packaging tools give it."""
    name = path.rpartition("/")[2]
    if name not in {wanted + suffix for suffix in suffixes}:
        raise ValueError(f"{path} holds the package {wanted!r}: a package's file must have its name")


def _file(row: Mapping[str, str], path: str) -> File:
    size = row["size"]
    if not (size.isascii() and size.isdigit() and len(size) < 19):
        raise ValueError(f"the index has {size[:40]!r} as the size of {path}")
    return File(path, int(size), row["sha256"])


def _only(element: Element, tag: str) -> Element:
    found = element.findall(_COMMON + tag)
    if len(found) != 1:
        raise LookupError(f"a package has {len(found)} elements {tag}")
    return found[0]


def _text(element: Element, tag: str) -> str:
    return _only(element, tag).text or ""


def _read(path: Path) -> bytes:
    if path.stat().st_size > _MOST_INDEX:
        raise ValueError(f"{path.name} is larger than {_MOST_INDEX} bytes")
    return path.read_bytes()


def gunzip(data: bytes) -> bytes:
    """Unpack a gzip file. Several members, or more bytes than any real index has, are refused."""
    stream = zlib.decompressobj(wbits=31)
    text = stream.decompress(data, _MOST_INDEX)
    if stream.unconsumed_tail:
        raise ValueError(f"an index unpacks to more than {_MOST_INDEX} bytes")
    if not stream.eof or stream.unused_data:
        raise ValueError("an index is not one whole gzip member")
    return text
