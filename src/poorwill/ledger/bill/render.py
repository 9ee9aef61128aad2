"""A bill as a text table, as JSON and as CSV. Says what `bill` computed; computes nothing itself."""

import csv
from collections.abc import Sequence
from typing import Any, TextIO

from poorwill.core.format import counted, decimal, duration, exact_money, money, percent, table
from poorwill.core.spend import Verdict
from poorwill.core.words import SECOND_US
from poorwill.ledger.bill.bill import Axis, Bill, Figures, Line
from poorwill.ledger.dates import iso, timestamp

NO_TIER = "(ready)"
"""Time in which a replica neither was parked nor woke nor went to rest."""


def as_text(bill: Bill) -> list[str]:
    """Return the lines of the table and of the figures below it."""
    lines = [f"bill for {bill.period}{_known(bill)}", "", *_table(bill)]
    if bill.figures:
        currency = next(iter(bill.totals), "USD")
        lines += ["", *_figures(bill.figures[0], currency)]
        if Axis.MODEL in bill.axes and len(bill.figures) > 2:
            lines += ["", *_by_model(bill.figures[1:], currency)]
    if bill.events:
        rows = [
            (event.kind, f"{event.count:,}", f"last {timestamp(event.last_us)}: {event.last_text}")
            for event in bill.events
        ]
        lines += ["", "events", *table(rows, "<><", indent="  ")]
    return lines


def as_json(bill: Bill) -> dict[str, Any]:
    """Return the bill as one JSON object; money is given exactly, in nano-dollars and as decimal text."""
    return {
        "period": {"from": iso(bill.period.from_us), "to": iso(bill.period.to_us)},
        "as_of": timestamp(bill.as_of_us),
        "by": [str(axis) for axis in bill.axes],
        "lines": [_line_json(bill, line) for line in bill.lines],
        "totals": [
            {"currency": currency, "nusd": nusd, "cost": decimal(nusd)}
            for currency, nusd in sorted(bill.totals.items())
        ],
        "figures": [_figures_json(figures) for figures in bill.figures],
        "events": [
            {
                "kind": event.kind,
                "count": event.count,
                "last": timestamp(event.last_us),
                "text": event.last_text,
            }
            for event in bill.events
        ],
    }


