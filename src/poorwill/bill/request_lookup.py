"""One request's row, by the id that its client was given, with the reason that the client was not given."""

import sqlite3

from msgspec import Struct


class RequestWakeDocument(Struct, frozen=True, kw_only=True):
    """The wake that a request waited for, or whose failure it was refused for."""

    wake: str
    began_us: int
    ended_us: int | None
    failure: str
    """Why it failed, for the operator alone; empty if it did not."""


class RequestDocument(Struct, frozen=True, kw_only=True):
    """One request, with what its client was not told."""

    request: str
    model: str
    replica: str | None
    key: str
    path: str
    status: int
    outcome: str
    arrived_us: int
    leased_us: int | None
    first_byte_us: int | None
    ended_us: int
    tokens_in: int | None
    tokens_out: int | None
    bridge: str
    bridge_nusd: int
    wake: RequestWakeDocument | None


def find_request(db: sqlite3.Connection, request: str) -> RequestDocument | None:
    """Return the request of an id, None if the ledger has none. Reads every row: seconds for millions."""
    row = db.execute(_REQUEST, (request,)).fetchone()
    if row is None:
        return None
    *values, wake = row
    found = dict(zip(_COLUMNS, values, strict=True))
    # A refusal during the back-off has no wake of its own: the last failed one is why.
    refused = wake is None and found["outcome"] == "wake_failed"
    by_us = found["ended_us"] if refused else -1
    woken = db.execute(_WAKE, {"wake": wake, "model": found["model"], "by_us": by_us}).fetchone()
    if woken is None:
        return RequestDocument(**found, wake=None)
    name, began_us, ended_us, failure = woken
    why = RequestWakeDocument(wake=name, began_us=began_us, ended_us=ended_us, failure=failure)
    return RequestDocument(**found, wake=why)


_COLUMNS = (
    *("request", "model", "replica", "key", "path", "status", "outcome", "arrived_us", "leased_us"),
    *("first_byte_us", "ended_us", "tokens_in", "tokens_out", "bridge", "bridge_nusd"),
)

_REQUEST = """
SELECT request, model, replica, key, path, status, outcome, arrived_us, leased_us, first_byte_us, ended_us,
  tokens_in, tokens_out, coalesce(bridge, ''), bridge_nusd, wake
FROM request_rows WHERE request = ? ORDER BY id DESC LIMIT 1
"""

_WAKE = """
SELECT w.wake, w.began_us, w.ended_us, w.failure FROM wakes w JOIN lives l ON l.id = w.life
WHERE w.wake = :wake OR (l.model = :model AND w.ok = 0 AND w.ended_us <= :by_us)
ORDER BY w.id DESC LIMIT 1
"""
