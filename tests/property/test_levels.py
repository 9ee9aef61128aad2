"""Replicas of one slot are one ski-rental problem a level of demand (Lu, Chen: arXiv 1112.0442)."""

import itertools
import random
from heapq import heappop, heappush

import numpy as np
import pytest

from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import Grant, StartPark, StartWake
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import Demand, ParkSucceeded, Tick, WakeSucceeded
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Replica
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import HoldId, ModelName, Tier, replica_id
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.policies import fixed_idle
from poorwill.policies.dispatch import Replicas

M, COLD, HUGE = ModelName("m"), Tier.COLD, 2**50
Interval = tuple[int, int]


class Farm:
    """Replicas of one slot that wake and park in no time, as in the paper."""

    def __init__(self, count: int, idle_us: int) -> None:
        known = ReplicaSettings(
            model=M,
            max_concurrency=1,
            hold=HoldSettings(count=1_000, age_us=HUGE),
            wake=WakeSettings(budget_us=HUGE, cap_us=HUGE),
            park=ParkSettings(ladder=(COLD,)),
        )
        queue = HoldQueue()
        cells = [
            Cell(
                Replica(id=replica_id(M, number), settings=known, policy=fixed_idle(((COLD, idle_us),))),
                queue,
            )
            for number in range(count)
        ]
        for cell in cells:
            cell.found_parked(COLD, 0)
        self.replicas, self.ends = Replicas(cells), list[tuple[int, int, Cell]]()
        self.ready_us, self.wakes, self.now = 0, 0, 0

    def feed(self, cell: Cell, what) -> None:
        self.do(cell, self.replicas.feed(cell, what, self.now))

    def do(self, cell: Cell, effects) -> None:
        for effect in effects:
            match effect:
                case StartWake():
                    self.wakes += 1
                    self.feed(cell, WakeSucceeded(generation=effect.generation))
                case StartPark():
                    self.feed(cell, ParkSucceeded(generation=effect.generation))
                case Grant(hold=hold):
                    self.serve(cell, int(hold))

    def serve(self, cell: Cell, lasts_us: int) -> None:
        heappush(self.ends, (self.now + lasts_us, id(cell), cell))

    def run(self, requests: list[Interval], until_us: int) -> None:
        for begin, end in requests:
            self.advance(begin)
            claimed = self.replicas.claim(self.now)
            if claimed is not None:
                self.serve(claimed[0], end - begin)
            else:
                hold = HoldId(end - begin)  # nobody waits: who is woken serves at once
                what = Demand(hold=hold, size_bytes=0, asked_by="", request="")
                self.feed(self.replicas.taker(self.now), what)
        self.advance(until_us)

    def advance(self, until_us: int) -> None:
        while True:
            done = self.ends[0][0] if self.ends else HUGE
            ticks = [(at, n) for n, c in enumerate(self.replicas.cells) if (at := c.next_tick_us(self.now))]
            due, number = min(ticks, default=(HUGE, 0))
            at = min(done, due)
            if at > until_us or (at == until_us and at != done):
                self.pass_until(until_us)
                return
            self.pass_until(max(at, self.now))
            if done <= due:
                _, _, cell = heappop(self.ends)
                self.do(cell, self.replicas.give_back(cell, cell.generation, self.now))
            else:
                self.feed(self.replicas.cells[number], Tick())

    def pass_until(self, at_us: int) -> None:
        ready = sum(cell.replica.state is State.READY for cell in self.replicas.cells)
        self.ready_us += ready * (at_us - self.now)
        self.now = at_us


def drawn(seed: int, replicas: int, *, requests: int = 40) -> list[Interval]:
    """Requests of which never more than `replicas` are there at once; no two instants are the same."""
    rng = random.Random(seed)
    instants = iter(sorted(rng.sample(range(1, 3_000), 4 * requests)))
    found: list[Interval] = []
    open_: list[int] = []
    for at in instants:
        if open_ and (len(open_) == replicas or rng.random() < 0.5):
            found.append((open_.pop(rng.randrange(len(open_))), at))
        else:
            open_.append(at)
    return sorted(found)


def levels(requests: list[Interval], replicas: int) -> list[list[Interval]]:
    """When at least n requests are there, for each n."""
    turns = sorted([(begin, 1) for begin, _ in requests] + [(end, -1) for _, end in requests])
    found: list[list[Interval]] = [[] for _ in range(replicas)]
    since, busy = [0] * replicas, 0
    for at, turn in turns:
        if turn > 0:
            since[busy] = at
        busy += turn
        if turn < 0:
            found[busy].append((since[busy], at))
    return found


UNTIL = 4_000


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("idle_us", [0, 40, 400])
def test_n_replicas_are_n_problems(seed: int, idle_us: int) -> None:
    replicas = 1 + seed % 4
    requests = drawn(seed, replicas)
    together = Farm(replicas, idle_us)
    together.run(requests, UNTIL)
    alone = [Farm(1, idle_us) for _ in range(replicas)]
    for farm, level in zip(alone, levels(requests, replicas), strict=True):
        farm.run(level, UNTIL)
    assert (together.ready_us, together.wakes) == (
        sum(farm.ready_us for farm in alone),
        sum(farm.wakes for farm in alone),
    )


@pytest.mark.parametrize("seed", range(8))
def test_clairvoyant_levels_are_the_best(seed: int) -> None:
    """The sum over levels of what one would have paid who knew the future, against every other way."""
    replicas, switch_us = 1 + seed % 3, (7, 90, 400)[seed % 3]
    requests = drawn(100 + seed, replicas, requests=8)
    scenario = Scenario(
        span_us=UNTIL,
        active_nusd_h=1,
        tiers=(TierTimes(tier=COLD, wake_us=(0,), park_us=switch_us, parked_nusd_h=0),),
        max_concurrency=1,
    )
    found = 0
    for level in levels(requests, replicas):
        arrivals = np.array([begin for begin, _ in level], np.int64)
        services = np.array([end - begin for begin, end in level], np.int64)
        if len(level):
            found += clairvoyant(arrivals, services, scenario).cost_numerator
    assert found == brute_force(requests, replicas, switch_us)


def brute_force(requests: list[Interval], replicas: int, switch_us: int) -> int:
    """The least cost of all numbers of ready replicas at all times; to put one away costs `switch_us`."""
    instants = sorted({0, UNTIL, *itertools.chain(*requests)})
    best = {0: 0}
    for begin, end in itertools.pairwise(instants):
        needed = sum(first <= begin and end <= last for first, last in requests)
        best = {
            on: min(cost + switch_us * max(before - on, 0) for before, cost in best.items())
            + on * (end - begin)
            for on in range(needed, replicas + 1)
        }
    return min(cost + switch_us * on for on, cost in best.items())
