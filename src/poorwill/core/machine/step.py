"""`step(replica, input, now) -> (replica, effects)`: every decision about a replica, pure.

The cell calls it: it puts the gate's count into `replica.load` before a step, and afterwards takes back the
count with the leases granted. `lifecycle.TRANSITIONS` says which state may follow which. A step that would
leave the table is a bug and raises before anything is done.
"""

from dataclasses import replace
from typing import assert_never

from poorwill.core.errors import ErrorCode
from poorwill.core.machine.effects import Effect, Fail
from poorwill.core.machine.holds import Hold, displaced
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
    Returned,
    SpendChanged,
    Tick,
    WakeAsked,
    WakeFailed,
    WakeSucceeded,
    Withdrawn,
)
from poorwill.core.machine.lifecycle import TRANSITIONS, State
from poorwill.core.machine.phase_limit import with_rates
from poorwill.core.machine.replica import Load, Replica
from poorwill.core.machine.ticks import tick
from poorwill.core.machine.transition import Transition, next_colder
from poorwill.core.words import TIER_DEPTH, UNOBSERVED, Tier, waking


def step(replica: Replica, what: Input, now_us: int) -> tuple[Replica, list[Effect]]:
    """Return the replica after an input and what is to be done. Pure; raises AssertionError on a bug."""
    if what.generation is not None and what.generation != replica.generation:
        return replica, []  # a report about something that is over
    change = Transition(replica, now_us)
    _handle(change, what)
    after = change.replica
    assert after.state in TRANSITIONS[replica.state, what.kind], (
        f"{replica.state} --{what.kind}--> {after.state} is not in the table"
    )
    return after, change.effects


def _handle(change: Transition, what: Input) -> None:
    """Let the handler of an input decide; the most frequent ones come first."""
    match what:
        case Demand():
            _demand(change, what)
        case Tick():
            tick(change)
        case Returned():
            _returned(change)
        case WakeSucceeded():
            _wake_succeeded(change, what)
        case ParkSucceeded():
            _park_succeeded(change, what)
        case PhaseBegan():
            _phase_began(change, what)
        case Withdrawn():
            _withdrawn(change, what)
        case _:
            _handle_rare(change, what)


def _handle_rare(
    change: Transition,
    what: WakeFailed | ParkFailed | EngineLost | ImageLost | WakeAsked | ParkAsked | SpendChanged | Close,
) -> None:
    match what:
        case WakeAsked():
            _wake_asked(change, what)
        case ParkAsked():
            _park_asked(change, what)
        case WakeFailed():
            _wake_failed(change, what)
        case ParkFailed():
            _park_failed(change, what)
        case EngineLost():
            _engine_lost(change, what)
        case ImageLost():
            _image_lost(change, what)
        case SpendChanged():
            _spend_changed(change, what)
        case Close():
            _close(change, what)
        case _:
            assert_never(what)


# requests


def _demand(change: Transition, what: Demand) -> None:
    """Decide on a request that found no lease: (1) undrain, (2) refuse, (3) queue, (4) wake, (5) grant."""
    hold = Hold(
        id=what.hold,
        arrived_us=change.now_us,
        size_bytes=what.size_bytes,
        asked_by=what.asked_by,
        request=what.request,
        priority=what.priority,
    )
    if change.replica.state is State.DRAINING and not change.replica.must_stop:
        _cancel_drain(change, "a request arrived while the replica drained")  # (1)
    replica = change.replica
    refusal = _refusal(replica, hold, change.now_us)  # (2)
    if refusal is not None and refusal[0] is ErrorCode.HOLD_QUEUE_FULL:
        crowding = displaced(replica.holds, hold, replica.settings.hold)
        if crowding:
            why = "the hold queue is full, and this key has more requests in it, or less priority"
            change.fail_holds(ErrorCode.RATE_LIMITED, why, only=crowding)
            refusal = None
    if refusal is not None:
        code, message = refusal
        retry_after_s = replica.retry_after_s(change.now_us)
        if code is ErrorCode.HOLD_QUEUE_FULL and replica.state is State.PARKED:
            # A cap of zero holds nothing, but the wake goes ahead so that a retry finds it warm.
            change.begin_wake(replica.tier, asked_by=what.asked_by, why="demand")
        change.do(Fail(hold=hold.id, code=code, message=message, retry_after_s=retry_after_s))
        return
    change.queue(hold)  # (3): demand is registered before the wake starts
    if replica.state is State.PARKED:  # (4)
        change.begin_wake(replica.tier, asked_by=what.asked_by, why="demand")
    elif replica.wake is not None:
        change.set(wake=replace(replica.wake, served=(*replica.wake.served, hold.request)))
    elif replica.state is State.READY:
        change.become_ready()  # (5)


def _cancel_drain(change: Transition, why: str) -> None:
    if not change.replica.closing and not change.replica.drain_firm:
        change.note("park_cancelled", why)
        change.set(park_to=None)
        change.become_ready()


