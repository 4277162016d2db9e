"""The instances of one cloud: each is made and watched, and ended certainly, whatever the cloud does."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from model.targets import Target
from tests.fakes.cloud import SMALL, FakeCloud
from workers.cloud_data import Image, Leftover, Wanted
from workers.cloud_errors import Kind, Trouble
from workers.fleet import Fleet
from workers.instance import Instance, State
from workers.openstack_settings import BootVolume, CloudSettings

DEB = Target.from_name("ceph-deb-bookworm-x86_64-default")
TAG = "buildpackages-tests"
NOON = 1_700_000_000.0

AWAY = Trouble(Kind.PASSING, "it did not answer: refused")
LOST = Trouble(Kind.PASSING, "it did not answer: reset", done_perhaps=True)


class Here:
    """A fleet in a fake cloud on a clock of the test's."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.rightNow = NOON
        usual = {"cloud": "sepia", "images": {"*": "builder"}, "nova_flavor": "small"}
        self.cloud = FakeCloud(CloudSettings(**{**usual, **settings}), None, TAG, self.clock)
        self.changes = 0
        self.fleet = Fleet(self.cloud, self.clock, self._changed)  # type: ignore[arg-type]
        self.number = 0

    def _changed(self) -> None:
        self.changes += 1

    def instance(self, *, lifetime: float = 3600) -> Instance:
        """Count a new one, as the provider does."""
        self.number += 1
        made = Instance(
            f"boot{self.number}", f"machine{self.number}", DEB, "alice", SMALL,
            expires=int(self.clock.seconds() + lifetime), asked_at=self.clock.seconds(),
        )  # fmt: skip
        self.fleet.instances[made.boot] = made
        return made

    def launch(self, instance: Instance) -> Deferred[None]:
        """Ask for its server."""
        metadata = {"boot": instance.boot, "expires": str(int(instance.expires))}
        wanted = Wanted(instance.name, SMALL, Image("i", "builder", ""), "#!/bin/bash", metadata)
        return ensureDeferred(self.fleet.launch(instance, lambda: self.cloud.create(wanted)))

    def launched(self, **more: Any) -> Instance:
        """Give one whose server is there."""
        made = self.instance(**more)
        succeeded(self.launch(made))
        assert made.state is State.BOOTING
        return made

    def started(self) -> Here:
        """Begin to sweep."""
        self.fleet.start()
        self.clock.advance(0)
        return self

    def seconds(self, method: str) -> list[int]:
        """When a method was called, in seconds since the beginning."""
        return [int(at - NOON + 0.001) for at in self.cloud.times(method)]

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, a tenth of a second at a time; what turns in circles fails."""
        for _ in range(round(seconds * 10)):
            before = self.cloud.calls
            self.clock.advance(0.1)
            assert self.cloud.calls - before < 20, f"{self.cloud.calls - before} calls within a moment"


def succeeded(deferred: Deferred[Any]) -> Any:
    """Give what it has come to."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not come to anything"
    return results[0]


def trouble(deferred: Deferred[Any]) -> Trouble:
    """Give the Trouble that it has come to."""
    failure = succeeded(deferred)
    assert failure is not None
    assert isinstance(failure.value, Trouble), failure
    return failure.value


def told(instance: Instance) -> list[Any]:
    """Give a list into which the reason of the instance's own end comes."""
    reasons: list[Any] = []
    instance.ended().addErrback(lambda failure: reasons.append(failure.value))
    return reasons


# -- the usual life


def test_an_instance_is_made_and_ended() -> None:
    """It is known from before the call until a listing does not show it any more, and then the place is free."""
    here = Here().started()
    made = here.launched()
    here.fleet.attached(made)
    assert here.fleet.busy
    here.fleet.end(made)
    assert made.state is State.GOING
    assert made.boot in here.fleet.instances, "it counts until it is seen to be gone"
    here.pass_seconds(0.5)
    assert made.state is State.GOING
    here.pass_seconds(0.2)
    assert made.state is State.GONE
    assert here.fleet.instances == {}
    assert not here.fleet.busy
    assert here.changes == 1
    assert (here.cloud.count("create"), here.cloud.count("delete")) == (1, 1)


