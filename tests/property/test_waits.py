"""Who waits for a place that is expected sooner than a wake would end waits twice as long as that at most."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from poorwill.core.policy import NoFloor
from poorwill.core.words import Tier
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.policies import fixed_idle

REQUESTS = st.lists(
    st.tuples(st.integers(0, 400), st.one_of(st.integers(1, 60), st.integers(200, 3_000))), max_size=30
)
"""How long after the one before it each request comes, and how long it takes, in milliseconds."""


@settings(max_examples=100, deadline=None)
@given(requests=REQUESTS, slots=st.integers(1, 3), wake_ms=st.integers(1, 500), idle_ms=st.integers(0, 900))
def test_nobody_waits_more_than_twice(
    requests: list[tuple[int, int]], slots: int, wake_ms: int, idle_ms: int
) -> None:
    """However wrong the expectation is: services here are drawn so that the past says nothing."""
    wake_us = wake_ms * 1_000
    drawn = np.array(requests, np.int64).reshape(-1, 2) * 1_000
    arrivals, services = np.cumsum(drawn[:, 0]), drawn[:, 1]
    scenario = Scenario(
        span_us=10**9,
        active_nusd_h=1,
        tiers=(TierTimes(tier=Tier.COLD, wake_us=(wake_us,), park_us=1, parked_nusd_h=0),),
        max_concurrency=slots,
    )
    policy = fixed_idle(((Tier.COLD, idle_ms * 1_000),))
    others = [(policy, NoFloor())] * len(requests)  # there is always another one to be woken
    outcome = simulate(arrivals, services, scenario, policy, others=others)
    assert max(outcome.waits.held_us, default=0) <= 2 * wake_us
