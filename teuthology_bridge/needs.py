"""The smallest set of packages that lets all jobs of a run install: each commit once for each target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from teuthology_bridge import gitbuilder
from teuthology_bridge.errors import BuildpackagesError, WrongSettings
from teuthology_bridge.jobs import Problem
from teuthology_bridge.settings import sizes
from teuthology_bridge.task import configuration, git_url
from teuthology_bridge.wants import Want, wants

if TYPE_CHECKING:
    from teuthology_bridge.jobs import Job

_TASK = "buildpackages"


@dataclass
class Need:
    """Packages of one commit, or of what names one, for one target; and the jobs that install them."""

    target: str
    kind: Any
    value: str
    git_url: str
    url: Callable[[str], str]
    """Gives, for a sha1, where install looks for the packages; for the empty text, by what the jobs name."""
    jobs: list[str] = field(default_factory=list)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    refs: list[str] = field(default_factory=list)
    """What the jobs call the commit, where they do not name it by its sha1."""

    @property
    def key(self) -> str:
        """Give the package_key, or what is known of it."""
        return f"{self.target}/{self.value}"

    def take(self, other: Need) -> None:
        """Stand for another one's jobs as well."""
        self.jobs += [job for job in other.jobs if job not in self.jobs]
        self.refs += [ref for ref in other.refs if ref not in self.refs]
        for name, size in other.sizes.items():
            mine = self.sizes.setdefault(name, {})
            # The machine must do for every job: the largest of each part does.
            mine.update({part: max(number, mine.get(part, 0)) for part, number in size.items()})


class Names(Protocol):
    """What teuthology knows of names and places."""

    def default_versions(self) -> Mapping[str, str]:
        """Give the version of each distribution for jobs that name none."""

    def target_of(self, want: Want) -> str:
        """Give the layout's directory."""

    def url_of(self, want: Want, sha1: str) -> str:
        """Give where install looks."""

    def git_url(self, config: Mapping[str, Any], project: str) -> str:
        """Give the repository that a project's commits are in."""


class Teuthology:
    """What teuthology itself says; it is imported with the first question."""

    def __init__(self, packages_url: str) -> None:
        """Take where the package server is."""
        self._packages_url = packages_url

    def default_versions(self) -> Mapping[str, str]:
        """Give the version of each distribution for jobs that name none."""
        return gitbuilder.default_versions()

    def target_of(self, want: Want) -> str:
        """Give the layout's directory."""
        return gitbuilder.target_of(want)

    def url_of(self, want: Want, sha1: str) -> str:
        """Give where install looks."""
        return gitbuilder.url_of(want, self._packages_url, sha1)

    def git_url(self, config: Mapping[str, Any], project: str) -> str:
        """Give the repository that a project's commits are in."""
        return git_url(config, project)


def smallest(
    jobs: Iterable[Job], names: Names, machines: Mapping[str, Mapping[str, int]] | None = None
) -> tuple[list[Need], list[Problem]]:
    """Give what is needed, in the order of the jobs, and what can't be; one job's mistakes are not another's.

    The machines are the site's sizes, below those of the jobs.
    """
    needs: dict[tuple[str, ...], Need] = {}
    problems: dict[str, list[str]] = {}
    defaults = names.default_versions()
    for job in jobs:
        try:
            found = list(_of(job, names, defaults, machines))
        except WrongSettings:
            raise
        except BuildpackagesError as error:
            problems.setdefault(str(error), []).append(job.name)
            continue
        for need in found:
            # A commit is the same in every repository; a name is not.
            place = () if need.kind == "sha1" else (need.git_url, need.kind)
            known = needs.setdefault((need.target, need.value, *place), need)
            if known is not need:
                known.take(need)
    return list(needs.values()), [Problem(_told(who), sentence) for sentence, who in problems.items()]


def _of(
    job: Job, names: Names, defaults: Mapping[str, str], of_site: Mapping[str, Mapping[str, int]] | None
) -> Iterable[Need]:
    task = next((one[_TASK] for one in job.config["tasks"] if isinstance(one, dict) and _TASK in one), None)
    machines = sizes(configuration(job.config, task), of_site)
    for want in wants(job.config, os_type=None, os_version=None, defaults=defaults):
        yield Need(
            target=names.target_of(want),
            kind=want.kind,
            value=want.value,
            git_url=names.git_url(job.config, want.project),
            url=_url(names, want),
            jobs=[job.name],
            sizes={name: dict(size) for name, size in machines.items()},
            refs=[want.ref] if want.ref else [],
        )


def _url(names: Names, want: Want) -> Callable[[str], str]:
    return lambda sha1: f"{names.url_of(want, sha1).rstrip('/')}/"


def _told(jobs: list[str]) -> str:
    """Name one job, and say how many others there are."""
    others = len(jobs) - 1
    return jobs[0] if not others else f"{jobs[0]} and {others} other{'s' if others > 1 else ''}"
