"""Why a job gets no packages: each exception is the one line that becomes teuthology's `failure_reason`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 1000
"""Characters of a line: more is nothing that somebody reads in a table of jobs."""


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Give a text as one line of printable characters, cut if it is too long to be read."""
    words = "".join(one if one.isprintable() else " " for one in text).split()
    line = " ".join(words)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def duration(seconds: float) -> str:
    """Give a duration as people say it, no more exactly than matters."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left:02} s" if left and minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes % 60 else f"{minutes // 60} h"


class BuildpackagesError(Exception):
    """The job can't have its packages; `status` is what the job's becomes."""

    status = "dead"

    def __init__(self, sentence: str, *, package_key: str = "", build_url: str | None = None) -> None:
        """Take what went wrong, for which packages, and where it can be looked at."""
        self.package_key = package_key
        self.build_url = build_url
        self.sentence = one_line(sentence)
        where = f"; see {build_url}" if build_url and build_url not in self.sentence else ""
        super().__init__(f"{package_key}: {self.sentence}{where}" if package_key else self.sentence + where)

    def bare(self) -> BuildpackagesError:
        """Give it without the frames that it came through: teuthology sends their variables to Sentry, the token among them."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def fingerprint(self) -> list[str]:
        """Tell Sentry which failures are the same one."""
        return ["buildpackages", type(self).__name__, self.package_key or self.sentence]


class PackagesFailed(BuildpackagesError):
    """The commit does not build."""

    status = "fail"

    def __init__(self, package_key: str, reason: str, error: str, build_url: str | None) -> None:
        """Take what failed, and the first line of its log that says why."""
        self.error = one_line(error, 500)
        super().__init__(
            f"the build failed: {_told(reason, self.error)}", package_key=package_key, build_url=build_url
        )

    def fingerprint(self) -> list[str]:
        """Tell Sentry that the same error of the same packages is the same failure."""
        return [*super().fingerprint(), self.error]


class Cancelled(BuildpackagesError):
    """Somebody ended the build that this job waited for."""

    status = "fail"

    def __init__(self, package_key: str, reason: str, build_url: str | None) -> None:
        """Take what the master says of it."""
        told = f": {reason}" if reason else ""
        super().__init__(
            f"the build was cancelled{told}; run the job again to ask anew",
            package_key=package_key,
            build_url=build_url,
        )


class Trouble(BuildpackagesError):
    """The master could not build, for reasons that are not the commit's."""

    def __init__(self, package_key: str, reason: str, error: str, build_url: str | None) -> None:
        """Take what the master says of its last try."""
        super().__init__(
            f"could not be built, and not because of the commit: {_told(reason, one_line(error, 500))}",
            package_key=package_key,
            build_url=build_url,
        )


class Unreachable(BuildpackagesError):
    """The master, the package server or a repository was away for too long."""

    def __init__(
        self, server: str, seconds: float, why: str, package_key: str, build_url: str | None
    ) -> None:
        """Take who did not answer, for how long, and what came instead at last."""
        self.server = server
        super().__init__(
            f"{server} gave no answer for {duration(seconds)}, at last because: {why}",
            package_key=package_key,
            build_url=build_url,
        )

    def fingerprint(self) -> list[str]:
        """Tell Sentry that all jobs that miss the same server have the same trouble."""
        return ["buildpackages", type(self).__name__, self.server]


class TimeLimit(BuildpackagesError):
    """The packages did not come in time."""

    def __init__(self, package_key: str, limit: float, doing: str, build_url: str | None) -> None:
        """Take the limit, and how far it was."""
        super().__init__(
            f"not there within {duration(limit)}, which is its `limit`: {doing}",
            package_key=package_key,
            build_url=build_url,
        )


class WrongSettings(BuildpackagesError):
    """The bridge can't work as it is set up; the operator has to look."""


class WrongJob(BuildpackagesError):
    """The job asks for what there can't be; its author has to look."""

    status = "fail"


class RefUnknown(WrongJob):
    """The repository has no such branch or tag."""


def together(sentences: Sequence[str]) -> str:
    """Give all that is wrong at once, in one sentence."""
    return "; ".join(sentences)


def _told(reason: str, error: str) -> str:
    """Give why, without saying the same twice."""
    reason = one_line(reason, 500)
    if not reason or reason in error:
        return error or "the master does not say why"
    return reason if error in reason else f"{reason}: {error}"
