"""The evaluators of fixed idle times against the exact model written as plainly as possible."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.machine.step import step
from poorwill.core.words import Tier
from poorwill.planner.simulation.busy_blocks import new_blocks
from poorwill.planner.simulation.evaluate import TimelineWindow
from poorwill.planner.simulation.outcome import waits_of
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.planner.simulation.sweep import sweep
from poorwill.policies import fixed_idle


@dataclass
class Account:
    wakes: int
    active_us: int
    useful_us: int
    waits_us: list[int]


def by_hand(
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
def test_the_sweep_equals_the_plain_model(rows, idles, wake, park, beyond):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    services = np.array([service for _, service in rows], np.int64)
    span = int(arrivals[-1]) + beyond
    blocks = new_blocks(arrivals, services, span)

    swept = sweep(blocks, idles, wake_us=wake, park_us=park)

    for index, idle in enumerate(idles):
        plain = by_hand(arrivals.tolist(), services.tolist(), span=span, idle=idle, wake=wake, park=park)
        assert swept.wakes[index] == plain.wakes
        assert swept.active_us[index] == plain.active_us
        assert swept.useful_us[index] == plain.useful_us
        assert swept.held[index] == sum(wait > 0 for wait in plain.waits_us)
        assert swept.waited_us[index] == sum(plain.waits_us)


def one_tier(*, span, wake, park, limit=0):
    times = TierTimes(tier=Tier.FROZEN, wake_us=(wake,), park_us=park, parked_nusd_h=2_000_003)
    return Scenario(span_us=span, active_nusd_h=3_800_000_007, tiers=(times,), max_concurrency=limit)


@settings(max_examples=300, deadline=None)
@given(requests, steps, steps, steps, st.integers(1, 60), st.integers(0, 3))
def test_simulation_equals_the_plain_model(rows, idle, wake, park, beyond, limit):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    services = np.array([service for _, service in rows], np.int64)
    span = int(arrivals[-1]) + beyond
    scenario = one_tier(span=span, wake=wake, park=park, limit=limit)

    outcome = simulate(arrivals, services, scenario, fixed_idle(((Tier.FROZEN, idle),)))

    plain = by_hand(
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


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 700_000_000), st.integers(0, 90_000_000)), min_size=1, max_size=60),
    st.lists(st.integers(0, 900_000_000), min_size=1, max_size=5),
    st.integers(0, 200_000_000),
    st.integers(0, 60_000_000),
    st.integers(1, 10**9),
)
def test_sweep_equals_simulation(rows, idles, wake, park, beyond):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    services = np.array([service for _, service in rows], np.int64)
    span = int(arrivals[-1]) + beyond
    swept = sweep(new_blocks(arrivals, services, span), idles, wake_us=wake, park_us=park)
    scenario = one_tier(span=span, wake=wake, park=park)
    for index, idle in enumerate(idles):
        outcome = simulate(arrivals, services, scenario, fixed_idle(((Tier.FROZEN, idle),)))
        assert swept.wakes[index] == outcome.wakes
        assert swept.active_us[index] == outcome.active_us
        assert swept.useful_us[index] == outcome.useful_us
        assert swept.held[index] == len(outcome.waits.held_us)
        assert swept.waited_us[index] == outcome.waits.total_us


def test_chunks_of_a_sweep_add_up(monkeypatch):
    rng = np.random.default_rng(5)
    arrivals = np.cumsum(rng.integers(0, 300, 2000), dtype=np.int64)
    services = rng.integers(0, 60, 2000)
    blocks = new_blocks(arrivals, services, int(arrivals[-1]) + 100)
    idles = [250, 0, 7, 30, 90, 7]
    whole = sweep(blocks, idles, wake_us=95, park_us=20)
    monkeypatch.setattr("poorwill.planner.simulation.sweep.CHUNK", 10)
    parts = sweep(blocks, idles, wake_us=95, park_us=20)
    assert whole.active_us.tolist() == parts.active_us.tolist()
    assert whole.wakes.tolist() == parts.wakes.tolist()
    assert whole.waited_us.tolist() == parts.waited_us.tolist()


def test_the_last_instant_of_a_linger_is_ready():
    arrivals, services = np.array([0, 130], np.int64), np.array([10, 10], np.int64)
    scenario = one_tier(span=1000, wake=20, park=5)
    warm = simulate(arrivals, services, scenario, fixed_idle(((Tier.FROZEN, 100),)))
    parked = simulate(arrivals, services, scenario, fixed_idle(((Tier.FROZEN, 99),)))
    assert (warm.wakes, parked.wakes) == (1, 2)


def test_percentiles_are_nearest_ranks():
    waits = waits_of(10, np.array([0, 5, 5, 7, 9], np.int64))
    found = [waits.percentile_us(p) for p in (50, 60, 61, 70, 80, 90, 95, 99, 100)]
    assert found == [0, 0, 5, 5, 5, 7, 9, 9, 9]


def test_the_warm_path_does_not_pass_through_step(monkeypatch):
    passed = []

    def watching(replica, what, now):
        passed.append(type(what).__name__)
        return step(replica, what, now)

    monkeypatch.setattr("poorwill.core.machine.cell.step", watching)
    arrivals = np.arange(0, 1000, 10, dtype=np.int64)
    simulate(
        arrivals,
        np.full(100, 3, np.int64),
        one_tier(span=5000, wake=20, park=5),
        fixed_idle(((Tier.FROZEN, 100),)),
    )
    # Requests at 0, 10 and 20 wait or come with the readiness; the other 97 are leased by the gate alone.
    assert passed == ["Demand", "Demand", "WakeSucceeded", "Tick", "ParkSucceeded"]


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 40)), min_size=1, max_size=40),
    st.integers(0, 50),
    st.integers(0, 60),
    st.integers(0, 30),
    st.floats(0, 1),
)
def test_after_a_long_rest_the_past_is_nothing(rows, idle, wake, park, where):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    services = np.array([service for _, service in rows], np.int64)
    span = int(arrivals[-1]) + 300
    window = int(span * where), span
    begin = new_blocks(arrivals, services, span).rested(idle + 2 * park + wake, window[0])
    drawn = []
    for part in (slice(0, None), slice(begin, None)):
        drawn.append(TimelineWindow(*window))
        policy, scenario = fixed_idle(((Tier.FROZEN, idle),)), one_tier(span=span, wake=wake, park=park)
        simulate(arrivals[part], services[part], scenario, policy, timelines=drawn[-1:])
    whole, cut = ([(max(at, window[0]), cause) for at, cause in states] for states in drawn)
    assert whole == cut


def test_spans_add_up_to_the_account():
    rng = np.random.default_rng(8)
    arrivals = np.cumsum(rng.integers(0, 400, 80), dtype=np.int64)
    scenario = one_tier(span=int(arrivals[-1]) + 50, wake=30, park=9, limit=2)
    timeline = []
    outcome = simulate(
        arrivals,
        rng.integers(0, 60, 80),
        scenario,
        fixed_idle(((Tier.FROZEN, 100),)),
        timelines=[timeline],
    )
    ends = [at for at, _ in timeline[1:]] + [scenario.span_us]
    spent = {}
    for (begin, cause), end in zip(timeline, ends, strict=True):
        length = min(end, scenario.span_us) - min(begin, scenario.span_us)
        assert length >= 0
        spent[cause] = spent.get(cause, 0) + length
    assert sum(spent.values()) == scenario.span_us
    assert spent["serving"] == outcome.useful_us
    assert spent["parked.frozen"] == outcome.parked_us[Tier.FROZEN]


def test_with_a_bridge_nobody_waits():
    arrivals = np.array([0, 5, 200, 2000], np.int64)
    services = np.full(4, 10, np.int64)
    bridged = []
    outcome = simulate(
        arrivals,
        services,
        one_tier(span=3000, wake=95, park=20),
        fixed_idle(((Tier.FROZEN, 300),)),
        bridged=bridged,
    )
    assert bridged == [0, 1, 3]
    assert (outcome.waits.max_us, outcome.wakes) == (0, 2)
    assert outcome.useful_us == 10
