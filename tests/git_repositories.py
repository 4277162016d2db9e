"""Real git repositories for tests, the same on every machine, and a real git daemon to serve them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.patience import free_ports, listens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A Contributor",
    "GIT_AUTHOR_EMAIL": "contributor@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "A Contributor",
    "GIT_COMMITTER_EMAIL": "contributor@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
    "LC_ALL": "C.UTF-8",
}


def git(directory: Path, *arguments: str) -> str:
    """Run git in a directory, and give what it prints."""
    finished = subprocess.run(
        ["git", "-C", str(directory), *arguments],
        env=ENVIRONMENT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return finished.stdout.strip()


def new_repository(directory: Path, object_format: str = "sha1") -> Path:
    """Make a repository with a work tree and no commit, which serves partial clones."""
    directory.mkdir(parents=True)
    git(directory, "init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
    git(directory, "config", "uploadpack.allowFilter", "true")
    git(directory, "config", "uploadpack.allowAnySHA1InWant", "true")
    return directory


def commit(repository: Path, message: str, files: Mapping[str, str] | None = None) -> str:
    """Commit these files on top of HEAD; those with a `#!` become executable. Give the sha1."""
    for name, text in (files or {}).items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(repository, "rev-parse", "HEAD")


@contextmanager
def git_daemon(directory: Path) -> Iterator[str]:
    """Serve all repositories below a directory; give the URL of that, with a slash at its end."""
    [port] = free_ports(1)
    program = Path(git(directory, "--exec-path")) / "git-daemon"
    process = subprocess.Popen(
        [program, f"--base-path={directory}", "--export-all", "--reuseaddr",
         "--listen=127.0.0.1", f"--port={port}", str(directory)],
        env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        listens(process, ("127.0.0.1", port), lambda: "git daemon says nothing")
        yield f"git://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()
