"""The provider's invoice against the ledger: what matches, what is missing on either side, and why.

The residual, invoice minus ledger, is taken apart into likely causes that sum to it exactly. What no
hypothesis fits is called `unexplained`; nothing is forced to fit.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import duration, exact_money, table
from poorwill.core.money import cost_numerator, rounded
from poorwill.core.words import HOUR_US, SECOND_US, UNOBSERVED
from poorwill.ledger.bill.items import items, last_instant, one_currency
from poorwill.ledger.bill.pricing import BRIDGE, stretches
from poorwill.ledger.dates import Period
from poorwill.ledger.invoices.reading import Charge
from poorwill.ledger.rates import lives, orphans, rate_book


class Reason(StrEnum):
    """Why an invoice and the ledger differ."""

    ROUNDING = "rounding of the invoice's amounts"
    INCREMENT = "billing increment"
    MINIMUM = "minimum charge"
    UNOBSERVED = "unobserved time, not invoiced"
    PRICE = "price difference"
    TIME = "time difference"
    ORPHAN = "orphan: invoiced, not in the ledger"
    NOT_INVOICED = "in the ledger, not invoiced"
    UNEXPLAINED = "unexplained"


OPEN_REASONS = frozenset({Reason.ORPHAN, Reason.NOT_INVOICED, Reason.TIME, Reason.UNEXPLAINED})
"""Reasons that leave a question open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a residual with its likely cause."""

    reason: Reason
    nusd: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A resource in a period, on both sides or on one; the parts sum to invoice minus ledger."""

    resource: str
    replica: str
    """'' where no replica of the ledger goes by that name."""
    period: Period
    invoice_nusd: int | None
    ledger_nusd: int | None
    parts: tuple[Part, ...]

    @property
    def residual_nusd(self) -> int:
        """Invoice minus ledger."""
        return (self.invoice_nusd or 0) - (self.ledger_nusd or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """A whole invoice against the ledger."""

    period: Period
    currency: str
    matches: tuple[Match, ...]

    @property
    def invoice_nusd(self) -> int:
        """The invoice's total."""
        return sum(match.invoice_nusd or 0 for match in self.matches)

    @property
    def ledger_nusd(self) -> int:
        """The ledger's total for the same period, without what hosted APIs charged."""
        return sum(match.ledger_nusd or 0 for match in self.matches)

    def reasons(self) -> dict[Reason, int]:
        """Return the residual by likely cause, the largest first; it sums to invoice minus ledger."""
        sums: dict[Reason, int] = defaultdict(int)
        for match in self.matches:
            for part in match.parts:
                sums[part.reason] += part.nusd
        return dict(sorted(sums.items(), key=lambda one: (-abs(one[1]), one[0])))


def reconcile(
    db: sqlite3.Connection,
    charges: Sequence[Charge],
    *,
    names: Mapping[str, str],
    period: Period | None = None,
) -> Reconciliation:
    """Match an invoice's charges with the ledger by resource and period.

    A charge belongs to the replica whose id, or whose model's name, is its resource; `names` maps the
    provider's own names to those. `period` defaults to what the charges span.
    Raises RequestFault where invoice and ledger are in different currencies, and for a name of ours that
    the ledger does not know.
    """
    whole = period or Period(
        from_us=min(charge.from_us for charge in charges),
        to_us=max(charge.to_us for charge in charges),
    )
    theirs = charges[0].currency
    ours = one_currency(items(db, whole), default=theirs)
    if ours != theirs:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"the invoice is in {theirs}, the ledger in {ours}")
    known = _known_names(db)
    for theirs_is, ours_is in names.items():
        if ours_is not in known:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"--resource {theirs_is}={ours_is}: the ledger has no replica or model {ours_is}",
                hint=f"it has {', '.join(sorted(known))}" if known else None,
            )
    grouped: dict[tuple[str, int, int], list[Charge]] = defaultdict(list)
    for charge in charges:
        grouped[charge.resource, charge.from_us, charge.to_us].append(charge)
    matches: list[Match] = []
    covered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (resource, begin, end), rows in sorted(grouped.items()):
        replica = known.get(names.get(resource, resource), "")
        if replica:
            covered[replica].append((begin, end))
        matches.append(_match(db, resource, replica, Period(from_us=begin, to_us=end), rows))
    for replica in sorted(set(known.values())):
        for begin, end in _uncovered(whole, covered.get(replica, [])):
            matches += _not_invoiced(db, replica, Period(from_us=begin, to_us=end))
    return Reconciliation(period=whole, currency=theirs, matches=tuple(matches))


