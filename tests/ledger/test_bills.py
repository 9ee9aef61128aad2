"""What the ledger says of three days is what `bills.txt` has: every item, share, request and sum."""

from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.ledger.costs.items import items, one_currency

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


def test_one_currency_is_what_costs_are_in():
    """What costs nothing is in none."""
    with filled() as db:
        found = items(db, PERIODS["all"])
    dollars, euros = ([item for item in found if item.currency == each] for each in ("USD", "EUR"))
    free = [replace(item, nusd=0) for item in dollars]
    assert one_currency([*free, *euros], default="CHF") == "EUR"
    assert one_currency(free, default="CHF") == "CHF" and one_currency([]) == "USD"
    with pytest.raises(RequestFault) as refused:
        one_currency([*dollars, *euros])
    assert (refused.value.code, refused.value.hint) == (
        ErrorCode.INVALID_REQUEST,
        "choose a period with one currency",
    )
    assert refused.value.message == "this was charged in EUR and USD, which cannot be added up"
