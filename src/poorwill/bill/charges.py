"""What the lines of a bill consist of that are no span's time: `rounding`, `minimum`, `storage`, `bridge`."""

import sqlite3
from collections.abc import Iterator

from poorwill.core.errors import ErrorCode, RequestFault, unknown_model
from poorwill.core.format import counted, duration, exact_money, money, size
from poorwill.ledger.costs.items import items, key_name, last_instant
from poorwill.ledger.costs.pricing import BRIDGE, NAMED_CHARGES, stretches
from poorwill.ledger.costs.usage import usage
from poorwill.ledger.dates import Period, day_name, iso
from poorwill.ledger.rates import lives, rate_book
from poorwill.ledger.verifying import verify
from poorwill.policies.pricing import MINIMUM, ROUNDING


def explain_charge(db: sqlite3.Connection, model: str, charge: str, period: Period) -> list[str]:
    """Say what a model's line for a charge consists of in a period; its total is the bill's.

    Raises RequestFault for a model that the ledger does not know and for a line that is no such charge.
    """
    if charge not in NAMED_CHARGES:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{charge!r} is no line of its own",
            hint=f"one of {', '.join(NAMED_CHARGES)}; any span is explained with --at",
        )
    verify(db, period)
    models = sorted({life.model for life in lives(db)} | {use.model for use in usage(db, period)})
    if model not in models:
        raise unknown_model(model, models, where="the ledger")
    total = sum(item.nusd for item in items(db, period) if item.model == model and item.cause == charge)
    parts = list(_bridged(db, model, period) if charge == BRIDGE else _charged(db, model, charge, period))
    return [
        f"{model}: {charge}, {period}: {exact_money(total)}",
        *(f"  {part}" for part in parts or ["nothing"]),
    ]


def _charged(db: sqlite3.Connection, model: str, charge: str, period: Period) -> Iterator[str]:
    book, end_us = rate_book(db), min(period.to_us, last_instant(db))
    for life in lives(db):
        begin, end = max(period.from_us, life.created_us), min(end_us, life.ended_us or end_us)
        if life.model != model or begin >= end:
            continue
        if charge not in (ROUNDING, MINIMUM):
            yield from _stored(db, life.id, life.replica, begin, end)
            continue
        for stretch in stretches(db, life, from_us=begin, to_us=end):
            rate = book.at(life, stretch.ended_us - 1)
            ran_us = stretch.ended_us - stretch.began_us
            minimum_us, rounding_us = rate.added_us(ran_us) if rate else (0, 0)
            added_us = minimum_us if charge == MINIMUM else rounding_us
            if rate and added_us:
                rule = f"in steps of {duration(rate.increment_us)}"
                if charge == MINIMUM:
                    rule = f"at least {duration(rate.minimum_us)}"
                price = rate.nusd_h(stretch.last_cause, stretch.last_tier)
                yield (
                    f"{life.replica}, {iso(stretch.began_us)} to {iso(stretch.ended_us)}:"
                    f" ran {duration(ran_us)}, billed {rule}: {duration(added_us)} more"
                    f" at {money(price, rate.currency)} an hour"
                )


def _stored(db: sqlite3.Connection, life: int, replica: str, begin: int, end: int) -> Iterator[str]:
    rows = db.execute(_IMAGES, {"life": life, "from": begin, "to": end})
    for tier, image_bytes, us in rows:
        yield f"{replica}, {tier}: an image of {size(image_bytes)}, kept for {duration(us)}"


def _bridged(db: sqlite3.Connection, model: str, period: Period) -> Iterator[str]:
    for use in usage(db, period):
        if use.model == model and use.bridged:
            known = f"{exact_money(use.bridge_nusd)} for {counted(use.bridged, 'request')}"
            if use.bridge_untold:
                known += f", {use.bridge_untold} of them at a cost that is not wholly known"
            yield f"{day_name(use.day)}, {key_name(use.key)}: {known}"


_IMAGES = """
SELECT coalesce(tier, ''), image_bytes,
  sum(min(coalesce(ended_us, :to), :to) - max(began_us, :from))
FROM spans WHERE life = :life AND image_bytes > 0 AND began_us < :to AND coalesce(ended_us, :to) > :from
GROUP BY 1, 2 ORDER BY 1, 2
"""
