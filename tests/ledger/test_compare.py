"""A change of the bill is taken apart without a rest."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.bill.compare import (
    FAILED,
    PARKED,
    PER_REQUEST,
    PER_WAKE,
    RATES,
    REQUESTS,
    WAKES,
    as_text,
    compare,
)
from poorwill.core.settings import RateSettings
from poorwill.ledger.dates import Period
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.writing.entries import Applier

from .lives import HOUR, rates, stories
from .story import START, began, created, ended, request, span
from .test_pricing import everything, filled, write

S = 1_000_000
DAY = 24 * HOUR
CENT = 10_000_000
RATE = RateSettings(effective_us=0, active_nusd_h=3_600 * CENT, parked_nusd_h={"cold": 36 * CENT})
"""A cent a second, and a cent for a hundred seconds parked."""


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(stories(), rates(), st.integers(0, 200 * HOUR))
def test_effects_sum_to_the_change(batches, configured, cut):
    with filled(batches, configured) as db:
        whole = everything(batches)
        middle = min(max(START + cut, whole.from_us + 1), whole.to_us - 1)
        last = Period(from_us=whole.from_us, to_us=middle)
        this = Period(from_us=middle, to_us=whole.to_us)
        found = compare(db, this, last)
    assert sum(effect.nusd for effect in found.effects) == found.this_nusd - found.last_nusd
    assert sum(found.by_driver().values()) == found.this_nusd - found.last_nusd


def day(number, *, wakes, wake_s, requests, failed_s=0, linger_s=10):
    """A day of short cycles from 08:00 on: wake, serve a second a request, linger, park."""
    at, story = number * DAY, []
    for n in range(wakes):
        wake = f"a.0.{number}.{n}"
        story += [began(at, wake), span(at, "wake.weights", wake=wake, tier="frozen")]
        at += wake_s * S
        story += [ended(at, wake), span(at, "serving")]
        story += [request(at, at, at + requests * S) for _ in range(requests)]
        at += requests * S
        story += [span(at, "linger")]
        at += linger_s * S
        story += [span(at, "parked.cold", tier="cold")]
    if failed_s:
        wake = f"a.0.{number}.x"
        story += [began(at, wake), span(at, "wake.weights", wake=wake, tier="frozen")]
        at += failed_s * S
        story += [ended(at, wake, ok=False), span(at, "parked.cold", tier="cold")]
    return story


def drivers(first, second, *, new_rate=None):
    """Two days compared, in cents by driver."""
    story = [created(), *day(0, **first)]
    with filled([story], [RATE]) as db:
        if new_rate is not None:
            write(db, lambda: sync_rates(db, [new_rate], now_us=START + DAY - HOUR))
        end = span(2 * DAY, "parked.cold", tier="cold")
        write(db, lambda: Applier(db).apply([*day(1, **second), end]))
        found = compare(
            db,
            Period(from_us=START + DAY, to_us=START + 2 * DAY),
            Period(from_us=START, to_us=START + DAY),
        )
    assert as_text(found)[-1].startswith("change")
    return {driver: nusd / CENT for driver, nusd in found.by_driver().items()}


USUAL = {"wakes": 2, "wake_s": 10, "requests": 5}


def test_more_wakes_cost_what_wakes_cost_before():
    found = drivers(USUAL, {**USUAL, "wakes": 3})
    # a third wake of 10 s, 5 requests more, 10 s more linger, 25 s less parked
    assert found == {WAKES: 10.0, "linger": 10.0, REQUESTS: 5.0, PARKED: -0.25}


def test_slower_wakes_are_told_from_more_wakes():
    found = drivers(USUAL, {**USUAL, "wake_s": 14})
    assert found == {PER_WAKE: 8.0, PARKED: -0.08}


def test_failed_wakes_have_a_line_of_their_own():
    found = drivers(USUAL, {**USUAL, "failed_s": 30})
    assert found == {FAILED: 30.0, PARKED: -0.3}


def test_a_longer_linger_is_the_policy_s():
    found = drivers(USUAL, {**USUAL, "linger_s": 25})
    assert found == {"linger": 30.0, PARKED: -0.3}


def test_a_dearer_rate_is_told_from_everything_else():
    dear = RateSettings(effective_us=0, active_nusd_h=7_200 * CENT, parked_nusd_h={"cold": 36 * CENT})
    found = drivers(USUAL, USUAL, new_rate=dear)
    assert found == {RATES: 50.0}


def test_more_requests_of_the_same_length():
    found = drivers({**USUAL, "requests": 4}, {**USUAL, "requests": 6})
    # each cycle serves n requests at once for n seconds: half as many again, each as long
    assert found[REQUESTS] == 4.0
    assert PER_REQUEST not in found


def test_an_unknown_part_of_a_period_is_named():
    days = [Period(from_us=START + n * DAY, to_us=START + (n + 1) * DAY) for n in (-2, -1, 1)]
    half = Period(from_us=START - DAY // 2, to_us=START + DAY // 2)
    with filled([[created(), span(DAY + DAY // 2, "parked.cold", tier="cold")]], [RATE]) as db:
        notes = [as_text(compare(db, days[2], before))[-2:] for before in (days[0], half)]
    assert notes[0] == [
        "of 2027-01-13T08:00:00Z until 2027-01-14T08:00:00Z the ledger knows nothing",
        "2027-01-16T08:00:00Z until 2027-01-17T08:00:00Z is known up to 2027-01-16T20:00:00Z only",
    ]
    assert notes[1][0].endswith("is known from 2027-01-15T08:00:00Z only")