def _refusal(replica: Replica, hold: Hold, now_us: int) -> tuple[ErrorCode, str] | None:
    if replica.closing:
        return ErrorCode.DRAINING, "poorwill is shutting down"
    if replica.blocked and (replica.must_stop or replica.state in (State.PARKED, State.PARKING)):
        return ErrorCode.SPEND_LIMIT, replica.blocked.why
    if replica.state is State.PARKED and now_us < replica.retry_at_us:
        return ErrorCode.WAKE_FAILED, f"the last wake of {replica.model} failed"
    if replica.state is State.READY and replica.has_room:
        return None  # it will not wait
    bounds = replica.settings.hold
    size = sum(held.size_bytes for held in replica.holds) + hold.size_bytes
    if len(replica.holds) >= bounds.count or size > bounds.bytes:
        why = f"{len(replica.holds)} requests wait for {replica.model} already"
        return ErrorCode.HOLD_QUEUE_FULL, why
    return None


def _withdrawn(change: Transition, what: Withdrawn) -> None:
    holds = tuple(hold for hold in change.replica.holds if hold.id != what.hold)
    change.set(holds=holds)
    if not holds:
        change.set(budget_ends_us=None)


def _returned(change: Transition) -> None:
    replica = change.replica
    if replica.state is State.DRAINING and replica.load.in_flight == 0:
        change.begin_park(replica.park_to or Tier.COLD, from_tier=None, why="drained")
    elif replica.state is State.READY:
        change.become_ready()


# wakes


def _phase_began(change: Transition, what: PhaseBegan) -> None:
    wake = change.replica.wake
    if wake is None or wake.phase is what.mark.phase:
        return
    change.set(wake=replace(wake, phase=what.mark.phase, phase_began_us=change.now_us))
    change.span(waking(what.mark.phase), tier=wake.from_tier, wake=wake.id)


def _wake_succeeded(change: Transition, what: WakeSucceeded) -> None:
    if change.replica.state is not State.WAKING:
        return
    attempt = change.end_wake(ok=True, why="", anatomy=what.anatomy)
    change.remember_wake(attempt)
    change.set(
        # A wake ahead of demand does not end the idle stretch; its plan goes on.
        load=Load(0, change.replica.load.idle_since_us if attempt.ahead_us else change.now_us),
        ready_since_us=change.now_us,
        woken_ahead_us=attempt.ahead_us,
        retry_at_us=0,
        last_error="",
        park_after_us=0,
        park_failures=0,
        park_failed=None,
    )
    if change.replica.closing:
        change.set(state=State.READY)
        _close_ready(change)
        return
    change.become_ready()


def _wake_failed(change: Transition, what: WakeFailed) -> None:
    """(1) a snapshot failed: start cold under the same budget; (2) a start failed: fail and back off."""
    replica = change.replica
    if replica.wake is None:
        return
    aborting = replica.wake.aborting
    why = with_rates(aborting, what.anatomy) if aborting else what.why
    attempt = change.end_wake(ok=False, why=why, anatomy=what.anatomy)
    stopped = bool(aborting) and replica.must_stop  # to save money: no failure
    if not stopped:
        change.blame(why)
    capped = change.now_us >= attempt.cap_ends_us
    fallback = attempt.from_tier is not Tier.COLD and not what.kept
    if fallback and not (replica.closing or replica.blocked or capped):  # (1)
        why = f"{attempt.from_tier} failed: {why}"
        change.begin_wake(Tier.COLD, asked_by=attempt.asked_by, why=why, goes_on=attempt)
        return
    if not stopped:  # (2)
        change.back_off(why, failures=replica.failures + 1)
    change.give_up_holds(what.code, f"{replica.model} could not be woken")  # why is not for clients
    change.rest(attempt.from_tier if what.kept else Tier.COLD)


def _wake_asked(change: Transition, what: WakeAsked) -> None:
    replica = change.replica
    if replica.closing or (what.demand and change.now_us < replica.retry_at_us):
        return
    if replica.state is State.PARKING and what.demand:
        change.set(wanted_by=what.asked_by)
    elif replica.state is State.PARKED and replica.blocked is None:
        change.begin_wake(replica.tier, asked_by=what.asked_by, why=what.why)
    elif replica.state is State.DRAINING and not replica.must_stop:
        _cancel_drain(change, f"{what.asked_by} asked for {replica.model} to be ready")


# parks


def _park_asked(change: Transition, what: ParkAsked) -> None:
    replica = change.replica
    tier = what.tier or replica.settings.park.ladder[0]
    if replica.state is State.READY:
        floor = replica.floor.at(change.now_us)
        if not what.firm and (replica.holds or floor.required):
            # Demand is rechecked here; and a floor would wake it again at once.
            kept = "requests wait for it" if replica.holds else f"the floor {floor.name} holds"
            change.note("park_refused", f"{what.why}: {kept}")
            return
        change.drain_or_park(tier, why=what.why, firm=what.firm)
    elif replica.state is State.PARKED and TIER_DEPTH[tier] > TIER_DEPTH[replica.tier]:
        change.begin_park(tier, from_tier=replica.tier, why=what.why)


