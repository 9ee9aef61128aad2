"""`poorwill bill`: what the time cost, why, for whom, and how it compares.

One verb, one question at a time: the bill itself, a second explained, a customer's statement, the FOCUS
export, an invoice reconciled, two periods compared. Each is computed in `poorwill.ledger`; this file reads
the options and prints.
"""

import argparse
import asyncio
import sqlite3
from collections.abc import Callable
from datetime import timedelta

from poorwill.cli.ledger import (
    add_ledger_options,
    add_period_options,
    asked_period,
    fleet_of,
    ledger_path,
)
from poorwill.cli.parsing.target import add_json_option
from poorwill.cli.parsing.verb import Streams, Verb, existing_file
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import HostedSettings, SpendSettings
from poorwill.ledger.bill import compare, explain, render, statement
from poorwill.ledger.bill.bill import Axis, make_bill
from poorwill.ledger.bill.items import last_instant
from poorwill.ledger.bill.usage import Use
from poorwill.ledger.dates import Period, instant, month_of, period
from poorwill.ledger.history.spending import look_at
from poorwill.ledger.invoices import focus, reconcile
from poorwill.ledger.invoices.reading import read_invoice
from poorwill.ledger.schema import reading

DEFAULT_AXES = "model,cause"


def _options(parser: argparse.ArgumentParser) -> None:
    add_ledger_options(parser, positional=True)
    add_period_options(parser, default="the ledger's last month")
    what = parser.add_argument_group("what to show")
    what.add_argument(
        "--by",
        default=None,
        metavar="AXES",
        help=f"any of {','.join(Axis)}, comma-separated (default: {DEFAULT_AXES})",
    )
    what.add_argument("--explain", metavar="MODEL", help="why a second was paid")
    what.add_argument("--at", metavar="TIME", help="the second to explain (default: the ledger's last)")
    what.add_argument("--invoice", metavar="KEY", help="a statement for one key, as Markdown")
    what.add_argument("--html", action="store_true", help="with --invoice: as an HTML page")
    what.add_argument(
        "--focus",
        action="store_true",
        help=f"FinOps FOCUS {focus.VERSION} as CSV; with --by key too",
    )
    what.add_argument("--reconcile", metavar="CSV", help="match a provider's invoice with the ledger")
    what.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="with --reconcile: the provider's name of a replica or model; repeatable",
    )
    what.add_argument(
        "--compare", nargs=2, metavar=("THIS", "LAST"), help="why THIS period cost more than LAST"
    )
    add_json_option(parser)
    parser.add_argument("--csv", action="store_true", help="print the lines as CSV")


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    work = _choose(options)
    with reading(ledger_path(options, streams)) as db:
        return await asyncio.to_thread(work, db, options, streams)


Work = Callable[[sqlite3.Connection, argparse.Namespace, Streams], int]


def _choose(options: argparse.Namespace) -> Work:
    """Return what is asked for. Raises RequestFault where that is more than one thing, or makes none."""
    asked: list[tuple[str, Work]] = [
        (name, work)
        for name, work, wanted in (
            ("--explain", _explain, options.explain is not None),
            ("--invoice", _statement, options.invoice is not None),
            ("--focus", _focus, options.focus),
            ("--reconcile", _reconcile, options.reconcile is not None),
            ("--compare", _compare, options.compare is not None),
        )
        if wanted
    ]
    if len(asked) > 1:
        names = " and ".join(name for name, _ in asked)
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{names} are different questions")
    question, work = asked[0] if asked else ("", _bill)
    _must_fit(options, question)
    return work


def _must_fit(options: argparse.Namespace, question: str) -> None:
    """Raise RequestFault for an option that has no meaning for this question: it would be ignored."""
    for option, given, questions in (
        ("--at", options.at is not None, ("--explain",)),
        ("--html", options.html, ("--invoice",)),
        ("--resource", options.resource, ("--reconcile",)),
        ("--json", options.json, ("", "--explain", "--reconcile", "--compare")),
        ("--csv", options.csv, ("", "--focus")),
        ("--by", options.by is not None, ("", "--focus", "--invoice")),
        ("--period", options.period, ("", "--invoice", "--focus", "--reconcile")),
        ("--from", options.begin, ("", "--invoice", "--focus", "--reconcile")),
        ("--to", options.end, ("", "--invoice", "--focus", "--reconcile")),
    ):
        if given and question not in questions:
            with_what = " or ".join(one or "the bill itself" for one in questions)
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"{option} does not go with {question or 'the bill itself'}",
                hint=f"it goes with {with_what}",
            )
    if options.json and options.csv:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "--json and --csv are different forms")


