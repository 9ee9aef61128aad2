"""One replica as a pure object: its state machine, its gate, and the bookkeeping around every step.

The fleet, the planner and the property tests run this object. `claim` and `give_back` are the warm path: they
count leases and pass through `step` only if somebody waits or the gate is closed. `feed` takes every other
input. All of them return effects; the caller carries them out. The cell also knows the quiet stretches,
passes on to the policy what it may learn, and says when the next Tick is due.
"""

from collections import deque
from collections.abc import Sequence

from poorwill.core.entries import SpanOpened
from poorwill.core.machine.effects import ChangeCause, Effect
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import Input, Returned, WakeAsked
from poorwill.core.machine.levels import DemandLevel
from poorwill.core.machine.lifecycle import Kind, State
from poorwill.core.machine.replica import Load, Replica, next_wakeup_us
from poorwill.core.machine.step import step
from poorwill.core.machine.transition import idle_cause
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import FLOOR, LINGER, RELEASED_CAUSES, SERVING, Cause, Tier, parked

PUBLISHED_WAKES = 1_000
"""Wakes behind the published wake interval."""

RETURNED = Returned()
NOTHING: tuple[ChangeCause, ...] = ()
TURNED_BUSY, TURNED_IDLE = (ChangeCause(cause=SERVING),), (ChangeCause(cause=LINGER),)
TURNED_IDLE_BY_FLOOR = (ChangeCause(cause=FLOOR),)
"""Made once: the warm path returns one of these for every busy and every idle period."""


