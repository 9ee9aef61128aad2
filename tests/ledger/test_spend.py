"""The spend breaker: what trips, what warns, when it lifts, and what a crash loop can cost at most."""

import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.entries import Alive, Noted, ParkEnded
from poorwill.core.errors import ErrorCode
from poorwill.core.settings import RateSettings, SpendSettings
from poorwill.core.spend import CostAhead, HostedCharge, Scope, Spent, Standing, Window, judge
from poorwill.core.words import Tier
from poorwill.ledger.history.spending import LOOK_EVERY_S, SpendWatch
from poorwill.ledger.rates import sync_rates

from .story import START, HandClock, began, created, ended, opened, request, span

S = 1_000_000
HOUR = 3_600 * S
DOLLAR = 10**9


def spent(total, *, models=(), keys=(), ahead=0, window=Window.DAY):
    return Spent(
        window=window,
        began_us=0,
        ends_us=24 * HOUR,
        total_nusd=total,
        models_nusd=dict(models),
        keys_nusd=dict(keys),
        ahead={"a": CostAhead(certain_nusd=ahead)},
    )


def test_a_limit_counts_what_runs_to_the_next_look():
    limits = SpendSettings(day_nusd=10 * DOLLAR)
    standings = [
        judge(limits, [spent(used, ahead=DOLLAR)], now_us=HOUR // 2).limits[0].standing
        for used in (7 * DOLLAR, 8 * DOLLAR, 9 * DOLLAR - 1, 9 * DOLLAR)
    ]
    assert standings == [Standing.WITHIN, Standing.WARNED, Standing.WARNED, Standing.TRIPPED]


def test_a_pace_past_the_limit_warns():
    limits = SpendSettings(day_nusd=10 * DOLLAR)
    (state,) = judge(limits, [spent(3 * DOLLAR)], now_us=6 * HOUR).limits
    assert (state.forecast_nusd, state.standing) == (12 * DOLLAR, Standing.WARNED)


def test_limits_stop_their_model_or_key_alone():
    limits = SpendSettings(model_day_nusd={"a": DOLLAR}, key_day_nusd={"ann": DOLLAR})
    verdict = judge(
        limits,
        [spent(5 * DOLLAR, models={"a": DOLLAR, "b": DOLLAR}, keys={"ann": DOLLAR, "bob": DOLLAR})],
        now_us=HOUR,
    )
    assert verdict.stops_model("a").scope is Scope.MODEL
    assert verdict.stops_model("b") is None
    assert verdict.stops_key("ann").scope is Scope.KEY
    assert verdict.stops_key("bob") is None


def test_the_limit_that_lifts_last_is_told():
    limits = SpendSettings(day_nusd=1, month_nusd=1)
    month = replace(spent(5, window=Window.MONTH), ends_us=30 * 24 * HOUR)
    verdict = judge(limits, [spent(5), month], now_us=HOUR)
    assert verdict.stops_model("a").window is Window.MONTH


def test_a_tripped_limit_says_how_it_lifts():
    (state,) = judge(
        SpendSettings(model_day_nusd={"a": DOLLAR}), [spent(0, models={"a": DOLLAR})], now_us=HOUR
    ).limits
    refusal = state.refusal(23 * HOUR - 1)
    assert (refusal.code, refusal.retry_after_s) == (ErrorCode.SPEND_LIMIT, 3601)
    assert refusal.message == (
        "the day's spend limit of model a, $1.00, is used up: $1.00 spent; "
        "it lifts by itself at 1970-01-02 00:00 UTC"
    )
    assert state.how_to_lift == (
        "raise model_day_usd.a under [spend] in fleet.toml and reload, or lift it on the dashboard"
    )


def test_room_for_one_wake_is_not_for_two():
    limits = SpendSettings(day_nusd=10 * DOLLAR, model_day_nusd={"b": 100 * DOLLAR})
    ahead = {"a": CostAhead(next_nusd=2 * DOLLAR), "b": CostAhead(next_nusd=DOLLAR)}
    verdict = judge(limits, [replace(spent(7 * DOLLAR), ahead=ahead)], now_us=HOUR)
    assert verdict.stops_wake("a") is None and verdict.stops_wake("b") is None
    begun = verdict.with_wake("a")
    assert begun.stops_model("a") is None, "what has begun goes on"
    assert begun.stops_wake("a").window is Window.DAY
    assert begun.stops_wake("b") is None
    assert begun.with_wake("b").stops_wake("b").scope is Scope.TOTAL


def test_no_room_for_a_wake_says_whose():
    ahead = {"a": CostAhead(next_nusd=2 * DOLLAR), "b": CostAhead(certain_nusd=DOLLAR // 10)}
    (state,) = judge(
        SpendSettings(day_nusd=10 * DOLLAR),
        [replace(spent(8 * DOLLAR), ahead=ahead)],
        now_us=HOUR // 2,
    ).limits
    assert state.standing is Standing.TRIPPED
    assert state.what == (
        "the day's spend limit, $10.00, has no room for another wake (a $2.00): "
        "$8.00 spent, up to $0.10 more even if all stops now"
    )


@given(
    st.integers(0, 10**12),
    st.integers(0, 10**10),
    st.integers(1, 10**12),
    st.integers(0, 24 * HOUR),
)
def test_more_spent_never_lifts_a_limit(used, more, limit, now):
    order = list(Standing)
    settings = SpendSettings(day_nusd=limit)
    before, after = (
        judge(settings, [spent(amount)], now_us=now).limits[0].standing for amount in (used, used + more)
    )
    assert order.index(before) <= order.index(after)


async def test_no_limits_read_nothing(path):
    async with opened(path) as ledger:
        verdict = await SpendWatch(ledger=ledger, limits=SpendSettings()).look()
    assert verdict.limits == ()


RATE = RateSettings(effective_us=0, active_nusd_h=36 * DOLLAR)  # a cent a second


async def test_days_add_up_to_months_and_keys(path):
    clock = HandClock(START + 26 * HOUR)
    limits = SpendSettings(
        day_nusd=DOLLAR,
        month_nusd=DOLLAR,
        key_day_nusd={"ann": DOLLAR},
        model_day_nusd={"a": DOLLAR},
    )
    async with opened(path, clock=clock) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE], now_us=START))
        await ledger.record([created(), span(0, "serving"), span(10 * S, "parked.cold", tier="cold")])
        await ledger.record([span(26 * HOUR - 9 * S, "serving")])
        await ledger.record([request(26 * HOUR - 9 * S, 26 * HOUR - 9 * S, 26 * HOUR - 3 * S, key="ann")])
        await ledger.record([request(26 * HOUR - 6 * S, 26 * HOUR - 6 * S, 26 * HOUR, key="bob")])
        verdict = await SpendWatch(ledger=ledger, limits=limits).look()
    figures = {(s.scope, s.window): s.spent_nusd for s in verdict.limits}
    cent = DOLLAR // 100
    assert figures == {
        (Scope.TOTAL, Window.DAY): 9 * cent,
        (Scope.MODEL, Window.DAY): 9 * cent,
        (Scope.KEY, Window.DAY): 4 * cent + cent // 2,
        (Scope.TOTAL, Window.MONTH): 19 * cent,
    }


