#!/usr/bin/env python3
"""Upload directories to the package server; standard library only, Python 3.6 and later.

    UPLOAD_TOKEN=... upload.py BASE_URL TARGET/SHA1 DIRECTORY=PLACE... --version V --packages a,b,c

The files below each DIRECTORY arrive below PLACE, a directory of the upload; `.` is its top.
Each file is hashed while it is sent, and compared with what the server says that it received. The
manifest goes last: without it the upload is incomplete. At the end it reports as the other scripts do
(`common.sh`): `uploaded=57 files, 123456 bytes`, or `FAILED: ` and a sentence, with exit status 1. A line on the
standard input is the key of the report, unless that is a terminal.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import re
import ssl
import stat
import sys
import time
from typing import Any, Iterator, List, Optional, Tuple
from urllib.parse import quote, urlsplit

ATTEMPTS = 3
CHUNK = 1024 * 1024
TIMEOUT = 300.0
TRY_AGAIN = (500, 502, 503, 504)
MANIFEST = "manifest.json"


class UploadError(Exception):
    """One clear sentence for who reads the log."""


class AgainError(Exception):
    """What failed may go well when it is tried again."""


class File:
    """One file to send: its path in the upload, and where its bytes come from."""

    def __init__(self, path: str, size: int, source: str = "", content: bytes = b"") -> None:
        """Take a file of the disk by `source`, or one made here by `content`."""
        self.path = path
        self.size = size
        self.sha256 = ""
        self._source = source
        self._content = content

    def chunks(self) -> Iterator[bytes]:
        """Give the bytes, as many as `size`; UploadError if they are not there any more."""
        if not self._source:
            yield self._content
            return
        left = self.size
        try:
            with open(self._source, "rb", buffering=0) as file:
                while left:
                    chunk = file.read(min(CHUNK, left))
                    if not chunk:
                        raise UploadError("%s became shorter while it was uploaded" % self.path)
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise UploadError("%s cannot be read: %s" % (self.path, error.strerror)) from None


class Server:
    """The package server, through one connection that is kept."""

    def __init__(self, base_url: str, key: str, token: str) -> None:
        """Take where it is, the package_key, and the token for it."""
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UploadError("%r is not the URL of a package server" % base_url)
        self._https = url.scheme == "https"
        self._address = (url.hostname, url.port)
        self._prefix = "%s/upload/%s/" % (url.path.rstrip("/"), quote(key))
        self._token = token
        self._connection = None  # type: Optional[http.client.HTTPConnection]

    def put(self, file: File) -> None:
        """Send a file, more than once if need be; UploadError if it does not arrive."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._put(file, attempt > 1)
                return
            except AgainError as error:
                self.close()
                if attempt == ATTEMPTS:
                    raise UploadError(
                        "%s could not be uploaded in %d attempts: %s" % (file.path, ATTEMPTS, error)
                    ) from None
                print("%s: %s; trying again" % (file.path, error), flush=True)
                time.sleep(2 ** (attempt - 1))

    def close(self) -> None:
        """End the connection; the next file makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _put(self, file: File, again: bool) -> None:
        sha256 = hashlib.sha256()
        status, digest, text = self._exchange(file, sha256)
        if status in TRY_AGAIN:
            raise AgainError("the server answered %d: %s" % (status, text[:200]))
        if status == 409 and again:
            self._settle(file, digest, text)
            return
        if status != 201:
            raise UploadError("%s was refused (%d): %s" % (file.path, status, text[:500]))
        file.sha256 = sha256.hexdigest()
        try:
            received = json.loads(text)
            same = (received["sha256"], received["size"]) == (file.sha256, file.size)
        except (ValueError, KeyError, TypeError):
            raise UploadError(
                "%s: the server's answer cannot be read: %r" % (file.path, text[:200])
            ) from None
        if not same:
            raise UploadError("%s arrived with another size or SHA-256 than was sent" % file.path)

    def _settle(self, file: File, digest: str, text: str) -> None:
        """Find out whether our broken attempt had arrived, and only the answer was lost."""
        if not digest:
            raise AgainError(text)  # the other side has not noticed yet that it is broken
        sha256 = hashlib.sha256()
        for chunk in file.chunks():
            sha256.update(chunk)
        if digest != "sha-256=:%s:" % base64.b64encode(sha256.digest()).decode():
            raise UploadError("%s is there already, and is another file" % file.path)
        file.sha256 = sha256.hexdigest()

    def _exchange(self, file: File, sha256: Any) -> Tuple[int, str, str]:
        """Send, and give status, digest and text of the answer; AgainError if there is none."""
        broken = None  # type: Optional[OSError]
        try:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            connection.putrequest("PUT", self._prefix + quote(file.path), skip_accept_encoding=True)
            connection.putheader("Authorization", "Bearer " + self._token)
            connection.putheader("Content-Length", str(file.size))
            connection.endheaders()
            try:
                for chunk in file.chunks():
                    sha256.update(chunk)
                    connection.send(chunk)
            except OSError as error:
                broken = error  # a server that refuses has answered before it had the body
            response = connection.getresponse()
            text = response.read(65536).decode("utf-8", "replace").strip()
            if response.will_close or broken:
                self.close()
            if broken and response.status < 400:
                raise broken
        except (OSError, http.client.HTTPException) as error:
            cause = broken or error
            raise AgainError("%s: %s" % (type(cause).__name__, cause)) from None
        return response.status, response.getheader("Repr-Digest") or "", text

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._https:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)


def find_files(directory: str, place: str) -> List[File]:
    """Return every file below a directory, with its path below a place; UploadError if one is no plain file."""
    files = []
    for parent, directories, names in os.walk(directory, onerror=_unreadable):
        for name in directories + names:
            source = os.path.join(parent, name)
            path = os.path.normpath(os.path.join(place, os.path.relpath(source, directory)))
            status = os.lstat(source)
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise UploadError("%s is a link or no plain file, and cannot be uploaded" % path)
            if path == MANIFEST:
                raise UploadError("%s is there already, but is for the upload to make" % path)
            files.append(File(path, status.st_size, source))
    return files


def manifest_of(version: str, packages: List[str], files: List[File]) -> bytes:
    """Give the manifest of files that were sent."""
    rows = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in files]
    data = {"version": version, "packages": packages, "files": rows}
    return json.dumps(data, indent=1).encode()


def human_size(size: int) -> str:
    """Give a number of bytes as people read it."""
    if size < 1024:
        return "%d B" % size
    amount, units = size / 1024, ["KiB", "MiB", "GiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return "%.1f %s" % (amount, units[0])


def upload(places: List[str], server: Server, version: str, packages: List[str]) -> Tuple[int, int]:
    """Send all files and the manifest; return the number of files, and of their bytes."""
    files = []
    for pair in places:
        directory, equals, place = pair.partition("=")
        if not equals:
            raise UploadError("%r is not DIRECTORY=PLACE" % pair)
        files += find_files(directory, place)
    files.sort(key=lambda file: file.path)
    if not files:
        raise UploadError("there are no files to upload in %s" % ", ".join(places))
    for number, file in enumerate(files, 1):
        server.put(file)
        size = human_size(file.size)
        print("[%d/%d] %s %s" % (number, len(files), file.path, size), flush=True)
    manifest = manifest_of(version, packages, files)
    server.put(File(MANIFEST, len(manifest), content=manifest))
    return len(files), sum(file.size for file in files)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line; give the exit code."""
    parser = argparse.ArgumentParser(description="Upload directories to the package server.")
    parser.add_argument("base_url", metavar="BASE_URL")
    parser.add_argument("key", metavar="TARGET/SHA1")
    parser.add_argument("places", metavar="DIRECTORY=PLACE", nargs="+")
    parser.add_argument("--version", required=True, help="what the packages are of")
    parser.add_argument("--packages", required=True, help="names expected, joined by commas")
    given = parser.parse_args(arguments)
    key = "" if sys.stdin.isatty() else sys.stdin.readline().strip()
    mark = key + " " if re.match(r"[0-9a-f]{32}\Z", key) else ""
    try:
        token = os.environ.get("UPLOAD_TOKEN", "")
        packages = [name for name in given.packages.split(",") if name]
        if not token:
            raise UploadError("UPLOAD_TOKEN is not in the environment")
        if not packages:
            raise UploadError("--packages names no package")
        server = Server(given.base_url, given.key, token)
        try:
            count, size = upload(given.places, server, given.version, packages)
        finally:
            server.close()
    except UploadError as error:
        sentence = re.sub(r"[\x00-\x1f\x7f]", " ", str(error))[:1000]
        print("%sFAILED: %s" % (mark, sentence), file=sys.stderr, flush=True)
        status, stream = 1, sys.stderr
    else:
        print("%suploaded=%d files, %d bytes" % (mark, count, size), flush=True)
        status, stream = 0, sys.stdout
    if mark:
        print("%sexit %d" % (mark, status), file=stream, flush=True)
    return status


def _unreadable(error: OSError) -> None:
    raise UploadError("%s cannot be read: %s" % (error.filename, error.strerror))


if __name__ == "__main__":
    sys.exit(main())
