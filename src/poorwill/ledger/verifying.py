"""Whether the rows that a bill is made of are those that were written.

What a bill reads of a period is verified by the checksums of its blocks, through the same indexes; what it
reads by the million (whose request was in flight when) is added up as it is shared (`costs/sharing.py`).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC

from poorwill.core.format import DAY_US
from poorwill.core.words import HOUR_US
from poorwill.ledger.checksums import DAYS, HOURS, REQUESTS, WAKES, Tell, intact
from poorwill.ledger.costs.attribution import progress
from poorwill.ledger.costs.pricing import released_us
from poorwill.ledger.costs.usage import part_hours
from poorwill.ledger.dates import Period, local_days
from poorwill.ledger.rates import Life, lives, rate_book
from poorwill.ledger.schema import damaged


def verify(
    db: sqlite3.Connection, period: Period, *, by_key: bool = False, tell: Tell = lambda _: None
) -> None:
    """Verify what a bill of a period reads, but for the tables that `undamaged` has verified whole.

    `tell` receives what it is at. Raises LedgerFault if a row is not what was written.
    """
    last_us = int(db.execute("SELECT last_us FROM alive").fetchone()[0])
    end_us = min(period.to_us, last_us)
    if period.from_us >= period.to_us:
        return
    tell("checksums")
    found = [life for life in lives(db) if life.created_us < end_us and _lasts(life, period.from_us)]
    days = period.from_us // DAY_US, (period.to_us - 1) // DAY_US
    metered = any(rate.increment_us > 1 or rate.minimum_us for rate in rate_book(db).rates)
    midnight_us = days[0] * DAY_US
    whole = (
        all(_spans(db, life, midnight_us, end_us, metered=metered) for life in found)
        and intact(db, "usage", days, "hour >= ? AND hour < ?", (days[0] * 24, (days[1] + 1) * 24))
        and _wakes(db, days, by_key=by_key)
        and all(_hour(db, hour) for hour in _part_hours(period, found, end_us))
        and (not by_key or (_late(db) and all(_life_days(db, "shares", life.id, days) for life in found)))
    )
    if not whole:
        raise damaged(db)


def _lasts(life: Life, at_us: int) -> bool:
    return life.ended_us is None or life.ended_us > at_us


def _part_hours(period: Period, found: Sequence[Life], end_us: int) -> set[int]:
    """Return the hours of which single rows are read: where the period, or a day of its zone, cuts them."""
    parts = [period]
    if period.zone is not UTC and found:
        from_us = max(period.from_us, min(life.created_us for life in found))
        parts += [part for _, part in local_days(replace(period, from_us=from_us, to_us=end_us))]
    return {at_us // HOUR_US for part in parts for at_us, _ in part_hours(part)}


def _spans(db: sqlite3.Connection, life: Life, from_us: int, to_us: int, *, metered: bool) -> bool:
    """Verify a life's first day, which tells whether it is an orphan's, and the days that are priced.

    A span that crosses the beginning of the period is dated by its own, and so is a stretch that the provider
    rounds up.
    """
    first_us = int(db.execute(_IN_FORCE, (life.id, from_us, life.created_us)).fetchone()[0])
    if metered:
        first_us = min(first_us, released_us(db, life, from_us))
    created, first, last = life.created_us // DAY_US, first_us // DAY_US, (to_us - 1) // DAY_US
    ranges = [(created, created)] if created < first else []
    return all(_life_days(db, "spans", life.id, days) for days in (*ranges, (first, last)))


def _life_days(db: sqlite3.Connection, name: str, life: int, days: tuple[int, int]) -> bool:
    first, last = days
    return intact(
        db,
        name,
        (life * DAYS + first, life * DAYS + last),
        "life = ? AND began_us >= ? AND began_us < ?",
        (life, first * DAY_US, (last + 1) * DAY_US),
    )


def _wakes(db: sqlite3.Connection, days: tuple[int, int], *, by_key: bool) -> bool:
    """Verify the wakes that ended on these days or the next, or have not; and whom they woke for."""
    first, last = days[0], days[1] + 1
    window = "ended_us >= ? AND ended_us < ?"
    edges = first * DAY_US, (last + 1) * DAY_US
    if not intact(db, "wakes", (first, last), window, edges):
        return False
    if not intact(db, "wakes", (-1, -1), "ended_us IS NULL", ()):
        return False
    low, high = db.execute(
        f"SELECT min(id), max(id) FROM wakes WHERE ({window}) OR ended_us IS NULL", edges
    ).fetchone()
    if not by_key or low is None:
        return True
    blocks = low // WAKES, high // WAKES
    return intact(
        db, "wake_keys", blocks, "wake >= ? AND wake < ?", (blocks[0] * WAKES, (blocks[1] + 1) * WAKES)
    )


def _hour(db: sqlite3.Connection, hour: int) -> bool:
    """Verify the request rows that ended in an hour: the index that leads to them, and the rows."""
    edges = hour * HOUR_US, (hour + 1) * HOUR_US
    for life in (None, *(life.id for life in lives(db))):
        block = (life or 0) * HOURS + hour
        window = "life IS ? AND ended_us >= ? AND ended_us < ?"
        if not intact(db, "leases", (block, block), window, (life, *edges)):
            return False
        found = db.execute(f"SELECT DISTINCT id / {REQUESTS} FROM requests WHERE {window}", (life, *edges))
        if not all(_request_blocks(db, number, number) for (number,) in found.fetchall()):
            return False
    return True


def _late(db: sqlite3.Connection) -> bool:
    """Verify the rows that came after the shares were written: they may reach into hours that have some."""
    done = progress(db)
    newest = db.execute("SELECT max(id) FROM requests").fetchone()[0] or 0
    if not done.shared_us or newest <= done.seen_id:
        return True
    return _request_blocks(db, (done.seen_id + 1) // REQUESTS, newest // REQUESTS)


def _request_blocks(db: sqlite3.Connection, first: int, last: int) -> bool:
    edges = first * REQUESTS, (last + 1) * REQUESTS - 1
    return intact(db, "requests", (first, last), "id BETWEEN ? AND ?", edges)


_IN_FORCE = "SELECT coalesce(max(began_us), ?3) FROM spans WHERE life = ?1 AND began_us <= ?2"
