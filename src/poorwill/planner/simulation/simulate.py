"""The exact evaluator: replays a trace through production's cells, dispatch and policies on a virtual clock.

At the same instant requests come back first, then wakes and parks end, then requests arrive, and last of all
a linger ends: a request that arrives at the very instant at which a linger would end finds the replica ready.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count

import numpy as np

from poorwill.core.entries import SpanOpened
from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import ChangeCause, Effect, Grant, Record, StartPark, StartWake
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import Demand, Input, ParkSucceeded, Tick, WakeSucceeded
from poorwill.core.machine.replica import Load, Replica
from poorwill.core.policy import FloorSchedule, NoFloor, Policy
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import HoldId, ModelName, Tier, replica_id
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.account import SpanAccount, Timeline, account_outcome
from poorwill.planner.simulation.outcome import TELL_EVERY, Outcome, Progress, added, waits_of
from poorwill.planner.simulation.scenario import Scenario
from poorwill.policies.dispatch import Replicas

NEVER = 2**62
UNBOUNDED = 2**61
TICKS_AT_ONCE = 20
"""More Ticks of a replica than this at one instant mean that one of them changes nothing, for ever."""

Level = tuple[Policy, FloorSchedule]
"""What governs the n-th busy replica."""


def simulate(
    arrival_us: Micros,
    service_us: Micros,
    scenario: Scenario,
    policy: Policy,
    *,
    floor: FloorSchedule | None = None,
    others: Sequence[Level] = (),
    timelines: Sequence[Timeline] = (),
    bridged: list[int] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Return what a policy costs on these requests, which must be sorted and within the span.

    The policy learns as it goes, so it must be new. Each of `others` adds a replica and is the level of
    demand that comes after those before it. `timelines` receive when each cause of the first replicas
    began. With `bridged` nobody waits for a wake: a request that finds no replica ready goes to a hosted
    API while one wakes, and the list receives the indices of those requests. Policies and floors see the
    trace's times plus the scenario's origin.
    """
    levels = [(policy, floor or NoFloor()), *others]
    run = Replay(scenario=scenario, replicas=_replicas(scenario, levels), bridged=bridged, progress=progress)
    for account, timeline in zip(run.accounts.values(), timelines, strict=False):
        account.timeline = timeline
    return run.replay(arrival_us.tolist(), service_us.tolist())


def _replicas(scenario: Scenario, levels: Sequence[Level]) -> Replicas:
    queue, model = HoldQueue(), ModelName("planned")
    settings = ReplicaSettings(
        model=model,
        max_concurrency=scenario.max_concurrency,
        hold=HoldSettings(count=UNBOUNDED, bytes=UNBOUNDED, age_us=UNBOUNDED),
        wake=WakeSettings(
            budget_us=UNBOUNDED,
            cap_us=UNBOUNDED,
            expected_us={times.tier: times.median_wake_us for times in scenario.tiers},
        ),
        park=ParkSettings(ladder=scenario.ladder),
    )
    replicas = [
        Replica(
            id=replica_id(model, number),
            settings=settings,
            policy=policy,
            floor=floor,
            load=Load(idle_since_us=scenario.origin_us),
            park_began_us=scenario.origin_us,
        )
        for number, (policy, floor) in enumerate(levels)
    ]
    return Replicas([Cell(replica, queue) for replica in replicas])


