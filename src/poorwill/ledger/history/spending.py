"""The spend breaker's eyes: what this UTC day and month have cost so far, from the ledger.

`SpendWatch.look` is asked again and again by whoever runs the fleet; the decision is `core.spend.judge`. What
a limit has stopped stays stopped across a restart, because the ledger is what is asked.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from poorwill.core.format import DAY_US
from poorwill.core.settings import SpendSettings
from poorwill.core.spend import CostAhead, Spent, Verdict, Window, judge
from poorwill.core.words import HOUR_US, RELEASED_CAUSES, SECOND_US, Tier
from poorwill.core.words import parked as parked_in
from poorwill.ledger.checking import undamaged
from poorwill.ledger.costs.items import Item, bridged_items, items
from poorwill.ledger.costs.lingering import linger_items
from poorwill.ledger.costs.pricing import stretch_began_us
from poorwill.ledger.dates import Period, day_of, month_of
from poorwill.ledger.ledger import Ledger
from poorwill.ledger.rates import Life, RateBook, lives, rate_book
from poorwill.ledger.verifying import verify
from poorwill.policies.pricing import GB_BYTES, MONTH_H

LOOK_EVERY_S = 10
"""How often to look; between two looks running replicas cost what `LOOK_AHEAD_US` allows
for."""

LOOK_AHEAD_US = 15 * SECOND_US
"""Until the next look is over, late ones included."""

STOP_US = 6 * SECOND_US
"""What it takes to end an engine: it is asked, then killed after 5 s."""


class SpendWatch:
    """Watches the limits of one fleet. Days that are over are priced once and remembered."""

    def __init__(self, *, ledger: Ledger, limits: SpendSettings) -> None:
        self._ledger = ledger
        self._limits = limits
        self._settled: dict[int, Sequence[Item]] = {}

    async def look(self) -> Verdict:
        """Return how every limit stands now.

        Takes milliseconds, off the event loop; the first look of a process prices the month so far.
        Raises OperatorFault if the ledger cannot be read, or its rows are not those that were written.
        Cancelled: nothing is remembered.
        """
        now_us = self._ledger.clock.now_us()
        if not self._limits.any_limit:
            return Verdict(at_us=now_us)

        def looked(db: sqlite3.Connection) -> Verdict:
            with undamaged(db, self._ledger.path):
                return look_at(db, self._limits, now_us=now_us, settled=self._settled)

        return await self._ledger.read(looked)


def look_at(
    db: sqlite3.Connection,
    limits: SpendSettings,
    *,
    now_us: int,
    settled: MutableMapping[int, Sequence[Item]],
) -> Verdict:
    """Return how every limit stands. `settled` remembers days that are over, between looks."""
    if not limits.any_limit:
        return Verdict(at_us=now_us)
    month, today = month_of(now_us), day_of(now_us)
    by_key = bool(limits.key_day_nusd or limits.key_month_nusd)
    # Yesterday may still get late request rows for an hour or so; the days before it are settled.
    settled_until = today.from_us // DAY_US - 1
    for day in range(month.from_us // DAY_US, settled_until):
        if day not in settled:
            settled[day] = _counted(db, _day(day), by_key=by_key)
    for day in [day for day in settled if day * DAY_US < month.from_us]:
        del settled[day]
    recent_from = max(month.from_us, settled_until * DAY_US)
    recent = _counted(db, Period(from_us=recent_from, to_us=now_us + 1), by_key=by_key)
    in_month = range(month.from_us // DAY_US, settled_until)
    whole = [*recent, *(item for day in in_month for item in settled[day])]
    today_only = [item for item in recent if item.day == today.from_us // DAY_US]
    first_us = min((life.created_us for life in lives(db)), default=now_us)
    windows = [
        _spent(Window.DAY, today, today_only, _ahead(db, now_us, today.to_us), first_us),
        _spent(Window.MONTH, month, whole, _ahead(db, now_us, month.to_us), first_us),
    ]
    lifted = {row[0] for row in db.execute(_LIFTED, (month.from_us, now_us))}
    return judge(limits, windows, now_us=now_us, lifted=lifted)


def _counted(db: sqlite3.Connection, period: Period, *, by_key: bool) -> Sequence[Item]:
    """Return what counts towards limits: the bill, with linger on its keys, and what hosted APIs may have
    charged beyond it. Raises LedgerFault as a bill does."""
    verify(db, period, by_key=by_key)
    found = items(db, period, by_key=by_key)
    if by_key:
        found = linger_items(db, period, found)
    return [*found, *bridged_items(db, period, by_key=by_key, unknown=True)]


def _day(day: int) -> Period:
    return Period(from_us=day * DAY_US, to_us=(day + 1) * DAY_US)


def _spent(
    window: Window,
    period: Period,
    found: Iterable[Item],
    ahead: Mapping[str, CostAhead],
    first_us: int,
) -> Spent:
    total, models, keys = 0, defaultdict[str, int](int), defaultdict[str, int](int)
    for item in found:
        total += item.nusd
        models[item.model] += item.nusd
        keys[item.key] += item.nusd
    return Spent(
        window=window,
        began_us=max(period.from_us, first_us),
        ends_us=period.to_us,
        total_nusd=total,
        models_nusd=models,
        keys_nusd=keys,
        ahead=ahead,
    )


def _ahead(db: sqlite3.Connection, now_us: int, ends_us: int) -> dict[str, CostAhead]:
    """Return, by model, what its replicas may still cost in a window that ends at `ends_us`."""
    last_us = db.execute("SELECT last_us FROM alive").fetchone()[0]
    look = _Look(
        db=db,
        book=rate_book(db),
        last_us=last_us,
        until_us=max(now_us, last_us) + LOOK_AHEAD_US,
        ends_us=ends_us,
        longest_wakes=dict(db.execute(_LONGEST_WAKES)),
        longest_parks=dict(db.execute(_LONGEST_PARKS)),
    )
    open_spans = {row[0]: OpenSpan(*row[1:]) for row in db.execute(_OPEN)}
    found: dict[str, CostAhead] = {}
    for life in lives(db):
        if life.id in open_spans:
            one, before = look.ahead(life, open_spans[life.id]), found.get(life.model, CostAhead())
            found[life.model] = CostAhead(
                certain_nusd=before.certain_nusd + one.certain_nusd,
                wake_nusd=before.wake_nusd + one.wake_nusd,
                next_nusd=max(before.next_nusd, one.next_nusd),
            )
    return found


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """What a life's time costs now, and for what."""

    cause: str
    image_bytes: int
    wake_began_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What is ahead of a life until the next look, until it is stopped, and until the window ends."""

    db: sqlite3.Connection
    book: RateBook
    last_us: int
    until_us: int
    """When the next look will be over at the latest."""
    ends_us: int
    longest_wakes: Mapping[str, int]
    longest_parks: Mapping[str, int]

    def ahead(self, life: Life, now: OpenSpan) -> CostAhead:
        """Return what lies ahead of a life. If the provider charges whole hours, all of an hour does."""
        active = [
            each.rate
            for each in self.book.segments(life, self.last_us, self.until_us)
            if each.rate is not None
        ]
        if not active:
            return CostAhead()
        dearest = max(active, key=lambda rate: rate.active_nusd_h)
        stop_us = max(STOP_US, self.longest_parks.get(life.model, 0))
        longest_us = self.longest_wakes.get(life.model, 0)
        wake_us = max(longest_us, LOOK_AHEAD_US) + stop_us
        parked = self._parked(life, now.image_bytes)

        def cost(from_us: int, to_us: int) -> int:
            """Price a stretch's going on from one length to another, as the provider meters it."""
            billed = to_us + sum(dearest.added_us(to_us)) - from_us
            return -(-billed * dearest.active_nusd_h // HOUR_US)

        if now.cause in RELEASED_CAUSES:
            deeper = 0 if now.cause == parked_in(Tier.COLD) else cost(0, stop_us)
            return CostAhead(certain_nusd=parked + deeper, next_nusd=cost(0, wake_us))
        ran_us = self.last_us - stretch_began_us(self.db, life, self.until_us)
        stopped_us = ran_us + self.until_us - self.last_us + stop_us
        certain, rest_us = cost(ran_us, stopped_us), 0
        if now.wake_began_us is not None:
            rest_us = max(now.wake_began_us + longest_us - self.until_us, 0)
        return CostAhead(
            certain_nusd=certain + parked,
            wake_nusd=cost(ran_us, stopped_us + rest_us) - certain,
            next_nusd=cost(0, wake_us),
        )

    def _parked(self, life: Life, image_bytes: int) -> int:
        """Price being parked to the window's end, in the dearest tier that has no host, with its image."""
        image = image_bytes or self.db.execute(_LAST_IMAGE, (life.id,)).fetchone()[0]
        total = 0
        for each in self.book.segments(life, self.last_us, max(self.ends_us, self.last_us)):
            if each.rate is not None:
                us = each.to_us - each.from_us
                tiers = (tier for tier in Tier if tier is not Tier.ASLEEP)
                dearest = max(each.rate.parked_nusd_h.get(tier, 0) for tier in tiers)
                total += -(-us * dearest // HOUR_US)
                stored = us * image * each.rate.storage_nusd_gb_month
                total += -(-stored // (GB_BYTES * MONTH_H * HOUR_US))
        return total


_LIFTED = """
SELECT json_extract(detail_json, '$.limit') FROM notes WHERE kind = 'spend_lifted' AND at_us >= ?
  AND CAST(json_extract(detail_json, '$.until_us') AS INTEGER) > ?
"""

_LONGEST_WAKES = """
SELECT model, max(lasted_us) FROM (
  SELECT l.model, w.ended_us - w.began_us AS lasted_us,
    row_number() OVER (PARTITION BY l.model ORDER BY w.ended_us DESC) AS age
  FROM wakes w JOIN lives l ON l.id = w.life WHERE w.ended_us IS NOT NULL
) WHERE age <= 20 GROUP BY model
"""

_LONGEST_PARKS = """
SELECT model, max(lasted_us) FROM (
  SELECT l.model, p.ended_us - p.began_us AS lasted_us,
    row_number() OVER (PARTITION BY l.model ORDER BY p.ended_us DESC) AS age
  FROM parks p JOIN lives l ON l.id = p.life
) WHERE age <= 20 GROUP BY model
"""

_LAST_IMAGE = """
SELECT coalesce((SELECT image_bytes FROM parks WHERE life = ? AND ok ORDER BY ended_us DESC LIMIT 1), 0)
"""

_OPEN = """
SELECT s.life, s.cause, s.image_bytes, w.began_us FROM lives l
JOIN spans s ON s.life = l.id AND s.next_us IS NULL
LEFT JOIN wakes w ON w.life = l.id AND w.ended_us IS NULL
WHERE l.ended_us IS NULL
"""
