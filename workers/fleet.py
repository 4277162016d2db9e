"""The instances of one cloud: made, watched and ended, each certainly.

One listing serves everybody who waits for something. It comes soon after something was asked for and then ever
more seldom, and once a minute for all that nobody waits for. Whatever a listing shows that carries our tag and
has no owner is ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from buildbot.util import Notifier
from twisted.internet.defer import ensureDeferred
from twisted.python import log
from twisted.python.failure import Failure

from workers import cloud_errors
from workers.cloud_data import Leftover, nth
from workers.cloud_errors import Kind, Trouble
from workers.extras import Extras
from workers.instance import Instance, State

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from workers.cloud import Cloud
    from workers.cloud_data import Seen

_BOOTING = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds from one look to the next while an instance boots; the last one is kept. Its worker needs none."""
_GOING = (0.6, 0.8, 1.2, 2.0, 4.0, 8.0, 15.0)
"""The same while an instance goes."""
_SWEEP = 60.0
_RETRY = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds until a call that failed is made again."""
_HOLD = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds for which nothing new is asked for, after so many failures in a row."""
_IGNORED = 3.0
"""Seconds after which a DELETE was ignored, if the server does not say that it is being deleted."""
_STUCK = 60.0
"""Seconds after which a server that says so is asked again all the same."""


@dataclass(eq=False)
class _Going:
    """A server that must go: asked for as often as it takes, until a listing does not show it any more."""

    server_id: str
    what: str
    instance: Instance | None
    asked_at: float = 0.0
    """When the last DELETE was accepted; 0 if none was."""
    asking: bool = False
    tries: int = 0
    looks: int = 0
    due: float = 0.0