def as_csv(bill: Bill, out: TextIO) -> None:
    """Write the bill's lines as CSV, without a total: it is their sum."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*bill.axes, "seconds", "currency", "cost", "nusd"])
    for line in bill.lines:
        writer.writerow([*line.names, _seconds(line.us), line.currency, decimal(line.nusd), line.nusd])


def limits_text(verdict: Verdict) -> list[str]:
    """Return how the spend limits stand, for people."""
    rows = [
        (
            f"{limit.scope} {limit.name}".strip(),
            f"{money(limit.limit_nusd, limit.currency)} a {limit.window}",
            f"{money(limit.spent_nusd, limit.currency)} spent",
            ""
            if limit.forecast_nusd is None
            else f"{money(limit.forecast_nusd, limit.currency)} at this pace",
            str(limit.standing),
        )
        for limit in verdict.limits
    ]
    return ["limits", *table(rows, indent="  ")] if rows else []


def _table(bill: Bill) -> list[str]:
    head = (*(axis.upper() for axis in bill.axes), "TIME", "COST")
    rows = [head]
    for line in bill.lines:
        time = duration(line.us) if line.us else ""
        names = (
            NO_TIER if axis is Axis.TIER and not name and line.us else name
            for axis, name in zip(bill.axes, line.names, strict=True)
        )
        rows.append((*names, time, exact_money(line.nusd, line.currency)))
    blank = ("",) * max(len(bill.axes) - 1, 0)
    for currency, nusd in sorted(bill.totals.items()) or [("USD", 0)]:
        us = sum(line.us for line in bill.lines if line.currency == currency)
        total = ("total",) if bill.axes else ()
        rows.append((*total, *blank, duration(us), exact_money(nusd, currency)))
    return table(rows, "<" * len(bill.axes) + ">")


def _known(bill: Bill) -> str:
    if bill.as_of_us >= bill.period.to_us:
        return ""
    return f", known up to {timestamp(bill.as_of_us)}"


def _figures(figures: Figures, currency: str) -> list[str]:
    count = figures.count

    def amount(nusd: int | None) -> str:
        return money(nusd, currency)

    tokens = count.tokens_in + count.tokens_out
    rows = [
        (
            "duty cycle",
            percent(figures.duty_cycle),
            f"{duration(figures.useful_us)} useful of {duration(figures.paid_us)} paid",
        ),
        (
            "per million tokens",
            f"{amount(figures.nusd_per_m(tokens))} blended",
            f"{amount(figures.nusd_per_m(count.tokens_in))} over {count.tokens_in:,} tokens in, "
            f"{amount(figures.nusd_per_m(count.tokens_out))} over {count.tokens_out:,} tokens out",
        ),
        (
            "per wake",
            amount(figures.nusd_per_wake),
            f"{counted(figures.wakes, 'wake')}, {figures.failed_wakes:,} failed,"
            f" {amount(figures.wake_nusd)} in all",
        ),
        (
            "per request",
            amount(figures.nusd_per_request),
            f"{counted(count.requests, 'request')}, {count.failed:,} failed,"
            f" {count.untold:,} without token counts",
        ),
        (
            "always on",
            amount(figures.always_on_nusd),
            _against(figures.always_on_nusd, figures.nusd),
        ),
    ]
    if figures.hosted_name:
        rows.append(
            (
                "hosted API",
                amount(figures.hosted_nusd),
                f"{figures.hosted_name}, {_against(figures.hosted_nusd, figures.nusd)}",
            )
        )
    if count.bridged:
        told = f"{counted(count.bridged, 'request')} went to a hosted API"
        if count.bridge_untold:
            told += f"; {count.bridge_untold:,} without usage, whose cost is not known"
        rows.append(("bridge", money(count.bridge_nusd), told))
    if figures.unpriced_us:
        rows.append(("no rate", duration(figures.unpriced_us), "counted, but priced at nothing"))
    title = figures.model or "all models"
    return [title, *table(rows, indent="  ")]


def _by_model(figures: Sequence[Figures], currency: str) -> list[str]:
    head = (
        "MODEL",
        "DUTY CYCLE",
        "PER M TOKENS",
        "PER WAKE",
        "PER REQUEST",
        "ALWAYS ON",
        "HOSTED API",
    )
    rows: list[tuple[str, ...]] = [head]
    for one in figures:
        tokens = one.count.tokens_in + one.count.tokens_out
        amounts = (
            one.nusd_per_m(tokens),
            one.nusd_per_wake,
            one.nusd_per_request,
            one.always_on_nusd,
            one.hosted_nusd,
        )
        rows.append((one.model, percent(one.duty_cycle), *(money(nusd, currency) for nusd in amounts)))
    return table(rows, "<>")


def _against(other_nusd: int | None, nusd: int) -> str:
    """Say how an alternative compares."""
    if other_nusd is None:
        return "price not known"
    if not other_nusd:
        return "nothing"
    share = nusd / other_nusd
    return f"the bill is {share:.1%} of it" if share < 10 else f"the bill is {share:,.0f} times it"


def _line_json(bill: Bill, line: Line) -> dict[str, Any]:
    names = {str(axis): name for axis, name in zip(bill.axes, line.names, strict=True)}
    return {
        **names,
        "seconds": line.us / SECOND_US,
        "us": line.us,
        "currency": line.currency,
        "cost": decimal(line.nusd),
        "nusd": line.nusd,
    }


def _figures_json(figures: Figures) -> dict[str, Any]:
    count = figures.count
    return {
        "model": figures.model or None,
        "nusd": figures.nusd,
        "duty_cycle": figures.duty_cycle,
        "paid_s": figures.paid_us / SECOND_US,
        "useful_s": figures.useful_us / SECOND_US,
        "parked_s": figures.parked_us / SECOND_US,
        "unpriced_s": figures.unpriced_us / SECOND_US,
        "wakes": figures.wakes,
        "failed_wakes": figures.failed_wakes,
        "wake_nusd": figures.wake_nusd,
        "nusd_per_wake": figures.nusd_per_wake,
        "requests": count.requests,
        "failed_requests": count.failed,
        "requests_without_usage": count.untold,
        "tokens_in": count.tokens_in,
        "tokens_out": count.tokens_out,
        "held_s": count.held_us / SECOND_US,
        "bridged_requests": count.bridged,
        "bridged_requests_without_usage": count.bridge_untold,
        "bridge_nusd": count.bridge_nusd,
        "nusd_per_request": figures.nusd_per_request,
        "nusd_per_m_tokens": {
            "in": figures.nusd_per_m(count.tokens_in),
            "out": figures.nusd_per_m(count.tokens_out),
            "blended": figures.nusd_per_m(count.tokens_in + count.tokens_out),
        },
        "always_on_nusd": figures.always_on_nusd,
        "hosted": figures.hosted_name or None,
        "hosted_nusd": figures.hosted_nusd,
    }


def _seconds(us: int) -> str:
    return f"{us // SECOND_US}.{us % SECOND_US:06d}"
