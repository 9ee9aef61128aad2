"""The ledger as the dashboard shows it agrees with the bill, whatever has happened."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.format import DAY_US
from poorwill.core.words import HOUR_US, PARKED_CAUSES
from poorwill.ledger.costs.items import items, last_instant
from poorwill.ledger.dates import day_of, month_of
from poorwill.ledger.history.overview import STEPS, costs, last_requests, last_wakes, ribbons

from .lives import rates, stories
from .test_pricing import QUICK, filled


@QUICK
@given(stories(), rates(), st.integers(1, 400 * HOUR_US), st.integers(1, 400 * HOUR_US))
def test_a_ribbon_has_no_gap(batches, configured, ago, length):
    with filled(batches, configured) as db:
        now_us = last_instant(db)
        shown = ribbons(db, now_us - ago - length, now_us - ago)
        for row in shown.rows:
            for (_, ended, *_), (began, *_) in pairwise(row.stretches):
                assert ended is not None and ended <= began
            assert len(row.stretches) <= 2 * STEPS + 2


@QUICK
@given(stories(), rates())
def test_costs_are_those_of_the_bill(batches, configured):
    with filled(batches, configured) as db:
        now_us = last_instant(db)
        shown = costs(db, now_us)
        today, month = day_of(now_us), month_of(now_us)
        for model in shown.models:
            mine = [item for item in items(db, month) if item.model == model.model]
            assert model.month_nusd == sum(item.nusd for item in mine)
            assert model.today_nusd == sum(i.nusd for i in mine if i.day * DAY_US >= today.from_us)
            assert model.paid_us == sum(i.us for i in mine if i.cause not in PARKED_CAUSES)
            assert 0 <= model.useful_us <= model.paid_us
        in_month = sum(nusd for at_us, _, nusd in shown.days if at_us >= month.from_us)
        assert in_month == sum(model.month_nusd for model in shown.models)


@QUICK
@given(stories())
def test_the_last_wakes_and_requests(batches):
    with filled(batches, []) as db:
        wakes = last_wakes(db, None, 5)
        assert [wake.ended_us for wake in wakes] == sorted((w.ended_us for w in wakes), reverse=True)
        for wake in wakes:
            assert all(wake.began_us <= began <= ended for _, began, ended in wake.phases)
        (count,) = db.execute("SELECT count(*) FROM requests").fetchone()
        assert len(last_requests(db, 3)) == min(count, 3)
