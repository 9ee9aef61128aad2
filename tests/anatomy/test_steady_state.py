"""`policies.coldstart.steady_state`: percentiles, saturation and paired overhead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.words import SECOND_US
from poorwill.policies.coldstart.steady_state import Percentiles, Shot, level, overhead, saturation


def at(concurrency: int, tokens_s: float):
    shot = Shot(began_us=0, first_us=10, ended_us=100, gaps_us=(5, 15), tokens=round(tokens_s))
    return level("direct", concurrency, [shot], failed=0, took_us=SECOND_US)


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_percentiles_are_measured_values_in_order(values):
    found = Percentiles.of(values)
    assert {found.p50_us, found.p95_us, found.p99_us} <= set(values)
    assert min(values) <= found.p50_us <= found.p95_us <= found.p99_us <= max(values)


def test_percentiles_by_nearest_rank():
    found = Percentiles.of(list(range(1, 101)))
    assert (found.p50_us, found.p95_us, found.p99_us) == (50, 95, 99)
    assert Percentiles.of([]) == Percentiles(p50_us=0, p95_us=0, p99_us=0)


@pytest.mark.parametrize(
    ("rates", "where"),
    [
        ([100, 190, 360, 380], 4),
        ([100, 105], 1),
        ([100, 200, 400], None),
        ([100], None),
        ([100, 95, 200, 210], 4),  # an unlucky level is not the end
        ([100, 95, 104, 200], None),
        ([100, 200, 210, 225], 2),  # a slow creep is no growth
    ],
)
def test_saturation_ends_the_gain(rates, where):
    found = saturation([at(2**i, rate) for i, rate in enumerate(rates)])
    assert (found.concurrency if found else None) == where


def test_a_level_sums_its_requests():
    found = at(1, 50)
    assert found.tokens_s == 50
    assert found.first_token.p50_us == 10
    assert (found.between_tokens.p50_us, found.between_tokens.p99_us) == (5, 15)


def test_drift_is_no_overhead():
    direct = [100 * i for i in range(1, 41)]
    found = overhead(direct, [value + 7 for value in direct])
    assert found is not None
    assert (found.median_us, found.low_us, found.high_us, found.pairs) == (7, 7, 7, 40)
    assert overhead([], []) is None
