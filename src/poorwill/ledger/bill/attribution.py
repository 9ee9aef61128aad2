"""Whose time it was: serving shared among the requests in flight, a wake among those it woke for.

Every microsecond of a span goes to one key or to nobody. While n requests are in flight each has 1/n of the
time (processor sharing); per hour of a span the shares are rounded to whole microseconds that sum to it.
What no key asked for is overhead with a name: the cause says which.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from poorwill.core.money import apportion
from poorwill.core.words import HOUR_US, SECOND_US, USEFUL_CAUSES

ABSORBED_US = SECOND_US
"""The gate and the request row read the clock a moment apart. Up to this much of a busy hour without a
recorded request is shared like the rest of it; more than that stays nobody's."""

_SCALE = 1 << 20

Share = tuple[str | None, int]
"""(key, microseconds); the key None is nobody."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a busy span that lies within one hour."""

    life: int
    span_began_us: int
    began_us: int
    ended_us: int
    cause: str
    tier: str


def busy_pieces(db: sqlite3.Connection, life: int, *, from_us: int, to_us: int) -> Iterator[Piece]:
    """Yield the busy spans of a life cut at full hours, as far as they lie within a stretch of time."""
    window = {"life": life, "from": from_us, "to": to_us}
    for span_began_us, span_ended_us, cause, tier in db.execute(_BUSY, window).fetchall():
        begin, end = max(span_began_us, from_us), min(span_ended_us, to_us)
        while begin < end:
            cut = min((begin // HOUR_US + 1) * HOUR_US, end)
            yield Piece(life, span_began_us, begin, cut, cause, tier)
            begin = cut


def sweep(db: sqlite3.Connection, piece: Piece, *, longest_us: int) -> list[tuple[int | None, int]]:
    """Return (number of the key's text, microseconds) from the raw request rows; they sum to the piece.

    `longest_us` is how long any request held its lease at most: it bounds the rows that are read.
    """
    length_us = piece.ended_us - piece.began_us
    rows = db.execute(
        _SWEEP,
        {
            "life": piece.life,
            "from": piece.began_us,
            "to": piece.ended_us,
            "latest": piece.ended_us + longest_us,
            "scale": _SCALE,
        },
    ).fetchall()
    weights = [(key, weight) for key, weight, _ in rows if weight > 0]
    covered_us = sum(covered for _, _, covered in rows)
    idle_us = length_us - covered_us
    if not weights:
        return [(None, length_us)]
    if idle_us > ABSORBED_US:
        weights.append((None, idle_us * _SCALE))
    return _shared(weights, length_us)


def split(shares: Sequence[Share], offset_us: int, end_us: int) -> list[Share]:
    """Return the shares of a part, from `offset_us` to `end_us`, of something shared in proportion.

    Key k of cumulated share C_k, of C in all, has floor(x C_k / C) - floor(x C_(k-1) / C) of the first x
    microseconds: however the whole is cut, the parts sum to it, and in each part the keys sum to the part.
    """
    total = sum(us for _, us in shares)
    parts: list[Share] = []
    before = 0
    for key, us in shares:
        after = before + us
        until_end = end_us * after // total - end_us * before // total
        until_offset = offset_us * after // total - offset_us * before // total
        parts.append((key, until_end - until_offset))
        before = after
    return parts


def wake_shares(db: sqlite3.Connection, wake: int) -> list[Share]:
    """Return in how many equal parts a wake is charged, by key: to each request it woke for.

    Requests that it woke for and that left no row (poorwill was killed) are nobody's. Empty where nobody
    waited: a wake ahead of demand, for a floor or for an operator is overhead.
    """
    rows = db.execute(
        "SELECT t.text, w.requests FROM wake_keys w JOIN texts t ON t.id = w.key WHERE w.wake = ? ORDER BY 1",
        (wake,),
    ).fetchall()
    served = db.execute("SELECT served FROM wakes WHERE id = ?", (wake,)).fetchone()[0]
    missing = served - sum(count for _, count in rows)
    shares: list[Share] = list(rows)
    if missing > 0:
        shares.append((None, missing))
    return shares


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the shares table goes, and how far back raw rows are there."""

    seen_id: int
    shared_us: int
    longest_us: int
    kept_us: int


def progress(db: sqlite3.Connection) -> Progress:
    """Read the progress row."""
    return Progress(*db.execute("SELECT seen_id, shared_us, longest_us, kept_us FROM progress").fetchone())


def touched_hours(db: sqlite3.Connection, done: Progress) -> dict[int, set[int]]:
    """Return, for each life, the hours before `shared_us` that rows newer than the shares reach into."""
    touched: dict[int, set[int]] = defaultdict(set)
    for life, first_us, last_us in db.execute(_LATE, (done.seen_id, done.shared_us)):
        last_us = min(last_us, done.shared_us)
        hours = range(first_us // HOUR_US, -(-last_us // HOUR_US))
        touched[life].update(hour for hour in hours if hour * HOUR_US >= done.kept_us)
    return touched


def piece_shares(
    db: sqlite3.Connection, life: int, *, from_us: int, to_us: int
) -> Iterator[tuple[Piece, list[Share]]]:
    """Yield each busy piece that touches a stretch of time, with its shares, never cut but at full hours.

    Shares come from the table where it is complete and from the raw rows where it is not: the answer is the
    same whether or not, and whenever, shares were rolled up.
    """
    done = progress(db)
    late = touched_hours(db, done).get(life, set())
    names = dict(db.execute("SELECT id, text FROM texts"))
    begin_us, end_us = from_us // HOUR_US * HOUR_US, -(-to_us // HOUR_US) * HOUR_US
    kept = _kept(db, life, begin_us, min(end_us, done.shared_us))
    for piece in busy_pieces(db, life, from_us=begin_us, to_us=end_us):
        if piece.ended_us <= from_us or piece.began_us >= to_us:
            continue
        known = kept.get((piece.began_us, piece.ended_us))
        if known is None or piece.began_us // HOUR_US in late:
            known = sweep(db, piece, longest_us=done.longest_us)
        yield piece, [(None if key is None else names[key], us) for key, us in known]


def _kept(
    db: sqlite3.Connection, life: int, from_us: int, to_us: int
) -> dict[tuple[int, int], list[tuple[int | None, int]]]:
    kept: dict[tuple[int, int], list[tuple[int | None, int]]] = defaultdict(list)
    rows = db.execute(
        "SELECT began_us, ended_us, key, us FROM shares"
        " WHERE life = ? AND began_us >= ? AND began_us < ? ORDER BY began_us, ended_us, key IS NULL, key",
        (life, from_us, to_us),
    )
    for began_us, ended_us, key, us in rows:
        kept[began_us, ended_us].append((key, us))
    return kept


def _shared(weights: Iterable[tuple[int | None, int]], length_us: int) -> list[tuple[int | None, int]]:
    """Turn weights into whole microseconds that sum to the length."""
    ordered = sorted(weights, key=lambda one: (one[0] is None, one[0] or 0))
    total = sum(weight for _, weight in ordered)
    parts = apportion([weight * length_us for _, weight in ordered], total)
    return [(key, us) for (key, _), us in zip(ordered, parts, strict=True) if us]


_BUSY_CAUSES = ", ".join(f"'{cause}'" for cause in sorted(USEFUL_CAUSES))

_BUSY = f"""
SELECT began_us, coalesce(ended_us, (SELECT last_us FROM alive)), cause, coalesce(tier, '')
FROM spans
WHERE life = :life AND cause IN ({_BUSY_CAUSES}) AND began_us < :to
  AND began_us >= (SELECT coalesce(max(began_us), 0) FROM spans
    WHERE life = :life AND began_us <= :from)
  AND coalesce(ended_us, (SELECT last_us FROM alive)) > :from
ORDER BY began_us
"""

# Processor sharing by virtual time: between two events with n requests in flight it advances by dt / n, so a
# request's share is the virtual time at its end minus that at its start (Kleinrock, Queueing Systems II,
# 1976, section 4.4). Fixed point of 20 bits: an hour of microseconds times 2^20 stays below 2^52.
_SWEEP = """
WITH busy AS MATERIALIZED (
  SELECT key, max(leased_us, :from) AS s, min(ended_us, :to) AS e
  FROM requests
  WHERE life = :life AND ended_us > :from AND ended_us <= :latest AND leased_us < :to
    AND leased_us < ended_us
),
events AS (SELECT s AS at, 1 AS step, key FROM busy UNION ALL SELECT e, -1, key FROM busy),
running AS (
  SELECT key, step, row_number() OVER w AS nth, sum(step) OVER w AS n, lead(at, 1, at) OVER w - at AS dt
  FROM events WINDOW w AS (ORDER BY at ROWS UNBOUNDED PRECEDING)
),
virtual AS (
  SELECT key, step, iif(n > 0, dt, 0) AS covered,
    sum(iif(n > 0, dt * :scale / n, 0)) OVER (ORDER BY nth ROWS UNBOUNDED PRECEDING)
      - iif(n > 0, dt * :scale / n, 0) AS v
  FROM running
)
SELECT key, -sum(step * v), sum(covered) FROM virtual GROUP BY key ORDER BY key
"""

_LATE = """
SELECT life, min(leased_us), max(ended_us) FROM requests NOT INDEXED
WHERE id > ? AND leased_us < ? AND life IS NOT NULL GROUP BY life
"""
