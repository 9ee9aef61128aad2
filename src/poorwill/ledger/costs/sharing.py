"""Processor sharing: whose the time of a busy replica was, from the request rows.

Between two events with n requests in flight, virtual time advances by dt / n, so a request's share is the
virtual time at its end minus that at its start (Kleinrock, Queueing Systems II, 1976, section 4.4). Fixed
point of 20 bits: an hour of microseconds times 2^20 stays below 2^52, so sums are exact, in doubles too.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING

from poorwill.core.money import apportion
from poorwill.core.words import HOUR_US, SECOND_US
from poorwill.ledger.checksums import HOURS, KEY_WEIGHT, LEASE_WEIGHT, kept_totals
from poorwill.ledger.schema import damaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSORBED_US = SECOND_US
"""The gate and the request row read the clock a moment apart. Up to this much of a busy hour without a
recorded request is shared like the rest of it; more than that stays nobody's."""

BATCH_US = 12 * HOUR_US
"""So much time is read at once: 20,000 requests at one every two seconds."""

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
    rows = rows[(rows[:, 2] > first_us) & (rows[:, 1] < np.minimum(rows[:, 2], last_us))]
    keys = np.flatnonzero(np.bincount(rows[:, 0]))
    leased, ended = rows[:, 1].clip(first_us), rows[:, 2].clip(max=last_us)

    # Events in order of time; of those at the same instant the order does not matter. Virtual time and the
    # time covered stand still outside the pieces and while nothing is in flight.
    count, parts = len(rows), len(pieces)
    times = np.concatenate((leased, ended, begins, ends))
    order = np.argsort(times)
    edges = np.zeros((2, len(times)), np.int8)
    edges[0, :count], edges[0, count : 2 * count] = 1, -1
    edges[1, 2 * count : 2 * count + parts], edges[1, 2 * count + parts :] = 1, -1
    flying, within = np.cumsum(edges[:, order[:-1]], axis=1, dtype=np.int64)
    steps = np.where((within > 0) & (flying > 0), np.diff(times[order]), 0)
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
    width = max(len(keys), 1)
    column = np.searchsorted(keys, rows[which, 0])
    cells = np.bincount(place * width + column, weights=weight, minlength=parts * width)
    weights = cells.astype(np.int64).reshape(-1, width)[:, : len(keys)]
    used = at_close[1] - at_begin[1]
    for number, piece in enumerate(pieces):
        found = [pair for pair in zip(keys.tolist(), weights[number].tolist(), strict=True) if pair[1]]
        yield piece, _whole(found, piece.ended_us - piece.began_us, int(used[number]))


def _leases(db: sqlite3.Connection, life: int, first: int, last: int) -> "NDArray[np.int64]":
    """Return (key, leased, ended) of a life's requests that ended in some hours, verified by their sums."""
    import numpy as np

    window = {"life": life, "from": first * HOUR_US, "to": (last + 1) * HOUR_US}
    try:
        rows = np.fromiter(chain.from_iterable(db.execute(_ROWS, window)), np.int64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:  # no whole numbers
        raise damaged(db) from error
    hours = rows[:, 2] // HOUR_US
    begins = np.flatnonzero(np.diff(hours, prepend=-1))
    values = rows[:, 0] * KEY_WEIGHT + rows[:, 2] % HOUR_US + (rows[:, 2] - rows[:, 1]) * LEASE_WEIGHT
    sums = np.add.reduceat(values, begins) if len(begins) else values
    blocks = life * HOURS + hours[begins]
    found = {block: total for block, total in zip(blocks.tolist(), sums.tolist(), strict=True) if total}
    if found != kept_totals(db, "leases", (life * HOURS + first, life * HOURS + last)):
        raise damaged(db)
    return rows


def _whole(weights: Sequence[tuple[int, int]], length_us: int, covered_us: int) -> KeyShares:
    """Turn weights into whole microseconds that sum to the length."""
    if not weights:
        return [(None, length_us)]
    owners: KeyShares = [*weights]
    if length_us - covered_us > ABSORBED_US:
        owners.append((None, (length_us - covered_us) * _SCALE))
    parts = apportion([weight * length_us for _, weight in owners], sum(weight for _, weight in owners))
    return [(key, us) for (key, _), us in zip(owners, parts, strict=True) if us]


_ROWS = """
SELECT key, coalesce(leased_us, ended_us), ended_us FROM requests
WHERE life = :life AND ended_us >= :from AND ended_us < :to ORDER BY ended_us
"""
