"""Decides, whenever a ref is requested, which repository's ref has the link `ref/<ref>`.

The default repository comes first. A fork's branch or tag gets the link if the default repository has none of that
name; of two forks, the first keeps it while it still has such a branch or tag. Any other ref, such as
`refs/pull/12/head`, has a link for the default repository only, below its full name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from master.requests.refs import RefUnknown, RepositoryUnreachable
from model.git_names import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Resolved:
    """The answers of repositories for one ref: its commit, or why that is not known."""

    ref: str
    kind: str
    git_url: str
    said: Mapping[str, str | BaseException]
    """Answers by URL; the one of `git_url` is a commit. The others were asked for a branch or tag, whichever kind is requested."""

    @property
    def sha1(self) -> str:
        """The ref's commit in the repository that the request names."""
        return str(self.said[self.git_url])

    def is_at(self, git_url: str) -> bool:
        """Return whether a repository has the ref at the same commit."""
        return self.said.get(git_url) == self.sha1

    def linked_as(self, default_url: str) -> str:
        """Return the URL of the repository that the link would belong to."""
        return default_url if self.is_at(default_url) else self.git_url

    def why_not(self, default_url: str, owner: str) -> str:
        """Return why the ref gets no link, or an empty string.

        `default_url` is the project's own repository, `owner` the URL of the repository that has the link now.
        """
        if self.is_at(default_url):
            return ""
        ours = self.said.get(default_url)
        if self.kind == OTHER:
            return f"only {default_url} has links for refs that are no branches and no tags"
        if isinstance(ours, str):
            return f"{default_url} has another branch or tag {self.ref!r}"
        if not isinstance(ours, RefUnknown):
            return f"{default_url} could not be asked whether it has {self.ref!r} as well"
        if owner in ("", self.git_url, default_url) or self._is_gone(owner):
            return ""
        return f"it is that of {self.ref!r} in {owner}"

    def _is_gone(self, owner: str) -> bool:
        """Return whether a repository no longer has the ref, or is no longer allowed."""
        said = self.said.get(owner)
        if isinstance(said, RepositoryUnreachable):
            return not said.passing
        return said is None or isinstance(said, RefUnknown)
