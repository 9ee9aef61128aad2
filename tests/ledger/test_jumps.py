"""A jump of the bill is told from a busy hour."""

import sqlite3
from contextlib import closing

from poorwill.bill.jumps import detect, jumps
from poorwill.core.entries import Alive
from poorwill.core.settings import RateSettings
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.schema import migrate
from poorwill.ledger.writing.entries import Applier

from .story import START, created, span

DOLLAR = 10**9
DAY = 24 * 3_600 * 1_000_000
QUIET = [{"serving": DOLLAR, "linger": DOLLAR}] * 5


def test_a_day_like_the_others_is_no_jump():
    assert detect("a", {"serving": DOLLAR, "linger": DOLLAR}, QUIET) is None


def test_a_jump_names_what_grew():
    jump = detect("a", {"serving": DOLLAR, "linger": 4 * DOLLAR}, QUIET)
    assert (jump.spent_nusd, jump.usual_nusd) == (5 * DOLLAR, 2 * DOLLAR)
    assert (jump.cause, jump.grew_nusd) == ("linger", 3 * DOLLAR)
    assert "linger grew most, by $3.00" in jump.noted(0).text


def test_small_or_early_changes_are_no_jump():
    assert detect("a", {"serving": 9 * DOLLAR}, QUIET[:2]) is None
    assert detect("a", {"serving": 90_000_000}, [{"serving": 1}] * 5) is None


def test_one_dear_day_before_makes_another_one_usual():
    assert detect("a", {"serving": 5 * DOLLAR}, [*QUIET, {"serving": 4 * DOLLAR}]) is None


def test_a_jump_is_seen_the_same_day_it_happens():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, ":memory:")
        rate = RateSettings(effective_us=0, active_nusd_h=DOLLAR)
        sync_rates(db, [rate], now_us=START)
        story = [created()]
        for day in range(6):  # an hour a day from 08:00 on, and on the last day without an end
            story += [span(day * DAY, "serving")]
            story += [span(day * DAY + DAY // 24, "parked.cold", tier="cold")] if day < 5 else []
        db.execute("BEGIN")
        Applier(db).apply([*story, Alive(at_us=START + 5 * DAY + DAY // 8)])
        db.execute("COMMIT")
        early = jumps(db, now_us=START + 5 * DAY + DAY // 24)
        late = jumps(db, now_us=START + 5 * DAY + DAY // 8)
    assert early == []
    assert [(jump.model, jump.cause) for jump in late] == [("a", "serving")]
