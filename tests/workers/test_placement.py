"""Which cloud a machine is asked of, who waits, why and until when: the provider on fake clouds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred

from model.targets import Target
from tests.fakes.boot import DEB, FakeBoot
from tests.fakes.cloud import BIG
from tests.fakes.provider import NOON, Provided, done
from workers.cloud_data import Leftover, Limits
from workers.cloud_errors import Kind, Trouble
from workers.openstack_settings import BootVolume, NewestImage
from workers.provider import NoMachineEver
from workers.sizes import Size

if TYPE_CHECKING:
    from collections.abc import Callable

RPM = Target.from_name("ceph-rpm-centos9-x86_64-default")
TWO = ({"cloud": "one"}, {"cloud": "two"})

AWAY = Trouble(Kind.PASSING, "cloud sepia: it did not answer: refused")
FULL = Trouble(Kind.QUOTA, "cloud one: no quota for instances, 12 of 12 used")
LOST = Trouble(Kind.PASSING, "cloud sepia: it did not answer: reset", done_perhaps=True)


def request(number: int, *, asker: str = "alice") -> Any:
    """A buildrequest as next_request gets it."""
    properties = SimpleNamespace(getProperty=lambda _: asker)
    return SimpleNamespace(id=number, properties=properties)


# -- one machine


def test_a_machine_is_made_told_of_and_ended(provided: Callable[..., Provided]) -> None:
    """One build gets one server with everything in the call that makes it, is told what happens, and the server goes."""
    here = provided().started()
    boot = FakeBoot()
    starting = here.start(boot)
    [server_id] = here.cloud.ours
    wanted = here.cloud.there[server_id].wanted
    assert wanted is not None
    assert wanted.metadata == {
        "master": "tests", "boot": wanted.metadata["boot"], "worker": boot.worker, "target": str(DEB),
        "build_url": boot.build_url, "asker": "alice", "expires": str(int(NOON) + 16 * 3600),
    }  # fmt: skip
    assert wanted.name == f"{DEB}-{wanted.metadata['boot'][:8]}"
    assert wanted.user_data == f"#!/bin/bash\n# {boot.worker} fresh-0\n"
    assert boot.told == [
        "asking cloud sepia for an instance: small, image builder (i1)",
        f"instance {server_id} in cloud sepia: waiting for its worker",
    ]
    here.pass_seconds(30)
    assert not starting.called
    boot.attach()
    machine = done(starting)
    assert boot.told[-1] == f"instance {server_id}: its worker attached after 30.0 s"
    assert boot.noted == {
        "cloud": "sepia",
        "instance": server_id,
        "image": "builder (i1)",
        "nova_flavor": "small",
    }
    assert server_id in machine.description
    assert done(ensureDeferred(machine.check())) == ""
    done(ensureDeferred(machine.stop()))
    assert here.cloud.ours == []
    here.pass_seconds(1)
    assert here.freed == 1


def test_a_build_that_is_stopped_leaves_nothing(provided: Callable[..., Provided]) -> None:
    """Stopped while it boots, a build's server is asked to end at once, whatever else the cloud is asked for."""
    here = provided().started()
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(10)
    here.cloud.hang("console")
    starting.cancel()
    with pytest.raises(CancelledError):
        done(starting)
    assert here.cloud.ours == []
    assert here.cloud.count("console") == 0
    assert boot.kept == {}


@pytest.mark.parametrize("method", ["image", "flavor", "limits", "create"])
def test_a_build_that_is_stopped_in_a_call_leaves_nothing(
    provided: Callable[..., Provided], method: str
) -> None:
    """Stopped while any call is under way, a build leaves no server, nor is one counted for ever."""
    here = provided().started()
    here.cloud.hang(method)
    starting = here.start(FakeBoot())
    starting.cancel()
    with pytest.raises(CancelledError):
        done(starting)
    here.cloud.release(method)
    here.pass_seconds(5)
    assert here.cloud.ours == []
    assert not here.provider.fleets[0].busy


def test_a_worker_that_never_attaches_is_given_up(provided: Callable[..., Provided]) -> None:
    """After the time that settings give, the console is kept, the server ended and another one made."""
    here = provided(start_timeout=300, attempts=2).started()
    boot = FakeBoot()
    starting = here.start(boot)
    [first] = here.cloud.ours
    here.pass_seconds(299)
    assert here.cloud.ours == [first]
    here.pass_seconds(3)
    [second] = here.cloud.ours
    assert second != first
    assert boot.kept == {"console": f"console of {first}"}
    assert boot.passwords[-1] != here.rendered[0][1].password, "what the first knew is worth nothing"
    assert boot.passwords[-1] == here.rendered[1][1].password
    said = (
        f"cloud sepia: no worker attached within 300 s (instance {first}, ACTIVE; the log `console` has its"
        " last words); next try in 1 s"
    )
    assert said in boot.told
    here.pass_seconds(305)
    with pytest.raises(
        NoMachineEver, match="^infrastructure failed 2 times, at last: cloud sepia: no worker attached"
    ):
        done(starting)
    here.pass_seconds(2)
    assert here.cloud.ours == []


