"""A program that publishes directories, and is killed with SIGKILL at the n-th call that touches the disk.

    publish_and_die.py KEY REF < rows of [directory, n], as JSON

In each directory it publishes `staging/upload` into `packages`, in a process of its own that dies
right before its n-th call; with an n beyond the last call it ends by itself. For each row a line
is printed, as JSON: whether it was killed, and the calls that it made or died at.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from master.publishing.publisher import PublishedTree
from model.package_key import PackageKey
from tests.package_repositories import files_of

CALLS = ("rename", "replace", "symlink", "fsync", "chmod", "mkdir", "rmdir", "unlink")


class Count:
    """Counts the calls, tells each through a pipe, and dies at one of them."""

    def __init__(self, last: int, pipe: int) -> None:
        self.last = last
        self.pipe = pipe
        self.calls = 0

    def __call__(self, name: str) -> None:
        self.calls += 1
        os.write(self.pipe, f"{name}\n".encode())
        if self.calls == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, name: str) -> None:
        """Have a function of `os` counted."""
        made = getattr(os, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self(name)
            return made(*arguments, **options)

        setattr(os, name, counted)


def publish(directory: Path, key: PackageKey, ref: str, count: Count) -> None:
    """Publish what lies in a directory's `staging/upload`, each call counted."""
    upload = directory / "staging/upload"
    files = [
        {"path": file.path, "size": file.size, "sha256": file.sha256} for file in files_of(upload).values()
    ]
    for name in CALLS:
        count.wrap(name)

    def write_in_two(path: Path, data: str) -> int:
        """Have the first half on the disk before the second call, so that a file can be there in part."""
        count("write")
        with path.open("w") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            count("write the rest")
            return file.write(data[len(data) // 2 :])

    Path.write_text = write_in_two  # type: ignore[method-assign,assignment]
    published = PublishedTree(directory / "packages", directory / "staging")
    published.write_metadata(key, upload, {"version": "19.2.0-1", "files": files})
    published.place(key, upload)
    published.link(key, [ref])


def main() -> None:
    """Publish each row's directory in a process of its own, and tell how that ended."""
    key, ref = PackageKey.from_string(sys.argv[1]), sys.argv[2]
    for directory, last in json.load(sys.stdin):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            count = Count(last, writing)
            publish(Path(directory), key, ref, count)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            calls = pipe.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status == -signal.SIGKILL, status, calls]), flush=True)


if __name__ == "__main__":
    main()