def test_ending_twice_is_ending_once() -> None:
    """One DELETE is enough, however often it is asked for."""
    here = Here().started()
    made = here.launched()
    for _ in range(3):
        here.fleet.end(made)
    here.pass_seconds(1)
    here.fleet.end(made)
    assert here.cloud.count("delete") == 1


def test_one_that_was_never_asked_for_is_ended_at_once() -> None:
    """What was only counted leaves nothing behind and asks the cloud nothing."""
    here = Here().started()
    made = here.instance()
    here.fleet.end(made)
    assert made.state is State.GONE
    assert here.fleet.instances == {}
    assert here.cloud.count("delete") == 0


def test_looking_grows_seldom() -> None:
    """One listing serves all that boot, after 2, 5, 10, 20 and 30 seconds each, however many they are."""
    here = Here().started()
    for _ in range(20):
        here.launched()
    here.pass_seconds(58)
    assert here.seconds("servers") == [0, 2, 7, 17, 37]


def test_who_has_attached_is_not_looked_for() -> None:
    """Once its worker has attached, only the sweep of every minute looks after an instance."""
    here = Here().started()
    here.fleet.attached(here.launched())
    here.pass_seconds(121)
    assert here.seconds("servers") == [0, 2, 60, 120], "one look was due already"


# -- making fails


def test_a_refusal_leaves_nothing() -> None:
    """When the call is refused, nothing is left, and the reason reaches who asked."""
    here = Here().started()
    refusal = Trouble(Kind.QUOTA, "no quota for instances, 12 of 12 used")
    here.cloud.fail("create", refusal)
    made = here.instance()
    assert trouble(here.launch(made)) is refusal
    assert made.state is State.GONE
    assert not here.fleet.busy


def test_a_lost_answer_is_made_good() -> None:
    """A server whose making nobody was told of is found by the next look, seconds later, and ended."""
    here = Here().started()
    here.cloud.fail("create", LOST, done=True)
    assert trouble(here.launch(here.instance())) is LOST
    assert len(here.cloud.ours) == 1
    here.pass_seconds(5)
    assert here.cloud.ours == []
    assert here.fleet.reaped == 1
    here.pass_seconds(5)
    assert not here.fleet.busy


def test_a_server_that_comes_after_its_time_out_is_found() -> None:
    """A call that timed out may be done much later: the sweep ends what it made."""
    here = Here().started()
    here.cloud.fail("create", LOST)
    trouble(here.launch(here.instance()))
    here.pass_seconds(30)
    here.cloud.put("late", boot="boot1")
    here.pass_seconds(61)
    assert here.cloud.ours == []


def test_a_server_that_is_seen_before_its_call_answers_is_no_orphan() -> None:
    """A listing may show a server while its call is still under way: it has an owner."""
    here = Here().started()
    here.cloud.hang("create", done=True)
    made = here.instance()
    launching = here.launch(made)
    assert len(here.cloud.ours) == 1
    here.pass_seconds(61)
    assert here.cloud.count("servers") >= 2
    here.cloud.release("create")
    succeeded(launching)
    assert made.state is State.BOOTING
    assert here.cloud.ours == [made.server_id]
    assert here.fleet.reaped == 0


def test_one_that_is_ended_while_its_call_is_under_way_is_ended_when_it_answers() -> None:
    """The end of an instance that is being asked for waits for its id, and then is certain."""
    here = Here().started()
    here.cloud.hang("create")
    made = here.instance()
    here.launch(made).addErrback(lambda _: None)
    here.fleet.end(made)
    assert (made.state, here.cloud.ours) == (State.GOING, [])
    here.cloud.release("create")
    here.pass_seconds(1)
    assert here.cloud.count("create") == here.cloud.count("delete") == 1
    assert here.cloud.ours == []
    assert made.state is State.GONE


