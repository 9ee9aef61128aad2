"""Hosted prices: by date, by time of day, by size, from the package and from a table."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from genai_prices import Usage, calc_price

from poorwill.core.errors import OperatorFault, RequestFault
from poorwill.hosts.files.traces.trace import new_trace
from poorwill.planner.hosted import TokenGuess, hosted_bill
from poorwill.remote.hosted_prices import (
    Offer,
    PriceList,
    Quote,
    SteppedPrice,
    find_offer,
    flat_offer,
    priced_by_package,
    priced_by_table,
)

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
    return flat_offer("p", "m", "here", Quote(input_usd=Decimal(usd_in), output_usd=Decimal(usd_out)))


def test_a_flat_price_is_exact():
    bill = hosted_bill(trace([0, 1], [1_000_000, 3], [7, 0]), flat("0.59", "0.79"), guess=GUESS, today_us=0)
    # 1,000,003 x $0.59 + 7 x $0.79, per million
    assert bill.nusd == 590_001_770 + 5_530
    assert bill.dated == "undated"
    assert bill.per_request_nusd.sum() == pytest.approx(bill.nusd)


def test_prices_are_those_of_the_hour():
    # Deepseek chat is cheaper from half past four in the afternoon, UTC.
    offer = priced_by_package("deepseek", "deepseek-chat")
    assert offer.by_time_of_day

    def million(hours):
        return trace(hours, [1_000_000] * len(hours), [0] * len(hours))

    noon, evening, both = (
        hosted_bill(million(hours), offer, guess=GUESS, today_us=0)
        for hours in ([12 * 3600], [18 * 3600], [12 * 3600, 18 * 3600])
    )
    assert evening.nusd < noon.nusd
    assert both.nusd == noon.nusd + evening.nusd


@pytest.mark.parametrize(
    ("provider", "model"), [("deepseek", "deepseek-chat"), ("google", "gemini-2.5-pro"), ("groq", None)]
)
def test_groups_cost_what_requests_cost(provider, model):
    """Dates, times of day and steps of size, against the package's own figure for each request."""
    model = model or "llama-3.3-70b-versatile"
    random = np.random.default_rng(7)
    count = 300
    hours = np.sort(random.integers(0, 2 * 365 * 24 * 3600, count)).tolist()
    prompts = random.choice([0, 10, 199_999, 200_000, 200_001, 500_000], count).tolist()
    outputs = random.integers(0, 2000, count).tolist()
    asked = trace(hours, prompts, outputs)
    bill = hosted_bill(asked, priced_by_package(provider, model), guess=GUESS, today_us=0)
    total = Decimal(0)
    for at_us, prompt, output in zip(asked.arrival_us.tolist(), prompts, outputs, strict=True):
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=asked.origin_us + at_us)
        usage = Usage(input_tokens=prompt, output_tokens=output)
        total += calc_price(usage, model, provider_id=provider, genai_request_timestamp=at).total_price
    assert bill.nusd == round(total * 10**9)
    assert bill.per_request_nusd.sum() == pytest.approx(bill.nusd)


def test_a_step_is_each_requests_own():
    listed = PriceList(input=SteppedPrice(Decimal(1), ((999, Decimal(2)),)), output=SteppedPrice(Decimal(0)))
    offer = Offer(provider="p", model="m", source="s", prices=lambda at: listed)
    bill = hosted_bill(trace([0, 1], [999, 1000], [0, 0]), offer, guess=GUESS, today_us=0)
    assert bill.per_request_nusd.tolist() == [999_000, 2_000_000]


def test_unknown_prices_are_not_guessed():
    listed = PriceList(input=SteppedPrice(Decimal(1)), output=SteppedPrice(Decimal(1)))
    since = datetime(2026, 10, 14, tzinfo=UTC)
    offer = Offer(provider="p", model="m", source="s", prices=lambda at: listed, known_from=since)
    assert (
        hosted_bill(trace([0], [1], [1], origin="2026-10-13T23:00"), offer, guess=GUESS, today_us=0) is None
    )
    assert hosted_bill(trace([0], [1], [1], origin="2026-10-14T00:00"), offer, guess=GUESS, today_us=0).nusd


def test_a_price_without_history_says_so():
    for offer in (find_offer(None, None), priced_by_package("deepseek", "deepseek-chat"), flat("1", "1")):
        bill = hosted_bill(trace([0], [1], [1]), offer, guess=GUESS, today_us=0)
        assert bill.dated == "undated"
        assert any("no price history" in note for note in bill.notes)


@pytest.mark.parametrize(
    ("origin", "dated"),
    [("2026-10-13T00:00", "until 2026-10-14"), ("2026-10-14T00:00", "as of 2026-10-14 to 2026-10-15")],
)
def test_an_oldest_price_has_no_date(origin, dated):
    listed = PriceList(input=SteppedPrice(Decimal(1)), output=SteppedPrice(Decimal(1)))
    since = datetime(2026, 10, 14, tzinfo=UTC)
    offer = Offer(provider="p", model="m", source="s", prices=lambda at: listed, starts=[since])
    bill = hosted_bill(trace([0, 86_400], [1, 1], [1, 1], origin=origin), offer, guess=GUESS, today_us=0)
    assert bill.dated.endswith(dated)
    assert len(bill.notes) == ("until" in dated)


def test_unknown_tokens_are_assumed():
    bill = hosted_bill(new_trace(arrival_us=[0, 5], origin_us=0), flat("1", "2"), guess=GUESS, today_us=0)
    assert bill.nusd == 2 * (1000 * 1000 + 100 * 2000)
    assert "2 requests without token counts" in bill.notes[0]


def test_an_undated_trace_is_priced_today():
    today = micros("2026-11-24T00:00")
    bill = hosted_bill(trace([0], [1], [1], origin=None), flat("1", "1"), guess=GUESS, today_us=today)
    assert bill.dated == "as of 2026-11-24"
    assert any("no date" in note for note in bill.notes)


def test_every_price_has_a_source(tmp_path):
    assert "genai-prices" in find_offer(None, None).source
    table = tmp_path / "prices.csv"
    table.write_text("provider,model,input_usd_per_mtok,output_usd_per_mtok\nme,a/b,1,2\n")
    offer = find_offer("me/a/b", str(table))
    assert offer.source == str(table) and offer.name == "me/a/b"


def test_unknown_prices_list_the_known(tmp_path):
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
