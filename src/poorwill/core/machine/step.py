"""`step(replica, input, now) -> (replica, effects)`: every decision about a replica, pure.

The fleet feeds it inputs one at a time and carries out the effects; the planner feeds it from a trace on
a virtual clock. Before a step the caller puts the gate's current count into `replica.load`; after it,
`load.in_flight` has grown by the leases granted. Which state may follow which is `lifecycle.TRANSITIONS`;
a step that would leave the table is a bug and raises before anything is done.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from poorwill.core.errors import ErrorCode
from poorwill.core.machine.effects import Effect, Fail
from poorwill.core.machine.gate import Load
from poorwill.core.machine.inputs import (
    Close,
    Demand,
    EngineLost,
    ImageLost,
    Input,
    ParkAsked,
    ParkFailed,
    ParkSucceeded,
    PhaseBegan,
    SpendChanged,
    WakeAsked,
    WakeFailed,
    WakeSucceeded,
    Withdrawn,
)
from poorwill.core.machine.lifecycle import TRANSITIONS, Kind, State
from poorwill.core.machine.phase_limit import with_rates
from poorwill.core.machine.replica import Hold, Replica
from poorwill.core.machine.ticks import tick
from poorwill.core.machine.transition import Turn, next_colder
from poorwill.core.words import TIER_DEPTH, Tier, waking

Handler = Callable[[Turn, Any], None]


def step(replica: Replica, what: Input, now_us: int) -> tuple[Replica, list[Effect]]:
    """Return the replica after an input and what is to be done. Pure; raises AssertionError on a bug."""
    if getattr(what, "generation", replica.generation) != replica.generation:
        return replica, []  # a report about something that is over
    turn = Turn(replica, now_us)
    _HANDLERS[what.kind](turn, what)
    after = turn.replica
    assert after.state in TRANSITIONS[replica.state, what.kind], (
        f"{replica.state} --{what.kind}--> {after.state} is not in the table"
    )
    return after, turn.effects


# requests


def _demand(turn: Turn, what: Demand) -> None:
    """Decide on a request that found no lease: (1) undrain, (2) refuse, (3) queue, (4) wake, (5) grant."""
    hold = Hold(
        id=what.hold,
        arrived_us=turn.now_us,
        size_bytes=what.size_bytes,
        asked_by=what.asked_by,
        request=what.request,
    )
    if turn.replica.state is State.DRAINING and not turn.replica.must_stop:
        _cancel_drain(turn, "a request arrived while the replica drained")  # (1)
    replica = turn.replica
    refusal = _refusal(replica, hold, turn.now_us)  # (2)
    if refusal is not None:
        code, message, retry_after_s = refusal
        if code is ErrorCode.HOLD_QUEUE_FULL and replica.state is State.PARKED:
            # A cap of zero holds nothing, but the wake goes ahead so that a retry finds it warm.
            turn.begin_wake(replica.tier, asked_by=what.asked_by, why="demand")
        turn.do(Fail(hold=hold.id, code=code, message=message, retry_after_s=retry_after_s))
        return
    turn.queue(hold)  # (3): demand is registered before the wake starts
    if replica.state is State.PARKED:  # (4)
        turn.begin_wake(replica.tier, asked_by=what.asked_by, why="demand")
    elif replica.state is State.WAKING and replica.wake is not None:
        turn.set(wake=replace(replica.wake, served=(*replica.wake.served, hold.request)))
    elif replica.state is State.READY:
        turn.become_ready()  # (5)


def _cancel_drain(turn: Turn, why: str) -> None:
    if not turn.replica.closing:
        turn.note("park_cancelled", why)
        turn.set(park_to=None)
        turn.become_ready()


def _refusal(replica: Replica, hold: Hold, now_us: int) -> tuple[ErrorCode, str, int] | None:
    retry_after_s = replica.retry_after_s(now_us)
    if replica.closing:
        return ErrorCode.DRAINING, "poorwill is shutting down", retry_after_s
    if replica.blocked and (replica.must_stop or replica.state in (State.PARKED, State.PARKING)):
        return ErrorCode.SPEND_LIMIT, replica.blocked.why, retry_after_s
    if replica.state is State.PARKED and now_us < replica.retry_at_us:
        why = f"the last wake of {replica.model} failed: {replica.last_error}"
        return ErrorCode.WAKE_FAILED, why, retry_after_s
    if replica.state is State.READY and replica.has_room:
        return None  # it will not wait
    bounds = replica.settings.hold
    size = sum(held.size_bytes for held in replica.holds) + hold.size_bytes
    if len(replica.holds) >= bounds.count or size > bounds.bytes:
        why = f"{len(replica.holds)} requests wait for {replica.model} already"
        return ErrorCode.HOLD_QUEUE_FULL, why, retry_after_s
    return None


def _withdrawn(turn: Turn, what: Withdrawn) -> None:
    holds = tuple(hold for hold in turn.replica.holds if hold.id != what.hold)
    turn.set(holds=holds)
    if not holds:
        turn.set(budget_ends_us=None)


def _returned(turn: Turn, what: Input) -> None:
    replica = turn.replica
    if replica.state is State.DRAINING and replica.load.in_flight == 0:
        turn.begin_park(replica.park_to or Tier.COLD, from_tier=None, why="drained")
    elif replica.state is State.READY:
        turn.become_ready()


# wakes


def _phase_began(turn: Turn, what: PhaseBegan) -> None:
    wake = turn.replica.wake
    if wake is None or wake.phase is what.mark.phase:
        return
    turn.set(wake=replace(wake, phase=what.mark.phase, phase_began_us=turn.now_us))
    turn.span(waking(what.mark.phase), tier=wake.from_tier, wake=wake.id)


def _wake_succeeded(turn: Turn, what: WakeSucceeded) -> None:
    if turn.replica.state is not State.WAKING:
        return
    attempt = turn.end_wake(ok=True, why="", anatomy=what.anatomy)
    turn.remember_wake(attempt)
    load = turn.replica.load
    turn.set(
        # A wake ahead of demand does not end the idle stretch; its plan goes on.
        load=Load(0, load.idle_since_us if attempt.ahead_us else turn.now_us, load.cause),
        ready_since_us=turn.now_us,
        woken_ahead_us=attempt.ahead_us,
        retry_at_us=0,
        last_error="",
        park_after_us=0,
        park_failures=0,
        park_failed=None,
    )
    if turn.replica.closing:
        turn.set(state=State.READY)
        _close_ready(turn)
        return
    turn.become_ready()


def _wake_failed(turn: Turn, what: WakeFailed) -> None:
    """(1) a snapshot failed: start cold under the same budget; (2) a start failed: fail and back off."""
    replica = turn.replica
    if replica.state is not State.WAKING:
        return
    aborting = replica.wake.aborting if replica.wake else ""
    why = with_rates(aborting, what.anatomy) if aborting else what.why
    attempt = turn.end_wake(ok=False, why=why, anatomy=what.anatomy)
    stopped = bool(aborting) and replica.must_stop  # to save money: no failure
    if not stopped:
        turn.blame(why)
    capped = turn.now_us >= attempt.cap_ends_us
    fallback = attempt.from_tier is not Tier.COLD and not what.kept
    if fallback and not (replica.closing or replica.blocked or capped):  # (1)
        why = f"{attempt.from_tier} failed: {why}"
        turn.begin_wake(Tier.COLD, asked_by=attempt.asked_by, why=why, goes_on=attempt)
        return
    if not stopped:  # (2)
        turn.back_off(why, failures=replica.failures + 1)
    turn.set(budget_ends_us=None)
    turn.fail_holds(what.code, f"{replica.model} could not be woken: {why}")
    turn.rest(attempt.from_tier if what.kept else Tier.COLD)


def _wake_asked(turn: Turn, what: WakeAsked) -> None:
    replica = turn.replica
    if replica.closing or (what.demand and turn.now_us < replica.retry_at_us):
        return
    if replica.state is State.PARKING and what.demand:
        turn.set(wanted_by=what.asked_by)
    elif replica.state is State.PARKED and replica.blocked is None:
        turn.begin_wake(replica.tier, asked_by=what.asked_by, why=what.why)
    elif replica.state is State.DRAINING and not replica.must_stop:
        _cancel_drain(turn, f"{what.asked_by} asked for {replica.model} to be ready")


# parks


def _park_asked(turn: Turn, what: ParkAsked) -> None:
    replica = turn.replica
    tier = what.tier or replica.settings.park.ladder[0]
    if replica.state is State.READY:
        floor = replica.floor.at(turn.now_us)
        if replica.holds or floor.required:
            # Demand is rechecked here; and a floor would wake it again at once.
            kept = "requests wait for it" if replica.holds else f"the floor {floor.name} holds"
            turn.note("park_refused", f"{what.why}: {kept}")
            return
        turn.drain_or_park(tier, why=what.why)
    elif replica.state is State.PARKED and TIER_DEPTH[tier] > TIER_DEPTH[replica.tier]:
        turn.begin_park(tier, from_tier=replica.tier, why=what.why)


def _park_succeeded(turn: Turn, what: ParkSucceeded) -> None:
    if turn.replica.state is not State.PARKING:
        return
    turn.end_park(ok=True, image_bytes=what.image_bytes)
    if turn.replica.park_failed is turn.replica.tier:
        turn.set(last_error="")  # what failed then has worked now
    turn.set(failures=0, park_failures=0, park_failed=None)
    turn.rest(turn.replica.tier)
    _stop_sleeping(turn)


def _park_failed(turn: Turn, what: ParkFailed) -> None:
    """(1) unharmed and parked: stay; (2) unharmed and wanted: serve; (3) unharmed: deeper; (4) lost."""
    replica = turn.replica
    if replica.state is not State.PARKING:
        return
    turn.end_park(ok=False, why=what.why)
    turn.blame(what.why)
    turn.pause_parking()
    if not what.unharmed:  # (4)
        turn.rest(Tier.COLD)
    elif replica.park_from is not None:  # (1)
        turn.rest(replica.park_from)
    elif (replica.holds and not replica.closing) or replica.tier is Tier.COLD:  # (2)
        turn.become_ready()
    else:  # (3)
        turn.note("park_fallback", f"{replica.tier}: {what.why}")
        turn.begin_park(next_colder(replica, replica.tier), from_tier=None, why="next colder tier")


def _engine_lost(turn: Turn, what: EngineLost) -> None:
    replica = turn.replica
    if replica.state in (State.WAKING, State.PARKING):
        return  # a wake or park under way finds out by itself
    if replica.state is State.PARKED and replica.tier is not Tier.ASLEEP:
        return
    lasted_us = turn.now_us - replica.ready_since_us
    early = lasted_us < replica.settings.wake.stable_us
    turn.note("engine_lost", what.why)
    turn.back_off(what.why, failures=replica.failures + 1 if early else 1)
    if not early:
        turn.set(retry_at_us=0)
    load = Load(0, turn.now_us, replica.load.cause)
    turn.set(load=load, generation=replica.generation + 1)
    if early and replica.holds:
        turn.fail_holds(ErrorCode.WAKE_FAILED, f"the engine of {replica.model} died: {what.why}")
    turn.rest(Tier.COLD)


def _image_lost(turn: Turn, what: ImageLost) -> None:
    replica = turn.replica
    if replica.state is not State.PARKED or replica.tier in (Tier.ASLEEP, Tier.COLD):
        return  # a wake or park under way finds out by itself; these two have no image
    turn.note("image_lost", what.why)
    turn.rest(Tier.COLD)


# the fleet


def _spend_changed(turn: Turn, what: SpendChanged) -> None:
    """What runs is finished, whoever waits is refused, and a wake under way is torn down: it costs money."""
    turn.set(blocked=what.blocked)
    replica = turn.replica
    if what.blocked is None or not replica.must_stop:
        return
    turn.fail_holds(ErrorCode.SPEND_LIMIT, what.blocked.why)
    if replica.state is State.READY and not replica.closing:
        turn.stop_paying()
    elif replica.state is State.WAKING:
        turn.abort_wake(what.blocked.why)


def _close(turn: Turn, what: Close) -> None:
    replica = turn.replica
    drain_us = replica.settings.park.drain_us
    if what.drain_us is not None:
        drain_us = min(drain_us, what.drain_us)
    ends_us = turn.now_us + drain_us
    if replica.state is State.DRAINING:
        ends_us = min(ends_us, replica.drain_ends_us)
    turn.set(closing=what.action, drain_ends_us=ends_us)
    turn.fail_holds(ErrorCode.DRAINING, "poorwill is shutting down")
    if replica.state is State.WAKING:
        if what.action != "leave":
            turn.abort_wake("poorwill is shutting down")
    elif replica.state is State.READY:
        _close_ready(turn)
    elif replica.state is State.DRAINING and what.action == "stop":
        turn.set(park_to=Tier.COLD)
    _stop_sleeping(turn)


def _stop_sleeping(turn: Turn) -> None:
    """A shutdown that stops replicas also stops one whose engine only sleeps."""
    replica = turn.replica
    if replica.closing == "stop" and (replica.state, replica.tier) == (State.PARKED, Tier.ASLEEP):
        turn.begin_park(Tier.COLD, from_tier=Tier.ASLEEP, why="shutdown")


def _close_ready(turn: Turn) -> None:
    replica = turn.replica
    if replica.closing == "leave":
        turn.ready_span()
        return
    tier = Tier.COLD if replica.closing == "stop" else replica.settings.park.ladder[0]
    ends_us = replica.drain_ends_us
    turn.drain_or_park(tier, why="shutdown")
    turn.set(drain_ends_us=ends_us)


_HANDLERS: Mapping[Kind, Handler] = MappingProxyType(
    {
        Kind.DEMAND: _demand,
        Kind.WITHDRAWN: _withdrawn,
        Kind.RETURNED: _returned,
        Kind.TICK: tick,
        Kind.PHASE_BEGAN: _phase_began,
        Kind.WAKE_SUCCEEDED: _wake_succeeded,
        Kind.WAKE_FAILED: _wake_failed,
        Kind.PARK_SUCCEEDED: _park_succeeded,
        Kind.PARK_FAILED: _park_failed,
        Kind.ENGINE_LOST: _engine_lost,
        Kind.IMAGE_LOST: _image_lost,
        Kind.WAKE_ASKED: _wake_asked,
        Kind.PARK_ASKED: _park_asked,
        Kind.SPEND_CHANGED: _spend_changed,
        Kind.CLOSE: _close,
    }
)
