"""Whatever the cut, the parts sum to the whole, and the whole is what the spans and rates say."""

import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.bill.bill import Axis, group, make_bill
from poorwill.bill.explain import explain
from poorwill.core.entries import Alive, ParkEnded, ReplicaPlaced
from poorwill.core.format import DAY_US
from poorwill.core.settings import RateSettings
from poorwill.core.words import HOUR_US, PARKED_CAUSES, RELEASED_CAUSES, Tier
from poorwill.ledger.costs.items import items
from poorwill.ledger.costs.pricing import NAMED_CHARGES
from poorwill.ledger.dates import Period
from poorwill.ledger.rates import lives, rate_book, sync_rates
from poorwill.ledger.schema import migrate
from poorwill.ledger.upkeep import compact
from poorwill.ledger.writing.entries import Applier
from poorwill.ledger.writing.rollup import roll_up

from .lives import HOUR, last_us, rates, stories
from .story import START, began, created, ended, request, span

QUICK = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))


@contextmanager
def filled(batches, configured):
    """A ledger in memory with a story in it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, ":memory:")
        write(db, lambda: sync_rates(db, configured, now_us=START))
        applier = Applier(db)
        for batch in batches:
            write(db, lambda batch=batch: applier.apply(batch))
        yield db


def write(db, action):
    db.execute("BEGIN")
    action()
    db.execute("COMMIT")


def everything(batches):
    return Period(from_us=START - DAY_US, to_us=last_us(batches) + DAY_US)


def spans_of(db, life):
    return db.execute(
        "SELECT began_us, coalesce(ended_us, (SELECT last_us FROM alive)), cause, tier, image_bytes"
        " FROM spans WHERE life = ? ORDER BY began_us",
        (life,),
    ).fetchall()


def test_a_bill_without_rates_is_in_dollars():
    batches = [[created(), span(0, "serving"), Alive(at_us=START + HOUR_US)]]
    with filled(batches, []) as db:
        assert {item.currency for item in items(db, everything(batches))} == {"USD"}


def test_a_rate_of_the_last_instant_prices_the_rounding():
    """An hour is charged for half of one, at the rate that came a microsecond before its end."""
    half = HOUR_US // 2
    old = RateSettings(effective_us=0, active_nusd_h=100, increment_us=HOUR_US)
    new = replace(old, effective_us=START + half - 1, active_nusd_h=10**6)
    batches = [
        [created(), span(0, "serving"), span(half, "parked.cold", tier="cold"), Alive(at_us=START + half + 9)]
    ]
    with filled(batches, [old, new]) as db:
        assert sum(item.nusd for item in items(db, everything(batches))) == 50 + 5 * 10**5


@QUICK
@given(stories())
def test_spans_tile_every_life(batches):
    with filled(batches, []) as db:
        for life in lives(db):
            spans = spans_of(db, life.id)
            end = life.ended_us or db.execute("SELECT last_us FROM alive").fetchone()[0]
            assert spans[0][0] == life.created_us
            assert [s[1] for s in spans[:-1]] == [s[0] for s in spans[1:]]
            assert sum(s[1] - s[0] for s in spans) == max(end, spans[-1][0]) - life.created_us


@QUICK
@given(stories(), rates(), st.lists(st.integers(0, 300 * HOUR), max_size=5), st.booleans())
def test_parts_of_a_period_sum_to_the_whole(batches, configured, cuts, by_key):
    with filled(batches, configured) as db:
        whole = everything(batches)
        edges = sorted({whole.from_us, whole.to_us, *(START + cut for cut in cuts)})
        edges = [edge for edge in edges if whole.from_us <= edge <= whole.to_us]
        parts = [
            item
            for begin, end in pairwise(edges)
            for item in items(db, Period(from_us=begin, to_us=end), by_key=by_key)
        ]
        total = items(db, whole, by_key=by_key)
        assert sum(i.nusd for i in parts) == sum(i.nusd for i in total)
        assert sum(i.us for i in parts) == sum(i.us for i in total)
        for axis in set(Axis) - {Axis.KEY}:
            assert group(parts, [axis]) == group(total, [axis])
        # Among keys a part is divided by itself: off by a nano-dollar for each line and part at most.
        sums = Counter[str]()
        for item in parts:
            sums[item.key] += item.nusd
        for item in total:
            sums[item.key] -= item.nusd
        lines = Counter(item.key for item in (*parts, *total))
        assert all(abs(off) <= lines[key] for key, off in sums.items())


@QUICK
@given(stories(), rates(), st.sets(st.sampled_from(Axis)), st.sampled_from(["UTC", "Asia/Kathmandu"]))
def test_the_lines_sum_to_the_total_along_any_axes(batches, configured, axes, zone):
    with filled(batches, configured) as db:
        plain = make_bill(db, everything(batches), [])
        local = replace(everything(batches), zone=ZoneInfo(zone))
        cut = make_bill(db, local, sorted(axes))
        assert sum(line.nusd for line in cut.lines) == sum(plain.totals.values())
        assert cut.totals == plain.totals


@QUICK
@given(stories(), rates())
def test_the_bill_is_spans_times_rates(batches, configured):
    with filled(batches, configured) as db:
        book, found = rate_book(db), items(db, everything(batches))
        exact, wall = Fraction(0), 0
        for life in lives(db):
            for began, ended, cause, tier, _ in spans_of(db, life.id):
                wall += ended - began
                for segment in book.segments(life, began, ended):
                    if segment.rate:
                        price = segment.rate.nusd_h(cause, tier)
                        exact += Fraction((segment.to_us - segment.from_us) * price, HOUR_US)
        timed = [item for item in found if item.cause not in NAMED_CHARGES]
        assert sum(item.us for item in timed) == wall
        assert abs(sum(item.nusd for item in timed) - exact) <= Fraction(len(timed), 2)


@QUICK
@given(stories(replicas=1), rates(count=1))
def test_rounding_up_is_a_line_of_its_own(batches, configured):
    with filled(batches, configured) as db:
        found = items(db, everything(batches))
        extra = sum(i.nusd for i in found if i.cause in ("rounding", "minimum"))
        expected, cells = Fraction(0), 0
        for life in lives(db):
            spans = spans_of(db, life.id)
            begin = None
            for number, (began, ended, cause, tier, _) in enumerate(spans):
                on = cause not in RELEASED_CAUSES
                begin = began if on and begin is None else begin
                last = number + 1 == len(spans)
                over = (life.ended_us is not None) if last else spans[number + 1][2] in RELEASED_CAUSES
                if on and over:
                    rate = rate_book(db).at(life, ended - 1)
                    if rate:
                        ran = ended - begin
                        billed = max(ran, rate.minimum_us)
                        billed += -billed % rate.increment_us
                        expected += Fraction((billed - ran) * rate.nusd_h(cause, tier), HOUR_US)
                        cells += 2
                    begin = None
        assert abs(extra - expected) <= Fraction(cells, 2)


@QUICK
@given(stories(replicas=1), rates(count=1))
def test_storage_is_charged_while_parked(batches, configured):
    with filled(batches, configured) as db:
        found = items(db, everything(batches))
        stored = sum(i.nusd for i in found if i.cause == "storage")
        expected, cells = Fraction(0), 1
        for life in lives(db):
            for began, ended, cause, _, image_bytes in spans_of(db, life.id):
                for segment in rate_book(db).segments(life, began, ended):
                    if segment.rate and cause in PARKED_CAUSES:
                        us = segment.to_us - segment.from_us
                        gb_month = Fraction(us * image_bytes, 10**9 * 730 * HOUR_US)
                        expected += gb_month * segment.rate.storage_nusd_gb_month
                        cells += 1 + us // DAY_US
        assert abs(stored - expected) <= cells


@QUICK
@given(stories(), rates(), st.data())
def test_keys_share_exactly_what_they_used(batches, configured, data):
    with filled(batches, configured) as db:
        keyed = items(db, everything(batches), by_key=True)
        plain = items(db, everything(batches))
        axes = [Axis.DAY, Axis.REPLICA, Axis.CAUSE]
        assert group(keyed, axes) == group(plain, axes)
        assert {i.cause.split(".")[0] for i in keyed if not i.key.startswith("(over")} <= {
            "serving",
            "drain",
            "wake",
            "failed_wake",
            "bridge",
        }


@QUICK
@given(stories(), rates(), st.data())
def test_rolling_up_at_any_time_never_changes_an_answer(batches, configured, data):
    with filled(batches, configured) as straight:
        expected = items(straight, everything(batches), by_key=True)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, ":memory:")
        write(db, lambda: sync_rates(db, configured, now_us=START))
        applier = Applier(db)
        for batch in batches:
            write(db, lambda batch=batch: applier.apply(batch))
            if data.draw(st.booleans()):
                write(db, lambda: roll_up(db))
                items(db, everything(batches), by_key=True)
        assert items(db, everything(batches), by_key=True) == expected


@QUICK
@given(stories(), rates())
def test_rates_may_be_configured_early(batches, configured):
    configured = sorted(configured, key=lambda rate: rate.effective_us)
    axes = [Axis.DAY, Axis.REPLICA, Axis.CAUSE]
    with filled(batches, configured) as at_once:
        expected = group(items(at_once, everything(batches)), axes)
    with filled([], configured[:1]) as db:
        applier, now_us = Applier(db), START
        for batch in batches:
            until_us = max(now_us, last_us([batch]))
            known = [rate for rate in configured if rate.effective_us <= until_us] or configured[:1]
            write(db, lambda known=known, now_us=now_us: sync_rates(db, known, now_us=now_us))
            write(db, lambda batch=batch: applier.apply(batch))
            items(db, everything(batches))  # a question on the way changes nothing
            now_us = until_us
        assert group(items(db, everything(batches)), axes) == expected


def test_changing_a_rate_never_rewrites_the_past():

    old, new = (
        RateSettings(effective_us=0, active_nusd_h=10**9),
        RateSettings(effective_us=0, active_nusd_h=7 * 10**9),
    )
    batches = [[created(), span(0, "serving"), span(2 * HOUR, "linger")]]
    with filled(batches, [old]) as db:
        before = items(db, everything(batches))
        write(db, lambda: sync_rates(db, [new], now_us=START + 2 * HOUR))
        assert items(db, everything(batches)) == before
        write(db, lambda: Applier(db).apply([span(3 * HOUR, "serving")]))
        by_rate = {(i.cause, i.rate): i.nusd for i in items(db, everything(batches))}
    assert by_rate == {("serving", 1): 2 * 10**9, ("linger", 2): 7 * 10**9}


def test_the_same_rates_again_change_nothing():

    configured = [
        RateSettings(effective_us=0, active_nusd_h=10**9),
        RateSettings(effective_us=START, active_nusd_h=2 * 10**9, model="a"),
    ]
    with filled([], configured) as db:
        before = db.execute("SELECT * FROM rates").fetchall()
        told = []
        write(db, lambda: told.extend(sync_rates(db, configured, now_us=START + HOUR)))
        assert (told, db.execute("SELECT * FROM rates").fetchall()) == ([], before)


def test_the_most_specific_rate_wins():

    configured = [
        RateSettings(effective_us=5, active_nusd_h=1),
        RateSettings(effective_us=0, active_nusd_h=2, driver="cold"),
        RateSettings(effective_us=0, active_nusd_h=3, model="a"),
        RateSettings(effective_us=9, active_nusd_h=4, model="a"),
        RateSettings(effective_us=20, active_nusd_h=5, replica="a.0"),
    ]
    with filled([[created()]], configured) as db:
        (life,), book = lives(db), rate_book(db)
        found = [book.at(life, at).active_nusd_h for at in (0, 8, 9, 19, 20)]
    assert found == [3, 3, 4, 4, 5]


def test_two_requests_at_once_share_their_seconds_evenly():

    second = 1_000_000
    batches = [
        [created(), span(0, "serving")],
        [
            request(0, 0, 10 * second, key="ann"),
            request(0, 4 * second, 10 * second, key="bob"),
            request(0, 6 * second, 8 * second, key="bob"),
        ],
        [span(10 * second, "linger")],
    ]
    with filled(batches, []) as db:
        shares = {i.key: i.us for i in items(db, everything(batches), by_key=True) if i.us}
    # ann: 4 alone, 2 of two, 2 of three, 2 of two; bob has the rest
    ann = 4 * second + second + 2 * second // 3 + second
    assert shares["ann"] == pytest.approx(ann, abs=1)
    assert shares["ann"] + shares["bob"] == 10 * second


@pytest.mark.parametrize(("gap_us", "nobodys_us"), [(10**6, 0), (10**6 + 1, 10**6 + 1)])
def test_a_second_without_a_request_is_shared(gap_us, nobodys_us):
    """The gate and the request row read the clock a moment apart."""
    minute = 60_000_000
    story = [
        created(),
        span(0, "serving"),
        request(0, 0, minute, key="ann"),
        span(minute + gap_us, "linger"),
        Alive(at_us=START + HOUR),
    ]
    with filled([story], []) as db:
        shares = {i.key: i.us for i in items(db, everything([story]), by_key=True) if i.cause == "serving"}
    assert shares.pop("(not recorded)", 0) == nobodys_us
    assert shares == {"ann": minute + gap_us - nobodys_us}


def test_a_request_between_busy_stretches_has_no_part():
    second = 1_000_000
    story = [
        created(),
        span(0, "serving"),
        span(10 * second, "linger"),
        span(20 * second, "serving"),
        *(request(0, at * second, (at + 10) * second, key="bob") for at in (0, 20)),
        *(request(0, at * second, (at + 1) * second, key="ann") for at in (12, 14)),
        span(30 * second, "linger"),
        Alive(at_us=START + HOUR),
    ]
    with filled([story], []) as db:
        shares = {i.key: i.us for i in items(db, everything([story]), by_key=True) if i.cause == "serving"}
    assert shares == {"bob": 20 * second}


def test_a_lost_request_leaves_time_to_nobody():

    second = 1_000_000
    batches = [
        [created(), span(0, "serving")],
        [request(0, 0, 10 * second, key="ann")],
        [span(60 * second, "unobserved")],
    ]
    with filled(batches, []) as db:
        shares = {i.key: i.us for i in items(db, everything(batches), by_key=True) if i.us}
    assert shares == {"ann": 10 * second, "(not recorded)": 50 * second}


def test_a_wake_is_charged_to_those_it_woke_for():

    second = 1_000_000
    batches = [
        [created(), began(0), span(0, "wake.provision", wake="a.0.1")],
        [ended(9 * second, served=("r1", "r2", "r3")), span(9 * second, "serving")],
        [
            request(0, 9 * second, 10 * second, key="ann", wake="a.0.1"),
            request(1, 9 * second, 10 * second, key="bob", wake="a.0.1"),
        ],
        [span(10 * second, "linger")],
    ]
    with filled(batches, []) as db:
        shares = {
            i.key: i.us for i in items(db, everything(batches), by_key=True) if i.cause == "wake.provision"
        }
    assert shares == {"ann": 3 * second, "bob": 3 * second, "(not recorded)": 3 * second}


def test_ten_gb_for_a_month_cost_ten_gb_months():
    rate = RateSettings(effective_us=0, active_nusd_h=0, storage_nusd_gb_month=80_000_000)
    parked = ParkEnded(
        replica="a.0",
        at_us=START,
        began_us=START,
        to_tier="frozen",
        ok=True,
        image_bytes=10 * 10**9,
    )
    batches = [
        [created(), parked, span(0, "parked.frozen", tier="frozen")],
        [span(730 * HOUR, "serving")],
    ]
    with filled(batches, [rate]) as db:
        stored = [i for i in items(db, everything(batches)) if i.cause == "storage"]
    assert sum(i.nusd for i in stored) == pytest.approx(800_000_000, abs=len(stored))


def test_a_late_row_changes_shares():
    """A stream of two and a half hours has no row before it ends; others were charged alone meanwhile."""
    minute = 60_000_000
    early = [
        [created(), span(0, "serving"), request(0, 0, 30 * minute, key="ann")],
        [Alive(at_us=START + 2 * HOUR + minute)],
    ]
    late = [
        [request(0, 0, 150 * minute, key="bob"), span(150 * minute, "linger")],
        [Alive(at_us=START + 3 * HOUR)],
    ]
    with filled([*early, *late], []) as db:
        expected = items(db, everything([*early, *late]), by_key=True)
    with filled(early, []) as db:
        write(db, lambda: roll_up(db))
        before = {i.key: i.us for i in items(db, everything(early), by_key=True) if i.us}
        for batch in late:
            write(db, lambda batch=batch: Applier(db).apply(batch))
        assert items(db, everything([*early, *late]), by_key=True) == expected
        write(db, lambda: roll_up(db))
        assert items(db, everything([*early, *late]), by_key=True) == expected
    assert before == {"ann": 30 * minute, "(not recorded)": 91 * minute}
    assert {i.key: i.us for i in expected if i.cause == "serving"} == {
        "ann": 15 * minute,
        "bob": 135 * minute,
    }


def test_a_late_row_counts_after_compaction():
    minute = 60_000_000
    early = [
        [created(), span(0, "serving"), request(0, 0, 30 * minute, key="ann")],
        [request(HOUR, HOUR, HOUR + 30 * minute, key="ann"), Alive(at_us=START + 3 * HOUR)],
    ]
    late = [request(HOUR, HOUR, 150 * minute, key="bob"), Alive(at_us=START + 4 * HOUR)]
    with filled([*early, late], []) as db:
        expected = items(db, everything([*early, late]), by_key=True)
    with filled(early, []) as db:
        write(db, lambda: roll_up(db))
        compact(db, before_us=START + HOUR)
        write(db, lambda: Applier(db).apply(late))
        assert items(db, everything([*early, late]), by_key=True) == expected
    assert {i.key: i.us for i in expected} == {
        "ann": 45 * minute,
        "bob": 75 * minute,
        "(not recorded)": 120 * minute,
    }


def test_rounding_costs_what_the_last_tier_does():
    """An engine that sleeps is paid at a rate of its own, and so is what its hour is rounded up by."""
    rate = RateSettings(active_nusd_h=600, parked_nusd_h={Tier.ASLEEP: 60}, increment_us=HOUR)
    half = HOUR // 2
    story = [
        created(),
        span(0, "serving"),
        span(half // 2, "parked.asleep", tier="asleep"),
        span(half, "parked.cold", tier="cold"),
        Alive(at_us=START + HOUR),
    ]
    with filled([story], [rate]) as db:
        costs = {item.cause: item.nusd for item in items(db, everything([story]))}
    assert costs == {"serving": 150, "parked.asleep": 15, "rounding": 30, "parked.cold": 0}


def test_a_failed_park_stores_nothing():
    fine = ParkEnded(
        replica="a.0", at_us=START + 10, began_us=START, to_tier="frozen", ok=True, image_bytes=70
    )
    failed = ParkEnded(
        replica="a.0", at_us=START + 30, began_us=START, to_tier="frozen", ok=False, image_bytes=99
    )
    batches = [
        [created(), fine, span(10, "parked.frozen", tier="frozen"), span(20, "serving")],
        [failed, span(40, "parked.frozen", tier="frozen")],
    ]
    with filled(batches, []) as db:
        stored = db.execute("SELECT image_bytes FROM spans ORDER BY began_us").fetchall()
    assert stored == [(0,), (70,), (0,), (70,)]


def test_always_on_is_one_stretch_with_its_minimum():
    second, dollar = 1_000_000, 10**9
    rate = RateSettings(effective_us=0, active_nusd_h=3_600 * dollar, minimum_us=60 * second)
    park, wake = span(17 * second, "parked.cold", tier="cold"), span(90 * second, "serving")
    story = [created(), span(0, "serving"), park, wake]

    def figures(begin_s, end_s):
        period = Period(from_us=START + begin_s * second, to_us=START + end_s * second)
        return make_bill(db, period, []).figures[0]

    with filled([story], [rate]) as db:
        parts = [figures(0, 10), figures(10, 30), figures(30, 80), figures(80, 90)]
        assert [part.always_on_nusd // dollar for part in parts] == [60, 0, 20, 10]
        whole = figures(0, 90)
    assert (whole.always_on_nusd, whole.nusd) == (90 * dollar, 60 * dollar)


def test_a_bill_adds_up_what_was_asked():
    asked = [
        request(0, 0, HOUR, key="ann", tokens=(3, 40)),
        request(0, HOUR, 2 * HOUR, key="bob", tokens=(4, 50)),
        request(0, None, 30 * HOUR, key="ann"),
    ]
    with filled([[created(), span(0, "serving"), *asked, Alive(at_us=START + 40 * HOUR)]], []) as db:
        whole, *models = make_bill(db, Period(from_us=START, to_us=START + 40 * HOUR), []).figures
    for count in (whole.count, *(figures.count for figures in models)):
        assert (count.requests, count.untold, count.tokens_in, count.tokens_out) == (3, 1, 7, 90)
        assert count.held_us == 31 * HOUR


def test_an_instant_has_the_rate_of_then():
    configured = [
        RateSettings(effective_us=0, active_nusd_h=10**9),
        RateSettings(effective_us=START + HOUR, active_nusd_h=3 * 10**9),
    ]
    with filled([[created(), span(0, "serving")], [span(2 * HOUR, "linger")]], configured) as db:
        before, after = (explain(db, "a", START + at, now_us=0) for at in (HOUR - 1, HOUR))
    assert [one.nusd_h for one in (*before, *after)] == [10**9, 3 * 10**9]
    assert before[0].span_nusd == after[0].span_nusd == 4 * 10**9


@pytest.mark.parametrize("cause", ["park", "linger"])
def test_a_host_is_left_as_the_next_span_opens(cause):
    """A park, or a loss, says where the replica is a moment before the step that ends the span."""
    there = ReplicaPlaced(replica="a.0", at_us=START, generation=1, running_json='{"machine": "east"}')
    story = [
        created(),
        there,
        span(0, "serving"),
        span(HOUR, cause),
        replace(there, at_us=START + 2 * HOUR - 7, running_json=""),
        span(2 * HOUR, "parked.cold", tier="cold"),
        span(3 * HOUR, "wake.provision", tier="cold"),
        Alive(at_us=START + 4 * HOUR),
    ]
    for batches in ([story], [[entry] for entry in story]):
        with filled(batches, [RateSettings(active_nusd_h=10, host="east")]) as db:
            bill = make_bill(db, everything(batches), [Axis.HOST])
            assert [(line.names, line.us, line.nusd) for line in bill.lines] == [
                (("",), 2 * HOUR, 0),
                (("east",), 2 * HOUR, 20),
            ]
            hosts = db.execute("SELECT host FROM hosted_spans ORDER BY began_us").fetchall()
            assert hosts == [("east",), ("east",), ("",), ("",)]


def test_a_host_that_it_returns_to_adds_up():
    placed = ReplicaPlaced(replica="a.0", at_us=START, generation=1, running_json='{"machine": "east"}')
    story = [
        created(),
        placed,
        span(0, "serving"),
        replace(placed, at_us=START + HOUR, running_json='{"machine": "west"}'),
        replace(placed, at_us=START + 3 * HOUR),
        Alive(at_us=START + 6 * HOUR),
    ]
    with filled([story], [RateSettings(active_nusd_h=10)]) as db:
        bill = make_bill(db, everything([story]), [Axis.HOST])
    assert [(line.names, line.us, line.nusd) for line in bill.lines] == [
        (("east",), 4 * HOUR, 40),
        (("west",), 2 * HOUR, 20),
    ]


def test_each_host_has_its_price():
    placed = ReplicaPlaced(
        replica="a.0", at_us=START + HOUR, generation=1, running_json='{"machine": "east"}'
    )
    story = [
        created(),
        span(HOUR, "serving"),
        placed,
        replace(placed, at_us=START + 3 * HOUR, running_json='{"machine": "west"}'),
        span(4 * HOUR, "parked.cold", tier="cold"),
        replace(placed, at_us=START + 4 * HOUR, running_json=""),
        Alive(at_us=START + 5 * HOUR),
    ]
    prices = [
        RateSettings(active_nusd_h=10, host="east"),
        RateSettings(active_nusd_h=100, host="west"),
        RateSettings(active_nusd_h=1000),
    ]
    with filled([story], prices) as db:
        bill = make_bill(db, everything([story]), [Axis.HOST])
        assert [(line.names, line.us, line.nusd) for line in bill.lines] == [
            (("",), 2 * HOUR, 0),
            (("east",), 2 * HOUR, 20),
            (("west",), HOUR, 100),
        ]
        hosts = db.execute("SELECT host FROM hosted_spans ORDER BY began_us").fetchall()
        assert hosts == [("",), ("west",), ("",)]
