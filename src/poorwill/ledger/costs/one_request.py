"""What one request cost: its part of the time its replica was busy, its part of its wake, and a hosted API.

The bill shares by key and rounds each day once; this is the same arithmetic for a single request, to the
nearest nano-dollar. What the replica costs idle, before and after, is nobody's request. A request that a
hosted API answered costs what that charged; its part of a wake is on the bill alone, in the rate's currency.
"""

import sqlite3
from collections.abc import Iterable
from itertools import pairwise

from poorwill.core.money import cost_numerator, rounded
from poorwill.core.words import SERVING
from poorwill.ledger.costs.attribution import wake_shares
from poorwill.ledger.history.views import RequestCost
from poorwill.ledger.rates import Rate, lives, rate_book

RECENT = 5000
"""How many of the newest rows are looked at: ids of requests have no index."""


def request_cost(db: sqlite3.Connection, request: str) -> RequestCost | None:
    """Return what a recent request cost, None if its row is not there, or not yet."""
    row = db.execute(_REQUEST, (RECENT, request)).fetchone()
    if row is None:
        return None
    life, wake, arrived_us, leased_us, first_byte_us, ended_us, tokens_in, tokens_out, bridge_nusd = row
    book, serving, wake_cost, waking_us, currency = rate_book(db), 0.0, 0, 0, "USD"
    lived = {one.id: one for one in lives(db)}
    if life is not None and leased_us is not None:
        flights = db.execute(_FLIGHTS, (life, leased_us, ended_us)).fetchall()
        serving = sum(
            share(flights, at.from_us, at.to_us) * _nusd_h(at.rate)
            for at in book.segments(lived[life], leased_us, ended_us)
        )
        rate = book.at(lived[life], ended_us - 1)
        currency = rate.currency if rate else currency
    woken = db.execute(_WAKE, (wake,)).fetchone() if life is not None else None
    if woken is not None:
        waker, began_us, woke_us = woken
        among = sum(requests for _, requests in wake_shares(db, wake))
        waking_us = (woke_us - began_us) // among
        parts = book.segments(lived[waker], began_us, woke_us)
        exact = sum(cost_numerator(at.to_us - at.from_us, _nusd_h(at.rate)) for at in parts)
        wake_cost = rounded(exact) // among
    return RequestCost(
        arrived_us=arrived_us,
        leased_us=leased_us,
        first_byte_us=first_byte_us,
        ended_us=ended_us,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        currency=currency,
        serving_nusd=rounded(round(serving)),
        wake_nusd=wake_cost,
        wake_us=waking_us,
        hosted_nusd=bridge_nusd,
    )


def share(flights: Iterable[tuple[int, int]], from_us: int, to_us: int) -> float:
    """Return one request's share of a stretch of time, each part divided by how many were in flight.

    `flights` has a request that spans the stretch among them.
    """
    cut = [
        (max(began, from_us), min(ended, to_us))
        for began, ended in flights
        if began < to_us and ended > from_us
    ]
    edges = sorted({edge for flight in cut for edge in flight})
    return sum(
        (end - begin) / sum(began <= begin and end <= ended for began, ended in cut)
        for begin, end in pairwise(edges)
    )


def _nusd_h(rate: Rate | None) -> int:
    return rate.nusd_h(SERVING, None) if rate else 0


_REQUEST = """
SELECT life, wake, arrived_us, leased_us, first_byte_us, ended_us, tokens_in, tokens_out, bridge_nusd
FROM (SELECT * FROM requests ORDER BY id DESC LIMIT ?) WHERE request = ? ORDER BY id DESC LIMIT 1
"""

_FLIGHTS = """
SELECT leased_us, ended_us FROM requests
WHERE life = ? AND ended_us > ? AND leased_us < ? AND leased_us < ended_us
"""

_WAKE = "SELECT life, began_us, ended_us FROM wakes WHERE id = ? AND ok"
