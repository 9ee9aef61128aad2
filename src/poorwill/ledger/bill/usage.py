"""How much was asked: requests, tokens, waiting. From hourly sums and, for part hours, the raw rows."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from poorwill.core.words import HOUR_US
from poorwill.ledger.dates import DAY_US, Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Sums over request rows."""

    requests: int = 0
    failed: int = 0
    untold: int = 0
    """Requests whose engine reported no usage; their tokens are unknown, not zero."""
    tokens_in: int = 0
    tokens_out: int = 0
    held_us: int = 0
    bridge_nusd: int = 0
    bridged: int = 0
    """Requests that a hosted API answered, or was asked and did not finish."""
    bridge_untold: int = 0
    """Those of them whose API told no usage: what they cost is not known, and not in `bridge_nusd`."""

    def __add__(self, other: "Count") -> "Count":
        return Count(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            untold=self.untold + other.untold,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            held_us=self.held_us + other.held_us,
            bridge_nusd=self.bridge_nusd + other.bridge_nusd,
            bridged=self.bridged + other.bridged,
            bridge_untold=self.bridge_untold + other.bridge_untold,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Use(Count):
    """Sums over the request rows of a model and a key on one day, or on a part of it."""

    day: int
    model: str
    key: str


def usage(db: sqlite3.Connection, period: Period) -> Iterator[Use]:
    """Yield what requests that ended within the period add up to, in parts of at most a day.

    Part hours come from raw rows; where those were dropped (`poorwill ledger compact`) they are not known
    and are left out, so ask for whole hours there.
    """
    first_hour, last_hour = -(-period.from_us // HOUR_US), period.to_us // HOUR_US
    if first_hour > last_hour:
        edges = [(period.from_us, period.to_us)]
    else:
        edges = [(period.from_us, first_hour * HOUR_US), (last_hour * HOUR_US, period.to_us)]
    if first_hour < last_hour:
        yield from _uses(db.execute(_HOURS, {"from": first_hour, "to": last_hour}))
    for begin, end in edges:
        if begin < end:
            yield from _uses(db.execute(_ROWS, {"from": begin, "to": end, "day": DAY_US}))


def _uses(rows: sqlite3.Cursor) -> Iterator[Use]:
    for day, model, key, *sums in rows:
        requests, failed, untold, tokens_in, tokens_out, held, nusd, bridged, bridge_untold = sums
        yield Use(
            day=day,
            model=model,
            key=key,
            requests=requests,
            failed=failed,
            untold=untold,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            held_us=held,
            bridge_nusd=nusd,
            bridged=bridged,
            bridge_untold=bridge_untold,
        )


_HOURS = """
SELECT u.hour / 24, m.text, k.text, sum(u.requests), sum(u.failed), sum(u.untold), sum(u.tokens_in),
  sum(u.tokens_out), sum(u.held_us), sum(u.bridge_nusd), sum(u.bridged), sum(u.bridge_untold)
FROM usage u JOIN texts m ON m.id = u.model JOIN texts k ON k.id = u.key
WHERE u.hour >= :from AND u.hour < :to GROUP BY u.hour / 24, u.model, u.key
"""

_ROWS = """
SELECT r.ended_us / :day, m.text, k.text, count(*), sum(o.text <> 'ok'), sum(r.tokens_out IS NULL),
  coalesce(sum(r.tokens_in), 0), coalesce(sum(r.tokens_out), 0),
  sum(coalesce(r.leased_us, r.ended_us) - r.arrived_us), sum(r.bridge_nusd),
  count(r.bridge), sum(r.bridge IS NOT NULL AND coalesce(r.tokens_in, r.tokens_out) IS NULL)
FROM (SELECT NULL AS id UNION ALL SELECT id FROM lives) l
JOIN requests r ON r.life IS l.id AND r.ended_us >= :from AND r.ended_us < :to
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key JOIN texts o ON o.id = r.outcome
GROUP BY 1, 2, 3
"""