def _bill(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    settings = fleet_of(options, streams)
    models = settings.models if settings else ()
    hosted = {str(model.name): model.hosted for model in models if model.hosted}
    bill = make_bill(db, _period(db, options), _axes(options), hosted=hosted, price=hosted_price)
    spend = settings.spend if settings else SpendSettings()
    verdict = look_at(db, spend, now_us=last_instant(db), settled={})
    if options.json:
        limits = [limit.document(verdict.at_us) for limit in verdict.limits]
        streams.say_json({**render.as_json(bill), "limits": limits})
    elif options.csv:
        render.as_csv(bill, streams.stdout)
    else:
        for line in render.as_text(bill):
            streams.say(line)
        if verdict.limits:
            streams.say()
            for line in render.limits_text(verdict):
                streams.say(line)
    return 0


def hosted_price(hosted: HostedSettings, use: Use) -> int | None:
    """Return what the hosted API would have charged for a day's tokens, at that day's price."""
    from poorwill.planner.alternatives.hosted import EPOCH, offer_of  # numpy is slow to import

    try:
        offer = offer_of(hosted)
    except RequestFault:
        return None
    noon = EPOCH + timedelta(days=use.day, hours=12)
    quote = offer.quote(noon, use.tokens_in // max(use.requests, 1))
    return quote.nusd(use.tokens_in, use.tokens_out)


def _explain(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    at_us = last_instant(db) - 1 if options.at is None else instant(options.at)
    now_us = SystemClock.started().now_us()
    found = explain.explain(db, options.explain, at_us, now_us=now_us)
    if options.json:
        streams.say_json([explain.as_json(one) for one in found])
    else:
        for one in found:
            for line in explain.as_text(one):
                streams.say(line)
    return 0


def _statement(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    found = statement.statement(db, _period(db, options), options.invoice)
    streams.stdout.write(statement.as_html(found) if options.html else statement.as_markdown(found))
    return 0


def _focus(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    by_key = options.by is not None and Axis.KEY in _axes(options)
    focus.write_focus(db, _period(db, options), streams.stdout, by_key=by_key)
    return 0


def _reconcile(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    """Print the reconciliation; exit 1 where something is unexplained or on one side only."""
    charges = read_invoice(existing_file(options.reconcile), source=options.reconcile)
    asked = options.period or options.begin or options.end
    found = reconcile.reconcile(
        db,
        charges,
        names=_names(options.resource),
        period=_period(db, options) if asked else None,
    )
    if options.json:
        streams.say_json(reconcile.as_json(found))
    else:
        for line in reconcile.as_text(found):
            streams.say(line)
    return 1 if reconcile.OPEN_REASONS & found.reasons().keys() else 0


def _names(pairs: list[str]) -> dict[str, str]:
    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"--resource {bad[0]}: write it as THEIRS=OURS")
    return dict(pair.split("=", 1) for pair in pairs)


def _compare(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    this, last = (period(text) for text in options.compare)
    found = compare.compare(db, this, last)
    if options.json:
        streams.say_json(compare.as_json(found))
    else:
        for line in compare.as_text(found):
            streams.say(line)
    return 0


def _period(db: sqlite3.Connection, options: argparse.Namespace) -> Period:
    last_us = last_instant(db)
    return asked_period(options, last_us=last_us) or month_of(max(last_us - 1, 0))


def _axes(options: argparse.Namespace) -> list[Axis]:
    asked = DEFAULT_AXES if options.by is None else options.by
    names = [name.strip() for name in asked.split(",")]
    unknown = [name for name in names if name not in list(Axis)]
    if unknown:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"--by: no axis {', '.join(map(repr, unknown))}",
            hint=f"any of {', '.join(Axis)}",
        )
    return [Axis(name) for name in dict.fromkeys(names)]


VERB = Verb(
    name="bill",
    help="what the time cost: by cause, model, key; exact to the nano-dollar",
    options=_options,
    run=_run,
    epilog="The lines sum to the total, and days sum to the month, to the last nano-dollar.",
)
