"""Tokens at the prices of their classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.token_prices import DEAREST, MTOK, TokenPrices
from poorwill.core.tokens import TokenParts

PRICES = TokenPrices(input=100 * MTOK, output=500 * MTOK, parts={"cache_read": 10 * MTOK})


def test_each_part_has_its_own_price():
    cost = PRICES.cost(1000, 100, TokenParts(cache_read=900, reasoning=60))
    assert (cost.nusd, cost.unknown_nusd) == (100 * 100 + 900 * 10 + 100 * 500, 0)


@pytest.mark.parametrize("part", ["audio_in", "cache_write_1h"])
def test_a_part_without_a_price_is_unknown_not_zero(part):
    prices = TokenPrices(input=100 * MTOK, output=500 * MTOK, parts={"cache_write": 125 * MTOK})
    cost = prices.cost(1000, 100, TokenParts(**{part: 10}))
    assert cost.nusd == 990 * 100 + 100 * 500
    assert cost.unknown_nusd == 10 * DEAREST[part] * 100


@given(st.integers(0, 10**6), st.integers(0, 10**5), st.floats(0, 1), st.floats(0, 1))
def test_most_bounds_the_cost_of_cached_tokens(tokens_in, tokens_out, read, written):
    parts = TokenParts(cache_read=int(tokens_in * read), cache_write=int(tokens_in * (1 - read) * written))
    cost = PRICES.cost(tokens_in, tokens_out, parts)
    assert cost.nusd + cost.unknown_nusd <= PRICES.most(tokens_in, tokens_out) + 1
