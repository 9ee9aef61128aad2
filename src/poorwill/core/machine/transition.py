"""A transition of the state machine while it is built: the replica as it will be, and the effects so far.

`step` begins one, and its handlers act through the verbs below. It lives for one call of `step`.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Unpack

from poorwill.core.entries import Entry, Noted, ParkEnded, PhaseSpan, SpanOpened, WakeBegan, WakeEnded
from poorwill.core.errors import ErrorCode
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
from poorwill.core.machine.holds import Hold, in_turn
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import (
    LONGEST_PAUSE_US,
    PAUSE_AFTER_FAILED_PARK_US,
    Changes,
    Load,
    Replica,
    WakeAttempt,
    deeper_rungs,
)
from poorwill.core.words import (
    DRAIN,
    FLOOR,
    LINGER,
    PARK,
    SERVING,
    TIER_DEPTH,
    UNOBSERVED,
    Cause,
    Phase,
    Tier,
    WakeId,
    parked,
    waking,
)

REMEMBERED_WAKES = 20


class Transition:
    """The replica in the middle of a step, and what is to be done about it."""

    __slots__ = ("effects", "now_us", "replica")

    def __init__(self, replica: Replica, now_us: int) -> None:
        self.replica = replica
        self.now_us = now_us
        self.effects: list[Effect] = []

    def set(self, **changes: Unpack[Changes]) -> None:
        """Change fields of the replica."""
        self.replica = self.replica.changed(**changes)

    def do(self, effect: Effect) -> None:
        """Ask for an effect."""
        self.effects.append(effect)

    def record(self, entry: Entry) -> None:
        """Record an entry."""
        self.effects.append(Record(entry=entry))

    def note(self, kind: str, text: str) -> None:
        """Record a note for the operator."""
        self.record(
            Noted(at_us=self.now_us, kind=kind, replica=self.replica.id, model=self.replica.model, text=text)
        )

    def span(
        self, cause: Cause, *, tier: Tier | None = None, wake: WakeId | None = None, why: str = ""
    ) -> None:
        """Open a span: from now on the replica's time has this cause."""
        load = self.replica.load
        self.set(load=Load(load.in_flight, load.idle_since_us, cause))
        self.record(
            SpanOpened(replica=self.replica.id, at_us=self.now_us, cause=cause, tier=tier, wake=wake, why=why)
        )

    # holds

    def queue(self, hold: Hold) -> None:
        """Put a request into the hold queue and start its budget if it is the first to wait for a wake."""
        self.set(holds=in_turn(self.replica.holds, hold))
        if self.replica.state is not State.READY:
            self.start_budget()

    def start_budget(self) -> None:
        """Start the wake budget now, unless it is running."""
        if self.replica.holds and self.replica.budget_ends_us is None:
            self.set(budget_ends_us=self.now_us + self.replica.settings.wake.budget_us)

    def unqueue(self, taken: Sequence[Hold]) -> None:
        """Take holds out of the queue; an empty queue has no budget."""
        gone = {hold.id for hold in taken}
        rest = tuple(hold for hold in self.replica.holds if hold.id not in gone)
        self.set(holds=rest)
        if not rest:
            self.set(budget_ends_us=None)

    def fail_holds(self, code: ErrorCode, message: str, *, only: Sequence[Hold] | None = None) -> None:
        """Fail some holds, or all."""
        retry_after_s = self.replica.retry_after_s(self.now_us)
        failed = self.replica.holds if only is None else only
        self.unqueue(failed)
        for hold in failed:
            self.do(Fail(hold=hold.id, code=code, message=message, retry_after_s=retry_after_s))

    def give_up_holds(self, code: ErrorCode, message: str) -> None:
        """Fail all holds, if no other replica is there for them."""
        if not self.replica.backed:
            self.set(budget_ends_us=None)
            self.fail_holds(code, message)

    def grant_holds(self) -> None:
        """Grant as many holds as the replica's concurrency allows, in the queue's order."""
        replica = self.replica
        if replica.state is not State.READY or replica.closing or not replica.holds:
            return
        limit = replica.settings.limit(helped=replica.helped)
        room = max(limit - replica.load.in_flight, 0) if limit else len(replica.holds)
        granted = replica.holds[:room]
        self.unqueue(granted)
        for hold in granted:
            self.do(Grant(hold=hold.id))
        load = replica.load
        self.set(load=Load(load.in_flight + len(granted), load.idle_since_us, load.cause))

    def cut_leases(self, why: str) -> None:
        """Give up the leases in flight: they are void from the next generation on."""
        self.do(CutLeases(why=why))
        self.set(load=Load(0, self.now_us))  # its span ends with this step

    # wakes

    def begin_wake(
        self,
        from_tier: Tier,
        *,
        asked_by: str,
        why: str,
        ahead_us: int = 0,
        goes_on: WakeAttempt | None = None,
    ) -> None:
        """Go to WAKING. Holds that wait already are those it wakes for.

        `goes_on` is the failed wake that this one continues, colder: its cap still holds.
        """
        self.start_budget()
        replica = self.replica
        asked_us = goes_on.asked_us if goes_on else self.now_us
        generation = replica.generation + 1
        wake = WakeId(f"{replica.id}.{generation}")
        served = tuple(hold.request for hold in replica.holds)
        attempt = WakeAttempt(
            id=wake,
            began_us=self.now_us,
            from_tier=from_tier,
            cap_ends_us=asked_us + replica.settings.wake.cap_us,
            asked_us=asked_us,
            asked_by=asked_by,
            ahead_us=goes_on.ahead_us if goes_on else ahead_us,
            phase_began_us=self.now_us,
            served=served,
        )
        self.set(state=State.WAKING, tier=from_tier, generation=generation, wake=attempt, wanted_by="")
        self.record(
            WakeBegan(
                wake=wake,
                replica=replica.id,
                model=replica.model,
                generation=generation,
                at_us=self.now_us,
                from_tier=from_tier,
                asked_by=asked_by,
                why=why,
                budget_us=replica.settings.wake.budget_us if replica.holds else None,
                held=len(replica.holds),
            )
        )
        self.span(waking(Phase.PROVISION), tier=from_tier, wake=wake)
        self.do(StartWake(wake=wake, generation=generation, from_tier=from_tier))

    def end_wake(self, *, ok: bool, why: str, anatomy: tuple[PhaseSpan, ...]) -> WakeAttempt:
        """Record the end of the wake and return the attempt.

        The anatomy was taken a moment before this step. Its last leaf is stretched to now, so that it tiles.
        """
        attempt = self.replica.wake
        assert attempt is not None
        if anatomy:
            anatomy = (*anatomy[:-1], replace(anatomy[-1], ended_us=self.now_us))
        self.record(
            WakeEnded(
                wake=attempt.id,
                replica=self.replica.id,
                at_us=self.now_us,
                ok=ok,
                why=why,
                anatomy=anatomy,
                served=attempt.served,
            )
        )
        self.set(wake=None)
        return attempt

    def remember_wake(self, attempt: WakeAttempt) -> None:
        """Keep a successful wake's duration for `Retry-After` and the published interval."""
        recent = dict(self.replica.recent_wakes_us)
        durations = (*recent.get(attempt.from_tier, ()), self.now_us - attempt.began_us)
        recent[attempt.from_tier] = durations[-REMEMBERED_WAKES:]
        self.set(recent_wakes_us=MappingProxyType(recent))

    def abort_wake(self, why: str) -> None:
        """Ask for the wake to be torn down; its WakeFailed follows."""
        attempt = self.replica.wake
        if attempt is None or attempt.aborting:
            return
        self.set(wake=replace(attempt, aborting=why))
        self.do(AbortWake(generation=self.replica.generation, why=why))

    def back_off(self, why: str, *, failures: int) -> None:
        """Remember a failure and when the next attempt may be made."""
        wake = self.replica.settings.wake
        delay = min(wake.backoff_us << min(failures - 1, 30), wake.backoff_max_us)
        self.set(failures=failures, retry_at_us=self.now_us + delay)
        self.blame(why)

    def blame(self, why: str) -> None:
        """Remember for the operator what went wrong, and when."""
        self.set(last_error=why, last_error_us=self.now_us)

    # ready

    def become_ready(self) -> None:
        """Go to READY, grant what is held and open the span that follows from it."""
        self.set(state=State.READY, budget_ends_us=None)
        self.grant_holds()
        if not self.stop_paying():
            self.ready_span()

    def stop_paying(self) -> bool:
        """Park an idle or sleeping replica off its host if its spend limit is reached. Return whether it
        parks.

        After a failed park it waits until `park_after_us`.
        """
        replica = self.replica
        asleep = (replica.state, replica.tier) == (State.PARKED, Tier.ASLEEP)
        idle = asleep or (replica.state is State.READY and not replica.load.in_flight)
        if not (replica.must_stop and idle) or self.now_us < replica.park_after_us:
            return False
        unpaid = (tier for tier in replica.settings.park.ladder if tier is not Tier.ASLEEP)
        from_tier = Tier.ASLEEP if asleep else None
        self.begin_park(next(unpaid, Tier.COLD), from_tier=from_tier, why="spend limit")
        return True

    def ready_span(self) -> None:
        """Open the span of a ready replica: serving, held by a floor, or lingering."""
        replica = self.replica
        cause, why = (SERVING, "") if replica.load.in_flight else idle_cause(replica, self.now_us)
        if cause != replica.load.cause:
            self.span(cause, why=why)

    # parks

    def begin_park(self, to_tier: Tier, *, from_tier: Tier | None, why: str) -> None:
        """Go to PARKING, from ready (`from_tier` None) or from a shallower tier."""
        generation = self.replica.generation + 1
        self.set(
            state=State.PARKING,
            tier=to_tier,
            park_from=from_tier,
            park_to=None,
            park_began_us=self.now_us,
            wanted_by="",
            generation=generation,
        )
        self.span(PARK, tier=to_tier, why=why)
        self.do(StartPark(generation=generation, from_tier=from_tier, to_tier=to_tier))

    def drain_or_park(self, to_tier: Tier, *, why: str, firm: bool = False) -> None:
        """Park now if nothing is in flight, else drain first."""
        if self.replica.load.in_flight == 0:
            self.begin_park(to_tier, from_tier=None, why=why)
            return
        self.set(
            state=State.DRAINING,
            park_to=to_tier,
            drain_ends_us=self.now_us + self.replica.settings.park.drain_us,
            drain_firm=firm,
        )
        self.start_budget()
        self.span(DRAIN, tier=to_tier, why=why)

    def end_park(self, *, ok: bool, why: str = "", image_bytes: int = 0) -> None:
        """Record the end of the park."""
        self.record(
            ParkEnded(
                replica=self.replica.id,
                at_us=self.now_us,
                began_us=self.replica.park_began_us,
                to_tier=self.replica.tier,
                ok=ok,
                image_bytes=image_bytes,
                why=why,
            )
        )

    def rest(self, tier: Tier, *, unobserved: bool = False) -> None:
        """Be parked in a tier; wake at once if somebody waits. `unobserved`: what it was may run on."""
        self.set(state=State.PARKED, tier=tier, park_from=None, park_to=None)
        if self.replica.blocked:
            self.give_up_holds(ErrorCode.SPEND_LIMIT, self.replica.blocked.why)
        replica = self.replica
        wait_for_it = replica.holds and not replica.backed
        asked_by = replica.holds[0].asked_by if wait_for_it else replica.wanted_by
        if asked_by and not replica.closing and not replica.blocked:
            self.begin_wake(tier, asked_by=asked_by, why="demand")
            return
        self.span(UNOBSERVED if unobserved else parked(tier), tier=tier)

    def pause_parking(self) -> None:
        """Postpone the next attempt to park."""
        failures = self.replica.park_failures + 1
        pause = min(PAUSE_AFTER_FAILED_PARK_US << min(failures - 1, 30), LONGEST_PAUSE_US)
        self.set(park_after_us=self.now_us + pause, park_failures=failures, park_failed=self.replica.tier)


def idle_cause(replica: Replica, now_us: int, idle_since_us: int | None = None) -> tuple[Cause, str]:
    """Return why an idle, ready replica is kept ready: a floor, else the policy's linger."""
    floor = replica.floor.at(now_us)
    if floor.required:
        return FLOOR, floor.name
    since_us = replica.load.idle_since_us if idle_since_us is None else idle_since_us
    name, why = replica.policy.name, replica.descent_since(since_us).why
    return LINGER, why if why.startswith(name) else f"{name}: {why}"


def next_colder(replica: Replica, tier: Tier) -> Tier:
    """Return the next deeper tier of the ladder, `cold` at its end."""
    for candidate in replica.settings.park.ladder:
        if TIER_DEPTH[candidate] > TIER_DEPTH[tier]:
            return candidate
    return Tier.COLD


def due_rung(replica: Replica, now_us: int) -> Tier | None:
    """Return the tier that the descent wants the replica in by now, if deeper than where it is.

    The deepest one that is due: if a shallower one cannot be reached, the way down goes past it.
    """
    due = [tier for tier, at_us in deeper_rungs(replica, replica.descent()) if at_us <= now_us]
    return due[-1] if due else None
