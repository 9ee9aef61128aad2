"""The loop: take an input, call `step`, record, carry out the effects, feed their results back as inputs.

Inputs are taken one at a time on the event loop's thread. Grants and failures of held requests happen in
the same turn; wakes and parks run in tasks of their own, which first wait until the turn that asked for
them is committed to the ledger, so that intent is on disk before action.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from poorwill.core.entries import Entry, ParkEnded, WakeEnded
from poorwill.core.errors import ErrorCode, PoorwillError, TryLater
from poorwill.core.machine.effects import (
    AbortWake,
    CutLeases,
    Effect,
    Fail,
    Grant,
    Record,
    StartPark,
    StartWake,
)
from poorwill.core.machine.inputs import Input, Returned, Tick, WakeFailed
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Replica, next_wakeup_us
from poorwill.core.machine.step import step
from poorwill.core.policy import LearnsFromTimes, LearnsFromWakes
from poorwill.core.ports.activator import Connections
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.words import ModelName
from poorwill.fleet.journal import Journal
from poorwill.fleet.park import carry_out_park
from poorwill.fleet.room import Room
from poorwill.fleet.unit import Unit
from poorwill.fleet.wake import carry_out_wake


class Controller:
    """Runs the units. Constructed idle; everything it starts lives in `tasks`."""

    def __init__(
        self,
        *,
        units: Mapping[ModelName, Unit],
        journal: Journal,
        connections: Connections,
        room: Room,
        clock: Clock,
        log: Log,
        tasks: asyncio.TaskGroup,
        wake_began: Callable[[ModelName], None],
    ) -> None:
        self.units = units
        self.journal = journal
        self.connections = connections
        self.room = room
        self.clock = clock
        self.log = log
        self.tasks = tasks
        self._wake_began = wake_began
        self._inbox: deque[tuple[Unit, Input]] = deque()
        self._turning = False
        self.broken = False
        """A turn has failed by a defect: nothing is decided any more, the task group is ending."""
        self.given_up = False
        """The time for the shutdown is up: nobody waits for what is not at rest."""

    def submit(self, unit: Unit, what: Input) -> None:
        """Take an input. Its turn, and those of inputs it gives rise to, are over on return.

        Called on the event loop's thread only. A call from within a turn is queued behind it. Never raises:
        a turn that fails by a defect ends the fleet through its task group, and engines are left as they
        are, for the next start to find.
        """
        self._inbox.append((unit, what))
        if self._turning or self.broken:
            return
        self._turning = True
        try:
            while self._inbox:
                self._turn(*self._inbox.popleft())
        except Exception as error:
            self.broken = True
            self.log.error("a turn failed by a defect", model=unit.model, error=repr(error))
            failure = _fail(error)
            try:
                self.tasks.create_task(failure)
            except RuntimeError:  # it is ending already
                failure.close()
        finally:
            self._turning = False

    def arm(self, unit: Unit) -> None:
        """Set the unit's timer for the next instant at which it must be given a Tick."""
        now = self.clock.now_us()
        due = next_wakeup_us(unit.observed(), now)
        if unit.timer is not None:
            unit.timer.cancel()
            unit.timer = None
        if due is not None:
            delay_s = max(due - now, 0) / 1e6
            unit.timer = asyncio.get_running_loop().call_later(delay_s, self._tick, unit)

    def _tick(self, unit: Unit) -> None:
        unit.timer = None
        self.submit(unit, Tick())

    def _turn(self, unit: Unit, what: Input) -> None:
        now = self.clock.now_us()
        after, effects = step(unit.observed(), what, now)
        before = unit.replica
        if after.load.cause != unit.gate.cause:
            unit.since_us = now
        unit.adopt(after)
        _publish_wake(unit, before, after)
        _teach_times(before, after, effects)
        committed = self._write_down(effects)
        for effect in effects:
            self._carry_out(unit, effect, committed)
        self.arm(unit)
        unit.tell_onlookers()

    def _write_down(self, effects: Sequence[Effect]) -> Awaitable[None] | None:
        entries: list[Entry] = [effect.entry for effect in effects if isinstance(effect, Record)]
        if not entries:
            return None
        committed = self.journal.record(entries)
        if any(isinstance(effect, StartWake | StartPark) for effect in effects):
            return committed
        self.tasks.create_task(self._unheard(committed))
        return None

    async def _unheard(self, committed: Awaitable[None]) -> None:
        """Wait for a commit that nothing depends on; its failure shows in `journal.unavailable` as well."""
        try:
            await committed
        except PoorwillError as error:
            self.log.error("a turn is not on disk", why=str(error))

    def _carry_out(self, unit: Unit, effect: Effect, committed: Awaitable[None] | None) -> None:
        if isinstance(effect, Grant):
            self._resolve(unit, effect)
        elif isinstance(effect, Fail):
            _refuse(unit, effect, self.clock.now_us())
        elif isinstance(effect, StartWake):
            assert committed is not None
            self._wake_began(unit.model)
            wake = carry_out_wake(self, unit, effect, committed)
            unit.job = self.tasks.create_task(wake, name=f"wake {effect.wake}")
            unit.job.add_done_callback(self._unless_begun(unit, effect))
        elif isinstance(effect, AbortWake):
            if unit.job is not None:
                unit.job.cancel(effect.why)
        elif isinstance(effect, StartPark):
            assert committed is not None
            park = carry_out_park(self, unit, effect, committed)
            unit.job = self.tasks.create_task(park, name=f"park {unit.id}.{effect.generation}")
        elif isinstance(effect, CutLeases) and unit.running is not None:
            self.connections.cut(unit.running.host, unit.running.port, effect.why)

    def _resolve(self, unit: Unit, effect: Grant) -> None:
        """Give the lease; where the client left in this very tick, take it back."""
        future = unit.waiting.pop(effect.hold)
        if future.done():
            now = self.clock.now_us()
            unit.gate.give_back(now)
            unit.left(now)
            self.submit(unit, Returned())
        else:
            future.set_result(unit.lease())

    def _unless_begun(self, unit: Unit, effect: StartWake) -> Callable[[asyncio.Task[None]], None]:
        """Report for a wake that was cancelled before its first step. A second report changes nothing."""
        report = WakeFailed(generation=effect.generation, why="aborted before it began", kept=True)

        def over(job: asyncio.Task[None]) -> None:
            if job.cancelled():
                self.submit(unit, report)

        return over


