"""The walk from stretch to stretch against the simulation of every input."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.policy import NoFloor
from poorwill.core.settings import PolicySettings
from poorwill.core.words import Tier
from poorwill.planner.simulation.evaluate import Workload, evaluate
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
