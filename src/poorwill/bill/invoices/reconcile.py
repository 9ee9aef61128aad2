"""The provider's invoice against the ledger: what matches, what is missing on either side, and why.

Time is partitioned: charges of one replica whose periods overlap are compared together, so no moment of the
ledger counts twice. The residual, invoice minus ledger, is the sum of its causes (`causes.py`).
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poorwill.bill.invoices.causes import Booked, Compared, Part, PricedStretch, Reason, explain
from poorwill.bill.invoices.reading import Charge
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import exact_money, table
from poorwill.core.words import PARKED_CAUSES, UNOBSERVED, Tier, parked
from poorwill.ledger.costs.items import items, last_instant, one_currency
from poorwill.ledger.costs.pricing import NAMED_CHARGES, priced, stretches
from poorwill.ledger.dates import Period
from poorwill.ledger.rates import Life, lives, orphans, rate_book
from poorwill.ledger.verifying import verify

OPEN_REASONS = frozenset({Reason.ORPHAN, Reason.NOT_INVOICED, Reason.TIME, Reason.UNEXPLAINED})
"""Reasons that leave a question open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A resource in a period, on both sides or on one; the parts sum to invoice minus ledger."""

    resource: str
    replica: str
    """'' if no replica of the ledger goes by that name."""
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
    provider's own names to those. `period` defaults to what the charges of resources span.
    Raises RequestFault if invoice and ledger are in different currencies, and for a name of ours that the
    ledger does not know, LedgerFault if rows are not what was written.
    """
    whole = period or _span([charge for charge in charges if charge.resource] or charges)
    for each in (whole, _span(charges)):
        verify(db, each)
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
    mine: dict[str, list[Charge]] = defaultdict(list)
    others: dict[tuple[str, int, int], list[Charge]] = defaultdict(list)
    for charge in charges:
        replica = known.get(names.get(charge.resource, charge.resource), "")
        if replica:
            mine[replica].append(charge)
        else:
            others[charge.resource or charge.name, charge.from_us, charge.to_us].append(charge)
    books = _Books(db)
    compared = {
        replica: [
            Compared(charges=group, booked=books.booked(replica, _span(group)))
            for group in _overlapping(rows)
        ]
        for replica, rows in sorted(mine.items())
    }
    matches = [_match(replica, one, parts) for replica, one, parts in explain(compared)]
    matches += [_of_no_replica(name, rows) for (name, _, _), rows in sorted(others.items())]
    for replica in sorted(set(known.values())):
        covered = [_span(one.charges) for one in compared.get(replica, [])]
        matches += books.not_invoiced(replica, _uncovered(whole, covered))
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
    """Return what each replica goes by: its own id, and its model's name if that has one replica."""
    by_model: dict[str, set[str]] = defaultdict(set)
    nobodys = orphans(db)
    for life in lives(db):
        if life.id not in nobodys:
            by_model[life.model].add(life.replica)
    names = {model: min(replicas) for model, replicas in by_model.items() if len(replicas) == 1}
    return {**names, **{life.replica: life.replica for life in lives(db)}}


def _span(charges: Sequence[Charge]) -> Period:
    return Period(
        from_us=min(charge.from_us for charge in charges), to_us=max(charge.to_us for charge in charges)
    )


def _overlapping(charges: Sequence[Charge]) -> list[list[Charge]]:
    """Group charges whose periods overlap, directly or through others: the groups are disjoint in time."""
    groups: list[list[Charge]] = []
    end_us = 0
    for charge in sorted(charges, key=lambda one: (one.from_us, one.to_us)):
        if not groups or charge.from_us >= end_us:
            groups.append([])
        groups[-1].append(charge)
        end_us = max(end_us, charge.to_us)
    return groups