def test_who_asked_may_be_stopped_meanwhile() -> None:
    """The call goes on when who waits for it is cancelled, and what it makes is ended."""
    here = Here().started()
    here.cloud.hang("create")
    made = here.instance()
    launching = here.launch(made)
    launching.addErrback(lambda _: here.fleet.end(made))
    launching.cancel()
    here.cloud.release("create")
    here.pass_seconds(1)
    assert here.cloud.ours == []
    assert not here.fleet.busy


def test_a_second_server_of_one_boot_is_ended() -> None:
    """A POST that something in between sent twice makes two servers: the one whose id we got is kept."""
    here = Here().started()
    made = here.launched()
    twin = here.cloud.put("machine1", boot=made.boot)
    here.pass_seconds(4)
    assert here.cloud.ours == [made.server_id]
    assert here.cloud.about("delete") == [twin]


def test_nothing_is_made_of_what_has_been_ended() -> None:
    """An instance that was ended before its call, as when the master stops, is not asked for any more."""
    here = Here().started()
    made = here.instance()
    here.fleet.end(made)
    assert "stop" in trouble(here.launch(made)).sentence
    assert here.cloud.count("create") == 0
    assert not here.fleet.busy


def test_a_lost_answer_is_looked_for_also_during_a_sweep() -> None:
    """A sweep that is under way when an answer is lost began too early to show what was made."""
    here = Here()
    here.cloud.hang("servers", done=True)
    here.fleet.start()
    here.clock.advance(0)
    here.cloud.fail("create", LOST, done=True)
    trouble(here.launch(here.instance()))
    here.cloud.release("servers")
    here.pass_seconds(6)
    assert here.cloud.ours == []


def test_looking_goes_on_whatever_a_look_comes_to(mistakes: list[str]) -> None:
    """A mistake of ours in what one listing shows does not end the watch over all others."""
    here = Here().started()
    made = here.launched()
    here.cloud.fail("servers", ZeroDivisionError("a mistake in asking"))
    here.pass_seconds(4)
    seen, here.cloud.there[made.server_id].seen = here.cloud.there[made.server_id].seen, None  # type: ignore[assignment]
    here.pass_seconds(60)
    here.cloud.there[made.server_id].seen = seen
    here.fleet.end(made)
    here.pass_seconds(20)
    assert made.state is State.GONE
    assert all("while looking at servers" in one for one in mistakes)
    assert "a mistake in asking" in mistakes[0]
    mistakes.clear()


# -- ending fails


def test_a_delete_that_fails_is_asked_again() -> None:
    """However often a DELETE fails, it is asked again after 1, 2, 4, 8, 15 and 15 seconds, until it is done."""
    here = Here().started()
    made = here.launched()
    here.cloud.fail("delete", AWAY, times=6)
    here.fleet.end(made)
    here.pass_seconds(46)
    asked = here.seconds("delete")
    assert asked == [0, 1, 3, 7, 15, 30, 45]
    here.pass_seconds(1)
    assert here.cloud.ours == []
    assert made.state is State.GONE


def test_a_delete_waits_as_long_as_it_is_told_to() -> None:
    """A Retry-After longer than our own wait is kept to."""
    here = Here().started()
    made = here.launched()
    here.cloud.fail("delete", Trouble(Kind.PASSING, "asked too often (429)", retry_after=20))
    here.fleet.end(made)
    here.pass_seconds(19)
    assert here.cloud.count("delete") == 1
    here.pass_seconds(2)
    assert here.cloud.count("delete") == 2


def test_a_delete_whose_answer_was_lost_is_done() -> None:
    """A server that is gone although its DELETE failed counts as gone after the next one."""
    here = Here().started()
    made = here.launched()
    here.cloud.fail("delete", LOST, done=True)
    here.fleet.end(made)
    here.pass_seconds(3)
    assert made.state is State.GONE


