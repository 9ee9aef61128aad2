"""Money is exact: integers in, integers out, and shares add up."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.money import NUSD, apportion, cost_numerator, nusd, rounded
from poorwill.core.words import HOUR_US


@pytest.mark.parametrize(
    ("text", "amount"), [("0.1", 100_000_000), ("3.35", 3_350_000_000), (2, 2 * NUSD), ("0.0000000005", 1)]
)
def test_dollars_are_read_without_binary_fractions(text, amount: int):
    assert nusd(text) == amount


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_rounding_is_half_away_from_zero(numerator: int, denominator: int):
    exact = Decimal(0)
    result = rounded(numerator, denominator)
    assert abs(2 * (result * denominator - numerator)) <= denominator
    if 2 * abs(numerator) % (2 * denominator) == denominator:
        assert abs(result) * denominator > abs(numerator)
    assert exact == 0 and rounded(-numerator, denominator) == -result


@given(st.lists(st.integers(0, 10**20), min_size=1, max_size=30))
def test_shares_add_up_to_the_rounded_total(parts: list[int]):
    shares = apportion(parts)
    assert sum(shares) == rounded(sum(parts))
    for share, part in zip(shares, parts, strict=True):
        assert part // HOUR_US <= share <= part // HOUR_US + 1


def test_an_hour_costs_its_rate():
    assert rounded(cost_numerator(HOUR_US, 2_990_000_000)) == 2_990_000_000
