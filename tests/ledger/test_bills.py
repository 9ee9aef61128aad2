"""What the ledger says of three days is what `bills.txt` has: every item, share, request and sum."""

from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.ledger.costs.items import items

from .bills import PERIODS, RATES, book, filled

WRITTEN = Path(__file__).with_name("bills.txt").read_text("utf-8")


@pytest.mark.parametrize("rolled_up", [False, True])
def test_bills_are_as_written(rolled_up):
    assert book(rolled_up=rolled_up).splitlines() == WRITTEN.splitlines(), (
        "see bills.py on how to write it anew"
    )


OTHERS = (RATES[2], replace(RATES[3], currency="CHF"))


@pytest.mark.parametrize(("rates", "currency"), [((), "USD"), (RATES[2:3], "EUR"), (OTHERS, "CHF")])
def test_time_without_a_rate_has_the_usual_currency(rates, currency):
    with filled(rates=rates) as db:
        found = items(db, PERIODS["all"], by_key=True)
    assert {(item.rate, item.nusd, item.currency) for item in found if item.model == "a"} == {
        (None, 0, currency)
    }