@dataclass(slots=True, kw_only=True)
class Replay:
    """A model's cells on their way through a trace, and their accounts: what fleet and ledger are in
    production."""

    scenario: Scenario
    replicas: Replicas
    bridged: list[int] | None
    progress: Progress | None
    now_us: int = field(init=False)
    ends_us: int = field(init=False)
    running: list[tuple[int, int, Cell]] = field(default_factory=list)
    """When the requests in flight will be done, and where they are: a heap."""
    crossing: list[tuple[int, int, Cell]] = field(default_factory=list)
    """When the requests at the hosted API will be done: a heap."""
    ending: list[tuple[int, int, Cell, Input]] = field(default_factory=list)
    """What ends the wakes and parks under way: a heap."""
    held: deque[tuple[int, int]] = field(default_factory=deque)
    """Arrival and service time of the requests that wait, in the order of their hold ids."""
    waits: list[int] = field(default_factory=list)
    serial: Iterator[int] = field(default_factory=count)
    last_tick_us: int = -1
    ticks_at_once: int = 0
    wakes: int = 0
    woken: dict[Tier, int] = field(default_factory=lambda: defaultdict(int))
    """How many wakes there were from each tier."""
    accounts: dict[Cell, SpanAccount] = field(init=False)

    def __post_init__(self) -> None:
        self.now_us = self.scenario.origin_us
        self.ends_us = self.now_us + self.scenario.span_us
        self.accounts = {cell: SpanAccount() for cell in self.replicas.cells}

    def replay(self, arrivals: list[int], services: list[int]) -> Outcome:
        """Take every request in turn, run out the clock, and return the account."""
        scenario, origin, replicas = self.scenario, self.scenario.origin_us, self.replicas
        running, serial = self.running, self.serial
        for cell, account in self.accounts.items():
            if scenario.starts_ready:
                span = cell.found_ready(origin)
            else:
                span = cell.found_parked(scenario.start_tier or scenario.ladder[-1], origin)
            account.began(origin, span.cause)
        for index, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
            if self.progress is not None and index % TELL_EVERY == 0:
                self.progress(index / len(arrivals))
            now = arrival + origin
            self.advance(now)
            claimed = replicas.claim(now)
            if claimed is not None:
                cell, effects = claimed
                heappush(running, (now + service, next(serial), cell))
                for effect in effects:
                    self.accounts[cell].turn_over(now, effect.cause)
            elif self.bridged is None or not self.bridge(index, now, service):
                self.hold(now, service)
        self.advance(self.ends_us)
        closed = [account.closed(self.ends_us) for account in self.accounts.values()]
        while self.held:  # the accounts are closed; those who wait still say for how long
            self.advance(min(self.next_us(), self.replicas.look_us or NEVER))
        waits = waits_of(len(arrivals), np.asarray(self.waits, np.int64))
        name = replicas.cells[0].replica.policy.name
        nobody = waits_of(0, [])
        outcomes = [
            account_outcome(account, scenario, policy=name, wakes=0, waits=nobody) for account in closed
        ]
        return replace(added(outcomes), wakes=self.wakes, waits=waits)

    def next_us(self) -> int:
        """Return when the next request, wake or park ends, or the next request at the hosted API."""
        return min(heap[0][0] if heap else NEVER for heap in (self.running, self.ending, self.crossing))

    def advance(self, until: int) -> None:
        """Let everything happen that happens before a request arriving at `until`."""
        running, ending, crossing, replicas = self.running, self.ending, self.crossing, self.replicas
        alone = len(replicas.cells) == 1
        while True:
            done = running[0][0] if running else NEVER
            ended = ending[0][0] if ending else NEVER
            crossed = crossing[0][0] if crossing else NEVER
            first = min(done, ended, crossed)
            if not (alone and (running or ending)) and self.tick(min(first, until)):
                continue
            if first > until:
                return
            if done == first:
                _, _, cell = heappop(running)
                effects = replicas.give_back(cell, cell.generation, done)
                if effects:
                    self.act(cell, effects, done)
            elif ended == first:
                _, _, cell, what = heappop(ending)
                self.act(cell, replicas.feed(cell, what, ended), ended)
            else:
                _, _, cell = heappop(crossing)
                replicas.bridge_over(cell, crossed)
                self.now_us = crossed

    def tick(self, until: int) -> bool:
        """Give the Tick that is due before `until`; False if there is none."""
        cells, now = self.replicas.cells, self.now_us
        dues = [NEVER if (due := cell.next_tick_us(now)) is None else due for cell in cells]
        first = min(dues)
        at_us = max(min(first, self.replicas.look_us or NEVER), now)
        if at_us >= until:
            return False
        again = at_us == self.last_tick_us
        self.ticks_at_once, self.last_tick_us = (self.ticks_at_once + 1) * again, at_us
        assert self.ticks_at_once < TICKS_AT_ONCE * len(cells), "a Tick that is due changes nothing, for ever"
        cell = cells[dues.index(first)]
        self.act(cell, self.replicas.feed(cell, Tick(), at_us), at_us)
        return True

    def hold(self, now: int, service: int) -> None:
        """Register the demand of a request that got no lease."""
        self.held.append((now, service))
        hold = HoldId(len(self.waits) + len(self.held))
        cell = self.replicas.taker(now)
        demand = Demand(hold=hold, size_bytes=0, asked_by="trace", request="")
        self.act(cell, self.replicas.feed(cell, demand, now), now)

    def bridge(self, index: int, now: int, service: int) -> bool:
        """Send a request to the hosted API, if that is where it goes now."""
        found = self.replicas.bridge("trace", now)
        if found is None or self.bridged is None:
            return False
        cell, effects = found
        self.bridged.append(index)
        heappush(self.crossing, (now + service, next(self.serial), cell))
        if effects:
            self.act(cell, effects, now)
        return True

    def act(self, cell: Cell, effects: Sequence[Effect], now: int) -> None:
        """Do what a cell wants done, then wake another one if too few are there, as the controller does."""
        short = self.replicas.short(now)
        self.carry_out(cell, effects, now)
        if short is not None:
            self.act(short[0], self.replicas.feed(*short, now), now)

    def carry_out(self, cell: Cell, effects: Sequence[Effect], now: int) -> None:
        """Do the effects: wakes and parks take the scenario's time, grants start a service."""
        self.now_us = now
        for effect in effects:
            if isinstance(effect, ChangeCause):
                self.accounts[cell].turn_over(now, effect.cause)
            elif isinstance(effect, Record):
                if isinstance(effect.entry, SpanOpened):
                    self.accounts[cell].turn_over(now, effect.entry.cause)
            elif isinstance(effect, Grant):
                arrived, service = self.held.popleft()
                self.waits.append(now - arrived)
                heappush(self.running, (now + service, next(self.serial), cell))
            elif isinstance(effect, StartWake):
                times = self.scenario.times(effect.from_tier).wake_us
                turn = self.woken[effect.from_tier]
                self.woken[effect.from_tier] = turn + 1
                self.wakes += now < self.ends_us
                self.ends(cell, now + times[turn % len(times)], WakeSucceeded(generation=effect.generation))
            elif isinstance(effect, StartPark):
                ended = ParkSucceeded(generation=effect.generation)
                self.ends(cell, now + self.scenario.times(effect.to_tier).park_us, ended)
            else:
                raise AssertionError(f"{effect} cannot happen on a virtual clock")

    def ends(self, cell: Cell, at_us: int, what: Input) -> None:
        """Say what ends a wake or park, and when."""
        heappush(self.ending, (at_us, next(self.serial), cell, what))