def _match(replica: str, one: Compared, parts: Sequence[Part]) -> Match:
    return Match(
        resource=", ".join(sorted({charge.resource for charge in one.charges})),
        replica=replica,
        period=_span(one.charges),
        invoice_nusd=sum(charge.nusd for charge in one.charges),
        ledger_nusd=one.booked.nusd,
        parts=tuple(parts),
    )


def _of_no_replica(name: str, charges: Sequence[Charge]) -> Match:
    """A resource that the ledger does not know, or a line of no resource: a tax, a credit, a hosted API."""
    nusd = sum(charge.nusd for charge in charges)
    part = Part(reason=Reason.ORPHAN if charges[0].resource else Reason.OTHER, nusd=nusd)
    return Match(
        resource=name,
        replica="",
        period=_span(charges),
        invoice_nusd=nusd,
        ledger_nusd=None,
        parts=(part,) if nusd else (),
    )


class _Books:
    """The ledger's side: what it has for a replica in a period."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._book = rate_book(db)
        self._last_us = last_instant(db)
        self._lives: dict[str, list[Life]] = defaultdict(list)
        for life in lives(db):
            self._lives[life.replica].append(life)

    def booked(self, replica: str, period: Period) -> Booked:
        """Return it, without what hosted APIs charged."""
        nusd = active_us = parked_us = unobserved_us = unobserved_nusd = 0
        prices: set[int] = set()
        found: list[PricedStretch] = []
        for life in self._lives[replica]:
            begin = max(period.from_us, life.created_us)
            end = min(period.to_us, self._last_us, life.ended_us or self._last_us)
            if begin >= end:
                continue
            for cell, (us, cost) in priced(self._db, self._book, life, from_us=begin, to_us=end).items():
                nusd += cost
                if cell.cause in PARKED_CAUSES and cell.cause != parked(Tier.ASLEEP):
                    parked_us += us
                elif cell.cause not in NAMED_CHARGES:
                    active_us += us
                if cell.cause == UNOBSERVED:
                    unobserved_us, unobserved_nusd = unobserved_us + us, unobserved_nusd + cost
            prices |= {each.rate.active_nusd_h for each in self._book.segments(life, begin, end) if each.rate}
            for stretch in stretches(self._db, life, from_us=begin, to_us=end):
                rate = self._book.at(life, stretch.ended_us - 1)
                if rate is not None:
                    ran_us = stretch.ended_us - stretch.began_us
                    price = rate.nusd_h(stretch.last_cause, stretch.last_tier)
                    found.append(PricedStretch(ran_us, ran_us + sum(rate.added_us(ran_us)), price))
        return Booked(
            nusd=nusd,
            billed_us=active_us + sum(each.billed_us - each.ran_us for each in found),
            parked_us=parked_us,
            unobserved_us=unobserved_us,
            unobserved_nusd=unobserved_nusd,
            prices_nusd_h=frozenset(prices),
            stretches=tuple(found),
        )

    def not_invoiced(self, replica: str, gaps: Sequence[Period]) -> list[Match]:
        """Return what a replica cost in the gaps between its charges."""
        costs = [(gap, self.booked(replica, gap).nusd) for gap in gaps]
        return [
            Match(
                resource=replica,
                replica=replica,
                period=Period(from_us=gap.from_us, to_us=min(gap.to_us, self._last_us)),
                invoice_nusd=None,
                ledger_nusd=nusd,
                parts=(Part(reason=Reason.NOT_INVOICED, nusd=-nusd),),
            )
            for gap, nusd in costs
            if nusd
        ]


def _uncovered(whole: Period, covered: Sequence[Period]) -> list[Period]:
    gaps, at_us = [], whole.from_us
    for each in covered:
        if each.from_us > at_us:
            gaps.append(Period(from_us=at_us, to_us=min(each.from_us, whole.to_us)))
        at_us = max(at_us, each.to_us)
    if at_us < whole.to_us:
        gaps.append(Period(from_us=at_us, to_us=whole.to_us))
    return [gap for gap in gaps if gap.from_us < gap.to_us]