class Fleet:
    """What this master has in one cloud."""

    def __init__(
        self,
        cloud: Cloud,
        clock: Any,
        changed: Callable[[], None],
        owned: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Take the cloud, the clock, whom to tell when something was given back, and who else owns a boot.

        Two clouds of the settings may be one project: each sees what is the other's.
        """
        self.cloud = cloud
        self.extras = Extras(cloud, clock, self._tell_idle)
        self.instances: dict[str, Instance] = {}
        """By boot, from before the create call on."""
        self.hold_until = 0.0
        """Nothing new is asked for before this time; the reason is `hold_reason`."""
        self.hold_reason = ""
        self._until_given_back = False
        self._reaped = 0
        self._clock = clock
        self._changed = changed
        self._owned = owned
        self._going: dict[str, _Going] = {}
        self._timer: Any = None
        self._adding = 0
        self._listing = False
        self._list_failures = 0
        self._list_again = 0.0
        self._failures = 0
        self._next_sweep = 0.0
        self._idle: Notifier[None] = Notifier()
        self.closing = False
        """Nothing new is made any more."""
        self._closed = False
        self._running = False

    # -- life

    def start(self) -> None:
        """Begin to sweep, at once: at start-up whatever carries our tag has no owner."""
        self._running = True
        self._next_sweep = self._clock.seconds()
        self._schedule()

    async def close(self, seconds: float) -> None:
        """End everything of ours, and wait until it is gone, at most so long."""
        self.closing = True
        for instance in list(self.instances.values()):
            self.end(instance)
        if self.busy:
            timer = self._clock.callLater(seconds, self._idle.notify, None)
            await self._idle.wait()
            if timer.active():
                timer.cancel()
        self._closed = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self.busy:
            log.msg(
                f"cloud {self.cloud.title}: {len(self._going)} servers are still going;"
                " the next start makes sure of them"
            )
        self.cloud.close()

    @property
    def count(self) -> int:
        """How many servers of ours the cloud has, orphans that go included."""
        return len(self.instances) + sum(one.instance is None for one in self._going.values())

    @property
    def reaped(self) -> int:
        """How many servers and other things without an owner were ended so far."""
        return self._reaped + self.extras.reaped

    @property
    def busy(self) -> bool:
        """Whether anything of ours is left, as far as is known."""
        return bool(self.instances or self._going or self._adding or self.extras.going)

    # -- making

    def unread(self) -> dict[str, int]:
        """Give what was asked for since the quota was read last: instances, cores, and ram in MB."""
        read_at = self.cloud.limits_read_at
        new = [
            one
            for one in self.instances.values()
            if one.state in (State.NEW, State.ASKED) or one.known_at >= read_at
        ]
        return {
            "instances": len(new),
            "cores": sum(one.flavor.cpus for one in new),
            "ram": sum(one.flavor.ram for one in new),
        }

    async def launch(self, instance: Instance, create: Callable[[], Coroutine[Any, Any, str]]) -> None:
        """Make the server of an instance; Trouble if it cannot be, and then nothing of it is left for long.

        The call goes on also if who waits for it is stopped: its server is ended when it is known.
        """
        if instance.state is not State.NEW or self.closing:
            raise Trouble(Kind.PASSING, "the master is stopping")
        instance.state = State.ASKED
        self.instances[instance.boot] = instance
        answer: Notifier[Any] = Notifier()

        def answered(result: Any) -> None:
            if isinstance(result, Failure):
                self._not_made(instance, result)
            else:
                instance.server_id = result
                instance.known_at = self._clock.seconds()
                if instance.state is State.ASKED:
                    instance.state = State.BOOTING
                    instance.looks = 0
                    instance.due = instance.known_at + _BOOTING[0]
                    self.recovered()
                    self._schedule()
                else:
                    self._delete(result, instance)
            answer.notify(result)

        waiting = answer.wait()
        ensureDeferred(create()).addBoth(answered)
        await waiting

    async def add(self, instance: Instance, kind: str, create: Callable[[], Coroutine[Any, Any, str]]) -> str:
        """Make a volume, port or floating ip of an instance; give its id.

        As with a server, the call goes on if who waits is stopped, and what it gives is removed then.
        """
        answer: Notifier[Any] = Notifier()

        def answered(result: Any) -> None:
            self._adding -= 1
            if not isinstance(result, Failure):
                leftover = Leftover(kind, result, instance.boot)
                if instance.state is State.GONE:
                    self.extras.remove(leftover)
                else:
                    instance.extras.insert(0, leftover)
            elif not isinstance(result.value, Trouble) or result.value.done_perhaps:
                self.extras.look_again()
                self.look_soon()
            self._tell_idle()
            answer.notify(result)

        waiting = answer.wait()
        self._adding += 1
        ensureDeferred(create()).addBoth(answered)
        return str(await waiting)

    def attached(self, instance: Instance) -> None:
        """Take note that the worker of an instance has attached: nothing more has to be looked for."""
        if instance.state is State.BOOTING:
            instance.state = State.ATTACHED

    # -- ending

    def end(self, instance: Instance) -> None:
        """End an instance and all that belongs to it. It is certain from now on, however long it takes."""
        if instance.state in (State.GOING, State.GONE):
            return
        asked = instance.state is State.ASKED
        instance.state = State.GOING
        if instance.server_id:
            self._delete(instance.server_id, instance)
        elif not asked:
            self._finish(instance)
        # Else the create call is under way: what it gives is ended when it comes.

    def _not_made(self, instance: Instance, failure: Failure) -> None:
        trouble = failure.value if isinstance(failure.value, Trouble) else None
        if trouble is None or trouble.done_perhaps:
            # Whether it was made, a listing will tell, and what it shows has no owner then.
            self.look_soon()
        self._finish(instance)

    def _finish(self, instance: Instance) -> None:
        """Nothing of its server is left: free the place, and remove what else belongs to it."""
        instance.state = State.GONE
        self.instances.pop(instance.boot, None)
        for leftover in instance.extras:
            self.extras.remove(leftover)
        # What never was, or went to ERROR, had taken nothing that somebody else could have now.
        self._given_back(lifts=bool(instance.server_id) and instance.status != "ERROR")

    def _delete(self, server_id: str, instance: Instance | None, what: str = "") -> None:
        if server_id not in self._going:
            self._going[server_id] = _Going(server_id, what or (instance.name if instance else ""), instance)
            self._ask(self._going[server_id])

    def _ask(self, going: _Going) -> None:
        """Send a DELETE."""
        if going.asking or going.server_id not in self._going:
            return
        going.asking = True
        going.tries += 1

        def answered(result: Any) -> None:
            going.asking = False
            now = self._clock.seconds()
            if isinstance(result, Failure):
                wait = nth(_RETRY, going.tries - 1)
                if isinstance(result.value, Trouble):
                    wait = max(wait, result.value.retry_after)
                log.msg(
                    f"cannot end {going.what} ({going.server_id}) yet, again in {wait:g} s: {result.value}"
                )
                self._later(wait, lambda: self._ask(going))
                # It may have been done all the same.
                going.due = now + wait
            else:
                going.asked_at = now
                going.looks = 0
                going.due = now + _GOING[0]
            self._schedule()

        ensureDeferred(self.cloud.delete(going.server_id)).addBoth(answered)

    def _given_back(self, *, lifts: bool) -> None:
        """Let whoever waits look again: there is room for one more, and if it `lifts` a hold that waits for that, quota."""
        if lifts and self._until_given_back:
            self.hold_until = 0.0
        self.cloud.forget_limits()
        self._changed()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self.busy:
            self._idle.notify(None)

    # -- what stands in the way

    def in_trouble(self, trouble: Trouble) -> float:
        """Ask for nothing new for a while, longer each time; give the seconds."""
        if self._clock.seconds() >= self.hold_until:
            # What fails while the hold is on is the same trouble, met by another build.
            self._failures += 1
        wait = max(trouble.retry_after, nth(_HOLD, self._failures - 1))
        self.hold(trouble.sentence, wait)
        return wait

    def hold(self, reason: str, seconds: float, *, until_given_back: bool = False) -> None:
        """Ask for nothing new for so long, or until something of ours is gone, if that may help."""
        self.hold_until = max(self.hold_until, self._clock.seconds() + seconds)
        self.hold_reason = reason
        self._until_given_back = until_given_back

    def recovered(self) -> None:
        """Take note that the cloud does what it is asked."""
        self._failures = 0
        self.hold_until = 0.0

    # -- looking

    def look_soon(self) -> None:
        """Sweep in a few seconds."""
        self._next_sweep = min(self._next_sweep, self._clock.seconds() + _GOING[-3])
        self._schedule()

    def _schedule(self) -> None:
        if self._listing or self._closed or not self._running:
            return
        due = [self._next_sweep]
        due += [one.due for one in self.instances.values() if one.state is State.BOOTING]
        due += [one.due for one in self._going.values() if not one.asking]
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        wait = max(0.0, min(due) - self._clock.seconds())
        if self._list_failures:
            wait = max(wait, nth(_RETRY, self._list_failures - 1), self._list_again)
        self._timer = self._clock.callLater(wait, self._look)

    def _look(self) -> None:
        began = self._clock.seconds()
        self._listing = True
        sweep = began >= self._next_sweep
        if sweep:
            self._next_sweep = began + _SWEEP

        def listed(servers: list[Seen]) -> None:
            self._compare(servers, began)
            self._list_failures = 0
            if sweep:
                self.extras.look(lambda boot: boot in self.instances or self._owned(boot))

        def failed(failure: Failure) -> None:
            if sweep:
                self._next_sweep = began
            self._list_failures += 1
            self._list_again = getattr(failure.value, "retry_after", 0.0)
            if not failure.check(Trouble):
                # A mistake of ours, which must not end the looking.
                log.err(failure, "while looking at servers")
            elif self._list_failures in (1, 10):
                log.msg(f"cannot list servers: {failure.value}")

        def done(_: object) -> None:
            self._listing = False
            self._schedule()

        ensureDeferred(self.cloud.servers()).addCallback(listed).addErrback(failed).addCallback(done)

    def _compare(self, servers: Sequence[Seen], began: float) -> None:
        """Take in a listing that was asked for at a time."""
        shown = {server.id for server in servers}
        for server in servers:
            going = self._going.get(server.id)
            instance = self.instances.get(server.boot)
            if going is not None:
                self._still_there(going, server, began)
            elif instance is None and self._owned(server.boot):
                continue
            elif instance is None or (instance.server_id and instance.server_id != server.id):
                self._reap(server, "it has no owner")
            elif server.expires <= began:
                said = "the instance has reached its expiry"
                instance.lose(Trouble(Kind.PASSING, said, machine=True).in_cloud(self.cloud.title))
                self.end(instance)
            else:
                self._take_in(instance, server)
        for going in list(self._going.values()):
            over = going.server_id not in shown and not going.asking
            if over and going.asked_at and began >= going.asked_at:
                self._is_gone(going)
        for instance in list(self.instances.values()):
            if instance.state is State.BOOTING and began >= instance.due:
                instance.looks += 1
                instance.due = self._clock.seconds() + nth(_BOOTING, instance.looks)
            known = instance.server_id and instance.state in (State.BOOTING, State.ATTACHED)
            if known and instance.server_id not in shown and began > instance.known_at:
                self._make_sure(instance)

    def _still_there(self, going: _Going, server: Seen, began: float) -> None:
        if began < going.due or going.asking:
            return
        going.looks += 1
        going.due = self._clock.seconds() + nth(_GOING, going.looks)
        patience = _STUCK if server.task_state == "deleting" else _IGNORED * min(going.tries, 20)
        if going.asked_at and began - going.asked_at >= patience:
            log.msg(
                f"{going.what} ({going.server_id}) was to be deleted and is {server.status} ({server.task_state or 'no task'}): again"
            )
            self._ask(going)

    def _take_in(self, instance: Instance, server: Seen) -> None:
        instance.status = server.status
        instance.addresses = dict(server.addresses)
        if not instance.server_id:
            return  # its create call has not answered yet
        if server.status == "ERROR":
            instance.lose(cloud_errors.of_fault(server.fault).in_cloud(self.cloud.title))
        elif server.status in ("SHUTOFF", "DELETED", "SOFT_DELETED"):
            said = f"the instance is {server.status}, though nobody here asked for it"
            instance.lose(Trouble(Kind.PASSING, said, machine=True).in_cloud(self.cloud.title))

    def _make_sure(self, instance: Instance) -> None:
        """Ask for an instance alone that a listing did not show, before it counts as lost."""

        def looked(there: Any) -> None:
            if there is False and instance.state in (State.BOOTING, State.ATTACHED):
                said = "the instance is gone, deleted by somebody else"
                instance.lose(Trouble(Kind.PASSING, said, machine=True).in_cloud(self.cloud.title))
                self.end(instance)
            elif isinstance(there, Failure):
                log.msg(f"cannot see whether {instance.name} is there: {there.value}")

        ensureDeferred(self.cloud.exists(instance.server_id)).addBoth(looked)

    def _is_gone(self, going: _Going) -> None:
        del self._going[going.server_id]
        if going.instance is not None:
            self._finish(going.instance)
        else:
            log.msg(f"{going.what} ({going.server_id}) is gone")
            self._given_back(lifts=True)

    def _reap(self, server: Seen, why: str) -> None:
        self._reaped += 1
        log.msg(f"ending {server.name} ({server.id}) in cloud {self.cloud.title}: {why}")
        self._delete(server.id, None, server.name)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if not self._closed:
            self._clock.callLater(seconds, call)
