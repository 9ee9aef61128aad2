"""How each spend limit stands: what is told of it, what it stops, and what still fits."""

import time
from dataclasses import replace

import pytest

from poorwill.core.errors import ErrorCode
from poorwill.core.settings import SpendSettings
from poorwill.core.spend import (
    CostAhead,
    HostedCharge,
    LimitDocument,
    LimitState,
    Scope,
    Spent,
    Standing,
    Verdict,
    Window,
    judge,
    utc_minute,
)

S = 1_000_000
DAY = 24 * 3_600 * S
DOLLAR = 10**9
CENT = DOLLAR // 100
MODEL_A = {"scope": Scope.MODEL, "name": "a"}
ANN = {"scope": Scope.KEY, "name": "ann"}


def limit(**given) -> LimitState:
    usual = {
        "scope": Scope.TOTAL,
        "name": "",
        "window": Window.DAY,
        "limit_nusd": 10 * DOLLAR,
        "spent_nusd": 4 * DOLLAR,
        "forecast_nusd": None,
        "standing": Standing.WITHIN,
        "ends_us": DAY,
    }
    return LimitState(**(usual | given))


WARNED, TRIPPED, LIFTED = (
    {"standing": standing} for standing in (Standing.WARNED, Standing.TRIPPED, Standing.LIFTED)
)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "the day's spend limit, $10.00, is not reached: $4.00 spent"),
        (
            {"window": Window.MONTH, "currency": "EUR", **MODEL_A},
            "the month's spend limit of model a, €10.00, is not reached: €4.00 spent",
        ),
        (
            {**ANN, **WARNED, "forecast_nusd": 12 * DOLLAR},
            "the day's spend limit of key ann, $10.00, will be passed at this pace ($12.00): $4.00 spent",
        ),
        (
            {**WARNED, "forecast_nusd": 10 * DOLLAR, "spent_nusd": 9 * DOLLAR},
            "the day's spend limit, $10.00, is nearly used up: $9.00 spent",
        ),
        (WARNED, "the day's spend limit, $10.00, is nearly used up: $4.00 spent"),
        ({**WARNED, "ahead_nusd": CENT - 1}, "the day's spend limit, $10.00, is nearly used up: $4.00 spent"),
        (
            {"ahead_nusd": CENT, "reserved_nusd": CENT},
            "the day's spend limit, $10.00, is not reached: $4.00 spent, up to $0.01 more even if all stops "
            "now, $0.01 reserved for requests at hosted APIs",
        ),
        ({**LIFTED, "spent_nusd": 11 * DOLLAR}, "the day's spend limit, $10.00, is lifted: $11.00 spent"),
        (
            {**TRIPPED, "spent_nusd": 9 * DOLLAR, "ahead_nusd": DOLLAR},
            "the day's spend limit, $10.00, is used up: $9.00 spent, up to $1.00 more even if all stops now",
        ),
        (
            {**TRIPPED, "next_nusd": {"b": 7 * DOLLAR, "a": 8 * DOLLAR, "c": 6 * DOLLAR}},
            "the day's spend limit, $10.00, has no room for another wake (a $8.00, b $7.00): $4.00 spent",
        ),
    ],
)
def test_a_limit_is_told(given, told):
    assert limit(**given).what == told


@pytest.mark.parametrize(
    ("standing", "to_lift"), [(Standing.WITHIN, False), (Standing.WARNED, True), (Standing.TRIPPED, True)]
)
def test_a_limit_for_machines(standing, to_lift):
    state = limit(
        **MODEL_A, standing=standing, ahead_nusd=1, reserved_nusd=2, forecast_nusd=3, currency="EUR"
    )
    assert state.document(DAY - 2 * S - 1) == LimitDocument(
        scope=Scope.MODEL,
        name="a",
        window=Window.DAY,
        key="model_day_usd.a",
        currency="EUR",
        limit_nusd=10 * DOLLAR,
        spent_nusd=4 * DOLLAR,
        ahead_nusd=1,
        reserved_nusd=2,
        forecast_nusd=3,
        standing=standing,
        what=state.what,
        lifts="1970-01-02 00:00 UTC",
        lifts_in_s=2,
        to_lift=state.how_to_lift if to_lift else "",
    )
    assert limit().document(DAY + S).lifts_in_s == 0
    assert (limit().document(0).name, limit().document(0).key) == (None, "day_usd")


