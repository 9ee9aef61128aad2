"""A bill as a text table and as CSV. Says what `bill` computed; computes nothing itself."""

import csv
from collections.abc import Iterator, Sequence
from typing import TextIO

from poorwill.bill.bill import Axis, Bill, Figures
from poorwill.core.format import counted, csv_cell, decimal, duration, money, percent, symbol, table
from poorwill.core.money import NUSD
from poorwill.core.spend import Verdict
from poorwill.core.words import DRAIN, PARK, SECOND_US
from poorwill.ledger.costs.usage import Count
from poorwill.ledger.dates import timestamp

NO_TIER = "(ready)"
"""Time in which a replica neither was parked nor woke nor went to rest."""


def as_text(bill: Bill, *, by_model: bool = False) -> list[str]:
    """Return the lines of the table and of the figures below it.

    `by_model`, of a bill by model and cause: each model with what its time went to, wakes in one line.
    """
    table_lines = _models_first(bill) if by_model and bill.lines else _table(bill)
    lines = [f"bill for {bill.period}{_known(bill)}", "", *table_lines]
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


def as_csv(bill: Bill, out: TextIO) -> None:
    """Write the bill's lines as CSV, without a total: it is their sum."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*bill.axes, "seconds", "currency", "cost", "nusd"])
    for line in bill.lines:
        names = map(csv_cell, line.names)
        writer.writerow([*names, _seconds(line.us), line.currency, decimal(line.nusd), line.nusd])


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


def amounts(nusd: Sequence[int], currency: str) -> list[str]:
    """Return amounts for one column: all with as many decimals as make four digits of the largest.

    The lines of a table then add up to its total but for the last digit. What is not nothing never reads as
    nothing.
    """
    largest = max(map(abs, nusd), default=0)
    places = next((p for p in range(2, 9) if largest * 10**p >= 1000 * NUSD), 9) if largest else 2
    texts = []
    for amount in nusd:
        units = (2 * abs(amount) * 10**places + NUSD) // (2 * NUSD)
        less = "<" if amount and not units else ""
        whole, rest = divmod(units or bool(less), 10**places)
        texts.append(f"{'-' if amount < 0 else ''}{less}{symbol(currency)}{whole:,}.{rest:0{places}d}")
    return texts


def _models_first(bill: Bill) -> list[str]:
    """Return each model with its causes below it, the dearest first."""
    wakes = {figures.model: figures.wakes for figures in bill.figures}
    sums: dict[tuple[str, str], dict[str, list[int]]] = {}
    for line in bill.lines:
        model, cause = line.names
        causes = sums.setdefault((line.currency, model), {})
        us_and_nusd = causes.setdefault(_folded(cause, wakes.get(model, 0)), [0, 0])
        us_and_nusd[0] += line.us
        us_and_nusd[1] += line.nusd
    lines: list[str] = []
    for currency, total in sorted(bill.totals.items()):
        rows: list[tuple[str, int, int]] = []
        mine = {model: causes for (money_of, model), causes in sums.items() if money_of == currency}
        for model, causes in sorted(mine.items(), key=lambda one: -sum(nusd for _, nusd in one[1].values())):
            us, nusd = (sum(each) for each in zip(*causes.values(), strict=True))
            rows.append((model, us, nusd))
            dearest = sorted(causes.items(), key=lambda one: (-one[1][1], -one[1][0]))
            rows += [(f"  {cause}", us, nusd) for cause, (us, nusd) in dearest]
        rows.append(("total", sum(us for name, us, _ in rows if name[0] != " "), total))
        costs = amounts([nusd for _, _, nusd in rows], currency)
        shown = [
            (name, duration(us) if us else "", cost) for (name, us, _), cost in zip(rows, costs, strict=True)
        ]
        lines += table([("MODEL", "TIME", "COST"), *shown], "<>")
    return lines


def _folded(cause: str, wakes: int) -> str:
    """Return the line that a cause is part of: phases of wakes are one, and so is what leads to a park."""
    if cause.startswith("wake."):
        return counted(wakes, "wake")
    return "parking" if cause in (DRAIN, PARK) else cause.replace("parked.", "parked ").replace("_", " ")


def _table(bill: Bill) -> list[str]:
    head = (*(axis.upper() for axis in bill.axes), "TIME", "COST")
    rows = [head]
    by_currency: dict[str, Iterator[str]] = {
        currency: iter(
            amounts([*(line.nusd for line in bill.lines if line.currency == currency), total], currency)
        )
        for currency, total in (sorted(bill.totals.items()) or [("USD", 0)])
    }
    for line in bill.lines:
        time = duration(line.us) if line.us else ""
        names = (
            NO_TIER if axis is Axis.TIER and not name and line.us else name
            for axis, name in zip(bill.axes, line.names, strict=True)
        )
        rows.append((*names, time, next(by_currency[line.currency])))
    blank = ("",) * max(len(bill.axes) - 1, 0)
    for currency, costs in by_currency.items():
        us = sum(line.us for line in bill.lines if line.currency == currency)
        total = ("total",) if bill.axes else ()
        rows.append((*total, *blank, duration(us), next(costs)))
    return table(rows, "<" * len(bill.axes) + ">")


def _token_counts(count: Count) -> list[tuple[str, str, str]]:
    """Say how far the tokens are known, unless usage was reported for every request."""
    if not (count.untold or count.counted):
        return []
    told = [f"{count.untold:,} of {counted(count.requests, 'request')} without a count"]
    if count.counted:
        told.append(f"{count.counted:,} counted as they passed, not reported")
    return [("tokens unknown", percent(count.untold / count.requests), "; ".join(told))]


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
        ("per million tokens", "-", "no tokens were counted")
        if not tokens
        else (
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
            f"{counted(count.requests, 'request')}, {count.failed:,} failed",
        ),
        *_token_counts(count),
        (
            "always on",
            amount(figures.always_on_nusd),
            _against(figures.always_on_nusd, figures.nusd),
        ),
    ]
    if figures.hosted_name:
        against = _against(figures.hosted_nusd, figures.compared_nusd)
        told = f"{figures.hosted_name}, {against}{_unknown(figures)}"
        rows.append(("hosted API", amount(figures.hosted_nusd), told))
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


def _unknown(figures: Figures) -> str:
    """Say for which models the alternative has no price, if it has one for others."""
    if figures.hosted_nusd is None or not figures.hosted_unknown:
        return ""
    return f"; not known for {', '.join(figures.hosted_unknown)}"


def _seconds(us: int) -> str:
    return f"{us // SECOND_US}.{us % SECOND_US:06d}"
