"""What shaman and chacra would answer, over the published tree: searches, builds, repositories; read only.

    /api/search?project=&distros=&ref=&sha1=&flavor=&status=
    /api/builds/<project>/<ref>/<sha1>/
    /api/repos/<project>/<ref>/<sha1 or latest>/<distro>/<release>/[flavors/<flavor>/][repo]
    /<target>/sha1/<sha1>/repo              where the field chacra_url leads

docs/shaman.md says where we differ. Nothing here knows of Twisted; `answer` blocks, and no two threads
may be in it. What a question says is compared with names of the tree, and never becomes a path of it.
"""

from __future__ import annotations

import re
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from master.shaman import forms
from master.shaman.forms import LATEST, READY, BuildState, Distro
from model import layout
from model.package_key import PackageKey
from model.recipes import BUILT_IN
from model.targets import Target, matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from master.shaman.index import Published, PublishedIndex
    from master.web.answers import Answer
    from model.recipes import Recipes

MOST_ROWS = 1000
"""An answer has the newest so many: nobody shall have the master write ten thousand at a time."""

_ROOT = b"/api"
_REPOSITORY = re.compile(rb"/[a-z0-9_-]+/sha1/[0-9a-f]{40}/repo/?\Z")
_FLAVOR = "default"
_ARCH = "x86_64"
"""What is meant where a path names neither; a build for another architecture is never taken for it."""


def is_asked(path: bytes) -> bool:
    """Whether a request's path is one of this view's; there may be nothing there all the same."""
    return path == _ROOT or path.startswith(_ROOT + b"/") or _REPOSITORY.match(path) is not None