async def test_linger_counts_on_its_key(path):
    limits = SpendSettings(day_nusd=DOLLAR, key_day_nusd=dict.fromkeys(("ann", "bob", "key"), DOLLAR))
    async with opened(path, clock=HandClock(START + 100 * S)) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE], now_us=START))
        await ledger.record([created(), span(0, "serving"), span(10 * S, "linger")])
        await ledger.record([request(0, 0, 10 * S, key="ann"), request(0, 0, 8 * S, key="bob")])
        await ledger.record(
            [span(30 * S, "parked.cold", tier="cold"), began(40 * S), span(40 * S, "wake.imports")]
        )
        await ledger.record([ended(50 * S), span(50 * S, "linger")])  # whoever asked has left
        await ledger.record([Alive(at_us=START + 100 * S)])
        states = (await SpendWatch(ledger=ledger, limits=limits).look()).limits
    spent_s = {state.name: state.spent_nusd * 100 // DOLLAR for state in states}
    assert spent_s == {"": 90, "ann": 6 + 20, "bob": 4, "key": 50}


async def test_parked_time_is_reserved(
    path,
):
    rate = RateSettings(
        effective_us=0,
        active_nusd_h=DOLLAR,
        parked_nusd_h={Tier.COLD: DOLLAR // 100},
        increment_us=HOUR,
    )
    async with opened(path, clock=HandClock(START + HOUR)) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [rate], now_us=START))
        await ledger.record([created(), span(0, "parked.cold", tier="cold")])
        await ledger.record([Alive(at_us=START + HOUR)])
        watch = SpendWatch(ledger=ledger, limits=SpendSettings(day_nusd=2 * DOLLAR))
        (state,) = (await watch.look()).limits
    assert state.spent_nusd == DOLLAR // 100
    assert state.ahead_nusd == 15 * DOLLAR // 100, "from 09:00 to midnight"
    assert state.next_nusd == {"a": DOLLAR}