LISTED_MATCHES = 31
"""Lines without a residual that are listed one by one: a month of one replica."""


def as_text(found: Reconciliation) -> list[str]:
    """Return a reconciliation for people; many lines that match are one line."""

    def amount(nusd: int) -> str:
        return exact_money(nusd, found.currency)

    rows = [("RESOURCE", "PERIOD", "INVOICE", "LEDGER", "RESIDUAL", "LIKELY CAUSE")]
    alike = [match for match in found.matches if not match.parts]
    if len(alike) <= LISTED_MATCHES:
        alike = []
    for match in found.matches:
        if not match.parts and alike:
            continue
        why = "; ".join(f"{part.reason}{f' ({part.detail})' if part.detail else ''}" for part in match.parts)
        rows.append(
            (
                match.resource,
                str(match.period),
                "missing" if match.invoice_nusd is None else amount(match.invoice_nusd),
                "missing" if match.ledger_nusd is None else amount(match.ledger_nusd),
                amount(match.residual_nusd),
                why or "matches",
            )
        )
    if alike:
        invoiced = amount(sum(match.invoice_nusd or 0 for match in alike))
        known = amount(sum(match.ledger_nusd or 0 for match in alike))
        rows.append((f"{len(alike):,} lines", "", invoiced, known, amount(0), "match"))
    residual = found.invoice_nusd - found.ledger_nusd
    total = ("total", str(found.period), amount(found.invoice_nusd), amount(found.ledger_nusd))
    rows.append((*total, amount(residual), ""))
    lines = table(rows, "<<>>><")
    reasons = [(f"  {reason}", amount(nusd)) for reason, nusd in found.reasons().items()]
    lines += ["", f"the residual, {amount(residual)}, by likely cause:"]
    return lines + table(reasons, "<>") if reasons else [*lines[:-2], "", "no residual"]


def _known_names(db: sqlite3.Connection) -> dict[str, str]:
    """Return what each replica goes by: its own id, and its model's name where that has one replica."""
    by_model: dict[str, set[str]] = defaultdict(set)
    nobodys = orphans(db)
    for life in lives(db):
        if life.id not in nobodys:
            by_model[life.model].add(life.replica)
    names = {model: min(replicas) for model, replicas in by_model.items() if len(replicas) == 1}
    return {**names, **{life.replica: life.replica for life in lives(db)}}


def _match(
    db: sqlite3.Connection, resource: str, replica: str, period: Period, rows: Sequence[Charge]
) -> Match:
    invoiced = sum(row.nusd for row in rows)
    if not replica:
        orphan = Part(reason=Reason.ORPHAN, nusd=invoiced)
        return Match(
            resource=resource,
            replica="",
            period=period,
            invoice_nusd=invoiced,
            ledger_nusd=None,
            parts=(orphan,) if invoiced else (),
        )
    costs = _ledger_costs(db, replica, period)
    booked = sum(nusd for _, nusd in costs.values())
    return Match(
        resource=resource,
        replica=replica,
        period=period,
        invoice_nusd=invoiced,
        ledger_nusd=booked,
        parts=tuple(_explain(db, replica, period, rows, costs)),
    )


def _explain(
    db: sqlite3.Connection,
    replica: str,
    period: Period,
    rows: Sequence[Charge],
    costs: Mapping[str, tuple[int, int]],
) -> list[Part]:
    """Try the hypotheses in the order of how well they can be told apart; what is left is unexplained."""
    left = sum(row.nusd for row in rows) - sum(nusd for _, nusd in costs.values())
    tolerance = sum(row.half_unit_nusd for row in rows)
    parts: list[Part] = []

    def take(reason: Reason, nusd: int, detail: str = "") -> None:
        nonlocal left
        if nusd:
            parts.append(Part(reason=reason, nusd=nusd, detail=detail))
            left -= nusd

    if abs(left) > tolerance:
        price = _price_part(rows, costs)
        if price is not None:
            take(Reason.PRICE, price[0], price[1])
    if left > tolerance:
        fitting = _billing_habit(db, replica, period, left, tolerance)
        if fitting is not None:
            take(*fitting)
    elif left < -tolerance:
        unobserved = costs.get(UNOBSERVED, (0, 0))[1]
        take(Reason.UNOBSERVED, max(left, -unobserved))
    if abs(left) > tolerance and any(row.us is not None for row in rows):
        take(Reason.TIME, left)
    if left:
        take(Reason.ROUNDING if abs(left) <= tolerance else Reason.UNEXPLAINED, left)
    return parts


