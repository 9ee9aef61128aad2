"""The clairvoyant policy against all decisions there are, and against every other policy."""

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.policy import Descent, Rung
from poorwill.core.words import Tier
from poorwill.planner.simulation.block_optimum import block_optimum
from poorwill.planner.simulation.clairvoyant import clairvoyant, searched
from poorwill.planner.simulation.evaluate import Contest, Workload, entrants
from poorwill.planner.simulation.scenario import Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate
from poorwill.policies import adaptive, descend, fixed_idle

ACTIVE = 3_600
"""A nano-dollar a second: costs are then small numbers, and ties are frequent."""


def world(*, span, wakes=(7,), park=3, parked=900, wait=0, limit=0, cold=None):
    tiers = [TierTimes(tier=Tier.FROZEN, wake_us=wakes, park_us=park, parked_nusd_h=parked)]
    if cold is not None:
        tiers.append(TierTimes(tier=Tier.COLD, wake_us=(cold,), park_us=1, parked_nusd_h=0))
    return Scenario(
        span_us=span,
        active_nusd_h=ACTIVE,
        tiers=tuple(tiers),
        wait_nusd_s=wait,
        max_concurrency=limit,
        start_tier=Tier.FROZEN,
    )


def objective(outcome, scenario):
    """Exactly, in nano-dollars an hour times microseconds."""
    return outcome.cost_numerator + outcome.waits.total_us * scenario.wait_nusd_s * 3600


@dataclass
class Script:
    """Knows the arrivals and does in the n-th idle stretch what the n-th word says."""

    words: tuple[str, ...]
    arrivals: list[int]
    wake: int
    turn: int = 0
    name: str = "script"
    asked: dict[int, Descent] = field(default_factory=dict)

    def observe(self, idle_since_us, demand_at_us, *, others=0):
        pass

    def descent(self, idle_since_us):
        if idle_since_us not in self.asked:
            word = self.words[self.turn] if self.turn < len(self.words) else "park"
            self.turn += 1
            self.asked[idle_since_us] = self._plan(word, idle_since_us)
        return self.asked[idle_since_us]

    def _plan(self, word, idle):
        if word == "stay":
            return Descent(())
        rungs = (Rung(Tier.FROZEN, idle),)
        coming = [arrival for arrival in self.arrivals if arrival > idle]
        if word == "ahead" and coming:
            return Descent(rungs, wake_at_us=coming[0] - self.wake)
        return Descent(rungs)


rows = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 12)), min_size=1, max_size=5)


def columns(rows):
    arrivals = np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    return arrivals, np.array([service for _, service in rows], np.int64)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 30), st.integers(0, 9), st.integers(0, 6), st.sampled_from([0, 1, 2]))
def test_no_script_of_decisions_beats_it(rows, beyond, wake, park, limit):
    arrivals, services = columns(rows)
    scenario = world(span=int(arrivals[-1]) + beyond, wakes=(wake,), park=park, limit=limit)
    best = objective(clairvoyant(arrivals, services, scenario), scenario)
    scripts = [
        objective(
            simulate(arrivals, services, scenario, Script(words, arrivals.tolist(), wake)),
            scenario,
        )
        for words in product(("stay", "park"), repeat=len(rows))
    ]
    assert min(scripts) == best


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(1, 30), st.integers(1, 9), st.integers(0, 6))
def test_no_script_beats_its_wakes_ahead(rows, beyond, wake, park):
    arrivals, services = columns(rows)
    arrivals = arrivals + 40  # the first request can be met, too
    scenario = world(span=int(arrivals[-1]) + beyond, wakes=(wake,), park=park, wait=2)
    best = clairvoyant(arrivals, services, scenario)
    scripts = [
        objective(
            simulate(arrivals, services, scenario, Script(words, arrivals.tolist(), wake)),
            scenario,
        )
        for words in product(("stay", "park", "ahead"), repeat=len(rows))
    ]
    # Scripts cannot meet the first request: the replica starts parked, and no stretch precedes it.
    assert objective(best, scenario) <= min(scripts)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=25),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.integers(0, 8),
    st.sampled_from([0, 1, 5]),
    st.sampled_from([0, 1, 3]),
)
def test_no_policy_beats_it(rows, wakes, park, wait, limit):
    arrivals, services = columns(rows)
    scenario = world(
        span=int(arrivals[-1]) + 30, wakes=tuple(wakes), park=park, wait=wait, limit=limit, cold=15
    )
    ladder = (Tier.FROZEN, Tier.COLD)
    best = objective(clairvoyant(arrivals, services, scenario), scenario)
    policies = [
        *(fixed_idle(((Tier.FROZEN, idle),)) for idle in (0, 1, 5, 20, 1000)),
        fixed_idle(((Tier.COLD, 3),)),
        fixed_idle(((Tier.FROZEN, 2), (Tier.COLD, 30))),
        descend(ladder=ladder, costs=scenario.costs(), wait_nusd_s=wait),
        adaptive(ladder=ladder, costs=scenario.costs(), wait_nusd_s=wait),
    ]
    for policy in policies:
        assert best <= objective(simulate(arrivals, services, scenario, policy), scenario)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=20),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_no_entrant_beats_it(rows, wakes):
    """Whichever tier each begins in: the first start is cold, a policy of one tier begins in its own."""
    arrivals, services = columns(rows)
    scenario = replace(world(span=int(arrivals[-1]) + 30, wakes=tuple(wakes), cold=15), start_tier=None)
    load = Workload(model="m", arrival_us=arrivals, service_us=services)
    ways = entrants(Contest(scenario=scenario, cold=scenario.tiers[-1], idles_us=(0, 5, 20)))
    found = {way.name: way.run(load, None, None).cost_numerator for way in ways}
    assert found["clairvoyant"] == min(found.values())


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=20),
    st.sampled_from([0, 1, 2, 5]),
    st.sampled_from([0, 2]),
)
def test_its_account_is_consistent(rows, wait, limit):
    arrivals, services = columns(rows)
    scenario = world(span=int(arrivals[-1]) + 15, wait=wait, limit=limit, cold=12)
    outcome = clairvoyant(arrivals, services, scenario)
    assert outcome.active_us + sum(outcome.parked_us.values()) == scenario.span_us
    assert 0 <= outcome.useful_us <= outcome.active_us
    assert outcome.waits.requests == len(rows)


def test_a_delayed_completion_may_save_a_wake():
    # Parking before the second request delays it so far that the third finds the replica serving.
    arrivals = np.array([0, 100, 112], np.int64)
    services = np.array([1, 5, 5], np.int64)
    outcome = clairvoyant(arrivals, services, world(span=300, wakes=(10,), park=2, parked=0))
    # wake 10 + 1 served + park 2; wake 10 at 100, served 110..117 (both), park 2
    assert outcome.active_us == (10 + 1 + 2) + (10 + 7 + 2)
    assert outcome.wakes == 2


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=40),
    st.integers(1, 60),
    st.integers(0, 12),
    st.integers(0, 8),
    st.sampled_from([None, 0, 15]),
    st.sampled_from([0, 900, 4000]),
)
def test_block_by_block_it_is_the_search(rows, beyond, wake, park, cold, parked):
    arrivals, services = columns(rows)
    span = int(arrivals[-1] if rows else 0) + beyond
    scenario = world(span=span, wakes=(wake,), park=park, parked=parked, cold=cold)
    found = block_optimum(arrivals, services, scenario)
    exact = searched(arrivals, services, scenario)
    assert found.cost_numerator == exact.cost_numerator
    assert found.active_us + sum(found.parked_us.values()) == span
    assert found.waits.requests == len(rows)
