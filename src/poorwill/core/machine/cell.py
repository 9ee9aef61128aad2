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
from poorwill.core.machine.lifecycle import Kind, State
from poorwill.core.machine.replica import Load, Replica, next_wakeup_us
from poorwill.core.machine.step import step
from poorwill.core.machine.transition import idle_cause
from poorwill.core.policy import FloorSchedule, LearnsFromMeter, LearnsFromTimes, LearnsFromWakes, Policy
from poorwill.core.settings import ReplicaSettings
from poorwill.core.words import FLOOR, LINGER, RELEASED_CAUSES, SERVING, Cause, Tier, parked

REMEMBERED_GAPS = 200
"""Quiet stretches that tell how soon a replica may be wanted again."""
PUBLISHED_WAKES = 1_000
"""Wakes behind the published wake interval."""

RETURNED = Returned()
NOTHING: tuple[ChangeCause, ...] = ()
TURNED_BUSY = (ChangeCause(cause=SERVING),)
TURNED_IDLE = (ChangeCause(cause=LINGER),)
TURNED_IDLE_BY_FLOOR = (ChangeCause(cause=FLOOR),)
"""Made once: the warm path returns one of these for every busy and every idle period."""


class Cell:
    """A replica and everything that surrounds a step. Not thread-safe; never awaits."""

    __slots__ = (
        "_cause",
        "_claimed",
        "_counted",
        "_idle_since_us",
        "_in_flight",
        "_learns_meter",
        "_learns_times",
        "_learns_waits",
        "_limit",
        "_metered",
        "_open",
        "_replica",
        "_stale",
        "_void",
        "bridged",
        "gaps_us",
        "generation",
        "queue",
        "quiet_since_us",
        "since_us",
        "wakes_us",
    )  # fmt: skip
    generation: int
    """The replica's generation: leases of an earlier one are void."""
    _replica: Replica
    _stale: bool
    """Whether the gate has changed since `_replica` was last brought up to date."""
    _in_flight: int
    _idle_since_us: int
    _open: bool

    def __init__(
        self,
        replica: Replica,
        queue: HoldQueue,
        *,
        quiet_since_us: int | None = None,
        gaps_us: Sequence[int] = (),
        wakes_us: Sequence[int] = (),
    ) -> None:
        self.queue = queue
        self.bridged = 0
        """Requests that a hosted API serves now in the replica's place."""
        self.quiet_since_us = quiet_since_us
        """When the last request ended or gave up; None while there is one, or before the first. A wake ahead
        of demand does not end a quiet stretch, so this is not the load's `idle_since_us`."""
        self.gaps_us = deque(gaps_us, maxlen=REMEMBERED_GAPS)
        """How long the last quiet stretches were, the latest last."""
        self.wakes_us = deque(wakes_us, maxlen=PUBLISHED_WAKES)
        """How long the last successful wakes took, counted from when they were first asked for."""
        self._cause: Cause | None = None
        self.since_us = 0
        """When the open span began."""
        self._void = 0
        """Leases still held on an engine that is gone."""
        self._claimed = self._counted = 0
        """Leases claimed so far, and how many of them were reported to the policy. Neither counts leases that
        a step granted."""
        self._heed(replica)
        self._adopt(replica, 0)

    @property
    def replica(self) -> Replica:
        """The replica as it is now."""
        replica, queue = self._replica, self.queue
        if self._stale or replica.holds is not queue.holds:
            load = Load(self._in_flight, self._idle_since_us, self._cause)
            self._replica = replica = replica.changed(
                load=load, holds=queue.holds, budget_ends_us=queue.budget_ends_us
            )
            self._stale = False
        return replica

    # the warm path

    def claim(self, now_us: int) -> Sequence[ChangeCause] | None:
        """Take a lease; return None if there is none to be had now."""
        if not self._open or self.queue.holds or (self._limit and self._in_flight >= self._limit):
            return None
        self._in_flight += 1
        self._claimed += 1
        self._stale = True
        if self._in_flight > 1:
            return NOTHING
        self._wanted(now_us)
        self._cause, self.since_us = SERVING, now_us
        return TURNED_BUSY

    def give_back(self, generation: int, now_us: int) -> Sequence[Effect]:
        """Return a lease. A lease of an earlier generation is void: its request has ended, no more."""
        if generation != self.generation:
            self._void = max(self._void - 1, 0)  # not of a namesake that has left
            self._left(now_us)
            return NOTHING
        self._stale = True
        self._in_flight -= 1
        if not self._in_flight:
            self._idle_since_us = now_us
            self._left(now_us)
        if self.queue.holds or not self._open:
            return self.feed(RETURNED, now_us)
        if self._in_flight:
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
            self._wanted(now_us)
        before = self.replica
        after, effects = step(before, what, now_us)
        if after is not before:
            self._adopt(after, now_us)
            if after.generation != before.generation:
                self._void += before.load.in_flight
            if kind is Kind.WAKE_SUCCEEDED:
                self._learn_wake(before, now_us)
            elif kind is Kind.PARK_SUCCEEDED and self._learns_times is not None:
                self._learns_times.park_took(before.tier, now_us - before.park_began_us)
        if kind is Kind.DEMAND or before.holds or before.load.in_flight:
            self._left(now_us)
        return effects

    def bridge(self, asked_by: str, now_us: int) -> Sequence[Effect] | None:
        """Register the demand of a request that a hosted API serves; None if it must be held instead.

        Call `bridge_over` when the request has ended.
        """
        if not self.may_bridge:
            return None
        self._wanted(now_us)
        self.bridged += 1
        if self._replica.state is State.WAKING:
            return NOTHING
        return self.feed(WakeAsked(asked_by=asked_by, why="demand", demand=True), now_us)

    def bridge_over(self, now_us: int) -> None:
        """A request that a hosted API served has ended."""
        self.bridged -= 1
        self._left(now_us)

    def configure(
        self, settings: ReplicaSettings, policy: Policy, floor: FloorSchedule, now_us: int
    ) -> Sequence[Effect]:
        """Take on other settings; leases, holds, the open span and a wake or park under way go on."""
        replica = self.replica.changed(settings=settings, policy=policy, floor=floor)
        self._heed(replica)
        self._adopt(replica, now_us)
        return self.feed(RETURNED, now_us)  # there may be room for who waits

    def next_tick_us(self, now_us: int) -> int | None:
        """Return when the next Tick is due, None if only another input can matter. The past means at once."""
        replica = self._replica if self._replica.holds is self.queue.holds else self.replica
        return next_wakeup_us(replica, now_us, in_flight=self._in_flight, idle_since_us=self._idle_since_us)

    def open_span(self) -> SpanOpened:
        """Return the span that a ChangeCause records: it begins as the replica gets busy or idle."""
        replica, at_us = self.replica, self.since_us
        cause, why = (SERVING, "") if self._in_flight else idle_cause(replica, at_us)
        return SpanOpened(replica=replica.id, at_us=at_us, cause=cause, why=why)

    # at start

    def found_ready(self, now_us: int) -> SpanOpened:
        """Begin ready: the engine was found running. Returns the span that opens."""
        ready = self.replica.changed(state=State.READY, load=Load(0, now_us), ready_since_us=now_us)
        cause, why = idle_cause(ready, now_us)
        self._adopt(ready.changed(load=Load(0, now_us, cause)), now_us)
        return SpanOpened(replica=ready.id, at_us=now_us, cause=cause, why=why)

    def found_parked(self, tier: Tier, since_us: int) -> SpanOpened:
        """Begin parked in a tier since that instant. Returns the span that opens."""
        replica, cause = self.replica, parked(tier)
        load = Load(0, replica.load.idle_since_us, cause)
        self._adopt(replica.changed(tier=tier, load=load), since_us)
        return SpanOpened(replica=replica.id, at_us=since_us, cause=cause, tier=tier)

    # bookkeeping

    def _heed(self, replica: Replica) -> None:
        policy = replica.policy
        self._learns_waits = policy if isinstance(policy, LearnsFromWakes) else None
        self._learns_meter = policy if isinstance(policy, LearnsFromMeter) else None
        self._learns_times = policy if isinstance(policy, LearnsFromTimes) else None
        self._limit = replica.settings.max_concurrency

    def _adopt(self, after: Replica, now_us: int) -> None:
        load, queue = after.load, self.queue
        self._replica, self._stale, self.generation = after, False, after.generation
        self._in_flight, self._idle_since_us, self._open = load.in_flight, load.idle_since_us, after.gate_open
        queue.holds, queue.budget_ends_us = after.holds, after.budget_ends_us
        if load.cause != self._cause:
            if self._learns_meter is not None:
                self._learns_meter.metered(now_us, running=load.cause not in RELEASED_CAUSES)
            self._cause, self.since_us = load.cause, now_us

    def _wanted(self, now_us: int) -> None:
        """Demand came: tell the policy that the quiet stretch has ended."""
        since_us = self.quiet_since_us
        if since_us is not None:
            others = self._claimed - self._counted - self._in_flight
            self._counted = self._claimed
            self._replica.policy.observe(since_us, now_us, others=others)
            self.gaps_us.append(now_us - since_us)
            self.quiet_since_us = None
        elif not self._counted:
            self._counted = self._claimed  # the very first request is not one of the `others`

    def _left(self, now_us: int) -> None:
        """Begin a quiet stretch if nobody is served, held or bridged any more."""
        if self._in_flight or self.queue.holds or self.bridged or self._void:
            return
        if self.quiet_since_us is None:
            self.quiet_since_us = now_us

    def _learn_wake(self, before: Replica, now_us: int) -> None:
        wake = before.wake
        assert wake is not None
        self.wakes_us.append(now_us - wake.asked_us)
        if self._learns_waits is not None:
            self._learns_waits.woke([now_us - hold.arrived_us for hold in before.holds])
        if self._learns_times is not None:
            recent_us = self._replica.recent_wakes_us.get(wake.from_tier, ())
            self._learns_times.wakes_took(wake.from_tier, recent_us)
