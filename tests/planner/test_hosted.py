"""Hosted prices: by date, by time of day, by size, from the package and from a table."""

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest

from poorwill.core.errors import OperatorFault, RequestFault
from poorwill.planner.alternatives.hosted import (
    Offer,
    Quote,
    TokenGuess,
    find_offer,
    hosted_bill,
    priced_by_package,
    priced_by_table,
)
from poorwill.planner.traces.trace import new_trace

S = 1_000_000
GUESS = TokenGuess(prompt=1000, output=100)


def micros(text):
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * S)


def trace(arrivals_s, prompts, outputs, origin="2025-02-28T00:00"):
    return new_trace(
        arrival_us=[round(at * S) for at in arrivals_s],
        prompt_tokens=prompts,
        output_tokens=outputs,
        origin_us=None if origin is None else micros(origin),
    )


def flat(usd_in, usd_out):
    return Offer(
        provider="p",
        model="m",
        source="here",
        quote=lambda at, size: Quote(input_usd=Decimal(usd_in), output_usd=Decimal(usd_out)),
        varies=False,
    )


def test_a_flat_price_is_exact():
    bill = hosted_bill(trace([0, 1], [1_000_000, 3], [7, 0]), flat("0.59", "0.79"), guess=GUESS, today_us=0)
    # 1,000,003 x $0.59 + 7 x $0.79, per million
    assert bill.nusd == 590_001_770 + 5_530
    assert bill.as_of == "2025-02-28"
    assert bill.per_request_nusd.sum() == pytest.approx(bill.nusd)


def test_prices_are_those_of_the_hour_of_each_request():
    # Deepseek chat is cheaper from half past four in the afternoon, UTC.
    offer = priced_by_package("deepseek", "deepseek-chat")
    assert offer.varies

    def million(hours):
        return trace(hours, [1_000_000] * len(hours), [0] * len(hours))

    noon, evening, both = (
        hosted_bill(million(hours), offer, guess=GUESS, today_us=0)
        for hours in ([12 * 3600], [18 * 3600], [12 * 3600, 18 * 3600])
    )
    assert evening.nusd < noon.nusd
    assert both.nusd == noon.nusd + evening.nusd


def test_prices_that_step_up_with_size_are_looked_up_by_size():
    offer = priced_by_package("google", "gemini-2.5-pro")
    small = hosted_bill(trace([0], [100_000], [0]), offer, guess=GUESS, today_us=0)
    large = hosted_bill(trace([0], [300_000], [0]), offer, guess=GUESS, today_us=0)
    assert large.nusd > 3 * small.nusd


def test_unknown_tokens_are_assumed_and_said_so():
    bill = hosted_bill(new_trace(arrival_us=[0, 5], origin_us=0), flat("1", "2"), guess=GUESS, today_us=0)
    assert bill.nusd == 2 * (1000 * 1000 + 100 * 2000)
    assert "2 requests without token counts" in bill.notes[0]


def test_an_undated_trace_is_priced_as_of_today():
    today = micros("2026-11-24T00:00")
    bill = hosted_bill(trace([0], [1], [1], origin=None), flat("1", "1"), guess=GUESS, today_us=today)
    assert bill.as_of == "2026-11-24"
    assert any("no date" in note for note in bill.notes)


def test_every_price_says_where_it_is_from(tmp_path):
    assert "genai-prices" in find_offer(None, None).source
    table = tmp_path / "prices.csv"
    table.write_text("provider,model,input_usd_per_mtok,output_usd_per_mtok\nme,a/b,1,2\n")
    offer = find_offer("me/a/b", str(table))
    assert offer.source == str(table) and offer.name == "me/a/b"


def test_what_is_not_there_is_told_with_what_is(tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text("provider,model,input_usd_per_mtok,output_usd_per_mtok\nme,a,1,2\n")
    with pytest.raises(RequestFault, match="me/a"):
        priced_by_table(str(table), "me", "b")
    with pytest.raises(OperatorFault):
        priced_by_table(str(tmp_path / "none.csv"), "me", "a")
    table.write_text("provider,model\nme,a\n")
    with pytest.raises(OperatorFault, match="input_usd_per_mtok"):
        priced_by_table(str(table), "me", "a")
    with pytest.raises(RequestFault):
        priced_by_package("groq", "no-such-model-anywhere")
    with pytest.raises(RequestFault):
        find_offer("just-a-name", None)


def test_an_empty_trace_costs_nothing():
    empty = new_trace(arrival_us=np.zeros(0, np.int64), origin_us=0)
    assert hosted_bill(empty, flat("1", "1"), guess=GUESS, today_us=0).nusd == 0