def test_a_machine_that_says_that_it_failed_is_not_waited_for(provided: Callable[..., Provided]) -> None:
    """While it is still on, its console is listened to; the build gets another one, and its words as the reason."""
    here = provided(start_timeout=1200, attempts=2).started()
    boot = FakeBoot()
    here.start(boot)
    [first] = here.cloud.ours
    here.pass_seconds(100)
    assert here.cloud.count("console") == 1, "a call costs, and says little for a while"
    here.cloud.consoles[first] = "boots\nbuildpackages: FAILED after 99 s: no wheels\n"
    here.pass_seconds(79)
    assert here.cloud.ours == [first]
    here.pass_seconds(5)
    assert first not in here.cloud.ours
    assert boot.kept == {"console": here.cloud.consoles[first]}
    said = f"cloud sepia: instance {first} failed before its worker attached; it said: after 99 s: no wheels"
    assert [line for line in boot.told if line.startswith(said)]


def test_a_machine_that_fails_is_heard_before_it_goes_off(provided: Callable[..., Provided]) -> None:
    """Whenever it fails, its console is read within the 300 s that the user data lingers."""
    here = provided(start_timeout=1800, attempts=2).started()
    boot = FakeBoot()
    here.start(boot)
    [first] = here.cloud.ours
    here.pass_seconds(190)
    here.cloud.consoles[first] = "buildpackages: FAILED after 190 s: no wheels\n"
    here.pass_seconds(295)
    assert boot.kept == {"console": here.cloud.consoles[first]}


def test_a_console_that_cannot_be_had_is_no_reason_to_keep_the_server(
    provided: Callable[..., Provided],
) -> None:
    """The log says why there is none, and the server is ended."""
    here = provided(start_timeout=40, attempts=1).started()
    here.cloud.fail("console", AWAY)
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(41)
    assert boot.kept == {"console": f"cannot be had: {AWAY}"}
    with pytest.raises(NoMachineEver, match="^infrastructure failed once, at last"):
        done(starting)
    assert here.cloud.ours == []


def test_a_server_that_fails_is_replaced_as_often_as_settings_say(provided: Callable[..., Provided]) -> None:
    """Servers in ERROR are ended and made again after 1, 2, 4 seconds; then the request ends, and nothing is left."""
    here = provided(attempts=3).started()
    here.cloud.born_as, here.cloud.fault = "ERROR", "the disk is on fire"
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(20)
    with pytest.raises(NoMachineEver) as caught:
        done(starting)
    assert str(caught.value) == (
        "infrastructure failed 3 times, at last: cloud sepia: the instance went to ERROR: the disk is on fire"
    )
    assert here.cloud.count("create") == 3
    waits = [text for text in boot.told if "next try" in text]
    assert waits == [
        "cloud sepia: the instance went to ERROR: the disk is on fire; next try in 1 s",
        "cloud sepia: the instance went to ERROR: the disk is on fire; next try in 2 s",
    ]
    here.pass_seconds(5)
    assert here.cloud.ours == []


@pytest.mark.parametrize("how", ["gone", "off", "error"])
def test_a_machine_that_is_lost_while_it_builds_is_told_of(
    provided: Callable[..., Provided], how: str
) -> None:
    """A server that ends while its build runs ends the build's connection, and is cleared away."""
    here = provided().started()
    boot, machine = here.running()
    [server_id] = here.cloud.ours
    if how == "gone":
        here.cloud.vanish(server_id)
    else:
        here.cloud.change(server_id, status={"off": "SHUTOFF", "error": "ERROR"}[how], fault="")
    here.pass_seconds(62)
    assert boot.lost_because == [
        {
            "gone": "cloud sepia: the instance is gone, deleted by somebody else",
            "off": "cloud sepia: the instance is SHUTOFF, though nobody here asked for it",
            "error": "cloud sepia: the instance went to ERROR: no reason given",
        }[how]
    ]
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(2)
    assert here.cloud.ours == []
    assert not here.provider.fleets[0].busy


def test_a_server_whose_making_was_not_answered_cannot_attach(provided: Callable[..., Provided]) -> None:
    """Its password is worth nothing as soon as the next try is waited for: its worker would begin a build, and be ended."""
    here = provided().started()
    here.cloud.fail("create", LOST)
    boot = FakeBoot()
    starting = here.start(boot)
    [(_, first)] = here.rendered
    assert first.password == boot.passwords[0]
    assert boot.passwords[-1] != first.password
    here.pass_seconds(60)
    assert here.rendered[-1][1].password == boot.passwords[-1]
    starting.cancel()
    starting.addErrback(lambda _: None)


def test_one_that_is_deleted_before_anybody_waits_for_it_is_replaced(
    provided: Callable[..., Provided],
) -> None:
    """A server that somebody else deletes while it boots is replaced within seconds, not after the time-out."""
    here = provided().started()
    starting = here.start(FakeBoot())
    [first] = here.cloud.ours
    here.cloud.vanish(first)
    here.pass_seconds(5)
    assert len(here.cloud.ours) == 1
    assert here.cloud.count("create") == 2
    starting.cancel()
    starting.addErrback(lambda _: None)


# -- what ends a request


def test_a_permanent_refusal_ends_the_request_after_one_more_look(provided: Callable[..., Provided]) -> None:
    """What was looked up may have been replaced meanwhile, so it is looked up once more; then the sentence ends it."""
    here = provided().started()
    refusal = Trouble(
        Kind.PERMANENT, "cloud sepia: setting `images`: Can not find requested image", stale="images"
    )
    here.cloud.fail("create", refusal, times=2)
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(1)
    with pytest.raises(NoMachineEver, match="^cloud sepia: setting `images`: Can not find requested image$"):
        done(starting)
    assert here.cloud.count("create") == 2
    assert here.cloud.ours == []
    assert not here.provider.fleets[0].busy


