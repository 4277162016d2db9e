"""Attacks B1, B5 and B6: no order of pushes, deletions and requests lets a fork take, forge or block a name of the default repository."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred, maybeDeferred

from master import schedulers
from master.publishing import publisher as publishing
from master.publishing.last_resolved import LastResolved
from master.publishing.publisher import PublishedTree, Publisher
from master.requests.refs import RefUnknown
from model import layout
from model.package_key import PackageKey
from model.targets import Target

TARGET = Target.from_name("ceph-deb-bookworm-x86_64-default")
CEPH, MALLORY, ALICE = (f"https://example.org/{name}/ceph.git" for name in ("ceph", "mallory", "alice"))
COMMITS = tuple(digit * 40 for digit in "abc")
"""Commits that each party pushes; the first is everybody's, as after a fork."""
NAMES = ("main", "wip", "wip/x")

parties = st.sampled_from((CEPH, MALLORY, ALICE))
kinds = st.sampled_from(("branch", "tag"))
names = st.sampled_from(NAMES)


class Sequences(RuleBasedStateMachine):
    """Three repositories, and the scheduler's and publisher's own code for links in a real directory."""

    def __init__(self) -> None:
        super().__init__()
        self.refs: dict[tuple[str, str, str], str] = {}
        self.built: set[str] = set()
        self.claimed: dict[str, str] = {}
        """Links of the default repository: what each must lead to."""
        self.directory = tempfile.TemporaryDirectory()
        tree = PublishedTree(Path(self.directory.name, "tree"), Path(self.directory.name, "staging"))
        tree.prepare()
        for sha1 in self.commits():
            (tree.tree / layout.sha1_path(PackageKey(TARGET, sha1))).mkdir(parents=True)
        self.publisher = Publisher.__new__(Publisher)
        self.publisher._tree, self.publisher._url = tree, "http://p/"
        self.publisher._last_resolved = LastResolved(Path(self.directory.name, "refs.json"))
        self.publisher.published = self.published  # type: ignore[method-assign]
        self.scheduler: Any = SimpleNamespace(
            git_urls={"ceph": CEPH}, git=SimpleNamespace(timeout=1), _publisher=self.publisher,
            master=SimpleNamespace(reactor=None), _is_allowed=lambda url: True,
        )  # fmt: skip
        self.patches = [
            mock.patch.object(schedulers, "resolve", self.resolve),
            mock.patch.object(publishing, "deferToThread", maybeDeferred),
        ]
        for patch in self.patches:
            patch.start()

    def teardown(self) -> None:
        for patch in self.patches:
            patch.stop()
        self.directory.cleanup()

    @staticmethod
    def commits() -> list[str]:
        return [COMMITS[0], *(f"{party}{digit}" * 20 for party in "def" for digit in "12")]

    def commit(self, party: str, number: int) -> str:
        own = {CEPH: "d", MALLORY: "e", ALICE: "f"}[party]
        return COMMITS[0] if number == 0 else f"{own}{number}" * 20

    async def published(self, key: PackageKey) -> dict[str, Any] | None:
        return {"version": "1"} if key.sha1 in self.built else None

    async def resolve(self, _: Any, url: str, ref: str, __: float, kind: str = "") -> str:
        for one in ("tag", "branch"):
            if kind in ("", one) and (url, one, ref) in self.refs:
                return self.refs[url, one, ref]
        raise RefUnknown(f"{url} has no {kind or 'branch or tag'} {ref!r}")

    @rule(party=parties, kind=kinds, name=names, number=st.integers(0, 2))
    def push(self, party: str, kind: str, name: str, number: int) -> None:
        """Push a ref; git refuses one whose name is a directory of another."""
        for other_party, other_kind, other in self.refs:
            if (other_party, other_kind) == (party, kind) and (
                other.startswith(f"{name}/") or name.startswith(f"{other}/")
            ):
                return
        self.refs[party, kind, name] = self.commit(party, number)

    @rule(party=parties, kind=kinds, name=names)
    def delete(self, party: str, kind: str, name: str) -> None:
        """Delete a ref, if it is there."""
        self.refs.pop((party, kind, name), None)

    @precondition(lambda self: self.refs)
    @rule(number=st.integers(0, 11), full_name=st.booleans())
    def request(self, number: int, full_name: bool) -> None:
        """Request a ref of a repository; the answer and the link agree, and are right."""
        party, kind, name = list(self.refs)[number % len(self.refs)]
        kind = kind if full_name else ""
        wanted = SimpleNamespace(ref=name, ref_kind=kind, git_url=party, targets=(TARGET,))
        resolved = self.done(schedulers.PackagesScheduler._resolve(self.scheduler, wanted))  # type: ignore[arg-type]
        key = PackageKey(TARGET, resolved.sha1)
        before = self.link(name)
        link, no_link = self.done(schedulers.PackagesScheduler._link(self.scheduler, key, resolved))
        assert bool(link) != bool(no_link)
        if link:
            assert self.link(name) == (resolved.sha1 if resolved.sha1 in self.built else before)
        else:
            assert self.link(name) in (before, "")
        canonical = {
            self.refs[CEPH, one, name] for one in ("branch", "tag") if (CEPH, one, name) in self.refs
        }
        if party == CEPH:
            self.claimed = {
                other: sha1
                for other, sha1 in self.claimed.items()
                if not (name.startswith(f"{other}/") or other.startswith(f"{name}/"))
            }
            blocked = any(
                self.publisher._last_resolved.owner(TARGET.name, other) == CEPH
                for other in NAMES
                if name.startswith(f"{other}/") or other.startswith(f"{name}/")
            )
            assert link or blocked, no_link
            if link:
                self.claimed[name] = resolved.sha1
        elif canonical:
            assert not link or resolved.sha1 in canonical, (
                "a fork's commit got a name of the default repository"
            )
            if link:
                self.claimed[name] = resolved.sha1
        else:
            self.claimed.pop(name, None)  # The default repository no longer has the name.

    @rule(party=parties, number=st.integers(0, 2))
    def publish(self, party: str, number: int) -> None:
        """Publish a commit, which may have been requested long ago; its refs get their links."""
        key = PackageKey(TARGET, self.commit(party, number))
        self.built.add(key.sha1)
        self.publisher._tree.link(key, self.publisher._last_resolved.refs_at(key))

    @invariant()
    def claimed_links_are_whole(self) -> None:
        """A link that the default repository has got stays until the repository itself, or its own deletion, changes that."""
        for name, sha1 in self.claimed.items():
            if sha1 in self.built:
                assert self.link(name) == sha1, name

    def done(self, coroutine: Any) -> Any:
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        [result] = results
        if hasattr(result, "raiseException"):
            result.raiseException()
        return result

    def link(self, name: str) -> str:
        path = self.publisher._tree.tree / layout.ref_path(TARGET, name)
        return os.readlink(path).rpartition("/")[2] if path.is_symlink() else ""


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=150, stateful_step_count=30)


def test_a_claimed_link_is_kept_until_its_packages_are_published() -> None:
    """While a commit of the default repository's `wip/x` is built, a fork's published `wip` does not take its place."""
    state = Sequences()
    try:
        state.push(party=CEPH, kind="branch", name="wip/x", number=1)
        state.push(party=MALLORY, kind="branch", name="wip", number=1)
        state.publish(party=MALLORY, number=1)
        state.request(number=0, full_name=False)
        state.request(number=1, full_name=False)
        state.publish(party=CEPH, number=1)
        state.claimed_links_are_whole()
    finally:
        state.teardown()


def test_an_own_link_that_is_stale_gives_way() -> None:
    """The default repository's `wip/x` gets its link though its deleted `wip` is published first."""
    state = Sequences()
    try:
        state.push(party=CEPH, kind="branch", name="wip", number=1)
        state.request(number=0, full_name=False)
        state.delete(party=CEPH, kind="branch", name="wip")
        state.push(party=CEPH, kind="branch", name="wip/x", number=2)
        state.request(number=0, full_name=False)
        state.publish(party=CEPH, number=1)
        state.publish(party=CEPH, number=2)
        state.claimed_links_are_whole()
    finally:
        state.teardown()