def test_a_delete_that_is_ignored_is_asked_again() -> None:
    """A server that does not even say that it is being deleted is asked again, after 3 seconds and then more."""
    here = Here().started()
    made = here.launched()
    here.cloud.ignored_deletes = 3
    here.fleet.end(made)
    here.pass_seconds(60)
    assert here.cloud.count("delete") == 4
    assert here.cloud.ours == []
    assert made.state is State.GONE


def test_a_server_that_says_it_goes_is_given_time() -> None:
    """One that is being deleted is asked again only after a minute, and looked for ever more seldom."""
    here = Here().started()
    made = here.launched()
    here.cloud.deleting = True
    here.fleet.end(made)
    here.pass_seconds(55)
    assert here.cloud.count("delete") == 1
    assert here.cloud.count("servers") < 12
    here.pass_seconds(25)
    assert here.cloud.count("delete") == 2
    here.cloud.vanish(made.server_id)
    here.pass_seconds(16)
    assert made.state is State.GONE


def test_a_delete_that_hangs_holds_nobody_up() -> None:
    """While one DELETE gets no answer, other instances end as usual."""
    here = Here().started()
    first, second = here.launched(), here.launched()
    here.cloud.hang("delete")
    here.fleet.end(first)
    here.cloud._hung = {"held": here.cloud._hung.pop("delete")}
    here.fleet.end(second)
    here.pass_seconds(2)
    assert (first.state, second.state) == (State.GOING, State.GONE)
    here.cloud.release("held")
    here.pass_seconds(2)
    assert first.state is State.GONE


def test_a_listing_from_before_the_delete_proves_nothing() -> None:
    """Only a listing that was asked for after the DELETE was accepted shows that a server is gone."""
    here = Here().started()
    made = here.launched()
    here.cloud.hang("servers")
    here.fleet.look_soon()
    here.pass_seconds(5)
    assert here.cloud.count("servers") == 2, "one is under way"
    here.cloud.hang("delete", done=True)
    here.fleet.end(made)
    here.cloud.release("delete")
    assert here.cloud.ours == []
    here.cloud.release("servers")
    assert made.state is State.GOING
    here.pass_seconds(1)
    assert made.state is State.GONE


# -- instances end by themselves


def test_an_instance_in_error_is_told_of() -> None:
    """The fault of a server reaches who waits for it, with the cloud's name."""
    here = Here().started()
    here.cloud.born_as, here.cloud.fault = "BUILD", ""
    made = here.launched()
    reasons = told(made)
    here.pass_seconds(2.1)
    assert reasons == []
    here.cloud.change(made.server_id, status="ERROR", fault="No valid host was found. ")
    here.pass_seconds(6)
    [reason] = reasons
    assert reason.kind is Kind.NO_HOST
    assert reason.sentence == "cloud sepia: no host has room for such an instance (No valid host was found)"


@pytest.mark.parametrize("status", ["SHUTOFF", "SOFT_DELETED"])
def test_an_instance_that_was_switched_off_is_told_of(status: str) -> None:
    """A server that is off, at its expiry or by somebody's hand, is lost."""
    here = Here().started()
    made = here.launched()
    here.fleet.attached(made)
    reasons = told(made)
    here.cloud.change(made.server_id, status=status)
    here.pass_seconds(61)
    [reason] = reasons
    assert reason.sentence == f"cloud sepia: the instance is {status}, though nobody here asked for it"
    assert (reason.kind, reason.machine) == (Kind.PASSING, True)


@pytest.mark.parametrize("attached", [False, True])
def test_an_instance_that_somebody_else_deleted_is_told_of(attached: bool) -> None:
    """A server that is gone is lost, whether it boots or builds, and nothing of it is kept."""
    here = Here().started()
    made = here.launched()
    if attached:
        here.fleet.attached(made)
    reasons = told(made)
    here.cloud.vanish(made.server_id)
    here.pass_seconds(63)
    [reason] = reasons
    assert reason.sentence == "cloud sepia: the instance is gone, deleted by somebody else"
    assert made.state is State.GONE
    assert not here.fleet.busy


