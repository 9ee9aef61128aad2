"""The loop: take an input, feed the cell, record, carry out the effects, feed their results back as inputs.

Inputs are taken one at a time on the event loop's thread. Grants and failures of held requests happen at
once; wakes and parks run in tasks of their own, which first wait until the entries that ask for them are
committed to the ledger, so that intent is on disk before action.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from poorwill.core.entries import Entry
from poorwill.core.errors import ErrorCode, PoorwillError, TryLater
from poorwill.core.machine.effects import (
    AbortWake,
    ChangeCause,
    CutLeases,
    Effect,
    Fail,
    Grant,
    Record,
    StartPark,
    StartWake,
)
from poorwill.core.machine.inputs import Input, Returned, Tick, WakeFailed
from poorwill.core.policy import FloorSchedule, Policy
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import ModelName, ReplicaId
from poorwill.fleet.park import carry_out_park
from poorwill.fleet.unit import FleetContext, Models, Submit, Unit
from poorwill.fleet.wake import carry_out_wake
from poorwill.policies.dispatch import Replicas

Act = Callable[[int], Sequence[Effect]]
"""Something done to a cell at an instant."""
SOON_S = 0.02


class Controller:
    """Runs the units. Constructed idle; everything it starts lives in `tasks`."""

    def __init__(
        self, *, new_context: Callable[[Submit], FleetContext], wake_began: Callable[[ModelName], None]
    ) -> None:
        """`new_context` is given this controller's `submit`."""
        self.context = context = new_context(self.submit)
        self.units, self.journal, self.connections = context.units, context.journal, context.connections
        self.clock, self.log, self.tasks = context.clock, context.log, context.tasks
        self.models = Models((unit.model, unit.replicas) for unit in self.units.values())
        self._wake_began = wake_began
        self._inbox: deque[tuple[Unit, Act]] = deque()
        self._turned: dict[ReplicaId, Unit] = {}
        self._acting = False
        self.broken = False
        """A bug raised within a step: nothing is decided any more, the task group is ending."""
        self.given_up = False
        """The time for the shutdown is up: nobody waits for replicas that are still busy."""

    def submit(self, unit: Unit, what: Input) -> None:
        """Take an input. It and the inputs that it gives rise to are dealt with on return.

        Called on the event loop's thread only. A call from within another is queued behind it. Never raises:
        a bug ends the fleet through its task group, and engines are left as they are.
        """
        self._enqueue(unit, partial(unit.replicas.feed, unit.cell, what))

    def give_back(self, unit: Unit, generation: int) -> None:
        """Return a lease: the warm path, which has effects only if others wait or the replica falls idle.

        Never raises, like `submit`.
        """
        if self._acting:
            self._enqueue(unit, partial(unit.replicas.give_back, unit.cell, generation))
            return
        try:
            effects = unit.replicas.give_back(unit.cell, generation, self.clock.now_us())
            if effects and type(effects[0]) is ChangeCause:
                self.turned(unit)
                unit.notify_waiters()
            elif effects:
                self._enqueue(unit, lambda _: effects)
        except Exception as error:
            self._break(unit, error)

    def turned(self, unit: Unit) -> None:
        """Write down that a replica became busy or idle; timers are set later: it may be so a moment only."""
        self.journal.post([unit.cell.open_span()])
        if not self._turned:
            asyncio.get_running_loop().call_later(SOON_S, self._after_turns)
        self._turned[unit.id] = unit

    def _after_turns(self) -> None:
        turned, self._turned = self._turned, {}
        for unit in turned.values():
            if self.units.get(unit.id) is unit:  # else it has left meanwhile
                self._enqueue(unit, lambda _: ())

    def bridge(self, replicas: Replicas, asked_by: str) -> Unit | None:
        """Register the demand of a request that a hosted API serves; None if it must be held."""
        bridged = replicas.bridge(asked_by, self.clock.now_us())
        if bridged is None:
            return None
        cell, effects = bridged
        if effects:
            self._enqueue(self.units[cell.id], lambda _: effects)
        return self.units[cell.id]

    def configure(self, settings: ReplicaSettings, levels: Sequence[tuple[Policy, FloorSchedule]]) -> None:
        """Have a model's replicas take on other settings; what runs goes on. Never raises, like `submit`."""
        replicas = self.models[settings.model]
        replicas.configure(settings, levels)
        for cell in replicas.cells:
            self.submit(self.units[cell.id], Returned())  # there may be room for who waits

    def arm(self, unit: Unit) -> None:
        """Have the next Tick come in time. One that comes too early changes nothing: its timer may stay."""
        now = self.clock.now_us()
        due, look_us = unit.cell.next_tick_us(now), unit.replicas.look_us
        if look_us is not None:
            due = look_us if due is None else min(due, look_us)
        if due is None or (unit.timer is not None and now < unit.ticks_us <= due):
            return
        if unit.timer is not None:
            unit.timer.cancel()
        unit.ticks_us = due
        delay_s = max(due - now, 0) / 1e6
        unit.timer = asyncio.get_running_loop().call_later(delay_s, self._tick, unit)

    def _arm_all(self, unit: Unit) -> None:
        for cell in unit.replicas.take_moved():  # idle ones whose level has changed
            if (moved := self.units.get(cell.id)) is not None:  # else it has left meanwhile
                self.arm(moved)
        self.arm(unit)

    def _tick(self, unit: Unit) -> None:
        unit.timer = None
        self.submit(unit, Tick())

    def _enqueue(self, unit: Unit, act: Act) -> None:
        self._inbox.append((unit, act))
        if self._acting or self.broken:
            return
        self._acting = True
        try:
            while self._inbox:
                self._act(*self._inbox.popleft())
        except Exception as error:
            self._break(unit, error)
        finally:
            self._acting = False

    def _break(self, unit: Unit, error: Exception) -> None:
        self.broken = True
        self.log.error("a bug within a step", model=unit.model, error=repr(error))
        failure = _fail(error)
        try:
            self.tasks.create_task(failure)
        except RuntimeError:  # it is ending already
            failure.close()

    def _act(self, unit: Unit, act: Act) -> None:
        now = self.clock.now_us()
        effects = act(now)
        short = unit.replicas.short(now)
        if short is not None:
            self.submit(self.units[short[0].id], short[1])
        committed = self._write_down(effects)
        for effect in effects:
            self._carry_out(unit, effect, committed)
        self._arm_all(unit)
        unit.notify_waiters()

    def _write_down(self, effects: Sequence[Effect]) -> Awaitable[None] | None:
        entries: list[Entry] = [effect.entry for effect in effects if isinstance(effect, Record)]
        if not entries:
            return None
        committed = self.journal.record(entries)
        if any(isinstance(effect, StartWake | StartPark) for effect in effects):
            return committed
        self.tasks.create_task(self._log_if_lost(committed))
        return None

    async def _log_if_lost(self, committed: Awaitable[None]) -> None:
        """Wait for a commit that nothing depends on; its failure shows in `journal.unavailable` as well."""
        try:
            await committed
        except PoorwillError as error:
            self.log.error("entries are not on disk", why=str(error))

    def _carry_out(self, unit: Unit, effect: Effect, committed: Awaitable[None] | None) -> None:
        match effect:
            case ChangeCause():
                self.journal.post([unit.cell.open_span()])
            case Grant():
                self._resolve(unit, effect)
            case Fail():
                _refuse(unit, effect)
            case StartWake():
                assert committed is not None
                self._wake_began(unit.model)
                wake = carry_out_wake(self.context, unit, effect, committed)
                unit.job = self.tasks.create_task(wake, name=f"wake {effect.wake}")
                unit.job.add_done_callback(partial(self._unless_begun, unit, effect.generation))
            case AbortWake():
                if unit.job is not None:
                    unit.job.cancel(effect.why)
            case StartPark():
                assert committed is not None
                park = carry_out_park(self.context, unit, effect, committed)
                unit.job = self.tasks.create_task(park, name=f"park {unit.id}.{effect.generation}")
            case CutLeases() if unit.running is not None:
                self.connections.cut(unit.running.host, unit.running.port, effect.why)

    def _resolve(self, unit: Unit, effect: Grant) -> None:
        """Give the lease; if the client has just left, take it back."""
        future = unit.waiting.pop(effect.hold)
        lease = unit.lease()
        if future.done():
            self.give_back(unit, lease.generation)
        else:
            future.set_result(lease)

    def _unless_begun(self, unit: Unit, generation: int, job: asyncio.Task[None]) -> None:
        """Report for a wake that was cancelled before its first step. A second report changes nothing."""
        if job.cancelled():
            why = "aborted before it began"
            self.submit(unit, WakeFailed(generation=generation, why=why, kept=True))


async def _fail(error: Exception) -> None:
    raise error


def _refuse(unit: Unit, effect: Fail) -> None:
    future = unit.waiting.pop(effect.hold, None)
    if future is not None and not future.done():
        future.set_exception(as_error(effect))
        future.exception()  # marks it as seen: whoever holds the place may have lost interest


def as_error(effect: Fail) -> PoorwillError:
    """Return a failed hold as the error its client gets."""
    hint = None
    if effect.code is ErrorCode.WAKE_TIMEOUT:
        hint = "retry after the time in Retry-After; the replica is likely to be ready by then"
    elif effect.code is ErrorCode.WAKE_FAILED:
        hint = "whoever runs poorwill sees why with `poorwill ledger request` and the request id"
    return TryLater(effect.code, effect.message, hint=hint, retry_after_s=effect.retry_after_s)
