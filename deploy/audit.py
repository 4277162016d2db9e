"""Ask pip-audit for known faults of the locked requirements, and Debian's security tracker for those of the system packages.

Run by `make audit`. Status 0: nothing found. 1: something found. 2: an advisory service could not be asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "workers/worker-requirements.txt")
"""What runs in production."""

FOUND, NOT_ASKED = 1, 2


def main() -> int:
    """Run both audits; return the worse status."""
    return max(_python_packages(), _system_packages())


def _python_packages() -> int:
    status = 0
    for lock in LOCKS:
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--disable-pip",
            "--require-hashes",
            "--progress-spinner",
            "off",
        ]
        finished = subprocess.run(
            [*command, "--requirement", lock], cwd=CHECKOUT, check=False, capture_output=True, text=True
        )
        if finished.returncode == 0:
            print(f"{lock}: no known vulnerabilities")
        elif "Fix Versions" in finished.stdout:  # the head of its table; failures of its own have none
            print(f"{lock}:\n{finished.stdout.strip()}")
            status = max(status, FOUND)
        else:
            _not_asked(f"pip-audit could not check {lock}", finished.stderr or finished.stdout)
            status = NOT_ASKED
    return status


def _system_packages() -> int:
    if shutil.which("debsecan") is None:
        print("debsecan is not installed: apt-get install debsecan", file=sys.stderr)
        return NOT_ASKED
    suite = (
        dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        .get("VERSION_CODENAME", "")
        .strip('"')
    )
    listed = re.findall(r"\]='(.*)'", (CHECKOUT / "deploy/system-packages.sh").read_text())
    ours = {name for group in listed for name in group.split()}
    finished = subprocess.run(
        ["debsecan", "--suite", suite, "--only-fixed"], check=False, capture_output=True, text=True
    )
    if finished.returncode != 0:
        _not_asked("debsecan could not ask Debian's security tracker", finished.stderr or finished.stdout)
        return NOT_ASKED
    found = [
        line for line in finished.stdout.splitlines() if len(line.split()) > 1 and line.split()[1] in ours
    ]
    print("\n".join(found) or "system packages: no update fixes a known vulnerability")
    return FOUND if found else 0


def _not_asked(what: str, errors: str) -> None:
    reason = (errors.strip().splitlines() or ["no message"])[-1]
    print(f"{what}: {reason[:300]}. This machine must reach the advisory service.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
