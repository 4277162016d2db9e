"""Machines kept ready: how many, when, how old, and how a build takes one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from model.targets import Target
from tests.fakes.boot import DEB, FakeBoot
from tests.fakes.provider import done
from workers.cloud_errors import Kind, Trouble
from workers.openstack_settings import Prewarm
from workers.prewarm import Rendezvous, Stock
from workers.provider import NoMachineEver
from workers.sizes import Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.provider import Provided

RPM = Target.from_name("ceph-rpm-centos9-x86_64-default")
ALWAYS: dict[str, Any] = {"days": ("mon", "tue", "wed", "thu", "fri", "sat", "sun"), "hours": (0, 24)}


def kept(target: Target = DEB, **more: Any) -> Prewarm:
    """Settings that keep one machine ready at all hours."""
    return Prewarm(target=str(target), **{**ALWAYS, **more})


def at(day: int, hour: int, minute: int = 0) -> float:
    """A moment of a week that begins on Monday, the 2nd of November 2026, UTC."""
    return datetime(2026, 11, 2 + day, hour, minute, tzinfo=UTC).timestamp()


def tokens(here: Provided) -> list[str]:
    """The tokens of the machines that were made ahead, in order."""
    return [login.token for _, login in here.rendered if login.token]


def asks(here: Provided, token: str) -> Deferred[Any]:
    """Have a machine ask which worker it is: it is ready."""
    return ensureDeferred(here.provider.rendezvous.ask(token))


def with_one_ready(
    provided: Callable[..., Provided], *clouds: dict[str, Any], **settings: Any
) -> tuple[Provided, Deferred[Any]]:
    """Give a provider with one machine that is ready, and what it is answered."""
    here = provided(*clouds, prewarm=(kept(),), **settings).started()
    [token] = tokens(here)
    return here, asks(here, token)


# -- the rendezvous


def test_a_machine_learns_its_name_when_it_is_given_one() -> None:
    """A question is open until the worker is known, and then answered at once."""
    ready: list[bool] = []
    rendezvous = Rendezvous(Clock(), lambda: ready.append(True))
    token = rendezvous.expect()
    assert not rendezvous.is_ready(token)
    answer = ensureDeferred(rendezvous.ask(token))
    assert rendezvous.is_ready(token)
    assert (ready, answer.called) == ([True], False)
    rendezvous.assign(token, "openstack-3")
    assert done(answer) == "openstack-3"
    assert done(ensureDeferred(rendezvous.ask(token))) == "openstack-3"


def test_a_question_is_answered_empty_after_a_while() -> None:
    """A machine is to ask again before something in between gives the connection up, and is ready all the same."""
    clock = Clock()
    ready: list[bool] = []
    rendezvous = Rendezvous(clock, lambda: ready.append(True))
    token = rendezvous.expect()
    for _ in range(3):
        answer = ensureDeferred(rendezvous.ask(token))
        clock.advance(49)
        assert not answer.called
        clock.advance(2)
        assert done(answer) == ""
        assert rendezvous.is_ready(token)
    assert ready == [True], "that is said once"


def test_nobody_else_learns_anything() -> None:
    """A token that was never given out, or is not expected any more, gets nothing, at once."""
    rendezvous = Rendezvous(Clock(), lambda: None)
    assert done(ensureDeferred(rendezvous.ask("guessed"))) is None
    token = rendezvous.expect()
    answer = ensureDeferred(rendezvous.ask(token))
    rendezvous.forget(token)
    assert done(answer) is None
    assert done(ensureDeferred(rendezvous.ask(token))) is None
    assert len({rendezvous.expect() for _ in range(100)}) == 100
    assert len(token) == 32


# -- when, and how many

SCHEDULE = (
    # day of the week from Monday as 0, hour, how many there should be
    (0, 6, 0),
    (0, 7, 2),
    (0, 18, 2),
    (0, 19, 0),
    (4, 12, 2),
    (5, 6, 0),
    (5, 12, 1),
    (6, 12, 0),
)


@pytest.mark.parametrize(("day", "hour", "count"), SCHEDULE)
def test_the_hours_of_the_week_decide(day: int, hour: int, count: int) -> None:
    """From the first hour on and before the second one, on the days that are named, UTC; settings add up."""
    clock = Clock()
    clock.rightNow = at(day, hour)
    stock = Stock(clock, Rendezvous(clock, lambda: None), None)  # type: ignore[arg-type]
    stock.settings = (
        Prewarm(target=str(DEB), count=2),
        Prewarm(target=str(DEB), days=("sat",), hours=(10, 14)),
    )
    assert stock.wanted(str(DEB)) == count
    assert stock.wanted(str(RPM)) == 0


def test_nothing_is_kept_ready_unless_settings_say_so(provided: Callable[..., Provided]) -> None:
    """It is off by default."""
    here = provided().started()
    here.pass_seconds(100)
    assert here.cloud.count("create") == 0


def test_as_many_as_wanted_are_made_and_no_more(provided: Callable[..., Provided]) -> None:
    """Each is a server of ours, marked as kept ready, with a password of its own."""
    here = provided(prewarm=(kept(count=3),)).started()
    here.pass_seconds(120)
    assert here.cloud.count("create") == len(here.cloud.ours) == 3
    assert len({login.password for _, login in here.rendered}) == len(set(tokens(here))) == 3
    for server_id in here.cloud.ours:
        assert here.cloud.there[server_id].seen.metadata["asker"] == "prewarm"
        assert here.cloud.there[server_id].seen.metadata["target"] == str(DEB)


def test_they_go_when_it_is_not_the_hour_for_them(provided: Callable[..., Provided]) -> None:
    """At the end of the hours they are ended, and come again the next day."""
    here = provided(prewarm=(Prewarm(target=str(DEB), hours=(7, 19)),), at=at(0, 18, 58)).started()
    here.pass_seconds(60)
    assert len(here.cloud.ours) == 1
    here.pass_seconds(80)
    assert here.cloud.ours == []
    here.clock.rightNow = at(1, 7)
    here.pass_seconds(20)
    assert len(here.cloud.ours) == 1


def test_one_that_is_too_old_is_replaced(provided: Callable[..., Provided]) -> None:
    """A machine that nobody took for so long is ended, and another one made."""
    here = provided(prewarm=(kept(max_age=0.1),), start_timeout=10_000).started()
    here.pass_seconds(350)
    [first] = here.cloud.ours
    here.pass_seconds(40)
    [second] = here.cloud.ours
    assert second != first


def test_one_that_never_gets_ready_is_replaced(provided: Callable[..., Provided]) -> None:
    """A machine that has not asked within the time that a start may take is ended, and another one made."""
    here = provided(prewarm=(kept(),), start_timeout=120).started()
    [first] = here.cloud.ours
    here.pass_seconds(119)
    assert here.cloud.ours == [first]
    here.pass_seconds(30)
    assert here.cloud.ours != [first]
    assert len(here.cloud.ours) == 1


@pytest.mark.parametrize("how", ["gone", "error"])
def test_one_that_ends_by_itself_is_replaced(provided: Callable[..., Provided], how: str) -> None:
    """A machine that goes to ERROR or is deleted by somebody else is cleared away, and another one made."""
    here, _ = with_one_ready(provided)
    [first] = here.cloud.ours
    if how == "gone":
        here.cloud.vanish(first)
    else:
        here.cloud.change(first, status="ERROR")
    here.pass_seconds(25)
    assert len(here.cloud.ours) == 1
    assert here.cloud.ours != [first]


def test_what_stands_in_the_way_is_tried_again(provided: Callable[..., Provided]) -> None:
    """A cloud that is away, or has no room, costs a try every quarter of a minute, and nothing is left of it."""
    here = provided({"max_instances": 1}, prewarm=(kept(),))
    here.clouds["sepia"].fail("create", Trouble(Kind.PASSING, "away"), times=2)
    here.started()
    here.pass_seconds(16)
    assert here.cloud.count("create") == 2
    here.pass_seconds(15)
    assert len(here.cloud.ours) == 1


def test_settings_that_change_apply_at_once(provided: Callable[..., Provided]) -> None:
    """Fewer are ended, and more are made, within a quarter of a minute."""
    here = provided(prewarm=(kept(),)).started()
    here.provider.configure(here.settings(prewarm=(kept(count=2),)), here.dock)
    here.pass_seconds(16)
    assert len(here.cloud.ours) == 2
    here.provider.configure(here.settings(), here.dock)
    here.pass_seconds(17)
    assert here.cloud.ours == []


# -- a build takes one


def test_a_build_takes_one_that_is_ready(provided: Callable[..., Provided]) -> None:
    """It gets the server that was there before, which learns its worker's name and needs no other password."""
    here, answer = with_one_ready(provided)
    [server_id] = here.cloud.ours
    boot = FakeBoot()
    starting = here.start(boot)
    assert done(answer) == boot.worker
    assert boot.passwords == [here.rendered[0][1].password]
    assert boot.told == [f"taking instance {server_id} in cloud sepia, kept ready"]
    boot.attach()
    machine = done(starting)
    assert boot.noted["instance"] == server_id
    assert boot.noted["image"] == "builder (i1)"
    assert here.cloud.count("create") == 1
    here.pass_seconds(16)
    assert here.cloud.count("create") == 2, "and another one is made ready"
    done(ensureDeferred(machine.stop()))
    here.pass_seconds(1)
    assert server_id not in here.cloud.ours


