"""Run by the Python of teuthology's virtual environment: the task, started by teuthology's own run_tasks.

Reads `{"config", "task", "archive", "os_type", "os_version"}` in JSON, and writes what a job would be left with.
The context has what it has when buildpackages_prep has moved the task first: there is no cluster yet.
"""

import json
import logging
import sys
from contextlib import suppress

from teuthology_bridge import hook

hook.install()

from teuthology.config import FakeNamespace  # noqa: E402
from teuthology.config import config as site  # noqa: E402
from teuthology.run_tasks import run_tasks  # noqa: E402
from teuthology.util import sentry  # noqa: E402

from tests.teuthology_bridge.frames import variables  # noqa: E402

# By force, as teuthology has set it up already.
logging.basicConfig(
    force=True, level=logging.INFO, stream=sys.stderr, format="%(name)s %(levelname)s %(message)s"
)
given = json.load(sys.stdin)
config = given["config"]
ctx = FakeNamespace(
    {
        "--archive": given.get("archive"),
        "--block": False,
        "<config>": config,
        "--description": None,
        "--interactive-on-error": False,
        "--lock": False,
        "--machine-type": None,
        "--name": None,
        "--os-type": given.get("os_type"),
        "--os-version": given.get("os_version"),
        "--owner": "somebody",
        "--suite-path": None,
        "--verbose": False,
    }
)
ctx.summary = {"owner": "somebody", "success": True}
assert not hasattr(ctx, "cluster")
reported = []
sentry.report_error = lambda config, error, task: reported.extend(variables(error))
# So it ends when what failed had something to unwind.
with suppress(SystemExit):
    run_tasks(tasks=[{"buildpackages": given.get("task")}], ctx=ctx)
pointed = {name: site.get(name) for name in ("gitbuilder_host", "package_source", "use_shaman")}
json.dump({"summary": ctx.summary, "config": config, "pointed": pointed, "reported": reported}, sys.stdout)
