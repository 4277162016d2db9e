"""What must hold before an upload is published; a refusal is a ValueError with a sentence.

The digests come from the package server, which made them of the bytes that arrived. Everything
else here was written by the worker, where a contributor's code ran, and is taken as such.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

from debian.deb822 import Packages, Release
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from model import layout
from model.manifest import File, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from model.package_key import PackageKey

_MOST_INDEX = 16 * 1024 * 1024
"""Bytes of an index, unpacked, or of the manifest: Ceph's are a hundredth of it, and parsing blocks."""

_RELEASE_FIELDS = {
    "Origin", "Label", "Suite", "Codename", "Date", "Architectures", "Components",
    "MD5Sum", "SHA1", "SHA256", "SHA512",
}  # fmt: skip
"""What apt-ftparchive writes. Other fields can make apt trust or fetch something else."""

_PACKAGE_FIELDS = ("Package", "Version", "Filename", "Size", "SHA256")
"""What is compared, so each may be there once only: the parsers choose differently among two."""

_DATA_TYPES = ["filelists", "other", "primary"]
_RESERVED = {layout.VERSION_FILE, layout.SHA1_FILE}
_NS = {
    "repo": "http://linux.duke.edu/metadata/repo",
    "common": "http://linux.duke.edu/metadata/common",
    "rpm": "http://linux.duke.edu/metadata/rpm",
}


class Indexed(NamedTuple):
    """One package, as the repository's index gives it."""

    name: str
    version: str
    file: File


def verify(key: PackageKey, directory: Path, received: Mapping[str, File]) -> Manifest:
    """Check an upload against its manifest, its index and its expected packages."""
    if layout.MANIFEST_FILE not in received:
        raise ValueError("the upload has no manifest, so it is not whole")
    manifest = Manifest.from_json(_read(directory / layout.MANIFEST_FILE))
    files = {path: file for path, file in received.items() if path != layout.MANIFEST_FILE}
    _check_files(manifest, files)
    _check_places(key, files)
    deb = key.target.pkg_type == "deb"
    indexed = list(_debs(key, directory, files) if deb else _rpms(key, directory, files))
    for package in indexed:
        if files.get(package.file.path) != package.file:
            raise ValueError(f"the index's size or SHA-256 of {package.file.path} is not the file's")
    _check_all_indexed(indexed, files, ".deb" if deb else ".rpm")
    _check_expected(key, manifest, indexed)
    return manifest


def _check_files(manifest: Manifest, files: Mapping[str, File]) -> None:
    listed = {file.path: file for file in manifest.files}
    for path in sorted(listed.keys() | files.keys()):
        if path not in files:
            raise ValueError(f"{path} is in the manifest, but was not uploaded")
        if path not in listed:
            raise ValueError(f"{path} was uploaded, but is not in the manifest")
        if files[path] != listed[path]:
            raise ValueError(f"{path} arrived with another size or SHA-256 than the manifest says")
        name = path.rsplit("/", 1)[-1]
        if path in _RESERVED or name in ("InRelease", "Release.gpg", "repomd.xml.asc"):
            raise ValueError(f"{path} is for the master to write")


def _check_places(key: PackageKey, files: Mapping[str, File]) -> None:
    """Refuse what the layout has no place for: nothing unknown is to lie beside signed metadata."""
    if key.target.pkg_type == "deb":
        top = f"dists/{key.target.dist}"
        indexes = f"main/binary-{key.target.deb_arch}/Packages|main/source/Sources"
        places = rf"pool/.+|{top}/(Release|({indexes})(\.gz)?)"
    else:
        places = rf"(SRPMS|noarch|{key.target.arch})/([^/]+\.rpm|repodata/[^/]+\.xml(\.gz)?)"
    for path in files:
        if not re.fullmatch(places, path):
            raise ValueError(f"the layout has no place for {path}")


def _check_all_indexed(indexed: list[Indexed], files: Mapping[str, File], suffix: str) -> None:
    if not indexed:
        raise ValueError("the repository's index is empty")
    left = {path for path in files if path.endswith(suffix)} - {one.file.path for one in indexed}
    if left:
        raise ValueError(f"{min(left)} is not in the repository's index")


def _check_expected(key: PackageKey, manifest: Manifest, indexed: list[Indexed]) -> None:
    versions = {package.name: package.version for package in indexed}
    missing = [name for name in manifest.packages if name not in versions]
    if missing:
        raise ValueError(f"packages that the sources name are missing: {', '.join(missing)}")
    exact = key.target.pkg_type == "deb"
    for name in manifest.packages:
        version = versions[name]
        if version != manifest.version if exact else manifest.version not in version:
            raise ValueError(f"{name} is of version {version}, not {manifest.version}")