@pytest.mark.parametrize(("left_us", "retry_after_s"), [(0, 1), (1, 1), (S, 1), (S + 1, 2), (9 * S, 9)])
def test_a_refusal_says_when_it_ends(left_us, retry_after_s):
    refusal = limit().refusal(DAY - left_us)
    assert (refusal.code, str(refusal)) == (ErrorCode.SPEND_LIMIT, limit().why)
    assert refusal.retry_after_s == retry_after_s


def test_windows_end_in_utc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert utc_minute(DAY - 1) == "1970-01-01 23:59 UTC"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_wake_may_take_what_is_left():
    state = limit(ahead_nusd=DOLLAR, reserved_nusd=DOLLAR, under_way_nusd=DOLLAR, next_nusd={"a": 3 * DOLLAR})
    assert state.left_nusd == 4 * DOLLAR
    assert not state.stops_wake("a") and not state.stops_wake("another")
    assert replace(state, next_nusd={"a": 3 * DOLLAR + 1}).stops_wake("a")
    assert not replace(state, under_way_nusd=4 * DOLLAR).stops_wake("another")
    assert replace(state, spent_nusd=8 * DOLLAR).stops_wake("another")
    assert not replace(state, spent_nusd=8 * DOLLAR - 1, under_way_nusd=0).used_up
    assert not replace(state, standing=Standing.LIFTED, under_way_nusd=10**18).stops_wake("a")


def test_the_last_to_lift_stops_its_own():
    early = {"spent_nusd": 10 * DOLLAR}
    late = {"spent_nusd": 10 * DOLLAR, "ends_us": DAY + 1}
    verdict = Verdict(
        at_us=0,
        limits=(
            limit(**early), limit(**MODEL_A, **late), limit(**ANN, **late), limit(**ANN, **early),
            limit(scope=Scope.KEY, name="a", spent_nusd=10 * DOLLAR, ends_us=DAY + 2),
        ),
    )  # fmt: skip
    total, model, ann, _, of_a = verdict.limits
    assert (verdict.stops_model("a"), verdict.stops_model("b")) == (model, total)
    assert (verdict.stops_wake("a"), verdict.stops_wake("b")) == (model, total)
    assert (verdict.stops_key("ann"), verdict.stops_key("a"), verdict.stops_key("b")) == (ann, of_a, None)


def test_a_hosted_charge_counts_where_it_belongs():
    verdict = Verdict(
        at_us=7,
        limits=(
            limit(), limit(**MODEL_A), limit(**ANN), limit(scope=Scope.MODEL, name="b"),
            limit(scope=Scope.KEY, name="a"), limit(scope=Scope.MODEL, name="ann"),
        ),
    )  # fmt: skip
    charge = HostedCharge(model="a", key="ann", nusd=5)
    paid, reserved = verdict.with_paid(charge), verdict.with_reserved(charge)
    assert (paid.at_us, reserved.at_us) == (7, 7)
    assert [each.spent_nusd - 4 * DOLLAR for each in paid.limits] == [5, 5, 5, 0, 0, 0]
    assert [each.reserved_nusd for each in reserved.with_reserved(charge).limits] == [10, 10, 10, 0, 0, 0]
    assert [each.left_nusd for each in paid.limits] == [each.left_nusd for each in reserved.limits]


def test_a_hosted_charge_needs_room_beside_wakes():
    charge = HostedCharge(model="a", key="", nusd=5)
    for left, under_way, room in ((6, 0, True), (5, 0, False), (8, 2, True), (7, 2, False)):
        tight = limit(spent_nusd=10 * DOLLAR - left, under_way_nusd=under_way)
        assert Verdict(at_us=0, limits=(limit(), tight)).has_room(charge) is room
    full = limit(scope=Scope.MODEL, name="b", spent_nusd=10 * DOLLAR)
    assert Verdict(at_us=0, limits=(limit(), full)).has_room(charge)


