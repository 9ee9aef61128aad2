"""The spend breaker's eyes: what this UTC day and month have cost so far, from the ledger.

`SpendWatch.look` is asked again and again by whoever runs the fleet; the decision is `core.spend.judge`. What
a limit has stopped stays stopped across a restart, because the ledger is what is asked.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, MutableMapping, Sequence

from poorwill.core.settings import SpendSettings
from poorwill.core.spend import Spent, Verdict, Window, judge
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.ledger.bill import is_wake
from poorwill.ledger.dates import DAY_US, Period, day_of, month_of
from poorwill.ledger.items import Item, items
from poorwill.ledger.ledger import Ledger
from poorwill.ledger.pricing import OFF_CAUSES, stretch_began_us
from poorwill.ledger.rates import lives, rate_book

LOOK_EVERY_S = 10
"""How often to look; between two looks running replicas cost what `LOOK_AHEAD_US` allows for."""

LOOK_AHEAD_US = 15 * SECOND_US


class SpendWatch:
    """Watches the limits of one fleet. Days that are over are priced once and remembered."""

    def __init__(self, *, ledger: Ledger, limits: SpendSettings) -> None:
        self._ledger = ledger
        self._limits = limits
        self._settled: dict[int, Sequence[Item]] = {}

    async def look(self) -> Verdict:
        """Return how every limit stands now.

        Takes milliseconds, off the event loop; the first look of a process prices the month so far.
        Raises OperatorFault where the ledger cannot be read. Cancelled: nothing is remembered.
        """
        now_us = self._ledger.clock.now_us()
        if not _any_limit(self._limits):
            return Verdict(at_us=now_us)
        return await self._ledger.read(
            lambda db: look_at(db, self._limits, now_us=now_us, settled=self._settled)
        )


def look_at(
    db: sqlite3.Connection,
    limits: SpendSettings,
    *,
    now_us: int,
    settled: MutableMapping[int, Sequence[Item]],
) -> Verdict:
    """Return how every limit stands. `settled` remembers days that are over, between looks."""
    if not _any_limit(limits):
        return Verdict(at_us=now_us)
    month, today = month_of(now_us), day_of(now_us)
    by_key = bool(limits.key_day_nusd or limits.key_month_nusd)
    # Yesterday may still get late request rows for an hour or so; the days before it are settled.
    settled_until = today.from_us // DAY_US - 1
    for day in range(month.from_us // DAY_US, settled_until):
        if day not in settled:
            settled[day] = items(db, _day(day), by_key=by_key)
    for day in [day for day in settled if day * DAY_US < month.from_us]:
        del settled[day]
    recent_from = max(month.from_us, settled_until * DAY_US)
    recent = items(db, Period(from_us=recent_from, to_us=now_us + 1), by_key=by_key)
    in_month = range(month.from_us // DAY_US, settled_until)
    whole = [*recent, *(item for day in in_month for item in settled[day])]
    ahead = _ahead(db, now_us)
    today_only = [item for item in recent if item.day == today.from_us // DAY_US]
    windows = [
        _spent(Window.DAY, today, today_only, ahead),
        _spent(Window.MONTH, month, whole, ahead),
    ]
    return judge(limits, windows, now_us=now_us)


def _any_limit(limits: SpendSettings) -> bool:
    return limits != SpendSettings(warn_share=limits.warn_share)


def _day(day: int) -> Period:
    return Period(from_us=day * DAY_US, to_us=(day + 1) * DAY_US)


def _spent(window: Window, period: Period, found: Iterable[Item], ahead: dict[str, int]) -> Spent:
    total, models, keys = 0, defaultdict[str, int](int), defaultdict[str, int](int)
    for item in found:
        total += item.nusd
        models[item.model] += item.nusd
        keys[item.key] += item.nusd
    return Spent(
        window=window,
        began_us=period.from_us,
        ends_us=period.to_us,
        total_nusd=total,
        models_nusd=models,
        keys_nusd=keys,
        ahead_nusd=sum(ahead.values()),
        models_ahead_nusd=ahead,
    )


def _ahead(db: sqlite3.Connection, now_us: int) -> dict[str, int]:
    """Return, by model, what its replicas may cost beyond what is spent before anything can be stopped.

    That is their time until the next look, or to the end of a wake as long as the longest of the last ones,
    where a wake is under way or may begin meanwhile; and what the provider will add when it rounds up the
    stretch: where it charges whole hours, an hour is spent when it begins.
    """
    book, costs = rate_book(db), defaultdict[str, int](int)
    open_spans = {life: (cause, tier) for life, cause, tier in db.execute(_OPEN)}
    longest = dict(db.execute(_LONGEST_WAKES))
    last_us = db.execute("SELECT last_us FROM alive").fetchone()[0]
    until_us = max(now_us, last_us) + LOOK_AHEAD_US
    for life in lives(db):
        rate = book.at(life, now_us)
        if rate is None or life.id not in open_spans:
            continue
        cause, tier = open_spans[life.id]
        wake_us = longest.get(life.model, 0)
        off, waking = cause in OFF_CAUSES, is_wake(cause)
        if wake_us and (off or waking):  # one more wake may begin before the next look
            next_us = wake_us + sum(rate.added_us(wake_us))
            costs[life.model] += _price(next_us, rate.active_nusd_h)
        end_us = until_us
        if not off:
            began_us = stretch_began_us(db, life, until_us)
            end_us = max(until_us, began_us + wake_us) if waking else until_us
            end_us += sum(rate.added_us(end_us - began_us))
        costs[life.model] += _price(end_us - last_us, rate.nusd_h(cause, tier))
    return dict(costs)


def _price(us: int, nusd_h: int) -> int:
    """Return what time costs, rounded up: a breaker errs on the safe side."""
    return -(-us * nusd_h // HOUR_US)


_LONGEST_WAKES = """
SELECT model, max(lasted_us) FROM (
  SELECT l.model, w.ended_us - w.began_us AS lasted_us,
    row_number() OVER (PARTITION BY l.model ORDER BY w.ended_us DESC) AS age
  FROM wakes w JOIN lives l ON l.id = w.life WHERE w.ended_us IS NOT NULL
) WHERE age <= 20 GROUP BY model
"""

_OPEN = (
    "SELECT s.life, s.cause, s.tier FROM lives l"
    " JOIN spans s ON s.life = l.id AND s.next_us IS NULL WHERE l.ended_us IS NULL"
)
