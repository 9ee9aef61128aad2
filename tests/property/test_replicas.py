"""Several replicas of a model under any interleaving: nobody is lost, served twice or overtaken."""

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poorwill.core.machine.cell import Cell
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
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import (
    Close,
    Demand,
    EngineLost,
    Input,
    ParkAsked,
    ParkFailed,
    ParkSucceeded,
    SpendChanged,
    Tick,
    WakeFailed,
    WakeSucceeded,
    Withdrawn,
)
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Blocked, Replica
from poorwill.core.policy import NoFloor
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import HoldId, ModelName, ReplicaId, Tier, replica_id
from poorwill.policies import fixed_idle
from poorwill.policies.dispatch import Replicas
from poorwill.policies.floors import AlwaysFloor

S = 1_000_000
M = ModelName("m")


class Crowd(RuleBasedStateMachine):
    """Clients, engines and an operator around the replicas of one model."""

    @initialize(
        count=st.integers(2, 4),
        limit=st.integers(1, 3),
        soft=st.booleans(),
        floors=st.integers(0, 2),
        tier=st.booleans(),
        slack=st.sampled_from((None, 0, 1)),
    )
    def begin(self, count: int, limit: int, soft: bool, floors: int, tier: bool, slack: int | None) -> None:
        self.now, self.limit, self.soft, self.slack = 1_000 * S, limit, soft, slack
        ladder = (Tier.FROZEN, Tier.COLD) if tier else (Tier.COLD,)
        known = ReplicaSettings(
            model=M,
            max_concurrency=0 if soft else limit,
            target_concurrency=limit if soft else 0,
            prefix_affinity=slack is not None,
            affinity_slack=slack or 0,
            hold=HoldSettings(count=50, age_us=10_000 * S),
            wake=WakeSettings(
                budget_us=100 * S,
                cap_us=300 * S,
                backoff_us=5 * S,
                expected_us={Tier.COLD: 20 * S, Tier.FROZEN: 4 * S},
            ),
            park=ParkSettings(ladder=ladder, drain_us=20 * S),
        )
        queue = HoldQueue()
        cells = [
            Cell(
                Replica(
                    id=replica_id(M, number),
                    settings=known,
                    policy=fixed_idle(((ladder[0], 30 * S),)),
                    floor=AlwaysFloor() if number < floors else NoFloor(),
                ),
                queue,
            )
            for number in range(count)
        ]
        self.levels = [cell.level for cell in cells]
        for cell in cells:
            cell.found_parked(Tier.COLD, self.now)
        self.replicas = Replicas(cells)
        self.ending: dict[Cell, StartWake | StartPark] = {}
        self.aborted: dict[Cell, str] = {}
        self.requests = 0
        self.held: set[int] = set()
        self.flying: list[tuple[int, Cell, int]] = []
        """Request, cell and generation of every lease that is out."""
        self.ends: Counter[int] = Counter()
        self.closed = False

    # the world around

    def do(self, cell: Cell, effects) -> None:
        self.carry_out(cell, effects)
        while (short := self.replicas.short(self.now)) is not None:
            waking = sum(self.wakes(each) for each in self.replicas.cells)
            assert len(self.replicas.queue.holds) > waking * self.limit, "a wake that nobody needs"
            other, what = short
            before = other.replica.state
            self.carry_out(other, self.replicas.feed(other, what, self.now))
            assert other.replica.state is not before
        self.replicas.take_moved()

    def carry_out(self, cell: Cell, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Grant(hold=hold):
                    self.held.remove(int(hold))
                    self.flying.append((int(hold), cell, cell.generation))
                case Fail(hold=hold):
                    self.held.remove(int(hold))
                    self.end(int(hold))
                case StartWake() | StartPark():
                    assert cell not in self.ending, "two things done to one replica at once"
                    self.ending[cell] = effect
                case AbortWake(why=why):
                    self.aborted[cell] = why
                case CutLeases():
                    pass  # their clients give the leases back
                case Record():
                    pass

    def feed(self, cell: Cell, what: Input) -> None:
        others = any(each.open or self.wakes(each) for each in self.replicas.cells if each is not cell)
        effects = self.replicas.feed(cell, what, self.now)
        if isinstance(what, WakeFailed | EngineLost) and others:
            assert not any(isinstance(effect, Fail) for effect in effects), "one that fails costs the others"
        self.do(cell, effects)

    def wakes(self, cell: Cell) -> bool:
        wake = cell.replica.wake
        return wake is not None and not wake.aborting

    def end(self, request: int) -> None:
        self.ends[request] += 1
        assert self.ends[request] == 1, "a request ended twice"

    # what may happen

    @rule(asks=st.integers(1, 4), last=st.integers(0, 4))
    def ask(self, asks: int, last: int) -> None:
        kept = replica_id(M, last) if last < 4 else None  # there may be none of that name any more
        for _ in range(asks):
            self.requests += 1
            request, wanted = self.requests, self.place(kept)
            fewest = min((each.in_flight for each in self.replicas.cells if each.open), default=0)
            claimed = self.replicas.claim(self.now, lambda: kept)
            if self.soft and wanted is None and claimed is not None:
                assert claimed[0].in_flight == fewest + 1, "another one has fewer"
                assert not any(map(self.wakes, self.replicas.cells)), "one wakes that has room"
            else:
                assert (claimed and claimed[0]) is wanted
            if claimed is not None:
                self.flying.append((request, claimed[0], claimed[0].generation))
                continue
            taker = self.replicas.taker(self.now)
            self.held.add(request)
            demand = Demand(hold=HoldId(request), size_bytes=1, asked_by="key", request=str(request))
            self.feed(taker, demand)

    def place(self, kept: ReplicaId | None) -> Cell | None:
        """Where the next request must go: the fullest that has room, else the one emptied last; who served
        the conversation last, if it is busy and as full but for the slack."""
        cells = self.replicas.cells
        if self.replicas.queue.holds:
            return None
        room = [each for each in cells if each.replica.gate_open and each.replica.load.in_flight < self.limit]
        busy = [each for each in room if each.replica.load.in_flight]
        if busy:
            most = max(each.replica.load.in_flight for each in busy)
            for each in busy if self.slack is not None else ():
                if each.id == kept and each.replica.load.in_flight >= most - (self.slack or 0):
                    return each
            level = {id(each): self.levels.index(each.level) for each in cells}
            return min(
                (each for each in busy if each.replica.load.in_flight == most), key=lambda c: level[id(c)]
            )
        return min(room, key=lambda each: self.levels.index(each.level), default=None)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 99))
    def finish(self, which: int) -> None:
        request, cell, generation = self.flying.pop(which % len(self.flying))
        self.end(request)
        self.do(cell, self.replicas.give_back(cell, generation, self.now))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99))
    def leave(self, which: int) -> None:
        request = sorted(self.held)[which % len(self.held)]
        self.held.remove(request)
        self.end(request)
        self.feed(self.replicas.cells[which % len(self.replicas.cells)], Withdrawn(hold=HoldId(request)))

    @precondition(lambda self: self.ending)
    @rule(which=st.integers(0, 9), fate=st.sampled_from(("well", "well", "well", "badly", "kept")))
    def come_to_an_end(self, which: int, fate: str) -> None:
        cell = list(self.ending)[which % len(self.ending)]
        effect = self.ending.pop(cell)
        aborted = self.aborted.pop(cell, "")
        if isinstance(effect, StartPark):
            if fate == "well":
                self.feed(cell, ParkSucceeded(generation=effect.generation))
            else:
                self.feed(cell, ParkFailed(generation=effect.generation, why="?", unharmed=fate == "kept"))
        elif fate == "well" and not aborted:
            self.feed(cell, WakeSucceeded(generation=effect.generation))
        else:
            self.feed(cell, WakeFailed(generation=effect.generation, why=aborted or "?", kept=fate == "kept"))

    @rule(which=st.integers(0, 9))
    def engine_dies(self, which: int) -> None:
        cell = self.replicas.cells[which % len(self.replicas.cells)]
        if cell.replica.state in (State.READY, State.DRAINING):
            self.feed(cell, EngineLost(generation=cell.generation, why="signal 9"))

    @rule(which=st.integers(0, 9))
    def operator_parks(self, which: int) -> None:
        self.feed(self.replicas.cells[which % len(self.replicas.cells)], ParkAsked(why="operator"))

    @rule(seconds=st.sampled_from((0.1, 1, 7, 31, 120)), ticks=st.integers(1, 30))
    def time_passes(self, seconds: float, ticks: int) -> None:
        until = self.now + int(seconds * S)
        for _ in range(ticks):
            dues = [
                (at, number)
                for number, cell in enumerate(self.replicas.cells)
                if (at := cell.next_tick_us(self.now)) is not None
            ]
            if (look := self.replicas.look_us) is not None:
                dues.append((look, 0))
            if not dues or min(dues)[0] > until:
                break
            at, number = min(dues)
            self.now = max(self.now, at)
            self.feed(self.replicas.cells[number], Tick())
        else:
            return  # more happens than was asked for: the rest another time
        self.now = until

    @rule(wakes_only=st.booleans(), lifted=st.booleans())
    def limit_trips(self, wakes_only: bool, lifted: bool) -> None:
        blocked = None if lifted else Blocked(until_us=self.now + 60 * S, why="?", wakes_only=wakes_only)
        for cell in self.replicas.cells:
            self.feed(cell, SpendChanged(blocked=blocked))

    # what must hold

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "replicas"):
            return
        out = Counter(cell for _, cell, generation in self.flying if generation == cell.generation)
        for cell in self.replicas.cells:
            assert cell.in_flight == out[cell]
            assert self.soft or cell.in_flight <= self.limit
        assert self.replicas.services.in_flight == sum(out.values())
        assert {int(hold.id) for hold in self.replicas.queue.holds} == self.held

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if not hasattr(self, "replicas") or not self.held:
            return
        cells = self.replicas.cells
        assert all(cell.in_flight >= self.limit for cell in cells if cell.open), "a free place, and some wait"
        there = (State.READY, State.WAKING, State.DRAINING, State.PARKING)
        assert any(cell.replica.state in there for cell in cells), "some wait for nothing"
        if not any(cell.open for cell in cells):
            assert self.replicas.queue.budget_ends_us is not None, "they wait without a bound"

    @invariant()
    def whoever_needs_a_wake_has_one(self) -> None:
        if not hasattr(self, "replicas"):
            return
        replicas, cells = self.replicas, self.replicas.cells
        coming = self.limit * sum(self.wakes(cell) for cell in cells)
        able = [
            cell.replica
            for cell in cells
            if cell.replica.state is State.PARKED
            and not cell.replica.blocked
            and self.now >= cell.replica.retry_at_us
        ]
        if able and len(self.held) > coming:
            assert replicas.look_us is not None, "nobody is woken for those who wait"
            waited_us = self.now - min(hold.arrived_us for hold in replicas.queue.holds[coming:])
            assert waited_us <= max(each.expected_wake_us(each.tier) or 0 for each in able)

    @invariant()
    def levels_are_shared_out(self) -> None:
        if not hasattr(self, "replicas"):
            return
        cells = self.replicas.cells
        assert {id(cell.level) for cell in cells} == {id(level) for level in self.levels}
        busy = sum(cell.busy for cell in cells)
        for cell in cells:
            assert (self.levels.index(cell.level) < busy) == cell.busy
            assert cell.busy or not cell.in_flight, "a level's gap goes on while a request is served"
            assert cell.replica.policy is cell.level.policy and cell.replica.floor is cell.level.floor

    def teardown(self) -> None:
        if not hasattr(self, "replicas"):
            return
        for cell in self.replicas.cells:
            self.feed(cell, Close(action="stop"))
        for _ in range(400):
            if self.flying:
                self.finish(0)
            elif self.ending:
                self.come_to_an_end(0, "well")
        assert not self.held and not self.flying
        assert set(self.ends) == set(range(1, self.requests + 1)), "a request was lost"


TestCrowd = Crowd.TestCase
TestCrowd.settings = hypothesis_settings(max_examples=150, stateful_step_count=50, deadline=None)
