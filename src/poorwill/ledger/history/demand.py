"""A model's own demand, read from the request rows: what `poorwill plan --from-ledger` replays."""

import sqlite3
from dataclasses import dataclass

from poorwill.core.words import ModelName


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandRequest:
    """One request that wanted the model to be ready."""

    arrived_us: int
    served_us: int | None
    """From its lease to its end; None if it never got a lease."""
    tokens_in: int | None
    tokens_out: int | None


def demanded_models(db: sqlite3.Connection) -> list[ModelName]:
    """Return the models that have demand in the ledger, by name."""
    rows = db.execute(f"SELECT DISTINCT model FROM request_rows WHERE {_DEMAND} ORDER BY model")
    return [ModelName(model) for (model,) in rows]


def known_from_us(db: sqlite3.Connection) -> int | None:
    """Return the first instant from which every request has its row; None for an empty ledger.

    It is the ledger's first instant, or where it was compacted to.
    """
    first_us, kept_us = db.execute(
        "SELECT (SELECT min(at_us) FROM (SELECT created_us AS at_us FROM lives"
        " UNION ALL SELECT arrived_us FROM request_rows)), kept_us FROM progress"
    ).fetchone()
    return None if first_us is None else max(int(first_us), int(kept_us))


def past_requests(
    db: sqlite3.Connection, model: ModelName, *, from_us: int, to_us: int
) -> list[DemandRequest]:
    """Return the model's demand within a period, by arrival.

    Demand is what got a lease, went over the bridge, or was held in vain; requests that were refused for
    what they were (malformed, without a key) never wanted a replica.
    """
    rows = db.execute(
        "SELECT arrived_us, ended_us - leased_us, tokens_in, tokens_out FROM request_rows"
        f" WHERE model = ? AND arrived_us >= ? AND arrived_us < ? AND {_DEMAND} ORDER BY arrived_us",
        (model, from_us, to_us),
    )
    return [
        DemandRequest(arrived_us=arrived, served_us=served, tokens_in=taken, tokens_out=given)
        for arrived, served, taken, given in rows
    ]


_DEMAND = (
    "(leased_us IS NOT NULL OR bridge_nusd > 0 OR outcome IN"
    " ('wake_timeout', 'wake_failed', 'hold_queue_full', 'client_gone'))"
)
