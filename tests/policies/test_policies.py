"""Break-even, the ladder, measured costs, the account in shadow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policies.pasts import DAY, FROZEN, S, costs, gaps_of, hourly, teach

from poorwill.core.errors import OperatorFault
from poorwill.core.policy import LearnsFromTimes, LearnsFromWakes, Rung
from poorwill.core.settings import PolicySettings
from poorwill.core.words import HOUR_US, Tier
from poorwill.policies import (
    Shadowed,
    adaptive,
    break_even,
    break_even_us,
    descend,
    envelope_after_us,
    fixed_idle,
    idle_problem,
    make_policy,
)
from poorwill.policies.costs import park_cost
from poorwill.policies.replay import Plan, Prices, cross
from poorwill.policies.shadow import plan_of

LADDER = {
    Tier.ASLEEP: costs(wake=2, park=1, parked=1_900_000_000),
    Tier.FROZEN: costs(wake=10, park=10, parked=100_000_000),
    Tier.COLD: costs(wake=120, park=5, parked=0),
}


# costs


def test_free_parking_breaks_even_on_one_cycle():
    assert break_even_us(costs()) == 115 * S


def test_the_break_even_counts_waiting():
    # (3.8 x (20 + 95) - 0.02 x 20) / (3.8 - 0.02) = 115.50264...
    even = break_even_us(costs(parked=20_000_000))
    assert even == 115_502_646
    # 0.001 $/s x 3600 = 3.6 $/h for 95 s on top: + 3.6 x 95 / 3.8 = 90 s
    assert break_even_us(costs(), wait_nusd_s=1_000_000) == 205 * S


def test_nothing_is_saved_by_parking_at_the_active_rate():
    assert break_even_us(costs(parked=3_800_000_000)) is None
    policy = break_even(ladder=(Tier.ASLEEP,), costs={Tier.ASLEEP: costs(parked=3_800_000_000)})
    assert policy.descent(5).rungs == ()


def test_the_break_even_costs_at_most_twice():
    tier = costs(wake=50, park=5, parked=300_000_000)
    even = break_even_us(tier)
    assert even is not None
    prices = Prices({Tier.FROZEN: tier}, tier.active_nusd_h)

    def cost(after, gap):
        return cross(Plan(((Tier.FROZEN, after),)), 0, gap, prices)[0]

    for gap in (1, S, even - 1, even, even + 1, 2 * even, DAY):
        best = min(gap * tier.active_nusd_h, cost(0, gap))
        assert cost(even, gap) <= 2 * best + tier.active_nusd_h


@given(
    st.builds(costs, wake=st.integers(1, 500), park=st.integers(0, 100), parked=st.integers(0, 3 * 10**9)),
    st.integers(0, 10**7),
    st.integers(1, 100),
    st.integers(1, 100),
    st.floats(0, 3),
)
def test_the_bound_with_a_price_of_waiting(tier, wait_nusd_s, expected, held, part):
    """Against each instant to park: of gaps around the break-even, for wakes that hold more or fewer."""
    even = break_even_us(tier, wait_nusd_s=wait_nusd_s * expected)
    gap, prices = max(round(even * part), 1), Prices({Tier.FROZEN: tier}, tier.active_nusd_h)

    def cost(after):
        paid, ready = cross(Plan(((Tier.FROZEN, after),)), 0, gap, prices)
        return paid + (ready - gap) * 3600 * wait_nusd_s * held, max(ready - gap - tier.wake_us, 0)

    best = min(cost(gap * after // 10)[0] for after in range(11))
    theirs, ours = (park_cost(tier, wait_nusd_s=wait_nusd_s * count) for count in (held, expected))
    mine, for_the_park = cost(even)
    beyond = tier.active_nusd_h + for_the_park * 3600 * wait_nusd_s * held
    assert mine <= (1 + max(theirs / ours, ours / theirs)) * best * (1 + 1e-12) + beyond


def test_the_ladder_follows_the_lowest_line():
    schedule = dict(envelope_after_us(LADDER, tuple(LADDER)))
    assert list(schedule) == [Tier.ASLEEP, Tier.FROZEN, Tier.COLD]

    def line(tier, idle):
        if tier is None:
            return idle * 3_800_000_000
        c = LADDER[tier]
        transit = c.active_nusd_h * (c.park_us + c.wake_us) - c.parked_nusd_h * c.park_us
        return transit + idle * c.parked_nusd_h

    for idle in (S, 5 * S, 6 * S, 30 * S, 40 * S, 600 * S, 3600 * S, 5000 * S, DAY):
        inside = [tier for tier, after in schedule.items() if after <= idle]
        here = inside[-1] if inside else None
        lowest = min(line(tier, idle) for tier in (None, *LADDER))
        # Switching times are rounded up to a microsecond.
        assert line(here, idle) <= lowest + 3_800_000_000


def test_a_tier_that_no_gap_favours_is_left_out():
    dear = {**LADDER, Tier.SUSPENDED: costs(wake=100, park=20, parked=99_000_000)}
    ladder = (Tier.ASLEEP, Tier.FROZEN, Tier.SUSPENDED, Tier.COLD)
    assert Tier.SUSPENDED not in dict(envelope_after_us(dear, ladder))


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50), st.integers(0, 4000)), min_size=1, max_size=5)
)
def test_a_ladder_only_goes_deeper_and_later(tiers):
    known = {
        tier: costs(wake=wake, park=park, parked=rate * 1_000_000)
        for tier, (wake, park, rate) in zip(Tier, tiers, strict=False)
    }
    schedule = envelope_after_us(known, tuple(known))
    order = [list(Tier).index(tier) for tier, _ in schedule]
    assert order == sorted(set(order))
    times = [after for _, after in schedule]
    assert times == sorted(set(times)) or len(times) < 2


def test_an_idle_time_below_the_break_even_is_explained():
    problem = idle_problem(90 * S, costs())
    assert problem is not None
    assert "1m 55s" in problem.what and "115" in problem.hint
    assert idle_problem(115 * S, costs()) is None


# costs that are measured while it runs


def after_s(policy, tier=Tier.FROZEN):
    return next(rung.at_us for rung in policy.descent(0).rungs if rung.tier is tier) / S


def test_the_break_even_follows_measurement():
    policy = make_policy(PolicySettings(name="break-even"), ladder=(Tier.FROZEN,), costs=FROZEN)
    assert isinstance(policy, LearnsFromTimes)
    assert after_s(policy) == 115, "as predicted: 95 s to wake, 20 s to park"
    policy.wakes_took(Tier.FROZEN, [5 * S])
    assert after_s(policy) == 25
    policy.wakes_took(Tier.FROZEN, [5 * S, 7 * S, 400 * S])
    assert after_s(policy) == 27, "the median: one freak does not rule it"
    for _ in range(3):
        policy.park_took(Tier.FROZEN, 2 * S)
    assert after_s(policy) == 9
    policy.wakes_took(Tier.COLD, [99 * S])
    assert after_s(policy) == 9, "no tier of its ladder"


def test_the_ladder_drops_a_tier_that_costs():
    policy = make_policy(PolicySettings(name="ladder"), ladder=tuple(LADDER), costs=LADDER)
    assert [rung.tier for rung in policy.descent(0).rungs] == list(LADDER)
    policy.wakes_took(Tier.FROZEN, [500 * S])
    assert [rung.tier for rung in policy.descent(0).rungs] == [Tier.ASLEEP, Tier.COLD]


def test_shadows_follow_measured_times():
    wanted = PolicySettings(name="break-even", shadow="ladder")
    policy = make_policy(wanted, ladder=(Tier.FROZEN,), costs=FROZEN)
    assert isinstance(policy, Shadowed) and isinstance(policy, LearnsFromTimes)
    policy.wakes_took(Tier.FROZEN, [5 * S])
    policy.park_took(Tier.FROZEN, 1 * S)
    assert after_s(policy) == 6


@pytest.mark.parametrize("wait", [0, 3_000_000])
def test_adaptive_relearns_when_times_are_far(wait):
    wanted = PolicySettings(name="adaptive", wait_nusd_s=wait)
    policy = make_policy(wanted, ladder=(Tier.FROZEN,), costs=FROZEN)
    assert isinstance(policy, LearnsFromTimes) and isinstance(policy, LearnsFromWakes)
    gaps = gaps_of(lambda rng: rng.randint(1, 300) * S, 60)
    idle = teach(policy, gaps, joined=(60 * S,))
    fresh = make_policy(wanted, ladder=(Tier.FROZEN,), costs={Tier.FROZEN: costs(wake=4, park=2)})
    # The same demand and waits, told to one that knew the times from the beginning.
    for stretch in list(policy.lived):
        fresh.observe(stretch.idle_since_us, stretch.demand_at_us)
        for waits in stretch.waits_us:
            fresh.woke(waits)
    assert policy.policy.even_us > 100 * S
    policy.park_took(Tier.FROZEN, 2 * S)
    policy.wakes_took(Tier.FROZEN, [4 * S, 4 * S, 5 * S])
    assert policy.policy.stretches == fresh.policy.stretches >= 60
    assert policy.policy.even_us == fresh.policy.even_us
    assert policy.descent(idle) == fresh.descent(idle)


def test_adaptive_keeps_when_times_are_near():
    policy = make_policy(PolicySettings(name="adaptive"), ladder=(Tier.FROZEN,), costs=FROZEN)
    teach(policy, [600 * S] * 20)
    knows = policy.policy
    policy.wakes_took(Tier.FROZEN, [100 * S])
    policy.wakes_took(Tier.COLD, [1 * S])  # not on its ladder
    assert policy.policy is knows


# make_policy


def test_every_name_of_fleet_toml_makes_its_policy():
    for name in ("break-even", "ladder", "adaptive"):
        policy = make_policy(PolicySettings(name=name), ladder=tuple(LADDER), costs=LADDER)
        assert policy.name == name
        assert policy.descent(10 * S).rungs
    fixed = make_policy(
        PolicySettings(name="fixed", idle_us=7 * S, rungs_us={Tier.COLD: 60 * S}),
        ladder=tuple(LADDER),
        costs=LADDER,
    )
    assert fixed.descent(S).rungs == (Rung(Tier.ASLEEP, 8 * S), Rung(Tier.COLD, 61 * S))
    with pytest.raises(OperatorFault):
        make_policy(PolicySettings(name="clairvoyant"), ladder=tuple(LADDER), costs=LADDER)


def test_a_shadow_is_not_in_charge():
    settings_ = PolicySettings(name="break-even", shadow="adaptive")
    policy = make_policy(settings_, ladder=(Tier.FROZEN,), costs=FROZEN)
    assert isinstance(policy, Shadowed)
    assert policy.name == "break-even"
    assert policy.descent(0).rungs == (Rung(Tier.FROZEN, 115 * S),)


# shadow


def test_the_shadow_account_of_the_same_policy_is_the_same():
    even = break_even(ladder=(Tier.FROZEN,), costs=FROZEN)
    shadowed = Shadowed(running=even, shadow=even, prices=Prices(FROZEN, FROZEN[Tier.FROZEN].active_nusd_h))
    teach(shadowed, gaps_of(lambda rng: rng.randint(1, 900) * S, 200))
    account = shadowed.account()
    assert account.stretches == 200
    assert account.running_nusd == account.shadow_nusd > 0
    assert account.running_wakes == account.shadow_wakes > 0


def test_the_shadow_says_what_a_longer_linger_would_have_cost():
    prices = Prices(FROZEN, FROZEN[Tier.FROZEN].active_nusd_h)
    shadowed = Shadowed(
        running=break_even(ladder=(Tier.FROZEN,), costs=FROZEN),
        shadow=fixed_idle(((Tier.FROZEN, HOUR_US),)),
        prices=prices,
    )
    begin = 10 * DAY
    for turn in range(10):  # a gap of 1800 s, then 5 s of work after a wake of 95 s
        idle = begin + turn * 1900 * S
        shadowed.observe(idle, idle + 1800 * S)
    account = shadowed.account()
    each = 3_800_000_000 / HOUR_US
    # Running: linger 115, park 20, wake 95 in each of ten gaps, 5 s of work in nine blocks between.
    assert account.running_nusd == round((10 * (115 + 20 + 95) + 9 * 5) * S * each)
    # In shadow: ready throughout; without the delay its blocks end 95 s earlier, its gaps are as much longer.
    assert account.shadow_nusd == round((10 * 1800 + 9 * 100) * S * each)
    assert (account.running_wakes, account.shadow_wakes) == (10, 0)
    assert account.running_waited_s == 950 and account.shadow_waited_s == 0


def test_the_ladder_of_a_shadow_is_read_back_as_a_plan():
    prices = Prices(LADDER, 3_800_000_000)
    policy = descend(ladder=tuple(LADDER), costs=LADDER)
    assert plan_of(policy, 50 * S, prices) == Plan(policy.after_us)


def test_a_plan_with_a_wake_ahead_is_read_back():
    policy = adaptive(ladder=(Tier.FROZEN,), costs=FROZEN, wait_nusd_s=20_000_000)
    idle = hourly(policy)
    prices = Prices(FROZEN, 3_800_000_000)
    plan = plan_of(policy, idle, prices)
    assert plan.ahead is not None and plan.ahead.stay_us > 0
    assert plan == policy.choice_for(idle).plan


# what follows the wakes and the meter


def test_break_even_counts_the_requests_held():
    settings = PolicySettings(name="break-even", wait_nusd_s=2_000_000)
    policy = make_policy(settings, ladder=(Tier.FROZEN,), costs=FROZEN)
    alone = policy.descent(0).rungs[0].at_us
    for _ in range(60):
        policy.woke([95 * S] * 100)
    crowded = policy.descent(0).rungs[0].at_us
    waits = 2_000_000 * 3600 * FROZEN[Tier.FROZEN].wake_us
    saved = FROZEN[Tier.FROZEN].active_nusd_h - FROZEN[Tier.FROZEN].parked_nusd_h
    assert crowded - alone == pytest.approx(99 * waits / saved, rel=0.01)


@pytest.mark.parametrize(("idle_min", "parks_min"), [(2, 59), (58, 59), (59, 59), (60, 119)])
def test_parks_as_the_paid_hour_ends(idle_min, parks_min):
    hour = {Tier.FROZEN: replace(FROZEN[Tier.FROZEN], park_us=60 * S, increment_us=HOUR_US)}
    policy = make_policy(PolicySettings(name="break-even"), ladder=(Tier.FROZEN,), costs=hour)
    policy.metered(0, running=True)
    assert policy.descent(idle_min * 60 * S).rungs == (Rung(Tier.FROZEN, parks_min * 60 * S),)


def test_a_wake_as_a_park_ends_is_one_stretch():
    hour = {Tier.FROZEN: replace(FROZEN[Tier.FROZEN], park_us=60 * S, increment_us=HOUR_US)}
    policy = make_policy(PolicySettings(name="break-even"), ladder=(Tier.FROZEN,), costs=hour)
    policy.metered(0, running=True)
    policy.metered(600 * S, running=False)
    policy.metered(600 * S, running=True)
    assert policy.descent(1200 * S).rungs[0].at_us == HOUR_US - 60 * S
    policy.metered(1800 * S, running=False)
    policy.metered(1860 * S, running=True)
    assert policy.descent(2000 * S).rungs[0].at_us == HOUR_US + 1800 * S
