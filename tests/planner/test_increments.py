"""Billing increments and minimums: policies against every decision there is, planner against ledger."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.entries import Alive, ParkEnded, ReplicaCreated, SpanOpened
from poorwill.core.format import DAY_US
from poorwill.core.settings import PolicySettings, RateSettings
from poorwill.core.words import PARKED_CAUSES, ModelName, ReplicaId, Tier
from poorwill.ledger.costs.items import items
from poorwill.ledger.dates import Period
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import migrate
from poorwill.ledger.writing.entries import Applier
from poorwill.planner.simulation.clairvoyant import clairvoyant
from poorwill.planner.simulation.evaluate import Workload, new_policy, swept_outcome
from poorwill.planner.simulation.scenario import Billing, Scenario, TierTimes
from poorwill.planner.simulation.simulate import simulate

S = 1_000_000


@st.composite
def demand(draw, longest=60):
    """A few requests and a span that ends after them, in seconds."""
    gaps = draw(st.lists(st.integers(0, 20), min_size=1, max_size=5))
    arrivals = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    services = draw(st.lists(st.integers(1, 6), min_size=len(gaps), max_size=len(gaps)))
    return arrivals, services, min(arrivals[-1] + draw(st.integers(5, 30)), longest + 40)


WORLDS = st.builds(
    lambda increment, minimum, wake, park, active, resting: Scenario(
        span_us=0,
        active_nusd_h=active,
        tiers=(
            TierTimes(
                tier=Tier.HIBERNATED,
                wake_us=(wake * S,),
                park_us=park * S,
                parked_nusd_h=min(resting, active),
            ),
        ),
        billing=Billing(increment_us=increment * S, minimum_us=minimum * S),
    ),
    st.integers(1, 15),
    st.integers(0, 20),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 10),
    st.integers(0, 3),
)


def world(scenario, span):
    return Scenario(
        span_us=span * S,
        active_nusd_h=scenario.active_nusd_h,
        tiers=scenario.tiers,
        billing=scenario.billing,
    )


def arrays(arrivals, services):
    return np.array(arrivals, np.int64) * S, np.array(services, np.int64) * S


def least_cost(arrivals, services, scenario):
    """Return the least cost over every decision: in each second stay, park, or wake."""
    times = scenario.tiers[0]
    wake, park = times.wake_us[0] // S, times.park_us // S
    active, resting, span = scenario.active_nusd_h, times.parked_nusd_h, scenario.span_us // S
    added = scenario.added_us

    @cache
    def ready(at, following, busy, since):
        """Ready at `at`, requests before `following` in service until `busy`."""
        while following < len(arrivals) and arrivals[following] <= at:
            busy = max(busy, at + services[following])
            following += 1
        if at >= span:
            return 0
        if busy > at:
            return active + ready(at + 1, following, busy, since)
        return min(active + ready(at + 1, following, busy, since), parking(at, following, since))

    def parking(at, following, since):
        down = at + park
        if following < len(arrivals) and arrivals[following] < down:
            return 10**9  # production would cancel, or wait for it: never better than to stay
        if down > span:
            return active * (span - at)
        return active * (down - at) + resting_from(down, following, since, down)

    @cache
    def resting_from(at, following, since, down):
        over = active * added(since * S, down * S) // S if since is not None else 0
        if at >= span:
            return over
        ways = []
        due = following < len(arrivals) and arrivals[following] <= at
        begins = since if since is not None and at == down else at
        kept = 0 if since is not None and at == down else over
        up = min(at + wake, span)
        ways.append(kept + active * (up - at) + ready(up, following, up, begins))
        if not due:
            ways.append(resting + resting_from(at + 1, following, since, down))
        return min(ways)

    return resting_from(0, 0, None, 0)


@settings(max_examples=150, deadline=None)
@given(WORLDS, demand())
def test_the_yardstick_is_the_least_cost(scenario, asked):
    arrivals, services, span = asked
    scenario = world(scenario, span)
    found = clairvoyant(*arrays(arrivals, services), scenario)
    assert found.cost_numerator == least_cost(tuple(arrivals), tuple(services), scenario) * S


@settings(max_examples=300, deadline=None)
@given(WORLDS, demand(), st.sampled_from(["break-even", "ladder", "adaptive"]))
def test_policies_keep_their_bound(scenario, asked, name):
    arrivals, services, span = asked
    scenario = world(scenario, span)
    requests = arrays(arrivals, services)
    best = clairvoyant(*requests, scenario).cost_numerator
    policy = new_policy(PolicySettings(name=name), scenario)
    cost = simulate(*requests, scenario, policy).cost_numerator
    increment = max(scenario.billing.increment_us, scenario.billing.minimum_us) * scenario.active_nusd_h
    assert cost <= 2 * best + increment


@settings(max_examples=200, deadline=None)
@given(WORLDS, demand(), st.integers(0, 30))
def test_sweep_and_simulation_add_alike(scenario, asked, idle):
    arrivals, services, span = asked
    scenario = world(scenario, span)
    requests = arrays(arrivals, services)
    fixed = new_policy(PolicySettings(name="fixed", idle_us=idle * S), scenario)
    one = simulate(*requests, scenario, fixed)
    load = Workload(model="m", arrival_us=requests[0], service_us=requests[1])
    swept = swept_outcome(load, scenario, idle * S)
    for figure in ("wakes", "active_us", "useful_us", "added_us", "cost_numerator"):
        assert getattr(one, figure) == getattr(swept, figure), figure
    assert one.waits.held_us.tolist() == swept.waits.held_us.tolist()


@contextmanager
def ledger_of(timeline, *, price, images, ends_us) -> Iterator[sqlite3.Connection]:
    """A ledger in memory with a replica that lived as the timeline says."""
    replica = ReplicaId("m.0")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, ":memory:")
        applier = Applier(db)
        rate = RateSettings(
            active_nusd_h=price.active_nusd_h,
            parked_nusd_h={Tier(tier): nusd for tier, nusd in price.parked_nusd_h.items()},
            storage_nusd_gb_month=price.storage_nusd_gb_month,
            increment_us=price.increment_us,
            minimum_us=price.minimum_us,
        )
        sync_rates(db, [rate], now_us=0)
        begins_us = timeline[0][0]
        entries = [ReplicaCreated(replica=replica, model=ModelName("m"), driver="cold", at_us=begins_us)]
        for tier, size in images.items():
            entries.append(
                ParkEnded(
                    replica=replica,
                    at_us=begins_us,
                    began_us=begins_us,
                    to_tier=tier,
                    ok=True,
                    image_bytes=size,
                )
            )
        for at_us, cause in timeline:
            tier = Tier(cause.removeprefix("parked.")) if cause in PARKED_CAUSES else None
            entries.append(SpanOpened(replica=replica, at_us=at_us, cause=cause, tier=tier))
        applier.apply([*entries, Alive(at_us=ends_us)])
        yield db


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40_000), min_size=1, max_size=8),
    st.integers(1, 7200),
    st.integers(0, 5000),
    st.integers(0, 10**12),
    st.integers(0, 10**9),
    st.integers(0, 10**11),
    st.sampled_from(["break-even", "ladder", "adaptive", "fixed"]),
)
def test_planner_and_ledger_agree(gaps, increment, minimum, active, resting, image, name):
    """The same history, priced by both: equal to the nano-dollar."""
    arrivals = np.cumsum(np.array(gaps, np.int64)) * S + 123_457
    services = np.full(len(gaps), 700_001, np.int64)
    scenario = Scenario(
        span_us=int(arrivals[-1]) + 3600 * S,
        active_nusd_h=active,
        tiers=(
            TierTimes(tier=Tier.ASLEEP, wake_us=(2 * S,), park_us=S, parked_nusd_h=active // 2),
            TierTimes(
                tier=Tier.FROZEN, wake_us=(9 * S, 11 * S), park_us=7 * S, parked_nusd_h=0, image_bytes=image
            ),
            TierTimes(tier=Tier.HIBERNATED, wake_us=(95 * S,), park_us=20 * S, parked_nusd_h=resting),
        ),
        billing=Billing(increment_us=increment * S, minimum_us=minimum * S, storage_nusd_gb_month=70_000_000),
        origin_us=20_000 * DAY_US + 80_000 * S,
    )
    policy = new_policy(PolicySettings(name=name, idle_us=300 * S), scenario)
    timeline = []
    planned = simulate(arrivals, services, scenario, policy, timelines=[timeline])
    ends_us = scenario.origin_us + scenario.span_us
    spans = [one for one in timeline if one[0] <= ends_us]
    with ledger_of(spans, price=scenario.price, images={Tier.FROZEN: image}, ends_us=ends_us) as db:
        billed = items(db, Period(from_us=scenario.origin_us, to_us=ends_us))
    assert planned.cost_nusd == sum(item.nusd for item in billed)
