"""Spans times rates, exactly: what every stretch of every life cost.

A *cell* is one life's time with one cause, tier and rate within one UTC day. Its cost is an exact integer
numerator, rounded once to whole nano-dollars; everything the bill prints is a sum of cells. Days therefore
sum to the month and every grouping to the same total. Of a period that begins or ends within a day, a cell
costs what the day costs up to its end minus what it costs up to its beginning: parts sum to the whole.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from poorwill.core.format import DAY_US
from poorwill.core.money import rounded
from poorwill.core.words import HOUR_US, RELEASED_CAUSES
from poorwill.ledger.rates import Life, RateBook, Segment
from poorwill.policies.pricing import (
    MINIMUM,
    ROUNDING,
    STORAGE,
    Durations,
    MeteredStretch,
    TimeCharge,
    stretch_charges,
    time_charges,
)

BRIDGE = "bridge"
NAMED_CHARGES = (ROUNDING, MINIMUM, STORAGE, BRIDGE)
"""Lines of the bill that are no span's time: what the provider's billing increment and minimum charge add,
what snapshots cost on disk, and what a hosted API was paid while a replica woke."""


@dataclass(frozen=True, slots=True)
class PriceCell:
    """The address of a cell. `cause` may be one of NAMED_CHARGES."""

    day: int
    life: int
    cause: str
    tier: str
    rate: int | None
    host: str = ""


@dataclass(slots=True)
class Amount:
    """Time and exact money of a cell; the price is `numerator / denominator` nano-dollars."""

    us: int = 0
    numerator: int = 0
    denominator: int = HOUR_US

    def nusd(self) -> int:
        """Return the cost in whole nano-dollars."""
        return rounded(self.numerator, self.denominator)


def cells(
    db: sqlite3.Connection, book: RateBook, life: Life, *, from_us: int, to_us: int
) -> dict[PriceCell, Amount]:
    """Return the cells of a life within a stretch of time that begins at midnight or is within one day.

    Spans still open count as far as `to_us`. Stretches that the provider rounds up are priced where they
    end, at the rate in force then.
    """
    found: dict[PriceCell, Amount] = defaultdict(Amount)
    for segment in book.segments(life, from_us, to_us):
        durations = _durations(db, life, segment.from_us, segment.to_us)
        _add(found, life, segment, time_charges(segment.rate, durations))
    for stretch in stretches(db, life, from_us=from_us, to_us=to_us):
        last_us = stretch.ended_us - 1
        last = Segment(last_us, stretch.ended_us, book.at(life, last_us), life.host(last_us))
        _add(found, life, last, stretch_charges(last.rate, stretch))
    return found


def priced(
    db: sqlite3.Connection, book: RateBook, life: Life, *, from_us: int, to_us: int
) -> dict[PriceCell, tuple[int, int]]:
    """Return (microseconds, nano-dollars) of every cell of a life within any period."""
    midnight_us = from_us // DAY_US * DAY_US
    whole = cells(db, book, life, from_us=midnight_us, to_us=to_us)
    total = {cell: (amount.us, amount.nusd()) for cell, amount in whole.items()}
    if midnight_us < from_us:
        for cell, amount in cells(db, book, life, from_us=midnight_us, to_us=from_us).items():
            us, nusd = total.get(cell, (0, 0))
            total[cell] = (us - amount.us, nusd - amount.nusd())
    return {cell: value for cell, value in total.items() if value != (0, 0)}


def stretches(db: sqlite3.Connection, life: Life, *, from_us: int, to_us: int) -> Iterator[MeteredStretch]:
    """Yield the metered stretches that ended after `from_us` and not after `to_us`."""
    window = {"life": life.id, "from": from_us, "to": to_us}
    for row in db.execute(_STRETCHES, window):
        yield MeteredStretch(*row)


def stretch_began_us(db: sqlite3.Connection, life: Life, at_us: int) -> int:
    """Return when the metered stretch that lasts just before `at_us` began."""
    began = f"SELECT {_STRETCH_BEGAN.format(end=':end')}"
    return int(db.execute(began, {"life": life.id, "end": at_us}).fetchone()[0])


def released_us(db: sqlite3.Connection, life: Life, at_us: int) -> int:
    """Return when the last span before `at_us` began in which no host was taken."""
    row = db.execute(_RELEASED, {"life": life.id, "at": at_us}).fetchone()
    return life.created_us if row is None else int(row[0])


def split_at_midnight(from_us: int, to_us: int) -> Iterator[tuple[int, int, int]]:
    """Yield (day, from, to) for each UTC day a stretch of time touches."""
    while from_us < to_us:
        day = from_us // DAY_US
        end_us = min((day + 1) * DAY_US, to_us)
        yield day, from_us, end_us
        from_us = end_us


def _durations(db: sqlite3.Connection, life: Life, from_us: int, to_us: int) -> Durations:
    window = {"life": life.id, "from": from_us, "to": to_us, "day": DAY_US}
    found: dict[tuple[int, str, str, int], int] = defaultdict(int)
    for day, cause, tier, image_bytes, us in db.execute(_WITHIN_DAYS, window):
        found[day, cause, tier, image_bytes] += us
    for began_us, ended_us, cause, tier, image_bytes in db.execute(_ACROSS, window):
        for day, begin, end in split_at_midnight(max(began_us, from_us), min(ended_us, to_us)):
            found[day, cause, tier, image_bytes] += end - begin
    return found


def _add(found: dict[PriceCell, Amount], life: Life, at: Segment, charges: Iterable[TimeCharge]) -> None:
    number = at.rate.id if at.rate else None
    for charge in charges:
        amount = found[PriceCell(charge.day, life.id, charge.cause, charge.tier, number, at.host)]
        amount.us += charge.us
        amount.numerator += charge.numerator
        amount.denominator = charge.denominator


_OFF = ", ".join(f"'{cause}'" for cause in sorted(RELEASED_CAUSES))

_FIRST = "(SELECT coalesce(max(began_us), 0) FROM spans WHERE life = :life AND began_us <= :from)"

_WITHIN_DAYS = """
SELECT began_us / :day, cause, coalesce(tier, ''), image_bytes, sum(ended_us - began_us)
FROM spans
WHERE life = :life AND began_us >= :from AND began_us < :to AND ended_us <= :to
  AND began_us / :day = (ended_us - 1) / :day
