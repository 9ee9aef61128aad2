"""Whatever happens in whatever order, a cell keeps its promises."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poorwill.core.entries import ParkEnded, SpanOpened, WakeBegan, WakeEnded
from poorwill.core.errors import ErrorCode
from poorwill.core.launch import PhaseMark
from poorwill.core.machine.cell import Cell
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
from poorwill.core.machine.holds import HoldQueue
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
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Blocked, Load, Replica
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import SERVING, HoldId, ModelName, Phase, ReplicaId, Tier

from .worlds import FLOORS, POLICIES, S

START = 1_000 * S
BUDGET = 60 * S
FIRST_CAUSE = {State.PARKED: "parked.", State.WAKING: "wake.", State.DRAINING: "drain", State.PARKING: "park"}


class ReplicaMachine(RuleBasedStateMachine):
    """A cell, the outside world's answers, and a record of what was promised."""

    @initialize(
        limit=st.sampled_from([0, 1, 3]),
        count=st.sampled_from([0, 1, 5]),
        policy=st.sampled_from(POLICIES),
        floor=st.sampled_from(FLOORS),
        phase_limit=st.sampled_from([None, 5 * S]),
        ladder=st.sampled_from([(Tier.COLD,), (Tier.FROZEN, Tier.COLD), tuple(Tier)]),
    )
    def is_configured(self, limit, count, policy, floor, phase_limit, ladder) -> None:
        limits = {} if phase_limit is None else {Phase.WEIGHTS: phase_limit}
        self.now = START
        self.limit = self.over = limit
        replica = Replica(
            id=ReplicaId("m-0"),
            settings=ReplicaSettings(
                model=ModelName("m"),
                max_concurrency=limit,
                hold=HoldSettings(count=count, bytes=500, age_us=400 * S),
                wake=WakeSettings(budget_us=BUDGET, cap_us=180 * S, phase_limits_us=limits),
                park=ParkSettings(ladder=ladder, drain_us=20 * S),
            ),
            policy=policy,
            floor=floor,
            load=Load(0, START),
            park_began_us=START,
        )
        self.cell = Cell(replica, HoldQueue())
        self.bridged = 0
        self.asked = False
        self.cut: int | None = None
        self.next_hold = 0
        self.ended: Counter[HoldId] = Counter()
        self.held: list[HoldId] = []
        self.unready_since: dict[HoldId, int] = {}
        self.leases: list[int] = []  # generations
        self.waking: set[int] = set()
        self.parking: set[int] = set()
        self.aborted: set[int] = set()
        self.open_wakes: set[str] = set()
        self.all_wakes: set[str] = set()
        self.predicted = 0
        self.spans: list[SpanOpened] = []
        self.closed = False

    @property
    def replica(self) -> Replica:
        return self.cell.replica

    @property
    def in_flight(self) -> int:
        return self.replica.load.in_flight

    def feed(self, what: Input) -> Sequence[Effect]:
        before = self.replica
        effects = self.cell.feed(what, self.now)
        self.carry_out(effects, before, what)
        return effects

    def carry_out(self, effects: Sequence[Effect], before: Replica, what: Input | None = None) -> None:
        after = self.replica
        for effect in effects:
            self.take(effect, before, after, what)
        for hold in self.held:
            if after.state is State.READY:
                self.unready_since.pop(hold, None)
            else:
                self.unready_since.setdefault(hold, self.now)

    def take(self, effect: Effect, before: Replica, after: Replica, what: Input | None) -> None:
        if isinstance(effect, Grant):
            assert after.state is State.READY and not after.closing
            assert effect.hold == self.held[0], "first come, first served; and once"
            self.end(effect.hold)
            self.leases.append(after.generation)
        elif isinstance(effect, Fail):
            assert effect.hold in self.held
            assert effect.retry_after_s >= 1
            if effect.code is ErrorCode.WAKE_TIMEOUT:
                assert before.budget_ends_us is not None and self.now >= before.budget_ends_us
            self.end(effect.hold)
        elif isinstance(effect, StartWake):
            assert not self.waking and not self.parking, "two commands at a time"
            assert not after.closing and not after.blocked
            if isinstance(what, Demand):
                assert self.now >= before.retry_at_us, "demand does not break the back-off"
            self.waking.add(effect.generation)
        elif isinstance(effect, AbortWake):
            assert effect.generation in self.waking and effect.generation not in self.aborted
            spent = isinstance(what, SpendChanged) and after.must_stop
            on_purpose = spent or isinstance(what, Close) or self.limit_reached(before)
            assert on_purpose, "a budget aborts no wake"
            self.aborted.add(effect.generation)
        elif isinstance(effect, StartPark):
            self.begins_to_park(effect, before, after, what)
        elif isinstance(effect, CutLeases):
            assert self.now >= before.drain_ends_us
            assert before.state is State.DRAINING or before.closing == "leave"
            self.cut = before.generation
        elif isinstance(effect, Record):
            self.write(effect.entry, before)
        elif isinstance(effect, ChangeCause):
            span = self.cell.open_span()
            assert span.cause == effect.cause
            self.write(span, before)

    def limit_reached(self, before: Replica) -> bool:
        wake = before.wake
        assert wake is not None
        limit = before.settings.wake.phase_limits_us.get(wake.phase)
        slow = limit is not None and self.now >= wake.phase_began_us + limit
        return slow or self.now >= wake.cap_ends_us

    def begins_to_park(self, effect: StartPark, before: Replica, after: Replica, what: Input | None) -> None:
        assert not self.waking and not self.parking, "two commands at a time"
        firm = before.drain_firm or (isinstance(what, ParkAsked) and what.firm)
        assert firm or not after.holds, "demand is rechecked where a park commits"
        assert before.generation == self.cut or before.generation not in self.leases, "a lease is out"
        if before.state is State.READY and not (after.closing or after.must_stop or firm):
            assert not after.floor.at(self.now).required, "a floor holds it"
        self.parking.add(effect.generation)

    def end(self, hold: HoldId) -> None:
        self.held.remove(hold)
        self.unready_since.pop(hold, None)
        self.ended[hold] += 1

    def write(self, entry: object, before: Replica) -> None:
        if isinstance(entry, WakeBegan):
            assert not self.open_wakes, "one wake at a time"
            assert entry.wake not in self.all_wakes, "a wake's id is its own"
            assert (entry.budget_us is None) == (entry.held == 0)
            self.open_wakes.add(entry.wake)
            self.all_wakes.add(entry.wake)
            if entry.why == "predicted":
                self.predicted += 1
                assert self.predicted == 1, "one wake ahead of demand in an idle stretch"
        elif isinstance(entry, WakeEnded):
            self.open_wakes.remove(entry.wake)
            assert entry.wake == f"m-0.{before.generation}"
        elif isinstance(entry, ParkEnded):
            assert entry.at_us >= entry.began_us
        elif isinstance(entry, SpanOpened):
            assert not self.spans or entry.at_us >= self.spans[-1].at_us
            assert entry.at_us == self.now
            if entry.cause.startswith("wake."):
                assert entry.wake in self.open_wakes
            self.spans.append(entry)

    # what may happen

    @rule(delta=st.one_of(st.integers(0, 10 * S), st.integers(0, 400 * S)))
    def time_passes(self, delta: int) -> None:
        target = self.now + delta
        for _ in range(80):
            due = self.cell.next_tick_us(self.now)
            if due is None or due > target:
                break
            self.now = max(self.now, due)
            self.feed(Tick())
        else:
            raise AssertionError("a Tick that is due changes nothing, for ever")
        self.now = target

    @rule()
    def a_tick_comes_early(self) -> None:
        """A timer may fire when nothing is due; it may tell a floor from a linger, and do no more."""
        self.feed(Tick())

    @rule(size=st.sampled_from([1, 50, 400]))
    def request(self, size: int) -> None:
        self.ask(size, claims=True)

    @rule(size=st.sampled_from([1, 50, 400]))
    def request_that_asks_to_be_held_at_once(self, size: int) -> None:
        """The gate may have opened since the request looked."""
        self.ask(size, claims=False)

    def ask(self, size: int, *, claims: bool) -> None:
        self.predicted = 0
        self.asked = True
        before = self.replica
        if claims and (effects := self.cell.claim(self.now)) is not None:
            assert self.replica.state is State.READY and not self.held
            self.leases.append(self.replica.generation)
            self.carry_out(effects, before)
            return
        hold = HoldId(self.next_hold)
        self.next_hold += 1
        self.held.append(hold)
        drained = self.replica.state is State.DRAINING
        drained = drained and not (self.replica.must_stop or self.replica.drain_firm)
        self.feed(Demand(hold=hold, size_bytes=size, asked_by="k", request=f"r{hold}"))
        if drained and not self.closed:
            assert self.replica.state is State.READY, "demand cancels a drain"

    @rule(sizes=st.lists(st.sampled_from([1, 50, 400]), min_size=2, max_size=5))
    def several_requests(self, sizes: list[int]) -> None:
        """A burst: requests a second apart, so that many wait at once."""
        for size in sizes:
            self.ask(size, claims=True)
            self.time_passes(S)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.held))
        before = self.replica.state
        self.end(hold)
        assert not [e for e in self.feed(Withdrawn(hold=hold)) if not isinstance(e, Record)]
        assert self.replica.state is before, "a wake outlives its clients"

    @precondition(lambda self: self.leases)
    @rule()
    def request_ends(self) -> None:
        before = self.replica
        self.carry_out(self.cell.give_back(self.leases.pop(), self.now), before)

    @rule()
    def a_request_is_bridged(self) -> None:
        before = self.replica
        effects = self.cell.bridge("k", self.now)
        if effects is not None:
            assert before.state not in (State.READY, State.DRAINING)
            self.predicted = 0
            self.asked = True
            self.bridged += 1
            self.carry_out(effects, before)

    @precondition(lambda self: self.bridged)
    @rule()
    def a_bridged_request_ends(self) -> None:
        self.bridged -= 1
        self.cell.bridge_over(self.now)

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
    @rule(how=st.sampled_from(["ok", "ok", "unharmed", "lost"]))
    def park_ends(self, how: str) -> None:
        generation = self.parking.pop()
        if how == "ok":
            self.feed(ParkSucceeded(generation=generation))
        else:
            self.feed(ParkFailed(generation=generation, why="x", unharmed=how == "unharmed"))

    @rule()
    def engine_dies(self) -> None:
        self.feed(EngineLost(generation=self.replica.generation, why="signal 9"))

    @rule()
    def image_vanishes(self) -> None:
        before = self.replica
        self.feed(ImageLost(generation=self.replica.generation, why="evicted"))
        if before.state is State.PARKED and before.tier is not Tier.ASLEEP:
            assert self.replica.tier is Tier.COLD
        else:
            assert (self.replica.state, self.replica.tier) == (before.state, before.tier)

    @rule(asked=st.sampled_from(["wake", "park", "park cold", "start anew"]))
    def operator_asks(self, asked: str) -> None:
        if asked == "wake":
            self.predicted = 0
            self.feed(WakeAsked())
        else:
            tier = None if asked == "park" else Tier.COLD
            self.feed(ParkAsked(tier=tier, firm=asked == "start anew"))
            if asked == "start anew":
                assert not self.replica.gate_open or self.closed

    @rule(limit=st.sampled_from([0, 1, 3]), policy=st.sampled_from(POLICIES), floor=st.sampled_from(FLOORS))
    def is_configured_anew(self, limit, policy, floor) -> None:
        before = self.replica
        self.limit, self.over = limit, self.in_flight
        settings = replace(before.settings, max_concurrency=limit)
        self.predicted = 0  # by another policy
        self.cell.level.heed(policy, floor)
        self.cell.configure(settings)
        self.carry_out(self.cell.feed(Returned(), self.now), before)
        assert self.replica.generation == before.generation or self.replica.must_stop

    @rule(blocked_s=st.sampled_from([None, 10, 3600]), wakes_only=st.booleans())
    def spend_changes(self, blocked_s: int | None, wakes_only: bool) -> None:
        blocked = None
        if blocked_s is not None:
            until = self.now + blocked_s * S
            blocked = Blocked(until_us=until, why="limit", wakes_only=wakes_only)
        self.feed(SpendChanged(blocked=blocked))
        if self.replica.must_stop:
            assert not self.replica.holds

    @rule(stale=st.integers(1, 3))
    def stale_reports_change_nothing(self, stale: int) -> None:
        old = self.replica.generation - stale
        before = self.replica
        for report in (
            WakeSucceeded(generation=old),
            WakeFailed(generation=old, why="old"),
            ParkSucceeded(generation=old),
            ParkFailed(generation=old, why="old", unharmed=True),
            EngineLost(generation=old, why="old"),
            ImageLost(generation=old, why="old"),
            PhaseBegan(generation=old, mark=PhaseMark(phase=Phase.WEIGHTS, at_us=self.now)),
        ):
            assert not self.feed(report)
        assert self.replica == before

    @precondition(lambda self: not self.closed)
    @rule(action=st.sampled_from(["park", "leave", "stop"]), drain_s=st.sampled_from([None, 5]))
    def shuts_down(self, action: str, drain_s: int | None) -> None:
        self.closed = True
        drain_us = None if drain_s is None else drain_s * S
        self.feed(Close(action=action, drain_us=drain_us))
        assert not self.replica.holds and not self.replica.gate_open

    # what must hold

    @invariant()
    def every_hold_ends_exactly_once(self) -> None:
        assert all(count == 1 for count in self.ended.values())
        assert [hold.id for hold in self.replica.holds] == self.held

    @invariant()
    def nobody_waits_at_an_open_gate(self) -> None:
        if self.replica.gate_open and self.replica.holds:
            assert self.in_flight >= self.limit > 0

    @invariant()
    def leases_are_within_the_limit_and_only_on_a_ready_or_draining_replica(self) -> None:
        assert 0 <= self.in_flight <= (max(self.limit, self.over) if self.limit else 10**9)
        current = [g for g in self.leases if g == self.replica.generation]
        assert len(current) == self.in_flight
        if self.in_flight:
            assert self.replica.state in (State.READY, State.DRAINING)

    @invariant()
    def a_command_is_under_way_exactly_in_its_state(self) -> None:
        assert bool(self.waking) == (self.replica.state is State.WAKING)
        assert bool(self.parking) == (self.replica.state is State.PARKING)
        assert bool(self.open_wakes) == (self.replica.state is State.WAKING)

    @invariant()
    def whoever_waits_has_a_deadline_and_it_is_kept(self) -> None:
        if self.replica.holds and self.replica.state is not State.READY:
            assert self.replica.budget_ends_us is not None
            for since in self.unready_since.values():
                assert self.replica.budget_ends_us <= since + BUDGET, "a budget is absolute"
                assert self.now <= since + BUDGET
        if not self.replica.holds:
            assert self.replica.budget_ends_us is None

    @invariant()
    def a_draining_replica_has_leases_out_and_nobody_waiting(self) -> None:
        if self.replica.state is State.DRAINING:
            assert self.in_flight > 0
            assert self.replica.drain_firm or not self.replica.holds

    @invariant()
    def it_is_quiet_exactly_when_nobody_is_there(self) -> None:
        if self.cell.level.quiet_since_us is not None:
            assert not (self.leases or self.held or self.bridged)
        elif self.asked:
            assert self.leases or self.held or self.bridged

    @invariant()
    def the_open_span_says_what_the_replica_does(self) -> None:
        if not self.spans:
            return
        cause = self.spans[-1].cause
        state = self.replica.state
        if state is State.READY:
            idle = ("linger", "floor")
            assert cause == SERVING if self.in_flight else cause in idle
        else:
            assert cause.startswith(FIRST_CAUSE[state])
        if state is State.PARKED:
            assert cause == f"parked.{self.replica.tier}"
        assert self.replica.load.cause == cause

    @invariant()
    def a_blocked_idle_replica_is_on_its_way_down(self) -> None:
        replica = self.replica
        if replica.must_stop and replica.state is State.READY and not self.in_flight:
            assert replica.closing or self.now < replica.park_after_us


def test_the_machine_is_configured_as_it_says() -> None:
    """The draws above must stay meaningful: each policy parks or never does, each floor changes."""
    assert any(policy.descent(0).wake_at_us for policy in POLICIES)
    assert any(not policy.descent(0).rungs for policy in POLICIES)
    assert POLICIES[0].name == "fixed"
    assert {floor.at(START).required for floor in FLOORS} == {True, False}


TestReplicaMachine = ReplicaMachine.TestCase
TestReplicaMachine.settings = hypothesis_settings(max_examples=400, stateful_step_count=60, deadline=None)