def test_an_image_that_was_replaced_is_found_at_the_second_look(provided: Callable[..., Provided]) -> None:
    """An image that vanished after it was looked up costs a second call, and no more."""
    here = provided().started()
    gone = Trouble(Kind.PERMANENT, "cloud sepia: setting `images`: not found", stale="images")
    here.cloud.fail("create", gone)
    here.running()
    assert here.cloud.count("create") == 2


def test_a_nova_flavor_that_is_not_there_ends_the_request(provided: Callable[..., Provided]) -> None:
    """So does a size that no nova_flavor has: nothing was asked for, and the setting is named."""
    here = provided({"nova_flavor": "nope"}).started()
    starting = here.start(FakeBoot())
    here.pass_seconds(1)
    with pytest.raises(NoMachineEver, match="^cloud sepia: setting `nova_flavor`: 'nope' is not there"):
        done(starting)
    assert here.cloud.count("create") == 0


def test_no_cloud_for_a_target_ends_the_request(provided: Callable[..., Provided]) -> None:
    """A target that no cloud has an image for gets no machine, ever."""
    here = provided({"images": {"*-deb-*": "builder"}}).started()
    with pytest.raises(NoMachineEver, match="^no cloud has an image for it$"):
        done(here.start(FakeBoot(RPM)))


def test_each_cloud_says_why_it_will_not_do(provided: Callable[..., Provided]) -> None:
    """When no cloud will ever do, the sentence has every cloud's reason."""
    here = provided(*TWO).started()
    for title, cloud in here.clouds.items():
        cloud.fail("create", Trouble(Kind.PERMANENT, f"cloud {title}: no such key"), times=9)
    starting = here.start(FakeBoot())
    here.pass_seconds(1)
    with pytest.raises(NoMachineEver, match="^cloud one: no such key; cloud two: no such key$"):
        done(starting)


def test_a_quota_that_is_too_small_for_one_ends_the_request(provided: Callable[..., Provided]) -> None:
    """No waiting helps where the whole quota is less than one machine needs."""
    here = provided({"nova_flavor": "big"}).started()
    here.cloud.quota = Limits(10, 0, 8, 0, -1, 0)
    starting = here.start(FakeBoot())
    here.pass_seconds(2)
    with pytest.raises(NoMachineEver, match="nova_flavor big has 16 cores, and the whole quota is 8"):
        done(starting)


