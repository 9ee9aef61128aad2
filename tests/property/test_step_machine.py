"""Any order of events leaves the promises of a replica kept: drives `core.step` and the gate together."""

from collections import Counter
from dataclasses import replace

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poorwill.core.effects import AbortWake, CutLeases, Fail, Grant, Record, StartPark, StartWake
from poorwill.core.entries import SpanOpened, WakeBegan, WakeEnded
from poorwill.core.errors import ErrorCode
from poorwill.core.gate import Gate
from poorwill.core.inputs import (
    Close,
    Demand,
    EngineLost,
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
from poorwill.core.launch import PhaseMark
from poorwill.core.lifecycle import State
from poorwill.core.policy import FixedIdle
from poorwill.core.replica import Replica, next_wakeup_us
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.step import step
from poorwill.core.words import LINGER, SERVING, HoldId, ModelName, Phase, ReplicaId, Tier

S = 1_000_000


class ReplicaMachine(RuleBasedStateMachine):
    """A replica, its gate, the outside world's answers, and a record of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000 * S
        self.replica = Replica(
            id=ReplicaId("m-0"),
            settings=ReplicaSettings(
                model=ModelName("m"),
                max_concurrency=3,
                hold=HoldSettings(count=5, bytes=500, age_us=400 * S),
                wake=WakeSettings(budget_us=60 * S, cap_us=180 * S),
                park=ParkSettings(ladder=(Tier.FROZEN, Tier.COLD), drain_us=20 * S),
            ),
            policy=FixedIdle(((Tier.FROZEN, 30 * S), (Tier.COLD, 300 * S))),
        )
        self.gate = Gate(limit=3)
        self.next_hold = 0
        self.ended: Counter[HoldId] = Counter()
        self.held: set[HoldId] = set()
        self.leases: list[int] = []  # generations
        self.waking: set[int] = set()
        self.parking: set[int] = set()
        self.aborted: set[int] = set()
        self.open_wakes: set[str] = set()
        self.spans: list[SpanOpened] = []
        self.drain_ends: int | None = None
        self.closed = False

    def feed(self, what: Input) -> list[object]:
        """Do what the fleet does around a step."""
        before = replace(self.replica, load=self.gate.load())
        after, effects = step(before, what, self.now)
        was_draining = before.state is State.DRAINING
        for effect in effects:
            self.take(effect, after, was_draining=was_draining)
        self.replica = after
        self.gate.in_flight = after.load.in_flight
        self.gate.idle_since_us = after.load.idle_since_us
        self.gate.cause = after.load.cause
        self.gate.open = after.gate_open
        self.gate.waiting = len(after.holds)
        return effects

    def take(self, effect: object, after: Replica, *, was_draining: bool) -> None:
        if isinstance(effect, Grant):
            assert after.state is State.READY
            assert effect.hold in self.held, "granted twice, or after it ended"
            self.held.discard(effect.hold)
            self.ended[effect.hold] += 1
            self.leases.append(after.generation)
        elif isinstance(effect, Fail):
            self.held.discard(effect.hold)
            self.ended[effect.hold] += 1
            assert effect.retry_after_s >= 1
        elif isinstance(effect, StartWake):
            assert not self.waking and not self.parking, "two commands at a time"
            self.waking.add(effect.generation)
        elif isinstance(effect, AbortWake):
            assert effect.generation in self.waking
            self.aborted.add(effect.generation)
        elif isinstance(effect, StartPark):
            assert not self.waking and not self.parking, "two commands at a time"
            self.parking.add(effect.generation)
            out = [g for g in self.leases if g == effect.generation - 1]
            assert not out or self.now >= after.drain_ends_us, "parked with a lease out"
        elif isinstance(effect, CutLeases):
            assert was_draining and self.now >= after.drain_ends_us
            self.leases.clear()
        elif isinstance(effect, Record):
            self.write(effect.entry)

    def write(self, entry: object) -> None:
        if isinstance(entry, WakeBegan):
            assert not self.open_wakes, "one wake at a time"
            self.open_wakes.add(entry.wake)
        elif isinstance(entry, WakeEnded):
            self.open_wakes.remove(entry.wake)
        elif isinstance(entry, SpanOpened):
            assert not self.spans or entry.at_us >= self.spans[-1].at_us
            self.spans.append(entry)

    # what may happen

    @rule(delta=st.integers(0, 120 * S))
    def time_passes(self, delta: int) -> None:
        target = self.now + delta
        for _ in range(50):
            due = next_wakeup_us(replace(self.replica, load=self.gate.load()), self.now)
            if due is None or due > target:
                break
            self.now = max(self.now, due)
            self.feed(Tick())
        else:
            raise AssertionError("a Tick that is due changes nothing, for ever")
        self.now = target

    @rule(size=st.sampled_from([1, 50, 400]))
    def request(self, size: int) -> None:
        if self.gate.claim():
            assert self.replica.state is State.READY
            self.leases.append(self.replica.generation)
            if self.gate.in_flight == 1:
                self.gate.cause = SERVING
                self.spans.append(
                    SpanOpened(replica=self.replica.id, at_us=self.now, cause=SERVING)
                )
            return
        hold = HoldId(self.next_hold)
        self.next_hold += 1
        self.held.add(hold)
        self.feed(Demand(hold=hold, size_bytes=size, asked_by="k", request=f"r{hold}"))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.held)))
        self.held.discard(hold)
        self.ended[hold] += 1
        self.feed(Withdrawn(hold=hold))

    @precondition(lambda self: self.leases)
    @rule()
    def request_ends(self) -> None:
        generation = self.leases.pop()
        if generation != self.replica.generation:
            return  # cut, or its engine died: the lease is void
        if self.gate.give_back(self.now):
            self.feed(Returned())
        elif self.gate.in_flight == 0:
            self.gate.cause = LINGER
            self.spans.append(SpanOpened(replica=self.replica.id, at_us=self.now, cause=LINGER))

    @precondition(lambda self: self.waking)
    @rule(phase=st.sampled_from(list(Phase)))
    def phase_begins(self, phase: Phase) -> None:
        (generation,) = self.waking
        self.feed(PhaseBegan(generation=generation, mark=PhaseMark(phase=phase, at_us=self.now)))

    @precondition(lambda self: self.waking)
    @rule(ok=st.booleans(), kept=st.booleans())
    def wake_ends(self, ok: bool, kept: bool) -> None:
        generation = self.waking.pop()
        if ok and generation not in self.aborted:
            self.feed(WakeSucceeded(generation=generation))
        else:
            code = ErrorCode.NO_CAPACITY if kept else ErrorCode.WAKE_FAILED
            self.feed(WakeFailed(generation=generation, why="x", code=code, kept=kept))

    @precondition(lambda self: self.parking)
    @rule(how=st.sampled_from(["ok", "unharmed", "lost"]))
    def park_ends(self, how: str) -> None:
        generation = self.parking.pop()
        if how == "ok":
            self.feed(ParkSucceeded(generation=generation))
        else:
            self.feed(ParkFailed(generation=generation, why="x", unharmed=how == "unharmed"))

    @rule()
    def engine_dies(self) -> None:
        self.feed(EngineLost(generation=self.replica.generation, why="signal 9"))

    @rule(asked=st.sampled_from(["wake", "park", "park cold"]))
    def operator_asks(self, asked: str) -> None:
        if asked == "wake":
            self.feed(WakeAsked())
        else:
            self.feed(ParkAsked(tier=Tier.COLD if asked == "park cold" else None))

    @rule(blocked=st.booleans())
    def spend_changes(self, blocked: bool) -> None:
        self.feed(SpendChanged(until_us=self.now + 3600 * S if blocked else None, why="limit"))

    @rule(stale=st.integers(1, 3))
    def stale_reports_change_nothing(self, stale: int) -> None:
        old = self.replica.generation - stale
        before = self.replica.state
        for report in (
            WakeSucceeded(generation=old),
            WakeFailed(generation=old, why="old"),
            ParkSucceeded(generation=old),
            ParkFailed(generation=old, why="old", unharmed=True),
            EngineLost(generation=old, why="old"),
        ):
            assert not [e for e in self.feed(report) if not isinstance(e, Record)]
        assert self.replica.state is before

    @precondition(lambda self: not self.closed)
    @rule(action=st.sampled_from(["park", "leave", "stop"]))
    def shuts_down(self, action: str) -> None:
        self.closed = True
        self.feed(Close(action=action))
        assert not self.replica.holds

    # what must hold

    @invariant()
    def every_hold_ends_exactly_once(self) -> None:
        assert all(count == 1 for count in self.ended.values())
        assert {hold.id for hold in self.replica.holds} == self.held

    @invariant()
    def nobody_waits_at_an_open_gate(self) -> None:
        if self.gate.open and self.replica.holds:
            assert self.gate.in_flight == 3

    @invariant()
    def leases_are_within_the_limit(self) -> None:
        assert 0 <= self.gate.in_flight <= 3
        current = [g for g in self.leases if g == self.replica.generation]
        assert len(current) == self.gate.in_flight

    @invariant()
    def a_command_is_under_way_exactly_in_its_state(self) -> None:
        assert bool(self.waking) == (self.replica.state is State.WAKING)
        assert bool(self.parking) == (self.replica.state is State.PARKING)

    @invariant()
    def whoever_waits_has_a_deadline(self) -> None:
        if self.replica.holds and self.replica.state is not State.READY:
            assert self.replica.budget_ends_us is not None
        if not self.replica.holds:
            assert self.replica.budget_ends_us is None

    @invariant()
    def the_open_span_says_what_the_replica_does(self) -> None:
        if not self.spans:
            return
        cause = self.spans[-1].cause
        state = self.replica.state
        if state is State.READY:
            assert cause == (SERVING if self.gate.in_flight else LINGER)
        else:
            starts = {
                State.PARKED: "parked.",
                State.WAKING: "wake.",
                State.DRAINING: "drain",
                State.PARKING: "park",
            }
            assert cause.startswith(starts[state])
        assert self.gate.cause == cause


TestReplicaMachine = ReplicaMachine.TestCase
TestReplicaMachine.settings = hypothesis_settings(
    max_examples=300, stateful_step_count=60, deadline=None
)