def test_one_that_was_taken_belongs_to_who_asked(provided: Callable[..., Provided]) -> None:
    """From then on it counts for its asker and is not ended for its age or the hour."""
    here, _ = with_one_ready(provided, max_instances_per_asker=1)
    here.running()
    here.provider.configure(here.settings(max_instances_per_asker=1), here.dock)
    here.pass_seconds(30)
    assert len(here.cloud.ours) == 1
    boot = FakeBoot()
    here.start(boot)
    assert boot.told == ["1 of 1 instances that alice may have; next try in 5 s"]


def test_one_that_is_not_ready_is_not_waited_for(provided: Callable[..., Provided]) -> None:
    """A build that finds none ready gets a machine of its own."""
    here = provided(prewarm=(kept(),)).started()
    here.start(FakeBoot())
    assert here.cloud.count("create") == 2


@pytest.mark.parametrize("what", ["target", "size", "image", "cloud"])
def test_a_build_that_wants_something_else_takes_none(provided: Callable[..., Provided], what: str) -> None:
    """Another target, a size, an image or a cloud of its own: what is ready is not what was asked for."""
    here, answer = with_one_ready(provided)
    boot = {
        "target": FakeBoot(RPM), "size": FakeBoot(), "image": FakeBoot(only_image="base"),
        "cloud": FakeBoot(only_cloud="sepia"),
    }[what]  # fmt: skip
    if what == "size":
        boot.good = Size(cpus=16)
    here.start(boot)
    assert here.cloud.count("create") == 2
    assert not answer.called


