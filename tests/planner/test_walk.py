"""The walk from stretch to stretch against the simulation of every input."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.format import DAY_US
from poorwill.core.policy import NoFloor
from poorwill.core.settings import PolicySettings
from poorwill.core.words import Tier
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.synthetic import Draw, draw_trace
from poorwill.planner.simulation.evaluate import Workload, evaluate, levels_of, loads_of, new_policy
from poorwill.planner.simulation.outcome import Outcome
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.planner.simulation.walk import Walk
from poorwill.policies import make_policy

few = st.integers(0, 25)
rows = st.lists(st.tuples(few | st.integers(0, 400), few), max_size=80)


@pytest.mark.parametrize("name", ["fixed", "break-even", "ladder", "adaptive"])
@settings(max_examples=50, deadline=None)
@given(
    rows,
    st.lists(few, min_size=1, max_size=3),
    few,
    few,
    st.integers(1, 60),
    st.sampled_from([1, 1000, 997_123]),
    st.sampled_from([0, 1_793_491_200_000_000 + 86_399_999_000]),
    st.sampled_from([0, 500_000]),
    st.sampled_from([Tier.ASLEEP, Tier.FROZEN, Tier.COLD]),
)
def test_the_walk_equals_the_simulation(name, rows, wakes, park, idle, beyond, unit, origin, price, tier):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64) * unit
    services = np.array([service for _, service in rows], np.int64) * unit
    wake_us = tuple(wake * unit for wake in wakes)
    times = TierTimes(tier=tier, wake_us=wake_us, park_us=park * unit, parked_nusd_h=2_000_003)
    scenario = Scenario(
        span_us=sum(gap for gap, _ in rows) * unit + beyond * unit,
        active_nusd_h=3_800_000_007,
        tiers=(times,),
        origin_us=origin,
        wait_nusd_s=price if name != "adaptive" else 0,
    )
    settings = PolicySettings(name=name, idle_us=idle * unit, wait_nusd_s=scenario.wait_nusd_s)

    def policy():
        return make_policy(settings, ladder=scenario.ladder, costs=scenario.costs())

    for bridges in [False] if name == "adaptive" else [False, True]:
        gone, went = ([], []) if bridges else (None, None)
        walk = Walk(scenario=scenario, policy=policy(), bridged=gone)
        walked = walk.replay(arrivals, services)
        simulated = simulate(arrivals, services, scenario, policy(), bridged=went)

        for field in fields(Outcome):
            if field.name != "waits":
                assert getattr(walked, field.name) == getattr(simulated, field.name), field.name
        assert walked.waits.requests == simulated.waits.requests
        assert walked.waits.held_us.tolist() == simulated.waits.held_us.tolist()
        assert gone == went


@pytest.mark.parametrize("limit", [0, 1])
def test_progress_is_told_within_a_policy(limit):
    arrivals = np.arange(0, 45_000, dtype=np.int64) * 1_000_000
    times = TierTimes(tier=Tier.FROZEN, wake_us=(5_000_000,), park_us=0, parked_nusd_h=0)
    scenario = Scenario(span_us=45_000_000_000, active_nusd_h=10**9, tiers=(times,), max_concurrency=limit)
    policy = make_policy(
        PolicySettings(name="fixed", idle_us=10_000_000), ladder=scenario.ladder, costs=scenario.costs()
    )
    told = []
    evaluate(
        Workload(model="m", arrival_us=arrivals, service_us=np.full(45_000, 500_000)),
        scenario,
        [(policy, NoFloor())],
        progress=told.append,
    )
    assert told == sorted(told)
    assert len(told) >= 2
    assert told[-1] < 1


@pytest.mark.parametrize(
    ("kind", "price", "depth", "decided"),
    [
        ("bursty", 0, 1, (43_620_184_131, 332, 53_911_433_169)),
        ("bursty", 300_000, 1, (43_816_949_350, 331, 53_595_421_239)),
        ("office-hours", 300_000, 2, (29_865_233_607, 549, 14_963_755_476)),
        ("poisson", 0, 2, (40_984_450_790, 751, 15_487_655_616)),
    ],
)
def test_adaptive_decides_as_ever(kind, price, depth, decided):
    """Whoever makes it faster changes none of its decisions: cost, wakes and waits as they were."""
    cold = TierTimes(tier=Tier.COLD, wake_us=(95_000_000,), park_us=10_000_000, parked_nusd_h=0)
    frozen = replace(cold, tier=Tier.FROZEN, wake_us=(20_000_000,), parked_nusd_h=90_000_000)
    trace = draw_trace(Draw(kind=kind, span_us=4 * DAY_US, requests_per_day=200, seed=7))
    scenario = Scenario(
        span_us=4 * DAY_US,
        active_nusd_h=3_800_000_000,
        tiers=(frozen, cold)[-depth:],
        origin_us=trace.origin_us or 0,
        wait_nusd_s=price,
    )
    (load,) = loads_of(trace, ServiceRule())
    adaptive = PolicySettings(name="adaptive", wait_nusd_s=price)
    found = evaluate(load, scenario, levels_of(lambda: new_policy(adaptive, scenario), scenario))
    assert (found.cost_nusd, found.wakes, found.waits.total_us) == decided
