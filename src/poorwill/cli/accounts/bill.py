"""`poorwill bill`: what the time cost, why, for whom, and how it compares.

One verb, one question at a time: the bill itself, a second explained, a customer's statement, the FOCUS
export, an invoice reconciled, two periods compared. Each is computed in `poorwill.ledger`; this file reads
the options and prints.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from msgspec import structs

from poorwill.bill import compare, explain, render, statement, statement_page
from poorwill.bill.bill import Axis, make_bill
from poorwill.bill.charges import explain_charge
from poorwill.bill.documents import (
    BillDocument,
    ComparisonDocument,
    ExplanationsDocument,
    bill_document,
    comparison_document,
    explanations_document,
)
from poorwill.bill.invoices import reconcile
from poorwill.bill.invoices.documents import ReconciliationDocument, reconciliation_document
from poorwill.bill.invoices.focus import VERSION, write_focus
from poorwill.bill.invoices.reading import read_invoice
from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import DEFAULT_FILE, JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions, PeriodOptions
from poorwill.cli.parsing.options import Group, Option, Values
from poorwill.cli.parsing.streams import Streams, existing_file
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.bridges import hosted_price
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import SpendSettings
from poorwill.ledger.checking import undamaged
from poorwill.ledger.costs.items import last_instant
from poorwill.ledger.costs.pricing import NAMED_CHARGES
from poorwill.ledger.dates import Period, instant, month_of, names_period, period, spelled_out, zone_of
from poorwill.ledger.history.spending import look_at
from poorwill.ledger.schema import reading

DEFAULT_AXES = "model,cause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the bill is asked; nothing given: the bill itself."""

    by: Annotated[
        str | None,
        Option(
            f"any of {','.join(Axis)}, comma-separated (default: by model, with causes; "
            f"as JSON and CSV {DEFAULT_AXES})",
            metavar="AXES",
        ),
    ] = None
    explain: Annotated[str | None, Option("why a second was paid", metavar="MODEL", values=Values.MODELS)] = (
        None
    )
    line: Annotated[
        str | None,
        Option(f"with --explain: what a line consists of: {', '.join(NAMED_CHARGES)}", metavar="LINE"),
    ] = None
    at: Annotated[str | None, Option("the second to explain (default: the last)", metavar="TIME")] = None
    invoice: Annotated[
        str | None, Option("a statement for one key, as Markdown", metavar="KEY", values=Values.KEYS)
    ] = None
    html: Annotated[bool, Option("with --invoice: as an HTML page to send or print")] = False
    number: Annotated[str | None, Option("with --invoice: the statement's number", metavar="TEXT")] = None
    focus: Annotated[bool, Option(f"FinOps FOCUS {VERSION} as CSV; with --by key too")] = False
    reconcile: Annotated[
        str | None, Option("match a provider's invoice with the ledger", metavar="CSV", values=Values.FILES)
    ] = None
    resource: Annotated[
        tuple[str, ...],
        Option(
            "with --reconcile: the provider's name of a replica or model; repeatable",
            metavar="THEIRS=OURS",
            repeats=True,
        ),
    ] = ()
    compare: Annotated[
        tuple[str, ...],
        Option("why period THIS cost more than LAST", metavar="PERIOD", nargs=2, values=Values.PERIODS),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BillOptions:
    """The options of `poorwill bill`."""

    words: Annotated[
        tuple[str, ...],
        Option(
            "a fleet, as with --fleet, or a period: `bill today`",
            argument=True,
            metavar="WORD",
            nargs="*",
            values=Values.FILES,
        ),
    ] = ()
    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    when: Annotated[
        PeriodOptions, Group("period (UTC; default: the ledger's last month), also as in `bill today`")
    ] = field(default_factory=PeriodOptions)
    what: Annotated[Question, Group("what to show")] = field(default_factory=Question)
    json: JsonOption = False
    csv: Annotated[bool, Option("print the lines as CSV")] = False


async def _run(options: BillOptions, streams: Streams) -> int:
    options = _as_meant(options)
    work = _choose(options)
    options = replace(options, ledger=await options.ledger.here(streams.env))
    path = options.ledger.path(streams.env)

    def answer(streams: Streams) -> int:
        with reading(path) as db, undamaged(db, path):
            return work(db, options, streams)

    return await streams.interruptible(answer)


def _as_meant(options: BillOptions) -> BillOptions:
    """Read `bill today my-fleet` as a period and a fleet. Raises RequestFault if there are two of either."""
    ledger, when = options.ledger, options.when
    for word in options.words:
        if names_period(word) and not os.path.exists(word):
            what, named, when = "periods", when.period or when.begin or when.end, replace(when, period=word)
        else:
            fleet = ledger.fleet if ledger.fleet != DEFAULT_FILE else None
            what, named, ledger = "fleets", fleet, replace(ledger, fleet=word)
        if named and named != word:
            raise RequestFault(ErrorCode.INVALID_REQUEST, f"two {what} are named, {named} and {word}")
    return replace(options, ledger=ledger, when=when)


Work = Callable[[sqlite3.Connection, BillOptions, Streams], int]


def _choose(options: BillOptions) -> Work:
    """Return what is asked for. Raises RequestFault if that is more than one thing, or makes no sense."""
    what = options.what
    asked: list[tuple[str, Work]] = [
        (name, work)
        for name, work, wanted in (
            ("--explain", _explain, what.explain is not None),
            ("--invoice", _statement, what.invoice is not None),
            ("--focus", _focus, what.focus),
            ("--reconcile", _reconcile, what.reconcile is not None),
            ("--compare", _compare, what.compare),
        )
        if wanted
    ]
    if len(asked) > 1:
        names = " and ".join(name for name, _ in asked)
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{names} are different questions")
    question, work = asked[0] if asked else ("", _bill)
    _must_fit(options, question)
    return work


def _must_fit(options: BillOptions, question: str) -> None:
    """Raise RequestFault for an option that means nothing to this question and would be ignored."""
    what = options.what
    of_a_line = ("--explain",) if what.line is not None else ()
    periods = ("", "--invoice", "--focus", "--reconcile", *of_a_line)
    for option, given, questions in (
        ("--at", what.at is not None, ("--explain",)),
        ("--line", what.line is not None, ("--explain",)),
        ("--html", what.html, ("--invoice",)),
        ("--number", what.number is not None, ("--invoice",)),
        ("--resource", what.resource, ("--reconcile",)),
        ("--json", options.json, ("", "--explain", "--reconcile", "--compare")),
        ("--csv", options.csv, ("", "--focus")),
        ("--by", what.by is not None, ("", "--focus", "--invoice")),
        *((name, True, periods) for name in options.when.given),
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


def _bill(db: sqlite3.Connection, options: BillOptions, streams: Streams) -> int:
    settings = options.ledger.settings(streams.env)
    models = settings.models if settings else ()
    hosted = {str(model.name): model.hosted for model in models if model.hosted}
    bill = make_bill(
        db,
        _period(db, options),
        _axes(options),
        hosted=hosted,
        price=hosted_price,
        tell=streams.show_progress,
    )
    spend = settings.spend if settings else SpendSettings()
    verdict = look_at(db, spend, now_us=last_instant(db), settled={})
    if options.json:
        limits = tuple(limit.document(verdict.at_us) for limit in verdict.limits)
        streams.say_json(structs.replace(bill_document(bill), limits=limits))
    elif options.csv:
        render.as_csv(bill, streams.stdout)
    else:
        streams.say(*render.as_text(bill, by_model=options.what.by is None))
        if verdict.limits:
            streams.say("", *render.limits_text(verdict))
    return 0


def _explain(db: sqlite3.Connection, options: BillOptions, streams: Streams) -> int:
    if options.what.line is not None:
        model, period = options.what.explain or "", _period(db, options)
        streams.say(*explain_charge(db, model, options.what.line, period))
        return 0
    at, zone = options.what.at, zone_of(options.when.zone)
    at_us = last_instant(db) - 1 if at is None else instant(at, zone)
    now_us = SystemClock.started().now_us()
    found = explain.explain(db, options.what.explain or "", at_us, now_us=now_us)
    if options.json:
        streams.say_json(explanations_document(found))
    else:
        streams.say(*(line for one in found for line in explain.as_text(one)))
    return 0


def _statement(db: sqlite3.Connection, options: BillOptions, streams: Streams) -> int:
    settings = options.ledger.settings(streams.env)
    found = statement.statement(
        db,
        _period(db, options),
        options.what.invoice or "",
        terms=settings.statement if settings else None,
        number=options.what.number or "",
        tell=streams.show_progress,
    )
    streams.write(statement_page.as_page(found) if options.what.html else statement.as_markdown(found))
    return 0


def _focus(db: sqlite3.Connection, options: BillOptions, streams: Streams) -> int:
    by_key = options.what.by is not None and Axis.KEY in _axes(options)
    write_focus(db, _period(db, options), streams.stdout, by_key=by_key, tell=streams.show_progress)
    return 0


def _reconcile(db: sqlite3.Connection, options: BillOptions, streams: Streams) -> int:
    """Print the reconciliation; exit 1 if something is unexplained or on one side only."""
    path = options.what.reconcile or ""
    charges = read_invoice(existing_file(path), source=path)
    when = _period(db, options) if options.when.given else None
    found = reconcile.reconcile(db, charges, names=_names(options.what.resource), period=when)
    if options.json:
        streams.say_json(reconciliation_document(found))
    else:
        streams.say(*reconcile.as_text(found))
    return FINDING if reconcile.OPEN_REASONS & found.reasons().keys() else 0


def _names(pairs: Sequence[str]) -> dict[str, str]:
    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"--resource {bad[0]}: write it as THEIRS=OURS")
    return dict(pair.split("=", 1) for pair in pairs)


def _compare(db: sqlite3.Connection, options: BillOptions, streams: Streams) -> int:
    zone, now_us = zone_of(options.when.zone), SystemClock.started().now_us()
    this, last = (period(spelled_out(text, zone, now_us=now_us), zone) for text in options.what.compare)
    found = compare.compare(db, this, last)
    if options.json:
        streams.say_json(comparison_document(found))
    else:
        streams.say(*compare.as_text(found))
    return 0


def _period(db: sqlite3.Connection, options: BillOptions) -> Period:
    last_us = last_instant(db)
    return options.when.asked(last_us=last_us) or month_of(max(last_us - 1, 0), zone_of(options.when.zone))


def _axes(options: BillOptions) -> list[Axis]:
    asked = DEFAULT_AXES if options.what.by is None else options.what.by
    names = [name.strip() for name in asked.split(",")]
    unknown = [name for name in names if name not in list(Axis)]
    if unknown:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"--by: no axis {', '.join(map(repr, unknown))}",
            hint=f"any of {', '.join(Axis)}",
        )
    return [Axis(name) for name in dict.fromkeys(names)]


VERB = new_verb(
    BillOptions,
    _run,
    BillDocument,
    ExplanationsDocument,
    ComparisonDocument,
    ReconciliationDocument,
    epilog="The lines sum to the total, and days sum to the month, to the last nano-dollar: --json and\n"
    "--csv have every digit. --by cause has the phases of wakes one by one.",
)
