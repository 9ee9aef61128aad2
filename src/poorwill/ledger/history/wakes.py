"""Finished wakes with anatomy and price, read from the ledger for `poorwill anatomy` and predictions."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from poorwill.core.entries import PhaseSpan
from poorwill.core.money import cost_numerator, rounded
from poorwill.core.words import ModelName, Phase, ReplicaId, Tier, WakeId
from poorwill.ledger.rates import Life, RateBook, lives, rate_book
from poorwill.policies.coldstart.starts import FinishedWake


def finished_wakes(
    db: sqlite3.Connection,
    *,
    model: str | None = None,
    wake: str | None = None,
    last: int | None = None,
) -> list[FinishedWake]:
    """Return finished wakes, oldest first: all, a model's, a replica's, or of one name; the last so many.

    A phase is priced at the active rate in force, in parts where the rate changes within it. Blocks for
    milliseconds.
    """
    rows = db.execute(_SELECT, {"model": model, "wake": wake, "last": -1 if last is None else last})
    book, known = rate_book(db), {life.id: life for life in lives(db)}
    return [_wake(db, book, known, row) for row in reversed(rows.fetchall())]


def _wake(
    db: sqlite3.Connection, book: RateBook, known: Mapping[int, Life], row: tuple[Any, ...]
) -> FinishedWake:
    number, name, tier, began_us, ended_us, ok, failure, *rest = row
    why, asked_by, held, served, budget_us, life_id, replica, model = rest
    life, spans = known[life_id], _spans(db, number, ended_us)
    image = db.execute(_IMAGE, (life_id, began_us)).fetchone()
    return FinishedWake(
        wake=WakeId(name),
        model=ModelName(model),
        replica=ReplicaId(replica),
        from_tier=Tier(tier),
        began_us=began_us,
        ended_us=ended_us,
        ok=bool(ok),
        failure=failure,
        why=why,
        asked_by=asked_by,
        held=held,
        served=served,
        budget_us=budget_us,
        image_bytes=int(image[0]) if image else 0,
        spans=tuple(spans),
        prices_nusd=tuple(_price(book, life, span) for span in spans),
    )


def _spans(db: sqlite3.Connection, number: int, ended_us: int) -> Sequence[PhaseSpan]:
    return [
        PhaseSpan(
            phase=Phase(phase),
            began_us=began_us,
            ended_us=ended_us if end_us is None else end_us,
            bytes_read=bytes_read,
            detail=detail,
        )
        for phase, began_us, end_us, bytes_read, detail in db.execute(_SPANS, (number, ended_us))
    ]


def _price(book: RateBook, life: Life, span: PhaseSpan) -> int | None:
    segments = book.segments(life, span.began_us, span.ended_us)
    if any(segment.rate is None for segment in segments):
        return None
    return rounded(
        sum(
            cost_numerator(segment.to_us - segment.from_us, segment.rate.active_nusd_h)
            for segment in segments
            if segment.rate is not None
        )
    )


_SELECT = """
SELECT w.id, w.wake, w.from_tier, w.began_us, w.ended_us, w.ok, w.failure, w.why, w.asked_by, w.held,
  w.served, w.budget_us, l.id, l.replica, l.model
FROM wakes w JOIN lives l ON l.id = w.life
WHERE w.ended_us IS NOT NULL AND (:model IS NULL OR :model IN (l.model, l.replica))
  AND (:wake IS NULL OR w.wake = :wake)
ORDER BY w.ended_us DESC, w.id DESC
LIMIT :last
"""

_SPANS = """
SELECT phase, began_us, ended_us, bytes_read, detail FROM spans
WHERE wake = ? AND phase IS NOT NULL AND began_us < ? ORDER BY began_us
"""

_IMAGE = "SELECT image_bytes FROM spans WHERE life = ? AND ended_us = ? AND image_bytes > 0"