async def test_a_limit_trips_before_it_is_passed(path):
    """A replica that serves without a break at a cent a second, looked at every ten seconds."""
    limits, clock = SpendSettings(day_nusd=DOLLAR + 9 * DOLLAR // 100), HandClock(START)
    async with opened(path, clock=clock) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE], now_us=START))
        await ledger.record([created(), span(0, "serving")])
        watch, state = SpendWatch(ledger=ledger, limits=limits), None
        while state is None:
            clock.at_us += LOOK_EVERY_S * S
            await ledger.record([Alive(at_us=clock.at_us)])
            state = (await watch.look()).stops_model("a")
    assert state.spent_nusd == 9 * DOLLAR // 10, (
        "15 s to the end of the next look and 6 s to stop are not left"
    )


async def test_the_longest_park_is_reserved(path):
    ahead = []
    async with opened(path, clock=HandClock(START + 100 * S)) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE], now_us=START))
        await ledger.record([created(), span(0, "serving"), span(100 * S - 1, "linger")])
        await ledger.record([Alive(at_us=START + 100 * S)])
        watch = SpendWatch(ledger=ledger, limits=SpendSettings(day_nusd=100 * DOLLAR))
        for lasted in (2, 30):
            park = ParkEnded(
                replica="a.0",
                at_us=START + 100 * S,
                began_us=START + (100 - lasted) * S,
                to_tier=Tier.COLD,
                ok=True,
            )
            await ledger.record([park])
            (state,) = (await watch.look()).limits
            ahead.append(state.ahead_nusd)
    cent = DOLLAR // 100
    assert ahead == [(15 + 6) * cent, (15 + 30) * cent]


def test_each_way_past_a_limit_has_a_test():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "ledger.md").read_text()
    _, table = page.split("What each way of spending may cost beyond a limit, at most:")
    named = re.findall(r"^\| .* \| `(test_\w+)` \|$", table, flags=re.MULTILINE)
    tests = "".join(file.read_text() for file in root.glob("tests/*/test_*.py"))
    assert len(named) == 12
    assert [name for name in named if f"def {name}(" not in tests] == []


async def test_a_lifted_limit_holds_again(path):
    """Its ledger says that it is lifted, so a restart changes nothing; with its window the lifting ends."""
    clock, limits = HandClock(START + HOUR), SpendSettings(model_day_nusd={"a": 1})
    async with opened(path, clock=clock) as ledger:
        await ledger.thread.call(lambda db: sync_rates(db, [RATE], now_us=START))
        await ledger.record([created(), span(0, "serving")])
        (before,) = (await SpendWatch(ledger=ledger, limits=limits).look()).limits
        detail = {"limit": before.name_in_file, "until_us": str(before.ends_us)}
        await ledger.record([Noted(at_us=clock.at_us, kind="spend_lifted", detail=detail)])
        lifted = await SpendWatch(ledger=ledger, limits=limits).look()
        clock.at_us = before.ends_us
        await ledger.record([Alive(at_us=clock.at_us)])
        (after,) = (await SpendWatch(ledger=ledger, limits=limits).look()).limits
    assert before.standing is Standing.TRIPPED
    assert lifted.limits[0].standing is Standing.LIFTED
    assert lifted.stops_model("a") is None and lifted.with_wake("a").stops_wake("a") is None
    assert lifted.has_room(HostedCharge(model="a", key="", nusd=DOLLAR))
    assert after.document(clock.at_us).to_lift and after.standing is not Standing.LIFTED


async def test_an_unknown_hosted_cost_counts(path):
    clock = HandClock(START + HOUR)
    async with opened(path, clock=clock) as ledger:
        await ledger.record([created()])
        row = replace(request(0, 0, S, key="ann"), bridge="p/m", bridge_nusd=3, bridge_unknown_nusd=40)
        await ledger.record([row])
        limits = SpendSettings(day_nusd=DOLLAR, key_day_nusd={"ann": DOLLAR})
        states = (await SpendWatch(ledger=ledger, limits=limits).look()).limits
    assert [state.spent_nusd for state in states] == [43, 43]
