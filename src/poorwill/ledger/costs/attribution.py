"""Whose time it was: serving shared among the requests in flight, a wake among those it woke for.

Every microsecond of a span goes to one key or to nobody. While n requests are in flight each has 1/n of the
time (processor sharing); per hour of a span the shares are rounded to whole microseconds that sum to it.
What no key asked for is overhead with a name: the cause says which.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from poorwill.core.words import HOUR_US, USEFUL_CAUSES
from poorwill.ledger.costs.sharing import KeyShares, Piece, share

K = TypeVar("K")
Share = tuple[str | None, int]
"""(key, microseconds); the key None is nobody."""


def busy_pieces(db: sqlite3.Connection, life: int, *, from_us: int, to_us: int) -> Iterator[Piece]:
    """Yield the busy spans of a life cut at full hours, as far as they lie within a stretch of time."""
    window = {"life": life, "from": from_us, "to": to_us}
    for span_began_us, span_ended_us, cause, tier in db.execute(_BUSY, window).fetchall():
        begin, end = max(span_began_us, from_us), min(span_ended_us, to_us)
        while begin < end:
            cut = min((begin // HOUR_US + 1) * HOUR_US, end)
            yield Piece(life, span_began_us, begin, cut, cause, tier)
            begin = cut


def split(shares: Sequence[tuple[K, int]], offset_us: int, end_us: int) -> list[tuple[K, int]]:
    """Return the shares of a part, from `offset_us` to `end_us`, of something shared in proportion.

    Key k of cumulated share C_k, of C in all, has floor(x C_k / C) - floor(x C_(k-1) / C) of the first x
    microseconds: however the whole is cut, the parts sum to it, and in each part the keys sum to the part.
    """
    total = sum(us for _, us in shares)
    parts: list[tuple[K, int]] = []
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

    Requests that it woke for and that left no row (poorwill was killed) are nobody's. Empty if nobody
    waited: a wake ahead of demand, for a floor or for an operator is overhead.
    """
    rows = db.execute(_WOKEN, (wake,)).fetchall()
    shares: list[Share] = [(key, count) for key, count, _ in rows if count]
    missing = rows[0][2] - sum(count for _, count in shares)
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
    if not done.shared_us:
        return touched
    for life, first_us, last_us in db.execute(_LATE, (done.seen_id, done.shared_us)):
        last_us = min(last_us, done.shared_us)
        hours = range(first_us // HOUR_US, -(-last_us // HOUR_US))
        touched[life].update(hour for hour in hours if hour * HOUR_US >= done.kept_us)
    return touched


@dataclass(frozen=True, slots=True)
class KnownShares:
    """What is rolled up, and what every look at shares needs: read once for a whole bill."""

    done: Progress
    late: dict[int, set[int]]
    names: dict[int | None, str | None]


def known_shares(db: sqlite3.Connection) -> KnownShares:
    """Read what is rolled up."""
    done = progress(db)
    names = dict(db.execute("SELECT id, text FROM texts UNION ALL SELECT NULL, NULL"))
    return KnownShares(done, touched_hours(db, done), names)


def piece_shares(
    db: sqlite3.Connection, known: KnownShares, life: int, *, from_us: int, to_us: int
) -> Iterator[tuple[Piece, KeyShares]]:
    """Yield each busy piece that touches a stretch of time, with its shares, never cut but at full hours.

    Shares come from the table if it is complete and from the raw rows if it is not: the answer is the
    same whether or not, and whenever, shares were rolled up.
    """
    done, late = known.done, known.late.get(life, set())
    begin_us, end_us = from_us // HOUR_US * HOUR_US, -(-to_us // HOUR_US) * HOUR_US
    kept = _kept(db, life, begin_us, min(end_us, done.shared_us))
    pieces = [
        piece
        for piece in busy_pieces(db, life, from_us=begin_us, to_us=end_us)
        if piece.ended_us > from_us and piece.began_us < to_us
    ]
    unknown = (
        piece
        for piece in pieces
        if (piece.began_us, piece.ended_us) not in kept or piece.began_us // HOUR_US in late
    )
    computed = share(db, unknown, longest_us=done.longest_us)
    later = next(computed, None)
    for piece in pieces:
        shares = kept.get((piece.began_us, piece.ended_us), [])
        if later is not None and later[0] is piece:
            shares, later = later[1], next(computed, None)
        yield piece, shares


def _kept(db: sqlite3.Connection, life: int, from_us: int, to_us: int) -> dict[tuple[int, int], KeyShares]:
    kept: dict[tuple[int, int], KeyShares] = defaultdict(list)
    rows = db.execute(
        "SELECT began_us, ended_us, key, us FROM shares"
        " WHERE life = ? AND began_us >= ? AND began_us < ? ORDER BY began_us, ended_us, key IS NULL, key",
        (life, from_us, to_us),
    )
    for began_us, ended_us, key, us in rows:
        kept[began_us, ended_us].append((key, us))
    return kept


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

_WOKEN = """
SELECT t.text, k.requests, w.served FROM wakes w
LEFT JOIN wake_keys k ON k.wake = w.id LEFT JOIN texts t ON t.id = k.key WHERE w.id = ? ORDER BY 1
"""

_LATE = """
SELECT life, min(leased_us), max(ended_us) FROM requests NOT INDEXED
WHERE id > ? AND leased_us < ? AND life IS NOT NULL GROUP BY life
"""