def test_one_that_a_listing_does_not_show_is_asked_for_alone() -> None:
    """A listing may lack a server that is there, as when a cell of nova is down: it is not lost."""
    here = Here().started()
    made = here.launched()
    reasons = told(made)
    here.cloud.there[made.server_id].tags = ()
    here.pass_seconds(40)
    assert reasons == []
    assert made.state is State.BOOTING
    assert here.cloud.count("exists") == here.cloud.count("servers") - 1
    assert here.cloud.count("servers") <= 5, "and that is no reason to look more often"


def test_nobody_is_lost_while_the_cloud_is_away() -> None:
    """Neither a listing that fails nor a question that fails says that a server is gone."""
    here = Here().started()
    made = here.launched()
    reasons = told(made)
    here.cloud.fail("servers", AWAY, times=5)
    here.cloud.fail("exists", AWAY, times=1000)
    here.cloud.there[made.server_id].tags = ()
    here.pass_seconds(120)
    assert reasons == []
    assert made.state is State.BOOTING


def test_what_has_expired_is_ended() -> None:
    """A server beyond its expiry is ended whoever owns it, and its owner is told."""
    here = Here().started()
    made = here.launched(lifetime=90)
    here.fleet.attached(made)
    reasons = told(made)
    here.pass_seconds(89)
    assert reasons == []
    here.pass_seconds(33)
    assert [one.sentence for one in reasons] == ["cloud sepia: the instance has reached its expiry"]
    assert here.cloud.ours == []
    assert made.state is State.GONE


def test_one_that_expires_while_it_boots_is_ended_once() -> None:
    """Nobody has to hear of it for that, and looking for it does not turn in circles."""
    here = Here().started()
    here.launched(lifetime=5)
    here.pass_seconds(12)
    assert here.cloud.ours == []
    assert here.cloud.count("servers") < 10


def test_what_was_lost_before_anybody_asked_is_told_all_the_same() -> None:
    """An instance may be lost while its owner is still busy: the reason is kept."""
    here = Here().started()
    made = here.launched()
    here.cloud.vanish(made.server_id)
    here.pass_seconds(5)
    assert made.state is State.GONE
    assert made.lost is not None
    assert made.lost.sentence == "cloud sepia: the instance is gone, deleted by somebody else"


# -- what has no owner


def test_at_start_up_everything_of_ours_is_ended_and_nothing_else() -> None:
    """What an earlier master left goes at once; look-alikes stay: other tags, same names, no tags, our metadata."""
    here = Here()
    left = [here.cloud.put(f"left{number}", boot=f"old{number}") for number in range(3)]
    others = [
        here.cloud.put("left0", tags=("buildpackages-test",), boot="old0"),
        here.cloud.put("left0", tags=("buildpackages-tests2",), boot="old0"),
        here.cloud.put("left0", tags=(), boot="old0", master="tests"),
    ]
    here.started()
    assert sorted(here.cloud.about("delete")) == left
    here.pass_seconds(70)
    assert sorted(here.cloud.there) == others
    assert here.fleet.reaped == 3
    assert sorted(set(here.cloud.about("delete"))) == left


def test_at_start_up_the_cloud_may_be_away() -> None:
    """The first look is repeated until it succeeds, with a wait that grows to 15 seconds."""
    here = Here()
    here.cloud.put("left", boot="old")
    here.cloud.fail("servers", AWAY, times=6)
    here.started()
    here.pass_seconds(47)
    assert here.seconds("servers")[:7] == [0, 1, 3, 7, 15, 30, 45]
    assert here.cloud.ours == []