class Cell:
    """A replica and everything that surrounds a step. Not thread-safe; never awaits."""

    __slots__ = (
        "_cause", "_claimed", "_counted", "_idle_since_us", "_limit", "_metered", "_replica", "_stale",
        "_void", "bridged", "busy", "generation", "id", "in_flight", "level", "open", "queue", "since_us",
        "wakes_us",
    )  # fmt: skip
    generation: int
    """The replica's generation: leases of an earlier one are void."""
    _replica: Replica
    _stale: bool
    """Whether the gate has changed since `_replica` was last brought up to date."""
    in_flight: int
    _idle_since_us: int
    open: bool
    """Whether the gate is open: leases may be claimed."""

    def __init__(
        self,
        replica: Replica,
        queue: HoldQueue,
        *,
        quiet_since_us: int | None = None,
        gaps_us: Sequence[int] = (),
        wakes_us: Sequence[int] = (),
    ) -> None:
        self.id = replica.id
        self.queue = queue
        self.level = DemandLevel(replica.policy, replica.floor, quiet_since_us, gaps_us)
        self.busy = False
        """Whether requests are served, held or bridged: by it, or by others in its place."""
        self.bridged = 0
        """Requests that a hosted API serves now in the replica's place."""
        self.wakes_us = deque(wakes_us, maxlen=PUBLISHED_WAKES)
        """How long the last successful wakes took, counted from when they were first asked for."""
        self._cause: Cause | None = None
        self.since_us = 0
        """When the open span began."""
        self._metered: tuple[int, bool] | None = None
        """When the provider's meter was last turned on or off, and which."""
        self._void = 0
        """Leases still held on an engine that is gone."""
        self._claimed = self._counted = 0
        """Leases claimed so far, and how many of them were reported to the policy. Neither counts leases that
        a step granted."""
        self._limit = replica.settings.max_concurrency
        self._adopt(replica, 0)

    @property
    def replica(self) -> Replica:
        """The replica as it is now."""
        replica, queue = self._replica, self.queue
        holds, ends_us = queue.holds, queue.budget_ends_us
        if self._stale or replica.holds is not holds or replica.budget_ends_us != ends_us:
            load = Load(self.in_flight, self._idle_since_us, self._cause)
            self._replica = replica = replica.changed(load=load, holds=holds, budget_ends_us=ends_us)
            self._stale = False
        return replica

    # the warm path

    def claim(self, now_us: int) -> Sequence[ChangeCause] | None:
        """Take a lease; return None if there is none to be had now."""
        if not self.open or self.queue.holds or (self._limit and self.in_flight >= self._limit):
            return None
        self.in_flight += 1
        self._claimed += 1
        self._stale = True
        if self.in_flight > 1:
            return NOTHING
        self.wanted(now_us)
        self._cause, self.since_us = SERVING, now_us
        return TURNED_BUSY

    def give_back(self, generation: int, now_us: int) -> Sequence[Effect]:
        """Return a lease. A lease of an earlier generation is void: its request has ended, no more."""
        if generation != self.generation:
            self._void = max(self._void - 1, 0)  # not of a namesake that has left
            self._left(now_us)
            return NOTHING
        self._stale = True
        self.in_flight -= 1
        if not self.in_flight:
            self._idle_since_us = now_us
            self._left(now_us)
        if self.queue.holds or not self.open:
            return self.feed(RETURNED, now_us)
        if self.in_flight:
            return NOTHING
        self.since_us = now_us
        if self._replica.floor.at(now_us).required:
            self._cause = FLOOR
            return TURNED_IDLE_BY_FLOOR
        self._cause = LINGER
        return TURNED_IDLE

    # everything else

    @property
    def may_bridge(self) -> bool:
        """Whether a hosted API may serve a request in the replica's place now.

        Not while it drains: a held request cancels the park and is served at once.
        """
        replica = self._replica
        ready = replica.state in (State.READY, State.DRAINING)
        return not (ready or replica.closing or replica.blocked)

    def feed(self, what: Input, now_us: int) -> Sequence[Effect]:
        """Take an input: step, learn, and return what is to be done. Raises AssertionError on a bug."""
        kind = what.kind
        if kind is Kind.DEMAND:
            self.wanted(now_us)
        before = self.replica
        after, effects = step(before, what, now_us)
        if after is not before:
            self._adopt(after, now_us)
            if after.generation != before.generation:
                self._void += before.load.in_flight
            if kind is Kind.WAKE_SUCCEEDED:
                self._learn_wake(before, now_us)
            elif kind is Kind.PARK_SUCCEEDED and self.level.learns_times is not None:
                self.level.learns_times.park_took(before.tier, now_us - before.park_began_us)
        if kind is Kind.DEMAND or before.holds or before.load.in_flight:
            self._left(now_us)
        return effects

    def take(self, level: DemandLevel) -> None:
        """Have this level from now on: its policy and floor govern the replica."""
        self.level = level
        self._replica = self._replica.changed(policy=level.policy, floor=level.floor)
        if self._metered is not None and level.learns_meter is not None:
            at_us, running = self._metered
            level.learns_meter.metered(at_us - 1, running=not running)
            level.learns_meter.metered(at_us, running=running)

    def back(self, *, backed: bool, helped: bool) -> None:
        """Say whether another replica is there for those who wait, and whether one could take more."""
        if (self._replica.backed, self._replica.helped) != (backed, helped):
            self._replica = self._replica.changed(backed=backed, helped=helped)
            self._limit = self._replica.settings.limit(helped=helped)

    def relax(self, now_us: int) -> None:
        """Those who waited are served elsewhere, or gone."""
        if self.busy:
            self._left(now_us)

    def bridge(self, asked_by: str, now_us: int) -> Sequence[Effect] | None:
        """Register the demand of a request that a hosted API serves; None if it must be held instead.

        Call `bridge_over` when the request has ended.
        """
        if not self.may_bridge:
            return None
        self.wanted(now_us)
        self.bridged += 1
        if self._replica.state is State.WAKING:
            return NOTHING
        return self.feed(WakeAsked(asked_by=asked_by, why="demand", demand=True), now_us)

    def bridge_over(self, now_us: int) -> None:
        """A request that a hosted API served has ended."""
        self.bridged -= 1
        self._left(now_us)

    def configure(self, settings: ReplicaSettings) -> None:
        """Take on other settings and what its level is now; what is under way goes on."""
        self.take(self.level)
        self._replica = self.replica.changed(settings=settings)
        self._limit = settings.limit(helped=self._replica.helped)

    def next_tick_us(self, now_us: int) -> int | None:
        """Return when the next Tick is due, None if only another input can matter. The past means at once."""
        replica, queue = self._replica, self.queue
        if replica.holds is not queue.holds or replica.budget_ends_us != queue.budget_ends_us:
            replica = self.replica
        return next_wakeup_us(replica, now_us, in_flight=self.in_flight, idle_since_us=self._idle_since_us)

    def open_span(self) -> SpanOpened:
        """Return the span that a ChangeCause records: it begins as the replica gets busy or idle."""
        at_us = self.since_us
        idle = not self.in_flight
        cause, why = idle_cause(self._replica, at_us, self._idle_since_us) if idle else (SERVING, "")
        return SpanOpened(replica=self.id, at_us=at_us, cause=cause, why=why)

    # at start

    def found_ready(self, now_us: int) -> SpanOpened:
        """Begin ready: the engine was found running. Returns the span that opens."""
        ready = self.replica.changed(state=State.READY, ready_since_us=now_us)
        cause, why = idle_cause(ready, now_us, now_us)
        self._adopt(ready.changed(load=Load(0, now_us, cause)), now_us)
        return SpanOpened(replica=ready.id, at_us=now_us, cause=cause, why=why)

    def found_parked(self, tier: Tier, since_us: int, cause: Cause | None = None) -> SpanOpened:
        """Begin parked in a tier since that instant, for that cause if given. Returns the span that opens."""
        replica, cause = self.replica, cause or parked(tier)
        load = Load(0, replica.load.idle_since_us, cause)
        self._adopt(replica.changed(tier=tier, load=load), since_us)
        return SpanOpened(replica=replica.id, at_us=since_us, cause=cause, tier=tier)

    # bookkeeping

    def _adopt(self, after: Replica, now_us: int) -> None:
        load, queue = after.load, self.queue
        self._replica, self._stale, self.generation = after, False, after.generation
        self.in_flight, self._idle_since_us, self.open = load.in_flight, load.idle_since_us, after.gate_open
        queue.holds, queue.budget_ends_us = after.holds, after.budget_ends_us
        if load.cause != self._cause:
            running = load.cause not in RELEASED_CAUSES
            if self._metered is None or self._metered[1] is not running:
                self._metered = now_us, running
            if self.level.learns_meter is not None:
                self.level.learns_meter.metered(now_us, running=running)
            self._cause, self.since_us = load.cause, now_us

    def wanted(self, now_us: int) -> None:
        """Demand came: tell the policy that the quiet stretch has ended."""
        self.busy = True
        if self.level.quiet_since_us is not None:
            self.level.ended(now_us, others=self._claimed - self._counted - self.in_flight)
            self._counted = self._claimed
        elif not self._counted:
            self._counted = self._claimed  # the very first request is not one of the `others`

    def _left(self, now_us: int) -> None:
        """Begin a quiet stretch if nobody is served, held or bridged any more."""
        if self.in_flight or self.queue.holds or self.bridged or self._void:
            return
        self.busy = False
        if self.level.quiet_since_us is None:
            self.level.quiet_since_us = now_us

    def _learn_wake(self, before: Replica, now_us: int) -> None:
        wake, level = before.wake, self.level
        assert wake is not None
        self.wakes_us.append(now_us - wake.asked_us)
        if level.learns_waits is not None:
            level.learns_waits.woke([now_us - hold.arrived_us for hold in before.holds])
        if level.learns_times is not None:
            recent_us = self._replica.recent_wakes_us[wake.from_tier]
            level.learns_times.wakes_took(wake.from_tier, recent_us)