async def _fail(error: Exception) -> None:
    raise error


def _publish_wake(unit: Unit, before: Replica, after: Replica) -> None:
    """Count a wake that came to an end that serves, from when it was first asked for."""
    succeeded = after.state in (State.READY, State.PARKING)
    if before.state is not State.WAKING or before.wake is None or not succeeded:
        return
    took_us = after.ready_since_us - before.wake.asked_us
    if isinstance(after.policy, LearnsFromWakes):
        after.policy.woke([after.ready_since_us - hold.arrived_us for hold in before.holds])
    unit.wakes.append(took_us)
    del unit.wakes[:-1_000]
    if took_us > unit.replica.settings.wake.budget_us:
        unit.over_budget += 1


def _teach_times(before: Replica, after: Replica, effects: Sequence[Effect]) -> None:
    """Tell a policy that goes by costs how long a wake or park took that has just succeeded."""
    for effect in effects:
        entry = effect.entry if isinstance(effect, Record) else None
        if not isinstance(entry, WakeEnded | ParkEnded) or not entry.ok:
            continue
        policy = after.policy
        if not isinstance(policy, LearnsFromTimes):
            return
        if isinstance(entry, ParkEnded):
            policy.park_took(entry.to_tier, entry.at_us - entry.began_us)
        elif before.wake is not None:
            tier = before.wake.from_tier
            policy.wakes_took(tier, after.recent_wakes_us.get(tier, ()))


def _refuse(unit: Unit, effect: Fail, now_us: int) -> None:
    future = unit.waiting.pop(effect.hold, None)
    unit.left(now_us)
    if future is not None and not future.done():
        future.set_exception(as_error(effect))
        future.exception()  # marks it as seen: whoever holds the place may have lost interest


def as_error(effect: Fail) -> PoorwillError:
    """Return a failed hold as the error its client gets."""
    hint = None
    if effect.code is ErrorCode.WAKE_TIMEOUT:
        hint = "retry after the time in Retry-After; the replica is likely to be ready by then"
    return TryLater(effect.code, effect.message, hint=hint, retry_after_s=effect.retry_after_s)
