"""The exact evaluator: replays a trace through production's cell and policy on a virtual clock.

At the same instant requests come back first, then wakes and parks end, then requests arrive, and last of all
a linger ends: a request that arrives at the very instant at which a linger would end finds the replica ready.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from poorwill.core.entries import SpanOpened
from poorwill.core.machine.cell import Cell
from poorwill.core.machine.effects import ChangeCause, Effect, Grant, Record, StartPark, StartWake
from poorwill.core.machine.holds import HoldQueue
from poorwill.core.machine.inputs import Demand, Input, ParkSucceeded, Tick, WakeSucceeded
from poorwill.core.machine.replica import Load, Replica
from poorwill.core.policy import FloorSchedule, NoFloor, Policy
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import Cause, HoldId, ModelName, ReplicaId, Tier
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.account import SpanAccount, account_outcome
from poorwill.planner.simulation.outcome import TELL_EVERY, Outcome, Progress, waits_of
from poorwill.planner.simulation.scenario import Scenario

NEVER = 2**62
UNBOUNDED = 2**61
TICKS_AT_ONCE = 20
"""More Ticks than this at one instant mean that one of them changes nothing, for ever."""


def simulate(
    arrival_us: Micros,
    service_us: Micros,
    scenario: Scenario,
    policy: Policy,
    *,
    floor: FloorSchedule | None = None,
    timeline: list[tuple[int, Cause]] | None = None,
    bridged: list[int] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Return what a policy costs on these requests, which must be sorted and within the span.

    The policy learns as it goes, so it must be new. `timeline`, if given, receives when each cause began.
    With `bridged` nobody waits for a wake: a request that finds the replica not ready goes to a hosted API
    while it wakes, and the list receives the indices of those requests. Policies and floors see the trace's
    times plus the scenario's origin.
    """
    run = Replay(
        scenario=scenario,
        cell=_cell(scenario, policy, floor or NoFloor()),
        timeline=timeline,
        bridged=bridged,
        progress=progress,
    )
    return run.replay(arrival_us.tolist(), service_us.tolist())


def _cell(scenario: Scenario, policy: Policy, floor: FloorSchedule) -> Cell:
    replica = Replica(
        id=ReplicaId("planned"),
        settings=ReplicaSettings(
            model=ModelName("planned"),
            max_concurrency=scenario.max_concurrency,
            hold=HoldSettings(count=UNBOUNDED, bytes=UNBOUNDED, age_us=UNBOUNDED),
            wake=WakeSettings(budget_us=UNBOUNDED, cap_us=UNBOUNDED),
            park=ParkSettings(ladder=scenario.ladder),
        ),
        policy=policy,
        floor=floor,
        load=Load(idle_since_us=scenario.origin_us),
        park_began_us=scenario.origin_us,
    )
    return Cell(replica, HoldQueue())


