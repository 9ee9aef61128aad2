"""The exact evaluator: a trace through the production policy, `step` and gate, on a virtual clock.

As in production a request that finds the gate open never passes through `step`; the policy is told of
every idle stretch that ends with demand; spans say what is paid for. At the same instant requests come
back first, then transitions end, then requests arrive, and last of all a linger ends: a request that
arrives at the very instant at which a linger would end finds the replica ready.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

import numpy as np

from poorwill.core.entries import SpanOpened
from poorwill.core.machine.effects import Effect, Grant, Record, StartPark, StartWake
from poorwill.core.machine.gate import Gate, Load
from poorwill.core.machine.inputs import (
    Demand,
    Input,
    ParkSucceeded,
    Returned,
    Tick,
    WakeAsked,
    WakeSucceeded,
)
from poorwill.core.machine.lifecycle import State
from poorwill.core.machine.replica import Replica, next_wakeup_us
from poorwill.core.machine.step import step
from poorwill.core.machine.transition import idle_cause
from poorwill.core.policy import FloorSchedule, LearnsFromWakes, NoFloor, Policy
from poorwill.core.settings import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings
from poorwill.core.words import (
    LINGER,
    PARKED_CAUSES,
    SERVING,
    Cause,
    HoldId,
    ModelName,
    ReplicaId,
    Tier,
    parked,
)
from poorwill.planner.simulation.outcome import Outcome, cost_numerator, waits_of
from poorwill.planner.simulation.scenario import Scenario
from poorwill.planner.traces.trace import Micros

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
) -> Outcome:
    """Return what a policy costs on these requests, which must be sorted and within the span.

    The policy learns as it goes, so it must be new. `timeline`, where given, receives when each cause
    began. With `bridged` nobody waits for a wake: who finds the replica not ready goes to a hosted API
    while it wakes, and the list receives which requests those were. Policies and floors see the trace's
    times plus the scenario's origin.
    """
    run = Run(
        scenario=scenario,
        policy=policy,
        floor=floor or NoFloor(),
        timeline=timeline,
        bridged=bridged,
    )
    run.replay(arrival_us.tolist(), service_us.tolist())
    return run.outcome(len(arrival_us))


@dataclass(slots=True, kw_only=True)
class Run:
    """One replica on its way through a trace: what `fleet` is in production."""

    scenario: Scenario
    policy: Policy
    floor: FloorSchedule
    timeline: list[tuple[int, Cause]] | None
    bridged: list[int] | None
    listener: LearnsFromWakes | None = field(init=False)
    replica: Replica = field(init=False)
    gate: Gate = field(init=False)
    now_us: int = field(init=False)
    ends_us: int = field(init=False)
    running: list[int] = field(default_factory=list)
    """When the requests in flight will be done: a heap."""
    held: deque[tuple[int, int]] = field(default_factory=deque)
    """Arrival and service time of the requests that wait, in the order of their hold ids."""
    waits: list[int] = field(default_factory=list)
    transition: Input | None = None
    """The end of the wake or park under way."""
    transition_us: int = NEVER
    quiet_since_us: int | None = None
    """When the last request ended, until the policy has been told of the demand that followed."""
    tick_us: int | None = None
    """When the next Tick is due; None: to be asked for."""
    last_tick_us: int = -1
    ticks_at_once: int = 0
    wakes: int = 0
    woken: dict[Tier, int] = field(default_factory=dict)
    active_us: int = 0
    useful_us: int = 0
    parked_us: dict[Tier, int] = field(default_factory=dict)
    span_began_us: int = field(init=False)
    span_cause: Cause = field(init=False)
    busy_since_us: int | None = None

    def __post_init__(self) -> None:
        scenario, policy = self.scenario, self.policy
        self.listener = policy if isinstance(policy, LearnsFromWakes) else None
        ladder = tuple(times.tier for times in scenario.tiers)
        self.now_us = self.span_began_us = scenario.origin_us
        self.ends_us = scenario.origin_us + scenario.span_us
        self.replica = Replica(
            id=ReplicaId("planned"),
            settings=ReplicaSettings(
                model=ModelName("planned"),
                max_concurrency=scenario.max_concurrency,
                hold=HoldSettings(count=UNBOUNDED, bytes=UNBOUNDED, age_us=UNBOUNDED),
                wake=WakeSettings(budget_us=UNBOUNDED, cap_us=UNBOUNDED),
                park=ParkSettings(ladder=ladder),
            ),
            policy=self.policy,
            floor=self.floor,
            tier=scenario.start_tier or ladder[-1],
            load=Load(idle_since_us=self.now_us),
        )
        self.span_cause = parked(self.replica.tier)
        if scenario.starts_ready:
            self.span_cause = LINGER
            load = Load(idle_since_us=self.now_us, cause=LINGER)
            self.replica = replace(self.replica, state=State.READY, load=load)
        self.gate = Gate(limit=scenario.max_concurrency, open=scenario.starts_ready)
        self.gate.idle_since_us, self.gate.cause = self.now_us, self.span_cause
        if self.timeline is not None:
            self.timeline.append((self.now_us, self.span_cause))

    def replay(self, arrivals: list[int], services: list[int]) -> None:
        """Take every request in turn, then run out the clock."""
        origin, gate, running = self.scenario.origin_us, self.gate, self.running
        for index, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
            now = arrival + origin
            self.advance(now)
            if gate.claim():
                heappush(running, now + service)
                if gate.in_flight == 1:
                    self.turned_busy(now)
            elif self.bridged is not None and self.replica.state is not State.READY:
                self.bridged.append(index)
                self.bridge(now, service)
            else:
                self.hold(now, service)
        self.advance(self.ends_us)
        while self.held:  # the account is closed; those who wait still say for how long
            self.advance(min(self.transition_us, self.running[0] if self.running else NEVER))

    def advance(self, until: int) -> None:
        """Let everything happen that happens before a request arriving at `until`."""
        running, gate = self.running, self.gate
        while True:
            done = running[0] if running else NEVER
            if done <= until and done <= self.transition_us:
                heappop(running)
                told = gate.give_back(done)
                if gate.in_flight == 0:
                    self.turned_idle(done, told=told)
                if told:
                    self.feed(Returned(), done)
            elif self.transition is not None and self.transition_us <= until:
                self.end_transition()
            elif running or self.transition is not None or not self.tick(until):
                return

    def tick(self, until: int) -> bool:
        """Give the Tick that is due before `until`; False where there is none."""
        if self.tick_us is None:
            due = next_wakeup_us(self.observed(), self.now_us)
            self.tick_us = NEVER if due is None else max(due, self.now_us)
        if self.tick_us >= until:
            return False
        again = self.tick_us == self.last_tick_us
        self.ticks_at_once, self.last_tick_us = (self.ticks_at_once + 1) * again, self.tick_us
        assert self.ticks_at_once < TICKS_AT_ONCE, "a Tick that is due changes nothing, for ever"
        self.feed(Tick(), self.tick_us)
        return True

    def hold(self, now: int, service: int) -> None:
        """Register the demand of a request that found the gate closed."""
        self.learn(now)
        self.held.append((now, service))
        hold = HoldId(len(self.waits) + len(self.held))
        self.feed(Demand(hold=hold, size_bytes=0, asked_by="trace", request=""), now)

    def bridge(self, now: int, service: int) -> None:
        """Wake the replica for a request that a hosted API serves meanwhile."""
        self.learn(now)
        self.quiet_since_us = now + service
        self.feed(WakeAsked(asked_by="bridge", why="demand", demand=True), now)

    def learn(self, now: int) -> None:
        """Tell the policy that an idle stretch has ended with demand; once for each stretch."""
        if self.quiet_since_us is not None:
            self.policy.observe(self.quiet_since_us, now, others=self.gate.others())
            self.quiet_since_us = None

    def turned_busy(self, now: int) -> None:
        """The first request is in flight: on the warm path no step sees it."""
        self.now_us, self.busy_since_us, self.gate.cause = now, now, SERVING
        self.learn(now)
        if self.timeline is not None:
            self.timeline.append((now, SERVING))

    def turned_idle(self, now: int, *, told: bool) -> None:
        """The last request in flight is done."""
        assert self.busy_since_us is not None
        ends = self.ends_us
        self.useful_us += min(now, ends) - min(self.busy_since_us, ends)
        self.now_us, self.quiet_since_us, self.busy_since_us = now, now, None
        self.tick_us = None
        if self.timeline is not None and not told:
            cause, _ = idle_cause(self.observed(), now)
            self.timeline.append((now, cause))

    def end_transition(self) -> None:
        """The wake or park under way is over."""
        ended, at_us = self.transition, self.transition_us
        assert ended is not None
        self.transition, self.transition_us = None, NEVER
        if self.listener is not None and isinstance(ended, WakeSucceeded):
            self.listener.woke([at_us - arrived for arrived, _ in self.held])
        self.feed(ended, at_us)

    def observed(self) -> Replica:
        """Return the replica with the gate's present count, as a step must see it.

        Put into the value in place: it came out of `step` and nobody else has it, and a copy of all its
        fields would cost more than most steps.
        """
        object.__setattr__(self.replica, "load", self.gate.load())
        return self.replica

    def feed(self, what: Input, now: int) -> None:
        """Do what the fleet does around a step: the gate's count in, the effects out."""
        gate = self.gate
        self.now_us, self.tick_us = now, None
        after, effects = step(self.observed(), what, now)
        self.replica = after
        gate.in_flight, gate.waiting = after.load.in_flight, len(after.holds)
        gate.idle_since_us, gate.cause = after.load.idle_since_us, after.load.cause
        gate.open = after.gate_open
        for effect in effects:
            self.carry_out(effect, now)
        if self.busy_since_us is None and gate.in_flight:
            self.busy_since_us, self.quiet_since_us = now, None

    def carry_out(self, effect: Effect, now: int) -> None:
        """Do one effect: transitions take the scenario's time, grants start a service."""
        if isinstance(effect, Record):
            if isinstance(effect.entry, SpanOpened):
                self.turn_over(effect.entry.cause, now)
        elif isinstance(effect, Grant):
            arrived, service = self.held.popleft()
            self.waits.append(now - arrived)
            heappush(self.running, now + service)
        elif isinstance(effect, StartWake):
            times = self.scenario.times(effect.from_tier).wake_us
            turn = self.woken.get(effect.from_tier, 0)
            self.woken[effect.from_tier] = turn + 1
            self.wakes += now < self.ends_us
            self.transition = WakeSucceeded(generation=effect.generation)
            self.transition_us = now + times[turn % len(times)]
        elif isinstance(effect, StartPark):
            self.transition = ParkSucceeded(generation=effect.generation)
            self.transition_us = now + self.scenario.times(effect.to_tier).park_us
        else:
            raise AssertionError(f"{effect} cannot happen on a virtual clock")

    def turn_over(self, cause: Cause, now: int) -> None:
        """A span ends and the next begins: add the ended one to the account."""
        if self.timeline is not None:
            self.timeline.append((now, cause))
        if cause not in PARKED_CAUSES and self.span_cause not in PARKED_CAUSES:
            return
        length = min(now, self.ends_us) - min(self.span_began_us, self.ends_us)
        if self.span_cause in PARKED_CAUSES:
            tier = Tier(self.span_cause.removeprefix("parked."))
            self.parked_us[tier] = self.parked_us.get(tier, 0) + length
        else:
            self.active_us += length
        self.span_began_us, self.span_cause = now, cause

    def outcome(self, requests: int) -> Outcome:
        """Close the account at the end of the span."""
        if self.busy_since_us is not None and self.busy_since_us < self.ends_us:
            self.useful_us += self.ends_us - self.busy_since_us
        active_us, parked_us = self.active_us, dict(self.parked_us)
        left = max(self.ends_us - self.span_began_us, 0)
        if self.span_cause in PARKED_CAUSES:
            tier = Tier(self.span_cause.removeprefix("parked."))
            parked_us[tier] = parked_us.get(tier, 0) + left
        else:
            active_us += left
        scenario = self.scenario
        return Outcome(
            policy=self.policy.name,
            idle_us=None,
            wakes=self.wakes,
            active_us=active_us,
            useful_us=self.useful_us,
            parked_us=parked_us,
            cost_numerator=cost_numerator(active_us, scenario.active_nusd_h, parked_us, scenario.rates()),
            waits=waits_of(requests, np.asarray(self.waits, np.int64)),
        )
