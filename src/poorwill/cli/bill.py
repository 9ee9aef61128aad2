"""`poorwill bill`: what the time cost, why, for whom, and how it compares."""

import argparse
import asyncio
import sqlite3
from collections.abc import Callable

from poorwill.cli.ledger import add_ledger_options, fleet_of, ledger_path
from poorwill.cli.target import add_json_option
from poorwill.cli.verb import Streams, Verb
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.ledger import explain, render
from poorwill.ledger.bill import Axis, make_bill
from poorwill.ledger.dates import Period, between, instant, month_of, period
from poorwill.ledger.hosted import hosted_price
from poorwill.ledger.items import last_instant
from poorwill.ledger.schema import reading

DEFAULT_AXES = "model,cause"


def _options(parser: argparse.ArgumentParser) -> None:
    add_ledger_options(parser)
    when = parser.add_argument_group("period (UTC; default: the ledger's last month)")
    when.add_argument("--period", metavar="P", help="2026-11, 2026-11-24 or FROM..TO")
    when.add_argument("--from", dest="begin", metavar="TIME", help="from this instant on")
    when.add_argument("--to", dest="end", metavar="TIME", help="up to this instant")
    what = parser.add_argument_group("what to show")
    what.add_argument(
        "--by",
        default=None,
        metavar="AXES",
        help=f"any of {','.join(Axis)}, comma-separated (default: {DEFAULT_AXES})",
    )
    what.add_argument("--explain", metavar="MODEL", help="why a second was paid; with --at")
    what.add_argument("--at", metavar="TIME", help="the instant to explain")
    add_json_option(parser)
    parser.add_argument("--csv", action="store_true", help="print the lines as CSV")


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    work = _choose(options, streams)
    with reading(ledger_path(options, streams)) as db:
        return await asyncio.to_thread(work, db)


def _choose(options: argparse.Namespace, streams: Streams) -> Callable[[sqlite3.Connection], int]:
    if options.explain is not None:
        return lambda db: _explain(db, options, streams)
    return lambda db: _bill(db, options, streams)


def _bill(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    settings = fleet_of(options, streams)
    models = settings.models if settings else ()
    hosted = {str(model.name): model.hosted for model in models if model.hosted}
    bill = make_bill(db, _period(db, options), _axes(options), hosted=hosted, price=hosted_price)
    if options.json:
        streams.say_json(render.as_json(bill))
    elif options.csv:
        render.as_csv(bill, streams.stdout)
    else:
        for line in render.as_text(bill):
            streams.say(line)
    return 0


def _explain(db: sqlite3.Connection, options: argparse.Namespace, streams: Streams) -> int:
    if options.at is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST, "--explain needs --at TIME", hint="--at 2026-11-24T10:30:00Z"
        )
    found = explain.explain(db, options.explain, instant(options.at))
    if options.json:
        streams.say_json([explain.as_json(one) for one in found])
    else:
        for one in found:
            for line in explain.as_text(one):
                streams.say(line)
    return 0


def _period(db: sqlite3.Connection, options: argparse.Namespace) -> Period:
    if options.period is not None:
        if options.begin or options.end:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST, "give --period or --from and --to, not both"
            )
        return period(options.period)
    last_us = last_instant(db)
    if options.begin is None and options.end is None:
        return month_of(max(last_us - 1, 0))
    begin_us = instant(options.begin) if options.begin else 0
    end_us = instant(options.end) if options.end else max(last_us, begin_us + 1)
    return between(begin_us, end_us)


def _axes(options: argparse.Namespace) -> list[Axis]:
    names = [name for name in (options.by or DEFAULT_AXES).split(",") if name]
    unknown = [name for name in names if name not in list(Axis)]
    if unknown:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"--by: no axis {', '.join(unknown)}",
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
