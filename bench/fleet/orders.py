"""How far three orders of dispatch are from the least cost, for replicas that serve several requests at once.

    python bench/fleet/orders.py

Wakes and parks take no time, and a wake costs as much as `SWITCH_S` of a ready replica; each idles that long
before it is parked. The least cost is a bound: as many replicas as the requests need at any instant, switched
by who knows the future, and requests moved between them at will. No order can reach it.
"""

import random
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise

from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import Effect, Grant, StartPark, StartWake
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import Demand, Input, ParkSucceeded, Tick, WakeSucceeded
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Replica
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import SECOND_US, HoldId, ModelName, Tier, replica_id
from poorwill.policies import fixed_idle
from poorwill.policies.dispatch import Replicas

M, HUGE = ModelName("m"), 2**50
SWITCH_S = 60
HOURS = 24
MEAN_SERVICE_S = 20
REPLICAS = 8


class LowestNumber(Replicas):
    """A request goes to the first replica that has room."""

    __slots__ = ()

    def _with_room(self, kept: object = None) -> Cell | None:
        return next((cell for cell in self.cells if cell.open and cell.in_flight < self._limit), None)


class LeastLoaded(Replicas):
    """A request goes to the replica that has the fewest, as most load balancers have it."""

    __slots__ = ()

    def _with_room(self, kept: object = None) -> Cell | None:
        room = [cell for cell in self.cells if cell.open and cell.in_flight < self._limit]
        return min(room, key=lambda cell: cell.in_flight, default=None)


class Farm:
    """Replicas that wake and park in no time."""

    def __init__(self, order: type[Replicas], slots: int) -> None:
        known = ReplicaSettings(
            model=M,
            max_concurrency=slots,
            hold=HoldSettings(count=1_000_000, age_us=HUGE),
            wake=WakeSettings(budget_us=HUGE, cap_us=HUGE),
            park=ParkSettings(ladder=(Tier.COLD,)),
        )
        policy, queue = fixed_idle(((Tier.COLD, SWITCH_S * SECOND_US),)), HoldQueue()
        cells = [
            Cell(Replica(id=replica_id(M, n), settings=known, policy=policy), queue) for n in range(REPLICAS)
        ]
        for cell in cells:
            cell.found_parked(Tier.COLD, 0)
        self.replicas, self.ends = order(cells), list[tuple[int, int, Cell]]()
        self.ready_us, self.wakes, self.now = 0, 0, 0
        self.numbers = 0
        self.lasts: dict[int, int] = {}

    def feed(self, cell: Cell, what: Input) -> None:
        """Give a cell an input."""
        self.do(cell, self.replicas.feed(cell, what, self.now))

    def do(self, cell: Cell, effects: Sequence[Effect]) -> None:
        """Carry out what a cell wants done."""
        for effect in effects:
            match effect:
                case StartWake():
                    self.wakes += 1
                    self.feed(cell, WakeSucceeded(generation=effect.generation))
                case StartPark():
                    self.feed(cell, ParkSucceeded(generation=effect.generation))
                case Grant(hold=hold):
                    heappush(self.ends, (self.now + self.lasts.pop(hold), hold, cell))

    def cost_s(self, requests: Sequence[tuple[int, int]]) -> float:
        """Return what serving these requests costs, in seconds of a ready replica."""
        for begin, end in requests:
            self.advance(begin)
            self.numbers += 1
            claimed = self.replicas.claim(self.now)
            if claimed is not None:
                heappush(self.ends, (end, self.numbers, claimed[0]))
            else:
                self.lasts[self.numbers] = end - begin
                hold = HoldId(self.numbers)
                self.feed(
                    self.replicas.taker(self.now), Demand(hold=hold, size_bytes=0, asked_by="", request="")
                )
        self.advance(HOURS * 3600 * SECOND_US * 2)
        return self.ready_us / SECOND_US + self.wakes * SWITCH_S

    def advance(self, until_us: int) -> None:
        """Let requests end and lingers pass."""
        while True:
            done = self.ends[0][0] if self.ends else HUGE
            dues = [
                (at, n) for n, cell in enumerate(self.replicas.cells) if (at := cell.next_tick_us(self.now))
            ]
            due, number = min(dues, default=(HUGE, 0))
            at = max(min(done, due), self.now)
            if min(done, due) >= until_us:
                self.pass_until(until_us)
                return
            self.pass_until(at)
            if done <= due:
                _, _, cell = heappop(self.ends)
                self.do(cell, self.replicas.give_back(cell, cell.generation, self.now))
            else:
                self.feed(self.replicas.cells[number], Tick())

    def pass_until(self, at_us: int) -> None:
        """Let time pass."""
        ready = sum(cell.replica.state is State.READY for cell in self.replicas.cells)
        self.ready_us += ready * (at_us - self.now)
        self.now = at_us


def drawn(seed: int, slots: int) -> list[tuple[int, int]]:
    """Return the requests of hours with more and less traffic, never more at once than there are places."""
    rng, at_s, found = random.Random(seed), 0.0, list[tuple[int, int]]()
    open_: list[int] = []
    while at_s < HOURS * 3600:
        until_s = at_s + rng.uniform(600, 3600)
        at_once = slots * REPLICAS * rng.choice((0.01, 0.1, 0.3, 0.6))
        while at_s < until_s:
            at_s += rng.expovariate(at_once / MEAN_SERVICE_S)
            at_us = int(at_s * SECOND_US)
            open_ = [end for end in open_ if end > at_us]
            if len(open_) < slots * REPLICAS:
                end = at_us + int(rng.expovariate(1 / MEAN_SERVICE_S) * SECOND_US) + 1
                open_.append(end)
                found.append((at_us, end))
    return found


def bound_s(requests: Sequence[tuple[int, int]], slots: int) -> float:
    """Return the least cost, in seconds of a ready replica."""
    turns = sorted([(begin, 1) for begin, _ in requests] + [(end, -1) for _, end in requests])
    best, flying = {0: 0.0}, 0
    for (at_us, turn), (next_us, _) in pairwise(turns):
        flying += turn
        lasts_s, needed = (next_us - at_us) / SECOND_US, -(-flying // slots)
        best = {
            on: min(cost + SWITCH_S * max(on - before, 0) for before, cost in best.items()) + on * lasts_s
            for on in range(needed, REPLICAS + 1)
        }
    return min(best.values())


def main() -> None:
    """Print the table."""
    print("| slots | fullest first, last emptied first | lowest number first | least loaded first |")
    print("| --- | --- | --- | --- |")
    for slots in (1, 2, 4):
        ratios = []
        for order in (Replicas, LowestNumber, LeastLoaded):
            costs = least = 0.0
            for seed in range(3):
                requests = drawn(seed, slots)
                costs += Farm(order, slots).cost_s(requests)
                least += bound_s(requests, slots)
            ratios.append(costs / least)
        print(f"| {slots} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