@dataclass(slots=True, kw_only=True)
class Replay:
    """One cell on its way through a trace, and its account: what fleet and ledger are in production."""

    scenario: Scenario
    cell: Cell
    timeline: list[tuple[int, Cause]] | None
    bridged: list[int] | None
    progress: Progress | None
    now_us: int = field(init=False)
    ends_us: int = field(init=False)
    running: list[int] = field(default_factory=list)
    """When the requests in flight will be done: a heap."""
    crossing: list[int] = field(default_factory=list)
    """When the requests at the hosted API will be done: a heap."""
    held: deque[tuple[int, int]] = field(default_factory=deque)
    """Arrival and service time of the requests that wait, in the order of their hold ids."""
    waits: list[int] = field(default_factory=list)
    ending: Input | None = None
    """What ends the wake or park under way."""
    ending_us: int = NEVER
    last_tick_us: int = -1
    ticks_at_once: int = 0
    wakes: int = 0
    woken: dict[Tier, int] = field(default_factory=lambda: defaultdict(int))
    """How many wakes there were from each tier."""
    account: SpanAccount = field(default_factory=SpanAccount)

    def __post_init__(self) -> None:
        scenario = self.scenario
        self.now_us = origin = scenario.origin_us
        self.ends_us = origin + scenario.span_us
        if scenario.starts_ready:
            span = self.cell.found_ready(origin)
        else:
            span = self.cell.found_parked(scenario.start_tier or scenario.ladder[-1], origin)
        self.account.began(origin, span.cause)
        if self.timeline is not None:
            self.timeline.append((origin, span.cause))

    def replay(self, arrivals: list[int], services: list[int]) -> Outcome:
        """Take every request in turn, run out the clock, and return the account."""
        origin, cell, running = self.scenario.origin_us, self.cell, self.running
        for index, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
            if self.progress is not None and index % TELL_EVERY == 0:
                self.progress(index / len(arrivals))
            now = arrival + origin
            self.advance(now)
            effects = cell.claim(now)
            if effects is not None:
                heappush(running, now + service)
                for effect in effects:
                    self.turn_over(effect.cause, now)
            elif self.bridged is None or not self.bridge(index, now, service):
                self.hold(now, service)
        self.advance(self.ends_us)
        account = self.account.closed(self.ends_us)
        while self.held:  # the account is closed; those who wait still say for how long
            self.advance(min(self.ending_us, running[0] if running else NEVER))
        return account_outcome(
            account,
            self.scenario,
            policy=cell.replica.policy.name,
            wakes=self.wakes,
            waits=waits_of(len(arrivals), np.asarray(self.waits, np.int64)),
        )

    def advance(self, until: int) -> None:
        """Let everything happen that happens before a request arriving at `until`."""
        running, crossing, cell = self.running, self.crossing, self.cell
        while True:
            done = running[0] if running else NEVER
            crossed = crossing[0] if crossing else NEVER
            if done <= until and done <= self.ending_us and done <= crossed:
                heappop(running)
                effects = cell.give_back(cell.generation, done)
                if effects:
                    self.carry_out(effects, done)
            elif self.ending is not None and self.ending_us <= until and self.ending_us <= crossed:
                ended, at_us = self.ending, self.ending_us
                self.ending, self.ending_us = None, NEVER
                self.feed(ended, at_us)
            elif not running and self.ending is None and self.tick(min(until, crossed)):
                continue
            elif crossed <= until:
                cell.bridge_over(heappop(crossing))
            else:
                return

    def tick(self, until: int) -> bool:
        """Give the Tick that is due before `until`; False if there is none."""
        due = self.cell.next_tick_us(self.now_us)
        at_us = NEVER if due is None else max(due, self.now_us)
        if at_us >= until:
            return False
        again = at_us == self.last_tick_us
        self.ticks_at_once, self.last_tick_us = (self.ticks_at_once + 1) * again, at_us
        assert self.ticks_at_once < TICKS_AT_ONCE, "a Tick that is due changes nothing, for ever"
        self.feed(Tick(), at_us)
        return True

    def hold(self, now: int, service: int) -> None:
        """Register the demand of a request that got no lease."""
        self.held.append((now, service))
        hold = HoldId(len(self.waits) + len(self.held))
        self.feed(Demand(hold=hold, size_bytes=0, asked_by="trace", request=""), now)

    def bridge(self, index: int, now: int, service: int) -> bool:
        """Send a request to the hosted API, if that is where it goes now."""
        effects = self.cell.bridge("trace", now)
        if effects is None or self.bridged is None:
            return False
        self.bridged.append(index)
        heappush(self.crossing, now + service)
        self.carry_out(effects, now)
        return True

    def feed(self, what: Input, now: int) -> None:
        """Give the cell an input and do what follows."""
        self.carry_out(self.cell.feed(what, now), now)

    def carry_out(self, effects: Sequence[Effect], now: int) -> None:
        """Do the effects: wakes and parks take the scenario's time, grants start a service."""
        self.now_us = now
        for effect in effects:
            if isinstance(effect, ChangeCause):
                self.turn_over(effect.cause, now)
            elif isinstance(effect, Record):
                if isinstance(effect.entry, SpanOpened):
                    self.turn_over(effect.entry.cause, now)
            elif isinstance(effect, Grant):
                arrived, service = self.held.popleft()
                self.waits.append(now - arrived)
                heappush(self.running, now + service)
            elif isinstance(effect, StartWake):
                times = self.scenario.times(effect.from_tier).wake_us
                turn = self.woken[effect.from_tier]
                self.woken[effect.from_tier] = turn + 1
                self.wakes += now < self.ends_us
                self.ending = WakeSucceeded(generation=effect.generation)
                self.ending_us = now + times[turn % len(times)]
            elif isinstance(effect, StartPark):
                self.ending = ParkSucceeded(generation=effect.generation)
                self.ending_us = now + self.scenario.times(effect.to_tier).park_us
            else:
                raise AssertionError(f"{effect} cannot happen on a virtual clock")

    def turn_over(self, cause: Cause, now: int) -> None:
        """A span ends and the next begins."""
        if self.timeline is not None:
            self.timeline.append((now, cause))
        self.account.turn_over(now, cause)
