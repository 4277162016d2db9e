"""The task `expect_failure`: passes if one of its tasks fails for the reason given.

As YAML: `- expect_failure: {reason: no-such-branch, tasks: [{install: {branch: no-such-branch}}]}`.
"""

from __future__ import annotations

import logging
from typing import Any

from teuthology import run_tasks

log = logging.getLogger(__name__)

_END = ("status", "success", "failure_reason")


def task(ctx: Any, config: dict[str, Any]) -> None:
    """Run the tasks in order until one raises; its message must contain the reason."""
    before = {key: ctx.summary[key] for key in _END if key in ctx.summary}
    for entry in config["tasks"]:
        ((name, arguments),) = entry.items()
        try:
            run_tasks.run_one_task(name, ctx=ctx, config=arguments)
        except Exception as error:
            if config["reason"] not in str(error):
                raise
            log.info("%s failed as it should: %s", name, error)
            # What a task says of the job's end is not so here.
            for key in _END:
                ctx.summary.pop(key, None)
            ctx.summary.update(before)
            return
    raise RuntimeError(f"no task failed; one should have, because of {config['reason']}")