def _price_part(rows: Sequence[Charge], costs: Mapping[str, tuple[int, int]]) -> tuple[int, str] | None:
    """With the invoiced time known: invoiced time times the difference of the mean prices."""
    if any(row.us is None for row in rows):
        return None
    invoiced_us, invoiced = sum(row.us or 0 for row in rows), sum(row.nusd for row in rows)
    booked_us = sum(us for us, nusd in costs.values() if nusd)
    booked = sum(nusd for us, nusd in costs.values() if us)
    if not booked_us or not invoiced_us:
        return None
    at_our_price = rounded(invoiced_us * booked, booked_us)
    theirs, ours = rounded(invoiced * HOUR_US, invoiced_us), rounded(booked * HOUR_US, booked_us)
    half_unit = sum(row.half_unit_nusd for row in rows)
    if abs(invoiced - at_our_price) <= half_unit:
        return None
    return (
        invoiced - at_our_price,
        f"{exact_money(theirs)} an hour invoiced, {exact_money(ours)} in the ledger",
    )


_INCREMENTS_S = (1, 10, 60, 300, 600, 900, 3_600)


def _billing_habit(
    db: sqlite3.Connection, replica: str, period: Period, residual: int, tolerance: int
) -> tuple[Reason, int, str] | None:
    """Return the increment or minimum that, applied to every stretch, adds just the residual."""
    book = rate_book(db)
    found = []
    for life in lives(db):
        if life.replica == replica:
            for stretch in stretches(db, life, from_us=period.from_us, to_us=period.to_us):
                rate = book.at(life, stretch.ended_us - 1)
                if rate is not None:
                    ran_us = stretch.ended_us - stretch.began_us
                    price = rate.nusd_h(stretch.last_cause, stretch.last_tier)
                    found.append((ran_us, ran_us + sum(rate.added_us(ran_us)), price))
    for reason in (Reason.INCREMENT, Reason.MINIMUM):
        for seconds in _INCREMENTS_S:
            step_us, numerator = seconds * SECOND_US, 0
            for ran_us, billed_us, price in found:
                if reason is Reason.INCREMENT:
                    theirs_us = -(-ran_us // step_us) * step_us
                else:
                    theirs_us = max(billed_us, step_us)
                numerator += cost_numerator(theirs_us - billed_us, price)
            added = rounded(numerator)
            if added and abs(added - residual) <= tolerance:
                detail = f"{duration(step_us)}, {len(found)} stretches"
                return reason, added, detail
    return None


def _not_invoiced(db: sqlite3.Connection, replica: str, period: Period) -> list[Match]:
    period = Period(from_us=period.from_us, to_us=min(period.to_us, last_instant(db)))
    if period.from_us >= period.to_us:
        return []
    booked = sum(nusd for _, nusd in _ledger_costs(db, replica, period).values())
    if not booked:
        return []
    return [
        Match(
            resource=replica,
            replica=replica,
            period=period,
            invoice_nusd=None,
            ledger_nusd=booked,
            parts=(Part(reason=Reason.NOT_INVOICED, nusd=-booked),),
        )
    ]


def _ledger_costs(db: sqlite3.Connection, replica: str, period: Period) -> dict[str, tuple[int, int]]:
    """Return (microseconds, nano-dollars) by cause, without what hosted APIs charged."""
    costs: dict[str, tuple[int, int]] = {}
    for item in items(db, period):
        if item.replica == replica and item.cause != BRIDGE:
            us, nusd = costs.get(item.cause, (0, 0))
            costs[item.cause] = (us + item.us, nusd + item.nusd)
    return costs


def _uncovered(whole: Period, covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    gaps, at_us = [], whole.from_us
    for begin, end in sorted(covered):
        if begin > at_us:
            gaps.append((at_us, begin))
        at_us = max(at_us, end)
    if at_us < whole.to_us:
        gaps.append((at_us, whole.to_us))
    return gaps
