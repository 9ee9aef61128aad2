"""Processor sharing: whose the time of a busy replica was, from the request rows.

Between two events with n requests in flight, virtual time advances by dt / n, so a request's share is the
virtual time at its end minus that at its start (Kleinrock, Queueing Systems II, 1976, section 4.4). Fixed
point of 20 bits: an hour of microseconds times 2^20 stays below 2^52, so sums are exact, in doubles too.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.ledger.checksums import HOURS, KEY_WEIGHT, LEASE_WEIGHT, kept_total
from poorwill.ledger.schema import damaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSORBED_US = SECOND_US
"""The gate and the request row read the clock a moment apart. Up to this much of a busy hour without a
recorded request is shared like the rest of it; more than that stays nobody's."""

BATCH_US = 24 * HOUR_US
"""So much time is read at once: 40,000 requests at one every two seconds."""

_SCALE = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a busy span that lies within one hour."""

    life: int
    span_began_us: int
    began_us: int
    ended_us: int
    cause: str
    tier: str


KeyShares = list[tuple[int | None, int]]
"""(number of the key's text, microseconds); None is nobody."""


def share(
    db: sqlite3.Connection, pieces: Iterable[Piece], *, longest_us: int
) -> Iterator[tuple[Piece, KeyShares]]:
    """Yield each of a life's pieces, which come in order, with whole microseconds that sum to it.

    `longest_us` is how long any request held its lease at most: it bounds the rows that are read.
    Raises LedgerFault if those rows are not what was written.
    """
    for _, batch in groupby(pieces, key=lambda piece: piece.began_us // BATCH_US):
        yield from _share_batch(db, list(batch), longest_us)


def _share_batch(
    db: sqlite3.Connection, pieces: Sequence[Piece], longest_us: int
) -> Iterator[tuple[Piece, KeyShares]]:
    import numpy as np  # slow to import, and few need it

    begins, ends = (np.array([getattr(p, at) for p in pieces], np.int64) for at in ("began_us", "ended_us"))
    first_us, last_us = pieces[0].began_us, pieces[-1].ended_us
    rows = _leases(db, pieces[0].life, first_us // HOUR_US, (last_us + longest_us) // HOUR_US)
    key, leased, ended = rows[:, (rows[2] > first_us) & (rows[1] < np.minimum(rows[2], last_us))]
    keys = np.flatnonzero(np.bincount(key))
    leased, ended = leased.clip(first_us), ended.clip(max=last_us)

    # Events in order of time; of those at the same instant the order does not matter. Virtual time and the
    # time covered stand still while nothing is in flight; what passes between the pieces cancels out below.
    count, parts = len(key), len(pieces)
    times = np.concatenate((leased, ended, begins, ends))
    order = np.argsort(times, kind="stable")  # nearly sorted as they are: a merge is quick
    edges = np.zeros(len(times), np.int8)
    edges[:count], edges[count : 2 * count] = 1, -1
    flying = np.cumsum(edges[order[:-1]], dtype=np.int32)
    steps = np.where(flying > 0, np.diff(times[order]), 0)
    clocks = np.zeros((2, len(times)), np.int64)
    clocks[0, order[1:]] = np.cumsum(steps * _SCALE // np.maximum(flying, 1))
    clocks[1, order[1:]] = np.cumsum(steps)
    at_lease, at_end, at_begin, at_close = np.split(clocks, (count, 2 * count, 2 * count + parts), axis=1)

    # Each request once for each piece that it touches, cut to it.
    start = np.searchsorted(ends, leased, "right")
    touched = np.maximum(np.searchsorted(begins, ended, "left") - start, 0)
    which = np.repeat(np.arange(count), touched)
    place = np.arange(len(which)) + np.repeat(start - np.cumsum(touched) + touched, touched)
    weight = np.minimum(at_end[0, which], at_close[0, place])
    weight -= np.maximum(at_lease[0, which], at_begin[0, place])
    # A column for each key, and the last for nobody.
    width = len(keys) + 1
    cells = np.bincount(place * width + np.searchsorted(keys, key)[which], weight, parts * width)
    weights = cells.astype(np.int64).reshape(parts, width)
    idle = ends - begins - (at_close[1] - at_begin[1])
    weights[:, -1] = np.where(weights.any(axis=1), np.where(idle > ABSORBED_US, idle * _SCALE, 0), 1)
    shares = whole_shares(weights, ends - begins)
    place, column = np.nonzero(shares)
    owners: list[int | None] = [*keys.tolist(), None]
    found = [(owners[at], us) for at, us in zip(column.tolist(), shares[place, column].tolist(), strict=True)]
    cuts = np.searchsorted(place, np.arange(parts + 1)).tolist()
    for piece, (begin, end) in zip(pieces, pairwise(cuts), strict=True):
        yield piece, found[begin:end]


def _leases(db: sqlite3.Connection, life: int, first: int, last: int) -> "NDArray[np.int64]":
    """Return keys, leases and ends of a life's requests that ended in some hours, verified by their sums.

    They come as lists in JSON, a lease and its key as one number: to take a row by itself, or a third number,
    costs more than SQLite takes to find it.
    """
    import msgspec
    import numpy as np

    from_us, keys = first * HOUR_US, int(db.execute("SELECT max(id) + 1 FROM texts").fetchone()[0] or 1)
    window = {"life": life, "from": from_us, "to": (last + 1) * HOUR_US, "keys": keys}
    try:
        packed, ended = (
            np.array(msgspec.json.decode(text, type=list[int]), np.int64)
            for text in db.execute(_ROWS, window).fetchone()
        )
    except (msgspec.MsgspecError, OverflowError) as error:  # no whole numbers
        raise damaged(db) from error
    lease, key = np.divmod(packed, keys)
    total = (key * KEY_WEIGHT + ended % HOUR_US + lease * LEASE_WEIGHT).sum()
    if total != kept_total(db, "leases", (life * HOURS + first, life * HOURS + last)):
        raise damaged(db)
    return np.stack((key, ended + (from_us - lease), ended + from_us))


def whole_shares(weights: "NDArray[np.int64]", lengths: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Turn each row of weights into whole microseconds that sum to its length: `money.apportion`, for many.

    A product of weight and length has more than 64 bits. What the quotient leaves of it has not, so it is
    exact although the products wrap around; the quotient of doubles is off by one at most.
    """
    import numpy as np

    totals, lengths = weights.sum(axis=1, keepdims=True), lengths[:, None]
    shares: NDArray[np.int64] = (weights / totals * lengths).astype(np.int64)
    rest = weights * lengths - shares * totals
    off = (rest >= totals).astype(np.int64) - (rest < 0)
    shares += off
    rest -= off * totals
    missing = lengths - shares.sum(axis=1, keepdims=True)
    order = np.argsort(-rest, axis=1, kind="stable")
    np.put_along_axis(rest, order, (np.arange(weights.shape[1]) < missing).astype(np.int64), axis=1)
    shares += rest
    return shares


_ROWS = """
SELECT json_group_array((ended_us - coalesce(leased_us, ended_us)) * :keys + key),
  json_group_array(ended_us - :from)
FROM requests WHERE life = :life AND ended_us >= :from AND ended_us < :to
"""
