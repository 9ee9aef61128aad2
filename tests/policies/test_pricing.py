"""What a provider charges for time, stored images, a minimum and an increment."""

import pytest

from poorwill.core.format import DAY_US
from poorwill.core.settings import RateSettings
from poorwill.core.words import HOUR_US, Tier
from poorwill.policies.pricing import (
    GB_BYTES,
    MONTH_H,
    MeteredStretch,
    Price,
    TimeCharge,
    paid_until_us,
    price_of,
    stretch_charges,
    time_charges,
)

S = 1_000_000
PRICE = Price(
    active_nusd_h=1_000,
    parked_nusd_h={"frozen": 7, "asleep": 300},
    storage_nusd_gb_month=80_000_000,
    increment_us=60 * S,
    minimum_us=90 * S,
)


def test_a_rate_is_a_price():
    rate = RateSettings(
        active_nusd_h=1_000,
        parked_nusd_h={Tier.FROZEN: 7, Tier.ASLEEP: 300},
        storage_nusd_gb_month=80_000_000,
        increment_us=60 * S,
        minimum_us=90 * S,
    )
    assert price_of(rate) == PRICE


def test_resting_costs_its_tier_and_its_image():
    assert PRICE.resting_nusd_h(Tier.FROZEN, 6 * GB_BYTES) == 7 + 657_534
    assert [PRICE.resting_nusd_h(tier) for tier in (Tier.ASLEEP, Tier.FROZEN, Tier.COLD)] == [300, 7, 0]
    assert Price(active_nusd_h=5).resting_nusd_h(Tier.ASLEEP) == 5, "its host runs on"


DURATIONS = {
    (1, "parked.frozen", "frozen", 10): 2 * HOUR_US,
    (1, "parked.frozen", "frozen", 0): HOUR_US,
    (2, "serving", "", 10): HOUR_US,
}


def test_images_cost_while_they_are_parked():
    assert list(time_charges(PRICE, DURATIONS)) == [
        TimeCharge(1, "parked.frozen", "frozen", 2 * HOUR_US, 14 * HOUR_US),
        TimeCharge(1, "storage", "frozen", 0, 1_600_000_000 * HOUR_US, GB_BYTES * MONTH_H * HOUR_US),
        TimeCharge(1, "parked.frozen", "frozen", HOUR_US, 7 * HOUR_US),
        TimeCharge(2, "serving", "", HOUR_US, 1_000 * HOUR_US),
    ]
    assert [charge.cause for charge in time_charges(Price(active_nusd_h=1), DURATIONS)] == [
        cause for _, cause, _, _ in DURATIONS
    ]


def test_without_a_price_nothing_costs():
    assert [charge.numerator for charge in time_charges(None, DURATIONS)] == [0, 0, 0]
    assert list(stretch_charges(None, MeteredStretch(0, S, "serving", None))) == []


@pytest.mark.parametrize(("ended_us", "day"), [(2 * DAY_US, 1), (2 * DAY_US + 1, 2)])
def test_a_stretch_is_rounded_up_where_it_ends(ended_us, day):
    short = MeteredStretch(ended_us - 80 * S, ended_us, "parked.asleep", "asleep")
    assert list(stretch_charges(PRICE, short)) == [
        TimeCharge(day, "minimum", "", 0, 10 * S * 300),
        TimeCharge(day, "rounding", "", 0, 30 * S * 300),
    ]
    exact = MeteredStretch(ended_us - 120 * S, ended_us, "serving", None)
    assert list(stretch_charges(PRICE, exact)) == []


@pytest.mark.parametrize(("ran_us", "added"), [(0, (90, 30)), (90, (0, 30)), (120, (0, 0)), (121, (0, 59))])
def test_a_minimum_is_rounded_up_as_well(ran_us, added):
    assert PRICE.added_us(ran_us * S) == tuple(part * S for part in added)


def test_a_stretch_is_paid_to_its_increment():
    assert [paid_until_us(7, 7 + ran, 60, 0) for ran in (0, 1, 60, 61)] == [67, 67, 67, 127]
    assert paid_until_us(7, 7, 1, 0) == 8, "a moment is paid at least"
    assert [paid_until_us(7, 7 + ran, 60, 90) for ran in (0, 120, 121)] == [127, 127, 187]
