"""Which repository's ref has the link `ref/<ref>`, decided whenever a ref is requested.

The default repository goes before all others. A fork's branch or tag gets the link if the default repository has
none of that name; of two forks, the first keeps it for as long as it still has such a branch or tag. A ref that is
neither, such as `refs/pull/12/head`, has a link for the default repository only, below its full name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from master.refs import RefUnknown, RepositoryUnreachable
from model.git_names import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Resolved:
    """What repositories said of one ref: the commit that it is at, or why that is not known."""

    ref: str
    kind: str
    git_url: str
    default_url: str
    said: Mapping[str, str | BaseException]
    """By URL; that of `git_url` is a commit."""

    @property
    def sha1(self) -> str:
        """The commit that the ref is at, in the repository that the request names."""
        return str(self.said[self.git_url])

    @property
    def linked_as(self) -> str:
        """The URL of the repository whose ref the link is, if there is to be one."""
        return self.default_url if self.said.get(self.default_url) == self.sha1 else self.git_url

    def why_not(self, owner: str) -> str:
        """Return why the ref gets no link, or nothing; `owner` is the URL of the repository whose ref has it now."""
        if self.linked_as == self.default_url:
            return ""
        ours = self.said.get(self.default_url)
        if self.kind == OTHER:
            return f"only {self.default_url} has links for refs that are no branches and no tags"
        if isinstance(ours, str):
            return f"{self.default_url} has another {self.kind or 'branch or tag'} {self.ref!r}"
        if not isinstance(ours, RefUnknown):
            return f"{self.default_url} could not be asked whether it has {self.ref!r} as well"
        if owner in ("", self.git_url, self.default_url) or self._is_gone(owner):
            return ""
        return f"it is that of {self.ref!r} in {owner}"

    def _is_gone(self, owner: str) -> bool:
        """Whether a repository has the ref no more, or may not be asked any more."""
        said = self.said.get(owner)
        if isinstance(said, RepositoryUnreachable):
            return not said.passing
        return said is None or isinstance(said, RefUnknown)