def test_one_that_fails_when_it_is_taken_is_replaced(provided: Callable[..., Provided]) -> None:
    """A machine whose worker does not attach within a minute after all is ended, and the build gets another one."""
    here, _ = with_one_ready(provided, attempts=2)
    [first] = here.cloud.ours
    here.cloud.fail("create", Trouble(Kind.QUOTA, "no quota"), times=3)  # none is made ready meanwhile
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(59)
    assert first in here.cloud.ours
    here.pass_seconds(30)
    assert first not in here.cloud.ours
    assert boot.kept == {"console": f"console of {first}"}
    assert boot.passwords[-1] in [login.password for _, login in here.rendered]
    boot.attach()
    assert done(starting).description.startswith(f"{DEB}-")


def test_a_build_that_is_stopped_while_it_takes_one_leaves_nothing(provided: Callable[..., Provided]) -> None:
    """The machine is ended: it has been told a name, and may attach."""
    here, _ = with_one_ready(provided)
    [first] = here.cloud.ours
    starting = here.start(FakeBoot())
    starting.addErrback(lambda _: None)
    starting.cancel()
    assert first not in here.cloud.ours
    token = tokens(here)[0]
    assert done(asks(here, token)) is None


# -- they stand in nobody's way


def test_one_for_another_target_makes_room_for_a_build(provided: Callable[..., Provided]) -> None:
    """A build that finds no room gets the place of a machine that is only kept ready for something else."""
    here, _ = with_one_ready(provided, {"max_instances": 1})
    boot = FakeBoot(RPM)
    starting = here.start(boot)
    here.pass_seconds(3)
    boot.attach()
    done(starting)
    assert here.cloud.count("create") == 2
    assert [here.cloud.there[one].seen.metadata["target"] for one in here.cloud.ours] == [str(RPM)]


def test_one_build_takes_one_place(provided: Callable[..., Provided]) -> None:
    """However long nova takes to end a machine that was kept ready, the build that waits for its place has no other one ended."""
    here = provided({"max_instances": 3}, prewarm=(kept(count=3),)).started()
    here.pass_seconds(31)
    assert len(tokens(here)) == 3
    for token in tokens(here):
        asks(here, token)
    here.cloud.hang("delete")
    starting = here.start(FakeBoot(RPM))
    here.pass_seconds(15)
    assert here.cloud.count("delete") == 1
    here.cloud.release("delete")
    here.pass_seconds(5)
    assert here.cloud.count("create") == 4
    assert not starting.called


