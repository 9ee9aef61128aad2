"""Why a second was paid: for any instant, what a model's replicas were doing, at which rate, and for whom."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from poorwill.bill.bill import is_wake
from poorwill.core.errors import ErrorCode, RequestFault, unknown_model
from poorwill.core.format import counted, duration, exact_money, money
from poorwill.core.words import PARKED_CAUSES, USEFUL_CAUSES
from poorwill.ledger.costs.attribution import known_shares, piece_shares, wake_shares
from poorwill.ledger.costs.items import key_name, last_instant
from poorwill.ledger.costs.pricing import priced
from poorwill.ledger.dates import Period, iso
from poorwill.ledger.rates import Life, Rate, lives, rate_book
from poorwill.ledger.verifying import verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One replica at one instant."""

    replica: str
    cause: str
    phase: str | None
    tier: str | None
    why: str
    began_us: int
    ended_us: int | None
    """None while it lasts."""
    known_us: int
    """The last instant that the ledger knows."""
    rate: Rate | None
    nusd_h: int
    span_nusd: int
    """What the whole span cost up to its end or the last instant known."""
    image_bytes: int
    for_whom: tuple[tuple[str, int], ...]
    """(key, microseconds) of the whole wake or, around a busy instant, of its span within the hour."""
    wake: str
    story: str
    priced: tuple[tuple[int, Rate | None], ...] = ()
    """(microseconds, rate) of the parts of a span whose rate changes within it."""


def explain(db: sqlite3.Connection, model: str, at_us: int, *, now_us: int) -> list[Explanation]:
    """Explain an instant for every replica of a model that lived then.

    Raises RequestFault if the ledger does not know the model, if nothing of it lived then, and for the
    future.
    """
    if at_us > max(now_us, last_instant(db)):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{iso(at_us)} lies in the future",
            hint=f"the ledger tells of times up to {iso(last_instant(db))}",
        )
    verify(db, Period(from_us=at_us, to_us=at_us + 1), by_key=True)
    known = [life for life in lives(db) if life.model == model]
    if not known:
        models = sorted({life.model for life in lives(db)})
        raise unknown_model(model, models, where="the ledger")
    found = [explained for life in known if (explained := _explain(db, life, at_us)) is not None]
    if not found:
        first, last = min(life.created_us for life in known), last_instant(db)
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"no replica of {model} lived at {iso(at_us)}",
            hint=f"the ledger tells of {iso(first)} to {iso(last)}",
        )
    return found


def as_text(explanation: Explanation) -> list[str]:
    """Return an explanation for people."""
    e = explanation
    on = f"and on, known up to {iso(e.known_us)}"
    end = on if e.ended_us is None else f"to {iso(e.ended_us)}"
    lines = [f"{e.replica}: {e.cause}", f"  {iso(e.began_us)} {end}"]
    if e.story:
        lines.append(f"  why: {e.story}")
    if e.rate is None:
        lines.append("  no rate is configured for it: it is counted, but priced at nothing")
    else:
        currency = e.rate.currency
        source = f", {e.rate.source}" if e.rate.source else ""
        lines.append(
            f"  {money(e.nusd_h, currency)} an hour: rate {e.rate.id}, for {e.rate.scope},"
            f" in force since {iso(e.rate.effective_us)}{source}"
        )
        for us, rate in e.priced:
            each = money(rate.nusd_h(e.cause, e.tier), currency) if rate else "no rate"
            lines.append(f"    {duration(us)} of it at {each}{f' an hour: rate {rate.id}' if rate else ''}")
        so_far = "the span so far" if e.ended_us is None else "the whole span"
        lines.append(f"  {so_far}: {exact_money(e.span_nusd, currency)}")
        if e.image_bytes and e.rate.storage_nusd_gb_month:
            price = money(e.rate.storage_nusd_gb_month, currency)
            lines.append(
                f"  its image: {e.image_bytes / 1e9:.3f} GB at {price} a GB-month, billed as storage"
            )
    if e.for_whom:
        whose = ", ".join(f"{key} {duration(us)}" for key, us in e.for_whom)
        lines.append(f"  {'the whole wake' if e.wake else 'shared'}: {whose}")
    return lines