def _debs(key: PackageKey, directory: Path, files: Mapping[str, File]) -> Iterator[Indexed]:
    top = f"dists/{key.target.dist}"
    index = f"main/binary-{key.target.deb_arch}/Packages"
    release = Release(_one_stanza(_text(directory, f"{top}/Release", files)))
    unknown = sorted(set(release) - _RELEASE_FIELDS)
    if unknown:
        raise ValueError(f"{top}/Release has a field {unknown[0]}, which no repository of ours has")
    if release.get("Codename") != key.target.dist:
        raise ValueError(f"{top}/Release is for {release.get('Codename')!r}")
    try:
        hashes = {row["name"]: (int(row["size"]), row["sha256"]) for row in release.get("SHA256", [])}
        listed_names = {row["name"] for table in _tables(release) for row in table}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{top}/Release has a table that cannot be read") from None
    for name in sorted(listed_names):
        if f"{top}/{name}" not in files:
            raise ValueError(f"{top}/Release lists {name}, which was not uploaded")
    for path, file in files.items():
        listed = hashes.get(path.removeprefix(f"{top}/"))
        if path.startswith(f"{top}/main/") and listed != (file.size, file.sha256):
            raise ValueError(f"{top}/Release does not hold the size and SHA-256 of {path}")
    if index not in hashes:
        raise ValueError(f"{top}/Release does not list {index}")
    text = _text(directory, f"{top}/{index}", files)
    compressed = f"{top}/{index}.gz"
    if compressed in files and _unpacked(directory / compressed) != text.encode():
        raise ValueError(f"{compressed} does not unpack to Packages")
    stanzas = [stanza for stanza in re.split(r"\n\n+", text.strip()) if stanza]
    for stanza in stanzas:
        for field in _PACKAGE_FIELDS:
            if len(re.findall(rf"(?mi)^{field}[ \t]*:", stanza)) != 1:
                raise ValueError(f"{top}/{index} has a stanza without just one field {field}")
    for stanza in Packages.iter_paragraphs(text.splitlines(keepends=True), use_apt_pkg=False):
        try:
            file = File(stanza["Filename"], int(stanza["Size"]), stanza["SHA256"])
            yield Indexed(stanza["Package"], stanza["Version"], file)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{top}/{index} has a stanza without {error}") from None


def _rpms(key: PackageKey, directory: Path, files: Mapping[str, File]) -> Iterator[Indexed]:
    if layout.release_rpm(key.target) not in files:
        raise ValueError(f"{layout.release_rpm(key.target)} is missing")
    for repomd in layout.signed_files(key.target):
        part = repomd.split("/", 1)[0]
        try:
            yield from _rpms_of(part, directory, files, _text(directory, repomd, files))
        except (ParseError, DefusedXmlException, LookupError, zlib.error) as error:
            raise ValueError(f"the metadata of {part} cannot be read: {error}") from None


def _rpms_of(part: str, directory: Path, files: Mapping[str, File], repomd: str) -> Iterator[Indexed]:
    primary = ""
    root = _xml(repomd.encode())
    if {child.tag for child in root} - {f"{{{_NS['repo']}}}data", f"{{{_NS['repo']}}}revision"}:
        raise ValueError(f"{part}/repodata/repomd.xml holds more than data and revision")
    found = root.findall("repo:data", _NS)
    if sorted(data.attrib["type"] for data in found) != _DATA_TYPES:
        raise ValueError(f"{part}/repodata/repomd.xml is not of {', '.join(_DATA_TYPES)}, each once")
    for data in found:
        path = f"{part}/{_find(data, 'repo:location').attrib['href']}"
        if path not in files or _find(data, "repo:checksum").text != files[path].sha256:
            raise ValueError(f"{part}/repodata/repomd.xml does not hold the SHA-256 of {path}")
        if data.attrib["type"] == "primary":
            primary = path
    if not primary.endswith(".gz"):
        raise ValueError(f"{part}/repodata/repomd.xml names no primary.xml.gz")
    for package in _xml(_gunzip(_read(directory / primary))).findall("common:package", _NS):
        version = _find(package, "common:version").attrib
        checksum = _find(package, "common:checksum")
        if checksum.attrib["type"] != "sha256":
            raise ValueError(f"{part} has packages without SHA-256")
        path = f"{part}/{_find(package, 'common:location').attrib['href']}"
        size = _find(package, "common:size").attrib["package"]
        if not (size.isascii() and size.isdigit()):
            raise ValueError(f"{part} has a package whose size is {size[:40]!r}")
        yield Indexed(
            "" if part == "SRPMS" else str(_find(package, "common:name").text),
            f"{version['ver']}-{version['rel']}",
            File(path, int(size[:18]), str(checksum.text)),
        )


def _tables(release: Release) -> Iterator[list[dict[str, str]]]:
    for field in ("MD5Sum", "SHA1", "SHA256", "SHA512"):
        yield release.get(field, [])


def _one_stanza(text: str) -> str:
    if "\n\n" in text.strip() or "-----BEGIN" in text:
        raise ValueError("Release is not one plain stanza")
    return text


def _xml(data: bytes) -> Element:
    if b"xml:base" in data:
        raise ValueError("xml:base leads away from the repository")
    root: Element = fromstring(data)
    return root


def _find(element: Element, path: str) -> Element:
    found = element.find(path, _NS)
    if found is None:
        raise KeyError(path)
    return found


def _read(path: Path) -> bytes:
    if path.stat().st_size > _MOST_INDEX:
        raise ValueError(f"{path.name} is larger than {_MOST_INDEX} bytes")
    return path.read_bytes()


def _text(directory: Path, path: str, files: Mapping[str, File]) -> str:
    if path not in files:
        raise ValueError(f"{path} is missing")
    try:
        return _read(directory / path).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None


def _unpacked(path: Path) -> bytes | None:
    """Give what a file unpacks to, or None if it is no gzip."""
    try:
        return _gunzip(_read(path))
    except zlib.error:
        return None


def _gunzip(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    text = stream.decompress(data, _MOST_INDEX)
    if stream.unconsumed_tail:
        raise ValueError(f"an index unpacks to more than {_MOST_INDEX} bytes")
    return text
