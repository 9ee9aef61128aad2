"""Policies without the machine: from idle stretch to idle stretch instead of from input to input.

For one tier, unlimited concurrency, no floor, and production's policies as long as they wake on demand alone.
They are told what production's cell tells them, in the same order. Tests hold the account equal to that of
`simulate`.
"""

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from poorwill.core.machine.transition import REMEMBERED_WAKES
from poorwill.core.policy import LearnsFromTimes, LearnsFromWakes, Policy
from poorwill.core.words import LINGER, PARK, SERVING, Cause, Phase, parked, waking
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.account import SpanAccount, account_outcome
from poorwill.planner.simulation.busy_blocks import new_blocks, packed
from poorwill.planner.simulation.outcome import TELL_EVERY, Outcome, Progress, waits_of
from poorwill.planner.simulation.scenario import Scenario

WAKING = waking(Phase.PROVISION)


@dataclass(slots=True, kw_only=True)
class Walk:
    """One replica on its way along its busy blocks."""

    scenario: Scenario
    policy: Policy
    progress: Progress | None = None
    account: SpanAccount = field(default_factory=SpanAccount)
    wakes: int = 0
    recent_us: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_WAKES))
    bridged: list[int] | None = None
    """If it is given nobody waits: who finds no replica ready goes to a hosted API while one wakes, and the
    list receives the indices of those requests."""
    waits: "array[int]" = field(default_factory=lambda: array("q"))
    learns_waits: LearnsFromWakes | None = field(init=False)
    learns_times: LearnsFromTimes | None = field(init=False)

    def __post_init__(self) -> None:
        policy = self.policy
        self.learns_waits = policy if isinstance(policy, LearnsFromWakes) else None
        self.learns_times = policy if isinstance(policy, LearnsFromTimes) else None

    def replay(self, arrival_us: Micros, service_us: Micros) -> Outcome:
        """Walk along all blocks and return the account."""
        if self.bridged is not None:
            return self.bridge(arrival_us, service_us)
        scenario = self.scenario
        origin, span_ends = scenario.origin_us, scenario.origin_us + scenario.span_us
        blocks = new_blocks(arrival_us + origin, service_us, span_ends)
        arrivals, services = packed(blocks.arrival_us), packed(service_us)
        begins, ends = blocks.begin_us.tolist(), blocks.end_us.tolist()
        firsts = [*blocks.first.tolist(), len(arrivals)]
        rests = parked(scenario.tiers[0].tier)
        self.account.began(origin, rests)
        tell_at = 0
        block, idle_us, others = 0, None, 0  # nothing is learnt of the time before the first request
        while block < len(begins):
            if self.progress is not None and block >= tell_at:
                self.progress(block / len(begins))
                tell_at = block + TELL_EVERY
            first, demand_us, alone = firsts[block], begins[block], 1
            woken_us = demand_us if idle_us is None else self.cross(idle_us, demand_us, others)
            if woken_us is None:
                self.turn_over(demand_us, SERVING)
                idle_us = ends[block]
            else:
                ready_us, upto = self.wake(woken_us, arrivals, first)
                if ready_us > span_ends:
                    break
                alone = upto - first
                while upto < len(arrivals) and arrivals[upto] <= ready_us:  # those nobody waited for
                    upto += 1
                done = min(ready_us + max(services[first:upto]), span_ends)
                while block + 1 < len(begins) and begins[block + 1] <= done:
                    block += 1
                idle_us = max(done, ends[block])
            block += 1
            others = firsts[block] - first - alone
            self.turn_over(idle_us, LINGER)
        else:
            if idle_us is not None:
                self.cross(idle_us, span_ends, 0)
        return self.outcome(len(arrivals))

    def bridge(self, arrival_us: Micros, service_us: Micros) -> Outcome:
        """Go from request to request if nobody waits, under a policy that learns nothing of demand."""
        origin, span_ends = self.scenario.origin_us, self.scenario.origin_us + self.scenario.span_us
        arrivals, services = packed(arrival_us + origin), packed(service_us)
        self.account.began(origin, parked(self.scenario.tiers[0].tier))
        index = tell_at = 0
        idle_us, lingers_us, busy = origin, 0, False
        while index < len(arrivals):
            if self.progress is not None and index >= tell_at:
                self.progress(index / len(arrivals))
                tell_at = index + TELL_EVERY
            arrival = arrivals[index]
            if not busy or arrival > idle_us:
                if busy:
                    self.turn_over(idle_us, LINGER)
                if not busy or arrival > idle_us + lingers_us:
                    woken_us = self.cross(idle_us, arrival, 0) if index else arrival
                    busy = woken_us is None
                    if woken_us is not None:
                        idle_us, index = self.wake(woken_us, arrivals, index)
                        rungs = self.policy.descent(idle_us).rungs  # until the next park it decides alike
                        lingers_us = rungs[0].at_us - idle_us if rungs else 0
                        continue
                self.turn_over(arrival, SERVING)
            idle_us = max(idle_us, arrival + services[index])
            index += 1
        if busy:
            self.turn_over(idle_us, LINGER)
        if arrivals and idle_us < span_ends:
            self.cross(idle_us, span_ends, 0)
        return self.outcome(len(arrivals))

    def outcome(self, requests: int) -> Outcome:
        """Close the account at the end of the span and return it."""
        return account_outcome(
            self.account.closed(self.scenario.origin_us + self.scenario.span_us),
            self.scenario,
            policy=self.policy.name,
            wakes=self.wakes,
            waits=waits_of(requests, np.frombuffer(self.waits, np.int64)),
        )

    def cross(self, idle_us: int, demand_us: int, others: int) -> int | None:
        """Go through an idle stretch; return when its demand's wake begins, None if it needs none."""
        policy, times = self.policy, self.scenario.tiers[0]
        rungs = policy.descent(idle_us).rungs
        parks_us = max(rungs[0].at_us, idle_us) if rungs else demand_us
        if parks_us >= demand_us:
            policy.observe(idle_us, demand_us, others=others)
            return None
        parked_us = parks_us + times.park_us
        self.turn_over(parks_us, PARK)
        if parked_us > demand_us:  # the demand comes first
            policy.observe(idle_us, demand_us, others=others)
        else:
            self.turn_over(parked_us, parked(times.tier))
        if self.learns_times is not None:
            self.learns_times.park_took(times.tier, times.park_us)
        if parked_us <= demand_us:
            policy.observe(idle_us, demand_us, others=others)
        return max(parked_us, demand_us)

    def wake(self, woken_us: int, arrivals: Sequence[int], first: int) -> tuple[int, int]:
        """Wake for the first request; return when the replica is ready, and the first request after that."""
        times = self.scenario.tiers[0]
        took_us = times.wake_us[self.wakes % len(times.wake_us)]
        ready_us = woken_us + took_us
        upto = first + 1
        while upto < len(arrivals) and arrivals[upto] < ready_us:
            upto += 1
        waits = list[int]()
        if self.bridged is None:
            waits = [ready_us - arrival for arrival in arrivals[first:upto]]
            self.waits.extend(waits)
        else:
            self.bridged.extend(range(first, upto))
        self.wakes += woken_us < self.scenario.origin_us + self.scenario.span_us
        self.turn_over(woken_us, WAKING)
        self.turn_over(ready_us, SERVING if waits else LINGER)
        self.recent_us.append(took_us)
        if self.learns_waits is not None:
            self.learns_waits.woke(waits)
        if self.learns_times is not None:
            self.learns_times.wakes_took(times.tier, tuple(self.recent_us))
        return ready_us, upto

    def turn_over(self, at_us: int, cause: Cause) -> None:
        """A span ends and the next begins, unless the account is closed by then."""
        if at_us <= self.scenario.origin_us + self.scenario.span_us:
            self.account.turn_over(at_us, cause)
