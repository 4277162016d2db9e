"""Run by the Python of teuthology's virtual environment: the roles for which its task `kernel` would ask for a kernel.

Reads jobs in JSON, each of one task. The condition is process_role's, which can't be had without machines.
"""

import json
import sys
from types import SimpleNamespace

from teuthology.task.kernel import normalize_and_apply_overrides

found = []
for job in json.load(sys.stdin):
    remotes = {f"machine {number}": roles for number, roles in enumerate(job["roles"])}
    ctx = SimpleNamespace(cluster=SimpleNamespace(remotes=remotes))
    config, _ = normalize_and_apply_overrides(ctx, job["tasks"][0]["kernel"], job["overrides"]["kernel"])
    found.append(
        [
            role
            for role, its in config.items()
            if not its.get("rpm")
            and not its.get("deb")
            and its.get("sha1") != "distro"
            and not its.get("koji")
            and not its.get("koji_task")
        ]
    )
json.dump(found, sys.stdout)