def _explain(db: sqlite3.Connection, life: Life, at_us: int) -> Explanation | None:
    row = db.execute(
        "SELECT began_us, ended_us, cause, phase, tier, wake, why, image_bytes FROM spans"
        " WHERE life = ? AND began_us <= ? ORDER BY began_us DESC LIMIT 1",
        (life.id, at_us),
    ).fetchone()
    if row is None or (row[1] is not None and row[1] <= at_us):
        return None
    began_us, ended_us, cause, phase, tier, wake, why, image_bytes = row
    known_us = last_instant(db)
    end_us = known_us if ended_us is None else ended_us
    book = rate_book(db)
    rate = book.at(life, at_us)
    if wake is not None:
        name, story = _woken(db, wake)
    else:
        name, story = "", _story(db, life, cause, why, began_us, at_us)
    segments = book.segments(life, began_us, end_us) if end_us > began_us else []
    parts = tuple((each.to_us - each.from_us, each.rate) for each in segments)
    costs = priced(db, book, life, from_us=began_us, to_us=end_us) if end_us > began_us else {}
    return Explanation(
        replica=life.replica,
        cause=cause,
        phase=phase,
        tier=tier,
        why=why,
        began_us=began_us,
        ended_us=ended_us,
        known_us=known_us,
        rate=rate,
        nusd_h=rate.nusd_h(cause, tier) if rate else 0,
        span_nusd=sum(nusd for cell, (_, nusd) in costs.items() if cell.cause == cause),
        image_bytes=image_bytes,
        for_whom=_for_whom(db, life, cause, wake, at_us),
        wake=name,
        story=story,
        priced=parts if len(parts) > 1 else (),
    )


def _woken(db: sqlite3.Connection, wake: int) -> tuple[str, str]:
    """Return the wake's name and, in words, what led to it."""
    row = db.execute(
        "SELECT wake, asked_by, why, from_tier, ok, failure, served_json FROM wakes WHERE id = ?",
        (wake,),
    ).fetchone()
    name, asked_by, reason, tier, ok, failure, served = row
    story = f"wake {name} from {tier}, asked by {asked_by or 'a request'} ({reason})"
    if served != "[]":
        story += f", for {counted(len(json.loads(served)), 'request')}"
    if ok is None:
        story += ", under way"
    elif not ok:
        story += f", failed: {failure}"
    return name, story


def _story(db: sqlite3.Connection, life: Life, cause: str, why: str, began_us: int, at_us: int) -> str:
    """Return, in words, what led to a span that belongs to no wake."""
    if cause in PARKED_CAUSES:
        return _parked(db, life, began_us)
    if cause in USEFUL_CAUSES:
        count = db.execute(
            "SELECT count(*) FROM requests WHERE life = ? AND leased_us <= ? AND ended_us > ?",
            (life.id, at_us, at_us),
        ).fetchone()[0]
        busy = f"{counted(count, 'request')} in flight" if count else "requests in flight, not recorded yet"
        return f"{busy}; {why}" if why else busy
    return f"{_KEPT.get(cause, '')}{why}"


def _parked(db: sqlite3.Connection, life: Life, began_us: int) -> str:
    before = db.execute(
        "SELECT cause, why FROM spans WHERE life = ? AND ended_us = ?", (life.id, began_us)
    ).fetchone()
    lost = db.execute(
        "SELECT text FROM notes WHERE kind = 'engine_lost' AND at_us = ? AND replica = ?",
        (began_us, life.replica),
    ).fetchone()
    if lost is not None:
        return f"its engine was lost: {lost[0]}"
    if before is None:
        return "not started yet"
    cause, why = before
    return f"{_AFTER.get(cause, f'after {cause}')}{': ' if why else ''}{why}"


_AFTER: Mapping[str, str] = {
    "park": "parked",
    "failed_wake": "after a wake that failed",
    "unobserved": "found so by a poorwill that started anew",
}

_KEPT: Mapping[str, str] = {"linger": "kept ready by policy ", "floor": "kept ready by floor "}


def _for_whom(
    db: sqlite3.Connection, life: Life, cause: str, wake: int | None, at_us: int
) -> tuple[tuple[str, int], ...]:
    if cause in USEFUL_CAUSES:
        known = known_shares(db)
        for _, shares in piece_shares(db, known, life.id, from_us=at_us, to_us=at_us + 1):
            return tuple((key_name(known.names[key]), us) for key, us in shares)
    if wake is not None and is_wake(cause) and cause not in PARKED_CAUSES:
        woken = wake_shares(db, wake)
        total = sum(count for _, count in woken)
        lasted = db.execute(
            "SELECT coalesce(ended_us, (SELECT last_us FROM alive)) - began_us FROM wakes WHERE id = ?",
            (wake,),
        ).fetchone()[0]
        return tuple((key_name(key), lasted * count // total) for key, count in woken)
    return ()
