"""The adaptive policy: what it learns, its bound, the schedules it follows, the wakes ahead of demand."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policies.pasts import DAY, FROZEN, S, costs, gaps_of, hourly, teach

from poorwill.core.policy import LearnsFromWakes, Rung
from poorwill.core.words import HOUR_US, Tier
from poorwill.policies import adaptive
from poorwill.policies.adaptive import BOUND, SLACK, THIN
from poorwill.policies.ahead import Forecast, Stakes
from poorwill.policies.costs import park_cost
from poorwill.policies.past import Work
from poorwill.policies.replay import Ahead, Block, Plan, Prices, cross


def test_with_little_history_it_is_the_break_even_rule():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    idle = teach(policy, [10 * S] * (THIN - 1))
    descent = policy.descent(idle)
    assert descent.rungs == (Rung(Tier.FROZEN, idle + 115 * S),)
    assert "break-even" in descent.why


def test_it_parks_at_once_if_gaps_are_long():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    idle = teach(policy, gaps_of(lambda rng: rng.randint(3600, 7200) * S, 30))
    assert policy.descent(idle).rungs[0].at_us - idle <= 5 * S


def test_it_stays_ready_if_gaps_are_short():
    # Every gap is just beyond the break-even, so that rule parks for nothing each time.
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    idle = teach(policy, gaps_of(lambda rng: rng.randint(118, 125) * S, 60), busy=120 * S)
    linger = policy.descent(idle).rungs[0].at_us - idle
    assert linger > 125 * S or linger <= 5 * S


def test_a_descent_is_pure():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    idle = teach(policy, gaps_of(lambda rng: rng.randint(1, 4000) * S, 40))
    first = policy.descent(idle)
    policy.descent(idle + 77 * S)
    policy.descent(idle + DAY)
    assert policy.descent(idle) == first


def test_odd_history_does_no_harm():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    idle = teach(policy, [600 * S] * 10)
    before = policy.descent(idle)
    policy.observe(idle - DAY, idle - DAY + 5)  # before what is known
    policy.observe(idle, idle)  # no gap
    assert policy.descent(idle) == before


def test_it_wakes_ahead_of_hourly_demand():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN, wait_nusd_s=20_000_000)
    idle = hourly(policy)
    descent = policy.descent(idle)
    assert descent.wake_at_us is not None
    ready = descent.wake_at_us + 95 * S
    assert idle + HOUR_US - 300 * S <= ready <= idle + HOUR_US - 100 * S
    assert descent.rungs[-1].at_us > ready, "nothing says when to park again"


def test_free_waiting_needs_no_wake_ahead():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    assert policy.descent(hourly(policy)).wake_at_us is None


def test_it_learns_how_many_requests_a_wake_holds():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN, wait_nusd_s=1_000_000)
    assert isinstance(policy, LearnsFromWakes)
    for _ in range(100):
        policy.woke([95 * S, 95 * S, 95 * S, 95 * S])
    assert 3.9 < policy.held < 4.1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(1, 200), st.integers(100, 130), st.integers(1000, 100_000)),
        min_size=1,
        max_size=120,
    ),
    st.integers(0, 300),
    st.sampled_from([0, 300_000, 5_000_000]),
    st.sampled_from([(), (60 * S,), (80 * S, 50 * S, 1 * S)]),
)
def test_it_never_exceeds_its_bound(gaps, busy, wait, joined):
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN, wait_nusd_s=wait)
    teach(policy, [gap * S for gap in gaps], busy=busy * S + 1, joined=joined)
    even = policy.followers.spent[0]
    own = policy.followers.spent[-1]
    # One stretch may overshoot by one cycle; a wake ahead in vain and the wait after it are another.
    assert own <= (1 + BOUND) * even + (SLACK + 2) * policy.cycle


ASLEEP_FIRST = {
    Tier.ASLEEP: costs(wake=2, park=1, parked=3_000_000_000),
    Tier.HIBERNATED: costs(parked=20_000_000),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([(1, 20), (100, 200), (150, 400), (3600, 3620), (4000, 200_000)]),
            st.integers(1, 40),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 300_000, 5_000_000]),
    st.randoms(use_true_random=False),
)
def test_its_bound_holds_on_a_ladder(regimes, wait, random):
    policy = adaptive(ladder=tuple(ASLEEP_FIRST), costs=ASLEEP_FIRST, wait_nusd_s=wait)
    teach(policy, [random.randint(*edges) * S for edges, count in regimes for _ in range(count)])
    rule, own = policy.followers.spent[0], policy.followers.spent[-1]
    cycle = park_cost(ASLEEP_FIRST[Tier.HIBERNATED], wait_nusd_s=wait)
    assert own <= (1 + BOUND) * rule + (SLACK + 2) * cycle


def test_a_vain_wake_ahead_goes_on_down():
    policy = adaptive(ladder=tuple(ASLEEP_FIRST), costs=ASLEEP_FIRST, wait_nusd_s=20_000_000)
    idle = teach(policy, [200 * S] * 80)  # shorter than the envelope's way to `hibernated`
    descent = policy.descent(idle)
    assert descent.wake_at_us is not None
    again = [rung.tier for rung in descent.rungs if rung.at_us > descent.wake_at_us]
    assert again == [Tier.ASLEEP, Tier.HIBERNATED], "a sleeping engine costs almost what a ready one does"


def test_gaps_that_a_wake_hid_are_learnt_from_as_well():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    teach(policy, [HOUR_US] * 20, busy=2 * S)
    assert policy.stretches == 20
    # Sessions of three requests, 30 s apart: each wake holds them all, and makes one block of them.
    alone = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN)
    teach(alone, [HOUR_US] * 20, busy=2 * S, joined=(65 * S, 35 * S))
    assert alone.stretches > 50


# replay


@given(
    ready=st.integers(0, 400),
    begin=st.integers(0, 200),
    length=st.integers(1, 300),
    joined=st.lists(st.integers(1, 300), max_size=4),
)
def test_each_held_request_counts_its_own_wait(ready, begin, length, joined):
    block = Block(
        demand_us=0,
        ended_us=500 * S,
        longest_us=9 * S,
        joined_us=[at * S for at in joined],
        others=1000,
        from_us=begin * S,
        to_us=(begin + length) * S,
    )
    spread = [begin + length * (turn + 0.5) / 1000 for turn in range(1000)]
    waits = sum(max(ready - at, 0) for at in [*joined, *spread])
    assert block.waits_us(ready * S) == pytest.approx(waits * S, rel=0.01, abs=10 * S)


def test_crossing_a_gap_costs_what_the_exact_model_says():
    tier = costs(wake=95, park=20, active=3_600, parked=36)
    prices = Prices({Tier.FROZEN: tier}, 3_600)
    plan = Plan(((Tier.FROZEN, 10 * S),))
    # Stayed ready.
    assert cross(plan, 0, 10 * S, prices) == (10 * S * 3_600, 10 * S)
    # On its way down: waits for the park's end, then wakes.
    assert cross(plan, 0, 15 * S, prices) == ((10 + 20 + 95) * S * 3_600, 125 * S)
    # Parked for 70 s.
    assert cross(plan, 0, 100 * S, prices) == ((30 + 95) * S * 3_600 + 70 * S * 36, 195 * S)


def test_a_wake_ahead_meets_the_demand_or_is_in_vain():
    tier = costs(wake=95, park=20, active=3_600, parked=36)
    prices = Prices({Tier.FROZEN: tier}, 3_600)
    plan = Plan(((Tier.FROZEN, 0),), Ahead(wake_at_us=1000 * S, stay_us=50 * S))
    met = cross(plan, 0, 1100 * S, prices)
    assert met == ((20 + 95 + 5) * S * 3_600 + 980 * S * 36, 1100 * S)
    _, ready = cross(plan, 0, 1050 * S, prices)
    assert ready == 1095 * S
    cost, ready = cross(plan, 0, 2000 * S, prices)
    assert ready == 2095 * S
    assert cost == (20 + 95 + 50 + 20 + 95) * S * 3_600 + (980 + 2000 - 1165) * S * 36


def test_a_delay_is_taken_out_of_a_block():
    work = Work()
    for _ in range(10):
        assert work.natural_end_us(0, 5 * S, 0) == 5 * S
        work.learn(5 * S)
    assert work.natural_end_us(0, 100 * S, 95 * S) == 5 * S
    # A block that went on long after the wake was ended by later requests, which no wake delays.
    assert work.natural_end_us(0, 1000 * S, 95 * S) > 990 * S


def test_blocks_that_grow_are_learnt_after_any_past():
    work = Work()
    for length in [5 * S] * 300 + [50 * S] * 120:
        work.learn(length)
    assert work.longest_us == 50 * S


# forecast


def stakes(waiting):
    return Stakes(wake_us=95 * S, park_us=20 * S, ready_nusd_h=3_800_000_000, waiting_nusd_h=waiting)


def test_gaps_of_no_pattern_are_not_forecast():
    rng = random.Random(1)
    forecast = Forecast()
    now = 0
    for _ in range(32):
        gap = round(rng.expovariate(1 / (6 * 3600)) * S) + 300 * S
        forecast.observe(now, now + gap)
        now += gap
    assert forecast.ahead(now, parked_us=now + 30 * S, stakes=stakes(4_000_000_000)) is None


def test_a_morning_hour_is_forecast():
    rng = random.Random(2)
    forecast = Forecast()
    for day in range(20):
        evening = day * DAY + round(rng.uniform(14, 23) * 3600) * S
        forecast.observe(evening, (day + 1) * DAY + 9 * HOUR_US + rng.randint(0, 300) * S)
    idle = 20 * DAY + 17 * HOUR_US
    ahead = forecast.ahead(idle, parked_us=idle + 30 * S, stakes=stakes(100_000_000_000))
    assert ahead is not None
    ready = (ahead.wake_at_us + 95 * S) % DAY
    assert 9 * HOUR_US - 300 * S <= ready <= 9 * HOUR_US + 300 * S