def _park_succeeded(change: Transition, what: ParkSucceeded) -> None:
    if change.replica.state is not State.PARKING:
        return
    change.end_park(ok=True, image_bytes=what.image_bytes)
    if change.replica.park_failed is change.replica.tier:
        change.set(last_error="")  # what failed then has worked now
    change.set(failures=0, park_failures=0, park_failed=None)
    change.rest(change.replica.tier)
    _stop_sleeping(change)


def _park_failed(change: Transition, what: ParkFailed) -> None:
    """(1) unharmed and parked: stay; (2) unharmed and wanted: serve; (3) unharmed: deeper; (4) lost."""
    replica = change.replica
    if replica.state is not State.PARKING:
        return
    change.end_park(ok=False, why=what.why)
    change.blame(what.why)
    change.pause_parking()
    if not what.unharmed:  # (4)
        change.rest(Tier.COLD, unobserved=what.unobserved)
    elif replica.park_from is not None:  # (1)
        change.rest(replica.park_from)
    elif (replica.holds and not replica.closing) or replica.tier is Tier.COLD:  # (2)
        change.become_ready()
    else:  # (3)
        change.note("park_fallback", f"{replica.tier}: {what.why}")
        change.begin_park(next_colder(replica, replica.tier), from_tier=None, why="next colder tier")


def _engine_lost(change: Transition, what: EngineLost) -> None:
    replica = change.replica
    if replica.state in (State.WAKING, State.PARKING):
        return  # a wake or park under way finds out by itself
    if replica.state is State.PARKED and replica.tier is not Tier.ASLEEP:
        if replica.load.cause == UNOBSERVED:  # it can be seen again, and it is gone
            change.rest(Tier.COLD)
        return
    lasted_us = change.now_us - replica.ready_since_us
    early = lasted_us < replica.settings.wake.stable_us and not what.unobserved
    change.note("host_silent" if what.unobserved else "engine_lost", what.why)
    change.back_off(what.why, failures=replica.failures + 1 if early else 1)
    if not early:
        change.set(retry_at_us=0)
    change.set(load=Load(0, change.now_us), generation=replica.generation + 1)
    if early and replica.holds:
        change.give_up_holds(ErrorCode.WAKE_FAILED, f"the engine of {replica.model} died")
    change.rest(Tier.COLD, unobserved=what.unobserved)


def _image_lost(change: Transition, what: ImageLost) -> None:
    replica = change.replica
    if replica.state is not State.PARKED or replica.tier in (Tier.ASLEEP, Tier.COLD):
        return  # a wake or park under way finds out by itself; these two have no image
    change.note("image_lost", what.why)
    change.rest(Tier.COLD)


# the fleet


def _spend_changed(change: Transition, what: SpendChanged) -> None:
    """What runs is finished, whoever waits is refused, and a wake under way is torn down: it costs money."""
    change.set(blocked=what.blocked)
    replica = change.replica
    if what.blocked is None or not replica.must_stop:
        return
    change.fail_holds(ErrorCode.SPEND_LIMIT, what.blocked.why)
    if replica.state is State.READY and not replica.closing:
        change.stop_paying()
    elif replica.state is State.WAKING:
        change.abort_wake(what.blocked.why)


def _close(change: Transition, what: Close) -> None:
    replica = change.replica
    drain_us = replica.settings.park.drain_us
    if what.drain_us is not None:
        drain_us = min(drain_us, what.drain_us)
    ends_us = change.now_us + drain_us
    if replica.state is State.DRAINING:
        ends_us = min(ends_us, replica.drain_ends_us)
    change.set(closing=what.action, drain_ends_us=ends_us)
    change.fail_holds(ErrorCode.DRAINING, what.why)
    if replica.state is State.WAKING:
        if what.action != "leave":
            change.abort_wake(what.why)
    elif replica.state is State.READY:
        _close_ready(change)
    elif replica.state is State.DRAINING and what.action == "stop":
        change.set(park_to=Tier.COLD)
    _stop_sleeping(change)


def _stop_sleeping(change: Transition) -> None:
    """A shutdown that stops replicas also stops one whose engine only sleeps."""
    replica = change.replica
    if replica.closing == "stop" and (replica.state, replica.tier) == (State.PARKED, Tier.ASLEEP):
        change.begin_park(Tier.COLD, from_tier=Tier.ASLEEP, why="shutdown")


def _close_ready(change: Transition) -> None:
    replica = change.replica
    if replica.closing == "leave":
        change.ready_span()
        return
    tier = Tier.COLD if replica.closing == "stop" else replica.settings.park.ladder[0]
    ends_us = replica.drain_ends_us
    change.drain_or_park(tier, why="shutdown")
    change.set(drain_ends_us=ends_us)