def test_a_mistake_of_ours_leaves_nothing(provided: Callable[..., Provided]) -> None:
    """An exception that nobody thought of reaches the caller as it is, and the place is free again."""
    here = provided().started()
    here.cloud.fail("image", ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        done(here.start(FakeBoot()))
    assert not here.provider.fleets[0].busy


# -- what passes


def test_a_cloud_that_is_away_is_tried_again_and_then_given_up(provided: Callable[..., Provided]) -> None:
    """Calls that fail are tried again after 1 to 30 seconds, as often as settings say; the page says when."""
    here = provided(api_tries=8).started()
    here.cloud.fail("limits", AWAY, times=8)
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(95)
    with pytest.raises(NoMachineEver) as caught:
        done(starting)
    assert (
        str(caught.value) == "infrastructure failed 8 times, at last: cloud sepia: it did not answer: refused"
    )
    assert boot.told == [
        f"cloud sepia: it did not answer: refused; next try in {seconds} s"
        for seconds in (1, 2, 4, 8, 16, 30, 30)
    ]


def test_a_cloud_that_comes_back_is_used(provided: Callable[..., Provided]) -> None:
    """An outage of a while costs a wait, and no request."""
    here = provided(api_tries=8).started()
    here.cloud.fail("limits", AWAY, times=3)
    here.cloud.fail("create", AWAY, times=2)
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(40)
    boot.attach()
    done(starting)
    assert here.cloud.count("create") == 3


def test_a_create_call_whose_answer_is_lost_leaves_no_second_server(
    provided: Callable[..., Provided],
) -> None:
    """Another server is made, and the one that nobody was told of is found and ended."""
    here = provided().started()
    here.cloud.fail("create", LOST, done=True)
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(10)
    boot.attach()
    done(starting)
    assert here.cloud.count("create") == 2
    assert here.cloud.ours == [boot.noted["instance"]]


def test_retry_after_is_kept_to(provided: Callable[..., Provided]) -> None:
    """A cloud that says when to ask again is not asked before, by any build."""
    here = provided().started()
    here.cloud.fail("create", Trouble(Kind.PASSING, "cloud sepia: asked too often (429)", retry_after=25.0))
    boot, other = FakeBoot(), FakeBoot()
    here.start(boot)
    here.pass_seconds(1)
    here.start(other)
    here.pass_seconds(23)
    assert here.cloud.count("create") == 1
    assert boot.told[-1] == "cloud sepia: asked too often (429); next try in 25 s"
    assert other.told[-1] == "cloud sepia: asked too often (429); next try in 24 s"
    here.pass_seconds(2)
    assert here.cloud.count("create") == 3


def test_twenty_builds_in_one_outage(provided: Callable[..., Provided]) -> None:
    """An outage of half a minute ends no request however many wait, and all get their machines soon after."""
    here = provided({"max_instances": 20}, waiting=20, max_instances_per_asker=20).started()
    here.cloud.fail("limits", AWAY, times=10_000)
    boots = [FakeBoot() for _ in range(20)]
    starting = [here.start(boot) for boot in boots]
    here.pass_seconds(30)
    assert not [one for one in starting if one.called]
    here.cloud._faults.clear()
    here.pass_seconds(32)
    assert len(here.cloud.ours) == 20


# -- several clouds


def test_the_first_cloud_that_has_room_is_used(provided: Callable[..., Provided]) -> None:
    """The order of the settings is the order of preference."""
    here = provided({"cloud": "one", "max_instances": 1}, {"cloud": "two"}).started()
    first, _ = here.running()
    second, _ = here.running()
    assert (first.noted["cloud"], second.noted["cloud"]) == ("one", "two")


def test_a_cloud_without_an_image_for_it_is_passed_over(provided: Callable[..., Provided]) -> None:
    """Only clouds that build a target are asked."""
    here = provided({"cloud": "one", "images": {"*-rpm-*": "x"}}, {"cloud": "two"}).started()
    boot, _ = here.running()
    assert boot.noted["cloud"] == "two"
    assert here.clouds["one"].count("create") == 0


@pytest.mark.parametrize(
    "refusal", [FULL, Trouble(Kind.PERMANENT, "no such key"), Trouble(Kind.PASSING, "away")],
    ids=["quota", "permanent", "passing"],
)  # fmt: skip
def test_another_cloud_takes_over_at_once(provided: Callable[..., Provided], refusal: Trouble) -> None:
    """What one cloud refuses, for whatever reason, the next is asked for without a wait."""
    here = provided(*TWO).started()
    here.clouds["one"].fail("create", refusal)
    boot, _ = here.running()
    assert boot.noted["cloud"] == "two"
    assert here.clock.seconds() == NOON


def test_a_cloud_whose_machine_failed_comes_after_the_others(provided: Callable[..., Provided]) -> None:
    """The next machine of a build is asked of a cloud that has not failed it yet, at once."""
    here = provided(*TWO, attempts=2).started()
    here.clouds["one"].born_as, here.clouds["one"].fault = "ERROR", "the disk is on fire"
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(3)
    boot.attach()
    done(starting)
    assert boot.noted["cloud"] == "two"
    assert not [text for text in boot.told if "next try" in text]


def test_a_cloud_with_no_quota_left_is_not_even_asked(provided: Callable[..., Provided]) -> None:
    """The quota is read before anything is asked for, and the next cloud is used."""
    here = provided(*TWO).started()
    here.clouds["one"].quota = Limits(12, 12, -1, 0, -1, 0)
    boot, _ = here.running()
    assert boot.noted["cloud"] == "two"
    assert here.clouds["one"].count("create") == 0


def test_no_valid_host_goes_to_the_next_cloud(provided: Callable[..., Provided]) -> None:
    """A server that found no host is ended, and the next cloud gets the build."""
    here = provided(*TWO, attempts=1).started()
    here.clouds["one"].born_as, here.clouds["one"].fault = "ERROR", "No valid host was found."
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(3)
    boot.attach()
    done(starting)
    assert boot.noted["cloud"] == "two"
    here.pass_seconds(3)
    assert here.clouds["one"].ours == []


def test_no_valid_host_anywhere_ends_the_request_at_last(provided: Callable[..., Provided]) -> None:
    """With no host for it anywhere, the request waits as for quota, and ends after as many tries as settings say."""
    here = provided(api_tries=3).started()
    here.cloud.born_as, here.cloud.fault = "ERROR", "No valid host was found."
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(60)
    with pytest.raises(
        NoMachineEver, match="^infrastructure failed 3 times, at last: cloud sepia: no host has room"
    ):
        done(starting)
    assert here.cloud.ours == []
    first, second, third = here.cloud.times("create")
    assert second - first > 4
    assert third - second > 9


def test_a_refusal_that_no_quota_tells_of_is_waited_for(provided: Callable[..., Provided]) -> None:
    """What nova refuses though its limits show room is asked for ever more seldom, however many builds wait for it."""
    here = provided().started()
    here.cloud.takes = 0.1
    here.cloud.fail("create", FULL, times=1000)
    for _ in range(3):
        here.start(FakeBoot())
    here.pass_seconds(120)
    assert 3 < here.cloud.count("create") < 15


def test_what_was_refused_while_another_looked_holds_for_both(provided: Callable[..., Provided]) -> None:
    """A build that was reading the quota when another one was refused waits as that one does."""
    here = provided().started()
    here.cloud.hang("limits")
    boots = [FakeBoot(), FakeBoot()]
    for boot in boots:
        here.start(boot)
    here.cloud.fail("create", FULL, times=1000)
    here.cloud.release("limits")
    here.pass_seconds(3)
    assert here.cloud.count("create") == 1


def test_a_build_may_ask_for_a_cloud(provided: Callable[..., Provided]) -> None:
    """A build that is for one cloud gets it, whatever is before it."""
    here = provided(*TWO).started()
    boot, _ = here.running(FakeBoot(only_cloud="two"))
    assert boot.noted["cloud"] == "two"


def test_a_request_may_ask_for_a_size(provided: Callable[..., Provided]) -> None:
    """The sizes of a request come before the nova_flavor of the settings."""
    here = provided().started()
    boot = FakeBoot()
    boot.good, boot.least = Size(cpus=64), Size(cpus=16)
    here.running(boot)
    assert boot.noted["nova_flavor"] == BIG.name


# -- who waits, and for what


def test_the_page_says_what_is_waited_for(provided: Callable[..., Provided]) -> None:
    """What there is no quota for, how much is used, and when the next try is."""
    here = provided().started()
    here.cloud.quota = Limits(12, 12, -1, 0, -1, 0)
    boot = FakeBoot()
    starting = here.start(boot)
    assert boot.told == ["no quota for instances in cloud sepia, 12 of 12 used; next try in 5 s"]
    here.pass_seconds(250)
    assert [text.rpartition(" in ")[2] for text in boot.told] == [
        "5 s", "10 s", "20 s", "40 s", "60 s", "60 s", "60 s"
    ]  # fmt: skip
    assert here.cloud.count("create") == 0
    here.cloud.quota = Limits(13, 12, -1, 0, -1, 0)
    here.pass_seconds(60)
    boot.attach()
    done(starting)


def test_every_clouds_reason_is_on_the_page(provided: Callable[..., Provided]) -> None:
    """With several clouds, each says why it has no room."""
    here = provided({"cloud": "one", "max_instances": 1}, {"cloud": "two"}).started()
    here.clouds["two"].quota = Limits(-1, 0, 4, 4, -1, 0)
    here.running()
    boot = FakeBoot()
    here.start(boot)
    assert boot.told == [
        "1 of 1 instances that cloud one may have; no quota for cores in cloud two, 4 of 4 used; next try in 5 s"
    ]


def test_something_that_is_given_back_ends_the_wait(provided: Callable[..., Provided]) -> None:
    """A build that waits for room goes on within a second after another's server is gone."""
    here = provided({"max_instances": 1}).started()
    _, machine = here.running()
    boot = FakeBoot()
    here.start(boot)
    here.pass_seconds(20)
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(0.8)
    assert here.cloud.count("create") == 2


def test_what_is_given_back_ends_a_wait_for_quota_too(provided: Callable[..., Provided]) -> None:
    """After a refusal for quota nothing is asked for a while, but for when something of ours is gone."""
    here = provided().started()
    _, machine = here.running()
    here.cloud.fail("create", FULL)
    boot = FakeBoot()
    here.start(boot)
    here.pass_seconds(0.5)
    assert here.cloud.count("create") == 2
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(0.8)
    assert here.cloud.count("create") == 3


def test_who_came_first_is_woken_first(provided: Callable[..., Provided]) -> None:
    """However often their timers fire meanwhile, builds get machines in the order in which they asked."""
    here = provided({"max_instances": 1}).started()
    _, machine = here.running()
    boots = []
    for _ in range(4):
        boots.append(FakeBoot())
        here.start(boots[-1])
        here.pass_seconds(7)
    for boot in boots:
        done(ensureDeferred(machine.stop()))
        here.pass_seconds(1)
        [server] = here.cloud.ours
        assert here.cloud.there[server].seen.metadata["worker"] == boot.worker
        machine = SimpleNamespace(stop=lambda: _stop(here))


async def _stop(here: Provided) -> None:
    fleet = here.provider.fleets[0]
    fleet.end(*fleet.instances.values())


def test_nobody_waits_for_ever(provided: Callable[..., Provided]) -> None:
    """After the hours that settings give, a request that waits for quota ends, with the reason."""
    here = provided(wait_for_quota=0.1).started()
    here.cloud.quota = Limits(12, 12, -1, 0, -1, 0)
    starting = here.start(FakeBoot())
    here.pass_seconds(450)
    with pytest.raises(NoMachineEver) as caught:
        done(starting)
    assert str(caught.value) == (
        "infrastructure: waited 0.1 h for a machine, at last: no quota for instances in cloud sepia, 12 of 12 used"
    )


def test_a_cloud_has_no_more_than_its_instances(provided: Callable[..., Provided]) -> None:
    """Ten that ask at once get the four places that there are."""
    here = provided({"max_instances": 4}).started()
    for _ in range(10):
        here.start(FakeBoot())
    assert len(here.cloud.ours) == 4
    here.pass_seconds(100)
    assert len(here.cloud.ours) == here.cloud.count("create") == 4


def test_what_an_earlier_master_left_takes_a_place(provided: Callable[..., Provided]) -> None:
    """Orphans that go still count: a cloud never has more than its instances."""
    here = provided({"max_instances": 3})
    for number in range(3):
        here.cloud.put(f"left{number}", boot=f"old{number}")
    here.cloud.deleting = True
    here.started()
    here.start(FakeBoot())
    assert here.cloud.count("create") == 0
    here.cloud.there.clear()
    here.pass_seconds(10)
    assert here.cloud.count("create") == 1


@pytest.mark.parametrize("hanging", [True, False])
def test_a_target_has_no_more_than_its_instances(provided: Callable[..., Provided], hanging: bool) -> None:
    """Those that ask at once for one target get as many as a target may have, another target its own."""
    here = provided({"max_instances": 10}, max_instances_per_target=2).started()
    if hanging:
        here.cloud.hang("limits")
    boots = [FakeBoot() for _ in range(4)]
    for boot in [*boots, FakeBoot(RPM)]:
        here.start(boot)
    if hanging:
        here.cloud.release("limits")
    targets = [here.cloud.there[one].seen.metadata["target"] for one in here.cloud.ours]
    assert sorted(targets) == [str(DEB), str(DEB), str(RPM)]
    assert boots[-1].told == ["2 of 2 instances that a target may have; next try in 5 s"]


@pytest.mark.parametrize("hanging", [True, False])
def test_an_asker_has_no_more_than_their_instances(provided: Callable[..., Provided], hanging: bool) -> None:
    """Those that one person asks for at once get as many as a person may have, another person theirs."""
    here = provided({"max_instances": 10}, max_instances_per_asker=1).started()
    if hanging:
        here.cloud.hang("limits")
    boots = [FakeBoot(), FakeBoot(), FakeBoot(asker="bob")]
    for boot in boots:
        here.start(boot)
    if hanging:
        here.cloud.release("limits")
    assert [here.cloud.there[one].seen.metadata["asker"] for one in here.cloud.ours] == ["alice", "bob"]
    assert boots[1].told == ["1 of 1 instances that alice may have; next try in 5 s"]


@pytest.mark.parametrize("limit", ["max_instances_per_target", "max_instances_per_asker"])
def test_machines_of_a_cloud_that_left_the_settings_count(
    provided: Callable[..., Provided], limit: str
) -> None:
    """A limit of a target or an asker counts every machine of theirs, also in a cloud that gets nothing new."""
    here = provided({"cloud": "one"}, **{limit: 1}).started()
    _, machine = here.running()
    here.provider.configure(here.settings({"cloud": "two"}, **{limit: 1}), here.dock)
    boot = FakeBoot()
    here.start(boot)
    assert here.provider.next_request(DEB, [request(8), request(9, asker="bob")]).id == (
        9 if limit == "max_instances_per_asker" else 8
    )
    assert "1 of 1 instances that" in boot.told[-1]
    assert here.clouds["two"].ours == []
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(10)
    assert len(here.clouds["two"].ours) == 1


# -- who gets a slot


def test_the_first_gets_the_next_slot(provided: Callable[..., Provided]) -> None:
    """The requests come in the order of turns; nothing to choose from is nothing."""
    here = provided().started()
    choose = here.provider.next_request
    assert choose(DEB, [request(3), request(1), request(2)]).id == 3
    assert choose(DEB, []) is None


def test_who_has_the_fewest_instances_gets_what_is_given_back(provided: Callable[..., Provided]) -> None:
    """A8: among builds that wait for room, it is the turn of those who have the least, whoever came first."""
    here = provided({"max_instances": 2}, waiting=3, max_instances_per_asker=0).started()
    _, machine = here.running()
    here.running()
    boots = []
    for number, asker in ((101, "alice"), (102, "bob")):
        boot = FakeBoot()
        boot.request_id, boot.asker = number, asker
        here.start(boot)
        boots.append(boot)
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(1)
    assert "asking" not in boots[0].told[-1]
    assert "waiting for its worker" in boots[1].told[-1]


def test_whose_limit_is_reached_does_not_hold_up_others(provided: Callable[..., Provided]) -> None:
    """A younger request of somebody else is taken before one that would only wait."""
    here = provided(max_instances_per_asker=1).started()
    here.running()
    assert here.provider.next_request(DEB, [request(1), request(2, asker="bob")]).id == 2
    assert here.provider.next_request(DEB, [request(1), request(3, asker="bob")]).id == 1, "a place to wait"


def test_few_wait_with_a_slot(provided: Callable[..., Provided]) -> None:
    """With no room anywhere, only so many take a slot to wait in as settings say; the others hold nothing."""
    here = provided({"max_instances": 1}, waiting=2).started()
    here.running()
    for number in (101, 102):
        chosen = here.provider.next_request(DEB, [request(number)])
        assert chosen.id == number
        boot = FakeBoot()
        boot.request_id = number
        here.start(boot)
        assert "next try" in boot.told[-1]
    assert here.provider.next_request(DEB, [request(103)]) is None
    freed = here.freed
    here.pass_seconds(30)
    assert here.freed == freed, "nothing has changed"


def test_a_cloud_that_is_away_has_no_room(provided: Callable[..., Provided]) -> None:
    """While nothing new is asked of a cloud, a request gets no slot for it, but to wait in."""
    here = provided(waiting=1).started()
    here.cloud.fail("create", Trouble(Kind.PASSING, "away", retry_after=60.0))
    here.start(FakeBoot())
    assert here.provider.next_request(DEB, [request(9)]) is None
    here.pass_seconds(61)
    assert here.provider.next_request(DEB, [request(9)]).id == 9


def test_who_got_no_slot_is_called_when_there_is_room(provided: Callable[..., Provided]) -> None:
    """When something is given back, Buildbot is told that more can start."""
    here = provided({"max_instances": 1}, waiting=1).started()
    _, machine = here.running()
    here.start(FakeBoot())
    assert here.provider.next_request(DEB, [request(9)]) is None
    freed = here.freed
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(1)
    assert here.freed > freed
    assert here.provider.next_request(DEB, [request(9)]).id == 9


def test_a_slot_that_was_given_away_counts_until_its_build_has_begun(
    provided: Callable[..., Provided],
) -> None:
    """Two requests are not promised the same place, and one that never begins holds its promise for a minute only."""
    here = provided({"max_instances": 1}, waiting=1).started()
    assert here.provider.next_request(DEB, [request(1)]).id == 1
    assert here.provider.next_request(DEB, [request(2)]) is None
    here.pass_seconds(61)
    assert here.provider.next_request(DEB, [request(2)]).id == 2


def test_a_target_that_must_wait_leaves_slots_to_others(provided: Callable[..., Provided]) -> None:
    """A target that no cloud has room for keeps another, whose cloud has room, from nothing."""
    here = provided(
        {"cloud": "one", "images": {"*-deb-*": "x"}, "max_instances": 1},
        {"cloud": "two", "images": {"*-rpm-*": "x"}, "max_instances": 1},
        waiting=1,
    ).started()
    here.running()
    here.start(FakeBoot())
    assert here.provider.next_request(DEB, [request(1)]) is None
    assert here.provider.next_request(RPM, [request(2)]).id == 2


# -- volumes, ports and floating ips


def test_a_boot_volume_is_waited_for_and_removed(provided: Callable[..., Provided]) -> None:
    """The server is asked for when its volume is available, and the volume is gone after it."""
    here = provided({"volume": BootVolume(size=100)}).started()
    here.cloud.volume = "downloading"
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(30)
    assert here.cloud.count("create") == 0
    [volume] = here.cloud.extras
    assert boot.told[-1] == f"waiting for the boot volume {volume}"
    assert here.cloud.count("volume_status") < 12
    here.cloud.volume = "available"
    here.pass_seconds(15)
    assert here.cloud.about("create")[0].volume_id == volume
    boot.attach()
    done(ensureDeferred(done(starting).stop()))
    assert volume in here.cloud.extras
    here.pass_seconds(1)
    assert here.cloud.extras == {}


def test_a_look_at_a_boot_volume_may_fail(provided: Callable[..., Provided]) -> None:
    """A service that is in trouble for a moment costs no volume."""
    here = provided({"volume": BootVolume(size=50)}).started()
    here.cloud.fail("volume_status", Trouble(Kind.PASSING, "it is in trouble (503: x)"), times=2)
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(20)
    boot.attach()
    done(starting)
    assert here.cloud.count("create_volume") == 1


def test_a_boot_volume_that_fails_is_a_failed_machine(provided: Callable[..., Provided]) -> None:
    """A volume in error is removed, and counts as a machine that failed; so does one that takes for ever."""
    for status, seconds in (("error", 10), ("creating", 700)):
        here = provided({"volume": BootVolume(size=100)}, attempts=1, start_timeout=600).started()
        here.cloud.volume = status
        starting = here.start(FakeBoot())
        here.pass_seconds(seconds)
        with pytest.raises(NoMachineEver, match=rf"boot volume sepia-volume-1 is {status}, not available$"):
            done(starting)
        assert here.cloud.extras == {}
        assert here.cloud.count("create") == 0


def test_a_floating_ip_is_there_before_the_server_and_goes_after_it(
    provided: Callable[..., Provided],
) -> None:
    """Port and floating ip are made first, the server gets the port, and both are removed after it."""
    here = provided({"floating_ip": "outside", "networks": ("lab",)}).started()
    _boot, machine = here.running()
    kinds = {one.kind: one.id for one in here.cloud.extras.values()}
    assert kinds.keys() == {"port", "floating ip"}
    assert here.cloud.about("create_floating_ip") == [kinds["port"]]
    assert here.cloud.about("create")[0].port_id == kinds["port"]
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(1)
    assert here.cloud.extras == {}
    assert [one.kind for one in here.cloud.about("remove")] == ["floating ip", "port"]


@pytest.mark.parametrize("method", ["create_port", "create_floating_ip", "create"])
def test_half_of_a_machine_is_removed(provided: Callable[..., Provided], method: str) -> None:
    """Whatever was made before a call that fails is removed, also what nobody was told of."""
    here = provided(
        {"floating_ip": "outside", "networks": ("lab",), "max_instances": 1}, api_tries=1
    ).started()
    here.cloud.fail(method, LOST, done=True)
    with pytest.raises(NoMachineEver):
        done(here.start(FakeBoot()))
    here.pass_seconds(62)
    assert here.cloud.ours == []
    assert here.cloud.extras == {}
    assert not here.provider.fleets[0].busy


def test_what_others_have_is_left_alone(provided: Callable[..., Provided]) -> None:
    """The extras of an instance that lives are no leftovers."""
    here = provided({"floating_ip": "outside", "networks": ("lab",)}).started()
    here.running()
    here.cloud.extras["old"] = Leftover("port", "old", "an older boot")
    here.pass_seconds(61)
    assert sorted(one.kind for one in here.cloud.extras.values()) == ["floating ip", "port"]


# -- settings change, and the end


def test_a_cloud_that_is_named_no_longer_gets_nothing_new(provided: Callable[..., Provided]) -> None:
    """What it has lives on to its end, what is asked for goes elsewhere, and it may come back."""
    here = provided({"cloud": "one"}).started()
    _, machine = here.running()
    here.provider.configure(here.settings({"cloud": "two"}), here.dock)
    boot, _ = here.running()
    assert boot.noted["cloud"] == "two"
    assert len(here.clouds["one"].ours) == 1
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(1)
    assert here.clouds["one"].ours == []
    first = here.clouds["one"]
    here.provider.configure(here.settings({"cloud": "one", "max_instances": 9}, {"cloud": "two"}), here.dock)
    assert here.clouds["one"] is first
    assert first.settings.max_instances == 9


def test_a_cloud_that_goes_while_a_machine_boots(provided: Callable[..., Provided]) -> None:
    """The machine is waited for and used, for its cloud is still looked at."""
    here = provided({"cloud": "one"}).started()
    boot = FakeBoot()
    starting = here.start(boot)
    here.provider.configure(here.settings({"cloud": "two"}), here.dock)
    here.pass_seconds(30)
    boot.attach()
    assert boot.noted["cloud"] == "one"
    done(ensureDeferred(done(starting).stop()))
    here.pass_seconds(2)
    assert here.clouds["one"].ours == []


def test_a_cloud_that_goes_while_a_build_waits_for_it(provided: Callable[..., Provided]) -> None:
    """The build gets an instance of another cloud; one that is for that cloud only ends, and says why."""
    here = provided({"cloud": "one"}).started()
    here.cloud.quota = Limits(12, 12, -1, 0, -1, 0)
    anywhere, only_one = FakeBoot(), FakeBoot(only_cloud="one")
    here.start(anywhere)
    ending = here.start(only_one)
    here.provider.configure(here.settings({"cloud": "two"}), here.dock)
    here.pass_seconds(6)
    assert anywhere.noted["cloud"] == "two"
    with pytest.raises(NoMachineEver, match="^cloud one is not in the settings any more$"):
        done(ending)


def test_an_image_that_goes_while_a_build_waits(provided: Callable[..., Provided]) -> None:
    """A target that is off may have lost its image as well: what waits for an instance ends, and says why."""
    here = provided({"cloud": "one"}).started()
    here.cloud.quota = Limits(12, 12, -1, 0, -1, 0)
    ending = here.start(FakeBoot())
    here.provider.configure(here.settings({"cloud": "one", "images": {"*-rpm-*": "builder"}}), here.dock)
    here.pass_seconds(6)
    with pytest.raises(NoMachineEver, match="^no cloud has an image for it$"):
        done(ending)


def test_settings_that_change_keep_what_there_is(provided: Callable[..., Provided]) -> None:
    """New settings of a cloud apply to its next machine, and end none."""
    here = provided({"nova_flavor": "small"}).started()
    here.running()
    here.provider.configure(here.settings({"nova_flavor": "big"}), here.dock)
    here.pass_seconds(61)
    boot, _ = here.running()
    assert boot.noted["nova_flavor"] == "big"
    assert len(here.cloud.ours) == 2


def test_the_end_of_the_master_is_the_end_of_every_machine(provided: Callable[..., Provided]) -> None:
    """Closing ends all in all clouds at once, and nothing new is made meanwhile."""
    here = provided({"cloud": "one", "max_instances": 2}, {"cloud": "two"}).started()
    for _ in range(4):
        here.running()
    waiting = FakeBoot()
    for cloud in here.clouds.values():
        cloud.deleting = True
    closing = ensureDeferred(here.provider.close(7))
    assert [cloud.count("delete") for cloud in here.clouds.values()] == [2, 2]
    here.start(waiting)
    here.pass_seconds(1)
    for cloud in here.clouds.values():
        cloud.there.clear()
    here.pass_seconds(2)
    done(closing)
    here.pass_seconds(60)
    assert [cloud.count("create") for cloud in here.clouds.values()] == [2, 2]
    assert all(cloud.closed for cloud in here.clouds.values())


def test_an_image_may_be_the_newest_of_its_kind(provided: Callable[..., Provided]) -> None:
    """What the settings say of an image is what the cloud is asked for."""
    newest = NewestImage(name="jammy-*", properties={"os_version": "22.04"})
    here = provided({"images": {"*": newest}}).started()
    here.running()
    assert here.cloud.about("image") == [newest]


def test_two_names_of_one_project_live_in_peace(provided: Callable[..., Provided]) -> None:
    """Clouds of the settings may be one project: neither takes the other's servers and ports for orphans."""
    here = provided(
        {"cloud": "one", "max_instances": 1, "floating_ip": "outside", "networks": ("lab",)}, {"cloud": "two"}
    )
    one, two = here.clouds.values()
    two.there, two.extras = one.there, one.extras
    here.started()
    for _ in range(2):
        here.running()
    here.pass_seconds(130)
    assert len(one.there) == 2
    assert len(one.extras) == 2
    assert (one.count("delete"), two.count("delete")) == (0, 0)


def test_a_cloud_that_was_renamed_keeps_its_servers(provided: Callable[..., Provided]) -> None:
    """What was made under the old name is no orphan under the new one."""
    here = provided({"cloud": "one"}).started()
    _, machine = here.running()
    here.provider.configure(here.settings({"cloud": "two"}), here.dock)
    two = here.clouds["two"]
    two.there = here.clouds["one"].there
    here.pass_seconds(70)
    assert len(two.there) == 1
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(2)
    assert two.there == {}
