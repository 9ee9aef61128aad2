"""The ledger as the dashboard shows it: each replica's time, the bill by model and day, wakes, requests."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence

from poorwill.core.format import DAY_US
from poorwill.core.words import HOUR_US, PARKED_CAUSES, SECOND_US, USEFUL_CAUSES
from poorwill.ledger.costs.items import Item, items
from poorwill.ledger.dates import Period, day_of, month_of
from poorwill.ledger.history.views import (
    Costs,
    HourOfUse,
    ModelCost,
    PastRequest,
    PastWake,
    Ribbon,
    Ribbons,
    Stretch,
)
from poorwill.ledger.history.wakes import finished_wakes
from poorwill.ledger.rates import Life, RateBook, lives, rate_book

STEPS = 4000
"""How many parts of a window can be told apart on a screen; a shorter stretch joins the one before it."""
DAYS_SHOWN = 14
HOURS_SHOWN = 48


def ribbons(db: sqlite3.Connection, from_us: int, to_us: int) -> Ribbons:
    """Return the time of every replica that lived within a window; of a young fleet, since it began."""
    book, known = rate_book(db), lives(db)
    first_us = min((life.created_us for life in known), default=from_us)
    from_us = min(max(from_us, first_us), to_us - SECOND_US)
    found: dict[str, tuple[str, list[Stretch], list[tuple[int, int | None, bool | None]]]] = {}
    for life in known:
        if life.created_us >= to_us or (life.ended_us is not None and life.ended_us <= from_us):
            continue
        _, stretches, wakes = found.setdefault(life.replica, (life.model, [], []))
        stretches += _visible(_stretches(db, book, life, from_us, to_us), (to_us - from_us) // STEPS)
        wakes += (
            (began, ended, None if ok is None else bool(ok))
            for began, ended, ok in db.execute(_WAKES, (life.id, from_us, to_us))
        )
    rows = [
        Ribbon(replica=replica, model=model, stretches=stretches, wakes=wakes)
        for replica, (model, stretches, wakes) in found.items()
    ]
    return Ribbons(from_us=from_us, to_us=to_us, rows=rows)


def _stretches(
    db: sqlite3.Connection, book: RateBook, life: Life, from_us: int, to_us: int
) -> Iterator[Stretch]:
    for began_us, ended_us, cause, tier in db.execute(_SPANS, (life.id, to_us, from_us)):
        rate = book.at(life, began_us)
        yield began_us, ended_us, cause, rate.nusd_h(cause, tier) if rate else 0, 0


def _visible(stretches: Iterator[Stretch], least_us: int) -> Iterator[Stretch]:
    """Join what follows with the same cause and price, and what is too short to be seen."""
    last: Stretch | None = None
    for stretch in stretches:
        began_us, ended_us, cause, nusd_h, _ = stretch
        if last is None:
            last = stretch
        elif (cause, nusd_h) == last[2:4]:
            last = (last[0], ended_us, *last[2:])
        elif ended_us is not None and ended_us - began_us < least_us:
            last = (last[0], ended_us, *last[2:4], last[4] + 1)
        else:
            yield last
            last = stretch
    if last is not None:
        yield last


def costs(db: sqlite3.Connection, now_us: int) -> Costs:
    """Return the bill of this month and of the last days."""
    today, month = day_of(now_us), month_of(now_us)
    first_us = min(month.from_us, today.from_us - (DAYS_SHOWN - 1) * DAY_US)
    book = rate_book(db)
    found = items(db, Period(from_us=first_us, to_us=now_us + 1))
    active = {rate.id: rate.active_nusd_h for rate in book.rates}
    days: dict[tuple[int, str], int] = defaultdict(int)
    sums: dict[str, _Sums] = defaultdict(_Sums)
    for item in found:
        days[item.day * DAY_US, item.cause] += item.nusd
        if item.day * DAY_US >= month.from_us:
            sums[item.model].add(
                item, active.get(item.rate or 0, 0), today=item.day * DAY_US >= today.from_us
            )
    for model, now, awake in _now(db, book, now_us):
        sums[model].now += now
        sums[model].now_awake += awake
    return Costs(
        now_us=now_us,
        currency=min((item.currency for item in found), default="USD"),
        models=[one.of(model) for model, one in sums.items()],
        days=[(day, cause, nusd) for (day, cause), nusd in sorted(days.items()) if nusd],
        hours=[
            HourOfUse(at_us=hour * HOUR_US, requests=n, failed=bad, tokens_in=i, tokens_out=o, held_us=held)
            for hour, n, bad, i, o, held in db.execute(_HOURS, (now_us // HOUR_US - HOURS_SHOWN,))
        ],
    )


class _Sums:
    """One model's sums, while they are made."""

    __slots__ = ("month", "month_awake", "now", "now_awake", "paid", "today", "today_awake", "useful")

    def __init__(self) -> None:
        self.month = self.month_awake = self.today = self.today_awake = 0
        self.paid = self.useful = self.now = self.now_awake = 0

    def add(self, item: Item, active_nusd_h: int, *, today: bool) -> None:
        awake = item.us * active_nusd_h // HOUR_US
        self.month += item.nusd
        self.month_awake += awake
        if today:
            self.today += item.nusd
            self.today_awake += awake
        if item.cause not in PARKED_CAUSES:
            self.paid += item.us
        if item.cause in USEFUL_CAUSES:
            self.useful += item.us

    def of(self, model: str) -> ModelCost:
        return ModelCost(
            model=model,
            today_nusd=self.today,
            today_awake_nusd=self.today_awake,
            month_nusd=self.month,
            month_awake_nusd=self.month_awake,
            paid_us=self.paid,
            useful_us=self.useful,
            now_nusd_h=self.now,
            now_awake_nusd_h=self.now_awake,
        )