def test_a_wake_begun_takes_its_cost():
    verdict = Verdict(at_us=7, limits=(limit(next_nusd={"a": 2}, under_way_nusd=1), limit(**ANN)))
    begun = verdict.with_wake("a")
    assert begun.at_us == 7
    assert [each.under_way_nusd for each in begun.limits] == [3, 0]
    assert begun.with_wake("b") == begun


SPENT = Spent(
    window=Window.DAY,
    began_us=0,
    ends_us=DAY,
    total_nusd=50,
    models_nusd={"a": 30, "b": 20},
    keys_nusd={"ann": 40},
    ahead={
        "a": CostAhead(certain_nusd=1, wake_nusd=2, next_nusd=3),
        "b": CostAhead(certain_nusd=10, wake_nusd=20, next_nusd=30),
    },
)
LIMITS = SpendSettings(
    day_nusd=1000,
    month_nusd=2000,
    model_day_nusd={"c": 103, "b": 102, "a": 101},
    model_month_nusd={"a": 201},
    key_day_nusd={"bob": 302, "ann": 301},
    key_month_nusd={"ann": 401},
    currency="EUR",
)


def test_limits_are_measured_by_scope():
    assert judge(replace(LIMITS, day_nusd=None), [SPENT], now_us=1).limits[0].name == "a"
    month = replace(SPENT, window=Window.MONTH, ends_us=30 * DAY)
    verdict = judge(LIMITS, [SPENT, month], now_us=DAY // 2, lifted=["model_day_usd.b", "key_month_usd.ann"])
    assert verdict.at_us == DAY // 2 and verdict.limits[0].name == ""
    assert {state.currency for state in verdict.limits} == {"EUR"}
    told = [
        (s.name_in_file, s.limit_nusd, s.spent_nusd, s.ahead_nusd, s.under_way_nusd, dict(s.next_nusd),
         s.forecast_nusd, s.standing.value, s.ends_us // DAY)
        for s in verdict.limits
    ]  # fmt: skip
    assert told == [
        ("day_usd", 1000, 50, 11, 22, {"a": 3, "b": 30}, 100, "within", 1),
        ("model_day_usd.a", 101, 30, 1, 2, {"a": 3}, 60, "within", 1),
        ("model_day_usd.b", 102, 20, 10, 20, {"b": 30}, 40, "lifted", 1),
        ("model_day_usd.c", 103, 0, 0, 0, {}, 0, "within", 1),
        ("key_day_usd.ann", 301, 40, 0, 0, {}, 80, "within", 1),
        ("key_day_usd.bob", 302, 0, 0, 0, {}, 0, "within", 1),
        ("month_usd", 2000, 50, 11, 22, {"a": 3, "b": 30}, None, "within", 30),
        ("model_month_usd.a", 201, 30, 1, 2, {"a": 3}, None, "within", 30),
        ("key_month_usd.ann", 401, 40, 0, 0, {}, None, "lifted", 30),
    ]


@pytest.mark.parametrize(
    ("limit_nusd", "at", "standing"),
    [(101, 24, "within"), (100, 24, "warned"), (62, 24, "warned"), (61, 24, "tripped"), (1200, 1, "within"),
     (1199, 1, "warned")],
)  # fmt: skip
def test_what_is_near_warns(limit_nusd, at, standing):
    """Of 50 spent in all, at that hour: by share (half), by pace, or for want of room for a wake."""
    spent = replace(SPENT, ahead={"a": CostAhead(certain_nusd=3, wake_nusd=4, next_nusd=5)})
    settings = SpendSettings(day_nusd=limit_nusd, warn_share=0.5)
    (state,) = judge(settings, [spent], now_us=at * DAY // 24).limits
    assert state.standing.value == standing


def test_a_pace_needs_a_part_of_its_window():
    """A twenty-fourth of it; counted from when the ledger began, if that was within it."""
    late = replace(SPENT, began_us=DAY // 3)
    begins = DAY // 3 + (DAY - DAY // 3) // 24
    settings = SpendSettings(day_nusd=10**6)
    assert [
        judge(settings, [late], now_us=at).limits[0].forecast_nusd
        for at in (begins - 1, begins, DAY // 3 + 7 * 3_600 * S, DAY)
    ] == [None, 1200, 114, 50]