def test_a_place_is_made_where_there_is_none(provided: Callable[..., Provided]) -> None:
    """A machine that is kept ready in a cloud which the build may not have is left."""
    here = provided(
        {"cloud": "one", "images": {str(DEB): "builder"}},
        {"cloud": "two", "max_instances": 1},
        prewarm=(kept(),),
    ).started()
    asks(here, tokens(here)[0])
    here.running(FakeBoot(RPM))
    here.start(FakeBoot(RPM))
    here.pass_seconds(15)
    assert len(here.clouds["one"].ours) == 1


def test_whose_limit_is_reached_takes_none(provided: Callable[..., Provided]) -> None:
    """What is kept ready is for those who may have one more; and it is nobody's until it is taken."""
    here = provided({"max_instances": 9}, prewarm=(kept(count=2),), max_instances_per_asker=1).started()
    here.pass_seconds(16)
    assert here.cloud.count("create") == 2
    for token in tokens(here):
        asks(here, token)
    here.running()
    boot = FakeBoot()
    here.start(boot)
    assert boot.told == ["1 of 1 instances that alice may have; next try in 5 s"]
    other = FakeBoot(asker="bob")
    here.start(other)
    assert other.told[0].endswith("kept ready")


def test_a_build_waits_for_one_that_will_be_ready_for_it(provided: Callable[..., Provided]) -> None:
    """With no room besides, the build takes the machine that is being made ready for its own target."""
    here = provided({"max_instances": 1}, prewarm=(kept(),)).started()
    boot = FakeBoot()
    starting = here.start(boot)
    here.pass_seconds(30)
    assert here.cloud.count("create") == 1
    answer = asks(here, tokens(here)[0])
    assert done(answer) == boot.worker
    boot.attach()
    done(starting)


def test_a_cloud_that_is_away_costs_none_of_them(provided: Callable[..., Provided]) -> None:
    """Machines are given up for room, and not for a cloud that answers nobody."""
    here, _ = with_one_ready(provided)
    [first] = here.cloud.ours
    here.cloud.fail("limits", Trouble(Kind.PASSING, "away"), times=3)
    here.cloud.forget_limits()
    here.start(FakeBoot(RPM))
    here.pass_seconds(5)
    assert first in here.cloud.ours


def test_none_is_made_while_builds_wait(provided: Callable[..., Provided]) -> None:
    """Who waits for a machine comes before what nobody waits for."""
    here = provided({"max_instances": 1}, prewarm=(kept(),))
    here.cloud.put("left", boot="old")
    here.cloud.deleting = True
    boot = FakeBoot(RPM)
    here.start(boot)
    here.started()
    here.start(FakeBoot(RPM))
    here.pass_seconds(5)
    here.cloud.there.clear()
    here.pass_seconds(20)
    assert [one.metadata["target"] for one in here.cloud.about("create")][:1] == [str(RPM)]


def test_they_end_with_the_master(provided: Callable[..., Provided]) -> None:
    """Closing ends them, and none is made after."""
    here, _ = with_one_ready(provided)
    closing = ensureDeferred(here.provider.close(7))
    here.pass_seconds(1)
    done(closing)
    here.pass_seconds(60)
    assert here.cloud.ours == []
    assert here.cloud.count("create") == 1


def test_a_mistake_of_ours_does_not_end_the_keeping(
    provided: Callable[..., Provided], mistakes: list[str]
) -> None:
    """An exception that nobody thought of is logged, and the next machine is made as usual."""
    here = provided(prewarm=(kept(),))
    here.clouds["sepia"].fail("image", ZeroDivisionError("ours"))
    here.started()
    here.pass_seconds(16)
    assert len(here.cloud.ours) == 1
    [mistake] = mistakes
    assert f"while keeping a machine ready for {DEB}" in mistake
    mistakes.clear()


def test_a_target_whose_instances_are_all_there_gets_none_ahead(provided: Callable[..., Provided]) -> None:
    """What is made ahead keeps to the limits as well."""
    here = provided(prewarm=(kept(count=4),), max_instances_per_target=2).started()
    here.pass_seconds(120)
    assert len(here.cloud.ours) == 2
    with pytest.raises(NoMachineEver, match="2 of 2 instances that a target may have"):
        done(ensureDeferred(here.provider._make_ahead(DEB, "password", "token")))
