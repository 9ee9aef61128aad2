"""The evaluators of fixed idle times against the exact model written as plainly as possible."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.policy import FixedIdle
from poorwill.core.words import Tier
from poorwill.planner.blocks import new_blocks
from poorwill.planner.scenario import Scenario, TierTimes
from poorwill.planner.simulate import simulate
from poorwill.planner.sweep import sweep


@dataclass
class Account:
    wakes: int
    active_us: int
    useful_us: int
    waits_us: list[int]


def fixed_idle(
    arrivals: list[int],
    services: list[int],
    *,
    span: int,
    idle: int,
    wake: int,
    park: int,
    limit: int = 0,
) -> Account:
    """One replica under a fixed idle time, from the sentences of the specification."""
    active: list[tuple[int, int]] = []
    useful: list[tuple[int, int]] = []
    waits = [0] * len(arrivals)
    wakes = 0
    parked_since = 0
    next_request = 0
    while next_request < len(arrivals):
        start = max(arrivals[next_request], parked_since)
        wakes += start < span
        ready = start + wake
        running: list[int] = []
        last_done = ready
        while next_request < len(arrivals):
            arrival = arrivals[next_request]
            if arrival > ready and not [d for d in running if d >= arrival]:
                if arrival > last_done + idle:
                    break
            begins = max(arrival, ready)
            if limit and len([d for d in running if d > begins]) >= limit:
                begins = sorted(running)[-limit]
            done = begins + services[next_request]
            running.append(done)
            useful.append((begins, done))
            last_done = max(last_done, done)
            waits[next_request] = begins - arrival
            next_request += 1
        parked_since = last_done + idle + park
        active.append((start, parked_since))
    return Account(
        wakes=wakes,
        active_us=covered(active, span),
        useful_us=covered(useful, span),
        waits_us=waits,
    )


def covered(intervals: list[tuple[int, int]], span: int) -> int:
    total, upto = 0, 0
    for begin, end in sorted(intervals):
        begin, end = max(begin, upto), min(end, span)
        if end > begin:
            total += end - begin
            upto = end
    return total


steps = st.integers(0, 40)
requests = st.lists(st.tuples(steps, steps), min_size=1, max_size=40)


@settings(max_examples=400)
@given(requests, st.lists(steps, min_size=1, max_size=4), steps, steps, st.integers(1, 60))
def test_the_sweep_agrees_with_the_plain_model_to_the_microsecond(rows, idles, wake, park, beyond):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    services = np.array([service for _, service in rows], np.int64)
    span = int(arrivals[-1]) + beyond
    blocks = new_blocks(arrivals, services, span)

    swept = sweep(blocks, idles, wake_us=wake, park_us=park)

    for index, idle in enumerate(idles):
        plain = fixed_idle(
            arrivals.tolist(), services.tolist(), span=span, idle=idle, wake=wake, park=park
        )
        assert swept.wakes[index] == plain.wakes
        assert swept.active_us[index] == plain.active_us
        assert swept.useful_us[index] == plain.useful_us
        assert swept.held[index] == sum(wait > 0 for wait in plain.waits_us)
        assert swept.waited_us[index] == sum(plain.waits_us)


def one_tier(*, span, wake, park, limit=0):
    times = TierTimes(tier=Tier.FROZEN, wake_us=(wake,), park_us=park, parked_nusd_h=2_000_003)
    return Scenario(
        span_us=span, active_nusd_h=3_800_000_007, tiers=(times,), max_concurrency=limit
    )


@settings(max_examples=300, deadline=None)
@given(requests, steps, steps, steps, st.integers(1, 60), st.integers(0, 3))
def test_the_event_simulation_agrees_with_the_plain_model_to_the_microsecond(
    rows, idle, wake, park, beyond, limit
):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    services = np.array([service for _, service in rows], np.int64)
    span = int(arrivals[-1]) + beyond
    scenario = one_tier(span=span, wake=wake, park=park, limit=limit)

    outcome = simulate(arrivals, services, scenario, FixedIdle(((Tier.FROZEN, idle),)))

    plain = fixed_idle(
        arrivals.tolist(),
        services.tolist(),
        span=span,
        idle=idle,
        wake=wake,
        park=park,
        limit=limit,
    )
    assert outcome.wakes == plain.wakes
    assert outcome.active_us == plain.active_us
    assert outcome.useful_us == plain.useful_us
    assert outcome.waits.held_us.tolist() == sorted(wait for wait in plain.waits_us if wait)
    assert outcome.active_us + sum(outcome.parked_us.values()) == span