def _now(db: sqlite3.Connection, book: RateBook, now_us: int) -> Iterator[tuple[str, int, int]]:
    """Yield (model, price of an hour as it is, price of an hour awake) of every replica that lives."""
    for life in lives(db):
        if life.ended_us is None:
            rate = book.at(life, now_us)
            span = db.execute(_OPEN, (life.id,)).fetchone()
            if rate is not None and span is not None:
                yield life.model, rate.nusd_h(*span), rate.active_nusd_h


def last_wakes(db: sqlite3.Connection, model: str | None, last: int) -> list[PastWake]:
    """Return the last finished wakes, the newest first."""
    return [
        PastWake(
            wake=wake.wake,
            model=wake.model,
            replica=wake.replica,
            from_tier=wake.from_tier,
            why=wake.why,
            asked_by=wake.asked_by,
            began_us=wake.began_us,
            ended_us=wake.ended_us,
            ok=wake.ok,
            failure=wake.failure,
            held=wake.held,
            budget_us=wake.budget_us,
            phases=[(span.phase, span.began_us, span.ended_us) for span in wake.spans],
        )
        for wake in reversed(finished_wakes(db, model=model, last=last))
    ]


def last_requests(db: sqlite3.Connection, last: int) -> Sequence[PastRequest]:
    """Return the last finished requests, the newest first."""
    names = tuple(PastRequest.__dataclass_fields__)
    rows = db.execute(f"SELECT {', '.join(names)} FROM request_rows ORDER BY id DESC LIMIT ?", (last,))
    return [PastRequest(**dict(zip(names, row, strict=True))) for row in rows]


_SPANS = """
SELECT began_us, ended_us, cause, tier FROM spans
WHERE life = ? AND began_us < ? AND (ended_us IS NULL OR ended_us > ?) ORDER BY began_us
"""

_OPEN = "SELECT cause, tier FROM spans WHERE life = ? AND next_us IS NULL"

_WAKES = """
SELECT began_us, ended_us, ok FROM wakes
WHERE life = ? AND (ended_us IS NULL OR ended_us > ?) AND began_us < ? ORDER BY began_us DESC LIMIT 500
"""

_HOURS = """
SELECT hour, sum(requests), sum(failed), sum(tokens_in), sum(tokens_out), sum(held_us) FROM usage
WHERE hour >= ? GROUP BY hour ORDER BY hour
"""
