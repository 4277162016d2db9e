"""The task `buildpackages`: everything that the job installs is published before its machines are touched."""

from __future__ import annotations

import getpass
import logging
import os
import signal
from collections.abc import Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from teuthology_bridge import gitbuilder, kernels
from teuthology_bridge.ensure import Ensure, Goal, Outcome
from teuthology_bridge.errors import BuildpackagesError, WrongJob, one_line
from teuthology_bridge.settings import Settings, sizes
from teuthology_bridge.waiter import waiter
from teuthology_bridge.wants import pin, wants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teuthology_bridge.wants import Want

log = logging.getLogger(__name__)

_NAME = "buildpackages"


def task(ctx: Any, config: Any) -> None:
    """Have all packages that the job installs built and published, and install take them from there.

    teuthology moves this task before all others. It looks for `install` and `install.upgrade` wherever
    they are in the job, asks the master for what is not published yet, and waits for all of it::

        tasks:
        - install:
            branch: wip-something
        - buildpackages:

    Where the master is, a site says once, in its ~/.teuthology.yaml::

        buildpackages:
          url: http://master.example.org:8010/
          packages_url: http://packages.example.org/
          token_file: /etc/teuthology/buildpackages.token

    A job may say it itself, but for token_file; its `token` is shown with the job, and another server
    than the site's that it names is not sent the site's. All that a job may say, besides::

        - buildpackages:
            limit: 43200               # seconds for all of it
            unreachable_limit: 1800    # seconds that a server or a repository may be away in one stretch
            look_timeout: 10           # seconds for a look
            ask_timeout: 60            # seconds for an ask, in which the master asks git
            good_machine:              # what the build gets where it can be had
              disk: 100 # GB
              ram: 64000 # MB
              cpus: 16
            min_machine:               # what it needs
              disk: 40 # GB
              ram: 8000 # MB
              cpus: 1

    What is in `overrides: buildpackages:` wins over the task's own, and `BUILDPACKAGES_URL`,
    `BUILDPACKAGES_TOKEN` and so on in the environment over both.

    When it is done, each `install` has the sha1 that its branch or tag was at, and the summary has a row for
    each package, with how it came to be there. When it fails, `failure_reason` says why in one line: the
    job is `dead` if the infrastructure failed, and `fail` if the commit does not build.

    :param ctx: the job's context
    :param config: the task's configuration
    """
    try:
        _ensure(ctx, config)
    except BuildpackagesError as error:
        if error.status == "dead":
            _die(ctx.summary)
        raise error.bare() from None


def _ensure(ctx: Any, config: object) -> None:
    told = configuration(ctx.config, config)
    run = run_name(ctx.config, ctx.archive)
    settings = replace(_settings(told), job=waiter(run))
    machines = sizes(told, settings.machines)
    wanted = wants(
        ctx.config,
        os_type=ctx.os_type,
        os_version=ctx.os_version,
        defaults=gitbuilder.default_versions(),
    )
    if not wanted:
        log.info("the job installs no packages of ours: there is nothing to ask for")
        return
    goals = {want: _goal(want, settings, ctx.config, machines) for want in wanted}
    for want, goal in goals.items():
        log.info("%s: wanted, %s%s", goal, want, f"; {want.assumed}" if want.assumed else "")
    if roles := kernels.looked_for(ctx.config):
        log.warning(
            "the kernel of %s is neither the distribution's, nor a file, nor koji's: teuthology will look for it"
            " at %s, where there is none, and fail unless it runs already; run the job with `-k distro`",
            ", ".join(roles),
            settings.packages_url,
        )
    ensure = Ensure(settings, log, reason=f"teuthology job {run}")
    found = _wait(ensure, list(dict.fromkeys(goals.values())), ctx.summary)
    for want, goal in goals.items():
        pin(ctx.config, want, found[goal].sha1)
    gitbuilder.point_teuthology_at(settings.packages_url)


