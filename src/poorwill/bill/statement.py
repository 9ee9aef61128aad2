"""A statement for one key: what a customer used, what it cost and how that was counted, in plain words."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from poorwill.bill.bill import is_wake, local_items, local_usage
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import exact_money
from poorwill.core.settings import StatementSettings
from poorwill.core.words import FAILED_WAKE, SECOND_US
from poorwill.ledger.checksums import Tell
from poorwill.ledger.costs.items import Item, key_name, last_instant, one_currency
from poorwill.ledger.costs.pricing import BRIDGE
from poorwill.ledger.costs.usage import Count, Use
from poorwill.ledger.dates import Period, day_name, iso, month_of, timestamp
from poorwill.ledger.verifying import verify


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One model on one day."""

    day: str
    model: str
    requests: int
    tokens_in: int
    tokens_out: int
    serving_us: int
    serving_nusd: int
    wake_us: int
    wake_nusd: int
    hosted_nusd: int

    @property
    def nusd(self) -> int:
        """The line's cost."""
        return self.serving_nusd + self.wake_nusd + self.hosted_nusd


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one key used in a period."""

    key: str
    number: str
    period: Period
    known_us: int
    """The last instant known."""
    terms: StatementSettings
    currency: str
    lines: tuple[StatementLine, ...]

    @property
    def nusd(self) -> int:
        """The total: the sum of the lines."""
        return sum(line.nusd for line in self.lines)

    @property
    def hosted(self) -> bool:
        """Whether anything was passed on to another provider."""
        return any(line.hosted_nusd for line in self.lines)

    @property
    def when(self) -> str:
        """Its period, as the bill prints it."""
        return f"{self.period}" + (", UTC" if self.period.zone is UTC else "")

    @property
    def final(self) -> bool:
        """Whether everything of its period is known."""
        return self.known_us >= self.period.to_us

    @property
    def known(self) -> str:
        """What a statement that is not final says of itself."""
        return f"this is what is known up to {timestamp(self.known_us)}"

    @property
    def due(self) -> str:
        """The day on which it is due; empty if none is configured, or it is not final."""
        if self.terms.due_days is None or not self.final:
            return ""
        after = date.fromisoformat(iso(self.period.to_us, self.period.zone)[:10])
        return str(after + timedelta(days=self.terms.due_days))

    @property
    def notes(self) -> Sequence[str]:
        """What its columns mean."""
        hosted = (_HOSTED,) if self.hosted else ()
        failed = _FAILED_TOO if self.terms.charge_failed_wakes else _FAILED_FREE
        return (_COMPUTING, f"{_STARTING} {failed}", *hosted, f"Days are {self.period.zone}.")


def statement(
    db: sqlite3.Connection,
    period: Period,
    key: str,
    *,
    terms: StatementSettings | None = None,
    number: str = "",
    tell: Tell = lambda _: None,
) -> Statement:
    """Return what a key used, by the days of the period's zone.

    `number` is the statement's own, if it is not to be made of the period and the key. What failed wakes cost
    is left to the fleet unless the terms charge it.

    Raises RequestFault for an unknown key and for several currencies.
    """
    known = {key_name(text) for (text,) in db.execute(_KEYS)}
    if key not in known:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the ledger knows no key {key!r}",
            hint=f"it knows {', '.join(sorted(known))}" if known else "it has no requests yet",
        )
    verify(db, period, by_key=True, tell=tell)
    terms = terms or StatementSettings()
    mine = [
        item
        for item in local_items(db, period, by_key=True, tell=tell)
        if item.key == key and (terms.charge_failed_wakes or item.cause != FAILED_WAKE)
    ]
    uses = [use for use in local_usage(db, period) if key_name(use.key) == key]
    return Statement(
        key=key,
        number=number or f"{_name(period)}/{key}",
        period=period,
        known_us=last_instant(db),
        terms=terms,
        currency=one_currency(mine),
        lines=_summed(mine, uses),
    )


def _summed(mine: Sequence[Item], uses: Sequence[Use]) -> tuple[StatementLine, ...]:
    places = sorted({(i.day, i.model) for i in mine} | {(u.day, u.model) for u in uses})
    lines = []
    for day, model in places:
        here = [item for item in mine if (item.day, item.model) == (day, model)]
        count: Count = sum((u for u in uses if (u.day, u.model) == (day, model)), Count())
        woke = [item for item in here if is_wake(item.cause)]
        hosted = [item for item in here if item.cause == BRIDGE]
        served = [item for item in here if item not in woke and item not in hosted]
        lines.append(
            StatementLine(
                day=day_name(day),
                model=model,
                requests=count.requests,
                tokens_in=count.tokens_in,
                tokens_out=count.tokens_out,
                serving_us=sum(item.us for item in served),
                serving_nusd=sum(item.nusd for item in served),
                wake_us=sum(item.us for item in woke),
                wake_nusd=sum(item.nusd for item in woke),
                hosted_nusd=sum(item.nusd for item in hosted),
            )
        )
    return tuple(lines)


def _name(period: Period) -> str:
    """Return a period as `2026-11` if it is a month, else as `FROM..TO`."""
    begin, end = (iso(at_us, period.zone) for at_us in (period.from_us, period.to_us))
    return begin[:7] if month_of(period.from_us, period.zone) == period else f"{begin}..{end}"


_COMPUTING = (
    "Computing: the time in which a model worked on your requests. While several requests are worked on at "
    "once, each is charged its equal part of every moment."
)
_STARTING = (
    "Starting: models sleep while nobody uses them. The time a model took to wake for your requests is "
    "shared equally among all requests that waited for it."
)
_HOSTED = "Other APIs: what another provider charged for requests that were passed on while a model woke."
_FAILED_FREE = "Starts that failed are not charged."
_FAILED_TOO = "Starts that failed are charged too."
_EXACT = "Amounts are exact; the lines sum to the total."


def as_markdown(found: Statement) -> str:
    """Return a statement as Markdown, with exact amounts for each model and day."""
    head = _head(found)
    rows = [head, ("---", "---", *("---:",) * (len(head) - 2))]
    rows += [tuple(_escaped(cell) for cell in cells) for cells in _cells(found)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    notes = "\n".join(f"- {note}" for note in (*found.notes, _EXACT))
    period = found.when if found.final else f"{found.when}. Not final: {found.known}."
    said = [f"Number: {_escaped(found.number)}"]
    said += [f"From: {_escaped(' '.join(found.terms.issuer.split()))}"] if found.terms.issuer else []
    said += [f"Due: {found.due}"] if found.due else []
    lines = "\n\n".join(said)
    terms = f"\n{_escaped(found.terms.terms.strip())}\n" if found.terms.terms else ""
    return (
        f"# Statement for {_escaped(found.key)}\n\n{period}\n\n{lines}\n\n{table}\n\n"
        f"**Total: {exact_money(found.nusd, found.currency)}**\n\n{notes}\n{terms}"
    )


def _head(found: Statement) -> tuple[str, ...]:
    hosted = ("Other APIs",) if found.hosted else ()
    return (
        "Day",
        "Model",
        "Requests",
        "Tokens in",
        "Tokens out",
        "Seconds computing",
        "Seconds starting",
        "Computing",
        "Starting",
        *hosted,
        "Total",
    )


def _cells(found: Statement) -> Sequence[tuple[str, ...]]:
    def amount(nusd: int) -> str:
        return exact_money(nusd, found.currency)

    return [
        (
            line.day,
            line.model,
            f"{line.requests:,}",
            f"{line.tokens_in:,}",
            f"{line.tokens_out:,}",
            f"{line.serving_us / SECOND_US:,.3f}",
            f"{line.wake_us / SECOND_US:,.3f}",
            amount(line.serving_nusd),
            amount(line.wake_nusd),
            *((amount(line.hosted_nusd),) if found.hosted else ()),
            amount(line.nusd),
        )
        for line in found.lines
    ]


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>|#" else char for char in text)


_KEYS = """
SELECT t.text FROM usage u JOIN texts t ON t.id = u.key UNION SELECT name FROM keys
"""