def test_the_sweep_comes_every_minute() -> None:
    """What turns up later without an owner is ended within a minute."""
    here = Here().started()
    here.pass_seconds(20)
    here.cloud.put("stray", boot="nobody's")
    here.pass_seconds(41)
    assert here.cloud.ours == []
    assert here.fleet.reaped == 1


def test_volumes_ports_and_floating_ips_without_owner_are_removed() -> None:
    """At start-up, and every minute where settings make such things, what no instance owns is removed."""
    here = Here(volume=BootVolume(size=10))
    here.cloud.extras = {"v": Leftover("volume", "v", "old"), "p": Leftover("port", "p", "old")}
    here.started()
    assert here.cloud.extras == {}
    made = here.launched()
    here.cloud.extras = {"mine": Leftover("volume", "mine", made.boot), "w": Leftover("volume", "w", "x")}
    here.pass_seconds(61)
    assert list(here.cloud.extras) == ["mine"]
    assert here.fleet.reaped == 3


def test_where_settings_make_none_such_things_are_looked_for_once_an_hour() -> None:
    """Three more calls a minute would be for nothing; an earlier master may have had other settings."""
    here = Here().started()
    here.pass_seconds(301)
    assert here.cloud.count("servers") == 6
    assert here.cloud.count("leftovers") == 1


def test_what_belongs_to_an_instance_goes_after_it() -> None:
    """Its floating ip, port and volume are removed, in this order, once its server is gone, as often as it takes."""
    here = Here(volume=BootVolume(size=10)).started()
    made = here.instance()
    for kind in ("volume", "port", "floating ip"):
        extra = Leftover(kind, kind, made.boot)
        here.cloud.extras[kind] = extra
        made.extras.insert(0, extra)
    succeeded(here.launch(made))
    here.fleet.end(made)
    assert here.cloud.count("remove") == 0
    here.cloud.fail("remove", Trouble(Kind.PASSING, "in conflict with something else"))
    here.pass_seconds(1)
    assert [one.kind for one in here.cloud.about("remove")][:3] == ["floating ip", "port", "volume"]
    assert list(here.cloud.extras) == ["floating ip"]
    assert here.fleet.busy
    here.pass_seconds(2)
    assert here.cloud.extras == {}
    assert not here.fleet.busy


# -- what stands in the way


def test_failures_in_a_row_hold_ever_longer() -> None:
    """After each failure nothing new is asked for, for 1 to 30 seconds; a success ends that."""
    here = Here().started()
    waits = []
    for _ in range(7):
        waits.append(here.fleet.in_trouble(AWAY))
        here.clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert here.fleet.hold_reason == AWAY.sentence
    assert here.fleet.in_trouble(Trouble(Kind.PASSING, "429", retry_after=100)) == 100
    here.launched()
    assert here.fleet.hold_until <= here.clock.seconds()
    assert here.fleet.in_trouble(AWAY) == 1


def test_many_who_fail_at_once_are_one_failure() -> None:
    """Twenty builds that meet the same outage do not make the wait twenty times longer."""
    here = Here().started()
    assert [here.fleet.in_trouble(AWAY) for _ in range(20)][-1] == 1


def test_what_was_asked_for_since_the_quota_was_read_counts() -> None:
    """An instance that the cloud's own count cannot have in it yet is counted beside it."""
    here = Here().started()
    before = here.launched()
    here.clock.advance(1)
    succeeded(ensureDeferred(here.cloud.limits()))
    assert here.fleet.unread() == {"instances": 0, "cores": 0, "ram": 0}
    here.clock.advance(1)
    here.launched()
    here.instance()
    assert here.fleet.unread() == {"instances": 2, "cores": 2, "ram": 2048}
    assert before.state is State.BOOTING


def test_a_call_that_has_not_answered_counts_as_well() -> None:
    """One that was asked for before the quota was read, and of which nothing is known yet, may not be in it."""
    here = Here().started()
    here.cloud.hang("create")
    here.launch(here.instance())
    here.clock.advance(1)
    succeeded(ensureDeferred(here.cloud.limits()))
    assert here.fleet.unread()["instances"] == 1