def _settings(told: Mapping[str, Any]) -> Settings:
    """Read them, with what is to be said of them; where they come from stays here, as a report to Sentry would show it."""
    site = _teuthology_config()
    settings = Settings.load(os.environ, site.get(_NAME), told)
    for warning in settings.warnings:
        log.warning("%s", warning)
    if False in (one.get("canonical_tags") for one in (told, site, site.get(_NAME) or {})):
        log.info(
            "canonical_tags: false changes nothing: versions always come from the canonical repository's tags"
        )
    return settings


def _wait(ensure: Ensure, goals: list[Goal], summary: MutableMapping[str, Any]) -> dict[Goal, Outcome]:
    """Wait for all, and leave in the summary what came of them, also of those that failed."""
    rows: list[dict[str, Any]] = []
    try:
        with _at_kill(lambda: ensure.withdraw(in_signal_handler=True)):
            outcomes = ensure.run(goals)
    except BuildpackagesError as error:
        if error.package_key:
            how = {"package_key": error.package_key, "url": None, "how": type(error).__name__}
            rows.append({**how, "build_url": error.build_url})
        raise
    finally:
        summary[_NAME] = [*map(_row, ensure.outcomes()), *rows]
    return {outcome.goal: outcome for outcome in outcomes}


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "package_key": outcome.package_key,
        "url": outcome.url,
        "waited": round(outcome.seconds, 1),
        "how": outcome.how,
        "build_url": outcome.build_url,
    }


def _goal(
    want: Want, settings: Settings, config: Mapping[str, Any], machines: Mapping[str, Mapping[str, int]]
) -> Goal:
    def version_url(sha1: str) -> str:
        return f"{gitbuilder.url_of(want, settings.packages_url, sha1).rstrip('/')}/version"

    return Goal(
        gitbuilder.target_of(want),
        cast("Any", want.kind),
        want.value,
        git_url(config, want.project),
        version_url,
        **machines,
    )


def configuration(job: Mapping[str, Any], config: object) -> dict[str, Any]:
    """Give the task's configuration, with what overrides put over it."""
    told: dict[str, Any] = {}
    overrides = job.get("overrides") or {}
    for where, layer in (
        (f"the job's `{_NAME}`", config),
        (f"`{_NAME}` in the job's `overrides`", overrides.get(_NAME)),
    ):
        if layer is None:
            continue
        if not isinstance(layer, Mapping):
            raise WrongJob(f"{where} must be a mapping, not {layer!r}")
        told = _merged(told, layer)
    return told


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        nested = isinstance(under, Mapping) and isinstance(value, Mapping)
        both[key] = _merged(cast("Any", under), value) if nested else value
    return both


def run_name(job: Mapping[str, Any], archive: str | None) -> str:
    """Give what people call this run: the scheduled job, or who runs it by hand and into which archive."""
    if job.get("job_id"):
        return one_line(f"{job.get('name')}/{job['job_id']}", 200)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    where = os.path.basename((archive or "").rstrip("/"))
    return one_line(f"{user}/{where}" if where else user, 200)


def git_url(job: Mapping[str, Any], project: str) -> str:
    """Give the repository that a project's commits are in: the job's own for Ceph, or else the site's."""
    site = _teuthology_config()
    if project == "ceph":
        return str(job.get("repo") or site.get_ceph_git_url())
    return f"{site.ceph_git_base_url}{project}.git"


def _teuthology_config() -> Any:
    from teuthology.config import config

    return config


def _die(summary: MutableMapping[str, Any]) -> None:
    """Have teuthology not take it for a failure of what the job tests."""
    try:
        from teuthology.job_status import set_status
    except ImportError:
        summary.update(status="dead", success=False)
    else:
        set_status(summary, "dead")


@contextmanager
def _at_kill(act: Any) -> Iterator[None]:
    """Act when teuthology-kill ends the process, which unwinds nothing; an interrupt at the keyboard does."""
    from teuthology.exit import exiter

    before = signal.getsignal(signal.SIGTERM)
    handler = exiter.add_handler(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        handler.remove()
        if not exiter.handlers:
            signal.signal(signal.SIGTERM, before)