class Shaman:
    """Answers as shaman does, of what is published; of builds, also what it is told."""

    def __init__(
        self, index: PublishedIndex, url: str, recipes: Recipes = BUILT_IN, *, apt_trusted: bool = False
    ) -> None:
        """`apt_trusted`: the text for apt says trusted=yes."""
        self._index = index
        self._url = url
        self._targets = matrix(recipes)
        self._apt_trusted = apt_trusted

    def keys(self, uri: bytes) -> list[str]:
        """Give the package_keys of whose builds the answer to a request tells; touches no disk."""
        names, _ = forms.split(uri)
        if names[:2] != ["api", "builds"] or len(names) < 5 or not forms.is_sha1(names[-1]):
            return []
        return [str(PackageKey(target, names[-1])) for target in self._targets if target.project == names[2]]

    def answer(self, uri: bytes, builds: Sequence[BuildState] = ()) -> Answer:
        """Answer a GET; a RefusedError is an answer, too. `builds` are those known of what `keys` gave."""
        names, query = forms.split(uri)
        if "" in names:
            raise forms.nothing()
        match names:
            case ["api"]:
                return forms.json_answer({"repos": self._projects()})
            case ["api", "search"]:
                return forms.json_answer(self._search(forms.parameters(query)))
            case ["api", "builds", *rest]:
                return forms.json_answer(self._builds(rest, builds))
            case ["api", "repos", *rest]:
                return self._repos(rest, query)
            case [name, "sha1", sha1, "repo"]:
                return self._repository(name, sha1)
        raise forms.nothing()

    # Search

    def _search(self, asked: Mapping[str, str]) -> list[dict[str, Any]]:
        distros = forms.distros(asked)
        wanted = [
            target
            for target in self._index.targets()
            if asked.get("project", target.project) == target.project
            and asked.get("flavor", target.flavor) == target.flavor
            and (not distros or any(distro.has(target) for distro in distros))
        ]
        if asked.get("status", READY) != READY:
            return []
        ref, sha1 = asked.get("ref"), asked.get("sha1")
        if sha1 == LATEST:
            found = self._latest(wanted, distros, ref)
        elif sha1 is not None:
            found = [one for one in self._at(wanted, sha1) if ref is None or self._was_at(ref, one)]
        elif ref is not None:
            found = self._at_ref(wanted, ref)
        else:
            found = list(islice(self._all(wanted), MOST_ROWS))
        return self._rows(found, ref)

    def _latest(
        self, wanted: Sequence[Target], distros: Sequence[Distro], ref: str | None
    ) -> list[Published]:
        """Give the newest commit (of a ref, if one is named) that is there for every distro, one of each.

        If a ref is named, it must have been at the commit for one of the distros at least.
        """
        groups = [[target for target in wanted if distro.has(target)] for distro in distros or [Distro()]]
        if ref is None:
            # Most commits are not there for all: names alone say so, at no cost.
            of_each = [
                {sha1 for target in group for sha1 in self._index.keys(target).sha1s} for group in groups
            ]
            common = set.intersection(*of_each)
            newest = (sha1 for _, sha1 in merge(*map(self._times, wanted), key=_oldness) if sha1 in common)
        else:
            newest = (one.key.sha1 for one in self._at_ref(wanted, ref))
        for sha1 in newest:
            found = [self._at(group, sha1) for group in groups]
            if all(found):
                return list({one[0].key: one[0] for one in found}.values()) if distros else found[0]
        return []

    def _all(self, wanted: Sequence[Target]) -> Iterator[Published]:
        for _, key in merge(*map(self._keys, wanted), key=_oldness):
            one = self._index.listed(key)
            if one is not None:
                yield one

    def _keys(self, target: Target) -> Iterator[tuple[float, PackageKey]]:
        return ((modified, PackageKey(target, sha1)) for modified, sha1 in self._times(target))

    def _at(self, wanted: Iterable[Target], sha1: str) -> list[Published]:
        """Give what is published of a commit, newest first; nothing if it is no commit."""
        if not forms.is_sha1(sha1):
            return []
        found = (self._index.published(PackageKey(target, sha1)) for target in wanted)
        return _newest_first(one for one in found if one is not None)

    def _at_ref(self, wanted: Iterable[Target], ref: str) -> list[Published]:
        """Give what the links of a ref lead to, newest first; a sha1 is a ref that leads to itself."""
        sha1s = ((target, self._index.refs(target).sha1_of.get(ref, ref)) for target in wanted)
        return _newest_first(one for target, sha1 in sha1s for one in self._at([target], sha1))

    def _times(self, target: Target) -> Sequence[tuple[float, str]]:
        return self._index.keys(target).newest_first

    def _was_at(self, ref: str, one: Published) -> bool:
        """Whether a ref is known to have been at a commit, for whichever target it was resolved."""
        links = (self._index.refs(target).sha1_of.get(ref) for target in self._of(one.key.target.project))
        return ref in (one.ref, one.key.sha1) or one.key.sha1 in links

    def _rows(self, found: Sequence[Published], ref: str | None) -> list[dict[str, Any]]:
        """Give rows that say the ref that was asked for, or else one that leads there, or else the sha1."""
        links = {target: self._index.refs(target).refs_at for target in {one.key.target for one in found}}
        return [
            forms.repository_row(
                one,
                ref or one.ref or links[one.key.target].get(one.key.sha1, [one.key.sha1])[0],
                self._directory(one.key),
            )
            for one in found
        ]

    # Builds

    def _builds(self, names: Sequence[str], states: Sequence[BuildState]) -> Any:
        """Give projects and their refs; refs; commits of a ref; or the builds of a commit.

        A commit that nothing is known of has none, whatever the project: teuthology bears no 404 here.
        """
        if not names:
            return {project: self._all_refs(project) for project in self._projects()}
        project, *rest = names
        if len(rest) > 1 and forms.is_sha1(rest[-1]):
            return self._builds_of(project, "/".join(rest[:-1]), rest[-1], states)
        self._check_project(project)
        return self._sha1s(project, "/".join(rest)) if rest else self._all_refs(project)

    def _builds_of(
        self, project: str, ref: str, sha1: str, states: Sequence[BuildState]
    ) -> list[dict[str, Any]]:
        known = {state.package_key: state for state in states}
        rows = []
        for one in self._at(self._of(project), sha1):
            state = known.pop(str(one.key), None)
            url, when = one.build_url, one.modified
            # The newest request may be a later one, that has not published this.
            started = state.started if state is not None and state.url == url else None
            unverified = not one.reachable_from
            rows.append(BuildState(str(one.key), "completed", url, started, when, when, unverified))
        # Built, and not published: it was purged, and is as if it had never been.
        rows += [state for state in known.values() if state.status != "completed"]
        rows.sort(key=lambda row: (-row.modified, row.package_key))
        return [forms.build_row(row, ref) for row in rows]

    # Repositories

    def _repos(self, names: Sequence[str], query: str) -> Answer:
        if not names:
            return forms.json_answer(
                {
                    project: {"refs": self._all_refs(project), "sha1s": self._all_sha1s(project)}
                    for project in self._projects()
                }
            )
        project, *rest = names
        self._check_project(project)
        place = forms.place_of_sha1(rest)
        if place is None:
            found = self._sha1s(project, "/".join(rest)) if rest else self._all_refs(project)
            return forms.json_answer(found)
        return self._repos_at(project, "/".join(rest[:place]), rest[place], rest[place + 1 :], query)

    def _repos_at(self, project: str, ref: str, sha1: str, below: Sequence[str], query: str) -> Answer:
        """Give distros, releases, repositories or flavors of a commit, or lead to what of them is asked for."""
        name, release, tail = below[0] if below else "", below[1] if below[1:] else "", below[2:]
        flavor = _FLAVOR if below[1:] else ""
        if tail[:1] == ["flavors"]:
            flavor, tail = tail[1] if tail[1:] else "", tail[2:]
        leads, arch = bool(tail), forms.arch_of(query)
        if leads and tail != ["repo"]:
            arch, tail = forms.arch_named(tail[0]), tail[1:]
        wanted = [
            target
            for target in self._of(project)
            if Distro(name, release, arch).has(target) and flavor in ("", target.flavor)
        ]
        if sha1 == LATEST:
            newest = sorted(self._at_ref(wanted, ref), key=_is_other_arch)
            sha1 = newest[0].key.sha1 if newest else sha1
        found = sorted(self._at(wanted, sha1), key=_is_other_arch)
        if not found and (leads or sha1 == LATEST):
            raise forms.not_ready([project, ref])
        if leads:
            if any(part.startswith(".") for part in tail):
                raise forms.nothing()
            path = "/".join(quote(part, safe="") for part in tail)
            return forms.redirect(self._directory(found[0].key) + path)
        targets = [one.key.target for one in found]
        match below:
            case []:
                return forms.json_answer(sorted({target.distribution.distro for target in targets}))
            case [_]:
                return forms.json_answer(sorted({forms.release(target) for target in targets}))
            case [_, _, "flavors"]:
                return forms.json_answer(sorted({target.flavor for target in targets}))
        return forms.json_answer(self._rows(_newest_first(found), ref))

    def _repository(self, name: str, sha1: str) -> Answer:
        """Give the text that apt or yum reads."""
        try:
            key = PackageKey(Target.from_name(name), sha1)
        except ValueError:
            raise forms.nothing() from None
        if self._index.published(key) is None:
            raise forms.nothing()
        key_url = layout.url(self._url, layout.KEY_FILE)
        return forms.repository_text(key.target, self._directory(key), key_url, trusted=self._apt_trusted)

    # What there is

    def _of(self, project: str) -> list[Target]:
        return [target for target in self._index.targets() if target.project == project]

    def _projects(self) -> list[str]:
        return sorted({target.project for target in self._index.targets()})

    def _check_project(self, project: str) -> None:
        if not self._of(project):
            raise forms.nothing()

    def _all_refs(self, project: str) -> list[str]:
        return sorted(
            {
                ref
                for target in self._of(project)
                for ref, sha1 in self._index.refs(target).sha1_of.items()
                if self._index.listed(PackageKey(target, sha1)) is not None
            }
        )

    def _all_sha1s(self, project: str) -> list[str]:
        return sorted(
            {
                key.sha1
                for target in self._of(project)
                for _, key in self._keys(target)
                if self._index.listed(key)
            }
        )

    def _sha1s(self, project: str, ref: str) -> list[str]:
        return sorted({one.key.sha1 for one in self._at_ref(self._of(project), ref)})

    def _directory(self, key: PackageKey) -> str:
        return layout.url(self._url, layout.sha1_path(key) + "/")


def _oldness(row: tuple[float, Any]) -> float:
    return -row[0]


def _newest_first(found: Iterable[Published]) -> list[Published]:
    return sorted(found, key=lambda one: (-one.modified, str(one.key)))


def _is_other_arch(one: Published) -> bool:
    return one.key.target.arch != _ARCH
