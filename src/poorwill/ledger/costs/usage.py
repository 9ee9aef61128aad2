"""How much was asked: requests, tokens, waiting. From hourly sums and, for part hours, the raw rows."""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from poorwill.core.format import DAY_US
from poorwill.core.tokens import TOKEN_PARTS, TokenParts
from poorwill.core.words import HOUR_US
from poorwill.ledger.dates import Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Sums over request rows: the columns of `usage`, in their order."""

    requests: int = 0
    failed: int = 0
    untold: int = 0
    """Requests without a count of tokens; theirs are unknown, not zero."""
    tokens_in: int = 0
    tokens_out: int = 0
    held_us: int = 0
    bridge_nusd: int = 0
    bridged: int = 0
    """Requests that a hosted API answered, or was asked and did not finish."""
    bridge_untold: int = 0
    """Those of them whose cost is not, or not wholly, known: what is missing is not in `bridge_nusd`."""
    bridge_unknown_nusd: int = 0
    """The most that is missing."""
    cache_read: int = 0
    cache_write: int = 0
    audio_in: int = 0
    image_in: int = 0
    audio_out: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    counted: int = 0
    """Requests whose tokens were counted as they passed: no usage was reported."""

    def __add__(self, other: "Count") -> "Count":
        return Count(**{name: getattr(self, name) + getattr(other, name) for name in SUMS})

    @property
    def parts(self) -> TokenParts:
        """What is special about some of the tokens."""
        return TokenParts(**{part: getattr(self, part) for part in TOKEN_PARTS})


SUMS: Mapping[str, str] = MappingProxyType(
    {
        "requests": "count(*)",
        "failed": "sum(o.text <> 'ok')",
        "untold": "sum(coalesce(r.tokens_in, r.tokens_out) IS NULL)",
        "tokens_in": "coalesce(sum(r.tokens_in), 0)",
        "tokens_out": "coalesce(sum(r.tokens_out), 0)",
        "held_us": "sum(coalesce(r.leased_us, r.ended_us) - r.arrived_us)",
        "bridge_nusd": "sum(r.bridge_nusd)",
        "bridged": "count(r.bridge)",
        "bridge_untold": "sum(r.bridge IS NOT NULL AND"
        " (coalesce(r.tokens_in, r.tokens_out) IS NULL OR r.counted IS NOT NULL"
        " OR r.bridge_unknown_nusd > 0))",
        "bridge_unknown_nusd": "sum(r.bridge_unknown_nusd)",
        **{part: f"coalesce(sum(r.{part}), 0)" for part in TOKEN_PARTS},
        "counted": "count(r.counted)",
    }
)
"""How each column of `usage` follows from the request rows `r` and their outcomes' texts `o`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use(Count):
    """Sums over the request rows of a model and a key on one day, or on a part of it."""

    day: int
    model: str
    key: str


def usage(db: sqlite3.Connection, period: Period, *, bridged: bool = False) -> Iterator[Use]:
    """Yield what requests that ended within the period add up to, in parts of at most a day.

    With `bridged`, only of those that a hosted API is paid for.
    Part hours come from raw rows. If those were dropped (`poorwill ledger compact`) they are not known
    and are left out, so ask for whole hours there.
    """
    first_hour, last_hour = -(-period.from_us // HOUR_US), period.to_us // HOUR_US
    asked = {"bridged": bridged, "day": DAY_US}
    if first_hour < last_hour:
        yield from _uses(db.execute(_HOURS, {"from": first_hour, "to": last_hour, **asked}))
    for begin, end in part_hours(period):
        yield from _uses(db.execute(_ROWS, {"from": begin, "to": end, **asked}))


def part_hours(period: Period) -> list[tuple[int, int]]:
    """Return the parts of hours at a period's beginning and end, for which no sums are kept."""
    first_hour, last_hour = -(-period.from_us // HOUR_US), period.to_us // HOUR_US
    if first_hour > last_hour:
        edges = [(period.from_us, period.to_us)]
    else:
        edges = [(period.from_us, first_hour * HOUR_US), (last_hour * HOUR_US, period.to_us)]
    return [(begin, end) for begin, end in edges if begin < end]


def _uses(rows: sqlite3.Cursor) -> Iterator[Use]:
    for day, model, key, *sums in rows:
        yield Use(day=day, model=model, key=key, **dict(zip(SUMS, sums, strict=True)))


_HOURS = f"""
SELECT u.hour / 24, m.text, k.text, {", ".join(f"sum(u.{column})" for column in SUMS)}
FROM usage u JOIN texts m ON m.id = u.model JOIN texts k ON k.id = u.key
WHERE u.hour >= :from AND u.hour < :to AND (NOT :bridged OR u.bridge_nusd OR u.bridge_unknown_nusd)
GROUP BY u.hour / 24, u.model, u.key
"""

_ROWS = f"""
SELECT r.ended_us / :day, m.text, k.text, {", ".join(SUMS.values())}
FROM (SELECT NULL AS id UNION ALL SELECT id FROM lives) l
JOIN requests r ON r.life IS l.id AND r.ended_us >= :from AND r.ended_us < :to
  AND (NOT :bridged OR r.bridge_nusd OR r.bridge_unknown_nusd)
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key JOIN texts o ON o.id = r.outcome
GROUP BY 1, 2, 3
"""