# -- the end of the master


def test_closing_ends_everything_and_waits_for_it() -> None:
    """The end of the master is the end of every instance, in whatever state, and is not told before."""
    here = Here().started()
    booting, attached, new = here.launched(), here.launched(), here.instance()
    here.fleet.attached(attached)
    here.cloud.deleting = True
    closing = ensureDeferred(here.fleet.close(7))
    assert {booting.state, attached.state, new.state} == {State.GOING, State.GONE}
    here.pass_seconds(2)
    assert not closing.called
    for server_id in list(here.cloud.ours):
        here.cloud.vanish(server_id)
    here.pass_seconds(3)
    succeeded(closing)
    assert here.clock.seconds() < NOON + 6
    assert here.cloud.closed
    assert not here.fleet.busy


@pytest.mark.parametrize("method", ["create", "delete", "servers"])
def test_closing_waits_no_longer_than_told_for_calls_that_hang(method: str) -> None:
    """A cloud that gives no answer holds up the end of the master for some seconds, and not for ever."""
    here = Here().started()
    if method == "create":
        here.cloud.hang(method)
        here.launch(here.instance()).addErrback(lambda _: None)
    else:
        here.launched()
        here.cloud.hang(method)
    closing = ensureDeferred(here.fleet.close(7))
    here.pass_seconds(6.9)
    assert not closing.called
    here.pass_seconds(0.2)
    succeeded(closing)
    assert here.cloud.closed
    calls = here.cloud.calls
    here.pass_seconds(120)
    assert here.cloud.calls == calls, "and nothing is asked after"
    assert here.clock.getDelayedCalls() == []


def test_closing_with_nothing_there_takes_no_time() -> None:
    """A master that has no instance ends at once."""
    here = Here().started()
    succeeded(ensureDeferred(here.fleet.close(7)))
    assert here.cloud.closed


def test_nothing_new_is_made_once_closing_has_begun() -> None:
    """A build that still looks for a machine when the master stops gets none."""
    here = Here().started()
    here.launched()
    here.cloud.deleting = True
    ensureDeferred(here.fleet.close(7))
    assert "stop" in trouble(here.launch(here.instance())).sentence
    assert here.cloud.count("create") == 1


# -- what belongs to an instance


def test_what_is_made_for_a_stopped_build_is_removed_when_it_comes() -> None:
    """A floating ip whose create call was under way when its build was stopped goes as soon as its id is known."""
    here = Here(floating_ip="outside", networks=("lab",)).started()
    made = here.instance()
    here.cloud.hang("create_floating_ip", done=True)
    asked = ensureDeferred(
        here.fleet.add(made, "floating ip", lambda: here.cloud.create_floating_ip("port", made.boot))
    )
    asked.addErrback(lambda _: None)
    here.fleet.end(made)
    asked.cancel()
    assert made.state is State.GONE
    assert here.fleet.busy, "its answer is waited for"
    here.cloud.release("create_floating_ip")
    here.pass_seconds(1)
    assert here.cloud.count("remove") == 1
    assert not here.fleet.busy


def test_what_is_made_for_an_instance_goes_with_it() -> None:
    """Its floating ip goes before its port, and both after its server."""
    here = Here(floating_ip="outside", networks=("lab",)).started()
    made = here.instance()
    for kind, method in (("port", here.cloud.create_port), ("floating ip", here.cloud.create_floating_ip)):
        succeeded(ensureDeferred(here.fleet.add(made, kind, lambda method=method: method("x", made.boot))))
    succeeded(here.launch(made))
    here.fleet.end(made)
    assert here.cloud.count("remove") == 0
    here.pass_seconds(3)
    assert [one.kind for one in here.cloud.about("remove")] == ["floating ip", "port"]
