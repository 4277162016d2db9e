"""`make real-ceph-test`: every test on real files of Ceph; the result replaces the log in docs/real-ceph-files.md."""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from tests.real_ceph.upstream_files import CHECKOUT, RELEASES, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT = CHECKOUT / ".real-ceph/report.xml"
DOCUMENT = CHECKOUT / "docs/real-ceph-files.md"
MARK = "<!-- make real-ceph-test writes what follows -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the files, run the tests, write the log; return pytest's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.real_ceph", description=__doc__, usage="%(prog)s [-h] [OPTION_OF_PYTEST ...]"
    )
    _, options = parser.parse_known_args(arguments)
    began = time.time()
    sources = [(fetch(release) / "source").read_text().split() for release in RELEASES.values()]
    fetched = time.time() - began
    tests = ["test_upstream_files.py", "test_real_ceph.py", "whole.py"]
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={REPORT}", *options]
    paths = [str(CHECKOUT / "tests/real_ceph" / name) for name in tests]
    status = subprocess.run([*command, *paths], cwd=CHECKOUT, check=False).returncode
    seconds = time.time() - began
    rows = [_row(case) for case in ET.parse(REPORT).iter("testcase")]
    failed = sum(row.endswith("| failed |") for row in rows)
    head = (
        f"{time.strftime('%Y-%m-%d', time.gmtime(began))}, {_system()}: {len(rows) - failed} passed, {failed} failed, "
        f"{seconds:.0f} s in all, of which {fetched:.0f} s to fetch the files."
    )
    tarballs = [f"- `{name}`, SHA-256 `{sha256}`" for name, sha256 in sources]
    table = ["| test | seconds | result |", "|---|---|---|", *rows]
    before, mark, _ = DOCUMENT.read_text().partition(MARK)
    DOCUMENT.write_text(f"{before}{mark or MARK}\n" + "\n".join([head, "", *tarballs, "", *table]) + "\n")
    print(f"{head} See {DOCUMENT.relative_to(CHECKOUT)}.")
    return status


def _row(case: ET.Element) -> str:
    """Return a test's row: the first that needs a build waits for it, the others read the same build."""
    name = re.sub(r"^test_", "", str(case.get("name"))).replace("_", " ")
    result = "passed" if case.find("failure") is None and case.find("error") is None else "failed"
    return f"| {name} | {float(case.get('time', '0')):.1f} | {result} |"


def _system() -> str:
    release = platform.freedesktop_os_release()
    return f"{release['PRETTY_NAME']}, {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
