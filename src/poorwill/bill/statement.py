"""A statement for one key: what a customer used, what it cost and how that was counted, in plain words."""

import html
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from poorwill.bill.bill import is_wake, local_items, local_usage
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import exact_money
from poorwill.core.words import SECOND_US
from poorwill.ledger.costs.items import Tell, key_name, last_instant, one_currency
from poorwill.ledger.costs.pricing import BRIDGE
from poorwill.ledger.costs.usage import Count
from poorwill.ledger.dates import Period, day_name, timestamp


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
    period: Period
    known_us: int
    """The last instant known: a statement of a period that is not over is not final."""
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


def statement(db: sqlite3.Connection, period: Period, key: str, *, tell: Tell | None = None) -> Statement:
    """Return what a key used, by the days of the period's zone.

    Raises RequestFault for an unknown key and for several currencies.
    """
    known = {key_name(text) for (text,) in db.execute(_KEYS)}
    if key not in known:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the ledger knows no key {key!r}",
            hint=f"it knows {', '.join(sorted(known))}" if known else "it has no requests yet",
        )
    mine = [item for item in local_items(db, period, by_key=True, tell=tell) if item.key == key]
    uses = [use for use in local_usage(db, period) if key_name(use.key) == key]
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
    return Statement(
        key=key,
        period=period,
        known_us=last_instant(db),
        currency=one_currency(mine),
        lines=tuple(lines),
    )


_COMPUTING = (
    "Computing: the time in which a model worked on your requests. While several requests are worked on at "
    "once, each is charged its equal part of every moment."
)
_STARTING = (
    "Starting: models sleep while nobody uses them. The time a model took to wake for your requests is "
    "shared equally among all requests that waited for it."
)
_HOSTED = "Other APIs: what another provider charged for requests that were passed on while a model woke."
_EXACT = "Days are {zone}. Amounts are exact; the lines sum to the total."


def as_markdown(found: Statement) -> str:
    """Return a statement as Markdown."""
    head = _head(found)
    rows = [head, ("---", "---", *("---:",) * (len(head) - 2))]
    rows += [tuple(_escaped(cell) for cell in cells) for cells in _cells(found)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    notes = "\n".join(f"- {note}" for note in _notes(found))
    return (
        f"# Statement for {_escaped(found.key)}\n\n{_period(found)}\n\n{table}\n\n"
        f"**Total: {exact_money(found.nusd, found.currency)}**\n\n{notes}\n"
    )


def as_html(found: Statement) -> str:
    """Return a statement as one HTML page without anything to fetch."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in _head(found))
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in _cells(found)
    )
    notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in _notes(found))
    title = f"Statement for {html.escape(found.key)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{_period(found)}</p>\n"
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        f"</table></div>\n"
        f"<p><strong>Total: {html.escape(exact_money(found.nusd, found.currency))}</strong></p>\n"
        f"<ul>\n{notes}\n</ul>\n</body>\n</html>\n"
    )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    ".wide{overflow-x:auto}"
    "table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}"
    "th,td{border-bottom:1px solid #ccc;padding:.3rem .5rem;text-align:right;vertical-align:bottom}"
    "td{white-space:nowrap}"
    "th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}"
    "@media print{body{margin:0;font-size:12px}}"
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


def _notes(found: Statement) -> Sequence[str]:
    hosted = (_HOSTED,) if found.hosted else ()
    return (_COMPUTING, _STARTING, *hosted, _EXACT.format(zone=found.period.zone))


def _period(found: Statement) -> str:
    text = f"{found.period}" + (", UTC" if found.period.zone is UTC else "")
    if found.known_us < found.period.to_us:
        text += f". Not final: this is what is known up to {timestamp(found.known_us)}."
    return text


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