GROUP BY 1, 2, 3, 4
"""

_ACROSS = f"""
SELECT began_us, coalesce(ended_us, :to), cause, coalesce(tier, ''), image_bytes
FROM spans
WHERE life = :life AND began_us >= {_FIRST} AND began_us < :to
  AND coalesce(ended_us, :to) > :from
  AND NOT (began_us >= :from AND coalesce(ended_us, :to + 1) <= :to
    AND began_us / :day = (ended_us - 1) / :day)
"""

_STRETCH_BEGAN = f"""coalesce(
  (SELECT ended_us FROM spans WHERE life = :life AND began_us < {{end}} AND cause IN ({_OFF})
   ORDER BY began_us DESC LIMIT 1),
  (SELECT min(began_us) FROM spans WHERE life = :life))"""

_STRETCHES = f"""
SELECT {_STRETCH_BEGAN.format(end="s.ended_us")}, s.ended_us, s.cause, s.tier
FROM spans s
WHERE s.life = :life AND s.began_us >= {_FIRST} AND s.began_us < :to
  AND s.ended_us > :from AND s.ended_us <= :to AND s.cause NOT IN ({_OFF})
  AND (s.next_us IS NULL OR EXISTS (SELECT 1 FROM spans n
    WHERE n.life = s.life AND n.began_us = s.next_us AND n.cause IN ({_OFF})))
"""

_RELEASED = f"""
SELECT began_us FROM spans WHERE life = :life AND began_us < :at AND cause IN ({_OFF})
ORDER BY began_us DESC LIMIT 1
"""
